//! Asking the orchestrator for a fresh quote under the price that the job's first payment fixed (payments spec 11.4).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::http::{self, Body, Method, Request, Trust, Url};
use crate::machine::{EffectId, Outbox};
use crate::time::Time;
use crate::wire::OrchestratorInfo;
use crate::wire::challenge::{Challenge, MAX_CHALLENGE_BYTES, RefreshRequest};

/// How long an orchestrator may take to answer, at most. A handshake is the way out when it does not.
pub(super) const REFRESH_DEADLINE: Duration = Duration::from_secs(5);

/// The outcome of asking for a quote.
pub(super) enum Answer {
    /// A quote for this job.
    Quote(Box<OrchestratorInfo>),
    /// None: the orchestrator is too old for this, knows no price of the job, or does not answer.
    Nothing,
}

/// A request under way.
pub(super) struct Refresh {
    exchange: EffectId,
    until: Time,
    manifest_id: String,
    status: u16,
    body: Vec<u8>,
}

impl Refresh {
    pub(super) fn ask<E>(
        until: Time,
        out: &mut Outbox<E>,
        url: Url,
        trust: Trust,
        request: &RefreshRequest,
    ) -> Self {
        let post = Request::new(Method::Post, url)
            .header("content-type", "application/json")
            .trust(trust)
            .body(Body::Full(request.to_json()));
        Self {
            exchange: out.request(post),
            until,
            manifest_id: request.manifest_id.clone(),
            status: 0,
            body: Vec::new(),
        }
    }

    pub(super) fn abort<E>(&self, out: &mut Outbox<E>) {
        out.abort(self.exchange);
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.exchange == id
    }

    pub(super) const fn wake(&self) -> Time {
        self.until
    }

    pub(super) fn tick<E>(&self, now: Time, out: &mut Outbox<E>) -> Option<Answer> {
        (self.until <= now).then(|| {
            self.abort(out);
            Answer::Nothing
        })
    }

    pub(super) fn handle<E>(&mut self, step: http::In, out: &mut Outbox<E>) -> Option<Answer> {
        match step {
            http::In::Reply(reply) => {
                self.status = reply.status;
                None
            }
            http::In::Data(data) if self.body.len() + data.len() > MAX_CHALLENGE_BYTES => {
                self.abort(out);
                Some(Answer::Nothing)
            }
            http::In::Data(data) => {
                self.body.extend_from_slice(&data);
                None
            }
            http::In::End(_) => Some(self.judge()),
            http::In::Failed(_) => Some(Answer::Nothing),
            http::In::Request(_) | http::In::Sent(_) => None,
        }
    }

    fn judge(&self) -> Answer {
        match Challenge::from_json(&self.body) {
            Ok(Some(demand)) if self.status == 200 && demand.manifest_id == self.manifest_id => {
                Answer::Quote(Box::new(demand.info))
            }
            _ => Answer::Nothing,
        }
    }
}
