//! The conversation with one source: one question, or several that follow from each other.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::chain::{Known, Step, Walk};
use super::{Answer, Config, Source};
use crate::error::{Cause, Failure, Party, Reason};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, Headers, In, Method, Request, Trust, Url};
use crate::machine::{EffectId, Outbox};
use crate::time::Time;
use crate::wire::jsonrpc::{self, Asking, BatchLimit, retry_after};
use crate::wire::listing::{
    Found, MAX_LIST_BYTES, StatsFields, named_by, read_list, read_round, read_runners, read_stats,
    read_subgraph,
};
use crate::wire::{WireError, error_words, reason};

/// How a conversation ends.
pub(super) type Outcome = Result<Answer, Failure>;

/// The longest list of one orchestrator's runners that is read; shorter than a list of orchestrators may be (handshake
/// spec 17).
const RUNNERS_BYTES: usize = 1 << 20;

/// At most this many times a walk through the chain waits for an endpoint that says that it is asked too often: as long
/// as it wants, or twice as long each time.
const MAX_PAUSES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

const RUNNERS_WITHIN: Duration = Duration::from_secs(2);

const DOING: &str = "the question for orchestrators";

#[derive(Debug)]
pub(super) struct Dialogue {
    topic: Topic,
    exchange: Exchange,
    /// The URL that is asked now.
    url: Url,
    trust: Trust,
    within: Duration,
    began: Time,
    /// Asked again then: the endpoint said that it is asked too often.
    paused: Option<Time>,
    pauses: u32,
}

#[derive(Debug)]
enum Topic {
    List,
    Runners,
    /// Awaiting the round.
    Round,
    /// Awaiting the orchestrators.
    Subgraph,
    Stats(StatsFields),
    /// Boxed, for it is much larger than the others.
    Chain {
        walk: alloc::boxed::Box<Walk>,
        /// The questions of its step that are not answered yet, and how many the endpoint takes at a time.
        asking: Asking,
        limit: BatchLimit,
        /// Endpoints not asked yet.
        others: Vec<Url>,
    },
}

impl Dialogue {
    /// Asks the first question.
    pub(super) fn start<E>(
        out: &mut Outbox<E>,
        now: Time,
        config: &Config,
        source: &Source,
        known: Option<Known>,
    ) -> Self {
        let get =
            |url: &Url| Request::new(Method::Get, url.clone()).header("accept", "application/json");
        let (topic, url, request) = match source {
            Source::List(..) => unreachable!("a list at hand is not asked for"),
            Source::Endpoint { url, headers } => {
                let mut request = get(url);
                for (name, value) in headers.iter() {
                    request.headers.push_any(name, value);
                }
                (Topic::List, url.clone(), request)
            }
            Source::Runners(url) => {
                let url = url.with_path("/discovery");
                let request = get(&url);
                (Topic::Runners, url, request)
            }
            Source::Subgraph(url) => {
                let url = url.clone().hide_path();
                let request = post(&url, ROUND.into());
                (Topic::Round, url, request)
            }
            Source::Stats { url, fields } => {
                let url = url.clone().hide_path();
                let request = get(&url);
                (Topic::Stats(fields.clone()), url, request)
            }
            Source::Chain(chain) => {
                let walk = alloc::boxed::Box::new(Walk::new(chain.clone(), known));
                let others = chain.others.iter().rev().cloned();
                let others = others.map(Url::hide_path).collect();
                let url = chain.endpoint.clone().hide_path();
                let (asking, limit) = (Asking::new(walk.asks()), walk.limit());
                let request = post(&url, asking.body(limit));
                let topic = Topic::Chain {
                    walk,
                    asking,
                    limit,
                    others,
                };
                (topic, url, request)
            }
        };
        let (limit, within, trust) = match topic {
            Topic::Runners => (RUNNERS_BYTES, RUNNERS_WITHIN, Trust::FirstUse),
            Topic::Chain { .. } => (jsonrpc::MAX_ANSWER_BYTES, config.within, config.trust),
            _ => (MAX_LIST_BYTES, config.within, config.trust),
        };
        Self {
            topic,
            exchange: Exchange::start(out, now, request.trust(trust), bounds(limit, within)),
            url,
            trust,
            within,
            began: now,
            paused: None,
            pauses: 0,
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.paused.or(self.exchange.wake())
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.exchange.owns(id)
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        self.exchange.abort(out);
    }

    /// Lets time pass; the end, if it is too late.
    pub(super) fn tick<E>(&mut self, out: &mut Outbox<E>, now: Time) -> Option<Outcome> {
        if let Some(paused) = self.paused {
            if paused <= now {
                self.paused = None;
                self.ask_on(out, now);
            }
            return None;
        }
        let cause = self.exchange.late(out, now)?;
        self.failed(out, now, cause, None)
    }

    /// Ends it, since nobody waits any longer.
    pub(super) fn give_up<E>(mut self, out: &mut Outbox<E>, now: Time) -> Failure {
        self.abort(out);
        let cause = Cause::TimedOut {
            doing: DOING,
            after: now.since(self.began),
        };
        Failure::new(Party::Discovery(self.name()), cause)
    }

    /// Takes a step of the exchange; the end, once it is reached.
    pub(super) fn step<E>(&mut self, out: &mut Outbox<E>, now: Time, step: In) -> Option<Outcome> {
        let reply = match self.exchange.step(out, step)? {
            Ok(reply) => reply,
            Err(cause) => return self.failed(out, now, cause, None),
        };
        let pause = retry_after(&reply.headers);
        let body = match document(reply) {
            Ok(body) => body,
            Err(cause) => return self.failed(out, now, cause, pause),
        };
        match self.read(out, now, &body) {
            Ok(answer) => answer.map(Ok),
            Err(err) => self.failed(out, now, err.into(), None),
        }
    }

    /// The answer, or `None` if there are further questions.
    fn read<E>(
        &mut self,
        out: &mut Outbox<E>,
        now: Time,
        body: &[u8],
    ) -> Result<Option<Answer>, WireError> {
        let listed = match &mut self.topic {
            Topic::List => read_list(body)?,
            Topic::Runners => {
                let (runners, skipped) = read_runners(body)?;
                let mut found = Found::at(self.url.with_path("/"));
                found.runners = runners;
                (vec![found], skipped)
            }
            Topic::Round => {
                let round = read_round(body)?;
                self.topic = Topic::Subgraph;
                self.ask(out, now, orchestrators(round));
                return Ok(None);
            }
            Topic::Subgraph => read_subgraph(body)?,
            Topic::Stats(fields) => read_stats(body, fields)?,
            Topic::Chain {
                walk,
                asking,
                limit,
                ..
            } => {
                if let Some(told) = asking.answered(limit, body)? {
                    if matches!(walk.told(&told)?, Step::Done) {
                        return Ok(Some(walk.finish(*limit)));
                    }
                    *asking = Asking::new(walk.asks());
                }
                self.ask_on(out, now);
                return Ok(None);
            }
        };
        Ok(Some((named_by(listed, self.exchange.url()), None)))
    }

    /// Asks the same peer something else.
    fn ask<E>(&mut self, out: &mut Outbox<E>, now: Time, body: Bytes) {
        let limit = match self.topic {
            Topic::Chain { .. } => jsonrpc::MAX_ANSWER_BYTES,
            _ => MAX_LIST_BYTES,
        };
        let request = post(&self.url, body).trust(self.trust);
        self.exchange = Exchange::start(out, now, request, bounds(limit, self.within));
    }

    /// Asks the chain what is left to ask.
    fn ask_on<E>(&mut self, out: &mut Outbox<E>, now: Time) {
        if let Topic::Chain { asking, limit, .. } = &self.topic {
            let body = asking.body(*limit);
            self.ask(out, now, body);
        }
    }

    /// Ends, or asks the chain in another way: less at a time, at the next endpoint, or later. `pause` is how long the
    /// peer that refused wants to be left alone.
    fn failed<E>(
        &mut self,
        out: &mut Outbox<E>,
        now: Time,
        cause: Cause,
        pause: Option<Duration>,
    ) -> Option<Outcome> {
        if let Topic::Chain {
            walk,
            asking,
            limit,
            others,
        } = &mut self.topic
        {
            let refused = match cause {
                Cause::Refused { status, .. } => Some(status),
                _ => None,
            };
            if refused.is_some_and(|status| asking.refused(limit, status)) {
                self.ask_on(out, now);
                return None;
            }
            if let Some(next) = others.pop() {
                self.url = next;
                *asking = Asking::new(walk.asks());
                *limit = BatchLimit::default();
                self.ask_on(out, now);
                return None;
            }
            if refused == Some(429) && self.pauses < MAX_PAUSES {
                let doubled = FIRST_PAUSE * (1 << self.pauses);
                self.pauses += 1;
                self.paused = Some(now + pause.unwrap_or(doubled).max(FIRST_PAUSE));
                return None;
            }
        }
        Some(Err(Failure::new(Party::Discovery(self.name()), cause)))
    }

    /// The URL that is asked, as failures name it.
    fn name(&self) -> Url {
        match self.topic {
            Topic::List | Topic::Runners => self.url.clone(),
            // Keys are part of paths, and of queries.
            _ => self.url.with_path("/"),
        }
    }
}

/// The bounds on one answer of a source.
const fn bounds(limit: usize, within: Duration) -> Bounds {
    Bounds {
        doing: DOING,
        what: "the list in bytes",
        limit,
        within,
        redirects: true,
    }
}

/// The document in a good answer.
fn document(reply: Reply) -> Result<Vec<u8>, Cause> {
    if reply.is_success() {
        return Ok(reply.body);
    }
    let text = error_words(&reply.body);
    Err(Cause::Refused {
        doing: DOING,
        status: reply.status,
        // The other meanings are those of orchestrators.
        reason: match reason(&text) {
            Reason::Denied => Reason::Denied,
            _ => Reason::Other,
        },
        text,
    })
}

const ROUND: &str = r#"{"query":"{protocol(id:\"0\"){lastInitializedRound{id}}}"}"#;

/// The largest page there is.
fn orchestrators(round: u64) -> Bytes {
    let mut text = r#"{"query":"{transcoders(first:1000,where:{activationRound_lte:\""#.to_string();
    text += &round.to_string();
    text += r#"\",deactivationRound_gt:\""#;
    text += &round.to_string();
    text += r#"\"}){id serviceURI totalStake active}}"}"#;
    text.into()
}

fn post(url: &Url, body: Bytes) -> Request {
    let mut headers = Headers::new();
    headers.push("content-type", "application/json");
    let mut request = Request::new(Method::Post, url.clone()).body(Body::Full(body));
    request.headers = headers;
    request
}
