//! Verdicts on an orchestrator's refusal: whose turn it is then (jobs spec 2.4).

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use serde_json::Value;

use crate::error::Reason;
use crate::pipeline::Pipeline;
use crate::wire::reason;

/// At most this many characters of a peer's words reach a client.
pub const MAX_CLIENT_TEXT: usize = 512;

/// The consequence of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is at fault, so it would be elsewhere too. Nobody else is asked, and nobody is blamed.
    Caller {
        /// Why, in words fit for a client.
        text: String,
        /// Whether the runner said so, not the orchestrator.
        runner: bool,
    },
    /// Ticket parameters are stale: the same orchestrator again with fresh info, a few times at most.
    Refresh,
    /// Credentials were refused: the same orchestrator once more with fresh info, then others.
    Renew,
    /// No capacity: others, without blame.
    Busy,
    /// Nonces clash: others, without blame.
    Nonce,
    /// The orchestrator has given up this kind of job: others, without blame, and none of the sort here again.
    Gone,
    /// Others are to be asked.
    Other {
        /// Whether this orchestrator is to be left alone for a while.
        suspend: bool,
        /// Grounds for leaving it.
        grounds: Grounds,
    },
}

/// Grounds for leaving an orchestrator for another one, by what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// The balance does not cover the work.
    Balance,
    /// The credentials or the payment are refused.
    Credentials,
    /// The price has risen.
    Price,
    /// That status, and nothing that is known better.
    Status(u16),
}

/// Judges an answer with a status other than 200. `stream` is whether the answer was to be a stream.
#[must_use]
pub fn judge(pipeline: Pipeline, stream: bool, status: u16, body: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let other = |suspend, grounds| Verdict::Other { suspend, grounds };
    let failed = other(true, Grounds::Status(status));
    match status {
        400 => match reason::reason(text) {
            Reason::ParamsExpired | Reason::RecipientRand => Verdict::Refresh,
            Reason::Nonce => Verdict::Nonce,
            Reason::Capacity => Verdict::Busy,
            Reason::Balance => other(true, Grounds::Balance),
            Reason::AuthToken | Reason::Signature => other(true, Grounds::Credentials),
            Reason::PriceDoubled => other(true, Grounds::Price),
            Reason::PayerFunds | Reason::PayerUnlocking | Reason::PayerLimits => {
                // The payer's own affair, and the same everywhere.
                other(false, Grounds::Credentials)
            }
            Reason::Other if !reason::is_about_payment(text) => Verdict::Caller {
                text: client_text(&words(text)),
                runner: false,
            },
            _ => other(true, Grounds::Credentials),
        },
        403 => Verdict::Renew,
        410 => Verdict::Gone,
        // Capacity, whether it is the orchestrator's word or that of a proxy before it.
        429 | 503 => Verdict::Busy,
        500 => match reason::runner_refusal(text) {
            Some((400 | 413 | 415 | 422, said)) => Verdict::Caller {
                text: client_text(&words(said)),
                runner: true,
            },
            Some(_) => failed,
            None => match reason::runner_status(text) {
                Some(code @ (400 | 413 | 415 | 422)) if pipeline == Pipeline::Llm && stream => {
                    Verdict::Caller {
                        text: format!("the runner refused the request with status {code}"),
                        runner: true,
                    }
                }
                _ if reason::reason(text) == Reason::Capacity => Verdict::Busy,
                _ => failed,
            },
        },
        _ => failed,
    }
}

/// The words of a refusal: those inside of JSON in one of the shapes that runners and gateways write, or the text.
fn words(text: &str) -> String {
    fn found(value: &Value) -> Option<String> {
        let field = |name| match value.get(name)? {
            Value::String(text) => Some(text.clone()),
            nested => found(nested),
        };
        match value {
            Value::Array(entries) => {
                let all: alloc::vec::Vec<_> = entries.iter().filter_map(found).collect();
                (!all.is_empty()).then(|| all.join("; "))
            }
            Value::Object(_) => ["detail", "error", "msg", "message"]
                .into_iter()
                .find_map(field),
            _ => None,
        }
    }
    // Bounded: whoever reads answers cuts what is no success at 64 KiB, and serde_json stops at 128 levels.
    let inside = serde_json::from_str(text).ok();
    inside
        .as_ref()
        .and_then(found)
        .unwrap_or_else(|| text.into())
}

/// A peer's words as a client may read them: short, in one line, and without the private addresses of a runner.
#[must_use]
pub fn client_text(text: &str) -> String {
    let text = text.trim_start_matches([':', ' ']).trim();
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_CLIENT_TEXT)
        .collect();
    let breaks = |c: char| " \"'()[]<>,".contains(c);
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(breaks) {
        let bare = word.trim_end_matches(breaks);
        shown.push_str(if is_private(bare) { "…" } else { bare });
        shown.push_str(&word[bare.len()..]);
    }
    shown
}

/// Whether a word is an address that means nothing outside: an IP address, or the name of a machine without a dot.
fn is_private(word: &str) -> bool {
    let (is_url, rest) = match word.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, word),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.trim_end_matches([':', '.', ';']);
    let is_address = |host: &str| host.parse::<IpAddr>().is_ok();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    is_address(host) || is_address(name) || is_url && !name.contains('.')
}
