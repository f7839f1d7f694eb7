//! Gateways that have jobs done in containers and rent apps, in a [`World`].

use std::collections::BTreeMap;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::http::Url;
use livepeer_core::job::app::{self, History, Rental, Use, Wanted};
use livepeer_core::job::byoc::{self, Attempt, Byoc, Failed, JobId, Left, Order};

use crate::world::{Payee, World};
use crate::{Net, Node};

/// A gateway with jobs for one container, and with apps that it rents.
pub struct Programs {
    /// The jobs.
    pub byoc: Node<Byoc>,
    /// Events of the jobs.
    pub jobs: BTreeMap<JobId, JobLog>,
    /// The apps, in the order in which they were wanted.
    pub rentals: Vec<Node<Rental>>,
    /// Events of each.
    pub rented: Vec<RentalLog>,
    urls: Vec<Url>,
    payee: Payee,
}

/// Events of a job in a container.
#[derive(Debug, Default)]
pub struct JobLog {
    /// Bytes of a stream.
    pub stream: Vec<u8>,
    /// Why orchestrators did not do it.
    pub left: Vec<Left>,
    /// How it ended.
    pub ended: Option<Result<Bytes, Failed>>,
}

impl JobLog {
    fn note(&mut self, attempts: &[Attempt]) {
        self.left = attempts
            .iter()
            .map(|attempt| attempt.left.clone())
            .collect();
    }
}

/// Events of a rental.
#[derive(Debug, Default)]
pub struct RentalLog {
    /// Whether its session is there.
    pub reserved: bool,
    /// The status of the app's answer.
    pub status: Option<u16>,
    /// The answer.
    pub body: Vec<u8>,
    /// The last event.
    pub ended: Option<app::Event>,
}

impl World {
    /// A gateway for jobs in a container, and for apps, at all orchestrators.
    pub fn programs(&mut self, config: byoc::Config, container: &str, payee: Payee) -> Programs {
        let now = self.net.now();
        let (_, payer) = self.payer(payee);
        let machine = Byoc::new(now, config, container, payer, self.seed());
        let byoc = self.net.add(machine);
        if payee == Payee::OwnKey {
            self.give_payers_key(byoc);
        }
        Programs {
            byoc,
            jobs: BTreeMap::new(),
            rentals: Vec::new(),
            rented: Vec::new(),
            urls: self.services(),
            payee,
        }
    }

    /// Rents an app.
    pub fn rent(
        &mut self,
        programs: &mut Programs,
        config: app::Config,
        wanted: Wanted,
        plan: Use,
    ) {
        let now = self.net.now();
        let (_, payer) = self.payer(programs.payee);
        let urls = programs.urls.clone();
        let rental = Rental::new(now, config, urls, wanted, plan, payer, History::default());
        let rental = self.net.add(rental);
        if programs.payee == Payee::OwnKey {
            self.give_payers_key(rental);
        }
        programs.rentals.push(rental);
        programs.rented.push(RentalLog::default());
    }

    /// Lets the next thing happen at a gateway and around it, or time pass until `end`, which has come if this says no.
    pub fn pass_programs(&mut self, programs: &mut Programs, end: Time) -> bool {
        programs.carry(&mut self.net);
        let passes = self.pass(end);
        programs.carry(&mut self.net);
        passes
    }
}

impl Programs {
    /// Begins a job.
    ///
    /// # Panics
    /// If the machine does not take it.
    pub fn submit(&mut self, net: &mut Net, order: Order) -> JobId {
        let submitted = net.with(self.byoc, |byoc, now| byoc.submit(now, order));
        let id = submitted.expect("it takes jobs");
        self.jobs.insert(id, JobLog::default());
        self.carry(net);
        id
    }

    /// Takes the events of the machines to where they matter.
    fn carry(&mut self, net: &mut Net) {
        while let Some(event) = net.event(self.byoc) {
            let (id, ended) = match event {
                byoc::Event::Find => {
                    let urls = self.urls.clone();
                    net.with(self.byoc, |byoc, now| byoc.replace(now, urls));
                    continue;
                }
                byoc::Event::Chunk(id, bytes) => {
                    let log = self.jobs.get_mut(&id).expect("a job of ours");
                    log.stream.extend_from_slice(&bytes);
                    continue;
                }
                byoc::Event::Head(id, served) => {
                    let log = self.jobs.get_mut(&id).expect("a job of ours");
                    log.note(&served.attempts);
                    continue;
                }
                byoc::Event::Done(id, done) => {
                    let log = self.jobs.get_mut(&id).expect("a job of ours");
                    log.note(&done.served.attempts);
                    (id, Ok(done.body))
                }
                byoc::Event::Failed(id, failed) => (id, Err(*failed)),
                _ => continue,
            };
            let log = self.jobs.get_mut(&id).expect("a job of ours");
            if let Err(
                Failed::NoOrchestrator { attempts }
                | Failed::Exhausted { attempts, .. }
                | Failed::Undecided { attempts },
            ) = &ended
            {
                log.note(attempts);
            }
            let before = log.ended.replace(ended);
            assert!(before.is_none(), "a job ends once");
        }
        for (rental, log) in self.rentals.iter().zip(&mut self.rented) {
            while let Some(event) = net.event(*rental) {
                assert!(log.ended.is_none(), "nothing comes after the last event");
                match event {
                    app::Event::Head(answer) => log.status = Some(answer.status),
                    app::Event::Data(bytes) => log.body.extend_from_slice(&bytes),
                    app::Event::Reserved { .. } => log.reserved = true,
                    app::Event::Done
                    | app::Event::Released
                    | app::Event::Closed
                    | app::Event::Failed(_) => log.ended = Some(event),
                    _ => {}
                }
            }
        }
    }
}
