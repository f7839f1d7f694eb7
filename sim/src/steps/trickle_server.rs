//! Peers of a trickle server, as ill-mannered as they come.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Request, Url};
use livepeer_core::trickle::server::{Config, Event, Gate, Read, ReaderId, Refusal, Server};
use livepeer_core::trickle::{STATUS_NOT_IN_WINDOW, Start, headers};
use livepeer_core::{Effect, EffectId, Time};

use super::Reel;
use super::reel::nth;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request without a body: method, channel, index.
    Ask(Method, u8, Index),
    /// The head of a POST to a seq; whether it resets.
    Post(u8, Index, bool),
    /// The n-th open POST sends so many bytes.
    Write(u8, u8),
    /// The n-th open POST ends.
    End(u8),
    /// The n-th open exchange breaks.
    Break(u8),
    /// The transport of the n-th open exchange takes what waits.
    Take(u8),
    /// The embedder decides the oldest question.
    Answer(bool),
    /// The embedder publishes a segment of so many bytes.
    Publish(u8, u8),
    /// The embedder reads so much of a channel.
    Read(u8, u8),
    /// Time passes: so many tens of milliseconds.
    Pass(u8),
}

/// An index as peers write it.
#[derive(Clone, Copy, Debug)]
pub enum Index {
    /// None: the channel itself.
    Channel,
    /// `next`.
    Next,
    /// The head plus this many.
    Near(i8),
    /// A plain number.
    Number(i64),
    /// No number at all.
    Garbage(u8),
}

impl Index {
    fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(8) {
            0 => Self::Channel,
            1 => Self::Next,
            2 | 3 => Self::Number(i64::from(reel.byte() as i8)),
            4 => Self::Number([i64::MAX, i64::MIN, i64::MAX - 1, 1 << 40][reel.below(4) as usize]),
            5 => Self::Garbage(reel.byte()),
            _ => Self::Near((reel.below(16) as i8) - 8),
        }
    }
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(16) {
            0 => {
                let methods = [
                    Method::Get,
                    Method::Head,
                    Method::Post,
                    Method::Put,
                    Method::Delete,
                    Method::Options,
                ];
                let method = methods[usize::from(reel.below(6))];
                Self::Ask(method, reel.below(4), Index::read(reel))
            }
            1..=3 => Self::Ask(Method::Get, reel.below(3), Index::read(reel)),
            4 => Self::Ask(Method::Delete, reel.below(3), Index::read(reel)),
            5..=6 => Self::Post(reel.below(3), Index::read(reel), reel.below(6) == 0),
            7..=9 => Self::Write(reel.byte(), reel.byte()),
            10 => Self::End(reel.byte()),
            11 => Self::Break(reel.byte()),
            12 => Self::Take(reel.byte()),
            13 => Self::Answer(reel.below(2) == 0),
            14 => match reel.below(2) {
                0 => Self::Publish(reel.below(3), reel.byte()),
                _ => Self::Read(reel.below(3), reel.byte()),
            },
            _ => Self::Pass(reel.byte()),
        }
    }
}

#[derive(Debug)]
struct Exchange {
    asked: String,
    post: bool,
    head_only: bool,
    ended_request: bool,
    status: Option<u16>,
    seq: Option<u64>,
    stream: bool,
    over: bool,
    body: Vec<u8>,
    unsent: usize,
    written: u32,
}

/// How long a reader may take nothing of a segment that has left the window.
const STALL_WITHIN: Duration = Duration::from_secs(2);
/// At most this many bytes are held outside the windows: less than one segment and the beginning of another.
const MAX_OUTSIDE_BYTES: usize = 2_500;

/// Plays steps against a server.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    server: Server,
    exchanges: BTreeMap<EffectId, Exchange>,
    open: Vec<EffectId>,
    asked: Vec<EffectId>,
    minted: u64,
    /// Tags that make every byte string of a writer unlike any other.
    writers: u32,
    tags: BTreeMap<EffectId, u32>,
    readers: BTreeMap<u8, ReaderId>,
    closed: bool,
}

const NAMES: [&str; 4] = ["a", "b", "_c", "%2e"];

/// The name that the server knows.
fn decoded(name: &str) -> &str {
    if name == "%2e" { "." } else { name }
}

impl Player {
    /// A server with small limits; the byte picks its policies.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_000);
        let gate = |pick: u8| match pick % 4 {
            0 => Gate::Ask,
            1 => Gate::Refuse(Refusal {
                status: 200 + u16::from(flavour),
                text: "no".into(),
            }),
            _ => Gate::Open,
        };
        let config = Config {
            autocreate: flavour & 1 == 0,
            changefeed: flavour & 2 == 0,
            protect_reserved: flavour & 4 == 0,
            on_create: gate(flavour >> 3),
            on_delete: gate(flavour >> 5),
            idle: Duration::from_secs(4),
            sweep: Duration::from_secs(1),
            reader_window: 100,
            stall_within: STALL_WITHIN,
            max_outside_bytes: MAX_OUTSIDE_BYTES,
            max_segment_bytes: 2_000,
            max_channels: 3,
            max_channel_guests: 8,
            max_exchanges: 12,
            ..Config::default()
        };
        let mut server = Server::new(now, config);
        server
            .create_channel(now, "a", "x/y".into())
            .expect("a new server takes a channel");
        Self {
            now,
            book: Exchanges::default(),
            server,
            exchanges: BTreeMap::new(),
            open: Vec::new(),
            asked: Vec::new(),
            minted: 0,
            writers: 0,
            tags: BTreeMap::new(),
            readers: BTreeMap::new(),
            closed: false,
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Ask(method, name, index) => {
                let id = self.request(*method, *name, *index, false);
                self.http(id, In::End(Headers::new()));
                if let Some(exchange) = self.exchanges.get_mut(&id) {
                    exchange.ended_request = true;
                }
            }
            Step::Post(name, index, reset) => {
                self.request(Method::Post, *name, *index, *reset);
            }
            Step::Write(pick, count) => {
                if let Some(id) =
                    self.pick(*pick, |exchange| exchange.post && !exchange.ended_request)
                {
                    let bytes = self.bytes(id, usize::from(*count));
                    self.http(id, In::Data(bytes));
                }
            }
            Step::End(pick) => {
                if let Some(id) =
                    self.pick(*pick, |exchange| exchange.post && !exchange.ended_request)
                {
                    self.exchanges.get_mut(&id).expect("picked").ended_request = true;
                    self.http(id, In::End(Headers::new()));
                }
            }
            Step::Break(pick) => {
                if let Some(id) = self.pick(*pick, |_| true) {
                    self.open.retain(|open| *open != id);
                    self.http(id, In::Failed(Fault::Broken("reset".into())));
                    self.exchanges.get_mut(&id).expect("picked").over = true;
                }
            }
            Step::Take(pick) => {
                if let Some(id) = self.pick(*pick, |exchange| exchange.unsent > 0) {
                    self.take(id);
                }
            }
            Step::Answer(yes) => {
                if !self.asked.is_empty() {
                    let id = self.asked.remove(0);
                    let verdict = if *yes {
                        Ok(())
                    } else {
                        Err(Refusal {
                            status: 402,
                            text: "pay".into(),
                        })
                    };
                    self.server.answer(self.now, id, verdict);
                    self.drain();
                }
            }
            Step::Publish(name, count) => {
                let name = NAMES[usize::from(*name)];
                self.writers += 1;
                let bytes = tagged(self.writers, 0, usize::from(*count) / 4 * 4);
                // Whatever is in the way is the embedder's to know.
                let _ = self.server.publish(self.now, name, bytes);
                let _ = self.server.end(self.now, name);
                self.drain();
            }
            Step::Read(name, count) => self.read(*name, *count),
            Step::Pass(tens) => self.pass(Duration::from_millis(u64::from(*tens) * 10)),
        }
    }

    /// Closes the server and sees everybody answered.
    ///
    /// # Panics
    /// If somebody is not.
    pub fn finish(&mut self) {
        self.compare();
        self.server.close(self.now);
        self.drain();
        // Everybody takes what there is; or nobody does, and is let go.
        if self.minted.is_multiple_of(2) {
            for id in self.open.clone() {
                for _ in 0..100 {
                    self.take(id);
                }
            }
        } else {
            self.pass(STALL_WITHIN);
            assert_eq!(self.server.outside_bytes(), 0);
        }
        let holds = |id: &&EffectId| self.exchanges[id].unsent > 0;
        assert_eq!(self.open.iter().find(holds), None, "a reader holds on");
        for (id, exchange) in &self.exchanges {
            assert!(
                exchange.over || exchange.stream_done() || exchange.status.is_some(),
                "{id:?} {} was never answered",
                exchange.asked
            );
        }
        let writers_left = self.open.iter().any(|id| {
            let exchange = &self.exchanges[id];
            exchange.post && !exchange.ended_request && exchange.status.is_none()
        });
        assert!(!writers_left || !self.closed, "it closed under a writer");
        for id in self.open.clone() {
            self.http(id, In::Failed(Fault::Broken("gone".into())));
        }
        assert!(self.closed, "it did not close");
        let late = EffectId::by_peer(self.minted);
        self.minted += 1;
        self.track(late, "late".into(), false, false);
        let url = Url::parse("http://s/ai/trickle/a/0").expect("a URL");
        self.http(late, In::Request(Request::new(Method::Delete, url)));
        assert_eq!(self.exchanges[&late].status, Some(503), "closed is closed");
    }

    fn track(&mut self, id: EffectId, asked: String, post: bool, head_only: bool) {
        self.exchanges.insert(
            id,
            Exchange {
                asked,
                post,
                head_only,
                ended_request: false,
                status: None,
                seq: None,
                stream: false,
                over: false,
                body: Vec::new(),
                unsent: 0,
                written: 0,
            },
        );
    }

    fn request(&mut self, method: Method, name: u8, index: Index, reset: bool) -> EffectId {
        let name = NAMES[usize::from(name)];
        let head = self
            .server
            .stats(decoded(name))
            .map_or(0, |stats| stats.head.get());
        let index = match index {
            Index::Channel => String::new(),
            Index::Next => "/next".into(),
            Index::Near(by) => format!("/{}", head.saturating_add_signed(i64::from(by))),
            Index::Number(number) => format!("/{number}"),
            Index::Garbage(byte) => [
                "/", "/x", "/1/2", "//0", "/%", "/+1", "/1e9", "/-", "/..", "/%31",
            ][usize::from(byte) % 10]
                .into(),
        };
        let path = format!("/ai/trickle/{name}{index}");
        let url = Url::parse("http://s").expect("a URL").with_path(&path);
        let mut request = Request::new(method, url).body(Body::Stream);
        if reset {
            request = request.header(headers::RESET, "1");
        }
        let id = EffectId::by_peer(self.minted);
        self.minted += 1;
        let asked = format!("{} {path}", method.as_str());
        self.track(id, asked, method == Method::Post, method == Method::Head);
        self.open.push(id);
        let expected_head = self
            .server
            .stats(decoded(name))
            .map(|stats| stats.head.get());
        self.http(id, In::Request(request));
        let exchange = &self.exchanges[&id];
        if let Some(status) = exchange.status {
            assert!(
                [200, 307, 400, 402, 403, 404, 405, 413, 470, 500, 503].contains(&status)
                    || (300..=500).contains(&status),
                "{} answered {status}",
                exchange.asked
            );
            if status == STATUS_NOT_IN_WINDOW {
                assert!(expected_head.is_some(), "470 of no channel");
            }
        }
        id
    }

    fn pick(&self, pick: u8, fits: impl Fn(&Exchange) -> bool) -> Option<EffectId> {
        let open = self.open.iter().copied();
        nth(pick, open.filter(|id| fits(&self.exchanges[id])))
    }

    fn bytes(&mut self, id: EffectId, count: usize) -> Bytes {
        let tag = *self.tags.entry(id).or_insert_with(|| {
            self.writers += 1;
            self.writers
        });
        let exchange = self.exchanges.get_mut(&id).expect("picked");
        let count = count / 4 * 4;
        let bytes = tagged(tag, exchange.written, count);
        exchange.written += count as u32;
        bytes
    }

    fn take(&mut self, id: EffectId) {
        let unsent = match self.exchanges.get_mut(&id) {
            Some(exchange) => std::mem::take(&mut exchange.unsent),
            None => 0,
        };
        if unsent > 0 {
            self.http(id, In::Sent(unsent));
            self.sweep(id);
        }
    }

    fn heard(&mut self, id: EffectId, out: Out) {
        let now_head = |name: &str| self.server.stats(name).map(|stats| stats.head);
        let exchange = self.exchanges.get_mut(&id).expect("a known exchange");
        if exchange.over {
            // The peer is gone; only an answer may still come, for half a connection.
            assert!(matches!(out, Out::Reply(_)), "{out:?} after the end");
            return;
        }
        match out {
            Out::Reply(reply) => {
                assert!(
                    exchange.status.is_none(),
                    "two answers to {}",
                    exchange.asked
                );
                exchange.status = Some(reply.status);
                exchange.seq = headers::seq(&reply.headers).map(|seq| seq.get());
                exchange.stream = reply.body == Body::Stream;
                assert!(!(exchange.head_only && exchange.stream));
                if let Body::Full(bytes) = &reply.body {
                    exchange.body.extend_from_slice(bytes);
                }
                if reply.status == STATUS_NOT_IN_WINDOW {
                    let name = exchange.asked.split('/').nth(3).unwrap_or("");
                    assert_eq!(headers::latest(&reply.headers), now_head(decoded(name)));
                }
            }
            Out::Data(bytes) => {
                assert!(exchange.stream, "bytes without a head");
                assert!(!bytes.is_empty());
                assert!(
                    exchange.unsent < 100,
                    "more in flight than the window allows"
                );
                exchange.unsent += bytes.len();
                exchange.body.extend_from_slice(&bytes);
            }
            Out::End(_) => {
                assert!(exchange.stream, "an end without a head");
                assert!(
                    !exchange.body.is_empty(),
                    "a head was sent before there was a byte"
                );
                exchange.stream = false;
            }
            Out::Abort => {
                assert!(exchange.unsent > 0, "a reader that took all was let go");
                exchange.stream = false;
                exchange.unsent = 0;
                exchange.over = true;
            }
            Out::Pause | Out::Resume | Out::Report => {}
            other => panic!("a server does not say {other:?}"),
        }
        self.sweep(id);
    }

    /// Forgets an exchange of which nothing is left to be taken.
    fn sweep(&mut self, id: EffectId) {
        let exchange = &self.exchanges[&id];
        if exchange.stream_done() && exchange.unsent == 0 {
            self.open.retain(|open| *open != id);
        }
    }

    fn read(&mut self, name: u8, count: u8) {
        let id = match self.readers.get(&name) {
            Some(id) => *id,
            None => {
                let start = if count.is_multiple_of(2) {
                    Start::Next
                } else {
                    Start::Current
                };
                match self
                    .server
                    .subscribe(self.now, NAMES[usize::from(name)], start)
                {
                    Ok(id) => {
                        self.readers.insert(name, id);
                        id
                    }
                    Err(_) => return,
                }
            }
        };
        for _ in 0..=count {
            match self.server.read(self.now, id) {
                Read::Pending => break,
                Read::Ended => {
                    self.readers.remove(&name);
                    break;
                }
                _ => {}
            }
        }
        self.drain();
    }

    /// Checks that of what any two readers of a segment received, one is a beginning of the other; and that of what any
    /// writer wrote, every reader received a run without holes.
    fn compare(&self) {
        let read: Vec<&Exchange> = self
            .exchanges
            .values()
            .filter(|exchange| {
                exchange.asked.starts_with("GET")
                    && exchange.status == Some(200)
                    && exchange.seq.is_some()
                    && !exchange.body.is_empty()
                    && !exchange.asked.contains("_")
            })
            .collect();
        for one in &read {
            let mut next: BTreeMap<u32, u32> = BTreeMap::new();
            for unit in one.body.chunks(4) {
                let Ok(unit) = <[u8; 4]>::try_from(unit) else {
                    continue;
                };
                let word = u32::from_le_bytes(unit);
                let (tag, count) = (word >> 16, word & 0xffff);
                let due = next.entry(tag).or_insert(0);
                assert_eq!(*due, count, "{} got a hole", one.asked);
                *due += 4;
            }
        }
        for (at, one) in read.iter().enumerate() {
            for other in &read[at + 1..] {
                // The first bytes say whose segment it is.
                let name =
                    |exchange: &Exchange| exchange.asked.split('/').nth(3).map(str::to_string);
                if name(one) != name(other)
                    || one.seq != other.seq
                    || one.body.get(..4) != other.body.get(..4)
                {
                    continue;
                }
                let least = one.body.len().min(other.body.len());
                assert!(
                    one.body[..least] == other.body[..least],
                    "{} and {} differ",
                    one.asked,
                    other.asked
                );
            }
        }
    }
}

impl Driven for Player {
    crate::driven!(server: Server, book);

    const PATIENT: bool = true;

    fn is_over(&self) -> bool {
        self.closed
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(out) => self.heard(id, out),
            _ => panic!("a server asks for http only"),
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        let held = self.server.outside_bytes();
        assert!(held <= MAX_OUTSIDE_BYTES, "{held} bytes outside");
    }

    fn event(&mut self, event: Event) {
        assert!(!self.closed, "{event:?} after the last event");
        match event {
            Event::Asked { id, .. } => self.asked.push(id),
            Event::Closed(_) => self.closed = true,
            _ => {}
        }
    }
}

impl Exchange {
    const fn stream_done(&self) -> bool {
        self.status.is_some() && !self.stream
    }
}

/// Bytes in units of four: whose they are, and which.
fn tagged(tag: u32, from: u32, count: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(count);
    let mut at = from;
    while bytes.len() < count {
        let unit = ((tag & 0xffff) << 16) | ((at / 4 * 4) & 0xffff);
        bytes.push(unit.to_le_bytes()[(at % 4) as usize]);
        at += 1;
    }
    bytes.into()
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
