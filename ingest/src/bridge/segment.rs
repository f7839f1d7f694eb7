//! The segments of a bridge: where they are cut, and what is written into them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use livepeer_core::machine::Outbox;
use livepeer_core::time::Time;
use livepeer_media::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use livepeer_media::h264::ParameterSets;
use livepeer_media::mux::Mux;

use super::{Event, Figures, KEY_DUE, MAX_LAG, MAX_SEGMENT, MAX_SILENCE, SILENCE_AFTER};

/// Writes the segments of one job.
#[derive(Debug)]
pub(super) struct Segments {
    min: Duration,
    mux: Mux,
    sets: ParameterSets,
    /// When the open segment began, by the clock and in the media.
    began: Time,
    began_media: Ticks,
    /// When the last key frame came.
    key: Time,
    /// Tables that the next picture is written with.
    tables: Option<Bytes>,
    /// When the first picture is decoded, and the last.
    first: Option<Ticks>,
    picture: Ticks,
    /// The end of the sound that was written.
    sound_until: Option<Ticks>,
    /// How far behind the pictures sound was of late when it came, at most. As far as it may be at a source's beginning, when
    /// nobody knows and most comes late.
    lag: Ticks,
}

impl Segments {
    pub(super) fn new(min: Duration, sound: Option<AudioTrack>) -> Self {
        Self {
            min,
            mux: Mux::new(sound),
            sets: ParameterSets::default(),
            began: Time::ZERO,
            began_media: Ticks::ZERO,
            key: Time::ZERO,
            tables: None,
            first: None,
            picture: Ticks::ZERO,
            sound_until: None,
            lag: MAX_LAG,
        }
    }

    /// The sound that was announced.
    pub(super) const fn sound(&self) -> Option<AudioTrack> {
        self.mux.audio_track()
    }

    /// Another source follows.
    pub(super) const fn source(&mut self) {
        self.lag = MAX_LAG;
    }

    /// Whether the open segment ends before this picture.
    pub(super) fn is_due(&self, now: Time, unit: &AccessUnit) -> bool {
        let clock = now.since(self.began);
        let media = (unit.dts - self.began_media).to_duration();
        let is_late = clock.max(media) >= MAX_SEGMENT;
        is_late || unit.key && clock.min(media) >= self.min
    }

    /// Whether the source should have sent a key frame.
    pub(super) fn key_is_due(&self, now: Time) -> bool {
        now >= self.key.max(self.began) + KEY_DUE
    }

    /// Begins a segment with this picture, which is to be written next.
    pub(super) fn begin(
        &mut self,
        now: Time,
        unit: &AccessUnit,
        out: &mut Outbox<Event>,
        figures: &mut Figures,
    ) {
        (self.began, self.began_media) = (now, unit.dts);
        self.tables = Some(self.mux.tables());
        figures.segments += 1;
        figures.forced += u64::from(!unit.key);
        out.event(Event::Begin);
    }

    /// Writes a picture, and silence where sound is missing.
    pub(super) fn picture(
        &mut self,
        now: Time,
        unit: &AccessUnit,
        out: &mut Outbox<Event>,
        figures: &mut Figures,
    ) {
        figures.pictures += 1;
        self.sets.learn(&unit.data);
        if unit.key {
            self.key = now;
        }
        let packets = match self.tables.take() {
            Some(tables) => {
                let whole = (!unit.key).then(|| AccessUnit {
                    data: self.sets.before(&unit.data),
                    ..unit.clone()
                });
                let packets = self.mux.video(whole.as_ref().unwrap_or(unit));
                // One write a picture, its tables included.
                let mut all = BytesMut::with_capacity(tables.len() + packets.len());
                all.extend_from_slice(&tables);
                all.extend_from_slice(&packets);
                all.freeze()
            }
            None => self.mux.video(unit),
        };
        write(packets, out, figures);
        self.picture = unit.dts;
        self.first.get_or_insert(unit.dts);
        self.fill(out, figures);
    }

    /// Writes a frame of sound that plays for so long from `pts` on, and silence before it where sound is missing. One that
    /// would play where sound was written already is left out.
    pub(super) fn sounds(
        &mut self,
        pts: Ticks,
        duration: Ticks,
        audio: &Audio,
        out: &mut Outbox<Event>,
        figures: &mut Figures,
    ) {
        let behind = (self.picture - (pts + duration)).clamp(Ticks::ZERO, MAX_LAG);
        self.lag = behind.max(Ticks(self.lag.0 - self.lag.0 / LAG_LASTS));
        let begun = self.sound_until.or(self.first);
        if begun.is_some_and(|begun| pts + OVERLAP < begun) {
            return;
        }
        if let Some(until) = self
            .sound_until
            .filter(|until| pts - *until >= SILENCE_AFTER)
        {
            self.silence(until, pts, out, figures);
        }
        let audio = Audio {
            pts,
            ..audio.clone()
        };
        self.sound_until = Some(pts + duration);
        let packets = self.mux.audio(&audio);
        if !packets.is_empty() {
            figures.sounds += 1;
            write(packets, out, figures);
        }
    }

    /// Writes silence up to where sound should be, if it is too far behind the pictures.
    fn fill(&mut self, out: &mut Outbox<Event>, figures: &mut Figures) {
        let until = self.sound_until.or(self.first).unwrap_or(self.picture);
        let due = self.picture - self.lag;
        if due - until >= SILENCE_AFTER {
            self.silence(until, due, out, figures);
        }
    }

    /// Writes silence from there up to a place.
    fn silence(&mut self, from: Ticks, due: Ticks, out: &mut Outbox<Event>, figures: &mut Figures) {
        let Some((track, data)) = self
            .sound()
            .and_then(|track| Some((track, track.silence()?)))
        else {
            return;
        };
        let Some(duration) = track.duration(&data) else {
            return;
        };
        let mut pts = from.max(due - MAX_SILENCE);
        let mut packets = BytesMut::new();
        while pts + duration <= due + OVERLAP {
            packets.extend_from_slice(&self.mux.audio(&Audio {
                pts,
                track,
                data: data.clone(),
            }));
            figures.silences += 1;
            pts += duration;
        }
        self.sound_until = Some(pts);
        write(packets.freeze(), out, figures);
    }

    /// The packet of a clock reference between slow pictures.
    pub(super) fn clock(&mut self) -> Option<Bytes> {
        self.mux.clock()
    }

    /// Writes a segment of tables: a sign of life.
    pub(super) fn keep_alive(&mut self, out: &mut Outbox<Event>, figures: &mut Figures) {
        figures.segments += 1;
        out.event(Event::Begin);
        write(self.mux.tables(), out, figures);
        out.event(Event::End);
    }
}

/// Writes into the open segment.
pub(super) fn write(packets: Bytes, out: &mut Outbox<Event>, figures: &mut Figures) {
    figures.bytes += packets.len() as u64;
    out.event(Event::Write(packets));
}

/// Packets of sound until it is forgotten how late one was, some: a second and more.
const LAG_LASTS: i64 = 64;
/// Frames may begin so much before the end of the last one: stamps of a source are rounded, to a millisecond in RTMP.
const OVERLAP: Ticks = Ticks::from_millis(5);
