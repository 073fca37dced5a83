/// The share of newcomers that a queue turns away: none up to `threshold` who wait, then more and more, and all from
/// `longest` on.
///
/// So a queue fills softly, and its length says how much too much there is.
pub fn rejection_rate(waiting: usize, threshold: usize, longest: usize) -> f64 {
    if waiting >= longest {
        return 1.0;
    }
    let over = waiting.saturating_sub(threshold);
    over as f64 / longest.saturating_sub(threshold).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_between_the_threshold_and_the_longest() {
        for (waiting, threshold, longest, expected) in [
            (5, 10, 20, 0.0),
            (11, 10, 20, 0.1),
            (60, 60, 100, 0.0),
            (80, 60, 100, 0.5),
            (100, 60, 100, 1.0),
            (120, 60, 100, 1.0),
            (2, 3, 3, 0.0),
            (3, 3, 3, 1.0),
        ] {
            let rate = rejection_rate(waiting, threshold, longest);
            assert_eq!(rate, expected, "{waiting} of {threshold} to {longest}");
        }
    }
}
