//! The little mathematics of choosing, the same to the last bit on every platform.

/// e to the power of `x`. The relative error is below 1e-15; below -745 it is zero, as in the reference.
///
/// `core` has none, and the one of `std` may differ between platforms, on which runs would then differ.
pub(super) fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x < -745.2 {
        return 0.0;
    }
    if x > 709.7 {
        return f64::INFINITY;
    }
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let k = (x / core::f64::consts::LN_2 + if x < 0.0 { -0.5 } else { 0.5 }) as i32;
    let r = (x - f64::from(k) * LN2_HIGH) - f64::from(k) * LN2_LOW;
    // Horner's scheme of the power series; |r| is at most ln(2) / 2.
    let mut sum = 1.0;
    for n in (1..=16).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    // In two steps, for the result may be too small for one.
    let half = k / 2;
    sum * two_to(half) * two_to(k - half)
}

fn two_to(k: i32) -> f64 {
    let biased = u64::try_from(k + 1023).expect("exponents are bounded by the caller");
    f64::from_bits(biased << 52)
}

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
    fn exp_is_that_of_the_books() {
        let mut x = -745.0_f64;
        while x < 709.0 {
            let (ours, theirs) = (exp(x), x.exp());
            let error = if theirs == 0.0 {
                ours
            } else {
                (ours - theirs).abs() / theirs
            };
            // Results with fewer bits than usual have larger relative errors.
            let allowed = if theirs < 1e-300 { 1e-3 } else { 1e-14 };
            assert!(
                error < allowed || (ours - theirs).abs() < 1e-322,
                "{x}: {ours} {theirs}"
            );
            x += 0.377;
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
    }

    #[test]
    fn sqrt_is_that_of_the_books() {
        for x in [1e-12, 0.25, 1.0, 2.0, 3.0, 1e9] {
            assert!((sqrt(x) - x.sqrt()).abs() <= x.sqrt() * 1e-14);
        }
        assert_eq!(sqrt(0.0), 0.0);
    }
}
