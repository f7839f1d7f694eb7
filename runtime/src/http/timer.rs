//! The runtime's clock, as hyper wants it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::Sleep;
use livepeer_core::Time;

use crate::rt::Runtime;

/// Tells hyper the runtime's time. A runtime's clock may run in its own way, so only differences of it count.
#[derive(Clone)]
pub(super) struct Timer<R> {
    runtime: R,
    /// A moment as both clocks show it.
    epoch: (Instant, Time),
}

impl<R: Runtime> Timer<R> {
    pub(super) fn new(runtime: R) -> Self {
        let epoch = (Instant::now(), runtime.now());
        Self { runtime, epoch }
    }

    fn sleep_to(&self, at: Time) -> Pin<Box<dyn Sleep>> {
        let sleep = Box::pin(self.runtime.sleep_until(at));
        let runtime = self.runtime.clone();
        Box::pin(Alarm {
            runtime,
            at,
            sleep: Mutex::new(sleep),
        })
    }
}

impl<R: Runtime> hyper::rt::Timer for Timer<R> {
    fn sleep(&self, span: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_to(self.runtime.now() + span)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep_to(self.epoch.1 + deadline.saturating_duration_since(self.epoch.0))
    }

    fn now(&self) -> Instant {
        self.epoch.0 + self.runtime.now().since(self.epoch.1)
    }
}

/// A wait for a point in time, which does not end early. The lock is never contended: hyper wants what it polls to be
/// shareable, and shares nothing.
struct Alarm<R: Runtime> {
    runtime: R,
    at: Time,
    sleep: Mutex<Pin<Box<R::Sleep>>>,
}

impl<R: Runtime> Future for Alarm<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let sleep = this.sleep.get_mut().expect("nobody panics while polling");
        loop {
            std::task::ready!(sleep.as_mut().poll(cx));
            if this.runtime.now() >= this.at {
                return Poll::Ready(());
            }
            sleep.set(this.runtime.sleep_until(this.at));
        }
    }
}

impl<R: Runtime> Sleep for Alarm<R> {}
