//! The wires of live entry: senders and viewers at the sockets, the machine that decides about them, and the jobs of
//! their streams. Nothing is decided here.
//!
//! ```text
//! front door ── start, update, status, stop ──▶ Entry ── Start, Update, Stop ──▶ the task of a job
//!      │                                        ▲   │ Admit, Refuse, Kick
//!      └── WHIP, WHEP ──▶ Webrtc ── asks, ends ─┘   ├──▶ Webrtc
//!                         Rtmp  ──── asks, ends ────┴──▶ Rtmp
//! ```

mod data;
mod hls;
mod job;
mod running;
mod smoke;
mod sockets;
mod ways;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::future;
use livepeer_core::Time;
use livepeer_core::entry::{
    Denied, Entry, Event, Notice, Publish, SenderId, StreamId, UpdateId, Updated, Way, Why,
};
use livepeer_core::front::{Call, Front, RequestId, Session, StreamCall};
use livepeer_core::http::{Body, Response};
use livepeer_core::job::byoc::stream::StreamAnswer;
use livepeer_core::wire::entry::{Door, OutputName, Refusal, SmokeTest, StartHook};
use livepeer_runtime::ingest::machines::bridge;
use livepeer_runtime::ingest::machines::port::SessionId;
use livepeer_runtime::ingest::machines::rtmp::{self, ConnectionId};
use livepeer_runtime::ingest::{self, Show};
use livepeer_runtime::{Handle, Runtime, seed};
use tracing::{info, warn};

use self::job::{Answered, Farewell, Word};
use self::smoke::{MAX_TESTS, Test};
pub(super) use self::sockets::{Bound, Ways};
use super::lock;
use super::wiring::{ForLive, Wiring};
use crate::cmd::socket::sleep_until;

/// The answer to parameters that no orchestrator was there to take.
const NOT_UPDATED: &str = "the stream was over before the orchestrator had the parameters";

/// Live entry. See the [module](self).
pub(super) struct Live<R: Runtime> {
    entry: Handle<Entry, R>,
    ways: Ways<R>,
    wiring: Arc<Wiring<R>>,
    state: Mutex<State<R>>,
    /// Said when the last stream is over.
    idle: (Sender<()>, Receiver<()>),
    /// The places of test streams: one that is sent has put something in.
    tests: (Sender<()>, Receiver<()>),
}

struct State<R: Runtime> {
    senders: BTreeMap<SenderId, Place>,
    /// Orders that are answered once there is a place for their streams.
    ordered: BTreeMap<RequestId, Box<StreamCall>>,
    /// The streams that those senders were let in for.
    admitted: BTreeMap<SenderId, StreamId>,
    streams: BTreeMap<StreamId, Stream<R>>,
    /// The shows that players of HLS see, by the names of their outputs.
    listed: BTreeMap<String, Show<R>>,
    /// Streams that a publisher of RTMP has begun: the sender that is heard, and what it was let in for.
    published: BTreeMap<rtmp::StreamId, (SenderId, StreamId)>,
    /// Requests of WHIP and WHEP that wait for their answer.
    waiting: BTreeMap<RequestId, Sender<()>>,
    /// Callers who wait until an orchestrator has new parameters, before those are on their way.
    updates: BTreeMap<UpdateId, Sender<Answered>>,
    /// Last words for containers whose streams are being stopped.
    farewells: BTreeMap<StreamId, Farewell>,
}

impl<R: Runtime> Default for State<R> {
    fn default() -> Self {
        Self {
            senders: BTreeMap::new(),
            ordered: BTreeMap::new(),
            admitted: BTreeMap::new(),
            streams: BTreeMap::new(),
            listed: BTreeMap::new(),
            published: BTreeMap::new(),
            waiting: BTreeMap::new(),
            updates: BTreeMap::new(),
            farewells: BTreeMap::new(),
        }
    }
}

impl<R: Runtime> State<R> {
    /// Forgets a sender: where it was.
    fn forget(&mut self, sender: SenderId) -> Option<Place> {
        self.admitted.remove(&sender);
        self.senders.remove(&sender)
    }
}

/// Where a sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Announced by a request that waits for its answer.
    Hook(RequestId),
    /// Ordered by a request that is answered with addresses for whoever sends.
    Order(RequestId),
    Whip(SessionId),
    Rtmp(ConnectionId),
    /// At a media server, where the stream is fetched.
    Pulled(StreamId),
}

/// A stream that is not over.
struct Stream<R: Runtime> {
    show: Show<R>,
    /// The name of its output.
    output: String,
    /// Words to the task of its job.
    words: Sender<Word<R>>,
    /// Whether its container says data beside its video.
    says_data: bool,
    /// A permission: as long as it is there, the stream may be fetched at the media server that announced it.
    pulling: Option<Sender<()>>,
}

impl<R: Runtime> Live<R> {
    pub(super) fn new(wiring: Arc<Wiring<R>>, ways: Ways<R>) -> Self {
        let driver = wiring.gateway().driver();
        let config = wiring.config().settings.ingest.entry(&ways.bound);
        let entry = Entry::new(driver.now(), Arc::new(config), seed());
        Self {
            entry: driver.drive(entry),
            ways,
            wiring,
            state: Mutex::default(),
            idle: async_channel::bounded(1),
            tests: async_channel::bounded(MAX_TESTS),
        }
    }

    /// The places where senders and viewers come in, one a line.
    pub(super) fn places(&self) -> Vec<String> {
        self.ways.places()
    }

    pub(super) const fn entry(&self) -> &Handle<Entry, R> {
        &self.entry
    }

    fn runtime(&self) -> &R {
        self.entry.driver().runtime()
    }

    /// Goes by the settings of now.
    pub(super) fn set_config(&self) {
        let settings = &self.wiring.config().settings;
        let config = Arc::new(settings.ingest.entry(&self.ways.bound));
        self.entry.with(|entry, now| entry.set_config(now, config));
    }

    /// Hears what the front door has for it.
    pub(super) fn hear(self: &Arc<Self>, news: ForLive) {
        match news {
            ForLive::Call(id, call) => self.call(id, *call),
            // Dropping it gives the request up.
            ForLive::Gone(id) => {
                let mut state = lock(&self.state);
                state.waiting.remove(&id);
                state.ordered.remove(&id);
            }
            ForLive::Chain(view) => {
                for stream in lock(&self.state).streams.values() {
                    let _ = stream.words.try_send(Word::Chain(view.clone()));
                }
            }
        }
    }

    /// Takes in no sender of another stream from `closes` on, and ends all streams at `ends`.
    pub(super) fn drain(&self, closes: Time, ends: Time) {
        self.entry.with(|entry, now| entry.drain(now, closes, ends));
    }

    /// Waits until no stream is left.
    pub(super) async fn drained(&self) {
        while !lock(&self.state).streams.is_empty() {
            let _ = self.idle.1.recv().await;
        }
    }

    /// Ends all streams, and the sockets with them once their jobs are over.
    pub(super) async fn end(&self) {
        self.tests.0.close();
        self.entry.with(Entry::stop_all);
        self.drained().await;
        if let Some(webrtc) = &self.ways.webrtc {
            webrtc.close();
        }
        if let Some(rtmp) = &self.ways.rtmp {
            rtmp.close();
        }
    }

    /// Carries events until the program ends.
    pub(super) async fn run(self: Arc<Self>) {
        if let Some(webrtc) = self.ways.webrtc.clone() {
            let live = Arc::clone(&self);
            self.runtime().spawn(live.hear_webrtc(webrtc));
        }
        if let Some(rtmp) = self.ways.rtmp.clone() {
            let live = Arc::clone(&self);
            self.runtime().spawn(live.hear_rtmp(rtmp));
        }
        while let Some(event) = self.entry.next().await {
            self.happened(event);
        }
    }

    fn happened(self: &Arc<Self>, event: Event) {
        match event {
            Event::Admit {
                sender,
                stream,
                playback,
                goes_on,
            } => {
                if !goes_on {
                    self.open(stream, &playback);
                }
                self.admit(sender, stream, &playback);
            }
            Event::Refuse(sender, denied) => self.refuse(sender, &denied),
            Event::Start(id, job) => self.start(id, job),
            Event::Pull(id, from) => self.pull(id, &from),
            Event::Settled(sender) => {
                let place = lock(&self.state).forget(sender);
                if let Some(Place::Hook(request)) = place {
                    self.respond(request, Response::new(200));
                }
            }
            Event::Update(id, params, update) => {
                let waits = update.and_then(|update| lock(&self.state).updates.remove(&update));
                self.tell(id, Word::Update((params, waits)));
            }
            Event::Stop(id, why) => self.stop(id, &why),
            Event::Measure(stream, sender) => self.measure(stream, sender),
            Event::Kick(sender, why) => self.kick(sender, &why),
            Event::Report { queue, event } => info!(queue, event, "live"),
            Event::Notice(notice) => noticed(&notice),
            _ => {}
        }
    }

    fn tell(&self, id: StreamId, word: Word<R>) {
        if let Some(stream) = lock(&self.state).streams.get(&id) {
            let _ = stream.words.try_send(word);
        }
    }

    /// A new stream: its pictures have a way, though nobody sends any yet.
    fn open(self: &Arc<Self>, id: StreamId, playback: &str) {
        let driver = self.entry.driver();
        let show = Show::new(driver, bridge::Config::default());
        // The playback address ends with the output's name and the door.
        let output = playback.rsplit('/').nth(1).unwrap_or_default().to_owned();
        if let Some(webrtc) = &self.ways.webrtc {
            show.watch(webrtc, &output);
        }
        let listed = self
            .wiring
            .config()
            .settings
            .ingest
            .hls
            .then(|| output.clone());
        if let Some(name) = &listed {
            show.package(name, hls::RENDITION, hls::LEAST);
            lock(&self.state).listed.insert(name.clone(), show.clone());
        }
        let (words, heard) = async_channel::unbounded();
        let stream = Stream {
            show: show.clone(),
            output,
            words,
            says_data: false,
            pulling: None,
        };
        lock(&self.state).streams.insert(id, stream);
        let live = Arc::clone(self);
        self.runtime().spawn(async move {
            live.work(id, show.clone(), heard).await;
            // A shutdown waits for its last pictures.
            show.left().await;
            drop(show);
            {
                let mut state = lock(&live.state);
                state.streams.remove(&id);
                if state.streams.is_empty() {
                    let _ = live.idle.0.try_send(());
                }
            }
            if let Some(name) = listed {
                let driver = live.entry.driver();
                sleep_until(driver, driver.now() + hls::AFTER_THE_END).await;
                lock(&live.state).listed.remove(&name);
            }
        });
    }

    fn start(&self, id: StreamId, job: Box<livepeer_core::entry::Job>) {
        if let Some(container) = &job.container
            && let Some(stream) = lock(&self.state).streams.get_mut(&id)
        {
            stream.says_data = container.wishes().is_ok_and(|wishes| wishes.data_out);
        }
        self.tell(id, Word::Start(job));
    }

    fn stop(&self, id: StreamId, why: &Why) {
        info!(?why, "a live stream is over");
        let published: Vec<_> = {
            let state = lock(&self.state);
            let mine = state.published.iter().filter(|(_, (_, of))| *of == id);
            mine.map(|(stream, _)| *stream).collect()
        };
        if let Some(rtmp) = &self.ways.rtmp {
            for stream in published {
                lock(&self.state).published.remove(&stream);
                rtmp.stop(stream, &said(why));
            }
        }
        if let Some(stream) = lock(&self.state).streams.get_mut(&id) {
            stream.pulling = None;
        }
        let farewell = lock(&self.state).farewells.remove(&id);
        // What was sent still goes through the job, unless somebody else has the name now.
        let word = match why {
            Why::Disconnected | Why::NoVideo | Why::Finished => Word::End,
            _ => Word::Stop(farewell),
        };
        self.tell(id, word);
    }

    // ---- requests --------------------------------------------------------------------------------------------

    fn respond(&self, id: RequestId, response: Response) {
        let front = self.wiring.front();
        front.with(|front, now| Front::respond(front, now, id, response));
    }

    fn refused(&self, id: RequestId, refusal: &Refusal) {
        self.respond(id, line(refusal.status, &refusal.text));
    }

    /// A request of the front door about a stream.
    fn call(self: &Arc<Self>, id: RequestId, call: Call) {
        match call {
            Call::Start(hook) => self.announced(id, hook, Way::Hook),
            Call::Order(order) => self.order(id, order),
            Call::Source(hook) => self.announced(id, hook, Way::Source),
            Call::Data { stream } => self.data(id, &stream),
            Call::Update { stream, params } => self.update(id, &stream, &params),
            Call::Status { stream } => match self.entry.with(|entry, _| entry.status(&stream)) {
                Ok(status) => {
                    let answer = Response::new(200)
                        .header("content-type", "application/json")
                        .header("cache-control", "no-store");
                    self.respond(id, answer.body(Body::Full(status.into())));
                }
                Err(refusal) => self.refused(id, &refusal),
            },
            Call::Stop { stream, words } => self.end_asked(id, &stream, words),
            Call::SmokeTest(asked) => {
                let begun = self.test(&asked);
                let text = begun.err().map(|(status, text)| line(status, &text));
                self.respond(id, text.unwrap_or_else(|| Response::new(200)));
            }
            Call::Whip(name, session) => {
                self.at_door(id, Door::Whip, name.as_str().to_owned(), *session);
            }
            Call::Whep(output, session) => self.watched(id, &output, *session),
            Call::Hls(output, part) => self.fetched(id, &output, &part),
            _ => self.respond(id, line(501, "not served by this gateway")),
        }
    }

    /// Changes a model's parameters, and answers once the orchestrator has them, or at once if none works yet.
    fn update(self: &Arc<Self>, id: RequestId, stream: &str, params: &[u8]) {
        let text = String::from_utf8_lossy(params);
        let told = {
            // The event waits for the lock.
            let mut state = lock(&self.state);
            let update = |entry: &mut Entry, now| entry.update(now, stream, &text);
            match self.entry.with(update) {
                Err(refusal) => {
                    drop(state);
                    return self.refused(id, &refusal);
                }
                Ok(Updated::Kept) => None,
                Ok(Updated::Sent(update)) => {
                    let (tell, told) = async_channel::bounded(1);
                    state.updates.insert(update, tell);
                    Some(told)
                }
            }
        };
        let Some(told) = told else {
            return self.respond(id, Response::new(200));
        };
        let live = Arc::clone(self);
        self.runtime().spawn(async move {
            match told.recv().await {
                Ok(Ok(None)) => live.respond(id, Response::new(200)),
                Ok(Ok(Some(answer))) => live.respond(id, answered(answer)),
                Ok(Err(why)) => live.respond(id, line(500, &why)),
                // The stream was over before.
                Err(_) => live.respond(id, line(500, NOT_UPDATED)),
            }
        });
    }

    /// Ends a stream, and answers with the last words of its container, if it has one.
    fn end_asked(self: &Arc<Self>, id: RequestId, stream: &str, words: Bytes) {
        let (tell, told) = async_channel::bounded(1);
        let stopped = {
            // The event waits for the lock.
            let mut state = lock(&self.state);
            let stopped = self.entry.with(|entry, now| entry.stop(now, stream));
            if let Ok(stream) = &stopped {
                state.farewells.insert(*stream, (words, tell));
            }
            stopped
        };
        if let Err(refusal) = stopped {
            return self.refused(id, &refusal);
        }
        let live = Arc::clone(self);
        self.runtime().spawn(async move {
            let said = told.recv().await.unwrap_or_default();
            let answer = Response::new(200).header("content-type", "text/plain; charset=utf-8");
            live.respond(id, answer.body(Body::Full(said)));
        });
    }

    /// Begins to send a test stream; if it cannot, the status and the words that say so.
    fn test(&self, asked: &SmokeTest) -> Result<(), (u16, String)> {
        let config = self.wiring.config().settings.ingest.entry(&self.ways.bound);
        let named = config.within(asked.named);
        let test = Test::read(asked, named).map_err(|bad| (400, bad))?;
        let (place, taken) = self.tests.clone();
        place
            .try_send(())
            .map_err(|_| (503, format!("{MAX_TESTS} test streams are being sent")))?;
        let driver = self.entry.driver().clone();
        self.runtime().spawn(async move {
            test.send(driver, place).await;
            let _ = taken.try_recv();
        });
        Ok(())
    }

    fn announced(&self, id: RequestId, hook: Box<StartHook>, way: fn(Box<StartHook>) -> Way) {
        let publish = Publish {
            name: hook.stream.clone(),
            key: None,
            query: hook.query.clone(),
            named: hook.named,
            way: way(hook),
        };
        self.publish(publish, Place::Hook(id));
    }

    fn order(&self, id: RequestId, order: Box<StreamCall>) {
        let publish = Publish {
            name: order.name.clone(),
            key: None,
            query: String::new(),
            named: order.named,
            way: Way::Order(Box::new(order.ordered.clone())),
        };
        lock(&self.state).ordered.insert(id, order);
        self.publish(publish, Place::Order(id));
    }

    /// Asks whether a sender may send. The answer comes as an event, which waits for the lock.
    fn publish(&self, publish: Publish, place: Place) {
        let mut state = lock(&self.state);
        let id = self.entry.with(|entry, now| entry.publish(now, publish));
        state.senders.insert(id, place);
    }

    /// A viewer's request: the output that it means is that of the request that has the stream's name now.
    fn watched(self: &Arc<Self>, id: RequestId, output: &OutputName, mut session: Session) {
        let found = self.entry.with(|entry, _| entry.output(output));
        let name = found.map(|stream| {
            let state = lock(&self.state);
            state.streams.get(&stream).map(|one| one.output.clone())
        });
        let name = match (name, &output.request_id) {
            (Ok(Some(name)), _) => name,
            // A session of a stream that is over can still be ended.
            (_, Some(request)) if session.name.is_some() => output.stream.output_of(request),
            (Err(refusal), _) => {
                let answer = line(refusal.status, &refusal.text).header("retry-after", "1");
                return self.respond(id, answer);
            }
            (Ok(None), _) => return self.respond(id, line(404, "Stream not found")),
        };
        // The session is named below the output's own name, which the stream's may not stay.
        let path = session.request.url.path();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if session.name.is_none()
            && let Some((before, _)) = path.trim_end_matches('/').rsplit_once('/')
            && let Some((before, _)) = before.rsplit_once('/')
        {
            let question = if query.is_empty() { "" } else { "?" };
            let path = format!("{before}/{name}/whep{question}{query}");
            session.request.url = session.request.url.with_path(&path);
        }
        self.at_door(id, Door::Whep, name, session);
    }

    fn at_door(self: &Arc<Self>, id: RequestId, door: Door, stream: String, session: Session) {
        let Some(webrtc) = self.ways.webrtc.clone() else {
            return self.respond(id, line(404, "Stream not found"));
        };
        let call = ingest::Call {
            // The port names its requests itself.
            exchange: livepeer_core::EffectId::by_peer(0),
            door,
            stream,
            session: session.name,
            request: session.request,
            body: session.body,
        };
        let (wait, gone) = async_channel::bounded::<()>(1);
        lock(&self.state).waiting.insert(id, wait);
        let live = Arc::clone(self);
        self.runtime().spawn(async move {
            let answered = async { Some(webrtc.call(call).await) };
            let left = async {
                let _ = gone.recv().await;
                None
            };
            if let Some(response) = future::or(answered, left).await {
                live.respond(id, response);
            }
            lock(&live.state).waiting.remove(&id);
        });
    }
}

/// The answer of a container, as its orchestrator gives it.
fn answered(answer: StreamAnswer) -> Response {
    let status = match answer.status {
        200..300 => 200,
        status @ 400..600 => status,
        // Nothing that says more about a request to us.
        _ => 502,
    };
    let kind = match &*answer.content_type {
        "" => "text/plain; charset=utf-8",
        kind => kind,
    };
    Response::new(status)
        .header("content-type", kind)
        .body(Body::Full(answer.body))
}

/// An answer of one line.
fn line(status: u16, text: &str) -> Response {
    Response::new(status)
        .header("content-type", "text/plain; charset=utf-8")
        .body(Body::Full(format!("{text}\n").into()))
}

/// The words for a sender whose stream is over.
fn said(why: &Why) -> String {
    match why {
        Why::TakenOver => "replaced by another sender".to_owned(),
        Why::Asked => "the stream was stopped".to_owned(),
        Why::Terminated => "the stream was terminated".to_owned(),
        Why::Disconnected | Why::Finished => "the stream is over".to_owned(),
        Why::NoVideo => "no video came".to_owned(),
        Why::NoOrchestrator => "no orchestrator takes this stream now".to_owned(),
        Why::Failed(text) => text.clone(),
        Why::Closing => "the gateway is shutting down".to_owned(),
    }
}

/// The words for a sender that is not let in.
fn denied_words(denied: &Denied) -> String {
    let words = match denied {
        Denied::Unauthorized => "the key is missing or wrong",
        Denied::Forbidden => "Forbidden",
        Denied::Taken => "another sender uses this name",
        Denied::Exists => "stream already exists",
        Denied::BadParams => "Invalid model params",
        Denied::Unknown(name) => return format!("stream not found: {name}"),
        Denied::NoVideo => "the stream takes no video",
        Denied::Place(why) => why,
        Denied::Full => "no room for another stream",
        Denied::Closing => "this instance is shutting down; try again",
        Denied::Elsewhere(_) => "another instance takes this stream",
        Denied::Failed => "whether you may send could not be found out in time",
    };
    words.to_owned()
}

fn noticed(notice: &Notice) {
    match notice {
        Notice::LargeUpdate(name, bytes) => warn!(
            stream = %name,
            bytes,
            "parameters above 32 KiB: runners read no more of a message, and lose the rest"
        ),
        Notice::NoVerdict(why) => warn!(
            why,
            "the webhook does not say who may send (ingest.webhook)"
        ),
        Notice::NoBeat(why) => warn!(why, "the heartbeat is not answered (ingest.heartbeat)"),
        Notice::NoKick(why) => warn!(
            why,
            "a media server did not end a connection (media.mediamtx)"
        ),
        Notice::Place(why) => warn!(
            why,
            "a sender is not let in; --allow-private lets callers name private addresses"
        ),
        Notice::EventsLost(count) => warn!(count, "events were dropped (events.webhook)"),
        other => warn!(?other, "live entry"),
    }
}
