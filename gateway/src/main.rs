//! A small, fast Livepeer gateway.

mod args;
mod cmd;
mod ui;

use std::process::ExitCode;

use ui::Outcome;

fn main() -> ExitCode {
    ui::report(run())
}

fn run() -> Outcome {
    match args::parse(std::env::args_os())? {
        Ok(cli) => {
            ui::log::start(cli.log_level())?;
            cmd::run(&cli.command())
        }
        Err(text) => ui::print(&text),
    }
}
