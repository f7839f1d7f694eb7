//! The ways in: what senders by WHIP and RTMP ask and how they leave, and what live entry says to them.

use std::net::IpAddr;
use std::sync::Arc;

use futures_lite::future;

use livepeer_core::entry::{Denied, Left, Publish, SenderId, StreamId, Way, Why};
use livepeer_core::http::{Body, Reach, Response};
use livepeer_core::wire::entry::{Place as Named, Publication};
use livepeer_runtime::Runtime;
use livepeer_runtime::ingest::machines::port::{End, Event as OfPort, SessionId};
use livepeer_runtime::ingest::machines::rtmp::push::Target;
use livepeer_runtime::ingest::machines::rtmp::{Ending, Event as OfRtmp, pull};
use livepeer_runtime::ingest::{Pull, Rtmp, Sent, Taker, Webrtc};
use tracing::{debug, warn};

use super::{Live, Place, denied_words, line, lock, said};

impl<R: Runtime> Live<R> {
    /// Lets a sender in: its pictures go to the stream.
    pub(super) fn admit(&self, sender: SenderId, stream: StreamId, playback: &str) {
        let (place, show) = {
            let mut state = lock(&self.state);
            let place = state.senders.get(&sender).copied();
            if place.is_some() {
                state.admitted.insert(sender, stream);
            }
            (
                place,
                state.streams.get(&stream).map(|one| one.show.clone()),
            )
        };
        let (Some(place), Some(show)) = (place, show) else {
            return;
        };
        match place {
            // Its request is answered once the first search is over.
            Place::Hook(_) | Place::Pulled(_) => {}
            Place::Order(request) => {
                let mut state = lock(&self.state);
                state.forget(sender);
                let order = state.ordered.remove(&request);
                drop(state);
                if let Some(order) = order {
                    let mut urls = order.urls;
                    if let Some(rtmp) = self.ways.rtmp.as_ref().filter(|_| order.video_in) {
                        let (host, port) = (&order.host, rtmp.local_addr().port());
                        urls.rtmp_url = format!("rtmp://{host}:{port}/live/{}", order.name);
                    }
                    if self.ways.webrtc.is_none() {
                        urls.whip_url.clear();
                    } else if order.video_out {
                        urls.whep_url = playback.to_owned();
                    }
                    let answer = Response::new(200).header("content-type", "application/json");
                    self.respond(request, answer.body(Body::Full(urls.to_json())));
                }
            }
            Place::Whip(session) => {
                if let Some(webrtc) = &self.ways.webrtc {
                    let taker = unending(show.whip(webrtc, session));
                    if !webrtc.admit(session, Some(playback), taker) {
                        self.left(place, Left::Ended);
                    }
                }
            }
            Place::Rtmp(connection) => {
                if let Some(rtmp) = &self.ways.rtmp {
                    rtmp.admit(connection, unending(show.rtmp()));
                }
            }
        }
    }

    pub(super) fn refuse(&self, sender: SenderId, denied: &Denied) {
        let place = lock(&self.state).forget(sender);
        match place {
            Some(Place::Hook(request)) => {
                self.respond(request, line(denied.status(), &denied_words(denied)));
            }
            Some(Place::Order(request)) => {
                let order = lock(&self.state).ordered.remove(&request);
                let answer = match (denied, order) {
                    (Denied::Exists, Some(order)) => {
                        line(400, &format!("stream already exists: {}", order.name))
                    }
                    _ => line(denied.status(), &denied_words(denied)),
                };
                self.respond(request, answer);
            }
            Some(Place::Whip(session)) => {
                if let Some(webrtc) = &self.ways.webrtc {
                    webrtc.deny(session, denied);
                }
            }
            Some(Place::Rtmp(connection)) => {
                if let Some(rtmp) = &self.ways.rtmp {
                    rtmp.refuse(connection, &denied_words(denied));
                }
            }
            Some(Place::Pulled(_)) | None => {}
        }
    }

    /// Tells how the media of a sender arrive. Only those of WHIP are measured, as in the reference.
    pub(super) fn measure(&self, stream: StreamId, sender: SenderId) {
        let (place, show) = {
            let state = lock(&self.state);
            let show = state.streams.get(&stream).map(|one| one.show.clone());
            (state.senders.get(&sender).copied(), show)
        };
        if let (Some(Place::Whip(session)), Some(show), Some(webrtc)) =
            (place, show, &self.ways.webrtc)
            && let Some(metrics) = show.metrics(webrtc, session)
        {
            self.entry
                .with(|entry, now| entry.metrics(now, stream, metrics));
        }
    }

    /// Closes a sender's connection. One of RTMP is closed with its stream, or by whoever takes that over.
    pub(super) fn kick(&self, sender: SenderId, why: &Why) {
        let place = lock(&self.state).forget(sender);
        match (place, &self.ways.webrtc) {
            (Some(Place::Whip(session)), Some(webrtc)) => {
                webrtc.with(|port, now| port.kick(now, session, &said(why)));
            }
            (Some(Place::Pulled(stream)), _) => {
                if let Some(stream) = lock(&self.state).streams.get_mut(&stream) {
                    stream.pulling = None;
                }
            }
            _ => {}
        }
    }

    /// A sender left by itself.
    fn left(&self, place: Place, how: Left) {
        let sender = {
            let mut state = lock(&self.state);
            let found = state.senders.iter().find(|(_, one)| **one == place);
            let sender = found.map(|(sender, _)| *sender);
            if let Some(sender) = sender {
                state.forget(sender);
            }
            sender
        };
        if let Some(sender) = sender {
            self.entry.with(|entry, now| entry.left(now, sender, how));
        }
    }

    // ---- media servers -----------------------------------------------------------------------------------------

    /// Fetches a stream at the media server that announced it, until it is over or somebody sends it.
    pub(super) fn pull(self: &Arc<Self>, id: StreamId, from: &Named) {
        let (pulling, until) = async_channel::bounded::<()>(1);
        let show = {
            let mut state = lock(&self.state);
            let Some(stream) = state.streams.get_mut(&id) else {
                return;
            };
            stream.pulling = Some(pulling);
            stream.show.clone()
        };
        let target = match Target::named(from) {
            Ok(target) => target,
            Err(why) => return warn!(%why, "a stream cannot be fetched"),
        };
        let pull = Pull::open(self.entry.driver(), target, unending(show.rtmp()));
        let live = Arc::clone(self);
        self.runtime().spawn(async move {
            let place = Place::Pulled(id);
            let hearing = async {
                while let Some(event) = pull.next().await {
                    if event == pull::Event::Playing && !live.is_pulled(id, place) {
                        return;
                    }
                }
                live.left(place, Left::Ended);
            };
            let stopped = async {
                let _ = until.recv().await;
            };
            future::or(hearing, stopped).await;
        });
    }

    /// Whether the media of an announced stream, which come now, are wanted.
    fn is_pulled(&self, id: StreamId, place: Place) -> bool {
        let mut state = lock(&self.state);
        if state.senders.values().any(|one| *one == place) {
            return true;
        }
        let sender = self.entry.with(|entry, now| entry.pulled(now, id));
        state.senders.extend(sender.map(|sender| (sender, place)));
        sender.is_some()
    }

    // ---- WHIP ------------------------------------------------------------------------------------------------

    pub(super) async fn hear_webrtc(self: Arc<Self>, webrtc: Webrtc<R>) {
        while let Some(event) = webrtc.next().await {
            match event {
                OfPort::Asked {
                    session,
                    stream,
                    bearer,
                    query,
                    peer,
                } => self.asked(&webrtc, session, &stream, (bearer, peer), &query),
                OfPort::Ended(session, end) => {
                    debug!(%end, "a sender by WHIP left");
                    let how = match end {
                        End::Gone => Left::Lost,
                        End::NoVideo | End::NoKeyFrame | End::BadVideo(_) => Left::NoVideo,
                        _ => Left::Ended,
                    };
                    self.left(Place::Whip(session), how);
                }
                _ => {}
            }
        }
    }

    fn asked(
        &self,
        webrtc: &Webrtc<R>,
        session: SessionId,
        stream: &str,
        (bearer, peer): (Option<String>, Option<IpAddr>),
        query: &str,
    ) {
        // The front door has read the name and the query already.
        let Ok(asked) = Publication::of_path(stream, query) else {
            return webrtc.deny(session, &Denied::BadParams);
        };
        let publish = Publish {
            way: Way::Whip,
            name: asked.name,
            key: bearer.or(asked.key),
            query: asked.query,
            named: Reach::of_caller(peer),
        };
        self.publish(publish, Place::Whip(session));
    }

    // ---- RTMP ------------------------------------------------------------------------------------------------

    pub(super) async fn hear_rtmp(self: Arc<Self>, rtmp: Rtmp<R>) {
        while let Some(event) = rtmp.next().await {
            match event {
                OfRtmp::Asks {
                    connection,
                    address,
                    publication,
                } => {
                    let publish = Publish {
                        way: Way::Rtmp,
                        name: publication.name,
                        key: publication.key,
                        query: publication.query,
                        named: Reach::of_caller(Some(address)),
                    };
                    self.publish(publish, Place::Rtmp(connection));
                }
                other => self.published(&rtmp, other),
            }
        }
    }

    fn published(&self, rtmp: &Rtmp<R>, event: OfRtmp) {
        match event {
            OfRtmp::Opened {
                stream, connection, ..
            }
            | OfRtmp::Resumed(stream, connection) => {
                let mut state = lock(&self.state);
                let found = state
                    .senders
                    .iter()
                    .find(|(_, one)| **one == Place::Rtmp(connection));
                let found = found.map(|(sender, _)| *sender);
                let of = found.and_then(|sender| Some((sender, *state.admitted.get(&sender)?)));
                match of {
                    Some(of) => drop(state.published.insert(stream, of)),
                    // Its stream was over before it began.
                    None => {
                        drop(state);
                        rtmp.stop(stream, "the stream is over");
                    }
                }
            }
            OfRtmp::Ended(stream, ending) => {
                let place = {
                    let mut state = lock(&self.state);
                    let published = state.published.remove(&stream);
                    published.and_then(|(sender, _)| state.senders.get(&sender).copied())
                };
                // The listener has waited already for one that was lost.
                let how = match ending {
                    Ending::CodecChanged => Left::NoVideo,
                    _ => Left::Ended,
                };
                if let Some(place) = place {
                    self.left(place, how);
                }
            }
            OfRtmp::Closed(connection, why) => {
                debug!(%why, "a connection of RTMP closed");
                let place = Place::Rtmp(connection);
                let begun = {
                    let state = lock(&self.state);
                    let mut begun = state.published.values();
                    begun.any(|(sender, _)| state.senders.get(sender) == Some(&place))
                };
                // A stream that has begun outlives its connection.
                if !begun {
                    self.left(place, Left::Ended);
                }
            }
            _ => {}
        }
    }
}

/// Takes a sender's stream, but for its end: whether the stream ends with it is for live entry to say.
fn unending(taker: Arc<dyn Taker>) -> Arc<dyn Taker> {
    Arc::new(move |sent: Sent| {
        if !matches!(sent, Sent::Ended) {
            taker.take(sent);
        }
    })
}
