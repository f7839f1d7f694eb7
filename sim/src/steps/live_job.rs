//! A live video job whose orchestrators, runners, signer, store and owner do as they like.

mod answers;

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::chain::ChainView;
use livepeer_core::handshake::Identity;
use livepeer_core::http::{Headers, In, Method, Out, Request, Url};
use livepeer_core::job::SwapLimit;
use livepeer_core::job::live::media::{self, Owed};
use livepeer_core::job::live::{Config, Event, LiveVideoJob};
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::{Budget, Ticket};
use livepeer_core::pool::{self, Lease, Outcome, Quickest, SessionPool};
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::{Params, Payment, StartRequest};
use livepeer_core::{
    Cause, Effect, EffectId, Failure, Input, Machine as _, Misuse, Output, Party, Time,
};
use livepeer_proto::net;

use super::Reel;
use super::ours::{Ours, fault};
use super::payer::payer;
use super::payment_session::{GOOD, PRICE, first_word, quote};
use super::reel::{count_all, nth};
use crate::{Driven, Exchanges, Key, heard};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The owner lends a session with the n-th of four orchestrators, under a quote of some quality.
    Assign(u8, u8),
    /// A session under a good quote is lent; everybody answers well, but the start is answered with this.
    Start(u8, u8),
    /// The owner says that there is nobody.
    NoLease,
    /// The owner changes the parameters.
    Params,
    /// The media tell the job something.
    News(u8),
    /// The output is read, is not read, or cannot be written.
    Reader(u8),
    /// A new reading of the chain: some blocks later.
    Chain(u8),
    /// The owner stops the job.
    Stop,
    /// The n-th exchange is answered with this.
    Answer(u8, u8),
    /// The n-th exchange is answered in part, and not ended.
    Begin(u8, u8),
    /// The n-th exchange breaks, before or after it was connected.
    Fail(u8, bool),
    /// The n-th record is durable, or was not kept.
    Stored(u8, bool),
    /// The n-th signature is there, or refused.
    Signed(u8, bool),
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
    /// For so many seconds all is well: everybody answers, input goes and output comes.
    Flow(u8),
    /// For so many seconds everybody answers and input goes, but no output comes.
    Silence(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(24) {
            0 => Self::Assign(reel.byte(), reel.byte()),
            1 | 2 => Self::Start(reel.byte(), reel.byte()),
            3 if reel.below(4) == 0 => Self::NoLease,
            3 => Self::Params,
            4 | 5 => Self::News(reel.byte()),
            6 => Self::Reader(reel.byte()),
            7 if reel.below(16) == 0 => Self::Stop,
            7 => Self::Chain(reel.byte()),
            8..=12 => Self::Answer(reel.byte(), reel.byte()),
            13 => Self::Begin(reel.byte(), reel.byte()),
            14 => Self::Fail(reel.byte(), reel.below(2) == 0),
            15 => Self::Stored(reel.byte(), reel.below(16) != 0),
            16 => Self::Signed(reel.byte(), reel.below(16) != 0),
            17 | 18 => Self::Pass(reel.byte()),
            19..=21 => Self::Flow(reel.below(32)),
            _ => Self::Silence(reel.below(16)),
        }
    }
}

/// The state of an exchange that waits for its answer.
#[derive(Debug)]
struct Asked {
    request: Request,
    /// The head of its answer was sent.
    begun: bool,
}

/// Plays steps against a job.
pub struct Player {
    now: Time,
    book: Exchanges,
    job: LiveVideoJob,
    ours: Ours,
    identity: Identity,
    chain: ChainView,
    open: BTreeMap<EffectId, Asked>,
    /// Quotes made so far: each has a secret of its own.
    quotes: u32,
    /// Leases that have not come home.
    lent: usize,
    /// How often the job has changed orchestrators.
    swaps: u32,
    /// The session at work, or the one that was last, and that of the latest standby.
    session: u32,
    standby: u32,
    /// The payment that each ticket went in, by its secret's hash and nonce.
    tickets: BTreeMap<([u8; 32], u32), String>,
    /// The worth of all tickets that left.
    spent: Amount,
    limit: Amount,
    ended: bool,
    /// How often each event was told, and each cause of a loss.
    seen: BTreeMap<String, u32>,
}

/// Orchestrators that there are.
const ORCHESTRATORS: u8 = 4;

/// Leases that a job holds at most: of the one at work, of a standby, and of one kept for another try.
const MAX_LEASES: usize = 3;

/// How long a job without a word from anybody goes on, at most.
const PATIENCE: Duration = Duration::from_secs(900);

fn orchestrator(n: u8) -> Url {
    let text = format!("https://o{}:8935", n % ORCHESTRATORS);
    Url::parse(&text).expect("a URL")
}

impl Player {
    /// A job that waits for its first orchestrator; the byte picks who pays and how it begins.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let key = Key::named("payer");
        let chain = ChainView::development();
        let limit = Amount::from(&Wei::from(10 * 27_648_000 * 60 * 10));
        let mut config = Config {
            leave_dead: flavour & 4 != 0,
            swap_limit: match flavour & 32 {
                0 => SwapLimit::default(),
                _ => SwapLimit::new(50, Duration::from_secs(180)),
            },
            ..Config::default()
        };
        config.payment.ceilings = Ceilings::of(Price::new(PRICE + 5, 1).expect("a price"));
        let limits = Budget::unlimited().per_job(limit.clone());
        let (payer, identity) = payer(flavour, &key, &chain);
        let request = StartRequest {
            model_id: "noop".into(),
            ..StartRequest::default()
        };
        let mut player = Self {
            now,
            book: Exchanges::default(),
            job: LiveVideoJob::new(now, config, request, payer),
            ours: Ours::new(now, key, limits, flavour & 8 != 0),
            identity,
            chain,
            open: BTreeMap::new(),
            quotes: 0,
            lent: 0,
            swaps: 0,
            session: 0,
            standby: 0,
            tickets: BTreeMap::new(),
            spent: Amount::zero(),
            limit,
            ended: false,
            seen: BTreeMap::new(),
        };
        player.drain();
        if flavour & 16 != 0 {
            player.play(&Step::Assign(0, GOOD));
            player.play(&Step::Flow(15));
        }
        player
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match *step {
            Step::Assign(n, kind) => self.assign(n, kind),
            Step::Start(n, kind) => {
                self.assign(n, GOOD);
                self.serve(|asked| is_start(asked) || is_events(asked));
                let start = self.open.iter().find(|(_, asked)| is_start(asked));
                if let Some(id) = start.map(|(id, _)| *id) {
                    self.answer_as(id, kind);
                }
            }
            Step::NoLease => {
                let needed = self.job.needs_lease();
                let told = self.job.no_lease(self.now, Vec::new());
                assert_eq!(told.is_ok(), needed, "{told:?}");
            }
            Step::Params => {
                let params = Params::parse(r#"{"prompt":"a cat"}"#).expect("an object");
                let told = self.job.update_params(self.now, params);
                assert!(!self.ended || told == Err(Misuse::Ended));
            }
            Step::News(kind) => self.news(kind),
            Step::Reader(kind) => match kind % 8 {
                0 => self.job.output_failed(self.now, "the disk is full".into()),
                n => self.job.set_output_read(self.now, n != 1),
            },
            Step::Chain(blocks) => {
                self.chain.l1_block += u64::from(blocks % 64);
                self.job.set_chain(self.now, self.chain.clone());
            }
            Step::Stop => self.job.stop(self.now),
            Step::Answer(pick, kind) => self.answer(pick, kind),
            Step::Begin(pick, kind) => self.begin(pick, kind),
            Step::Fail(pick, connected) => {
                if let Some(id) = nth(pick, self.open.keys().copied()) {
                    self.open.remove(&id);
                    self.http(id, In::Failed(fault(connected)));
                }
            }
            Step::Stored(pick, keeps) => {
                for stored in self.ours.stored(self.now, pick, keeps) {
                    self.input(stored);
                }
            }
            Step::Signed(pick, signs) => {
                if let Some(signed) = self.ours.signed(pick, signs) {
                    self.input(signed);
                }
            }
            Step::Pass(tens) => {
                let tens = u64::from(tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
            Step::Flow(seconds) => self.flow(seconds, true),
            Step::Silence(seconds) => self.flow(seconds, false),
        }
        self.drain();
    }

    // ---- the owner -------------------------------------------------------------------------------------------

    fn assign(&mut self, n: u8, kind: u8) {
        // Half of the quotes are good.
        let kind = if kind < 128 { kind } else { GOOD };
        let Some(lease) = self.lease(n, kind) else {
            return;
        };
        let needed = self.job.needs_lease();
        self.lent += 1;
        if let Err(lease) = self.job.assign(self.now, lease) {
            assert!(!needed, "it wants one and takes none");
            self.lent -= 1;
            drop(lease);
        } else {
            assert!(needed, "it takes what it did not ask for");
        }
    }

    /// A lease from a pool that shook hands with the n-th orchestrator; none if the quote is one that pools refuse.
    fn lease(&mut self, n: u8, kind: u8) -> Option<Lease> {
        let identity = self.identity.clone();
        let wanted = Capabilities::live_video("noop");
        let (now, config) = (self.now, pool::Config::default());
        let mut pool = SessionPool::new(now, config, identity, wanted, Quickest, [7; 32]);
        pool.offer(now, vec![orchestrator(n)]);
        let info = self.quote(&orchestrator(n), kind);
        while let Output::Effect(id, effect) = pool.poll_output() {
            if matches!(effect, Effect::Http(Out::Request(_))) {
                for step in heard(livepeer_core::wire::grpc::reply(&info)) {
                    pool.handle_input(now, Input::Http(id, step));
                }
            }
        }
        pool.take(now)
    }

    /// A fresh quote of an orchestrator.
    fn quote(&mut self, of: &Url, kind: u8) -> net::OrchestratorInfo {
        self.quotes += 1;
        let mut info = quote(self.now, 0, kind);
        info.transcoder = of.origin();
        info.capabilities = Some(Capabilities::live_video("noop").to_wire());
        if let Some(params) = &mut info.ticket_params {
            let mut hash = [1; 32];
            hash[..4].copy_from_slice(&self.quotes.to_be_bytes());
            params.recipient_rand_hash = hash.to_vec().into();
        }
        if let Some(token) = &mut info.auth_token {
            token.session_id = format!("session-{}", self.quotes);
        }
        info
    }

    fn news(&mut self, kind: u8) {
        let who = Party::Orchestrator(orchestrator(0));
        let event = match kind % 16 {
            0..=3 => media::Event::Begun,
            4..=6 => media::Event::Done,
            7 => media::Event::Waits(kind & 16 != 0),
            8 => media::Event::Owed(match kind / 16 % 3 {
                0 => Owed::Unknown,
                1 => Owed::Something,
                _ => Owed::Nothing,
            }),
            9..=12 => media::Event::Seen,
            13 if kind & 0x70 == 0 => media::Event::Delivered,
            13 if kind & 0x70 == 0x10 => media::Event::Declined,
            13 => media::Event::Ready,
            14 => media::Event::Ended(None),
            _ => media::Event::Ended(Some(Failure::new(who, Cause::Gone("a media channel")))),
        };
        // Some are of a standby, or of one that was left long ago.
        let session = match kind & 128 {
            0 => self.session,
            _ => self.standby,
        };
        self.job.on_media(self.now, media::News { session, event });
        self.drain();
    }

    /// Lets so many seconds pass in which everybody answers and the input moves.
    fn flow(&mut self, seconds: u8, output: bool) {
        for _ in 0..seconds {
            if self.job.needs_lease() {
                self.assign(self.quotes as u8, GOOD);
            }
            self.speak();
            for kind in [0, 4, 9] {
                if kind != 9 || output {
                    self.news(kind);
                }
            }
            self.pass(Duration::from_secs(1));
        }
        self.speak();
    }

    /// Lets store, key and peers answer well whatever they are asked, except for what is `held`.
    fn serve(&mut self, held: fn(&Asked) -> bool) {
        for _ in 0..64 {
            self.keep_and_sign();
            let next = self.open.iter().find(|(_, asked)| !held(asked));
            let Some(id) = next.map(|(id, _)| *id) else {
                break;
            };
            self.answer_as(id, GOOD);
        }
    }

    /// Lets everybody answer well; each runner speaks once.
    fn speak(&mut self) {
        self.serve(is_events);
        let events = self.open.iter().filter(|(_, asked)| is_events(asked));
        for id in events.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.answer_as(id, GOOD);
        }
    }

    fn keep_and_sign(&mut self) {
        while !self.ours.is_idle() {
            self.play(&Step::Stored(0, true));
            self.play(&Step::Signed(0, true));
        }
    }

    // ---- the peers -------------------------------------------------------------------------------------------

    fn answer(&mut self, pick: u8, kind: u8) {
        if let Some(id) = nth(pick, self.open.keys().copied()) {
            self.answer_as(id, kind);
        }
    }

    fn answer_as(&mut self, id: EffectId, kind: u8) {
        let Some(asked) = self.open.remove(&id) else {
            return;
        };
        if !asked.begun
            && asked.request.url.path().ends_with("/GetOrchestrator")
            && !kind.is_multiple_of(8)
        {
            let info = self.quote(&asked.request.url, kind);
            return self.inform(id, &info);
        }
        let (head, body) = self.made(&asked.request, kind);
        if !asked.begun {
            self.http(id, In::Reply(head));
        }
        let (one, two) = body.split_at(body.len() / 2);
        self.http(id, In::Data(one.to_vec().into()));
        self.http(id, In::Data(two.to_vec().into()));
        self.http(id, In::End(Headers::new()));
        // Steps after the last one mean nothing.
        self.http(id, In::End(Headers::new()));
    }

    /// Sends the head of an answer, and perhaps some of its body.
    fn begin(&mut self, pick: u8, kind: u8) {
        let Some(id) = nth(pick, self.open.keys().copied()) else {
            return;
        };
        let Some(asked) = self.open.get_mut(&id).filter(|asked| !asked.begun) else {
            return;
        };
        asked.begun = true;
        let request = asked.request.clone();
        let (head, body) = self.made(&request, kind);
        self.http(id, In::Reply(head));
        if kind & 64 != 0 {
            let part = body[..body.len() / 2].to_vec();
            self.http(id, In::Data(part.into()));
        }
    }

    /// Takes note of the tickets that leave: with an own key no nonce is ever used twice, and the limit holds over all
    /// orchestrators.
    fn leaves(&mut self, header: &str) {
        let payment = Payment::decode(header).expect("readable");
        let Some(params) = &payment.ticket_params else {
            return;
        };
        for sent in &payment.tickets {
            let ticket = Ticket::new(params, payment.sender, sent.nonce);
            let key = (params.recipient_rand_hash, sent.nonce);
            match self.tickets.get(&key) {
                Some(before) => assert_eq!(before, header, "one nonce in two payments"),
                None => {
                    self.spent += &ticket.expected_value();
                    self.tickets.insert(key, header.to_owned());
                }
            }
        }
        assert!(self.spent <= self.limit, "more was paid than may be");
    }

    /// Lets it be: nobody answers any more but store and key. It ends, or waits for its owner; stopped, it ends, and
    /// every lease has come home.
    ///
    /// # Panics
    /// If it does not.
    pub fn finish(&mut self) {
        let end = self.now + PATIENCE;
        while self.now < end {
            self.keep_and_sign();
            self.pass(Duration::from_secs(60));
        }
        assert!(self.ended || self.job.needs_lease(), "it waits for ever");
        self.job.stop(self.now);
        self.drain();
        for _ in 0..4 {
            self.keep_and_sign();
            self.pass(Duration::from_secs(60));
        }
        assert!(self.ended, "it does not stop");
        assert_eq!(self.job.no_lease(self.now, Vec::new()), Err(Misuse::Ended));
        let params = Params::parse("{}").expect("an object");
        let told = self.job.update_params(self.now, params);
        assert_eq!(told, Err(Misuse::Ended));
        assert_eq!(self.drain(), None, "an ended job sleeps");
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }
}

/// Whether it asks an orchestrator to start the job.
fn is_start(asked: &Asked) -> bool {
    asked.request.url.path() == "/live-video-to-video"
}

/// Whether it asks for the runner's next event.
fn is_events(asked: &Asked) -> bool {
    asked.request.method == Method::Get && asked.request.url.path().contains("-events/")
}

impl Driven for Player {
    crate::driven!(job: LiveVideoJob, book);

    const MAX_OUTPUTS: usize = 10_000;

    fn is_over(&self) -> bool {
        self.ended
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        if self.ended {
            let aborts = matches!(effect, Effect::Http(Out::Abort));
            assert!(aborts, "{effect:?} after the end");
        }
        match effect {
            Effect::Http(Out::Request(request)) => {
                let signer = request.url.host() == "signer";
                assert_eq!(request.url.is_secure(), !signer, "{}", request.url);
                if let Some(payment) = request.headers.get(PAYMENT_HEADER)
                    && !payment.is_empty()
                {
                    let payment = payment.to_owned();
                    self.leaves(&payment);
                }
                let begun = false;
                let again = self.open.insert(id, Asked { request, begun });
                assert!(again.is_none(), "an id comes twice");
            }
            Effect::Http(Out::Data(data)) => self.feed(Input::Http(id, In::Sent(data.len()))),
            Effect::Http(Out::Abort) => {
                self.open.remove(&id);
            }
            Effect::Http(Out::End(_) | Out::Pause | Out::Resume) => {}
            Effect::Http(other) => panic!("{other:?}"),
            ours => {
                for input in self.ours.asked(self.now, id, ours) {
                    self.feed(input);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.ended, "{event:?} after the last event");
        self.count(first_word(&event));
        match event {
            Event::Started(started) => {
                assert!(started.swaps >= self.swaps, "the number of swaps falls");
                if started.swaps > self.swaps {
                    self.count("Swapped");
                }
                self.swaps = started.swaps;
                self.session = started.session;
            }
            Event::Standby(session, _) => self.standby = session,
            Event::Lost(_, failure) => {
                assert!(!failure.who.is_ours(), "blamed for our part: {failure}");
                self.count(first_word(&failure.cause));
            }
            Event::Release(lease, outcome) => {
                if let Outcome::Failed(failure) = &outcome {
                    assert!(!failure.who.is_ours(), "{lease:?} pays for {failure}");
                }
                self.lent -= 1;
            }
            Event::Ended(ending) => {
                self.ended = true;
                assert_eq!(self.lent, 0, "a lease did not come home");
                self.count(first_word(&ending));
            }
            _ => {}
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        assert!(self.lent <= MAX_LEASES, "{} leases at once", self.lent);
        assert!(!self.ended || wake.is_none(), "an ended job sleeps");
    }
}

/// Plays what the bytes say, with one job after the other; hands back how often each thing happened.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    Reel::new(data).play_each(Player::new, |player, reel| {
        if let Some(reel) = reel {
            player.play(&Step::read(reel));
            return player.ended;
        }
        player.finish();
        count_all(&mut seen, &player.seen);
        true
    });
    seen
}
