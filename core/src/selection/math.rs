//! The little mathematics of choosing, the same to the last bit on every platform.

/// The square root, for numbers from zero up.
pub(super) fn sqrt(x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    // A guess with half the exponent, then Newton, which doubles the right digits each time.
    let mut root = f64::from_bits((x.to_bits() >> 1) + (1023 << 51));
    for _ in 0..6 {
        root = (root + x / root) / 2.0;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqrt_is_that_of_the_books() {
        for x in [1e-12, 0.25, 1.0, 2.0, 3.0, 1e9] {
            assert!((sqrt(x) - x.sqrt()).abs() <= x.sqrt() * 1e-14);
        }
        assert_eq!(sqrt(0.0), 0.0);
    }
}
