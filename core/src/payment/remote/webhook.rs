//! Asking somebody else whether a caller may have a payment, or a job signed (payments spec 12.5).

use alloc::format;
use alloc::string::{String, ToString as _};

use crate::http::{Headers, Url};
use crate::money::Price;
use crate::payment::mint::Refusal;
use crate::payment::price::{Ceiling, check_ceilings};
use crate::time::Time;
use crate::units::Unit;
use crate::wire::SignerState;
use crate::wire::signer::{AUTH_ID_HEADER, STATUS_PRICE};
use crate::wire::webhook::WebhookAnswer;

/// The webhook to ask before anything is signed.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Gets a POST for each payment and each job.
    pub url: Url,
    /// Sent along.
    pub headers: Headers,
}

/// Whether the last answer no longer holds.
#[must_use]
pub fn is_due(state: &SignerState, now: Time) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    state.auth_expiry == 0 || now > state.auth_expiry
}

/// Applies the webhook's answer to what is known of the caller; `price` is that of a payment.
///
/// # Errors
/// If the caller may not have it, or the answer is malformed.
pub(super) fn apply(
    status: u16,
    body: &[u8],
    price: Option<&Price>,
    state: &mut SignerState,
) -> Result<WebhookAnswer, Refusal> {
    let broken = |why: String| Refusal::new(500, format!("signer auth webhook: {why}"));
    if status != 200 {
        return Err(broken(format!("HTTP status {status}")));
    }
    let answer = WebhookAnswer::from_json(body).map_err(|err| broken(err.to_string()))?;
    match answer.status {
        200 => {}
        ..=0 => return Err(broken(format!("status {}", answer.status))),
        other => {
            // Final answers only; everything else cannot be sent.
            let status = u16::try_from(other)
                .ok()
                .filter(|status| (200..600).contains(status))
                .unwrap_or(500);
            let message = if answer.reason.is_empty() {
                format!("signer auth rejected request with status {other}")
            } else {
                answer.reason
            };
            return Err(Refusal::new(status, message));
        }
    }
    if let (Some(max), Some(asked)) = (&answer.max_price, price) {
        let price = max
            .parse(Unit::from_signer_type(&state.job_type))
            .map_err(|err| Refusal::new(502, format!("signer auth invalid maxPrice: {err}")))?;
        let ceiling = Ceiling {
            name: "auth webhook maxPrice",
            price,
        };
        check_ceilings(asked.of_one().as_ratio(), [ceiling])
            .map_err(|err| Refusal::new(STATUS_PRICE, err.to_string()))?;
    }
    state.auth_expiry = answer.expiry;
    Ok(answer)
}

/// Settles who the caller is: the first identity of a session stays.
///
/// # Errors
/// If another one turns up.
pub(super) fn identify(
    headers: &Headers,
    answer: Option<&WebhookAnswer>,
    state: &mut SignerState,
) -> Result<(), Refusal> {
    let from_webhook = answer
        .map(|answer| answer.auth_id.as_str())
        .filter(|id| !id.is_empty());
    let id = from_webhook
        .or_else(|| headers.get(AUTH_ID_HEADER))
        .unwrap_or("");
    if id.is_empty() || id == state.auth_id {
        return Ok(());
    }
    if !state.auth_id.is_empty() {
        return Err(Refusal::new(500, "remote signer auth ID changed"));
    }
    state.auth_id = id.into();
    Ok(())
}
