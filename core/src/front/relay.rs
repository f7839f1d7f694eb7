//! Answers that are passed on as they come; and jobs for containers, whose orders are read here (jobs spec 4).

use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::answer::tell_events;
use super::pace::Pace;
use super::types::{Config, Event, Outcome, RequestId};
use super::{Front, Running, State};
use crate::http::{Body, Headers, Out, Request, Response, SWITCHING};
use crate::job::byoc::{BadOrder, Done, Failed, Order, Served};
use crate::machine::EffectId;
use crate::time::Time;
use crate::wire::app::registration::go_duration;
use crate::wire::byoc::{
    BALANCE_HEADER, JOB_HEADER, JobRequest, METADATA_HEADER, ORCHESTRATOR_HEADER, REQUEST_PATH,
    SEARCH_TIMEOUT_HEADER, TOKEN_TIMEOUT_HEADER,
};
use crate::wire::refused::{Code, Refused, Shape};
use crate::wire::sse;

/// How long beyond its own time and search a job for a container may take to say how it ended: its link, its payment and
/// its last attempt have limits of their own.
const ORDER_GRACE: Duration = Duration::from_secs(120);

/// A client beyond HTTP with this many bytes that nobody has taken is held back.
const MAX_UNTAKEN: usize = 64 << 10;

/// An answer that is being passed on.
#[derive(Debug)]
pub(super) struct Relayed {
    status: u16,
    pub(super) pace: Pace,
    /// Bytes of the client, once HTTP was left.
    said: Option<Said>,
}

/// Bytes of a client beyond HTTP.
#[derive(Debug, Default)]
struct Said {
    untaken: usize,
    held: bool,
    all: bool,
}

impl Front {
    /// Has the shell do a job for a container, if it is one.
    pub(super) fn order(&mut self, id: RequestId, body: Bytes) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let Some(head) = running.sent.head.take() else {
            return;
        };
        match read(&head, body) {
            Ok(order) => self.give(id, order),
            Err(bad) => self.refuse(id, &Refused::new(Code::InvalidValue, bad.to_string())),
        }
    }

    /// Has the shell do a job for a container.
    pub(super) fn give(&mut self, id: RequestId, order: Order) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        // Whoever does the job knows more of why it is late.
        let works = Duration::from_secs(order.job.timeout_seconds.into());
        let looks = order.search_within.unwrap_or_default();
        running.sent.container = Some(order.job.capability.clone());
        running.state = State::Calling(running.received + works + looks + ORDER_GRACE);
        self.out.event(Event::Order(id, Box::new(order)));
        self.arm(id);
    }

    /// Tells that a container has begun to stream its answer.
    pub fn order_head(&mut self, now: Time, id: RequestId, served: &Served) {
        self.advance(now);
        match self.is_backed(id) {
            true => self.container_head(id, served),
            false => self.begin_relay(id, served_head(served), Pace::of_relay),
        }
    }

    /// Tells the whole answer of a container, or that all of its stream was told.
    pub fn order_done(&mut self, now: Time, id: RequestId, done: Done) {
        self.advance(now);
        self.figures.count_order(&done.served);
        match self.is_backed(id) {
            true => self.container_done(id, done),
            false if done.served.stream => self.end_relay(id),
            false => self.respond(now, id, done_answer(done)),
        }
    }

    /// Tells that nothing came of a container's job, or that its answer is not whole.
    pub fn order_failed(&mut self, now: Time, id: RequestId, failed: &Failed) {
        self.advance(now);
        self.figures.count_attempts(failed.attempts());
        if self.is_backed(id) {
            return self.container_failed(id, failed);
        }
        self.abort_relay(id);
        let running = self.running.get(&id);
        if let Some(capability) = running.and_then(|running| running.sent.container.as_deref()) {
            let answer = failed_answer(failed, capability);
            self.respond(now, id, answer);
        }
    }

    /// Begins the answer to [`Call::Data`](super::Call::Data). Says whether its body is wanted.
    pub fn data_head(&mut self, now: Time, id: RequestId) -> bool {
        self.advance(now);
        let mut head = Response::new(200).header("content-type", sse::CONTENT_TYPE);
        tell_events(&mut head.headers);
        self.begin_relay(id, head, Pace::of_data);
        self.relayed(id).is_some()
    }

    /// Begins an answer whose body follows as it comes; with status 101, HTTP is left, and [`Event::Said`] may come.
    pub(super) fn begin_relay(
        &mut self,
        id: RequestId,
        mut head: Response,
        pace: fn(Time, &Config) -> Pace,
    ) {
        let now = self.now;
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let (State::Calling(_), Some(exchange)) = (&running.state, running.exchange) else {
            return;
        };
        if running.greeting.is_bodiless() || matches!(head.status, 204 | 304) {
            let outcome = Outcome::of(head.status);
            return self.answer(id, head, outcome, None);
        }
        running.state = State::Relaying(Relayed {
            status: head.status,
            pace: pace(now, &running.config),
            said: (head.status == SWITCHING).then(Said::default),
        });
        head.body = Body::Stream;
        running.greeting.write(&mut head.headers);
        self.out.http(exchange, Out::Reply(head));
        self.arm(id);
    }

    /// Passes on bytes of an answer that has begun.
    pub fn relay(&mut self, now: Time, id: RequestId, bytes: Bytes) {
        self.advance(now);
        match self.is_backed(id) {
            true => self.backend_data(id, bytes),
            false => self.pass(id, bytes),
        }
    }

    pub(super) fn pass(&mut self, id: RequestId, bytes: Bytes) {
        let now = self.now;
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let (State::Relaying(relayed), Some(exchange)) = (&mut running.state, running.exchange)
        else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        relayed.pace.hear(now);
        let falls_behind = relayed.pace.write(now, bytes.len());
        self.out.http(exchange, Out::Data(bytes));
        if falls_behind {
            self.out.event(Event::Full(id));
            self.ask_report(id);
        }
        self.arm(id);
    }

    /// Hands on what a client says beyond HTTP; it is held back if that is not [taken](Self::taken).
    pub(super) fn said(&mut self, now: Time, exchange: EffectId, bytes: Bytes) {
        let Some((id, relayed)) = self.relaying(exchange) else {
            return;
        };
        relayed.pace.hear(now);
        let Some(said) = relayed.said.as_mut().filter(|said| !said.all) else {
            return;
        };
        said.untaken += bytes.len();
        let holds = said.untaken >= MAX_UNTAKEN && !core::mem::replace(&mut said.held, true);
        self.out.event(Event::Said(id, bytes));
        if holds {
            self.out.http(exchange, Out::Pause);
        }
        self.arm(id);
    }

    /// Tells that a client says no more beyond HTTP.
    pub(super) fn said_all(&mut self, exchange: EffectId) {
        if let Some((id, relayed)) = self.relaying(exchange)
            && let Some(said) = &mut relayed.said
            && !core::mem::replace(&mut said.all, true)
        {
            self.out.event(Event::SaidAll(id));
        }
    }

    /// Takes note that so many bytes of [`Event::Said`] are on their way.
    pub fn taken(&mut self, now: Time, id: RequestId, bytes: usize) {
        self.advance(now);
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        if let (State::Relaying(relayed), Some(exchange)) = (&mut running.state, running.exchange)
            && let Some(said) = &mut relayed.said
        {
            said.untaken = said.untaken.saturating_sub(bytes);
            if said.untaken < MAX_UNTAKEN && core::mem::take(&mut said.held) {
                self.out.http(exchange, Out::Resume);
            }
        }
    }

    fn relaying(&mut self, exchange: EffectId) -> Option<(RequestId, &mut Relayed)> {
        let id = *self.exchanges.get(&exchange)?;
        match &mut self.running.get_mut(&id)?.state {
            State::Relaying(relayed) => Some((id, relayed)),
            _ => None,
        }
    }

    /// Ends an answer that has begun.
    pub fn relay_end(&mut self, now: Time, id: RequestId) {
        self.advance(now);
        match self.is_backed(id) {
            true => self.backend_end(id),
            false => self.end_relay(id),
        }
    }

    pub(super) fn end_relay(&mut self, id: RequestId) {
        if let Some((exchange, status)) = self.relayed(id) {
            self.out.http(exchange, Out::End(Headers::new()));
            self.over(id, Some(status), Outcome::of(status), None);
        }
    }

    /// Breaks an answer off that has begun: its client is to know that something is missing.
    pub fn relay_broke(&mut self, now: Time, id: RequestId) {
        self.advance(now);
        match self.is_backed(id) {
            true => self.backend_broke(id),
            false => self.abort_relay(id),
        }
    }

    pub(super) fn abort_relay(&mut self, id: RequestId) {
        if let Some((exchange, status)) = self.relayed(id) {
            match self.last_words(id) {
                Some(words) => {
                    self.out.http(exchange, Out::Data(words));
                    self.out.http(exchange, Out::End(Headers::new()));
                }
                None => self.out.http(exchange, Out::Abort),
            }
            let error = Some(Code::UpstreamStreamBroken.name());
            self.over(id, Some(status), Outcome::Broken, error);
        }
    }

    /// Ends what goes on beyond HTTP if nothing else is under way: a socket has no end that a shutdown could wait for.
    pub(super) fn end_sockets(&mut self) {
        let beyond = |running: &Running| match &running.state {
            State::Relaying(relayed) => relayed.said.is_some(),
            _ => false,
        };
        if self.ending || !self.running.values().all(beyond) {
            return;
        }
        self.ending = true;
        let open: Vec<RequestId> = self.running.keys().copied().collect();
        for id in open {
            self.out.event(Event::Gone(id));
            self.end_relay(id);
        }
        self.ending = false;
    }

    /// The exchange and the status of an answer that is being passed on.
    pub(super) fn relayed(&self, id: RequestId) -> Option<(EffectId, u16)> {
        let running = self.running.get(&id)?;
        match &running.state {
            State::Relaying(relayed) => Some((running.exchange?, relayed.status)),
            _ => None,
        }
    }
}

/// Reads a job for a container from its request.
fn read(head: &Request, body: Bytes) -> Result<Order, BadOrder> {
    let field = |name| head.headers.get(name).unwrap_or_default();
    let path = head.url.path();
    let path = path.strip_prefix(REQUEST_PATH).unwrap_or(path);
    let order = Order {
        path: path.strip_prefix('/').unwrap_or(path).into(),
        content_type: field("content-type").into(),
        body,
        search_within: go_duration(field(SEARCH_TIMEOUT_HEADER)),
        token_within: go_duration(field(TOKEN_TIMEOUT_HEADER)),
        ..Order::new(JobRequest::from_header(field(JOB_HEADER))?)
    };
    order.check()?;
    Ok(order)
}

/// The head of the answer to a job that a container has done, or does.
fn served_head(served: &Served) -> Response {
    let mut head = Response::new(200);
    let fields = [
        ("content-type", served.content_type.as_str()),
        (BALANCE_HEADER, &served.balance),
        (METADATA_HEADER, &served.metadata),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        head.headers.push(name, value);
    }
    head.headers.push(ORCHESTRATOR_HEADER, served.url.origin());
    if served.stream {
        tell_events(&mut head.headers);
    }
    head
}

/// The answer to a job that a container has done at once.
fn done_answer(done: Done) -> Response {
    served_head(&done.served).body(Body::Full(done.body))
}

/// The answer to a job that failed. `capability` is the container's name.
fn failed_answer(failed: &Failed, capability: &str) -> Response {
    let mut text = failed.text(capability);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let mut answer = Response::new(failed.status()).body(Body::Full(text.into()));
    answer.headers = super::typed(Shape::Plain.content_type());
    answer
}
