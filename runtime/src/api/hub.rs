//! Machines of batch jobs, shared by the jobs that agree on pipeline, model, orchestrators and payer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::discovery::{self, Combine, Origin, Source};
use livepeer_core::handshake::PinChange;
use livepeer_core::http::{Reach, Trust, Url};
use livepeer_core::job::batch::{Batch, Config, Event, Failed, JobId};
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::Offered;
use livepeer_core::prefer::Preferences;
use livepeer_core::selection::Balanced;
use livepeer_core::wire::batch::BatchRequest;
use livepeer_core::{Misuse, Time};

use super::account::Account;
use super::event::BatchEvent;
use super::find::discover;
use super::peers::Places;
use super::{Error, Payer};
use crate::{Driver, Handle, Runtime, lock, seed};

/// At most this many machines are kept, one for each pipeline, model, payer and set of orchestrators; of more, the idle
/// one that has waited longest is closed.
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

/// The settings that decide which machine does a job.
#[derive(Clone, PartialEq)]
pub(super) struct Kind {
    pub(super) pipeline: Pipeline,
    pub(super) model: String,
    pub(super) listed: Vec<(Url, Reach)>,
    pub(super) places: Places,
    pub(super) payer: Account,
    pub(super) trust: Trust,
    pub(super) pin_change: PinChange,
    pub(super) max_price: Option<Amount>,
}

/// The machines of batch jobs, those that were used last at the end.
pub(super) struct Batches<R: Runtime>(Mutex<Vec<Kept<R>>>);

/// A machine, what it is for, and when a job last began.
type Kept<R> = (Kind, Time, Arc<Hub<R>>);

impl<R: Runtime> Default for Batches<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R: Runtime> Batches<R> {
    /// The machine of that kind, made if there is none. Idle ones that waited for long are closed.
    pub(super) fn get(
        &self,
        now: Time,
        kind: Kind,
        make: impl FnOnce(&Kind) -> Result<Arc<Hub<R>>, Error>,
    ) -> Result<Arc<Hub<R>>, Error> {
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
                .with(|batch, now| batch.set_chain(now, view.clone()));
        }
    }
}

impl<R: Runtime> Drop for Batches<R> {
    fn drop(&mut self) {
        for (_, _, hub) in lock(&self.0).drain(..) {
            hub.close();
        }
    }
}

/// How jobs are done, as far as it decides no machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) selector: Balanced,
}

/// Where orchestrators come from.
pub(super) enum Search {
    Named(Vec<Url>),
    Sources(Combine, Vec<(Origin, Source)>),
}

/// A machine, and the jobs that wait for its events.
pub(super) struct Hub<R: Runtime> {
    machine: Handle<Batch<Balanced>, R>,
    search: Search,
    inboxes: Mutex<Inboxes>,
}

/// The events that jobs have not taken yet.
#[derive(Default)]
struct Inboxes {
    jobs: BTreeMap<JobId, Inbox>,
    /// Bytes of chunks in all of them.
    bytes: usize,
}

/// The events of one job that it has not taken yet.
#[derive(Default)]
struct Inbox {
    events: VecDeque<BatchEvent>,
    /// Bytes of chunks among them.
    bytes: usize,
    paused: bool,
    waker: Option<Waker>,
}

impl<R: Runtime> Hub<R> {
    pub(super) fn start(
        driver: &Driver<R>,
        kind: &Kind,
        Settings { config, selector }: Settings,
        payer: Payer,
        search: Search,
    ) -> Arc<Self> {
        let batch = Batch::new(
            driver.now(),
            config,
            kind.pipeline,
            kind.model.as_str(),
            payer.identity(),
            payer,
            selector,
            seed(),
        );
        let hub = Arc::new(Self {
            machine: driver.drive(batch),
            search,
            inboxes: Mutex::default(),
        });
        if let Search::Named(urls) = &hub.search {
            hub.machine
                .with(|batch, now| batch.replace(now, urls.clone()));
        }
        driver.runtime().spawn(Arc::clone(&hub).pump());
        hub
    }

    pub(super) fn submit(
        &self,
        request: &BatchRequest,
        preferences: Preferences,
        settings: Settings,
    ) -> Result<JobId, Error> {
        // One lock in the other: events may be there before the call returns.
        let mut inboxes = lock(&self.inboxes);
        let id = self.machine.with(|batch, now| {
            batch.set_config(now, settings.config, settings.selector);
            batch.submit(now, request, preferences)
        });
        let id = id.map_err(|misuse| match misuse {
            Misuse::StillOpen => Error::Options("too many jobs of this model are under way"),
            misuse => misuse.into(),
        })?;
        inboxes.jobs.insert(id, Inbox::default());
        Ok(id)
    }

    /// Has orchestrators shake hands before there is a job, unless some have.
    pub(super) fn warm_up(self: &Arc<Self>, settings: Settings) {
        let anybody = self.machine.with(|batch, now| {
            batch.set_config(now, settings.config, settings.selector);
            !batch.pool().sessions().is_empty()
        });
        if !anybody {
            let runtime = self.machine.driver().runtime();
            runtime.spawn(Arc::clone(self).find());
        }
    }

    /// Whether no job is under way.
    fn is_idle(&self) -> bool {
        lock(&self.inboxes).jobs.is_empty()
    }

    pub(super) fn cancel(&self, id: JobId) {
        let mut inboxes = lock(&self.inboxes);
        if inboxes.remove(id) {
            self.machine.with(|batch, now| batch.cancel(now, id));
        }
    }

    /// Ends the machine: jobs under way fail.
    fn close(&self) {
        self.machine.with(Batch::close);
        self.machine.close();
        for inbox in lock(&self.inboxes).jobs.values_mut() {
            inbox.push(BatchEvent::Failed(Failed::Closed));
        }
    }

    pub(super) fn poll(&self, id: JobId, cx: &Context<'_>) -> Poll<Option<BatchEvent>> {
        let mut inboxes = lock(&self.inboxes);
        if let Some((event, goes_on)) = inboxes.take(id) {
            if goes_on {
                self.machine.with(|batch, now| batch.resume(now, id));
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
            match event {
                Event::Find => driver.runtime().spawn(Arc::clone(&self).find()),
                Event::Trying(id, trying) => self.deliver(id, BatchEvent::Trying(*trying)),
                Event::Head(id, served) => self.deliver(id, BatchEvent::Head(*served)),
                Event::Chunk(id, chunk) => self.deliver(id, BatchEvent::Chunk(chunk)),
                Event::Done(id, finished) => self.deliver(id, BatchEvent::Done(*finished)),
                Event::Failed(id, failed) => self.deliver(id, BatchEvent::Failed(*failed)),
                // What handshakes and payments saw of signers is for all.
                Event::Signers(health) => driver.learn_signers(&health),
                _ => {}
            }
        }
    }

    fn deliver(&self, id: JobId, event: BatchEvent) {
        let mut inboxes = lock(&self.inboxes);
        if inboxes.put(id, event) {
            self.machine.with(|batch, now| batch.pause(now, id));
        }
    }

    /// Looks for orchestrators once.
    async fn find(self: Arc<Self>) {
        let (combine, sources) = match &self.search {
            Search::Named(urls) => {
                self.machine
                    .with(|batch, now| batch.offer(now, urls.clone()));
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
        self.machine.with(|batch, now| {
            if found.is_empty() {
                // A place that is silent for a moment ends nothing.
                batch.offer(now, found);
            } else {
                batch.replace(now, found);
            }
        });
    }
}

impl Inboxes {
    /// Puts an event in; true if its stream is to be held back from now on.
    fn put(&mut self, id: JobId, event: BatchEvent) -> bool {
        let Some(inbox) = self.jobs.get_mut(&id) else {
            return false;
        };
        let bytes = size(&event);
        self.bytes += bytes;
        inbox.bytes += bytes;
        inbox.push(event);
        let many = inbox.events.len() >= MAX_CHUNKS || inbox.bytes >= MAX_BYTES;
        let full = many || (bytes > 0 && self.bytes >= MAX_TOTAL);
        full && !std::mem::replace(&mut inbox.paused, true)
    }

    /// Takes an event, if there is one; true beside it if its stream is to go on from now on.
    fn take(&mut self, id: JobId) -> Option<(BatchEvent, bool)> {
        let inbox = self.jobs.get_mut(&id)?;
        let event = inbox.events.pop_front()?;
        let bytes = size(&event);
        self.bytes -= bytes;
        inbox.bytes -= bytes;
        let few = inbox.events.len() <= FEW_CHUNKS && inbox.bytes <= FEW_BYTES;
        let free = few && (self.bytes < MAX_TOTAL || inbox.events.is_empty());
        let goes_on = free && std::mem::take(&mut inbox.paused);
        Some((event, goes_on))
    }

    /// Forgets a job; false if it is unknown.
    fn remove(&mut self, id: JobId) -> bool {
        let inbox = self.jobs.remove(&id);
        self.bytes -= inbox.as_ref().map_or(0, |inbox| inbox.bytes);
        inbox.is_some()
    }
}

/// The bytes of a chunk; other events are few and small, but for the one that ends a job.
const fn size(event: &BatchEvent) -> usize {
    match event {
        BatchEvent::Chunk(chunk) => chunk.len(),
        _ => 0,
    }
}

impl Inbox {
    fn push(&mut self, event: BatchEvent) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use livepeer_core::handshake::Identity;
    use livepeer_core::wire::batch::fields::Message;

    use super::*;

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
