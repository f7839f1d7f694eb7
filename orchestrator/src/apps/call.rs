//! Requests to an app: of a session, single ones, and those to addresses that nobody guesses.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Headers, Out, SWITCHING, is_of_connection};
use livepeer_core::wire::app::registration::SessionControl;
use livepeer_core::wire::app::{
    ROUTE_HEADER, SESSION_CONTROL_HEADER, SESSION_HEADER, SESSION_TOKEN_HEADER,
};
use livepeer_core::wire::runner::Mode;
use livepeer_core::{EffectId, Time};

use super::no;
use super::route::Ask;
use crate::event::{Event, Surface};
use crate::paid::No;
use crate::workers::{Doer, News, Order, Worker};
use crate::{Orchestrator, wire};

/// How long an app may take for one request, its answer included, and all that passes beyond HTTP.
const CALL_WITHIN: Duration = Duration::from_secs(3600);

/// A request that an app answers.
pub(crate) struct Call {
    runner: String,
    session: String,
    /// Whether the session is for this request alone.
    single: bool,
}

impl Orchestrator {
    /// A request of a session, whose runner is ready.
    pub(super) fn call_session(
        &mut self,
        now: Time,
        id: EffectId,
        to: (String, String),
        path: String,
        ask: Ask,
        body: Bytes,
    ) {
        let order = order(ask, path, body);
        self.call(now, id, to, None, order, false);
    }

    /// A request to an address that nobody guesses. For an app that takes single ones it is the runner's name.
    pub(super) fn call_proxy(
        &mut self,
        now: Time,
        id: EffectId,
        name: &str,
        path: String,
        ask: Ask,
        body: Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        let gone = || no(404, "live runner proxy not found");
        if let Some((runner, session)) = self.apps.proxies.get(name).cloned() {
            let rented = self.apps.rented(now, &runner, &session);
            let rented = rented.map_err(|_| gone())?;
            let target = rented.proxies.get(name).cloned().flatten();
            let order = order(ask, path, body);
            self.call(now, id, (runner, session), target, order, false);
            return Ok(None);
        }
        let runner = self.apps.live(now, name).map_err(|_| gone())?;
        if !runner.app.proxy || runner.app.mode != Mode::SingleShot {
            return Err(gone());
        }
        self.shoot(now, id, name, path, ask, body)
    }

    /// A single request: a session for it alone.
    pub(super) fn shoot(
        &mut self,
        now: Time,
        id: EffectId,
        runner: &str,
        path: String,
        ask: Ask,
        body: Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        if self.apps.ready(now, runner)?.app.mode != Mode::SingleShot {
            return Err(no(400, "runner is not single-shot"));
        }
        let (paid, payer) = (ask.paid.clone(), ask.payer.clone());
        let order = order(ask, path, body);
        self.rent_asked(now, id, runner, &paid, &payer, Some(order))
    }

    /// Hands the request of a single call on, since its session is there.
    pub(super) fn shot_rented(
        &mut self,
        now: Time,
        id: EffectId,
        runner: String,
        session: String,
        order: Order,
    ) {
        if let Some(rented) = self.apps.rented_mut(&runner, &session) {
            rented.shot = Some(id);
        }
        self.call(now, id, (runner, session), None, order, true);
    }

    fn call(
        &mut self,
        now: Time,
        id: EffectId,
        (runner, session): (String, String),
        target: Option<livepeer_core::http::Url>,
        mut order: Order,
        single: bool,
    ) {
        let Some(known) = self.apps.runners.get(&runner) else {
            return;
        };
        let token = known.token(&session);
        let worker = target.map_or_else(|| known.app.worker.clone(), Worker::At);
        let control = SessionControl::url_of(&self.config.service, &runner, &session);
        let mut headers = to_app(&order.headers);
        for (name, value) in [
            (ROUTE_HEADER, runner.clone()),
            (SESSION_HEADER, session.clone()),
            (SESSION_TOKEN_HEADER, token),
            (SESSION_CONTROL_HEADER, control.to_string()),
        ] {
            headers.push(name, value);
        }
        if let Some(protocol) = order.headers.get("upgrade") {
            headers.push("upgrade", protocol);
        }
        order.headers = headers;
        let payer = { known.sessions.get(&session) }.map_or_else(Default::default, |s| s.payer);
        self.out.event(Event::HandedOn {
            surface: Surface::App,
            to: runner.clone(),
            payer,
            path: order.path.clone(),
            body: order.body.clone(),
        });
        let doer = match self.live_app(now, &worker, &runner, &session, &order) {
            Some(made) => Doer::BuiltIn(made),
            None => worker.prepare(order),
        };
        let call = Call {
            runner,
            session,
            single,
        };
        self.hand_on(now, id, call, doer, CALL_WITHIN);
    }

    /// News of an app that answers a request.
    pub(crate) fn call_news(&mut self, now: Time, id: EffectId, news: News) {
        match news {
            News::Head(mut head) => {
                let mut headers = from_app(&head.headers);
                if let (SWITCHING, Some(protocol)) = (head.status, head.headers.get("upgrade")) {
                    headers.push("upgrade", protocol);
                }
                head.headers = headers;
                self.begin_answer(id, head);
            }
            News::Data(bytes) => self.pass(id, bytes),
            News::End => {
                self.out.http(id, Out::End(Headers::new()));
                self.end_call(now, id);
            }
            News::Lost(lost) => self.break_call(now, id, &lost.why),
        }
    }

    /// A call ends before its app does: its session is over, or its time.
    pub(crate) fn cut_call(&mut self, now: Time, id: EffectId) {
        self.break_call(now, id, "context canceled");
    }

    /// The peer that asked has gone.
    pub(crate) fn call_deserted(&mut self, now: Time, id: EffectId) {
        self.end_call(now, id);
    }

    fn break_call(&mut self, now: Time, id: EffectId, why: &str) {
        let Some(task) = self.works.get_mut(id) else {
            return;
        };
        match task.begun {
            true => self.out.http(id, Out::Abort),
            false => self.out.http(id, wire::text_reply(502, why)),
        }
        self.end_call(now, id);
    }

    fn end_call(&mut self, now: Time, id: EffectId) {
        if let Some(call) = self.end_task(id).and_then(|task| task.into_call()) {
            self.figures.jobs += 1;
            if call.single {
                self.release(now, &call.runner, &call.session);
            }
        }
    }
}

fn order(ask: Ask, path: String, body: Bytes) -> Order {
    Order {
        method: ask.method,
        path,
        headers: ask.headers,
        body,
    }
}

/// The fields of a request that an app gets: all but those of the way here, and those that the orchestrator sets.
fn to_app(from: &Headers) -> Headers {
    const SET: [&str; 4] = [
        ROUTE_HEADER,
        SESSION_HEADER,
        SESSION_TOKEN_HEADER,
        SESSION_CONTROL_HEADER,
    ];
    let mut headers = Headers::new();
    for (name, value) in end_to_end(from) {
        let forwarded = name == "forwarded" || name.starts_with("x-forwarded-");
        if !forwarded && !SET.contains(&name) {
            headers.push_any(name, value);
        }
    }
    headers
}

/// The fields of an app's answer that whoever asked gets.
fn from_app(from: &Headers) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in end_to_end(from) {
        headers.push_any(name, value);
    }
    headers
}

/// The fields that are not of one connection alone.
fn end_to_end(headers: &Headers) -> impl Iterator<Item = (&str, &str)> {
    let named = headers.get("connection").unwrap_or("");
    let named: Vec<String> = named
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    headers
        .iter()
        .filter(move |(name, _)| !is_of_connection(name) && !named.iter().any(|n| n == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_gets_all_fields_but_those_of_the_way() {
        let mut from = Headers::new();
        for (name, value) in [
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=x"),
            ("authorization", "Bearer k"),
            ("cookie", "c=d"),
            ("livepeer-payment", "p"),
            ("connection", "X-Hop"),
            ("x-hop", "1"),
            ("livepeer-session-id", "forged"),
        ] {
            from.push_any(name, value);
        }
        let kept = to_app(&from);
        let kept: Vec<_> = kept.iter().map(|(name, _)| name).collect();
        assert_eq!(kept, ["authorization", "cookie", "livepeer-payment"]);
    }
}
