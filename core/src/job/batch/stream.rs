//! Answers that come as streams of events (jobs spec 2.8).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::Batch;
use super::job::Stage;
use super::types::{Event, Failed, Finished, JobId, Left};
use crate::error::{Cause, Failure, Party};
use crate::http::Body;
use crate::payment::session::Delivered;
use crate::pool::{Outcome, Selector};
use crate::wire::batch::{Chunk, read_chunk};
use crate::wire::sse::{self, BadStream};

/// How long the end of a stream is waited for after its last chunk: a peer may never end it.
const END_WITHIN: Duration = Duration::from_secs(1);

impl<S: Selector> Batch<S> {
    /// Takes bytes of a stream.
    pub(super) fn on_events(&mut self, id: JobId, data: &Bytes) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &mut job.stage else {
            return;
        };
        let Some(events) = &mut flight.events else {
            return;
        };
        let mut payloads = Vec::new();
        let read = events.reader.data(data, |payload| payloads.push(payload));
        // Comments and blank lines are no news: an orchestrator that sends nothing else is silent.
        if !events.finished && !payloads.is_empty() {
            flight.until = self.now + job.config.stream_silence;
            let silence = (!job.paused).then_some(flight.until);
            self.set_wake(id, silence);
        }
        for payload in payloads {
            self.on_payload(id, payload);
        }
        if let Err(bad) = read {
            let (what, limit) = match bad {
                BadStream::Long => ("a line of the stream", sse::MAX_LINE_BYTES),
                BadStream::Blank => ("blank lines of the stream", sse::MAX_BLANK_LINES),
            };
            self.stream_broke(id, Cause::TooMuch { what, limit });
        }
    }

    fn on_payload(&mut self, id: JobId, payload: Bytes) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &mut job.stage else {
            return;
        };
        let Some(events) = &mut flight.events else {
            return;
        };
        match read_chunk(&payload) {
            // After the last chunk only the usage counts.
            Chunk::Part(part) if events.finished && !part.choices.is_empty() => {}
            Chunk::Part(part) => {
                let last = part.is_finished() && !events.finished;
                events.finished |= last;
                if !core::mem::replace(&mut events.begun, true) {
                    // Nobody else may go on from here.
                    job.body = Body::Empty;
                }
                self.out.event(Event::Chunk(id, payload));
                if last {
                    // A chunk with the usage may follow.
                    let until = self.now + END_WITHIN;
                    self.set_wake(id, Some(until));
                }
            }
            // An answer that ends so without a last chunk that says why has ended well all the same (front-door spec
            // 1.5). Where nothing came before, it ends nothing.
            Chunk::Done if events.begun => self.stream_done(id),
            Chunk::Done | Chunk::Skipped => {}
            Chunk::Failed(text) => self.stream_broke(id, Cause::Ended(text)),
        }
    }

    /// Tells who answers with a stream. Until the first chunk another may take over, and is told of likewise.
    pub(super) fn tell_head(&mut self, id: JobId) {
        if let Some(served) = self.jobs.get(&id).and_then(|job| job.served.clone()) {
            self.out.event(Event::Head(id, served));
        }
    }

    pub(super) fn on_events_end(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &mut job.stage else {
            return;
        };
        let last = flight
            .events
            .as_mut()
            .and_then(|events| events.reader.end());
        if let Some(payload) = last {
            self.on_payload(id, payload);
        }
        let stage = self.jobs.get(&id).map(|job| &job.stage);
        let Some(Stage::InFlight(flight)) = stage else {
            return;
        };
        match &flight.events {
            Some(events) if events.finished => self.stream_done(id),
            // A runner that died looks like this.
            _ => self.stream_broke(id, Cause::Gone("the rest of the answer")),
        }
    }

    /// A stream came to its end.
    pub(super) fn stream_done(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(served) = job.served.take() else {
            return;
        };
        self.did_well(id);
        self.remove(id);
        let finished = Finished {
            answer: None,
            files: Vec::new(),
            served: *served,
        };
        self.out.event(Event::Done(id, Box::new(finished)));
    }

    /// A stream broke. As long as nothing of it went out, others may go on.
    pub(super) fn stream_broke(&mut self, id: JobId, cause: Cause) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &job.stage else {
            return;
        };
        let begun = flight.events.as_ref().is_some_and(|events| events.begun);
        if !begun {
            let left = match &cause {
                Cause::Link(_) | Cause::Silent { .. } => Left::from(&cause),
                _ => Left::InvalidAnswer,
            };
            return self.attempt_failed(id, left, cause);
        }
        let Some(served) = job.served.take() else {
            return;
        };
        let failure = Failure::new(Party::Orchestrator(served.url.clone()), cause);
        let outcome = Outcome::Failed(failure.clone());
        self.leave(id, Delivered::Accepted, outcome);
        let failure = Box::new(failure);
        self.fail(id, Failed::Broken { served, failure });
    }
}
