/// The least of the values, until it is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub struct Minimum(Option<f64>);

impl Minimum {
    /// Takes in a value, and gives the least with it.
    pub fn add(&mut self, value: f64) -> f64 {
        let least = self.0.map_or(value, |least| least.min(value));
        self.0 = Some(least);
        least
    }

    /// Forgets all values.
    pub fn reset(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_falls_until_it_is_forgotten() {
        let mut least = Minimum::default();
        assert_eq!(
            [20.0, 5.0, 9.0].map(|value| least.add(value)),
            [20.0, 5.0, 5.0]
        );
        least.reset();
        assert_eq!(least.add(9.0), 9.0);
    }
}
