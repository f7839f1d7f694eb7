//! Drawing one of several by their weights.

use crate::rng::Rng;

/// Makes weights sum to one. All zero stay as they are.
pub fn normalize(weights: &mut [f64]) {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        for weight in weights {
            *weight /= sum;
        }
    }
}

/// Draws one of those with a weight above zero; `None` if there is none. An only one is not drawn.
#[must_use]
pub fn pick(rng: &mut Rng, weights: &[f64]) -> Option<usize> {
    let mut with_weight = (0..weights.len()).filter(|at| weights[*at] > 0.0);
    match (with_weight.next(), with_weight.next()) {
        (None, _) => return None,
        (Some(only), None) => return Some(only),
        _ => {}
    }
    let sum: f64 = weights.iter().sum();
    let mut left = uniform(rng) * sum;
    let mut last = None;
    for (at, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            last = Some(at);
            if left < *weight {
                break;
            }
            left -= weight;
        }
    }
    last
}

/// A number in [0, 1) with 53 random bits.
fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
