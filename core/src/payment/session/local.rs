//! Minting with the account's own key: the signer's decisions, made here.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::chain::ChainView;
use crate::machine::{Effect, EffectId, Outbox};
use crate::payment::mint::{Plan, Policy, Refusal, decide};
use crate::payment::nonce::RandHash;
use crate::rng::{Rng, Seed};
use crate::sign::{Address, SignRefused, Signature};
use crate::store::{Record, STORE_WITHIN, StoreFailed};
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
    /// Nonces from before a restart, by commitment; see [`LocalAccount::restore`].
    pub used: BTreeMap<RandHash, u32>,
}

/// What the keys of records of spent nonces begin with.
pub const NONCE_KEY: &str = "nonce:0x";

/// So many commitments are remembered, then all are forgotten.
const MAX_USED: usize = 2_000;

fn nonce_key(hash: &RandHash) -> String {
    format!("{NONCE_KEY}{}", hex::encode(hash))
}

impl LocalAccount {
    /// An account without a past.
    #[must_use]
    pub const fn new(policy: Policy, chain: ChainView, seed: Seed) -> Self {
        Self {
            policy,
            chain,
            seed,
            used: BTreeMap::new(),
        }
    }

    /// Takes in which nonces another session of this account has used.
    pub fn learn(&mut self, used: &BTreeMap<RandHash, u32>) {
        if self.used.len() >= 2 * MAX_USED {
            // Quotes of long ago, as in any session.
            self.used.clear();
        }
        for (hash, last) in used {
            let known = self.used.entry(*hash).or_insert(*last);
            *known = (*known).max(*last);
        }
    }

    /// Takes back a record from before a restart; says whether it was one of ours. Without it a quote that was in
    /// use must not be used again.
    pub fn restore(&mut self, record: &Record) -> bool {
        let read = || {
            let hash = hex::decode(record.key.strip_prefix(NONCE_KEY)?).ok()?;
            let last = u32::from_be_bytes((**record.value.as_ref()?).try_into().ok()?);
            Some((hash.try_into().ok()?, last))
        };
        match read() {
            Some((hash, last)) => {
                self.used.insert(hash, last);
                true
            }
            None => false,
        }
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
        let used = info
            .ticket_params
            .as_ref()
            .and_then(|params| self.account.used.get(&params.recipient_rand_hash))
            .copied()
            .unwrap_or(0);
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
        if self.account.used.len() >= MAX_USED && !self.account.used.contains_key(&hash) {
            // Quotes of long ago: they come at most once a second and expire within minutes.
            for (old, _) in core::mem::take(&mut self.account.used) {
                out.open(Effect::Store(Record {
                    key: nonce_key(&old),
                    value: None,
                }));
            }
        }
        let record = Record {
            key: nonce_key(&hash),
            value: Some(plan.nonces.end().to_be_bytes().to_vec().into()),
        };
        self.making = Some(Making {
            plan,
            step: Step::AwaitingStored(out.open(Effect::Store(record)), now + STORE_WITHIN),
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
            self.account.used.insert(hash, *making.plan.nonces.end());
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
