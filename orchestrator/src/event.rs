//! Events that an orchestrator tells its owner.

use std::iter::Sum;

use bytes::Bytes;
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::{Address, Pipeline};

/// An event at an orchestrator, for logs, figures and tests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Somebody shook hands.
    Quoted {
        /// The payer that the quote is for; zero off-chain.
        payer: Address,
        /// The price that was told; `None` off-chain.
        price: Option<Price>,
    },
    /// A session runs; its channels exist.
    SessionStarted {
        /// The session's name.
        manifest_id: String,
        /// The model that runs.
        model: String,
        /// The payer; zero off-chain.
        payer: Address,
    },
    /// A session does no more work, and its place is free. Its last output can still be read for a while.
    SessionEnded {
        /// The session's name.
        manifest_id: String,
        /// Why.
        why: EndReason,
    },
    /// A payment's tickets are on account, durably.
    Credited {
        /// The session's name.
        manifest_id: String,
        /// The payer.
        payer: Address,
        /// How many tickets.
        tickets: usize,
        /// The expected value of the tickets.
        value: Amount,
        /// The balance now.
        balance: Amount,
    },
    /// A request was refused, or a payment was.
    Rejected {
        /// The kind of request.
        surface: Surface,
        /// The HTTP status; for the handshake the gRPC status.
        status: u16,
        /// The text of the answer.
        text: String,
    },
    /// A running session was billed.
    Metered {
        /// The session's name.
        manifest_id: String,
        /// The fee for the time since the last bill.
        fee: Amount,
        /// The balance left.
        balance: Amount,
    },
    /// Batch work was done, and its fee was taken.
    Worked {
        /// The pipeline.
        pipeline: Pipeline,
        /// The model.
        model: String,
        /// The payer; zero off-chain.
        payer: Address,
        /// The units that were charged.
        units: u64,
        /// The fee; nothing off-chain.
        fee: Amount,
        /// The balance left, which may be below zero; `None` off-chain.
        balance: Option<Amount>,
    },
    /// A request was handed to the program of a container or an app.
    HandedOn {
        /// [`Surface::Container`] or [`Surface::App`].
        surface: Surface,
        /// The container, or the runner.
        to: String,
        /// The payer; zero off-chain.
        payer: Address,
        /// The path for the program.
        path: String,
        /// The body of the request.
        body: Bytes,
    },
    /// A fee was taken for a container's work, or for an app that is paid once.
    Billed {
        /// The container, or the runner.
        to: String,
        /// The payer; zero off-chain.
        payer: Address,
        /// The fee.
        fee: Amount,
        /// The balance left, which may be below zero; `None` off-chain.
        balance: Option<Amount>,
    },
    /// A place of a runner was rented.
    Rented {
        /// The runner.
        runner: String,
        /// The session; of a single call, too.
        session: String,
        /// The payer; zero off-chain.
        payer: Address,
    },
    /// The place of a runner is free again.
    Released {
        /// The runner.
        runner: String,
        /// The session.
        session: String,
    },
    /// A stream of a container runs; its channels exist.
    StreamStarted {
        /// The container.
        container: String,
        /// The stream's id.
        stream: String,
        /// The payer; zero off-chain.
        payer: Address,
    },
    /// A stream of a container is over.
    StreamEnded {
        /// The container.
        container: String,
        /// The stream's id.
        stream: String,
    },
    /// A runner registered, under this name.
    Registered(String),
    /// A ticket won: this much will be claimed on chain.
    Won {
        /// The account that has to pay.
        payer: Address,
        /// The ticket's face value, in wei.
        face_value: Wei,
    },
    /// The chain view does not know a payer, so there is no quote for it: push one that does.
    PayerUnknown(Address),
    /// After [`Orchestrator::close`](super::Orchestrator::close), the last event.
    Closed,
}

/// The reason why a session does no more work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The gateway deleted the input channel: the way sessions should end.
    InputClosed,
    /// Nothing came in for too long.
    Idle,
    /// The balance does not cover the interval that went by. The text says what was due and what there is.
    Unpaid(String),
    /// The gateway deleted the output channel.
    OutputClosed,
    /// The owner ended it.
    ByOwner,
}

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Surface {
    /// `GetOrchestrator`, `Ping`, `EndTranscodingSession`.
    Handshake,
    /// `/live-video-to-video`.
    Start,
    /// `/payment`.
    Payment,
    /// `/refresh-payment`.
    RefreshPayment,
    /// Batch work.
    Batch,
    /// Containers that an operator brought.
    Container,
    /// Apps that are rented out.
    App,
    /// Any other.
    Other,
}

/// Figures of an orchestrator so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Sessions that were started.
    pub sessions: u64,
    /// Sessions that run now.
    pub running: u64,
    /// Batch requests that were done.
    pub jobs: u64,
    /// Payments that were accepted.
    pub payments: u64,
    /// Payments that were refused, at any surface.
    pub refused: u64,
    /// Tickets that were credited.
    pub tickets: u64,
    /// The expected value of these tickets.
    pub credited: Amount,
    /// Tickets that won.
    pub won: u64,
    /// The sum of the fees that sessions and batch requests were billed.
    pub billed: Amount,
}

impl Sum for Figures {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            sessions: a.sessions + b.sessions,
            running: a.running + b.running,
            jobs: a.jobs + b.jobs,
            payments: a.payments + b.payments,
            refused: a.refused + b.refused,
            tickets: a.tickets + b.tickets,
            credited: a.credited + b.credited,
            won: a.won + b.won,
            billed: a.billed + b.billed,
        })
    }
}
