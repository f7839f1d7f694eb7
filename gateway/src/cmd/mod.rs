//! The commands, one room each, and what they share.

mod chain;
mod devnet;
mod files;
mod find;
mod hire;
mod key;
mod live;
mod on;
mod peers;
mod purse;
mod run;
mod runner;
mod serve;
mod signer;
mod sink;
mod socket;
mod source;
mod stop;
mod trickle;

use std::sync::{Mutex, MutexGuard, PoisonError};

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
        Command::Demo(args) => devnet::demo::run(args),
        Command::Devnet(args) => devnet::run(args),
        Command::DevnetOrchestrator(args) => devnet::process::run(args),
        Command::Signer(args) => signer::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Live(args) => live::run(args),
        Command::Run(args) => run::run(args),
        Command::Byoc(args) => hire::byoc::run(args),
        Command::App(args) => hire::app::run(args),
        Command::Runner(args) => runner::run(args),
        #[cfg(unix)]
        Command::RunnerGuard => runner::guard::run(),
        Command::Info(args) => find::info::run(args),
        Command::Discover(args) => find::discover::run(args),
        Command::Select(args) => find::select::run(args),
        Command::Trickle(args) => trickle::run(args),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
