/// A source of chance.
pub trait Rng {
    /// 64 bits, each as likely as the other.
    fn next_u64(&mut self) -> u64;

    /// A number in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        // The 53 bits that a double can hold.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `n`, or 0 if `n` is 0.
    ///
    /// Lemire's multiply-shift without the rejection: the bias is below `n / 2^64`.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Two different numbers below `n`.
    ///
    /// # Panics
    ///
    /// If `n` is below 2.
    fn two_below(&mut self, n: usize) -> (usize, usize) {
        assert!(n >= 2, "two different numbers below {n} do not exist");
        let first = self.below(n);
        let second = self.below(n - 1);
        (first, second + usize::from(second >= first))
    }
}

/// A generator of its own state, for draws that a seed repeats: SplitMix64 (Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl<R: Rng + ?Sized> Rng for &mut R {
    fn next_u64(&mut self) -> u64 {
        (**self).next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_below_draws_every_ordered_pair_equally_often() {
        let mut rng = Seeded::new(1);
        let mut seen = [[0_u32; 4]; 4];
        for _ in 0..120_000 {
            let (a, b) = rng.two_below(4);
            seen[a][b] += 1;
        }
        for (a, row) in seen.iter().enumerate() {
            for (b, &count) in row.iter().enumerate() {
                let expected = if a == b { 0 } else { 10_000 };
                assert!(count.abs_diff(expected) < 500, "({a},{b}): {count}");
            }
        }
    }
}
