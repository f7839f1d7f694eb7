//! Batch work: one request, one answer (jobs spec 2.4).
//!
//! The stages of a request, after its body has come in:
//!
//! ```text
//!  checks ──▶ slot taken ──▶ AwaitingReceipt ──▶ Working ──▶ answer, charged ──▶ slot free
//!     │            │                │               │  └──▶ Streaming ──▶ last chunk ──▶ slot free
//!     └─ refused ◀─┘                └─ refused      └──▶ the handler dies: the slot never comes back
//! ```
//!
//! Checks are made in the order of the reference: decode 400, payment 402, credentials 403, what is to be measured 400,
//! capacity 503, tickets 400, balance 400. All requests of a payer for one model share one balance, under the name
//! `{capability}_{model}`, and it is charged when the work is done; so it may go below zero.

mod chat;
mod files;
mod picture;
mod runner;
mod sound;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, In, Method, Out, Request, Response};
use livepeer_core::intake::Held;
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::wire::batch::{BatchRequest, Media, Probe};
use livepeer_core::{EffectId, Pipeline, Time};
use serde_json::{Value, json};

use super::event::{Event, Surface};
use super::paid::{Headers, No};
use super::{Orchestrator, account, wire};
use chat::Chat;
use files::{File, Files};
use runner::Consequence;
use work::Made;

pub use files::{MAX_FILE_BYTES, MAX_FILES};
pub use runner::Mishap;
pub use work::{MAX_PIXELS, MAX_SIDE};

/// A longer body of a batch request is refused: recordings and pictures are in there.
pub const MAX_BATCH_BYTES: usize = 64 << 20;

/// A stream of which the peer has not taken this many bytes waits.
const MAX_UNSENT: usize = 64 << 10;

/// How long after its last bytes were taken a stream is reset: a transport that still holds some drops them.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// How the gateways of today name themselves; older ones want pictures inside of the answer.
const WORKER: &str = "Livepeer-AI-Worker-1.0";

/// The refusal of a ticket under parameters that are past their block.
const STALE: &str = "TicketParams expired";

/// A model of a batch pipeline.
#[derive(Clone, Copy, Debug)]
pub struct BatchModel {
    /// How many requests at once.
    pub capacity: u32,
    /// Whether it is loaded.
    pub warm: bool,
    /// The price of a unit; `None` is the node's own price.
    pub price: Option<Price>,
    /// How long the work on one request takes.
    pub takes: Duration,
    /// How long a token of a stream takes.
    pub pace: Duration,
}

impl Default for BatchModel {
    /// Loaded, four at once, for the node's own price, without delay.
    fn default() -> Self {
        Self {
            capacity: 4,
            warm: true,
            price: None,
            takes: Duration::ZERO,
            pace: Duration::ZERO,
        }
    }
}

/// Models by pipeline and name.
pub(super) type Models = BTreeMap<Pipeline, BTreeMap<String, BatchModel>>;

/// Head of a batch request.
pub(super) struct Ask {
    pipeline: Pipeline,
    headers: Headers,
    content_type: String,
    downloads: bool,
}

impl Ask {
    /// The batch request that a head begins, if it does.
    pub(super) fn of(path: &str, request: &Request, headers: Headers) -> Option<Self> {
        let pipeline = Pipeline::from_name(path.strip_prefix('/')?)?;
        let header = |name| request.headers.get(name).unwrap_or("");
        (pipeline != Pipeline::LiveVideoToVideo).then(|| Self {
            pipeline,
            headers,
            content_type: header("content-type").to_owned(),
            downloads: header("authorization") == WORKER,
        })
    }
}

/// A request that has its slot.
pub(super) struct Task {
    model: String,
    account: AccountId,
    /// Whether the payer expects to pay nothing.
    pub(super) free: bool,
    units: u64,
    request: BatchRequest,
    media: Option<Media>,
    downloads: bool,
}

/// Batch work of an orchestrator.
#[derive(Default)]
pub(super) struct Batch {
    jobs: BTreeMap<EffectId, Job>,
    /// The jobs that have something to do, by when.
    due: BTreeSet<(Time, EffectId)>,
    /// Slots that are taken, those that never come back among them.
    taken: BTreeMap<Pipeline, BTreeMap<String, u32>>,
    files: Files,
    /// How many requests came to a payment.
    asked: u32,
}

/// A request that is worked on, or whose answer is a stream.
struct Job {
    pipeline: Pipeline,
    task: Task,
    held: Option<Held>,
    /// The appointment of the job among those that are due.
    at: Option<Time>,
    next: Next,
}

enum Next {
    /// An answer, once the work is done.
    Answer(Result<Made, Consequence>),
    /// The chunk of that number of a stream.
    Chunk {
        chat: Chat,
        number: usize,
        /// Bytes that the peer has not taken yet.
        unsent: usize,
        /// Whether the stream waits for the peer to take some.
        waits: bool,
    },
    /// The end of a handler that dies, soon after the peer has taken these bytes.
    Death { unsent: usize },
    /// Nothing, ever.
    Silence,
}

impl Batch {
    /// When something is to be done.
    pub(super) fn wake(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many slots of a model are taken.
    pub(super) fn taken(&self, pipeline: Pipeline, model: &str) -> u32 {
        let taken = self.taken.get(&pipeline).and_then(|by| by.get(model));
        taken.copied().unwrap_or(0)
    }

    fn take(&mut self, pipeline: Pipeline, model: &str) {
        let by_name = self.taken.entry(pipeline).or_default();
        *by_name.entry(model.to_owned()).or_default() += 1;
    }

    fn give_back(&mut self, pipeline: Pipeline, model: &str) {
        let taken = self
            .taken
            .get_mut(&pipeline)
            .and_then(|by| by.get_mut(model));
        if let Some(taken) = taken {
            *taken = taken.saturating_sub(1);
        }
    }

    /// Gives a job, which has none, an appointment.
    fn schedule(&mut self, at: Time, id: EffectId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.at = Some(at);
            self.due.insert((at, id));
        }
    }

    /// The next job whose appointment has come.
    fn pop(&mut self, now: Time) -> Option<EffectId> {
        let (at, id) = self.due.first().copied()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        if let Some(job) = self.jobs.get_mut(&id) {
            job.at = None;
        }
        Some(id)
    }

    /// Takes a job out, with its appointment.
    fn remove(&mut self, id: EffectId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        if let Some(at) = job.at {
            self.due.remove(&(at, id));
        }
        Some(job)
    }

    /// The jobs of peers that wait.
    pub(super) fn open(&self) -> Vec<EffectId> {
        self.jobs.keys().copied().collect()
    }

    pub(super) fn has(&self, id: EffectId) -> bool {
        self.jobs.contains_key(&id)
    }
}

impl Orchestrator {
    /// Free slots of a batch model; zero for one that is not there.
    #[must_use]
    pub fn free_slots(&self, pipeline: Pipeline, name: &str) -> u32 {
        let model = self.config.batch.get(&pipeline).and_then(|by| by.get(name));
        let capacity = model.map_or(0, |model| model.capacity);
        capacity.saturating_sub(self.batch.taken(pipeline, name))
    }

    /// A batch request is complete.
    pub(super) fn batch_asked(
        &mut self,
        now: Time,
        id: EffectId,
        ask: Ask,
        body: Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        let no = |status, text: &str| No::new(Surface::Batch, status, text);
        let Ask {
            pipeline,
            headers,
            content_type,
            downloads,
        } = ask;
        if self.config.quirks.no_batch {
            return Err(no(
                410,
                "batch AI is not supported any more; use a runner app",
            ));
        }
        let is_form = livepeer_core::wire::batch::fields::file_of(pipeline).is_some();
        let mut request = match is_form {
            true => BatchRequest::read_form(pipeline, &content_type, &body),
            false => BatchRequest::read_json(pipeline, &body),
        }
        .map_err(|err| no(400, &err.to_string()))?;
        let (payment, _) = self.admit(now, Surface::Batch, &headers)?;
        let absent = match pipeline {
            Pipeline::Llm if request.integer("max_tokens").is_none() && request.names_model() => {
                return Err(no(400, "MaxTokens not specified"));
            }
            Pipeline::TextToSpeech => request.text("text").is_none(),
            _ => false,
        };
        if absent || !request.names_model() {
            // The reference looks at the missing field, and dies of it.
            self.forget_exchange(id);
            return Ok(Some(vec![Out::Abort]));
        }
        let media = match request.needs() {
            None => None,
            Some(probe) => {
                let file = request.file().map_or(&[][..], |file| &file.content);
                let media =
                    (self.config.measure)(probe, file).ok_or_else(|| no(400, unmeasured(probe)))?;
                request
                    .measured(media)
                    .map_err(|err| no(400, &err.to_string()))?;
                Some(media)
            }
        };
        let model = request.model().to_owned();
        self.batch.asked = self.batch.asked.wrapping_add(1);
        let quirks = &self.config.quirks;
        let of_number = |every: Option<NonZeroU32>| {
            every.is_some_and(|every| self.batch.asked.is_multiple_of(every.get()))
        };
        let (busy, stale) = (of_number(quirks.busy_every), of_number(quirks.stale_every));
        if busy || quirks.busy || self.free_slots(pipeline, &model) == 0 {
            return Err(no(503, "insufficient capacity"));
        }
        self.batch.take(pipeline, &model);
        let bucket = format!("{}_{model}", pipeline.capability().id());
        let task = Task {
            account: account(payment.sender, &bucket),
            free: payment.expected_price.is_none_or(|price| price.is_free()),
            units: request.units().unwrap_or(0),
            model,
            request,
            media,
            downloads,
        };
        if self.till.is_some() && stale {
            self.unslot(&task);
            return Err(no(400, STALE));
        }
        if self.till.is_some() {
            self.await_receipt(now, id, payment, bucket, task);
        } else {
            self.work(now, id, task);
        }
        Ok(None)
    }

    /// A request is not worked on after all: its slot is free.
    pub(super) fn unslot(&mut self, task: &Task) {
        self.batch.give_back(task.request.pipeline(), &task.model);
    }

    /// The work on a request begins.
    pub(super) fn work(&mut self, now: Time, id: EffectId, task: Task) {
        let pipeline = task.request.pipeline();
        let stream = task.request.is_stream();
        let mishap = self.config.quirks.runner.as_ref();
        let next = match mishap.map(|mishap| (mishap, mishap.consequence(pipeline, stream))) {
            Some((Mishap::Silent, _)) => Next::Silence,
            Some((_, Some(consequence))) => Next::Answer(Err(consequence)),
            _ => Next::Answer(
                work::make(now, &task.request, task.media)
                    .map_err(|refused| refused.consequence(pipeline, stream)),
            ),
        };
        let model = self
            .config
            .batch
            .get(&pipeline)
            .and_then(|by| by.get(&task.model));
        let takes = model.map_or(Duration::ZERO, |model| model.takes);
        let silent = matches!(next, Next::Silence);
        let held = self
            .exchanges
            .remove(&id)
            .and_then(|exchange| exchange.held);
        let job = Job {
            pipeline,
            task,
            held,
            at: None,
            next,
        };
        self.batch.jobs.insert(id, job);
        if !silent {
            self.batch.schedule(now + takes, id);
        }
    }

    /// Does what is due. False if nothing was.
    pub(super) fn batch_due(&mut self, now: Time) -> bool {
        let Some(id) = self.batch.pop(now) else {
            return false;
        };
        let Some(job) = self.batch.jobs.get_mut(&id) else {
            return true;
        };
        match std::mem::replace(&mut job.next, Next::Silence) {
            Next::Silence => {}
            Next::Death { .. } => self.panic(id),
            Next::Answer(Ok(Made::Chat(chat))) if job.task.request.is_stream() => {
                self.charge(now, id);
                let head = Response::new(200)
                    .header("content-type", "text/event-stream")
                    .header("cache-control", "no-cache")
                    .body(Body::Stream);
                self.out.http(id, Out::Reply(head));
                self.stream(now, id, chat, 0, 0);
            }
            Next::Answer(answer) => self.answer_batch(now, id, answer),
            Next::Chunk {
                chat,
                number,
                unsent,
                ..
            } => self.stream(now, id, chat, number, unsent),
        }
        true
    }

    fn answer_batch(&mut self, now: Time, id: EffectId, answer: Result<Made, Consequence>) {
        match answer {
            Ok(made) => {
                self.charge(now, id);
                let Some(job) = self.end_job(id) else {
                    return;
                };
                let value = self.answer_of(job.task.downloads, job.pipeline, made);
                self.answer(now, id, vec![json_line(&value)]);
            }
            Err(Consequence::Null) => {
                self.charge(now, id);
                self.end_job(id);
                self.answer(now, id, vec![json_line(&Value::Null)]);
            }
            Err(Consequence::Text(text)) => {
                self.end_job(id);
                self.refuse(now, id, No::new(Surface::Batch, 500, text));
            }
            Err(Consequence::Panic) => self.panic(id),
        }
    }

    /// The handler of a request dies, and its slot is lost.
    fn panic(&mut self, id: EffectId) {
        if let Some(job) = self.batch.remove(id) {
            if let Some(held) = job.held {
                self.intake.release(held);
            }
            self.out.http(id, Out::Abort);
        }
    }

    /// A request is over: its slot is free, and it holds nothing any more.
    fn end_job(&mut self, id: EffectId) -> Option<Job> {
        let mut job = self.batch.remove(id)?;
        if let Some(held) = job.held.take() {
            self.intake.release(held);
        }
        self.batch.give_back(job.pipeline, &job.task.model);
        Some(job)
    }

    /// Takes the fee of a request, and tells of it.
    fn charge(&mut self, now: Time, id: EffectId) {
        let Some(job) = self.batch.jobs.get(&id) else {
            return;
        };
        let Task {
            account,
            units,
            model,
            ..
        } = &job.task;
        let (mut fee, mut balance) = (Amount::zero(), None);
        if let Some(till) = &mut self.till
            && let Some(price) = till.get().session_price(account)
        {
            let units = units.saturating_mul(self.config.quirks.overcharge.unwrap_or(1).into());
            fee = price.fee(units);
            balance = till.get_mut().charge(now, account, &fee);
        }
        self.figures.jobs += 1;
        self.figures.billed += &fee;
        self.out.event(Event::Worked {
            pipeline: job.pipeline,
            model: model.clone(),
            payer: account.sender,
            units: *units,
            fee,
            balance,
        });
    }

    /// The answer in JSON. What can be downloaded is kept for that, or written into the answer.
    fn answer_of(&mut self, downloads: bool, pipeline: Pipeline, made: Made) -> Value {
        match made {
            Made::Json(value) => value,
            Made::Chat(chat) => chat.whole(),
            Made::Speech(content) => {
                let request = self.name();
                let name = self.name();
                let url = self.keep(&request, &format!("{name}.wav"), "audio/wav", content);
                json!({ "audio": { "url": url } })
            }
            Made::Images(images) => {
                let inside = self.config.quirks.data_urls
                    || !downloads && pipeline != Pipeline::ImageToVideo;
                let request = self.name();
                let mut name = self.name();
                let images: Vec<Value> = images
                    .into_iter()
                    .map(|image| {
                        let url = if inside {
                            format!("data:image/png;base64,{}", wire::base64(&image.content))
                        } else {
                            if !self.config.quirks.equal_names {
                                name = self.name();
                            }
                            self.keep(&request, &format!("{name}.png"), "image/png", image.content)
                        };
                        json!({ "url": url, "seed": image.seed, "nsfw": false })
                    })
                    .collect();
                json!({ "images": images })
            }
        }
    }

    fn keep(
        &mut self,
        request: &str,
        name: &str,
        media_type: &'static str,
        content: Bytes,
    ) -> String {
        let file = File {
            media_type,
            content,
        };
        let path = self.batch.files.keep(request, name, file);
        format!("{}{path}", self.config.service.origin())
    }

    /// Sends chunks of a stream until the peer, or the model, needs time.
    fn stream(
        &mut self,
        now: Time,
        id: EffectId,
        chat: Chat,
        mut number: usize,
        mut unsent: usize,
    ) {
        let mishap = self.config.quirks.runner.clone();
        let Some(job) = self.batch.jobs.get_mut(&id) else {
            return;
        };
        let model = self
            .config
            .batch
            .get(&job.pipeline)
            .and_then(|by| by.get(&job.task.model));
        let pace = model.map_or(Duration::ZERO, |model| model.pace);
        loop {
            let chunk = match mishap {
                Some(Mishap::Dies) if number > 0 => None,
                Some(Mishap::Breaks | Mishap::NoChoices) if number > 0 => {
                    if mishap == Some(Mishap::NoChoices) {
                        let bytes = event(&Chat::without_choices());
                        unsent += bytes.len();
                        self.out.http(id, Out::Data(bytes));
                    }
                    job.next = Next::Death { unsent };
                    if unsent == 0 {
                        return self.batch.schedule(now + LAST_WORDS, id);
                    }
                    return self.out.http(id, Out::Report);
                }
                Some(Mishap::ErrorChunk) if number > 0 => {
                    let error = json!({ "error": { "message": "out of memory" } });
                    self.out.http(id, Out::Data(event(&error)));
                    None
                }
                _ => chat.chunk(number),
            };
            let Some(chunk) = chunk else {
                self.out
                    .http(id, Out::End(livepeer_core::http::Headers::new()));
                self.end_job(id);
                return;
            };
            let bytes = event(&chunk);
            unsent += bytes.len();
            number += 1;
            self.out.http(id, Out::Data(bytes));
            let waits = unsent >= MAX_UNSENT;
            if !waits && pace.is_zero() {
                continue;
            }
            job.next = Next::Chunk {
                chat,
                number,
                unsent,
                waits,
            };
            if waits {
                self.out.http(id, Out::Report);
            } else {
                self.batch.schedule(now + pace, id);
            }
            return;
        }
    }

    /// A further step of a request that is worked on.
    pub(super) fn batch_step(&mut self, now: Time, id: EffectId, step: &In) {
        match step {
            In::Failed(_) => {
                self.end_job(id);
            }
            In::Sent(bytes) => {
                let Some(job) = self.batch.jobs.get_mut(&id) else {
                    return;
                };
                match &mut job.next {
                    Next::Chunk { unsent, waits, .. } => {
                        *unsent = unsent.saturating_sub(*bytes);
                        if *waits && *unsent < MAX_UNSENT {
                            *waits = false;
                            self.batch.schedule(now, id);
                        }
                    }
                    Next::Death { unsent } => {
                        *unsent = unsent.saturating_sub(*bytes);
                        if *unsent == 0 && job.at.is_none() {
                            self.batch.schedule(now + LAST_WORDS, id);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Answers what can be answered still, since the orchestrator closes.
    pub(super) fn close_batch(&mut self) {
        for id in self.batch.open() {
            let Some(job) = self.end_job(id) else {
                continue;
            };
            match job.next {
                Next::Chunk { .. } | Next::Death { .. } => self.out.http(id, Out::Abort),
                _ => self.out.http(id, wire::text_reply(503, "gave up")),
            }
        }
    }

    /// Answers a download.
    pub(super) fn download(&mut self, id: EffectId, request: &Request, path: &str) {
        let answer = match self.batch.files.get(path) {
            Some(file) if request.method == Method::Get => Out::Reply(
                Response::new(200)
                    .header("content-type", file.media_type)
                    .body(Body::Full(file.content.clone())),
            ),
            _ => wire::text_reply(404, "404 page not found"),
        };
        self.out.http(id, answer);
    }
}

/// The path that the addresses of results begin with.
pub(super) const DOWNLOADS: &str = files::PATH;

/// Measures a file; `None` if that cannot be done.
pub type Measure = fn(Probe, &[u8]) -> Option<Media>;

/// Measures PNG and WAV files of whole numbers, and no others.
#[must_use]
pub fn measure_simple(probe: Probe, file: &[u8]) -> Option<Media> {
    Some(match probe {
        Probe::Image => {
            let (width, height) = picture::size(file)?;
            Media::Image { width, height }
        }
        Probe::Audio => Media::Audio {
            duration: Duration::from_millis(sound::measure(file)?.millis),
        },
    })
}

/// The reference's words for a file that cannot be measured.
const fn unmeasured(probe: Probe) -> &'static str {
    match probe {
        Probe::Image => "image: unknown format",
        Probe::Audio => "Unable to calculate duration",
    }
}

/// An event of a stream, as Go writes it.
fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// A value as Go's encoder writes it: with a line break behind.
fn json_line(value: &Value) -> Out {
    Out::Reply(
        Response::new(200)
            .header("content-type", "application/json")
            .body(Body::Full(format!("{value}\n").into())),
    )
}
