//! Answers other than good ones (jobs spec 4.3).

use alloc::string::{String, ToString as _};

use crate::error::Reason;
use crate::wire::reason::{container_of, reason};

/// The meaning of an answer that is not a good one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is at fault: whoever made it gets status and text, and nobody else is asked.
    Caller {
        /// The container's status.
        status: u16,
        /// The container's words.
        text: String,
    },
    /// Others may do it.
    Other {
        /// Whether the container may have done the work all the same: then others may do it only with leave.
        may_have_run: bool,
        /// The grounds.
        grounds: Grounds,
    },
}

/// Grounds for asking others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// The orchestrator has no room, or no such container.
    Busy,
    /// The orchestrator counts less money than the job needs.
    Balance,
    /// The orchestrator does not take the signature.
    Signature,
    /// The orchestrator does not take the payment.
    Payment,
    /// The container took longer than it may.
    Timeout,
    /// The orchestrator lost its container.
    Container,
    /// Any other, by its status.
    Status(u16),
}

/// Says what an answer with a status from 300 on means.
#[must_use]
pub fn judge(status: u16, body: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_end_matches(['\r', '\n']);
    let other = |may_have_run, grounds| Verdict::Other {
        may_have_run,
        grounds,
    };
    match (status, reason(text)) {
        (400 | 402, Reason::Balance) => other(false, Grounds::Balance),
        (400 | 403, Reason::Signature) => other(false, Grounds::Signature),
        (400 | 503, Reason::Capacity) => other(false, Grounds::Busy),
        (402, _) => other(false, Grounds::Payment),
        (408 | 429, _) => other(false, Grounds::Status(status)),
        (400..=499, _) => Verdict::Caller {
            status,
            text: text.to_string(),
        },
        // In between, somebody lost the orchestrator that has the job.
        (502, _) => other(true, Grounds::Status(status)),
        (504, _) => other(true, Grounds::Timeout),
        (500, _) => match container_of(text) {
            None => other(false, Grounds::Status(status)),
            Some(container) if container.timed_out => other(true, Grounds::Timeout),
            Some(container) => other(container.reached, Grounds::Container),
        },
        _ => other(false, Grounds::Status(status)),
    }
}
