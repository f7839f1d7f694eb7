//! Failures as an application sees them, in one line each.

use std::io;
use std::sync::Arc;

use livepeer_core::handshake::Rejection;
use livepeer_core::http::{BadUrl, Url};
use livepeer_core::job::batch::Failed;
use livepeer_core::job::live::Ending;
use livepeer_core::job::{app, byoc, runner};
use livepeer_core::pool::{self, Tried};
use livepeer_core::trickle::Seq;
use livepeer_core::wire::WireError;
use livepeer_core::wire::app::BadPath;
use livepeer_core::wire::batch::BadRequest;
use livepeer_core::{Advice, Failure, Misuse};
use livepeer_media::InputError;

use super::found::Discovered;

/// The reason why a call failed. Its text says all in one line; [`source`](std::error::Error::source) is the typed
/// cause, if there is one, and [`Error::advice`] says what helps.
#[doc(alias = "LivepeerGatewayError")]
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text of the settings is not a URL.
    #[error("{text:?} is {why}")]
    Url {
        /// The text as given.
        text: String,
        /// The reason.
        why: BadUrl,
    },
    /// A token, parameters or another text of the settings cannot be read.
    #[error("{0}")]
    Input(#[from] WireError),
    /// The settings lack something, or contradict each other.
    #[error("{0}")]
    Options(&'static str),
    /// No orchestrator was named, and the places that were asked know none.
    #[error("no orchestrator was found{}", .0.why())]
    NothingFound(Box<Discovered>),
    /// No orchestrator took the job; why each did not, in the order of asking.
    #[doc(alias = "NoOrchestratorAvailableError")]
    #[doc(alias = "OrchestratorRejection")]
    #[error("no orchestrator took the job ({} tried){}", .0.len(), list(.0))]
    NoOrchestrator(Vec<Tried>),
    /// The job ran, and was lost with the last orchestrator that would take it; why each did not, or failed.
    #[error("no orchestrator is left for the job ({} tried){}", .0.len(), list(.0))]
    AllFailed(Vec<Tried>),
    /// The orchestrator answered and does not fit.
    #[error("orchestrator {0} does not fit: {1}")]
    Rejected(Url, #[source] Box<Rejection>),
    /// A peer failed, or our own key holder or store.
    #[doc(alias = "PaymentError")]
    #[error("{0}")]
    Failed(#[source] Box<Failure>),
    /// The request of a batch job is no good; nobody was asked.
    #[error("{0}")]
    Request(#[from] BadRequest),
    /// A batch job failed.
    #[error("{0}")]
    Batch(#[source] Box<Failed>),
    /// The order of a job for a container is no good; nobody was asked.
    #[error("{0}")]
    Order(#[from] byoc::BadOrder),
    /// A job for a container failed.
    #[error("{0}")]
    Byoc(Box<byoc::Failed>),
    /// The path of a request does not reach an app as it was written.
    #[error("{0}")]
    Path(#[from] BadPath),
    /// No app was rented, or nothing came of it.
    #[doc(alias = "NoRunnerAvailableError")]
    #[doc(alias = "RunnerRejection")]
    #[error("{0}")]
    App(Box<app::Failed>),
    /// The runner that is to be registered is no good; nobody was asked.
    #[error("{0}")]
    Runner(#[from] runner::Invalid),
    /// The wish of a runner about its session is no good; nobody was asked.
    #[error("{0}")]
    Session(#[from] runner::BadAsk),
    /// The answer of an app is larger than the caller takes.
    #[error("the answer is larger than {limit} bytes: read it as a stream, or allow more")]
    AnswerTooLarge {
        /// The most bytes that the caller takes.
        limit: usize,
    },
    /// The call does not fit what was called before.
    #[error("{0}")]
    Misuse(#[from] Misuse),
    /// The store cannot be read: which nonces an own key has used is not known, and nothing may be paid.
    #[error("the store cannot be read: {0}")]
    Store(#[source] Arc<io::Error>),
    /// The input cannot be read.
    #[error("the input cannot be read: {0}")]
    Read(#[source] Arc<io::Error>),
    /// The input cannot be cut.
    #[error("{0}")]
    Ts(#[from] InputError),
    /// A segment of the output is too large to be collected.
    #[error("segment {seq} of the output is larger than {limit} bytes")]
    SegmentTooLarge {
        /// The number of the segment.
        seq: Seq,
        /// The most bytes that are collected.
        limit: usize,
    },
    /// The job has ended.
    #[error("the job has ended: {0}")]
    Ended(Over),
    /// The session with an orchestrator was closed.
    #[error("the session was closed")]
    Closed,
}

/// The way in which a job ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Over {
    /// The application stopped it.
    #[error("it was stopped")]
    Stopped,
    /// Input and output are complete.
    #[error("its output is complete")]
    Complete,
    /// The orchestrator could not go on, and there is no other.
    #[error("no other orchestrator took it")]
    NobodyElse,
}

impl Error {
    /// The end of a job that ran. With one orchestrator its failure says all.
    pub(super) fn of_ending(ending: &Ending, tried: &[Tried]) -> Self {
        match (ending, tried) {
            (Ending::Stopped, _) => Self::Ended(Over::Stopped),
            (Ending::Finished, _) => Self::Ended(Over::Complete),
            (Ending::Failed(failure), [] | [_]) => Self::from(failure.clone()),
            // Whoever was tried before has nothing to do with it.
            (Ending::Failed(failure), _) if failure.who.is_ours() => Self::from(failure.clone()),
            (Ending::NoOrchestrator, []) => Self::Ended(Over::NobodyElse),
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

    /// Advice on what to do next; `None` where nothing is wrong, since what ended had come to its end.
    ///
    /// [`Advice::Stop`]: a person has to change something. [`Advice::Retry`]: the same may work later.
    /// [`Advice::GoElsewhere`]: another orchestrator may do.
    #[must_use]
    pub fn advice(&self) -> Option<Advice> {
        Some(match self {
            Self::Failed(failure) => failure.advice(),
            Self::NoOrchestrator(_) | Self::AllFailed(_) | Self::NothingFound(_) => Advice::Retry,
            Self::Rejected(..) => Advice::GoElsewhere,
            Self::Batch(failed) => match &**failed {
                Failed::Ours(failure) => failure.advice(),
                Failed::Caller { .. } | Failed::NoMatch { .. } => Advice::Stop,
                _ => Advice::Retry,
            },
            Self::Byoc(failed) => match &**failed {
                byoc::Failed::Ours(failure) => failure.advice(),
                byoc::Failed::Caller { .. } => Advice::Stop,
                _ => Advice::Retry,
            },
            Self::App(failed) => match &**failed {
                app::Failed::Ours(failure) => failure.advice(),
                _ => Advice::Retry,
            },
            Self::Url { .. }
            | Self::Request(_)
            | Self::Order(_)
            | Self::Path(_)
            | Self::Runner(_)
            | Self::Session(_)
            | Self::AnswerTooLarge { .. }
            | Self::Input(_)
            | Self::Options(_)
            | Self::Misuse(_)
            | Self::Store(_)
            | Self::Read(_)
            | Self::Ts(_)
            | Self::SegmentTooLarge { .. } => Advice::Stop,
            Self::Ended(_) | Self::Closed => return None,
        })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        Self::Batch(Box::new(failed))
    }
}

impl From<byoc::Failed> for Error {
    fn from(failed: byoc::Failed) -> Self {
        Self::Byoc(Box::new(failed))
    }
}

impl From<app::Failed> for Error {
    fn from(failed: app::Failed) -> Self {
        Self::App(Box::new(failed))
    }
}

fn list(tried: &[Tried]) -> String {
    tried.iter().map(|one| format!("; {one}")).collect()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use livepeer_core::error::{Cause, Party};

    use super::*;

    #[test]
    fn an_error_names_its_cause_and_says_what_helps() {
        let failure = Failure {
            who: Party::Store,
            cause: Cause::TimedOut {
                doing: "a record",
                after: std::time::Duration::from_secs(1),
            },
        };
        let error = Error::from(failure.clone());
        assert_eq!(error.to_string(), failure.to_string());
        let source = error.source().expect("the failure");
        assert_eq!(source.to_string(), failure.to_string());
        assert_eq!(error.advice(), Some(failure.advice()));
        let read = Error::Read(Arc::new(io::Error::other("the disk is gone")));
        assert_eq!(
            read.to_string(),
            "the input cannot be read: the disk is gone"
        );
        assert!(read.source().is_some());
        assert_eq!(Error::Ended(Over::Complete).advice(), None);
    }
}
