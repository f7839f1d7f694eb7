//! Runner apps behind an orchestrator: listing, sessions and calls as a client sees them (jobs spec 6), and
//! [registration] as a runner does.
//!
//! The demand for payment with status 402 is a [`Challenge`](super::challenge::Challenge).

pub mod registration;

use alloc::format;
use alloc::string::{String, ToString as _};

use bytes::Bytes;
use serde_json::{Value, json};

use super::error::{WireError, cut};
use super::json::Fields;
use super::runner::Runner;
use crate::http::{Headers, Url, is_of_connection};

/// Where an orchestrator lists its runners.
pub const DISCOVERY_PATH: &str = "/discovery";

/// The longest answer to a reservation that is read.
pub const MAX_SESSION_BYTES: usize = 64 << 10;

/// The header with the runner's name, from an orchestrator to an app.
pub const ROUTE_HEADER: &str = "livepeer-runner-route";
/// The header with the session's name, from an orchestrator to an app.
pub const SESSION_HEADER: &str = "livepeer-session-id";
/// The header with the session's secret, from an orchestrator to an app.
pub const SESSION_TOKEN_HEADER: &str = "livepeer-session-token";
/// The header with the address where an app manages its session.
pub const SESSION_CONTROL_HEADER: &str = "livepeer-session-control";

/// Where the orchestrator lists its runners, with the wishes of who asks. Orchestrators may ignore these.
#[must_use]
pub fn discovery_url<'a>(
    orchestrator: &Url,
    apps: impl IntoIterator<Item = &'a str>,
    gpus: impl IntoIterator<Item = &'a str>,
) -> Url {
    let mut query = String::new();
    let apps = apps.into_iter().map(|app| ("app", app));
    let gpus = gpus.into_iter().map(|gpu| ("gpu", gpu));
    for (name, value) in apps.chain(gpus) {
        let joint = if query.is_empty() { '?' } else { '&' };
        query.push(joint);
        query.push_str(name);
        query.push('=');
        push_escaped(&mut query, value, true);
    }
    orchestrator.child(&format!("discovery{query}"))
}

/// Appends a text with everything escaped that has a meaning in a URL; slashes too, unless they are to stay.
fn push_escaped(out: &mut String, text: &str, slashes: bool) {
    use core::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes everything");
        }
    }
}

/// An orchestrator's list of its runners. Without any it has no list.
#[must_use]
pub fn listing_json(orchestrator: &Url, runners: &[Runner]) -> Bytes {
    let mut entry = json!({"address": orchestrator.to_string()});
    if !runners.is_empty() {
        entry["runners"] = runners.iter().map(Runner::to_json).collect();
    }
    let mut text = Value::Array(alloc::vec![entry]).to_string();
    text.push('\n');
    text.into()
}

/// A session with a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session's name; where something is paid, also that of its balance.
    pub id: String,
    /// Where the app is. Whoever knows it may use it.
    pub app: Url,
    /// Where the session is stopped. Whoever knows it may do so.
    pub control: Url,
}

/// A good answer to a reservation that is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSession {
    /// The session, which may have to be stopped, if the answer names one.
    pub id: Option<String>,
    /// How the answer is wrong.
    pub why: WireError,
}

impl Session {
    const WHAT: &str = "session";

    /// Reads the answer to a reservation at `runner`. Where the app is, is for the runner to say; it may be another host.
    ///
    /// # Errors
    /// If a part is missing or no URL.
    pub fn from_json(body: &[u8], runner: &Url) -> Result<Self, BadSession> {
        let bad = |id: Option<String>, why: String| BadSession {
            id,
            why: WireError::new(Self::WHAT, why),
        };
        let fields = Fields::only(body).map_err(|why| bad(None, why))?;
        let id = fields.text("session_id").map_err(|why| bad(None, why))?;
        let id = Some(id).filter(|id| is_plain(id));
        let url = |name: &str| {
            let wrong = |why: String| bad(id.clone(), format!("{name}: {why}"));
            let text = fields.text(name).map_err(wrong)?;
            if text.is_empty() {
                return Err(wrong("it is missing".into()));
            }
            let text = match text.contains("://") {
                true => text,
                false => format!("https://{text}"),
            };
            let url = Url::parse(&text).map_err(|err| wrong(err.to_string()))?;
            url.named_by(runner).map_err(|err| wrong(err.to_string()))
        };
        let (app, control) = (url("app_url")?, url("control_url")?);
        let id = id.ok_or_else(|| bad(None, "session_id is missing, or no name".into()))?;
        Ok(Self { id, app, control })
    }

    /// The session of that name at `runner`, as every orchestrator lays them out. An answer that was lost said the same.
    #[must_use]
    pub fn at(runner: &Url, id: &str) -> Self {
        let control = runner.child(id);
        Self {
            id: id.into(),
            app: control.child("app"),
            control,
        }
    }

    /// The answer to a reservation.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut text = json!({
            "session_id": self.id,
            "app_url": self.app.to_string(),
            "control_url": self.control.to_string(),
        })
        .to_string();
        text.push('\n');
        text.into()
    }

    /// Where the session is stopped.
    #[must_use]
    pub fn stop_url(&self) -> Url {
        self.control.child("stop")
    }

    /// Where the session is paid for, unless the demand says so itself.
    #[must_use]
    pub fn payment_url(&self) -> Url {
        self.control.child("payment")
    }
}

/// Whether a name stands in a path as it is.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    !name.is_empty() && !matches!(name, "." | "..") && name.bytes().all(plain)
}

/// A path that does not reach an app as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?} would not reach the app as it is: {why}")]
pub struct BadPath {
    path: String,
    why: &'static str,
}

/// The address of `path` inside the app at `app`. Orchestrators escape what is escaped once more, and redirect to what
/// they hold for a plainer path, so only plain ones pass (client-1.0 6.3). A bare `/app` gets its slash: on the redirect to
/// it a request would lose its body.
///
/// # Errors
/// If the path is not plain. The query may be anything.
pub fn app_url(app: &Url, path: &str) -> Result<Url, BadPath> {
    let bad = |why| BadPath {
        path: cut(path).into(),
        why,
    };
    let (plain, query) = match path.split_once('?') {
        Some((plain, query)) => (plain, format!("?{query}")),
        None => (path, String::new()),
    };
    if !path.bytes().all(|b| b.is_ascii_graphic()) || path.contains('#') {
        return Err(bad("it has characters that must be escaped"));
    }
    if plain.contains('%') {
        return Err(bad("it has escapes"));
    }
    let plain = plain.strip_prefix('/').unwrap_or(plain);
    let mut segments = plain.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !last) {
            return Err(bad("it has empty segments, or dots for segments"));
        }
    }
    let (base, own_query) = match app.path().split_once('?') {
        Some((base, query)) => (base, format!("?{query}")),
        None => (app.path(), String::new()),
    };
    let query = if query.is_empty() { own_query } else { query };
    if plain.is_empty() && !base.ends_with("/app") {
        return Ok(app.with_path(&format!("{base}{query}")));
    }
    let base = base.trim_end_matches('/');
    Ok(app.with_path(&format!("{base}/{plain}{query}")))
}

/// Whether an answer is the orchestrator's own, and no app has seen the request: its words for a runner that it does not
/// have, or that takes no more (client-1.0 6.8).
#[must_use]
pub fn is_untouched(status: u16, body: &[u8]) -> bool {
    match status {
        400 | 402 | 404 | 409 | 502 | 503 => {
            super::reason::is_runner_untouched(&super::error_words(body))
        }
        _ => false,
    }
}

/// Whether an answer of an app's address says that its session is over, and not only away for now.
#[must_use]
pub fn is_session_over(status: u16, body: &[u8]) -> bool {
    status == 404 && super::reason::is_session_over(&super::error_words(body))
}

/// Whether a header field goes from a client on to an app: not what names us, pays for us or frames the message.
#[must_use]
pub fn passes(name: &str) -> bool {
    const OURS: [&str; 4] = ["content-length", "expect", "forwarded", "host"];
    !is_of_connection(name)
        && !name.starts_with("livepeer-")
        && !name.starts_with("x-forwarded-")
        && name != "livepeer"
        && !OURS.contains(&name)
}

/// The header fields of a message that [pass](passes).
#[must_use]
pub fn passing(headers: &Headers) -> Headers {
    let mut kept = Headers::new();
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        kept.push_any(name, value);
    }
    kept
}
