//! News of the jobs of streams.

use alloc::string::ToString as _;

use super::{Entry, Event, JobEnd, StreamId, Why, without_addresses};
use crate::error::Failure;
use crate::http::Url;
use crate::money::Amount;
use crate::time::Time;
use crate::wire::RunnerEvent;
use crate::wire::entry::{IngestMetrics, TraceKind, ingest_metrics_event};

impl Entry {
    /// Tells that an orchestrator works for a stream.
    pub fn started(&mut self, now: Time, id: StreamId, orchestrator: Url) {
        self.advance(now);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.orchestrator = Some(orchestrator);
        if !core::mem::replace(&mut stream.runs, true) {
            self.figures.began(&stream.job.pipeline);
        }
        let kept = stream.params.take();
        if let Some(sender) = stream.waiting.take() {
            self.senders.remove(&sender);
            self.out.event(Event::Settled(sender));
        }
        if let Some(params) = kept {
            self.change(id, params, None);
        }
    }

    /// Tells that another orchestrator works for a stream, and why the one before was lost.
    pub fn swapped(&mut self, now: Time, id: StreamId, why: &Failure, orchestrator: Url) {
        self.advance(now);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.swaps += 1;
            let reason = why.cause.word();
            self.figures.swapped(reason);
            self.figures
                .failed(reason, &stream.at(), &stream.job.pipeline);
            self.trace(
                id,
                TraceKind::OrchestratorSwap,
                Some(&without_addresses(why)),
            );
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.orchestrator = Some(orchestrator);
        }
    }

    /// Passes on what a runner said.
    pub fn runner(&mut self, now: Time, id: StreamId, event: RunnerEvent) {
        self.advance(now);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let event = event.for_pipeline(&stream.job.pipeline_id);
        let (queue, text) = event.told();
        if event.is_status() {
            stream.status = Some(event.merged_over(stream.status.as_ref()));
        }
        self.report(queue, text);
    }

    /// Tells that a segment of the input is on its way.
    pub fn input(&mut self, now: Time, id: StreamId) {
        self.advance(now);
        if let Some(stream) = self.streams.get_mut(&id)
            && !core::mem::replace(&mut stream.has_input, true)
        {
            self.trace(id, TraceKind::SendFirstIngestSegment, None);
        }
    }

    /// Tells that a segment of the output is there.
    pub fn output_seen(&mut self, now: Time, id: StreamId) {
        self.advance(now);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.outputs = stream.outputs.saturating_add(1);
            if stream.outputs == 1 {
                let after = self.now.since(stream.began);
                self.figures.first_output(&stream.at(), after);
            }
            match stream.outputs {
                1 => self.trace(id, TraceKind::ReceiveFirstProcessedSegment, None),
                3 => self.trace(id, TraceKind::ReceiveFewProcessedSegments, None),
                _ => {}
            }
        }
    }

    /// Tells that a payment for a stream was taken: how many tickets, and what they are worth.
    pub fn paid(&mut self, now: Time, tickets: u32, value: &Amount) {
        self.advance(now);
        self.figures.jobs.paid(tickets.into(), value);
    }

    /// Tells that a payment for a stream cannot be made for now.
    pub fn unpaid(&mut self, now: Time) {
        self.advance(now);
        self.figures.jobs.unpaid();
    }

    /// Tells how the input of a stream arrives.
    pub fn metrics(&mut self, now: Time, id: StreamId, metrics: IngestMetrics) {
        let now = self.advance(now);
        self.figures.whip(metrics.received, metrics.sent);
        if let Some(stream) = self.streams.get_mut(&id) {
            let event = ingest_metrics_event(&stream.context(), now, &metrics);
            stream.gateway.ingest = Some(metrics);
            self.report("stream_ingest_metrics", event);
        }
    }

    /// Tells that the job of a stream is over, or that none came about.
    pub fn job_over(&mut self, now: Time, id: StreamId, end: JobEnd<'_>) {
        self.advance(now);
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let reason = match end {
            JobEnd::Finished => None,
            JobEnd::NoOrchestrator => Some("no_orchestrator"),
            JobEnd::Failed(_) => Some("failed"),
        };
        if let Some(reason) = reason {
            let (at, model) = (stream.at(), &stream.job.pipeline);
            self.figures.failed(reason, &at, model);
        }
        let why = match end {
            JobEnd::Finished => Why::Finished,
            JobEnd::NoOrchestrator => Why::NoOrchestrator,
            JobEnd::Failed(text) if stream.swaps > 0 => {
                Why::Failed(alloc::format!("Too many swaps: {text}"))
            }
            JobEnd::Failed(text) => Why::Failed(text.to_string()),
        };
        self.end(id, why);
    }
}
