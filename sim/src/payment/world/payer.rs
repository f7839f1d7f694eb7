//! The payer's machine, and the owner that starts jobs with it.

use std::time::Duration;

use livepeer_core::error::Advice;
use livepeer_core::http::{Method, Request, Url};
use livepeer_core::payment::Budget;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::session::{Config, Delivered, Event, Fee, LocalAccount};
use livepeer_core::payment::{Payer, PaymentSession};
use livepeer_core::store::Record;
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use livepeer_core::{EffectId, Signers, Time};

use super::recipient::START_PATH;
use super::{Due, ORCHESTRATOR, SIGNERS, START_WITHIN, World};

impl World {
    pub(super) fn with_payer(&mut self, act: impl FnOnce(&mut PaymentSession, Time)) {
        if let Some(payer) = self.payer {
            self.net.with(payer, act);
        }
    }

    /// A new life: everything is forgotten but the store. Sets out on a new job.
    pub(super) fn begin(&mut self) {
        if let Some(old) = self.payer {
            self.settle(old);
            self.net.die(old);
        }
        self.life += 1;
        let store = self.payer.map(|payer| self.net.stored(payer).clone());
        let store = store.unwrap_or_default();
        let config = Config::new(self.settings.unit);
        let record = |(key, value): (&String, &bytes::Bytes)| Record {
            key: key.clone(),
            value: Some(value.clone()),
        };
        let payer = if self.settings.own_key {
            let policy = Policy {
                minting: self.settings.minting,
                ..Policy::new(self.key.address())
            };
            let mut account = LocalAccount::new(policy, self.chain.clone(), self.dice.fork());
            for kept in &store {
                account.restore(&record(kept));
            }
            Payer::Account(Box::new(account))
        } else {
            let url = |at| Url::parse(&format!("http://{at}")).expect("a good URL");
            Payer::Remote(Signers::new(url(SIGNERS[0])).or(url(SIGNERS[1])))
        };
        let (now, info) = (self.net.now(), self.info());
        let session = PaymentSession::new(now, config, &info, payer, Some(self.key.address()));
        match self.payer {
            Some(node) => self.net.restart(node, session),
            None => {
                let node = self.net.add(session);
                self.net.give_key(node, self.key.clone());
                self.net.tapped(node);
                let mut limits = Budget::unlimited();
                limits.per_job.clone_from(&self.settings.per_job);
                self.net.limit(node, limits);
                self.payer = Some(node);
            }
        }
        self.with_payer(|payer, now| {
            // A price above what the session may pay ends it at once; then there is nothing to begin.
            let _ = payer.pay(now, Fee::Elapsed);
        });
    }

    pub(super) fn told(&mut self, event: Event) {
        match event {
            Event::Ready(id, credentials) => {
                self.leaves(&credentials.payment);
                let url = format!("https://{ORCHESTRATOR}{START_PATH}");
                let url = Url::parse(&url).expect("a good URL");
                let request = Request::new(Method::Post, url)
                    .header(PAYMENT_HEADER, credentials.payment)
                    .header(SEGMENT_HEADER, credentials.segment);
                let start = self.net.with(self.owner, |owner, _| owner.send(request));
                self.starts.insert(start, (self.life, id));
                self.later(START_WITHIN, Due::GiveUp(start));
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

    /// The owner hears of its start request, for the first time: of a job with the life of the recipient that it began
    /// in, or nothing.
    pub(super) fn started(&mut self, start: EffectId, job: Option<(String, u64)>) {
        let Some((life, id)) = self.starts.remove(&start) else {
            return;
        };
        if life != self.life {
            return;
        }
        let Some((name, _)) = &job else {
            self.with_payer(|payer, now| payer.delivered(now, id, Delivered::Refused));
            return self.begin();
        };
        let (name, interval) = (name.clone(), self.settings.interval);
        self.job = job;
        self.with_payer(|payer, now| {
            payer.set_manifest(name);
            payer.delivered(now, id, Delivered::Accepted);
            // It may have failed in the meantime.
            let _ = payer.start_pacing(now, interval);
        });
    }
}
