//! The start of a stream: a job of ours asks one orchestrator after the other.

use alloc::boxed::Box;
use alloc::string::String;

use bytes::Bytes;

use super::ask::What;
use super::{State, StreamEvent};
use crate::http::Url;
use crate::job::byoc::job::{Aim, Job, Signed};
use crate::job::byoc::{Byoc, Failed, JobId, Left, Order};
use crate::payment::session::Delivered;
use crate::wire::byoc::stream::{StreamChannels, start_body};

/// Bytes of a stream's name at orchestrators that nobody guesses.
const NAME_BYTES: usize = 16;

impl Byoc {
    /// Has orchestrators asked to start a stream.
    pub(super) fn start_stream(&mut self, id: JobId) {
        let name = self.draw_name();
        let start = self.draw_id();
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let order = &stream.order;
        let order = Order {
            content_type: "application/json".into(),
            body: start_body(order.params.as_ref()),
            may_repeat: order.may_repeat,
            search_within: order.search_within,
            token_within: order.token_within,
            ..Order::new(order.job.clone().about_stream(&name))
        };
        let mut job = Job::new(self.now, order, stream.wishes.clone());
        job.aim = Aim::Start(id);
        job.tried.clone_from(&stream.tried);
        job.attempts.clone_from(&stream.attempts);
        job.reached = !job.attempts.is_empty();
        stream.state = State::Starting(start);
        self.jobs.insert(start, job);
        self.introducing.ask(self.now, &mut self.out);
        self.introduced();
        self.look(start);
    }

    /// A name that nobody guesses.
    fn draw_name(&mut self) -> String {
        hex::encode(&self.rng.bytes32()[..NAME_BYTES])
    }

    /// An orchestrator has said that it started a stream: the job that asked for it is over. `opened` are the channels that
    /// it names, if they can be used.
    pub(in crate::job::byoc) fn stream_started(
        &mut self,
        start: JobId,
        id: JobId,
        opened: Option<StreamChannels>,
    ) {
        let fits = |stream: &super::Stream, channels: &StreamChannels| {
            let wishes = &stream.wishes;
            channels.control.is_some()
                && channels.events.is_some()
                && (channels.publish.is_some() || !wishes.video_in)
                && (channels.subscribe.is_some() || !wishes.video_out)
                && (channels.data.is_some() || !wishes.data_out)
        };
        let stream = self.streams.get(&id);
        let channels = opened.filter(|opened| stream.is_some_and(|stream| fits(stream, opened)));
        let Some(channels) = channels else {
            // Something may run there that nobody can use.
            return self.start_is_unusable(start);
        };
        let Some(job) = self.jobs.get_mut(&start) else {
            return;
        };
        let (Some(engaged), Signed::Done(signed)) = (job.engaged.take(), &job.signed) else {
            return;
        };
        let header = job.order.job.to_header(signed.as_ref());
        job.flight = None;
        self.note(&engaged.url, true);
        if let Some(job) = self.remove(start)
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.tried.extend(job.tried);
            stream.attempts = job.attempts;
            self.run_stream(id, engaged, header, channels);
        }
    }

    /// The job that asked for a stream has failed.
    pub(in crate::job::byoc) fn stream_not_started(&mut self, id: JobId, job: Job, failed: Failed) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !matches!(stream.state, State::Starting(_)) {
            return;
        }
        stream.tried.extend(job.tried.iter().cloned());
        if let Failed::Undecided { attempts } = &failed
            && let Some(last) = attempts.last()
            && let Signed::Done(signed) = &job.signed
        {
            let header = job.order.job.to_header(signed.as_ref());
            let url = last.url.clone();
            stream.attempts.clone_from(attempts);
            stream.state = State::Undoing;
            return self.ask_stop(id, &url, header, What::Undo(Box::new(failed)));
        }
        self.end_stream(id, Err(Box::new(failed)));
    }

    /// The orchestrator that may have started a stream has answered the request to stop it: `stopped` if it did so.
    pub(super) fn undone(&mut self, id: JobId, stopped: bool, failed: Box<Failed>) {
        let undoes =
            { self.streams.get(&id) }.is_some_and(|stream| matches!(stream.state, State::Undoing));
        match (undoes, stopped) {
            (false, _) => {}
            (true, true) => self.start_stream(id),
            (true, false) => self.end_stream(id, Err(failed)),
        }
    }

    /// The orchestrator that has the request for a start which is not waited for any more, and the header of requests about
    /// the stream.
    pub(super) fn give_up_start(&self, start: JobId) -> Option<(Url, String)> {
        let job = self.jobs.get(&start)?;
        let (Some(_), Some(engaged), Signed::Done(signed)) =
            (&job.flight, &job.engaged, &job.signed)
        else {
            return None;
        };
        let header = job.order.job.to_header(signed.as_ref());
        Some((engaged.token.service.clone(), header))
    }

    fn start_is_unusable(&mut self, start: JobId) {
        self.next(start, Left::Unusable, true, Delivered::Used(0));
    }

    /// Tells the end of a stream once its farewells are answered.
    pub(super) fn end_stream(&mut self, id: JobId, end: Result<Bytes, Box<Failed>>) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !matches!(stream.state, State::Closing(_))
        {
            stream.state = State::Closing(Some(end));
        }
    }

    pub(super) fn end_if_closed(&mut self, id: JobId) {
        let closed = |stream: &super::Stream| {
            matches!(stream.state, State::Closing(_))
                && stream.asks.is_empty()
                && stream.leaving.is_empty()
        };
        if self.streams.get(&id).is_some_and(closed)
            && let Some(stream) = self.streams.remove(&id)
            && let State::Closing(Some(end)) = stream.state
        {
            self.tell_stream(id, StreamEvent::Ended(end));
        }
    }
}
