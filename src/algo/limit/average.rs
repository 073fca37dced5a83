/// An exponential average that begins as a plain mean.
///
/// The mean of the first values, `warm_up` of them, and from then on each value weighs `2 / (window + 1)`.
#[derive(Clone, Debug)]
pub struct Average {
    weight: f64,
    warm_up: u32,
    count: u32,
    value: f64,
}

impl Average {
    /// An average over about the last `window` values; without a `warm_up` it starts from zero.
    pub fn new(window: u32, warm_up: u32) -> Self {
        Self {
            weight: 2.0 / (f64::from(window) + 1.0),
            warm_up,
            count: 0,
            value: 0.0,
        }
    }

    /// Takes in a value, and gives the average with it.
    pub fn add(&mut self, value: f64) -> f64 {
        let weight = if self.count < self.warm_up {
            self.count += 1;
            1.0 / f64::from(self.count)
        } else {
            self.weight
        };
        self.value += (value - self.value) * weight;
        self.value
    }

    /// Makes `value` the average, past its warm-up.
    pub fn set(&mut self, value: f64) {
        self.count = self.warm_up;
        self.value = value;
    }

    /// The average; 0 before the first value.
    pub fn value(&self) -> f64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_mean_at_first_and_then_weighs_the_latest() {
        let mut average = Average::new(100, 10);
        for i in 0..10_u32 {
            let expected = 10.0 + f64::from(i) / 2.0;
            assert!((average.add(f64::from(10 + i)) - expected).abs() < 1e-9);
        }
        assert!((average.add(100.0) - 16.193_069).abs() < 1e-6);

        let mut cold = Average::new(5, 0);
        cold.add(100.0);
        assert!((cold.add(50.0) - 38.888_889).abs() < 1e-6);
    }
}
