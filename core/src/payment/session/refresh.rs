//! Asking the orchestrator for a fresh quote under the price that the job's first payment fixed (payments spec 11.4).

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use crate::exchange::{Bounds, Exchange, Reply};
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
    exchange: Exchange,
    manifest_id: String,
}

impl Refresh {
    pub(super) fn ask<E>(
        now: Time,
        out: &mut Outbox<E>,
        url: Url,
        trust: Trust,
        request: &RefreshRequest,
        within: Duration,
    ) -> Self {
        let post = Request::new(Method::Post, url)
            .header("content-type", "application/json")
            .trust(trust)
            .body(Body::Full(request.to_json()));
        let bounds = Bounds {
            doing: "a request for a quote at the job's price",
            what: "the quote in bytes",
            limit: MAX_CHALLENGE_BYTES,
            within,
            redirects: false,
        };
        Self {
            exchange: Exchange::start(out, now, post, bounds),
            manifest_id: request.manifest_id.clone(),
        }
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        self.exchange.abort(out);
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.exchange.owns(id)
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.exchange.wake()
    }

    pub(super) fn tick<E>(&mut self, now: Time, out: &mut Outbox<E>) -> Option<Answer> {
        let late = self.exchange.late(out, now);
        late.map(|_| Answer::Nothing)
    }

    pub(super) fn handle<E>(&mut self, step: http::In, out: &mut Outbox<E>) -> Option<Answer> {
        let told = self.exchange.step(out, step)?;
        Some(told.map_or(Answer::Nothing, |reply| self.judge(&reply)))
    }

    fn judge(&self, reply: &Reply) -> Answer {
        match Challenge::from_json(&reply.body) {
            Ok(Some(demand)) if reply.status == 200 && demand.manifest_id == self.manifest_id => {
                Answer::Quote(Box::new(demand.info))
            }
            _ => Answer::Nothing,
        }
    }
}
