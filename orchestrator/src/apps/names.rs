//! Names that nobody guesses.

use livepeer_core::Rng;

/// Bytes in the letters `a` to `z` and the digits 2 to 7, five bits in each.
pub(super) fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |n: usize| {
        bytes
            .get(n / 8)
            .is_some_and(|byte| byte >> (7 - n % 8) & 1 == 1)
    };
    (0..(bytes.len() * 8).div_ceil(5))
        .map(|letter| {
            let value = (0..5).fold(0, |value, n| value << 1 | usize::from(bit(letter * 5 + n)));
            char::from(LETTERS[value])
        })
        .collect()
}

/// A name of `bytes` random bytes, at most 32.
pub(super) fn random(rng: &mut Rng, bytes: usize) -> String {
    base32(&rng.bytes32()[..bytes.min(32)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_bits_make_a_letter() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(base32(&[0xff; 5]), "77777777");
        let mut rng = Rng::new([1; 32]);
        for (bytes, letters) in [(5, 8), (10, 16), (16, 26), (32, 52)] {
            assert_eq!(random(&mut rng, bytes).len(), letters);
        }
    }
}
