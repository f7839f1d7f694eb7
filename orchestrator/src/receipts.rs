//! Requests that wait for the receipt of their payment, and what becomes of them.

use livepeer_core::http::Out;
use livepeer_core::payment::receiver::{Credit, ReceiptId, Refused};
use livepeer_core::wire::{Params, Payment};
use livepeer_core::{Address, EffectId, Time};
use livepeer_proto::net;

use super::event::{Event, Surface};
use super::paid::No;
use super::{Orchestrator, account, apps, batch, byoc, wire};

/// A request that waits for a receipt.
pub(super) struct Waiting {
    /// `None` once the peer has gone.
    pub(super) id: Option<EffectId>,
    pub(super) payer: Address,
    /// The session that is paid for; of batch work, the name of the balance.
    pub(super) manifest_id: String,
    pub(super) then: Then,
}

pub(super) enum Then {
    Start {
        model: String,
        params: Option<Params>,
        free: bool,
    },
    Payment(Box<net::OrchestratorInfo>),
    Batch(Box<batch::Task>),
    Job(Box<byoc::Pending>),
    Rent(Box<apps::Renting>),
}

impl From<batch::Task> for Then {
    fn from(task: batch::Task) -> Self {
        Self::Batch(Box::new(task))
    }
}

impl From<byoc::Pending> for Then {
    fn from(pending: byoc::Pending) -> Self {
        Self::Job(Box::new(pending))
    }
}

impl From<apps::Renting> for Then {
    fn from(renting: apps::Renting) -> Self {
        Self::Rent(Box::new(renting))
    }
}

impl Waiting {
    /// The model of live video whose place is kept meanwhile.
    pub(super) fn model(&self) -> Option<&str> {
        match &self.then {
            Then::Start { model, .. } => Some(model),
            Then::Payment(_) | Then::Batch(_) | Then::Job(_) | Then::Rent(_) => None,
        }
    }
}

impl Orchestrator {
    /// A payment is looked at, for the account of this name, and a request waits for that.
    pub(super) fn await_receipt(
        &mut self,
        now: Time,
        id: EffectId,
        payment: Payment,
        manifest_id: String,
        then: impl Into<Then>,
    ) {
        let Some(till) = &mut self.till else { return };
        let payer = payment.sender;
        let receipt = till.get_mut().receive(now, &manifest_id, payment);
        let waiting = Waiting {
            id: Some(id),
            payer,
            manifest_id,
            then: then.into(),
        };
        self.receipts.insert(receipt, waiting);
    }

    /// A receipt is in: answers who waits for it.
    pub(super) fn receipt(
        &mut self,
        now: Time,
        receipt: ReceiptId,
        credit: Credit,
        refused: Option<&Refused>,
    ) {
        let Some(waiting) = self.receipts.remove(&receipt) else {
            return;
        };
        let surface = match waiting.then {
            Then::Start { .. } => Surface::Start,
            Then::Payment(_) => Surface::Payment,
            Then::Batch(_) => Surface::Batch,
            Then::Job(_) => Surface::Container,
            Then::Rent(_) => Surface::App,
        };
        if credit.tickets > 0 {
            self.figures.tickets += credit.tickets as u64;
            self.figures.credited += &credit.value;
            self.out.event(Event::Credited {
                manifest_id: waiting.manifest_id.clone(),
                payer: waiting.payer,
                tickets: credit.tickets,
                value: credit.value,
                balance: credit.balance,
            });
        }
        let no = |status, text: String| No {
            surface,
            status,
            text,
        };
        let then = match waiting.then {
            Then::Rent(renting) => {
                let refused = refused.map(|why| no(why.status(), why.to_string()));
                let told = self.rent_paid(now, waiting.id, *renting, refused);
                return self.tell(now, waiting.id, told);
            }
            Then::Job(pending) if waiting.id.is_none() => return self.drop_pending_job(&pending),
            then => then,
        };
        // Whoever has gone gets no session: it would hold a place until it is swept.
        let Some(id) = waiting.id else {
            if let Then::Batch(task) = &then {
                self.unslot(task);
            }
            return;
        };
        let told = match (refused, then) {
            // The balance decides.
            (_, Then::Job(pending)) => {
                let told = self.job_paid(now, id, *pending);
                return self.tell(now, Some(id), told);
            }
            (_, Then::Rent(_)) => return,
            (Some(why), Then::Batch(task)) => {
                self.unslot(&task);
                Err(no(why.status(), why.to_string()))
            }
            (Some(why), _) => Err(no(why.status(), why.to_string())),
            (None, Then::Batch(task)) => {
                if task.free || self.covered(waiting.payer, &waiting.manifest_id) {
                    self.figures.payments += 1;
                    return self.work(now, id, *task);
                }
                self.unslot(&task);
                Err(no(400, "Insufficient balance".to_owned()))
            }
            (None, Then::Payment(_)) if self.config.quirks.hide_credit.is_some() => {
                let status = self.config.quirks.hide_credit.take().unwrap_or_default();
                Err(no(status, "gave up".to_owned()))
            }
            (None, Then::Payment(info)) => {
                let result = net::PaymentResult { info: Some(*info) };
                Ok(vec![wire::protobuf_reply(&result)])
            }
            (
                None,
                Then::Start {
                    model,
                    params,
                    free,
                },
            ) => {
                if free || self.covered(waiting.payer, &waiting.manifest_id) {
                    self.started(now, waiting.manifest_id, waiting.payer, model, params)
                } else {
                    Err(no(400, "Insufficient balance".to_owned()))
                }
            }
        };
        self.tell(now, Some(id), told.map(Some));
    }

    /// Tells whoever paid, and is still there, what came of it.
    fn tell(&mut self, now: Time, id: Option<EffectId>, told: Result<Option<Vec<Out>>, No>) {
        if told.is_ok() {
            self.figures.payments += 1;
        }
        let Some(id) = id else { return };
        match told {
            Ok(Some(steps)) => self.answer(now, id, steps),
            Ok(None) => {}
            Err(no) => self.refuse(now, id, no),
        }
    }

    /// Whether a payer has a ticket's worth on account.
    fn covered(&self, payer: Address, session: &str) -> bool {
        let till = self.till.as_ref();
        till.is_some_and(|till| till.get().may_start(&account(payer, session)))
    }
}
