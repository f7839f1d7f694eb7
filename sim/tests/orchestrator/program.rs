//! A program behind a container or a runner: it remembers what it is asked, and answers as the path says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use livepeer_core::http::{Body, Headers, In, Out, Request, Response, SWITCHING};
use livepeer_core::{EffectId, Input, Machine, Outbox, Output, Time};
use livepeer_sim::Node;

use crate::stage::Stage;

/// Where the program is.
pub(crate) const PROGRAM: &str = "10.0.0.2:8080";

#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) seen: Vec<Seen>,
    open: BTreeMap<EffectId, Seen>,
    /// Requests that left HTTP: whatever comes goes back in capitals.
    sockets: BTreeSet<EffectId>,
    /// Whether it goes on when its peer has ended.
    pub(crate) stubborn: bool,
    out: Outbox<()>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: EffectId,
    pub(crate) request: Request,
    pub(crate) body: Vec<u8>,
    /// Whether whoever asked is still there.
    pub(crate) gone: bool,
}

impl Program {
    /// Serves it where it is expected.
    pub(crate) fn serve(stage: &mut Stage) -> Node<Self> {
        stage.net.serve(PROGRAM, Self::default())
    }

    /// The request that came last.
    pub(crate) fn last(&self) -> &Seen {
        self.seen.last().expect("a request")
    }

    /// Sends a part of an answer that was begun with the path `/open`, or of what goes on beyond HTTP.
    pub(crate) fn say(&mut self, id: EffectId, text: &str) {
        self.out
            .http(id, Out::Data(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// Ends such an answer.
    pub(crate) fn end(&mut self, id: EffectId) {
        self.out.http(id, Out::End(Headers::new()));
    }

    fn answer(&mut self, seen: Seen) {
        let path = seen.request.url.path().to_owned();
        let id = seen.id;
        let seen_upgrade = seen.request.upgrade().map(str::to_owned);
        self.seen.push(seen);
        let head = |status| Response::new(status).header("content-type", "text/plain");
        if let Some(protocol) = seen_upgrade {
            let reply = Response::new(SWITCHING).header("upgrade", protocol);
            self.sockets.insert(id);
            return self.out.http(id, Out::Reply(reply.body(Body::Stream)));
        }
        if path.ends_with("/silent") || path.ends_with("/slow") {
            return;
        }
        if path.ends_with("/open") {
            let events =
                Response::new(200).header("content-type", "text/event-stream; charset=utf-8");
            return self.out.http(id, Out::Reply(events.body(Body::Stream)));
        }
        let status = path
            .rsplit_once("/status/")
            .and_then(|(_, status)| status.parse().ok());
        let body = Body::Full(Bytes::from_static(b"the app's words"));
        let metadata = head(status.unwrap_or(200)).header("x-metadata", "{}");
        self.out
            .http(id, Out::Reply(metadata.header("x-other", "1").body(body)));
    }
}

impl Machine for Program {
    type Event = ();

    fn handle_input(&mut self, _: Time, input: Input) {
        let Input::Http(id, step) = input else { return };
        match step {
            In::Request(request) => {
                let (body, gone) = (Vec::new(), false);
                self.open.insert(
                    id,
                    Seen {
                        id,
                        request,
                        body,
                        gone,
                    },
                );
            }
            In::Data(bytes) if self.sockets.contains(&id) => {
                self.out
                    .http(id, Out::Data(bytes.to_ascii_uppercase().into()));
            }
            In::End(_) if self.sockets.contains(&id) && !self.stubborn => {
                self.out.http(id, Out::End(Headers::new()));
            }
            In::Data(bytes) => {
                if let Some(seen) = self.open.get_mut(&id) {
                    seen.body.extend_from_slice(&bytes);
                }
            }
            In::End(_) => {
                if let Some(seen) = self.open.remove(&id) {
                    self.answer(seen);
                }
            }
            In::Failed(_) => {
                self.open.remove(&id);
                for seen in self.seen.iter_mut().filter(|seen| seen.id == id) {
                    seen.gone = true;
                }
            }
            In::Reply(_) | In::Sent(_) => {}
        }
    }

    fn poll_output(&mut self) -> Output<()> {
        self.out.pop().unwrap_or(Output::Idle(None))
    }
}
