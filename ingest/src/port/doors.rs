//! The requests of WHIP and WHEP, and their answers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
pub use livepeer_core::entry::Denied;
use livepeer_core::http::{Body, Method, Request, Response};
pub use livepeer_core::wire::entry::Door;
use livepeer_core::{EffectId, Time};

use super::{End, Event, MAX_WAITING, Output, Part, Pending, Port, Session, SessionId};
use crate::sdp::{self, Role};
use crate::whip::Whip;

/// At most this many bytes has the body of a PATCH.
pub const MAX_FRAGMENT: usize = 16 << 10;
/// At most this many PATCHes of a session are looked at in a second.
const MAX_PATCHES_A_SECOND: u32 = 5;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A request at a door.
#[derive(Debug)]
pub struct Call {
    /// Names the request in [`Output::Reply`].
    pub exchange: EffectId,
    /// The kind of door.
    pub door: Door,
    /// The name of the stream, from the path.
    pub stream: String,
    /// The name of the session, if the path goes on behind the door.
    pub session: Option<String>,
    /// The head.
    pub request: Request,
    /// The whole body, as far as the caller read it: one byte more than [`sdp::MAX_BYTES`] is as good as more.
    pub body: Bytes,
}

/// The answer to a sender that is not let in.
fn refusal(denied: &Denied) -> Response {
    match denied {
        Denied::Unauthorized => {
            plain(401, "a bearer token is required").header("www-authenticate", "Bearer")
        }
        Denied::Forbidden => plain(403, "Forbidden"),
        Denied::Taken => plain(409, "another sender uses this name"),
        Denied::Exists => plain(400, "stream already exists"),
        Denied::Unknown(name) => plain(404, &format!("stream not found: {name}")),
        Denied::NoVideo => plain(400, "the stream takes no video"),
        Denied::BadParams => plain(400, "Invalid model params"),
        Denied::Place(why) => plain(400, why),
        Denied::Full => plain(503, "no room for another stream").header("retry-after", "5"),
        Denied::Closing => {
            plain(503, "this instance is shutting down; try again").header("retry-after", "5")
        }
        Denied::Elsewhere(url) => {
            plain(307, "another instance takes this stream").header("location", url)
        }
        Denied::Failed => plain(503, "whether you may send could not be found out in time")
            .header("retry-after", "1"),
    }
}

/// An answer of one line.
pub(super) fn plain(status: u16, text: &str) -> Response {
    Response::new(status)
        .header("content-type", "text/plain; charset=utf-8")
        .header("cache-control", "no-store")
        .body(Body::Full(Bytes::from(format!("{text}\n"))))
}

fn not_allowed(allowed: &str) -> Response {
    plain(405, "method not allowed").header("allow", allowed)
}

/// Whether the body says that it is of a type, with any parameters and in any case.
fn is_of_type(request: &Request, wanted: &str) -> bool {
    let said = request.headers.get("content-type").unwrap_or_default();
    said.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(wanted)
}

fn bearer(request: &Request) -> Option<String> {
    let (scheme, token) = request.headers.get("authorization")?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

impl Port {
    /// Takes in a request. Its answer follows as [`Output::Reply`], of a sender after [`Port::admit`].
    pub fn call(&mut self, now: Time, call: &Call) {
        self.pass(now);
        let reply = match &call.session {
            Some(session) => Some(self.at_session(call, session)),
            None => self.at_door(call),
        };
        if let Some(reply) = reply {
            self.outputs.push_back(Output::Reply(call.exchange, reply));
        }
    }

    fn at_door(&mut self, call: &Call) -> Option<Response> {
        Some(match (call.request.method, call.door) {
            (Method::Post, _) => return self.offer(call).err(),
            (Method::Options, _) => Response::new(204).header("accept-post", SDP),
            (Method::Get, Door::Whip) => Response::new(204),
            (Method::Head, Door::Whep) => Response::new(200).header("content-type", SDP),
            (_, Door::Whip) => not_allowed("GET, OPTIONS, POST"),
            (_, Door::Whep) => not_allowed("HEAD, OPTIONS, POST"),
        })
    }

    /// `Err`: the answer, now. Otherwise it follows, or it has.
    fn offer(&mut self, call: &Call) -> Result<(), Response> {
        if !is_of_type(&call.request, SDP) {
            return Err(plain(415, "the body has to be application/sdp"));
        }
        let path = call.request.url.path();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let role = match call.door {
            Door::Whip => Role::Whip {
                drop_audio: query.split('&').any(|pair| pair == "audio=drop"),
            },
            Door::Whep => Role::Whep,
        };
        let offer = sdp::read(&call.body, role);
        let offer = offer.map_err(|fault| plain(fault.status(), &fault.to_string()))?;
        self.has_room(call)?;
        let (id, ours, peer, answer) = self.accept(&offer).map_err(|text| plain(500, &text))?;
        let pending = Pending {
            exchange: call.exchange,
            path: path.trim_end_matches('/').to_owned(),
            answer,
        };
        match call.door {
            Door::Whip => {
                let agent = call.request.headers.get("user-agent").unwrap_or_default();
                let whip = Whip::new(self.now, peer, self.config.patience, agent);
                let part = Part::Whip(Box::new(whip), Some(pending));
                self.begin(id, call, ours, offer.ufrag, part);
                self.outputs.push_back(Output::Event(Event::Asked {
                    session: id,
                    stream: call.stream.clone(),
                    bearer: bearer(&call.request),
                    query: query.to_owned(),
                    peer: call.request.peer,
                }));
            }
            Door::Whep => {
                let reply = self.created(id, &ours.ufrag, pending, None);
                let viewer = self.viewer(peer);
                self.begin(id, call, ours, offer.ufrag, Part::Viewer(Box::new(viewer)));
                if let Some(watched) = self.streams.get_mut(&call.stream) {
                    watched.viewers.insert(id);
                }
                self.outputs.push_back(reply);
                let watching = Event::Watching(id, call.stream.clone());
                self.outputs.push_back(Output::Event(watching));
            }
        }
        Ok(())
    }

    fn has_room(&self, call: &Call) -> Result<(), Response> {
        if call.door == Door::Whep {
            let watched = self.streams.get(&call.stream);
            let watched =
                watched.ok_or_else(|| plain(404, "no such stream").header("retry-after", "1"))?;
            if watched.viewers.len() >= self.config.max_viewers {
                let reply = plain(429, "Too many viewers for this stream");
                return Err(reply.header("retry-after", "5"));
            }
        }
        let waiting = self.waiting(&call.stream);
        if waiting.0 >= MAX_WAITING.0 || waiting.1 >= MAX_WAITING.1 {
            let reply = plain(429, "too many sessions wait for their peers");
            return Err(reply.header("retry-after", "10"));
        }
        if self.len() >= self.config.max_sessions {
            return Err(plain(503, "no room for another session").header("retry-after", "5"));
        }
        Ok(())
    }

    /// Lets a sender in, with the URL at which its output can be watched. Whoever sent under the name is replaced.
    /// Whether the sender still waited: then [`Event::Ended`] will be told of it, and of no other.
    pub fn admit(&mut self, now: Time, id: SessionId, playback: Option<&str>) -> bool {
        self.pass(now);
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        let Part::Whip(whip, pending) = &mut session.part else {
            return false;
        };
        let Some(pending) = pending.take() else {
            return false;
        };
        whip.admit(self.now);
        let (stream, ufrag) = (session.stream.clone(), session.ours.ufrag.clone());
        let reply = self.created(id, &ufrag, pending, playback);
        self.outputs.push_back(reply);
        let older = self.sessions.iter().find(|(other, session)| {
            let sends = matches!(session.part, Part::Whip(_, None));
            **other != id && session.stream == stream && sends
        });
        if let Some(older) = older.map(|(older, _)| *older) {
            self.end(older, End::TakenOver);
        }
        self.settle(id, Ok(()));
        true
    }

    /// Keeps a sender out.
    pub fn deny(&mut self, now: Time, id: SessionId, denied: &Denied) {
        self.pass(now);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Part::Whip(_, pending) = &mut session.part
            && let Some(pending) = pending.take()
        {
            self.outputs
                .push_back(Output::Reply(pending.exchange, refusal(denied)));
            self.forget(id);
        }
    }

    /// The caller of a request is gone before its answer.
    pub fn gone(&mut self, now: Time, exchange: EffectId) {
        self.pass(now);
        let waits = |session: &Session| match &session.part {
            Part::Whip(_, Some(pending)) => pending.exchange == exchange,
            _ => false,
        };
        let id = self
            .sessions
            .iter()
            .find(|(_, session)| waits(session))
            .map(|(id, _)| *id);
        if let Some(id) = id {
            self.forget(id);
        }
    }

    /// Drops a session that nobody was told of.
    fn forget(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.ufrags.remove(&session.ours.ufrag);
            if let Some(at) = session.wake {
                self.wakes.remove(&(at, id));
            }
        }
    }

    fn created(
        &self,
        id: SessionId,
        ufrag: &str,
        pending: Pending,
        playback: Option<&str>,
    ) -> Output {
        // A path without a host: behind a proxy we do not know by which name we were reached.
        let mut reply = Response::new(201)
            .header("content-type", SDP)
            .header("cache-control", "no-store")
            .header("location", format!("{}/{id}", pending.path))
            .header("etag", format!("\"{ufrag}\""))
            .header(
                "access-control-expose-headers",
                "Location, ETag, Link, Livepeer-Playback-URL",
            );
        for server in &self.config.ice_servers {
            reply
                .headers
                .push("link", format!("<{server}>; rel=\"ice-server\""));
        }
        if let Some(url) = playback {
            reply.headers.push("livepeer-playback-url", url);
        }
        let body = Body::Full(Bytes::from(pending.answer));
        Output::Reply(pending.exchange, reply.body(body))
    }

    fn at_session(&mut self, call: &Call, name: &str) -> Response {
        if call.request.method == Method::Options {
            return Response::new(204);
        }
        let id = SessionId::parse(name).filter(|id| {
            let session = self.sessions.get(id);
            session
                .is_some_and(|session| session.door == call.door && session.stream == call.stream)
        });
        let Some(id) = id else {
            // Guessing a name takes for ever at this rate.
            let host = call
                .request
                .peer
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            return if self.guesses.allow(self.now, host) {
                plain(404, "no such session")
            } else {
                let reply = plain(429, "too many requests for sessions that are not there");
                reply.header("retry-after", "1")
            };
        };
        match call.request.method {
            Method::Delete => {
                self.end(id, End::Disconnected);
                Response::new(200)
            }
            Method::Patch => self.patch(call, id),
            _ => not_allowed("DELETE, OPTIONS, PATCH"),
        }
    }

    /// Candidates of the peer, which we do not need: it reaches us. A restart of ICE is refused, and the session goes on.
    fn patch(&mut self, call: &Call, id: SessionId) -> Response {
        let now = self.now;
        let session = self.sessions.get_mut(&id);
        let Some(session) = session.filter(|session| !matches!(session.part, Part::Over)) else {
            return plain(404, "the session is over");
        };
        let (since, count) = &mut session.patches;
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > MAX_PATCHES_A_SECOND {
            return plain(429, "too many changes").header("retry-after", "1");
        }
        if call.body.len() > MAX_FRAGMENT {
            return plain(413, "the fragment has more than 16 KiB");
        }
        if !is_of_type(&call.request, FRAGMENT) {
            return plain(415, "the body has to be application/trickle-ice-sdpfrag");
        }
        let fragment = String::from_utf8_lossy(&call.body);
        let ufrag = fragment
            .lines()
            .find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        if ufrag.is_some_and(|ufrag| ufrag.trim() != session.theirs) {
            return plain(422, "ICE cannot be restarted; the session goes on as it is");
        }
        let ours = format!("\"{}\"", session.ours.ufrag);
        match call.request.headers.get("if-match").map(str::trim) {
            None => plain(428, "If-Match is required"),
            Some(tag) if tag == "*" || tag == "\"*\"" || tag == ours => Response::new(204),
            Some(_) => plain(412, "If-Match names another state of the session"),
        }
    }
}
