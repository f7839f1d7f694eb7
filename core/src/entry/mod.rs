//! Live entry: the names of live streams, who may send under them, and what becomes of them.
//!
//! A sender knocks: a media server's hook, WHIP or RTMP; and somebody may order a stream through a container, for which a
//! sender comes later, by WHIP or RTMP or at a media server, and goes on with the job that has begun; or none does, where the
//! stream takes no video. Whether it may send is the webhook's to say, or the key's. Then it has the name, and the stream gets
//! a job; whoever had the name before loses it at once and without a word.
//!
//! ```text
//! sender                                                   stream
//! publish ──▶ no room, bad query, wrong key ──▶ Refuse
//!    │
//!    ├──▶ Asking the webhook ── denied, late ──▶ Refuse, kick at the media server
//!    │        └── gone ──▶ forgotten
//!    ▼ admitted
//!    ├── the stream of that name goes on with it ──▶ Admit, Update if it has parameters
//!    ▼ otherwise an older stream of the name: Stop(TakenOver)
//!  Admit ────────────────────────────────────────────────▶ Searching   Event::Start, Pull at a media server
//!                                                             │ started ──▶ Settled, Update if some came meanwhile
//!                                                             ▼
//!                                                           Running ──── swapped ──▶ Running
//!                                                             │ lost without a word ──▶ waits GRACE for its sender
//! ```
//!
//! | state | input | next | output |
//! |---|---|---|---|
//! | any | update | same | Update; kept while it is searching |
//! | ordered | a media server announces its media | same | Pull; they have a minute to come |
//! | any | stop, heartbeat's verdict | over | Stop, Kick |
//! | any | sender ended, no video | over | Stop; Kick at a media server |
//! | any | sender lost | waiting | - |
//! | waiting | a sender of the name, for the same work | as before | Admit |
//! | announced | its media are fetched at the media server | Searching, Running | - |
//! | waiting | time is over | over | Stop |
//! | Searching, Running | nobody took the job, or it failed | over | Stop, Kick, Settled |
//! | any | we shut down: that is told; when the time for it is over | over | Stop, Kick |
//! | over | - | - | status for [`REMEMBERED`], unless it was taken over |
//!
//! Statuses and events are told as jobs spec 3.5 has them: to whoever asks, as [`Event::Report`], and to the operator's
//! place, in order and in batches. That never holds anything up: a queue of bounded length drops its oldest.
//! Nothing that is told in a status names an orchestrator's address.

mod asking;
mod exchanges;
mod figures;
mod jobs;
mod news;
mod requests;
mod senders;
mod shutdown;
mod stream;
mod told;
mod types;

pub use news::{MAX_BATCH, MAX_TRIES, MAX_WAITING, MAX_WAITING_BYTES};
pub use stream::without_addresses;
pub use types::{
    AUTH_WITHIN, BEAT_EVERY, Config, Denied, Event, GRACE, Hook, Job, JobEnd, KICK_WITHIN,
    LARGE_UPDATE, Left, MAX_ASKING, MAX_KICKS, MAX_REMEMBERED, MEASURE_EVERY, MEDIA_WITHIN,
    MediaServer, Notice, Ordered, Publish, REMEMBERED, SenderId, StreamId, UpdateId, Updated, Way,
    Why,
};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::asking::Asking;
use self::figures::Figures;
use self::news::News;
use self::shutdown::Shutdown;
use self::stream::Stream;
use self::told::Remembered;
use crate::exchange::{Bounds, Exchange};
use crate::figures::Jobs;
use crate::http::{Headers, Method, Request};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::rng::{Rng, Seed};
use crate::time::Time;
use crate::wire::entry::{StreamName, TraceKind, basic_credentials, error_event};

const KICK: Bounds = Bounds {
    doing: "the end of a connection at a media server",
    what: "the media server's answer in bytes",
    limit: 64 << 10,
    within: KICK_WITHIN,
    redirects: false,
};

/// The names of live streams. See the [module](self).
#[derive(Debug)]
pub struct Entry {
    now: Time,
    config: Arc<Config>,
    rng: Rng,
    out: Outbox<Event>,
    minted: u64,
    asking: BTreeMap<SenderId, Box<Asking>>,
    streams: BTreeMap<StreamId, Stream>,
    names: BTreeMap<StreamName, StreamId>,
    /// The streams of senders that were let in.
    senders: BTreeMap<SenderId, StreamId>,
    /// Streams that wait for media, and until when.
    due: BTreeSet<(Time, StreamId)>,
    remembered: Remembered,
    kicks: Vec<Exchange>,
    beat: Option<Exchange>,
    next_beat: Option<Time>,
    /// When to look how the media of senders arrive.
    next_measure: Option<Time>,
    news: News,
    figures: Figures,
    shutdown: Option<Shutdown>,
}

impl Entry {
    /// Nobody sends yet. Names of requests are drawn from the seed.
    #[must_use]
    pub fn new(now: Time, config: Arc<Config>, seed: Seed) -> Self {
        let mut rng = Rng::new(seed);
        let news = News::new(Rng::new(rng.fork()));
        Self {
            now,
            next_beat: config.heartbeat.is_some().then_some(now + BEAT_EVERY),
            config,
            rng,
            out: Outbox::default(),
            minted: 0,
            asking: BTreeMap::new(),
            streams: BTreeMap::new(),
            names: BTreeMap::new(),
            senders: BTreeMap::new(),
            due: BTreeSet::new(),
            remembered: Remembered::default(),
            kicks: Vec::new(),
            beat: None,
            next_measure: None,
            news,
            figures: Figures::default(),
            shutdown: None,
        }
    }

    /// Replaces the settings. Questions that were asked are answered as before.
    pub fn set_config(&mut self, now: Time, config: Arc<Config>) {
        let now = self.advance(now);
        if config.heartbeat.is_none() {
            self.next_beat = None;
        } else if self.next_beat.is_none() && self.beat.is_none() {
            self.next_beat = Some(now + BEAT_EVERY);
        }
        self.config = config;
    }

    /// How many streams there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is no stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// How many events wait for the operator's place, and their bytes.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.news.waiting()
    }

    /// The figures of live entry, in the text format of Prometheus.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        self.figures.to_prometheus()
    }

    /// The figures of the jobs of its streams.
    #[must_use]
    pub const fn jobs(&self) -> &Jobs {
        &self.figures.jobs
    }

    // ---- the end ---------------------------------------------------------------------------------------------

    /// Ends a stream, and gives its name back if it has it still.
    fn end(&mut self, id: StreamId, why: Why) {
        let now = self.now;
        if why == Why::NoOrchestrator {
            self.trace(id, TraceKind::NoOrchestratorsAvailable, None);
        }
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        if let Some(until) = stream.until {
            self.due.remove(&(until, id));
        }
        if stream.runs {
            self.figures.ended(&stream.job.pipeline);
        }
        if self.names.get(&stream.name) == Some(&id) {
            self.names.remove(&stream.name);
        }
        if let Some(message) = why.message(&stream.way) {
            stream.gateway.fail(now, &message);
            let event = error_event(&stream.context(), &message);
            self.report("ai_stream_events", event);
        }
        let closed = stream
            .context()
            .trace(now, TraceKind::IngestStreamClosed, None);
        self.report("stream_trace", closed);
        if why != Why::TakenOver {
            let (told_id, name) = (stream.id().to_string(), stream.name.to_string());
            self.remembered.push(now, told_id, name, stream.told());
        }
        if why.kicks() {
            self.kick_at_source(&stream.way);
            if let Some((hook, _)) = stream.announced.take() {
                self.kick_at_source(&Way::Source(hook));
            }
        }
        if let Some(sender) = stream.waiting {
            self.senders.remove(&sender);
            self.out.event(Event::Settled(sender));
        }
        // A sender that left by itself is not among them any more.
        if let Some(sender) = stream.sender
            && self.senders.remove(&sender).is_some()
        {
            self.out.event(Event::Kick(sender, why.clone()));
        }
        self.out.event(Event::Stop(id, why));
    }

    /// Has a media server end the connection that it announced.
    fn kick_at_source(&mut self, way: &Way) {
        let server = self.config.media_server.as_ref();
        let api = server.and_then(|server| server.api.as_ref());
        let Some(source) = types::source(way).filter(|_| self.kicks.len() < MAX_KICKS) else {
            return;
        };
        let Some(url) = source.kick_url(api) else {
            return;
        };
        let mut request = Request::new(Method::Post, url);
        let is_known = api.is_some() || source.host.to_canonical().is_loopback();
        if let Some(server) = server.filter(|_| is_known)
            && let Some(password) = &server.password
        {
            let credentials = basic_credentials(&server.user, password);
            request = request.header("authorization", credentials);
        }
        let kick = Exchange::start(&mut self.out, self.now, request, KICK);
        self.kicks.push(kick);
    }

    // ---- events ----------------------------------------------------------------------------------------------

    fn trace(&mut self, id: StreamId, kind: TraceKind, message: Option<&str>) {
        if let Some(stream) = self.streams.get(&id) {
            let event = stream.context().trace(self.now, kind, message);
            self.report("stream_trace", event);
        }
    }

    fn report(&mut self, queue: &str, event: String) {
        if self.config.events.is_some() {
            let config = Arc::clone(&self.config);
            self.news.push(self.now, config.host(), queue, &event);
            self.news
                .send(&mut self.out, self.now, config.events.as_ref());
            let lost = self.news.notice();
            self.out_notice(lost);
        }
        let queue = queue.to_string();
        self.out.event(Event::Report { queue, event });
    }

    fn out_notice(&mut self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            self.out.event(Event::Notice(notice));
        }
    }

    fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }
}

impl Machine for Entry {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        if let Input::Http(id, step) = input {
            self.heard(id, step);
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| Output::Idle(self.wake()))
    }
}

/// The header fields that prove to a webhook who asks: the key, in the two fields in which hooks of the reference look.
#[must_use]
pub fn key_headers(key: &str) -> Headers {
    let mut headers = Headers::new();
    if !key.is_empty() {
        headers.push("x-api-key", key);
        headers.push("authorization", key);
    }
    headers
}
