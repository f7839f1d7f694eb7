//! The commands, one file each.

mod demo;
mod devnet;
mod info;
mod live;

use crate::args::Command;
use crate::ui::Outcome;

/// Does what the command line says.
pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Devnet(args) => devnet::run(args),
        Command::Live(args) => live::run(args),
        Command::Info(args) => info::run(args),
    }
}
