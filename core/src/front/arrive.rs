//! From the head of a request to the work that it asks for.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;

use super::incoming::Incoming;
use super::reply::{self, Greeting};
use super::route::{self, Live, Route, Target};
use super::types::{self, Event, Outcome, RequestId, Summary, Work};
use super::{Admission, Front, Job, Running, Sent, State};
use crate::http::{Body, Method, Out, Request, Response};
use crate::intake::Full;
use crate::machine::EffectId;
use crate::pipeline::Pipeline;
use crate::time::Time;
use crate::wire::openai::{backend, models};
use crate::wire::refused::{Code, Refused, Shape};
use crate::wire::replies;

impl Front {
    /// Takes the head of a request, and answers it if that is enough.
    pub(super) fn arrive(&mut self, exchange: EffectId, request: &Request) {
        let id = RequestId::draw(self.now, &mut self.rng);
        let greeting = Greeting::new(id, request, &self.config);
        let turned_away = Away {
            exchange,
            id,
            greeting: &greeting,
            route: None,
            state: Admission::New,
            is_retry: is_retry(request),
        };
        if !expects_only_leave(request) {
            let text = "Only 'Expect: 100-continue' is understood.\n";
            let mut response = Response::new(417).body(Body::Full(text.into()));
            response
                .headers
                .push("content-type", "text/plain; charset=utf-8");
            return self.turn_away(turned_away, response, None);
        }
        if request.method == Method::Options && greeting.is_from_page() {
            let response = greeting.preflight(request);
            self.out.http(exchange, Out::Reply(response));
            return;
        }
        let target = route::find(request.method, request.url.path());
        let target = target.and_then(|target| {
            let is_served = match target.route {
                Route::Page(page) => self.config.pages.contains(&page),
                Route::Live(live) => self.config.live.has(live),
                Route::Container => self.config.containers,
                Route::App => !self.config.apps.is_empty(),
                route @ (Route::Completions | Route::Responses) => self.config.is_backed(route),
                _ => true,
            };
            if is_served {
                return Ok(target);
            }
            let path = request.url.path();
            let refused = Refused::unknown_url(request.method.as_str(), path);
            Err((target.shape, refused))
        });
        let target = match target {
            Ok(target) => target,
            Err((shape, refused)) => return self.turn_away_with(turned_away, shape, &refused),
        };
        let turned_away = Away {
            route: Some(target.route),
            ..turned_away
        };
        let shape = target.shape;
        if target.route.makes_work()
            && let Some(origin) = greeting.stranger()
        {
            return self.turn_away_with(turned_away, shape, &Refused::origin(origin));
        }
        if let Err((state, refused)) = self.admit(exchange, id, request, target, greeting.clone()) {
            let turned_away = Away {
                state,
                ..turned_away
            };
            self.turn_away_with(turned_away, shape, &refused);
        }
    }

    /// Lets a request in, or says why not, and at which state.
    fn admit(
        &mut self,
        exchange: EffectId,
        id: RequestId,
        request: &Request,
        target: Target,
        greeting: Greeting,
    ) -> Result<(), (Admission, Refused)> {
        let now = self.now;
        let route = target.route;
        let state = self.first_state(request, route);
        let state = state.map_err(|refused| (Admission::New, refused))?;
        let held = self.intake.admit(request);
        let held = held.map_err(|full| (Admission::Limiting, too_many(full)))?;
        let running = Running {
            exchange: Some(exchange),
            target,
            greeting,
            sent: Sent::new(request, &self.config, route),
            config: self.config.clone(),
            began: now,
            received: now,
            held,
            session: None,
            single: false,
            state,
        };
        self.exchanges.insert(exchange, id);
        self.running.insert(id, running);
        if route.has_body() {
            self.arm(id);
        } else {
            self.read(id);
        }
        Ok(())
    }

    /// The state of a request that is let in, by its head.
    fn first_state(&self, request: &Request, route: Route) -> Result<State, Refused> {
        let now = self.now;
        if route.makes_work() && self.closing.is_some_and(|at| at <= now) {
            let text = "This instance is shutting down; try again.";
            return Err(Refused::new(Code::Draining, text));
        }
        Ok(if route.has_body() {
            let encoding = request
                .headers
                .get("content-encoding")
                .unwrap_or("identity");
            // What an app makes of a body is its own matter; a container is told of the type alone.
            if route != Route::App && !encoding.eq_ignore_ascii_case("identity") {
                let text = alloc::format!(
                    "Unsupported content encoding '{}'; send the body without one.",
                    reply::printable(encoding)
                );
                return Err(Refused::new(Code::UnsupportedContentEncoding, text));
            }
            let kind = request.headers.get("content-type").unwrap_or_default();
            if !route.takes_form() && is_form(kind) {
                let text = "This route takes a JSON body, not multipart/form-data.";
                return Err(Refused::new(Code::InvalidContentType, text));
            }
            let limit = self.config.max_body(route);
            State::Reading(Incoming::new(now, limit, request.length)?)
        } else {
            State::Fetching
        })
    }

    /// Answers a request that reads something, or has the shell do that.
    fn read(&mut self, id: RequestId) {
        let target = &self.running[&id].target;
        let part = |at: usize| target.parts.get(at).map_or("", |part| part.as_str());
        match target.route {
            Route::Alive => self.tell(id, 200, replies::health("ok")),
            Route::Ready if self.closing.is_some() => {
                self.tell(id, 503, replies::health("draining"));
            }
            Route::Ready => self.tell(id, 200, replies::health("ready")),
            Route::Page(page) => {
                self.out.event(Event::Page(id, page));
                self.arm(id);
            }
            Route::ResultFile => {
                let path = alloc::format!("/stream/{}/{}", part(0), part(1));
                self.bring(id, path);
            }
            Route::File => {
                let path = alloc::format!("/files/{}/{}", part(0), part(1));
                self.bring(id, path);
            }
            Route::Live(_) => self.call(id, Bytes::new()),
            Route::Models if self.models.is_discovered() => {
                let list = models::list(&self.models, &self.config.settings, self.since);
                self.tell_version(id, list);
            }
            Route::Models => self.refuse(id, &not_discovered()),
            Route::Model => {
                let settings = &self.config.settings;
                match models::one(part(0), &self.models, settings, self.since) {
                    Ok(model) => self.tell(id, 200, model),
                    Err(refused) => self.refuse(id, &refused),
                }
            }
            _ => self.refuse(
                id,
                &Refused::new(Code::InternalError, "This route reads a body."),
            ),
        }
    }

    /// Answers with a result, from memory or from the shell's folder.
    fn bring(&mut self, id: RequestId, path: String) {
        if let Some(object) = self.objects.get(&path) {
            let response = reply::file(object.content_type, object.content.clone());
            return self.answer(id, response, Outcome::Answered, None);
        }
        if self.config.folder {
            self.out.event(Event::Fetch(id, path));
            return self.arm(id);
        }
        self.answer(id, reply::no_file(), Outcome::Refused, None);
    }

    /// Answers with a list, unless the caller has this version of it.
    fn tell_version(&mut self, id: RequestId, list: Bytes) {
        let version = models::etag(&list);
        let known = self.running[&id].sent.known.as_deref();
        let mut response = if known.is_some_and(|known| models::is_known(known, &version)) {
            Response::new(304)
        } else {
            let mut response = Response::new(200).body(Body::Full(list));
            response.headers = super::typed("application/json");
            response
        };
        response.headers.push("etag", version);
        self.answer(id, response, Outcome::Answered, None);
    }

    /// Answers with JSON.
    pub(super) fn tell(&mut self, id: RequestId, status: u16, json: Bytes) {
        let mut response = Response::new(status).body(Body::Full(json));
        response.headers = super::typed("application/json");
        self.answer(id, response, Outcome::Answered, None);
    }

    // ---- the body --------------------------------------------------------------------------------------------

    /// Takes bytes of a body.
    pub(super) fn take(&mut self, now: Time, exchange: EffectId, data: Bytes) {
        let Some(id) = self.exchanges.get(&exchange).copied() else {
            return;
        };
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let State::Reading(body) = &mut running.state else {
            return self.said(now, exchange, data);
        };
        let taken = self
            .intake
            .grow(&mut running.held, data.len())
            .map_err(too_many)
            .and_then(|()| body.take(now, data));
        if let Err(refused) = taken {
            self.refuse(id, &refused);
        }
    }

    /// A body is complete.
    pub(super) fn received(&mut self, now: Time, exchange: EffectId) {
        let Some(id) = self.exchanges.get(&exchange).copied() else {
            return;
        };
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let State::Reading(_) = running.state else {
            return self.said_all(exchange);
        };
        let State::Reading(body) =
            core::mem::replace(&mut running.state, State::Parsed(Bytes::new()))
        else {
            return;
        };
        running.received = now;
        let body = body.whole();
        let route = running.target.route;
        if let Some(surface) = route.surface()
            && self.ask_backend(id, surface, &body)
        {
            return;
        }
        match route {
            Route::VideoResult => return self.tell_video(id, &body),
            Route::Live(_) => return self.call(id, body),
            Route::Container => return self.order(id, body),
            Route::App => return self.app(id, body),
            Route::Embeddings | Route::Rerank | Route::Completions | Route::Responses => {
                let refused = backend::refuse(&body, &self.models);
                return self.refuse(id, &refused);
            }
            Route::Translations => return self.refuse(id, &backend::no_translation()),
            _ => {}
        }
        self.look_at(id, body);
    }

    /// Looks at a whole body, and has the shell do what it asks for.
    fn look_at(&mut self, id: RequestId, body: Bytes) {
        match self.translate(id, &body) {
            Ok(work) => self.want(id, work),
            Err(refused) if refused.code == Code::ModelNotFound && !self.models.is_discovered() => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.state = State::Parsed(body);
                    self.waiting.push(id);
                    self.arm(id);
                }
            }
            Err(refused) => self.refuse(id, &refused),
        }
    }

    /// Looks again at the requests that waited for the first search.
    pub(super) fn look_again(&mut self) {
        for id in core::mem::take(&mut self.waiting) {
            if let Some(running) = self.running.get_mut(&id)
                && let State::Parsed(body) = &mut running.state
            {
                let body = core::mem::take(body);
                self.look_at(id, body);
            }
        }
    }

    /// Has the shell do the work.
    fn want(&mut self, id: RequestId, (work, job): (Box<Work>, Box<Job>)) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let video = running.sent.prefers_async && job.pipeline == Pipeline::ImageToVideo;
        let native = job.native.clone();
        running.state = State::Working(job);
        if video && matches!(running.target.route, Route::Batch(_)) {
            if !self.videos.begin(&native) {
                let text = "Too many videos are being made.";
                return self.refuse(id, &Refused::new(Code::Overloaded, text));
            }
            self.accept(id, &native);
        }
        self.out.event(Event::Want(id, work));
        self.arm(id);
    }

    /// Tells a caller that its video will be made, and lets it go.
    fn accept(&mut self, id: RequestId, native: &str) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let Some(exchange) = running.exchange.take() else {
            return;
        };
        self.exchanges.remove(&exchange);
        let mut response = Response::new(202).body(Body::Full(replies::video_accepted(native)));
        response.headers = super::typed("application/json");
        running.greeting.write(&mut response.headers);
        self.out.http(exchange, Out::Reply(response));
    }

    /// Says how a video is doing.
    fn tell_video(&mut self, id: RequestId, body: &[u8]) {
        let named = replies::read_video_id(body);
        let state = named.and_then(|native| self.videos.get(&native).cloned());
        match state {
            None => self.refuse(id, &Refused::new(Code::InvalidValue, "invalid request ID")),
            Some(None) => self.tell(id, 202, replies::video_pending()),
            Some(Some(result)) => self.tell(id, 200, result),
        }
    }

    /// A name for a request on Livepeer's own routes that no other one has.
    pub(super) fn draw_native(&mut self) -> String {
        loop {
            let name = types::draw_native(&mut self.rng);
            let path = alloc::format!("/stream/{name}/");
            if !self.videos.has(&name) && !self.objects.has_any(&path) {
                return name;
            }
        }
    }

    // ---- without a place -------------------------------------------------------------------------------------

    fn turn_away_with(&mut self, away: Away<'_>, shape: Shape, refused: &Refused) {
        let response = reply::refusal(shape, refused);
        self.turn_away(away, response, Some(refused.code.name()));
    }

    /// Answers a request that was not let in.
    fn turn_away(&mut self, away: Away<'_>, mut response: Response, error: Option<&'static str>) {
        away.greeting.write(&mut response.headers);
        if away.greeting.is_bodiless() {
            response.body = Body::Empty;
        }
        let status = response.status;
        self.out.http(away.exchange, Out::Reply(response));
        self.finished(Summary {
            id: away.id,
            route: away.route,
            state: away.state,
            status: Some(status),
            error,
            outcome: Outcome::Refused,
            job: None,
            served: None,
            attempts: Vec::new(),
            is_retry: away.is_retry,
            took: core::time::Duration::ZERO,
            overhead: None,
            first: None,
        });
    }
}

/// A request that is not let in.
struct Away<'a> {
    exchange: EffectId,
    id: RequestId,
    greeting: &'a Greeting,
    route: Option<Route>,
    state: Admission,
    is_retry: bool,
}

impl Sent {
    fn new(request: &Request, config: &types::Config, route: Route) -> Self {
        let field = |name| request.headers.get(name).map(String::from);
        let prefers = |(name, value): (&str, &str)| {
            let mut words = value.split([',', ';']).map(str::trim);
            name == "prefer" && words.any(|word| word.eq_ignore_ascii_case("respond-async"))
        };
        let names_files = matches!(
            route,
            Route::Generations | Route::Edits | Route::Live(Live::Order)
        );
        Self {
            content_type: field("content-type").unwrap_or_default(),
            provider: field("livepeer-provider"),
            known: field("if-none-match"),
            prefers_async: request.headers.iter().any(prefers),
            is_retry: is_retry(request),
            base: if names_files {
                reply::public_base(request, config)
            } else {
                String::new()
            },
            head: matches!(route, Route::Live(_) | Route::Container | Route::App)
                .then(|| Box::new(request.clone())),
            container: None,
            backend: None,
        }
    }
}

/// Whether an SDK of OpenAI says that it sent the request before.
fn is_retry(request: &Request) -> bool {
    let count = request.headers.get("x-stainless-retry-count");
    count.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count > 0))
}

/// Whether a request expects nothing but leave to send its body.
fn expects_only_leave(request: &Request) -> bool {
    let expected = request.headers.get("expect");
    expected.is_none_or(|expected| expected.eq_ignore_ascii_case("100-continue"))
}

fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("multipart/form-data")
}

pub(super) fn not_discovered() -> Refused {
    let text = "No orchestrator has been asked for its models yet; try again.";
    Refused::new(Code::NoOrchestrator, text)
}

pub(super) fn too_many(full: Full) -> Refused {
    let text = match full {
        Full::Total => "Too many requests in flight.".to_string(),
        Full::Peer => "Too many requests in flight from one address.".to_string(),
    };
    Refused::new(Code::Overloaded, text)
}
