//! A bounded document fetched from a peer: deadline, size and redirects included.

use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{Cause, Reason};
use crate::http::{In, Method, Request, Response, Url};
use crate::machine::{EffectId, Outbox};
use crate::time::Time;
use crate::wire::jsonrpc::retry_after;
use crate::wire::{error_words, reason};

/// At most this many redirects are followed; more are a loop.
pub const MAX_REDIRECTS: u32 = 5;

/// The document to get, and the limits on it.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) request: Request,
    pub(super) limit: usize,
    pub(super) within: Duration,
}

/// An [`Ask`] under way.
#[derive(Debug)]
pub(super) struct Fetch {
    exchange: EffectId,
    ask: Ask,
    until: Time,
    redirects: u32,
    head: Option<Response>,
    body: Vec<u8>,
    /// The status that refused it, and for how long the peer wants to be left alone.
    refused: Option<(u16, Option<Duration>)>,
}

impl Fetch {
    pub(super) fn start<E>(out: &mut Outbox<E>, now: Time, ask: Ask) -> Self {
        let exchange = out.request(ask.request.clone());
        let until = now + ask.within.max(Duration::from_millis(1));
        Self {
            exchange,
            ask,
            until,
            redirects: 0,
            head: None,
            body: Vec::new(),
            refused: None,
        }
    }

    /// The URL that answers: redirects may have led to another one.
    pub(super) const fn url(&self) -> &Url {
        &self.ask.request.url
    }

    /// The status that refused it, and for how long the peer wants to be left alone.
    pub(super) const fn refused(&self) -> Option<(u16, Option<Duration>)> {
        self.refused
    }

    pub(super) const fn until(&self) -> Time {
        self.until
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.exchange == id
    }

    pub(super) fn abort<E>(&self, out: &mut Outbox<E>) {
        out.abort(self.exchange);
    }

    /// Why it is over, if time is up.
    pub(super) fn late<E>(&self, out: &mut Outbox<E>, now: Time) -> Option<Cause> {
        (self.until <= now).then(|| {
            self.abort(out);
            Cause::TimedOut {
                doing: "the question for orchestrators",
                after: self.ask.within,
            }
        })
    }

    /// Takes a step of the exchange; the document, or why there is none, once that is known.
    pub(super) fn step<E>(
        &mut self,
        out: &mut Outbox<E>,
        step: In,
    ) -> Option<Result<Vec<u8>, Cause>> {
        match step {
            In::Reply(head) => self.head = Some(head),
            In::Data(data) if self.body.len() + data.len() > self.ask.limit => {
                self.abort(out);
                return Some(Err(Cause::TooMuch {
                    what: "the list in bytes",
                    limit: self.ask.limit,
                }));
            }
            In::Data(data) => self.body.extend_from_slice(&data),
            In::Failed(fault) => return Some(Err(Cause::Link(fault))),
            In::End(_) => return self.end(out),
            In::Sent(_) | In::Request(_) => {}
        }
        None
    }

    fn end<E>(&mut self, out: &mut Outbox<E>) -> Option<Result<Vec<u8>, Cause>> {
        let body = core::mem::take(&mut self.body);
        let head = self.head.take();
        let status = head.as_ref().map_or(0, |head| head.status);
        match status {
            200..=299 => Some(Ok(body)),
            301 | 302 | 303 | 307 | 308 if self.ask.request.method == Method::Get => {
                let place = head.as_ref().and_then(|head| head.headers.get("location"));
                match self.redirected(place) {
                    Ok(request) => {
                        self.ask.request = request;
                        self.exchange = out.request(self.ask.request.clone());
                        None
                    }
                    Err(cause) => Some(Err(cause)),
                }
            }
            _ => {
                let pause = head.and_then(|head| retry_after(&head.headers));
                self.refused = Some((status, pause));
                let text = error_words(&body);
                let known = reason(&text);
                Some(Err(Cause::Refused {
                    doing: "the question for orchestrators",
                    status,
                    reason: if known == Reason::Denied {
                        known
                    } else {
                        Reason::Other
                    },
                    text,
                }))
            }
        }
    }

    /// The request to the next place. What was meant for one origin is not told to another.
    fn redirected(&mut self, place: Option<&str>) -> Result<Request, Cause> {
        let nonsense = |why: &str| Cause::Nonsense {
            what: "a redirect",
            why: why.into(),
        };
        self.redirects += 1;
        if self.redirects > MAX_REDIRECTS {
            return Err(nonsense("there are more than five of them"));
        }
        let from = &self.ask.request.url;
        let place = place.ok_or_else(|| nonsense("it does not say where to"))?;
        let to = if place.starts_with('/') {
            Url::parse(&alloc::format!("{}{place}", from.origin()))
        } else {
            Url::parse(place)
        };
        let to = to.map_err(|_| nonsense("it leads to no URL"))?;
        let to = to
            .named_by(from)
            .map_err(|forbidden| Cause::Link(forbidden.into()))?;
        let same = from.is_same_origin(&to);
        let mut request = self.ask.request.clone();
        request.url = to;
        if !same {
            request.headers = crate::http::Headers::new();
        }
        Ok(request)
    }
}
