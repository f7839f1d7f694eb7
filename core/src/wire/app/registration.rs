//! Messages between a runner and the orchestrator that rents it out (jobs spec 6.1, client-1.0 2.8).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SESSION_CONTROL_HEADER, SESSION_HEADER, SESSION_TOKEN_HEADER, push_escaped};
use crate::http::{Headers, Url};
use crate::wire::error::WireError;
use crate::wire::json::Fields;
use crate::wire::live::KEEP_ALIVE;
use crate::wire::runner::{Gpu, MAX_METADATA_BYTES, Mode};

/// Where a runner registers, and says that it lives.
pub const HEARTBEAT_PATH: &str = "/runners/heartbeat";
/// At most this many channels are made at once.
pub const MAX_CHANNELS: usize = 25;
/// How often a runner says that it lives, unless its orchestrator says otherwise.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a silent runner counts as alive.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(20);

/// A price as a runner states it; its orchestrator turns it into wei.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedPrice {
    /// A JSON number.
    pub price: String,
    /// The currency, in small letters.
    pub currency: String,
    /// The unit of work.
    pub unit: String,
}

impl Default for StatedPrice {
    fn default() -> Self {
        Self {
            price: "0".into(),
            currency: "usd".into(),
            unit: "hour".into(),
        }
    }
}

/// A runner's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Where the runner takes requests.
    pub runner_url: String,
    /// The app.
    pub app: String,
    /// How one works with it.
    pub mode: Mode,
    /// How many jobs it takes.
    pub capacity: u32,
    /// The price.
    pub price: StatedPrice,
    /// The sessions that it has.
    pub sessions: Vec<String>,
    /// The runner's name; empty before the orchestrator has given one.
    pub runner_id: String,
    /// Whether sessions get an address that nobody guesses.
    pub proxy: bool,
    /// A name for people.
    pub label: String,
    /// The version of the runner.
    pub version: String,
    /// The runner's own words.
    pub metadata: String,
    /// `ready`, or why it is not.
    pub status: String,
    /// The GPU that it runs on.
    pub gpu: Option<Gpu>,
}

/// Why a sign of life is refused, displayed as the reference words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeartbeat {
    /// The body is not the JSON object.
    #[error("invalid request body")]
    Body,
    /// The runner's address is none.
    #[error("invalid runner_url")]
    Url,
    /// The app has no name, or blanks around it.
    #[error("app must be trimmed")]
    App,
    /// The mode is none of the two.
    #[error("mode must be \"persistent\" or \"single-shot\"")]
    Mode,
    /// The capacity is negative.
    #[error("capacity must be >= 0")]
    Capacity,
    /// The price is none.
    #[error("price must be a number that is not negative")]
    Price,
    /// The runner's own words are too many.
    #[error("metadata must be at most {MAX_METADATA_BYTES} bytes")]
    Metadata,
}

impl Heartbeat {
    /// A runner of `app` at `runner_url` that takes one session at a time, for nothing.
    #[must_use]
    pub fn new(runner_url: impl Into<String>, app: impl Into<String>) -> Self {
        Self {
            runner_url: runner_url.into(),
            app: app.into(),
            mode: Mode::Persistent,
            capacity: 1,
            price: StatedPrice::default(),
            sessions: Vec::new(),
            runner_id: String::new(),
            proxy: false,
            label: String::new(),
            version: String::new(),
            metadata: String::new(),
            status: "ready".into(),
            gpu: None,
        }
    }

    /// Judges it as its orchestrator will, before it is sent.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), BadHeartbeat> {
        let price = serde_json::from_str::<serde_json::Number>(&self.price.price);
        if price.is_err() || self.price.price.starts_with('-') {
            return Err(BadHeartbeat::Price);
        }
        Self::from_json(&self.to_json()).map(drop)
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let price: Value = serde_json::from_str(&self.price.price).unwrap_or(Value::from(0));
        let mut body = json!({
            "runner_url": self.runner_url,
            "app": self.app,
            "mode": self.mode.name(),
            "capacity": self.capacity,
            "price_info": {
                "price": price,
                "currency": self.price.currency,
                "unit": self.price.unit,
            },
            "session_ids": self.sessions,
        });
        for (name, text) in [
            ("runner_id", &self.runner_id),
            ("label", &self.label),
            ("version", &self.version),
            ("metadata", &self.metadata),
            ("status", &self.status),
        ] {
            if !text.is_empty() {
                body[name] = text.as_str().into();
            }
        }
        if self.proxy {
            body["proxy"] = true.into();
        }
        if let Some(gpu) = &self.gpu {
            body["gpu"] = gpu.to_json();
        }
        body.to_string().into()
    }

    /// Reads the body, as an orchestrator does. A name that does not stand in a path as it is would make a runner that
    /// nobody can reach, so it is refused with the address.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_json(body: &[u8]) -> Result<Self, BadHeartbeat> {
        let fields = Fields::only(body).map_err(|_| BadHeartbeat::Body)?;
        let text = |name| fields.text(name).map_err(|_| BadHeartbeat::Body);
        let price = fields
            .object("price_info")
            .map_err(|_| BadHeartbeat::Body)?;
        let price = price.map(|price| {
            let text = |name| price.text(name).map_err(|_| BadHeartbeat::Body);
            Ok(StatedPrice {
                price: price.number("price").map_err(|_| BadHeartbeat::Body)?,
                currency: text("currency")?.to_ascii_lowercase(),
                unit: text("unit")?,
            })
        });
        let runner_url = text("runner_url")?;
        let runner_id = text("runner_id")?;
        let named = runner_id.is_empty() || super::is_plain(&runner_id);
        if Url::parse(&runner_url).is_err() || !named {
            return Err(BadHeartbeat::Url);
        }
        let app = text("app")?;
        if app.is_empty() || app.trim() != app {
            return Err(BadHeartbeat::App);
        }
        let mode = Mode::from_name(&text("mode")?).ok_or(BadHeartbeat::Mode)?;
        let capacity = fields.integer("capacity").map_err(|_| BadHeartbeat::Body)?;
        let capacity = u32::try_from(capacity).map_err(|_| BadHeartbeat::Capacity)?;
        let metadata = text("metadata")?;
        if metadata.len() > MAX_METADATA_BYTES {
            return Err(BadHeartbeat::Metadata);
        }
        #[derive(Deserialize)]
        struct Rest {
            #[serde(default)]
            session_ids: Option<Vec<String>>,
            #[serde(default)]
            proxy: Option<bool>,
            #[serde(default)]
            gpu: Option<Value>,
        }
        let rest: Rest = serde_json::from_slice(body).map_err(|_| BadHeartbeat::Body)?;
        Ok(Self {
            runner_url,
            app,
            mode,
            capacity,
            price: price.transpose()?.unwrap_or_default(),
            sessions: rest.session_ids.unwrap_or_default(),
            runner_id,
            proxy: rest.proxy.unwrap_or(false),
            label: text("label")?,
            version: text("version")?,
            metadata,
            status: text("status")?,
            gpu: rest.gpu.as_ref().and_then(Gpu::read),
        })
    }
}

/// A channel that an orchestrator keeps for a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The name by which the runner asked for it.
    pub name: String,
    /// The name by which the orchestrator knows it.
    pub channel_name: String,
    /// Where it is for everybody.
    pub url: Url,
    /// Where it is for the runner, if that is elsewhere.
    pub internal_url: Option<Url>,
    /// The type of its content.
    pub mime_type: String,
}

impl ChannelInfo {
    fn read(value: &Value) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new("channel", why);
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let url = |name: &str| {
            let named = Url::parse(text(name)).map(Url::told);
            named.map_err(|err| bad(format!("{name}: {err}")))
        };
        Ok(Self {
            name: text("name").into(),
            channel_name: text("channel_name").into(),
            url: url("url")?,
            internal_url: match text("internal_url") {
                "" => None,
                _ => Some(url("internal_url")?),
            },
            mime_type: text("mime_type").into(),
        })
    }

    fn to_json(&self) -> Value {
        let mut json = json!({
            "name": self.name,
            "channel_name": self.channel_name,
            "url": self.url.to_string(),
            "mime_type": self.mime_type,
        });
        if let Some(url) = &self.internal_url {
            json["internal_url"] = url.to_string().into();
        }
        json
    }
}

/// An orchestrator's answer to a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The runner's name.
    pub runner_id: String,
    /// Where to send the next sign of life, if it says so.
    pub orchestrator: Option<Url>,
    /// How often to say so.
    pub interval: Duration,
    /// How long a silent runner counts as alive.
    pub ttl: Duration,
    /// The secret for later signs of life; only in answer to the first.
    pub secret: Option<String>,
    /// The channel that tells of sessions; only in answer to the first.
    pub news: Option<ChannelInfo>,
    /// The sessions that the runner has.
    pub sessions: Vec<String>,
}

impl Registered {
    const WHAT: &str = "heartbeat answer";

    /// Reads the answer. The first one has to have a secret.
    ///
    /// # Errors
    /// If it is not the JSON object, or lacks what it has to have.
    pub fn from_json(body: &[u8], first: bool) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new(Self::WHAT, why);
        let fields = Fields::only(body).map_err(bad)?;
        let text = |name| fields.text(name).map_err(bad);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Rest {
            session_ids: Option<Vec<String>>,
            o2r: Option<Value>,
        }
        let rest: Rest = serde_json::from_slice(body).unwrap_or_default();
        let duration = |name, default| {
            Ok(go_duration(&text(name)?)
                .filter(|d| !d.is_zero())
                .unwrap_or(default))
        };
        let orchestrator = text("orchestrator")?;
        let orchestrator = match orchestrator.as_str() {
            "" => None,
            text => Some(Url::parse(text).map_err(|err| bad(format!("orchestrator: {err}")))?),
        };
        let this = Self {
            runner_id: text("runner_id")?,
            orchestrator,
            interval: duration("heartbeat_interval", HEARTBEAT_INTERVAL)?,
            ttl: duration("heartbeat_ttl", HEARTBEAT_TTL)?,
            secret: Some(text("heartbeat_secret")?).filter(|secret| !secret.is_empty()),
            news: rest.o2r.as_ref().map(ChannelInfo::read).transpose()?,
            sessions: rest.session_ids.unwrap_or_default(),
        };
        if this.runner_id.is_empty() {
            return Err(bad("missing runner_id".into()));
        }
        if first && this.secret.is_none() {
            return Err(bad("missing heartbeat_secret".into()));
        }
        Ok(this)
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut body = json!({
            "runner_id": self.runner_id,
            "heartbeat_interval": to_go_duration(self.interval),
            "heartbeat_ttl": to_go_duration(self.ttl),
            "session_ids": self.sessions,
        });
        if let Some(url) = &self.orchestrator {
            body["orchestrator"] = url.to_string().into();
        }
        if let Some(secret) = &self.secret {
            body["heartbeat_secret"] = secret.as_str().into();
        }
        if let Some(channel) = &self.news {
            body["o2r"] = channel.to_json();
        }
        let mut text = body.to_string();
        text.push('\n');
        text.into()
    }
}

/// Reads a duration as Go writes it: `1m30s`, `500ms`, `1.5s`.
#[must_use]
pub fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0_u128;
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(nanos)?)?;
        // At most nine digits count: less than a nanosecond is nothing.
        let part = &part[..part.len().min(9)];
        if !part.is_empty() {
            let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
            total = total.checked_add(part.parse::<u128>().ok()? * nanos / scale)?;
        }
        rest = after;
    }
    u64::try_from(total).ok().map(Duration::from_nanos)
}

/// A duration that Go reads.
fn to_go_duration(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// News of a runner's sessions, over the channel for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNews {
    /// A session was reserved.
    Reserved(String),
    /// A session is over.
    Released(String),
    /// Nothing: it only keeps the channel open, or is of a kind that we do not know.
    Nothing,
}

impl SessionNews {
    /// Reads one message.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Self {
        let Ok(fields) = Fields::only(body) else {
            return Self::Nothing;
        };
        let text = |name| fields.text(name).unwrap_or_default();
        match (text("event").as_str(), text("session")) {
            (_, session) if session.is_empty() => Self::Nothing,
            ("reserved", session) => Self::Reserved(session),
            ("released", session) => Self::Released(session),
            _ => Self::Nothing,
        }
    }

    /// The message. `timestamp` is RFC 3339.
    #[must_use]
    pub fn to_json(&self, timestamp: &str) -> Bytes {
        let (event, session) = match self {
            Self::Reserved(session) => ("reserved", session),
            Self::Released(session) => ("released", session),
            Self::Nothing => return KEEP_ALIVE.into(),
        };
        json!({"event": event, "session": session, "timestamp": timestamp})
            .to_string()
            .into()
    }
}

/// Where a runner manages one of its sessions, and the secret that lets it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionControl {
    /// Where.
    pub url: Url,
    /// The secret.
    pub token: String,
}

impl core::fmt::Debug for SessionControl {
    // Whoever has the token can end the session.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SessionControl({:?})", self.url)
    }
}

impl SessionControl {
    /// Reads it from a request to the app. Without an address it is put together from the runner's own knowledge; one that
    /// is named leads no further than `orchestrator` may lead: whoever reaches the app may have named it.
    ///
    /// # Errors
    /// If there is no secret, or no session, or the address leads where it may not.
    pub fn from_headers(
        headers: &Headers,
        orchestrator: &Url,
        runner_id: &str,
    ) -> Result<Self, WireError> {
        let bad = |why: &str| WireError::new("request of a session", why);
        let get = |name| headers.get(name).filter(|value| !value.is_empty());
        let token = get(SESSION_TOKEN_HEADER).ok_or_else(|| bad("it has no session token"))?;
        let url = match get(SESSION_CONTROL_HEADER) {
            Some(text) => {
                let url = Url::parse(text).map_err(|err| bad(&err.to_string()))?;
                let judged = url.named_by(orchestrator);
                judged.map_err(|err| bad(&err.to_string()))?
            }
            None => {
                let session = get(SESSION_HEADER).ok_or_else(|| bad("it names no session"))?;
                Self::url_of(orchestrator, runner_id, session)
            }
        };
        Ok(Self {
            url,
            token: token.into(),
        })
    }

    /// Where `session` of a runner is managed.
    #[must_use]
    pub fn url_of(orchestrator: &Url, runner_id: &str, session: &str) -> Url {
        let mut path = String::from("/runner/");
        push_escaped(&mut path, runner_id, false);
        path.push_str("/session/");
        push_escaped(&mut path, session, false);
        orchestrator.with_path(&path)
    }
}

/// Whether an orchestrator refuses a registration because it has a live runner of that name, as it has for a while after
/// that one stopped.
#[must_use]
pub fn is_still_registered(status: u16, body: &[u8]) -> bool {
    status == 401 && crate::wire::reason::is_still_registered(&crate::wire::error_words(body))
}

/// Where a runner says that it goes.
#[must_use]
pub fn unregister_url(orchestrator: &Url, runner_id: &str) -> Url {
    let mut path = String::from("/runners/");
    push_escaped(&mut path, runner_id, false);
    path.push_str("/unregister");
    orchestrator.with_path(&path)
}

/// A request for channels: their names and types.
#[must_use]
pub fn channels_json<'a>(channels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bytes {
    let channels = channels.into_iter();
    let channels = channels.map(|(name, mime_type)| json!({"name": name, "mime_type": mime_type}));
    json!({"channels": channels.collect::<Vec<_>>()})
        .to_string()
        .into()
}

/// A request to remove channels.
#[must_use]
pub fn removed_json(names: &[&str]) -> Bytes {
    json!({"channels": names}).to_string().into()
}

/// Reads the answer to a request for channels.
///
/// # Errors
/// If it is no list of channels.
pub fn read_channels(body: &[u8]) -> Result<Vec<ChannelInfo>, WireError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|err| WireError::new("list of channels", err.to_string()))?;
    let channels = value["channels"].as_array();
    let channels = channels.ok_or_else(|| WireError::new("list of channels", "it is missing"))?;
    channels
        .iter()
        .take(MAX_CHANNELS)
        .map(ChannelInfo::read)
        .collect()
}

/// Reads the answer to a request to remove channels: the names of those that are gone.
///
/// # Errors
/// If it is no list of names.
pub fn read_removed(body: &[u8]) -> Result<Vec<String>, WireError> {
    #[derive(Deserialize)]
    struct Removed {
        deleted: Vec<String>,
    }
    let removed: Removed = serde_json::from_slice(body)
        .map_err(|err| WireError::new("list of removed channels", err.to_string()))?;
    Ok(removed.deleted.into_iter().take(MAX_CHANNELS).collect())
}

/// An address of a session that nobody guesses.
#[doc(alias = "LiveRunnerProxy")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The name by which the orchestrator knows it.
    pub id: String,
    /// The address.
    pub url: Url,
}

impl Proxy {
    /// Reads the answer to a request for one.
    ///
    /// # Errors
    /// If it lacks the name or the address.
    pub fn from_json(body: &[u8]) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new("address of a session", why);
        let fields = Fields::only(body).map_err(bad)?;
        let text = |name: &'static str| match fields.text(name) {
            Ok(text) if text.is_empty() => Err(bad(format!("missing {name}"))),
            told => told.map_err(bad),
        };
        let url = Url::parse(&text("url")?).map_err(|err| bad(format!("url: {err}")))?;
        Ok(Self {
            id: text("proxy_id")?,
            url: url.told(),
        })
    }
}

/// A request for an address that nobody guesses, of that program or of the runner.
#[must_use]
pub fn proxy_json(target: Option<&str>) -> Bytes {
    let body = match target {
        Some(url) => json!({"target_url": url}),
        None => json!({}),
    };
    body.to_string().into()
}

/// The answer to a request for channels.
#[must_use]
pub fn channels_answer(channels: &[ChannelInfo]) -> Bytes {
    let channels: Vec<_> = channels.iter().map(ChannelInfo::to_json).collect();
    let mut text = json!({"channels": channels}).to_string();
    text.push('\n');
    text.into()
}
