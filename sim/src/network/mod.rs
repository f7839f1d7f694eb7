//! A large network as a session pool sees it: hundreds of orchestrators of every character, jobs that come and go,
//! partitions. One seed makes all of it.
//!
//! Only the pool is a machine of ours. Orchestrators are [`Peer`]s, which answer handshakes byte for byte but merely say
//! how a job ends; so ten thousand seeds take minutes. [`Network::run`] checks on the way what must hold at any
//! time, and its [`Report`] is for what must hold in the end.

mod peer;

pub use peer::{CEILING, Character, MODEL, Peer, Trouble};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::handshake::{Identity, Paying};
use livepeer_core::http::Url;
use livepeer_core::machine::earlier;
use livepeer_core::money::Price;
use livepeer_core::pool::{
    Attempts, Config, Event, Lease, MAX_HEDGE, Outcome, SessionPool, Tried, TryLimit,
};
use livepeer_core::selection::Balanced;
use livepeer_core::{Cause, Failure, Party, Rng, Seed, Time, TrackRecord};

use crate::{Agenda, Net, Node};

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
pub struct Network {
    scenario: Scenario,
    net: Net,
    pool: Node<SessionPool<Balanced>>,
    peers: Vec<Node<Peer>>,
    /// Every address and transcoder of a peer.
    by_url: BTreeMap<Url, usize>,
    jobs: Vec<Job>,
    suspended: BTreeMap<Url, Time>,
    /// Partitions: from when until when which peers cannot be reached.
    partitions: Vec<(Time, Time, BTreeSet<usize>)>,
    /// The peers that go away, come back or restart, each at its time.
    turns: Agenda<usize>,
    report: Report,
}

impl Network {
    /// A network, its jobs and its faults, from a seed.
    #[must_use]
    pub fn new(scenario: Scenario, seed: Seed) -> Self {
        let mut rng = Rng::new(seed);
        let now = BEGINNING;
        let mut net = Net::new(now, rng.fork());
        let wanted = Capabilities::live_video(MODEL).at_least("0.8.0");
        let pool = net.add(SessionPool::new(
            now,
            scenario.pool.clone(),
            Identity::Offchain,
            wanted,
            Balanced::default(),
            rng.fork(),
        ));
        let end = now + scenario.jobs_within * 3;
        let mut places: BTreeSet<usize> = BTreeSet::new();
        while places.len() < scenario.steady.min(scenario.peers) {
            places.insert(rng.below(scenario.peers as u64) as usize);
        }
        let mut turns = Agenda::default();
        let (mut peers, mut urls): (Vec<Node<Peer>>, Vec<Url>) = (Vec::new(), Vec::new());
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
            let mut peer = Peer::new(n, character, urls.last(), &mut rng);
            peer.plan(now, end, &mut rng);
            for at in &peer.turns {
                turns.enter(*at, n);
            }
            urls.push(peer.url.clone());
            let authority = peer.url.authority();
            net.link(&authority).latency = peer.latency / 2;
            peers.push(match character {
                Character::Dead => net.add(peer),
                _ => net.serve(&authority, peer),
            });
        }
        let by_url = urls.iter().cloned().zip(0..).collect();
        // Partitions take anybody but the steady ones: these are what makes a job possible.
        let mut partitions: Vec<(Time, Time, BTreeSet<usize>)> = Vec::new();
        for _ in 0..rng.below(4) {
            let from = now + scenario.jobs_within.mul_f64(rng.below(100) as f64 / 100.0);
            let until = from + Duration::from_secs(5 + rng.below(60));
            let odd = (0..scenario.peers).filter(|n| !places.contains(n));
            let who: BTreeSet<usize> = odd.filter(|_| rng.below(2) == 0).collect();
            for n in &who {
                turns.enter(from, *n);
                turns.enter(until, *n);
            }
            partitions.push((from, until, who));
        }
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
        // Discovery has them in any order.
        for at in (1..urls.len()).rev() {
            urls.swap(at, rng.below(at as u64 + 1) as usize);
        }
        net.with(pool, |pool, now| pool.offer(now, urls));
        Self {
            scenario,
            net,
            pool,
            peers,
            by_url,
            jobs,
            suspended: BTreeMap::new(),
            partitions,
            turns,
            report: Report::default(),
        }
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
            assert!(self.step(latest), "a job hangs: {:?}", self.jobs);
        }
        assert_eq!(self.pool().lent(), 0, "every lease came home");
        // Idle sessions stay fresh, and nothing runs away.
        let end = self.net.now() + Duration::from_secs(600);
        let before = self.net.opened();
        while self.step(end) {}
        let most = self.peers.len() as u64 * 100;
        assert!(
            self.net.opened() - before < most,
            "an idle pool asks and asks"
        );
        self.check_stored();
        self.report
    }

    fn pool(&self) -> &SessionPool<Balanced> {
        self.net.get(self.pool)
    }

    fn peer(&self, n: usize) -> &Peer {
        self.net.get(self.peers[n])
    }

    fn due(&self, job: &Job) -> Option<Time> {
        match job {
            Job::Due(at, _) => Some(*at),
            // It looks again each second, as a caller with a deadline would.
            Job::Waiting(_) => Some(self.net.now() + Duration::from_secs(1)),
            Job::Working(job) => {
                let done = job.since + job.left;
                Some(job.trouble.map_or(done, |(at, _)| at.min(done)))
            }
            Job::Over => None,
        }
    }

    /// The next thing that happens up to `end`. False if nothing does.
    fn step(&mut self, end: Time) -> bool {
        let jobs = self.jobs.iter().filter_map(|job| self.due(job)).min();
        let next = earlier(jobs, self.turns.next()).filter(|next| *next <= end);
        if !self.net.step(next.unwrap_or(end)) {
            let Some(next) = next else {
                return false;
            };
            self.net.run_until(next);
        }
        while self.turns.next().is_some_and(|at| at <= self.net.now()) {
            if let Some(n) = self.turns.pop() {
                self.turn(n);
            }
        }
        self.listen();
        self.work();
        true
    }

    /// A peer goes away, comes back or restarts.
    fn turn(&mut self, n: usize) {
        let (now, there) = (self.net.now(), self.is_reachable(n));
        let (url, restarts) = (self.peer(n).url.clone(), self.peer(n).restarts());
        let link = self.net.link(&url.authority());
        link.down = !there;
        if restarts {
            link.certificate = link.certificate.wrapping_add(1);
        }
        if there {
            return;
        }
        self.net.cut(&url.authority());
        for job in &mut self.jobs {
            if let Job::Working(job) = job
                && *job.lease.url() == url
            {
                let gone = (now + Duration::from_secs(1), Trouble::Broken);
                let before = job.trouble.filter(|(at, _)| *at <= gone.0);
                job.trouble = before.or(Some(gone));
            }
        }
    }

    fn work(&mut self) {
        for at in 0..self.jobs.len() {
            let due = self
                .due(&self.jobs[at])
                .is_some_and(|due| due <= self.net.now());
            let job = std::mem::replace(&mut self.jobs[at], Job::Over);
            self.jobs[at] = match job {
                Job::Due(_, left) if due => self.seek(Waiting {
                    since: self.net.now(),
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
            self.pool().lent(),
            "leases out are jobs running"
        );
    }

    fn seek(&mut self, mut waiting: Waiting) -> Job {
        let within = self.scenario.try_limit.within.unwrap_or(Duration::MAX);
        let lease = self.net.with(self.pool, |pool, now| pool.take(now));
        self.listen();
        let Some(lease) = lease else {
            waiting.tried = self.pool().tried();
            if self.net.now().since(waiting.since) >= within {
                self.report.given_up.push(waiting.tried);
                return Job::Over;
            }
            return Job::Waiting(waiting);
        };
        self.check_lease(&lease);
        if waiting.attempts.begin(self.net.now(), lease.url()).is_err() {
            self.give_back(lease, Outcome::Unused);
            self.report.given_up.push(self.pool().tried());
            return Job::Over;
        }
        let n = self.by_url[lease.url()];
        let params = lease
            .info
            .ticket_params
            .as_ref()
            .expect("it was just looked at");
        let hash = params.recipient_rand_hash;
        let refused = self
            .net
            .with(self.peers[n], |peer, _| peer.till.begin(hash));
        assert!(!refused, "{} gets the nonces of another job", lease.url());
        if waiting.first {
            self.report.waits.push(self.net.now().since(waiting.since));
        }
        if self.peer(n).character == Character::Steady {
            let url = lease.url().clone();
            *self.report.steady_jobs.entry(url).or_insert(0) += 1;
        }
        let trouble = if self.is_reachable(n) {
            self.net.with(self.peers[n], |peer, _| peer.work()).err()
        } else {
            Some((Duration::from_millis(200), Trouble::Broken))
        };
        let trouble = trouble.map(|(after, trouble)| (self.net.now() + after, trouble));
        Job::Working(Box::new(Working {
            lease,
            since: self.net.now(),
            left: waiting.left,
            trouble,
            attempts: waiting.attempts,
        }))
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
            since: self.net.now(),
            left: left.saturating_sub(worked),
            attempts,
            first: false,
            tried: Vec::new(),
        })
    }

    fn give_back(&mut self, lease: Lease, outcome: Outcome) {
        self.net
            .with(self.pool, |pool, now| pool.give_back(now, lease, outcome));
        self.listen();
    }

    fn check_lease(&self, lease: &Lease) {
        let n = self.by_url[lease.url()];
        let peer = self.peer(n);
        let suspended = |url: &Url| {
            self.suspended
                .get(url)
                .is_some_and(|until| *until > self.net.now())
        };
        assert!(!suspended(lease.url()), "{} is suspended", lease.url());
        assert!(!suspended(&peer.url), "{} is suspended", peer.url);
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
        if peer.character != Character::Skewed {
            let left = token.expiration.since(self.net.now());
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
            .is_some_and(|next| self.net.get(*next).character == Character::Alias);
        assert!(named || !never.contains(&peer.character), "{peer:?}");
    }

    fn check_stored(&self) {
        let mut records: BTreeMap<String, &TrackRecord> = BTreeMap::new();
        for (url, record) in self.pool().records() {
            records.insert(format!("{}{url}", livepeer_core::pool::RECORD_KEY), record);
        }
        for (key, value) in self.net.stored(self.pool) {
            let read =
                livepeer_core::wire::read_track_record(value).expect("what was stored is read");
            let known = records
                .get(key)
                .expect("records are of orchestrators that are known");
            assert_eq!((read.good, read.bad), (known.good, known.bad), "{key}");
        }
    }

    fn is_reachable(&self, n: usize) -> bool {
        self.peer(n).is_there(self.net.now()) && !self.is_parted(n)
    }

    fn is_parted(&self, n: usize) -> bool {
        let at = self.net.now();
        self.partitions
            .iter()
            .any(|(from, until, who)| (*from..*until).contains(&at) && who.contains(&n))
    }

    /// Hears what the pool tells, and counts what it asks at once.
    fn listen(&mut self) {
        for event in self.net.events(self.pool) {
            self.on_event(event);
        }
        let pool = self.pool();
        let most = self.scenario.pool.in_flight * MAX_HEDGE + pool.ready() + pool.lent();
        assert!(
            self.net.under_way(self.pool) <= most + self.scenario.peers / 4,
            "too many at once"
        );
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Suspended(url, until) => {
                assert!(until > self.net.now());
                let most = self.scenario.pool.max_penalty;
                assert!(until <= self.net.now() + most, "no penalty without a bound");
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
}
