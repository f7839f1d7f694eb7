//! A machine in the hands of a test.

#[path = "../../../sim/src/steps/exchanges.rs"]
mod exchanges;

use std::time::Duration;

use livepeer_core::http::In;
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};

pub(crate) use exchanges::Exchanges;

/// A machine, what time it is, and ears for what the machine says.
pub(crate) trait Driven {
    /// The machine.
    type Machine: Machine;

    /// Whether its answers to peers may wait for other peers.
    const PATIENT: bool = false;

    /// The machine, and what time it is.
    fn parts(&mut self) -> (&mut Self::Machine, &mut Time);

    /// The exchanges that are open.
    fn book(&mut self) -> &mut Exchanges;

    /// Whether the machine has told its last event.
    fn is_over(&self) -> bool {
        false
    }

    /// The machine wants that done.
    fn effect(&mut self, id: EffectId, effect: Effect);

    /// The machine tells that.
    fn event(&mut self, event: <Self::Machine as Machine>::Event);

    /// Hears all that the machine has to say, and when it wants to be woken.
    fn drain(&mut self) -> Option<Time> {
        loop {
            let (machine, now) = self.parts();
            let now = *now;
            match machine.poll_output() {
                Output::Effect(id, effect) => {
                    if let Effect::Http(step) = &effect {
                        self.book().asked(now, id, step);
                    }
                    self.effect(id, effect);
                }
                Output::Event(event) => self.event(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > now), "woken in the past");
                    let over = self.is_over();
                    self.book().check(now, wake, Self::PATIENT, over);
                    return wake;
                }
            }
        }
    }

    /// Says something to the machine, and does not listen yet.
    fn feed(&mut self, input: Input) {
        let now = *self.parts().1;
        if let Input::Http(id, step) = &input {
            self.book().told(now, *id, step);
        }
        self.parts().0.handle_input(now, input);
    }

    /// Says something to the machine.
    fn input(&mut self, input: Input) {
        self.feed(input);
        self.drain();
    }

    /// Goes on with an exchange.
    fn http(&mut self, id: EffectId, step: In) {
        self.input(Input::Http(id, step));
    }

    /// Lets time pass, and wakes the machine whenever it wants that.
    fn pass(&mut self, millis: u64) {
        let end = *self.parts().1 + Duration::from_millis(millis);
        while let Some(wake) = self.drain().filter(|wake| *wake <= end) {
            *self.parts().1 = wake;
            self.input(Input::Tick);
        }
        *self.parts().1 = end;
        self.input(Input::Tick);
    }
}
