//! Requests to orchestrators, and their answers.

use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::Byoc;
use super::job::{Aim, Flight, Job, Signed, broken, too_long};
use super::types::{Done, Event, Failed, JobId, Left, Served, StreamEvent, Trying};
use crate::error::Cause;
use crate::http::{Body, Fault, In, Method, Out, Request, Response, Url};
use crate::payment::session::{Credentials, Delivered};
use crate::wire::byoc::stream::{START_PATH, StreamChannels};
use crate::wire::byoc::{
    BALANCE_HEADER, Grounds, JOB_HEADER, METADATA_HEADER, Relay, STREAM_BALANCE_HEADER, Verdict,
    judge, request_url,
};
use crate::wire::payment::PAYMENT_HEADER;
use crate::wire::sse;

/// How much longer than the job's own time an answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// How much longer than the job's own time a stream of events may take.
const STREAM_GRACE: Duration = Duration::from_secs(10);

/// At most this many bytes of a refusal are read.
const MAX_REFUSAL: usize = 64 << 10;

impl Byoc {
    /// Sends the request of a job, with the tickets that it takes along.
    pub(super) fn send(&mut self, id: JobId, credentials: Option<Credentials>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (Some(engaged), Signed::Done(signed)) = (&job.engaged, &job.signed) else {
            return;
        };
        let url = match job.aim {
            Aim::Request => request_url(&engaged.token.service, &job.order.path),
            Aim::Start(_) => Ok(engaged.token.service.with_path(START_PATH)),
        };
        let Ok(url) = url else { return };
        let (aim, order) = (job.aim, &job.order);
        let mut request = Request::new(Method::Post, url)
            .header(JOB_HEADER, order.job.to_header(signed.as_ref()))
            .trust(self.config.trust)
            .body(Body::Full(order.body.clone()));
        if !order.content_type.is_empty() {
            request
                .headers
                .push("content-type", order.content_type.as_str());
        }
        if let Some(credentials) = credentials {
            request.headers.push(PAYMENT_HEADER, credentials.payment);
        }
        let within = Duration::from_secs(order.job.timeout_seconds.into()) + ANSWER_GRACE;
        let exchange = self.out.request(request);
        self.effects.insert(exchange, id);
        job.requests += 1;
        let trying = Trying {
            url: engaged.url.clone(),
            price: engaged.token.price,
            attempt: job.requests,
        };
        job.flight = Some(Flight {
            exchange,
            asked: self.now,
            until: self.now + within,
            served: None,
            status: 0,
            balance: None,
            body: Vec::new(),
            relay: None,
            opened: None,
        });
        // Others are not needed for now; who has answered already is remembered.
        let asking: Vec<_> = job.asking.keys().copied().collect();
        job.stop_search(&mut self.out);
        for effect in asking {
            self.effects.remove(&effect);
        }
        match aim {
            Aim::Request => self.out.event(Event::Trying(id, Box::new(trying))),
            Aim::Start(stream) => self.tell_stream(stream, StreamEvent::Trying(trying)),
        }
        self.arm(id);
    }

    pub(super) fn on_answer(&mut self, id: JobId, step: In) {
        let Some(flight) = self.jobs.get_mut(&id).and_then(|job| job.flight.as_mut()) else {
            return;
        };
        match step {
            In::Reply(head) => self.on_head(id, &head),
            In::Data(data) if flight.relay.is_some() => self.on_lines(id, &data),
            In::Data(data) => {
                let limit = match flight.status {
                    200..=299 => self.config.max_answer,
                    _ => MAX_REFUSAL,
                };
                let room = limit - flight.body.len();
                flight.body.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    self.on_whole(id, false);
                }
            }
            In::End(_) => {
                self.effects.remove(&flight.exchange);
                match &mut flight.relay {
                    Some(relay) => {
                        let last = relay.end();
                        self.chunk(id, last);
                        self.done(id, Bytes::new());
                    }
                    None => self.on_whole(id, true),
                }
            }
            In::Failed(fault) => {
                self.effects.remove(&flight.exchange);
                self.on_broken(id, &fault);
            }
            In::Sent(_) | In::Request(_) => {}
        }
    }

    fn on_head(&mut self, id: JobId, head: &Response) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (Some(flight), Some(engaged)) = (&mut job.flight, &job.engaged) else {
            return;
        };
        if flight.status != 0 {
            // One head is all that an answer has.
            return;
        }
        flight.status = head.status;
        let get = |name| head.headers.get(name).unwrap_or_default();
        let content_type = get("content-type").to_string();
        let tells = content_type.trim_start().starts_with(sse::CONTENT_TYPE);
        let stream = tells && job.aim == Aim::Request;
        let balance = match get(BALANCE_HEADER) {
            "" => get(STREAM_BALANCE_HEADER),
            balance => balance,
        };
        flight.balance = balance.trim().parse().ok();
        if !matches!(head.status, 200..=299) {
            return;
        }
        let served = Served {
            url: engaged.url.clone(),
            content_type,
            metadata: get(METADATA_HEADER).to_string(),
            balance: balance.to_string(),
            stream,
            price: engaged.token.price,
            tickets: engaged.tickets,
            value: engaged.value.clone(),
            attempts: job.attempts.clone(),
            waited: self.now.since(job.began),
        };
        flight.served = Some(served.clone());
        if let Aim::Start(_) = job.aim {
            flight.opened =
                StreamChannels::from_headers(&head.headers, &engaged.token.service).ok();
        }
        if stream {
            flight.relay = Some(Relay::new());
            flight.until = flight.until + STREAM_GRACE.saturating_sub(ANSWER_GRACE);
            if job.paused {
                self.out.http(flight.exchange, Out::Pause);
            }
            self.out.event(Event::Head(id, Box::new(served)));
        }
    }

    /// Lines of a stream of events.
    fn on_lines(&mut self, id: JobId, data: &Bytes) {
        let flight = self.jobs.get_mut(&id).and_then(|job| job.flight.as_mut());
        let Some(relay) = flight.and_then(|flight| flight.relay.as_mut()) else {
            return;
        };
        match relay.data(data) {
            Ok(relayed) => {
                self.chunk(id, relayed.bytes);
                if relayed.ended {
                    self.done(id, Bytes::new());
                }
            }
            Err(_) => self.broke(
                id,
                Cause::TooMuch {
                    what: "a line of the answer",
                    limit: sse::MAX_LINE_BYTES,
                },
            ),
        }
    }

    fn chunk(&mut self, id: JobId, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.event(Event::Chunk(id, bytes));
        }
    }

    /// An answer is whole, or the beginning of one that is too long.
    fn on_whole(&mut self, id: JobId, whole: bool) {
        let Some(flight) = self.jobs.get_mut(&id).and_then(|job| job.flight.as_mut()) else {
            return;
        };
        let (status, body) = (flight.status, core::mem::take(&mut flight.body));
        match status {
            200..=299 if whole => self.done(id, body.into()),
            // What matters of it is the head.
            200..=299 if self.starts_stream(id) => self.done(id, Bytes::new()),
            200..=299 => self.broke(
                id,
                Cause::TooMuch {
                    what: "the answer in bytes",
                    limit: self.config.max_answer,
                },
            ),
            status => self.on_refusal(id, status, &body),
        }
    }

    /// The job is done.
    fn done(&mut self, id: JobId, body: Bytes) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let aim = job.aim;
        let Some(flight) = &mut job.flight else {
            return;
        };
        if let Aim::Start(stream) = aim {
            let opened = flight.opened.take();
            return self.stream_started(id, stream, opened);
        }
        let Some(served) = flight.served.take() else {
            return;
        };
        let url = served.url.clone();
        self.worked(id);
        self.note(&url, true);
        if self.remove(id).is_some() {
            self.out
                .event(Event::Done(id, Box::new(Done { served, body })));
        }
    }

    /// The answer broke off after it began: the container has worked, and nobody else goes on with it.
    fn broke(&mut self, id: JobId, cause: Cause) {
        let Some(url) = self.engaged_with(id) else {
            return;
        };
        self.worked(id);
        self.note(&url, false);
        self.fail(id, Failed::Broken { url, cause });
    }

    /// Leaves an orchestrator whose container has worked: it charges whole seconds, and says what is left.
    fn worked(&mut self, id: JobId) {
        let job = self.jobs.get(&id);
        let Some(flight) = job.and_then(|job| job.flight.as_ref()) else {
            return;
        };
        let took = self
            .now
            .since(flight.asked)
            .as_nanos()
            .div_ceil(1_000_000_000);
        let seconds = u64::try_from(took).unwrap_or(u64::MAX);
        // What it says at the head of a stream is from before the work.
        let balance = flight.balance.filter(|_| flight.relay.is_none());
        let url = self.engaged_with(id);
        self.part(id, Delivered::Used(seconds));
        if let (Some(url), Some(balance)) = (url, balance) {
            self.count(&url, balance);
        }
    }

    fn starts_stream(&self, id: JobId) -> bool {
        matches!(
            self.jobs.get(&id),
            Some(Job {
                aim: Aim::Start(_),
                ..
            })
        )
    }

    fn engaged_with(&self, id: JobId) -> Option<Url> {
        Some(self.jobs.get(&id)?.engaged.as_ref()?.url.clone())
    }

    pub(super) fn note(&mut self, url: &Url, well: bool) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(url) {
            peer.note(now, well);
        }
    }

    fn on_broken(&mut self, id: JobId, fault: &Fault) {
        let Some(flight) = self.jobs.get(&id).and_then(|job| job.flight.as_ref()) else {
            return;
        };
        match flight.status {
            0 => {}
            200..=299 if !self.starts_stream(id) => {
                return self.broke(id, Cause::Link(fault.clone()));
            }
            200..=299 => {}
            // The head, and what came of the body, says more.
            _ => return self.on_whole(id, true),
        }
        let left = broken(fault);
        let may_have_run = left == Left::Broken;
        let how = match may_have_run {
            true => Delivered::Unknown,
            false => Delivered::Untouched,
        };
        self.next(id, left, may_have_run, how);
    }

    /// No answer came in time, or a stream took too long.
    pub(super) fn answer_is_late(&mut self, id: JobId) {
        let Some(flight) = self.jobs.get(&id).and_then(|job| job.flight.as_ref()) else {
            return;
        };
        let took = self.now.since(flight.asked);
        match flight.status {
            200..=299 if !self.starts_stream(id) => self.broke(id, too_long(took)),
            _ => self.next(id, Left::Timeout, true, Delivered::Unknown),
        }
    }

    /// The orchestrator, or the container behind it, refused.
    fn on_refusal(&mut self, id: JobId, status: u16, body: &[u8]) {
        match judge(status, body) {
            // Another one's container may take it, or have room.
            Verdict::Caller { status, .. } if self.starts_stream(id) => {
                let left = Left::Refused(Grounds::Status(status));
                self.next(id, left, false, Delivered::Used(0));
            }
            Verdict::Caller { status, text } => {
                self.worked(id);
                self.fail(id, Failed::Caller { status, text });
            }
            Verdict::Other {
                may_have_run,
                grounds,
            } => {
                let how = match grounds {
                    Grounds::Busy | Grounds::Signature => Delivered::Untouched,
                    Grounds::Balance => Delivered::Short,
                    Grounds::Payment => Delivered::Refused,
                    Grounds::Timeout | Grounds::Container | Grounds::Status(_) => {
                        Delivered::Used(0)
                    }
                };
                if grounds == Grounds::Signature {
                    // A remote signer may have another key by now.
                    self.introducing.forget();
                    self.introducing.ask(self.now, &mut self.out);
                }
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.reached = true;
                }
                // A start that was refused came to nothing, whatever the container did with a request.
                let may_have_run = may_have_run && !self.starts_stream(id);
                self.next(id, Left::Refused(grounds), may_have_run, how);
            }
        }
    }

    /// Leaves an orchestrator that did not do a job, for the next one if that may do it.
    pub(super) fn next(&mut self, id: JobId, left: Left, may_have_run: bool, how: Delivered) {
        let Some(url) = self.engaged_with(id) else {
            return;
        };
        match how {
            // It was paid, and has worked for as long as it took.
            Delivered::Used(_) => self.worked(id),
            how => self.part(id, how),
        }
        self.note(&url, false);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.reached |= left != Left::Unreached;
        job.left(url, left);
        if may_have_run && !job.order.may_repeat {
            let attempts = core::mem::take(&mut job.attempts);
            return self.fail(id, Failed::Undecided { attempts });
        }
        self.ask_the_rest(id);
        self.go_on(id);
    }

    /// Asks those for a token who were not asked, or not waited for, because another one had the job.
    fn ask_the_rest(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let known = |url: &Url| {
            job.attempts.iter().any(|attempt| attempt.url == *url)
                || job.tokens.iter().any(|offer| offer.url == *url)
        };
        let rest = self.peers.iter().filter(|(url, peer)| {
            peer.listed && !peer.rests(self.now) && job.allows(url) && !known(url)
        });
        let rest: Vec<Url> = rest.map(|(url, _)| url.clone()).collect();
        job.waiting.extend(rest);
        let within = job.order.search_within.unwrap_or(self.config.search_within);
        job.search_until = self.now + within.max(Duration::from_millis(1));
    }
}
