//! Minting with the account's own key: the signer's decisions, made here.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use crate::chain::ChainView;
use crate::machine::{Effect, EffectId, Outbox};
use crate::payment::mint::{Facts, Order, Plan, Policy, Refusal, decide, introduction};
use crate::payment::nonce::SpentNonces;
use crate::rng::{Rng, Seed};
use crate::sign::{Address, Digest, SignRefused, Signature};
use crate::store::{Record, STORE_WITHIN, StoreFailed};
use crate::time::Time;
use crate::wire::signer::Quote;
use crate::wire::{OrchestratorInfo, Payment, SegmentCredentials, SignerState};

/// How long the key holder may take.
pub(super) const SIGN_DEADLINE: Duration = Duration::from_secs(30);

/// An account whose key answers [`Effect::Sign`].
#[derive(Clone, Debug)]
pub struct LocalAccount {
    /// Rules for what the key is willing to sign.
    pub policy: Policy,
    /// The chain, with the account's own funds.
    pub chain: ChainView,
    /// The seed of ids.
    pub seed: Seed,
    /// Nonces that were used, also before a restart; see [`LocalAccount::restore`].
    pub used: SpentNonces,
}

impl LocalAccount {
    /// An account without a past.
    #[must_use]
    pub fn new(policy: Policy, chain: ChainView, seed: Seed) -> Self {
        Self {
            policy,
            chain,
            seed,
            used: SpentNonces::default(),
        }
    }

    /// Takes in which nonces another session of this account has used.
    pub fn learn(&mut self, used: &SpentNonces) {
        self.used.learn(used);
    }

    /// Takes back a record from before a restart; says whether it was one of ours. Without it a quote that was in
    /// use must not be used again.
    pub fn restore(&mut self, record: &Record) -> bool {
        self.used.restore(record)
    }
}

enum Step {
    /// The nonces are being made durable. They are spent once they are: nothing is signed before.
    AwaitingStored(EffectId, Time),
    AwaitingSignatures {
        asked: Vec<EffectId>,
        signatures: Vec<Option<Signature>>,
        until: Time,
    },
}

impl Step {
    fn sign<E>(
        now: Time,
        out: &mut Outbox<E>,
        within: Duration,
        digests: impl Iterator<Item = Digest>,
    ) -> Self {
        let asked: Vec<EffectId> = digests
            .map(|digest| out.open(Effect::Sign(digest)))
            .collect();
        Self::AwaitingSignatures {
            signatures: alloc::vec![None; asked.len()],
            asked,
            until: now + within,
        }
    }
}

fn quoted(info: &OrchestratorInfo) -> Quote {
    Quote {
        transcoder: info.transcoder.to_string(),
        ticket_params: info.ticket_params.clone(),
        price: info.price,
        address: info.address,
        auth_token: info.auth_token.clone(),
    }
}

/// The thing that is signed.
enum Work {
    Payment(Box<Plan>),
    /// Credentials for work that costs nothing.
    Introduction(Box<SegmentCredentials>),
}

struct Making {
    work: Work,
    /// How long the key holder has.
    sign_within: Duration,
    step: Step,
}

/// A payment that is signed.
pub(super) struct Made {
    pub(super) payment: String,
    pub(super) segment: String,
    /// `None` if nothing is paid.
    pub(super) state: Option<SignerState>,
}

/// The outcome of signing.
pub(super) enum Outcome {
    Made(Box<Made>),
    Refused(SignRefused),
    TimedOut,
    NotStored(StoreFailed),
}

pub(super) struct Minter {
    account: LocalAccount,
    rng: Rng,
    making: Option<Making>,
}

impl Minter {
    pub(super) fn new(account: LocalAccount) -> Self {
        Self {
            rng: Rng::new(account.seed),
            account,
            making: None,
        }
    }

    pub(super) const fn account(&self) -> &LocalAccount {
        &self.account
    }

    pub(super) const fn address(&self) -> Address {
        self.account.policy.address
    }

    /// Whether a session goes on at twice its first price.
    pub(super) const fn may_double(&self) -> bool {
        self.account.policy.may_double
    }

    /// The most tickets in one payment.
    pub(super) fn max_tickets(&self) -> usize {
        usize::try_from(self.account.policy.max_tickets).unwrap_or(usize::MAX)
    }

    pub(super) fn set_chain(&mut self, view: ChainView) {
        self.account.chain = view;
    }

    /// Decides a payment and asks for what it needs. `patience` cuts a deadline to what the job has.
    pub(super) fn begin<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        patience: impl Fn(Duration) -> Duration,
        info: &OrchestratorInfo,
        committed: Option<&SignerState>,
        order: Order,
    ) -> Result<(), Refusal> {
        let quote = quoted(info);
        let used = info.ticket_params.as_ref().map_or(0, |params| {
            self.account.used.last(&params.recipient_rand_hash)
        });
        let facts = Facts {
            now,
            policy: &self.account.policy,
            chain: &self.account.chain,
            quote: &quote,
            used,
        };
        let plan = decide(facts, &mut self.rng, committed.cloned(), order)?;
        let hash = plan.params.recipient_rand_hash;
        let record = SpentNonces::record(&hash, *plan.nonces.end());
        self.making = Some(Making {
            work: Work::Payment(Box::new(plan)),
            sign_within: patience(SIGN_DEADLINE),
            step: Step::AwaitingStored(
                out.open(Effect::Store(record)),
                now + patience(STORE_WITHIN),
            ),
        });
        Ok(())
    }

    /// Asks for the signature under credentials for work that costs nothing.
    pub(super) fn introduce<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        info: &OrchestratorInfo,
        order: Order,
    ) {
        let credentials = introduction(&mut self.rng, info.auth_token.clone(), order);
        self.making = Some(Making {
            step: Step::sign(now, out, SIGN_DEADLINE, [credentials.digest()].into_iter()),
            work: Work::Introduction(Box::new(credentials)),
            sign_within: SIGN_DEADLINE,
        });
    }

    pub(super) fn stored<E>(
        &mut self,
        now: Time,
        id: EffectId,
        answer: Result<(), StoreFailed>,
        out: &mut Outbox<E>,
    ) -> Option<Outcome> {
        let address = self.address();
        if let Some(making) = &mut self.making
            && matches!(making.step, Step::AwaitingStored(waited, _) if waited == id)
            && let Work::Payment(plan) = &making.work
        {
            if let Err(why) = answer {
                self.making = None;
                return Some(Outcome::NotStored(why));
            }
            // A failed send never gives nonces back.
            let hash = plan.params.recipient_rand_hash;
            if let Some(forgotten) = self.account.used.spend(hash, *plan.nonces.end()) {
                out.open(Effect::Store(forgotten));
            }
            making.step = Step::sign(now, out, making.sign_within, plan.digests(address));
        }
        None
    }

    pub(super) fn signed(
        &mut self,
        id: EffectId,
        answer: Result<Signature, SignRefused>,
    ) -> Option<Outcome> {
        let Some(Making {
            step: Step::AwaitingSignatures {
                asked, signatures, ..
            },
            ..
        }) = &mut self.making
        else {
            return None;
        };
        let slot = asked.iter().position(|one| *one == id)?;
        match answer {
            Err(refused) => {
                self.making = None;
                return Some(Outcome::Refused(refused));
            }
            Ok(signature) => signatures[slot] = Some(signature),
        }
        let all = signatures.iter().copied().collect::<Option<Vec<_>>>()?;
        let payer = self.address();
        let made = match self.making.take()?.work {
            Work::Payment(plan) => {
                let (payment, segment) = plan
                    .headers(payer, &all)
                    .expect("one signature was awaited for each digest");
                Made {
                    payment,
                    segment,
                    state: Some(plan.state),
                }
            }
            Work::Introduction(credentials) => {
                let payment = Payment {
                    sender: payer,
                    ..Payment::default()
                };
                let signature = all.first().map(|one| one.0.to_vec().into());
                let credentials = SegmentCredentials {
                    signature: signature.unwrap_or_default(),
                    ..*credentials
                };
                Made {
                    payment: payment.encode(),
                    segment: credentials.encode(),
                    state: None,
                }
            }
        };
        Some(Outcome::Made(Box::new(made)))
    }

    pub(super) fn tick(&mut self, now: Time) -> Option<Outcome> {
        if self.wake().is_none_or(|until| until > now) {
            return None;
        }
        Some(match self.making.take()?.step {
            Step::AwaitingStored(..) => Outcome::NotStored(StoreFailed::late()),
            Step::AwaitingSignatures { .. } => Outcome::TimedOut,
        })
    }

    pub(super) fn wake(&self) -> Option<Time> {
        match self.making.as_ref()?.step {
            Step::AwaitingStored(_, until) | Step::AwaitingSignatures { until, .. } => Some(until),
        }
    }

    pub(super) fn abort(&mut self) {
        self.making = None;
    }
}
