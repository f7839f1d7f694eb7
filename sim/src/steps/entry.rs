//! Live entry with senders, jobs, a webhook, a heartbeat, a media server and listeners that do anything in any order.
//!
//! Beside it a ledger is kept: who knocked, who was let in, which stream has which name. Every sender is answered once,
//! a name belongs to one stream at a time, a job is started and stopped once, and when nobody moves any more all of it
//! comes to an end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::entry::{
    BEAT_EVERY, Config, Entry, Event, Hook, JobEnd, Left, MAX_WAITING, MAX_WAITING_BYTES,
    MediaServer, Notice, Ordered, Publish, SenderId, StreamId, UpdateId, Updated, Way, Why,
    key_headers,
};
use livepeer_core::error::{Cause, Failure, Party};
use livepeer_core::http::{Fault, In, Out, Reach, Url};
use livepeer_core::money::Amount;
use livepeer_core::wire::byoc::JobRequest;
use livepeer_core::wire::entry::{IngestMetrics, OutputName, StartHook, StreamName};
use livepeer_core::wire::{EventContext, RunnerEvent};
use livepeer_core::{Address, Effect, EffectId, Time};

use super::Reel;
use super::reel::nth;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// Somebody wants to send: which way, under which name, with what.
    Publish(u8, u8, u8),
    /// The n-th sender leaves.
    Leave(u8, u8),
    /// Somebody asks about a stream.
    Ask(u8, u8),
    /// The n-th job tells something; a late one that is over, too.
    Job(u8, u8),
    /// The n-th exchange is answered.
    Answer(u8, u8),
    /// The n-th exchange breaks.
    Fail(u8),
    /// The settings change.
    Change(u8),
    /// The gateway shuts down: how long it takes in streams, and how long those go on then.
    Close(u8, u8),
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(24) {
            0..=5 => Self::Publish(reel.byte(), reel.byte(), reel.byte()),
            6..=8 => Self::Leave(reel.byte(), reel.byte()),
            9..=11 => Self::Ask(reel.byte(), reel.byte()),
            12..=15 => Self::Job(reel.byte(), reel.byte()),
            16..=19 => Self::Answer(reel.byte(), reel.byte()),
            20 => Self::Fail(reel.byte()),
            21 if reel.below(8) == 0 => Self::Close(reel.below(3) * 40, reel.below(2) * 200),
            21 => Self::Change(reel.byte()),
            22 => Self::Pass(reel.byte()),
            _ => Self::Pass(reel.below(30)),
        }
    }
}

/// A host that no status may name.
const SECRET: &str = "orch-secret.example";
const NAMES: [&str; 3] = ["cam", "my-cam", "x"];

/// A sender that nobody has forgotten.
#[derive(Debug)]
struct Knocked {
    name: StreamName,
    hook: bool,
    /// Whether it announced the media of a stream that was ordered.
    source: bool,
    /// Whether it ordered a stream, and sends nothing itself.
    order: bool,
    /// The stream that it was let in for.
    stream: Option<StreamId>,
    settled: bool,
}

/// A stream that is not over.
#[derive(Debug)]
struct Running {
    name: Option<StreamName>,
    /// Whether its job was told to have begun.
    begun: bool,
    told: bool,
    /// Whether it takes no video: only somebody who asks for it ends it.
    mute: bool,
}

/// Plays steps against a live entry.
pub struct Player {
    now: Time,
    book: Exchanges,
    entry: Entry,
    config: Config,
    senders: BTreeMap<SenderId, Knocked>,
    streams: BTreeMap<StreamId, Running>,
    over: Vec<StreamId>,
    names: BTreeMap<StreamName, StreamId>,
    /// Updates that are sent, and that nobody was told of.
    updates: BTreeSet<UpdateId>,
    open: BTreeMap<EffectId, String>,
    /// From then on it takes in no new streams.
    closes: Option<Time>,
    seen: BTreeMap<String, u32>,
}

impl Player {
    /// A live entry; the bits pick what it has.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let hook = |bit: u8, url: &str| {
            (flavour & bit != 0).then(|| Hook {
                url: Url::parse(url).expect("a URL"),
                headers: key_headers("k"),
            })
        };
        let config = Config {
            base: "https://gw.example".into(),
            webhook: hook(1, "https://auth.example/hook"),
            heartbeat: hook(2, "https://beat.example/"),
            events: hook(4, "https://listen.example/"),
            takeover: flavour & 8 == 0,
            max_streams: if flavour & 16 != 0 { 2 } else { 100 },
            keys: if flavour & 32 != 0 {
                [("cam".into(), "secret".into())].into()
            } else {
                BTreeMap::new()
            },
            media_server: (flavour & 64 != 0).then(|| MediaServer {
                api: (flavour & 1 != 0)
                    .then(|| Url::parse("http://media.example:9997").expect("a URL")),
                user: "admin".into(),
                password: Some("pw".into()),
            }),
            ..Config::default()
        };
        let entry = Entry::new(now, Arc::new(config.clone()), [5; 32]);
        Self {
            now,
            book: Exchanges::default(),
            entry,
            config,
            senders: BTreeMap::new(),
            streams: BTreeMap::new(),
            over: Vec::new(),
            names: BTreeMap::new(),
            updates: BTreeSet::new(),
            open: BTreeMap::new(),
            closes: None,
            seen: BTreeMap::new(),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Publish(way, name, bits) => self.publish(*way, *name, *bits),
            Step::Leave(pick, how) => {
                if let Some(id) = nth(*pick, self.senders.keys().copied()) {
                    let how = [Left::Ended, Left::Lost, Left::NoVideo][usize::from(how % 3)];
                    self.senders.remove(&id);
                    self.entry.left(self.now, id, how);
                }
            }
            Step::Ask(name, what) => self.ask(*name, *what),
            Step::Job(pick, what) => self.job(*pick, *what),
            Step::Answer(pick, what) => {
                if let Some((id, url)) = nth(*pick, self.open.clone()) {
                    self.answer(id, &url, *what);
                }
            }
            Step::Fail(pick) => {
                if let Some(id) = nth(*pick, self.open.keys().copied()) {
                    self.open.remove(&id);
                    self.http(id, In::Failed(Fault::Broken("reset".into())));
                }
            }
            Step::Change(bits) => {
                self.config.takeover = bits & 1 == 0;
                if bits & 2 != 0 {
                    self.config.heartbeat = None;
                }
                if bits & 4 != 0 {
                    self.config.events = None;
                }
                let config = Arc::new(self.config.clone());
                self.entry.set_config(self.now, config);
            }
            Step::Close(grace, time) => {
                let seconds = |tens: u8| Duration::from_secs(u64::from(tens) / 8);
                let closes = self.now + seconds(*grace);
                self.closes = Some(closes);
                if *grace == 0 && *time == 0 {
                    self.entry.stop_all(self.now);
                } else {
                    self.entry.drain(self.now, closes, closes + seconds(*time));
                }
            }
            Step::Pass(tens) => {
                let tens = u64::from(*tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
        }
        self.drain();
    }

    fn publish(&mut self, way: u8, name: u8, bits: u8) {
        let name = NAMES[usize::from(name) % NAMES.len()];
        let query = match bits & 7 {
            0 => "pipeline=other",
            1 => "params=%7Bx",
            2 => "params=%7B%22a%22%3A1%7D&streamId=s1",
            3 => "streamId=s1",
            4 => "rtmpOutput=rtmp://10.0.0.1/live",
            _ => "",
        };
        let way = match way % 5 {
            way @ (0 | 4) => {
                let escaped = query
                    .replace('%', "%25")
                    .replace('=', "%3D")
                    .replace('&', "%26");
                let form = format!("source_id=a1&source_type=rtmpConn&query={escaped}");
                let kind = "application/x-www-form-urlencoded";
                let host = Ipv4Addr::new(10, 0, 0, 9).into();
                match StartHook::read(name, kind, &Bytes::from(form), Some(host)) {
                    Ok(Some(hook)) if way == 4 => Way::Source(Box::new(hook)),
                    Ok(Some(hook)) => Way::Hook(Box::new(hook)),
                    _ => return,
                }
            }
            1 => Way::Whip,
            2 => Way::Order(Box::new(Ordered {
                job: JobRequest {
                    parameters: format!(r#"{{"enable_video_ingress":{}}}"#, bits & 8 == 0),
                    request: "{}".into(),
                    capability: "turn".into(),
                    timeout_seconds: 9,
                    ..JobRequest::default()
                },
                params: None,
                outputs: match bits & 7 {
                    4 => vec!["rtmp://127.0.0.1/live".into()],
                    5 => vec!["rtmp://10.0.0.9/live".into()],
                    _ => Vec::new(),
                },
            })),
            _ => Way::Rtmp,
        };
        let name = StreamName::parse(name).expect("a name");
        let hook = matches!(way, Way::Hook(_) | Way::Source(_));
        let source = matches!(way, Way::Source(_));
        let order = matches!(way, Way::Order(_));
        let key = ["secret", "wrong"].get(usize::from(bits >> 6)).copied();
        let publish = Publish {
            way,
            name: name.clone(),
            key: key.map(str::to_owned),
            query: query.to_owned(),
            named: Reach::of_caller(Some(Ipv4Addr::new(10, 0, 0, 9).into())),
        };
        let id = self.entry.publish(self.now, publish);
        let knocked = Knocked {
            name,
            hook,
            source,
            order,
            stream: None,
            settled: false,
        };
        assert!(self.senders.insert(id, knocked).is_none(), "a new name");
    }

    fn ask(&mut self, name: u8, what: u8) {
        let names = ["cam", "my-cam", "x", "s1", "nobody"];
        let text = names[usize::from(name) % names.len()];
        let known = StreamName::parse(text)
            .ok()
            .is_some_and(|name| self.names.contains_key(&name));
        let now = self.now;
        match what % 8 {
            0 => {
                let stopped = self.entry.stop(now, text);
                assert!(stopped.is_ok() || !known);
            }
            what @ 1..=3 => {
                let size = if what == 3 { 33 << 10 } else { 3 };
                let params = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(size));
                let updated = self.entry.update(now, text, &params);
                assert!(updated.is_ok() || !known);
                if let Ok(Updated::Sent(update)) = updated {
                    self.updates.insert(update);
                }
            }
            4 => assert!(self.entry.update(now, text, "[1]").is_err()),
            5 => {
                let output = OutputName::parse(&format!("{text}-out")).expect("an output");
                assert_eq!(self.entry.output(&output).is_ok(), known);
            }
            _ => match self.entry.status(text) {
                Ok(status) => {
                    self.note("status");
                    assert!(!status.contains(SECRET), "{status}");
                }
                Err(refusal) => {
                    assert!(!known);
                    self.note(refusal.status.to_string());
                }
            },
        }
    }

    fn job(&mut self, pick: u8, what: u8) {
        let id = if what >= 240 {
            nth(pick, self.over.iter().copied())
        } else {
            nth(pick, self.streams.keys().copied())
        };
        let Some(id) = id else { return };
        let now = self.now;
        let url = Url::parse(&format!("https://{SECRET}:8935")).expect("a URL");
        let begun = self.streams.get(&id).is_some_and(|one| one.begun);
        match what % 10 {
            0..=2 if !begun => {
                if let Some(running) = self.streams.get_mut(&id) {
                    running.begun = true;
                }
                self.entry.started(now, id, url);
            }
            0 => {
                let cause = Cause::Gone("the orchestrator");
                let why = Failure::new(Party::Orchestrator(url.clone()), cause);
                self.entry.swapped(now, id, &why, url);
            }
            1 => self.entry.input(now, id),
            2 if what & 32 == 0 => self.entry.paid(now, 1, &Amount::zero()),
            2 => self.entry.unpaid(now),
            3 | 4 => self.entry.output_seen(now, id),
            5 | 6 => {
                let mut context = EventContext::default();
                context.add_orchestrator(Address([7; 20]), &url);
                let said: &[u8] = if what & 16 == 0 {
                    br#"{"type":"status","state":"ONLINE","inference_status":{"fps":1}}"#
                } else {
                    br#"{"event":{"type":"restart"},"queue_event_type":"mine"}"#
                };
                let event = RunnerEvent::parse(said, &context).expect("an object");
                self.entry.runner(now, id, event);
            }
            7 => self.entry.metrics(now, id, IngestMetrics::default()),
            8 if what >= 120 => {
                if let Some(sender) = self.entry.pulled(now, id) {
                    self.note("pulled");
                    let running = self.streams.get(&id).expect("it is not over");
                    let knocked = Knocked {
                        name: running.name.clone().expect("a name"),
                        hook: false,
                        source: false,
                        order: false,
                        stream: Some(id),
                        settled: false,
                    };
                    assert!(self.senders.insert(sender, knocked).is_none(), "a new name");
                }
            }
            8 => self.entry.job_over(now, id, JobEnd::NoOrchestrator),
            _ if (what / 10) & 1 == 0 => self.entry.job_over(now, id, JobEnd::Finished),
            _ => self.entry.job_over(now, id, JobEnd::Failed("it broke")),
        }
    }

    fn answer(&mut self, id: EffectId, url: &str, what: u8) {
        self.open.remove(&id);
        let (status, body) = if url.contains("beat") {
            match what % 4 {
                0 => (200, r#"{"terminatedStreamIds":["s1","cam"]}"#),
                1 => (500, ""),
                _ => (200, "{}"),
            }
        } else {
            match what % 8 {
                0 => (401, "no"),
                1 => (200, ""),
                2 => (404, ""),
                3 => (
                    200,
                    r#"{"pipeline":"p","stream_id":"s1","rtmp_output_url":"rtmp://x/y"}"#,
                ),
                _ => (200, "{}"),
            }
        };
        self.respond(id, status, body);
    }
}

impl Driven for Player {
    crate::driven!(entry: Entry, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let Effect::Http(step) = effect else {
            panic!("it signs and stores nothing: {effect:?}")
        };
        match step {
            Out::Request(request) => {
                let url = request.url.to_string();
                let kind = ["auth", "beat", "listen", "9997"];
                let kind = kind.iter().find(|kind| url.contains(**kind));
                self.note(*kind.expect("a place of the operator's"));
                self.open.insert(id, url);
            }
            Out::Abort => {
                self.open.remove(&id);
            }
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Admit {
                sender,
                stream,
                playback,
                goes_on,
            } => {
                self.note(if goes_on { "goes on" } else { "Admit" });
                let closed = self.closes.is_some_and(|at| at <= self.now);
                assert!(!closed || goes_on, "a new stream while it shuts down");
                let knocked = self.senders.get_mut(&sender);
                let knocked = knocked.expect("it knocked, and did not leave");
                assert!(knocked.stream.replace(stream).is_none(), "let in once");
                let name = knocked.name.clone();
                assert!(playback.contains(&format!("/{name}-")), "{playback}");
                if knocked.order {
                    assert!(!goes_on, "an order is for a stream of its own");
                    self.senders.remove(&sender);
                }
                if goes_on {
                    assert_eq!(self.names.get(&name), Some(&stream), "it has the name");
                } else {
                    let before = self.names.insert(name.clone(), stream);
                    assert!(before.is_none(), "the older stream is over first");
                    let running = Running {
                        name: Some(name),
                        begun: false,
                        told: false,
                        mute: false,
                    };
                    assert!(self.streams.insert(stream, running).is_none());
                    assert!(self.streams.len() <= self.config.max_streams);
                }
            }
            Event::Refuse(sender, denied) => {
                self.note(format!("refused {}", denied.status()));
                let knocked = self.senders.remove(&sender);
                let knocked = knocked.expect("it knocked, and did not leave");
                assert!(knocked.stream.is_none(), "answered once");
            }
            Event::Start(stream, job) => {
                let running = self.streams.get_mut(&stream).expect("a stream");
                assert!(!std::mem::replace(&mut running.told, true), "started once");
                assert_eq!(running.name.as_ref(), Some(&job.name));
                let wishes = job.container.as_ref().map(|container| container.wishes());
                let wishes = wishes.transpose().expect("a job was checked");
                running.mute = wishes.is_some_and(|wishes| !wishes.video_in);
                assert!(!job.stream_id.is_empty());
                assert!(job.outputs.iter().all(|output| output.check().is_ok()));
            }
            Event::Pull(stream, from) => {
                self.note("Pull");
                assert!(self.streams[&stream].told, "it was started");
                assert!(from.address.starts_with("rtmp://10.0.0.9/"), "{from:?}");
                assert_eq!(from.check(), Ok(()), "where the hook came from");
            }
            Event::Settled(sender) => {
                self.note("Settled");
                if let Some(knocked) = self.senders.get_mut(&sender) {
                    assert!(knocked.hook && knocked.source == knocked.stream.is_none());
                    assert!(!std::mem::replace(&mut knocked.settled, true), "once");
                    // Its connection is at the media server.
                    self.senders.remove(&sender);
                }
            }
            Event::Update(stream, _, update) => {
                self.note("Update");
                assert!(update.is_none_or(|update| self.updates.remove(&update)));
                assert!(self.streams[&stream].begun, "there is a job to tell");
            }
            Event::Stop(stream, why) => {
                self.note(format!("{why:?}").split('(').next().unwrap_or_default());
                let running = self.streams.remove(&stream).expect("stopped once");
                assert!(running.told, "it was started");
                let name = running.name.expect("a name");
                assert_eq!(self.names.remove(&name), Some(stream), "it had the name");
                self.over.push(stream);
            }
            Event::Measure(stream, sender) => {
                self.note("Measure");
                assert!(self.streams.contains_key(&stream), "it is not over");
                assert_eq!(self.senders[&sender].stream, Some(stream));
            }
            Event::Kick(sender, why) => {
                self.note("Kick");
                let knocked = self.senders.remove(&sender);
                let knocked = knocked.expect("let in, and not gone by itself");
                assert!(knocked.stream.is_some() && !knocked.hook);
                assert_ne!(why, Why::Disconnected);
            }
            Event::Report { queue, event } => {
                self.note(queue);
                assert!(event.starts_with('{'));
            }
            Event::Notice(notice) => {
                let notice = match notice {
                    Notice::LargeUpdate(..) => "large",
                    Notice::NoVerdict(_) => "no verdict",
                    Notice::NoBeat(_) => "no beat",
                    Notice::NoKick(_) => "no kick",
                    Notice::EventsLost(_) => "lost",
                    Notice::Place(_) => "place",
                    other => panic!("{other:?}"),
                };
                self.note(notice);
            }
            other => panic!("{other:?}"),
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        assert_eq!(self.entry.len(), self.streams.len());
        assert!(self.updates.is_empty(), "somebody waits for ever");
        let (events, bytes) = self.entry.waiting();
        assert!(events <= MAX_WAITING && bytes <= MAX_WAITING_BYTES);
        let named: BTreeSet<_> = self.names.values().collect();
        assert!(named.iter().all(|id| self.streams.contains_key(id)));
        assert_eq!(named.len(), self.streams.len(), "each has its name");
    }
}

/// Plays what the bytes say; hands back how often each event was seen.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    // The webhook says nothing any more, and nobody comes back.
    player.pass(Duration::from_secs(10));
    let all: Vec<_> = player.senders.keys().copied().collect();
    for id in all {
        player.senders.remove(&id);
        player.entry.left(player.now, id, Left::Lost);
        player.drain();
    }
    let mute = player.streams.values().filter(|one| one.mute);
    let mute: Vec<_> = mute.filter_map(|one| one.name.clone()).collect();
    for name in mute {
        let stopped = player.entry.stop(player.now, name.as_str());
        stopped.expect("it runs until then");
        player.drain();
    }
    player.pass(Duration::from_secs(120));
    assert!(player.entry.is_empty(), "a stream without a sender");
    assert!(player.names.is_empty() && player.streams.is_empty());
    let beats = player.config.heartbeat.is_some();
    // Nobody takes the events: in the end they are dropped.
    player.pass(Duration::from_secs(3_600).min(BEAT_EVERY * 1_000));
    assert_eq!(player.entry.waiting(), (0, 0));
    let only_beats = player.open.values().all(|url| url.contains("beat"));
    assert!(only_beats && player.open.len() <= usize::from(beats));
    player.seen
}
