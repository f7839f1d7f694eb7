//! A sender or a viewer by WebRTC, with a socket of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use livepeer_media::opus;
use livepeer_runtime::rt::bind_udp;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::clip::Stamp;
use super::gateway::{LIVE, ask};
use crate::Error;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The time between packets of sound.
pub(crate) const SOUND_EVERY: Duration = Duration::from_millis(20);

/// The part of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Sends,
    Watches,
}

/// A peer whose connection stands.
pub(crate) struct Peer {
    rtc: Rtc,
    socket: UdpSocket,
    at: SocketAddr,
    door: SocketAddr,
    /// The path of its session.
    session: String,
    video: Mid,
    audio: Option<Mid>,
    connected: bool,
    /// Pictures that came.
    got: Vec<Stamp>,
    /// Whether the other side has said goodbye.
    pub(crate) closed: bool,
    /// Between the request and its answer, and between the request and the connection.
    pub(crate) answered: Duration,
    pub(crate) joined: Duration,
}

impl Peer {
    /// Makes an offer, and waits until the connection stands.
    pub(crate) async fn join(
        door: SocketAddr,
        name: &str,
        part: Part,
        sound: bool,
    ) -> Result<Self, Error> {
        // With room for what comes while this program has no turn.
        let socket = UdpSocket::from_std(bind_udp(([127, 0, 0, 1], 0).into())?)?;
        let at = socket.local_addr()?;
        let (direction, kind) = match part {
            Part::Sends => (Direction::SendOnly, "whip"),
            Part::Watches => (Direction::RecvOnly, "whep"),
        };
        let mut rtc = Rtc::builder()
            .set_reordering_size_video(512)
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(at, "udp")?);
        let mut api = rtc.sdp_api();
        let mut add = |kind| api.add_media(kind, direction, None, None, None);
        let video = add(MediaKind::Video);
        let audio = sound.then(|| add(MediaKind::Audio));
        let (offer, pending) = api.apply().ok_or("nothing to offer")?;
        let path = format!("{LIVE}/{name}/{kind}");
        let start = Instant::now();
        let answer = ask(door, "POST", &path, &offer.to_sdp_string()).await?;
        let answered = start.elapsed();
        if answer.status != 201 {
            return Err(format!("{path}: status {}: {}", answer.status, answer.body).into());
        }
        let session = answer.field("location").ok_or("no session")?.to_owned();
        let answer = SdpAnswer::from_sdp_string(&answer.body)?;
        rtc.sdp_api().accept_answer(pending, answer)?;
        let mut peer = Self {
            rtc,
            socket,
            at,
            door,
            session,
            video,
            audio,
            connected: false,
            got: Vec::new(),
            closed: false,
            answered,
            joined: Duration::ZERO,
        };
        peer.until(start + PATIENCE, |peer| peer.connected).await?;
        if !peer.connected {
            return Err(format!("{path}: not connected in {PATIENCE:?}").into());
        }
        peer.joined = start.elapsed();
        Ok(peer)
    }

    /// Lives until then.
    pub(crate) async fn live(&mut self, until: Instant) -> Result<(), Error> {
        self.until(until, |_| false).await
    }

    /// The next pictures, some at a time; none only if there are none until then.
    pub(crate) async fn pictures(&mut self, until: Instant) -> Result<Vec<Stamp>, Error> {
        self.until(until, |peer| !peer.got.is_empty() || peer.closed)
            .await?;
        Ok(std::mem::take(&mut self.got))
    }

    async fn until(&mut self, until: Instant, done: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let mut into = [0; 2_048];
        loop {
            let wake = self.drain()?;
            let now = Instant::now();
            if done(self) || now >= until || !self.rtc.is_alive() {
                return Ok(());
            }
            if let Ok((length, from)) = self.socket.try_recv_from(&mut into) {
                if let Ok(received) = Receive::new(Protocol::Udp, from, self.at, &into[..length]) {
                    self.rtc.handle_input(Input::Receive(now, received))?;
                }
                continue;
            }
            if wake <= now {
                self.rtc.handle_input(Input::Timeout(now))?;
                continue;
            }
            // Whether something came shows in the next turn.
            let _ = timeout_at(wake.min(until).into(), self.socket.readable()).await;
        }
    }

    /// Sends and notes what the engine has to say. Returns when it wants to be called.
    fn drain(&mut self) -> Result<Instant, Error> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(transmit) => {
                    // UDP may lose it anywhere; what is lost shows as pictures that are missing.
                    let _ = self
                        .socket
                        .try_send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::MediaData(media)) if media.mid == self.video => {
                    self.got.extend(Stamp::find(&media.data));
                }
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(_) => {}
            }
        }
    }

    /// Sends a picture that is shown so long after the first.
    pub(crate) fn send_picture(&mut self, since: Duration, data: Vec<u8>) -> Result<(), Error> {
        let time = MediaTime::from_90khz((since.as_nanos() * 9 / 100_000) as u64);
        self.write(self.video, time, data)
    }

    /// Sends a packet of silence.
    pub(crate) fn send_sound(&mut self, since: Duration) -> Result<(), Error> {
        let Some(audio) = self.audio else {
            return Ok(());
        };
        let samples = (since.as_micros() * 48 / 1_000) as u64;
        let time = MediaTime::new(samples, Frequency::FORTY_EIGHT_KHZ);
        self.write(audio, time, opus::silence(2).to_vec())
    }

    fn write(&mut self, mid: Mid, time: MediaTime, data: Vec<u8>) -> Result<(), Error> {
        let now = Instant::now();
        let writer = self.rtc.writer(mid).ok_or("it does not send")?;
        let payload = writer.payload_params().next().ok_or("no codec")?.pt();
        writer.write(payload, now, time, data)?;
        // The engine packs what was written when time passes.
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain()?;
        Ok(())
    }

    /// Ends the session with a request.
    pub(crate) async fn leave(self) -> Result<(), Error> {
        let answer = ask(self.door, "DELETE", &self.session, "").await?;
        match answer.status {
            // It may have ended already.
            200 | 404 => Ok(()),
            status => Err(format!("DELETE: status {status}").into()),
        }
    }
}
