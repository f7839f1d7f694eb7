//! A client without a protocol: sends what it is told and keeps what comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Request};
use livepeer_core::{Effect, EffectId, Input, Machine, Outbox, Output, Time};

/// The answer to one request so far.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status, once the head is there.
    pub status: Option<u16>,
    /// The head's fields.
    pub headers: Headers,
    /// The body so far.
    pub body: Vec<u8>,
    /// The trailers, once the body is complete.
    pub end: Option<Headers>,
    /// The reason why the exchange broke, if it did.
    pub fault: Option<Fault>,
    /// Bytes of ours that the transport took.
    pub sent: usize,
}

impl Answer {
    /// Whether nothing more comes.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.end.is_some() || self.fault.is_some()
    }

    /// The body as text, without the line feed at its end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }
}

/// See the [module](self). Its one event says which exchange something came for.
#[derive(Debug, Default)]
pub struct Caller {
    answers: BTreeMap<EffectId, Answer>,
    out: Outbox<EffectId>,
}

impl Caller {
    /// Sends a request.
    pub fn send(&mut self, request: Request) -> EffectId {
        let id = self.out.request(request);
        self.answers.insert(id, Answer::default());
        id
    }

    /// Sends body bytes of a request with [`Body::Stream`].
    pub fn write(&mut self, id: EffectId, data: impl Into<Bytes>) {
        self.out.http(id, Out::Data(data.into()));
    }

    /// Ends such a body.
    pub fn end(&mut self, id: EffectId) {
        self.out.http(id, Out::End(Headers::new()));
    }

    /// Any other step, such as [`Out::Abort`].
    pub fn step(&mut self, id: EffectId, step: Out) {
        self.out.forward(id, Effect::Http(step));
    }

    /// The answer to a request so far.
    ///
    /// # Panics
    /// If the id is not of this caller.
    #[must_use]
    pub fn answer(&self, id: EffectId) -> &Answer {
        &self.answers[&id]
    }
}

impl Machine for Caller {
    type Event = EffectId;

    fn handle_input(&mut self, _: Time, input: Input) {
        let Input::Http(id, step) = input else {
            return;
        };
        let Some(answer) = self.answers.get_mut(&id) else {
            return;
        };
        match step {
            In::Reply(head) => {
                answer.status = Some(head.status);
                answer.headers = head.headers;
            }
            In::Data(bytes) => answer.body.extend_from_slice(&bytes),
            In::Sent(count) => answer.sent += count,
            In::End(trailers) => answer.end = Some(trailers),
            In::Failed(fault) => answer.fault = Some(fault),
            In::Request(_) => {}
        }
        self.out.event(id);
    }

    fn poll_output(&mut self) -> Output<EffectId> {
        self.out.pop().unwrap_or(Output::Idle(None))
    }
}

/// The input that a client gets from a server's steps.
///
/// # Panics
/// At a step that no answer has.
#[must_use]
pub fn heard(answer: impl IntoIterator<Item = Out>) -> Vec<In> {
    let mut heard = Vec::new();
    for step in answer {
        match step {
            Out::Reply(head) => {
                let is_all = matches!(head.body, Body::Empty);
                heard.push(In::Reply(head));
                if is_all {
                    heard.push(In::End(Headers::new()));
                }
            }
            Out::Data(data) => heard.push(In::Data(data)),
            Out::End(trailers) => heard.push(In::End(trailers)),
            other => unreachable!("no answer has {other:?}"),
        }
    }
    heard
}
