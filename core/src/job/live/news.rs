//! News of the media, and what they mean for the job.

use super::media::{self, Owed};
use super::{Ending, Event, LiveVideoJob, State, work};
use crate::error::{Cause, Failure};
use crate::pool::Outcome;
use crate::time::Time;

impl LiveVideoJob {
    /// Takes in what its [`Media`](media::Media) told. After [`media::Event::Delivered`] call
    /// [`Media::close_channel`](media::Media::close_channel); [`Wires::on_media`](super::Wires::on_media) does.
    ///
    /// News may be heard after the orchestrator that they are about was left; the next one does not answer for them
    /// (`news_of_an_orchestrator_that_was_left_is_not_laid_to_the_next`).
    pub fn on_media(&mut self, now: Time, news: media::News) {
        self.advance(now);
        let works =
            matches!(&self.seat.state, State::Running(running) if running.session == news.session);
        let stands_by = self.standby_session() == Some(news.session);
        match news.event {
            // What is known of the application's input is true whoever works.
            media::Event::Owed(owed) => self.owed = owed,
            media::Event::Delivered => self.on_input_closed(),
            event if works => self.on_feed(event),
            media::Event::Seen if stands_by => {
                self.take_over();
                self.on_feed(media::Event::Seen);
            }
            event if stands_by => self.beside(|job| job.on_feed(event)),
            _ => {}
        }
        self.drain_children();
    }

    /// The input is over: the output may finish. Another orchestrator is asked only if something is owed.
    fn on_input_closed(&mut self) {
        self.input_open = false;
        if let State::Running(running) = &mut self.seat.state
            && running.drain_until.is_none()
        {
            running.drain_until = Some(self.now + self.config.drain_within);
            if let Some(hire) = &mut self.seat.hire {
                hire.payments().pause();
            }
        }
    }

    /// Takes in news of what is given to an orchestrator, and of what comes back.
    fn on_feed(&mut self, event: media::Event) {
        let State::Running(running) = &mut self.seat.state else {
            return;
        };
        match event {
            media::Event::Begun => {
                let limit = self.config.max_in_flight;
                running.last_input = self.now;
                running.flow.input_begun(self.now);
                running.input_waits = None;
                if running.in_flight < limit {
                    running.in_flight += 1;
                } else {
                    // The orchestrator is slow.
                    let what = "the number of input segments in flight";
                    self.lose(Cause::TooMuch { what, limit });
                }
                self.look_for_standby();
            }
            media::Event::Done => {
                running.in_flight = running.in_flight.saturating_sub(1);
                running.input_waits = None;
            }
            // What counts is since when; every segment begun or delivered begins anew.
            media::Event::Waits(waits) => {
                running.input_waits = waits.then(|| running.input_waits.unwrap_or(self.now));
            }
            media::Event::Seen => self.on_output(),
            media::Event::Ended(failure) => self.on_media_ended(failure),
            media::Event::Declined => self.on_declined(),
            _ => {}
        }
    }

    fn on_output(&mut self) {
        if let State::Running(running) = &mut self.seat.state {
            running.last_output = self.now;
            running.flow.output_seen(self.now);
            if let Some(until) = &mut running.drain_until {
                *until = self.now + self.config.drain_within;
            }
        }
        if let Some(hire) = &mut self.seat.hire {
            hire.gave(self.now);
        }
        self.end_standby();
    }

    /// The media cannot go on with the orchestrator at work, and not by its fault. The loss before it was counted.
    fn on_declined(&mut self) {
        if !self.input_open && self.owed != Owed::Something {
            return self.finish(Ending::Finished);
        }
        self.give_up_session();
        self.leave(Outcome::Unused);
        if !self.promote_standby() {
            self.out.event(Event::NeedLease);
        }
    }

    /// A media channel ended, by itself or by a failure.
    fn on_media_ended(&mut self, failure: Option<Failure>) {
        let State::Running(running) = &self.seat.state else {
            return;
        };
        let drains = running.drain_until.is_some();
        match failure {
            None if drains => self.finish(Ending::Finished),
            None => self.channel_closed(work::Channel::Media),
            Some(_) if drains && self.owed == Owed::Nothing => self.finish(Ending::Finished),
            Some(failure) => self.channel_failed(work::Channel::Media, failure.cause),
        }
    }
}
