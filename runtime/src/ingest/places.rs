//! The place of a job's frames in the time of those who watch, over all orchestrators that make them.

use std::time::Duration;

use livepeer_media::frame::Ticks;
use livepeer_media::timeline::{Clocks, MAX_STEP, Timeline};

/// How far another orchestrator may begin before the last picture, on the same clock.
const MAX_AGAIN: Ticks = Ticks(30 * Ticks::SECOND.0);
/// The distance of pictures that were shown before: a decoder needs them, and nobody is to wait for them.
const STEP: Ticks = Ticks(1);

/// Places frames. What another orchestrator makes again takes no time, so that viewers do not fall behind with each
/// one that is lost.
#[derive(Debug)]
pub(super) struct Places {
    timeline: Timeline,
    /// The last picture, by its own stamp and where it was placed.
    last: Option<(Ticks, Ticks)>,
    /// Another orchestrator follows, of which no picture has come yet.
    changed: bool,
    /// Pictures up to this stamp were shown before.
    again: Option<Ticks>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            timeline: Timeline::new(Clocks::Shared),
            last: None,
            changed: false,
            again: None,
        }
    }

    /// The frames that follow are made by another orchestrator, or lack some before them.
    pub(super) const fn change(&mut self) {
        self.changed = true;
    }

    /// The place of a picture: its PTS and DTS, and whether it was shown before.
    pub(super) fn video(
        &mut self,
        arrival: Duration,
        pts: Ticks,
        dts: Ticks,
    ) -> (Ticks, Ticks, bool) {
        if std::mem::take(&mut self.changed) {
            self.again = self.last.map(|(stamp, _)| stamp).filter(|last| {
                let step = dts - *last;
                step <= MAX_STEP && step >= Ticks(-MAX_AGAIN.0)
            });
            if self.again.is_none() {
                self.timeline.restart(Clocks::Shared);
            }
        }
        let is_again = self.again.is_some_and(|last| dts <= last);
        if let (true, Some((_, place))) = (is_again, &mut self.last) {
            *place += STEP;
            return (*place, *place, true);
        }
        self.again = None;
        let (pts, place) = self.timeline.video(arrival, pts, dts);
        self.last = Some((dts, place));
        (pts, place, false)
    }

    /// The place of a frame of sound; `None` if it was heard before.
    pub(super) fn audio(&mut self, arrival: Duration, pts: Ticks) -> Option<Ticks> {
        // Until it is known on which clock the other one goes on, sound cannot be placed.
        let is_again = self.again.is_some_and(|last| pts <= last);
        if self.changed || is_again {
            return None;
        }
        self.timeline.audio(arrival, pts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: i64 = 3_000;

    fn video(places: &mut Places, frame: i64) -> (i64, bool) {
        let stamp = Ticks(1_000_000 + frame * FRAME);
        let (pts, dts, again) = places.video(Duration::ZERO, stamp, stamp);
        assert_eq!(pts, dts);
        (pts.0, again)
    }

    #[test]
    fn pictures_that_are_made_again_take_no_time() {
        let mut places = Places::new();
        let first = video(&mut places, 0).0;
        for frame in 1..40 {
            assert_eq!(video(&mut places, frame), (first + frame * FRAME, false));
        }
        places.change();
        let sound = Ticks(1_000_000 + 41 * FRAME);
        assert_eq!(places.audio(Duration::ZERO, sound), None, "not yet");
        let mut before = first + 39 * FRAME;
        for frame in 10..40 {
            let (place, again) = video(&mut places, frame);
            assert!(again && place > before && place < first + 40 * FRAME);
            before = place;
        }
        assert_eq!(places.audio(Duration::ZERO, Ticks(1_000_000)), None);
        assert_eq!(video(&mut places, 40), (first + 40 * FRAME, false));
        assert!(places.audio(Duration::ZERO, sound).is_some());
    }

    #[test]
    fn another_clock_follows_the_last_picture() {
        for jump in [-100_000, 100_000] {
            let mut places = Places::new();
            let first = video(&mut places, 0).0;
            let second = video(&mut places, 1).0;
            assert_eq!(second - first, FRAME);
            places.change();
            let (place, again) = video(&mut places, jump);
            assert!(!again && place > second && place <= second + 10 * FRAME);
            assert_eq!(video(&mut places, jump + 1), (place + FRAME, false));
        }
    }

    #[test]
    fn an_orchestrator_that_goes_on_where_the_last_one_ended_is_not_noticed() {
        let mut places = Places::new();
        let first = video(&mut places, 0).0;
        places.change();
        assert_eq!(video(&mut places, 2), (first + 2 * FRAME, false));
    }
}
