//! The front door: takes the requests of applications, and answers each of them once.
//!
//! ```text
//!            head ──▶ unknown, wrong method, draining, too many, too large ──▶ answered at once, the body unread
//!              │
//!              ├──▶ a page or a file ──▶ answered, if need be with what the shell brings
//!              ├──▶ about a live stream, and whole ──▶ Event::Live ──▶ answered as the shell says
//!              ├──▶ for a container or an app, and whole ──▶ Event::Order, App ──▶ what it says is passed on as it comes
//!              ├──▶ in OpenAI's shape, for a model that a backend serves ──▶ the same, its answer checked
//!              ▼
//!           Reading ── too large, stops, too slow ──▶ 413, 408
//!              │ whole, and it makes sense (else 400, 404)
//!              ▼
//!           Working ── Event::Want ──▶ done ──▶ answered in the shape of the route
//!              │  │                    failed, refuse ──▶ answered with an error
//!              │  └── the client goes, or the deadline comes ──▶ Event::Gone
//!              ▼ head: the orchestrator's, of a stream
//!           Streaming ── chunk … done, failed, silence ──▶ ended
//!                 └── the client goes, or does not read ──▶ Event::Gone
//! ```
//!
//! Peers' exchanges come under ids that the driver mints with [`EffectId::by_peer`]. The machine decides route, limits,
//! admission and the form of every answer, and owns no jobs: it tells [`Event::Want`], and whoever runs the job says how
//! it goes. A request that is refused reaches no orchestrator, and holds nothing when its answer is out.
//!
//! Callers are not told apart yet. Keys, quotas and budgets belong between the head and [`Event::Want`], at the steps
//! that front-door spec 7.1 names: who, scope and place before the body is read, units and budget after. [`Admission`]
//! has the states of that table.

mod admission;
mod answer;
mod apps;
mod arrive;
mod backends;
mod figures;
mod hired;
mod incoming;
mod live;
mod objects;
mod pace;
mod relay;
mod reply;
pub mod route;
mod shapes;
mod streams;
mod types;
mod videos;

pub use admission::Admission;
pub use apps::{APP_METHODS, SESSION_HEADER};
pub use objects::Object;
pub use types::{
    AppRequest, AppSessionId, BODY_GAP, BODY_WITHIN, Call, Config, Event, FIRST_SEARCH, Hls,
    JOB_GRACE, LIVE_WITHIN, LiveRoutes, MAX_AUDIO, MAX_EDIT, MAX_UNSENT, MAX_VIDEOS, Network,
    Origins, Outcome, PAGE_WITHIN, RELAY_WITHIN, RequestId, Session, StreamCall, Summary,
    Transparency, Work,
};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use self::apps::Sessions;
use self::backends::Backed;
use self::figures::{Figures, Gauges};
use self::incoming::Incoming;
use self::objects::Objects;
use self::relay::Relayed;
use self::reply::Greeting;
use self::route::Target;
use self::shapes::{Asked, Stream};
use self::videos::Videos;
use crate::alarms::Alarms;
use crate::figures::Jobs;
use crate::http::{self, Headers, Request};
use crate::intake::{Held, Intake};
use crate::job::batch::{Attempt, Served};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::models::Models;
use crate::pipeline::Pipeline;
use crate::rng::{Rng, Seed};
use crate::time::Time;
use crate::wire::batch::Probe;
use crate::wire::refused::{Code, Refused};

/// A request that is not answered yet.
#[derive(Debug)]
struct Running {
    /// `None` if the client has its answer already, and comes back for the result.
    exchange: Option<EffectId>,
    target: Target,
    greeting: Greeting,
    sent: Sent,
    /// The settings that it began with.
    config: Arc<Config>,
    began: Time,
    /// When the last byte of the request came.
    received: Time,
    held: Held,
    /// The session with an app that it uses.
    session: Option<AppSessionId>,
    /// Whether the app turned out to have no sessions.
    single: bool,
    state: State,
}

/// The parts of a request's head that are needed later.
#[derive(Debug)]
struct Sent {
    content_type: String,
    /// Preferences about who does the work, beside what the body says.
    provider: Option<String>,
    /// The version of a list that the caller has already.
    known: Option<String>,
    prefers_async: bool,
    /// The client's SDK sent the request before.
    is_retry: bool,
    /// Where the caller reached us, for addresses in the answer.
    base: String,
    /// The head itself, where the shell answers.
    head: Option<Box<Request>>,
    /// The container whose job it is.
    container: Option<String>,
    /// The backend that has the request, and what it has answered.
    backend: Option<Box<Backed>>,
}

#[derive(Debug)]
enum State {
    Reading(Incoming),
    /// The body is there, and looked at; it waits if its model may become known soon.
    Parsed(Bytes),
    /// The shell brings a page or a file.
    Fetching,
    /// The shell answers, for a live stream, a container or an app, until then at the latest.
    Calling(Time),
    /// The shell passes on an answer as it comes.
    Relaying(Relayed),
    Working(Box<Job>),
}

/// A job that the shell does for a request.
#[derive(Debug)]
struct Job {
    asked: Asked,
    pipeline: Pipeline,
    model: String,
    probe: Option<Probe>,
    /// Names the request on Livepeer's own routes.
    native: String,
    /// Names of parameters that had no effect.
    ignored: Vec<String>,
    /// Values that the caller left open.
    defaults: Vec<String>,
    /// How long the sound of the request plays.
    duration: Duration,
    served: Option<Served>,
    /// The orchestrators that were tried in vain, if nobody served.
    attempts: Vec<Attempt>,
    /// The answer, if it is a stream that has begun.
    stream: Option<Stream>,
}

/// The front door. See the [module](self).
#[derive(Debug)]
pub struct Front {
    now: Time,
    /// Since when it is open, in Unix seconds.
    since: u64,
    config: Arc<Config>,
    models: Models,
    rng: Rng,
    out: Outbox<Event>,
    intake: Intake,
    running: BTreeMap<RequestId, Running>,
    exchanges: BTreeMap<EffectId, RequestId>,
    /// When requests are looked at, at the latest.
    due: Alarms<RequestId>,
    /// Requests whose models may become known soon, in order.
    waiting: Vec<RequestId>,
    objects: Objects,
    videos: Videos,
    sessions: Sessions,
    /// Since when new work is refused, or will be.
    closing: Option<Time>,
    drained: bool,
    /// Set while what goes on beyond HTTP is ended.
    ending: bool,
    figures: Figures,
}

impl Front {
    /// A front door that is open. Names of requests and files are drawn from the seed, which has to be secret.
    #[must_use]
    pub fn new(now: Time, config: Arc<Config>, seed: Seed) -> Self {
        Self {
            now,
            since: now.as_secs(),
            models: Models::new(),
            rng: Rng::new(seed),
            out: Outbox::default(),
            intake: Intake::new(config.max_in_flight, config.max_held),
            running: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            due: Alarms::new(),
            waiting: Vec::new(),
            objects: Objects::new(config.max_kept),
            videos: Videos::default(),
            sessions: Sessions::default(),
            closing: None,
            drained: false,
            ending: false,
            figures: Figures::default(),
            config,
        }
    }

    /// Replaces the settings. Requests that run keep those they began with.
    pub fn set_config(&mut self, now: Time, config: Arc<Config>) {
        self.advance(now);
        self.intake.set_most(config.max_in_flight, config.max_held);
        self.objects.set_most(config.max_kept);
        self.config = config;
    }

    /// Replaces the list of models that are served.
    pub fn set_models(&mut self, now: Time, models: Models) {
        self.advance(now);
        self.models = models;
        if self.models.is_discovered() {
            self.look_again();
        }
    }

    /// Begins to shut down: new work is refused after [`Config::drain_grace`], and [`Event::Drained`] says that none is
    /// left. What goes on beyond HTTP is ended once nothing else is under way.
    pub fn drain(&mut self, now: Time) {
        let now = self.advance(now);
        self.closing.get_or_insert(now + self.config.drain_grace);
        self.settle();
    }

    /// How many requests are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// How many of them are in each state; those without any are left out.
    #[must_use]
    pub fn states(&self) -> BTreeMap<Admission, u64> {
        admission::count(self.running.values())
    }

    /// Bytes of requests that are held.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.intake.bytes()
    }

    /// Bytes of results that are kept in memory.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.objects.bytes()
    }

    /// The figures of the front door and of the jobs behind it, in the text format of Prometheus; those that other jobs
    /// have too are the sum of both.
    #[must_use]
    pub fn to_prometheus(&self, others: &Jobs) -> String {
        let mut gauges = Gauges {
            states: self.states(),
            ..Gauges::default()
        };
        for running in self.running.values() {
            *gauges.in_flight.entry(running.target.route).or_default() += 1;
        }
        self.figures.to_prometheus(&gauges, others)
    }

    /// The figures of a door for operators: what was asked there.
    #[must_use]
    pub fn to_operators_prometheus(&self) -> String {
        self.figures.to_operators_prometheus()
    }

    /// Brings a page that [`Event::Page`] asked for. Unknown requests are ignored.
    pub fn page(&mut self, now: Time, id: RequestId, status: u16, kind: &'static str, body: Bytes) {
        self.advance(now);
        if self.is_fetching(id) {
            let mut response = http::Response::new(status).body(http::Body::Full(body));
            response.headers.push("content-type", kind);
            self.answer(id, response, Outcome::Answered, None);
        }
    }

    /// Brings a result that [`Event::Fetch`] asked for, if the folder has it. Unknown requests are ignored.
    pub fn object(&mut self, now: Time, id: RequestId, content: Option<Bytes>) {
        self.advance(now);
        if !self.is_fetching(id) {
            return;
        }
        match content {
            Some(content) => {
                let parts = &self.running[&id].target.parts;
                let kind = objects::content_type(parts.last().map_or("", |name| name));
                self.answer(id, reply::file(kind, content), Outcome::Answered, None);
            }
            None => self.answer(id, reply::no_file(), Outcome::Refused, None),
        }
    }

    fn is_fetching(&self, id: RequestId) -> bool {
        let running = self.running.get(&id);
        running.is_some_and(|running| matches!(running.state, State::Fetching))
    }

    // ---- the end of a request --------------------------------------------------------------------------------

    /// Answers a request with an error in the shape of its route.
    fn refuse(&mut self, id: RequestId, refused: &Refused) {
        let Some(running) = self.running.get(&id) else {
            return;
        };
        let response = reply::refusal(running.target.shape, refused);
        self.answer(id, response, Outcome::Refused, Some(refused.code.name()));
    }

    /// Answers a request in full.
    fn answer(
        &mut self,
        id: RequestId,
        mut response: http::Response,
        outcome: Outcome,
        error: Option<&'static str>,
    ) {
        let Some(running) = self.running.get(&id) else {
            return;
        };
        running.greeting.write(&mut response.headers);
        if running.greeting.is_bodiless() {
            response.body = http::Body::Empty;
        }
        let status = response.status;
        if let Some(exchange) = running.exchange {
            self.out.http(exchange, http::Out::Reply(response));
        }
        self.over(id, Some(status), outcome, error);
    }

    /// Forgets a request, and gives back what it held.
    fn over(
        &mut self,
        id: RequestId,
        status: Option<u16>,
        outcome: Outcome,
        error: Option<&'static str>,
    ) {
        let Some(running) = self.running.remove(&id) else {
            return;
        };
        self.due.set(id, None);
        if let Some(exchange) = running.exchange {
            self.exchanges.remove(&exchange);
        }
        let state = running.admission();
        if state == Admission::Parsed {
            self.waiting.retain(|waits| *waits != id);
        }
        self.intake.release(running.held);
        if let Some(container) = &running.sent.container {
            self.figures.count_container(container, status);
        }
        if let Some(session) = running.session.filter(|_| running.single) {
            self.sessions.end_call(session);
        } else if let Some(session) = running.session {
            let until = self.now + running.config.app_idle;
            self.sessions.end(session, until);
        }
        let mut finished = Summary {
            id,
            route: Some(running.target.route),
            state,
            status,
            error,
            outcome,
            job: None,
            served: None,
            attempts: Vec::new(),
            is_retry: running.sent.is_retry,
            took: self.now.since(running.began),
            overhead: None,
            first: None,
        };
        if let State::Working(job) = running.state {
            if job.stream.is_none()
                && let Some(served) = &job.served
            {
                let receiving = running.received.since(running.began);
                finished.overhead = Some(reply::overhead(finished.took, receiving, served));
            }
            finished.first = job.stream.and_then(|stream| stream.first);
            finished.job = Some((job.pipeline, job.model));
            finished.served = job.served;
            finished.attempts = job.attempts;
        }
        self.finished(finished);
        self.settle();
    }

    /// Counts a request that is over, and tells of it.
    fn finished(&mut self, summary: Summary) {
        self.figures.count(&summary, self.config.figures_per_model);
        self.out.event(Event::Finished(Box::new(summary)));
    }

    /// Says once that nothing is left to do, when that is so.
    fn settle(&mut self) {
        let closed = self.closing.is_some_and(|at| at <= self.now);
        if !closed {
            return;
        }
        self.end_sockets();
        if self.running.is_empty() && !self.drained {
            self.drained = true;
            self.out.event(Event::Drained);
        }
    }

    /// The client of an exchange is gone.
    fn gone(&mut self, exchange: EffectId) {
        let Some(id) = self.exchanges.get(&exchange).copied() else {
            return;
        };
        if let State::Working(_) | State::Calling(_) | State::Relaying(_) = self.running[&id].state
        {
            self.out.event(Event::Gone(id));
        }
        self.over(id, None, Outcome::Gone, None);
    }

    // ---- time ------------------------------------------------------------------------------------------------

    /// Takes time forward and does what is due.
    fn advance(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        let now = self.now;
        while let Some(id) = self.due.ring(now) {
            self.look(id);
        }
        self.objects.tick(now);
        self.videos.tick(now);
        for over in self.sessions.tick(now) {
            self.out.event(Event::EndSession(over));
        }
        self.settle();
        now
    }

    /// Looks at a request whose time has come: what was due may have moved.
    fn look(&mut self, id: RequestId) {
        let now = self.now;
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        match &mut running.state {
            State::Reading(body) => {
                if let Some(refused) = body.late(now) {
                    return self.refuse(id, &refused);
                }
            }
            State::Parsed(_) if now >= running.received + FIRST_SEARCH => {
                return self.refuse(id, &arrive::not_discovered());
            }
            State::Parsed(_) => {}
            State::Fetching => {
                let text = "The gateway did not find out in time.";
                return self.refuse(id, &Refused::new(Code::InternalError, text));
            }
            State::Calling(until) if now >= *until => {
                self.out.event(Event::Gone(id));
                let text = "No answer came in time.";
                return self.refuse(id, &Refused::new(Code::UpstreamTimeout, text));
            }
            State::Calling(_) => {}
            State::Relaying(relayed) => {
                if let Some(due) = relayed.pace.due(now) {
                    self.pace(id, due);
                }
            }
            State::Working(job) => match job.stream.as_ref().map(|stream| stream.pace.due(now)) {
                // It may still look at other requests that are due now; this one has moved.
                Some(Some(due)) => self.pace(id, due),
                Some(None) => {}
                None => return self.too_late(id),
            },
        }
        self.arm(id);
    }

    /// Sees to it that a request is looked at when something is due for it.
    fn arm(&mut self, id: RequestId) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let next = match &running.state {
            State::Reading(body) => body.next(),
            State::Parsed(_) => running.received + FIRST_SEARCH,
            State::Fetching => running.began + PAGE_WITHIN,
            State::Calling(until) => *until,
            State::Relaying(relayed) => relayed.pace.next(),
            State::Working(job) => match &job.stream {
                Some(stream) => stream.pace.next(),
                // The job knows more of why it is late.
                None => running.received + running.config.answer + JOB_GRACE,
            },
        };
        // To be looked at too early does no harm, and spares a change for every byte.
        let set = self.due.of(id).filter(|at| *at > self.now);
        if set.is_none_or(|at| next < at) {
            self.due.set(id, Some(next));
        }
    }

    fn wake(&self) -> Option<Time> {
        let requests = self.due.next();
        let closing = self.closing.filter(|at| *at > self.now);
        let kept = earlier(self.objects.next(), self.videos.next());
        let kept = earlier(kept, self.sessions.next());
        earlier(earlier(requests, closing), kept)
    }
}

impl Machine for Front {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        let now = self.advance(now);
        let Input::Http(id, step) = input else {
            return;
        };
        if !id.is_by_peer() {
            return;
        }
        match step {
            http::In::Request(request) => self.arrive(id, &request),
            http::In::Data(data) => self.take(now, id, data),
            http::In::End(_) => self.received(now, id),
            http::In::Sent(bytes) => self.sent(now, id, bytes),
            http::In::Failed(_) => self.gone(id),
            http::In::Reply(_) => {}
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| Output::Idle(self.wake()))
    }
}

/// Fields of an answer that has a body of that type.
fn typed(kind: &str) -> Headers {
    let mut headers = Headers::new();
    headers.push("content-type", kind);
    headers
}
