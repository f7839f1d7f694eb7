//! The commands, one file each.

mod chain;
mod chaos;
mod demo;
mod devnet;
mod discover;
mod files;
mod find;
mod info;
mod job;
mod key;
mod live;
mod network;
mod on;
mod past;
mod peers;
mod process;
mod select;
mod signer;
mod sink;
mod socket;
mod source;
mod stop;
mod trickle;

use crate::args::Command;
use crate::ui::{self, Outcome};

/// Does what the command line says. Where JSON is wanted, a failure is told in it too.
pub(crate) fn run(command: &Command) -> Outcome {
    let outcome = perform(command);
    if let Err(failed) = &outcome
        && command.wants_json()
    {
        ui::print_json_error(failed);
    }
    outcome
}

fn perform(command: &Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Devnet(args) => devnet::run(args),
        Command::DevnetOrchestrator(args) => process::run(args),
        Command::Signer(args) => signer::run(args),
        Command::Live(args) => live::run(args),
        Command::Info(args) => info::run(args),
        Command::Discover(args) => discover::run(args),
        Command::Select(args) => select::run(args),
        Command::Trickle(args) => trickle::run(args),
    }
}
