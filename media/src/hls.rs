//! HLS: frames to segments of MPEG-TS, and the lists that name them, word for word as the reference writes them.
//!
//! Segments are cut at key frames, so that a player may begin at each. None is longer than the first one said, since a list
//! may not promise other times while it lives (RFC 8216, 4.3.3.1): where key frames come later than they did, a segment is cut
//! between them. A list has the last [`LISTED`] segments and more are kept, since a player may still be about to fetch one that
//! has left the list. Opus is left out: players of HLS do not find it in MPEG-TS.
//!
//! A list is written when it changes, not when it is fetched: all who poll it share one text.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::frame::{AccessUnit, Audio, AudioCodec, AudioTrack, Ticks, Tracks};
use crate::h264::Sps;
use crate::mux::Mux;

/// Segments that a list has, at most.
pub const LISTED: usize = 6;
/// Segments that are kept, at most: one that left the list stays for as long as the list is, and its own time (RFC 8216,
/// 6.2.2).
pub const KEPT: usize = 13;
/// A segment is given up beyond this many bytes: its stream has no key frames.
pub const MAX_SEGMENT: usize = 32 << 20;

/// The time of a first segment, at most: without a key frame it is cut there.
pub const MAX_FIRST: Duration = Duration::from_secs(10);

/// Pictures that wait until it is known what sound there is, at most.
const MAX_HELD: usize = 1_000;
/// The bits a second that a list of renditions promises of the source, as the reference does.
const BANDWIDTH: u32 = 4_000_000;

/// A segment.
#[derive(Clone, Debug)]
struct Segment {
    number: u64,
    duration: Duration,
    data: Bytes,
    /// Whether decoding begins anew with it, on another clock.
    breaks: bool,
}

/// The segments of one rendition, and their list.
#[derive(Clone, Debug)]
pub struct Rendition {
    /// The beginning of the addresses of its segments.
    place: String,
    /// The list, as it is since the last change; empty before the first segment.
    list: Bytes,
    segments: VecDeque<Segment>,
    /// All that were ever taken.
    taken: u64,
    /// The seconds that a segment has at most, to the nearest one; zero before the first.
    target: u64,
    /// Breaks that are in the list no more.
    breaks: u64,
    ended: bool,
}

impl Rendition {
    /// A rendition without segments, by the names of its stream and of its own.
    #[must_use]
    pub fn new(stream: &str, name: &str) -> Self {
        Self {
            place: format!("/stream/{stream}/{name}/"),
            list: Bytes::new(),
            segments: VecDeque::new(),
            taken: 0,
            target: 0,
            breaks: 0,
            ended: false,
        }
    }

    /// Takes a segment in, in the order of its number. One that is longer than the first said changes what the list promises,
    /// which players need not bear. Returns whether it is listed: not if it is there already, or older
    /// than a full list.
    pub fn insert(&mut self, number: u64, duration: Duration, data: Bytes, breaks: bool) -> bool {
        let head = self.listed().next().map(|first| first.number);
        let is_full = self.segments.len() >= LISTED;
        let is_late = is_full && head.is_some_and(|head| number < head);
        let place = self.segments.partition_point(|one| one.number < number);
        let is_there = { self.segments.get(place) }.is_some_and(|one| one.number == number);
        if is_late || is_there {
            return false;
        }
        let segment = Segment {
            number,
            duration,
            data,
            breaks,
        };
        let leaves = is_full && self.listed().next().is_some_and(|first| first.breaks);
        self.breaks += u64::from(leaves);
        self.segments.insert(place, segment);
        self.taken += 1;
        self.target = match self.target {
            0 => whole_seconds(duration),
            target => target.max((duration + HALF_SECOND).as_secs()),
        };
        if self.segments.len() > KEPT {
            self.segments.pop_front();
        }
        self.list = self.written();
        true
    }

    /// There will be no further segments.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) && !self.segments.is_empty() {
            self.list = self.written();
        }
    }

    /// The bytes of a segment.
    #[must_use]
    pub fn segment(&self, number: u64) -> Option<Bytes> {
        let found = self.segments.iter().find(|one| one.number == number);
        found.map(|one| one.data.clone())
    }

    /// The list, which everybody who asks for it shares until it changes; `None` before the first segment.
    #[must_use]
    pub fn list(&self) -> Option<Bytes> {
        (!self.list.is_empty()).then(|| self.list.clone())
    }

    fn written(&self) -> Bytes {
        let removed = self.taken - self.listed().count() as u64;
        let mut list = format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:{removed}\n");
        if self.breaks > 0 {
            let _ = writeln!(list, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.breaks);
        }
        let _ = writeln!(list, "#EXT-X-TARGETDURATION:{}", self.target);
        for one in self.listed() {
            if one.breaks {
                list.push_str("#EXT-X-DISCONTINUITY\n");
            }
            let _ = write!(
                list,
                "#EXTINF:{:.3},\n{}{}.ts\n",
                one.duration.as_secs_f32(),
                self.place,
                one.number
            );
        }
        if self.ended {
            list.push_str("#EXT-X-ENDLIST\n");
        }
        Bytes::from(list)
    }

    fn listed(&self) -> impl Iterator<Item = &Segment> {
        let unlisted = self.segments.len().saturating_sub(LISTED);
        self.segments.iter().skip(unlisted)
    }
}

/// Durations are rounded to the nearest second before they are held against what a list promises.
const HALF_SECOND: Duration = Duration::from_millis(500);

/// The seconds of a duration, rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The list of a stream's renditions: the name, bits a second and size of each.
#[must_use]
pub fn master(stream: &str, renditions: &[(&str, u32, (u32, u32))]) -> String {
    let mut list = "#EXTM3U\n#EXT-X-VERSION:3\n".to_owned();
    for (name, bandwidth, (width, height)) in renditions {
        let _ = write!(
            list,
            "#EXT-X-STREAM-INF:PROGRAM-ID=0,BANDWIDTH={bandwidth},RESOLUTION={width}x{height}\n\
             {stream}/{name}.m3u8\n"
        );
    }
    list
}

/// The list of the only rendition of a stream.
fn listing([stream, name]: &[String; 2], size: (u32, u32)) -> Bytes {
    master(stream, &[(name, BANDWIDTH, size)]).into()
}

/// Makes segments of frames, and keeps them. Stamps are those of one timeline.
#[derive(Debug)]
pub struct Packager {
    /// The least time that a segment has.
    least: Ticks,
    announced: Option<AudioCodec>,
    /// The sound, once it is known.
    sound: Option<AudioTrack>,
    mux: Option<Mux>,
    /// Pictures from the first key frame on, until it is known what sound there is.
    held: Vec<AccessUnit>,
    size: (u32, u32),
    /// The names of the stream and of its rendition.
    names: [String; 2],
    /// The list of renditions, for that size.
    master: Bytes,
    open: Option<Open>,
    breaks: bool,
    next: u64,
    rendition: Rendition,
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    began: Ticks,
    /// The last picture, and how long after the one before.
    last: Ticks,
    step: Ticks,
    data: BytesMut,
    breaks: bool,
}

impl Open {
    /// Whether a picture begins the next segment: a key frame, or the last one that may.
    fn is_due(&self, unit: &AccessUnit, least: Ticks, most: Ticks) -> bool {
        let has = unit.dts - self.began;
        let step = self.step.max(unit.dts - self.last);
        unit.key && has >= least || has + step + step >= most
    }
}

impl Packager {
    /// Nothing has come of the stream of that name, whose only rendition has the other. A segment has `least` at least.
    #[must_use]
    pub fn new(stream: &str, name: &str, least: Duration) -> Self {
        let names = [stream.to_owned(), name.to_owned()];
        Self {
            least: Ticks::from_duration(least),
            announced: None,
            sound: None,
            mux: None,
            held: Vec::new(),
            size: (0, 0),
            master: listing(&names, (0, 0)),
            names,
            open: None,
            breaks: false,
            next: 0,
            rendition: Rendition::new(stream, name),
        }
    }

    /// The tracks of what comes next.
    pub const fn tracks(&mut self, tracks: Tracks) {
        self.announced = tracks.audio;
    }

    /// The next segment lacks what is before it, or is made by another encoder.
    pub fn lost(&mut self) {
        self.breaks = true;
        self.held.clear();
        self.close(None);
    }

    /// Takes a picture.
    pub fn video(&mut self, unit: &AccessUnit) {
        if self.waits() {
            let goes_on = !self.held.is_empty();
            // Sound that was announced, and does not come within a group of pictures, does not come.
            if !(unit.key && goes_on) {
                if (unit.key || goes_on) && self.held.len() < MAX_HELD {
                    self.held.push(unit.clone());
                }
                return;
            }
            self.announced = None;
        }
        self.release();
        self.picture(unit);
    }

    /// Takes a frame of sound.
    pub fn audio(&mut self, audio: &Audio) {
        if matches!(audio.track, AudioTrack::Aac(_)) && self.mux.is_none() {
            self.sound = Some(audio.track);
            self.release();
        }
        if let (Some(open), Some(mux)) = (&mut self.open, &mut self.mux) {
            open.data.extend_from_slice(&mux.audio(audio));
        }
    }

    /// Whether it is not known yet what sound there is.
    fn waits(&self) -> bool {
        self.mux.is_none() && self.announced == Some(AudioCodec::Aac) && self.sound.is_none()
    }

    /// Lets pictures go that waited until that was known.
    fn release(&mut self) {
        for unit in std::mem::take(&mut self.held) {
            self.picture(&unit);
        }
    }

    fn picture(&mut self, unit: &AccessUnit) {
        match &self.open {
            None if unit.key => self.begin(unit),
            // Longer than a segment may be. After a pause the next one does not go on from this.
            Some(open) if unit.dts - open.began >= self.most() => {
                self.breaks |= unit.dts - open.last > Ticks::SECOND;
                self.close(None);
                self.begin(unit);
            }
            Some(open) if open.is_due(unit, self.least, self.most()) => {
                self.close(Some(unit.dts));
                self.begin(unit);
            }
            _ => {}
        }
        let (Some(open), Some(mux)) = (&mut self.open, &mut self.mux) else {
            return;
        };
        if unit.dts > open.last {
            (open.step, open.last) = (unit.dts - open.last, unit.dts);
        }
        open.data.extend_from_slice(&mux.video(unit));
        if open.data.len() > MAX_SEGMENT {
            self.open = None;
            self.breaks = true;
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.release();
        self.close(None);
        self.rendition.end();
    }

    /// The segments so far.
    #[must_use]
    pub const fn rendition(&self) -> &Rendition {
        &self.rendition
    }

    /// The list of renditions, of which there is one; shared like [`Rendition::list`], and `None` before the first segment.
    #[must_use]
    pub fn master(&self) -> Option<Bytes> {
        (!self.rendition.list.is_empty()).then(|| self.master.clone())
    }

    /// The time that a segment does not reach.
    fn most(&self) -> Ticks {
        let most = match self.rendition.target {
            0 => MAX_FIRST,
            target => Duration::from_secs(target) + HALF_SECOND,
        };
        Ticks::from_duration(most)
    }

    fn begin(&mut self, unit: &AccessUnit) {
        let sound = self.sound;
        let mux = self.mux.get_or_insert_with(|| Mux::new(sound));
        let tables = mux.tables();
        if let Some(sps) = Sps::of(&unit.data) {
            let size = (sps.width, sps.height);
            if std::mem::replace(&mut self.size, size) != size {
                self.master = listing(&self.names, size);
            }
        }
        self.open = Some(Open {
            began: unit.dts,
            last: unit.dts,
            step: Ticks::ZERO,
            data: BytesMut::from(&tables[..]),
            // The first one follows nothing.
            breaks: std::mem::take(&mut self.breaks) && self.next > 0,
        });
    }

    /// Completes the open segment, which the picture at `next` follows if one does.
    fn close(&mut self, next: Option<Ticks>) {
        let Some(open) = self.open.take() else {
            return;
        };
        let end = next.unwrap_or(open.last + open.step);
        let duration = (end - open.began).to_duration();
        let data = open.data.freeze();
        self.rendition
            .insert(self.next, duration, data, open.breaks);
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demux::{Demux, Event};
    use crate::testing::CLIP;

    /// The lists of the reference, for segments of those numbers and milliseconds.
    #[test]
    fn lists_are_those_of_the_reference() {
        let list = |segments: &[(u64, u64)]| {
            let mut rendition = Rendition::new("cam1", "source");
            for (number, millis) in segments {
                let duration = Duration::from_millis(*millis);
                rendition.insert(*number, duration, Bytes::new(), false);
            }
            text(rendition.list())
        };
        let wanted = |removed: u64, target: u64, segments: &[(u64, &str)]| {
            let head = format!(
                "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:{removed}\n#EXT-X-TARGETDURATION:{target}\n"
            );
            let lines = segments.iter().map(|(number, duration)| {
                format!("#EXTINF:{duration},\n/stream/cam1/source/{number}.ts\n")
            });
            head + &lines.collect::<String>()
        };
        let all = |numbers: &[u64]| -> Vec<(u64, u64)> {
            numbers.iter().map(|number| (*number, 2_000)).collect()
        };
        let even = |numbers: &[u64]| -> Vec<(u64, &str)> {
            numbers.iter().map(|number| (*number, "2.000")).collect()
        };
        for (given, removed, left) in [
            (&[0][..], 0, &[0][..]),
            (&[0, 1, 2, 3, 4, 5], 0, &[0, 1, 2, 3, 4, 5]),
            (&[0, 1, 2, 3, 4, 5, 6], 1, &[1, 2, 3, 4, 5, 6]),
            (
                &[100, 101, 102, 103, 104, 105, 106],
                1,
                &[101, 102, 103, 104, 105, 106],
            ),
            (&[0, 2, 1], 0, &[0, 1, 2]),
            (&[0, 1, 1], 0, &[0, 1]),
            (&[0, 1, 2, 3, 4, 5, 5], 0, &[0, 1, 2, 3, 4, 5]),
            (&[1, 2, 3, 4, 5, 6, 7, 0], 1, &[2, 3, 4, 5, 6, 7]),
        ] {
            assert_eq!(
                list(&all(given)),
                wanted(removed, 2, &even(left)),
                "{given:?}"
            );
        }
        let mut long = all(&[0, 1, 2, 3, 4, 5, 6, 7]);
        long[0].1 = 4_200;
        assert_eq!(list(&long), wanted(2, 5, &even(&[2, 3, 4, 5, 6, 7])));
        let gap = list(&[(0, 2_000), (1, 2_000), (4, 1_966)]);
        let left = [(0, "2.000"), (1, "2.000"), (4, "1.966")];
        assert_eq!(gap, wanted(0, 2, &left));
        let renditions = [
            ("source", 4_000_000, (1920, 1080)),
            ("P240p30fps4x3", 600_000, (320, 240)),
        ];
        let wanted = "#EXTM3U\n#EXT-X-VERSION:3\n\
                      #EXT-X-STREAM-INF:PROGRAM-ID=0,BANDWIDTH=4000000,RESOLUTION=1920x1080\n\
                      cam1/source.m3u8\n\
                      #EXT-X-STREAM-INF:PROGRAM-ID=0,BANDWIDTH=600000,RESOLUTION=320x240\n\
                      cam1/P240p30fps4x3.m3u8\n";
        assert_eq!(master("cam1", &renditions), wanted);
    }

    fn text(list: Option<Bytes>) -> String {
        let list = list.expect("a list");
        String::from_utf8(list.into()).expect("text")
    }

    fn camera(seconds: u64) -> Packager {
        Packager::new("cam", "source", Duration::from_secs(seconds))
    }

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut demux = Demux::new();
        demux.push(bytes).expect("MPEG-TS");
        demux.finish();
        std::iter::from_fn(|| demux.next_event()).collect()
    }

    fn package(packager: &mut Packager, bytes: &[u8]) {
        for event in events(bytes) {
            match event {
                Event::Tracks(tracks) => packager.tracks(tracks),
                Event::Video(unit) => packager.video(&unit),
                Event::Audio(audio) => packager.audio(&audio),
                _ => {}
            }
        }
    }

    fn frames(bytes: &[u8]) -> (Vec<(bool, Bytes)>, usize) {
        let (mut pictures, mut sounds) = (Vec::new(), 0);
        for event in events(bytes) {
            match event {
                Event::Video(unit) => pictures.push((unit.key, unit.data)),
                Event::Audio(_) => sounds += 1,
                _ => {}
            }
        }
        (pictures, sounds)
    }

    #[test]
    fn every_picture_is_in_a_segment_that_begins_with_a_key_frame() {
        let mut packager = camera(2);
        assert_eq!(packager.master(), None);
        package(&mut packager, CLIP);
        assert_eq!(packager.rendition().segments.len(), 5, "one is open");
        packager.end();
        let list = text(packager.rendition().list());
        assert_eq!(list.matches("#EXTINF:2.000,").count(), 6, "{list}");
        assert!(list.contains("#EXT-X-TARGETDURATION:2\n") && list.ends_with("#EXT-X-ENDLIST\n"));
        let master = text(packager.master());
        assert!(
            master.contains("RESOLUTION=640x360\ncam/source.m3u8"),
            "{master}"
        );
        let (mut pictures, mut sounds) = (Vec::new(), 0);
        for number in 0..6 {
            let segment = packager.rendition().segment(number).expect("it is kept");
            let (own, heard) = frames(&segment);
            assert!(own[0].0, "decoding can begin there");
            pictures.extend(own);
            sounds += heard;
        }
        let (wanted, heard) = frames(CLIP);
        assert!(pictures == wanted, "{} of {}", pictures.len(), wanted.len());
        assert!(
            sounds + 50 > heard,
            "{sounds} of {heard}: some comes before the first picture"
        );
    }

    /// Pictures at those milliseconds, and whether each is a key frame. The list after each.
    fn lists(pictures: impl IntoIterator<Item = (i64, bool)>) -> (Packager, Vec<String>) {
        let mut packager = camera(2);
        let mut lists = Vec::new();
        for (millis, key) in pictures {
            let at = Ticks::from_millis(millis);
            packager.video(&AccessUnit {
                pts: at,
                dts: at,
                key,
                data: Bytes::from_static(&[0, 0, 0, 1, 0x41, 0x9a]),
            });
            lists.extend(packager.rendition().list().map(|list| text(Some(list))));
        }
        packager.end();
        lists.extend(packager.rendition().list().map(|list| text(Some(list))));
        (packager, lists)
    }

    fn target(list: &str) -> u64 {
        let (_, after) = list.split_once("TARGETDURATION:").expect("a target");
        let (target, _) = after.split_once('\n').expect("a line");
        target.parse().expect("a number")
    }

    fn durations(list: &str) -> Vec<f32> {
        let lines = list
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:"));
        lines
            .map(|line| line.trim_end_matches(',').parse().expect("seconds"))
            .collect()
    }

    #[test]
    fn a_list_never_promises_another_time_however_key_frames_come() {
        // After so many pictures comes the next key frame.
        for groups in [
            &[63, 63, 63, 250, 70, 31, 90][..],
            &[60, 61, 250, 250],
            &[250, 60, 60, 400],
            &[900, 60],
            &[74, 75, 76, 89, 90, 91],
        ] {
            let keys: Vec<i64> = groups
                .iter()
                .scan(0, |at, group| Some(std::mem::replace(at, *at + group)))
                .collect();
            let all: i64 = groups.iter().sum();
            let pictures = (0..all).map(|n| (n * 100 / 3, keys.contains(&n)));
            let (packager, lists) = lists(pictures);
            let promised = target(&lists[0]);
            for list in &lists {
                assert_eq!(target(list), promised, "{groups:?}: {list}");
                let longest = durations(list).into_iter().fold(0.0, f32::max);
                assert!(longest.round() <= promised as f32, "{groups:?}: {list}");
                assert!(!list.contains("DISCONTINUITY"), "{list}");
            }
            let kept = packager.rendition().segments.iter();
            let seconds: f32 = kept.map(|one| one.duration.as_secs_f32()).sum();
            let all = all as f32 / 30.0;
            assert!(
                packager.next > KEPT as u64 || (seconds - all).abs() < 0.1,
                "{seconds} of {all}"
            );
        }
    }

    #[test]
    fn a_pause_that_is_longer_than_a_segment_is_a_break() {
        let flow = |from: i64| (0..125).map(move |n| (from + n * 40, n % 50 == 0));
        let (_, lists) = lists(flow(0).chain(flow(20_000)));
        let last = lists.last().expect("a list");
        assert!(lists.iter().all(|list| target(list) == 2), "{last}");
        assert_eq!(durations(last), [2.0, 2.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(last.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{last}");
    }

    #[test]
    fn so_many_segments_are_kept_and_a_break_is_told_as_long_as_it_matters() {
        let mut packager = camera(1);
        package(&mut packager, CLIP);
        packager.lost();
        package(&mut packager, CLIP);
        let rendition = packager.rendition();
        assert_eq!(rendition.segments.len(), KEPT);
        assert_eq!(rendition.segment(0), None);
        let list = text(rendition.list());
        assert!(!list.contains("DISCONTINUITY\n"), "{list}");
        assert!(list.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "{list}");
        let mut fresh = camera(1);
        package(&mut fresh, CLIP);
        fresh.lost();
        package(&mut fresh, &CLIP[..CLIP.len() / 4]);
        let list = text(fresh.rendition().list());
        let (_, after) = list.split_once("#EXT-X-DISCONTINUITY\n").expect("a break");
        assert!(
            after.starts_with("#EXTINF:1.000,\n/stream/cam/source/12.ts\n"),
            "{list}"
        );
    }

    /// The spec of live media, 8, row 57.
    #[test]
    fn ten_thousand_who_poll_share_one_text_that_is_written_once_for_each_change() {
        let mut packager = camera(1);
        let mut texts: Vec<[Bytes; 2]> = Vec::new();
        let mut poll = |packager: &Packager, times: usize| {
            for _ in 0..times {
                let lists = [packager.master(), packager.rendition().list()];
                let [Some(master), Some(list)] = lists else {
                    assert!(texts.is_empty(), "a list does not vanish");
                    return;
                };
                let is_new = texts.last().is_none_or(|[_, last]| *last != list);
                if let Some([before, last]) = texts.last() {
                    assert_eq!(master.as_ptr(), before.as_ptr(), "its size is the same");
                    assert_eq!(list.as_ptr() != last.as_ptr(), is_new, "written again");
                }
                if is_new {
                    texts.push([master, list]);
                }
            }
        };
        for event in events(CLIP) {
            match event {
                Event::Tracks(tracks) => packager.tracks(tracks),
                Event::Video(unit) => packager.video(&unit),
                Event::Audio(audio) => packager.audio(&audio),
                _ => {}
            }
            poll(&packager, 10);
        }
        poll(&packager, 10_000);
        packager.end();
        poll(&packager, 10_000);
        // Nothing comes after the end, which is told once.
        packager.end();
        poll(&packager, 10_000);
        assert_eq!(
            texts.len(),
            12,
            "a text for each segment, and its end with the last"
        );
    }
}
