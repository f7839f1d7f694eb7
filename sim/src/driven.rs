//! Common ground of players and tests: a machine in their hands, what time it is, and ears for what it says.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Headers, In, Response};
use livepeer_core::wire::grpc;
use livepeer_core::wire::identity_digest;
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};
use livepeer_proto::net;

use crate::{Exchanges, Key, heard};

/// A machine that wants to be woken more often than this while time passes would wake without end.
const MAX_WAKES: usize = 100_000;

/// Items of [`Driven`] for a player whose machine is in this field, its time in `now`, and its exchanges in the other:
/// `driven!(machine: Publisher, book);`.
#[macro_export]
macro_rules! driven {
    ($machine:ident: $type:ty, $($book:ident).+) => {
        type Machine = $type;

        fn parts(&mut self) -> (&mut $type, &mut livepeer_core::Time) {
            (&mut self.$machine, &mut self.now)
        }

        fn book(&mut self) -> &mut $crate::Exchanges {
            &mut self.$($book).+
        }
    };
}

/// A machine that is played with. It is drained after every input, and never waits while it has something to say.
pub trait Driven: Sized {
    /// The machine.
    type Machine: Machine;

    /// A machine that says more than this at once has no end.
    const MAX_OUTPUTS: usize = 100_000;

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

    /// The machine is drained, and wants to be woken then.
    fn idle(&mut self, wake: Option<Time>) {
        let _ = wake;
    }

    /// Hears all that the machine has to say, and when it wants to be woken.
    ///
    /// # Panics
    /// If it speaks without end, wants to be woken at once, or has forgotten an exchange.
    fn drain(&mut self) -> Option<Time> {
        for _ in 0..Self::MAX_OUTPUTS {
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
                    assert!(
                        wake.is_none_or(|wake| wake > now),
                        "it would spin: it wants to be woken at {wake:?}, and it is {now:?}"
                    );
                    let over = self.is_over();
                    self.book().check(now, wake, Self::PATIENT, over);
                    self.idle(wake);
                    return wake;
                }
            }
        }
        panic!("the drain has no end");
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

    /// Answers an exchange in full.
    fn respond(&mut self, id: EffectId, status: u16, body: impl Into<Bytes>) {
        self.http(id, In::Reply(Response::new(status)));
        self.http(id, In::Data(body.into()));
        self.http(id, In::End(Headers::new()));
    }

    /// Answers an exchange as a signer that says who the payer is.
    fn identify(&mut self, id: EffectId, key: &Key) {
        let signature = key.sign(identity_digest(key.address()));
        let body = format!(
            r#"{{"address":"{}","signature":"0x{}"}}"#,
            key.address(),
            hex::encode(signature.0)
        );
        self.respond(id, 200, body);
    }

    /// Answers an exchange as an orchestrator.
    fn inform(&mut self, id: EffectId, info: &net::OrchestratorInfo) {
        for step in heard(grpc::reply(info)) {
            self.http(id, step);
        }
    }

    /// Lets time pass at once, whatever the machine waited for.
    fn leap(&mut self, span: Duration) {
        let (_, now) = self.parts();
        *now = *now + span;
        self.input(Input::Tick);
    }

    /// Lets time pass, and wakes the machine whenever it wants that.
    ///
    /// # Panics
    /// If it wants that without end.
    fn pass(&mut self, span: Duration) {
        let end = *self.parts().1 + span;
        for _ in 0..MAX_WAKES {
            let wake = self.drain().filter(|wake| *wake <= end);
            *self.parts().1 = wake.unwrap_or(end);
            self.input(Input::Tick);
            if wake.is_none() {
                return;
            }
        }
        panic!("it wakes without end");
    }

    /// Lets that many milliseconds pass.
    fn pass_millis(&mut self, millis: u64) {
        self.pass(Duration::from_millis(millis));
    }

    /// Wakes the machine as often as it wants, until it wants to be left alone for so long.
    ///
    /// # Panics
    /// If it does not, after so many times.
    fn settle(&mut self, most: usize, calm: Duration) {
        let before = *self.parts().1;
        for _ in 0..=most {
            let wake = self.drain();
            let Some(wake) = wake.filter(|wake| wake.since(before) < calm) else {
                return;
            };
            let now = *self.parts().1;
            self.leap(wake.since(now));
        }
        panic!("it never rests");
    }
}
