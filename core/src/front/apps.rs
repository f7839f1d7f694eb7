//! Calls of apps that orchestrators rent out: read here, and passed on as they come. A client needs no wallet; an app that is
//! held in a session is held for a client's key, and given up some time after its last use (client-1.0 6).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;

use super::pace::Pace;
use super::types::{AppRequest, AppSessionId, Event, RELAY_WITHIN, RequestId, draw_secret};
use super::{Front, State};
use crate::http::{Headers, Method, Request, Response, Url};
use crate::job::app::{Answer, Call, Failed};
use crate::machine::earlier;
use crate::money::Amount;
use crate::time::Time;
use crate::wire::app::{app_url, passing};
use crate::wire::refused::{Code, Refused};

/// The header by which a client names its session with an app.
pub const SESSION_HEADER: &str = "livepeer-session";
/// The cookie by which a browser does.
const SESSION_COOKIE: &str = "lp_session";
/// The header whose value an app gets as `authorization`: the client's own is for the gateway.
const APP_AUTHORIZATION: &str = "livepeer-app-authorization";
/// The methods by which an app can be called.
pub const APP_METHODS: [Method; 7] = [
    Method::Get,
    Method::Head,
    Method::Post,
    Method::Put,
    Method::Patch,
    Method::Delete,
    Method::Options,
];
/// Where apps are called.
const APPS_PATH: &str = "/apps/";
/// At most this many sessions are held.
const MAX_SESSIONS: usize = 1_024;
/// At most this many bytes of a client's key.
const MAX_KEY: usize = 128;

/// The sessions of clients with apps.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    held: BTreeMap<(String, String), Held>,
    keys: BTreeMap<AppSessionId, (String, String)>,
    begun: u64,
}

#[derive(Debug)]
struct Held {
    id: AppSessionId,
    /// Requests that are under way.
    users: usize,
    /// Until when it is held without use.
    until: Option<Time>,
}

impl Sessions {
    /// Begins a use; `None` if there are too many sessions.
    pub(super) fn begin(&mut self, app: &str, key: &str) -> Option<AppSessionId> {
        let name = (app.to_string(), key.to_string());
        if !self.held.contains_key(&name) {
            if self.held.len() >= MAX_SESSIONS {
                return None;
            }
            let id = AppSessionId(self.begun);
            self.begun += 1;
            self.keys.insert(id, name.clone());
            let (users, until) = (0, None);
            self.held.insert(name.clone(), Held { id, users, until });
        }
        let held = self.held.get_mut(&name)?;
        held.users += 1;
        held.until = None;
        Some(held.id)
    }

    /// Ends a use; the session lasts until then, unless it is used again.
    pub(super) fn end(&mut self, id: AppSessionId, until: Time) {
        let held = { self.keys.get(&id) }.and_then(|name| self.held.get_mut(name));
        if let Some(held) = held {
            held.users = held.users.saturating_sub(1);
            held.until = (held.users == 0).then_some(until);
        }
    }

    /// Ends a use of an app that has no sessions: nothing is held for the next one.
    pub(super) fn end_call(&mut self, id: AppSessionId) {
        let held = { self.keys.get(&id) }.and_then(|name| self.held.get_mut(name));
        if let Some(held) = held {
            held.users = held.users.saturating_sub(1);
            if held.users == 0 {
                self.forget(id);
            }
        }
    }

    /// Forgets a session: the next use of its key begins another.
    fn forget(&mut self, id: AppSessionId) {
        if let Some(name) = self.keys.remove(&id) {
            self.held.remove(&name);
        }
    }

    /// The sessions that nobody has used for long enough: they are forgotten.
    pub(super) fn tick(&mut self, now: Time) -> Vec<AppSessionId> {
        let idle = |held: &&Held| held.until.is_some_and(|until| until <= now);
        let over: Vec<_> = self
            .held
            .values()
            .filter(idle)
            .map(|held| held.id)
            .collect();
        for id in &over {
            self.forget(*id);
        }
        over
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.held
            .values()
            .map(|held| held.until)
            .fold(None, earlier)
    }
}

impl Front {
    /// Tells that a session is over at its orchestrator: the next use of its key begins another.
    pub fn session_over(&mut self, now: Time, id: AppSessionId) {
        self.advance(now);
        self.sessions.forget(id);
    }

    /// Counts what a session with an app, or a call of one without a session, was paid with, once that is over.
    pub fn app_paid(&mut self, now: Time, tickets: u64, value: &Amount) {
        self.advance(now);
        self.figures.count_app(tickets, value);
    }

    /// Counts how often payments of such a session or call could not be made, and how often they were not taken.
    pub fn app_unpaid(&mut self, now: Time, unmade: u64, refused: u64) {
        self.advance(now);
        self.figures.count_app_failures(unmade, refused);
    }

    /// Begins the answer of an app. `key` is told where the app is held in a session of the client.
    pub fn app_head(
        &mut self,
        now: Time,
        id: RequestId,
        answer: &Answer,
        app: &str,
        key: Option<&str>,
    ) {
        self.advance(now);
        if let Some(running) = self.running.get_mut(&id) {
            running.single = key.is_none();
        }
        match self.is_backed(id) {
            true => self.backend_app_head(id, answer),
            false => self.begin_relay(id, head(answer, app, key), Pace::of_relay),
        }
    }

    /// Tells that nothing came of a call.
    pub fn app_failed(&mut self, now: Time, id: RequestId, failed: &Failed) {
        self.advance(now);
        self.figures.count_app_failures(failed.unmade_payments(), 0);
        if self.is_backed(id) {
            return self.backend_app_failed(id, failed);
        }
        match self.running.get(&id).map(|running| &running.state) {
            Some(State::Calling(_)) => self.refuse(id, &refused(failed)),
            _ => self.relay_broke(now, id),
        }
    }

    /// Has the shell call an app, if the request makes sense.
    pub(super) fn app(&mut self, id: RequestId, body: Bytes) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let Some(head) = running.sent.head.take() else {
            return;
        };
        let (app, call) = match read(&head, body, &running.config.apps) {
            Ok(read) => read,
            Err(refused) => return self.refuse(id, &refused),
        };
        let known = session_key(&head.headers);
        let key = known.unwrap_or_else(|| draw_secret(&mut self.rng));
        let Some(session) = self.sessions.begin(&app, &key) else {
            return self.refuse(id, &too_many());
        };
        running.session = Some(session);
        running.state = State::Calling(running.received + RELAY_WITHIN);
        let request = AppRequest {
            app,
            call,
            session,
            key,
        };
        self.out.event(Event::App(id, Box::new(request)));
        self.arm(id);
    }
}

/// Reads a call: the app that is meant, and the request to it.
fn read(head: &Request, body: Bytes, allowed: &[String]) -> Result<(String, Call), Refused> {
    let path = head.url.path();
    let path = path.strip_prefix(APPS_PATH).unwrap_or(path);
    let any = Url::parse("https://h/app").expect("a URL");
    if app_url(&any, path).is_err() {
        let text = "The path of an app call must be plain.";
        return Err(Refused::new(Code::InvalidValue, text));
    }
    let (plain, query) = match path.split_once('?') {
        Some((plain, query)) => (plain, format!("?{query}")),
        None => (path, String::new()),
    };
    let segments: Vec<&str> = plain.split('/').collect();
    let Some(length) = { allowed.iter() }
        .filter_map(|pattern| length_of(pattern, &segments))
        .max()
    else {
        let shown = segments[..segments.len().min(2)].join("/");
        let text = format!("The app '{shown}' does not exist or is not allowed here.");
        return Err(Refused::new(Code::ModelNotFound, text));
    };
    let (app, rest) = segments.split_at(length);
    if !APP_METHODS.contains(&head.method) {
        let names: Vec<_> = APP_METHODS.iter().map(|method| method.as_str()).collect();
        return Err(Refused::method(
            head.method.as_str(),
            plain,
            &names.join(", "),
        ));
    }
    let call = Call {
        headers: for_app(&head.headers),
        body,
        upgrade: head.upgrade().map(str::to_string),
        ..Call::new(head.method, format!("{}{query}", rest.join("/")))
    };
    Ok((app.join("/"), call))
}

/// How many segments a path begins with that fit the pattern of an app's name. A star stands for any one segment.
fn length_of(pattern: &str, segments: &[&str]) -> Option<usize> {
    let mut length = 0;
    for want in pattern.split('/') {
        let segment = segments.get(length)?;
        if segment.is_empty() || (want != "*" && want != *segment) {
            return None;
        }
        length += 1;
    }
    Some(length)
}

/// The header fields that go on to an app: none by which the client is known to the gateway.
fn for_app(headers: &Headers) -> Headers {
    let mut kept = Headers::new();
    for (name, value) in passing(headers).iter() {
        match name {
            "authorization" => {}
            "cookie" => {
                let own = |pair: &&str| {
                    let name = pair.split('=').next().unwrap_or_default();
                    name.trim() == SESSION_COOKIE
                };
                let others: Vec<&str> = value.split(';').filter(|pair| !own(pair)).collect();
                if !others.is_empty() {
                    kept.push_any("cookie", others.join(";").trim());
                }
            }
            _ => kept.push_any(name, value),
        }
    }
    if let Some(value) = headers.get(APP_AUTHORIZATION) {
        kept.push_any("authorization", value);
    }
    kept
}

/// The key of a client's session, if it has one.
fn session_key(headers: &Headers) -> Option<String> {
    let of_cookie = || {
        let cookies = headers.get("cookie")?.split(';');
        let mut pairs = cookies.filter_map(|pair| pair.trim().split_once('='));
        pairs.find_map(|(name, value)| (name == SESSION_COOKIE).then_some(value))
    };
    let key = headers.get(SESSION_HEADER).or_else(of_cookie)?;
    let fits = !key.is_empty() && key.len() <= MAX_KEY;
    fits.then(|| key.to_string())
}

pub(super) fn too_many() -> Refused {
    Refused::new(Code::Overloaded, "Too many sessions with apps are held.")
}

pub(super) fn refused(failed: &Failed) -> Refused {
    match failed {
        Failed::NoRunner { .. } => Refused::new(
            Code::ModelNotFound,
            "No orchestrator offers this app on the terms of this gateway.",
        ),
        Failed::Exhausted { .. } => Refused::new(
            Code::NoOrchestrator,
            "No runner of this app took the call; try again.",
        ),
        Failed::Undecided { .. } => Refused::new(
            Code::OutcomeUnknown,
            "No answer came from the app that has the call; it may have been done.",
        ),
        Failed::Broken { .. } => {
            Refused::new(Code::UpstreamStreamBroken, "The app's answer broke off.")
        }
        Failed::Ours(_) => {
            Refused::new(Code::InternalError, "The gateway cannot pay for the call.")
        }
    }
}

/// The head of an app's answer for its client: addresses of the app are those of the gateway. `key` is told where the app
/// is held in a session.
fn head(answer: &Answer, app: &str, key: Option<&str>) -> Response {
    let mut head = Response::new(answer.status);
    let inside = answer.runner.to_string();
    for (name, value) in answer.headers.iter() {
        let rest = value.strip_prefix(inside.trim_end_matches('/'));
        match rest.filter(|_| name == "location") {
            Some(rest) => head
                .headers
                .push_any(name, format!("{APPS_PATH}{app}{rest}")),
            None => head.headers.push_any(name, value),
        }
    }
    if let Some(key) = key {
        head.headers.push(SESSION_HEADER, key);
        let cookie = format!("{SESSION_COOKIE}={key}; Path=/apps; HttpOnly; SameSite=Lax");
        head.headers.push_any("set-cookie", &cookie);
    }
    head
}
