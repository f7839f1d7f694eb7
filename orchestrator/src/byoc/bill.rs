//! The bill of a job in a container: whole seconds, rounded up, and of streams every few of them.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Headers, Out};
use livepeer_core::money::Amount;
use livepeer_core::payment::byoc::charge;
use livepeer_core::{EffectId, Time};

use crate::event::Event;
use crate::{Orchestrator, account};

/// A stream is billed this often.
pub(super) const BILLED_EVERY: Duration = Duration::from_secs(5);

impl Orchestrator {
    /// A stream is billed for what went by, and ends if that is not there.
    pub(crate) fn bill_job(&mut self, now: Time, id: EffectId) {
        let Some(job) = self.job(id) else { return };
        job.billed += BILLED_EVERY.as_secs();
        let fee = job.price.fee(BILLED_EVERY.as_secs());
        self.take_fee(now, id, &fee);
        if self.balance_of_job(id) < Amount::zero() {
            let text = "event: insufficient balance\ndata: {\"balance\": 0}\n\ndata: [DONE]\n\n";
            self.pass(id, Bytes::from_static(text.as_bytes()));
            self.out.http(id, Out::End(Headers::new()));
            return self.finish_job(id, true);
        }
        self.works.bill(id, Some(now + BILLED_EVERY));
    }

    /// Bills what was not billed yet.
    pub(super) fn bill_rest(&mut self, now: Time, id: EffectId) {
        let Some(job) = self.job(id) else { return };
        let billed = job.price.fee(job.billed);
        let whole = charge(&job.price, now.since(job.began));
        let fee = if whole > billed {
            whole - billed
        } else {
            Amount::zero()
        };
        self.take_fee(now, id, &fee);
    }

    pub(super) fn take_fee(&mut self, now: Time, id: EffectId, fee: &Amount) {
        let Some(job) = self.job(id) else { return };
        let (container, payer) = (job.container.clone(), job.payer);
        let mut balance = None;
        if let Some(till) = &mut self.till {
            balance = till.get_mut().charge(now, &account(payer, &container), fee);
        }
        self.figures.billed += fee;
        self.out.event(Event::Billed {
            to: container,
            payer,
            fee: fee.clone(),
            balance,
        });
    }

    pub(super) fn balance_of_job(&mut self, id: EffectId) -> Amount {
        let Some(job) = self.job(id) else {
            return Amount::zero();
        };
        let (container, payer) = (job.container.clone(), job.payer);
        self.balance(payer, &container)
            .cloned()
            .unwrap_or_else(Amount::zero)
    }

    pub(super) fn told_balance(&mut self, id: EffectId) -> String {
        self.balance_of_job(id).whole_wei().to_string()
    }
}
