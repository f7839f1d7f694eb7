//! Latency scores: how long a node took for how much work, and the reference's choice by them
//! (handshake spec 9.3, 11.1).

use std::collections::BTreeMap;
use std::time::Duration;

/// A score up to this is faster than real time.
pub(crate) const REAL_TIME: f64 = 1.0;

/// Shorter segments count as this long, or short ones could not be met.
pub(crate) const SEGMENT_FLOOR: Duration = Duration::from_millis(1500);

/// The score of a transcoded segment: everything it took, against how long it plays.
#[must_use]
pub(crate) fn of_segment(took: Duration, segment: Duration) -> f64 {
    took.as_secs_f64() / segment.max(SEGMENT_FLOOR).as_secs_f64()
}

/// The score of any other work: seconds per unit, which is a pixel, a token, a character or a second of sound. Zero
/// units, or fewer, score zero.
#[must_use]
pub(crate) fn per_unit(took: Duration, units: f64) -> f64 {
    if units > 0.0 {
        took.as_secs_f64() / units
    } else {
        0.0
    }
}

/// The score of a generated picture: seconds per pixel and step.
#[must_use]
pub(crate) fn of_picture(took: Duration, pixels: u64, steps: f64) -> f64 {
    per_unit(took, pixels as f64 * steps)
}

/// The steps that a diffusion model takes: asked for, or by default. The distilled models of the SDXL-Lightning
/// family have theirs in the name (`_4step`), whatever is asked for; without one it is 8.
#[must_use]
pub(crate) fn steps(model: &str, asked: Option<u32>, default: u32) -> u32 {
    if model.starts_with("ByteDance/SDXL-Lightning") {
        let named = model
            .rsplit_once('_')
            .and_then(|(_, tail)| tail.split_once("step"))
            .and_then(|(digits, _)| digits.parse().ok());
        return named.unwrap_or(8);
    }
    asked.unwrap_or(default)
}

/// The default steps of pipelines that make pictures.
pub(crate) mod default_steps {
    /// The default steps of text-to-image.
    pub(crate) const TEXT_TO_IMAGE: u32 = 50;
    /// The default steps of image-to-image.
    pub(crate) const IMAGE_TO_IMAGE: u32 = 100;
}

/// A segment that a node works at: since when, and how long it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlight {
    /// Since when.
    pub(crate) age: Duration,
    /// How long it plays.
    pub(crate) plays: Duration,
}

/// Whether a video session that did the last segment may do the next one too (handshake spec 11.1): idle, if it was
/// faster than real time; busy, if its oldest segment is not late yet. `patience` is one, or two on the second
/// look.
#[must_use]
pub(crate) fn may_reuse(score: f64, in_flight: &[InFlight], patience: u32) -> bool {
    let Some(oldest) = in_flight.first() else {
        return score > 0.0 && score <= REAL_TIME;
    };
    let mut allowance = oldest.plays * patience;
    if allowance <= Duration::from_secs(1) {
        allowance = SEGMENT_FLOOR;
    }
    oldest.age < allowance
}

/// The reference's order for video: a good node that is known before one that is not, and that before a bad one.
///
/// Holds the sessions that are free, by their key.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeastLatency<K> {
    unknown: Vec<K>,
    known: BTreeMap<K, f64>,
}

/// The answer of [`LeastLatency::choose`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Choice<K> {
    /// Take this one; it has that score.
    Known(K, f64),
    /// Take one of the unknown ones, by other considerations.
    OneOfTheUnknown,
}

impl<K: Ord + Clone> LeastLatency<K> {
    /// Starts with no free session.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self {
            unknown: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    /// Adds one that did nothing yet.
    pub(crate) fn add(&mut self, key: K) {
        self.unknown.push(key);
    }

    /// Takes one back, with the score of its last work.
    pub(crate) fn complete(&mut self, key: K, score: f64) {
        self.known.insert(key, score);
    }

    /// The unknown ones.
    #[must_use]
    pub(crate) fn unknown(&self) -> &[K] {
        &self.unknown
    }

    /// Chooses the next one; `None` if nobody is free.
    #[must_use]
    pub(crate) fn choose(&self) -> Option<Choice<K>> {
        let best = self
            .known
            .iter()
            .min_by(|a, b| a.1.total_cmp(b.1))
            .map(|(key, score)| Choice::Known(key.clone(), *score));
        match best {
            Some(Choice::Known(_, score)) if score > REAL_TIME && !self.unknown.is_empty() => {
                Some(Choice::OneOfTheUnknown)
            }
            None if self.unknown.is_empty() => None,
            None => Some(Choice::OneOfTheUnknown),
            best => best,
        }
    }

    /// Takes one out, known or not.
    pub(crate) fn remove(&mut self, key: &K) {
        self.known.remove(key);
        self.unknown.retain(|have| have != key);
    }
}
