//! Bounded answers: the whole answer to a request, under one deadline.
//!
//! A machine that asks a peer something and wants the whole answer keeps an [`Exchange`] in its state:
//!
//! - [`Exchange::start`] sends the request. Its [`Bounds`] say how long the answer may take, how long it may be, and
//!   by which words failures name it.
//! - [`Exchange::step`] takes each input that the exchange [owns](Exchange::owns), and gives the [`Reply`] once that is
//!   complete, whatever its status, or the [`Cause`] why there is none.
//! - [`Exchange::wake`] is when it is too late; [`Exchange::late`], called with every input, then gives the cause.
//! - [`Exchange::abort`] gives it up.
//!
//! After a reply or a cause the exchange is over: it owns no input, wakes nobody, and an abort does nothing. So rule 11
//! of [`machine`](crate::machine) holds for as long as the owner aborts what it drops before that. The deadline counts
//! from the start and is not renewed by bytes that trickle in, nor by redirects. Which status is good, what its body
//! means and whether to ask again is the owner's to decide.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::error::Cause;
use crate::http::{Body, Headers, In, Method, Request, Url};
use crate::machine::{EffectId, Outbox};
use crate::time::Time;

/// At most this many redirects are followed; more are a loop.
pub const MAX_REDIRECTS: u32 = 5;

/// Limits on an answer, and the words for an answer that breaks them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The request, in "no answer to {doing} within 5s".
    pub(crate) doing: &'static str,
    /// The answer's size, in "{what} exceeds the limit of 1024".
    pub(crate) what: &'static str,
    /// At most this many bytes of body are read.
    pub(crate) limit: usize,
    /// How long the answer may take, from the request to its last byte.
    pub(crate) within: Duration,
    /// Whether a GET goes on where redirects lead.
    pub(crate) redirects: bool,
}

/// The head of an answer and its body.
#[derive(Default)]
pub(crate) struct Reply {
    /// The status code; zero before the head.
    pub(crate) status: u16,
    /// Header fields.
    pub(crate) headers: Headers,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Reply {
    // A signer's answer is worth money.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}

impl Reply {
    /// Whether the status says that all went well.
    pub(crate) const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

/// A request that was sent, and what came back so far. See the [module](self).
#[derive(Debug)]
pub(crate) struct Exchange {
    /// `None` once the exchange is over.
    id: Option<EffectId>,
    /// Boxed, so that a state that holds an exchange stays small.
    asked: Box<Asked>,
    began: Time,
    redirects: u32,
    heard: Reply,
}

#[derive(Debug)]
struct Asked {
    /// The request that was sent last, without its body.
    request: Request,
    bounds: Bounds,
}

impl Exchange {
    /// Sends a request.
    pub(crate) fn start<E>(
        out: &mut Outbox<E>,
        now: Time,
        request: Request,
        bounds: Bounds,
    ) -> Self {
        // Only a GET is sent again, and it has no body.
        let head = Request {
            body: Body::Empty,
            ..request.clone()
        };
        Self {
            id: Some(out.request(request)),
            asked: Box::new(Asked {
                request: head,
                bounds,
            }),
            began: now,
            redirects: 0,
            heard: Reply::default(),
        }
    }

    /// The URL that was asked last: redirects may have led to another one.
    pub(crate) const fn url(&self) -> &Url {
        &self.asked.request.url
    }

    /// The name of the exchange; `None` once it is over.
    pub(crate) const fn id(&self) -> Option<EffectId> {
        self.id
    }

    /// How long ago the request was sent.
    pub(crate) fn age(&self, now: Time) -> Duration {
        now.since(self.began)
    }

    /// Whether the input named `id` is for this exchange.
    pub(crate) fn owns(&self, id: EffectId) -> bool {
        self.id == Some(id)
    }

    /// The time from which on the answer is late; `None` once the exchange is over.
    pub(crate) fn wake(&self) -> Option<Time> {
        // A deadline of nothing would wake a driver in the past.
        let within = self.asked.bounds.within.max(Duration::from_millis(1));
        self.id.map(|_| self.began + within)
    }

    /// The cause of the end, if the answer is late.
    pub(crate) fn late<E>(&mut self, out: &mut Outbox<E>, now: Time) -> Option<Cause> {
        self.wake().filter(|until| *until <= now)?;
        self.abort(out);
        Some(Cause::TimedOut {
            doing: self.asked.bounds.doing,
            after: self.asked.bounds.within,
        })
    }

    /// Gives the exchange up. Does nothing if it is over.
    pub(crate) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        if let Some(id) = self.id.take() {
            out.abort(id);
        }
    }

    /// Takes out the answer so far: of use after a cause, where a part of the answer says enough.
    pub(crate) fn heard(&mut self) -> Reply {
        core::mem::take(&mut self.heard)
    }

    /// Takes a step of the exchange. The answer, or why there is none, once that is known.
    pub(crate) fn step<E>(
        &mut self,
        out: &mut Outbox<E>,
        step: In,
    ) -> Option<Result<Reply, Cause>> {
        match step {
            In::Reply(head) => {
                self.heard.status = head.status;
                self.heard.headers = head.headers;
                None
            }
            In::Data(data) => {
                let room = self.asked.bounds.limit - self.heard.body.len();
                let fits = &data[..data.len().min(room)];
                self.heard.body.extend_from_slice(fits);
                if data.len() <= room {
                    return None;
                }
                self.abort(out);
                Some(Err(Cause::TooMuch {
                    what: self.asked.bounds.what,
                    limit: self.asked.bounds.limit,
                }))
            }
            In::End(_) if self.is_redirect() => match self.redirected() {
                Ok(request) => {
                    self.id = Some(out.request(request.clone()));
                    self.asked.request = request;
                    None
                }
                Err(cause) => {
                    self.id = None;
                    Some(Err(cause))
                }
            },
            In::End(_) => {
                self.id = None;
                Some(Ok(self.heard()))
            }
            In::Failed(fault) => {
                self.id = None;
                Some(Err(Cause::Link(fault)))
            }
            In::Sent(_) | In::Request(_) => None,
        }
    }

    fn is_redirect(&self) -> bool {
        self.asked.bounds.redirects
            && self.asked.request.method == Method::Get
            && matches!(self.heard.status, 301 | 302 | 303 | 307 | 308)
    }

    /// The request to the next place. What was meant for one origin is not told to another.
    fn redirected(&mut self) -> Result<Request, Cause> {
        let nonsense = |why: &str| Cause::Nonsense {
            what: "a redirect",
            why: why.into(),
        };
        self.redirects += 1;
        if self.redirects > MAX_REDIRECTS {
            return Err(nonsense("there are more than five of them"));
        }
        let heard = self.heard();
        let place = heard.headers.get("location");
        let place = place.ok_or_else(|| nonsense("it does not say where to"))?;
        let from = &self.asked.request.url;
        let to = if place.starts_with('/') {
            Url::parse(&alloc::format!("{}{place}", from.origin()))
        } else {
            Url::parse(place)
        };
        let to = to.map_err(|_| nonsense("it leads to no URL"))?;
        let to = to
            .named_by(from)
            .map_err(|forbidden| Cause::Link(forbidden.into()))?
            .hide_path_like(from);
        let mut request = self.asked.request.clone();
        if !from.is_same_origin(&to) {
            request.headers = Headers::new();
        }
        request.url = to;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Fault, Out, Response};
    use crate::machine::{Effect, Output};

    const BOUNDS: Bounds = Bounds {
        doing: "a question",
        what: "the answer in bytes",
        limit: 4,
        within: Duration::from_secs(5),
        redirects: true,
    };

    fn start(out: &mut Outbox<()>) -> Exchange {
        let url = Url::parse("https://a:1/list").unwrap();
        let request = Request::new(Method::Get, url).header("authorization", "secret");
        Exchange::start(out, Time::from_secs(10), request, BOUNDS)
    }

    /// The steps that were asked for since the last call.
    fn asked(out: &mut Outbox<()>) -> Vec<Out> {
        core::iter::from_fn(|| out.pop())
            .map(|output| match output {
                Output::Effect(_, Effect::Http(step)) => step,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn end() -> In {
        In::End(Headers::new())
    }

    #[test]
    fn an_answer_comes_whole_with_any_status_and_its_end_is_not_aborted() {
        let out = &mut Outbox::default();
        let mut exchange = start(out);
        assert_eq!(exchange.wake(), Some(Time::from_secs(15)));
        let head = Response::new(503).header("retry-after", "7");
        for step in [
            In::Reply(head),
            In::Data("ab".into()),
            In::Data("cd".into()),
        ] {
            assert!(exchange.step(out, step).is_none());
        }
        let reply = exchange.step(out, end()).unwrap().unwrap();
        assert_eq!((reply.status, &*reply.body), (503, &b"abcd"[..]));
        assert_eq!(reply.headers.get("retry-after"), Some("7"));
        assert!(!reply.is_success());
        assert_eq!(exchange.wake(), None);
        assert!(exchange.late(out, Time::MAX).is_none());
        exchange.abort(out);
        assert!(matches!(&asked(out)[..], [Out::Request(_)]));
    }

    #[test]
    fn an_answer_that_is_too_long_is_aborted_once_and_its_beginning_kept() {
        let out = &mut Outbox::default();
        let mut exchange = start(out);
        assert!(exchange.step(out, In::Reply(Response::new(200))).is_none());
        let cause = exchange.step(out, In::Data("abcde".into())).unwrap();
        let cause = cause.unwrap_err();
        assert_eq!(
            alloc::format!("{cause}"),
            "the answer in bytes exceeds the limit of 4"
        );
        assert_eq!(exchange.heard().body, b"abcd");
        exchange.abort(out);
        assert!(matches!(&asked(out)[..], [Out::Request(_), Out::Abort]));
    }

    #[test]
    fn a_late_answer_is_aborted_however_much_of_it_came() {
        let out = &mut Outbox::default();
        let mut exchange = start(out);
        assert!(exchange.step(out, In::Data("ab".into())).is_none());
        let just_before = Time::from_secs(15) - Duration::from_nanos(1);
        assert!(exchange.late(out, just_before).is_none());
        let cause = exchange.late(out, Time::from_secs(15)).unwrap();
        assert_eq!(
            alloc::format!("{cause}"),
            "no answer to a question within 5s"
        );
        assert!(matches!(&asked(out)[..], [Out::Request(_), Out::Abort]));
    }

    #[test]
    fn a_broken_link_ends_it() {
        let out = &mut Outbox::default();
        let mut exchange = start(out);
        let fault = Fault::Broken("reset".into());
        let told = exchange.step(out, In::Failed(fault.clone())).unwrap();
        assert_eq!(told.unwrap_err(), Cause::Link(fault));
        assert_eq!(exchange.wake(), None);
    }

    #[test]
    fn redirects_renew_no_deadline_and_take_no_secret_elsewhere() {
        let out = &mut Outbox::default();
        let mut exchange = start(out);
        for (place, url, headers) in [
            ("/there", "https://a:1/there", 1),
            ("https://b:2/list", "https://b:2/list", 0),
        ] {
            let head = Response::new(302).header("location", place);
            assert!(exchange.step(out, In::Reply(head)).is_none());
            assert!(exchange.step(out, In::Data("gone".into())).is_none());
            assert!(exchange.step(out, end()).is_none());
            let Some(Out::Request(request)) = asked(out).pop() else {
                panic!("it goes on there");
            };
            assert_eq!(alloc::format!("{}", request.url), url);
            assert_eq!(exchange.url(), &request.url);
            assert_eq!(request.headers.iter().count(), headers);
        }
        assert_eq!(exchange.wake(), Some(Time::from_secs(15)));
    }

    #[test]
    fn a_post_and_a_request_that_wants_none_follow_no_redirect() {
        for (method, redirects) in [(Method::Post, true), (Method::Get, false)] {
            let out: &mut Outbox<()> = &mut Outbox::default();
            let url = Url::parse("https://a:1/").unwrap();
            let bounds = Bounds {
                redirects,
                ..BOUNDS
            };
            let request = Request::new(method, url);
            let mut exchange = Exchange::start(out, Time::ZERO, request, bounds);
            let head = Response::new(302).header("location", "/there");
            assert!(exchange.step(out, In::Reply(head)).is_none());
            let reply = exchange.step(out, end()).unwrap().unwrap();
            assert_eq!(reply.status, 302);
        }
    }
}
