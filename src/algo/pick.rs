//! Power of two choices.
//!
//! Of two instances drawn at random the one with the lesser load wins: nearly as even as asking all of them, at the
//! cost of asking two (Mitzenmacher 2001).
//!
//! With different weights the two are drawn in proportion to them, each from all, from Vose's alias table. Were the
//! draw even and only the load divided by the weight, the light ones would starve whenever little is under way.

use super::Rng;

/// The instances to choose from: how many, and how likely each is drawn.
#[derive(Clone, Debug)]
pub struct Choices {
    len: usize,
    /// `None` if all weights are equal.
    table: Option<Box<[Slot]>>,
}

/// One slot of the alias table: itself up to `keep`, else its alias.
#[derive(Clone, Copy, Debug)]
struct Slot {
    keep: f64,
    alias: u32,
}

impl Choices {
    /// Choices with these weights. One of weight 0 is never drawn, unless all are 0; then all are alike.
    pub fn new(weights: &[u32]) -> Self {
        let uneven = weights.windows(2).any(|pair| pair[0] != pair[1]);
        Self {
            len: weights.len(),
            table: uneven.then(|| alias_table(weights)),
        }
    }

    /// The one of two `eligible` draws with the lesser `load`; if equal, either.
    ///
    /// A draw of which only one is eligible gives that one. If neither is, it is drawn again, four times at most; then
    /// all are asked. `None` if nobody is eligible.
    pub fn pick(
        &self,
        rng: &mut impl Rng,
        load: impl Fn(usize) -> f64,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        for _ in 0..=REDRAWS {
            let (a, b) = self.draw_two(rng);
            match (eligible(a), eligible(b)) {
                (true, true) => return Some(if load(b) < load(a) { b } else { a }),
                (true, false) => return Some(a),
                (false, true) => return Some(b),
                (false, false) => {}
            }
        }
        // From a random start, so that equals take turns.
        let start = rng.below(self.len);
        (0..self.len)
            .map(|step| (start + step) % self.len)
            .filter(|&index| eligible(index))
            .min_by(|&a, &b| load(a).total_cmp(&load(b)))
    }

    fn draw_two(&self, rng: &mut impl Rng) -> (usize, usize) {
        match &self.table {
            Some(table) => (draw(table, rng), draw(table, rng)),
            None if self.len == 1 => (0, 0),
            None => rng.two_below(self.len),
        }
    }
}

fn draw(table: &[Slot], rng: &mut impl Rng) -> usize {
    let index = rng.below(table.len());
    let slot = table[index];
    if rng.unit() < slot.keep {
        index
    } else {
        slot.alias as usize
    }
}

/// Vose 1991: every slot holds the mean weight, filled by itself and at most one other.
fn alias_table(weights: &[u32]) -> Box<[Slot]> {
    let sum: f64 = weights.iter().copied().map(f64::from).sum();
    let scale = weights.len() as f64 / sum;
    let mut left: Vec<f64> = weights.iter().map(|&w| f64::from(w) * scale).collect();
    let mut table: Box<[Slot]> = (0..weights.len())
        .map(|index| Slot {
            keep: 1.0,
            alias: index as u32,
        })
        .collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&index| left[index] < 1.0);
    // A rounding error may leave either list over; those slots keep themselves.
    while let (Some(under), Some(&over)) = (small.pop(), large.last()) {
        table[under] = Slot {
            keep: left[under],
            alias: over as u32,
        };
        left[over] -= 1.0 - left[under];
        if left[over] < 1.0 {
            large.pop();
            small.push(over);
        }
    }
    table
}

/// With half of them ineligible, a thousandth of the picks ask all (0.25^5).
const REDRAWS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::Rng;
    use proptest::prelude::*;

    struct SplitMix(u64);

    impl Rng for SplitMix {
        fn next_u64(&mut self) -> u64 {
            // SplitMix64, Steele et al. 2014.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    fn count(weights: &[u32], load: impl Fn(usize) -> f64 + Copy, picks: usize) -> Vec<usize> {
        let choices = Choices::new(weights);
        let mut rng = SplitMix(7);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[choices.pick(&mut rng, load, |_| true).expect("one")] += 1;
        }
        counts
    }

    #[test]
    fn equal_loads_share_evenly() {
        for count in count(&[1; 10], |_| 1.0, 100_000) {
            assert!(count.abs_diff(10_000) < 500, "{count}");
        }
    }

    #[test]
    fn the_least_loaded_wins_whenever_drawn_and_the_most_loaded_never() {
        // Of n, the one of rank r from below beats n - 1 - r others: its share is 2 (n - 1 - r) / (n (n - 1)).
        let counts = count(&[1; 5], |index| index as f64, 100_000);
        for (rank, count) in counts.into_iter().enumerate() {
            assert!(count.abs_diff((4 - rank) * 10_000) < 500, "{rank}: {count}");
        }
    }

    #[test]
    fn idle_instances_are_drawn_by_weight() {
        let counts = count(&[1, 3, 0, 6], |_| 1.0, 100_000);
        for (count, expected) in counts.into_iter().zip([10_000_usize, 30_000, 0, 60_000]) {
            assert!(count.abs_diff(expected) < 600, "{count} for {expected}");
        }
    }

    #[test]
    fn weights_of_0_alone_are_alike() {
        let counts = count(&[0, 0], |_| 1.0, 10_000);
        assert!(counts[0].abs_diff(5_000) < 300, "{counts:?}");
    }

    #[test]
    fn nobody_is_picked_from_nobody() {
        let pick = Choices::new(&[]).pick(&mut SplitMix(1), |_| 1.0, |_| true);
        assert_eq!(pick, None);
    }

    proptest! {
        #[test]
        fn the_pick_is_eligible_and_there_is_one_whenever_someone_is(
            members in prop::collection::vec((0_u32..4, any::<bool>(), 0_u8..5), 1..40),
            seed: u64,
        ) {
            let weights: Vec<u32> = members.iter().map(|member| member.0).collect();
            let eligible = |index: usize| members[index].1;
            let load = |index: usize| f64::from(members[index].2);
            let pick = Choices::new(&weights).pick(&mut SplitMix(seed), load, eligible);
            match pick {
                Some(index) => prop_assert!(eligible(index)),
                None => prop_assert!((0..members.len()).all(|index| !eligible(index))),
            }
        }

        #[test]
        fn the_alias_table_gives_each_its_weight(weights in prop::collection::vec(0_u32..1_000, 2..50)) {
            let sum: u32 = weights.iter().sum();
            prop_assume!(sum > 0);
            let table = alias_table(&weights);
            let mut chance = vec![0.0; weights.len()];
            for (index, slot) in table.iter().enumerate() {
                chance[index] += slot.keep;
                chance[slot.alias as usize] += 1.0 - slot.keep;
            }
            for (chance, &weight) in chance.iter().zip(&weights) {
                let expected = f64::from(weight) * weights.len() as f64 / f64::from(sum);
                prop_assert!((chance - expected).abs() < 1e-9, "{chance} for {expected}");
            }
        }
    }
}
