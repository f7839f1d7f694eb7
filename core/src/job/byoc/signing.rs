//! The signature under a job, of an own key or of a remote signer.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::Byoc;
use super::job::Signed;
use super::types::{Failed, JobId};
use crate::error::{Cause, Failure, Reason};
use crate::exchange::{Bounds, Exchange};
use crate::http::In;
use crate::job::introduction::{SIGN_WITHIN, not_signed, sign_late};
use crate::machine::{Effect, EffectId};
use crate::payment::Payer;
use crate::sign::{SignRefused, Signature};
use crate::signers::{all_failed, note};
use crate::wire::byoc::{SIGN_JOB_PATH, SignRequest, SignedBy, read_job_signature};
use crate::wire::error_words;

/// How long a remote signer may take for a job.
const SIGNER_WITHIN: Duration = Duration::from_secs(5);

/// The longest answer of a signer that is read.
const MAX_SIGNATURE_BYTES: usize = 64 << 10;

impl Byoc {
    /// Has a job signed, once it is known who pays.
    pub(super) fn sign(&mut self, id: JobId) {
        let Some(payer) = self.introducing.known() else {
            return;
        };
        let now = self.now;
        let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|job| matches!(job.signed, Signed::Not))
        else {
            return;
        };
        match (&self.payer, payer) {
            (Payer::Account(_), Some(_)) => {
                let digest = job.order.job.digest(self.config.scheme);
                let asked = self.out.open(Effect::Sign(digest));
                self.effects.insert(asked, id);
                job.signed = Signed::Key(asked, now + SIGN_WITHIN);
            }
            (Payer::Remote(signers), Some(_)) => {
                let left = signers.order(now);
                self.ask_signer(id, left, Vec::new());
            }
            _ => job.signed = Signed::Done(None),
        }
        self.arm(id);
    }

    /// Asks the next signer, or says that none signed.
    fn ask_signer(&mut self, id: JobId, mut left: VecDeque<usize>, mut failures: Vec<Failure>) {
        let (Payer::Remote(signers), Some(job)) = (&self.payer, self.jobs.get_mut(&id)) else {
            return;
        };
        let Some(signer) = left.pop_front() else {
            if let Some(failure) = all_failed(core::mem::take(&mut failures)) {
                job.signed = Signed::Not;
                self.fail(id, Failed::Ours(Box::new(failure)));
            }
            return;
        };
        let bounds = Bounds {
            doing: "a request for a job's signature",
            what: "the signature in bytes",
            limit: MAX_SIGNATURE_BYTES,
            within: SIGNER_WITHIN,
            redirects: false,
        };
        let body = SignRequest(job.order.job.clone()).to_json();
        let request = signers.request(signer, SIGN_JOB_PATH, body);
        let exchange = Exchange::start(&mut self.out, self.now, request, bounds);
        if let Some(effect) = exchange.id() {
            self.effects.insert(effect, id);
        }
        job.signed = Signed::Asking {
            signer,
            exchange,
            left,
            failures,
        };
    }

    /// Takes a step of a signer's answer.
    pub(super) fn on_signer(&mut self, id: JobId, step: In) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Signed::Asking { exchange, .. } = &mut job.signed else {
            return;
        };
        let asked = exchange.id();
        let Some(told) = exchange.step(&mut self.out, step) else {
            return;
        };
        if let Some(asked) = asked {
            self.effects.remove(&asked);
        }
        let signed = told.and_then(|reply| match reply.status {
            200 => read_job_signature(&reply.body, &job.order.job).map_err(Cause::from),
            status => Err(Cause::Refused {
                doing: "to sign a job",
                status,
                reason: Reason::Other,
                text: error_words(&reply.body),
            }),
        });
        match signed {
            Ok((by, _)) => self.is_signed(id, by),
            Err(cause) => self.signer_failed(id, cause),
        }
    }

    fn is_signed(&mut self, id: JobId, by: SignedBy) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.signed = Signed::Done(Some(by));
        }
        self.go_on(id);
    }

    fn signer_failed(&mut self, id: JobId, cause: Cause) {
        let (Payer::Remote(signers), Some(job)) = (&mut self.payer, self.jobs.get_mut(&id)) else {
            return;
        };
        let Signed::Asking {
            signer,
            left,
            mut failures,
            ..
        } = core::mem::replace(&mut job.signed, Signed::Not)
        else {
            return;
        };
        note(&mut failures, Failure::new(signers.party(signer), cause));
        self.ask_signer(id, left, failures);
    }

    pub(super) fn on_signature(
        &mut self,
        id: JobId,
        effect: EffectId,
        answer: Result<Signature, SignRefused>,
    ) {
        let payer = self.introducing.known().flatten();
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if !matches!(job.signed, Signed::Key(asked, _) if asked == effect) {
            return;
        }
        match (answer, payer) {
            (Ok(signature), Some((sender, _))) => {
                self.is_signed(id, SignedBy { sender, signature });
            }
            (Err(SignRefused(text)), _) => {
                self.fail(id, Failed::Ours(Box::new(not_signed(text))));
            }
            (Ok(_), None) => {}
        }
    }

    /// A signature that did not come in time.
    pub(super) fn late_signature(&mut self, id: JobId) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        match &mut job.signed {
            Signed::Key(_, until) if *until <= now => {
                self.fail(id, Failed::Ours(Box::new(sign_late())));
            }
            Signed::Asking { exchange, .. } => {
                let asked = exchange.id();
                if let Some(cause) = exchange.late(&mut self.out, now) {
                    if let Some(asked) = asked {
                        self.effects.remove(&asked);
                    }
                    self.signer_failed(id, cause);
                }
            }
            _ => {}
        }
    }
}
