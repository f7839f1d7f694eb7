//! A machine in the hands of a test.

use std::time::Duration;

use livepeer_core::http::In;
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};

/// A machine, what time it is, and ears for what the machine says.
pub(crate) trait Driven {
    /// The machine.
    type Machine: Machine;

    /// The machine, and what time it is.
    fn parts(&mut self) -> (&mut Self::Machine, &mut Time);

    /// The machine wants that done.
    fn effect(&mut self, id: EffectId, effect: Effect);

    /// The machine tells that.
    fn event(&mut self, event: <Self::Machine as Machine>::Event);

    /// Hears all that the machine has to say, and when it wants to be woken.
    fn drain(&mut self) -> Option<Time> {
        loop {
            let (machine, now) = self.parts();
            match machine.poll_output() {
                Output::Effect(id, effect) => self.effect(id, effect),
                Output::Event(event) => self.event(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > *now), "woken in the past");
                    return wake;
                }
            }
        }
    }

    /// Says something to the machine.
    fn input(&mut self, input: Input) {
        let (machine, now) = self.parts();
        machine.handle_input(*now, input);
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
