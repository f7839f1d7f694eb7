//! A sender of a stream, by one of the ways in.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use livepeer_media::frame::{AccessUnit, Audio, AudioCodec, AudioTrack, Ticks, Tracks, VideoCodec};
use livepeer_media::opus;
use livepeer_runtime::ingest::Push;
use livepeer_runtime::ingest::machines::rtmp::push::{Event, Sound, Target};
use livepeer_tokio::{TokioRuntime, driver};
use tokio::time::timeout;

use super::clip::{Clip, PICTURE_EVERY};
use super::peer::{Part, Peer, SOUND_EVERY};
use super::tally::{Stream, lock};
use crate::Error;

/// How long a publisher may take to be let in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Whip,
    Rtmp,
}

/// A sender that was let in.
pub(crate) enum Sender {
    Whip(Box<Peer>),
    Rtmp(Push<TokioRuntime>),
}

impl Sender {
    /// Begins to send under a name, at the door of WHIP or that of RTMP.
    pub(crate) async fn join(
        way: Way,
        (whip, rtmp): (SocketAddr, SocketAddr),
        name: &str,
        sound: bool,
    ) -> Result<Self, Error> {
        if way == Way::Whip {
            let peer = Peer::join(whip, name, Part::Sends, sound).await?;
            return Ok(Self::Whip(Box::new(peer)));
        }
        let target = Target::parse(&format!("rtmp://{rtmp}/live/{name}"))?;
        let tracks = Tracks {
            video: Some(VideoCodec::H264),
            audio: sound.then_some(AudioCodec::Opus),
        };
        let push = Push::open(&driver(), target, tracks, Sound::AacAndOpus);
        match timeout(PATIENCE, push.next()).await? {
            Some(Event::Publishing) => Ok(Self::Rtmp(push)),
            other => Err(format!("not let in: {other:?}").into()),
        }
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Whip(peer) => Some(peer),
            Self::Rtmp(_) => None,
        }
    }

    /// Sends pictures, and sound between them, at their pace and until then.
    pub(crate) async fn play(
        &mut self,
        clip: &Clip,
        index: usize,
        stream: &Stream,
        until: Instant,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let (mut picture, mut sound) = (Duration::ZERO, Duration::ZERO);
        while start + picture < until {
            self.rest(start + picture.min(sound)).await?;
            if sound <= picture {
                self.sound(sound)?;
                sound += SOUND_EVERY;
                continue;
            }
            let number = {
                let mut sent = lock(&stream.sent);
                *sent += 1;
                *sent - 1
            };
            let (key, data) = clip.picture(index, number);
            self.picture(picture, key, data)?;
            picture += PICTURE_EVERY;
        }
        Ok(())
    }

    fn picture(&mut self, since: Duration, key: bool, data: Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Whip(peer) => peer.send_picture(since, data),
            Self::Rtmp(push) => {
                let pts = ticks(since);
                push.video(&AccessUnit {
                    pts,
                    dts: pts,
                    key,
                    data: data.into(),
                });
                Ok(())
            }
        }
    }

    fn sound(&mut self, since: Duration) -> Result<(), Error> {
        match self {
            Self::Whip(peer) => peer.send_sound(since),
            Self::Rtmp(push) => {
                push.audio(&Audio {
                    pts: ticks(since),
                    track: AudioTrack::Opus { channels: 2 },
                    data: opus::silence(2).into(),
                });
                Ok(())
            }
        }
    }

    /// Sends nothing until then.
    pub(crate) async fn rest(&mut self, until: Instant) -> Result<(), Error> {
        match self {
            Self::Whip(peer) => peer.live(until).await,
            Self::Rtmp(_) => {
                tokio::time::sleep_until(until.into()).await;
                Ok(())
            }
        }
    }

    /// Says goodbye. To go without a word, drop it.
    pub(crate) async fn leave(self) -> Result<(), Error> {
        match self {
            Self::Whip(peer) => peer.leave().await,
            Self::Rtmp(push) => {
                push.stop();
                while timeout(PATIENCE, push.next()).await?.is_some() {}
                Ok(())
            }
        }
    }
}

fn ticks(since: Duration) -> Ticks {
    Ticks((since.as_nanos() * 9 / 100_000) as i64) // a run is shorter than its range by far
}
