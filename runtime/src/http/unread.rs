//! Bodies of requests that were answered before they were read.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use livepeer_core::Time;

use crate::rt::Runtime;

/// How much of such a body is read all the same. Else the stream is reset, or the connection closed, before the client
/// has sent its body, and some clients take that for a failure although they have their answer.
pub const EARLY_BODY_BYTES: usize = 256 << 10;
/// How long the rest of such a body may take.
pub const EARLY_BODY_WITHIN: Duration = Duration::from_secs(2);

/// The rest of a body that nobody wants.
pub(super) struct Unread<R: Runtime> {
    body: Incoming,
    left: usize,
    runtime: R,
    until: Time,
    /// Set when the body first has to be waited for.
    alarm: Option<Pin<Box<R::Sleep>>>,
}

impl<R: Runtime> Unread<R> {
    pub(super) fn new(runtime: &R, body: Incoming) -> Self {
        Self {
            body,
            left: EARLY_BODY_BYTES,
            until: runtime.now() + EARLY_BODY_WITHIN,
            runtime: runtime.clone(),
            alarm: None,
        }
    }

    /// Whether the peer said that there is no more than is read.
    pub(super) fn is_small(&self) -> bool {
        let most = self.body.size_hint().upper();
        most.is_some_and(|most| most <= self.left as u64)
    }

    /// Reads what is there: whether that was all, or `Pending` if more may come.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => {
                    let len = frame.data_ref().map_or(0, bytes::Bytes::len);
                    match self.left.checked_sub(len) {
                        Some(left) => self.left = left,
                        None => return Poll::Ready(false),
                    }
                }
            }
        }
    }

    /// Polls as [`Unread::poll_end`] does, and waits no longer than [`EARLY_BODY_WITHIN`].
    pub(super) fn poll_end_in_time(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Poll::Ready(all) = self.poll_end(cx) {
            return Poll::Ready(all);
        }
        loop {
            let sleep = || Box::pin(self.runtime.sleep_until(self.until));
            let alarm = self.alarm.get_or_insert_with(sleep);
            std::task::ready!(alarm.as_mut().poll(cx));
            self.alarm = None;
            if self.runtime.now() >= self.until {
                return Poll::Ready(false);
            }
        }
    }
}
