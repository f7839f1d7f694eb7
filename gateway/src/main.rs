//! A small, fast Livepeer gateway.

mod args;
mod cmd;
mod ui;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use ui::{Failed, Outcome};

fn main() -> ExitCode {
    ui::report(run())
}

fn run() -> Outcome {
    match args::parse(std::env::args_os())? {
        Ok(cli) => {
            log_to_stderr(&cli.log)?;
            cmd::run(&cli.command())
        }
        Err(text) => ui::print(&text),
    }
}

fn log_to_stderr(filter: &str) -> Outcome {
    // The parser of streams warns about every odd packet; the segmenter counts them instead.
    let filter = EnvFilter::try_new(format!("mpeg2ts_reader=error,{filter}")).map_err(|error| {
        Failed::usage(
            format_args!("--log {filter}: {error}; it is a level or a list of target=level"),
            "",
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| ui::LogWriter)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
