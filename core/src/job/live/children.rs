//! The job's children: what they tell, what they are fed, when they wake.

use alloc::vec::Vec;

use super::work::Closing;
use super::{LiveVideoJob, Seat, State};
use crate::exchange::Exchange;
use crate::job::hire::Hire;
use crate::machine::{Input, earlier};
use crate::time::Time;
use crate::trickle;

/// An event of a child, to be acted on once no child is borrowed.
pub(super) enum Told {
    Control(trickle::publisher::Event),
    Events(trickle::subscriber::Event),
}

impl LiveVideoJob {
    /// Drains the children until none has anything to say, acting on what they tell.
    pub(super) fn drain_children(&mut self) {
        loop {
            self.drain_seat();
            let mut moved = false;
            self.beside(|job| moved = job.drain_seat());
            if !moved {
                self.end_if_closed();
                return;
            }
        }
    }

    /// Drains the children of the orchestrator at work. Says whether they told anything.
    fn drain_seat(&mut self) -> bool {
        let mut moved = false;
        loop {
            while let Some(hire) = &mut self.seat.hire
                && let Some(told) = hire.poll(self.now, &mut self.out, &mut self.children)
            {
                moved = true;
                self.on_hire(told);
            }
            let mut told = Vec::new();
            if let State::Running(running) = &mut self.seat.state {
                running.send_next(self.now);
                running
                    .control
                    .drain(&mut self.out, |event| told.push(Told::Control(event)));
                running
                    .events
                    .drain(&mut self.out, |event| told.push(Told::Events(event)));
            }
            self.leaving.retain_mut(|control| {
                control.drain(&mut self.out, |_| ());
                // One may have ended, and said so, before it was left.
                !control.get().has_ended()
            });
            if told.is_empty() {
                return moved;
            }
            moved = true;
            let seats = self.seats;
            for told in told {
                if self.seats != seats {
                    // The others are of an orchestrator that was left just now.
                    break;
                }
                match told {
                    Told::Control(event) => self.on_control(event),
                    Told::Events(event) => self.on_events(event),
                }
            }
        }
    }

    /// Hands an input to the child it names, if that is still there.
    pub(super) fn feed_child(&mut self, input: Input) {
        let now = self.now;
        let Some(id) = input.id() else {
            return;
        };
        if let Some(hire) = self.seat.hire.as_mut().filter(|hire| hire.owns(id)) {
            return hire.handle_input(now, input);
        }
        if let State::Running(running) = &mut self.seat.state {
            if running.control.owns(id) {
                return running.control.handle_input(now, input);
            }
            if running.events.owns(id) {
                return running.events.handle_input(now, input);
            }
        }
        if let Some(control) = self.leaving.iter_mut().find(|control| control.owns(id)) {
            control.handle_input(now, input);
        }
    }

    /// Lets every child look at the time.
    pub(super) fn tick_children(&mut self) {
        let now = self.now;
        if let Some(hire) = &mut self.seat.hire {
            hire.handle_input(now, Input::Tick);
        }
        if let State::Running(running) = &mut self.seat.state {
            running.control.handle_input(now, Input::Tick);
            running.events.handle_input(now, Input::Tick);
        }
        for control in &mut self.leaving {
            control.handle_input(now, Input::Tick);
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let mut wake = self.farewell.as_ref().and_then(Exchange::wake);
        for control in &self.leaving {
            wake = earlier(wake, control.wake());
        }
        wake = earlier(wake, self.seat_wake(&self.seat));
        let standby = self.standby.as_deref();
        wake = earlier(wake, standby.and_then(|seat| self.seat_wake(seat)));
        earlier(wake, self.standby_at())
    }

    fn seat_wake(&self, seat: &Seat) -> Option<Time> {
        let hire = seat.hire.as_ref().and_then(Hire::wake);
        let state = match &seat.state {
            State::AwaitingStart(start) => start.wake(),
            State::Running(running) => {
                let own = running
                    .keep_alive_at
                    .min(running.watch_at)
                    .min(running.closing.as_ref().map_or(Time::MAX, Closing::until))
                    .min(running.drain_until.unwrap_or(Time::MAX));
                let children = earlier(running.control.wake(), running.events.wake());
                let own = earlier(Some(own), running.stalls_at(self.config.input_stall));
                earlier(own, children)
            }
            _ => None,
        };
        earlier(hire, state)
    }
}
