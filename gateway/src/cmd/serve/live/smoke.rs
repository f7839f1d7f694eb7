//! The test stream: the clip that the binary carries, in its own time and over and over, sent to a server by RTMP.

use std::time::Duration;

use async_channel::Sender;
use futures_lite::future;
use livepeer_core::http::Reach;
use livepeer_core::wire::entry::{Place, SmokeTest};
use livepeer_media::demux::{Demux, Event};
use livepeer_media::frame::{AccessUnit, Audio, Ticks, Tracks};
use livepeer_runtime::ingest::Push;
use livepeer_runtime::ingest::machines::rtmp::push::{self, Misnamed, Sound, Target};
use livepeer_runtime::{Driver, Runtime};
use tracing::info;

use crate::cmd::socket::sleep_until;
use crate::cmd::source::CLIP;

/// At most this many test streams are sent at a time.
pub(super) const MAX_TESTS: usize = 4;
/// At most this many bytes of the clip are read at once.
const PIECE: usize = 64 << 10;

/// A test stream that is to be sent.
pub(super) struct Test {
    target: Target,
    duration: Duration,
}

impl Test {
    /// Reads where the stream is to go, and whether it may go there.
    ///
    /// # Errors
    /// If that is not a server by RTMP, or one that is not for the caller to name.
    pub(super) fn read(asked: &SmokeTest, reach: Reach) -> Result<Self, String> {
        let address = asked.stream_url.clone();
        let target = Target::named(&Place { address, reach });
        Ok(Self {
            target: target.map_err(|bad| match bad {
                Misnamed::Bad(bad) => format!("stream_url is {bad}"),
                Misnamed::Forbidden(why) => format!("stream_url: {why}"),
            })?,
            duration: asked.duration,
        })
    }

    /// Sends it, until its time is over, the server wants no more, or nobody is left at the other end of `until`.
    pub(super) async fn send<R: Runtime>(self, driver: Driver<R>, until: Sender<()>) {
        let server = self.target.application();
        let clip = Clip::read();
        let push = Push::open(&driver, self.target, clip.tracks, Sound::Aac);
        info!(server, duration = ?self.duration, "a test stream is sent");
        let refused = async {
            while let Some(event) = push.next().await {
                if matches!(event, push::Event::Over(_)) {
                    return;
                }
            }
        };
        let playing = future::or(clip.play(&driver, &push, self.duration), refused);
        future::or(playing, until.closed()).await;
        push.stop();
        info!(server, "a test stream is over");
    }
}

/// The frames of the clip.
struct Clip {
    tracks: Tracks,
    frames: Vec<Frame>,
    /// From its first frame to the first of its repetition.
    length: Ticks,
}

enum Frame {
    Video(AccessUnit),
    Audio(Audio),
}

impl Frame {
    /// When it is sent.
    const fn at(&self) -> Ticks {
        match self {
            Self::Video(unit) => unit.dts,
            Self::Audio(audio) => audio.pts,
        }
    }
}

impl Clip {
    fn read() -> Self {
        let (mut demux, mut tracks, mut frames) = (Demux::new(), Tracks::default(), Vec::new());
        let mut hear = |demux: &mut Demux| {
            while let Some(event) = demux.next_event() {
                match event {
                    Event::Tracks(told) => tracks = told,
                    Event::Video(unit) => frames.push(Frame::Video(unit)),
                    Event::Audio(audio) => frames.push(Frame::Audio(audio)),
                    _ => {}
                }
            }
        };
        for piece in CLIP.chunks(PIECE) {
            demux.push(piece).expect("the clip is MPEG-TS");
            hear(&mut demux);
        }
        demux.finish();
        hear(&mut demux);
        frames.sort_by_key(Frame::at);
        // Pictures are as far apart as they are on average.
        let pictures = { frames.iter() }.filter_map(|frame| match frame {
            Frame::Video(unit) => Some(unit.dts),
            Frame::Audio(_) => None,
        });
        let pictures: Vec<Ticks> = pictures.collect();
        let (first, last) = (pictures[0], pictures[pictures.len() - 1]);
        let count = pictures.len() as i64;
        let length = Ticks((last - first).0 * count / (count - 1));
        Self {
            tracks,
            frames,
            length,
        }
    }

    /// Plays it as long as that takes no longer than `duration`.
    async fn play<R: Runtime>(&self, driver: &Driver<R>, push: &Push<R>, duration: Duration) {
        let (began, first) = (driver.now(), self.frames[0].at());
        let mut passed = Ticks::ZERO;
        loop {
            for frame in &self.frames {
                let due = (passed + (frame.at() - first)).to_duration();
                if due >= duration {
                    return;
                }
                sleep_until(driver, began + due).await;
                match frame {
                    Frame::Video(unit) => push.video(&AccessUnit {
                        pts: unit.pts + passed,
                        dts: unit.dts + passed,
                        ..unit.clone()
                    }),
                    Frame::Audio(audio) => push.audio(&Audio {
                        pts: audio.pts + passed,
                        ..audio.clone()
                    }),
                }
            }
            passed += self.length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clip_begins_with_a_key_frame_and_can_be_repeated() {
        let clip = Clip::read();
        // Sound may come before it.
        let first = { clip.frames.iter() }.find_map(|frame| match frame {
            Frame::Video(unit) => Some(unit.key),
            Frame::Audio(_) => None,
        });
        assert_eq!(first, Some(true));
        assert_eq!(clip.length, Ticks(12 * Ticks::SECOND.0));
        assert!(clip.tracks.video.is_some());
    }

    #[test]
    fn a_test_stream_goes_to_a_server_by_rtmp() {
        let asked = |url: &str| SmokeTest {
            stream_url: url.to_owned(),
            duration: Duration::from_secs(1),
            named: Reach::Public,
        };
        let local = asked("rtmp://127.0.0.1/live/cam?token=x");
        assert!(Test::read(&local, Reach::Open).is_ok());
        let told = Test::read(&local, local.named).err();
        assert!(told.is_some_and(|told| told.contains("a loopback address")));
        for url in ["http://127.0.0.1/live", "cam", "rtmp://", "srt://a/b"] {
            assert!(Test::read(&asked(url), Reach::Open).is_err(), "{url}");
        }
    }
}
