//! Jobs in containers and rented apps at orchestrators that die, come back, lose connections, forget what they said and
//! keep places: each job and each call ends once, none is handed to a second program without leave, nothing is counted on
//! that was not paid, and whatever is paid by the second has an end.
//!
//! `PROGRAM_SEEDS=10000` plays that many worlds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::job::app::{self, Call, Rental, Use, Wanted};
use livepeer_core::job::byoc::{self, Byoc, Failed, JobId, Left, Order};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::Unit;
use livepeer_core::wire::byoc::{Grounds, JobRequest};
use livepeer_core::wire::runner::Mode;
use livepeer_core::{Rng, Time};
use livepeer_orchestrator::{
    App, AppPrice, Config, Container, Event, Orchestrator, Payments, Quirks, Surface, Tempo, Worker,
};
use livepeer_sim::programs::Programs;
use livepeer_sim::world::Payee;
use livepeer_sim::{Agenda, Faults, Key, World, seeds};

use crate::jobs::service;
use crate::stage::secs;

const ORCHESTRATORS: usize = 4;

/// Jobs, and rentals, of a world.
const ORDERS: u64 = 6;

/// The container's name.
const CONTAINER: &str = "echo";

/// The time after which everything that was begun is over.
const PATIENCE: Duration = secs(1_500);

/// Things that happen.
enum Due {
    Job,
    Rent,
    /// The n-th rental is closed, or the n-th job is nobody's.
    Close(usize),
    Cancel(JobId),
    /// The n-th orchestrator cannot be reached, or can again.
    Leaves(usize),
    Returns(usize),
    /// The n-th orchestrator dies, and one without a memory takes its place.
    Dies(usize),
    /// Every connection to the n-th orchestrator breaks.
    Cut(usize),
}

/// A job as it was ordered.
struct Ordered {
    body: Bytes,
    may_repeat: bool,
    stream: bool,
    cancelled: bool,
}

/// A rental as it was wanted; `None` is a session.
struct Wish(Option<(Bytes, bool)>);

struct Play {
    dice: Rng,
    world: World,
    programs: Programs,
    payee: Payee,
    calm: bool,
    agenda: Agenda<Due>,
    ordered: BTreeMap<JobId, Ordered>,
    wishes: Vec<Wish>,
    /// Whether somebody in between may answer in the place of an orchestrator.
    deaf: bool,
}

fn quirks(dice: &mut Rng) -> Quirks {
    let mut quirks = Quirks::default();
    match dice.below(12) {
        0 => quirks.silent = true,
        1 => quirks.leaky_places = true,
        2 => quirks.refuse_payments = Some((400, "TicketParams expired".to_owned())),
        3 => quirks.delay = Duration::from_millis(dice.below(700)),
        4 => quirks.hide_credit = Some(502),
        5 => quirks.price_jump = Some((3, 2)),
        _ => {}
    }
    quirks.flood = dice.below(3) == 0;
    quirks.flat_status = dice.below(2) == 0;
    quirks
}

fn config(n: usize, payee: Payee, quirks: Quirks, dice: &mut Rng) -> Config {
    let at = service(n);
    let key = Key::named(&at.authority());
    let mut config = Config::new(at, key.address());
    if payee != Payee::Nobody {
        let price = Price::new(10, 1).expect("a price");
        config = config.on_chain(Payments::new(
            key.address(),
            price,
            ChainView::development(),
        ));
    }
    config.quirks = quirks;
    let tempo = Tempo {
        takes: Duration::from_millis(dice.below(600)),
        pace: Duration::from_millis(1 + dice.below(40)),
    };
    let container = Container {
        price: Price::new(100_000_000, 1).expect("a price"),
        capacity: 1 + dice.below(8) as u32,
        ..Container::new(Worker::Echo(tempo))
    };
    let app = |mode, wei, unit| App {
        price: Some(AppPrice { wei, unit }),
        ..App::new("x/y", mode, Worker::Echo(tempo))
    };
    config
        .with_container(CONTAINER, container)
        .with_app("shot", app(Mode::SingleShot, 3_000_000_000, Unit::Fixed))
        .with_app("timed", app(Mode::SingleShot, 200_000_000, Unit::Seconds))
        .with_app("session", app(Mode::Persistent, 200_000_000, Unit::Seconds))
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut dice = Rng::new(seeds::seed(seed));
        let payee = [Payee::Nobody, Payee::OwnKey][dice.below(2) as usize];
        let calm = dice.below(5) == 0;
        let configs = (0..ORCHESTRATORS).map(|n| {
            let quirks = if calm {
                Quirks::default()
            } else {
                quirks(&mut dice)
            };
            config(n, payee, quirks, &mut dice)
        });
        let mut world = World::new(seeds::seed(seed), configs.collect());
        world.net.trace = seeds::alone("PROGRAM").is_some();
        for n in 0..ORCHESTRATORS {
            let link = world.net.link(&service(n).authority());
            link.latency = Duration::from_millis(1 + dice.below(20));
            link.jitter = Duration::from_millis(dice.below(10));
        }
        if !calm && dice.below(2) == 0 {
            world.net.faults = Faults {
                budget: 1 + dice.below(6) as u32,
                cut: 10,
                stall: 10,
                stall_most: secs(8),
                hole: 5,
                deaf: 10,
                ..Faults::default()
            };
        }
        let deaf = world.net.faults.deaf > 0;
        let programs = world.programs(byoc::Config::default(), CONTAINER, payee);
        let mut play = Self {
            dice,
            world,
            programs,
            payee,
            calm,
            agenda: Agenda::default(),
            ordered: BTreeMap::new(),
            wishes: Vec::new(),
            deaf,
        };
        play.plan();
        play
    }

    fn later(&mut self, within: u64, what: Due) {
        let at = self.world.net.now() + Duration::from_millis(self.dice.below(within));
        self.agenda.enter(at, what);
    }

    fn plan(&mut self) {
        for _ in 0..ORDERS {
            self.later(4_000, Due::Job);
            self.later(4_000, Due::Rent);
        }
        if self.calm {
            return;
        }
        for _ in 0..self.dice.below(5) {
            let n = self.dice.below(ORCHESTRATORS as u64) as usize;
            match self.dice.below(3) {
                0 => {
                    self.later(5_000, Due::Leaves(n));
                    self.later(12_000, Due::Returns(n));
                }
                1 => self.later(5_000, Due::Dies(n)),
                _ => self.later(5_000, Due::Cut(n)),
            }
        }
    }

    fn happen(&mut self, what: Due) {
        let authority = |n| service(n).authority();
        match what {
            Due::Job => self.order(),
            Due::Rent => self.rent(),
            Due::Close(n) => {
                let rental = self.programs.rentals[n];
                self.world.net.with(rental, Rental::close);
            }
            Due::Cancel(id) => {
                if let Some(ordered) = self.ordered.get_mut(&id) {
                    ordered.cancelled = true;
                }
                let byoc = self.programs.byoc;
                self.world.net.with(byoc, |byoc, now| byoc.cancel(now, id));
            }
            Due::Leaves(n) => {
                self.world.net.link(&authority(n)).down = true;
                self.world.net.cut(&authority(n));
            }
            Due::Returns(n) => self.world.net.link(&authority(n)).down = false,
            Due::Dies(n) => self.die(n),
            Due::Cut(n) => self.world.net.cut(&authority(n)),
        }
    }

    fn die(&mut self, n: usize) {
        let now = self.world.net.now();
        let config = config(n, self.payee, Quirks::default(), &mut self.dice);
        let node = self.world.orchestrators[n];
        // What it told before it died happened all the same.
        let told = self
            .world
            .net
            .events(node)
            .into_iter()
            .map(|event| (n, event));
        self.world.told.extend(told);
        let another = Orchestrator::new(now, config, self.dice.fork());
        self.world.net.restart(node, another);
    }

    /// A body that no other order has.
    fn body(&mut self, what: &str, n: usize) -> Bytes {
        let words = "word ".repeat(1 + self.dice.below(40) as usize);
        format!(r#"{{"{what}":{n},"text":"{}"}}"#, words.trim_end()).into()
    }

    fn order(&mut self) {
        let body = self.body("job", self.ordered.len());
        let (stream, silent) = (self.dice.below(2) == 0, self.dice.below(6) == 0);
        let path = match (silent, stream) {
            (true, _) => "/silent",
            (false, true) => "/events",
            (false, false) => "/x",
        };
        let may_repeat = self.dice.below(4) == 0;
        let job = JobRequest {
            request: "{}".to_owned(),
            capability: CONTAINER.to_owned(),
            timeout_seconds: 4 + self.dice.below(4) as u32,
            ..JobRequest::default()
        };
        let order = Order {
            path: path.to_owned(),
            content_type: "application/json".to_owned(),
            body: body.clone(),
            may_repeat,
            ..Order::new(job)
        };
        let id = self.programs.submit(&mut self.world.net, order);
        let ordered = Ordered {
            body,
            may_repeat,
            stream: stream && !silent,
            cancelled: false,
        };
        self.ordered.insert(id, ordered);
        if !self.calm && self.dice.below(6) == 0 {
            self.later(1_500, Due::Cancel(id));
        }
    }

    fn rent(&mut self) {
        let n = self.wishes.len();
        let wish = match self.dice.below(3) {
            0 => None,
            _ => Some((self.body("call", n), self.dice.below(4) == 0)),
        };
        let plan = match &wish {
            None => Use::Session,
            Some((body, may_repeat)) => {
                let path = if self.dice.below(2) == 0 {
                    "events"
                } else {
                    "x"
                };
                Use::Call(Call {
                    may_repeat: *may_repeat,
                    ..Call::post(path.to_owned(), body.clone())
                })
            }
        };
        let wanted = Wanted {
            apps: vec!["x/y".to_owned()],
            ..Wanted::default()
        };
        let config = app::Config {
            head_within: secs(20),
            silence: secs(20),
            ..app::Config::default()
        };
        self.world.rent(&mut self.programs, config, wanted, plan);
        // Somebody leaves early, and every session has an end.
        if wish.is_none() {
            self.later(60_000, Due::Close(n));
        } else if !self.calm && self.dice.below(6) == 0 {
            self.later(1_500, Due::Close(n));
        }
        self.wishes.push(Wish(wish));
    }

    fn is_over(&self) -> bool {
        let job = |(id, ordered): (&JobId, &Ordered)| {
            ordered.cancelled
                || self
                    .programs
                    .jobs
                    .get(id)
                    .is_some_and(|log| log.ended.is_some())
        };
        self.agenda.next().is_none()
            && self.ordered.iter().all(job)
            && self.programs.rented.iter().all(|log| log.ended.is_some())
    }

    fn pass(&mut self, end: Time) -> bool {
        let next = self.agenda.next().map_or(end, |at| at.min(end));
        if self.world.pass_programs(&mut self.programs, next) {
            return true;
        }
        if self.agenda.next().is_none_or(|at| at > next) {
            return false;
        }
        let what = self.agenda.pop().expect("it was just seen");
        self.happen(what);
        true
    }

    fn run(&mut self) {
        let end = self.world.net.now() + PATIENCE;
        while !self.is_over() {
            assert!(
                self.pass(end),
                "everything ends: {:?}",
                self.programs.rented
            );
        }
        // Whatever is metered runs dry, if it was not stopped.
        let end = self.world.net.now() + secs(400);
        while self.pass(end) {}
    }

    fn check(&self) {
        self.check_runs();
        self.check_answers();
        self.check_money();
        self.check_places();
    }

    /// No program is asked a second time without leave.
    fn check_runs(&self) {
        let mut runs: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for (_, event) in &self.world.told {
            if let Event::HandedOn { body, .. } = event {
                *runs.entry(body).or_default() += 1;
            }
        }
        // Somebody in between who says that he waited too long for the request is believed (jobs spec 4.3); of a job that
        // was cancelled nobody is told whether somebody did.
        let believed = Left::Refused(Grounds::Status(408));
        let jobs = self.ordered.iter().map(|(id, ordered)| {
            let again = self.programs.jobs[id].left.contains(&believed);
            let again = again || ordered.cancelled && self.deaf;
            (&ordered.body, ordered.may_repeat || again)
        });
        let calls = self.wishes.iter().filter_map(|wish| wish.0.as_ref());
        for (body, may_repeat) in jobs.chain(calls.map(|(body, may)| (body, *may))) {
            let ran = runs.get(body).copied().unwrap_or(0);
            assert!(ran <= 1 || may_repeat, "{body:?} was asked for {ran} times");
        }
    }

    /// An answer is that of the program, whole and once.
    fn check_answers(&self) {
        for (id, ordered) in &self.ordered {
            let log = &self.programs.jobs[id];
            match &log.ended {
                None => assert!(ordered.cancelled),
                Some(Ok(body)) if !ordered.stream => assert_eq!(body, &ordered.body),
                Some(Ok(_)) => is_whole(&log.stream, &ordered.body),
                Some(Err(Failed::Ours(failure))) => panic!("our own side did nothing: {failure}"),
                Some(Err(_)) => {}
            }
        }
        for (log, wish) in self.programs.rented.iter().zip(&self.wishes) {
            let Some((body, _)) = &wish.0 else {
                assert!(!log.reserved || log.body.is_empty());
                continue;
            };
            if let (Some(app::Event::Done), Some(200)) = (&log.ended, log.status) {
                let echoed = log.body == body[..];
                if !echoed {
                    is_whole(&log.body, body);
                }
            }
        }
    }

    /// Every wei that we count on was paid. How much of it is left only the orchestrator knows, until it says so: it charges
    /// also for work whose answer was lost.
    fn check_money(&self) {
        let byoc: &Byoc = self.world.net.get(self.programs.byoc);
        for n in 0..ORCHESTRATORS {
            let Some(payments) = byoc.payments(&service(n)) else {
                continue;
            };
            let ours = payments.balance().cloned().unwrap_or_default();
            let mut paid = Amount::zero();
            for (of, event) in &self.world.told {
                match event {
                    Event::Credited {
                        manifest_id, value, ..
                    } if *of == n && manifest_id == CONTAINER => {
                        paid += value;
                    }
                    _ => {}
                }
            }
            assert!(ours <= paid, "{n}: we count on {ours}, and paid {paid}");
        }
    }

    /// Sessions that are paid have an end, and a call's place is free again.
    fn check_places(&self) {
        for (n, node) in self.world.orchestrators.iter().enumerate() {
            let orch = self.world.net.get(*node);
            for (runner, session) in orch.rented() {
                // A free session whose answer was lost has no name, and so no end.
                let nameless = runner == "session" && self.payee == Payee::Nobody && !self.calm;
                assert!(nameless, "{n}: {runner} still has {session}");
            }
        }
    }
}

/// A stream has every word of a body once, in their order.
fn is_whole(stream: &[u8], body: &[u8]) {
    let text = String::from_utf8_lossy(stream);
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let words = body["text"].as_str().expect("text").split_whitespace();
    let expected: Vec<_> = words
        .enumerate()
        .map(|(n, word)| (n as u64, word.to_owned()))
        .collect();
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok());
    let told: Vec<_> = events
        .filter_map(|event| Some((event["n"].as_u64()?, event["text"].as_str()?.to_owned())))
        .collect();
    assert_eq!(told, expected);
    assert!(text.trim_end().ends_with("[DONE]"), "{text}");
}

#[test]
fn no_job_and_no_call_is_done_or_paid_twice_without_leave() {
    let seeds = seeds::wanted("PROGRAM", &[], 60);
    let ends = seeds::play("PROGRAM", &seeds, |seed| {
        let mut play = Play::new(seed);
        play.run();
        play.check();
        let jobs = play
            .programs
            .jobs
            .values()
            .filter(|log| matches!(log.ended, Some(Ok(_))));
        let used = |surface| {
            let handed = |event: &Event| matches!(event, Event::HandedOn { surface: of, .. } if *of == surface);
            play.world.told.iter().any(|(_, event)| handed(event))
        };
        let both = used(Surface::Container) && used(Surface::App);
        (jobs.count(), play.calm.then_some(both))
    });
    let done: usize = ends.iter().map(|(done, _)| done).sum();
    assert!(done > seeds.len(), "most jobs are done: {done}");
    assert!(seeds.len() < 10 || ends.iter().any(|(_, both)| *both == Some(true)));
}
