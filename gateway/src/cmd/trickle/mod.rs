//! `trickle`: a server, a publisher and a subscriber of channels, without a job around them.

mod cut;
mod figures;
mod publish;
mod serve;
mod subscribe;

use std::num::NonZeroUsize;

use livepeer_core::{Cause, Failure};

use super::on;
use crate::args::{TrickleArgs, TrickleCommand};
use crate::ui::{Failed, Outcome};

/// One channel is no work for two.
const ONE_THREAD: Option<NonZeroUsize> = NonZeroUsize::new(1);

pub(super) fn run(args: &TrickleArgs) -> Outcome {
    match &args.command {
        TrickleCommand::Serve(args) => {
            on::run_with(args.runtime, Some(args.threads), serve::Serve(args))
        }
        TrickleCommand::Pub(args) => on::run_with(args.runtime, ONE_THREAD, publish::Publish(args)),
        TrickleCommand::Sub(args) => {
            on::run_with(args.runtime, ONE_THREAD, subscribe::Subscribe(args))
        }
    }
}

/// What went wrong with a channel; `missing` is what to do if there is none.
fn failed(failure: Failure, missing: &str) -> Failed {
    let remedy = match failure.cause {
        Cause::Gone(_) => missing,
        Cause::GaveUp { .. } | Cause::TimedOut { .. } => "Check the URL, and that its server runs",
        _ => return failure.into(),
    };
    Failed::new(failure, remedy)
}
