//! Events from a job's media to the job.

use super::{LiveVideoJob, media};
use crate::time::Time;

impl LiveVideoJob {
    /// Takes in what its [`Media`](media::Media) told. After [`media::Event::Delivered`] call
    /// [`Media::close_channel`](media::Media::close_channel).
    ///
    /// News may be heard after the orchestrator that they are about was left; the next one does not answer for them
    /// (`news_of_an_orchestrator_that_was_left_is_not_laid_to_the_next`).
    pub fn on_media(&mut self, now: Time, news: media::News) {
        let is_current = news.session == self.swaps;
        match news.event {
            // What is known of the application's input is true whoever works.
            media::Event::Owed(owed) => self.set_owed(now, owed),
            media::Event::Delivered => self.input_closed(now),
            media::Event::Begun if is_current => self.input_begun(now),
            media::Event::Done if is_current => self.input_done(now),
            media::Event::Waits(waits) if is_current => self.set_input_waits(now, waits),
            media::Event::Seen if is_current => self.output_seen(now),
            media::Event::Ended(failure) if is_current => self.media_ended(now, failure),
            _ => {}
        }
    }
}
