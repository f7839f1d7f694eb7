//! The WebRTC engine in the part of a browser, and the frames that it sends.

use std::pin::Pin;
use std::task::Context;
use std::time::Instant;

use bytes::Bytes;
use livepeer_core::http::Response;
use livepeer_ingest::port::Call;
use livepeer_media::frame::AudioTrack;
use livepeer_media::h264;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol as Transport, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::*;

/// A frame of a recording.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) video: bool,
    key: bool,
    /// Ticks of 90 kHz, or samples of 48 kHz.
    stamp: u64,
    data: Bytes,
}

impl Frame {
    /// The frame as a picture or as sound.
    pub(super) fn unit(&self) -> Result<AccessUnit, Audio> {
        let stamp = i64::try_from(self.stamp).expect("it is short");
        if !self.video {
            return Err(Audio {
                pts: Ticks(stamp * 15 / 8),
                track: AudioTrack::Opus { channels: 2 },
                data: self.data.clone(),
            });
        }
        Ok(AccessUnit {
            pts: Ticks(stamp),
            dts: Ticks(stamp),
            key: self.key,
            data: self.data.clone(),
        })
    }

    /// Its time since the first of its track.
    fn since(&self, first: u64) -> Duration {
        let rate = if self.video { 90_000 } else { 48_000 };
        Duration::from_nanos((self.stamp - first) * 1_000_000_000 / rate)
    }
}

/// The frames of Chromium's camera, in the order of their time.
pub(super) fn clip() -> Vec<Frame> {
    let mut rest: &[u8] = include_bytes!("../../../../media/tests/vectors/au/chromium.au");
    let mut stream = h264::Stream::default();
    let mut frames = Vec::new();
    while let [kind, _, after @ ..] = rest {
        let (stamp, after) = after.split_first_chunk().expect("a stamp");
        let (length, after) = after.split_first_chunk().expect("a length");
        let (data, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        rest = after;
        let (video, stamp) = (*kind == b'v', u64::from_be_bytes(*stamp));
        let (key, data) = if video {
            let picture = stream.annex_b(data).expect("it is sound");
            let picture = picture.expect("it is whole");
            (picture.key, picture.data)
        } else {
            (false, Bytes::copy_from_slice(data))
        };
        frames.push(Frame {
            video,
            key,
            stamp,
            data,
        });
    }
    let first = firsts(&frames);
    frames.sort_by_key(|frame| frame.since(first[usize::from(frame.video)]));
    frames
}

/// The first stamps of sound and video.
fn firsts(frames: &[Frame]) -> [u64; 2] {
    [false, true].map(|video| {
        let of_track = frames.iter().filter(|frame| frame.video == video);
        of_track.map(|frame| frame.stamp).min().unwrap_or(0)
    })
}

/// A browser with a socket of its own, which lives while one of its functions is awaited.
pub(super) struct Browser<R: Runtime> {
    runtime: R,
    udp: R::Udp,
    at: SocketAddr,
    door: Door,
    rtc: Rtc,
    mids: [Mid; 2],
    pending: Option<(String, SdpPendingOffer)>,
    session: String,
    connected: bool,
    closed: bool,
    got: [usize; 2],
    alarm: Option<Pin<Box<R::Sleep>>>,
}

impl<R: Runtime> Browser<R> {
    pub(super) fn new(runtime: &R, door: Door) -> Self {
        let socket = bind_udp(LOOPBACK).expect("a free port");
        let at = socket.local_addr().expect("it has an address");
        let mut rtc = Rtc::builder().build(Instant::now());
        rtc.add_local_candidate(Candidate::host(at, "udp").expect("an address"));
        let direction = match door {
            Door::Whip => Direction::SendOnly,
            Door::Whep => Direction::RecvOnly,
        };
        let mut api = rtc.sdp_api();
        let mids = [MediaKind::Audio, MediaKind::Video]
            .map(|kind| api.add_media(kind, direction, None, None, None));
        let (offer, pending) = api.apply().expect("there is something to offer");
        Self {
            runtime: runtime.clone(),
            udp: runtime.take_udp(socket).expect("it can be watched"),
            at,
            door,
            rtc,
            mids,
            pending: Some((offer.to_sdp_string(), pending)),
            session: String::new(),
            connected: false,
            closed: false,
            got: [0; 2],
            alarm: None,
        }
    }

    pub(super) const fn pictures(&self) -> usize {
        self.got[1]
    }

    pub(super) const fn sounds(&self) -> usize {
        self.got[0]
    }

    fn call(&self, method: Method, name: &str, session: Option<String>) -> Call {
        let door = match self.door {
            Door::Whip => "whip",
            Door::Whep => "whep",
        };
        let url = format!("http://gateway.example/live/video-to-video/{name}/{door}");
        let url = Url::parse(&url).expect("a URL");
        Call {
            exchange: EffectId::by_peer(0),
            door: self.door,
            stream: name.to_owned(),
            session,
            request: Request::new(method, url).header("content-type", "application/sdp"),
            body: Bytes::new(),
        }
    }

    /// Makes the offer, and waits until the connection stands.
    pub(super) async fn join(&mut self, webrtc: &Webrtc<R>, name: &str) {
        let (offer, pending) = self.pending.take().expect("it joins once");
        let call = Call {
            body: offer.into(),
            ..self.call(Method::Post, name, None)
        };
        let response = webrtc.call(call).await;
        assert_eq!(response.status, 201, "{response:?}");
        let location = response.headers.get("location").expect("a session");
        location.clone_into(&mut self.session);
        let answer = SdpAnswer::from_sdp_string(&text(&response)).expect("it is SDP");
        let api = self.rtc.sdp_api();
        api.accept_answer(pending, answer).expect("it fits");
        self.until(|browser| browser.connected).await;
    }

    /// Sends frames at the pace of their stamps.
    pub(super) async fn play(&mut self, frames: &[Frame]) {
        let first = firsts(frames);
        let began = self.runtime.now();
        for frame in frames {
            let kind = usize::from(frame.video);
            let due = began + frame.since(first[kind]);
            let runtime = self.runtime.clone();
            self.during(async {
                while runtime.now() < due {
                    runtime.sleep_until(due).await;
                }
            })
            .await;
            let frequency = [Frequency::FORTY_EIGHT_KHZ, Frequency::NINETY_KHZ][kind];
            let writer = self.rtc.writer(self.mids[kind]).expect("it sends");
            let payload = writer.payload_params().next().expect("a codec").pt();
            let time = MediaTime::new(frame.stamp, frequency);
            let written = writer.write(payload, Instant::now(), time, frame.data.to_vec());
            written.expect("it is connected");
        }
    }

    /// Ends the session with a request.
    pub(super) async fn leave(&mut self, webrtc: &Webrtc<R>) {
        let (path, session) = self.session.rsplit_once('/').expect("a path");
        let name = path.split('/').nth_back(1).expect("a name").to_owned();
        let session = Some(session.to_owned());
        let reply = webrtc.call(self.call(Method::Delete, &name, session)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.watch().await;
    }

    /// Waits until the other side has said goodbye.
    pub(super) async fn watch(&mut self) {
        self.until(|browser| browser.closed).await;
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        std::future::poll_fn(|cx| match (done(self), self.poll(cx)) {
            (false, ()) if !done(self) => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Lives until `future` is over.
    pub(super) async fn during(&mut self, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            self.poll(cx);
            future.as_mut().poll(cx)
        })
        .await;
    }

    /// Does everything that is to be done now.
    fn poll(&mut self, cx: &mut Context<'_>) {
        let mut into = [0; 2_048];
        loop {
            let wake = self.drain();
            match self.runtime.poll_receive(&self.udp, cx, &mut into) {
                Poll::Ready(Ok((length, from))) => {
                    let data = &into[..length];
                    if let Ok(received) = Receive::new(Transport::Udp, from, self.at, data) {
                        let input = Input::Receive(Instant::now(), received);
                        self.rtc.handle_input(input).expect("it is sound");
                    }
                    continue;
                }
                Poll::Ready(Err(_)) => continue,
                Poll::Pending => {}
            }
            let Some(wake) = wake else { return };
            let now = Instant::now();
            if wake <= now {
                let input = Input::Timeout(now);
                self.rtc.handle_input(input).expect("time may pass");
                continue;
            }
            let mut alarm: Pin<Box<R::Sleep>> =
                Box::pin(self.runtime.sleep_until(self.runtime.now() + (wake - now)));
            if alarm.as_mut().poll(cx).is_pending() {
                // Dropping an alarm loses its ring.
                self.alarm = Some(alarm);
                return;
            }
        }
    }

    /// Sends and notes what the engine has to say. Returns when it wants to be called.
    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.rtc.poll_output().expect("the engine works") {
                Output::Timeout(at) => return self.rtc.is_alive().then_some(at),
                Output::Transmit(transmit) => {
                    // UDP may lose it anywhere.
                    let to = transmit.destination;
                    let _ = self.runtime.try_send(&self.udp, &transmit.contents, to);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::MediaData(media)) => {
                    self.got[usize::from(media.mid == self.mids[1])] += 1;
                }
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(_) => {}
            }
        }
    }
}

fn text(response: &Response) -> String {
    match &response.body {
        Body::Full(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        body => panic!("not a whole body: {body:?}"),
    }
}
