//! Requests about a stream that runs, or may run: other parameters, and its end.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use core::time::Duration;

use bytes::Bytes;

use super::{State, StreamAnswer, StreamEvent, UpdateId};
use crate::error::{Cause, Failure, Party};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, In, Method, Request, Url};
use crate::job::byoc::{Byoc, Failed, JobId};
use crate::machine::EffectId;
use crate::payment::session::Delivered;
use crate::wire::Params;
use crate::wire::byoc::JOB_HEADER;
use crate::wire::byoc::stream::{MAX_BODY_BYTES, STOP_PATH, UPDATE_PATH};

/// How long an orchestrator may take to stop a stream: a container takes some seconds over it.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long a container may take over other parameters.
const UPDATE_WITHIN: Duration = Duration::from_secs(30);

/// A request about a stream, until its answer.
pub(super) struct Ask {
    pub(super) exchange: Exchange,
    pub(super) what: What,
    /// The orchestrator that is asked.
    url: Url,
}

pub(super) enum What {
    /// Other parameters, as they were sent.
    Update(UpdateId, Bytes),
    /// A start whose answer was lost is undone; the failure stands if that fails.
    Undo(Box<Failed>),
    /// An orchestrator that was left is to stop.
    Farewell,
    /// The stream is over, and this is the container's last word.
    Stop,
}

impl Byoc {
    pub(super) fn ask_update(&mut self, id: JobId, update: UpdateId, body: Bytes) {
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        let (url, header) = (running.service().clone(), running.header.clone());
        let bounds = Bounds {
            doing: "a request for other parameters",
            what: "the answer in bytes",
            limit: MAX_BODY_BYTES,
            within: UPDATE_WITHIN,
            redirects: false,
        };
        let what = What::Update(update, body.clone());
        self.ask(id, &url, UPDATE_PATH, header, body, bounds, what);
    }

    /// Asks an orchestrator to stop a stream that runs there, or may run.
    pub(super) fn ask_stop(&mut self, id: JobId, url: &Url, header: String, what: What) {
        self.ask_stop_with(id, url, header, Bytes::new(), what);
    }

    fn ask_stop_with(&mut self, id: JobId, url: &Url, header: String, body: Bytes, what: What) {
        let bounds = Bounds {
            doing: "a request to stop a stream",
            what: "the answer in bytes",
            limit: MAX_BODY_BYTES,
            within: STOP_WITHIN,
            redirects: false,
        };
        self.ask(id, url, STOP_PATH, header, body, bounds, what);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "they are the parts of one request"
    )]
    fn ask(
        &mut self,
        id: JobId,
        url: &Url,
        path: &str,
        header: String,
        body: Bytes,
        bounds: Bounds,
        what: What,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let request = Request::new(Method::Post, url.with_path(path))
            .header(JOB_HEADER, header)
            .header("content-type", "application/json")
            .trust(self.config.trust)
            .body(Body::Full(body));
        let exchange = Exchange::start(&mut self.out, self.now, request, bounds);
        if let Some(effect) = exchange.id() {
            let url = url.clone();
            stream.asks.insert(
                effect,
                Ask {
                    exchange,
                    what,
                    url,
                },
            );
        }
    }

    pub(super) fn on_ask(&mut self, id: JobId, effect: EffectId, step: In) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(ask) = stream.asks.get_mut(&effect) else {
            return;
        };
        if let Some(told) = ask.exchange.step(&mut self.out, step)
            && let Some(ask) = stream.asks.remove(&effect)
        {
            self.asked(id, ask, told);
        }
    }

    pub(super) fn late_asks(&mut self, id: JobId) {
        let now = self.now;
        loop {
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            let mut late = None;
            for (effect, ask) in &mut stream.asks {
                if let Some(cause) = ask.exchange.late(&mut self.out, now) {
                    late = Some((*effect, cause));
                    break;
                }
            }
            let Some((effect, cause)) = late else { return };
            if let Some(ask) = stream.asks.remove(&effect) {
                self.asked(id, ask, Err(cause));
            }
        }
    }

    /// A request about a stream has its answer, or none.
    fn asked(&mut self, id: JobId, ask: Ask, told: Result<Reply, Cause>) {
        let good = told.as_ref().is_ok_and(Reply::is_success);
        match ask.what {
            What::Update(update, body) => {
                if good
                    && let Some(stream) = self.streams.get_mut(&id)
                    && let Ok(text) = core::str::from_utf8(&body)
                    && let Ok(params) = Params::for_container(text)
                {
                    // The next orchestrator begins with them.
                    stream.order.params = Some(params);
                }
                let answer = told.map(|reply| StreamAnswer {
                    status: reply.status,
                    content_type: reply
                        .headers
                        .get("content-type")
                        .unwrap_or_default()
                        .to_string(),
                    body: reply.body.into(),
                });
                let answer = answer
                    .map_err(|cause| Box::new(Failure::new(Party::Orchestrator(ask.url), cause)));
                self.tell_stream(id, StreamEvent::Updated(update, answer));
            }
            What::Undo(failed) => self.undone(id, good, failed),
            What::Farewell => {}
            What::Stop => {
                if let Some(stream) = self.streams.get_mut(&id)
                    && let State::Closing(Some(Ok(words))) = &mut stream.state
                    && let Ok(reply) = told
                    && reply.is_success()
                {
                    *words = reply.body.into();
                }
            }
        }
    }

    /// Ends a stream in order.
    pub(in crate::job::byoc) fn finish_stream(&mut self, id: JobId, body: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match &stream.state {
            State::Closing(_) => return,
            State::Undoing => {}
            State::Starting(start) => {
                let start = *start;
                let begun = self.give_up_start(start);
                self.part(start, Delivered::Unknown);
                self.remove(start);
                if let Some((url, header)) = begun {
                    self.ask_stop_with(id, &url, header, body, What::Stop);
                }
            }
            State::Running(running) => {
                let (url, header) = (running.service().clone(), running.header.clone());
                self.leave_session(id, None);
                self.ask_stop_with(id, &url, header, body, What::Stop);
            }
        }
        self.end_stream(id, Ok(Bytes::new()));
    }
}
