//! What the media of a job tell the job.

use super::{LiveVideoJob, media};
use crate::time::Time;

impl LiveVideoJob {
    /// Takes in what its [`Media`](media::Media) told. After [`media::Event::Delivered`] call
    /// [`Media::close_channel`](media::Media::close_channel).
    pub fn on_media(&mut self, now: Time, event: media::Event) {
        match event {
            media::Event::Begun => self.input_begun(now),
            media::Event::Done => self.input_done(now),
            media::Event::Waits(waits) => self.set_input_waits(now, waits),
            media::Event::Owed(owed) => self.set_owed(now, owed),
            media::Event::Seen => self.output_seen(now),
            media::Event::Delivered => self.input_closed(now),
            media::Event::Ended(failure) => self.media_ended(now, failure),
            media::Event::Ready => {}
        }
    }
}
