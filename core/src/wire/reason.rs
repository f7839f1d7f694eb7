//! Error texts of peers, which nothing else reads.

use crate::error::Reason;

/// The known meaning of a peer's error text, whatever its case (payments spec 20, handshake spec 14).
#[must_use]
pub fn reason(text: &str) -> Reason {
    let text = text.to_ascii_lowercase();
    KNOWN
        .iter()
        .find(|(fragment, _)| text.contains(fragment))
        .map_or(Reason::Other, |(_, reason)| *reason)
}

/// Whether a recipient says that it has seen a ticket before: a payment that is sent again was taken the first time.
#[must_use]
pub fn says_already_seen(text: &str) -> bool {
    text.to_ascii_lowercase().contains("already seen")
}

/// Whether a text that is no known [`Reason`] is about the payment, and so not about the request.
pub(super) fn is_about_payment(text: &str) -> bool {
    const ABOUT: [&str; 5] = ["ticket", "payment", "expected price", "sender", "signature"];
    let text = text.to_ascii_lowercase();
    ABOUT.iter().any(|word| text.contains(word))
}

/// The status and the words of a runner, as an orchestrator passes them on (jobs spec 2.4).
pub(super) fn runner_refusal(text: &str) -> Option<(u16, &str)> {
    let (_, rest) = text.split_once("container returned ")?;
    let (status, words) = rest.split_at_checked(3)?;
    Some((status.parse().ok()?, words.trim_start_matches([':', ' '])))
}

/// The status of a runner whose words were lost, as those of a streamed request are.
pub(super) fn runner_status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("unexpected status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// An orchestrator's words about a container that did not answer it (jobs spec 4.3).
pub(super) struct Container {
    /// The work may have begun.
    pub(super) reached: bool,
    /// The time for the work was over.
    pub(super) timed_out: bool,
}

/// The news about a container in an orchestrator's text; `None` if it has none. The container's address in it is nobody
/// else's business.
pub(super) fn container_of(text: &str) -> Option<Container> {
    let text = text.to_ascii_lowercase();
    let (_, why) = text.split_once("job not able to be processed")?;
    let unreached = ["dial tcp", "no such host", "auth token failed"];
    Some(Container {
        reached: !unreached.iter().any(|fragment| why.contains(fragment)),
        timed_out: why.contains("context canceled") || why.contains("deadline exceeded"),
    })
}

/// Whether an orchestrator says that it did not hand a request to a runner (client-1.0 6.8).
pub(super) fn is_runner_untouched(text: &str) -> bool {
    const OWN: [&str; 9] = [
        "invalid live runner payment signer address",
        "runner not found",
        "runner session not found",
        "no capacity available for runner",
        "runner is not single-shot",
        "only persistent runners have sessions",
        "live runner price unavailable",
        "live runners are not supported",
        "dial tcp",
    ];
    let text = text.to_ascii_lowercase();
    OWN.iter().any(|words| text.starts_with(words))
}

/// Whether an orchestrator says that a session is over for good: a runner that it does not find may come back.
pub(super) fn is_session_over(text: &str) -> bool {
    text.to_ascii_lowercase()
        .starts_with("runner session not found")
}

/// Whether an orchestrator says that it has a live runner of that name, which only the secret of that one speaks for.
pub(super) fn is_still_registered(text: &str) -> bool {
    text.to_ascii_lowercase()
        .starts_with("invalid heartbeat authorization")
}

/// The ceiling that a signer names when it refuses a price.
#[must_use]
pub fn named_ceiling(text: &str) -> Option<&str> {
    let number = text.rsplit_once("ceiling ")?.1.trim();
    let digits = |b: u8| b.is_ascii_digit() || b == b'.';
    (!number.is_empty() && number.bytes().all(digits)).then_some(number)
}

/// Fragments in lower case. The first that occurs counts.
const KNOWN: &[(&str, Reason)] = &[
    ("ticketparams expired", Reason::ParamsExpired),
    ("refresh session for remote signer", Reason::ParamsExpired),
    ("invalid ticket sendernonce", Reason::Nonce),
    ("invalid recipientrand", Reason::RecipientRand),
    ("invalid ticket signature", Reason::Signature),
    ("errsegsig", Reason::Signature),
    ("sig check failed", Reason::Signature),
    ("could not verify job creds", Reason::Signature),
    ("expired auth token", Reason::AuthToken),
    ("invalid auth token", Reason::AuthToken),
    ("missing auth token", Reason::AuthToken),
    // Credentials that cannot be read: fresh ones may be.
    ("errorsegencoding", Reason::AuthToken),
    ("exceeds maximum of", Reason::PayerLimits),
    ("> max ticket ev", Reason::PayerLimits),
    ("> max total ticket ev", Reason::PayerLimits),
    ("> max facevalue", Reason::PayerLimits),
    ("ticket facevalue too low", Reason::PayerLimits),
    ("set to unlock soon", Reason::PayerUnlocking),
    ("no sender deposit", Reason::PayerFunds),
    ("no sender reserve", Reason::PayerFunds),
    ("insufficient sender reserve", Reason::SenderReserve),
    ("insufficient balance", Reason::Balance),
    ("inactive in round", Reason::Inactive),
    ("more than doubled", Reason::PriceDoubled),
    ("authentication failed", Reason::Denied),
    ("pixels per unit is 0", Reason::Misconfigured),
    ("orchestratorcapped", Reason::Capacity),
    ("orchestratorbusy", Reason::Capacity),
    ("insufficient capacity", Reason::Capacity),
    ("no capacity available", Reason::Capacity),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_text_is_understood_in_any_case_and_context() {
        for (fragment, meaning) in KNOWN {
            let text = alloc::format!("x: {} y", fragment.to_ascii_uppercase());
            assert_eq!(reason(&text), *meaning, "{text}");
        }
        for text in ["", "boom", "ticket params expired"] {
            assert_eq!(reason(text), Reason::Other, "{text}");
        }
    }

    #[test]
    fn a_reserve_that_is_too_small_for_the_recipient_is_not_a_missing_one() {
        assert_eq!(reason("insufficient sender reserve"), Reason::SenderReserve);
        assert_eq!(reason("no sender reserve"), Reason::PayerFunds);
        let unlocking = "unable to validate sender: deposit and reserve is set to unlock soon";
        assert_eq!(reason(unlocking), Reason::PayerUnlocking);
    }
}
