//! Events and sums that a running job tells of.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Failure;
use livepeer_core::error::Party;
use livepeer_core::http::Url;
use livepeer_core::job::batch::{Failed, Finished, Served, Trying};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::session::{Charge, Paid};
use livepeer_core::wire::RunnerEvent;

/// Events of a running job that an application may want to know of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// A payment was accepted.
    Paid(Paid),
    /// No payment can be made for now, and why. The job runs on with what was paid, and tries again.
    PaymentHeld(Failure),
    /// The orchestrator asks more than it did, and is paid so from now on: the ceiling allows it.
    Repriced {
        /// The price paid until now.
        from: Price,
        /// The price paid from now on.
        to: Price,
    },
    /// The runner said something.
    Runner(RunnerEvent),
    /// The orchestrator at this address was given up, and why.
    Lost(Url, Failure),
    /// The orchestrator was lost, and another one works.
    Swapped(Box<Swapped>),
}

/// Payments of a job so far.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    /// Payments accepted.
    pub payments: u64,
    /// Tickets in them.
    pub tickets: u64,
    /// The expected value of the tickets, in wei.
    pub expected_value: Amount,
    /// The work that the payments are for, and what a second of it cost.
    pub charge: Charge,
    /// How often payments could not be made.
    pub unmade: u64,
    /// How often the orchestrator did not take one.
    pub refused: u64,
}

impl Spent {
    /// Counts a payment.
    pub(super) fn add(&mut self, paid: &Paid) {
        self.payments += 1;
        self.tickets += u64::from(paid.tickets);
        self.expected_value += &paid.value;
        self.charge += &paid.charge;
    }

    /// Counts a failure of payments.
    pub(super) fn fail(&mut self, why: &Failure) {
        match why.who {
            Party::Orchestrator(_) => self.refused += 1,
            _ => self.unmade += 1,
        }
    }
}

/// The job went on with another orchestrator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swapped {
    /// The orchestrator that was lost.
    pub from: Url,
    /// Why.
    pub why: Failure,
    /// The orchestrator that works now.
    pub to: Url,
    /// How long nobody did.
    pub after: Duration,
    /// Segments of the input that it gets although the one before had them.
    pub again: usize,
}

/// News of a batch job. The last one is [`BatchEvent::Done`] or [`BatchEvent::Failed`]. All but chunks are in boxes, since
/// many streams at a time are mostly chunks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BatchEvent {
    /// An orchestrator gets the request.
    Trying(Box<Trying>),
    /// An orchestrator answers with a stream. Told again if that one fails before its first chunk and another goes on.
    Head(Box<Served>),
    /// The payload of an event of a stream, as it came.
    Chunk(Bytes),
    /// The job is done.
    Done(Box<Finished>),
    /// The job failed.
    Failed(Box<Failed>),
}

/// News of a session with an app.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AppEvent {
    /// A runner was asked.
    Trying(Url),
    /// The orchestrator took a payment.
    Paid(Paid),
    /// Payments cannot be made, and why. What was paid lasts for a while.
    Trouble(Failure),
    /// The orchestrator has ended the session.
    Released,
}
