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

use self::asking::{Asking, Verdict};
use self::figures::Figures;
use self::news::News;
use self::shutdown::Shutdown;
use self::stream::Stream;
use self::told::Remembered;
use crate::exchange::{Bounds, Exchange};
use crate::figures::Jobs;
use crate::http::{Headers, Method, Reach, Request};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::rng::{Rng, Seed};
use crate::time::Time;
use crate::wire::Params;
use crate::wire::entry::{
    GatewayStatus, JobQuery, OutputName, Refusal, StreamName, TraceKind, basic_credentials,
    error_event, params_event,
};

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

    // ---- senders ---------------------------------------------------------------------------------------------

    /// Takes in the question of a sender, whose answer is [`Event::Admit`] or [`Event::Refuse`], later or at once.
    pub fn publish(&mut self, now: Time, mut publish: Publish) -> SenderId {
        let now = self.advance(now);
        let id = SenderId(self.mint());
        publish.named = self.config.within(publish.named);
        let job = match self.hear(&publish) {
            Ok(job) => job,
            Err(denied) => {
                self.refuse(id, &publish.way, denied);
                return id;
            }
        };
        let request_id = hex::encode(&self.rng.bytes32()[..4]);
        let config = Arc::clone(&self.config);
        let Some(webhook) = &config.webhook else {
            let named = publish.named;
            self.admit(id, publish, (job, named), request_id);
            return id;
        };
        let asked = (publish, job, request_id);
        let asking = Asking::start(&mut self.out, now, &config, webhook, asked);
        self.asking.insert(id, Box::new(asking));
        id
    }

    /// Reads what a sender wants, as far as that needs nobody else.
    fn hear(&self, publish: &Publish) -> Result<JobQuery, Denied> {
        let announces = matches!(publish.way, Way::Source(_));
        let is_new = !announces && !self.names.contains_key(&publish.name);
        if is_new && self.is_closing() {
            return Err(Denied::Closing);
        }
        let no_room = self.streams.len() >= self.config.max_streams;
        if (is_new && no_room) || self.asking.len() >= MAX_ASKING {
            return Err(Denied::Full);
        }
        let job = asking::job(publish)?;
        let is_ours = matches!(publish.way, Way::Whip | Way::Rtmp);
        if is_ours && !asking::has_key(&self.config, publish) {
            return Err(Denied::Unauthorized);
        }
        let stream = self.names.get(&publish.name).map(|id| &self.streams[id]);
        if let Way::Order(order) = &publish.way {
            if stream.is_some() {
                return Err(Denied::Exists);
            }
            for output in &order.outputs {
                asking::check("rtmp_output", output, publish.named)?;
            }
        }
        let is_ordered = stream.is_some_and(|stream| matches!(stream.way, Way::Order(_)));
        let is_taken =
            stream.is_some_and(|stream| stream.sender.is_some() && stream.until.is_none());
        match stream {
            Some(stream) if stream.takes_no_video() => return Err(Denied::NoVideo),
            _ if announces && !is_ordered => {
                return Err(Denied::Unknown(publish.name.clone()));
            }
            // It is not for a media server to end what somebody sends.
            _ if announces && is_taken => return Err(Denied::Taken),
            _ => {}
        }
        if is_ordered && !is_ours && !announces {
            return Err(Denied::Taken);
        }
        if is_taken && is_ours && !self.config.takeover {
            return Err(Denied::Taken);
        }
        if let Way::Hook(hook) | Way::Source(hook) = &publish.way
            && !hook.rtmp_url.is_empty()
        {
            asking::check("rtmp_url", &hook.rtmp_url, publish.named)?;
        }
        asking::check("rtmpOutput", &job.rtmp_output, publish.named)?;
        Ok(job)
    }

    /// Tells that a sender left. One that is not let in yet is forgotten, and so is one that was replaced.
    pub fn left(&mut self, now: Time, id: SenderId, how: Left) {
        let now = self.advance(now);
        if let Some(mut asking) = self.asking.remove(&id) {
            asking.exchange.abort(&mut self.out);
            return;
        }
        let Some(stream_id) = self.senders.remove(&id) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if stream.waiting == Some(id) {
            stream.waiting = None;
        }
        if stream.sender != Some(id) {
            return;
        }
        match how {
            Left::Ended => self.end(stream_id, Why::Disconnected),
            Left::NoVideo => self.end(stream_id, Why::NoVideo),
            Left::Lost => self.wait(stream_id, now + GRACE),
        }
    }

    /// Lets a stream wait for media until then.
    fn wait(&mut self, id: StreamId, until: Time) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if let Some(before) = stream.until.replace(until) {
                self.due.remove(&(before, id));
            }
            self.due.insert((until, id));
        }
    }

    fn refuse(&mut self, id: SenderId, way: &Way, denied: Denied) {
        if let Denied::Place(why) = &denied {
            self.out.event(Event::Notice(Notice::Place(why.clone())));
        }
        self.out.event(Event::Refuse(id, denied));
        self.kick_at_source(way);
    }

    fn judged(&mut self, id: SenderId, verdict: Verdict) {
        let Some(asking) = self.asking.remove(&id) else {
            return;
        };
        let Asking {
            publish,
            request_id,
            ..
        } = *asking;
        let (judged, notice) = verdict;
        self.out_notice(notice);
        match judged {
            Ok(judged) => self.admit(id, publish, judged, request_id),
            Err(denied) => self.refuse(id, &publish.way, denied),
        }
    }

    /// Gives a sender the name that it wants. The place of the output may lead where whoever named it may lead.
    fn admit(
        &mut self,
        id: SenderId,
        publish: Publish,
        (job, output): (JobQuery, Reach),
        request_id: String,
    ) {
        let older = self.names.get(&publish.name).copied();
        if let Some(older) = older
            && self.streams[&older].goes_on_with(&publish.way, &job)
        {
            return self.go_on(id, older, job);
        }
        if let Way::Source(_) = publish.way {
            return self.announced(id, older, publish);
        }
        // Its stream would be a new one. We may have begun to shut down while it asked, or others were let in.
        if self.is_closing() {
            return self.refuse(id, &publish.way, Denied::Closing);
        }
        match older {
            // It was ordered while this one asked, or this is the order and somebody else was quicker.
            Some(older)
                if matches!(publish.way, Way::Order(_))
                    || matches!(self.streams[&older].way, Way::Order(_)) =>
            {
                return self.refuse(id, &publish.way, Denied::Exists);
            }
            Some(older) => self.end(older, Why::TakenOver),
            None if self.streams.len() >= self.config.max_streams => {
                return self.refuse(id, &publish.way, Denied::Full);
            }
            None => {}
        }
        let stream_id = StreamId(self.mint());
        let announced = matches!(publish.way, Way::Hook(_));
        let ordered = matches!(publish.way, Way::Order(_));
        let waits = match &publish.way {
            // Nobody sends for one that takes no video: it runs until somebody stops it, or its container ends.
            Way::Order(order) => order.takes_video(),
            _ => announced,
        };
        let playback = asking::playback(&self.config, &publish, &request_id);
        let gives_video = match &publish.way {
            Way::Order(order) => order.gives_video(),
            _ => true,
        };
        let stream = Stream {
            gateway: GatewayStatus {
                whep_url: gives_video.then(|| playback.clone()),
                ..GatewayStatus::default()
            },
            name: publish.name.clone(),
            way: publish.way,
            named: publish.named,
            output,
            job,
            request_id,
            playback: playback.clone(),
            announced: None,
            sender: (!announced && !ordered).then_some(id),
            pulled: false,
            waiting: announced.then_some(id),
            began: self.now,
            orchestrator: None,
            runs: false,
            params: None,
            status: None,
            has_input: false,
            outputs: 0,
            swaps: 0,
            until: None,
        };
        self.figures.admitted(&stream.job.pipeline);
        let job = stream.to_job();
        let source = stream.source();
        self.names.insert(publish.name, stream_id);
        self.streams.insert(stream_id, stream);
        // Whoever orders is answered at once, and has nothing more to do with it.
        if !ordered {
            self.senders.insert(id, stream_id);
        }
        if waits {
            self.wait(stream_id, self.now + MEDIA_WITHIN);
        } else if !ordered {
            self.next_measure.get_or_insert(self.now + MEASURE_EVERY);
        }
        self.out.event(Event::Admit {
            sender: id,
            stream: stream_id,
            playback,
            goes_on: false,
        });
        self.trace(stream_id, TraceKind::ReceiveStreamRequest, None);
        self.out.event(Event::Start(stream_id, job));
        if let Some(source) = source {
            self.out.event(Event::Pull(stream_id, source));
        }
        self.tell_shutdown(stream_id);
    }

    /// Has the media of a stream that was ordered fetched at the media server that announces them.
    fn announced(&mut self, id: SenderId, stream_id: Option<StreamId>, publish: Publish) {
        let has_sender = |stream: &Stream| {
            let sender = stream.sender.as_ref();
            sender.is_some_and(|sender| self.senders.contains_key(sender))
        };
        let stream = stream_id.and_then(|id| self.streams.get(&id));
        let denied = match stream {
            Some(stream) if has_sender(stream) => Some(Denied::Taken),
            Some(stream) if matches!(stream.way, Way::Order(_)) => None,
            _ => Some(Denied::Unknown(publish.name.clone())),
        };
        if let Some(denied) = denied {
            return self.refuse(id, &publish.way, denied);
        }
        let (Some(stream_id), Way::Source(hook)) = (stream_id, publish.way) else {
            return;
        };
        self.wait(stream_id, self.now + MEDIA_WITHIN);
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        stream.announced = Some((hook, publish.named));
        let source = stream.source();
        self.out.event(Event::Settled(id));
        if let Some(source) = source {
            self.out.event(Event::Pull(stream_id, source));
        }
    }

    /// Tells that the media of an announced stream come, which are fetched at its media server: they have a sender of
    /// their own from here on. `None` if nobody wants them: the stream is over, or somebody sends for it.
    pub fn pulled(&mut self, now: Time, id: StreamId) -> Option<SenderId> {
        self.advance(now);
        let stream = self.streams.get_mut(&id)?;
        let has_sender = |sender: &SenderId| self.senders.contains_key(sender);
        let announced = matches!(stream.way, Way::Hook(_)) || stream.announced.is_some();
        if !announced || stream.sender.as_ref().is_some_and(has_sender) {
            return None;
        }
        if let Some(until) = stream.until.take() {
            self.due.remove(&(until, id));
        }
        self.minted += 1;
        let sender = SenderId(self.minted);
        (stream.sender, stream.pulled) = (Some(sender), true);
        self.senders.insert(sender, id);
        self.next_measure.get_or_insert(self.now + MEASURE_EVERY);
        Some(sender)
    }

    /// Lets a sender go on with a stream that there is.
    fn go_on(&mut self, id: SenderId, stream_id: StreamId, job: JobQuery) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if let Some(until) = stream.until.take() {
            self.due.remove(&(until, stream_id));
        }
        stream.pulled = false;
        // One that left by itself is not among them any more.
        if let Some(older) = stream.sender.replace(id)
            && self.senders.remove(&older).is_some()
        {
            self.out.event(Event::Kick(older, Why::TakenOver));
        }
        self.senders.insert(id, stream_id);
        self.out.event(Event::Admit {
            sender: id,
            stream: stream_id,
            playback: stream.playback.clone(),
            goes_on: true,
        });
        let later = self.now + MEASURE_EVERY;
        self.next_measure.get_or_insert(later);
        if let Some(params) = job.params
            && stream.job.params.as_ref() != Some(&params)
        {
            self.change(stream_id, params, None);
        }
    }

    // ---- requests about streams ------------------------------------------------------------------------------

    /// Changes the parameters of a stream's model, which gets them as they came. `name` is the stream's name, or its id.
    ///
    /// # Errors
    /// 404 if there is no such stream, 400 if the text is not a JSON object.
    pub fn update(&mut self, now: Time, name: &str, params: &str) -> Result<Updated, Refusal> {
        self.advance(now);
        let id = self.find(name)?;
        let for_container = matches!(self.streams[&id].way, Way::Order(_));
        let read = match for_container {
            true => Params::for_container(params),
            false => Params::parse(params),
        };
        let read = read.map_err(|_| Refusal::BAD_PARAMS)?;
        // Containers have them in a request of its own, and read all of it.
        if params.len() > LARGE_UPDATE && !for_container {
            let name = self.streams[&id].name.clone();
            let notice = Notice::LargeUpdate(name, params.len());
            self.out.event(Event::Notice(notice));
        }
        if !self.streams[&id].runs {
            self.change(id, read, None);
            return Ok(Updated::Kept);
        }
        let update = UpdateId(self.mint());
        self.change(id, read, Some(update));
        Ok(Updated::Sent(update))
    }

    fn change(&mut self, id: StreamId, params: Params, update: Option<UpdateId>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.job.params = Some(params.clone());
        if stream.runs {
            let event = params_event(&stream.context(), &params);
            self.out.event(Event::Update(id, params, update));
            self.report("ai_stream_events", event);
        } else {
            stream.params = Some(params);
        }
    }

    /// The status of a stream, or of one that ended lately. `name` is the stream's id, or its name.
    ///
    /// # Errors
    /// 404 if there is no such stream.
    pub fn status(&self, name: &str) -> Result<String, Refusal> {
        if let Some(id) = self.found(name) {
            return Ok(self.streams[&id].told());
        }
        let told = self.remembered.get(name).map(String::from);
        told.ok_or(Refusal::UNKNOWN_STREAM)
    }

    /// Ends a stream, and names it. `name` is the stream's name, or its id.
    ///
    /// # Errors
    /// 404 if there is no such stream.
    pub fn stop(&mut self, now: Time, name: &str) -> Result<StreamId, Refusal> {
        self.advance(now);
        let id = self.find(name)?;
        self.end(id, Why::Asked);
        Ok(id)
    }

    /// The stream whose output has that name.
    ///
    /// # Errors
    /// 404 if there is no such stream, or if another request has its name now.
    pub fn output(&self, name: &OutputName) -> Result<StreamId, Refusal> {
        let id = self.names.get(&name.stream).copied();
        let is_it = |id: &StreamId| {
            let wanted = name.request_id.as_ref();
            wanted.is_none_or(|wanted| *wanted == self.streams[id].request_id)
        };
        id.filter(is_it).ok_or(Refusal::UNKNOWN_STREAM)
    }

    /// The stream of that name, or that id.
    ///
    /// # Errors
    /// 404 if there is no such stream.
    pub fn find(&self, name: &str) -> Result<StreamId, Refusal> {
        self.found(name).ok_or(Refusal::UNKNOWN_STREAM)
    }

    /// A name stands before an id, and the newest stream before those that it replaced.
    fn found(&self, text: &str) -> Option<StreamId> {
        let named = StreamName::parse(text)
            .ok()
            .and_then(|name| self.names.get(&name).copied());
        let of_id = || self.streams.iter().rev().find(|(_, one)| one.id() == text);
        named.or_else(|| of_id().map(|(id, _)| *id))
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
