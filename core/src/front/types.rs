//! The front door's names for requests, its settings and bounds.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use bytes::Bytes;

use super::admission::Admission;
use super::objects::Object;
use super::route::{Live, Page, Route};
use crate::entry::Ordered;
use crate::http::{Reach, Request};
use crate::job::app::Call as AppCall;
use crate::job::batch::{Attempt, Served};
use crate::job::byoc::Order;
use crate::pipeline::Pipeline;
use crate::prefer::Preferences;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::batch::BatchRequest;
use crate::wire::byoc::stream::StreamUrls;
use crate::wire::entry::{OutputName, SmokeTest, StartHook, StreamName};
use crate::wire::openai::Settings;

/// Names a request from its first byte to its last: a ULID, shown as `req_01K5ZT8M3Q0V7J4X9B2C6D8E0F`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u128);

/// Base 32 without letters that look like digits.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Digits of base 62.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl RequestId {
    /// A new name: 48 bits of milliseconds, so that names sort by time, and 80 bits of chance.
    pub(super) fn draw(now: Time, rng: &mut Rng) -> Self {
        let millis = u128::from(now.as_nanos() / 1_000_000);
        let chance = u128::from_be_bytes(
            rng.bytes32()[..16]
                .try_into()
                .expect("sixteen of thirty-two bytes"),
        );
        Self((millis << 80) | (chance >> 48))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"req_00000000000000000000000000";
        for (digit, written) in (0..26).rev().zip(&mut text[4..]) {
            *written = CROCKFORD[(self.0 >> (5 * digit)) as usize & 31];
        }
        f.write_str(core::str::from_utf8(&text).expect("digits and letters are text"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Draws the name of a request on Livepeer's own routes: eight hexadecimal digits. Its results are found by it, so
/// nothing that is told to others may give it away.
pub(super) fn draw_native(rng: &mut Rng) -> String {
    hex::encode(&rng.bytes32()[..4])
}

/// Work that a request asks for. If the request [needs a probe](BatchRequest::needs), the shell measures its file
/// first and refuses what cannot be measured.
pub struct Work {
    /// The route.
    pub route: Route,
    /// The job.
    pub request: BatchRequest,
    /// Preferences about who does it.
    pub preferences: Preferences,
}

impl fmt::Debug for Work {
    // Prompts are nobody's business, and no log's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("route", &self.route)
            .field("model", &self.request.model())
            .finish_non_exhaustive()
    }
}

/// A request about a live stream that makes sense by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum Call {
    /// A media server has a stream for which a job is to begin.
    Start(Box<StartHook>),
    /// A stream through a container: a place for whoever sends is to be made. The addresses in the answer lack that of
    /// the output, and those of other ports.
    Order(Box<StreamCall>),
    /// The data that a container says beside its video: answered by [`Front::data_head`](super::Front::data_head), `relay`
    /// and `relay_end`; or by `respond`.
    Data {
        /// The stream.
        stream: String,
    },
    /// Other parameters for the model: a JSON object.
    Update {
        /// The stream, by its name or its id.
        stream: String,
        /// The object, byte by byte.
        params: Bytes,
    },
    /// A question how a stream is.
    Status {
        /// The stream, by its id or its name.
        stream: String,
    },
    /// A stream is to end.
    Stop {
        /// The stream, by its name or its id.
        stream: String,
        /// A last word for its container, if it has one.
        words: Bytes,
    },
    /// A media server has the media of a stream that was ordered.
    Source(Box<StartHook>),
    /// A test stream is to be sent somewhere.
    SmokeTest(SmokeTest),
    /// A sender's request of WHIP, under that name.
    Whip(StreamName, Box<Session>),
    /// A viewer's request of WHEP, for that output.
    Whep(OutputName, Box<Session>),
    /// A player of HLS fetches a part of that output.
    Hls(OutputName, Hls),
}

/// A part of a stream for players of HLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hls {
    /// The list of its renditions.
    Master,
    /// The list of the segments of the rendition of that name.
    List(String),
    /// A segment of the rendition of that name, by its number.
    Segment(String, u64),
}

/// A request of WHIP or WHEP. Its method, its type and its offer have not been looked at.
#[derive(Debug)]
pub struct Session {
    /// The session's name, if there is one already.
    pub name: Option<String>,
    /// The head.
    pub request: Request,
    /// The whole body.
    pub body: Bytes,
}

/// An order for a stream through a container.
#[derive(Debug)]
pub struct StreamCall {
    /// The name of the stream.
    pub name: StreamName,
    /// The order.
    pub ordered: Ordered,
    /// Where the addresses may lead that the caller names.
    pub named: Reach,
    /// Whether video goes in.
    pub video_in: bool,
    /// Whether video comes out.
    pub video_out: bool,
    /// The host at which the caller reached us, as it stands in a URL.
    pub host: String,
    /// The addresses in the answer.
    pub urls: StreamUrls,
}

/// Names the session of a client with an app. The shell reserves it with its first use, if the app has sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppSessionId(pub(super) u64);

/// A call of an app.
#[derive(Debug)]
pub struct AppRequest {
    /// The app's name.
    pub app: String,
    /// The request.
    pub call: AppCall,
    /// The session that it belongs to, if the app has sessions.
    pub session: AppSessionId,
    /// The client's key to that session.
    pub key: String,
}

/// An event of a [`Front`](super::Front). The shell acts on all but the last two, and answers those that ask.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Do this work, and tell how it goes: by [`Front::head`](super::Front::head), `chunk`, `done`, `failed` or
    /// `refuse`.
    Want(RequestId, Box<Work>),
    /// A request about a live stream: answered by [`Front::respond`](super::Front::respond).
    Live(RequestId, Box<Call>),
    /// A job for a container: told by [`Front::order_head`](super::Front::order_head) and `relay` as its answer comes, and by
    /// `order_done` or `order_failed`.
    Order(RequestId, Box<Order>),
    /// A call of an app: answered by [`Front::app_head`](super::Front::app_head), `relay`, and `relay_end` or `relay_broke`;
    /// or by `app_failed`.
    App(RequestId, Box<AppRequest>),
    /// A session that nobody has used for long enough: it is to be stopped, if there is one.
    EndSession(AppSessionId),
    /// Bytes of a client that has left HTTP: whoever has them says so by [`Front::taken`](super::Front::taken).
    Said(RequestId, Bytes),
    /// Such a client says no more.
    SaidAll(RequestId),
    /// Nobody waits for this work, or for this answer, any more.
    Gone(RequestId),
    /// The client is slow: tell no more of this stream until there is [`Event::Room`].
    Full(RequestId),
    /// The stream may go on.
    Room(RequestId),
    /// Write this page: answered by [`Front::page`](super::Front::page).
    Page(RequestId, Page),
    /// A result of that path is asked for that is not in memory: answered by [`Front::object`](super::Front::object).
    /// Only with [`Config::folder`].
    Fetch(RequestId, String),
    /// Keep this result in the folder. Only with [`Config::folder`].
    Keep(Object),
    /// A request is over.
    Finished(Box<Summary>),
    /// All work is done, after [`Front::drain`](super::Front::drain).
    Drained,
}

/// The account of a request that is over, for logs and figures.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The request.
    pub id: RequestId,
    /// The route; `None` if no route fits.
    pub route: Option<Route>,
    /// The state that it was in when it ended.
    pub state: Admission,
    /// The status that was answered; `None` if the client went away before.
    pub status: Option<u16>,
    /// The code of the error that was answered, in the head or in the stream.
    pub error: Option<&'static str>,
    /// How the request ended.
    pub outcome: Outcome,
    /// The pipeline and model of its job.
    pub job: Option<(Pipeline, String)>,
    /// Facts about who served, and for how much.
    pub served: Option<Served>,
    /// The orchestrators that were tried in vain where nobody served.
    pub attempts: Vec<Attempt>,
    /// Whether the client's SDK says that it sent the request before.
    pub is_retry: bool,
    /// How long the request took.
    pub took: Duration,
    /// How much of that was our own time, of a whole answer.
    pub overhead: Option<Duration>,
    /// How long the first event of its stream took.
    pub first: Option<Duration>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Answered in full.
    Answered,
    /// Answered with an error.
    Refused,
    /// Answered in part, then broken by the orchestrator.
    Broken,
    /// The client went away, or took too long to read.
    Gone,
}

impl Outcome {
    /// The word in figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Gone => "gone",
        }
    }

    /// The outcome of a whole answer with that status.
    pub(super) const fn of(status: u16) -> Self {
        match status {
            400.. => Self::Refused,
            _ => Self::Answered,
        }
    }
}

/// Draws a name that nobody guesses: 32 letters and digits.
pub(super) fn draw_secret(rng: &mut Rng) -> String {
    (0..32)
        .map(|_| char::from(BASE62[rng.below(62) as usize]))
        .collect()
}

/// Header fields about who served, for how much, and how long it took (front-door spec 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transparency {
    /// All of them.
    #[default]
    Full,
    /// Units, price and cost.
    Cost,
    /// None of them.
    None,
}

/// The web pages that may call the gateway from a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// No page.
    #[default]
    None,
    /// Every page.
    Any,
    /// Pages of these origins, such as `https://app.example`.
    These(Vec<String>),
}

impl Origins {
    /// The origins of a list, in which `*` stands for every page.
    #[must_use]
    pub fn of(list: Vec<String>) -> Self {
        match &list[..] {
            [] => Self::None,
            some if some.iter().any(|one| one == "*") => Self::Any,
            _ => Self::These(list),
        }
    }

    /// Whether a page of that origin may call.
    #[must_use]
    pub fn has(&self, origin: &str) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::These(origins) => origins.iter().any(|one| one == origin),
        }
    }
}

/// A network of addresses, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `prefix` leading bits; `None` if an address does not have as many.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= most).then_some(Self { address, prefix })
    }

    /// Whether an address belongs to it.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                u128::from(one.to_bits() ^ other.to_bits()) << 96
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differ
            .checked_shr(128 - u32::from(self.prefix))
            .unwrap_or(0)
            == 0
    }
}

/// The routes about live streams that are served; the others are unknown paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LiveRoutes {
    /// None of them.
    #[default]
    None,
    /// All but those of WHIP and WHEP, which need a port of UDP.
    Hooks,
    /// All of them.
    All,
}

impl LiveRoutes {
    pub(super) const fn has(self, live: Live) -> bool {
        match self {
            Self::None => false,
            // Without a port nobody could send.
            Self::Hooks => !live.is_at_a_door(),
            Self::All => true,
        }
    }
}

/// Settings of a [`Front`](super::Front). They may change at any time; requests that run keep those they began with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where callers reach the gateway, for addresses in answers: scheme, host and port. If absent, where the request
    /// says it was sent.
    pub public_url: Option<String>,
    /// Networks whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` count.
    pub trusted_proxies: Vec<Network>,
    /// Web pages that may call.
    pub cors: Origins,
    /// Header fields about who served.
    pub transparency: Transparency,
    /// Whether `server-timing` is told too.
    pub server_timing: bool,
    /// Whether figures are kept for each model, and not only for all together.
    pub figures_per_model: bool,
    /// Pages that are asked of the shell; the others are unknown paths.
    pub pages: Vec<Page>,
    /// Routes about live streams.
    pub live: LiveRoutes,
    /// Whether jobs for containers are taken; otherwise their route is an unknown path.
    pub containers: bool,
    /// Names of apps that may be called; a star stands for any one segment. Without any, their route is an unknown path.
    pub apps: Vec<String>,
    /// How long a client's session with an app is held without use.
    pub app_idle: Duration,
    /// Whether a stream of `/llm` ends with `[DONE]`.
    pub done_on_native: bool,
    /// How long after the orchestrator's head a stream's own may wait for the first event.
    pub early_head: Duration,
    /// How long a stream is silent before a comment keeps it alive.
    pub keep_alive: Duration,
    /// How long an orchestrator may be silent within a stream.
    pub stream_silence: Duration,
    /// How long a client may take nothing of what waits for it.
    pub write_stall: Duration,
    /// How long an answer may take, from the request's last byte to the answer's first.
    pub answer: Duration,
    /// How long after [`Front::drain`](super::Front::drain) new work is still taken, while balancers learn of it.
    pub drain_grace: Duration,
    /// At most this many requests run at a time, and half as many for one address.
    pub max_in_flight: usize,
    /// At most this many bytes of requests are held in total, and half as many for one address.
    pub max_held: usize,
    /// At most this many bytes of a JSON body.
    pub max_json: usize,
    /// At most this many bytes of a form.
    pub max_form: usize,
    /// At most this many bytes of results are kept in memory.
    pub max_kept: usize,
    /// How long results are kept.
    pub keep: Duration,
    /// Whether results that no longer fit in memory are asked of the shell, which keeps all that it is told of.
    pub folder: bool,
    /// Rules for what callers leave open.
    pub settings: Settings,
}

/// Bytes of a form with a picture to edit, if not less is configured.
pub const MAX_EDIT: usize = 32 << 20;
/// Bytes of a form with audio, if not less is configured.
pub const MAX_AUDIO: usize = 64 << 20;
/// How long a body may stop.
pub const BODY_GAP: Duration = Duration::from_secs(30);
/// How long a body may take.
pub const BODY_WITHIN: Duration = Duration::from_secs(300);
/// How long a request waits for the first search for orchestrators, if its model is not known before.
pub const FIRST_SEARCH: Duration = Duration::from_secs(2);
/// How long the shell may take over a page or a file.
pub const PAGE_WITHIN: Duration = Duration::from_secs(10);
/// How long the shell may take over a request about a live stream: as long as the first search for an orchestrator.
pub const LIVE_WITHIN: Duration = Duration::from_secs(60);
/// How long an app's answer may be awaited, and any answer that is passed on may be silent: whoever brings it has limits of
/// its own, which are shorter.
pub const RELAY_WITHIN: Duration = Duration::from_secs(3_600);
/// Bytes of a stream that may wait for a slow client; beyond, the orchestrator is no longer read.
pub const MAX_UNSENT: usize = 256 << 10;
/// How long beyond the limits of its own a job may take to say how it ended.
pub const JOB_GRACE: Duration = Duration::from_secs(10);
/// At most this many videos are made, or kept as results, that were asked for with `Prefer: respond-async`.
pub const MAX_VIDEOS: usize = 4_096;

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: None,
            trusted_proxies: Vec::new(),
            cors: Origins::None,
            transparency: Transparency::Full,
            server_timing: false,
            figures_per_model: true,
            pages: Vec::new(),
            live: LiveRoutes::None,
            containers: false,
            apps: Vec::new(),
            app_idle: Duration::from_secs(30),
            done_on_native: false,
            early_head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
            stream_silence: Duration::from_secs(120),
            write_stall: Duration::from_secs(60),
            answer: Duration::from_secs(330),
            drain_grace: Duration::from_secs(5),
            max_in_flight: 4_096,
            max_held: 1 << 30,
            max_json: 4 << 20,
            max_form: 256 << 20,
            max_kept: 256 << 20,
            keep: Duration::from_secs(3_600),
            folder: false,
            settings: Settings::default(),
        }
    }
}

impl Config {
    /// Whether a backend serves a route.
    #[must_use]
    pub fn is_backed(&self, route: Route) -> bool {
        let mut backends = self.settings.backends.values();
        let surface = route.surface();
        surface.is_some_and(|surface| backends.any(|one| one.surfaces.contains(&surface)))
    }

    /// At most this many bytes of the body of a request for that route.
    #[must_use]
    pub fn max_body(&self, route: Route) -> usize {
        match route {
            Route::Edits => self.max_form.min(MAX_EDIT),
            Route::Transcriptions | Route::Translations => self.max_form.min(MAX_AUDIO),
            Route::Live(live) => live.max_body(),
            route if route.takes_form() => self.max_form,
            _ => self.max_json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn names_of_requests_sort_by_time_and_show_26_digits() {
        let mut rng = Rng::new([7; 32]);
        let early = RequestId::draw(Time::from_millis(1_790_000_000_000), &mut rng);
        let late = RequestId::draw(Time::from_millis(1_790_000_000_001), &mut rng);
        assert!(early < late);
        let text = early.to_string();
        assert!(text.starts_with("req_01M3250V00"), "{text}");
        assert_eq!(text.len(), 30);
        assert_eq!(draw_native(&mut rng).len(), 8);
        let secret = draw_secret(&mut rng);
        assert!(secret.len() == 32 && secret.bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        let network = |text: &str, prefix| Network::new(text.parse().unwrap(), prefix).unwrap();
        let has = |network: Network, text: &str| network.has(text.parse().unwrap());
        assert!(has(network("10.0.0.0", 8), "10.1.2.3"));
        assert!(has(network("10.0.0.0", 8), "::ffff:10.1.2.3"));
        assert!(!has(network("10.0.0.0", 8), "11.0.0.0"));
        assert!(has(network("0.0.0.0", 0), "192.0.2.1"));
        assert!(!has(network("0.0.0.0", 0), "::1"));
        assert!(has(network("2001:db8::", 32), "2001:db8:1::1"));
        assert!(!has(network("::1", 128), "::2"));
        assert_eq!(Network::new("10.0.0.0".parse().unwrap(), 33), None);
    }
}
