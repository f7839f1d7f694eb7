//! Questions for tokens, and the choice of an orchestrator.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::job::{Offer, Signed};
use super::types::{Event, Failed, JobId, Left};
use super::{Byoc, FIND_WITHIN};
use crate::exchange::{Bounds, Exchange};
use crate::http::{In, Method, Request, Url};
use crate::machine::EffectId;
use crate::sign::Address;
use crate::wire::byoc::{
    CAPABILITY_HEADER, MAX_TOKEN_BYTES, SENDER_HEADER, Sender, SignedBy, TOKEN_PATH, Token,
};

/// At most this many orchestrators are asked for a token at a time.
const MAX_ASKED: usize = 32;

/// How long a token is good for a job: then the container may have other work.
const TOKEN_LASTS: Duration = Duration::from_secs(30);

impl Byoc {
    pub(super) fn look_all(&mut self) {
        let idle = self.jobs.iter().filter(|(_, job)| !job.begun);
        for id in idle.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.look(id);
            self.arm(id);
        }
    }

    /// Begins a job's search, if there is somebody to ask, or has some found.
    pub(super) fn look(&mut self, id: JobId) {
        if self.introducing.known().is_none() {
            return;
        }
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.begun) else {
            return;
        };
        let now = self.now;
        // Whoever waited for it may have gone away.
        self.finding = self.finding.filter(|until| *until > now);
        let allowed = self
            .peers
            .iter()
            .filter(|(url, peer)| peer.listed && job.allows(url));
        let (resting, ready): (Vec<_>, Vec<_>) = allowed.partition(|(_, peer)| peer.rests(now));
        // Those who failed lately are better than nobody.
        let chosen = if ready.is_empty() { resting } else { ready };
        let mut chosen: Vec<Url> = chosen.into_iter().map(|(url, _)| url.clone()).collect();
        if chosen.is_empty() && (!job.looked || self.finding.is_some()) {
            (job.looked, job.waits) = (true, true);
            if self.finding.is_none() {
                self.finding = Some(now + FIND_WITHIN);
                self.out.event(Event::Find);
            }
            return self.arm(id);
        }
        // The order of their names is nobody's merit.
        for last in (1..chosen.len()).rev() {
            chosen.swap(
                last,
                usize::try_from(self.rng.below(last as u64 + 1)).unwrap_or(last),
            );
        }
        (job.begun, job.waits) = (true, false);
        job.waiting = VecDeque::from(chosen);
        job.search_until = now
            + job
                .order
                .search_within
                .unwrap_or(self.config.search_within)
                .max(Duration::from_millis(1));
        self.go_on(id);
    }

    /// Asks the next ones for a token, and takes the next orchestrator, or says that there is none.
    pub(super) fn go_on(&mut self, id: JobId) {
        let Some(payer) = self.introducing.known() else {
            return self.introducing.ask(self.now, &mut self.out);
        };
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.engaged.is_some() || job.flight.is_some() {
            return;
        }
        while job.asking.len() < MAX_ASKED
            && let Some(url) = job.waiting.pop_front()
        {
            let sender = payer.map(|(sender, signature)| SignedBy { sender, signature });
            let request = Request::new(Method::Get, url.with_path(TOKEN_PATH))
                .header(SENDER_HEADER, Sender(sender).to_header())
                .header(CAPABILITY_HEADER, self.capability.as_str())
                .trust(self.config.trust);
            let bounds = Bounds {
                doing: "a request for a token",
                what: "the token in bytes",
                limit: MAX_TOKEN_BYTES,
                within: job.order.token_within.unwrap_or(self.config.token_within),
                redirects: false,
            };
            let exchange = Exchange::start(&mut self.out, self.now, request, bounds);
            if let Some(effect) = exchange.id() {
                self.effects.insert(effect, id);
                job.asking.insert(effect, (url, exchange));
            }
        }
        let Signed::Done(_) = job.signed else {
            return self.arm(id);
        };
        if let Some(offer) = job.tokens.pop_front() {
            if offer.at + TOKEN_LASTS < self.now {
                job.waiting.push_back(offer.url);
                job.search_until = self.now + self.config.search_within;
                return self.go_on(id);
            }
            self.engage(id, offer);
        } else if job.asking.is_empty() && job.begun {
            self.nobody_left(id);
        }
        self.arm(id);
    }

    /// Nobody is left to do a job.
    fn nobody_left(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let attempts = core::mem::take(&mut job.attempts);
        let failed = match job.tried.is_empty() {
            true => Failed::NoOrchestrator { attempts },
            false => Failed::Exhausted {
                reached: job.reached,
                attempts,
            },
        };
        self.fail(id, failed);
    }

    /// Takes a step of a question: a token, or a signature.
    pub(super) fn on_asked(&mut self, id: JobId, effect: EffectId, step: In) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some((_, exchange)) = job.asking.get_mut(&effect) else {
            return self.on_signer(id, step);
        };
        let Some(told) = exchange.step(&mut self.out, step) else {
            return;
        };
        self.effects.remove(&effect);
        let Some((url, _)) = job.asking.remove(&effect) else {
            return;
        };
        let reply = told.ok().filter(|reply| reply.status == 200);
        let token = reply.and_then(|reply| Token::from_json(&reply.body, &url).ok());
        let Some(token) = token else {
            job.left(url, Left::NoToken);
            return self.go_on(id);
        };
        let affordable = self.affordable(&token);
        let at = self.now;
        if let Some(job) = self.jobs.get_mut(&id) {
            let account =
                { token.ticket_params.as_ref() }.map_or(Address::ZERO, |params| params.recipient);
            if !self.config.limits.admit(&url, account) {
                job.left(url, Left::Excluded);
            } else if token.capacity == 0 {
                job.left(url, Left::Full);
            } else if !affordable {
                job.left(url, Left::TooDear);
            } else {
                job.tokens.push_back(Offer { url, at, token });
            }
        }
        self.go_on(id);
    }

    /// Whether we pay what a token asks, and can.
    pub(super) fn affordable(&self, token: &Token) -> bool {
        if token.price.is_free() {
            return true;
        }
        let wanted = crate::capabilities::Capabilities::for_model(
            crate::capabilities::Capability::BYOC,
            self.capability.as_str(),
        );
        let ceiling = self.config.payment.ceilings.limit(&wanted);
        self.payer.pays()
            && token.ticket_params.is_some()
            && ceiling.is_none_or(|ceiling| token.price.of_one() <= ceiling)
    }

    /// Tokens that did not come in time, or a search that is over.
    pub(super) fn late_tokens(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let over = job.search_until <= self.now && job.begun;
        let now = self.now;
        let mut late = Vec::new();
        for (effect, (url, exchange)) in &mut job.asking {
            if over {
                exchange.abort(&mut self.out);
                late.push((*effect, url.clone()));
            } else if exchange.late(&mut self.out, now).is_some() {
                late.push((*effect, url.clone()));
            }
        }
        for (effect, url) in late {
            job.asking.remove(&effect);
            self.effects.remove(&effect);
            job.left(url, Left::NoToken);
        }
        if over {
            for url in core::mem::take(&mut job.waiting) {
                job.left(url, Left::NoToken);
            }
        }
        self.go_on(id);
    }

    pub(super) fn left(&mut self, id: JobId, url: Url, left: Left) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left(url, left);
        }
    }
}
