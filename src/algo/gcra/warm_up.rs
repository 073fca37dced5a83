use std::time::Duration;

/// What the first `warmth` nanoseconds of a warm-up pay, in nanoseconds at the full rate, which is three times the
/// first: the integral of 1/3 + 2/3·t/span, and of 1 after the span.
pub(super) fn worth(warmth: u128, span: Duration) -> u128 {
    let span = span.as_nanos();
    let grown = warmth.min(span);
    (grown * span + grown * grown) / (3 * span) + (warmth - grown)
}

/// How long a warm-up takes to be worth so much: the inverse of [`worth`].
pub(super) fn time_for(worth: u128, span: Duration) -> u128 {
    let span = span.as_nanos();
    let whole = 2 * span / 3;
    if worth >= whole {
        return span + (worth - whole);
    }
    // The least t with t² + span·t ≥ 3·span·worth.
    let square = span * span + 12 * span * worth;
    let root = square.isqrt();
    (root + u128::from(root * root < square) - span).div_ceil(2)
}
