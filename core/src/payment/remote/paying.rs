//! The way of a payment, or of a job that is signed, from its plan to its answer.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::time::Duration;

use super::webhook::{self, is_due};
use super::{
    Event, Job, MAX_WEBHOOK_ANSWER, SIGN_DEADLINE, SignerServer, State, WEBHOOK_DEADLINE, Wanted,
};
use crate::error::Cause;
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{self, Body, Headers, Method, Request};
use crate::machine::{Effect, EffectId};
use crate::payment::mint::Refusal;
use crate::payment::nonce::SpentNonces;
use crate::sign::{Digest, SignRefused, Signature};
use crate::store::{STORE_WITHIN, StoreFailed};
use crate::wire::byoc::{SignedBy, job_signature_json};
use crate::wire::signer::{PaymentResponse, StateBlob};
use crate::wire::webhook::webhook_question;

impl SignerServer {
    /// Decides on what a caller wants with a body of that length: asks the webhook first, if that is due.
    pub(super) fn authorize(&mut self, id: EffectId, wanted: Wanted, length: usize) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        exchange.wanted = wanted;
        let Some((state, _)) = exchange.wanted.state() else {
            return;
        };
        let hook = self.config.webhook.as_ref();
        let Some(hook) = hook.filter(|_| is_due(state, self.now)) else {
            return match webhook::identify(&exchange.headers, None, state) {
                Ok(()) => self.allow(id),
                Err(refusal) => self.refuse(id, refusal),
            };
        };
        let body = webhook_question(&exchange.headers, length, state);
        let url = hook.url.clone().hide_path();
        let mut request = Request::new(Method::Post, url).body(Body::Full(body.into()));
        for (name, value) in hook.headers.iter() {
            request.headers.push_any(name, value);
        }
        if request.headers.get("content-type").is_none() {
            request.headers.push("content-type", "application/json");
        }
        let bounds = Bounds {
            doing: "the auth webhook",
            what: "the answer of the auth webhook",
            limit: MAX_WEBHOOK_ANSWER,
            within: WEBHOOK_DEADLINE,
            redirects: false,
        };
        let asked = Exchange::start(&mut self.out, self.now, request, bounds);
        let opened = asked.id().into_iter().collect();
        self.wait(id, State::AwaitingWebhook(asked), opened, WEBHOOK_DEADLINE);
    }

    pub(super) fn on_webhook(&mut self, asked: EffectId, step: http::In) {
        let Some((id, _)) = self.opened.get(&asked).copied() else {
            return;
        };
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let State::AwaitingWebhook(asked) = &mut exchange.state else {
            return;
        };
        let why = match asked.step(&mut self.out, step) {
            None => return,
            Some(Ok(reply)) => return self.authorized(id, &reply),
            Some(Err(Cause::TooMuch { .. })) => "answer too long".to_string(),
            Some(Err(cause)) => cause.to_string(),
        };
        self.refuse(id, Refusal::new(500, format!("signer auth webhook: {why}")));
    }

    fn authorized(&mut self, id: EffectId, reply: &Reply) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let Some((state, price)) = exchange.wanted.state() else {
            return;
        };
        let verdict = webhook::apply(reply.status, &reply.body, price.as_ref(), state)
            .and_then(|answer| webhook::identify(&exchange.headers, Some(&answer), state));
        for asked in exchange.opened.drain(..) {
            self.opened.remove(&asked);
        }
        match verdict {
            Ok(()) => self.allow(id),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    /// Goes on with what is let through.
    fn allow(&mut self, id: EffectId) {
        match self.exchanges.get(&id).map(|exchange| &exchange.wanted) {
            Some(Wanted::Payment(_)) => self.spend(id),
            Some(Wanted::Job(Some(job))) => {
                let digest = job.request.digest(self.config.job_scheme);
                self.sign(id, &[digest]);
            }
            Some(Wanted::Identity | Wanted::Job(None)) | None => {}
        }
    }

    /// Spends the nonces of a plan that is let through.
    fn spend(&mut self, id: EffectId) {
        let wanted = self.exchanges.get_mut(&id).map(|one| &mut one.wanted);
        let Some(Wanted::Payment(Some(plan))) = wanted else {
            return;
        };
        let hash = plan.params.recipient_rand_hash;
        // While this one waited for the webhook, others may have been let through under the same quote.
        if let Err(refusal) = plan.number_after(self.spent.last(&hash)) {
            return self.refuse(id, refusal);
        }
        // Before they are durable, so that nobody else gets them meanwhile.
        let last = *plan.nonces.end();
        if let Some(forgotten) = self.spent.spend(hash, last) {
            self.out.open(Effect::Store(forgotten));
        }
        let record = SpentNonces::record(&hash, last);
        let asked = self.out.open(Effect::Store(record));
        self.wait(id, State::AwaitingStored, [asked].into(), STORE_WITHIN);
    }

    /// Nothing is signed before its nonces are durable.
    pub(super) fn on_stored(&mut self, asked: EffectId, answer: Result<(), StoreFailed>) {
        let Some((id, _)) = self.opened.remove(&asked) else {
            return;
        };
        let wanted = self.exchanges.get(&id).map(|one| &one.wanted);
        let Some(Wanted::Payment(Some(plan))) = wanted else {
            return;
        };
        if let Err(why) = answer {
            let hash = plan.params.recipient_rand_hash;
            self.spent.give_back(&hash, &plan.nonces);
            return self.refuse(id, Refusal::new(500, why.to_string()));
        }
        let state = Digest::personal(plan.state.to_json().as_bytes());
        let payer = self.config.policy.address;
        let digests: Vec<Digest> = plan.digests(payer).chain([state]).collect();
        self.sign(id, &digests);
    }

    pub(super) fn sign(&mut self, id: EffectId, digests: &[Digest]) {
        let asked = digests
            .iter()
            .map(|digest| self.out.open(Effect::Sign(*digest)));
        let asked = asked.collect();
        let state = State::AwaitingSignatures {
            signatures: alloc::vec![None; digests.len()],
            missing: digests.len(),
        };
        self.wait(id, state, asked, SIGN_DEADLINE);
    }

    /// An exchange waits for what was opened for it.
    fn wait(&mut self, id: EffectId, state: State, opened: Vec<EffectId>, within: Duration) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            for (slot, asked) in opened.iter().enumerate() {
                self.opened.insert(*asked, (id, slot));
            }
            exchange.state = state;
            exchange.opened = opened;
            exchange.deadline = self.now + within;
        }
    }

    pub(super) fn on_signed(&mut self, asked: EffectId, answer: Result<Signature, SignRefused>) {
        let Some((id, slot)) = self.opened.remove(&asked) else {
            return;
        };
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let State::AwaitingSignatures {
            signatures,
            missing,
        } = &mut exchange.state
        else {
            return;
        };
        match answer {
            Err(refused) => self.refuse(id, Refusal::new(500, refused.to_string())),
            Ok(signature) => {
                signatures[slot] = Some(signature);
                *missing -= 1;
                if *missing == 0 {
                    let signatures = signatures.drain(..).flatten().collect();
                    let wanted = core::mem::replace(&mut exchange.wanted, Wanted::Identity);
                    self.signed(id, wanted, signatures);
                }
            }
        }
    }

    fn signed(&mut self, id: EffectId, wanted: Wanted, signatures: Vec<Signature>) {
        let plan = match wanted {
            Wanted::Payment(Some(plan)) => plan,
            Wanted::Job(Some(job)) => return self.job_signed(id, *job, &signatures),
            Wanted::Identity | Wanted::Payment(None) | Wanted::Job(None) => {
                self.identity = signatures.first().copied();
                return self.sign_info(id);
            }
        };
        let minted = Event::Minted {
            orchestrator: plan.state.orchestrator,
            auth_id: plan.state.auth_id.clone(),
            tickets: u32::try_from(plan.nonces.clone().count()).unwrap_or(u32::MAX),
            value: plan.value.clone(),
            fee: plan.fee.clone(),
        };
        let (state_sig, rest) = signatures
            .split_last()
            .expect("one signature was awaited for each digest");
        let (payment, segment) = plan
            .headers(self.config.policy.address, rest)
            .expect("one signature was awaited for each digest");
        let state = plan.state.to_json().into_bytes();
        self.recent.add(Digest::personal(&state), state_sig);
        let response = PaymentResponse {
            payment,
            segment,
            state: StateBlob {
                state: state.into(),
                sig: state_sig.0.to_vec().into(),
            },
        };
        self.figures.minted(&minted);
        self.out.event(minted);
        self.reply(id, 200, Headers::new(), response.to_json());
    }
    fn job_signed(&mut self, id: EffectId, job: Job, signatures: &[Signature]) {
        let Some(signature) = signatures.first().copied() else {
            return;
        };
        let sender = self.config.policy.address;
        self.out.event(Event::JobSigned {
            capability: job.request.capability,
            auth_id: job.state.auth_id,
        });
        let body = job_signature_json(&SignedBy { sender, signature });
        self.reply(id, 200, Headers::new(), body);
    }
}
