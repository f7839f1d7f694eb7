//! A payer whose signer and orchestrator answer as they like.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use livepeer_core::capabilities::Ceilings;
use livepeer_core::chain::ChainView;
use livepeer_core::error::{Cause, Failure, Party};
use livepeer_core::http::{Body, Fault, Headers, In, Out, Request, Response, Url};
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::Budget;
use livepeer_core::payment::mint::{Policy, plan};
use livepeer_core::payment::session::{Config, Delivered, Event, Fee, LocalAccount, PaymentId};
use livepeer_core::payment::ticket::certain;
use livepeer_core::payment::{Payer, PaymentSession, Ticket, Unit};
use livepeer_core::sign::SignRefused;
use livepeer_core::store::StoreFailed;
use livepeer_core::wire::challenge::{Challenge, REFRESH_PATH};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER, payment_result};
use livepeer_core::wire::signer::{PaymentRequest, PaymentResponse, StateBlob, error_json};
use livepeer_core::wire::{OrchestratorInfo, Payment, SegmentCredentials};
use livepeer_core::{Address, Digest, Effect, EffectId, Input, Misuse, Rng, Signers, Time};
use livepeer_proto::net;
use prost::Message as _;

use super::Reel;
use super::reel::{count_all, nth};
use crate::purse::Wish;
use crate::{Driven, Exchanges, Key, Purse};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The owner asks for a payment, for that many units or for the time.
    Pay(u8),
    /// The owner tells what became of the payment that it delivers.
    Delivered(bool),
    /// The owner has a fresh quote of some quality.
    Renew(u8),
    /// The owner finds no quote.
    NoQuote,
    /// The owner names the job.
    Name,
    /// The owner starts the pace: so many seconds.
    StartPacing(u8),
    /// The owner stops it.
    Pause,
    /// The owner closes.
    Close,
    /// The n-th exchange is answered with this.
    Answer(u8, u8),
    /// The n-th exchange breaks, before or after it was connected.
    Fail(u8, bool),
    /// The n-th record is durable, or was not kept.
    Stored(u8, bool),
    /// The n-th signature is there, or refused.
    Signed(u8, bool),
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(20) {
            0 | 1 => Self::Pay(reel.byte()),
            2 | 3 => Self::Delivered(reel.below(4) != 0),
            4 if reel.below(4) == 0 => Self::NoQuote,
            4 => Self::Renew(reel.byte()),
            5 => Self::Name,
            6 => Self::StartPacing(reel.byte()),
            7 => Self::Pause,
            8 if reel.below(16) == 0 => Self::Close,
            8..=12 => Self::Answer(reel.byte(), reel.byte()),
            13 => Self::Fail(reel.byte(), reel.below(2) == 0),
            14 | 15 => {
                let pick = reel.byte();
                Self::Stored(pick, pick < 240)
            }
            16 | 17 => Self::Signed(reel.byte(), reel.below(16) != 0),
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// Plays steps against a session.
pub struct Player {
    now: Time,
    book: Exchanges,
    session: PaymentSession,
    key: Key,
    chain: ChainView,
    open: BTreeMap<EffectId, Request>,
    unsaved: Vec<EffectId>,
    /// The limit on spending, and records of it that are not answered.
    purse: Purse,
    uncounted: Vec<EffectId>,
    /// The worth of each payment that left.
    left: BTreeMap<String, Amount>,
    unsigned: Vec<(EffectId, Digest)>,
    quotes: u8,
    /// The quote that is in use.
    info: Arc<OrchestratorInfo>,
    payer: Option<PaymentId>,
    limit: Amount,
    failed: bool,
    closed: bool,
    /// How often each event was told, and each rule of the guard broken.
    seen: BTreeMap<String, u32>,
}

pub(super) fn first_word(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

pub(super) const PRICE: i64 = 10;

/// A job may end so long before what was paid is used up.
const MARGIN: Duration = Duration::from_secs(10);

/// The kind of an answer as it should be.
pub(super) const GOOD: u8 = 13;

/// The highest price that the payer accepts.
const CEILING: i64 = PRICE + 5;

pub(super) fn quote(now: Time, n: u8, kind: u8) -> net::OrchestratorInfo {
    // One ticket is worth about half a minute.
    let ev = 10_u64 * 27_648_000 * 30;
    let bytes = |wei: u64| Wei::from(wei).to_be_bytes().into();
    let mut hash = [n; 32];
    hash[0] = 1;
    let expiration = i64::try_from(now.as_secs()).expect("a stamp") + 1_800;
    let mut info = net::OrchestratorInfo {
        transcoder: "https://orch:8935".into(),
        ticket_params: Some(net::TicketParams {
            recipient: vec![0x0e; 20].into(),
            face_value: bytes(ev * 3),
            win_prob: Wei::from(certain() / 3_u32).to_be_bytes().into(),
            recipient_rand_hash: hash.to_vec().into(),
            seed: vec![1].into(),
            expiration_block: bytes(2_000),
            expiration_params: Some(net::TicketExpirationParams {
                creation_round: 100,
                creation_round_block_hash: vec![0x11; 32].into(),
            }),
        }),
        price_info: Some(net::PriceInfo {
            price_per_unit: PRICE,
            pixels_per_unit: 1,
            ..net::PriceInfo::default()
        }),
        address: vec![0x0e; 20].into(),
        auth_token: Some(net::AuthToken {
            token: vec![2; 32].into(),
            session_id: format!("session-{n}"),
            expiration,
        }),
        ..net::OrchestratorInfo::default()
    };
    let price = info.price_info.as_mut().expect("there is one");
    match kind % 16 {
        0 => price.price_per_unit = PRICE + 1,
        1 => price.price_per_unit = PRICE - 1,
        2 => price.price_per_unit = 0,
        3 => info.price_info = None,
        4 => info.ticket_params = None,
        5 => info.address = vec![5; 20].into(),
        6 => info.auth_token = None,
        7 => info.auth_token.as_mut().expect("there is one").expiration = expiration - 1_700,
        8 => {
            let params = info.ticket_params.as_mut().expect("there are some");
            params.win_prob = Vec::new().into();
        }
        _ => {}
    }
    info
}

pub(super) fn decoded(info: &net::OrchestratorInfo) -> Arc<OrchestratorInfo> {
    Arc::new(OrchestratorInfo::decode(info.encode_to_vec().into()).expect("a good message"))
}

/// Makes a signer's answer: a payment as it should be, one that somebody tampered with, or something else.
pub(super) fn signers_answer(
    now: Time,
    key: &Key,
    chain: &ChainView,
    request: &Request,
    kind: u8,
) -> (u16, Vec<u8>) {
    let error = |status| (status, error_json("no"));
    let kind = if kind < 96 { kind % 32 } else { GOOD };
    match kind {
        24 => return error(480),
        25 => return error(481),
        26 => return error(482),
        27 => return error(400),
        28 => return error(500),
        29 => return (200, b"{}".to_vec()),
        30 => return (200, vec![b' '; (1 << 20) + 1]),
        31 => return error(301),
        _ => {}
    }
    let Body::Full(body) = &request.body else {
        panic!("signers are sent a whole body");
    };
    let asked = PaymentRequest::from_json(body).expect("our own");
    let policy = Policy::new(key.address());
    let mut rng = Rng::new([kind; 32]);
    let made = match plan(now, &policy, chain, &mut rng, &asked) {
        Ok(made) => made,
        Err(refusal) => return (refusal.status, error_json(refusal.public_message())),
    };
    let payer = key.address();
    let signatures: Vec<_> = made.digests(payer).map(|digest| key.sign(digest)).collect();
    let (payment, segment) = made.headers(payer, &signatures).expect("all are signed");
    let mut payment = Payment::decode(&payment).expect("our own");
    let mut credentials = SegmentCredentials::decode(&segment).expect("our own");
    tamper(key, kind, &mut payment, &mut credentials);
    let state = made.state.to_json();
    let sig = key.sign(Digest::personal(state.as_bytes()));
    let response = PaymentResponse {
        payment: payment.encode(),
        segment: credentials.encode(),
        state: StateBlob {
            state: state.into(),
            sig: sig.0.to_vec().into(),
        },
    };
    (200, response.to_json())
}

/// Does one of many wrongs to a payment, or none.
fn tamper(key: &Key, kind: u8, payment: &mut Payment, credentials: &mut SegmentCredentials) {
    let params = payment.ticket_params.as_mut().expect("a payment has some");
    match kind {
        0 => params.recipient = Address([5; 20]),
        1 => params.face_value = Wei::from(u64::MAX),
        2 => params.recipient_rand_hash[0] ^= 1,
        3 => payment.sender = Address([5; 20]),
        4 => payment.expected_price = Price::new(PRICE * 2, 1),
        5 => payment.tickets.clear(),
        6 => payment.tickets[0].signature = vec![1; 65].into(),
        7 => payment.tickets[0].nonce += 1,
        8 => {
            let twice = payment.tickets.clone();
            payment.tickets.extend(twice);
        }
        9 => {
            // Far too much, but well signed.
            let last = payment.tickets.last().expect("some").nonce;
            for nonce in last + 1..last + 60 {
                let digest = Ticket::new(params, payment.sender, nonce).digest();
                payment.tickets.push(livepeer_core::wire::SenderParams {
                    nonce,
                    signature: key.sign(digest).0.to_vec().into(),
                });
            }
        }
        10 => credentials.manifest_id = "another".into(),
        11 => credentials.auth_token = None,
        12 => credentials.signature = vec![1; 65].into(),
        _ => {}
    }
    if matches!(kind, 10 | 11) {
        credentials.signature = key.sign(credentials.digest()).0.to_vec().into();
    }
}

impl Player {
    /// A session; the byte picks who pays.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let key = Key::named("payer");
        let chain = ChainView::development();
        let limit = Amount::from(&Wei::from(10 * 27_648_000 * 60 * 7));
        let mut config = Config::new(Unit::PixelSeconds);
        config.ceilings = Ceilings::of(Price::new(CEILING, 1).expect("a price"));
        let limits = Budget::unlimited().per_job(limit.clone());
        let payer = match flavour % 4 {
            0 => Payer::Offchain,
            1 => {
                let policy = Policy::new(key.address());
                let account = LocalAccount::new(policy, chain.clone(), [1; 32]);
                Payer::Account(Box::new(account))
            }
            n => {
                let url = |n| Url::parse(&format!("http://signer-{n}")).expect("a URL");
                let signer = Signers::new(url(0));
                Payer::Remote(if n == 2 { signer } else { signer.or(url(1)) })
            }
        };
        let info = decoded(&quote(now, 0, 9));
        let mut player = Self {
            now,
            book: Exchanges::default(),
            session: PaymentSession::new(now, config, &info, payer, Some(key.address())),
            key,
            chain,
            open: BTreeMap::new(),
            unsaved: Vec::new(),
            purse: Purse::new(now, limits, flavour & 4 == 0),
            uncounted: Vec::new(),
            left: BTreeMap::new(),
            unsigned: Vec::new(),
            quotes: 0,
            info,
            payer: None,
            limit,
            failed: false,
            closed: false,
            seen: BTreeMap::new(),
        };
        player.drain();
        if flavour & 8 != 0 {
            player.start();
        }
        player
    }

    /// The first payment goes well, and the job runs.
    fn start(&mut self) {
        self.play(&Step::Pay(1));
        // A store, a signature for each ticket and the credentials, or a signer's answer.
        for _ in 0..8 {
            self.play(&Step::Stored(0, true));
            self.play(&Step::Signed(0, true));
            self.play(&Step::Answer(0, GOOD));
        }
        for step in [Step::Delivered(true), Step::Name, Step::StartPacing(5)] {
            self.play(&step);
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match *step {
            Step::Pay(units) => {
                let fee = match units % 4 {
                    0 => Fee::Units(u64::from(units) * 1_000_000),
                    _ => Fee::Elapsed,
                };
                let paid = self.session.pay(self.now, fee);
                if self.failed || self.closed {
                    assert_eq!(paid, Err(Misuse::Ended));
                }
            }
            Step::Delivered(accepted) => {
                if let Some(id) = self.payer.take() {
                    let how = if accepted {
                        Delivered::Accepted
                    } else {
                        Delivered::Refused
                    };
                    self.session.delivered(self.now, id, how);
                    // Saying it twice changes nothing.
                    self.session.delivered(self.now, id, how);
                }
            }
            Step::Renew(kind) => self.renew(kind),
            Step::NoQuote => {
                let who = Party::Orchestrator(self.info.transcoder.clone());
                let cause = Cause::Gone("the orchestrator");
                self.session.no_quote(self.now, Failure::new(who, cause));
            }
            Step::Name => self.session.set_manifest("job"),
            Step::StartPacing(seconds) => {
                let interval = Duration::from_secs(seconds.into());
                let started = self.session.start_pacing(self.now, interval);
                if self.failed || self.closed {
                    assert_eq!(started, Err(Misuse::Ended));
                }
            }
            Step::Pause => self.session.pause(),
            Step::Close => {
                self.session.close(self.now);
                self.closed = true;
            }
            Step::Answer(pick, kind) => self.answer(pick, kind),
            Step::Fail(pick, connected) => {
                if let Some(id) = self.pick(pick) {
                    self.open.remove(&id);
                    let fault = if connected {
                        Fault::Broken("reset".into())
                    } else {
                        Fault::Connect("refused".into())
                    };
                    self.http(id, In::Failed(fault));
                }
            }
            Step::Stored(pick, keeps) => {
                if !self.unsaved.is_empty() {
                    let index = usize::from(pick) % self.unsaved.len();
                    let id = self.unsaved.remove(index);
                    let answer = if keeps {
                        Ok(())
                    } else {
                        Err(StoreFailed("the disk is full".into()))
                    };
                    self.input(Input::Stored(id, answer));
                } else if !self.uncounted.is_empty() {
                    let id = self.uncounted.remove(0);
                    let full = || StoreFailed("the disk is full".into());
                    let answer = keeps.then_some(()).ok_or_else(full);
                    let wishes = self.purse.stored(self.now, id, answer);
                    self.perform(wishes);
                }
            }
            Step::Signed(pick, signs) => {
                if !self.unsigned.is_empty() {
                    let index = usize::from(pick) % self.unsigned.len();
                    let (id, digest) = self.unsigned.remove(index);
                    let answer = if signs {
                        Ok(self.key.sign(digest))
                    } else {
                        Err(SignRefused("locked".into()))
                    };
                    self.input(Input::Signed(id, answer));
                }
            }
            Step::Pass(tens) => {
                let tens = u64::from(tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
        }
        self.drain();
    }

    fn perform(&mut self, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Store(id, _) => self.uncounted.push(id),
                Wish::Answer(input) => self.feed(input),
            }
        }
    }

    fn renew(&mut self, kind: u8) {
        self.quotes = self.quotes.wrapping_add(1);
        // Half of them are good.
        let kind = if kind < 128 { kind } else { 9 };
        let info = decoded(&quote(self.now, self.quotes, kind));
        // A quote that ends the session is not in use.
        if (9..=15).contains(&(kind % 16)) || matches!(kind % 16, 1 | 7 | 8) {
            self.info = info.clone();
        }
        self.session.renew(self.now, &info);
    }

    fn pick(&self, pick: u8) -> Option<EffectId> {
        nth(pick, self.open.keys().copied())
    }

    fn answer(&mut self, pick: u8, kind: u8) {
        let Some(id) = self.pick(pick) else { return };
        let Some(request) = self.open.remove(&id) else {
            return;
        };
        let (status, body) = if request.url.host().starts_with("signer") {
            signers_answer(self.now, &self.key, &self.chain, &request, kind)
        } else {
            self.orchestrators_answer(request.url.path(), kind)
        };
        let head = Response::new(status).header("livepeer-orchestrator-url", "https://orch:8935");
        self.http(id, In::Reply(head));
        if kind & 0x80 != 0 && kind & 0x40 != 0 {
            let fault = Fault::Broken("in the middle".into());
            return self.http(id, In::Failed(fault));
        }
        let (one, two) = body.split_at(body.len() / 2);
        self.http(id, In::Data(one.to_vec().into()));
        self.http(id, In::Data(two.to_vec().into()));
        self.http(id, In::End(Headers::new()));
        // Steps after the last one mean nothing.
        self.http(id, In::End(Headers::new()));
    }

    fn orchestrators_answer(&mut self, path: &str, kind: u8) -> (u16, Vec<u8>) {
        let text = |status, text: &str| (status, text.as_bytes().to_vec());
        if path == REFRESH_PATH {
            return match kind % 8 {
                0 => text(404, "404 page not found"),
                1 => text(200, "garbage"),
                2 => text(409, "fixed price not found for session"),
                _ => {
                    self.quotes = self.quotes.wrapping_add(1);
                    let mut info = quote(self.now, self.quotes, kind / 8);
                    let token = info.auth_token.get_or_insert_default();
                    token.session_id = "job".into();
                    let orchestrator = self.info.transcoder.clone();
                    let demand = Challenge {
                        info: Arc::unwrap_or_clone(decoded(&info)),
                        payment_url: orchestrator.child("payment"),
                        orchestrator,
                        manifest_id: "job".into(),
                    };
                    (200, demand.to_json())
                }
            };
        }
        // Most answers are good: a session that ends at once shows little.
        match if kind < 96 { kind % 16 } else { 0 } {
            0..=4 => {
                self.quotes = self.quotes.wrapping_add(1);
                let mut info = quote(self.now, self.quotes, kind / 16);
                // The token stays the same on this way.
                info.auth_token = self.info.auth_token.clone().map(|one| one.to_wire());
                (200, payment_result(info).to_vec())
            }
            5 => text(200, "garbage"),
            6 => text(400, "TicketParams expired"),
            7 => text(400, "invalid ticket senderNonce: already seen"),
            8 => text(400, "invalid ticket signature"),
            9 => text(402, "unreadable"),
            10 => text(403, "expired auth token"),
            11 => text(403, "OrchestratorCapped"),
            12 => text(404, "no such job"),
            13 => text(500, "insufficient sender reserve"),
            14 => text([408, 502, 503, 504][usize::from(kind / 16) % 4], ""),
            _ => text(u16::from(kind) * 3, "whatever"),
        }
    }

    /// Checks that a payment that leaves is what the quote asks for, signed, and no more than a few minutes' worth.
    fn leaves(&mut self, header: &str, segment: &str) {
        let payment = Payment::decode(header).expect("readable");
        let credentials = SegmentCredentials::decode(segment).expect("readable");
        let payer = self.key.address();
        assert_eq!(payment.sender, payer);
        credentials.verify(payer).expect("signed by the payer");
        if payment.tickets.is_empty() {
            assert_eq!(payment.ticket_params, None);
            let price = self.session.info().price;
            assert!(
                price.is_some_and(|price| price.is_free()),
                "nothing for {price:?}"
            );
            return;
        }
        let params = payment.ticket_params.as_ref().expect("there are tickets");
        assert_eq!(params.recipient, Address([0x0e; 20]));
        assert!(payment.tickets.len() <= 100);
        let mut worth = Amount::zero();
        for sent in &payment.tickets {
            let ticket = Ticket::new(params, payer, sent.nonce);
            ticket.verify(&sent.signature).expect("signed by the payer");
            worth += &ticket.expected_value();
        }
        self.left.insert(header.to_owned(), worth);
        let price = payment.expected_price.expect("a price");
        assert!(price <= Price::new(CEILING, 1).expect("a price"));
    }

    /// Lets it be: it waits for nobody for ever, but for its owner, its store and its next payment.
    ///
    /// # Panics
    /// If it does.
    pub fn finish(&mut self) {
        self.session.pause();
        self.unsaved.clear();
        self.uncounted.clear();
        for _ in 0..1_000 {
            if self.drain().is_none() {
                break;
            }
            self.pass(Duration::from_secs(3_600));
        }
        assert_eq!(self.drain(), None, "it waits for ever");
        assert!(self.open.is_empty(), "an exchange is left open");
        self.session.close(self.now);
        self.drain();
        assert_eq!(self.session.pay(self.now, Fee::Elapsed), Err(Misuse::Ended));
        self.purse.forsake(self.now);
        let left: Amount = self.left.values().cloned().sum();
        assert_eq!(self.purse.budget().spent(), left, "what left, and no more");
    }
}

impl Driven for Player {
    crate::driven!(session: PaymentSession, book);

    const MAX_OUTPUTS: usize = 10_000;

    fn is_over(&self) -> bool {
        self.failed || self.closed
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                assert!(!self.failed && !self.closed, "it speaks after its end");
                if let Some(payment) = request.headers.get(PAYMENT_HEADER) {
                    let segment = request.headers.get(SEGMENT_HEADER).expect("both");
                    let (payment, segment) = (payment.to_owned(), segment.to_owned());
                    self.leaves(&payment, &segment);
                }
                self.open.insert(id, request);
                assert!(self.open.len() <= 1, "one exchange at a time");
            }
            Effect::Http(Out::Abort) => {
                self.open.remove(&id);
            }
            Effect::Http(other) => panic!("{other:?}"),
            Effect::Store(_) => self.unsaved.push(id),
            Effect::Spend(change) => {
                let wishes = self.purse.spend(self.now, id, change);
                self.perform(wishes);
            }
            Effect::Sign(digest) => self.unsigned.push((id, digest)),
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.failed, "{event:?} after the last event");
        let kind = match &event {
            Event::Failed(failure) | Event::Held(_, failure) => match &failure.cause {
                Cause::Guard(broken) => first_word(broken),
                cause => first_word(cause),
            },
            other => first_word(other),
        };
        *self.seen.entry(kind).or_default() += 1;
        if matches!(event, Event::Held(..)) {
            *self.seen.entry("Held".into()).or_default() += 1;
        }
        match event {
            Event::Ready(id, credentials) => {
                self.payer = Some(id);
                if !credentials.payment.is_empty() {
                    self.leaves(&credentials.payment, &credentials.segment);
                }
            }
            Event::Requoted(info) => self.info = info,
            Event::Failed(failure) => {
                self.failed = true;
                // What was paid is not given up for anything that only the next payment needs.
                let lasts = self
                    .session
                    .covered_until()
                    .is_some_and(|until| until > self.now + MARGIN);
                let orchestrators = matches!(failure.who, Party::Orchestrator(_));
                let dear = matches!(&failure.cause, Cause::TooDear { .. } | Cause::Guard(_));
                assert!(!lasts || (orchestrators && !dear), "{failure}");
            }
            _ => {}
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        let spent = self.purse.budget().spent();
        assert!(spent <= self.limit, "above the limit");
        assert!(*self.session.total() <= spent);
        if self.failed || self.closed {
            assert_eq!(wake, None, "an ended session sleeps");
        }
    }
}

/// Plays what the bytes say, with one session after the other; hands back how often each thing happened.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    Reel::new(data).play_each(Player::new, |player, reel| {
        if let Some(reel) = reel {
            player.play(&Step::read(reel));
            return player.failed || player.closed;
        }
        player.finish();
        count_all(&mut seen, &player.seen);
        true
    });
    seen
}
