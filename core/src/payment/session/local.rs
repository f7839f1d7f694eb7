//! Minting with the account's own key: the signer's decisions, made here.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use crate::chain::ChainView;
use crate::error::Broken;
use crate::machine::{Effect, EffectId, Outbox};
use crate::money::Amount;
use crate::payment::mint::{Facts, Order, Plan, Policy, Refusal, decide, introduction};
use crate::payment::nonce::SpentNonces;
use crate::rng::{Rng, Seed};
use crate::sign::{Address, Digest, SignRefused, Signature};
use crate::spend::{Spend, SpendRefused};
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

/// Whether the value of a payment is counted as spent, and its nonces are durable with it. Nothing leaves before.
#[derive(Clone, Copy)]
pub(super) enum Count {
    /// Nobody was asked, or there is nothing to count.
    Open,
    /// Asked for, and until when it may take.
    Asked(EffectId, Time),
    /// Counted, at that time.
    Done(Time),
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
    count: Count,
    /// The signatures under tickets and credentials, and what was asked for them.
    signatures: Vec<Option<Signature>>,
    asked: Vec<EffectId>,
    sign_until: Time,
}

impl Making {
    /// Has tickets and credentials signed, unless the signature under these credentials is known.
    fn sign<E>(
        work: Work,
        count: Count,
        out: &mut Outbox<E>,
        tickets: impl Iterator<Item = Digest>,
        credentials: Result<Signature, Digest>,
        sign_until: Time,
    ) -> Self {
        let digests = tickets.chain(credentials.err());
        let asked: Vec<EffectId> = digests
            .map(|digest| out.open(Effect::Sign(digest)))
            .collect();
        let mut signatures = alloc::vec![None; asked.len()];
        signatures.extend(credentials.ok().map(Some));
        Self {
            work,
            count,
            signatures,
            asked,
            sign_until,
        }
    }
}

/// A payment that is signed.
pub(super) struct Made {
    pub(super) payment: String,
    pub(super) segment: String,
    /// `None` if nothing is paid.
    pub(super) state: Option<SignerState>,
    pub(super) value: Amount,
    pub(super) count: Count,
}

/// The outcome of signing.
pub(super) enum Outcome {
    Made(Box<Made>),
    Refused(SignRefused),
    TimedOut,
    /// The limit on spending that it would pass.
    Limit(Box<Broken>),
    /// Neither the count nor the nonces would survive a crash.
    NotStored(StoreFailed),
}

pub(super) struct Minter {
    account: LocalAccount,
    rng: Rng,
    making: Option<Making>,
    /// The signature under the last credentials: those of one job are all alike.
    signed: Option<(Digest, Signature)>,
}

impl Minter {
    pub(super) fn new(account: LocalAccount) -> Self {
        Self {
            rng: Rng::new(account.seed),
            account,
            making: None,
            signed: None,
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
        // Asked first: the store works while the key holder does.
        let counting = out.open(Effect::Spend(Spend::Take {
            value: plan.value.clone(),
            record: Some(SpentNonces::record(&hash, *plan.nonces.end())),
        }));
        let credentials = plan.credentials.digest();
        let known = self.signed.filter(|(digest, _)| *digest == credentials);
        let credentials = known.map_or(Err(credentials), |(_, signature)| Ok(signature));
        let plan = Box::new(plan);
        let tickets: Vec<_> = plan.tickets(self.address()).collect();
        self.making = Some(Making::sign(
            Work::Payment(plan),
            Count::Asked(counting, now + patience(STORE_WITHIN)),
            out,
            tickets.into_iter(),
            credentials,
            now + patience(SIGN_DEADLINE),
        ));
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
        let digest = credentials.digest();
        self.making = Some(Making::sign(
            Work::Introduction(Box::new(credentials)),
            Count::Open,
            out,
            core::iter::empty(),
            Err(digest),
            now + SIGN_DEADLINE,
        ));
    }

    /// Learns whether the payment that is being signed is counted.
    pub(super) fn counted(
        &mut self,
        id: EffectId,
        answer: Result<Time, SpendRefused>,
    ) -> Option<Outcome> {
        let making = self.making.as_mut()?;
        if !matches!(making.count, Count::Asked(asked, _) if asked == id) {
            return None;
        }
        match answer {
            Ok(at) => {
                making.count = Count::Done(at);
                None
            }
            Err(refused) => {
                self.making = None;
                Some(match refused {
                    SpendRefused::Limit(broken) => Outcome::Limit(broken),
                    SpendRefused::NotStored(why) => Outcome::NotStored(why),
                })
            }
        }
    }

    pub(super) fn signed<E>(
        &mut self,
        id: EffectId,
        answer: Result<Signature, SignRefused>,
        out: &mut Outbox<E>,
    ) -> Option<Outcome> {
        let making = self.making.as_mut()?;
        let slot = making.asked.iter().position(|one| *one == id)?;
        match answer {
            Err(refused) => {
                self.abort(out);
                return Some(Outcome::Refused(refused));
            }
            Ok(signature) => making.signatures[slot] = Some(signature),
        }
        let all = { making.signatures.iter().copied() }.collect::<Option<Vec<_>>>()?;
        let payer = self.address();
        let Making { work, count, .. } = self.making.take()?;
        let made = match work {
            Work::Payment(plan) => {
                let (payment, segment) = plan
                    .headers(payer, &all)
                    .expect("one signature was awaited for each digest");
                let plan = *plan;
                let signature = all.last().copied();
                self.signed = signature.map(|one| (plan.credentials.digest(), one));
                // Nothing gives nonces back under which something is signed.
                let hash = plan.params.recipient_rand_hash;
                if let Some(forgotten) = self.account.used.spend(hash, *plan.nonces.end()) {
                    out.open(Effect::Store(forgotten));
                }
                Made {
                    payment,
                    segment,
                    state: Some(plan.state),
                    value: plan.value,
                    count,
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
                    value: Amount::zero(),
                    count,
                }
            }
        };
        Some(Outcome::Made(Box::new(made)))
    }

    pub(super) fn tick<E>(&mut self, now: Time, out: &mut Outbox<E>) -> Option<Outcome> {
        if self.wake().is_none_or(|until| until > now) {
            return None;
        }
        let outcome = match self.making.as_ref()?.count {
            Count::Asked(_, until) if until <= now => Outcome::NotStored(StoreFailed::late()),
            _ => Outcome::TimedOut,
        };
        self.abort(out);
        Some(outcome)
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let making = self.making.as_ref()?;
        Some(match making.count {
            Count::Asked(_, until) => until.min(making.sign_until),
            _ => making.sign_until,
        })
    }

    /// Gives up what is being made.
    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        if let Some(making) = self.making.take()
            && let Work::Payment(plan) = making.work
        {
            making.count.take_back(plan.value, out);
        }
    }
}

impl Count {
    /// Counts a payment no more that never leaves.
    pub(super) fn take_back<E>(self, value: Amount, out: &mut Outbox<E>) {
        match self {
            Self::Open => {}
            Self::Asked(asked, _) => out.forward(asked, Effect::Spend(Spend::Cancel)),
            Self::Done(at) => {
                out.open(Effect::Spend(Spend::GiveBack { value, at }));
            }
        }
    }
}
