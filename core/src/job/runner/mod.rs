//! A runner of ours, registered with an orchestrator that rents it out (client-1.0 2.8 and 3.3).
//!
//! ```text
//!                      200 with a secret                 interval
//!   Registering ──────────────────────────▶ Resting ─────────────────▶ Beating
//!    ▲  │  ▲ │ 404, since an entry of that     ▲    ◀── 200, or a failure ──┘ │
//!    │  │  └─┘ name dies: after 1 s            │                             │
//!    │  │    401, since it lives: after 5 s    │                             │
//!    │  └── anything else, after the first ────┘                             │
//!    └───────────────────────────────── 401, 404 ────────────────────────────┘
//!   any ── close() ──▶ Leaving ── an answer, or none ──▶ Ended
//! ```
//! The secret that operators share with their runners goes to the address that our user named and to no other. The secret
//! that a registration gave goes where the orchestrator said that signs of life should go.
//!
//! Sessions are told on a channel. While that is read without a gap it is believed; otherwise the sessions that the answer
//! to the next sign of life lists are.

mod control;
mod sessions;
mod types;

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

pub use control::{Ask, BadAsk, SessionCall, SessionEvent, Told};
pub use sessions::MAX_SESSIONS;
pub use types::{Config, Event, Invalid};

use self::sessions::Sessions;
use crate::error::{Cause, Failure, Misuse, Party};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, Headers, Method, Request, Url};
use crate::machine::{Child, ChildIds, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use crate::trickle::Start;
use crate::trickle::message::Messages;
use crate::trickle::subscriber::{self, Subscriber};
use crate::wire::app::registration::{
    HEARTBEAT_INTERVAL, HEARTBEAT_PATH, HEARTBEAT_TTL, Heartbeat, Registered, SessionControl,
    SessionNews, is_still_registered, unregister_url,
};
use crate::wire::{WireError, cut, error_words, reason};

/// How long an answer may take.
pub const WITHIN: Duration = Duration::from_secs(5);
/// How long after a 404 the shared secret is tried again: the entry of that name is swept every few seconds.
pub const SWEPT_AGAIN: Duration = Duration::from_secs(1);
/// How long after the news that an entry of that name lives the shared secret is tried again.
pub const ALIVE_AGAIN: Duration = Duration::from_secs(5);
/// How long an entry of that name can last that nobody keeps alive.
pub const ENTRY_LASTS: Duration = HEARTBEAT_TTL.saturating_add(Duration::from_secs(5));
/// The shortest interval between signs of life, whatever an orchestrator says.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The longest interval between signs of life, whatever an orchestrator says.
pub const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// At most this many bytes of an answer are read.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// At most this many bytes of a message about a session are read.
const MAX_NEWS_BYTES: usize = 16 << 10;

const fn bounds(doing: &'static str) -> Bounds {
    Bounds {
        doing,
        what: "the orchestrator's answer in bytes",
        limit: MAX_ANSWER_BYTES,
        within: WITHIN,
        redirects: false,
    }
}

const REGISTERING: Bounds = bounds("a registration");
const BEATING: Bounds = bounds("a heartbeat");
const LEAVING: Bounds = bounds("the end of a registration");

#[derive(Debug)]
enum State {
    /// Waiting to ask again.
    Resting(Time),
    Registering(Exchange),
    Beating(Exchange),
    Leaving(Exchange),
    Ended,
}

/// A registration that an orchestrator granted.
struct Granted {
    /// Where signs of life go.
    at: Url,
    secret: String,
    interval: Duration,
    ttl: Duration,
    /// When the orchestrator last took a sign of life.
    heard: Time,
}

/// The reader of the channel that tells of sessions.
#[derive(Debug)]
struct News {
    reader: Child<Subscriber>,
    message: Messages,
}

/// Keeps a runner registered. See the [module](self).
#[doc(alias = "register_runner")]
#[doc(alias = "LiveRunnerRegistration")]
pub struct Registration {
    now: Time,
    config: Config,
    /// The address that our user named.
    orchestrator: Url,
    shared: String,
    beat: Heartbeat,
    state: State,
    /// `None` before the first registration.
    granted: Option<Granted>,
    /// Whether the shared secret comes next.
    anew: bool,
    /// Since when registrations fail because of an entry of that name.
    blocked: Option<Time>,
    sessions: Sessions,
    news: Option<News>,
    children: ChildIds,
    out: Outbox<Event>,
}

impl fmt::Debug for Registration {
    // Whoever has a secret speaks for the runner.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("orchestrator", &self.orchestrator)
            .field("runner_id", &self.beat.runner_id)
            .field("state", &self.state)
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Registers the runner of which `beat` tells, with the secret that the orchestrator at that address shares with its
    /// runners. A `runner_id` in it is asked for; without one the orchestrator makes one up.
    ///
    /// # Errors
    /// If the secret or the sign of life is none.
    pub fn new(
        now: Time,
        config: Config,
        orchestrator: Url,
        secret: &str,
        beat: Heartbeat,
    ) -> Result<Self, Invalid> {
        beat.check()?;
        if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::Secret);
        }
        let mut this = Self {
            now,
            config,
            orchestrator,
            shared: secret.into(),
            beat,
            state: State::Ended,
            granted: None,
            anew: true,
            blocked: None,
            sessions: Sessions::default(),
            news: None,
            children: ChildIds::default(),
            out: Outbox::default(),
        };
        this.ask();
        Ok(this)
    }

    /// The runner's name at its orchestrator, once it has one.
    #[must_use]
    pub fn runner_id(&self) -> Option<&str> {
        Some(self.beat.runner_id.as_str()).filter(|id| !id.is_empty())
    }

    /// The sessions that the runner has, in order.
    pub fn sessions(&self) -> impl Iterator<Item = &str> {
        self.sessions.iter()
    }

    /// How often the runner says that it lives, and how long it counts as alive when it is silent; `None` before the first
    /// registration.
    #[must_use]
    pub fn rhythm(&self) -> Option<(Duration, Duration)> {
        let granted = self.granted.as_ref();
        granted.map(|granted| (granted.interval, granted.ttl))
    }

    /// Where the session is managed of which a request to the app tells in its header.
    ///
    /// # Errors
    /// If the request is not one of a session.
    pub fn session(&self, headers: &Headers) -> Result<SessionControl, WireError> {
        let at = self.granted.as_ref().map(|granted| &granted.at);
        let at = at.unwrap_or(&self.orchestrator);
        SessionControl::from_headers(headers, at, &self.beat.runner_id)
    }

    /// Says from the next sign of life on whether the runner takes work: `ready`, or why not.
    ///
    /// # Errors
    /// Misuse if it has ended.
    pub fn set_status(&mut self, now: Time, status: &str) -> Result<(), Misuse> {
        self.tick(now);
        if self.is_leaving() {
            return Err(Misuse::Ended);
        }
        self.beat.status = status.into();
        Ok(())
    }

    /// Takes the runner from its orchestrator, which ends its sessions. Harmless if it was called before.
    pub fn close(&mut self, now: Time) {
        self.tick(now);
        if self.is_leaving() {
            return;
        }
        self.abort();
        self.stop_reading();
        let Some(granted) = &self.granted else {
            return self.end(Ok(()));
        };
        let url = unregister_url(&granted.at, &self.beat.runner_id);
        let request = Request::new(Method::Post, url)
            .trust(self.config.trust)
            .header("authorization", granted.secret.as_str());
        self.state = State::Leaving(Exchange::start(&mut self.out, self.now, request, LEAVING));
    }

    const fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving(_) | State::Ended)
    }

    fn end(&mut self, ending: Result<(), Failure>) {
        self.abort();
        self.stop_reading();
        self.state = State::Ended;
        self.out.event(Event::Ended(ending));
    }

    fn abort(&mut self) {
        if let State::Registering(exchange) | State::Beating(exchange) | State::Leaving(exchange) =
            &mut self.state
        {
            exchange.abort(&mut self.out);
        }
    }

    // ---- signs of life ---------------------------------------------------------------------------------------

    /// Sends a sign of life: the first one of a registration with the shared secret.
    fn ask(&mut self) {
        let granted = self.granted.as_ref().filter(|_| !self.anew);
        let (at, secret) = match granted {
            Some(granted) => (&granted.at, &granted.secret),
            None => (&self.orchestrator, &self.shared),
        };
        self.sessions.asked();
        self.beat.sessions = self.sessions.iter().map(String::from).collect();
        let request = Request::new(Method::Post, at.with_path(HEARTBEAT_PATH))
            .trust(self.config.trust)
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("authorization", secret.as_str())
            .body(Body::Full(self.beat.to_json()));
        let start = |out: &mut _, bounds| Exchange::start(out, self.now, request, bounds);
        self.state = match granted {
            Some(_) => State::Beating(start(&mut self.out, BEATING)),
            None => State::Registering(start(&mut self.out, REGISTERING)),
        };
    }

    fn rest(&mut self) {
        let interval = self.granted.as_ref().map(|granted| granted.interval);
        self.state = State::Resting(self.now + interval.unwrap_or(HEARTBEAT_INTERVAL));
    }

    fn on_registering(&mut self, answer: Result<Reply, Cause>) {
        let (cause, again) = match answer {
            Ok(reply) if reply.status == 200 => match Registered::from_json(&reply.body, true) {
                Ok(told) => return self.registered(told),
                Err(err) => (err.into(), None),
            },
            Ok(reply) => {
                let named = !self.beat.runner_id.is_empty();
                let again = match reply.status {
                    404 if named => Some(SWEPT_AGAIN),
                    // With the secret of that entry at hand it is kept alive instead.
                    status if named && self.granted.is_none() => {
                        is_still_registered(status, &reply.body).then_some(ALIVE_AGAIN)
                    }
                    status => {
                        self.anew = !is_still_registered(status, &reply.body);
                        None
                    }
                };
                (refused(REGISTERING.doing, &reply), again)
            }
            Err(cause) => (cause, None),
        };
        self.sessions.unanswered();
        let since = *self.blocked.get_or_insert(self.now);
        if let Some(pause) = again.filter(|pause| self.now + *pause <= since + ENTRY_LASTS) {
            self.state = State::Resting(self.now + pause);
            return;
        }
        self.blocked = None;
        let failure = self.failure(&self.orchestrator, cause);
        if self.granted.is_none() {
            return self.end(Err(failure));
        }
        self.out.event(Event::Failed(failure));
        self.rest();
    }

    fn registered(&mut self, told: Registered) {
        self.blocked = None;
        self.anew = false;
        self.beat.runner_id = told.runner_id;
        let at = Self::place(&self.orchestrator, told.orchestrator);
        let news = told.news.map(|news| news.internal_url.unwrap_or(news.url));
        let news = news.and_then(|url| url.named_by(&self.orchestrator).ok());
        self.granted = Some(Granted {
            at: at.unwrap_or_else(|| self.orchestrator.clone()),
            secret: told.secret.unwrap_or_default(),
            interval: told.interval.clamp(MIN_INTERVAL, MAX_INTERVAL),
            ttl: told.ttl,
            heard: self.now,
        });
        self.stop_reading();
        self.out
            .event(Event::Registered(self.beat.runner_id.clone()));
        self.sessions
            .begin(told.sessions, news.is_some(), &mut self.out);
        self.news = news.map(|channel| {
            let config = subscriber::Config {
                trust: self.config.trust,
                ..Default::default()
            };
            let reader = Subscriber::new(self.now, config, channel, Start::At(0.into()));
            News {
                reader: self.children.adopt(reader),
                message: Messages::new(MAX_NEWS_BYTES),
            }
        });
        self.rest();
    }

    /// The place that an orchestrator says that it is at, if it may say so.
    fn place(from: &Url, told: Option<Url>) -> Option<Url> {
        told?.named_by(from).ok()
    }

    fn on_beating(&mut self, answer: Result<Reply, Cause>) {
        let cause = match answer {
            Ok(reply) if reply.status == 200 => match Registered::from_json(&reply.body, false) {
                Ok(told) => return self.beaten(told),
                Err(err) => err.into(),
            },
            Ok(reply) if matches!(reply.status, 401 | 404) => {
                self.sessions.unanswered();
                self.anew = true;
                return self.ask();
            }
            Ok(reply) => refused(BEATING.doing, &reply),
            Err(cause) => cause,
        };
        self.sessions.unanswered();
        if let Some(granted) = &self.granted {
            // Perhaps it is no longer where it said.
            self.anew = granted.heard + granted.ttl <= self.now;
            let failure = self.failure(&granted.at, cause);
            self.out.event(Event::Failed(failure));
        }
        self.rest();
    }

    fn beaten(&mut self, told: Registered) {
        if let Some(granted) = &mut self.granted {
            granted.heard = self.now;
            granted.interval = told.interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
            granted.ttl = told.ttl;
            if let Some(at) = Self::place(&granted.at, told.orchestrator) {
                granted.at = at;
            }
            if let Some(secret) = told.secret {
                granted.secret = secret;
            }
        }
        self.sessions.answered(told.sessions, &mut self.out);
        self.rest();
    }

    fn failure(&self, at: &Url, cause: Cause) -> Failure {
        Failure::new(Party::Orchestrator(at.clone()), cause)
    }

    // ---- news of sessions ------------------------------------------------------------------------------------

    fn stop_reading(&mut self) {
        if let Some(mut news) = self.news.take() {
            news.reader.get_mut().close(self.now);
            news.reader.drain(&mut self.out, |_| ());
        }
    }

    fn drain_news(&mut self) {
        let Some(news) = &mut self.news else {
            return;
        };
        let message = &mut news.message;
        let mut heard = Vec::new();
        let mut over = false;
        news.reader.drain(&mut self.out, |event| {
            use subscriber::Event as Read;
            heard.push(match event {
                Read::Begin(..) => return message.begin(),
                Read::Data(_, data) => return message.data(&data),
                Read::End(_) => message.end().ok(),
                Read::Truncated(..) => message.truncated().ok().map(|()| None),
                Read::Gap(_) | Read::Discontinuity => None,
                Read::Closed(_) => {
                    over = true;
                    return;
                }
            });
        });
        for whole in heard {
            match whole {
                Some(Some(text)) => self
                    .sessions
                    .hear(SessionNews::from_json(&text), &mut self.out),
                // Empty, or a sign that the channel is open.
                Some(None) => {}
                None => self.sessions.missed(),
            }
        }
        if over {
            self.news = None;
            self.sessions.unread();
        }
    }

    // ---- time and input --------------------------------------------------------------------------------------

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        let now = self.now;
        let late = match &mut self.state {
            State::Registering(exchange) | State::Beating(exchange) | State::Leaving(exchange) => {
                exchange.late(&mut self.out, now)
            }
            State::Resting(until) if *until <= now => return self.ask(),
            State::Resting(_) | State::Ended => None,
        };
        if let Some(cause) = late {
            self.answered(Err(cause));
        }
    }

    /// Lets time pass for the reader too.
    fn tick(&mut self, now: Time) {
        self.advance(now);
        if let Some(news) = &mut self.news {
            news.reader.handle_input(self.now, Input::Tick);
        }
        self.drain_news();
    }

    fn answered(&mut self, answer: Result<Reply, Cause>) {
        match self.state {
            State::Registering(_) => self.on_registering(answer),
            State::Beating(_) => self.on_beating(answer),
            // Whatever it says: an entry that stays dies by itself.
            State::Leaving(_) => self.end(Ok(())),
            State::Resting(_) | State::Ended => {}
        }
    }
}

fn refused(doing: &'static str, reply: &Reply) -> Cause {
    let text = error_words(&reply.body);
    Cause::Refused {
        doing,
        status: reply.status,
        reason: reason(&text),
        text: cut(&text).to_string(),
    }
}

impl Machine for Registration {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.tick(now);
        if let Some(news) = &mut self.news
            && input.id().is_some_and(|id| news.reader.owns(id))
        {
            news.reader.handle_input(self.now, input);
        } else if let Input::Http(id, step) = input
            && let State::Registering(exchange)
            | State::Beating(exchange)
            | State::Leaving(exchange) = &mut self.state
            && exchange.owns(id)
            && let Some(answer) = exchange.step(&mut self.out, step)
        {
            self.answered(answer);
        }
        self.drain_news();
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| {
            let own = match &self.state {
                State::Resting(until) => Some(*until),
                State::Registering(exchange)
                | State::Beating(exchange)
                | State::Leaving(exchange) => exchange.wake(),
                State::Ended => None,
            };
            let news = self.news.as_ref().and_then(|news| news.reader.wake());
            Output::Idle(earlier(own, news))
        })
    }
}
