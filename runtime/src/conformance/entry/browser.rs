//! A browser with a socket of its own, and the frames that it sends.

use std::pin::Pin;
use std::task::Context;

use bytes::Bytes;
use livepeer_ingest::browser::{Peer, call, clock};
use livepeer_ingest::port::Call;
use livepeer_media::frame::AudioTrack;
use livepeer_media::h264;

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
    door: Door,
    peer: Peer,
    session: String,
    /// Frames of sound and pictures that it got.
    got: [usize; 2],
    alarm: Option<Pin<Box<R::Sleep>>>,
}

impl<R: Runtime> Browser<R> {
    pub(super) fn new(runtime: &R, door: Door) -> Self {
        let socket = bind_udp(LOOPBACK).expect("a free port");
        let at = socket.local_addr().expect("it has an address");
        let now = runtime.now();
        Self {
            runtime: runtime.clone(),
            udp: runtime.take_udp(socket).expect("it can be watched"),
            door,
            peer: Peer::new(clock(now), now, at, door, false),
            session: String::new(),
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

    fn call(&self, method: Method, name: &str, session: Option<&str>) -> Call {
        call(0, method, self.door, name, session)
    }

    /// Makes the offer, and waits until the connection stands.
    pub(super) async fn join(&mut self, webrtc: &Webrtc<R>, name: &str) {
        self.peer.port = webrtc.local_addr();
        let mut call = self.call(Method::Post, name, None);
        call.body = self.peer.offer.clone().into();
        let response = webrtc.call(call).await;
        assert_eq!(response.status, 201, "{response:?}");
        let location = response.headers.get("location").expect("a session");
        location.clone_into(&mut self.session);
        self.peer.answer(self.runtime.now(), &response);
        self.until(|browser| browser.peer.connected.is_some()).await;
    }

    /// Sends frames at the pace of their stamps.
    pub(super) async fn play(&mut self, frames: &[Frame]) {
        let first = firsts(frames);
        let began = self.runtime.now();
        for frame in frames {
            let due = began + frame.since(first[usize::from(frame.video)]);
            let runtime = self.runtime.clone();
            self.during(async {
                while runtime.now() < due {
                    runtime.sleep_until(due).await;
                }
            })
            .await;
            let data = Arc::from(&frame.data[..]);
            self.peer
                .frame(self.runtime.now(), frame.video, frame.stamp, data);
        }
    }

    /// Ends the session with a request.
    pub(super) async fn leave(&mut self, webrtc: &Webrtc<R>) {
        let (path, session) = self.session.rsplit_once('/').expect("a path");
        let name = path.split('/').nth_back(1).expect("a name");
        let reply = webrtc
            .call(self.call(Method::Delete, name, Some(session)))
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.watch().await;
    }

    /// Waits until the other side has said goodbye.
    pub(super) async fn watch(&mut self) {
        self.until(|browser| browser.peer.closed).await;
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
            while let Some(datagram) = self.peer.sent() {
                // UDP may lose it anywhere.
                let _ = self
                    .runtime
                    .try_send(&self.udp, &datagram.data, self.peer.port);
            }
            while let Some(media) = self.peer.got.pop_front() {
                self.got[usize::from(media.mid == self.peer.mids[0])] += 1;
            }
            let received = self.runtime.poll_receive(&self.udp, cx, &mut into);
            let now = self.runtime.now();
            match received {
                Poll::Ready(Ok((length, _))) => {
                    self.peer.receive(now, &into[..length]);
                    continue;
                }
                Poll::Ready(Err(_)) => continue,
                Poll::Pending => {}
            }
            let Some(wake) = self.peer.wake() else { return };
            if wake <= now {
                self.peer.tick(now);
                continue;
            }
            let mut alarm: Pin<Box<R::Sleep>> = Box::pin(self.runtime.sleep_until(wake));
            if alarm.as_mut().poll(cx).is_pending() {
                // Dropping an alarm loses its ring.
                self.alarm = Some(alarm);
                return;
            }
        }
    }
}
