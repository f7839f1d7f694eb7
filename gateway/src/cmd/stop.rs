//! Ctrl-C, as something to wait for.
//!
//! A command has nothing to close at first: it opens files, asks for passwords, reads the chain, looks for peers.
//! Ctrl-C ends it at once then, whatever it waits for, a call that blocks included. [`Stop::in_order`] is the
//! command's word that from now on there is something to close; it watches for [`Stop::pressed`] wherever it waits,
//! and has so long to close it.

use std::convert::Infallible;
#[cfg(unix)]
use std::io;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use async_channel::Receiver;
#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
#[cfg(unix)]
use signal_hook::iterator::Signals;

use crate::ui::{self, Failed};

/// The exit code of a program that Ctrl-C ended, as shells report it.
const INTERRUPTED: i32 = 130;

/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Ctrl-C and the signal to terminate, from now on. The second one ends the process at once.
#[derive(Clone)]
pub(super) struct Stop {
    pressed: Receiver<Infallible>,
    /// How long closing in order may take; not set while there is nothing to close.
    closes_within: Arc<OnceLock<Duration>>,
    /// A hang-up that means something else than the end.
    hung_up: Receiver<()>,
    /// Whether hang-ups do.
    hang_ups: Arc<AtomicBool>,
}

/// Calls `press` for Ctrl-C and for signals to terminate, and for a hang-up unless `hang_up` takes it.
#[cfg(unix)]
fn watch(
    press: impl Fn() + Send + 'static,
    hang_up: impl Fn() -> bool + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            if signal != SIGHUP || !hang_up() {
                press();
            }
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn watch(
    press: impl Fn() + Send + 'static,
    _: impl Fn() -> bool + Send + 'static,
) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(press)
}

impl Stop {
    /// Takes over the signals.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(super) fn listen() -> Result<Self, Failed> {
        // Nothing is ever sent: closing the channel says it to all who wait, and to all who come later.
        let (sender, pressed) = async_channel::bounded(1);
        let closes_within = Arc::<OnceLock<Duration>>::default();
        let allowed = Arc::clone(&closes_within);
        let press = move || match allowed.get() {
            Some(within) if sender.close() => {
                let within = *within;
                thread::spawn(move || {
                    thread::sleep(within);
                    end(Failed::new(
                        format_args!(
                            "interrupted, and not all was closed {} later",
                            ui::duration(within)
                        ),
                        "What is still open at a peer ends there for want of use",
                    ));
                });
            }
            Some(_) => exit(INTERRUPTED),
            None => end(Failed::interrupted()),
        };
        // A word that nobody has taken yet stands for those after it: it is read anew then anyway.
        let (hang_up, hung_up) = async_channel::bounded(1);
        let hang_ups = Arc::<AtomicBool>::default();
        let minds = Arc::clone(&hang_ups);
        let hang_up = move || {
            let minds = minds.load(Relaxed);
            if minds {
                let _ = hang_up.try_send(());
            }
            minds
        };
        watch(press, hang_up).map_err(|error| {
            Failed::new(
                format_args!("cannot watch for Ctrl-C: {error}"),
                "Report it",
            )
        })?;
        Ok(Self {
            pressed,
            closes_within,
            hung_up,
            hang_ups,
        })
    }

    /// There is something to close from now on, which takes no longer than `within`.
    pub(super) fn in_order(&self, within: Duration) {
        // Whoever said it first has the longer work before it.
        let _ = self.closes_within.set(within);
    }

    /// Has the signal to hang up mean from now on that the configuration is to be read anew, and says when it comes.
    pub(super) fn reloads(&self) -> Receiver<()> {
        self.hang_ups.store(true, Relaxed);
        self.hung_up.clone()
    }

    /// Waits for Ctrl-C.
    pub(super) async fn pressed(&self) {
        let Err(_) = self.pressed.recv().await;
    }
}

/// Ends the process from the thread of the signals. A pipe or terminal that takes nothing holds up the last words, but
/// not the end.
fn end(failed: Failed) -> ! {
    let (told, telling) = mpsc::channel::<()>();
    thread::spawn(move || {
        ui::report(Err(failed));
        drop(told);
    });
    // Nothing is ever sent: it ends when the other half is dropped.
    let _ = telling.recv_timeout(LAST_WORDS);
    exit(INTERRUPTED)
}
