//! The answers of a search for orchestrators.

use livepeer_core::Failure;
use livepeer_core::discovery::{Event, Origin};
use livepeer_core::wire::listing::{Found, Skipped};

/// The answers of the places that were asked.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// The orchestrators, in order of precedence and each once.
    pub found: Vec<Found>,
    /// Entries left out, and why.
    pub skipped: Vec<(Origin, Skipped)>,
    /// Places that gave no answer, and why.
    pub failed: Vec<(Origin, Failure)>,
}

impl Discovered {
    /// Takes in an event of the search. Returns whether that was all.
    pub(super) fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Found(found) => self.found = found,
            Event::Nothing(_) => {}
            Event::Skipped(origin, skipped) => {
                self.skipped.push((origin, skipped));
                return false;
            }
            Event::SourceFailed(origin, failure) => {
                self.failed.push((origin, failure));
                return false;
            }
            _ => return false,
        }
        true
    }

    /// The reasons for what is missing, each after a semicolon.
    #[must_use]
    pub fn why(&self) -> String {
        let failed = self.failed.iter();
        let failed = failed.map(|(origin, failure)| format!("; {origin}: {failure}"));
        let skipped = self.skipped.iter();
        let skipped = skipped.map(|(origin, skipped)| format!("; {origin}, {skipped}"));
        failed.chain(skipped).collect()
    }
}
