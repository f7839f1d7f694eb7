//! A large network as a session pool sees it: hundreds of orchestrators of every character, jobs that come and go,
//! partitions. One seed makes all of it.
//!
//! Only the pool is a real machine. Orchestrators are [`Peer`]s, which answer handshakes byte for byte but merely say
//! how a job ends; so ten thousand seeds take minutes. [`Network::run`] checks on the way what must hold at any
//! time, and its [`Report`] is for what must hold in the end.

mod peer;

pub use peer::{Answer, CEILING, Character, MODEL, Peer, Trouble};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::handshake::{Identity, Paying};
use livepeer_core::http::{Fault, In, Out, Trust, Url};
use livepeer_core::money::Price;
use livepeer_core::pool::{
    Attempts, Config, Event, Lease, MAX_HEDGE, Outcome, SessionPool, Tried, TryLimit,
};
use livepeer_core::selection::Balanced;
use livepeer_core::{
    Cause, Effect, EffectId, Failure, Input, Machine, Output, Party, Rng, Seed, Time, TrackRecord,
};

use crate::Agenda;

/// The time when every run begins.
pub const BEGINNING: Time = Time::from_secs(1_700_000_000);

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number of orchestrators.
    pub peers: usize,
    /// The number of orchestrators that are steady; the others are of any character.
    pub steady: usize,
    /// The percentage of the others that do well in handshakes and badly in jobs.
    pub mean: u64,
    /// The number of jobs.
    pub jobs: usize,
    /// The time within which the jobs come, a third of them at once.
    pub jobs_within: Duration,
    /// The limit on the tries of each job for finding an orchestrator, each time it needs one.
    pub try_limit: TryLimit,
    /// How the pool is set up.
    pub pool: Config,
}

impl Default for Scenario {
    fn default() -> Self {
        let mut pool = Config {
            ready: 4,
            in_flight: 8,
            share: 4,
            extra_nodes: 1,
            remember: true,
            ..Config::default()
        };
        pool.handshake.terms.paying = Paying::Remote;
        pool.handshake.terms.ceilings = Ceilings::of(Price::new(CEILING, 1).expect("a price"));
        Self {
            peers: 200,
            steady: 4,
            mean: 40,
            jobs: 12,
            jobs_within: Duration::from_secs(300),
            try_limit: TryLimit {
                tries: 30,
                per_orchestrator: 5,
                within: Some(Duration::from_secs(120)),
            },
            pool,
        }
    }
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Jobs that were done.
    pub done: usize,
    /// Jobs that gave up, with the last list of what was tried.
    pub given_up: Vec<Vec<Tried>>,
    /// Leases that failed.
    pub failed: usize,
    /// How long jobs waited for their first orchestrator, each.
    pub waits: Vec<Duration>,
    /// Orchestrators asked, in all.
    pub asked: usize,
    /// Suspensions.
    pub suspended: usize,
    /// The number of jobs of each steady orchestrator.
    pub steady_jobs: BTreeMap<Url, u32>,
}

#[derive(Debug)]
enum Job {
    /// Comes then, and works that long.
    Due(Time, Duration),
    Waiting(Waiting),
    Working(Box<Working>),
    Over,
}

#[derive(Debug)]
struct Waiting {
    since: Time,
    left: Duration,
    attempts: Attempts,
    first: bool,
    tried: Vec<Tried>,
}

#[derive(Debug)]
struct Working {
    lease: Lease,
    since: Time,
    left: Duration,
    /// When the job fails, and how, if it does.
    trouble: Option<(Time, Trouble)>,
    attempts: Attempts,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Network {
    scenario: Scenario,
    now: Time,
    rng: Rng,
    pool: SessionPool<Balanced>,
    peers: Vec<Peer>,
    /// Every address and transcoder of a peer.
    by_url: BTreeMap<Url, usize>,
    mail: Agenda<(EffectId, In)>,
    open: BTreeMap<EffectId, usize>,
    jobs: Vec<Job>,
    wake: Option<Time>,
    suspended: BTreeMap<Url, Time>,
    /// Partitions: from when until when which peers cannot be reached.
    partitions: Vec<(Time, Time, BTreeSet<usize>)>,
    stored: BTreeMap<String, Vec<u8>>,
    report: Report,
}

impl Network {
    /// A network, its jobs and its faults, from a seed.
    #[must_use]
    pub fn new(scenario: Scenario, seed: Seed) -> Self {
        let mut rng = Rng::new(seed);
        let now = BEGINNING;
        let wanted = Capabilities::live_video(MODEL).at_least("0.8.0");
        let pool = SessionPool::new(
            now,
            scenario.pool.clone(),
            Identity::Offchain,
            wanted,
            Balanced::default(),
            rng.fork(),
        );
        let end = now + scenario.jobs_within * 3;
        let mut places: BTreeSet<usize> = BTreeSet::new();
        while places.len() < scenario.steady.min(scenario.peers) {
            places.insert(rng.below(scenario.peers as u64) as usize);
        }
        let mut peers: Vec<Peer> = Vec::new();
        for n in 0..scenario.peers {
            let character = if places.contains(&n) {
                Character::Steady
            } else {
                let some: &[Character] = if rng.below(100) < scenario.mean {
                    &Character::MEAN
                } else {
                    &Character::ODD
                };
                some[rng.below(some.len() as u64) as usize]
            };
            let before = peers.last().map(|peer| peer.url.clone());
            let mut peer = Peer::new(n, character, before.as_ref(), &mut rng);
            if character == Character::Churning {
                peer.churn(now, end, &mut rng);
            }
            peers.push(peer);
        }
        let by_url = peers
            .iter()
            .enumerate()
            .map(|(n, peer)| (peer.url.clone(), n))
            .collect();
        // Partitions take anybody but the steady ones: these are what makes a job possible.
        let partitions = (0..rng.below(4))
            .map(|_| {
                let from = now + scenario.jobs_within.mul_f64(rng.below(100) as f64 / 100.0);
                let until = from + Duration::from_secs(5 + rng.below(60));
                let odd = (0..scenario.peers).filter(|n| !places.contains(n));
                (from, until, odd.filter(|_| rng.below(2) == 0).collect())
            })
            .collect();
        let jobs = (0..scenario.jobs)
            .map(|_| {
                let at = match rng.below(3) {
                    0 => 0,
                    _ => rng.below(scenario.jobs_within.as_millis() as u64),
                };
                let works = 1 + rng.below(60);
                Job::Due(now + Duration::from_millis(at), Duration::from_secs(works))
            })
            .collect();
        let mut this = Self {
            scenario,
            now,
            rng,
            pool,
            peers,
            by_url,
            mail: Agenda::default(),
            open: BTreeMap::new(),
            jobs,
            wake: None,
            suspended: BTreeMap::new(),
            partitions,
            stored: BTreeMap::new(),
            report: Report::default(),
        };
        let mut all: Vec<Url> = this.peers.iter().map(|peer| peer.url.clone()).collect();
        // Discovery has them in any order.
        for at in (1..all.len()).rev() {
            all.swap(at, this.rng.below(at as u64 + 1) as usize);
        }
        this.pool.offer(now, all);
        this.drain();
        this
    }

    /// Runs until every job is over, and a while longer.
    ///
    /// # Panics
    /// If anything breaks that must hold at any time, or a job hangs.
    pub fn run(mut self) -> Report {
        let search = self.scenario.try_limit.within.unwrap_or_default();
        // Every swap of a job gives it as many tries again.
        let latest =
            BEGINNING + self.scenario.jobs_within + (search + Duration::from_secs(90)) * 40;
        while self.jobs.iter().any(|job| !matches!(job, Job::Over)) {
            assert!(self.step(), "a job hangs: nothing more happens");
            assert!(self.now < latest, "a job hangs: {:?}", self.jobs);
        }
        assert_eq!(self.pool.lent(), 0, "every lease came home");
        // Idle sessions stay fresh, and nothing runs away.
        let end = self.now + Duration::from_secs(600);
        let before = self.report.asked;
        while self.next().is_some_and(|at| at <= end) {
            self.step();
        }
        let most = self.peers.len() * 100;
        assert!(
            self.report.asked - before < most,
            "an idle pool asks and asks"
        );
        self.check_stored();
        self.report
    }

    fn next(&self) -> Option<Time> {
        let mail = self.mail.next();
        let jobs = self.jobs.iter().filter_map(|job| self.due(job)).min();
        [mail, jobs, self.wake].into_iter().flatten().min()
    }

    fn due(&self, job: &Job) -> Option<Time> {
        match job {
            Job::Due(at, _) => Some(*at),
            // It looks again each second, as a caller with a deadline would.
            Job::Waiting(_) => Some(self.now + Duration::from_secs(1)),
            Job::Working(job) => {
                let done = job.since + job.left;
                Some(job.trouble.map_or(done, |(at, _)| at.min(done)))
            }
            Job::Over => None,
        }
    }

    /// The next thing that happens. False if nothing will.
    fn step(&mut self) -> bool {
        let Some(next) = self.next() else {
            return false;
        };
        self.now = self.now.max(next);
        if self.mail.next().is_some_and(|at| at <= self.now) {
            let (id, step) = self.mail.pop().expect("it was just seen");
            if self.open.contains_key(&id) {
                if matches!(step, In::End(_) | In::Failed(_)) {
                    self.open.remove(&id);
                }
                self.pool.handle_input(self.now, Input::Http(id, step));
                self.drain();
            }
        } else if self.wake.is_some_and(|wake| wake <= self.now) {
            self.pool.handle_input(self.now, Input::Tick);
            self.drain();
        }
        self.work();
        true
    }

    fn work(&mut self) {
        for at in 0..self.jobs.len() {
            let due = self.due(&self.jobs[at]).is_some_and(|due| due <= self.now);
            let job = std::mem::replace(&mut self.jobs[at], Job::Over);
            self.jobs[at] = match job {
                Job::Due(_, left) if due => self.seek(Waiting {
                    since: self.now,
                    left,
                    attempts: Attempts::new(self.scenario.try_limit),
                    first: true,
                    tried: Vec::new(),
                }),
                Job::Waiting(waiting) => self.seek(waiting),
                Job::Working(working) if due => self.finish(*working),
                other => other,
            };
        }
        let working = self
            .jobs
            .iter()
            .filter(|job| matches!(job, Job::Working(_)));
        assert_eq!(
            working.count(),
            self.pool.lent(),
            "leases out are jobs running"
        );
    }

    fn seek(&mut self, mut waiting: Waiting) -> Job {
        let within = self.scenario.try_limit.within.unwrap_or(Duration::MAX);
        let lease = self.pool.take(self.now);
        self.drain();
        let Some(lease) = lease else {
            waiting.tried = self.pool.tried();
            if self.now.since(waiting.since) >= within {
                self.report.given_up.push(waiting.tried);
                return Job::Over;
            }
            return Job::Waiting(waiting);
        };
        self.check_lease(&lease);
        if waiting.attempts.begin(self.now, lease.url()).is_err() {
            self.give_back(lease, Outcome::Unused);
            self.report.given_up.push(self.pool.tried());
            return Job::Over;
        }
        let n = self.by_url[lease.url()];
        let params = lease
            .info
            .ticket_params
            .as_ref()
            .expect("it was just looked at");
        let refused = self.peers[n].till.begin(params.recipient_rand_hash);
        assert!(!refused, "{} gets the nonces of another job", lease.url());
        if waiting.first {
            self.report.waits.push(self.now.since(waiting.since));
        }
        let steady = self.peers[n].character == Character::Steady;
        if steady {
            *self
                .report
                .steady_jobs
                .entry(lease.url().clone())
                .or_insert(0) += 1;
        }
        let trouble = if self.is_reachable(n) {
            self.peers[n].work(&mut self.rng).err()
        } else {
            Some((Duration::from_millis(200), Trouble::Broken))
        };
        let leaves = self.leaves(n, self.now + waiting.left);
        let trouble = trouble
            .map(|(after, trouble)| (self.now + after, trouble))
            .or(leaves);
        Job::Working(Box::new(Working {
            lease,
            since: self.now,
            left: waiting.left,
            trouble,
            attempts: waiting.attempts,
        }))
    }

    /// The time when a peer goes away before `end`, if it does.
    fn leaves(&self, n: usize, end: Time) -> Option<(Time, Trouble)> {
        let mut at = self.now;
        while at < end {
            if !self.peers[n].is_there(at) || self.is_parted(n, at) {
                return Some((at + Duration::from_secs(1), Trouble::Broken));
            }
            at = at + Duration::from_secs(1);
        }
        None
    }

    fn finish(&mut self, working: Working) -> Job {
        let Working {
            lease,
            since,
            left,
            trouble,
            attempts,
        } = working;
        let Some((at, trouble)) = trouble.filter(|(at, _)| *at < since + left) else {
            let first_byte = Some(lease.latency() * 2);
            self.give_back(lease, Outcome::Done { first_byte });
            self.report.done += 1;
            return Job::Over;
        };
        self.report.failed += 1;
        let outcome = match trouble {
            Trouble::Broken => Outcome::Failed(Failure::new(
                Party::Orchestrator(lease.url().clone()),
                Cause::Gone("the job"),
            )),
            Trouble::Full => Outcome::Full,
            Trouble::TooDear => Outcome::TooDear,
        };
        self.give_back(lease, outcome);
        // A job that ran for a while has earned as many tries again.
        let worked = at.since(since);
        let attempts = if worked > Duration::from_secs(10) {
            Attempts::new(self.scenario.try_limit)
        } else {
            attempts
        };
        self.seek(Waiting {
            since: self.now,
            left: left.saturating_sub(worked),
            attempts,
            first: false,
            tried: Vec::new(),
        })
    }

    fn give_back(&mut self, lease: Lease, outcome: Outcome) {
        self.pool.give_back(self.now, lease, outcome);
        self.drain();
    }

    fn check_lease(&self, lease: &Lease) {
        let n = self.by_url[lease.url()];
        let suspended = |url: &Url| {
            self.suspended
                .get(url)
                .is_some_and(|until| *until > self.now)
        };
        assert!(!suspended(lease.url()), "{} is suspended", lease.url());
        assert!(
            !suspended(&self.peers[n].url),
            "{} is suspended",
            self.peers[n].url
        );
        let price = lease.info.price.expect("who is paid has a price");
        assert!(
            price <= Price::new(CEILING, 1).expect("a price"),
            "{price} is too dear"
        );
        assert!(lease.info.ticket_params.is_some() && lease.info.auth_token.is_some());
        let token = lease
            .info
            .auth_token
            .as_ref()
            .expect("it was just looked at");
        if self.peers[n].character != Character::Skewed {
            let left = token.expiration.since(self.now);
            assert!(
                left >= Duration::from_secs(180),
                "a token with {left:?} left is lent"
            );
        }
        let never = [
            Character::Dead,
            Character::Silent,
            Character::Incapable,
            Character::Old,
            Character::Dear,
            Character::Stranger,
            Character::Garbled,
            Character::Flooding,
        ];
        // Another may have led there.
        let named = self
            .peers
            .get(n + 1)
            .is_some_and(|next| next.character == Character::Alias);
        let character = self.peers[n].character;
        assert!(named || !never.contains(&character), "{:?}", self.peers[n]);
    }

    fn check_stored(&self) {
        let mut records: BTreeMap<String, &TrackRecord> = BTreeMap::new();
        for (url, record) in self.pool.records() {
            records.insert(format!("{}{url}", livepeer_core::pool::RECORD_KEY), record);
        }
        for (key, value) in &self.stored {
            let read =
                livepeer_core::wire::read_track_record(value).expect("what was stored is read");
            let known = records
                .get(key)
                .expect("records are of orchestrators that are known");
            assert_eq!((read.good, read.bad), (known.good, known.bad), "{key}");
        }
    }

    fn is_reachable(&self, n: usize) -> bool {
        self.peers[n].is_there(self.now) && !self.is_parted(n, self.now)
    }

    fn is_parted(&self, n: usize, at: Time) -> bool {
        self.partitions
            .iter()
            .any(|(from, until, who)| (*from..*until).contains(&at) && who.contains(&n))
    }

    fn drain(&mut self) {
        loop {
            match self.pool.poll_output() {
                Output::Effect(id, Effect::Http(Out::Request(request))) => {
                    let afresh = request.trust == Trust::Afresh;
                    self.serve(id, &request.url.with_path("/"), afresh);
                }
                Output::Effect(id, Effect::Http(Out::Abort)) => {
                    self.open.remove(&id);
                }
                Output::Effect(id, Effect::Store(record)) => {
                    let value = record.value.expect("records are kept, not forgotten");
                    self.stored.insert(record.key, value.to_vec());
                    self.pool.handle_input(self.now, Input::Stored(id, Ok(())));
                }
                Output::Effect(_, other) => panic!("{other:?}"),
                Output::Event(event) => self.on_event(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "woken in the past");
                    self.wake = wake;
                    break;
                }
            }
        }
        let most = self.scenario.pool.in_flight * MAX_HEDGE + self.pool.ready() + self.pool.lent();
        assert!(
            self.open.len() <= most + self.scenario.peers / 4,
            "too many at once"
        );
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Suspended(url, until) => {
                assert!(until > self.now);
                let most = self.scenario.pool.max_penalty;
                assert!(until <= self.now + most, "no penalty without a bound");
                self.report.suspended += 1;
                self.suspended.insert(url, until);
            }
            Event::Exhausted(tried) => {
                assert!(!tried.is_empty(), "what was tried is told");
                for tried in tried {
                    assert!(!tried.to_string().is_empty());
                }
            }
            Event::NoIdentity(failure) => panic!("{failure}"),
            _ => {}
        }
    }

    fn serve(&mut self, id: EffectId, url: &Url, afresh: bool) {
        self.report.asked += 1;
        let Some(n) = self.by_url.get(url).copied() else {
            panic!("{url} was never offered nor named");
        };
        self.open.insert(id, n);
        let before = n.checked_sub(1).map(|n| self.peers[n].url.clone());
        let (now, parted) = (self.now, self.is_parted(n, self.now));
        let answer = if parted {
            let fault = Fault::Broken("the network is parted".into());
            Some((Duration::from_millis(50), vec![In::Failed(fault)]))
        } else {
            self.peers[n].answer(now, afresh, before.as_ref(), &mut self.rng)
        };
        let Some((after, steps)) = answer else {
            return;
        };
        for step in steps {
            self.mail.enter(self.now + after, (id, step));
        }
    }
}
