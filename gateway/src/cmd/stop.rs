//! Ctrl-C, as something to wait for.

use std::convert::Infallible;

use async_channel::Receiver;

use crate::ui::Failed;

/// Ctrl-C and the signal to terminate, from now on. The second one ends the process at once.
#[derive(Clone)]
pub(super) struct Stop(Receiver<Infallible>);

impl Stop {
    /// Takes over the signals.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(super) fn listen() -> Result<Self, Failed> {
        // Nothing is ever sent: closing the channel says it to all who wait, and to all who come later.
        let (sender, receiver) = async_channel::bounded(1);
        ctrlc::set_handler(move || {
            if !sender.close() {
                std::process::exit(130);
            }
        })
        .map_err(|error| {
            Failed::new(
                format_args!("cannot watch for Ctrl-C: {error}"),
                "Report it",
            )
        })?;
        Ok(Self(receiver))
    }

    /// Waits for it.
    pub(super) async fn pressed(&self) {
        let Err(_) = self.0.recv().await;
    }
}
