//! The machine behind its lock: feeding, draining, and what is done once the lock is free.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use livepeer_core::http::{self, In, Out};
use livepeer_core::money::Amount;
use livepeer_core::spend::{Spend, SpendRefused};
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::{Digest, Effect, EffectId, Input, Machine, Output, Time};
use tracing::{error, trace};

use crate::keys::Pending;
use crate::lane::{Exchange, Lane, PeerSink, Sink};
use crate::lock;
use crate::rt::Runtime;
use crate::services::Services;
use crate::signal::{Signal, Stop, enlist};
use crate::trace::{InStep, OutStep};

/// While this many events wait for the owner, no exchange of the machine reads body bytes from the network.
pub const MAX_EVENTS: usize = 64;

/// At most this many records of a machine wait for the store; further ones fail at once, so that a store that hangs
/// holds no more.
pub const MAX_RECORDS: usize = 1 << 16;

/// Reading starts again when so few events are left.
const FEW_EVENTS: usize = MAX_EVENTS / 2;

/// A machine that can be driven: it and its events may move between threads.
pub trait Drivable: Machine<Event: Send> + Send + 'static {}

impl<M: Machine<Event: Send> + Send + 'static> Drivable for M {}

pub(crate) struct Engine<M: Drivable, R: Runtime> {
    me: Weak<Self>,
    services: Services<R>,
    /// Whether [`MAX_EVENTS`] events wait: read without the lock by exchanges about to read.
    full: AtomicBool,
    state: Mutex<State<M>>,
    /// Takes the events in place, if the owner said so.
    taker: OnceLock<Taker<M::Event>>,
    /// How often events were brought to the taker since it was done with all.
    brought: AtomicUsize,
}

type Taker<E> = Box<dyn Fn(E) + Send + Sync>;

struct State<M: Drivable> {
    machine: M,
    lanes: BTreeMap<EffectId, Arc<Lane>>,
    events: VecDeque<M::Event>,
    /// Tasks that wait for events.
    listeners: Vec<Waker>,
    /// Exchanges that wait for the owner to take events.
    stalled: Vec<Arc<Lane>>,
    /// Raised on close.
    servers: Vec<Weak<Signal>>,
    records: VecDeque<(EffectId, Record)>,
    storing: bool,
    /// Amounts that are being counted, and still wanted.
    taking: BTreeSet<EffectId>,
    /// The time at which the machine wants to be woken.
    wake: Option<Time>,
    /// The time at which the timer task will look next; later wake times are left to it.
    armed: Option<Time>,
    timer: Option<Waker>,
    /// How many exchanges peers have opened.
    peers: u64,
    closed: bool,
}

/// Work that remains to be done when the lock is released.
#[derive(Default)]
struct Todo {
    wakes: Wakes,
    starts: Vec<(Exchange, http::Request)>,
    signs: Vec<(EffectId, Digest)>,
    takes: Vec<(EffectId, Amount, Option<Record>)>,
    gives: Vec<(Time, Amount)>,
    store: bool,
    /// Records for which there is no room.
    unstored: Vec<EffectId>,
    /// Whether the machine told of something.
    told: bool,
}

/// Wakers to wake. Few in almost all cases, and then nothing is allocated.
#[derive(Default)]
struct Wakes {
    few: [Option<Waker>; 4],
    many: Vec<Waker>,
}

impl Wakes {
    fn push(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        match self.few.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(waker),
            None => self.many.push(waker),
        }
    }

    fn wake(self) {
        self.few
            .into_iter()
            .flatten()
            .chain(self.many)
            .for_each(Waker::wake);
    }
}

impl<M: Drivable, R: Runtime> Engine<M, R> {
    pub(crate) fn start(services: Services<R>, machine: M) -> Arc<Self> {
        let engine = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            services,
            full: AtomicBool::new(false),
            state: Mutex::new(State {
                machine,
                lanes: BTreeMap::new(),
                events: VecDeque::new(),
                listeners: Vec::new(),
                stalled: Vec::new(),
                servers: Vec::new(),
                records: VecDeque::new(),
                storing: false,
                taking: BTreeSet::new(),
                wake: None,
                armed: None,
                timer: None,
                peers: 0,
                closed: false,
            }),
            taker: OnceLock::new(),
            brought: AtomicUsize::new(0),
        });
        engine.run(|_, _| ());
        engine
            .services
            .runtime
            .spawn(Arc::clone(&engine).keep_time());
        engine
    }

    /// Runs `f` on the machine and performs what follows.
    pub(crate) fn run<T>(&self, f: impl FnOnce(&mut M, Time) -> T) -> T {
        self.run_with(|state, now| f(&mut state.machine, now))
    }

    fn run_with<T>(&self, f: impl FnOnce(&mut State<M>, Time) -> T) -> T {
        self.run_on(lock(&self.state), f)
    }

    fn run_on<T>(
        &self,
        mut state: MutexGuard<'_, State<M>>,
        f: impl FnOnce(&mut State<M>, Time) -> T,
    ) -> T {
        let mut todo = Todo::default();
        let now = self.services.now();
        let result = f(&mut state, now);
        if !state.closed {
            self.drain(&mut state, &mut todo);
        }
        drop(state);
        self.perform(todo);
        result
    }

    fn input(&self, input: Input) {
        self.run_with(|state, now| state.machine.handle_input(now, input));
    }

    fn drain(&self, state: &mut State<M>, todo: &mut Todo) {
        loop {
            match state.machine.poll_output() {
                Output::Effect(id, Effect::Http(step)) => self.http(state, id, step, todo),
                Output::Effect(id, Effect::Sign(digest)) => {
                    trace!(?id, "out: sign");
                    todo.signs.push((id, digest));
                }
                Output::Effect(id, Effect::Store(record)) => {
                    trace!(?id, key = record.key, "out: store");
                    if state.records.len() < MAX_RECORDS {
                        state.records.push_back((id, record));
                        todo.store |= !std::mem::replace(&mut state.storing, true);
                    } else {
                        todo.unstored.push(id);
                    }
                }
                Output::Effect(id, Effect::Spend(Spend::Take { value, record })) => {
                    trace!(?id, "out: spend");
                    state.taking.insert(id);
                    todo.takes.push((id, value, record));
                }
                Output::Effect(id, Effect::Spend(Spend::Cancel)) => {
                    trace!(?id, "out: spend no more");
                    state.taking.remove(&id);
                }
                Output::Effect(_, Effect::Spend(Spend::GiveBack { value, at })) => {
                    trace!("out: give back");
                    todo.gives.push((at, value));
                }
                Output::Event(event) => {
                    trace!(of = std::any::type_name::<M>(), "out: event");
                    state.events.push_back(event);
                    todo.told = true;
                    if state.events.len() >= MAX_EVENTS {
                        self.full.store(true, Ordering::Release);
                    }
                    for waker in state.listeners.drain(..) {
                        todo.wakes.push(Some(waker));
                    }
                }
                Output::Idle(wake) => {
                    state.wake = wake;
                    if wake.is_some_and(|wake| state.armed.is_none_or(|armed| wake < armed)) {
                        todo.wakes.push(state.timer.take());
                    }
                    return;
                }
            }
        }
    }

    fn http(&self, state: &mut State<M>, id: EffectId, step: Out, todo: &mut Todo) {
        trace!(?id, "out: {}", OutStep(&step));
        let lane = state.lanes.get(&id);
        match (step, lane) {
            (Out::Request(request), None) => {
                let lane = Arc::new(Lane::default());
                state.lanes.insert(id, Arc::clone(&lane));
                if let Some(engine) = self.me.upgrade() {
                    let sink: Arc<dyn Sink> = engine;
                    todo.starts.push((Exchange { id, lane, sink }, request));
                }
            }
            (Out::Reply(reply), Some(lane)) => todo.wakes.push(lane.reply(reply)),
            (Out::Data(data), Some(lane)) => todo.wakes.push(lane.push(data)),
            (Out::End(trailers), Some(lane)) => todo.wakes.push(lane.end(trailers)),
            (Out::Report, Some(lane)) => todo.wakes.push(lane.await_report()),
            (Out::Pause, Some(lane)) => todo.wakes.push(lane.set_paused(true)),
            (Out::Resume, Some(lane)) => todo.wakes.push(lane.set_paused(false)),
            (Out::Abort, Some(_)) => {
                let lane = state.lanes.remove(&id);
                for waker in lane.into_iter().flat_map(|lane| lane.abort()) {
                    todo.wakes.push(waker);
                }
            }
            // The exchange ended while the machine spoke, or the id is taken: nothing to do.
            (_, _) => {}
        }
    }

    fn perform(&self, todo: Todo) {
        todo.wakes.wake();
        for (exchange, request) in todo.starts {
            let task = self.services.client.exchange(exchange, request);
            self.services.runtime.spawn(task);
        }
        let Some(me) = self.me.upgrade() else { return };
        // Before anything is signed: a store works in a thread of its own meanwhile.
        for (id, value, record) in todo.takes {
            let me = Arc::clone(&me);
            self.begin(Box::pin(me.take(id, value, record)));
        }
        for (id, digest) in todo.signs {
            let me = Arc::clone(&me);
            self.begin(Box::pin(async move {
                let answer = me.services.key_holder.sign(digest).await;
                trace!(?id, ok = answer.is_ok(), "in: signed");
                me.input(Input::Signed(id, answer));
            }));
        }
        if let Some(limit) = &self.services.limit {
            for (at, value) in todo.gives {
                limit.give_back(at, &value);
            }
        }
        if todo.store {
            self.begin(Box::pin(me.store_records()));
        }
        for id in todo.unstored {
            trace!(?id, ok = false, "in: stored");
            let why = StoreFailed("too many records wait for it".into());
            self.input(Input::Stored(id, Err(why)));
        }
        if todo.told {
            self.hand_over();
        }
    }

    /// Has events taken in place from now on.
    pub(crate) fn take_in_place(&self, taker: Taker<M::Event>) {
        if self.taker.set(taker).is_ok() {
            self.hand_over();
        }
    }

    /// Hands the events to their taker, in order and one at a time. Whoever finds somebody at it, perhaps themselves,
    /// leaves to them what they brought.
    fn hand_over(&self) {
        let Some(taker) = self.taker.get() else {
            return;
        };
        if self.brought.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let mut brought = 1;
        loop {
            while let Poll::Ready(Some(event)) = self.poll_event(None) {
                taker(event);
            }
            match self
                .brought
                .compare_exchange(brought, 0, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(more) => brought = more,
            }
        }
    }

    /// Runs a task, here and now if it does not have to wait for anything.
    fn begin(&self, mut task: Pending<'static, ()>) {
        let mut cx = Context::from_waker(Waker::noop());
        if Pin::new(&mut task).poll(&mut cx).is_pending() {
            self.services.runtime.spawn(task);
        }
    }

    /// Has an amount counted, and its record stored. One that is not wanted any more is given back.
    async fn take(self: Arc<Self>, id: EffectId, value: Amount, record: Option<Record>) {
        let answer = match (&self.services.limit, record) {
            (Some(limit), record) => limit.take(value.clone(), record).await,
            (None, None) => Ok(self.services.now()),
            (None, Some(record)) => match self.services.store.put(vec![record]).await {
                Ok(()) => Ok(self.services.now()),
                Err(error) => Err(SpendRefused::NotStored(not_stored(&error))),
            },
        };
        trace!(?id, ok = answer.is_ok(), "in: spent");
        let counted = answer.as_ref().ok().copied();
        let wanted = self.run_with(|state, now| {
            let wanted = state.taking.remove(&id) && !state.closed;
            if wanted {
                state.machine.handle_input(now, Input::Spent(id, answer));
            }
            wanted
        });
        if let (false, Some(at), Some(limit)) = (wanted, counted, &self.services.limit) {
            limit.give_back(at, &value);
        }
    }

    /// Stores what is queued, in order, until nothing is.
    async fn store_records(self: Arc<Self>) {
        loop {
            let batch = {
                let mut state = lock(&self.state);
                if state.records.is_empty() {
                    state.storing = false;
                    return;
                }
                std::mem::take(&mut state.records)
            };
            let (ids, records): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let answer = self.services.store.put(records).await;
            // What was not stored is not spoken of: the machine decides what that means.
            let answer = answer.map_err(|error| not_stored(&error));
            for id in ids {
                trace!(?id, ok = answer.is_ok(), "in: stored");
                self.input(Input::Stored(id, answer.clone()));
            }
        }
    }

    /// Ticks the machine when it wants to be woken.
    async fn keep_time(self: Arc<Self>) {
        let mut sleep: Option<Pin<Box<R::Sleep>>> = None;
        std::future::poll_fn(|cx| {
            loop {
                let mut state = lock(&self.state);
                if state.closed {
                    return Poll::Ready(());
                }
                let now = self.services.now();
                if state.wake.is_some_and(|wake| wake <= now) {
                    trace!("in: tick");
                    let mut todo = Todo::default();
                    state.armed = None;
                    state.machine.handle_input(now, Input::Tick);
                    self.drain(&mut state, &mut todo);
                    drop(state);
                    sleep = None;
                    self.perform(todo);
                    // A turn for the other tasks, should the machine want to be woken again at once.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match (state.wake, state.armed) {
                    (None, _) => {
                        state.armed = None;
                        sleep = None;
                    }
                    // A later wake time waits for the earlier alarm, which then sets the next one.
                    (Some(wake), Some(armed)) if armed <= wake && sleep.is_some() => {}
                    (Some(wake), _) => {
                        state.armed = Some(wake);
                        sleep = Some(Box::pin(self.services.runtime.sleep_until(wake)));
                    }
                }
                state.timer = Some(cx.waker().clone());
                drop(state);
                let Some(alarm) = &mut sleep else {
                    return Poll::Pending;
                };
                std::task::ready!(alarm.as_mut().poll(cx));
                sleep = None;
                lock(&self.state).armed = None;
            }
        })
        .await;
    }

    pub(crate) fn poll_event(&self, cx: Option<&Context<'_>>) -> Poll<Option<M::Event>> {
        let mut state = lock(&self.state);
        let Some(event) = state.events.pop_front() else {
            if state.closed {
                return Poll::Ready(None);
            }
            if let Some(cx) = cx {
                enlist(&mut state.listeners, cx);
            }
            return Poll::Pending;
        };
        if state.events.len() == FEW_EVENTS && self.full.swap(false, Ordering::AcqRel) {
            let stalled = std::mem::take(&mut state.stalled);
            drop(state);
            for waker in stalled.iter().filter_map(|lane| lane.unstall()) {
                waker.wake();
            }
        }
        Poll::Ready(Some(event))
    }

    pub(crate) fn stop_with(&self, signal: &Arc<Signal>) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            signal.raise(Stop::Now);
        } else {
            state.servers.retain(|server| server.strong_count() > 0);
            state.servers.push(Arc::downgrade(signal));
        }
    }

    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let lanes = std::mem::take(&mut state.lanes);
        let servers = std::mem::take(&mut state.servers);
        let mut wakes = Wakes::default();
        wakes.push(state.timer.take());
        for waker in state.listeners.drain(..) {
            wakes.push(Some(waker));
        }
        state.stalled.clear();
        state.records.clear();
        drop(state);
        for waker in lanes.values().flat_map(|lane| lane.abort()) {
            wakes.push(waker);
        }
        for server in servers.iter().filter_map(Weak::upgrade) {
            server.raise(Stop::Now);
        }
        wakes.wake();
    }
}

impl<M: Drivable> State<M> {
    fn step(&mut self, now: Time, id: EffectId, lane: &Lane, step: Option<In>, last: bool) {
        // An exchange may have something to say just as the machine gives it up (`an_abort_closes_the_connection`).
        if self.closed || lane.is_aborted() {
            return;
        }
        if last {
            self.lanes.remove(&id);
        }
        let sent = lane.take_unreported();
        for step in (sent > 0).then_some(In::Sent(sent)).into_iter().chain(step) {
            trace!(?id, "in: {}", InStep(&step));
            self.machine.handle_input(now, Input::Http(id, step));
        }
    }
}

impl<M: Drivable, R: Runtime> Engine<M, R> {
    fn step(&self, id: EffectId, lane: &Lane, step: Option<In>, last: bool) {
        self.run_with(|state, now| state.step(now, id, lane, step, last));
    }
}

impl<M: Drivable, R: Runtime> Sink for Engine<M, R> {
    fn feed(&self, id: EffectId, lane: &Lane, step: In) {
        self.step(id, lane, Some(step), false);
    }

    fn feed_last(&self, id: EffectId, lane: &Lane, step: In) {
        self.step(id, lane, Some(step), true);
    }

    fn report(&self, id: EffectId, lane: &Lane) {
        if lane.has_unreported() {
            self.step(id, lane, None, false);
        }
    }

    fn report_early(&self, id: EffectId, lane: &Lane) {
        if let Ok(state) = self.state.try_lock() {
            self.run_on(state, |state, now| state.step(now, id, lane, None, false));
        }
    }

    fn forget(&self, id: EffectId, lane: &Lane) {
        self.step(id, lane, None, true);
    }

    fn has_room(&self, lane: &Arc<Lane>) -> bool {
        if !self.full.load(Ordering::Acquire) {
            return true;
        }
        let mut state = lock(&self.state);
        // Looked at again under the lock, under which it is cleared.
        if !self.full.load(Ordering::Acquire) {
            return true;
        }
        if lane.stall() {
            state.stalled.push(Arc::clone(lane));
        }
        false
    }
}

impl<M: Drivable, R: Runtime> PeerSink for Engine<M, R> {
    fn open(&self, request: http::Request, bare: bool) -> Option<Exchange> {
        let sink: Arc<dyn Sink> = self.me.upgrade()?;
        let lane = Arc::new(Lane::default());
        let id = self.run_with(|state, now| {
            if state.closed {
                return None;
            }
            let id = EffectId::by_peer(state.peers);
            state.peers += 1;
            state.lanes.insert(id, Arc::clone(&lane));
            let end = bare.then(|| In::End(http::Headers::new()));
            for step in std::iter::once(In::Request(request)).chain(end) {
                trace!(?id, "in: {}", InStep(&step));
                state.machine.handle_input(now, Input::Http(id, step));
            }
            Some(id)
        })?;
        Some(Exchange { id, lane, sink })
    }
}

fn not_stored(error: &std::io::Error) -> StoreFailed {
    error!(%error, "records were not stored");
    StoreFailed(error.to_string())
}
