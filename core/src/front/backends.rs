//! Requests in OpenAI's shape for models that a backend serves: a container or an app has them, and its answer is checked
//! and told in the shape of the route (front-door spec 1.9).
//!
//! ```text
//!   a backend's model ──▶ Event::Order, App ──▶ head ──▶ events, as they were asked for ──▶ passed on line by line ──▶ [DONE]
//!                                                │
//!                                                ├──▶ sound, a transcript ──▶ passed on as it comes
//!                                                └──▶ all else ──▶ held whole ──▶ JSON, or the backend's error, or 502
//! ```

mod failures;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;

use self::failures::{BROKE_OFF, broken_off, nobody, of_container};
use super::answer::tell_events;
use super::hired::{Facts, Hired};
use super::pace::Pace;
use super::reply;
use super::types::{AppRequest, Event, JOB_GRACE, Outcome, RequestId};
use super::{Front, State, arrive};
use crate::http::{Body, Headers, Response};
use crate::job::app::{Answer as AppAnswer, Call, Failed as AppFailed};
use crate::job::byoc::{Done, Failed, Order, Served};
use crate::time::Time;
use crate::wire::byoc::JobRequest;
use crate::wire::openai::backend::{self, Events, Program, Surface, Wanted};
use crate::wire::refused::{Code, Refused};
use crate::wire::sse;

/// At most this many bytes of an answer are held until it is whole.
const MAX_ANSWER: usize = 64 << 20;
/// At most this many bytes of a backend's error count.
const MAX_ERROR: usize = 64 << 10;
/// The key of sessions with apps that serve models, which all clients share. No client can say it.
const SHARED: &str = "";

/// A request that a backend has.
#[derive(Debug)]
pub(super) struct Backed {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) asked: Time,
    surface: Surface,
    wanted: Wanted,
    answer: Answer,
    pub(super) facts: Option<Facts>,
}

/// The answer of a backend while it comes in.
#[derive(Debug)]
enum Answer {
    Awaited,
    /// Held until it is whole.
    Whole {
        status: u16,
        content_type: String,
        body: Vec<u8>,
    },
    /// Passed on line by line.
    Events(Box<Events>),
    /// Passed on as it comes.
    Passing,
}

impl Front {
    /// Has the shell ask a backend, if the model of the request is one's; false if another one has to serve it.
    pub(super) fn ask_backend(&mut self, id: RequestId, surface: Surface, body: &Bytes) -> bool {
        let Some(running) = self.running.get_mut(&id) else {
            return true;
        };
        let (sent, settings) = (&running.sent, &running.config.settings);
        let (kind, provider) = (&sent.content_type, sent.provider.as_deref());
        let request = match backend::read(surface, kind, body, provider, &self.models, settings) {
            Ok(Some(request)) => request,
            Ok(None) => return false,
            Err(refused) => {
                self.refuse(id, &refused);
                return true;
            }
        };
        let content_type = match kind.as_str() {
            "" => "application/json".to_string(),
            kind => kind.to_string(),
        };
        running.sent.backend = Some(Box::new(Backed {
            name: request.name,
            kind: request.backend.program.kind(),
            asked: running.received,
            surface,
            wanted: request.wanted,
            answer: Answer::Awaited,
            facts: None,
        }));
        match request.backend.program {
            Program::Container { capability, within } => {
                let job = JobRequest {
                    request: "{}".into(),
                    timeout_seconds: u32::try_from(within.as_secs()).unwrap_or(u32::MAX).max(1),
                    capability,
                    ..JobRequest::default()
                };
                let order = Order {
                    path: request.path,
                    content_type,
                    body: request.body,
                    ..Order::new(job)
                };
                self.give(id, order);
            }
            Program::App { name } => {
                let Some(session) = self.sessions.begin(&name, SHARED) else {
                    self.refuse(id, &super::apps::too_many());
                    return true;
                };
                running.session = Some(session);
                running.state =
                    State::Calling(running.received + running.config.answer + JOB_GRACE);
                let call = Call::post(request.path, request.body)
                    .with_header("content-type", &content_type);
                let request = AppRequest {
                    app: name,
                    call,
                    session,
                    key: SHARED.into(),
                };
                self.out.event(Event::App(id, Box::new(request)));
                self.arm(id);
            }
        }
        true
    }

    /// Whether a backend has a request.
    pub(super) fn is_backed(&self, id: RequestId) -> bool {
        let running = self.running.get(&id);
        running.is_some_and(|running| running.sent.backend.is_some())
    }

    fn backed(&mut self, id: RequestId) -> Option<&mut Backed> {
        self.running.get_mut(&id)?.sent.backend.as_deref_mut()
    }

    /// A container's answer begins.
    pub(super) fn container_head(&mut self, id: RequestId, served: &Served) {
        self.backend_head(id, 200, &served.content_type, Facts::of(served));
    }

    /// A container's whole answer is there, or all of its stream was told.
    pub(super) fn container_done(&mut self, id: RequestId, done: Done) {
        if done.served.stream {
            return self.backend_end(id);
        }
        if let Some(backed) = self.backed(id) {
            backed.facts = Some(Facts::of(&done.served));
            self.settle_backend(id, 200, &done.served.content_type, done.body);
        }
    }

    /// An app's answer begins.
    pub(super) fn backend_app_head(&mut self, id: RequestId, answer: &AppAnswer) {
        let facts = Facts {
            origin: answer.runner.origin(),
            price: { answer.price.clone() }.map(|price| (price.wei, price.unit)),
            waited: None,
            attempts: Vec::new(),
        };
        let kind = answer.headers.get("content-type").unwrap_or_default();
        self.backend_head(id, answer.status, kind, facts);
    }

    fn backend_head(&mut self, id: RequestId, status: u16, kind: &str, facts: Facts) {
        let Some(backed) = self.backed(id) else {
            return;
        };
        if !matches!(backed.answer, Answer::Awaited) {
            return;
        }
        backed.facts = Some(facts);
        let good = matches!(status, 200..=299);
        let events = kind.trim_ascii_start().starts_with(sse::CONTENT_TYPE);
        let mut head = Response::new(200);
        match backed.wanted {
            Wanted::Events | Wanted::Any if good && events => {
                let of_container = matches!(backed.kind, "byoc");
                backed.answer = Answer::Events(Box::new(Events::new(of_container)));
                head.headers = super::typed(sse::CONTENT_TYPE);
                tell_events(&mut head.headers);
            }
            Wanted::Any if good => {
                backed.answer = Answer::Passing;
                head.headers = untrusted(kind);
            }
            // A stream may have no end that anybody waits for.
            _ if good && events => {
                let refused = backend::not_one_of(backed.surface);
                self.out.event(Event::Gone(id));
                return self.backend_refuse(id, &refused);
            }
            _ => {
                backed.answer = Answer::Whole {
                    status,
                    content_type: kind.into(),
                    body: Vec::new(),
                };
                return;
            }
        }
        self.tell_backend(id, false, &mut head.headers);
        let pace = if events {
            Pace::of_events
        } else {
            Pace::of_relay
        };
        self.begin_relay(id, head, pace);
    }

    /// Takes bytes of a backend's answer.
    pub(super) fn backend_data(&mut self, id: RequestId, bytes: Bytes) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let Some(backed) = running.sent.backend.as_deref_mut() else {
            return;
        };
        match &mut backed.answer {
            Answer::Awaited => {}
            Answer::Passing => self.pass(id, bytes),
            Answer::Events(events) => match events.data(&bytes) {
                Ok(relayed) => {
                    self.pass(id, relayed.bytes);
                    if relayed.ended {
                        // The backend may have more to say, and nobody wants it.
                        self.out.event(Event::Gone(id));
                        self.end_relay(id);
                    }
                }
                Err(_) => {
                    self.out.event(Event::Gone(id));
                    self.abort_relay(id);
                }
            },
            Answer::Whole { status, body, .. } => {
                let good = matches!(status, 200..=299);
                let room = if good { MAX_ANSWER } else { MAX_ERROR } - body.len();
                if bytes.len() > room && good {
                    let text = format!("The backend's answer is larger than {MAX_ANSWER} bytes.");
                    let refused = Refused::new(Code::UpstreamInvalid, text);
                    self.out.event(Event::Gone(id));
                    return self.backend_refuse(id, &refused);
                }
                let taken = &bytes[..bytes.len().min(room)];
                if let Err(full) = self.intake.grow(&mut running.held, taken.len()) {
                    self.out.event(Event::Gone(id));
                    return self.backend_refuse(id, &arrive::too_many(full));
                }
                body.extend_from_slice(taken);
            }
        }
    }

    /// A backend's answer has come to its end.
    pub(super) fn backend_end(&mut self, id: RequestId) {
        let Some(backed) = self.backed(id) else {
            return;
        };
        match &mut backed.answer {
            Answer::Awaited => {}
            Answer::Passing => self.end_relay(id),
            Answer::Events(events) => {
                let Ok(rest) = events.end() else {
                    return self.abort_relay(id);
                };
                self.pass(id, rest);
                self.end_relay(id);
            }
            Answer::Whole {
                status,
                content_type,
                body,
            } => {
                let (status, kind) = (*status, core::mem::take(content_type));
                let body = core::mem::take(body).into();
                self.settle_backend(id, status, &kind, body);
            }
        }
    }

    /// A backend's whole answer is there.
    fn settle_backend(&mut self, id: RequestId, status: u16, kind: &str, body: Bytes) {
        if self.has_begun(id) {
            return self.abort_relay(id);
        }
        let Some(backed) = self.backed(id) else {
            return;
        };
        let (wanted, surface) = (backed.wanted, backed.surface);
        let good = matches!(status, 200..=299);
        let written = if good {
            backend::answer(wanted, surface, &body)
        } else {
            let error = body.slice(..body.len().min(MAX_ERROR));
            backend::refusal(status, &error)
        };
        let body = match written {
            Ok(body) => body,
            Err(refused) => return self.backend_refuse(id, &refused),
        };
        let mut response = Response::new(if good { 200 } else { status }).body(Body::Full(body));
        response.headers = match wanted {
            Wanted::Any if good => untrusted(kind),
            _ => super::typed("application/json"),
        };
        self.tell_backend(id, true, &mut response.headers);
        let outcome = Outcome::of(response.status);
        let error = (!good).then_some(Code::RunnerRefused.name());
        self.answer(id, response, outcome, error);
    }

    /// A backend's answer broke off.
    pub(super) fn backend_broke(&mut self, id: RequestId) {
        match self.backed(id).map(|backed| &backed.answer) {
            Some(Answer::Awaited | Answer::Whole { .. }) => {
                let refused = Refused::new(Code::UpstreamInvalid, BROKE_OFF);
                self.backend_refuse(id, &refused);
            }
            Some(_) => self.abort_relay(id),
            None => {}
        }
    }

    /// The last words of a stream of events that broke off; `None` for any other answer.
    pub(super) fn last_words(&mut self, id: RequestId) -> Option<Bytes> {
        match self.backed(id)?.answer {
            Answer::Events(_) => Some([b"\n", &broken_off().event()[..]].concat().into()),
            _ => None,
        }
    }

    /// Tells that nothing came of a container's job.
    pub(super) fn container_failed(&mut self, id: RequestId, failed: &Failed) {
        if let Failed::Caller { status, text } = failed {
            return self.settle_backend(id, *status, "", text.clone().into());
        }
        if let Failed::Broken { .. } = failed {
            return self.backend_broke(id);
        }
        if let Some(backed) = self.backed(id) {
            let refused = of_container(failed, &backed.name);
            self.backend_refuse(id, &refused);
        }
    }

    /// Tells that nothing came of an app's call.
    pub(super) fn backend_app_failed(&mut self, id: RequestId, failed: &AppFailed) {
        if let AppFailed::Broken { .. } = failed {
            return self.backend_broke(id);
        }
        if let Some(backed) = self.backed(id) {
            let refused = match failed {
                AppFailed::NoRunner { attempts } | AppFailed::Exhausted { attempts } => {
                    let each = attempts
                        .iter()
                        .map(|one| (one.url.origin(), one.why.cause.word()));
                    nobody(&backed.name, each)
                }
                failed => super::apps::refused(failed),
            };
            self.backend_refuse(id, &refused);
        }
    }

    /// Whether a backend's answer has begun: nothing but its rest may follow, and another answer is none of it
    /// (`a_stream_that_breaks_tells_its_client_and_a_silent_one_is_cut`).
    fn has_begun(&self, id: RequestId) -> bool {
        let running = self.running.get(&id);
        running.is_some_and(|running| matches!(running.state, State::Relaying(_)))
    }

    fn backend_refuse(&mut self, id: RequestId, refused: &Refused) {
        if self.has_begun(id) {
            return self.abort_relay(id);
        }
        let Some(running) = self.running.get(&id) else {
            return;
        };
        let mut response = reply::refusal(running.target.shape, refused);
        self.tell_backend(id, true, &mut response.headers);
        self.answer(id, response, Outcome::Refused, Some(refused.code.name()));
    }

    /// Adds header fields about who serves, and for how much; `whole` if all that there is to pay is known.
    fn tell_backend(&self, id: RequestId, whole: bool, headers: &mut Headers) {
        let Some(running) = self.running.get(&id) else {
            return;
        };
        let Some(backed) = &running.sent.backend else {
            return;
        };
        let Some(facts) = &backed.facts else {
            return;
        };
        let hired = Hired {
            name: &backed.name,
            kind: backed.kind,
            asked: backed.asked,
            facts,
            whole,
            now: self.now,
            began: running.began,
            received: running.received,
        };
        hired.write(&running.config, headers);
    }
}

/// Fields of an answer of any type. Whatever a peer calls it, no browser is to find out for itself.
fn untrusted(kind: &str) -> Headers {
    let mut headers = Headers::new();
    headers.push_any(
        "content-type",
        if kind.is_empty() {
            "application/octet-stream"
        } else {
            kind
        },
    );
    headers.push("x-content-type-options", "nosniff");
    headers
}
