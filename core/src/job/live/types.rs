//! Values that a live video job takes and tells.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::Failure;
use crate::http::{Trust, Url};
use crate::job::SwapLimit;
use crate::money::Price;
use crate::payment::{Unit, session};
use crate::pool::{Lease, Outcome, TryLimit};
use crate::prefer::Limits;
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::{Channels, RunnerEvent};

/// Settings of a live video job.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates that are good enough for the orchestrator and its channels.
    pub trust: Trust,
    /// Settings of the payments. Capabilities and trust are the job's own.
    pub payment: session::Config,
    /// Time that the orchestrator may take to start the job (jobs spec 3.2).
    pub start_within: Duration,
    /// Times that one orchestrator is asked to start, if it refuses for a reason that a fresh quote mends
    /// (handshake spec 14).
    pub start_tries: u32,
    /// Starts that are tried in a row, with one orchestrator and in all, before the job gives up.
    pub start_limit: TryLimit,
    /// Time between payments for running work (payments spec 10).
    pub pay_every: Duration,
    /// Renewals of the quote that may fail in a row before the payment that needs it counts as one that cannot be
    /// made. The job runs on while the last one lasts.
    pub max_unrenewed: u32,
    /// Time between keep-alives on the control channel.
    pub keep_alive_every: Duration,
    /// Time between looks for silence.
    pub watch_every: Duration,
    /// Silence on the events channel for longer than this means that the runner is gone.
    pub event_silence: Duration,
    /// Silence of the output for this long, while input came within half of it, means that the runner hangs.
    pub output_silence: Duration,
    /// Silence of the output for this long means that the runner hangs, even if it says that its model is still
    /// loading.
    pub loading_silence: Duration,
    /// Input segments begun and not yet delivered; one more means that the orchestrator is too slow.
    pub max_in_flight: usize,
    /// Time that the output may stand still after the input has ended.
    pub drain_within: Duration,
    /// Input that the orchestrator does not take for this long, while nothing is delivered either, means that it is
    /// stuck: see [`media::Event::Waits`](super::media::Event::Waits).
    pub input_stall: Duration,
    /// Orchestrators that may be lost in quick succession.
    pub swap_limit: SwapLimit,
    /// Limits on who may do the job; all of them hold. The price of a unit is the only one that can be compared.
    pub limits: Vec<Limits>,
    /// Whether an orchestrator that cannot be connected to is left at once, rather than after some tries: for jobs
    /// with somewhere else to go.
    pub leave_dead: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust: Trust::FirstUse,
            payment: session::Config::new(Unit::PixelSeconds),
            start_within: Duration::from_secs(5),
            start_tries: 3,
            // The reference allows two seconds, and looks at them between tries only (handshake spec 12). A slow
            // first orchestrator would use them up alone.
            start_limit: TryLimit {
                within: Some(Duration::from_secs(30)),
                ..TryLimit::LIVE_START
            },
            pay_every: Duration::from_secs(5),
            max_unrenewed: 3,
            keep_alive_every: Duration::from_secs(10),
            watch_every: Duration::from_secs(10),
            event_silence: Duration::from_secs(30),
            output_silence: Duration::from_secs(30),
            loading_silence: Duration::from_secs(180),
            max_in_flight: 3,
            drain_within: Duration::from_secs(10),
            input_stall: Duration::from_secs(5),
            swap_limit: SwapLimit::default(),
            limits: Vec::new(),
            leave_dead: false,
        }
    }
}

/// News of a live video job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Find an orchestrator: answer with [`LiveVideoJob::assign`](super::LiveVideoJob::assign) or
    /// [`LiveVideoJob::no_lease`](super::LiveVideoJob::no_lease).
    NeedLease,
    /// The orchestrator took the job; its media channels are open: see [`Media::go_to`](super::media::Media::go_to).
    Started(Box<Started>),
    /// A standby was started in the session of that number: see [`Media::stand_by`](super::media::Media::stand_by). If its
    /// output comes first, it takes over.
    Standby(u32, Box<Channels>),
    /// The session of that number is given up: see [`Media::leave`](super::media::Media::leave).
    Left(u32),
    /// The orchestrator took a payment.
    Paid(session::Paid),
    /// Payments cannot be made for now, and why. The job runs on with what was paid, and tries again.
    PaymentHeld(Failure),
    /// The orchestrator asks more than it did, and is paid so from now on: the ceiling allows it.
    Repriced {
        /// Price paid until now.
        from: Price,
        /// Price paid from now on.
        to: Price,
    },
    /// How remote signers have been, whenever that has changed: other jobs may ask them accordingly.
    Signers(SignerHealth),
    /// The runner said something.
    Runner(RunnerEvent),
    /// Parameter updates are in the hands of an orchestrator: see
    /// [`LiveVideoJob::updated`](super::LiveVideoJob::updated).
    Updated,
    /// The orchestrator at this address is given up, and why. If another may follow, the job asks for one.
    Lost(Url, Failure),
    /// The lease goes back to its pool with this outcome. Its media channels are dead.
    Release(Lease, Outcome),
    /// The last event.
    Ended(Ending),
}

/// An orchestrator at work.
#[derive(Clone, Debug)]
pub struct Started {
    /// Address of the orchestrator.
    pub orchestrator: Url,
    /// Channels on which media goes and comes.
    pub channels: Channels,
    /// Orchestrators that this job had before.
    pub swaps: u32,
    /// The number of the session among all of this job, those of standbys included: [`Media`](super::media::Media) tell
    /// them apart by it.
    pub session: u32,
    /// The orchestrator that was lost before, if this one goes on with its work.
    pub instead_of: Option<Loss>,
}

/// The loss of an orchestrator at work.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Address of the orchestrator.
    pub orchestrator: Url,
    /// Reason of the loss.
    pub why: Failure,
    /// Time of the loss.
    pub at: Time,
}

/// End of a live video job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The input ended and the output followed.
    Finished,
    /// The application called [`LiveVideoJob::stop`](super::LiveVideoJob::stop).
    Stopped,
    /// No orchestrator took the job; why each did not is in [`LiveVideoJob::tried`](super::LiveVideoJob::tried).
    NoOrchestrator,
    /// The last orchestrator failed and no other may follow: too many swaps in quick succession, or a failure that
    /// no other orchestrator would mend.
    Failed(Failure),
}
