use std::collections::VecDeque;

/// The median of the last values, so that an odd one moves nothing; each value itself until there are enough.
#[derive(Clone, Debug)]
pub struct Median {
    window: usize,
    last: VecDeque<f64>,
}

impl Median {
    /// The median of `window` values; of an even number the higher of the two in the middle.
    ///
    /// # Panics
    ///
    /// If `window` is 0.
    #[track_caller]
    pub fn new(window: usize) -> Self {
        assert!(window > 0, "no values have no median");
        Self {
            window,
            last: VecDeque::with_capacity(window),
        }
    }

    /// Takes in a value, and gives the median with it.
    pub fn add(&mut self, value: f64) -> f64 {
        self.last.push_back(value);
        if self.last.len() < self.window {
            return value;
        }
        let mut sorted: Vec<f64> = self.last.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        self.last.pop_front();
        sorted[self.window / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_value_moves_nothing_once_there_are_enough() {
        let mut median = Median::new(3);
        let got = [5.0, 9.0, 6.0, 900.0, 7.0, 7.0].map(|value| median.add(value));
        assert_eq!(got, [5.0, 9.0, 6.0, 9.0, 7.0, 7.0]);
    }
}
