//! The input of a job across its orchestrators: what is written goes into a log, and from there to the channel of
//! whoever works.

use std::collections::BTreeMap;

use livepeer_core::http::Url;
use livepeer_core::job::LiveVideoJob as Machine;
use livepeer_core::job::live::replay::{Piece, Replay};
use livepeer_core::trickle::publisher::Unwritten;
use livepeer_core::trickle::{self, Seq, publisher};
use livepeer_core::{Failure, Misuse};

use super::Flushed;
use crate::{Handle, Runtime};

/// How the input does.
pub(super) struct Input<R: Runtime> {
    pub(super) replay: Replay,
    /// How the application wants its channels; `None` until it opened the input.
    config: Option<publisher::Config>,
    media: Option<Handle<trickle::Publisher, R>>,
    /// The channel's numbers of segments that are in the orchestrator's hands, and ours.
    in_flight: BTreeMap<Seq, u64>,
    /// The application has said all.
    closing: bool,
    /// The channel was closed by us, after the last segment.
    closed: bool,
    /// The job has ended before.
    abandoned: bool,
    /// Segments given up, and why.
    pub(super) lost: BTreeMap<u64, Failure>,
    pub(super) resumed: u64,
    /// Segments that a later orchestrator got again.
    pub(super) again: u64,
}

impl<R: Runtime> Default for Input<R> {
    fn default() -> Self {
        Self {
            replay: Replay::default(),
            config: None,
            media: None,
            in_flight: BTreeMap::new(),
            closing: false,
            closed: false,
            abandoned: false,
            lost: BTreeMap::new(),
            resumed: 0,
            again: 0,
        }
    }
}

impl<R: Runtime> Input<R> {
    /// The application opens the input.
    pub(super) fn open(
        &mut self,
        job: &Handle<Machine, R>,
        config: publisher::Config,
        channel: &Url,
    ) {
        self.config = Some(config);
        self.point_at(job, channel);
    }

    /// Another orchestrator: from now on its channel. Returns how many segments it gets again.
    pub(super) fn point_at(&mut self, job: &Handle<Machine, R>, channel: &Url) -> usize {
        let Some(config) = self.config.clone() else {
            return 0;
        };
        self.in_flight.clear();
        let (first, again) = self.replay.restart();
        // Those given up have another chance.
        self.lost.retain(|number, _| *number < first);
        self.again += again as u64;
        let driver = job.driver();
        let publisher = trickle::Publisher::new(driver.now(), config, channel.clone());
        self.closed = false;
        self.media = Some(driver.drive(publisher));
        again
    }

    pub(super) fn media(&self) -> Option<Handle<trickle::Publisher, R>> {
        self.media.clone()
    }

    /// Whether its channel still has something to do.
    pub(super) const fn is_at_work(&self) -> bool {
        self.media.is_some()
    }

    /// Whether nothing can be written any more.
    pub(super) const fn is_over(&self) -> bool {
        self.closed || self.closing || self.abandoned
    }

    /// Whether the orchestrator at work has been handed everything so far.
    pub(super) fn is_handed_over(&self) -> bool {
        self.media.is_some() && self.replay.next().is_none()
    }

    /// Whether every segment is delivered or given up.
    pub(super) fn is_settled(&self) -> bool {
        self.closed
            || self.abandoned
            || (self.in_flight.is_empty() && self.is_handed_over() && !self.replay.is_open())
    }

    /// What became of the segments so far.
    pub(super) fn flushed(&self) -> Flushed {
        let handed = self.replay.handed();
        let awaited = self.in_flight.values().filter(|number| **number < handed);
        let awaited = awaited.count() as u64;
        Flushed {
            begun: self.replay.begun(),
            delivered: handed - awaited - self.lost.len() as u64,
            resumed: self.resumed,
            again: self.again,
            lost: self
                .lost
                .iter()
                .map(|(number, failure)| (Seq::new(*number), failure.clone()))
                .collect(),
        }
    }

    /// Whether the channel is closed, or the job has ended.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed || self.abandoned
    }

    /// Hands over what the orchestrator at work takes, and closes its channel once that is due.
    pub(super) fn feed(&mut self, job: &Handle<Machine, R>) {
        let Some(media) = self.media.clone() else {
            return;
        };
        let mut moved = false;
        while let Some(piece) = self.replay.next() {
            let taken = match piece {
                Piece::Begin(number) => media
                    .with(|publisher, now| publisher.begin(now))
                    .map(|seq| {
                        self.in_flight.insert(seq, number);
                        job.with(|job, now| job.input_begun(now));
                    })
                    .is_ok(),
                Piece::Data(data) => {
                    match media.with(|publisher, now| publisher.write(now, data)) {
                        Err(Unwritten::Misuse(Misuse::NotOpen)) => {
                            // It was silent for too long.
                            self.replay.cut();
                            continue;
                        }
                        written => written.is_ok(),
                    }
                }
                Piece::End(_) => {
                    let ended = media.with(|publisher, now| publisher.end(now));
                    matches!(ended, Ok(()) | Err(Misuse::NotOpen))
                }
            };
            if !taken {
                // It says when to try again, or that it has ended.
                break;
            }
            self.replay.took();
            moved = true;
        }
        let (owed, waits) = (self.replay.owed(), self.replay.next().is_some());
        job.with(|job, now| {
            job.set_owed(now, owed);
            if moved {
                job.set_input_waits(now, false);
            }
            job.set_input_waits(now, waits);
        });
        if self.closing && self.is_settled() {
            // Before the channel goes: what the orchestrator closes from now on is how it should be.
            job.with(|job, now| job.input_closed(now));
            media.with(|publisher, now| publisher.close(now));
        }
    }

    /// The application has said all.
    pub(super) fn close(&mut self, job: &Handle<Machine, R>) {
        self.closing = true;
        self.replay.end();
        self.feed(job);
    }

    /// The orchestrator has a whole segment.
    pub(super) fn delivered(&mut self, seq: Seq) {
        if let Some(number) = self.in_flight.remove(&seq) {
            self.replay.delivered(number);
        }
    }

    /// The channel has given a segment up.
    pub(super) fn lost(&mut self, seq: Seq, failure: Failure) {
        if let Some(number) = self.in_flight.remove(&seq) {
            self.replay.lost(number);
            self.lost.insert(number, failure);
        }
    }

    /// The channel has ended. Returns whether that was our doing.
    pub(super) fn on_closed(&mut self) -> bool {
        self.media = None;
        let ours = self.closing && self.in_flight.is_empty() && self.replay.next().is_none();
        self.closed = ours;
        ours
    }

    /// The job has ended.
    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
        if let Some(media) = &self.media {
            media.with(|publisher, now| publisher.close(now));
        }
    }
}
