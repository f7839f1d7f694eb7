//! From the news about a job to the answer of its request.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::figures::Checksums;
use super::objects::objects;
use super::pace::{Due, Pace};
use super::reply::Done;
use super::shapes::{self, Said, Stream, Written};
use super::types::{Event, Outcome, RequestId};
use super::{Front, Job, Running, State};
use crate::http::{Body, Headers, Out, Response};
use crate::job::batch::{Failed, File, Finished, Served};
use crate::machine::EffectId;
use crate::time::Time;
use crate::wire::batch::{Answer, BadRequest, Media};
use crate::wire::refused::{Code, Refused, Shape};
use crate::wire::{replies, sse};

impl Front {
    /// Tells the measures of the file of a request, as far as its answer needs them.
    pub fn measured(&mut self, now: Time, id: RequestId, media: Media) {
        self.advance(now);
        if let Some(job) = self.job(id) {
            job.measured(media);
        }
    }

    /// Tells that a request is the caller's to mend: its file cannot be measured, or what it asks for makes no sense.
    pub fn refuse_work(&mut self, now: Time, id: RequestId, bad: &BadRequest) {
        self.advance(now);
        if let Some(running) = self.running.get(&id)
            && let State::Working(job) = &running.state
        {
            let refused = shapes::bad_request(running.target.shape, job.probe, bad);
            self.fail(id, refused);
        }
    }

    /// Tells that an orchestrator has begun to stream its answer.
    pub fn head(&mut self, now: Time, id: RequestId, served: Served) {
        let now = self.advance(now);
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        if let State::Working(job) = &mut running.state
            && job.asked.is_stream()
        {
            let config = &running.config;
            let stream = || Stream::new(&job.asked, id, now, config);
            job.stream.get_or_insert_with(stream).pace.hear(now);
            job.served = Some(served);
            self.arm(id);
        }
    }

    /// Tells the payload of one event of a stream.
    pub fn chunk(&mut self, now: Time, id: RequestId, payload: &Bytes) {
        let now = self.advance(now);
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let State::Working(job) = &mut running.state else {
            return;
        };
        let Some(stream) = &mut job.stream else {
            return;
        };
        stream.pace.hear(now);
        stream.first.get_or_insert(now.since(running.began));
        match stream.chunk(payload) {
            Said::Nothing => {}
            Said::Frame(frame) => self.write(id, frame),
            Said::Last { frame, early } => {
                if early {
                    // The orchestrator has more to say, and nobody wants it.
                    self.out.event(Event::Gone(id));
                }
                self.end_stream(id, frame, None);
            }
            Said::Failed(refused) => {
                self.out.event(Event::Gone(id));
                self.break_off(id, &refused);
            }
        }
    }

    /// Tells the answer of a job with the results that it names, or the proper end of its stream.
    pub fn done(&mut self, now: Time, id: RequestId, finished: Finished) {
        let now = self.advance(now);
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let State::Working(job) = &mut running.state else {
            return;
        };
        job.served = Some(finished.served);
        if job.asked.is_stream() {
            let config = &running.config;
            let stream = || Stream::new(&job.asked, id, now, config);
            let last = job.stream.get_or_insert_with(stream).ended();
            return self.end_stream(id, last, None);
        }
        let Some(answer) = finished.answer else {
            return self.fail(id, shapes::other_answer());
        };
        let whole = match self.whole(now, id, answer, &finished.files) {
            Ok(whole) => whole,
            Err(refused) => return self.fail(id, refused),
        };
        if !self.keep(now, id, whole.named) {
            let text = "The results are larger than this gateway keeps.";
            return self.fail(id, Refused::new(Code::ResultUnavailable, text));
        }
        let Some(running) = self.running.get(&id) else {
            return;
        };
        let State::Working(job) = &running.state else {
            return;
        };
        if running.exchange.is_none() {
            let until = now + running.config.keep;
            let native = job.native.clone();
            self.videos
                .finish(&native, replies::video_done(&whole.body), until);
            return self.over(id, Some(200), Outcome::Answered, None);
        }
        let mut response = Response::new(200).body(Body::Full(whole.body));
        response.headers = super::typed(whole.content_type);
        if whole.content_type == sse::CONTENT_TYPE {
            tell_events(&mut response.headers);
        }
        let addresses = &mut self.figures.addresses;
        tell_served(running, job, now, addresses, &mut response.headers);
        self.answer(id, response, Outcome::Answered, None);
    }

    /// Tells that a job failed.
    pub fn failed(&mut self, now: Time, id: RequestId, failed: Failed) {
        let now = self.advance(now);
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let State::Working(job) = &mut running.state else {
            return;
        };
        match &failed {
            Failed::Broken { served, .. } => job.served = Some((**served).clone()),
            Failed::NoOrchestrator { attempts, .. }
            | Failed::TimedOut { attempts }
            | Failed::ResultLost { attempts, .. } => job.attempts.clone_from(attempts),
            Failed::Ours(_) => self.figures.jobs.unpaid(),
            _ => {}
        }
        let refused = shapes::failed(now, running.target.shape, job, failed);
        self.fail(id, refused);
    }

    fn job(&mut self, id: RequestId) -> Option<&mut Job> {
        match &mut self.running.get_mut(&id)?.state {
            State::Working(job) => Some(job),
            _ => None,
        }
    }

    /// Answers with an error, in whichever way is left.
    fn fail(&mut self, id: RequestId, refused: Refused) {
        let Some(running) = self.running.get(&id) else {
            return;
        };
        let State::Working(job) = &running.state else {
            return self.refuse(id, &refused);
        };
        if running.exchange.is_none() {
            let until = self.now + running.config.keep;
            let native = job.native.clone();
            self.videos
                .finish(&native, replies::video_failed(&refused.message), until);
            return self.over(id, Some(202), Outcome::Refused, Some(refused.code.name()));
        }
        let head_out = |stream: &Stream| stream.pace.is_head_out();
        if job.stream.as_ref().is_some_and(head_out) {
            self.break_off(id, &refused);
        } else {
            self.refuse(id, &refused);
        }
    }

    // ---- a whole answer --------------------------------------------------------------------------------------

    /// Writes a whole answer.
    fn whole(
        &mut self,
        now: Time,
        id: RequestId,
        answer: Answer,
        files: &[File],
    ) -> Result<Written, Refused> {
        let running = self
            .running
            .get(&id)
            .map(|running| (&running.state, running));
        let Some((State::Working(job), running)) = running else {
            return Err(Refused::new(Code::InternalError, "The request is over."));
        };
        let place = shapes::Place {
            id,
            now,
            base: &running.sent.base,
        };
        shapes::whole(job, answer, files, &place, &mut self.rng)
    }

    /// Keeps results; false if there is no room for them even when all others go.
    fn keep(&mut self, now: Time, id: RequestId, named: Vec<(String, Bytes)>) -> bool {
        let Some(running) = self.running.get(&id) else {
            return false;
        };
        let (keep, folder) = (running.config.keep, running.config.folder);
        let results = objects(now, keep, named);
        let kept = self.objects.keep(&results);
        if folder {
            results
                .into_iter()
                .for_each(|result| self.out.event(Event::Keep(result)));
        }
        kept || folder
    }

    // ---- a stream --------------------------------------------------------------------------------------------

    /// Does what the pace of a stream says is due.
    pub(super) fn pace(&mut self, id: RequestId, due: Due) {
        match due {
            Due::Head | Due::KeepAlive => {
                let comment = sse::comment("keep-alive");
                match self.relayed(id) {
                    Some(_) => self.pass(id, comment),
                    None => self.write(id, comment),
                }
            }
            Due::Report => self.ask_report(id),
            Due::Silent => {
                self.out.event(Event::Gone(id));
                self.abort_relay(id);
                self.fail(id, shapes::broken_off());
            }
            Due::Stalled => {
                self.out.event(Event::Gone(id));
                if let Some(exchange) = self.running.get(&id).and_then(|one| one.exchange) {
                    self.out.abort(exchange);
                }
                self.over(id, Some(200), Outcome::Gone, None);
            }
        }
    }

    /// The job has told nothing for too long.
    pub(super) fn too_late(&mut self, id: RequestId) {
        self.out.event(Event::Gone(id));
        let shape = self.running.get(&id).map(|running| running.target.shape);
        let refused = shapes::timed_out(shape.unwrap_or(Shape::OpenAi));
        self.fail(id, refused);
    }

    /// Writes a frame to the client of a stream, behind the head.
    fn write(&mut self, id: RequestId, frame: Bytes) {
        let now = self.now;
        let Some((exchange, head)) = self.head_of(id) else {
            return;
        };
        let Some(stream) = self.job(id).and_then(|job| job.stream.as_mut()) else {
            return;
        };
        let falls_behind = stream.pace.write(now, frame.len());
        if let Some(head) = head {
            self.out.http(exchange, Out::Reply(head));
        }
        self.out.http(exchange, Out::Data(frame));
        if falls_behind {
            self.out.event(Event::Full(id));
            self.ask_report(id);
        }
        self.arm(id);
    }

    /// The exchange of a stream, and its head if that is not out yet: it is from here on.
    fn head_of(&mut self, id: RequestId) -> Option<(EffectId, Option<Response>)> {
        let now = self.now;
        let running = self.running.get_mut(&id)?;
        let exchange = running.exchange?;
        let State::Working(job) = &mut running.state else {
            return None;
        };
        let stream = job.stream.as_mut()?;
        if stream.pace.is_head_out() {
            return Some((exchange, None));
        }
        stream.pace.send_head();
        let mut head = Response::new(200).body(Body::Stream);
        head.headers = super::typed(sse::CONTENT_TYPE);
        tell_events(&mut head.headers);
        running.greeting.write(&mut head.headers);
        let State::Working(job) = &running.state else {
            return None;
        };
        let addresses = &mut self.figures.addresses;
        tell_served(running, job, now, addresses, &mut head.headers);
        Some((exchange, Some(head)))
    }

    /// Has the driver say how much of a stream is out.
    pub(super) fn ask_report(&mut self, id: RequestId) {
        let now = self.now;
        let Some(exchange) = self.running.get(&id).and_then(|running| running.exchange) else {
            return;
        };
        if let Some(pace) = self.pace_of(id) {
            pace.ask(now);
            self.out.http(exchange, Out::Report);
            self.arm(id);
        }
    }

    /// The pace of an answer that goes out as it comes.
    fn pace_of(&mut self, id: RequestId) -> Option<&mut Pace> {
        match &mut self.running.get_mut(&id)?.state {
            State::Working(job) => Some(&mut job.stream.as_mut()?.pace),
            State::Relaying(relayed) => Some(&mut relayed.pace),
            _ => None,
        }
    }

    /// Bytes of a stream are out.
    pub(super) fn sent(&mut self, now: Time, exchange: EffectId, bytes: usize) {
        let Some(id) = self.exchanges.get(&exchange).copied() else {
            return;
        };
        let Some(pace) = self.pace_of(id) else {
            return;
        };
        let caught_up = pace.sent(now, bytes);
        let asks_again = pace.needs_report();
        if caught_up {
            self.out.event(Event::Room(id));
        }
        if asks_again {
            self.ask_report(id);
        }
        // A comment may be due for which there was no room before.
        self.arm(id);
        self.advance(now);
    }

    /// Ends a stream: with the last frame of its answer, or with what tells that it is broken.
    fn end_stream(&mut self, id: RequestId, last: Bytes, error: Option<&'static str>) {
        let now = self.now;
        let Some((exchange, head)) = self.head_of(id) else {
            return;
        };
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let began = running.began;
        let State::Working(job) = &mut running.state else {
            return;
        };
        let served = job.served.clone();
        let Some(stream) = &mut job.stream else {
            return;
        };
        let tail = stream.close(id, served.as_ref(), now.since(began));
        if let Some(head) = head {
            self.out.http(exchange, Out::Reply(head));
        }
        let mut all = Vec::with_capacity(last.len() + tail.len());
        all.extend_from_slice(&last);
        all.extend_from_slice(&tail);
        if !all.is_empty() {
            self.out.http(exchange, Out::Data(all.into()));
        }
        self.out.http(exchange, Out::End(Headers::new()));
        let outcome = if error.is_some() {
            Outcome::Broken
        } else {
            Outcome::Answered
        };
        self.over(id, Some(200), outcome, error);
    }

    /// Tells a client that its stream is broken; with a status, if its head is not out.
    fn break_off(&mut self, id: RequestId, refused: &Refused) {
        let Some(stream) = self.job(id).and_then(|job| job.stream.as_mut()) else {
            return;
        };
        if !stream.pace.is_head_out() && refused.code != Code::RunnerFailed {
            return self.refuse(id, refused);
        }
        let frame = stream.break_off(refused);
        self.end_stream(id, frame, Some(refused.code.name()));
    }
}

/// Adds header fields that keep proxies from holding events back.
pub(super) fn tell_events(headers: &mut Headers) {
    headers.push("cache-control", "no-cache");
    headers.push("x-accel-buffering", "no");
}

/// Adds header fields about who served.
fn tell_served(
    running: &Running,
    job: &Job,
    now: Time,
    addresses: &mut Checksums,
    headers: &mut Headers,
) {
    let Some(served) = &job.served else { return };
    let done = Done {
        pipeline: job.pipeline,
        model: &job.model,
        served,
        address: addresses.of(served.address),
        total: now.since(running.began),
        receiving: running.received.since(running.began),
        defaults: &job.defaults,
        ignored: &job.ignored,
    };
    done.write(&running.config, headers);
}
