//! A job in a container, from its header to its bill.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Headers, Method, Out, Response};
use livepeer_core::money::{Amount, Price};
use livepeer_core::wire::byoc::stream::StreamChannels;
use livepeer_core::wire::byoc::{
    BALANCE_HEADER, BadJob, JobRequest, METADATA_HEADER, STREAM_BALANCE_HEADER,
};
use livepeer_core::wire::sse;
use livepeer_core::{Address, EffectId, Time};

use super::bill::BILLED_EVERY;
use super::{MAX_TIME, no};
use crate::event::{Event, Surface};
use crate::paid::No;
use crate::workers::{Doer, Lost, News, Order};
use crate::{Orchestrator, wire};

/// A payer has to have this many seconds' price on account when a job begins.
const LEAST_SECONDS: u64 = 60;

/// A longer answer that is not a stream is not handed on.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A longer line ends a stream.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The purpose of a request that names a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The job itself, at this path of the program.
    Request(String),
    /// A stream is to begin.
    Start,
    /// The program of a stream gets parameters.
    Update,
    /// A stream is paid for.
    Payment,
    /// A stream is to end.
    Stop,
}

impl What {
    /// Whether it takes a place of the container.
    const fn takes_place(&self) -> bool {
        matches!(self, Self::Request(_) | Self::Start)
    }

    /// A refusal as the reference words it for this purpose.
    fn refusal(&self, no: No) -> No {
        let (status, text) = match self {
            Self::Request(_) => (no.status, no.text),
            Self::Start if no.text.starts_with("Insufficient balance") => (402, no.text),
            Self::Start if no.status == 503 => (400, no.text),
            Self::Start => (no.status, no.text),
            Self::Payment => {
                let text = format!(
                    "Failed to process payment, request not valid err={}",
                    no.text
                );
                (400, text)
            }
            Self::Update | Self::Stop => {
                let text = format!("Failed to stop stream, request not valid err={}", no.text);
                (400, text)
            }
        };
        No { status, text, ..no }
    }
}

/// A request about a stream that its program is told of.
pub(crate) enum About {
    /// The stream is to begin with these channels.
    Start(Box<Plan>),
    Update,
    Stop(String),
}

/// A stream that is to begin.
pub(crate) struct Plan {
    pub(super) id: String,
    pub(super) channels: StreamChannels,
    pub(super) names: Vec<String>,
    pub(super) built_in: bool,
}

/// A job that a container does.
pub(crate) struct Job {
    pub(super) container: String,
    pub(super) payer: Address,
    pub(super) price: Price,
    /// The stream that it is about.
    about: Option<About>,
    pub(super) began: Time,
    /// How many seconds of a stream were billed.
    pub(super) billed: u64,
    answer: Answer,
}

/// The answer of a container, so far.
enum Answer {
    None,
    Whole {
        head: Response,
        body: Vec<u8>,
    },
    /// A stream, and the beginning of a line whose end has not come.
    Lines(Vec<u8>),
}

/// A job whose payment is looked at.
pub(crate) struct Pending {
    pub(crate) container: String,
    payer: Address,
    price: Price,
    pub(super) job: JobRequest,
    pub(super) what: What,
    /// Fields for the program.
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

impl Orchestrator {
    /// A request that names a job is complete.
    pub(super) fn job_asked(
        &mut self,
        now: Time,
        id: EffectId,
        asked: super::Asked,
        body: Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        let what = asked.what.clone();
        let told = self.job_checked(now, id, asked, body);
        told.map_err(|no| what.refusal(no))
    }

    fn job_checked(
        &mut self,
        now: Time,
        id: EffectId,
        asked: super::Asked,
        body: Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        let unverified = || no(400, "Could not verify job creds".into());
        let header = &asked.job;
        let (job, signed) = JobRequest::read_signed(header).map_err(|err| match err {
            BadJob::NoTimeout => no(
                400,
                "no timeout_seconds set with request, timeout_seconds is required".into(),
            ),
            _ => unverified(),
        })?;
        let known = |scheme| self.config.job_schemes.contains(&scheme);
        let honest = match &signed {
            Some(by) => self.till.is_none() || by.scheme(&job).is_some_and(known),
            None => self.till.is_none() && !self.refuses_signature(header),
        };
        if !honest {
            return Err(unverified());
        }
        let full = asked.what.takes_place() && self.containers.free(&job.capability) == 0;
        let offered = self.containers.get(&job.capability).filter(|_| !full);
        let Some(offered) = offered else {
            return Err(no(503, "No capacity available for capability".into()));
        };
        let mut headers = Headers::new();
        headers.push("content-type", asked.content_type);
        if !offered.container.token.is_empty() {
            headers.push(
                "authorization",
                format!("Bearer {}", offered.container.token),
            );
        }
        let pending = Pending {
            container: job.capability.clone(),
            payer: signed.map(|by| by.sender).unwrap_or_default(),
            price: self.seconds_price(&job.capability),
            what: asked.what,
            headers,
            body,
            job,
        };
        if pending.what.takes_place() {
            self.containers.take(&pending.container);
        }
        if self.till.is_some()
            && !pending.price.is_free()
            && !asked.payment.is_empty()
            && let Ok(payment) = wire::payment(&asked.payment)
        {
            self.await_receipt(now, id, payment, pending.container.clone(), pending);
            return Ok(None);
        }
        self.job_covered(now, id, pending)
    }

    /// The payment of a job was looked at. What it was worth shows in the balance.
    pub(crate) fn job_paid(
        &mut self,
        now: Time,
        id: EffectId,
        pending: Pending,
    ) -> Result<Option<Vec<Out>>, No> {
        let what = pending.what.clone();
        let told = self.job_covered(now, id, pending);
        told.map_err(|no| what.refusal(no))
    }

    fn job_covered(
        &mut self,
        now: Time,
        id: EffectId,
        pending: Pending,
    ) -> Result<Option<Vec<Out>>, No> {
        let Pending {
            container,
            payer,
            price,
            ..
        } = &pending;
        let least = price.fee(LEAST_SECONDS);
        // An end is an end, paid or not.
        let matters = !price.is_free() && pending.what != What::Stop;
        if matters
            && self
                .balance(*payer, container)
                .is_none_or(|left| *left < least)
        {
            self.give_back_place(&pending);
            return Err(no(400, "Insufficient balance for request".into()));
        }
        if let Err(err) = serde_json::from_str::<serde_json::Map<_, _>>(&pending.job.request) {
            if !self.config.quirks.leaky_places {
                self.give_back_place(&pending);
            }
            return Err(no(
                400,
                format!("Unable to unmarshal job request details err={err}"),
            ));
        }
        match &pending.what {
            What::Request(path) => {
                let Some(offered) = self.containers.get(container) else {
                    return Err(no(503, "No capacity available for capability".into()));
                };
                let order = Order {
                    method: Method::Post,
                    path: path.clone(),
                    headers: pending.headers.clone(),
                    body: pending.body.clone(),
                };
                let doer = offered.container.worker.prepare(order);
                self.hand_job(now, id, pending, doer, None);
            }
            What::Payment => {
                let left = self.balance(*payer, container).map(Amount::whole_wei);
                let left = left.map_or_else(|| "0".to_owned(), |left| left.to_string());
                let answer = Response::new(200).header(BALANCE_HEADER, left);
                return Ok(Some(vec![Out::Reply(answer)]));
            }
            What::Start => self.start_stream(now, id, pending)?,
            What::Update | What::Stop => self.tell_stream(now, id, pending)?,
        }
        Ok(None)
    }

    /// Hands a job to its program.
    pub(super) fn hand_job(
        &mut self,
        now: Time,
        id: EffectId,
        pending: Pending,
        doer: Doer,
        about: Option<About>,
    ) {
        let Pending {
            container,
            payer,
            price,
            job,
            what,
            body,
            ..
        } = pending;
        let path = match what {
            What::Request(path) => path,
            What::Start => "/stream/start".to_owned(),
            What::Stop => "/stream/stop".to_owned(),
            What::Update | What::Payment => "/stream/params".to_owned(),
        };
        self.out.event(Event::HandedOn {
            surface: Surface::Container,
            to: container.clone(),
            payer,
            path,
            body,
        });
        let task = Job {
            container,
            payer,
            price,
            about,
            began: now,
            billed: 0,
            answer: Answer::None,
        };
        let within = Duration::from_secs(job.timeout_seconds.into()).min(MAX_TIME);
        self.hand_on(now, id, task, doer, within);
    }

    fn give_back_place(&mut self, pending: &Pending) {
        if pending.what.takes_place() {
            self.containers.give_back(&pending.container);
        }
    }

    /// A payment came for a job that nobody waits for any more.
    pub(crate) fn drop_pending_job(&mut self, pending: &Pending) {
        if !self.config.quirks.leaky_places {
            self.give_back_place(pending);
        }
    }

    /// News of a container that does a job.
    pub(crate) fn job_news(&mut self, now: Time, id: EffectId, news: News) {
        match news {
            News::Head(head) => self.job_head(now, id, head),
            News::Data(bytes) => self.job_data(now, id, &bytes),
            News::End => self.job_answered(now, id),
            News::Lost(lost) => self.job_lost(now, id, &lost),
        }
    }

    pub(super) fn job(&mut self, id: EffectId) -> Option<&mut Job> {
        self.works.get_mut(id)?.job_mut()
    }

    fn job_head(&mut self, now: Time, id: EffectId, head: Response) {
        let of_stream = self.job(id).is_some_and(|job| job.about.is_some());
        if head.status == 401 && !of_stream {
            return self.container_lost(now, id, "worker auth token failed");
        }
        let content = head.headers.get("content-type").unwrap_or("");
        if of_stream || !content.contains(sse::CONTENT_TYPE) {
            if let Some(job) = self.job(id) {
                let body = Vec::new();
                job.answer = Answer::Whole { head, body };
            }
            return;
        }
        let balance = self.told_balance(id);
        let answer = Response::new(200)
            .header("content-type", sse::CONTENT_TYPE)
            .header("cache-control", "no-cache")
            .header(
                METADATA_HEADER,
                head.headers.get(METADATA_HEADER).unwrap_or(""),
            )
            .header(STREAM_BALANCE_HEADER, balance);
        self.begin_answer(id, answer);
        if let Some(job) = self.job(id) {
            job.answer = Answer::Lines(Vec::new());
            if !job.price.is_free() {
                self.works.bill(id, Some(now + BILLED_EVERY));
            }
        }
    }

    fn job_data(&mut self, now: Time, id: EffectId, bytes: &[u8]) {
        let Some(job) = self.job(id) else { return };
        match &mut job.answer {
            Answer::None => {}
            Answer::Whole { body, .. } if body.len() + bytes.len() > MAX_ANSWER_BYTES => {
                self.fail_job(now, id, "the answer of the worker is too long");
            }
            Answer::Whole { body, .. } => body.extend_from_slice(bytes),
            Answer::Lines(line) => {
                let mut rest = std::mem::take(line);
                rest.extend_from_slice(bytes);
                while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                    let after = rest.split_off(end + 1);
                    let line = std::mem::replace(&mut rest, after);
                    if self.job_line(now, id, &line) {
                        return;
                    }
                }
                if rest.len() > MAX_LINE_BYTES {
                    self.stream_over(now, id);
                } else if let Some(Job {
                    answer: Answer::Lines(line),
                    ..
                }) = self.job(id)
                {
                    *line = rest;
                }
            }
        }
    }

    /// Passes on a line of a stream, with its end. True if it was the last.
    fn job_line(&mut self, now: Time, id: EffectId, line: &[u8]) -> bool {
        let last = line.windows(6).any(|six| six == b"[DONE]");
        if last {
            self.last_words(id);
            self.stream_over(now, id);
        } else {
            self.pass(id, Bytes::copy_from_slice(line));
        }
        last
    }

    /// Tells the balance, and that nothing comes after it.
    fn last_words(&mut self, id: EffectId) {
        let balance = self.balance_of_job(id);
        let ratio = balance.as_ratio();
        let thousandths = (ratio.numer() * 1_000_i64 / ratio.denom()).to_string();
        let (sign, digits) = match thousandths.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", thousandths.as_str()),
        };
        let digits = format!("{digits:0>4}");
        let (whole, part) = digits.split_at(digits.len() - 3);
        let text = format!("data: {{\"balance\": {sign}{whole}.{part}}}\n\ndata: [DONE]\n\n");
        self.pass(id, text.into());
    }

    /// A stream ends: at once, or in blank lines for as long as there is time.
    fn stream_over(&mut self, now: Time, id: EffectId) {
        if self.config.quirks.flood {
            return self.flood(now, id);
        }
        self.bill_rest(now, id);
        self.out.http(id, Out::End(Headers::new()));
        self.finish_job(id, true);
    }

    /// The answer of a container is complete.
    fn job_answered(&mut self, now: Time, id: EffectId) {
        let Some(job) = self.job(id) else { return };
        let (head, body) = match std::mem::replace(&mut job.answer, Answer::None) {
            Answer::Lines(rest) => {
                let over = !rest.is_empty() && self.job_line(now, id, &[&rest[..], b"\n"].concat());
                if !over {
                    self.stream_over(now, id);
                }
                return;
            }
            Answer::None => return,
            Answer::Whole { head, body } => (head, body),
        };
        if let Some(about) = job_about(self, id) {
            if !matches!(about, About::Update | About::Stop(_)) {
                self.bill_rest(now, id);
            }
            return self.stream_told(now, id, about, Some((head.status, body)));
        }
        self.bill_rest(now, id);
        let balance = self.told_balance(id);
        let flat = self.config.quirks.flat_status && head.status < 400;
        let status = if flat { 200 } else { head.status };
        let answer = if status >= 400 {
            let text = String::from_utf8_lossy(&body);
            wire::text_response(status, &text)
        } else {
            let field = |name| head.headers.get(name).unwrap_or("").to_owned();
            Response::new(status)
                .header("content-type", field("content-type"))
                .header(METADATA_HEADER, field(METADATA_HEADER))
                .body(livepeer_core::http::Body::Full(body.into()))
        };
        self.finish_job(id, true);
        self.answer(
            now,
            id,
            vec![Out::Reply(answer.header(BALANCE_HEADER, balance))],
        );
    }

    fn job_lost(&mut self, now: Time, id: EffectId, lost: &Lost) {
        if let Some(about) = job_about(self, id) {
            return self.stream_told(now, id, about, None);
        }
        let Some(job) = self.job(id) else { return };
        match job.answer {
            Answer::None => {
                let why = format!("Post \"{}\": {}", lost.url, lost.why);
                self.container_lost(now, id, &why);
            }
            Answer::Whole { .. } => self.fail_job(now, id, "unexpected EOF"),
            Answer::Lines(_) => self.stream_over(now, id),
        }
    }

    /// Nobody gets the container of a job until it registers again.
    pub(super) fn remove_container_of(&mut self, id: EffectId) {
        if let Some(job) = self.job(id) {
            let name = job.container.clone();
            self.containers.remove(&name);
        }
    }

    /// A container is not what it was.
    fn container_lost(&mut self, now: Time, id: EffectId, why: &str) {
        self.remove_container_of(id);
        self.fail_job(now, id, &removing(why));
    }

    /// A job took longer than it may.
    pub(crate) fn job_over_time(&mut self, now: Time, id: EffectId) {
        if let Some(about) = job_about(self, id) {
            return self.stream_told(now, id, about, None);
        }
        let keeps = self.config.quirks.leaky_places;
        // Also one whose container has ended, and that goes on in blank lines.
        if self.works.get_mut(id).is_some_and(|task| task.begun) {
            self.bill_rest(now, id);
            if !self.config.quirks.flood {
                self.last_words(id);
            }
            self.out.http(id, Out::End(Headers::new()));
            self.finish_job(id, true);
            return;
        }
        self.bill_rest(now, id);
        let balance = self.told_balance(id);
        self.finish_job(id, !keeps);
        let text = removing("Post \"http://10.0.0.2:9000/\": context canceled");
        self.refuse_job(now, id, &text, balance);
    }

    /// The peer that asked has gone.
    pub(crate) fn job_deserted(&mut self, now: Time, id: EffectId) {
        let about = job_about(self, id);
        if let Some(about) = &about {
            self.drop_stream(now, about);
        }
        if matches!(about, Some(About::Update | About::Stop(_))) {
            return self.finish_job(id, false);
        }
        self.bill_rest(now, id);
        let keeps = self.config.quirks.leaky_places;
        self.finish_job(id, !keeps);
    }

    /// A job ends without an answer of its container.
    fn fail_job(&mut self, now: Time, id: EffectId, text: &str) {
        self.bill_rest(now, id);
        let balance = self.told_balance(id);
        self.finish_job(id, true);
        self.refuse_job(now, id, text, balance);
    }

    fn refuse_job(&mut self, now: Time, id: EffectId, text: &str, balance: String) {
        self.out.event(Event::Rejected {
            surface: Surface::Container,
            status: 500,
            text: text.to_owned(),
        });
        let answer = wire::text_response(500, text).header(BALANCE_HEADER, balance);
        self.answer(now, id, vec![Out::Reply(answer)]);
    }

    pub(super) fn finish_job(&mut self, id: EffectId, place_is_free: bool) {
        if let Some(job) = self.end_task(id).and_then(|task| task.into_job()) {
            self.figures.jobs += 1;
            if place_is_free {
                self.containers.give_back(&job.container);
            }
        }
    }
}

/// Takes the stream that a job is about, once.
fn job_about(orchestrator: &mut Orchestrator, id: EffectId) -> Option<About> {
    orchestrator.job(id)?.about.take()
}

/// The reference's words for a container that did not answer, also where it stays.
fn removing(why: &str) -> String {
    format!("job not able to be processed, removing capability err={why}")
}
