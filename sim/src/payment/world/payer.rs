//! The payer's machine, its store, and the owner that starts jobs with it.

use std::time::Duration;

use livepeer_core::error::Advice;
use livepeer_core::http::{Out, Url};
use livepeer_core::payment::guard::Budget;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::session::{Config, Delivered, Event, Fee, LocalAccount, PaymentId};
use livepeer_core::payment::{Payer, PaymentSession};
use livepeer_core::store::Record;
use livepeer_core::wire::Payment;
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Signers};

use super::{Due, World};

impl World {
    pub(super) fn payer_input(&mut self, input: Input) {
        if let Some(payer) = &mut self.payer {
            payer.handle_input(self.now, input);
        }
    }

    /// A new life: everything is forgotten but the store. Sets out on a new job.
    pub(super) fn begin(&mut self) {
        if let Some(old) = self.payer.take() {
            self.settle(old);
        }
        self.life += 1;
        self.open.clear();
        let mut config = Config::new(self.settings.unit);
        config.budget_key = Some("spent".into());
        config.budget = Budget::unlimited();
        config.budget.per_job.clone_from(&self.settings.per_job);
        if let Some(value) = self.payer_store.get("spent") {
            let record = Record {
                key: "spent".into(),
                value: Some(value.clone()),
            };
            assert!(config.budget.restore(&record), "the counter is readable");
        }
        let payer = if self.settings.own_key {
            let policy = Policy {
                minting: self.settings.minting,
                ..Policy::new(self.key.address())
            };
            let mut account = LocalAccount::new(policy, self.chain.clone(), [self.life as u8; 32]);
            for (key, value) in &self.payer_store {
                account.restore(&Record {
                    key: key.clone(),
                    value: Some(value.clone()),
                });
            }
            Payer::Account(Box::new(account))
        } else {
            let url = |n| Url::parse(&format!("http://signer-{n}")).expect("a good URL");
            Payer::Remote(Signers::new(url(0)).or(url(1)))
        };
        let info = self.info();
        let mut payer =
            PaymentSession::new(self.now, config, &info, payer, Some(self.key.address()));
        // A price above what the session may pay ends it at once; then there is nothing to begin.
        let _ = payer.pay(self.now, Fee::Elapsed);
        self.payer = Some(payer);
    }

    pub(super) fn drain_payer(&mut self) {
        for _ in 0..100_000 {
            let Some(payer) = &mut self.payer else { return };
            match payer.poll_output() {
                Output::Idle(_) => return,
                Output::Effect(id, Effect::Store(record)) => {
                    let after = self.dice.millis(0, 20);
                    self.later(after, Due::PayerStored(self.life, id, record));
                }
                Output::Effect(id, Effect::Sign(digest)) => {
                    let after = self.dice.millis(0, 20);
                    self.later(after, Due::PayerSigned(self.life, id, digest));
                }
                Output::Effect(id, Effect::Http(Out::Request(request))) => {
                    self.open.insert(id);
                    self.send(id, request);
                }
                Output::Effect(id, Effect::Http(_)) => {
                    self.open.remove(&id);
                }
                Output::Effect(_, Effect::Spend(_)) => panic!("it has a limit of its own"),
                Output::Event(event) => self.told(event),
            }
        }
        panic!("the payer does not stop to speak");
    }

    pub(super) fn told(&mut self, event: Event) {
        match event {
            Event::Ready(id, credentials) => {
                let payment = Payment::decode(&credentials.payment).expect("our own");
                self.model.signed(&payment);
                self.model.sent(&payment, &self.payer_store);
                let answer = self.fate(EffectId::by_peer(0));
                let after = self.travel();
                match answer {
                    // It never arrives, and the owner gives it up.
                    None => {
                        let after = Duration::from_secs(5);
                        self.later(after, Due::Started(self.life, id, None));
                    }
                    Some(answer) => {
                        if self.faults && self.dice.percent(5) {
                            let again = Due::Start(id, credentials.clone(), None);
                            let after = self.travel();
                            self.later(after, again);
                        }
                        self.later(after, Due::Start(id, credentials, Some(answer)));
                    }
                }
            }
            Event::Paid(_, paid) => {
                self.summary.paid += 1;
                assert!(paid.tickets > 0 && paid.value.is_positive());
            }
            Event::Skipped(_) => self.summary.skipped += 1,
            Event::NeedQuote(_) => {
                self.summary.renewals += 1;
                let after = if self.faults && self.dice.percent(10) {
                    self.dice.millis(2_000, 8_000)
                } else {
                    self.dice.millis(10, 2_000)
                };
                self.later(after, Due::Renewed(self.life));
            }
            Event::Signers(_) | Event::Requoted(_) => {}
            Event::Held(..) => self.summary.held += 1,
            Event::Repriced { .. } => self.summary.repriced += 1,
            Event::Failed(failure) => {
                let over_budget = failure.advice() == Advice::Stop;
                self.summary.failures.push(failure);
                if !over_budget {
                    self.later(Duration::from_secs(3), Due::Begin(self.life));
                }
            }
            other => panic!("nobody expects {other:?}"),
        }
    }

    /// The owner hears of its start request: of a job, or nothing.
    pub(super) fn started(&mut self, life: u64, id: PaymentId, job: Option<(String, u64)>) {
        if life != self.life {
            return;
        }
        let Some(payer) = &mut self.payer else { return };
        match job {
            Some(job) => {
                payer.set_manifest(job.0.clone());
                self.job = Some(job);
                payer.delivered(self.now, id, Delivered::Accepted);
                // It may have failed in the meantime.
                let _ = payer.start_pacing(self.now, self.settings.interval);
            }
            None => {
                payer.delivered(self.now, id, Delivered::Refused);
                self.begin();
            }
        }
    }
}
