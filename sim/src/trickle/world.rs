//! A world of one publisher, one server, a few subscribers, and a schedule of troubles.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::Url;
use livepeer_core::trickle::publisher::{self, Policy, Publisher, Unbegun, Unwritten};
use livepeer_core::trickle::server::{self, Server};
use livepeer_core::trickle::subscriber::{self, Lag, Subscriber};
use livepeer_core::trickle::{Seq, Start, headers};
use livepeer_core::{Time, machine::earlier};

use super::Model;
use crate::{Dice, Faults, Link, Net, Node};

/// Where the server is.
const SERVER: &str = "server:80";

/// How bad it may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Latency only.
    Gentle,
    /// Cuts, short stalls, short outages, copies: nothing may be lost.
    Lossless,
    /// Anything: silence, restarts, slow readers, drop policies. What is told must be true, and it must end.
    Rough,
}

/// Troubles of the parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody can connect for that long.
    Refuse(Duration),
    /// The server dies and comes back with empty channels after that long.
    RestartServer(Duration),
    /// The publisher dies; a new one takes over.
    RestartPublisher,
}

/// All that a run follows from.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The seed that the schedule came from.
    pub seed: u64,
    /// How bad it may get.
    pub severity: Severity,
    /// Faults of exchanges.
    pub faults: Faults,
    /// How long a step is under way at most, in milliseconds.
    pub latency: u64,
    /// Bytes a second that the last reader takes, if it is slow.
    pub slow: Option<u64>,
    /// Troubles of parties and their times since the start.
    pub troubles: Vec<(Duration, Trouble)>,
    /// The segments that the publisher gives up.
    pub policy: Policy,
    /// How readers go on after falling behind.
    pub lag: Lag,
    /// The number of segments.
    pub segments: u64,
    /// The number of writes of a segment.
    pub writes: u64,
    /// The most bytes of a write.
    pub bytes: u64,
    /// The longest pause between two writes.
    pub pause: Duration,
    /// How many readers; the last is slow if the faults say so.
    pub readers: usize,
    /// How many bytes of a segment the publisher keeps.
    pub replay: usize,
    /// Whether everything is printed as it happens.
    pub trace: bool,
}

impl Schedule {
    /// The world of that seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let severity = match dice.between(0, 9) {
            0 => Severity::Gentle,
            1..=5 => Severity::Lossless,
            _ => Severity::Rough,
        };
        let rough = severity == Severity::Rough;
        let latency = [1, 5, 25][dice.between(0, 2) as usize];
        let (mut faults, mut slow) = (Faults::default(), None);
        if severity != Severity::Gentle {
            faults = Faults {
                budget: dice.between(1, 8) as u32,
                cut: dice.between(0, 40),
                stall: dice.between(0, 20),
                stall_most: Duration::from_millis(if rough { 12_000 } else { 700 }),
                hole: if rough { dice.between(0, 10) } else { 0 },
                twice: dice.between(0, 20),
                // A restart said twice is two restarts, whatever the order; nothing on the way repeats such a POST.
                never_twice: Some(headers::RESET),
                lose_early_answers: dice.between(0, 100),
                ..Faults::default()
            };
            slow = (rough && dice.percent(30)).then(|| dice.between(500, 20_000));
        }
        let mut troubles = Vec::new();
        if severity != Severity::Gentle {
            for _ in 0..dice.between(0, 2) {
                let at = dice.millis(0, 8_000);
                let trouble = match dice.between(0, if rough { 2 } else { 0 }) {
                    0 => Trouble::Refuse(dice.millis(1, if rough { 15_000 } else { 400 })),
                    1 => Trouble::RestartServer(dice.millis(1, 4_000)),
                    _ => Trouble::RestartPublisher,
                };
                troubles.push((at, trouble));
            }
            troubles.sort_by_key(|(at, _)| *at);
        }
        let policy = if rough {
            [
                Policy::Block,
                Policy::DropNewest,
                Policy::DropOldest,
                Policy::SkipToLive,
            ][dice.between(0, 3) as usize]
        } else {
            Policy::Block
        };
        let lag = if rough {
            [Lag::Live, Lag::Current, Lag::Earliest][dice.between(0, 2) as usize]
        } else {
            Lag::Earliest
        };
        Self {
            seed,
            severity,
            faults,
            latency,
            slow,
            troubles,
            policy,
            lag,
            segments: dice.between(1, 10),
            writes: dice.between(0, 6),
            bytes: dice.between(1, 3_000),
            // A window of segments outlasts what a lossless run does to its readers.
            pause: Duration::from_millis(if rough {
                dice.between(1, 1_000)
            } else {
                dice.between(400, 1_000)
            }),
            readers: dice.between(1, 2) as usize,
            replay: [1 << 20, 2_000, 0][if rough {
                dice.between(0, 2) as usize
            } else {
                0
            }],
            trace: false,
        }
    }
}

/// The report of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Segments begun.
    pub segments: u64,
    /// Times that a segment was continued after a break.
    pub resumed: u64,
    /// Segments that readers missed and were told so.
    pub missed: u64,
    /// Virtual time from start to end.
    pub took: Duration,
}

enum Work {
    Begin,
    Write(u64),
    End,
    /// Waits for the outcomes, then closes.
    Close,
    Done,
}

struct World {
    schedule: Schedule,
    start: Time,
    dice: Dice,
    net: Net,
    server: Node<Server>,
    publisher: Node<Publisher>,
    readers: Vec<Node<Subscriber>>,
    model: Model,
    work: Work,
    /// When to work next; `None` waits for the publisher to be writable.
    work_at: Option<Time>,
    done_segments: u64,
    troubles: Vec<(Time, Trouble)>,
    /// Until when nobody can connect, and until when there are faults.
    refused_until: Option<Time>,
    faults_until: Time,
    calm_since: Time,
}

fn url() -> Url {
    Url::parse(&format!("http://{SERVER}/ai/trickle/c")).expect("a good URL")
}

/// Plays a schedule to its end.
///
/// # Panics
/// If a property breaks.
#[must_use]
pub fn run(schedule: Schedule) -> Report {
    World::new(schedule).play()
}

impl World {
    fn new(schedule: Schedule) -> Self {
        let start = Time::from_secs(1_000_000);
        let mut dice = Dice::new(schedule.seed.wrapping_mul(31).wrapping_add(7));
        let mut net = Net::new(start, dice.fork());
        net.faults = schedule.faults.clone();
        net.trace = schedule.trace;
        *net.link(SERVER) = Link {
            jitter: Duration::from_millis(schedule.latency - 1),
            buffered: true,
            ..Link::default()
        };
        let server = net.serve(SERVER, Self::server(start));
        let publisher = net.add(Self::publisher(start, &schedule));
        let readers: Vec<_> = (0..schedule.readers)
            .map(|_| {
                let config = subscriber::Config {
                    lag: schedule.lag,
                    max_resumes: 20,
                    ahead_bytes: 1 << (dice.between(8, 16)),
                    ..subscriber::Config::default()
                };
                net.add(Subscriber::new(start, config, url(), Start::At(Seq::ZERO)))
            })
            .collect();
        if let (Some(rate), Some(last)) = (schedule.slow, readers.last()) {
            net.slow_down(*last, rate);
        }
        let troubles = schedule.troubles.iter();
        let gentle = schedule.severity == Severity::Gentle;
        Self {
            start,
            server,
            publisher,
            readers,
            model: Model::new(schedule.severity == Severity::Rough),
            work: Work::Begin,
            work_at: Some(start + dice.millis(0, 300)),
            done_segments: 0,
            troubles: troubles
                .map(|(after, trouble)| (start + *after, *trouble))
                .collect(),
            refused_until: None,
            faults_until: start + Duration::from_secs(if gentle { 0 } else { 30 }),
            calm_since: start,
            dice,
            net,
            schedule,
        }
    }

    fn server(now: Time) -> Server {
        let config = server::Config {
            reader_window: 4_096,
            ..server::Config::default()
        };
        let mut server = Server::new(now, config);
        server
            .create_channel(now, "c", "video/MP2T".into())
            .expect("a new server takes a channel");
        server
    }

    fn publisher(now: Time, schedule: &Schedule) -> Publisher {
        let config = publisher::Config {
            policy: schedule.policy,
            replay_bytes: schedule.replay,
            max_unsent_bytes: 8_000,
            ..publisher::Config::default()
        };
        Publisher::new(now, config, url())
    }

    fn play(&mut self) -> Report {
        let limit = self.start + Duration::from_secs(3_600);
        let mut steps = 0_u64;
        while !self.is_over() {
            let mut next = earlier(self.work_at, self.troubles.first().map(|(at, _)| *at));
            next = earlier(next, self.refused_until);
            if self.faults_until > self.net.now() {
                next = earlier(next, Some(self.faults_until));
            }
            if !self.net.step(next.unwrap_or(limit)) {
                let next = next.expect("it ends");
                self.net.run_until(next);
                self.advance(next);
            }
            self.listen();
            steps += 1;
            assert!(steps < 200_000, "too many steps");
        }
        self.model.check();
        if self.schedule.severity != Severity::Rough {
            self.model.check_lossless();
        }
        let (segments, missed) = self.model.counts();
        Report {
            segments,
            resumed: self.model.resumed,
            missed,
            took: self.net.now().since(self.start),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.work, Work::Done)
            && self.model.publisher_closed.is_some()
            && (1..=self.readers.len()).all(|who| self.model.reader_closed(who).is_some())
    }

    fn advance(&mut self, now: Time) {
        if self.faults_until <= now {
            self.net.faults.budget = 0;
        }
        if self.refused_until.is_some_and(|until| until <= now) {
            self.refused_until = None;
            self.net.link(SERVER).down = false;
        }
        while self.troubles.first().is_some_and(|(at, _)| *at <= now) {
            let (_, trouble) = self.troubles.remove(0);
            self.trouble(now, trouble);
        }
        if self.work_at.is_some_and(|at| at <= now) {
            self.work(now);
        }
    }

    fn trouble(&mut self, now: Time, trouble: Trouble) {
        match trouble {
            Trouble::Refuse(time) => self.refuse(now + time),
            Trouble::RestartServer(time) => {
                self.model.restarted = true;
                self.refuse(now + time);
                self.net.restart(self.server, Self::server(now));
            }
            Trouble::RestartPublisher => {
                if !matches!(self.work, Work::Close | Work::Done) {
                    self.begin_anew(now, now);
                }
            }
        }
    }

    fn refuse(&mut self, until: Time) {
        self.refused_until = self.refused_until.max(Some(until));
        self.net.link(SERVER).down = true;
    }

    /// Another publisher takes the place of the one there was.
    fn begin_anew(&mut self, now: Time, at: Time) {
        self.model.publisher_died();
        let publisher = Self::publisher(now, &self.schedule);
        self.net.restart(self.publisher, publisher);
        (self.work, self.work_at) = (Work::Begin, Some(at));
    }

    fn work(&mut self, now: Time) {
        self.work_at = None;
        if self.model.publisher_closed.is_some() {
            // It gave up: the owner starts another, as the issue of a dead channel is for others to solve.
            if matches!(self.work, Work::Close) || self.done_segments >= self.schedule.segments {
                // The owner of the channel ends it for everybody.
                self.work = Work::Done;
                return self.delete_channel();
            }
            self.done_segments += 1;
            return self.begin_anew(now, now + Duration::from_millis(500));
        }
        let most = self.schedule.pause.as_millis() as u64;
        let soon = Some(now + self.dice.millis(0, most));
        let publisher = self.publisher;
        match self.work {
            Work::Begin if self.done_segments >= self.schedule.segments => {
                self.work = Work::Close;
                self.calm_since = now;
                self.work_at = Some(now);
            }
            Work::Begin => match self.net.with(publisher, |one, now| one.begin(now)) {
                Ok(seq) => {
                    self.model.begun(seq.get());
                    self.done_segments += 1;
                    (self.work, self.work_at) = (Work::Write(self.schedule.writes), soon);
                }
                Err(Unbegun::Busy) => {}
                Err(error) => panic!("begin: {error}"),
            },
            Work::Write(0) => (self.work, self.work_at) = (Work::End, soon),
            Work::Write(left) => {
                let count = self.dice.between(1, self.schedule.bytes) as usize;
                let fill = self.dice.next_u64();
                let bytes: Bytes = (0..count)
                    .map(|at| (fill >> (at % 8 * 8)) as u8 ^ at as u8)
                    .collect();
                let data = bytes.clone();
                match self.net.with(publisher, |one, now| one.write(now, data)) {
                    Ok(()) => {
                        self.model.wrote(&bytes);
                        (self.work, self.work_at) = (Work::Write(left - 1), soon);
                    }
                    Err(Unwritten::Full(back)) => assert_eq!(back, bytes),
                    Err(error) => panic!("write: {error}"),
                }
            }
            Work::End => {
                let ended = self.net.with(publisher, |one, now| one.end(now));
                ended.expect("a segment is begun");
                self.model.ended();
                (self.work, self.work_at) = (Work::Begin, soon);
            }
            Work::Close => {
                if self.schedule.severity == Severity::Rough || self.is_read() {
                    self.net.with(publisher, Publisher::close);
                    self.work = Work::Done;
                } else {
                    self.work_at = Some(now + Duration::from_millis(50));
                }
            }
            Work::Done => {}
        }
    }

    /// Whether everything published was delivered, and readers have had the time to recover from the last fault.
    fn is_read(&mut self) -> bool {
        let now = self.net.now();
        if self.net.get(self.publisher).in_flight() > 0 {
            self.calm_since = now;
        }
        now.since(self.calm_since) >= Duration::from_secs(30)
    }

    fn delete_channel(&mut self) {
        self.net
            .with(self.server, |server, now| server.delete_channel(now, "c"));
    }

    /// Hears what the machines tell.
    fn listen(&mut self) {
        let now = self.net.now();
        while let Some(event) = self.net.event(self.publisher) {
            self.model.publisher_told(&event);
            match event {
                publisher::Event::Closed(_) if !matches!(self.work, Work::Done) => {
                    self.work_at = Some(now + Duration::from_millis(10));
                }
                // Its DELETE may have been lost; the channel's owner is patient but not for ever.
                publisher::Event::Closed(_) => self.delete_channel(),
                publisher::Event::Writable if self.work_at.is_none() => self.work_at = Some(now),
                _ => {}
            }
        }
        let stats = self.net.get(self.server).stats("c");
        let head = stats.map_or(u64::MAX / 2, |stats| stats.head.get());
        for (n, reader) in self.readers.iter().enumerate() {
            for event in self.net.events(*reader) {
                self.model.subscriber_told(n + 1, &event, head);
            }
            let open = self.net.under_way(*reader);
            assert!(open <= 3, "subscriber {n} has {open} exchanges under way");
        }
        // Nobody listens to the server.
        self.net.events(self.server);
    }
}
