//! Failures of backends in OpenAI's words.

use alloc::format;
use alloc::string::String;

use crate::front::hired::told;
use crate::job::byoc::{Attempt, Failed, Left};
use crate::wire::byoc::Grounds;
use crate::wire::refused::{Code, Refused};

pub(super) const BROKE_OFF: &str = "The backend's answer broke off before its end.";

pub(super) fn broken_off() -> Refused {
    Refused::new(Code::UpstreamStreamBroken, BROKE_OFF)
}

pub(super) fn nobody<'a>(name: &str, attempts: impl Iterator<Item = (String, &'a str)>) -> Refused {
    let mut refused = Refused::no_orchestrator("backend", attempts);
    refused.message = format!("No orchestrator serves the backend of '{name}' now; try again.");
    refused
}

/// The failure of a container's job, in OpenAI's words.
pub(super) fn of_container(failed: &Failed, name: &str) -> Refused {
    let failed_there = |attempts: &[Attempt]| {
        let last = attempts.last().map(|last| &last.left);
        matches!(
            last,
            Some(Left::Refused(Grounds::Status(_) | Grounds::Container) | Left::Broken)
        )
    };
    match failed {
        Failed::Exhausted { attempts, .. } if failed_there(attempts) => Refused::new(
            Code::UpstreamInvalid,
            format!("The backend of '{name}' failed at every orchestrator that was asked."),
        ),
        Failed::NoOrchestrator { attempts } | Failed::Exhausted { attempts, .. } => {
            let each = told(attempts);
            nobody(
                name,
                each.iter().map(|(url, why)| (url.clone(), why.as_str())),
            )
        }
        Failed::Undecided { .. } => Refused::new(
            Code::OutcomeUnknown,
            "No answer came from the backend that has the request; it may have been done.",
        ),
        Failed::Ours(failure) if failure.cause.is_limit() => Refused::new(
            Code::InsufficientQuota,
            "The spending limit of this gateway is reached.",
        ),
        Failed::Ours(_) => Refused::new(
            Code::InternalError,
            "This gateway could not pay for the work; its operator has to look.",
        ),
        Failed::Closed => {
            Refused::new(Code::Draining, "This instance is shutting down; try again.")
        }
        Failed::Caller { .. } | Failed::Broken { .. } => broken_off(),
    }
}
