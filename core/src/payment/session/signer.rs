//! One call to a remote signer, at whichever of several URLs answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, Failure, Party};
use crate::http::{self, Body, Headers, Method, Request, Trust, Url};
use crate::machine::{EffectId, Outbox};
use crate::sign::Address;
use crate::time::Time;
use crate::wire::signer::{MAX_SIGNER_BODY, ORCHESTRATOR_URL_HEADER, PAYMENT_PATH};
use crate::wire::{error_words, reason};

/// Where remote signers for one account are, and who they sign for.
#[derive(Clone, Debug)]
pub struct RemoteSigner {
    /// In the order in which they are asked. Of each only the origin is used.
    pub urls: Vec<Url>,
    /// For signers and nobody else.
    pub headers: Headers,
    /// The account, as the signer introduced it in the handshake.
    pub address: Address,
    /// Which certificates will do. The headers may be secret.
    pub trust: Trust,
    /// How long one call may take, at most: less when what was paid runs out.
    pub deadline: Duration,
}

impl RemoteSigner {
    /// One signer, publicly trusted, with ten seconds for a call.
    #[must_use]
    pub fn new(url: Url, address: Address) -> Self {
        Self {
            urls: alloc::vec![url],
            headers: Headers::new(),
            address,
            trust: Trust::Public,
            deadline: Duration::from_secs(10),
        }
    }

    /// Another one for the same account, asked when those before it fail.
    #[must_use]
    pub fn or(mut self, url: Url) -> Self {
        self.urls.push(url);
        self
    }

    /// Header fields for signers, such as an authorization.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }
}

/// What a call came to.
pub(super) enum Outcome {
    /// An answer that is the signer's own.
    Answer(Answer),
    /// None, or one that another signer may not give: try elsewhere, or later.
    Failed(Failure),
}

/// A signer's answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// With a request for a fresh quote.
    pub(super) orchestrator: Option<Url>,
}

struct Call {
    exchange: EffectId,
    within: Duration,
    until: Time,
    status: u16,
    orchestrator: Option<Url>,
    body: Vec<u8>,
}

pub(super) struct Client {
    signer: RemoteSigner,
    at: usize,
    call: Option<Call>,
}

impl Client {
    pub(super) const fn new(signer: RemoteSigner) -> Self {
        Self {
            signer,
            at: 0,
            call: None,
        }
    }

    pub(super) const fn address(&self) -> Address {
        self.signer.address
    }

    pub(super) fn has_urls(&self) -> bool {
        !self.signer.urls.is_empty()
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.signer.urls.len()).unwrap_or(u32::MAX)
    }

    /// The one that is asked now.
    pub(super) fn party(&self) -> Party {
        match self.signer.urls.get(self.at) {
            Some(url) => Party::Signer(url.clone()),
            None => Party::KeyHolder,
        }
    }

    /// Goes to the next one, around in a circle. The one that answered last stays the first to be asked.
    pub(super) fn advance(&mut self) {
        self.at = (self.at + 1) % self.signer.urls.len().max(1);
    }

    pub(super) const fn deadline(&self) -> Duration {
        self.signer.deadline
    }

    pub(super) fn ask<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        body: Vec<u8>,
        within: Duration,
    ) {
        self.abort(out);
        let Some(url) = self.signer.urls.get(self.at) else {
            return;
        };
        let mut request = Request::new(Method::Post, url.with_path(PAYMENT_PATH))
            .header("content-type", "application/json")
            .trust(self.signer.trust)
            .body(Body::Full(Bytes::from(body)));
        for (name, value) in self.signer.headers.iter() {
            request.headers.push_any(name, value);
        }
        self.call = Some(Call {
            exchange: out.request(request),
            within,
            until: now + within.max(Duration::from_millis(1)),
            status: 0,
            orchestrator: None,
            body: Vec::new(),
        });
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        if let Some(call) = self.call.take() {
            out.abort(call.exchange);
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.call.as_ref().map(|call| call.until)
    }

    pub(super) fn tick<E>(&mut self, now: Time, out: &mut Outbox<E>) -> Option<Outcome> {
        let call = self.call.take_if(|call| call.until <= now)?;
        out.abort(call.exchange);
        Some(self.failed(Cause::TimedOut {
            doing: "a request for a payment",
            after: call.within,
        }))
    }

    pub(super) fn handle<E>(
        &mut self,
        id: EffectId,
        step: http::In,
        out: &mut Outbox<E>,
    ) -> Option<Outcome> {
        let call = self.call.as_mut().filter(|call| call.exchange == id)?;
        match step {
            http::In::Reply(reply) => {
                call.status = reply.status;
                call.orchestrator = reply
                    .headers
                    .get(ORCHESTRATOR_URL_HEADER)
                    .and_then(|url| Url::parse(url).ok());
                None
            }
            http::In::Data(data) if call.body.len() + data.len() > MAX_SIGNER_BODY => {
                self.abort(out);
                Some(self.failed(Cause::TooMuch {
                    what: "the answer to a request for a payment",
                    limit: MAX_SIGNER_BODY,
                }))
            }
            http::In::Data(data) => {
                call.body.extend_from_slice(&data);
                None
            }
            http::In::End(_) => {
                let call = self.call.take()?;
                Some(if call.status >= 500 || call.status == 408 {
                    let text = error_words(&call.body);
                    self.failed(refused(call.status, text))
                } else {
                    Outcome::Answer(Answer {
                        status: call.status,
                        body: call.body,
                        orchestrator: call.orchestrator,
                    })
                })
            }
            http::In::Failed(fault) => {
                self.call = None;
                Some(self.failed(Cause::Link(fault)))
            }
            http::In::Request(_) | http::In::Sent(_) => None,
        }
    }

    fn failed(&self, cause: Cause) -> Outcome {
        Outcome::Failed(Failure::new(self.party(), cause))
    }
}

/// A signer's refusal in its own words.
pub(super) fn refused(status: u16, text: String) -> Cause {
    Cause::Refused {
        doing: "a payment",
        status,
        reason: reason(&text),
        text,
    }
}
