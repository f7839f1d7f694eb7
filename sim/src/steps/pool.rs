//! A session pool whose orchestrators and jobs do as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::Identity;
use livepeer_core::http::{Fault, Headers, In, Out, Response, Url};
use livepeer_core::pool::{Config, Event, Lease, MAX_HEDGE, Offered, Outcome, SessionPool};
use livepeer_core::selection::Balanced;
use livepeer_core::store::StoreFailed;
use livepeer_core::wire::grpc::{self, Status};
use livepeer_core::{Address, Cause, Effect, EffectId, Failure, Input, Party, Time};
use livepeer_proto::net;

use super::Reel;
use super::reel::nth;
use crate::Key;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// Discovery has found those of the eight that the bits name.
    Offer(u8),
    /// Discovery has found those of the eight that the bits name, and no others.
    Replace(u8),
    /// A job wants a session.
    Take,
    /// The n-th lease comes home.
    GiveBack(u8, u8),
    /// The n-th exchange is answered well, by somebody who says that it is that one and knows that one.
    Good(u8, u8, u8),
    /// The n-th exchange is answered badly.
    Bad(u8, u8),
    /// The n-th exchange breaks.
    Fail(u8, u8),
    /// The n-th record is durable, or was not kept.
    Stored(u8, bool),
    /// An earlier run saw something.
    Recall(u8),
    /// Another number of sessions is wanted from now on.
    Ready(u8),
    /// Time passes: so many tens of milliseconds, to the third power.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(16) {
            0 => Self::Offer(reel.byte()),
            1 if reel.below(4) == 0 => Self::Replace(reel.byte()),
            1..=3 => Self::Take,
            4 | 5 => Self::GiveBack(reel.byte(), reel.byte()),
            6..=9 => Self::Good(reel.byte(), reel.byte(), reel.byte()),
            10 | 11 => Self::Bad(reel.byte(), reel.byte()),
            12 => Self::Fail(reel.byte(), reel.byte()),
            13 => match reel.below(8) {
                0 => Self::Recall(reel.byte()),
                1..=4 => Self::Stored(reel.byte(), true),
                5 => Self::Stored(reel.byte(), false),
                6 => Self::Ready(reel.byte()),
                _ => Self::Pass(reel.byte()),
            },
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// Plays steps against a pool.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    pool: SessionPool<Balanced>,
    config: Config,
    key: Key,
    /// The orchestrator that every open exchange asks.
    open: BTreeMap<EffectId, Url>,
    unsaved: BTreeSet<EffectId>,
    leases: Vec<Lease>,
    suspended: BTreeMap<Url, Time>,
    /// A take found nothing, and nobody said why yet.
    waiting: bool,
    wake: Option<Time>,
}

fn url(n: u8) -> Url {
    Url::parse(&format!("https://o{n}:8935")).expect("a URL")
}

fn some(bits: u8) -> Vec<Offered> {
    let one = |n: u8| Offered {
        accounts: n
            .is_multiple_of(2)
            .then_some(Address([1; 20]))
            .into_iter()
            .collect(),
        ..url(n).into()
    };
    (0..8).filter(|n| bits >> n & 1 == 1).map(one).collect()
}

impl Player {
    /// A pool without anybody; the byte picks its settings.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(10_000);
        let key = Key::named("payer");
        let identity = if flavour & 1 == 0 {
            Identity::Offchain
        } else {
            Identity::remote(Url::parse("http://signer:1").expect("a URL"))
        };
        let config = Config {
            ready: usize::from(flavour >> 1 & 3),
            in_flight: 1 + usize::from(flavour >> 3 & 1),
            share: 1 + u32::from(flavour >> 4 & 1),
            extra_nodes: usize::from(flavour >> 5 & 1),
            patience: (flavour & 64 != 0).then(|| Duration::from_millis(500)),
            remember: flavour & 128 != 0,
            ..Config::default()
        };
        let wanted = Capabilities::live_video("noop");
        let pool = SessionPool::new(
            now,
            config.clone(),
            identity,
            wanted,
            Balanced::default(),
            [flavour; 32],
        );
        Self {
            now,
            book: Exchanges::default(),
            pool,
            config,
            key,
            open: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            leases: Vec::new(),
            suspended: BTreeMap::new(),
            waiting: false,
            wake: None,
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Offer(bits) => {
                self.pool.offer(self.now, some(*bits));
                self.drain();
            }
            Step::Replace(bits) => {
                self.pool.replace(self.now, some(*bits));
                self.drain();
            }
            Step::Take => {
                let ready = self.pool.ready();
                let lease = self.pool.take(self.now);
                self.waiting |= lease.is_none();
                if let Some(lease) = lease {
                    assert!(
                        ready > 0 || self.wake <= Some(self.now),
                        "lent without having any"
                    );
                    let until = self.suspended.get(lease.url());
                    assert!(
                        until.is_none_or(|until| *until <= self.now),
                        "suspended: {lease:?}"
                    );
                    assert!(lease.info.auth_token.is_some());
                    self.leases.push(lease);
                }
                self.drain();
            }
            Step::GiveBack(pick, outcome) => {
                if !self.leases.is_empty() {
                    let at = usize::from(*pick) % self.leases.len();
                    let lease = self.leases.swap_remove(at);
                    self.give_back(lease, *outcome);
                }
            }
            Step::Good(pick, claim, knows) => self.good(*pick, *claim, *knows),
            Step::Bad(pick, how) => {
                if let Some((id, _)) = self.pick(*pick) {
                    let texts = ["OrchestratorCapped", "sig check failed", ""];
                    let text = texts[usize::from(*how) % texts.len()];
                    let head = match how % 3 {
                        0 => Response::new(404),
                        _ => match grpc::refuse(&Status::new(2, text)) {
                            Out::Reply(head) => head,
                            other => unreachable!("a refusal is a head: {other:?}"),
                        },
                    };
                    self.http(id, In::Reply(head));
                    self.http(id, In::End(Headers::new()));
                }
            }
            Step::Fail(pick, how) => {
                if let Some((id, _)) = self.pick(*pick) {
                    let fault = match how % 3 {
                        0 => Fault::Connect("refused".into()),
                        1 => Fault::Broken("reset".into()),
                        _ => Fault::CertificateChanged {
                            remembered: [1; 32],
                            seen: [2; 32],
                        },
                    };
                    self.http(id, In::Failed(fault));
                }
            }
            Step::Stored(pick, keeps) => {
                if let Some(id) = nth(*pick, self.unsaved.iter().copied()) {
                    self.unsaved.remove(&id);
                    let answer = if *keeps {
                        Ok(())
                    } else {
                        Err(StoreFailed("the disk is full".into()))
                    };
                    self.input(Input::Stored(id, answer));
                }
            }
            Step::Recall(n) => {
                let key = format!("orchestrator:{}", url(n % 8));
                let value = br#"{"good":3,"bad":1,"since":9000}"#;
                let value = &value[..value.len() - usize::from(n % 3)];
                self.pool.recall(self.now, &key, value);
                self.drain();
            }
            Step::Ready(how) => {
                self.config.ready = usize::from(how % 4);
                self.config.extra_nodes = usize::from(how >> 2 & 1);
                let (ready, extra_nodes) = (self.config.ready, self.config.extra_nodes);
                self.pool.set_ready(self.now, ready, extra_nodes);
                self.drain();
            }
            Step::Pass(tens) => {
                let tens = u64::from(*tens);
                self.leap(Duration::from_millis(tens * tens * tens / 10));
            }
        }
    }

    /// Ends the play: all leases come home, nobody answers any more, and all who wait are told.
    ///
    /// # Panics
    /// If somebody waits for ever, or the pool does not come to rest.
    pub fn finish(&mut self) {
        while let Some(lease) = self.leases.pop() {
            self.give_back(lease, 0);
        }
        assert_eq!(self.pool.lent(), 0);
        self.pool.offer(self.now, Vec::<Url>::new());
        self.drain();
        self.settle(20_000, Duration::from_secs(600));
        assert!(!self.waiting, "a job waits, and nobody says why");
        // A store that fails and one that hangs keep nobody for ever.
        while let Some(id) = self.unsaved.pop_first() {
            self.input(Input::Stored(id, Ok(())));
        }
        assert!(!self.pool.is_storing());
    }

    fn give_back(&mut self, lease: Lease, outcome: u8) {
        let outcome = match outcome % 9 {
            0 => Outcome::Unused,
            1 => Outcome::Done {
                first_byte: Some(Duration::from_millis(70)),
            },
            2 => Outcome::BadJob,
            3 => Outcome::Stale,
            4 => Outcome::Full,
            5 => Outcome::TooDear,
            6 => Outcome::Gone,
            _ => Outcome::Failed(Failure::new(
                Party::Orchestrator(lease.url().clone()),
                Cause::Gone("the job"),
            )),
        };
        if matches!(outcome, Outcome::Done { .. }) {
            let took = Duration::from_millis(70);
            self.pool.measured(&lease, 1_000, took);
        }
        self.pool.give_back(self.now, lease, outcome);
        self.drain();
    }

    fn good(&mut self, pick: u8, claim: u8, knows: u8) {
        let Some((id, asked)) = self.pick(pick) else {
            return;
        };
        if asked.host() == "signer" {
            let key = self.key.clone();
            return self.identify(id, &key);
        }
        let transcoder = match claim % 4 {
            0 => url(claim / 4 % 8).to_string(),
            1 if claim > 200 => String::new(),
            2 if claim > 240 => "https://169.254.169.254".into(),
            _ => asked.to_string(),
        };
        let life = [1_800, 1_800, 1_800, 100][usize::from(knows % 4)];
        let info = net::OrchestratorInfo {
            transcoder,
            nodes: vec![
                url(knows % 10).to_string(),
                "https://127.0.0.1:2375".into(),
                "http://open:1".into(),
            ],
            // Those with even numbers are registered for the first account.
            ticket_params: knows.is_multiple_of(3).then(|| net::TicketParams {
                recipient: vec![1 + knows % 2; 20].into(),
                face_value: vec![1].into(),
                win_prob: vec![1].into(),
                ..Default::default()
            }),
            capabilities: Some(Capabilities::live_video("noop").to_wire()),
            auth_token: (!knows.is_multiple_of(17)).then(|| net::AuthToken {
                token: vec![1].into(),
                session_id: format!("{}", self.now.as_nanos()),
                expiration: self.now.as_secs() as i64 + life,
            }),
            ..Default::default()
        };
        self.inform(id, &info);
    }

    /// Takes the n-th open exchange: its answer comes.
    fn pick(&mut self, n: u8) -> Option<(EffectId, Url)> {
        let id = nth(n, self.open.keys().copied())?;
        self.open.remove_entry(&id)
    }
}

impl Driven for Player {
    crate::driven!(pool: SessionPool<Balanced>, book);

    const MAX_OUTPUTS: usize = 10_000;

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                let place = &request.url;
                assert!(
                    place.is_secure() == (place.host() != "signer"),
                    "{place} is asked"
                );
                assert!(
                    place.clone().told().as_written().is_ok(),
                    "{place} is asked"
                );
                let again = self.open.insert(id, request.url.with_path("/"));
                assert!(again.is_none(), "an id comes twice");
            }
            Effect::Http(Out::Abort) => {
                self.open.remove(&id);
            }
            Effect::Store(_) => {
                assert!(self.config.remember);
                self.unsaved.insert(id);
                assert!(
                    self.unsaved.len() <= 10,
                    "more records wait than there are orchestrators"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Suspended(url, until) => {
                assert!(until > self.now);
                assert!(until <= self.now + self.config.max_penalty);
                self.suspended.insert(url, until);
            }
            Event::Available(_) | Event::NoIdentity(_) => self.waiting = false,
            Event::Stored => assert!(!self.pool.is_storing()),
            Event::Exhausted(_) => {
                assert!(self.waiting, "nobody asked");
                self.waiting = false;
            }
            _ => {}
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        self.wake = wake;
        assert_eq!(self.pool.lent(), self.leases.len(), "leases are counted");
        // Handshakes under way, and renewals of sessions at hand.
        let most = self.config.in_flight * MAX_HEDGE + 10;
        assert!(self.open.len() <= most, "{} at once", self.open.len());
    }
}

/// Plays what the bytes say: the settings, then steps.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    player.finish();
}
