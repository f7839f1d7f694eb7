//! A process beside the command of a runner, which ends that command once the runner is gone, however it went: killed, or
//! told twice to end.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::ui::{Failed, Outcome};

/// The name of the hidden command that is the process.
const NAME: &str = "runner-guard";

/// At most this many bytes are read: the number of a group.
const MAX_NUMBER: u64 = 16;

/// Waits until whoever started this process is gone, and kills the group that was named until then.
#[allow(clippy::unnecessary_wraps, reason = "it is a command among others")]
pub(in crate::cmd) fn run() -> Outcome {
    let mut said = String::new();
    // An error is an end as well.
    let _ = io::stdin().take(MAX_NUMBER).read_to_string(&mut said);
    if let Some(group) = said.trim().parse().ok().and_then(Pid::from_raw) {
        // A group that has ended takes no signal.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(())
}

/// The process, from its owner's side.
pub(super) struct Guard(Child);

impl Guard {
    /// Starts it. Nothing is named yet.
    pub(super) fn start() -> Result<Self, Failed> {
        let started = std::env::current_exe().and_then(|program| {
            Command::new(program)
                .arg(NAME)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // Ctrl-C in the terminal is not for it.
                .process_group(0)
                .spawn()
        });
        started.map(Self).map_err(|error| {
            Failed::new(
                format_args!("no process that would end the command: {error}"),
                "Raise the limits of processes and open files",
            )
        })
    }

    /// Names the group that is to end with this program.
    pub(super) fn watch(&mut self, group: Option<Pid>) {
        if let (Some(group), Some(stdin)) = (group, &mut self.0.stdin) {
            // Whoever killed it meant to.
            let _ = stdin.write_all(group.as_raw_nonzero().to_string().as_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The group has ended, and its number may be another's soon.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
