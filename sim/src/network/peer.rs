//! Orchestrators with a character, as far as a pool can tell: they answer handshakes and do jobs, well or not.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::{Capabilities, Capability, Model};
use livepeer_core::http::{In, Out, Response, Url};
use livepeer_core::wire::grpc::{self, Status};
use livepeer_core::{Input, Machine, Outbox, Output, Rng, Time};
use livepeer_proto::net;

/// The behaviour of an orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Character {
    /// Does what it says, always.
    Steady,
    /// Does its work, but goes away and comes back.
    Churning,
    /// Nobody lives there.
    Dead,
    /// Takes connections and says nothing.
    Silent,
    /// Answers, but seldom in time.
    Slow,
    /// Says it can, and cannot.
    Liar,
    /// Fails every other job.
    Flaky,
    /// Lacks the model.
    Incapable,
    /// Runs software that is too old.
    Old,
    /// Asks more than anybody pays.
    Dear,
    /// Is cheap at first and dear when it has the job.
    PriceJumper,
    /// Never has a free place, or says so when it has the job.
    Full,
    /// Speaks another protocol.
    Stranger,
    /// Answers garbage.
    Garbled,
    /// Sends more than anybody takes.
    Flooding,
    /// Shows a new certificate now and then.
    Restarting,
    /// Gives tokens that are over already.
    Skewed,
    /// Is another name for the one before it.
    Alias,
    /// Takes no work itself and names the one before it.
    Front,
}

impl Character {
    /// Orchestrators that do well in handshakes and badly in jobs.
    pub const MEAN: [Self; 6] = [
        Self::Churning,
        Self::Liar,
        Self::Flaky,
        Self::PriceJumper,
        Self::Full,
        Self::Restarting,
    ];

    /// All but the steady ones.
    pub const ODD: [Self; 18] = [
        Self::Churning,
        Self::Dead,
        Self::Silent,
        Self::Slow,
        Self::Liar,
        Self::Flaky,
        Self::Incapable,
        Self::Old,
        Self::Dear,
        Self::PriceJumper,
        Self::Full,
        Self::Stranger,
        Self::Garbled,
        Self::Flooding,
        Self::Restarting,
        Self::Skewed,
        Self::Alias,
        Self::Front,
    ];
}

/// The price above which nobody goes, in wei per pixel.
pub const CEILING: i64 = 1_000;

/// The model that jobs want.
pub const MODEL: &str = "noop";

/// An orchestrator.
#[derive(Debug)]
pub struct Peer {
    /// The orchestrator's address.
    pub url: Url,
    /// The orchestrator's behaviour.
    pub character: Character,
    /// The price that the orchestrator asks.
    price: i64,
    /// How long it takes to answer.
    pub latency: Duration,
    /// The address that the orchestrator names as its transcoder.
    transcoder: Url,
    /// The address of the one before it.
    before: Option<Url>,
    /// The times when the orchestrator goes away and comes back, in turns, or restarts.
    pub turns: Vec<Time>,
    /// How it is paid.
    pub till: Till,
    /// Jobs it had.
    jobs: u32,
    rng: Rng,
    out: Outbox<()>,
}

/// The nonces that an orchestrator has seen, as far as payer sessions can collide: each begins at one under its quote.
#[derive(Debug)]
pub struct Till {
    /// The number of the orchestrator that made the quotes: one may answer for another.
    owner: u64,
    quotes: u64,
    seen: BTreeSet<[u8; 32]>,
}

impl Till {
    /// A commitment that no quote had.
    fn quote(&mut self) -> [u8; 32] {
        self.quotes += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.owner.to_be_bytes());
        hash[8..16].copy_from_slice(&self.quotes.to_be_bytes());
        hash
    }

    /// A payer session begins under that commitment; whether its first ticket is refused as seen already.
    pub fn begin(&mut self, hash: [u8; 32]) -> bool {
        !self.seen.insert(hash)
    }
}

impl Peer {
    /// The `n`-th one; `before` is the address of the one before it.
    pub fn new(n: usize, character: Character, before: Option<&Url>, rng: &mut Rng) -> Self {
        let url = Url::parse(&format!("https://o{n}.sim:8935")).expect("it is a URL");
        let latency = match character {
            Character::Slow => 2_000 + rng.below(9_000),
            _ => 5 + rng.below(150),
        };
        let price = match character {
            Character::Dear => CEILING + 1 + rng.below(1_000) as i64,
            _ => 1 + rng.below(CEILING as u64) as i64,
        };
        let transcoder = match (character, before) {
            (Character::Alias, Some(before)) => before.clone(),
            _ => url.clone(),
        };
        Self {
            url,
            character,
            price,
            latency: Duration::from_millis(latency),
            transcoder,
            before: before.cloned(),
            turns: Vec::new(),
            till: Till {
                owner: n as u64,
                quotes: 0,
                seen: BTreeSet::new(),
            },
            jobs: 0,
            rng: Rng::new(rng.fork()),
            out: Outbox::default(),
        }
    }

    /// Makes the comings and goings, or the restarts, of one that has such, until `end`.
    pub fn plan(&mut self, from: Time, end: Time, rng: &mut Rng) {
        let mut at = from;
        while at < end && (self.churns() || self.restarts()) {
            at = at + Duration::from_secs(5 + rng.below(120));
            self.turns.push(at);
        }
    }

    fn churns(&self) -> bool {
        self.character == Character::Churning
    }

    /// Whether it shows a new certificate at each turn.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.character == Character::Restarting
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self, now: Time) -> bool {
        let turns = self.turns.iter().filter(|turn| **turn <= now);
        !self.churns() || turns.count() % 2 == 0
    }

    /// The answer to a handshake; none is silence.
    fn answer(&mut self, now: Time) -> Vec<Out> {
        match self.character {
            Character::Silent => Vec::new(),
            Character::Stranger => {
                let page = Response::new(404).header("content-type", "text/plain");
                vec![Out::Reply(page)]
            }
            Character::Garbled => {
                let mut steps = Vec::from(grpc::reply(&self.info(now)));
                let junk: Vec<u8> = (0..40).map(|_| self.rng.below(256) as u8).collect();
                steps[1] = Out::Data([&[0, 0, 0, 0, 40][..], &junk].concat().into());
                steps
            }
            Character::Flooding => {
                let mut steps = Vec::from(grpc::reply(&self.info(now)));
                let flood = Bytes::from(vec![0xff; 1 << 20]);
                steps[1] = Out::Data(Bytes::from_static(b"\0\xff\xff\xff\xff"));
                (0..6).for_each(|_| steps.insert(2, Out::Data(flood.clone())));
                steps
            }
            Character::Full if self.jobs.is_multiple_of(2) => {
                self.jobs += 1;
                let text = "Invalid orchestrator request: OrchestratorCapped";
                vec![grpc::refuse(&Status::new(Status::UNKNOWN, text))]
            }
            _ => grpc::reply(&self.info(now)).into(),
        }
    }

    /// The outcome of a job that the orchestrator is given: done, or after how long it fails, and how.
    pub fn work(&mut self) -> Result<(), (Duration, Trouble)> {
        self.jobs += 1;
        let soon = self.latency;
        match self.character {
            Character::Liar => Err((soon, Trouble::Broken)),
            Character::Flaky if self.rng.below(2) == 0 => {
                let after = Duration::from_millis(self.rng.below(20_000));
                Err((after, Trouble::Broken))
            }
            Character::Slow => Err((Duration::from_secs(5), Trouble::Broken)),
            Character::PriceJumper => Err((soon, Trouble::TooDear)),
            Character::Full => Err((soon, Trouble::Full)),
            _ => Ok(()),
        }
    }

    fn info(&mut self, now: Time) -> net::OrchestratorInfo {
        let model = match self.character {
            Character::Incapable => "another",
            _ => MODEL,
        };
        let mut offered = Capabilities::common().and_model(
            Capability::LIVE_VIDEO_TO_VIDEO,
            model,
            Model {
                warm: self.price % 2 == 0,
                capacity: 4,
                ..Model::default()
            },
        );
        offered.version = match self.character {
            Character::Old => "0.7.9".into(),
            _ => "0.9.1-abcdef01".into(),
        };
        let life = match self.character {
            Character::Skewed => -100,
            _ => 1_800,
        };
        let (transcoder, nodes) = match (self.character, &self.before) {
            (Character::Front, Some(before)) => (String::new(), vec![before.to_string()]),
            _ => (self.transcoder.to_string(), vec![]),
        };
        net::OrchestratorInfo {
            transcoder,
            nodes,
            capabilities: Some(offered.to_wire()),
            price_info: Some(net::PriceInfo {
                price_per_unit: self.price,
                pixels_per_unit: 1,
                ..Default::default()
            }),
            ticket_params: Some(net::TicketParams {
                recipient: vec![1; 20].into(),
                face_value: vec![1].into(),
                win_prob: vec![1].into(),
                recipient_rand_hash: self.till.quote().to_vec().into(),
                ..Default::default()
            }),
            auth_token: Some(net::AuthToken {
                token: vec![1].into(),
                session_id: format!("{}-{}", self.url.host(), now.as_nanos()),
                expiration: now.as_secs() as i64 + life,
            }),
            ..Default::default()
        }
    }
}

impl Machine for Peer {
    type Event = ();

    fn handle_input(&mut self, now: Time, input: Input) {
        if let Input::Http(id, In::Request(_)) = input {
            for step in self.answer(now) {
                self.out.http(id, step);
            }
        }
    }

    fn poll_output(&mut self) -> Output<()> {
        self.out.pop().unwrap_or(Output::Idle(None))
    }
}

/// How a job ends badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The orchestrator failed.
    Broken,
    /// The orchestrator has no free place.
    Full,
    /// The orchestrator asks more now.
    TooDear,
}
