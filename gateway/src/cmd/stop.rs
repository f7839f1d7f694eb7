//! Ctrl-C, as something to wait for.

use std::future::poll_fn;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use crate::ui::Failed;

#[derive(Default)]
struct Pressed {
    count: u32,
    wakers: Vec<Waker>,
}

fn pressed() -> &'static Mutex<Pressed> {
    static PRESSED: OnceLock<Mutex<Pressed>> = OnceLock::new();
    PRESSED.get_or_init(Mutex::default)
}

/// Ctrl-C and the signal to terminate, from now on. The second one ends the process at once.
#[derive(Clone, Copy)]
pub(super) struct Stop;

impl Stop {
    /// Takes over the signals.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(super) fn listen() -> Result<Self, Failed> {
        ctrlc::set_handler(|| {
            let mut pressed = pressed().lock().unwrap_or_else(PoisonError::into_inner);
            pressed.count += 1;
            if pressed.count > 1 {
                std::process::exit(130);
            }
            for waker in pressed.wakers.drain(..) {
                waker.wake();
            }
        })
        .map_err(|error| {
            Failed::new(
                format_args!("cannot watch for Ctrl-C: {error}"),
                "Report it",
            )
        })?;
        Ok(Self)
    }

    /// Waits for it.
    pub(super) async fn pressed(self) {
        poll_fn(|cx| {
            let mut pressed = pressed().lock().unwrap_or_else(PoisonError::into_inner);
            if pressed.count > 0 {
                return Poll::Ready(());
            }
            if !pressed
                .wakers
                .iter()
                .any(|waker| waker.will_wake(cx.waker()))
            {
                pressed.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
