//! A signer that is asked anything by many at once, with a slow key and a moody webhook.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use livepeer_core::capabilities::Ceilings;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Request, Response, Url};
use livepeer_core::money::{Price, Wei};
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::nonce::{NONCE_KEY, RandHash};
use livepeer_core::payment::remote::{Config, Event, Webhook};
use livepeer_core::payment::ticket::certain;
use livepeer_core::payment::{SignerServer, Ticket, Unit};
use livepeer_core::sign::SignRefused;
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::wire::byoc::{
    JobRequest, SIGN_JOB_PATH, Scheme, SignRequest, read_job_signature,
};
use livepeer_core::wire::signer::{
    DISCOVERY_PATH, MaxPrice, PAYMENT_PATH, PaymentRequest, PaymentResponse, SIGN_INFO_PATH,
    StateBlob,
};
use livepeer_core::wire::{Payment, SegmentCredentials, SignerState, read_identity};
use livepeer_core::{Digest, Effect, EffectId, Input, Time};
use livepeer_proto::net;
use prost::Message as _;

use super::Reel;
use super::reel::nth;
use crate::Key;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// Somebody opens a request of some kind, for a path.
    Open(u8, Vec<u8>),
    /// The n-th request's body goes on.
    Body(u8),
    /// The n-th request's body ends.
    End(u8),
    /// The n-th caller goes away.
    Leave(u8),
    /// The n-th signature is there, or refused.
    Signed(u8, bool),
    /// The n-th record is stored, or not.
    Stored(u8, bool),
    /// The n-th question to the webhook is answered.
    Webhook(u8, u8),
    /// The chain goes on by so many blocks.
    Blocks(u8),
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(19) {
            0..=2 => Self::Open(reel.byte(), (0..8).map(|_| reel.byte()).collect()),
            3 | 4 => Self::Body(reel.byte()),
            5 | 6 => Self::End(reel.byte()),
            7 if reel.below(4) == 0 => Self::Leave(reel.byte()),
            7..=11 => Self::Signed(reel.byte(), reel.below(32) != 0),
            15..=17 => Self::Stored(reel.byte(), reel.below(32) != 0),
            12 | 13 => Self::Webhook(reel.byte(), reel.byte()),
            14 => Self::Blocks(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

struct Caller {
    body: Vec<u8>,
    given: usize,
    ended: bool,
    since: Time,
}

/// Plays steps against a signer.
pub struct Player {
    now: Time,
    book: Exchanges,
    signer: SignerServer,
    key: Key,
    chain: ChainView,
    callers: BTreeMap<EffectId, Caller>,
    opened: u64,
    unsigned: Vec<(EffectId, Digest)>,
    unsaved: Vec<(EffectId, Record)>,
    /// The records in the store, by key.
    kept: BTreeMap<String, Record>,
    /// Nonces given out, each with its commitment.
    spent: BTreeSet<(RandHash, u32)>,
    asked: Vec<EffectId>,
    states: Vec<StateBlob>,
    /// How often each status was answered.
    seen: BTreeMap<u16, u32>,
}

const PRICE: i64 = 20;

impl Player {
    /// A signer; the bits pick what it has.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let key = Key::named("payer");
        let chain = ChainView::development();
        let mut policy = Policy::new(key.address());
        if flavour & 1 != 0 {
            policy.ceilings = Ceilings::of(Price::new(PRICE + 2, 1).expect("a price"));
        }
        let mut config = Config::new(policy);
        config.discovery = flavour & 2 != 0;
        config.webhook = (flavour & 4 != 0).then(|| Webhook {
            url: Url::parse("http://hook/auth").expect("a URL"),
            headers: Headers::new(),
        });
        Self {
            now,
            book: Exchanges::default(),
            signer: SignerServer::new(now, config, chain.clone(), [1; 32]),
            key,
            chain,
            callers: BTreeMap::new(),
            opened: 0,
            unsigned: Vec::new(),
            unsaved: Vec::new(),
            kept: BTreeMap::new(),
            spent: BTreeSet::new(),
            asked: Vec::new(),
            states: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Open(kind, pieces) => self.open(*kind, pieces),
            Step::Body(pick) => {
                if let Some(id) = self.pick(*pick) {
                    let caller = self.callers.get_mut(&id).expect("picked");
                    let end = (caller.given + caller.body.len() / 2 + 1).min(caller.body.len());
                    let piece = caller.body[caller.given..end].to_vec();
                    caller.given = end;
                    self.http(id, In::Data(piece.into()));
                }
            }
            Step::End(pick) => {
                if let Some(id) = self.pick(*pick) {
                    self.end(id);
                }
            }
            Step::Leave(pick) => {
                if let Some(id) = self.pick(*pick) {
                    self.callers.remove(&id);
                    let fault = Fault::Broken("gone".into());
                    self.http(id, In::Failed(fault));
                }
            }
            Step::Signed(pick, signs) => {
                if !self.unsigned.is_empty() {
                    let index = usize::from(*pick) % self.unsigned.len();
                    self.sign(index, *signs);
                }
            }
            Step::Stored(pick, keeps) => {
                if !self.unsaved.is_empty() {
                    let index = usize::from(*pick) % self.unsaved.len();
                    let (id, record) = self.unsaved.remove(index);
                    let answer = match keeps {
                        true => {
                            self.kept.insert(record.key.clone(), record);
                            Ok(())
                        }
                        false => Err(StoreFailed("disk full".into())),
                    };
                    self.input(Input::Stored(id, answer));
                }
            }
            Step::Webhook(pick, kind) => self.webhook(*pick, *kind),
            Step::Blocks(by) => {
                self.chain.l1_block += u64::from(by % 8);
                self.signer.set_chain(self.now, self.chain.clone());
            }
            Step::Pass(tens) => {
                let tens = u64::from(*tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
        }
        self.drain();
    }

    fn pick(&self, pick: u8) -> Option<EffectId> {
        let open = self.callers.iter().filter(|(_, caller)| !caller.ended);
        nth(pick, open.map(|(id, _)| *id))
    }

    fn open(&mut self, kind: u8, pieces: &[u8]) {
        let id = EffectId::by_peer(self.opened);
        self.opened += 1;
        let path = match kind % 16 {
            0 => SIGN_INFO_PATH,
            1 => DISCOVERY_PATH,
            2 => "/other",
            4 => SIGN_JOB_PATH,
            _ => PAYMENT_PATH,
        };
        let method = match kind % 16 {
            1 | 3 => Method::Get,
            _ => Method::Post,
        };
        let url = Url::parse("http://signer").expect("a URL").with_path(path);
        let mut request = Request::new(method, url);
        request.peer = Some(IpAddr::from([192, 0, 2, pieces[0] % 4]));
        if pieces[0].is_multiple_of(8) {
            request
                .headers
                .push("signer-auth-id", format!("{}", pieces[0] % 16));
        }
        let caller = Caller {
            body: self.body(kind, pieces),
            given: 0,
            ended: false,
            since: self.now,
        };
        self.callers.insert(id, caller);
        self.http(id, In::Request(request));
    }

    /// A payment request that is right, or nearly.
    fn body(&self, kind: u8, pieces: &[u8]) -> Vec<u8> {
        if kind / 16 == 0 {
            return pieces.to_vec();
        }
        if kind % 16 == 4 {
            let job = JobRequest {
                id: "job".into(),
                request: ["{}", "{\"a\":1}", "", "["][usize::from(pieces[0] % 4)].into(),
                capability: "turn".into(),
                timeout_seconds: u32::from(pieces[1] % 8),
                ..JobRequest::default()
            };
            return SignRequest(job).to_json().to_vec();
        }
        let ev = 8_000_000_000_u64;
        let bytes = |wei: u64| Wei::from(wei).to_be_bytes().into();
        let expiration = i64::try_from(self.now.as_secs()).expect("a stamp") + 1_800;
        let mut info = net::OrchestratorInfo {
            transcoder: "https://orch:8935".into(),
            ticket_params: Some(net::TicketParams {
                recipient: vec![0x0e; 20].into(),
                face_value: bytes(ev * 3),
                win_prob: Wei::from(certain() / 3_u32).to_be_bytes().into(),
                recipient_rand_hash: vec![pieces[1] % 4; 32].into(),
                seed: vec![1].into(),
                expiration_block: bytes(1_040),
                expiration_params: None,
            }),
            price_info: Some(net::PriceInfo {
                price_per_unit: PRICE + i64::from(pieces[2] % 4),
                pixels_per_unit: 1,
                ..net::PriceInfo::default()
            }),
            address: vec![0x0e; 20].into(),
            auth_token: Some(net::AuthToken {
                token: vec![2; 32].into(),
                session_id: "session".into(),
                expiration,
            }),
            ..net::OrchestratorInfo::default()
        };
        match pieces[3] % 32 {
            0 => info.ticket_params = None,
            1 => info.price_info = None,
            2 => info.auth_token = None,
            3 => info.address = vec![5; 20].into(),
            4 => info.auth_token.as_mut().expect("there is one").expiration = 1,
            _ => {}
        }
        let state = match pieces[5] % 4 {
            0 => StateBlob::default(),
            1 if pieces[6].is_multiple_of(8) => StateBlob {
                state: b"{}".to_vec().into(),
                sig: vec![1; 65].into(),
            },
            _ if self.states.is_empty() => StateBlob::default(),
            // The newest ones are asked for most, as clients do.
            2 => self.states[self.states.len() - 1].clone(),
            _ => self.states[usize::from(pieces[6]) % self.states.len()].clone(),
        };
        let job_types = ["lv2v", "live", "fixed", "", "bogus", "lv2v", "lv2v", "lv2v"];
        let remembered = SignerState::from_json(&state.state).ok();
        let job_type = match remembered {
            // A session mostly stays what it is.
            Some(state) if pieces[4] >= 64 => state.job_type,
            _ => job_types[usize::from(pieces[4] % 8)].into(),
        };
        PaymentRequest {
            state,
            orchestrator: Some(info.encode_to_vec().into()),
            manifest_id: if pieces[7].is_multiple_of(16) {
                String::new()
            } else {
                "job".into()
            },
            in_pixels: i64::from(pieces[7]) - 3,
            max_price: (pieces[7] % 8 == 1).then(|| {
                let unit = Unit::from_signer_type(&job_type).unwrap_or(Unit::Fixed);
                MaxPrice::new(format!("{}.5", PRICE - 1 + i64::from(pieces[2] % 2)), unit)
            }),
            job_type,
            ..PaymentRequest::default()
        }
        .to_json()
    }

    fn end(&mut self, id: EffectId) {
        if let Some(caller) = self.callers.get_mut(&id) {
            caller.ended = true;
            let rest = caller.body[caller.given..].to_vec();
            self.http(id, In::Data(rest.into()));
        }
        self.http(id, In::End(Headers::new()));
    }

    fn sign(&mut self, index: usize, signs: bool) {
        let (id, digest) = self.unsigned.remove(index);
        let answer = if signs {
            Ok(self.key.sign(digest))
        } else {
            Err(SignRefused("locked".into()))
        };
        self.input(Input::Signed(id, answer));
    }

    fn webhook(&mut self, pick: u8, kind: u8) {
        if self.asked.is_empty() {
            return;
        }
        let id = self.asked.remove(usize::from(pick) % self.asked.len());
        let (status, body) = match kind % 16 {
            0 => (200, r#"{"status":403,"reason":"denied"}"#),
            1 => (200, r#"{"status":99}"#),
            2 => (500, ""),
            3 => (200, "nonsense"),
            4 => (200, r#"{"status":200,"auth_id":"x"}"#),
            5 => (200, r#"{"status":200,"expiry":1790000100}"#),
            6 => (
                200,
                r#"{"status":200,"maxPrice":{"price":1,"currency":"wei","unit":"fixed"}}"#,
            ),
            7 => {
                let fault = Fault::Connect("refused".into());
                return self.http(id, In::Failed(fault));
            }
            _ => (200, r#"{"status":200}"#),
        };
        self.respond(id, status, body);
    }

    fn replied(&mut self, id: EffectId, reply: Response) {
        let caller = self.callers.remove(&id).expect("one answer for one caller");
        *self.seen.entry(reply.status).or_default() += 1;
        let Body::Full(body) = reply.body else {
            panic!("an answer is whole");
        };
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        if reply.status != 200 {
            assert!(json["error"]["message"].is_string());
            return;
        }
        if let Ok((address, _)) = read_identity(&body) {
            assert_eq!(address, self.key.address());
            return;
        }
        if let Ok(SignRequest(job)) = SignRequest::from_json(&caller.body) {
            let signed = read_job_signature(&body, &job);
            let (signed, scheme) = signed.expect("signed");
            assert_eq!((signed.sender, scheme), (self.key.address(), Scheme::Texts));
            assert!(caller.ended);
            return;
        }
        let made = PaymentResponse::from_json(&body).expect("a payment");
        let payment = Payment::decode(&made.payment).expect("a payment");
        let params = payment.ticket_params.as_ref().expect("tickets");
        assert!(!payment.tickets.is_empty() && payment.tickets.len() <= 100);
        for sent in &payment.tickets {
            let ticket = Ticket::new(params, self.key.address(), sent.nonce);
            ticket.verify(&sent.signature).expect("signed");
            let new = self.spent.insert((params.recipient_rand_hash, sent.nonce));
            assert!(new, "a nonce was used twice");
        }
        let kept = format!("{NONCE_KEY}{}", hex::encode(params.recipient_rand_hash));
        assert!(
            self.kept.contains_key(&kept),
            "spoken of before it was stored"
        );
        let credentials = SegmentCredentials::decode(&made.segment).expect("credentials");
        credentials.verify(self.key.address()).expect("signed");
        let state = SignerState::from_json(&made.state.state).expect("a state");
        assert_eq!(
            state.to_json().as_bytes(),
            &*made.state.state,
            "stable bytes"
        );
        let zero = livepeer_core::money::Amount::zero();
        assert!(state.balance >= zero, "minted less than billed");
        assert!(caller.ended);
        self.states.push(made.state);
    }
}

impl Driven for Player {
    crate::driven!(signer: SignerServer, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Sign(digest) => self.unsigned.push((id, digest)),
            Effect::Store(record) => self.unsaved.push((id, record)),
            Effect::Spend(_) => panic!("a signer has no limit that others share"),
            Effect::Http(Out::Request(_)) => self.asked.push(id),
            Effect::Http(Out::Abort) => {
                assert!(!id.is_by_peer());
                self.asked.retain(|asked| *asked != id);
            }
            Effect::Http(Out::Reply(reply)) => self.replied(id, reply),
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        if let Event::Minted { tickets, .. } = event {
            assert!(tickets <= 100);
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        assert_eq!(
            self.signer.open_exchanges(),
            self.callers.len(),
            "an exchange for each caller who waits"
        );
        for caller in self.callers.values() {
            let longest = Duration::from_secs(10 + 5 + 30 + 30);
            assert!(
                caller.since + longest >= self.now,
                "a caller is left waiting"
            );
        }
    }
}

/// Plays what the bytes say; hands back how often each status was answered.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<u16, u32> {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    // Nobody moves any more: every caller gets an answer all the same.
    player.pass(Duration::from_secs(90));
    assert!(player.callers.is_empty(), "a caller got no answer");
    player.seen
}
