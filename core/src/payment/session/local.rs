//! Minting with the account's own key: the signer's decisions, made here.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::chain::ChainView;
use crate::machine::{Effect, EffectId, Outbox};
use crate::payment::mint::{Plan, Policy, Refusal, decide};
use crate::payment::nonce::SpentNonces;
use crate::rng::{Rng, Seed};
use crate::sign::{Address, SignRefused, Signature};
use crate::store::{Record, StoreFailed};
use crate::time::Time;
use crate::wire::signer::{PaymentRequest, Quote};
use crate::wire::{OrchestratorInfo, SignerState};

/// How long the key holder may take.
pub(super) const SIGN_DEADLINE: Duration = Duration::from_secs(30);

/// An account whose key answers [`Effect::Sign`].
#[derive(Clone, Debug)]
pub struct LocalAccount {
    /// What it is willing to sign.
    pub policy: Policy,
    /// The chain, with the account's own funds.
    pub chain: ChainView,
    /// For ids.
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

struct Making {
    plan: Plan,
    step: Step,
}

/// A payment that is signed.
pub(super) struct Made {
    pub(super) payment: String,
    pub(super) segment: String,
    pub(super) state: SignerState,
}

/// What became of a signature.
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

    pub(super) fn set_chain(&mut self, view: ChainView) {
        self.account.chain = view;
    }

    /// Decides a payment and asks for what it needs.
    pub(super) fn begin<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        store_within: Duration,
        info: &OrchestratorInfo,
        committed: Option<&SignerState>,
        request: &PaymentRequest,
    ) -> Result<(), Refusal> {
        let quote = Quote {
            transcoder: format!("{}", info.transcoder),
            ticket_params: info.ticket_params.clone(),
            price: info.price.map(|price| (price.wei(), price.per())),
            address: info.address,
            auth_token: info.auth_token.clone(),
        };
        let used = info.ticket_params.as_ref().map_or(0, |params| {
            self.account.used.last(&params.recipient_rand_hash)
        });
        let plan = decide(
            now,
            &self.account.policy,
            &self.account.chain,
            &mut self.rng,
            &quote,
            used,
            || Ok(committed.cloned()),
            request,
        )?;
        let hash = plan.params.recipient_rand_hash;
        let record = SpentNonces::record(&hash, *plan.nonces.end());
        self.making = Some(Making {
            plan,
            step: Step::AwaitingStored(out.open(Effect::Store(record)), now + store_within),
        });
        Ok(())
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
        {
            if let Err(why) = answer {
                self.making = None;
                return Some(Outcome::NotStored(why));
            }
            // A failed send never gives nonces back.
            let hash = making.plan.params.recipient_rand_hash;
            if let Some(forgotten) = self.account.used.spend(hash, *making.plan.nonces.end()) {
                out.open(Effect::Store(forgotten));
            }
            let asked: Vec<EffectId> = making
                .plan
                .digests(address)
                .map(|digest| out.open(Effect::Sign(digest)))
                .collect();
            making.step = Step::AwaitingSignatures {
                signatures: alloc::vec![None; asked.len()],
                asked,
                until: now + SIGN_DEADLINE,
            };
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
        let plan = self.making.take()?.plan;
        let (payment, segment) = plan
            .headers(self.address(), &all)
            .expect("one signature was awaited for each digest");
        Some(Outcome::Made(Box::new(Made {
            payment,
            segment,
            state: plan.state,
        })))
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
