//! The reference's classes of errors of batch jobs (handshake spec 14).

/// The reference's reaction to an error of a batch job, by its text (handshake spec 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchError<'a> {
    /// Try the same orchestrator again: its ticket parameters were stale.
    RetrySame,
    /// Another session; nothing is wrong with this one.
    OtherSession,
    /// The job itself is wrong; these words are for its owner.
    BadRequest(&'a str),
    /// Another orchestrator; this one is suspended.
    Suspend,
}

/// Sorts an error of a batch job as the reference does. It takes `OrchestratorCapped` for a fault, which it is
/// not: see [`reason`](livepeer_core::wire::reason).
#[must_use]
pub(crate) fn batch_error(text: &str) -> BatchError<'_> {
    let lower = text.to_ascii_lowercase();
    if lower.contains("ticketparams expired") {
        BatchError::RetrySame
    } else if lower.contains("invalid ticket sendernonce")
        || lower.contains("insufficient capacity")
    {
        BatchError::OtherSession
    } else if let Some((_, detail)) = text.split_once("returned 400") {
        BatchError::BadRequest(detail.trim_start_matches([':', ' ']))
    } else {
        BatchError::Suspend
    }
}
