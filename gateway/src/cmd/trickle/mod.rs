//! `trickle`: a server, a publisher and a subscriber of channels, without a job around them.

mod cut;
mod figures;
mod publish;
mod serve;
mod subscribe;

use std::num::NonZeroUsize;

use livepeer_core::trickle::publisher::CREATING;
use livepeer_core::{Cause, Failure};

use super::on;
use crate::args::{TrickleArgs, TrickleCommand};
use crate::ui::{Failed, Outcome};

/// The number of threads: a single channel gives no work for two.
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

/// The failure of a channel; `missing` is the advice if there is no such channel.
fn failed(failure: Failure, missing: &str) -> Failed {
    match failure.cause {
        Cause::Gone(_) => Failed::new(failure, missing),
        // Servers that let nobody create channels know no other answer (trickle spec 4).
        Cause::Refused {
            doing: CREATING,
            status: 404,
            ..
        } => Failed::new(
            format_args!(
                "{}: there is none, and its server lets nobody create channels",
                failure.who
            ),
            "Make it where the server runs (trickle serve --create NAME), or let peers do so \
             there with --autocreate",
        ),
        _ => failure.into(),
    }
}
