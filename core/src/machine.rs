//! The contract that every machine of this crate keeps: two verbs, four effects, one id.
//!
//! A driver owns a machine and does three things in a loop: it drains [`Machine::poll_output`] until
//! [`Output::Idle`], performs the effects, and feeds what comes back into [`Machine::handle_input`].
//!
//! 1. Time never goes back. Any call may carry a later `now`; an earlier one is read as the last.
//! 2. Commands, inputs and drains come in any order and number. Outputs queue; there is no illegal order.
//! 3. Drain to `Idle` before you wait. The time it names is later than the last `now`, so a driver cannot spin.
//! 4. Answers come back by id, in any order. A late or unknown id is ignored: aborts race, and that is normal.
//! 5. `Err` is yours, `Event` is theirs. An `Err` changed nothing and can be fixed by reading the caller.
//! 6. A machine dies once: one last event, then only aborts.
//! 7. Write, then speak: an event or reply that admits money waits for [`Input::Stored`] with `Ok`. Our own side fails
//!    too: a signature or record that cannot be had is an answer, the failure names our part, and no peer is blamed.
//! 8. Deadlines live in the machine; drivers set none. Whatever a peer can make us hold has a named bound.
//! 9. Same seed, same calls, same outputs, byte for byte, on every platform.
//! 10. Whoever opens an exchange mints its id, and one bit says who ([`EffectId::by_peer`]).
//! 11. Every exchange that was opened is ended or aborted. A peer may never end its answer: whoever has heard all that
//!     counts waits a bounded time for the end, then aborts. The players in `sim/src/steps` hold every machine to it.

use alloc::collections::VecDeque;

use crate::http;
use crate::sign::{Digest, SignRefused, Signature};
use crate::spend::{Spend, SpendRefused};
use crate::store::{Record, StoreFailed};
use crate::time::Time;

/// A protocol state machine without I/O. See the [module](self) for the rules.
pub trait Machine {
    /// The events of the machine for its owner. Every event type is `#[non_exhaustive]`.
    type Event;

    /// Takes in one fact. It cannot fail: whatever a peer did becomes an event.
    fn handle_input(&mut self, now: Time, input: Input);

    /// The next thing to do or know. Call it until it answers [`Output::Idle`].
    fn poll_output(&mut self) -> Output<Self::Event>;
}

/// An output of a machine: an effect that it asks for, or an event.
#[derive(Debug)]
pub enum Output<E> {
    /// Do this.
    Effect(EffectId, Effect),
    /// Know this.
    Event(E),
    /// Drained. Send [`Input::Tick`] at that time, if no other input comes before it; `None` waits for input only.
    Idle(Option<Time>),
}

/// Something only the outside can do.
///
/// Exhaustive on purpose: a new effect must break every driver at compile time.
#[derive(Debug)]
pub enum Effect {
    /// A step of an HTTP exchange.
    Http(http::Out),
    /// Sign this digest with the account's key; answered by [`Input::Signed`].
    Sign(Digest),
    /// Make this durable; answered by [`Input::Stored`].
    Store(Record),
    /// Count this against a limit that other machines share; [`Spend::Take`] is answered by [`Input::Spent`].
    Spend(Spend),
}

/// A fact from outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but time has passed.
    Tick,
    /// A step of an HTTP exchange.
    Http(EffectId, http::In),
    /// The answer to [`Effect::Sign`].
    Signed(EffectId, Result<Signature, SignRefused>),
    /// The answer to [`Effect::Store`]. `Ok`: the record survives a crash from here on. `Err`: perhaps not, and
    /// nothing may be said that relies on it.
    Stored(EffectId, Result<(), StoreFailed>),
    /// The answer to [`Spend::Take`]. `Ok`: the amount is counted, at that time, also after a crash. `Err`: it is not, and
    /// nothing may leave that costs it.
    Spent(EffectId, Result<Time, SpendRefused>),
}

impl Input {
    /// Gives the input another id.
    fn renamed(self, name: impl FnOnce(EffectId) -> EffectId) -> Self {
        match self {
            Self::Tick => Self::Tick,
            Self::Http(id, step) => Self::Http(name(id), step),
            Self::Signed(id, answer) => Self::Signed(name(id), answer),
            Self::Stored(id, answer) => Self::Stored(name(id), answer),
            Self::Spent(id, answer) => Self::Spent(name(id), answer),
        }
    }

    /// The effect that the input is about.
    pub(crate) const fn id(&self) -> Option<EffectId> {
        match self {
            Self::Tick => None,
            Self::Http(id, _) | Self::Signed(id, _) | Self::Stored(id, _) | Self::Spent(id, _) => {
                Some(*id)
            }
        }
    }
}

/// Names one exchange, signature or record, from its opening to its end.
///
/// From the top: one bit for who opened it, 23 bits for the child of a parent machine that it belongs to
/// (zero is the machine itself), 40 bits that count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(u64);

impl EffectId {
    const PEER: u64 = 1 << 63;
    const COUNT: u64 = (1 << 40) - 1;
    const OWNERS: u32 = (1 << 23) - 1;

    /// The id of the `count`-th exchange that a peer opened towards us. Drivers of servers mint these.
    #[must_use]
    pub const fn by_peer(count: u64) -> Self {
        Self(Self::PEER | (count & Self::COUNT))
    }

    const fn by_us(count: u64) -> Self {
        Self(count & Self::COUNT)
    }

    /// Whether the peer opened it.
    #[must_use]
    pub const fn is_by_peer(self) -> bool {
        self.0 & Self::PEER != 0
    }

    /// The child that owns the exchange; zero is the machine itself.
    #[must_use]
    pub const fn owner(self) -> u32 {
        ((self.0 >> 40) as u32) & Self::OWNERS
    }

    const fn with_owner(self, owner: u32) -> Self {
        Self((self.0 & !((Self::OWNERS as u64) << 40)) | (((owner & Self::OWNERS) as u64) << 40))
    }
}

impl core::fmt::Debug for EffectId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let side = if self.is_by_peer() { "peer" } else { "own" };
        match self.owner() {
            0 => write!(f, "{side}#{}", self.0 & Self::COUNT),
            owner => write!(f, "{side}#{owner}.{}", self.0 & Self::COUNT),
        }
    }
}

/// The queue behind [`Machine::poll_output`], and the mint of effect ids.
#[derive(Debug)]
pub struct Outbox<E> {
    queue: VecDeque<Output<E>>,
    minted: u64,
}

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            minted: 0,
        }
    }
}

impl<E> Outbox<E> {
    /// Queues the first step of something new and names it.
    pub fn open(&mut self, effect: Effect) -> EffectId {
        let id = EffectId::by_us(self.minted);
        self.minted += 1;
        self.queue.push_back(Output::Effect(id, effect));
        id
    }

    /// Queues the opening of an HTTP exchange.
    pub fn request(&mut self, request: http::Request) -> EffectId {
        self.open(Effect::Http(http::Out::Request(request)))
    }

    /// Queues a further step of an HTTP exchange, ours or a peer's.
    pub fn http(&mut self, id: EffectId, step: http::Out) {
        self.queue.push_back(Output::Effect(id, Effect::Http(step)));
    }

    /// Queues the end of an exchange that is no longer wanted.
    pub fn abort(&mut self, id: EffectId) {
        self.http(id, http::Out::Abort);
    }

    /// Queues something to know.
    pub fn event(&mut self, event: E) {
        self.queue.push_back(Output::Event(event));
    }

    /// Queues an effect under a name that is there already: what a [`Child`] stamped, or a further word about what was
    /// asked for before.
    pub fn forward(&mut self, id: EffectId, effect: Effect) {
        self.queue.push_back(Output::Effect(id, effect));
    }

    /// The oldest output, if any.
    pub fn pop(&mut self) -> Option<Output<E>> {
        self.queue.pop_front()
    }

    /// How many outputs wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Moves the effects of an inner machine into its parent's outbox, under the names that they have there, and hands on its
/// events. When it wants to be woken.
fn drain<M: Machine, E>(
    machine: &mut M,
    out: &mut Outbox<E>,
    mut on_event: impl FnMut(M::Event),
    name: impl Fn(EffectId) -> EffectId,
) -> Option<Time> {
    loop {
        match machine.poll_output() {
            Output::Effect(id, effect) => out.forward(name(id), effect),
            Output::Event(event) => on_event(event),
            Output::Idle(wake) => return wake,
        }
    }
}

/// A machine inside a machine.
///
/// The parent feeds it, drains it inside its own handler with [`Child::drain`], and never forwards its poll
/// function: what a child tells often becomes something else one level up.
#[derive(Debug)]
pub struct Child<M> {
    owner: u32,
    machine: M,
    wake: Option<Time>,
}

impl<M: Machine> Child<M> {
    /// Takes in `machine` as the child number `owner` of its parent: not zero, below 2^23, unique among the
    /// children the parent ever had, so that late answers to a dead child find nobody.
    #[must_use]
    pub fn new(owner: u32, machine: M) -> Self {
        debug_assert!(
            owner != 0 && owner <= EffectId::OWNERS,
            "a child's number has 23 bits and is not zero"
        );
        Self {
            owner,
            machine,
            wake: None,
        }
    }

    /// The child's number.
    pub(crate) const fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether the answer named `id` is for this child.
    #[must_use]
    pub const fn owns(&self, id: EffectId) -> bool {
        !id.is_by_peer() && id.owner() == self.owner
    }

    /// Feeds the child, if the input is its own; a [`Input::Tick`] is everybody's.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        if input.id().is_some_and(|id| !self.owns(id)) {
            return;
        }
        let input = input.renamed(|id| id.with_owner(0));
        self.machine.handle_input(now, input);
    }

    /// Moves the child's effects into the parent's outbox and hands its events to `on_event`.
    pub fn drain<E>(&mut self, out: &mut Outbox<E>, on_event: impl FnMut(M::Event)) {
        let owner = self.owner;
        self.wake = drain(&mut self.machine, out, on_event, |id| id.with_owner(owner));
    }

    /// When the child wants to be woken, as of its last drain.
    #[must_use]
    pub const fn wake(&self) -> Option<Time> {
        self.wake
    }

    /// The machine itself, for questions.
    pub const fn get(&self) -> &M {
        &self.machine
    }

    /// The machine itself, for commands. Drain the child afterwards.
    pub const fn get_mut(&mut self) -> &mut M {
        &mut self.machine
    }
}

/// A machine with children of its own inside a machine.
///
/// Its children keep their numbers, which are below [`Nested::OWN`]; its own exchanges and records bear that number. The
/// parent's other children come after it: [`ChildIds::beside`].
#[derive(Debug)]
pub struct Nested<M> {
    machine: M,
    wake: Option<Time>,
}

impl<M: Machine> Nested<M> {
    /// The number of the machine itself, above those of its children.
    pub const OWN: u32 = 1 << 22;

    /// Takes in `machine`.
    pub const fn new(machine: M) -> Self {
        Self {
            machine,
            wake: None,
        }
    }

    /// Whether the answer named `id` is for the machine or one of its children.
    #[must_use]
    pub const fn owns(&self, id: EffectId) -> bool {
        !id.is_by_peer() && id.owner() != 0 && id.owner() <= Self::OWN
    }

    /// Feeds the machine an input that it owns, or a tick.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        let inside = |id: EffectId| match id.owner() {
            Self::OWN => id.with_owner(0),
            _ => id,
        };
        let input = input.renamed(inside);
        self.machine.handle_input(now, input);
    }

    /// Moves the machine's effects into the parent's outbox and hands its events to `on_event`.
    pub fn drain<E>(&mut self, out: &mut Outbox<E>, on_event: impl FnMut(M::Event)) {
        self.wake = drain(&mut self.machine, out, on_event, |id| match id.owner() {
            0 => id.with_owner(Self::OWN),
            _ => id,
        });
    }

    /// When the machine wants to be woken, as of its last drain.
    #[must_use]
    pub const fn wake(&self) -> Option<Time> {
        self.wake
    }

    /// The machine itself, for questions.
    pub const fn get(&self) -> &M {
        &self.machine
    }

    /// The machine itself, for commands. Drain it afterwards.
    pub const fn get_mut(&mut self) -> &mut M {
        &mut self.machine
    }
}

/// Numbers for the children of a machine.
#[derive(Debug, Default)]
pub struct ChildIds(u32);

impl ChildIds {
    /// Numbers beside those of a [`Nested`] machine's children.
    #[must_use]
    pub const fn beside() -> Self {
        Self(1 << 22)
    }

    /// Takes in `machine` as the next child.
    pub fn adopt<M: Machine>(&mut self, machine: M) -> Child<M> {
        self.0 += 1;
        Child::new(self.0, machine)
    }
}

/// The earlier of two optional wake times.
#[must_use]
pub fn earlier(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}
