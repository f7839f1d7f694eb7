//! Rentals of apps whose orchestrators, signer and users do as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::http::{Headers, In, Method, Out, Request, Response, SWITCHING, Url};
use livepeer_core::job::app::{Call, Config, Event, Failed, History, Rental, Use, Wanted};
use livepeer_core::money::{Amount, Wei};
use livepeer_core::payment::{Budget, Unit};
use livepeer_core::wire::app::{Session, listing_json};
use livepeer_core::wire::challenge::Challenge;
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::runner::{Mode, Runner, RunnerPrice};
use livepeer_core::wire::{OrchestratorInfo, Payment};
use livepeer_core::{Effect, EffectId, Time};
use prost::Message as _;

use super::Reel;
use super::ours::{Ours, fault};
use super::payer::payer;
use super::payment_session::{GOOD, first_word, quote, signers_answer};
use super::reel::nth;
use crate::{Driven, Exchanges, Key};

/// A step of the play.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The n-th exchange is answered in such a way.
    Answer(u8, u8),
    /// The n-th exchange goes on, and does not end.
    Begin(u8, u8),
    /// The n-th exchange breaks.
    Fail(u8, bool),
    /// The n-th record is durable, or was not kept.
    Stored(u8, bool),
    /// The n-th signature is made, or refused.
    Signed(u8, bool),
    /// The user takes nothing more, or takes something again.
    Hold(bool),
    /// The user says so many bytes to an app beyond HTTP; that there are no more; or the transport takes what it has.
    Say(u8),
    /// Everybody answers well.
    Serve,
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
    /// The user has enough.
    Close,
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(32) {
            0..=10 => Self::Answer(reel.byte(), reel.byte()),
            11 | 12 => Self::Begin(reel.byte(), reel.byte()),
            13 => Self::Fail(reel.byte(), true),
            14 => Self::Fail(reel.byte(), false),
            15..=17 => Self::Stored(reel.byte(), !reel.byte().is_multiple_of(8)),
            18..=20 => Self::Signed(reel.byte(), !reel.byte().is_multiple_of(8)),
            21 => Self::Hold(true),
            22 => Self::Hold(false),
            23..=25 => Self::Serve,
            26 if reel.below(8) == 0 => Self::Close,
            27 => Self::Say(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// The side that plays.
pub struct Player {
    now: Time,
    book: Exchanges,
    rental: Rental,
    session: bool,
    may_repeat: bool,
    /// Whether calls are not answered along with everything else.
    slow: bool,
    /// The orchestrator that asks nothing, if there is one.
    free: Option<&'static str>,
    /// Whether work is billed by the second.
    metered: bool,
    ours: Ours,
    chain: ChainView,
    open: BTreeMap<EffectId, Request>,
    demands: u32,
    /// Payments that each runner got along with requests.
    payments: BTreeMap<String, BTreeSet<String>>,
    /// Whether an app may have worked on the call.
    may_have_run: bool,
    refused: BTreeSet<EffectId>,
    /// Sessions that were given out under these addresses, and were not stopped, nor gone.
    reserved: BTreeSet<String>,
    tickets: BTreeMap<[u8; 32], u32>,
    headed: bool,
    /// Whether the call asks to leave HTTP, and once it has: bytes that the transport has not taken, and whether more come.
    leaves: bool,
    beyond: Option<(EffectId, usize, bool)>,
    over: bool,
    seen: BTreeMap<String, u32>,
}

/// How long a rental without a word from anybody goes on, at most: payments are tried for a while, and calls may think.
const PATIENCE: Duration = Duration::from_secs(3_600);

fn orchestrator(n: u8) -> Url {
    Url::parse(&format!("https://o{n}:8935")).expect("a URL")
}

impl Player {
    /// A rental; the byte picks its use, and who pays.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let key = Key::named("payer");
        let chain = ChainView::development();
        let (payer, _) = payer(flavour, &key, &chain);
        let session = flavour & 4 == 0;
        let may_repeat = flavour & 8 != 0;
        let leaves = flavour & 15 == 7;
        let plan = match session {
            true => Use::Session,
            false => Use::Call(Call {
                may_repeat,
                upgrade: leaves.then(|| "websocket".to_owned()),
                ..Call::post("v1/run?x=1".into(), vec![flavour; 8].into())
            }),
        };
        let config = Config {
            // No exchange is left alone for longer than the book allows.
            head_within: Duration::from_secs(100),
            silence: Duration::from_secs(100),
            ..Config::default()
        };
        let all = (0..3).map(orchestrator);
        let wanted = Wanted {
            apps: vec!["x/y".into()],
            ..Wanted::default()
        };
        let rental = Rental::new(now, config, all, wanted, plan, payer, History::default());
        let mut player = Self {
            now,
            book: Exchanges::default(),
            rental,
            session,
            may_repeat,
            slow: flavour & 32 != 0,
            free: (flavour & 128 != 0).then_some("o0"),
            metered: flavour & 64 == 0,
            ours: Ours::new(now, key, Budget::unlimited(), true),
            chain,
            open: BTreeMap::new(),
            demands: 0,
            payments: BTreeMap::new(),
            may_have_run: false,
            refused: BTreeSet::new(),
            reserved: BTreeSet::new(),
            tickets: BTreeMap::new(),
            headed: false,
            leaves,
            beyond: None,
            over: false,
            seen: BTreeMap::new(),
        };
        player.drain();
        if flavour & 16 != 0 {
            player.play(&Step::Serve);
        }
        player
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Answer(pick, kind) => self.answer(pick, kind, true),
            Step::Begin(pick, kind) => self.answer(pick, kind, false),
            Step::Fail(pick, connected) => {
                if let Some(id) = nth(pick, self.open.keys().copied()) {
                    let request = self.open.remove(&id).expect("picked");
                    if connected {
                        self.ran(id, &request);
                    }
                    self.http(id, In::Failed(fault(connected)));
                }
            }
            Step::Stored(pick, keeps) => {
                for stored in self.ours.stored(now, pick, keeps) {
                    self.input(stored);
                }
            }
            Step::Signed(pick, signs) => {
                if let Some(signed) = self.ours.signed(pick, signs) {
                    self.input(signed);
                }
            }
            Step::Hold(held) => self.rental.hold(now, held),
            Step::Say(255) => self.rental.say_no_more(now),
            Step::Say(200..) => {
                if let Some((id, untaken, _)) = &mut self.beyond
                    && self.open.contains_key(id)
                {
                    let (id, taken) = (*id, std::mem::take(untaken));
                    self.http(id, In::Sent(taken));
                }
            }
            Step::Say(bytes) => {
                self.rental
                    .say(now, vec![0; usize::from(bytes) * 1024].into());
            }
            Step::Serve => self.serve(),
            Step::Pass(tens) => {
                let tens = u64::from(tens);
                for _ in 0..4 {
                    self.pass(Duration::from_millis(tens * tens * 10) / 4);
                    self.sign_and_store();
                }
            }
            Step::Close => self.rental.close(now),
        }
        self.drain();
        assert_eq!(self.rental.is_over(), self.over);
    }

    /// Ends the play: nobody answers any more, and the rental ends when it is closed.
    ///
    /// # Panics
    /// If it does not.
    pub fn finish(&mut self) {
        self.rental.hold(self.now, false);
        self.drain();
        self.pass(Duration::from_secs(300));
        self.rental.close(self.now);
        self.drain();
        self.pass(PATIENCE);
        assert!(self.over, "it goes on for ever");
        assert!(self.open.is_empty(), "{:?} are open at the end", self.open);
    }

    /// The exchange that is answered next. Some apps take their time, and so do some who are paid.
    fn next_to_serve(&self) -> Option<u8> {
        let waits = |request: &Request| {
            self.slow && (Self::is_call(request) || request.url.path().ends_with("/payment"))
        };
        let place = self.open.values().position(|request| !waits(request))?;
        u8::try_from(place).ok()
    }

    fn serve(&mut self) {
        for _ in 0..60 {
            self.sign_and_store();
            match self.next_to_serve() {
                Some(pick) => self.answer(pick, 255, true),
                None => return,
            }
        }
    }

    /// Our own side does what it was asked for.
    fn sign_and_store(&mut self) {
        for _ in 0..100 {
            match self.ours.serve(self.now) {
                Some(done) => done.into_iter().for_each(|input| self.input(input)),
                None => return,
            }
        }
    }

    /// Whether a request is the call itself.
    fn is_call(request: &Request) -> bool {
        request.url.path().contains("/app/v1/run")
    }

    fn ran(&mut self, id: EffectId, request: &Request) {
        // Who demands money does so before anything runs.
        let priced = self.free != Some(request.url.host());
        let paid = request.headers.get(PAYMENT_HEADER).is_some();
        if Self::is_call(request) && !self.refused.contains(&id) && (paid || !priced) {
            self.may_have_run = true;
        }
    }

    fn listing(&self, of: &Url, kind: u8) -> Vec<u8> {
        let mode = if self.session {
            Mode::Persistent
        } else {
            Mode::SingleShot
        };
        let end = if self.session { "session" } else { "app" };
        let runners = (0..kind % 3 + 1).map(|n| Runner {
            url: of.with_path(&format!("/apps/r{n}/{end}")),
            app: if n == 2 { "other".into() } else { "x/y".into() },
            version: String::new(),
            mode: Some(mode),
            capacity: 1,
            used: 0,
            available: u32::from(kind & 8 == 0),
            gpu: None,
            metadata: None,
            price: (self.free != Some(of.host())).then(|| RunnerPrice {
                wei: Amount::from(&Wei::from(10_u64)),
                unit: if self.metered {
                    Unit::PixelSeconds
                } else {
                    Unit::Fixed
                },
            }),
        });
        listing_json(of, &runners.collect::<Vec<_>>()).to_vec()
    }

    fn demand(&mut self, request: &Request, kind: u8) -> Vec<u8> {
        self.demands += 1;
        let mut info = quote(self.now, 0, if kind < 64 { kind } else { GOOD });
        info.transcoder = request.url.origin();
        if let Some(params) = &mut info.ticket_params {
            let mut hash = [1; 32];
            hash[..4].copy_from_slice(&self.demands.to_be_bytes());
            params.recipient_rand_hash = hash.to_vec().into();
        }
        let id = format!("s{}", self.demands);
        if let Some(token) = &mut info.auth_token {
            token.session_id.clone_from(&id);
        }
        let Ok(info) = OrchestratorInfo::decode(info.encode_to_vec().into()) else {
            return b"{\"payment_params\":\"!\"}".to_vec();
        };
        let session = Session::at(&request.url.with_path("/apps/r0/session"), &id);
        Challenge {
            info,
            orchestrator: request.url.with_path("/"),
            manifest_id: id,
            payment_url: session.payment_url(),
        }
        .to_json()
    }

    fn answer(&mut self, pick: u8, kind: u8, ends: bool) {
        let Some(id) = nth(pick, self.open.keys().copied()) else {
            return;
        };
        let request = self.open[&id].clone();
        let path = request.url.path();
        let good = kind >= 128;
        if path == "/sign-orchestrator-info" && good {
            self.open.remove(&id);
            let key = self.ours.key().clone();
            return self.identify(id, &key);
        }
        let paid = request.headers.get(PAYMENT_HEADER).is_some();
        let free = self.free == Some(request.url.host());
        let (status, body) = if request.url.host() == "signer" {
            let kind = if good { GOOD } else { kind };
            signers_answer(self.now, self.ours.key(), &self.chain, &request, kind)
        } else if path.starts_with("/discovery") {
            match kind % 16 {
                3 if !good => (404, b"live runners are not supported\n".to_vec()),
                4 if !good => (200, b"{}".to_vec()),
                _ => (200, self.listing(&request.url.with_path("/"), kind)),
            }
        } else if path.ends_with("/refresh-payment") {
            (
                409,
                b"{\"error\":{\"message\":\"fixed price not found for session\"}}".to_vec(),
            )
        } else if path.ends_with("/payment") {
            match kind % 8 {
                1 if !good => (404, b"session not found\n".to_vec()),
                2 if !good => (403, b"no\n".to_vec()),
                3 if !good => (500, Vec::new()),
                _ => (200, Vec::new()),
            }
        } else if path.ends_with("/stop") {
            let control = request.url.to_string();
            self.reserved.remove(control.trim_end_matches("/stop"));
            (if kind % 4 == 1 { 404 } else { 204 }, Vec::new())
        } else if !paid && !free && (good || !kind.is_multiple_of(8)) {
            self.refused.insert(id);
            (402, self.demand(&request, kind))
        } else {
            self.made(id, &request, kind)
        };
        let mut head = Response::new(status).header("content-type", "application/json");
        if status == SWITCHING {
            head.headers.push("upgrade", "websocket");
            self.beyond = Some((id, 0, true));
        }
        self.http(id, In::Reply(head));
        if self.open.contains_key(&id) {
            self.http(id, In::Data(body.into()));
        }
        if ends && self.open.remove(&id).is_some() {
            self.http(id, In::End(Headers::new()));
        }
    }

    /// The answer to a reservation, or to a call.
    fn made(&mut self, id: EffectId, request: &Request, kind: u8) -> (u16, Vec<u8>) {
        let kind = if kind < 128 { kind % 16 } else { 15 };
        let own = |status, text: &str| (status, text.as_bytes().to_vec());
        let refusal = match kind {
            1 => Some(own(503, "no capacity available for runner\n")),
            2 => Some(own(404, "runner not found\n")),
            3 => Some(own(
                402,
                "{\"error\":{\"message\":\"invalid live runner payment signer address\"}}",
            )),
            4 => Some(own(400, "TicketParams expired\n")),
            5 => Some(own(403, "expired auth token\n")),
            6 => Some(own(502, "dial tcp 10.0.0.2:1: refused\n")),
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.refused.insert(id);
            return refusal;
        }
        if !self.session {
            self.ran(id, request);
            let good = if self.leaves { SWITCHING } else { 200 };
            return own(if kind == 7 { 500 } else { good }, "ok");
        }
        let session = Session::at(&request.url, &format!("s{}", self.demands.max(1)));
        match kind {
            7 => own(500, "boom"),
            8 => own(409, "session exists\n"),
            9 => (
                200,
                format!("{{\"session_id\":\"{}\"}}", session.id).into_bytes(),
            ),
            10 => own(200, "{}"),
            _ => (200, session.to_json().to_vec()),
        }
    }

    fn check_tickets(&mut self, request: &Request) {
        let Some(header) = request
            .headers
            .get(PAYMENT_HEADER)
            .filter(|header| !header.is_empty())
        else {
            return;
        };
        let payment = Payment::decode(header).expect("a payment");
        let Some(params) = payment.ticket_params else {
            return;
        };
        let path = request.url.path();
        if !path.ends_with("/payment") {
            let runner = self
                .payments
                .entry(format!("{}{path}", request.url.origin()))
                .or_default();
            runner.insert(header.to_owned());
            assert!(runner.len() <= 3, "a runner is paid three times at most");
        }
        // The same payment may be sent once more: its tickets count once.
        let last = self.tickets.entry(params.recipient_rand_hash).or_default();
        for ticket in payment.tickets {
            *last = (*last).max(ticket.nonce);
        }
    }
}

impl Driven for Player {
    crate::driven!(rental: Rental, book);

    fn is_over(&self) -> bool {
        self.over
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                self.check_tickets(&request);
                if Self::is_call(&request) {
                    assert_eq!(request.method, Method::Post);
                    assert!(
                        !self.may_have_run || self.may_repeat,
                        "a call runs twice without leave"
                    );
                }
                self.open.insert(id, request);
            }
            Effect::Http(Out::Abort) => {
                if let Some(request) = self.open.remove(&id) {
                    self.ran(id, &request);
                }
            }
            Effect::Http(Out::Data(bytes)) => {
                let (of, untaken, more) = self.beyond.as_mut().expect("HTTP was left");
                assert!(*of == id && *more, "nothing follows the end");
                *untaken += bytes.len();
            }
            Effect::Http(Out::End(_)) => {
                let (of, _, more) = self.beyond.as_mut().expect("HTTP was left");
                assert!(*of == id && std::mem::take(more), "one end");
            }
            Effect::Http(_) => {}
            ours => {
                for input in self.ours.asked(self.now, id, ours) {
                    self.feed(input);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.over, "{event:?} after the last event");
        *self.seen.entry(first_word(&event)).or_default() += 1;
        match event {
            Event::Reserved { session, .. } => {
                assert!(self.session);
                self.reserved.insert(session.control.to_string());
            }
            Event::Head(_) => {
                assert!(!self.session && !self.headed, "one head");
                self.headed = true;
            }
            Event::Data(_) => assert!(self.headed),
            Event::Done => {
                assert!(self.headed);
                self.over = true;
            }
            Event::Released | Event::Closed => self.over = true,
            Event::Failed(failed) => {
                *self.seen.entry(first_word(&failed)).or_default() += 1;
                assert!(matches!(*failed, Failed::Broken { .. }) == self.headed);
                assert!(self.reserved.is_empty(), "a session is not forgotten");
                self.over = true;
            }
            _ => {}
        }
    }
}

/// Plays what a reel says, and ends the play. Tells how often what happened.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    while !reel.is_empty() {
        player.play(&Step::read(&mut reel));
    }
    player.finish();
    player.seen
}
