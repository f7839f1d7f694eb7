//! A runner of ours and an orchestrator that answers as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::http::{Body, Headers, In, Method, Out, Request, Response, Url};
use livepeer_core::job::runner::{Config, Event, MAX_SESSIONS, Registration};
use livepeer_core::wire::app::registration::{HEARTBEAT_PATH, Heartbeat};
use livepeer_core::{Effect, EffectId, Time};
use serde_json::json;

use super::Reel;
use super::ours::fault;
use super::reel::{count_all, nth};
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The n-th open request is answered: a sign of life in that way and with those sessions, the channel with that news.
    Answer(u8, u8, u8),
    /// The n-th open exchange breaks, or never came about.
    Fail(u8, bool),
    /// The runner takes work, or none.
    Ready(bool),
    /// Time passes: so many tenths of a second, to the second power.
    Pass(u8),
    /// The runner goes.
    Close,
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(16) {
            0..=8 => Self::Answer(reel.byte(), reel.byte(), reel.byte()),
            9 => Self::Fail(reel.byte(), reel.below(2) == 0),
            10 => Self::Ready(reel.below(2) == 0),
            11 if reel.below(8) == 0 => Self::Close,
            _ => Self::Pass(reel.below(30)),
        }
    }
}

const SHARED: &str = "shared";

/// Plays steps against a registration.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    machine: Registration,
    open: BTreeMap<EffectId, Request>,
    /// Secrets that the orchestrator gave.
    given: BTreeSet<String>,
    sessions: BTreeSet<String>,
    /// Signs of life since time last passed.
    beats: usize,
    closed: bool,
    over: bool,
    /// How often each event was told.
    seen: BTreeMap<String, u32>,
}

impl Player {
    /// A runner, with a name of its own or without.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let mut beat = Heartbeat::new("http://10.0.0.2:8989", "x/y");
        if flavour & 1 != 0 {
            beat.runner_id = "mine".into();
        }
        let url = Url::parse("https://orch:8935").expect("a URL");
        let machine = Registration::new(now, Config::default(), url, SHARED, beat);
        let mut player = Self {
            now,
            book: Exchanges::default(),
            machine: machine.expect("a runner"),
            open: BTreeMap::new(),
            given: BTreeSet::new(),
            sessions: BTreeSet::new(),
            beats: 0,
            closed: false,
            over: false,
            seen: BTreeMap::new(),
        };
        player.drain();
        player
    }

    /// Plays one; whether the registration has ended.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) -> bool {
        match *step {
            Step::Answer(pick, kind, what) => {
                if let Some(id) = nth(pick, self.open.keys().copied()) {
                    let request = self.open.remove(&id).expect("picked");
                    let (head, body) = match request.method {
                        Method::Get => news(&request, kind, what),
                        _ => self.beaten(kind, what),
                    };
                    self.say(id, head, body);
                }
            }
            Step::Fail(pick, connected) => {
                if let Some(id) = nth(pick, self.open.keys().copied()) {
                    self.open.remove(&id);
                    self.http(id, In::Failed(fault(connected)));
                }
            }
            Step::Ready(ready) => {
                let status = if ready { "ready" } else { "loading" };
                let set = self.machine.set_status(self.now, status);
                assert_eq!(set.is_err(), self.closed || self.over);
                self.drain();
            }
            Step::Pass(tenths) => {
                let tenths = u64::from(tenths);
                self.beats = 0;
                self.pass(Duration::from_millis(tenths * tenths * 100));
            }
            Step::Close => {
                self.closed = true;
                self.machine.close(self.now);
                self.drain();
            }
        }
        self.over
    }

    /// Ends the play: the runner goes, and nobody answers any more.
    ///
    /// # Panics
    /// If it does not end.
    pub fn finish(&mut self) {
        self.play(&Step::Close);
        self.pass(Duration::from_secs(10));
        assert!(self.over && self.open.is_empty(), "{:?}", self.open);
    }

    /// Answers in full, as far as the machine listens.
    fn say(&mut self, id: EffectId, head: Response, body: Vec<u8>) {
        self.open
            .insert(id, Request::new(Method::Get, orchestrator()));
        for step in [
            In::Reply(head),
            In::Data(body.into()),
            In::End(Headers::new()),
        ] {
            if !self.open.contains_key(&id) {
                return;
            }
            if matches!(step, In::End(_)) {
                self.open.remove(&id);
            }
            self.http(id, step);
        }
    }

    /// Makes an answer to a sign of life.
    fn beaten(&mut self, kind: u8, what: u8) -> (Response, Vec<u8>) {
        let text = |status, text: &str| (Response::new(status), text.as_bytes().to_vec());
        let secret = format!("given{}", self.given.len());
        let mut answer = json!({
            "runner_id": "r1",
            "heartbeat_interval": "1s",
            "heartbeat_ttl": "20s",
            "session_ids": (0..8).filter(|n| what & (1 << n) != 0).map(name).collect::<Vec<_>>(),
        });
        match kind % 16 {
            0 => return text(404, "runner not found"),
            1 => return text(401, "invalid heartbeat authorization"),
            2 => return text(401, "invalid registration authorization"),
            3 => return text(503, "there are too many runners"),
            4 => return text(200, "garbage"),
            5 => return (Response::new(200), vec![b' '; (1 << 20) + 1]),
            6 => answer["heartbeat_interval"] = "1ns".into(),
            7 => answer["orchestrator"] = "https://elsewhere:8935".into(),
            8 => answer["orchestrator"] = "http://127.0.0.1:2375".into(),
            9 => answer["session_ids"] = (0..2_000).map(|n| n.to_string()).collect(),
            _ => {}
        }
        if kind & 16 == 0 {
            answer["heartbeat_secret"] = secret.as_str().into();
            self.given.insert(secret);
        }
        if kind & 32 == 0 {
            answer["o2r"] = json!({
                "name": "o2r",
                "channel_name": "c",
                "url": "https://orch:8935/ai/trickle/c",
            });
        }
        (Response::new(200), answer.to_string().into_bytes())
    }
}

fn orchestrator() -> Url {
    Url::parse("https://orch:8935").expect("a URL")
}

fn name(n: u8) -> String {
    format!("s{n}")
}

/// Makes an answer of the channel.
fn news(request: &Request, kind: u8, what: u8) -> (Response, Vec<u8>) {
    let index = request.url.path().rsplit('/').next().unwrap_or_default();
    let seq = index.parse().unwrap_or(0_u64);
    let head = |status| Response::new(status).header("lp-trickle-seq", seq.to_string());
    if index == "next" {
        let latest = Response::new(200).header("lp-trickle-latest", "0");
        return (latest, b"0".to_vec());
    }
    let session = name(what % 8);
    let told = match kind % 16 {
        0 => {
            let closed = Response::new(200).header("lp-trickle-closed", "terminated");
            return (closed, Vec::new());
        }
        1 => return (Response::new(404), b"stream not found".to_vec()),
        2 => {
            let late = Response::new(470).header("lp-trickle-latest", (seq + 3).to_string());
            return (late, Vec::new());
        }
        3 => "nonsense".to_owned(),
        4 => r#"{"keep":"alive"}"#.to_owned(),
        5 => " ".repeat((16 << 10) + 1),
        6..=9 => json!({"event": "released", "session": session}).to_string(),
        10 => json!({"event": "reserved", "session": session.repeat(200)}).to_string(),
        _ => json!({"event": "reserved", "session": session}).to_string(),
    };
    (head(200), told.into_bytes())
}

impl Driven for Player {
    crate::driven!(machine: Registration, book);

    fn is_over(&self) -> bool {
        self.over
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let request = match effect {
            Effect::Http(Out::Request(request)) => request,
            Effect::Http(Out::Abort) => {
                self.open.remove(&id);
                return;
            }
            Effect::Http(Out::Pause | Out::Resume) => return,
            other => panic!("{other:?}"),
        };
        assert!(!self.over, "{request:?} after the end");
        assert_ne!(request.url.host(), "127.0.0.1", "what peers name is judged");
        if request.method == Method::Post {
            let others = self.open.values();
            let asks = others.filter(|open| open.method == Method::Post).count();
            assert_eq!(asks, 0, "one question at a time");
            let secret = request.headers.get("authorization").expect("a secret");
            match secret {
                SHARED => assert_eq!(request.url.host(), "orch", "the shared secret got out"),
                other => assert!(self.given.contains(other), "{other} was never given"),
            }
        }
        if request.url.path() == HEARTBEAT_PATH {
            assert!(!self.closed, "it is gone, and does not live");
            self.beats += 1;
            assert!(self.beats <= 2_000, "a storm of signs of life");
            let Body::Full(body) = &request.body else {
                panic!("a sign of life is short");
            };
            let beat = Heartbeat::from_json(body).expect("it is one");
            let told: BTreeSet<String> = beat.sessions.into_iter().collect();
            assert_eq!(
                told, self.sessions,
                "the events say which sessions there are"
            );
        }
        self.open.insert(id, request);
    }

    fn event(&mut self, event: Event) {
        assert!(!self.over, "{event:?} after the last event");
        let kind = match &event {
            Event::Registered(_) => "Registered",
            Event::Reserved(_) => "Reserved",
            Event::Released(_) => "Released",
            Event::Failed(_) => "Failed",
            Event::Ended(Ok(())) => "Gone",
            _ => "Refused",
        };
        *self.seen.entry(kind.to_owned()).or_default() += 1;
        match event {
            Event::Reserved(session) => {
                assert!(self.sessions.insert(session), "it was there");
                assert!(self.sessions.len() <= MAX_SESSIONS);
            }
            Event::Released(session) => assert!(self.sessions.remove(&session), "it was not"),
            Event::Ended(ending) => {
                assert!(ending.is_err() || self.closed, "nobody closed it");
                self.over = true;
            }
            _ => {}
        }
    }
}

/// Plays what the bytes say. Returns how often each event was told.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    Reel::new(data).play_each(Player::new, |player, reel| match reel {
        Some(reel) => player.play(&Step::read(reel)),
        None => {
            player.finish();
            count_all(&mut seen, &player.seen);
            true
        }
    });
    seen
}
