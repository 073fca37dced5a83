use std::collections::VecDeque;

/// How two figures move together over the last so many pairs.
#[derive(Clone, Debug)]
pub struct Correlation {
    size: usize,
    warm_up: usize,
    pairs: VecDeque<(f64, f64)>,
}

/// What a [`Correlation`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Together {
    /// Pearson's coefficient, from -1 to 1. 0 where nothing can be said: few pairs, or one figure hardly moves.
    pub(super) coefficient: f64,
    /// How much the second figure varies, as a share of its mean.
    pub(super) variation: f64,
}

impl Correlation {
    /// Over the last `size` pairs; silent until there are `warm_up` of them.
    pub fn new(size: usize, warm_up: usize) -> Self {
        Self {
            size: size.max(2),
            warm_up,
            pairs: VecDeque::new(),
        }
    }

    /// Takes in a pair, and gives the coefficient from -1 to 1; 0 where nothing can be said.
    pub fn add(&mut self, x: f64, y: f64) -> f64 {
        self.take(x, y).coefficient
    }

    pub(super) fn take(&mut self, x: f64, y: f64) -> Together {
        if self.pairs.len() == self.size {
            self.pairs.pop_front();
        }
        self.pairs.push_back((x, y));
        if self.pairs.len() < self.warm_up.max(2) {
            return Together::default();
        }
        let n = self.pairs.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.pairs.iter().map(of).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for (x, y) in &self.pairs {
            let (dx, dy) = (x - mean_x, y - mean_y);
            xx += dx * dx / n;
            yy += dy * dy / n;
            xy += dx * dy / n;
        }
        let variation = yy.sqrt() / mean_y;
        let coefficient = if xx.sqrt() / mean_x < LEAST_VARIATION || variation < LEAST_VARIATION {
            0.0
        } else {
            xy / (xx.sqrt() * yy.sqrt())
        };
        Together {
            coefficient,
            variation,
        }
    }
}

/// What varies by less than a hundredth is taken as constant.
const LEAST_VARIATION: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_for_what_rises_together_and_minus_one_for_what_falls() {
        let mut rising = Correlation::new(50, 10);
        let mut falling = Correlation::new(50, 10);
        for i in 1..=9 {
            assert_eq!(
                rising.add(f64::from(i), f64::from(2 * i)),
                0.0,
                "warming up"
            );
            falling.add(f64::from(i), f64::from(100 - i));
        }
        assert!((rising.add(10.0, 20.0) - 1.0).abs() < 1e-9);
        assert!((falling.add(10.0, 90.0) + 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_hardly_moves_says_nothing_and_old_pairs_are_forgotten() {
        let mut flat = Correlation::new(5, 2);
        for i in 0..10 {
            assert_eq!(flat.add(f64::from(i) + 1.0, 100.0), 0.0);
        }
        let mut turned = Correlation::new(3, 2);
        for (x, y) in [(1.0, 9.0), (2.0, 7.0), (3.0, 5.0), (4.0, 6.0), (5.0, 7.0)] {
            turned.add(x, y);
        }
        assert!((turned.add(6.0, 8.0) - 1.0).abs() < 1e-9);
    }
}
