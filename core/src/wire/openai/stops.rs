//! Stop strings, looked for across the borders of chunks: the runner knows none.

use alloc::string::String;
use alloc::vec::Vec;

/// A text that comes in pieces and ends before the first stop string. Of two that overlap, the one that ends first
/// counts, so that the borders of the pieces change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stops {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string: shorter than the longest of them.
    held: String,
}

/// The text that may go out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) text: String,
    /// Whether a stop string follows it.
    pub(super) stopped: bool,
}

impl Stops {
    /// Empty strings stop nothing.
    pub(super) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            held: String::new(),
        }
    }

    /// Takes the next piece.
    pub(super) fn pass(&mut self, piece: &str) -> Passed {
        if self.stops.is_empty() {
            return Passed {
                text: piece.into(),
                stopped: false,
            };
        }
        let mut text = core::mem::take(&mut self.held);
        text.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| text.find(stop.as_str()).map(|at| (at + stop.len(), at)))
            .min();
        if let Some((_, at)) = found {
            text.truncate(at);
            return Passed {
                text,
                stopped: true,
            };
        }
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let mut from = text.len().saturating_sub(longest - 1);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let begins = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let held = text[from..]
            .char_indices()
            .map(|(at, _)| from + at)
            .find(|at| begins(&text[*at..]))
            .unwrap_or(text.len());
        self.held = text.split_off(held);
        Passed {
            text,
            stopped: false,
        }
    }

    /// The text has ended: what was held back may go out.
    pub(super) fn rest(&mut self) -> String {
        core::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, stops: &[&str], step: usize) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).into()).collect();
        let mut all = Stops::new(&stops);
        let (mut out, mut rest) = (String::new(), text);
        while !rest.is_empty() {
            let mut at = step.min(rest.len());
            while !rest.is_char_boundary(at) {
                at += 1;
            }
            let passed = all.pass(&rest[..at]);
            assert!(all.held.len() < 64);
            out.push_str(&passed.text);
            if passed.stopped {
                return (out, true);
            }
            rest = &rest[at..];
        }
        out.push_str(&all.rest());
        (out, false)
    }

    #[test]
    fn the_borders_of_chunks_change_nothing() {
        for (text, stops, before, stopped) in [
            (
                "Step 1. Done\nObservation: x",
                &["\nObservation:"][..],
                "Step 1. Done",
                true,
            ),
            ("aab", &["ab"], "a", true),
            ("abcdef", &["abcdef", "c"], "ab", true),
            ("aaaa", &["aaaaa"], "aaaa", false),
            ("größer", &["ß"], "grö", true),
            ("größ", &["ßen"], "größ", false),
            ("text", &[""], "text", false),
            ("text", &[], "text", false),
            ("stop", &["stop"], "", true),
        ] {
            for step in 1..=text.len() {
                assert_eq!(
                    whole(text, stops, step),
                    (before.into(), stopped),
                    "{text:?} by {step}"
                );
            }
        }
    }
}
