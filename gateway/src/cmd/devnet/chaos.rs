//! Mishaps in a development network, on purpose: one orchestrator at a time is killed and comes back, stands still, or
//! misbehaves in batch work for a while.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use livepeer_core::rng::Rng;

use super::network::Tell;
use super::process::Process;
use crate::args::Quirk;

/// Between two mishaps, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(6));
/// How long a killed orchestrator stays away.
const AWAY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));
/// How long one stands still.
const STILL: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(8));

/// How long one misbehaves.
const ODD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

/// The next mishap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mishap {
    after: Duration,
    victim: usize,
    kind: Kind,
    lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Killed,
    Still,
    Odd(Quirk),
}

/// A plan of mishaps: the same seed brings the same ones.
struct Chaos {
    rng: Rng,
    victims: usize,
}

impl Chaos {
    fn new(seed: u64, victims: usize) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            rng: Rng::new(bytes),
            victims,
        }
    }

    fn next(&mut self) -> Mishap {
        let after = self.between(PAUSE);
        let victim = self.rng.below(self.victims as u64) as usize;
        let kind = match self.rng.below(6) {
            0..3 => Kind::Killed,
            3 => Kind::Still,
            _ => {
                let quirks: Vec<Quirk> = Quirk::passing().collect();
                Kind::Odd(quirks[self.rng.below(quirks.len() as u64) as usize])
            }
        };
        let lasts = self.between(match kind {
            Kind::Killed => AWAY,
            Kind::Still => STILL,
            Kind::Odd(_) => ODD,
        });
        Mishap {
            after,
            victim,
            kind,
            lasts,
        }
    }

    fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        let span = (most - least).as_millis() as u64;
        least + Duration::from_millis(self.rng.below(span + 1))
    }
}

/// Orchestrators in processes, and what happens to them. Dropping it kills them.
pub(super) struct Crowd {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Crowd {
    /// Looks after the processes; with a seed, mishaps begin.
    pub(super) fn keep(processes: Vec<Process>, seed: Option<u64>, tell: Tell) -> Self {
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            let mut processes = processes;
            if let Some(seed) = seed {
                let mut chaos = Chaos::new(seed, processes.len());
                loop {
                    let mishap = chaos.next();
                    if !rest(&stopped, mishap.after)
                        || !strike(&mut processes[mishap.victim], mishap, &stopped, &tell)
                    {
                        break;
                    }
                }
            } else {
                // An answer or an error: either way it is time to go.
                let _ = stopped.recv();
            }
            for process in &mut processes {
                process.ask_to_end();
            }
        });
        Self { stop, thread }
    }

    /// Ends all of them.
    pub(super) fn end(self) {
        drop(self.stop);
        // It only panics if a process could not be looked after, and then they are dead.
        let _ = self.thread.join();
    }
}

/// Does it, and makes it good. False once it is time to go.
fn strike(process: &mut Process, mishap: Mishap, stopped: &Receiver<()>, tell: &Tell) -> bool {
    let name = process.name().to_owned();
    let lasts = mishap.lasts.as_millis();
    match mishap.kind {
        Kind::Killed => {
            process.kill();
            tell(&format!("chaos: {name} killed, for {lasts} ms"));
        }
        Kind::Still if signal(process, "-STOP") => {
            tell(&format!("chaos: {name} stands still, for {lasts} ms"));
        }
        Kind::Still => return true,
        Kind::Odd(quirk) => {
            process.misbehave(&[quirk]);
            let quirk = quirk.name();
            tell(&format!(
                "chaos: {name} has the quirk {quirk}, for {lasts} ms"
            ));
        }
    }
    let goes_on = rest(stopped, mishap.lasts);
    match mishap.kind {
        Kind::Killed if goes_on => match process.restart() {
            Ok(()) => tell(&format!("chaos: {name} is back")),
            Err(failed) => tell(&format!("chaos: {name} is not back: {}", failed.line())),
        },
        Kind::Killed => {}
        Kind::Still => {
            signal(process, "-CONT");
            tell(&format!("chaos: {name} goes on"));
        }
        Kind::Odd(_) => {
            process.behave();
            tell(&format!("chaos: {name} behaves again"));
        }
    }
    goes_on
}

/// Waits. False once it is time to go.
fn rest(stopped: &Receiver<()>, span: Duration) -> bool {
    stopped.recv_timeout(span) == Err(RecvTimeoutError::Timeout)
}

/// Sends a signal by the program that every Unix has. False if there is none, or no process.
fn signal(process: &Process, signal: &str) -> bool {
    process.id().is_some_and(|id| {
        Command::new("kill")
            .args([signal, &id.to_string()])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_brings_the_same_mishaps_within_bounds() {
        let play = |seed| {
            let mut chaos = Chaos::new(seed, 5);
            (0..200).map(|_| chaos.next()).collect::<Vec<_>>()
        };
        let mishaps = play(7);
        assert_eq!(mishaps, play(7));
        assert_ne!(mishaps, play(8));
        assert!((0..5).all(|n| mishaps.iter().any(|mishap| mishap.victim == n)));
        assert!(mishaps.iter().any(|mishap| mishap.kind == Kind::Killed));
        assert!(
            mishaps
                .iter()
                .any(|mishap| matches!(mishap.kind, Kind::Odd(_)))
        );
        for mishap in mishaps {
            assert!(mishap.after >= PAUSE.0 && mishap.after <= PAUSE.1);
            let bounds = match mishap.kind {
                Kind::Killed => AWAY,
                Kind::Still => STILL,
                Kind::Odd(_) => ODD,
            };
            assert!(mishap.lasts >= bounds.0 && mishap.lasts <= bounds.1);
        }
    }
}
