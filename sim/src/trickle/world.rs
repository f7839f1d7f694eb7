//! A world of one publisher, one server, a few subscribers, and a schedule of troubles.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::Url;
use livepeer_core::machine::earlier;
use livepeer_core::trickle::publisher::{self, Policy, Publisher, Unbegun, Unwritten};
use livepeer_core::trickle::server::{self, Server};
use livepeer_core::trickle::subscriber::{self, Lag, Subscriber};
use livepeer_core::trickle::{Seq, Start};
use livepeer_core::{Effect, Input, Machine, Output, Time};

use super::{Delivery, Faults, Model, Net};
use crate::Dice;

/// How bad it may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
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
    pub class: Class,
    /// Faults of links.
    pub faults: Faults,
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
        let class = match dice.between(0, 9) {
            0 => Class::Gentle,
            1..=5 => Class::Lossless,
            _ => Class::Rough,
        };
        let rough = class == Class::Rough;
        let most_latency = [1, 5, 25][dice.between(0, 2) as usize];
        let faults = if class == Class::Gentle {
            Faults {
                latency: (1, most_latency),
                ..Faults::default()
            }
        } else {
            Faults {
                budget: dice.between(1, 8) as u32,
                cut: dice.between(0, 40),
                stall: dice.between(0, 20),
                stall_most: Duration::from_millis(if rough { 12_000 } else { 700 }),
                hole: if rough { dice.between(0, 10) } else { 0 },
                twice: dice.between(0, 20),
                lose_early_answers: dice.between(0, 100),
                latency: (1, most_latency),
                slow: (rough && dice.percent(30)).then(|| dice.between(500, 20_000)),
            }
        };
        let mut troubles = Vec::new();
        if class != Class::Gentle {
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
            class,
            faults,
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

const PUBLISHER: usize = 0;

struct World {
    schedule: Schedule,
    start: Time,
    now: Time,
    dice: Dice,
    net: Net,
    server: Server,
    server_down: Option<Time>,
    publisher: Publisher,
    subscribers: Vec<Subscriber>,
    model: Model,
    work: Work,
    /// When to work next; `None` waits for the publisher to be writable.
    work_at: Option<Time>,
    done_segments: u64,
    troubles: Vec<(Time, Trouble)>,
    faults_until: Time,
    calm_since: Time,
    wake: Option<Time>,
}

fn url() -> Url {
    Url::parse("http://server/ai/trickle/c").expect("a good URL")
}

/// Plays a schedule to its end.
///
/// # Panics
/// If a property breaks; the message names the seed.
#[must_use]
pub fn run(schedule: Schedule) -> Report {
    let seed = schedule.seed;
    let hook = Witness(seed);
    let mut world = World::new(schedule);
    let report = world.play();
    std::mem::forget(hook);
    report
}

/// Says which seed it was if the run panics.
struct Witness(u64);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "trickle simulation failed; replay with TRICKLE_SEED={}",
                self.0
            );
        }
    }
}

impl World {
    fn new(schedule: Schedule) -> Self {
        let start = Time::from_secs(1_000_000);
        let mut dice = Dice::new(schedule.seed.wrapping_mul(31).wrapping_add(7));
        let mut net = Net::new(schedule.faults.clone(), Dice::new(dice.roll()));
        if schedule.faults.slow.is_some() {
            net.slow_clients.push(schedule.readers);
        }
        let mut world = Self {
            start,
            now: start,
            net,
            server: Self::server(start),
            server_down: None,
            publisher: Self::publisher(start, &schedule),
            subscribers: (0..schedule.readers)
                .map(|_| {
                    let config = subscriber::Config {
                        lag: schedule.lag,
                        max_resumes: 20,
                        ahead_bytes: 1 << (dice.between(8, 16)),
                        ..subscriber::Config::default()
                    };
                    Subscriber::new(start, config, url(), Start::At(Seq::ZERO))
                })
                .collect(),
            model: Model::new(schedule.class == Class::Rough),
            work: Work::Begin,
            work_at: Some(start + dice.millis(0, 300)),
            done_segments: 0,
            troubles: schedule
                .troubles
                .iter()
                .map(|(after, trouble)| (start + *after, *trouble))
                .collect(),
            faults_until: start + Duration::from_secs(30),
            calm_since: start,
            wake: None,
            dice,
            schedule,
        };
        if world.schedule.class == Class::Gentle {
            world.faults_until = start;
        }
        world
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
        loop {
            self.drain();
            if self.is_over() {
                break;
            }
            assert!(
                self.wake.is_none_or(|wake| wake > self.now),
                "a machine wants to wake in the past"
            );
            let mut next = earlier(self.wake, self.net.next_time());
            next = earlier(next, self.work_at);
            next = earlier(next, self.troubles.first().map(|(at, _)| *at));
            next = earlier(next, self.server_down);
            if self.faults_until > self.now {
                next = earlier(next, Some(self.faults_until));
            }
            let next = next.unwrap_or_else(|| panic!("nothing will ever happen again"));
            assert!(next <= limit, "it does not end");
            self.now = self.now.max(next);
            self.advance();
            steps += 1;
            assert!(steps < 200_000, "too many steps");
        }
        self.model.check();
        if self.schedule.class != Class::Rough {
            self.model.check_lossless();
        }
        let (segments, missed) = self.model.counts();
        Report {
            segments,
            resumed: self.model.resumed,
            missed,
            took: self.now.since(self.start),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.work, Work::Done)
            && self.model.publisher_closed.is_some()
            && (1..=self.subscribers.len()).all(|who| self.model.reader_closed(who).is_some())
    }

    fn advance(&mut self) {
        let now = self.now;
        while let Some(delivery) = self.net.pop(now) {
            self.note(|| format!("{delivery:?}"));
            match delivery {
                Delivery::ToServer(id, step) => {
                    self.server.handle_input(now, Input::Http(id, step));
                    self.drain_server();
                }
                Delivery::ToClient(PUBLISHER, id, step) => {
                    self.publisher.handle_input(now, Input::Http(id, step));
                    self.drain_publisher();
                }
                Delivery::ToClient(who, id, step) => {
                    self.subscribers[who - 1].handle_input(now, Input::Http(id, step));
                    self.drain_subscriber(who);
                }
            }
        }
        if self.wake.is_some_and(|wake| wake <= now) {
            self.server.handle_input(now, Input::Tick);
            self.publisher.handle_input(now, Input::Tick);
            for subscriber in &mut self.subscribers {
                subscriber.handle_input(now, Input::Tick);
            }
            self.drain();
        }
        if self.faults_until <= now {
            self.net.stop_faults();
        }
        if self.server_down.is_some_and(|until| until <= now) {
            self.server_down = None;
            self.server = Self::server(now);
        }
        while self.troubles.first().is_some_and(|(at, _)| *at <= now) {
            let (_, trouble) = self.troubles.remove(0);
            self.trouble(trouble);
        }
        if self.work_at.is_some_and(|at| at <= now) {
            self.work();
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.schedule.trace {
            let mut text = what();
            text.truncate(200);
            println!("{:>9.3?} {text}", self.now.since(self.start));
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        let now = self.now;
        self.note(|| format!("TROUBLE {trouble:?}"));
        match trouble {
            Trouble::Refuse(time) => self.net.refuse_until(now + time),
            Trouble::RestartServer(time) => {
                self.model.restarted = true;
                self.net.kill_server(now);
                self.net.refuse_until(now + time);
                self.server = Self::server(now);
                self.server_down = Some(now + time);
            }
            Trouble::RestartPublisher => {
                if matches!(self.work, Work::Close | Work::Done) {
                    return;
                }
                self.net.forget_client(now, PUBLISHER);
                self.model.publisher_died();
                self.publisher = Self::publisher(now, &self.schedule);
                self.work = Work::Begin;
                self.work_at = Some(now);
                self.drain_publisher();
            }
        }
    }

    fn work(&mut self) {
        let now = self.now;
        self.work_at = None;
        if self.model.publisher_closed.is_some() {
            // It gave up: the owner starts another, as the issue of a dead channel is for others to solve.
            if matches!(self.work, Work::Close) || self.done_segments >= self.schedule.segments {
                self.give_up();
                return;
            }
            self.model.publisher_died();
            self.net.forget_client(now, PUBLISHER);
            self.publisher = Self::publisher(now, &self.schedule);
            self.done_segments += 1;
            self.work = Work::Begin;
            self.work_at = Some(now + Duration::from_millis(500));
            self.drain_publisher();
            return;
        }
        let soon = now + self.dice.millis(0, self.schedule.pause.as_millis() as u64);
        match self.work {
            Work::Begin if self.done_segments >= self.schedule.segments => {
                self.work = Work::Close;
                self.calm_since = now;
                self.work_at = Some(now);
            }
            Work::Begin => match self.publisher.begin(now) {
                Ok(seq) => {
                    self.model.begun(seq.get());
                    self.done_segments += 1;
                    self.work = Work::Write(self.schedule.writes);
                    self.work_at = Some(soon);
                }
                Err(Unbegun::Busy) => {}
                Err(error) => panic!("begin: {error}"),
            },
            Work::Write(0) => {
                self.work = Work::End;
                self.work_at = Some(soon);
            }
            Work::Write(left) => {
                let count = self.dice.between(1, self.schedule.bytes) as usize;
                let fill = self.dice.roll();
                let bytes: Vec<u8> = (0..count)
                    .map(|at| (fill >> (at % 8 * 8)) as u8 ^ at as u8)
                    .collect();
                match self.publisher.write(now, Bytes::from(bytes.clone())) {
                    Ok(()) => {
                        self.model.wrote(&bytes);
                        self.work = Work::Write(left - 1);
                        self.work_at = Some(soon);
                    }
                    Err(Unwritten::Full(back)) => assert_eq!(back, bytes),
                    Err(error) => panic!("write: {error}"),
                }
            }
            Work::End => {
                self.publisher.end(now).expect("a segment is begun");
                self.model.ended();
                self.work = Work::Begin;
                self.work_at = Some(soon);
            }
            Work::Close => {
                if self.schedule.class == Class::Rough || self.is_read() {
                    self.publisher.close(now);
                    self.work = Work::Done;
                } else {
                    self.work_at = Some(now + Duration::from_millis(50));
                }
            }
            Work::Done => {}
        }
        self.drain_publisher();
    }

    /// Whether everything published was delivered, and readers have had the time to recover from the last fault.
    fn is_read(&mut self) -> bool {
        if self.publisher.in_flight() > 0 {
            self.calm_since = self.now;
        }
        self.now.since(self.calm_since) >= Duration::from_secs(30)
    }

    /// The owner of the channel ends it for everybody.
    fn give_up(&mut self) {
        self.work = Work::Done;
        self.server.delete_channel(self.now, "c");
        self.drain_server();
    }

    fn drain(&mut self) {
        let mut wake = self.drain_server();
        wake = earlier(wake, self.drain_publisher());
        for who in 1..=self.subscribers.len() {
            wake = earlier(wake, self.drain_subscriber(who));
        }
        self.wake = wake;
    }

    fn drain_server(&mut self) -> Option<Time> {
        loop {
            match self.server.poll_output() {
                Output::Effect(id, Effect::Http(out)) => {
                    self.note(|| format!("server {id:?} {out:?}"));
                    self.net.server_out(self.now, id, out);
                }
                Output::Effect(..) => unreachable!("a server asks for http only"),
                Output::Event(_) => {}
                Output::Idle(wake) => return wake,
            }
        }
    }

    fn drain_publisher(&mut self) -> Option<Time> {
        loop {
            match self.publisher.poll_output() {
                Output::Effect(id, Effect::Http(out)) => {
                    self.note(|| format!("publisher {id:?} {out:?}"));
                    self.net.client_out(self.now, PUBLISHER, id, out);
                }
                Output::Effect(..) => unreachable!("a publisher asks for http only"),
                Output::Event(event) => {
                    self.note(|| format!("PUBLISHER {event:?}"));
                    self.model.publisher_told(&event);
                    match event {
                        publisher::Event::Closed(_) if !matches!(self.work, Work::Done) => {
                            self.work_at = Some(self.now + Duration::from_millis(10));
                        }
                        publisher::Event::Closed(_) => {
                            // Its DELETE may have been lost; the channel's owner is patient but not for ever.
                            self.server.delete_channel(self.now, "c");
                        }
                        publisher::Event::Writable if self.work_at.is_none() => {
                            self.work_at = Some(self.now);
                        }
                        _ => {}
                    }
                }
                Output::Idle(wake) => return wake,
            }
        }
    }

    fn drain_subscriber(&mut self, who: usize) -> Option<Time> {
        loop {
            match self.subscribers[who - 1].poll_output() {
                Output::Effect(id, Effect::Http(out)) => {
                    self.note(|| format!("subscriber {who} {id:?} {out:?}"));
                    self.net.client_out(self.now, who, id, out);
                    let live = self.net.live(who);
                    assert!(
                        live <= 3,
                        "subscriber {who} has {:?} under way",
                        self.net.describe(who)
                    );
                }
                Output::Effect(..) => unreachable!("a subscriber asks for http only"),
                Output::Event(event) => {
                    let head = self
                        .server
                        .stats("c")
                        .map_or(u64::MAX / 2, |s| s.head.get());
                    self.model.subscriber_told(who, &event, head);
                }
                Output::Idle(wake) => return wake,
            }
        }
    }
}
