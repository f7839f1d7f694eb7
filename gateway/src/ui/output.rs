//! The two streams of the terminal.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use indicatif::MultiProgress;
use serde::Serialize;

use super::fail::{Failed, Outcome};

/// Where progress bars are drawn; whoever else writes to stderr asks them to step aside.
pub(super) fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Writes a result to standard output, and a line end if it has none.
///
/// # Errors
/// If it cannot be written. A reader that has read enough (`| head`) is none.
pub(crate) fn print(text: &str) -> Outcome {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let written = bars().suspend(|| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(end.as_bytes()))
            .and_then(|()| out.flush())
    });
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failed::file("cannot write to", "standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Writes a result as JSON, for machines.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value)
        .expect("results are structs of numbers and text, which always serialise");
    print(&text)
}

/// A value on one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("values are numbers and text, which always serialise")
}

/// Writes the figures of a command as JSON and, if it failed, why, as the member `error` beside them.
///
/// # Errors
/// If it failed, or as [`print()`].
pub(crate) fn print_json_with(figures: &impl Serialize, outcome: Outcome) -> Outcome {
    #[derive(Serialize)]
    struct Told<'a, T> {
        #[serde(flatten)]
        figures: &'a T,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a Failed>,
    }
    print_json(&Told {
        figures,
        error: outcome.as_ref().err(),
    })?;
    outcome.map_err(Failed::told)
}

/// Writes why a command failed as JSON, unless that was done together with its figures.
pub(crate) fn print_json_error(failed: &Failed) {
    #[derive(Serialize)]
    struct Told<'a> {
        error: &'a Failed,
    }
    if !failed.is_told() {
        // The line on standard error says what counts.
        let _ = print_json(&Told { error: failed });
    }
}

/// Writes to standard error what is for people and would be in the way on standard output, such as the figures of
/// a job whose stream goes there.
pub(crate) fn tell(text: &str) {
    bars().suspend(|| {
        // Nobody reads stderr any more: nothing to be done about it.
        let _ = writeln!(io::stderr(), "{}", text.trim_end_matches('\n'));
    });
}

/// Says on stderr what went wrong, if anything did; the exit code of the program.
pub(crate) fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            bars().suspend(|| {
                // Nobody reads stderr any more: the exit code still tells.
                let _ = writeln!(io::stderr(), "{}", failed.line());
            });
            ExitCode::from(failed.code)
        }
    }
}

/// Standard error for logs: lines go above the progress bars.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        bars().suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
