//! A network in a box: machines, links between them and virtual time.
//!
//! Nothing happens but in [`Net::run_until`] and its like, and there time jumps to whatever is due next. Links are
//! per server: [`Link`] says how long a step takes and when it breaks. [`Faults`] befall exchanges of the whole network.
//! Chance comes from one seed, so a run replays.
//!
//! ```
//! use std::time::Duration;
//! use livepeer_core::{http::{Method, Request, Url}, Time, trickle};
//! use livepeer_sim::{Caller, Net};
//!
//! let mut net = Net::new(Time::from_secs(1), [0; 32]);
//! let server = trickle::Server::new(net.now(), trickle::server::Config::default());
//! net.serve("host:1", server);
//! let caller = net.add(Caller::default());
//! let url = Url::parse("http://host:1/ai/trickle/none/0").unwrap();
//! let id = net.with(caller, |caller, _| caller.send(Request::new(Method::Get, url)));
//! net.run_for(Duration::from_secs(1));
//! assert_eq!(net.get(caller).answer(id).status, Some(404));
//! ```

mod link;
mod slot;
mod travel;

pub use link::{Faults, Link};

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Fault, In, Out};
use livepeer_core::money::Amount;
use livepeer_core::payment::Budget;
use livepeer_core::sign::SignRefused;
use livepeer_core::spend::Spend;
use livepeer_core::store::StoreFailed;
use livepeer_core::{Effect, EffectId, Input, Machine, Seed, Time};

use crate::purse::recall;
use crate::{Agenda, Dice, Key};
use link::Exchange;
use slot::{Erased, Slot};

/// Names a machine of the network, and its type.
pub struct Node<M> {
    index: usize,
    machine: PhantomData<fn() -> M>,
}

impl<M> Clone for Node<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Node<M> {}

impl<M> PartialEq for Node<M> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<M> Eq for Node<M> {}

impl<M> std::fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {}", self.index)
    }
}

#[derive(Debug)]
enum Arrival {
    /// At a machine itself.
    Input(usize, Input),
    /// At the key holder, the store or the purse of a machine, as it asked in one of its lives.
    Service(usize, u64, EffectId, Effect),
    /// Over an exchange: to the server if `there`.
    Step(u64, bool, In),
    /// Over an exchange: what was held back, in that direction.
    Held(u64, bool),
    /// The connection of an exchange breaks.
    Cut(u64),
}

/// See the [module](self).
pub struct Net {
    began: Time,
    now: Time,
    dice: Dice,
    nodes: Vec<Box<dyn Erased>>,
    names: BTreeMap<String, usize>,
    links: BTreeMap<String, Link>,
    /// The certificate that each client remembers of a server.
    pins: BTreeMap<(usize, String), u8>,
    /// Steps under way.
    under_way: Agenda<Arrival>,
    exchanges: BTreeMap<u64, Exchange>,
    /// Both ends of every exchange.
    ends: BTreeMap<(usize, EffectId), u64>,
    opened: u64,
    /// Faults that befall exchanges from now on.
    pub faults: Faults,
    /// Bytes a second that clients with a slow link take.
    slow: BTreeMap<usize, u64>,
    /// Whether everything is printed as it happens.
    pub trace: bool,
    /// How long a signature or a record takes.
    pub service_time: Duration,
    /// The most that a signature or a record may take beyond that.
    pub service_jitter: Duration,
    /// How many records stores said that they did not keep, as [`Faults::unkept`] wants it.
    pub store_failures: u32,
    /// The steps that machines took on their exchanges, if somebody listens.
    taps: BTreeMap<usize, Vec<Out>>,
}

impl Net {
    /// An empty network.
    #[must_use]
    pub fn new(now: Time, seed: Seed) -> Self {
        Self {
            began: now,
            now,
            dice: seed.into(),
            nodes: Vec::new(),
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            pins: BTreeMap::new(),
            under_way: Agenda::default(),
            exchanges: BTreeMap::new(),
            ends: BTreeMap::new(),
            opened: 0,
            faults: Faults::default(),
            slow: BTreeMap::new(),
            trace: false,
            service_time: Duration::from_micros(100),
            service_jitter: Duration::ZERO,
            store_failures: 0,
            taps: BTreeMap::new(),
        }
    }

    /// The network's time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Adds a machine that only calls.
    pub fn add<M: Machine + 'static>(&mut self, machine: M) -> Node<M> {
        let index = self.nodes.len();
        self.nodes.push(Box::new(Slot::new(machine)));
        self.drain(index);
        Node {
            index,
            machine: PhantomData,
        }
    }

    /// Adds a machine that is called at `authority`, `host:port`.
    pub fn serve<M: Machine + 'static>(&mut self, authority: &str, machine: M) -> Node<M> {
        let node = self.add(machine);
        self.names.insert(authority.to_owned(), node.index);
        node
    }

    /// Gives a machine a key to sign with; without one, signatures are refused.
    pub fn give_key<M: Machine + 'static>(&mut self, node: Node<M>, key: Key) {
        self.slot(node).key = Some(key);
    }

    /// Limits what a machine spends, over all its lives.
    pub fn limit<M: Machine + 'static>(&mut self, node: Node<M>, limits: Budget) {
        let slot = self.slot(node);
        (slot.limits, slot.purse) = (limits, None);
    }

    /// The amount that a machine has spent, over all its lives.
    #[must_use]
    pub fn spent<M: Machine + 'static>(&self, node: Node<M>) -> Amount {
        let slot = self.held(node);
        let purse = slot.purse.as_ref();
        purse.map_or_else(
            || recall(Budget::unlimited(), &slot.store).spent(),
            |purse| purse.budget().spent(),
        )
    }

    /// Lets the store of a machine fail at those of its writes, counted from zero. What it says it did not keep it did
    /// not keep.
    pub fn fail_store<M: Machine + 'static>(&mut self, node: Node<M>, writes: Range<u64>) {
        self.slot(node).failing = writes;
    }

    /// How many records a machine asked to be kept.
    #[must_use]
    pub fn writes<M: Machine + 'static>(&self, node: Node<M>) -> u64 {
        self.held(node).writes
    }

    /// How steps travel to and from a server.
    pub fn link(&mut self, authority: &str) -> &mut Link {
        self.links.entry(authority.to_owned()).or_default()
    }

    /// Lets a client take no more than that many bytes of answers a second.
    pub fn slow_down<M: Machine + 'static>(&mut self, node: Node<M>, rate: u64) {
        self.slow.insert(node.index, rate);
    }

    /// The steps that a machine has taken on its exchanges since this was asked last; none before the first time.
    pub fn tapped<M: Machine + 'static>(&mut self, node: Node<M>) -> Vec<Out> {
        std::mem::take(self.taps.entry(node.index).or_default())
    }

    /// A machine dies, for [`Net::restart`] to put another in its place: of the records on their way to its store some
    /// are kept.
    pub fn die<M: Machine + 'static>(&mut self, node: Node<M>) {
        let slot = self.slot(node);
        slot.life += 1;
        slot.purse = None;
        for record in std::mem::take(&mut slot.unsaved).into_values() {
            if self.dice.percent(50) {
                // Whether it was kept is told to nobody.
                let _ = self.slot(node).keep(record);
            }
        }
    }

    /// A machine dies, and another takes its place. Nothing that is under way reaches it, and peers learn a little
    /// later that their connections broke. What its store holds stays.
    pub fn restart<M: Machine + 'static>(&mut self, node: Node<M>, machine: M) {
        self.die(node);
        let slot = self.slot(node);
        slot.machine = machine;
        slot.events.clear();
        for key in self.exchanges.keys().copied().collect::<Vec<_>>() {
            for server in [false, true] {
                let end = self.exchanges.get_mut(&key).map(|one| *one.end(server));
                if let Some(Some(end)) = end.filter(|end| end.is_some_and(|of| of.0 == node.index))
                {
                    let at = self.now + self.latency(key);
                    self.fail(key, !server, at, at);
                    self.leave(key, server, end);
                }
            }
        }
        self.drain(node.index);
    }

    /// Breaks every exchange with a server that is open now.
    pub fn cut(&mut self, authority: &str) {
        let broken: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.authority == authority)
            .map(|(key, _)| *key)
            .collect();
        for key in broken {
            self.sever(key, &Fault::Broken("the link was cut".into()));
        }
    }

    /// A machine, for questions.
    #[must_use]
    pub fn get<M: Machine + 'static>(&self, node: Node<M>) -> &M {
        &self.held(node).machine
    }

    /// A machine, for commands.
    pub fn with<M: Machine + 'static, R>(
        &mut self,
        node: Node<M>,
        command: impl FnOnce(&mut M, Time) -> R,
    ) -> R {
        let now = self.now;
        let result = command(&mut self.slot(node).machine, now);
        self.drain(node.index);
        result
    }

    /// The oldest event of a machine that was not taken yet.
    pub fn event<M: Machine + 'static>(&mut self, node: Node<M>) -> Option<M::Event> {
        self.slot(node).events.pop_front()
    }

    /// All events of a machine that were not taken yet.
    pub fn events<M: Machine + 'static>(&mut self, node: Node<M>) -> Vec<M::Event> {
        self.slot(node).events.drain(..).collect()
    }

    /// The records that a machine keeps, by key.
    #[must_use]
    pub fn stored<M: Machine + 'static>(&self, node: Node<M>) -> &BTreeMap<String, Bytes> {
        &self.held(node).store
    }

    /// How many exchanges a machine has under way as a client.
    #[must_use]
    pub fn under_way<M: Machine + 'static>(&self, node: Node<M>) -> usize {
        let clients = self.exchanges.values().filter_map(|one| one.client);
        clients.filter(|client| client.0 == node.index).count()
    }

    /// How many exchanges were opened so far, those that reached nobody included.
    #[must_use]
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// How many exchanges are open.
    #[must_use]
    pub fn open_exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// Lets time pass up to `end`.
    pub fn run_until(&mut self, end: Time) {
        while self.step(end) {}
        self.now = self.now.max(end);
    }

    /// Lets that much time pass.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// Lets time pass while `going` says so, at most `patience`; false if it was still going then. Asked after every
    /// single step.
    pub fn run_while(
        &mut self,
        patience: Duration,
        mut going: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.now + patience;
        while going(self) {
            if !self.step(end) {
                self.now = end;
                return !going(self);
            }
        }
        true
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    fn held<M: Machine + 'static>(&self, node: Node<M>) -> &Slot<M> {
        self.nodes[node.index]
            .any()
            .downcast_ref()
            .expect("a node is of the type it was added with")
    }

    fn slot<M: Machine + 'static>(&mut self, node: Node<M>) -> &mut Slot<M> {
        self.nodes[node.index]
            .any_mut()
            .downcast_mut()
            .expect("a node is of the type it was added with")
    }

    /// Does the next thing that is due up to `end`. False if there is none; time stays where it is then.
    pub fn step(&mut self, end: Time) -> bool {
        let arrival = self.under_way.next();
        let wake = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((node.wake()?, index)))
            .min();
        match (arrival, wake) {
            (Some(at), wake) if at <= end && wake.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                if let Some(what) = self.under_way.pop() {
                    self.arrive(what);
                }
                true
            }
            (_, Some((due, index))) if due <= end => {
                self.now = self.now.max(due);
                self.input(index, Input::Tick);
                true
            }
            _ => false,
        }
    }

    fn later(&mut self, after: Duration, what: Arrival) {
        self.under_way.enter(self.now + after, what);
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        if self.trace {
            let mut text = what.to_string();
            text.truncate(200);
            println!("{:>9.3?} {text}", self.now.since(self.began));
        }
    }

    fn input(&mut self, index: usize, input: Input) {
        self.note(format_args!("{index} <- {input:?}"));
        self.nodes[index].input(self.now, input);
        self.drain(index);
        let (wake, now) = (self.nodes[index].wake(), self.now);
        assert!(
            wake.is_none_or(|wake| wake > now),
            "node {index} wants to be woken at {wake:?}, and it is {now:?} already"
        );
    }

    fn drain(&mut self, index: usize) {
        let mut effects = Vec::new();
        self.nodes[index].drain(&mut effects);
        for (id, effect) in effects {
            self.note(format_args!("{index} -> {id:?} {effect:?}"));
            self.perform(index, id, effect);
        }
    }

    fn perform(&mut self, node: usize, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(step) => {
                if let Some(tap) = self.taps.get_mut(&node) {
                    tap.push(step.clone());
                }
                self.http(node, id, step);
            }
            Effect::Spend(change @ (Spend::Cancel | Spend::GiveBack { .. })) => {
                self.nodes[node].spend(self.now, id, change, true);
            }
            effect => {
                let jitter = self.service_jitter.as_nanos() as u64;
                let jitter = match jitter {
                    0 => 0,
                    most => self.dice.below(most),
                };
                let takes = self.service_time + Duration::from_nanos(jitter);
                let life = self.nodes[node].life();
                if let Effect::Store(record) = &effect {
                    self.nodes[node].unsaved().insert(id, record.clone());
                }
                self.later(takes, Arrival::Service(node, life, id, effect));
            }
        }
    }

    /// Does what a machine asked its own side for, unless it has died since.
    fn serve_own(&mut self, node: usize, life: u64, id: EffectId, effect: Effect) {
        if self.nodes[node].life() != life {
            return;
        }
        let input = match effect {
            Effect::Store(record) => {
                self.nodes[node].unsaved().remove(&id);
                let fails = self.faults.befalls(self.faults.unkept, &mut self.dice);
                let kept = match fails && !self.dice.percent(30) {
                    true => Ok(()),
                    false => self.nodes[node].keep(record),
                };
                let answer = match fails {
                    true => Err(StoreFailed("the disk is full".into())),
                    false => kept,
                };
                self.store_failures += u32::from(fails);
                Input::Stored(id, answer)
            }
            Effect::Sign(digest) => {
                let signed = self.nodes[node].key().map(|key| key.sign(digest));
                Input::Signed(id, signed.ok_or_else(|| SignRefused("no key".into())))
            }
            Effect::Spend(change) => {
                let fails = self.faults.befalls(self.faults.unkept, &mut self.dice);
                self.store_failures += u32::from(fails);
                let now = self.now;
                match self.nodes[node].spend(now, id, change, !fails) {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Effect::Http(_) => return,
        };
        self.input(node, input);
    }
}
