//! Requests about live streams: read here, and answered by the shell, which knows the streams (jobs spec 3.1).

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use core::net::IpAddr;

use bytes::Bytes;

use super::route::{LIST, Live, Route, SEGMENT};
use super::types::{Call, Event, Hls, LIVE_WITHIN, Outcome, RequestId, Session};
use super::{Front, State, reply};
use crate::http::{Method, Reach, Request, Response};
use crate::time::Time;
use crate::wire::byoc::{BadJob, JOB_HEADER, JobRequest};
use crate::wire::entry::{
    Door, JobQuery, OutputName, Refusal, SmokeTest, StartHook, StreamName, read_change, read_update,
};

impl Front {
    /// Answers a request that [`Event::Live`], [`Event::Order`] or [`Event::App`] told of. The body of the answer is empty
    /// or whole. Unknown requests are ignored.
    pub fn respond(&mut self, now: Time, id: RequestId, response: Response) {
        self.advance(now);
        let running = self.running.get(&id);
        if running.is_some_and(|running| matches!(running.state, State::Calling(_))) {
            let outcome = Outcome::of(response.status);
            self.answer(id, response, outcome, None);
        }
    }

    /// Has the shell answer a request, if it makes sense.
    pub(super) fn call(&mut self, id: RequestId, body: Bytes) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let (Route::Live(live), Some(head)) = (running.target.route, running.sent.head.take())
        else {
            return;
        };
        if head.method == Method::Options && !live.is_at_a_door() {
            return self.answer(id, Response::new(204), Outcome::Answered, None);
        }
        if live == Live::Order {
            return self.order_stream(id, &head, &body);
        }
        let caller = reply::caller(&head, &self.config);
        match read(live, &running.target.parts, *head, body, caller) {
            Ok(Some(call)) => {
                running.state = State::Calling(running.received + LIVE_WITHIN);
                self.out.event(Event::Live(id, Box::new(call)));
                self.arm(id);
            }
            Ok(None) => self.answer(id, Response::new(200), Outcome::Answered, None),
            Err(refusal) => self.answer(id, reply::line(&refusal), Outcome::Refused, None),
        }
    }
}

/// Reads a request, which comes from `caller` as far as is known; `None` for one that is answered with 200 and changes
/// nothing.
fn read(
    live: Live,
    parts: &[String],
    mut request: Request,
    body: Bytes,
    caller: Option<IpAddr>,
) -> Result<Option<Call>, Refusal> {
    let stream = parts.first().cloned().unwrap_or_default();
    let named = Reach::of_caller(caller);
    Ok(Some(match live {
        Live::Start => {
            let kind = request.headers.get("content-type").unwrap_or_default();
            let hook = StartHook::read(&parts.join("/"), kind, &body, request.peer)?;
            return Ok(hook.map(|hook| Call::Start(Box::new(StartHook { named, ..hook }))));
        }
        Live::Update => Call::Update {
            stream,
            params: read_update(&body)?,
        },
        Live::Change => {
            // The order has said what is to be done; a caller that says it again says it right.
            if let Some(header) = request.headers.get(JOB_HEADER) {
                let bad = |bad: BadJob| Refusal {
                    status: 400,
                    text: bad.to_string().into(),
                };
                JobRequest::from_header(header).map_err(bad)?;
            }
            Call::Update {
                stream,
                params: read_change(&body)?,
            }
        }
        Live::Source => {
            let kind = request.headers.get("content-type").unwrap_or_default();
            let hook = StartHook::read(&stream, kind, &body, request.peer)?;
            return Ok(hook.map(|hook| Call::Source(Box::new(StartHook { named, ..hook }))));
        }
        Live::Status => Call::Status { stream },
        Live::Data => Call::Data { stream },
        // It is read elsewhere.
        Live::Order => return Ok(None),
        Live::Stop => Call::Stop {
            stream,
            words: body,
        },
        Live::SmokeTest => Call::SmokeTest(SmokeTest::read(&body, named)?),
        Live::Hls => {
            let (output, part) = hls(parts).ok_or(Refusal::NO_MEDIA)?;
            Call::Hls(output, part)
        }
        Live::Door(door) | Live::Session(door) => {
            request.peer = caller;
            let session = Box::new(Session {
                name: parts.get(1).cloned(),
                request,
                body,
            });
            match door {
                Door::Whip => Call::Whip(sender(&stream, &session)?, session),
                Door::Whep => {
                    let output = OutputName::parse(&stream).ok_or(Refusal::MALFORMED_OUTPUT)?;
                    Call::Whep(output, session)
                }
            }
        }
    }))
}

/// The output that a player of HLS means, and which part of it.
fn hls(parts: &[String]) -> Option<(OutputName, Hls)> {
    let (output, part) = match parts {
        [list] => (list.strip_suffix(LIST)?, Hls::Master),
        [output, list] => (&**output, Hls::List(list.strip_suffix(LIST)?.into())),
        [output, rendition, segment] => {
            let number = segment.strip_suffix(SEGMENT)?.parse().ok()?;
            (&**output, Hls::Segment(rendition.clone(), number))
        }
        _ => return None,
    };
    Some((OutputName::parse(output)?, part))
}

/// The name of a sender's stream. The parameters of its job are looked at before an offer is.
fn sender(stream: &str, session: &Session) -> Result<StreamName, Refusal> {
    if session.name.is_none() && session.request.method == Method::Post {
        let path = session.request.url.path();
        let (_, query) = path.split_once('?').unwrap_or((path, ""));
        JobQuery::read(query)?;
    }
    StreamName::parse(stream).map_err(Refusal::from)
}
