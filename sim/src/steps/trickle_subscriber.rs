//! A trickle subscriber whose server answers as it likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Fault, Headers, In, Out, Url};
use livepeer_core::trickle::subscriber::{Config, Event, Lag, Subscriber};
use livepeer_core::trickle::{Ending, Seq, Start};
use livepeer_core::{Effect, EffectId, Misuse, Time};

use super::Reel;
use super::reel::nth;
use super::trickle_publisher::Answer;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The n-th exchange is answered.
    Reply(u8, Answer),
    /// The n-th answered exchange brings so many bytes.
    Data(u8, u8),
    /// The n-th answered exchange ends.
    End(u8),
    /// The n-th exchange breaks.
    Fail(u8),
    /// The owner jumps.
    Jump(u8),
    /// The owner closes.
    Close,
    /// Time passes: so many milliseconds, squared.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(16) {
            0..=4 => Self::Reply(reel.byte(), Answer::read(reel)),
            5..=8 => Self::Data(reel.byte(), reel.byte()),
            9 | 10 => Self::End(reel.byte()),
            11 => Self::Fail(reel.byte()),
            12 if reel.below(8) == 0 => Self::Close,
            12 if reel.below(4) == 0 => Self::Jump(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

#[derive(Debug)]
struct Exchange {
    path: String,
    replied: bool,
    given: usize,
    held: bool,
}

/// Plays steps against a subscriber.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    subscriber: Subscriber,
    live: BTreeMap<EffectId, Exchange>,
    requests: VecDeque<Time>,
    current: Option<(u64, usize)>,
    next: Option<u64>,
    named: bool,
    closed: Option<Ending>,
}

impl Player {
    /// A subscriber; the byte picks its start and its policies.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_000);
        let config = Config {
            lag: [Lag::Live, Lag::Current, Lag::Earliest, Lag::Fail][usize::from(flavour % 4)],
            max_lag: (flavour & 4 == 0).then_some(2),
            ahead_bytes: usize::from(flavour),
            idle_within: (flavour & 8 == 0).then_some(Duration::from_secs(120)),
            ..Config::default()
        };
        let start = match flavour >> 5 {
            0..=2 => Start::Next,
            3 | 4 => Start::Current,
            5 => Start::At(Seq::MAX),
            _ => Start::At(Seq::ZERO),
        };
        let url = Url::parse("http://s/ai/trickle/c/").expect("a URL");
        Self {
            now,
            book: Exchanges::default(),
            subscriber: Subscriber::new(now, config, url, start),
            live: BTreeMap::new(),
            requests: VecDeque::new(),
            current: None,
            next: None,
            named: false,
            closed: None,
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        self.drain();
        match step {
            Step::Reply(pick, answer) => {
                if let Some(id) = self.pick(*pick, |exchange| !exchange.replied) {
                    let exchange = self.live.get_mut(&id).expect("picked");
                    exchange.replied = true;
                    let seq = exchange
                        .path
                        .rsplit('/')
                        .next()
                        .and_then(|seq| seq.parse().ok());
                    let head = answer.head(seq);
                    self.http(id, In::Reply(head));
                }
            }
            Step::Data(pick, count) => {
                let fits = |exchange: &Exchange| exchange.replied && !exchange.held;
                if let Some(id) = self.pick(*pick, fits) {
                    let exchange = self.live.get_mut(&id).expect("picked");
                    let bytes = content(exchange.given, usize::from(*count));
                    exchange.given += usize::from(*count);
                    self.http(id, In::Data(bytes));
                }
            }
            Step::End(pick) => {
                let fits = |exchange: &Exchange| exchange.replied && !exchange.held;
                if let Some(id) = self.pick(*pick, fits) {
                    self.live.remove(&id);
                    self.http(id, In::End(Headers::new()));
                }
            }
            Step::Fail(pick) => {
                if let Some(id) = self.pick(*pick, |_| true) {
                    self.live.remove(&id);
                    self.http(id, In::Failed(Fault::Broken("reset".into())));
                }
            }
            Step::Jump(to) => {
                let to = match to % 3 {
                    0 => Start::Next,
                    1 => Start::Current,
                    _ => Start::At(Seq::from(u32::from(*to))),
                };
                self.named = false;
                self.requests.clear();
                let jumped = self.subscriber.jump(self.now, to);
                assert_eq!(jumped == Err(Misuse::Ended), self.closed.is_some());
                self.drain();
            }
            Step::Close => {
                self.subscriber.close(self.now);
                self.drain();
                assert!(self.closed.is_some());
            }
            Step::Pass(root) => {
                let root = u64::from(*root);
                self.pass(Duration::from_millis(root * root));
            }
        }
    }

    /// Fails every request from now on, and sees it end.
    ///
    /// # Panics
    /// If it does not.
    pub fn finish(&mut self) {
        for _ in 0..200 {
            let wake = self.drain();
            if self.closed.is_some() {
                assert!(self.live.is_empty(), "left alone: {:?}", self.live);
                return;
            }
            if let Some(id) = self.live.keys().next().copied() {
                self.live.remove(&id);
                self.http(id, In::Failed(Fault::Broken("over".into())));
            } else {
                let wake = wake.expect("it waits for nothing");
                self.leap(wake.since(self.now));
            }
        }
        panic!("it does not end although everything fails");
    }

    fn pick(&self, pick: u8, fits: impl Fn(&Exchange) -> bool) -> Option<EffectId> {
        let fitting = self.live.iter().filter(|(_, exchange)| fits(exchange));
        nth(pick, fitting.map(|(id, _)| *id))
    }

    fn heard(&mut self, id: EffectId, out: Out) {
        match out {
            Out::Request(request) => {
                assert!(self.closed.is_none(), "a request after the end");
                let path = request.url.path().to_string();
                let special = path.ends_with("/-1") || path.ends_with("/-2");
                assert!(!special || !self.named, "{path} after a seq was named");
                self.live.insert(
                    id,
                    Exchange {
                        path,
                        replied: false,
                        given: 0,
                        held: false,
                    },
                );
                let paths: Vec<&str> = self.live.values().map(|one| &*one.path).collect();
                assert!(paths.len() <= 3, "{paths:?} under way");
                // Answers that bring nothing new are asked for at most five times a second.
                self.requests.push_back(self.now);
                while self
                    .requests
                    .front()
                    .is_some_and(|at| self.now.since(*at) >= Duration::from_secs(1))
                {
                    self.requests.pop_front();
                }
                assert!(self.requests.len() <= 7, "a storm of {:?}", self.requests);
            }
            Out::Abort => {
                self.live.remove(&id);
            }
            Out::Pause | Out::Resume => {
                if let Some(exchange) = self.live.get_mut(&id) {
                    exchange.held = matches!(out, Out::Pause);
                }
            }
            other => panic!("a subscriber does not say {other:?}"),
        }
    }
}

impl Driven for Player {
    crate::driven!(subscriber: Subscriber, book);

    fn is_over(&self) -> bool {
        self.closed.is_some()
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(out) => self.heard(id, out),
            _ => panic!("a subscriber asks for http only"),
        }
    }

    fn event(&mut self, event: Event) {
        assert!(self.closed.is_none(), "{event:?} after the last event");
        match event {
            Event::Begin(seq, _) => {
                let seq = seq.get();
                assert!(self.current.is_none(), "{seq} begins inside another");
                assert!(
                    self.next.is_none_or(|next| next == seq),
                    "{seq} out of turn"
                );
                self.current = Some((seq, 0));
                self.named = true;
                self.requests.clear();
            }
            Event::Data(seq, bytes) => {
                let (current, told) = self.current.as_mut().expect("data outside a segment");
                assert_eq!(*current, seq.get());
                assert_eq!(
                    bytes,
                    content(*told, bytes.len()),
                    "a byte twice or missing"
                );
                *told += bytes.len();
                self.requests.clear();
            }
            Event::End(seq) => {
                let (current, _) = self.current.take().expect("an end outside a segment");
                assert_eq!(current, seq.get());
                self.next = Some(seq.next().get());
            }
            Event::Truncated(seq, told) => {
                let (current, held) = self.current.take().expect("a cut outside a segment");
                assert_eq!((current, held as u64), (seq.get(), told));
                self.next = Some(seq.next().get());
            }
            Event::Gap(range) => {
                assert!(self.current.is_none(), "a gap inside a segment");
                assert!(range.start < range.end);
                assert!(self.next.is_none_or(|next| next == range.start.get()));
                self.next = Some(range.end.get());
            }
            Event::Discontinuity => {
                assert!(self.current.is_none(), "a jump inside a segment");
                self.next = None;
            }
            Event::Closed(ending) => {
                assert!(self.current.is_none(), "it ended inside a segment");
                self.closed = Some(ending);
            }
            other => panic!("unknown {other:?}"),
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        assert!(
            wake.is_none() || self.closed.is_none(),
            "it wakes after its end"
        );
    }
}

/// The bytes of every segment: the server is fickle, but not about bytes.
fn content(from: usize, count: usize) -> Bytes {
    (from..from + count)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect::<Vec<u8>>()
        .into()
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
