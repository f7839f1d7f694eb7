//! A network in a box: machines, links between them and virtual time.
//!
//! Nothing happens but in [`Net::run_until`] and its like, and there time jumps to whatever is due next. Links are
//! per server: [`Link`] says how long a step takes and when it breaks. Chance comes from one seed, so a run replays.
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

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Out};
use livepeer_core::sign::SignRefused;
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Rng, Seed, Time};

use crate::{Agenda, Key};

/// At most this many steps while time stands still; a machine that takes more spins.
const MAX_STEPS_AT_ONCE: u32 = 1_000_000;

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

impl<M> std::fmt::Debug for Node<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {}", self.index)
    }
}

/// How steps travel to a server and back.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// A step is under way at least this long.
    pub latency: Duration,
    /// The most that a step may be under way beyond that; steps of one exchange stay in order.
    pub jitter: Duration,
    /// The number of steps, of a million, that break their exchange.
    pub breaks_per_million: u32,
    /// New exchanges fail.
    pub down: bool,
}

impl Default for Link {
    /// A millisecond, nothing breaks.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            breaks_per_million: 0,
            down: false,
        }
    }
}

/// A direction of an exchange.
#[derive(Debug, Default)]
struct Way {
    /// The last step arrives no earlier than the one before.
    last: Time,
    /// The receiver wants no bytes now; what arrives waits.
    paused: bool,
    held: VecDeque<In>,
    /// Nothing more goes this way.
    over: bool,
}

#[derive(Debug)]
struct Exchange {
    client: (usize, EffectId),
    server: (usize, EffectId),
    authority: String,
    there: Way,
    back: Way,
}

#[derive(Debug)]
enum Arrival {
    /// At a machine itself.
    Input(usize, Input),
    /// Over an exchange: to the server if `there`.
    Step(u64, bool, In),
    /// Over an exchange: what was held back, in that direction.
    Held(u64, bool),
}

/// See the [module](self).
pub struct Net {
    now: Time,
    rng: Rng,
    nodes: Vec<Box<dyn Erased>>,
    names: BTreeMap<String, usize>,
    links: BTreeMap<String, Link>,
    /// Steps under way.
    under_way: Agenda<Arrival>,
    exchanges: BTreeMap<u64, Exchange>,
    /// Both ends of every exchange.
    ends: BTreeMap<(usize, EffectId), u64>,
    opened: u64,
    /// How long a signature or a record takes.
    pub service_time: Duration,
}

impl Net {
    /// An empty network.
    #[must_use]
    pub fn new(now: Time, seed: Seed) -> Self {
        Self {
            now,
            rng: Rng::new(seed),
            nodes: Vec::new(),
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            under_way: Agenda::default(),
            exchanges: BTreeMap::new(),
            ends: BTreeMap::new(),
            opened: 0,
            service_time: Duration::from_micros(100),
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
        self.nodes.push(Box::new(Slot {
            machine,
            events: VecDeque::new(),
            key: None,
            store: BTreeMap::new(),
            writes: 0,
            failing: 0..0,
            wake: None,
        }));
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

    fn arrive(&mut self, what: Arrival) {
        match what {
            Arrival::Input(node, input) => self.input(node, input),
            Arrival::Step(key, there, step) => {
                let Some(way) = self.way(key, there) else {
                    return;
                };
                let body = matches!(step, In::Data(_) | In::End(_));
                if body && (way.paused || !way.held.is_empty()) {
                    way.held.push_back(step);
                } else {
                    self.deliver(key, there, step);
                }
            }
            Arrival::Held(key, there) => {
                while let Some(way) = self.way(key, there) {
                    if way.paused {
                        return;
                    }
                    let Some(step) = way.held.pop_front() else {
                        return;
                    };
                    self.deliver(key, there, step);
                }
            }
        }
    }

    fn deliver(&mut self, key: u64, there: bool, step: In) {
        let Some(exchange) = self.exchanges.get(&key) else {
            return;
        };
        let (to, from) = if there {
            (exchange.server, exchange.client)
        } else {
            (exchange.client, exchange.server)
        };
        let taken = match &step {
            In::Data(bytes) => bytes.len(),
            _ => 0,
        };
        let last = matches!(step, In::End(_)) && !there;
        self.input(to.0, Input::Http(to.1, step));
        if taken > 0 {
            // A transport without a buffer: bytes are sent when they are there.
            self.input(from.0, Input::Http(from.1, In::Sent(taken)));
        }
        if last {
            // The answer is complete; what is left of the request is of no interest.
            self.close(key);
        }
    }

    fn close(&mut self, key: u64) {
        if let Some(exchange) = self.exchanges.remove(&key) {
            self.ends.remove(&exchange.client);
            self.ends.remove(&exchange.server);
        }
    }

    /// Both sides learn that it broke.
    fn sever(&mut self, key: u64, fault: &Fault) {
        let Some(exchange) = self.exchanges.get(&key) else {
            return;
        };
        let (client, server) = (exchange.client, exchange.server);
        self.close(key);
        for (node, id) in [client, server] {
            let input = Input::Http(id, In::Failed(fault.clone()));
            self.later(Duration::ZERO, Arrival::Input(node, input));
        }
    }

    fn later(&mut self, after: Duration, what: Arrival) {
        self.under_way.enter(self.now + after, what);
    }

    fn input(&mut self, index: usize, input: Input) {
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
            self.perform(index, id, effect);
        }
    }

    fn perform(&mut self, node: usize, id: EffectId, effect: Effect) {
        let input = match effect {
            Effect::Http(step) => return self.http(node, id, step),
            Effect::Sign(digest) => Input::Signed(
                id,
                self.nodes[node]
                    .key()
                    .map(|key| key.sign(digest))
                    .ok_or_else(|| SignRefused("no key".into())),
            ),
            Effect::Store(record) => Input::Stored(id, self.nodes[node].keep(record)),
        };
        self.later(self.service_time, Arrival::Input(node, input));
    }

    fn http(&mut self, node: usize, id: EffectId, step: Out) {
        if let Out::Request(request) = step {
            return self.open(node, id, request);
        }
        let Some(key) = self.ends.get(&(node, id)).copied() else {
            return;
        };
        let Some(exchange) = self.exchanges.get_mut(&key) else {
            return;
        };
        let there = exchange.client == (node, id);
        match step {
            // What is taken is reported at once.
            Out::Request(_) | Out::Report => {}
            Out::Reply(mut head) => {
                let body = std::mem::replace(&mut head.body, Body::Stream);
                self.travel(key, there, In::Reply(head));
                self.body(key, there, body);
            }
            Out::Data(bytes) => self.travel(key, there, In::Data(bytes)),
            Out::End(trailers) => self.travel(key, there, In::End(trailers)),
            Out::Abort => {
                let (node, id) = if there {
                    exchange.server
                } else {
                    exchange.client
                };
                self.close(key);
                let fault = In::Failed(Fault::Broken("the peer gave up".into()));
                self.later(Duration::ZERO, Arrival::Input(node, Input::Http(id, fault)));
            }
            // Who pauses is who receives: the other way.
            Out::Pause if there => exchange.back.paused = true,
            Out::Pause => exchange.there.paused = true,
            Out::Resume => {
                if let Some(way) = self.way(key, !there) {
                    way.paused = false;
                }
                self.later(Duration::ZERO, Arrival::Held(key, !there));
            }
        }
    }

    fn way(&mut self, key: u64, there: bool) -> Option<&mut Way> {
        let exchange = self.exchanges.get_mut(&key)?;
        Some(if there {
            &mut exchange.there
        } else {
            &mut exchange.back
        })
    }

    fn open(&mut self, node: usize, id: EffectId, mut request: livepeer_core::http::Request) {
        let authority = request.url.authority();
        let link = self.links.get(&authority).copied().unwrap_or_default();
        let server = match self.names.get(&authority) {
            Some(server) if !link.down => *server,
            _ => {
                let fault = Fault::Connect(format!("nobody listens at {authority}"));
                let input = Input::Http(id, In::Failed(fault));
                return self.later(link.latency, Arrival::Input(node, input));
            }
        };
        let key = self.opened;
        self.opened += 1;
        let at_server = EffectId::by_peer(key);
        self.exchanges.insert(
            key,
            Exchange {
                client: (node, id),
                server: (server, at_server),
                authority,
                there: Way::default(),
                back: Way::default(),
            },
        );
        self.ends.insert((node, id), key);
        self.ends.insert((server, at_server), key);
        let body = std::mem::replace(&mut request.body, Body::Stream);
        self.travel(key, true, In::Request(request));
        self.body(key, true, body);
    }

    fn body(&mut self, key: u64, there: bool, body: Body) {
        match body {
            Body::Stream => return,
            Body::Full(bytes) if !bytes.is_empty() => self.travel(key, there, In::Data(bytes)),
            _ => {}
        }
        self.travel(key, there, In::End(Headers::new()));
    }

    /// A step goes on its way.
    fn travel(&mut self, key: u64, there: bool, step: In) {
        let Some(exchange) = self.exchanges.get(&key) else {
            return;
        };
        let link = self
            .links
            .get(&exchange.authority)
            .copied()
            .unwrap_or_default();
        if link.breaks_per_million > 0
            && self.rng.below(1_000_000) < u64::from(link.breaks_per_million)
        {
            let fault = Fault::Broken("the link broke".into());
            return self.sever(key, &fault);
        }
        let jitter = u64::try_from(link.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(self.rng.below(jitter.saturating_add(1)));
        let soonest = self.now + link.latency + jitter;
        let Some(way) = self.way(key, there) else {
            return;
        };
        if way.over {
            return;
        }
        way.over = matches!(step, In::End(_));
        way.last = way.last.max(soonest);
        let at = way.last;
        self.under_way.enter(at, Arrival::Step(key, there, step));
    }
}

/// A machine of any type, with what the outside keeps for it.
trait Erased {
    fn input(&mut self, now: Time, input: Input);
    fn drain(&mut self, effects: &mut Vec<(EffectId, Effect)>);
    fn wake(&self) -> Option<Time>;
    fn key(&self) -> Option<&Key>;
    fn keep(&mut self, record: Record) -> Result<(), StoreFailed>;
    fn any(&self) -> &dyn Any;
    fn any_mut(&mut self) -> &mut dyn Any;
}

struct Slot<M: Machine> {
    machine: M,
    events: VecDeque<M::Event>,
    key: Option<Key>,
    store: BTreeMap<String, Bytes>,
    writes: u64,
    /// The writes at which the store fails.
    failing: Range<u64>,
    wake: Option<Time>,
}

impl<M: Machine + 'static> Erased for Slot<M>
where
    M::Event: 'static,
{
    fn input(&mut self, now: Time, input: Input) {
        self.machine.handle_input(now, input);
    }

    fn drain(&mut self, effects: &mut Vec<(EffectId, Effect)>) {
        for _ in 0..MAX_STEPS_AT_ONCE {
            match self.machine.poll_output() {
                Output::Effect(id, effect) => effects.push((id, effect)),
                Output::Event(event) => self.events.push_back(event),
                Output::Idle(wake) => {
                    self.wake = wake;
                    return;
                }
            }
        }
        panic!("a machine does not stop to speak");
    }

    fn wake(&self) -> Option<Time> {
        self.wake
    }

    fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    fn keep(&mut self, record: Record) -> Result<(), StoreFailed> {
        let write = self.writes;
        self.writes += 1;
        if self.failing.contains(&write) {
            return Err(StoreFailed("the disk is full".into()));
        }
        match record.value {
            Some(value) => self.store.insert(record.key, value),
            None => self.store.remove(&record.key),
        };
        Ok(())
    }

    fn any(&self) -> &dyn Any {
        self
    }

    fn any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
