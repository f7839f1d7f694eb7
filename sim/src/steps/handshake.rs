//! A handshake whose signers and orchestrator answer as they like.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::{Config, Event, Handshake, Identity, PinChange};
use livepeer_core::http::{Fault, Headers, In, Out, Response, Trust, Url};
use livepeer_core::sign::SignRefused;
use livepeer_core::wire::grpc::{self, Status};
use livepeer_core::wire::{OrchestratorInfo, identity_digest};
use livepeer_core::{Effect, EffectId, Input, Misuse, Signature, SignerHealth, Signers, Time};
use livepeer_proto::net;
use prost::Message as _;

use super::Reel;
use crate::Key;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The owner wants fresh info.
    Renew,
    /// The owner brings a piggybacked quote, picked by the byte.
    Adopt(u8),
    /// The owner closes.
    Close,
    /// The open exchange is answered well, with an info picked by the byte.
    Good(u8),
    /// The open exchange is answered badly.
    Bad(u8),
    /// The open exchange brings raw bytes.
    Data(Vec<u8>),
    /// The open exchange ends as it is.
    End,
    /// The open exchange breaks.
    Fail(u8),
    /// The wanted signature comes: right, wrong or refused.
    Signed(u8),
    /// An answer to something that nobody asked.
    Stray(u8),
    /// Time passes: so many tens of milliseconds, to the third power.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(16) {
            0 | 1 => Self::Renew,
            2 => Self::Adopt(reel.byte()),
            3 if reel.below(6) == 0 => Self::Close,
            3..=6 => Self::Good(reel.byte()),
            7 => Self::Bad(reel.byte()),
            8 => {
                let count = reel.below(24);
                Self::Data((0..count).map(|_| reel.byte()).collect())
            }
            9 => Self::End,
            10 | 11 => Self::Fail(reel.byte()),
            12 => Self::Signed(reel.byte()),
            13 => Self::Stray(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

#[derive(Debug)]
struct Exchange {
    id: EffectId,
    signer: bool,
    replied: bool,
}

/// Plays steps against a handshake.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    machine: Handshake,
    key: Key,
    /// More than one while signers are asked.
    open: Vec<Exchange>,
    signature: Option<EffectId>,
    /// How signers have been, as was told last.
    health: SignerHealth,
    /// The certificate changed in the call under way, and nothing came after.
    changed: bool,
    refuses: bool,
    ready: bool,
    over: bool,
    wake: Option<Time>,
}

const SIGNER: &str = "signer";

impl Player {
    /// A handshake; the byte picks how the payer introduces itself.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(10_000);
        let key = Key::named("payer");
        let identity = match flavour % 4 {
            0 => Identity::Offchain,
            1 => Identity::Key(key.address()),
            2 => Identity::Static {
                address: key.address(),
                signature: key.sign(identity_digest(key.address())),
            },
            _ => {
                let mut headers = Headers::new();
                headers.push("authorization", "secret");
                let url = |n: u8| Url::parse(&format!("https://{SIGNER}:{n}")).expect("a URL");
                Identity::Remote(Signers::new(url(1)).or(url(2)).headers(headers))
            }
        };
        let refuses = flavour & 4 != 0;
        let config = Config {
            pin_change: if refuses {
                PinChange::Refuse
            } else {
                PinChange::AcceptOnce
            },
            renew_every: (flavour & 8 != 0).then(|| Duration::from_secs(360)),
            ..Config::default()
        };
        let to = Url::parse("https://orch:8935").expect("a URL");
        let wanted = if flavour & 16 == 0 {
            Capabilities::live_video("noop")
        } else {
            Capabilities::default()
        };
        let mut this = Self {
            now,
            book: Exchanges::default(),
            machine: Handshake::new(now, config, to, identity, wanted),
            key,
            open: Vec::new(),
            signature: None,
            health: SignerHealth::default(),
            changed: false,
            refuses,
            ready: false,
            over: false,
            wake: None,
        };
        this.drain();
        this
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Renew => {
                let renewed = self.machine.renew(self.now);
                let expected = match (self.over, self.ready) {
                    (true, _) => Err(Misuse::Ended),
                    (false, false) => Err(Misuse::NotOpen),
                    (false, true) => Ok(()),
                };
                // Time may have ended it within the call.
                assert!(
                    renewed == expected || self.wake <= Some(self.now),
                    "{renewed:?}"
                );
                self.drain();
            }
            Step::Adopt(pick) => {
                let quote = OrchestratorInfo::decode(info(*pick, self.now).encode_to_vec().into());
                if let Ok(quote) = quote {
                    let before = self.machine.info().and_then(|info| info.price);
                    if self.machine.adopt(self.now, quote.into()).is_ok() {
                        let after = self.machine.info().and_then(|info| info.price);
                        assert!(after <= before, "a dearer quote was taken over");
                    }
                }
                self.drain();
            }
            Step::Close => {
                self.machine.close(self.now);
                self.drain();
                assert!(self.over);
            }
            Step::Good(pick) => self.good(*pick),
            Step::Bad(pick) => self.bad(*pick),
            Step::Data(data) => {
                if let Some(at) = self.find(data.len(), |exchange| exchange.replied) {
                    let id = self.open[at].id;
                    self.http(id, In::Data(Bytes::copy_from_slice(data)));
                }
            }
            Step::End => {
                if let Some(at) = self.find(0, |exchange| exchange.replied) {
                    let exchange = self.open.remove(at);
                    self.http(exchange.id, In::End(Headers::new()));
                }
            }
            Step::Fail(pick) => self.fail(*pick),
            Step::Signed(pick) => {
                if let Some(id) = self.signature.take() {
                    let answer = match pick % 3 {
                        0 => Err(SignRefused("no".into())),
                        1 => Ok(Signature([*pick; 65])),
                        _ => Ok(self.key.sign(identity_digest(self.key.address()))),
                    };
                    self.input(Input::Signed(id, answer));
                }
            }
            Step::Stray(pick) => {
                let id = EffectId::by_peer(u64::from(*pick));
                self.http(id, In::Data(Bytes::from_static(b"stray")));
                self.input(Input::Signed(id, Err(SignRefused("stray".into()))));
                self.input(Input::Stored(id, Ok(())));
            }
            Step::Pass(tens) => {
                let tens = u64::from(*tens);
                self.leap(Duration::from_millis(tens * tens * tens / 10));
            }
        }
    }

    /// Leaves it alone, and sees it end within its deadlines; then closes it.
    ///
    /// # Panics
    /// If it waits for ever without a session.
    pub fn finish(&mut self) {
        self.settle(100, Duration::MAX);
        assert!(self.over, "nobody answers, and it does not end");
        self.machine.close(self.now);
        self.drain();
        assert_eq!(self.wake, None);
        assert_eq!(self.machine.renew(self.now), Err(Misuse::Ended));
    }

    /// Finds an exchange that fits; of several, the byte picks one.
    fn find(&self, pick: usize, fits: impl Fn(&Exchange) -> bool) -> Option<usize> {
        let fit = |at: &usize| fits(&self.open[*at]);
        let all: Vec<usize> = (0..self.open.len()).filter(fit).collect();
        all.get(pick % all.len().max(1)).copied()
    }

    fn good(&mut self, pick: u8) {
        let Some(at) = self.find(pick.into(), |exchange| !exchange.replied) else {
            return;
        };
        let exchange = self.open.remove(at);
        let id = exchange.id;
        if exchange.signer {
            let key = self.key.clone();
            self.identify(id, &key);
        } else {
            self.inform(id, &info(pick, self.now));
        }
    }

    fn bad(&mut self, pick: u8) {
        let Some(at) = self.find(pick.into(), |exchange| !exchange.replied) else {
            return;
        };
        let exchange = &mut self.open[at];
        exchange.replied = true;
        let id = exchange.id;
        let texts = [
            "",
            "OrchestratorCapped",
            "sig check failed",
            "\u{0}%zz",
            "insufficient sender reserve",
        ];
        let text = texts[usize::from(pick) % texts.len()];
        let head = match pick % 5 {
            0 => Response::new(404).header("content-type", "text/plain"),
            1 => Response::new(500),
            2 => Response::new(200).header("content-type", "application/grpc"),
            3 => Response::new(200),
            _ => match grpc::refuse(&Status::new(u16::from(pick % 17), text)) {
                Out::Reply(head) => head,
                other => unreachable!("a refusal is a head: {other:?}"),
            },
        };
        self.http(id, In::Reply(head));
    }

    fn fail(&mut self, pick: u8) {
        let Some(at) = self.find(pick.into(), |_| true) else {
            return;
        };
        let exchange = self.open.remove(at);
        let fault = match pick % 5 {
            0 => Fault::Connect("refused".into()),
            1 => Fault::Broken("reset".into()),
            2 => Fault::Tls("alert".into()),
            3 => Fault::Protocol("HTTP/1.1".into()),
            _ => {
                self.changed = !exchange.signer;
                Fault::CertificateChanged {
                    remembered: [1; 32],
                    seen: [2; 32],
                }
            }
        };
        self.http(exchange.id, In::Failed(fault));
        self.changed = false;
    }
}

impl Driven for Player {
    crate::driven!(machine: Handshake, book);

    const MAX_OUTPUTS: usize = 100;

    fn is_over(&self) -> bool {
        self.over
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                assert!(!self.over, "it asks after its end");
                let signer = request.url.host() == SIGNER;
                assert!(
                    self.open.iter().all(|exchange| exchange.signer && signer),
                    "one question at a time, but for signers"
                );
                assert!(self.open.len() < 2, "there are two signers");
                assert_eq!(
                    request.headers.get("authorization").is_some(),
                    signer,
                    "the signer's headers are for the signer"
                );
                if request.trust == Trust::Afresh {
                    assert!(
                        self.changed && !self.refuses,
                        "a pin changes only when it must"
                    );
                }
                // The second call does not start a third.
                self.changed = false;
                self.open.push(Exchange {
                    id,
                    signer,
                    replied: false,
                });
            }
            Effect::Http(Out::Abort) => self.open.retain(|exchange| exchange.id != id),
            Effect::Sign(digest) => {
                assert_eq!(digest, identity_digest(self.key.address()));
                self.signature = Some(id);
            }
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.over, "{event:?} after the end");
        match event {
            Event::Ready(info) => {
                assert!(!self.ready, "ready twice");
                assert!(info.auth_token.is_some());
                self.ready = true;
            }
            Event::Renewed(_) => assert!(self.ready, "renewed before it was ready"),
            Event::Identified(address, signature) => {
                assert_eq!(address, self.key.address());
                signature
                    .verify(identity_digest(address), address)
                    .expect("it was checked");
            }
            Event::PinChanged { .. } => assert!(self.changed),
            Event::Signers(health) => {
                assert_ne!(health, self.health, "nothing has changed");
                self.health = health;
            }
            Event::Rejected(_) | Event::Failed(_) | Event::Closed => {
                self.over = true;
                self.signature = None;
            }
            other => panic!("{other:?}"),
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        assert!(!self.over || wake.is_none(), "it wakes after its end");
        let waits = !self.open.is_empty() || self.signature.is_some();
        assert!(
            self.over || !waits || wake.is_some(),
            "it waits without a deadline"
        );
        self.wake = wake;
    }
}

/// An info that fits, or not, picked by a byte.
fn info(pick: u8, now: Time) -> net::OrchestratorInfo {
    let offered = match pick & 3 {
        0 => None,
        1 => Some(Capabilities::common()),
        _ => Some(Capabilities::live_video("noop")),
    };
    let life = [1_800, 100, -5, 1_000_000][usize::from(pick >> 2 & 3)];
    net::OrchestratorInfo {
        transcoder: match pick >> 4 & 7 {
            0 => String::new(),
            1 => "::".into(),
            2 => "https://other:1".into(),
            _ => "https://orch:8935".into(),
        },
        nodes: vec!["https://n:1".into()],
        capabilities: offered.map(|offered| offered.to_wire()),
        price_info: Some(net::PriceInfo {
            price_per_unit: i64::from(pick % 7),
            pixels_per_unit: i64::from(!pick.is_multiple_of(11)),
            ..Default::default()
        }),
        ticket_params: (!pick.is_multiple_of(5)).then(|| net::TicketParams {
            face_value: vec![pick % 3].into(),
            win_prob: vec![1].into(),
            ..Default::default()
        }),
        auth_token: (!pick.is_multiple_of(13)).then(|| net::AuthToken {
            token: vec![1].into(),
            session_id: "s".into(),
            expiration: now.as_secs() as i64 + life,
        }),
        ..Default::default()
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
