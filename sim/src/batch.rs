//! Gateways that do batch jobs in a [`World`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::Url;
use livepeer_core::job::batch::{Batch, Config, Event, Failed, Finished, JobId, Served, Trying};
use livepeer_core::payment::session::Paid;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::{self, Quickest};
use livepeer_core::prefer::Preferences;
use livepeer_core::wire::batch::BatchRequest;

use crate::world::{Payee, World};
use crate::{Net, Node};

/// A gateway with the jobs of one model.
pub struct BatchGateway {
    /// The machine.
    pub machine: Node<Batch<Quickest>>,
    /// Events that it told.
    pub log: BatchLog,
    urls: Vec<Url>,
}

/// Events that a [`BatchGateway`] saw.
#[derive(Debug, Default)]
pub struct BatchLog {
    /// Every request that was sent.
    pub tried: Vec<(JobId, Trying)>,
    /// Streams that began.
    pub heads: BTreeMap<JobId, Served>,
    /// Chunks of streams.
    pub chunks: BTreeMap<JobId, Vec<Bytes>>,
    /// Jobs that are done.
    pub done: BTreeMap<JobId, Finished>,
    /// Jobs that failed.
    pub failed: BTreeMap<JobId, Failed>,
    /// Payments that were taken.
    pub paid: Vec<(Url, Paid)>,
    /// Orchestrators that were suspended.
    pub suspended: BTreeSet<Url>,
    /// How often orchestrators were looked for.
    pub finds: usize,
}

impl BatchLog {
    /// Whether a job has ended.
    #[must_use]
    pub fn is_over(&self, id: JobId) -> bool {
        self.done.contains_key(&id) || self.failed.contains_key(&id)
    }
}

impl World {
    /// A gateway for batch jobs at all orchestrators.
    pub fn batch_gateway(
        &mut self,
        config: Config,
        pipeline: Pipeline,
        model: &str,
        payee: Payee,
    ) -> BatchGateway {
        let urls = self.services();
        let now = self.net.now();
        let (identity, payer) = self.payer(payee);
        let seed = self.seed();
        let batch = Batch::new(
            now, config, pipeline, model, identity, payer, Quickest, seed,
        );
        let machine = self.net.add(batch);
        if payee == Payee::OwnKey {
            self.give_payers_key(machine);
        }
        BatchGateway {
            machine,
            log: BatchLog::default(),
            urls,
        }
    }

    /// Lets time pass until all those jobs have ended, at most `patience`. Says whether they have.
    pub fn run_jobs(
        &mut self,
        patience: Duration,
        gateway: &mut BatchGateway,
        jobs: &[JobId],
    ) -> bool {
        let end = self.net.now() + patience;
        loop {
            gateway.carry(&mut self.net);
            if jobs.iter().all(|id| gateway.log.is_over(*id)) {
                return true;
            }
            if !self.pass(end) {
                return false;
            }
        }
    }

    /// Lets that time pass.
    pub fn run_batch_for(&mut self, span: Duration, gateway: &mut BatchGateway) {
        let end = self.net.now() + span;
        while self.pass(end) {
            gateway.carry(&mut self.net);
        }
        gateway.carry(&mut self.net);
    }
}

impl BatchGateway {
    /// Begins a job.
    ///
    /// # Panics
    /// If the machine does not take it.
    pub fn submit(&mut self, net: &mut Net, request: &BatchRequest) -> JobId {
        let submitted = net.with(self.machine, |batch, now| {
            batch.submit(now, request, Preferences::default())
        });
        let id = submitted.expect("it takes jobs");
        self.carry(net);
        id
    }

    /// Takes the events of the machine to where they matter.
    pub fn carry(&mut self, net: &mut Net) {
        while let Some(event) = net.event(self.machine) {
            match event {
                Event::Find => {
                    self.log.finds += 1;
                    let urls = self.urls.clone();
                    net.with(self.machine, |batch, now| batch.replace(now, urls));
                }
                Event::Trying(id, trying) => self.log.tried.push((id, *trying)),
                Event::Head(id, served) => {
                    let begun = self.log.chunks.contains_key(&id);
                    assert!(!begun, "nobody takes over once a chunk went out");
                    self.log.heads.insert(id, *served);
                }
                Event::Chunk(id, chunk) => self.log.chunks.entry(id).or_default().push(chunk),
                Event::Done(id, finished) => {
                    assert!(!self.log.is_over(id), "a job ends once");
                    self.log.done.insert(id, *finished);
                }
                Event::Failed(id, failed) => {
                    assert!(!self.log.is_over(id), "a job ends once");
                    self.log.failed.insert(id, *failed);
                }
                Event::Paid(url, paid) => self.log.paid.push((url, *paid)),
                Event::Pool(pool::Event::Suspended(url, _)) => {
                    self.log.suspended.insert(url);
                }
                _ => {}
            }
        }
    }
}
