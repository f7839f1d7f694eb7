//! The header fields of answers: names of the request, leave for web pages, and who served (front-door spec 3.1).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use bytes::Bytes;

use super::types::{Config, Origins, RequestId, Transparency};
use crate::currency::in_usd;
use crate::http::{Body, Headers, Method, Request, Response};
use crate::job::batch::Served;
use crate::money::Amount;
use crate::pipeline::Pipeline;
use crate::wire::entry::Refusal;
use crate::wire::openai::listed;
use crate::wire::refused::{Refused, Shape};

/// Bytes of the log of attempts that are told.
const MAX_ATTEMPT_LOG: usize = 1 << 10;
/// Characters of a caller's own name for its request.
const MAX_CLIENT_NAME: usize = 128;
/// How long a browser may remember what it may send.
const PREFLIGHT_FOR: &str = "7200";

/// Header fields that every answer to a request has.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    id: RequestId,
    /// The caller's own name for the request.
    client: Option<String>,
    /// The web page that calls, if it may.
    origin: Option<String>,
    any_origin: bool,
    /// The web page that calls and may not.
    stranger: Option<String>,
    bodiless: bool,
}

impl Greeting {
    pub(super) fn new(id: RequestId, request: &Request, config: &Config) -> Self {
        let named = |name: &&str| {
            (1..=MAX_CLIENT_NAME).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let client = request.headers.get("x-client-request-id").filter(named);
        let origin = request.headers.get("origin");
        let named = origin.filter(|origin| config.cors.has(origin));
        let is_ours = |origin: &str| place(origin) == place(&public_base(request, config));
        let stranger = origin.filter(|origin| named.is_none() && !is_ours(origin));
        Self {
            id,
            client: client.map(String::from),
            origin: named.map(String::from),
            any_origin: config.cors == Origins::Any,
            stranger: stranger.map(printable),
            bodiless: request.method == Method::Head,
        }
    }

    /// Whether a web page calls that may.
    pub(super) const fn is_from_page(&self) -> bool {
        self.origin.is_some()
    }

    /// The web page that calls though neither the operator nor the gateway itself has let it in. A browser sends some
    /// requests for any page, and opens WebSockets, without asking first.
    pub(super) fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }

    /// Whether the answer has no body, as to HEAD.
    pub(super) const fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// Adds the fields.
    pub(super) fn write(&self, headers: &mut Headers) {
        headers.push("x-request-id", self.id.to_string());
        if let Some(client) = &self.client {
            headers.push("x-client-request-id", client.as_str());
        }
        let Some(origin) = &self.origin else {
            return;
        };
        if headers.get("access-control-allow-origin").is_some() {
            // Whoever answers lets more pages read than we would.
        } else if self.any_origin {
            headers.push("access-control-allow-origin", "*");
        } else {
            headers.push("access-control-allow-origin", origin.as_str());
            headers.push("vary", "origin");
        }
        // Sessions of WebRTC name what they expose.
        if headers.get("access-control-expose-headers").is_none() {
            headers.push("access-control-expose-headers", "*");
        }
    }

    /// The answer to a browser that asks what its page may send.
    pub(super) fn preflight(&self, request: &Request) -> Response {
        let mut response = Response::new(204);
        self.write(&mut response.headers);
        let headers = &mut response.headers;
        headers.push(
            "access-control-allow-methods",
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        );
        if let Some(asked) = request.headers.get("access-control-request-headers") {
            headers.push("access-control-allow-headers", asked);
        }
        headers.push("access-control-max-age", PREFLIGHT_FOR);
        response
    }
}

/// Facts about the work that header fields tell.
#[derive(Clone, Debug)]
pub(super) struct Done<'a> {
    pub(super) pipeline: Pipeline,
    pub(super) model: &'a str,
    pub(super) served: &'a Served,
    /// The orchestrator's address as it is written.
    pub(super) address: &'a str,
    /// How long the request took up to the answer's head, and how much of that its client took to send it.
    pub(super) total: Duration,
    pub(super) receiving: Duration,
    /// Settings that were filled in, and fields that were left out.
    pub(super) defaults: &'a [String],
    pub(super) ignored: &'a [String],
}

impl Done<'_> {
    /// Adds the fields.
    pub(super) fn write(&self, config: &Config, headers: &mut Headers) {
        let served = self.served;
        if !self.defaults.is_empty() {
            headers.push("livepeer-defaults", listed(self.defaults));
        }
        if !self.ignored.is_empty() {
            headers.push("livepeer-ignored", listed(self.ignored));
        }
        if config.transparency == Transparency::None {
            return;
        }
        if config.transparency == Transparency::Full {
            headers.push("livepeer-orchestrator", shown(&served.url));
            headers.push("livepeer-orchestrator-address", self.address);
            headers.push("livepeer-pipeline", self.pipeline.name());
            headers.push("livepeer-model", printable(self.model));
        }
        headers.push("livepeer-units", served.units.to_string());
        headers.push("livepeer-unit", self.pipeline.work_unit().name());
        if let Some(price) = &served.price {
            headers.push("livepeer-price", price.of_one().to_string());
        }
        write_cost(&served.cost, config, headers);
        if config.transparency == Transparency::Full {
            let before = &served.attempts;
            headers.push("livepeer-attempts", (before.len() + 1).to_string());
            if !before.is_empty() {
                let each = before.iter();
                let each = each.map(|one| (shown(&one.url), one.reason.to_string()));
                let log = attempt_log(each, &shown(&served.url));
                headers.push("livepeer-attempt-log", log);
            }
            headers.push("livepeer-overhead-ms", millis(self.overhead()));
        }
        if config.server_timing {
            let timing = format!(
                "admit;dur={}, select;dur={}, pay;dur={}, upstream;dur={}",
                millis(self.overhead()),
                millis(served.selecting),
                millis(served.paying),
                millis(served.upstream),
            );
            headers.push("server-timing", timing);
        }
    }

    fn overhead(&self) -> Duration {
        overhead(self.total, self.receiving, self.served)
    }
}

/// Adds what a request costs.
pub(super) fn write_cost(cost: &Amount, config: &Config, headers: &mut Headers) {
    let wei = cost.as_ratio().ceil().to_integer();
    headers.push("livepeer-cost-wei", wei.to_string());
    if let Some(dollar) = &config.settings.terms.wei_per_usd {
        headers.push("livepeer-cost-usd", in_usd(cost, dollar));
    }
}

/// Orchestrators that were left and why, and the one that served: as many as have room.
pub(super) fn attempt_log(left: impl Iterator<Item = (String, String)>, served: &str) -> String {
    let ok = format!("{served}=ok");
    let mut log = String::new();
    for (url, why) in left {
        let one = format!("{url}={why}, ");
        if log.len() + one.len() + ok.len() > MAX_ATTEMPT_LOG {
            break;
        }
        log.push_str(&one);
    }
    log + &ok
}

/// A URL for people: without its path's last slash, its query and the like.
pub(super) fn shown(url: &crate::http::Url) -> String {
    url.origin()
}

/// Milliseconds with three decimals.
pub(super) fn millis(time: Duration) -> String {
    let micros = time.as_micros();
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// A text that a header field can carry.
pub(super) fn printable(text: &str) -> String {
    let safe = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.chars().map(safe).collect()
}

/// The address that a request comes from; `None` if it is not known. Of what others forwarded, only trusted proxies say.
pub(super) fn caller(request: &Request, config: &Config) -> Option<IpAddr> {
    const FIELD: &str = "x-forwarded-for";
    let is_proxy = |at: IpAddr| config.trusted_proxies.iter().any(|network| network.has(at));
    let (peer, headers) = (request.peer?, &request.headers);
    if !is_proxy(peer) {
        let is_forwarded = [FIELD, "forwarded"]
            .iter()
            .any(|name| headers.get(name).is_some());
        return (!is_forwarded).then_some(peer);
    }
    // Each proxy writes behind those before it.
    let fields = headers.iter().filter(|(name, _)| *name == FIELD);
    let all: Vec<&str> = fields.flat_map(|(_, value)| value.split(',')).collect();
    let mut told = all.into_iter().rev().map(|one| one.trim().parse().ok());
    told.find(|at| !at.is_some_and(is_proxy)).unwrap_or(None)
}

/// Host and port of an origin, the port only if it is none of the usual. Proxies that end TLS change the scheme.
fn place(origin: &str) -> &str {
    let place = origin.split_once("://").map_or(origin, |(_, place)| place);
    let usual = place.strip_suffix(":80").or(place.strip_suffix(":443"));
    usual.unwrap_or(place)
}

/// Where callers reach the gateway: scheme, host and port, for addresses in answers.
pub(super) fn public_base(request: &Request, config: &Config) -> String {
    if let Some(url) = &config.public_url {
        return url.trim_end_matches('/').into();
    }
    let trusted = request.peer.is_some_and(|peer| {
        config
            .trusted_proxies
            .iter()
            .any(|network| network.has(peer))
    });
    let forwarded = |name| {
        let value = trusted.then(|| request.headers.get(name)).flatten()?;
        // The proxy next to us writes last.
        value.rsplit(',').next().map(str::trim)
    };
    let scheme = match forwarded("x-forwarded-proto") {
        Some("https") => "https",
        Some("http") => "http",
        _ if request.url.is_secure() => "https",
        _ => "http",
    };
    let host = forwarded("x-forwarded-host").or(request.host.as_deref());
    let plain = |host: &&str| {
        !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    };
    match host.filter(plain) {
        Some(host) => format!("{scheme}://{host}"),
        None => String::new(),
    }
}

/// An error in the shape of its route.
pub(super) fn refusal(shape: Shape, refused: &Refused) -> Response {
    let mut response = Response::new(refused.status()).body(Body::Full(refused.body(shape)));
    response.headers = super::typed(shape.content_type());
    for (name, value) in refused.all_headers() {
        response.headers.push_any(name, value);
    }
    response
}

/// An answer of one line.
pub(super) fn line(refusal: &Refusal) -> Response {
    let text = format!("{refusal}\n");
    let mut response = Response::new(refusal.status).body(Body::Full(text.into()));
    response.headers = super::typed(Shape::Plain.content_type());
    response
}

/// A result of an answer. Whatever an orchestrator called it, it is shown as that type or not at all.
pub(super) fn file(content_type: &str, content: Bytes) -> Response {
    let mut response = Response::new(200).body(Body::Full(content));
    response.headers = super::typed(content_type);
    response.headers.push("x-content-type-options", "nosniff");
    response
}

/// The answer for a result that does not exist, or no longer.
pub(super) fn no_file() -> Response {
    let mut response = Response::new(404).body(Body::Full(Bytes::from_static(b"not found\n")));
    response.headers = super::typed(Shape::Plain.content_type());
    response
}

/// Our own time: the total less what client, signer and orchestrators took.
pub(super) fn overhead(total: Duration, receiving: Duration, served: &Served) -> Duration {
    total
        .saturating_sub(receiving)
        .saturating_sub(served.selecting)
        .saturating_sub(served.paying)
        .saturating_sub(served.upstream)
}
