//! Names, settings and words of live entry.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::http::{Headers, Reach, Url};
use crate::wire::Params;
use crate::wire::byoc::JobRequest;
use crate::wire::entry::{MediaSource, Place, StartHook, StreamName};

/// How long the webhook may take to say whether a stream may begin.
pub const AUTH_WITHIN: Duration = Duration::from_secs(5);
/// How long between two heartbeats, and how long the answer to one may take.
pub const BEAT_EVERY: Duration = Duration::from_secs(5);
/// How long between two looks at how the media of senders arrive.
pub const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// How long a media server may take to end a connection.
pub const KICK_WITHIN: Duration = Duration::from_secs(30);
/// How long a stream waits for its sender to come back, after that went without a word.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a stream that a media server announced waits for its media.
pub const MEDIA_WITHIN: Duration = Duration::from_secs(60);
/// How long the status of a stream is told after its end.
pub const REMEMBERED: Duration = Duration::from_secs(60);
/// At most this many streams are remembered after their end.
pub const MAX_REMEMBERED: usize = 1_000;
/// At most this many senders wait for the webhook.
pub const MAX_ASKING: usize = 256;
/// At most this many connections at media servers are being ended; further ones are left to end by themselves.
pub const MAX_KICKS: usize = 64;
/// Bytes of a control message beyond which runners are known to lose it (jobs spec 3.3).
pub const LARGE_UPDATE: usize = 32 << 10;

/// Names a sender, from its question to be let in to its last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenderId(pub(super) u64);

/// Names a stream and its job. A stream that is taken over and the one that takes it over are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u64);

/// Names a change of parameters that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdateId(pub(super) u64);

/// The fate of parameters that somebody sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// Nobody works for the stream yet: whoever does gets them.
    Kept,
    /// [`Event::Update`] of that name follows: whoever asked is answered once the orchestrator has them.
    Sent(UpdateId),
}

/// The way in of a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A media server has the stream, and announces it.
    Hook(Box<StartHook>),
    /// WHIP, at our own port.
    Whip,
    /// RTMP, at our own port.
    Rtmp,
    /// An order for a stream through a container: whoever sends comes later.
    Order(Box<Ordered>),
    /// A media server has the media of a stream that was ordered, and announces them.
    Source(Box<StartHook>),
}

/// A stream through a container, as somebody orders it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The job, [checked](JobRequest::check). Its wishes say which media the stream has.
    pub job: JobRequest,
    /// The container's first parameters.
    pub params: Option<Params>,
    /// Where the output is pushed to by RTMP.
    pub outputs: Vec<String>,
}

impl Ordered {
    /// Whether video goes in.
    #[must_use]
    pub fn takes_video(&self) -> bool {
        // The job was checked.
        self.job.wishes().is_ok_and(|wishes| wishes.video_in)
    }

    /// Whether video comes out.
    #[must_use]
    pub fn gives_video(&self) -> bool {
        self.job.wishes().is_ok_and(|wishes| wishes.video_out)
    }
}

impl Way {
    /// The word for it in the question to the webhook.
    pub(super) fn auth_type(&self) -> &'static str {
        match self {
            Self::Hook(hook) | Self::Source(hook) => hook.source.kind.auth_type(),
            Self::Whip => "livepeer-whip",
            Self::Rtmp => "rtmp",
            Self::Order(_) => "byoc",
        }
    }

    /// The words of its end.
    pub(super) const fn disconnected(&self) -> &'static str {
        match self {
            Self::Hook(_) | Self::Source(_) => "mediamtx ingest disconnected",
            Self::Whip => "whip disconnected",
            Self::Rtmp => "rtmp disconnected",
            Self::Order(_) => "ingest disconnected",
        }
    }
}

/// A sender that wants to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    /// The way in.
    pub way: Way,
    /// The name of the stream.
    pub name: StreamName,
    /// The key that came with it: a bearer token, or the key of RTMP.
    pub key: Option<String>,
    /// The query as it came: the parameters of the job.
    pub query: String,
    /// Where the addresses may lead that the sender names.
    pub named: Reach,
}

/// The key is a secret, and the query may hold it.
impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("way", &self.way.auth_type())
            .field("name", &self.name.as_str())
            .finish_non_exhaustive()
    }
}

/// The reasons why a sender is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The key is missing or wrong.
    Unauthorized,
    /// The sender is known and may not.
    Forbidden,
    /// Somebody else sends under the name, and may not be replaced.
    Taken,
    /// There is a stream of the name, and it goes on.
    Exists,
    /// No stream of that name was ordered.
    Unknown(StreamName),
    /// The stream takes no video.
    NoVideo,
    /// The parameters of the job are no JSON object, or its query is broken.
    BadParams,
    /// An address that the sender, or the webhook for it, may not name, and why.
    Place(String),
    /// There is no room.
    Full,
    /// The gateway shuts down.
    Closing,
    /// Another instance takes it, at that URL.
    Elsewhere(String),
    /// No verdict: we could not find out.
    Failed,
}

impl Denied {
    /// The status of the answer to a media server that announced the stream.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::Taken => 409,
            Self::BadParams | Self::Place(_) | Self::Exists | Self::NoVideo => 400,
            Self::Unknown(_) => 404,
            Self::Full | Self::Closing | Self::Failed => 503,
            Self::Elsewhere(_) => 307,
        }
    }
}

/// How a sender left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// With a word, or after it was waited for.
    Ended,
    /// Without a word: it may come back.
    Lost,
    /// Without a picture.
    NoVideo,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd<'a> {
    /// In order.
    Finished,
    /// Nobody took it.
    NoOrchestrator,
    /// The last orchestrator failed, or our own side did. The text names no address.
    Failed(&'a str),
}

/// The reason why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A newer sender took its name.
    TakenOver,
    /// Somebody asked for it.
    Asked,
    /// The heartbeat's answer said so.
    Terminated,
    /// The sender is gone.
    Disconnected,
    /// The sender sent no picture.
    NoVideo,
    /// Nobody took the job.
    NoOrchestrator,
    /// The job ended in order, before its sender did.
    Finished,
    /// The job failed, for that reason.
    Failed(String),
    /// The gateway shuts down.
    Closing,
}

impl Why {
    /// The words for events and status; `None` if nobody needs to know.
    pub(super) fn message(&self, way: &Way) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::TakenOver | Self::Asked | Self::Finished | Self::Closing => return None,
            Self::Terminated => "stream terminated: credit_exhaustion".into(),
            Self::Disconnected => way.disconnected().into(),
            Self::NoVideo => "missing video".into(),
            Self::NoOrchestrator => "no orchestrators available".into(),
            Self::Failed(text) => text.clone().into(),
        })
    }

    /// Whether a media server is told to end the connection. Of a newer sender's it would be the wrong one.
    pub(super) const fn kicks(&self) -> bool {
        !matches!(self, Self::TakenOver | Self::Disconnected)
    }
}

/// A job that is to begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The name of the stream.
    pub name: StreamName,
    /// Names the request, and its output.
    pub request_id: String,
    /// Names the stream for status and events; the sender's own id, or the stream's name.
    pub stream_id: String,
    /// The model; empty for the default one.
    pub pipeline: String,
    /// The model's first parameters.
    pub params: Option<Params>,
    /// A text that the URL of the orchestrator has to contain; empty for any.
    pub orchestrator: String,
    /// Where the output is pushed to by RTMP.
    pub outputs: Vec<Place>,
    /// The container that does the work; the network's model does if there is none.
    pub container: Option<Box<JobRequest>>,
}

/// News and requests of an [`Entry`](super::Entry) for its owner.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Let the sender in: it sends for that stream, whose output is watched at that URL.
    Admit {
        /// The sender.
        sender: SenderId,
        /// The stream that it sends for.
        stream: StreamId,
        /// Where the output is watched.
        playback: String,
        /// Whether the stream is one that goes on, with its job.
        goes_on: bool,
    },
    /// Keep the sender out.
    Refuse(SenderId, Denied),
    /// Start this job, and tell how it goes.
    Start(StreamId, Box<Job>),
    /// Fetch the media of this stream there by RTMP: a media server announced it. Whoever does tells
    /// [`Entry::pulled`](super::Entry::pulled) when they come, and [`Entry::left`](super::Entry::left) when they are over.
    Pull(StreamId, Place),
    /// The first search for an orchestrator is over: whoever announced the stream is answered.
    Settled(SenderId),
    /// The model has other parameters. Somebody may wait until the orchestrator has them.
    Update(StreamId, Params, Option<UpdateId>),
    /// The stream is over: stop its job.
    Stop(StreamId, Why),
    /// How do the media of this stream's sender arrive? Whoever knows tells [`Entry::metrics`](super::Entry::metrics).
    Measure(StreamId, SenderId),
    /// Close the sender's connection.
    Kick(SenderId, Why),
    /// An event for those who listen: its queue and its JSON.
    Report {
        /// The queue.
        queue: String,
        /// The event.
        event: String,
    },
    /// Something for the operator's eyes.
    Notice(Notice),
}

/// A trouble that an operator can do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Parameters of that many bytes, of which runners read the first 32 KiB.
    LargeUpdate(StreamName, usize),
    /// The webhook gave no verdict, for that reason.
    NoVerdict(String),
    /// The heartbeat was not answered, for that reason.
    NoBeat(String),
    /// A connection at a media server could not be ended, for that reason.
    NoKick(String),
    /// Events that were dropped, since those who listen take none.
    EventsLost(u64),
    /// A sender is not let in for an address that is named, and why.
    Place(String),
}

/// A place of the operator's that is told something by POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The place.
    pub url: Url,
    /// Header fields that go with it.
    pub headers: Headers,
}

/// The API of media servers, and what they want to see.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaServer {
    /// Where the API is. Without it, each media server's is asked at the usual port of the host that announced the stream.
    pub api: Option<Url>,
    /// The user.
    pub user: String,
    /// The password. Only the API that is named here and those on this machine see it: anybody may announce a stream.
    pub password: Option<String>,
}

impl fmt::Debug for MediaServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaServer")
            .field("api", &self.api)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Settings of an [`Entry`](super::Entry).
#[derive(Clone, Debug)]
pub struct Config {
    /// Where callers reach the gateway: scheme, host and port, without a slash at the end.
    pub base: String,
    /// The beginning of the addresses at which outputs are watched; `{stream}-{request}-out/whep` follows.
    pub playback: String,
    /// Asked whether a stream may begin. Without it, whoever has the key may send.
    pub webhook: Option<Hook>,
    /// Keys of streams that come by WHIP or RTMP, by name; the empty name is for all others. Without one, no key is
    /// needed.
    pub keys: BTreeMap<String, String>,
    /// Told every five seconds which streams run; its answer may end some.
    pub heartbeat: Option<Hook>,
    /// Told all events.
    pub events: Option<Hook>,
    /// The user at media servers; without it, they are asked without one.
    pub media_server: Option<MediaServer>,
    /// Whether a newer sender takes a name over. Otherwise it is refused as long as the older one sends.
    pub takeover: bool,
    /// At most this many streams run at a time.
    pub max_streams: usize,
    /// Whether the addresses that senders name may lead to private and loopback addresses other than their own.
    pub allow_private: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base: String::new(),
            playback: "/live/video-to-video/".into(),
            webhook: None,
            keys: BTreeMap::new(),
            heartbeat: None,
            events: None,
            media_server: None,
            takeover: true,
            max_streams: 1_000,
            allow_private: false,
        }
    }
}

impl Config {
    /// Where the addresses may lead that somebody names who may lead there by the rule.
    #[must_use]
    pub const fn within(&self, named: Reach) -> Reach {
        if self.allow_private {
            Reach::Open
        } else {
            named
        }
    }

    /// The host and port at which callers reach the gateway.
    pub(super) fn host(&self) -> &str {
        let after = self.base.split_once("://");
        after.map_or(&*self.base, |(_, host)| host)
    }
}

/// The connection at a media server that a hook told of.
pub(super) fn source(way: &Way) -> Option<&MediaSource> {
    match way {
        Way::Hook(hook) | Way::Source(hook) => Some(&hook.source),
        Way::Whip | Way::Rtmp | Way::Order(_) => None,
    }
}
