//! A trickle publisher whose server answers as it likes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Response, Url};
use livepeer_core::trickle::publisher::{
    Config, Event, Idle, Policy, Publisher, Unbegun, Unwritten,
};
use livepeer_core::trickle::{Ending, headers};
use livepeer_core::{Effect, EffectId, Misuse, Time};

use super::Reel;
use super::reel::nth;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The owner begins a segment.
    Begin,
    /// The owner writes so many bytes.
    Write(u8),
    /// The owner ends the segment.
    End,
    /// The owner closes.
    Close,
    /// The n-th exchange is answered.
    Reply(u8, Answer),
    /// The n-th exchange brings body bytes: what was sent for that seq, or others.
    Data(u8, u8, bool),
    /// The n-th exchange's answer ends.
    Finish(u8),
    /// The n-th exchange breaks, before or after it was connected.
    Fail(u8, bool),
    /// The transport of the n-th exchange takes what waits.
    Take(u8),
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Picks the status.
    pub status: u8,
    /// Picks the seq named.
    pub seq: u8,
    /// Picks the head named.
    pub latest: u8,
    /// Whether the channel is said to be over.
    pub closed: bool,
    /// Whether the connection is said to close.
    pub close: bool,
}

impl Answer {
    /// The next of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        Self {
            status: reel.byte(),
            seq: reel.byte(),
            latest: reel.byte(),
            closed: reel.below(16) == 0,
            close: reel.below(4) == 0,
        }
    }

    /// The head, to a question for that seq.
    #[must_use]
    pub fn head(self, seq: Option<u64>) -> Response {
        let status = [
            200, 200, 200, 200, 200, 200, 404, 470, 470, 500, 503, 400, 413, 301, 471, 999,
        ][usize::from(self.status % 16)];
        let mut reply = Response::new(status).body(Body::Stream);
        let number = |pick: u8| -> Option<String> {
            let seq = seq.unwrap_or(0);
            Some(match pick % 8 {
                0..=2 => seq.to_string(),
                3 => (seq + 1).to_string(),
                4 => seq.saturating_add(u64::from(pick)).to_string(),
                5 => seq.saturating_sub(u64::from(pick % 7)).to_string(),
                6 => ["-1", "x", "99999999999999999999", "", "9223372036854775807"]
                    [usize::from(pick / 8 % 5)]
                .to_string(),
                _ => return None,
            })
        };
        if let Some(value) = number(self.seq) {
            reply = reply.header(headers::SEQ, value);
        }
        if let Some(value) = number(self.latest) {
            reply = reply.header(headers::LATEST, value);
        }
        if self.closed {
            reply = reply.header(headers::CLOSED, "terminated");
        }
        if self.close {
            reply = reply.header(headers::CONNECTION, "close");
        }
        reply
    }
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(16) {
            0 | 1 => Self::Begin,
            2..=4 => Self::Write(reel.byte()),
            5 => Self::End,
            6 if reel.below(8) == 0 => Self::Close,
            6..=8 => Self::Reply(reel.byte(), Answer::read(reel)),
            9 => Self::Data(reel.byte(), reel.byte(), reel.below(4) != 0),
            10 => Self::Finish(reel.byte()),
            11 => Self::Fail(reel.byte(), reel.below(2) == 0),
            12 | 13 => Self::Take(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

#[derive(Debug)]
struct Exchange {
    method: Method,
    seq: Option<u64>,
    replied: bool,
    given: usize,
    unsent: usize,
    reset: bool,
}

/// Plays steps against a publisher.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    publisher: Publisher,
    live: BTreeMap<EffectId, Exchange>,
    /// The bytes that the owner wrote, by seq.
    written: BTreeMap<u64, Vec<u8>>,
    /// Segments begun and without an outcome.
    open: Vec<u64>,
    current: Option<u64>,
    policy: Policy,
    /// Whether the publisher breaks its silence with segments of its own.
    kept_alive: bool,
    begun: Option<u64>,
    ready: bool,
    closed: Option<Ending>,
}

impl Player {
    /// A publisher with small limits; the byte picks its policy.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_000);
        let policy = [
            Policy::Block,
            Policy::DropNewest,
            Policy::DropOldest,
            Policy::SkipToLive,
        ][usize::from(flavour % 4)];
        let kept_alive = flavour & 128 != 0;
        let config = Config {
            idle: kept_alive.then(Idle::default),
            create: flavour & 4 == 0,
            delete: flavour & 8 == 0,
            policy,
            max_in_flight: usize::from(flavour >> 4 & 3),
            max_unsent_bytes: 300,
            replay_bytes: if flavour & 64 == 0 { 10_000 } else { 100 },
            ..Config::default()
        };
        let url = Url::parse("http://s/ai/trickle/c/").expect("a URL");
        Self {
            now,
            book: Exchanges::default(),
            publisher: Publisher::new(now, config, url),
            live: BTreeMap::new(),
            written: BTreeMap::new(),
            open: Vec::new(),
            current: None,
            policy,
            kept_alive,
            begun: None,
            ready: false,
            closed: None,
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Begin => self.begin(),
            Step::Write(count) => self.write(usize::from(*count)),
            Step::End => {
                let end = self.publisher.end(self.now);
                if end.is_ok() {
                    assert!(self.current.take().is_some());
                }
                self.drain();
                assert!(self.current.is_none(), "{end:?}");
            }
            Step::Close => {
                self.publisher.close(self.now);
                self.current = None;
                self.drain();
                assert_eq!(
                    self.publisher.begin(self.now),
                    Err(Unbegun::Misuse(Misuse::Ended))
                );
            }
            Step::Reply(pick, answer) => {
                if let Some(id) = self.pick(*pick, |exchange| !exchange.replied) {
                    let exchange = self.live.get_mut(&id).expect("picked");
                    exchange.replied = true;
                    let head = answer.head(exchange.seq);
                    self.http(id, In::Reply(head));
                }
            }
            Step::Data(pick, count, right) => {
                if let Some(id) = self.pick(*pick, |exchange| exchange.replied) {
                    let exchange = self.live.get_mut(&id).expect("picked");
                    let empty = Vec::new();
                    let sent = exchange
                        .seq
                        .and_then(|seq| self.written.get(&seq))
                        .unwrap_or(&empty);
                    let from = exchange.given.min(sent.len());
                    let to = (from + usize::from(*count)).min(sent.len());
                    exchange.given = to;
                    let mut bytes = sent[from..to].to_vec();
                    if !right {
                        bytes.push(*count);
                    }
                    self.http(id, In::Data(bytes.into()));
                }
            }
            Step::Finish(pick) => {
                if let Some(id) = self.pick(*pick, |exchange| exchange.replied) {
                    self.live.remove(&id);
                    self.http(id, In::End(Headers::new()));
                }
            }
            Step::Fail(pick, connected) => {
                if let Some(id) = self.pick(*pick, |_| true) {
                    self.live.remove(&id);
                    let fault = if *connected {
                        Fault::Broken("reset".into())
                    } else {
                        Fault::Connect("refused".into())
                    };
                    self.http(id, In::Failed(fault));
                }
            }
            Step::Take(pick) => {
                if let Some(id) = self.pick(*pick, |exchange| exchange.unsent > 0) {
                    let exchange = self.live.get_mut(&id).expect("picked");
                    let unsent = std::mem::take(&mut exchange.unsent);
                    self.http(id, In::Sent(unsent));
                }
            }
            Step::Pass(tens) => {
                let tens = u64::from(*tens);
                self.pass(Duration::from_millis(tens * tens));
            }
        }
    }

    /// Closes it, and sees it end although nobody answers any more.
    ///
    /// # Panics
    /// If it does not end, or a segment has no outcome.
    pub fn finish(&mut self) {
        let before: Vec<EffectId> = self.live.keys().copied().collect();
        self.publisher.close(self.now);
        self.drain();
        self.pass(Duration::from_secs(60));
        assert!(self.closed.is_some(), "it does not end");
        assert!(self.open.is_empty(), "no outcome for {:?}", self.open);
        assert!(self.live.is_empty(), "left alone: {:?}", self.live);
        // Late answers find nobody.
        for id in before {
            self.http(id, In::Failed(Fault::Broken("late".into())));
        }
        assert_eq!(
            self.publisher.write(self.now, Bytes::from_static(b"x")),
            Err(Unwritten::Misuse(Misuse::Ended))
        );
    }

    fn begin(&mut self) {
        match self.publisher.begin(self.now) {
            Ok(seq) => {
                let seq = seq.get();
                assert!(self.ready, "begun before it was ready");
                assert!(self.current.is_none());
                if let Some(last) = self.begun {
                    let again = self.policy == Policy::DropNewest && seq == last;
                    assert!(seq > last || again, "{seq} after {last}");
                }
                self.begun = Some(seq);
                self.written.insert(seq, Vec::new());
                self.open.push(seq);
                self.current = Some(seq);
            }
            Err(Unbegun::Busy) => assert!(self.closed.is_none()),
            Err(Unbegun::Misuse(Misuse::StillOpen)) => assert!(self.current.is_some()),
            Err(Unbegun::Misuse(_)) => {}
            Err(other) => panic!("{other}"),
        }
        self.drain();
    }

    fn write(&mut self, count: usize) {
        let seq = self.current;
        let from = seq.map_or(0, |seq| self.written.get(&seq).map_or(0, Vec::len));
        let bytes: Vec<u8> = (from..from + count)
            .map(|at| (at * 7 + at / 251) as u8)
            .collect();
        match self.publisher.write(self.now, bytes.clone().into()) {
            Ok(()) => {
                let seq = seq.expect("a write without a segment was taken");
                self.written
                    .get_mut(&seq)
                    .expect("it was begun")
                    .extend_from_slice(&bytes);
            }
            Err(Unwritten::Full(back)) => {
                assert_eq!(back, bytes);
                assert_eq!(self.policy, Policy::Block);
            }
            Err(Unwritten::Misuse(_)) => {
                self.drain();
                assert!(self.current.is_none() || self.closed.is_some());
            }
            Err(other) => panic!("{other}"),
        }
        self.drain();
    }

    fn pick(&self, pick: u8, fits: impl Fn(&Exchange) -> bool) -> Option<EffectId> {
        let fitting = self.live.iter().filter(|(_, exchange)| fits(exchange));
        nth(pick, fitting.map(|(id, _)| *id))
    }

    fn outcome(&mut self, seq: u64) {
        let at = self
            .open
            .iter()
            .position(|open| *open == seq)
            .unwrap_or_else(|| panic!("a second outcome for {seq}"));
        self.open.remove(at);
    }

    fn heard(&mut self, id: EffectId, out: Out) {
        match out {
            Out::Request(request) => {
                assert!(self.closed.is_none(), "a request after the end");
                let path = request.url.path();
                let last = path.rsplit('/').next().unwrap_or("");
                let reset = headers::reset(&request.headers);
                let seq = last.parse().ok();
                if reset {
                    assert_eq!(request.method, Method::Post);
                }
                if request.method == Method::Post
                    && let Some(seq) = seq
                {
                    // At most one warm request, for the one after the last that was begun or keeps the channel alive.
                    let warm = self.begun.is_none_or(|begun| seq > begun);
                    let others = self.live.values().filter(|exchange| {
                        exchange.method == Method::Post
                            && !exchange.replied
                            && exchange.seq.is_some_and(|other| {
                                self.begun.is_none_or(|begun| other > begun) && other != seq
                            })
                    });
                    assert!(
                        !warm || others.count() <= usize::from(self.kept_alive),
                        "two warm requests"
                    );
                }
                let fresh = self.live.insert(
                    id,
                    Exchange {
                        method: request.method,
                        seq,
                        replied: false,
                        given: 0,
                        unsent: 0,
                        reset,
                    },
                );
                assert!(fresh.is_none(), "an id twice");
                assert!(
                    self.live.len() <= 64,
                    "{} exchanges under way",
                    self.live.len()
                );
            }
            Out::Data(bytes) => {
                if let Some(exchange) = self.live.get_mut(&id) {
                    assert_eq!(exchange.method, Method::Post);
                    exchange.unsent += bytes.len();
                }
            }
            Out::End(_) => {}
            Out::Abort => {
                self.live.remove(&id);
            }
            other => panic!("a publisher does not say {other:?}"),
        }
        let resets = self
            .live
            .values()
            .filter(|exchange| exchange.reset && !exchange.replied);
        assert!(resets.count() <= 1, "two restarts under way");
    }
}

impl Driven for Player {
    crate::driven!(publisher: Publisher, book);

    fn is_over(&self) -> bool {
        self.closed.is_some()
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(out) => self.heard(id, out),
            _ => panic!("a publisher asks for http only"),
        }
    }

    fn event(&mut self, event: Event) {
        assert!(self.closed.is_none(), "{event:?} after the last event");
        match event {
            Event::Ready(_) => {
                assert!(!self.ready, "ready twice");
                self.ready = true;
            }
            Event::Delivered(seq) => {
                self.outcome(seq.get());
                assert_ne!(self.current, Some(seq.get()), "it had not ended");
            }
            Event::Cut(seq) => {
                assert!(self.kept_alive);
                assert_eq!(self.current.take(), Some(seq.get()), "only what is open");
            }
            Event::Lost(seq, _) => self.outcome(seq.get()),
            Event::Closed(ending) => {
                self.closed = Some(ending);
                self.current = None;
                assert!(self.open.is_empty(), "no outcome for {:?}", self.open);
            }
            _ => {}
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        assert!(
            wake.is_none() || self.closed.is_none(),
            "it wakes after its end"
        );
    }
}

/// Plays the steps that bytes stand for.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    player.finish();
}
