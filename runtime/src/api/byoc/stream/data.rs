//! Data that a container says beside its media.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::trickle::message::Lines;
use livepeer_core::trickle::{Seq, Start, Subscriber, subscriber};
use livepeer_core::wire::MAX_MESSAGE_BYTES;

use super::Shared;
use crate::{Handle, Runtime};

/// How long the rest of the data may take once the stream has ended: its orchestrator may be gone.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The lines that a container says beside its media, from whoever has the stream. It ends with the stream. See
/// [`ByocStream::data`](super::ByocStream::data).
///
/// Not reading it stops the download, and in the end loses lines. Each has a reader of its own at the orchestrator.
pub struct ByocData<R: Runtime> {
    shared: Arc<Shared<R>>,
    config: subscriber::Config,
    /// The session whose channel was opened last, and that channel until its end.
    session: Option<u32>,
    reader: Option<Handle<Subscriber, R>>,
    lines: Lines,
    ready: VecDeque<Bytes>,
    /// Until when the rest is awaited, and what wakes us then.
    until: Option<(Time, Pin<Box<R::Sleep>>)>,
}

/// Something that happened to the data.
enum Next {
    Event(subscriber::Event),
    /// The channel has ended.
    Closed,
    /// Another orchestrator has the stream.
    Elsewhere,
    /// The stream has ended.
    Over,
}

impl<R: Runtime> ByocData<R> {
    pub(super) fn new(shared: Arc<Shared<R>>, config: subscriber::Config) -> Self {
        let mut data = Self {
            shared,
            config,
            session: None,
            reader: None,
            lines: Lines::new(MAX_MESSAGE_BYTES),
            ready: VecDeque::new(),
            until: None,
        };
        data.follow(Start::Current);
        data
    }

    /// The next line, without its end; `None` after the last one. Lines of more than a megabyte are passed over.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            match poll_fn(|cx| self.poll(cx)).await {
                Next::Event(event) => self.take(event),
                // What the next one says is all new.
                Next::Elsewhere => self.follow(Start::At(Seq::ZERO)),
                Next::Closed => self.reader = None,
                Next::Over if self.reader.is_none() => return None,
                Next::Over => {
                    self.until = Some(self.alarm(self.shared.media.driver().now() + ENDS_WITHIN))
                }
            }
        }
    }

    fn alarm(&self, at: Time) -> (Time, Pin<Box<R::Sleep>>) {
        let runtime = self.shared.media.driver().runtime();
        (at, Box::pin(runtime.sleep_until(at)))
    }

    /// Opens the channel of whoever has the stream.
    fn follow(&mut self, start: Start) {
        let begun = self.shared.state.with(|state| {
            let begun = state.begun.as_ref()?;
            Some((begun.session, begun.channels.data.clone()))
        });
        let Some((session, channel)) = begun else {
            return;
        };
        self.session = Some(session);
        self.lines = Lines::new(MAX_MESSAGE_BYTES);
        let driver = self.shared.media.driver();
        self.reader = channel.map(|channel| {
            let reader = Subscriber::new(driver.now(), self.config.clone(), channel, start);
            driver.drive(reader)
        });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(reader) = &self.reader
            && let Poll::Ready(event) = reader.poll_next(cx)
        {
            return Poll::Ready(event.map_or(Next::Closed, Next::Event));
        }
        while let Some((until, sleep)) = &mut self.until
            && sleep.as_mut().poll(cx).is_ready()
        {
            // It may end early.
            let until = *until;
            if until <= self.shared.media.driver().now() {
                self.until = None;
                return Poll::Ready(Next::Closed);
            }
            self.until = Some(self.alarm(until));
        }
        self.shared.state.poll(cx, |state| {
            let session = state.begun.as_ref().map(|begun| begun.session);
            let waits = self.reader.is_some() && self.until.is_some();
            if state.ended.is_some() {
                (!waits).then_some(Next::Over)
            } else {
                (session != self.session).then_some(Next::Elsewhere)
            }
        })
    }

    fn take(&mut self, event: subscriber::Event) {
        use subscriber::Event;
        let ready = &mut self.ready;
        let keep = |line: Result<&[u8], _>| ready.extend(line.ok().map(Bytes::copy_from_slice));
        match event {
            Event::Data(_, bytes) => self.lines.data(&bytes, keep),
            Event::End(_) => self.lines.end(keep),
            Event::Begin(..) | Event::Truncated(..) => self.lines = Lines::new(MAX_MESSAGE_BYTES),
            Event::Closed(_) => self.reader = None,
            _ => {}
        }
    }
}

impl<R: Runtime> fmt::Debug for ByocData<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByocData")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
