//! Front doors in a [`World`]: what callers want becomes jobs of [`Batch`] machines, and what these tell goes back.

use std::collections::{BTreeMap, BTreeSet};

use livepeer_core::Time;
use livepeer_core::front::{self, Event, Front, RequestId, Summary, Work};
use livepeer_core::http::Url;
use livepeer_core::job::batch::{self, Batch, Failed, JobId};
use livepeer_core::models::{Models, Offer};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::Quickest;

use crate::world::{Payee, World};
use crate::{Net, Node};

/// Where the front door of a world is.
pub const DOOR: &str = "gateway:8080";

/// A front door with the machines that do its work.
pub struct Door {
    /// The front door.
    pub front: Node<Front>,
    /// The jobs of each pipeline; there is one model.
    pub batches: BTreeMap<Pipeline, Node<Batch<Quickest>>>,
    /// Events that the machines told.
    pub log: DoorLog,
    urls: Vec<Url>,
    jobs: BTreeMap<RequestId, (Pipeline, JobId)>,
    requests: BTreeMap<(Pipeline, JobId), RequestId>,
}

/// Events that a [`Door`] saw.
#[derive(Debug, Default)]
pub struct DoorLog {
    /// Requests that wanted work.
    pub wanted: BTreeSet<RequestId>,
    /// Requests that are over, and how they ended.
    pub finished: BTreeMap<RequestId, Summary>,
    /// Jobs that nobody waited for any more.
    pub given_up: usize,
    /// How often a client was too slow for its stream.
    pub full: usize,
    /// Whether all work was done after the shutdown began.
    pub drained: bool,
}

impl World {
    /// A front door for a model of those pipelines at all orchestrators.
    pub fn door(&mut self, pipelines: &[Pipeline], model: &str, payee: Payee) -> Door {
        let (now, seed) = (self.net.now(), self.seed());
        let mut front = Front::new(now, front::Config::default().into(), seed);
        let mut models = Models::new();
        for pipeline in pipelines {
            let offer = Offer {
                price: None,
                warm: true,
            };
            models.offer(1, model, *pipeline, offer);
        }
        models.discovered();
        front.set_models(now, models);
        let front = self.net.serve(DOOR, front);
        self.net.link(DOOR).buffered = true;
        let batches = pipelines.iter().map(|pipeline| {
            let config = batch::Config::default();
            let gateway = self.batch_gateway(config, *pipeline, model, payee);
            (*pipeline, gateway.machine)
        });
        Door {
            front,
            batches: batches.collect(),
            log: DoorLog::default(),
            urls: self.services(),
            jobs: BTreeMap::new(),
            requests: BTreeMap::new(),
        }
    }

    /// Lets the next thing happen at a front door and around it, or time pass until `end`, which has come if this says no.
    pub fn pass_at(&mut self, door: &mut Door, end: Time) -> bool {
        door.carry(&mut self.net);
        let passes = self.pass(end);
        door.carry(&mut self.net);
        passes
    }
}

impl Door {
    /// How many jobs are under way.
    #[must_use]
    pub fn jobs(&self, net: &Net) -> usize {
        let jobs = self.batches.values().map(|batch| net.get(*batch).jobs());
        jobs.sum()
    }

    /// Takes the events of the machines to where they matter.
    fn carry(&mut self, net: &mut Net) {
        loop {
            let mut moved = false;
            while let Some(event) = net.event(self.front) {
                moved = true;
                self.on_front(net, event);
            }
            for (pipeline, batch) in self.batches.clone() {
                while let Some(event) = net.event(batch) {
                    moved = true;
                    self.on_batch(net, pipeline, event);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn on_front(&mut self, net: &mut Net, event: Event) {
        match event {
            Event::Want(id, work) => {
                assert!(self.log.wanted.insert(id), "work is wanted once");
                self.submit(net, id, &work);
            }
            Event::Gone(id) => {
                if let Some((pipeline, job)) = self.jobs.remove(&id) {
                    self.requests.remove(&(pipeline, job));
                    self.log.given_up += 1;
                    net.with(self.batches[&pipeline], |batch, now| batch.cancel(now, job));
                }
            }
            Event::Full(id) => {
                self.log.full += 1;
                self.steer(net, id, Batch::pause);
            }
            Event::Room(id) => self.steer(net, id, Batch::resume),
            Event::Finished(summary) => {
                let before = self.log.finished.insert(summary.id, *summary);
                assert!(before.is_none(), "a request is over once");
            }
            Event::Drained => self.log.drained = true,
            _ => {}
        }
    }

    fn submit(&mut self, net: &mut Net, id: RequestId, work: &Work) {
        let pipeline = work.request.pipeline();
        let submitted = net.with(self.batches[&pipeline], |batch, now| {
            batch.submit(now, &work.request, work.preferences.clone())
        });
        match submitted {
            Ok(job) => {
                self.jobs.insert(id, (pipeline, job));
                self.requests.insert((pipeline, job), id);
            }
            Err(_) => net.with(self.front, |front, now| {
                front.failed(now, id, Failed::Closed);
            }),
        }
    }

    fn steer(
        &self,
        net: &mut Net,
        id: RequestId,
        how: impl FnOnce(&mut Batch<Quickest>, Time, JobId),
    ) {
        if let Some((pipeline, job)) = self.jobs.get(&id) {
            net.with(self.batches[pipeline], |batch, now| how(batch, now, *job));
        }
    }

    fn on_batch(&mut self, net: &mut Net, pipeline: Pipeline, event: batch::Event) {
        use batch::Event as Told;
        if let Told::Find = event {
            let urls = self.urls.clone();
            net.with(self.batches[&pipeline], |batch, now| {
                batch.replace(now, urls);
            });
            return;
        }
        let (job, ends) = match &event {
            Told::Head(job, _) | Told::Chunk(job, _) => (*job, false),
            Told::Done(job, _) | Told::Failed(job, _) => (*job, true),
            _ => return,
        };
        // Of a job that was given up more may have been said by then.
        let Some(id) = self.requests.get(&(pipeline, job)).copied() else {
            return;
        };
        if ends {
            self.requests.remove(&(pipeline, job));
            self.jobs.remove(&id);
        }
        net.with(self.front, |front, now| match event {
            Told::Head(_, served) => front.head(now, id, *served),
            Told::Chunk(_, payload) => front.chunk(now, id, &payload),
            Told::Done(_, finished) => front.done(now, id, *finished),
            Told::Failed(_, failed) => front.failed(now, id, *failed),
            _ => {}
        });
    }
}
