//! The output of a job on its way to those who watch it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::job::live::media::OutputEvent;
use livepeer_ingest::rtmp::push::{Sound, Target};
use livepeer_media::demux::{Demux, Event, IDLE};
use livepeer_media::frame::{AccessUnit, Audio, Ticks, Tracks, VideoCodec};
use livepeer_media::hls::Packager;
use tracing::{debug, warn};

use super::news::News;
use super::places::Places;
use super::push::Push;
use super::webrtc::WeakWebrtc;
use crate::{Driver, Runtime};

/// Takes a job's output apart and hands its frames on.
pub(super) struct Player<R: Runtime> {
    driver: Driver<R>,
    demux: Demux,
    places: Places,
    tracks: Option<Tracks>,
    /// The names under which viewers watch.
    watched: Vec<(WeakWebrtc<R>, String)>,
    pushes: Vec<Pushed<R>>,
    /// Servers that the last frames are on their way to.
    leaving: Vec<Arc<News<()>>>,
    /// The segments for players of HLS, if they are wanted.
    packager: Option<Packager>,
    /// Servers by RTMP get nothing before the next key frame.
    needs_key: bool,
    /// When the last bytes came, unless frames were taken to be complete since.
    moved: Option<Time>,
    alarm: Option<Pin<Box<R::Sleep>>>,
    /// Whether the output is no MPEG-TS, as was told.
    unreadable: bool,
    pictures: u64,
    /// Pictures of other orchestrators that were shown before.
    again: u64,
    sounds: u64,
    dropped: u64,
    /// The stamps of the last picture and of the last frame of sound, as the model has them.
    last: [Ticks; 2],
}

/// Another server that the output goes to.
struct Pushed<R: Runtime> {
    target: Target,
    sound: Sound,
    /// The connection, once the output's tracks are known.
    push: Option<Push<R>>,
}

impl<R: Runtime> Player<R> {
    pub(super) fn new(driver: Driver<R>) -> Self {
        Self {
            driver,
            demux: Demux::new(),
            places: Places::new(),
            tracks: None,
            watched: Vec::new(),
            pushes: Vec::new(),
            leaving: Vec::new(),
            packager: None,
            needs_key: true,
            moved: None,
            alarm: None,
            unreadable: false,
            pictures: 0,
            again: 0,
            sounds: 0,
            dropped: 0,
            last: [Ticks::ZERO; 2],
        }
    }

    pub(super) fn watch(&mut self, webrtc: WeakWebrtc<R>, name: &str) {
        self.watched.push((webrtc, name.to_owned()));
    }

    pub(super) fn push(&mut self, target: Target, sound: Sound) {
        self.pushes.push(Pushed {
            target,
            sound,
            push: None,
        });
        self.open_pushes();
    }

    /// Has segments of that time, at least, made and kept.
    pub(super) fn package(&mut self, stream: &str, rendition: &str, least: Duration) {
        self.packager
            .get_or_insert_with(|| Packager::new(stream, rendition, least));
    }

    pub(super) const fn packager(&self) -> Option<&Packager> {
        self.packager.as_ref()
    }

    /// Pictures, those that were shown again, frames of sound, and frames that could not be read.
    pub(super) const fn counts(&self) -> [u64; 4] {
        [self.pictures, self.again, self.sounds, self.dropped]
    }

    /// The stamps of the last picture and of the last frame of sound; zero if there was none.
    pub(super) const fn last(&self) -> [Ticks; 2] {
        self.last
    }

    /// Takes the next of the output.
    pub(super) fn take(&mut self, event: &OutputEvent) {
        match event {
            OutputEvent::Data(_, data) => {
                self.moved = Some(self.driver.now());
                if self.demux.push(data).is_err() && !std::mem::replace(&mut self.unreadable, true)
                {
                    warn!("the output of the job is not MPEG-TS: it cannot be watched");
                }
                self.frames();
            }
            // What follows comes from another encoder, or lacks what it refers to.
            OutputEvent::Anew(..)
            | OutputEvent::Repeated(_)
            | OutputEvent::Truncated(..)
            | OutputEvent::Discontinuity => {
                self.demux.lost();
                self.unreadable = false;
                self.places.change();
                if let Some(packager) = &mut self.packager {
                    packager.lost();
                }
                self.needs_key = true;
                for (webrtc, name) in &self.watched {
                    webrtc.with(|port, _| port.restart_stream(name));
                }
            }
            _ => {}
        }
    }

    /// Takes frames to be complete when nothing came for a while.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) {
        while let Some(moved) = self.moved {
            let due = moved + IDLE;
            if self.driver.now() >= due {
                (self.moved, self.alarm) = (None, None);
                self.demux.idle();
                return self.frames();
            }
            // An alarm that was set for earlier bytes rings early, and is set anew then.
            let runtime = self.driver.runtime();
            let set = || Box::pin(runtime.sleep_until(due));
            if self
                .alarm
                .get_or_insert_with(set)
                .as_mut()
                .poll(cx)
                .is_pending()
            {
                return;
            }
            self.alarm = None;
        }
    }

    fn frames(&mut self) {
        while let Some(event) = self.demux.next_event() {
            match event {
                Event::Tracks(tracks) => {
                    if tracks.video == Some(VideoCodec::H265) {
                        warn!("the output of the job is H.265: it cannot be watched");
                    }
                    self.tracks = Some(tracks);
                    if let Some(packager) = &mut self.packager {
                        packager.tracks(tracks);
                    }
                    self.open_pushes();
                }
                Event::Video(unit) => self.video(unit),
                Event::Audio(audio) => self.audio(audio),
                Event::Dropped(why) => {
                    self.dropped += 1;
                    debug!(%why, "a frame of the output was dropped");
                }
                Event::NoTables => debug!("nothing says so far what is in the output"),
                _ => {}
            }
        }
    }

    fn open_pushes(&mut self) {
        let Some(tracks) = self.tracks.filter(|tracks| tracks.video.is_some()) else {
            return;
        };
        for pushed in self
            .pushes
            .iter_mut()
            .filter(|pushed| pushed.push.is_none())
        {
            let push = Push::open(&self.driver, pushed.target.clone(), tracks, pushed.sound);
            pushed.push = Some(push);
        }
    }

    fn arrival(&self) -> Duration {
        Duration::from_nanos(self.driver.now().as_nanos())
    }

    fn video(&mut self, unit: AccessUnit) {
        self.last[0] = unit.dts;
        let (pts, dts, again) = self.places.video(self.arrival(), unit.pts, unit.dts);
        self.pictures += u64::from(!again);
        self.again += u64::from(again);
        let unit = AccessUnit { pts, dts, ..unit };
        for (webrtc, name) in &self.watched {
            webrtc.with(|port, now| port.send_video(now, name, &unit));
        }
        if let Some(packager) = &mut self.packager {
            packager.video(&unit);
        }
        self.needs_key &= !unit.key;
        if !self.needs_key {
            for push in self.pushes.iter().filter_map(|pushed| pushed.push.as_ref()) {
                push.video(&unit);
            }
        }
    }

    fn audio(&mut self, audio: Audio) {
        self.last[1] = audio.pts;
        let Some(pts) = self.places.audio(self.arrival(), audio.pts) else {
            return;
        };
        self.sounds += 1;
        let audio = Audio { pts, ..audio };
        for (webrtc, name) in &self.watched {
            webrtc.with(|port, now| port.send_audio(now, name, &audio));
        }
        if let Some(packager) = &mut self.packager {
            packager.audio(&audio);
        }
        for push in self.pushes.iter().filter_map(|pushed| pushed.push.as_ref()) {
            push.audio(&audio);
        }
    }

    /// Servers that the last frames are on their way to, whose news end when those have arrived.
    pub(super) fn leaving(&mut self) -> Vec<Arc<News<()>>> {
        std::mem::take(&mut self.leaving)
    }

    /// The output is over: so are those who watch it.
    pub(super) fn end(&mut self) {
        self.demux.finish();
        self.frames();
        for (webrtc, name) in self.watched.drain(..) {
            webrtc.with(|port, now| port.close_stream(now, &name));
        }
        let pushes = self.pushes.drain(..).filter_map(|pushed| pushed.push);
        self.leaving.extend(pushes.map(|push| push.left()));
        if let Some(packager) = &mut self.packager {
            packager.end();
        }
    }
}
