//! Failures as an application sees them, in one line each.

use livepeer_core::handshake::Rejection;
use livepeer_core::http::{BadUrl, Url};
use livepeer_core::job::live::Ending;
use livepeer_core::pool::{self, Tried};
use livepeer_core::wire::WireError;
use livepeer_core::{Advice, Failure, Misuse};

/// The reason why a call failed, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text of the configuration is not a URL.
    #[error("{text:?} is {why}")]
    Url {
        /// The text as given.
        text: String,
        /// The reason.
        why: BadUrl,
    },
    /// A token, parameters or another text of the configuration cannot be read.
    #[error(transparent)]
    Input(#[from] WireError),
    /// The configuration lacks something.
    #[error("{0}")]
    Missing(&'static str),
    /// No orchestrator took the job; why each did not, in the order of asking.
    #[error("no orchestrator took the job ({} tried){}", .0.len(), list(.0))]
    NoOrchestrator(Vec<Tried>),
    /// The job ran, and was lost with the last orchestrator that would take it; why each did not, or failed.
    #[error("no orchestrator is left for the job ({} tried){}", .0.len(), list(.0))]
    AllFailed(Vec<Tried>),
    /// The orchestrator answered and does not fit.
    #[error("orchestrator {0} does not fit: {1}")]
    Rejected(Url, Box<Rejection>),
    /// A peer failed, or our own key holder or store.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// The call does not fit what was called before.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The job has ended.
    #[error("the job has ended: {0}")]
    Ended(String),
}

impl Error {
    /// The end of a job that ran. With one orchestrator its failure says all.
    pub(super) fn of_ending(ending: &Ending, tried: &[Tried]) -> Self {
        match (ending, tried) {
            (Ending::Stopped, _) => Self::Ended("it was stopped".into()),
            (Ending::Finished, _) => Self::Ended("its output is complete".into()),
            (Ending::Failed(failure), [] | [_]) => Self::from(failure.clone()),
            // Whoever was tried before has nothing to do with it.
            (Ending::Failed(failure), _) if failure.who.is_ours() => Self::from(failure.clone()),
            (Ending::NoOrchestrator, []) => Self::Ended("no other orchestrator took it".into()),
            (
                Ending::NoOrchestrator,
                [
                    Tried {
                        why: pool::Why::Failed(failure),
                        ..
                    },
                ],
            ) => Self::from(failure.clone()),
            _ => Self::AllFailed(tried.to_vec()),
        }
    }

    /// Advice on what to do next, if the failure has any.
    #[must_use]
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::Failed(failure) => Some(failure.advice()),
            _ => None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

fn list(tried: &[Tried]) -> String {
    tried.iter().map(|one| format!("; {one}")).collect()
}
