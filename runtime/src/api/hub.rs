//! Machines that do many jobs at a time, shared by the jobs that agree on what is wanted, orchestrators and payer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::chain::ChainView;
use livepeer_core::discovery::{self, Combine, Origin, Source};
use livepeer_core::http::Url;
use livepeer_core::pool::Offered;
use livepeer_core::signers::SignerHealth;

use super::Error;
use super::find::discover;
use crate::{Drivable, Driver, Handle, Runtime, lock};

/// At most this many machines of a sort are kept, one for each kind of job; of more, the idle one that has waited longest
/// is closed.
const MAX_MACHINES: usize = 64;

/// A machine without a job for this long is closed when the next job begins.
const IDLE_FOR: Duration = Duration::from_secs(10 * 60);

/// Chunks of a stream that wait for their reader, at most; then its orchestrator is held back.
const MAX_CHUNKS: usize = 64;

/// A stream goes on once so few chunks wait.
const FEW_CHUNKS: usize = 16;

/// Bytes of a stream's chunks that wait for their reader, at most, beside one last chunk.
const MAX_BYTES: usize = 1 << 20;

/// A stream goes on once so few bytes wait.
const FEW_BYTES: usize = MAX_BYTES / 4;

/// Bytes that wait for all readers of a machine's streams, at most; beyond, each stream that brings more is held back
/// until its own reader has taken all.
const MAX_TOTAL: usize = 64 << 20;

/// A machine that does many jobs at a time.
pub(super) trait Jobs: Drivable {
    /// The settings that decide which machine does a job.
    type Kind: Clone + PartialEq + Send;
    /// The name of a job.
    type Id: Copy + Ord + Send + Sync;
    /// An event of a job.
    type News: Send;

    /// The meaning of an event.
    fn told(event: Self::Event) -> Told<Self::Id, Self::News>;

    /// The event of a job that ends because everything does.
    fn closed() -> Self::News;

    /// Whether an event is the last one of its job.
    fn is_last(news: &Self::News) -> bool;

    /// The bytes of a chunk; other events are few and small, but for the one that ends a job.
    fn bytes(news: &Self::News) -> usize;

    /// Makes orchestrators known.
    fn offer(&mut self, now: Time, found: Vec<Offered>);

    /// Makes orchestrators known, as all there are.
    fn replace(&mut self, now: Time, found: Vec<Offered>);

    /// Ends a job without an event.
    fn cancel(&mut self, now: Time, id: Self::Id);

    /// Holds back the stream of a job, or lets it go on.
    fn hold(&mut self, now: Time, id: Self::Id, held: bool);

    /// Takes a new reading of the chain.
    fn set_chain(&mut self, now: Time, view: ChainView);

    /// Ends everything.
    fn close(&mut self, now: Time);
}

/// The meaning of an event of [`Jobs`].
pub(super) enum Told<I, N> {
    /// Find orchestrators.
    Find,
    /// News of a job.
    Of(I, N),
    /// How signers have been, which is for all.
    Signers(SignerHealth),
    /// Nothing for an application.
    Nothing,
}

/// The machines of one sort, those that were used last at the end.
pub(super) struct Machines<M: Jobs, R: Runtime>(Mutex<Vec<Kept<M, R>>>);

/// A machine, what it is for, and when a job last began.
type Kept<M, R> = (<M as Jobs>::Kind, Time, Arc<Hub<M, R>>);

impl<M: Jobs, R: Runtime> Default for Machines<M, R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Jobs, R: Runtime> Machines<M, R> {
    /// The machine of that kind, made if there is none. Idle ones that waited for long are closed.
    pub(super) fn get(
        &self,
        now: Time,
        kind: M::Kind,
        make: impl FnOnce(&M::Kind) -> Result<Arc<Hub<M, R>>, Error>,
    ) -> Result<Arc<Hub<M, R>>, Error> {
        let mut all = lock(&self.0);
        let known = all.iter().position(|(known, _, _)| *known == kind);
        let hub = match known {
            Some(at) => all.remove(at).2,
            None => make(&kind)?,
        };
        let crowded = all.len() >= MAX_MACHINES;
        let mut closed = Vec::new();
        let mut first = crowded;
        all.retain(|(_, used, hub)| {
            let old = *used + IDLE_FOR <= now || first;
            let stays = !(old && hub.is_idle());
            if !stays {
                first = false;
                closed.push(Arc::clone(hub));
            }
            stays
        });
        all.push((kind, now, Arc::clone(&hub)));
        drop(all);
        for hub in closed {
            hub.close();
        }
        Ok(hub)
    }

    pub(super) fn set_chain(&self, view: &ChainView) {
        for (_, _, hub) in lock(&self.0).iter() {
            hub.machine
                .with(|machine, now| machine.set_chain(now, view.clone()));
        }
    }
}

impl<M: Jobs, R: Runtime> Drop for Machines<M, R> {
    fn drop(&mut self) {
        for (_, _, hub) in lock(&self.0).drain(..) {
            hub.close();
        }
    }
}

/// Where orchestrators come from.
pub(super) enum Search {
    Named(Vec<Url>),
    Sources(Combine, Vec<(Origin, Source)>),
}

/// A machine, and the jobs that wait for its events.
pub(super) struct Hub<M: Jobs, R: Runtime> {
    machine: Handle<M, R>,
    search: Search,
    inboxes: Mutex<Inboxes<M>>,
}

/// The events that jobs have not taken yet.
struct Inboxes<M: Jobs> {
    jobs: BTreeMap<M::Id, Inbox<M>>,
    /// Bytes of chunks in all of them.
    bytes: usize,
}

/// The events of one job that it has not taken yet.
struct Inbox<M: Jobs> {
    events: VecDeque<M::News>,
    /// Bytes of chunks among them.
    bytes: usize,
    paused: bool,
    waker: Option<Waker>,
}

impl<M: Jobs> Default for Inboxes<M> {
    fn default() -> Self {
        let jobs = BTreeMap::new();
        Self { jobs, bytes: 0 }
    }
}

impl<M: Jobs> Default for Inbox<M> {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            paused: false,
            waker: None,
        }
    }
}

impl<M: Jobs, R: Runtime> Hub<M, R> {
    pub(super) fn start(driver: &Driver<R>, machine: M, search: Search) -> Arc<Self> {
        let hub = Arc::new(Self {
            machine: driver.drive(machine),
            search,
            inboxes: Mutex::default(),
        });
        if let Search::Named(urls) = &hub.search {
            hub.machine
                .with(|machine, now| machine.replace(now, offered(urls)));
        }
        driver.runtime().spawn(Arc::clone(&hub).pump());
        hub
    }

    /// The machine.
    pub(super) const fn machine(&self) -> &Handle<M, R> {
        &self.machine
    }

    /// Begins a job, as `submit` does, for whoever holds it.
    pub(super) fn submit<E>(
        self: Arc<Self>,
        submit: impl FnOnce(&mut M, Time) -> Result<M::Id, E>,
    ) -> Result<Held<M, R>, E> {
        // One lock in the other: events may be there before the call returns.
        let mut inboxes = lock(&self.inboxes);
        let id = self.machine.with(submit)?;
        inboxes.jobs.insert(id, Inbox::default());
        drop(inboxes);
        Ok(Held {
            hub: self,
            id,
            ended: false,
        })
    }

    /// Has orchestrators found before there is a job, if `wanted` says so.
    pub(super) fn warm_up(self: &Arc<Self>, wanted: impl FnOnce(&mut M, Time) -> bool) {
        if self.machine.with(wanted) {
            let runtime = self.machine.driver().runtime();
            runtime.spawn(Arc::clone(self).find());
        }
    }

    /// Whether no job is under way.
    fn is_idle(&self) -> bool {
        lock(&self.inboxes).jobs.is_empty()
    }

    fn cancel(&self, id: M::Id) {
        let mut inboxes = lock(&self.inboxes);
        if inboxes.remove(id) {
            self.machine.with(|machine, now| machine.cancel(now, id));
        }
    }

    /// Ends the machine: jobs under way fail.
    fn close(&self) {
        self.machine.with(M::close);
        self.machine.close();
        for inbox in lock(&self.inboxes).jobs.values_mut() {
            inbox.push(M::closed());
        }
    }

    fn poll(&self, id: M::Id, cx: &Context<'_>) -> Poll<Option<M::News>> {
        let mut inboxes = lock(&self.inboxes);
        if let Some((event, goes_on)) = inboxes.take(id) {
            if goes_on {
                self.machine
                    .with(|machine, now| machine.hold(now, id, false));
            }
            return Poll::Ready(Some(event));
        }
        let Some(inbox) = inboxes.jobs.get_mut(&id) else {
            return Poll::Ready(None);
        };
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Carries events to the jobs, until the machine is closed.
    async fn pump(self: Arc<Self>) {
        let driver = self.machine.driver().clone();
        while let Some(event) = self.machine.next().await {
            match M::told(event) {
                Told::Find => driver.runtime().spawn(Arc::clone(&self).find()),
                Told::Of(id, news) => self.deliver(id, news),
                Told::Signers(health) => driver.learn_signers(&health),
                Told::Nothing => {}
            }
        }
    }

    fn deliver(&self, id: M::Id, event: M::News) {
        let mut inboxes = lock(&self.inboxes);
        if inboxes.put(id, event) {
            self.machine
                .with(|machine, now| machine.hold(now, id, true));
        }
    }

    /// Looks for orchestrators once.
    async fn find(self: Arc<Self>) {
        let (combine, sources) = match &self.search {
            Search::Named(urls) => {
                self.machine
                    .with(|machine, now| machine.offer(now, offered(urls)));
                return;
            }
            Search::Sources(combine, sources) => (*combine, sources.clone()),
        };
        let config = discovery::Config {
            combine,
            ..discovery::Config::default()
        };
        let driver = self.machine.driver();
        let found = discover(driver, config, sources, discovery::WITHIN)
            .await
            .found;
        let found: Vec<Offered> = found.iter().map(Offered::from).collect();
        self.machine.with(|machine, now| {
            if found.is_empty() {
                // A place that is silent for a moment ends nothing.
                machine.offer(now, found);
            } else {
                machine.replace(now, found);
            }
        });
    }
}

fn offered(urls: &[Url]) -> Vec<Offered> {
    urls.iter().cloned().map(Offered::from).collect()
}

/// A job under way, for whoever holds it: dropping it ends the job.
pub(super) struct Held<M: Jobs, R: Runtime> {
    hub: Arc<Hub<M, R>>,
    id: M::Id,
    ended: bool,
}

impl<M: Jobs, R: Runtime> Held<M, R> {
    /// The name of the job.
    pub(super) const fn id(&self) -> M::Id {
        self.id
    }

    /// The next event; `None` after the last one.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<M::News>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.hub.poll(self.id, cx));
        self.ended = event.as_ref().is_none_or(M::is_last);
        Poll::Ready(event)
    }
}

impl<M: Jobs, R: Runtime> Drop for Held<M, R> {
    fn drop(&mut self) {
        self.hub.cancel(self.id);
    }
}

impl<M: Jobs> Inboxes<M> {
    /// Puts an event in; true if its stream is to be held back from now on.
    fn put(&mut self, id: M::Id, event: M::News) -> bool {
        let Some(inbox) = self.jobs.get_mut(&id) else {
            return false;
        };
        let bytes = M::bytes(&event);
        self.bytes += bytes;
        inbox.bytes += bytes;
        inbox.push(event);
        let many = inbox.events.len() >= MAX_CHUNKS || inbox.bytes >= MAX_BYTES;
        let full = many || (bytes > 0 && self.bytes >= MAX_TOTAL);
        full && !std::mem::replace(&mut inbox.paused, true)
    }

    /// Takes an event, if there is one; true beside it if its stream is to go on from now on.
    fn take(&mut self, id: M::Id) -> Option<(M::News, bool)> {
        let inbox = self.jobs.get_mut(&id)?;
        let event = inbox.events.pop_front()?;
        let bytes = M::bytes(&event);
        self.bytes -= bytes;
        inbox.bytes -= bytes;
        let few = inbox.events.len() <= FEW_CHUNKS && inbox.bytes <= FEW_BYTES;
        let free = few && (self.bytes < MAX_TOTAL || inbox.events.is_empty());
        let goes_on = free && std::mem::take(&mut inbox.paused);
        Some((event, goes_on))
    }

    /// Forgets a job; false if it is unknown.
    fn remove(&mut self, id: M::Id) -> bool {
        let inbox = self.jobs.remove(&id);
        self.bytes -= inbox.as_ref().map_or(0, |inbox| inbox.bytes);
        inbox.is_some()
    }
}

impl<M: Jobs> Inbox<M> {
    fn push(&mut self, event: M::News) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use livepeer_core::handshake::Identity;
    use livepeer_core::job::batch::{Batch, Config, JobId};
    use livepeer_core::pipeline::Pipeline;
    use livepeer_core::prefer::Preferences;
    use livepeer_core::selection::Balanced;
    use livepeer_core::wire::batch::BatchRequest;
    use livepeer_core::wire::batch::fields::Message;

    use super::super::{BatchEvent, Payer};
    use super::*;

    type Inboxes = super::Inboxes<Batch<Balanced>>;

    /// The inboxes of so many jobs.
    fn inboxes(many: usize) -> (Inboxes, Vec<JobId>) {
        let mut batch = Batch::new(
            Time::ZERO,
            Config::default(),
            Pipeline::Llm,
            "m",
            Identity::Offchain,
            Payer::Offchain,
            Balanced::default(),
            [1; 32],
        );
        let mut request = BatchRequest::new(Pipeline::Llm);
        let messages = vec![Message::new("user", "hi")];
        request.set("messages", messages).expect("a field");
        request.complete();
        let mut all = Inboxes::default();
        let ids = (0..many).map(|_| {
            let id = batch.submit(Time::ZERO, &request, Preferences::default());
            let id = id.expect("a good request");
            all.jobs.insert(id, Inbox::default());
            id
        });
        let ids = ids.collect();
        (all, ids)
    }

    fn chunk(len: usize) -> BatchEvent {
        BatchEvent::Chunk(vec![7; len].into())
    }

    /// Whether the stream of the event that was taken goes on.
    fn take(all: &mut Inboxes, id: JobId) -> Option<bool> {
        all.take(id).map(|(_, goes_on)| goes_on)
    }

    #[test]
    fn a_stream_is_held_back_by_its_chunks_and_by_their_bytes() {
        let (mut all, ids) = inboxes(1);
        let id = ids[0];
        for n in 1..=MAX_CHUNKS {
            assert_eq!(all.put(id, chunk(1)), n == MAX_CHUNKS);
        }
        assert!(!all.put(id, chunk(1)), "it is held back already");
        let waits = |all: &Inboxes| all.jobs[&id].events.len();
        while waits(&all) > FEW_CHUNKS + 1 {
            assert_eq!(take(&mut all, id), Some(false));
        }
        assert_eq!(take(&mut all, id), Some(true));
        while take(&mut all, id).is_some() {}
        assert_eq!(all.bytes, 0);
        let part = MAX_BYTES / 4;
        for n in 1..=4 {
            assert_eq!(all.put(id, chunk(part)), n == 4);
        }
        for goes_on in [false, false, true, false] {
            assert_eq!(take(&mut all, id), Some(goes_on));
        }
        assert_eq!((all.bytes, take(&mut all, id)), (0, None));
    }

    #[test]
    fn all_streams_of_a_machine_together_are_bounded_and_none_waits_for_ever() {
        let part = MAX_BYTES / 2;
        let many = MAX_TOTAL / part;
        let (mut all, ids) = inboxes(many + 2);
        for id in &ids[..many - 1] {
            assert!(!all.put(*id, chunk(part)));
        }
        // From here on each that brings more is held back, and goes on when it has nothing more here.
        for id in &ids[many - 1..] {
            assert!(all.put(*id, chunk(part)));
        }
        assert!(all.bytes <= MAX_TOTAL + ids.len() * part);
        assert_eq!(take(&mut all, ids[many]), Some(true));
        // A job that is gone holds nothing.
        for id in &ids {
            assert!(all.remove(*id) && !all.remove(*id));
        }
        assert_eq!(all.bytes, 0);
    }
}
