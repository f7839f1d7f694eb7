//! Between the forms of routes and batch jobs: a body becomes a request, and an answer a body.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::objects::name_among;
use super::pace::Pace;
use super::route::Route;
use super::types::{self, Config, RequestId, Work};
use super::{Front, Job, Sent};
use crate::error::Cause;
use crate::job::batch::{Failed, File, Left, RefusedBy, Served};
use crate::pipeline::Pipeline;
use crate::prefer::Preferences;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::batch::fields::file_of;
use crate::wire::batch::{
    Answer, BadRequest, BatchRequest, Chunk, Image, Media, Probe, native_chunk, native_error,
    read_chunk,
};
use crate::wire::openai::chat;
use crate::wire::openai::image::{self, Picture};
use crate::wire::openai::stream::{Facts, Rebuild, Rebuilt};
use crate::wire::openai::{self, Settings, Translated, speech, transcript};
use crate::wire::preferences;
use crate::wire::refused::{Code, Refused, Shape};
use crate::wire::sse;

/// The text of Livepeer's own routes for work that nobody could do.
const NOBODY: &str = "Service Unavailable Error";
/// The text of Livepeer's own routes for any other failure.
const OTHER: &str = "Internal Server Error";

/// The form in which an answer is wanted.
#[derive(Debug)]
pub(super) enum Asked {
    /// The shape that orchestrators give it.
    Native {
        /// Whether it comes in pieces.
        stream: bool,
    },
    /// In a shape of OpenAI's.
    OpenAi(openai::Asked),
}

impl Asked {
    /// Whether the answer comes in pieces.
    pub(super) const fn is_stream(&self) -> bool {
        match self {
            Self::Native { stream } => *stream,
            Self::OpenAi(openai::Asked::Chat(chat)) => chat.stream,
            Self::OpenAi(_) => false,
        }
    }
}

impl Job {
    /// Takes the measures of the request's file.
    pub(super) fn measured(&mut self, media: Media) {
        match (&mut self.asked, media) {
            (Asked::OpenAi(openai::Asked::Images(asked)), Media::Image { width, height }) => {
                let ignored = asked.measured(width, height);
                self.ignored.extend(ignored.map(String::from));
            }
            (_, Media::Audio { duration }) => self.duration = duration,
            _ => {}
        }
    }
}

// ---- from a body to work -------------------------------------------------------------------------------------

impl Front {
    /// Reads a body as the work of its route.
    pub(super) fn translate(
        &mut self,
        id: RequestId,
        body: &Bytes,
    ) -> Result<(Box<Work>, Box<Job>), Refused> {
        let route = self.running.get(&id).ok_or_else(over)?.target.route;
        // Answers in other shapes have no use for the name.
        let native = match route {
            Route::Batch(_) => self.draw_native(),
            _ => String::new(),
        };
        let running = self.running.get(&id).ok_or_else(over)?;
        let (sent, settings) = (&running.sent, &running.config.settings);
        let (kind, provider) = (sent.content_type.as_str(), sent.provider.as_deref());
        let models = &self.models;
        let read = match route {
            Route::Batch(pipeline) => read_native(pipeline, sent, body, settings)?,
            Route::Chat => chat::read(body, provider, models, settings)?.into(),
            Route::Generations => image::read(body, provider, models, settings)?.into(),
            Route::Edits => image::read_edit(kind, body, provider, models, settings)?.into(),
            Route::Transcriptions => {
                transcript::read(kind, body, provider, models, settings)?.into()
            }
            Route::Speech => speech::read(body, provider, models, settings)?.into(),
            _ => return Err(over()),
        };
        let Read {
            request,
            preferences,
            asked,
            ignored,
            defaults,
        } = read;
        let job = Job {
            asked,
            pipeline: request.pipeline(),
            model: request.model().into(),
            probe: request.needs(),
            native,
            ignored,
            defaults,
            duration: Duration::ZERO,
            served: None,
            attempts: Vec::new(),
            stream: None,
        };
        let work = Work {
            route,
            request,
            preferences,
        };
        Ok((Box::new(work), Box::new(job)))
    }
}

/// A body, read.
struct Read {
    request: BatchRequest,
    preferences: Preferences,
    asked: Asked,
    ignored: Vec<String>,
    defaults: Vec<String>,
}

impl From<Translated> for Read {
    fn from(read: Translated) -> Self {
        Self {
            request: read.request,
            preferences: read.preferences,
            asked: Asked::OpenAi(read.asked),
            ignored: read.ignored,
            defaults: read.defaults,
        }
    }
}

/// Reads a body in Livepeer's own form.
fn read_native(
    pipeline: Pipeline,
    sent: &Sent,
    body: &Bytes,
    settings: &Settings,
) -> Result<Read, Refused> {
    let request = if file_of(pipeline).is_some() {
        BatchRequest::read_form(pipeline, &sent.content_type, body)
    } else {
        BatchRequest::read_json(pipeline, body)
    };
    let checked = request.and_then(|request| request.check().map(|()| request));
    let mut request = checked.map_err(|bad| bad_request(Shape::Native, None, &bad))?;
    // Callers of these routes get what Go's gateway gives them.
    request.take_empty();
    let provider = sent.provider.as_deref();
    let read = preferences::read(request.provider(), provider, &settings.terms)?;
    Ok(Read {
        asked: Asked::Native {
            stream: request.is_stream(),
        },
        request,
        preferences: read.preferences,
        ignored: read.ignored,
        defaults: Vec::new(),
    })
}

// ---- from an answer to a body --------------------------------------------------------------------------------

/// A whole answer, and the results that it names, each with its path.
pub(super) struct Written {
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    pub(super) named: Vec<(String, Bytes)>,
}

/// Where the results of an answer are found.
pub(super) struct Place<'a> {
    pub(super) id: RequestId,
    pub(super) now: Time,
    pub(super) base: &'a str,
}

/// Writes a whole answer.
pub(super) fn whole(
    job: &Job,
    answer: Answer,
    files: &[File],
    place: &Place<'_>,
    rng: &mut Rng,
) -> Result<Written, Refused> {
    use openai::Asked::{Chat, Images, Speech, Transcript};
    let plain = |content_type, body| Written {
        content_type,
        body,
        named: Vec::new(),
    };
    let asked = match &job.asked {
        Asked::Native { .. } => return native(answer, files, &job.native),
        Asked::OpenAi(asked) => asked,
    };
    match (asked, answer) {
        (Chat(asked), Answer::Llm { completion, .. }) => {
            let body = chat::answer(asked, &completion, &place.id.to_string(), place.now);
            Ok(plain(JSON, body))
        }
        (Images(asked), Answer::Images(images)) => pictures(asked, &images, files, place, rng),
        (Speech(asked), Answer::Speech { url }) => {
            let (content_type, body) = speech::answer(*asked, file(files, &url)?)?;
            Ok(plain(content_type, body))
        }
        (Transcript(asked), Answer::Text { text, chunks }) => {
            let body = transcript::answer(asked, &text, &chunks, job.duration);
            Ok(plain(asked.content_type(), body))
        }
        _ => Err(other_answer()),
    }
}

const JSON: &str = "application/json";

/// Writes an answer as orchestrators give it, but for where its results are.
fn native(mut answer: Answer, files: &[File], request: &str) -> Result<Written, Refused> {
    let mut names = Vec::new();
    let paths: Vec<String> = files
        .iter()
        .map(|file| {
            let name = name_among(&names, &file.name);
            names.push(name.clone());
            format!("/stream/{request}/{name}")
        })
        .collect();
    for url in answer.urls_mut() {
        let at = files.iter().position(|file| file.url == *url);
        url.clone_from(&paths[at.ok_or_else(result_lost)?]);
    }
    let contents = files.iter().map(|file| file.content.clone());
    Ok(Written {
        content_type: JSON,
        body: answer.to_json(),
        named: paths.into_iter().zip(contents).collect(),
    })
}

/// Writes pictures in OpenAI's shape: each has an address of its own, also where two are the same.
fn pictures(
    asked: &image::Asked,
    images: &[Image],
    files: &[File],
    place: &Place<'_>,
    rng: &mut Rng,
) -> Result<Written, Refused> {
    let folder = format!("/files/{}", types::draw_secret(rng));
    let mut named = Vec::with_capacity(images.len());
    for (at, image) in images.iter().enumerate() {
        let content = file(files, &image.url)?;
        named.push((format!("{folder}/{at}.png"), content.clone()));
    }
    let urls: Vec<String> = named
        .iter()
        .map(|(path, _)| format!("{}{path}", place.base))
        .collect();
    let pictures: Vec<Picture<'_>> = images
        .iter()
        .zip(&named)
        .zip(&urls)
        .map(|((image, (_, content)), url)| Picture {
            url,
            content,
            seed: image.seed,
            nsfw: image.nsfw,
        })
        .collect();
    let body = image::answer(asked, &pictures, place.now)?;
    if asked.inline {
        named.clear();
    }
    Ok(Written {
        content_type: JSON,
        body,
        named,
    })
}

/// The content of a result.
fn file<'a>(files: &'a [File], url: &str) -> Result<&'a Bytes, Refused> {
    let file = files.iter().find(|file| file.url == url);
    file.map(|file| &file.content).ok_or_else(result_lost)
}

fn result_lost() -> Refused {
    let text = "A result could not be fetched from the orchestrator.";
    Refused::new(Code::ResultUnavailable, text)
}

/// An answer of another kind than the route's.
pub(super) fn other_answer() -> Refused {
    let text = "The orchestrator gave an answer of another kind.";
    Refused::new(Code::UpstreamInvalid, text)
}

fn over() -> Refused {
    Refused::new(Code::InternalError, "The request is over.")
}

// ---- streams -------------------------------------------------------------------------------------------------

/// The answer of a stream while it is written.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) pace: Pace,
    /// How long its first event took.
    pub(super) first: Option<Duration>,
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    Native { done_at_end: bool },
    Chat(Box<Rebuild>),
}

/// The consequence of an event.
#[derive(Debug)]
pub(super) enum Said {
    Nothing,
    Frame(Bytes),
    Last {
        frame: Bytes,
        /// The orchestrator has more to say.
        early: bool,
    },
    Failed(Refused),
}

impl Stream {
    pub(super) fn new(asked: &Asked, id: RequestId, now: Time, config: &Config) -> Self {
        let writer = match asked {
            Asked::OpenAi(openai::Asked::Chat(chat)) => {
                let rebuild = Rebuild::new(chat.clone(), &id.to_string(), now);
                Writer::Chat(Box::new(rebuild))
            }
            _ => Writer::Native {
                done_at_end: config.done_on_native,
            },
        };
        Self {
            pace: Pace::new(now, config),
            first: None,
            writer,
        }
    }

    /// Takes the payload of an event.
    pub(super) fn chunk(&mut self, payload: &Bytes) -> Said {
        match &mut self.writer {
            Writer::Native { .. } => match read_chunk(payload) {
                Chunk::Part(part) => {
                    let frame = sse::event(&native_chunk(payload));
                    if part.is_finished() {
                        Said::Last {
                            frame,
                            early: false,
                        }
                    } else {
                        Said::Frame(frame)
                    }
                }
                Chunk::Failed(text) => Said::Failed(Refused::peer(Code::RunnerFailed, &text)),
                Chunk::Done | Chunk::Skipped => Said::Nothing,
            },
            Writer::Chat(rebuild) => match rebuild.chunk(payload) {
                Rebuilt::Nothing => Said::Nothing,
                Rebuilt::Frame(frame) => Said::Frame(frame),
                Rebuilt::Last(frame) => {
                    // A stop string ends the answer before the runner does.
                    let early =
                        matches!(read_chunk(payload), Chunk::Part(part) if !part.is_finished());
                    Said::Last { frame, early }
                }
                Rebuilt::Failed => Said::Failed(Refused::new(Code::RunnerFailed, "")),
            },
        }
    }

    /// The last frame, if the orchestrator's stream came to a good end before it.
    pub(super) fn ended(&mut self) -> Bytes {
        match &mut self.writer {
            Writer::Native { .. } => Bytes::new(),
            Writer::Chat(rebuild) => match rebuild.chunk(sse::DONE) {
                Rebuilt::Last(frame) | Rebuilt::Frame(frame) => frame,
                Rebuilt::Nothing | Rebuilt::Failed => Bytes::new(),
            },
        }
    }

    /// The frame that tells a client that its stream is broken; [`Stream::close`] follows.
    pub(super) fn break_off(&mut self, refused: &Refused) -> Bytes {
        match &mut self.writer {
            Writer::Native { done_at_end } => {
                *done_at_end = false;
                sse::event(&native_error(&refused.message))
            }
            Writer::Chat(rebuild) => {
                rebuild.broken(refused.clone());
                Bytes::new()
            }
        }
    }

    /// The end of a stream, behind its last frame.
    pub(super) fn close(
        &mut self,
        id: RequestId,
        served: Option<&Served>,
        total: Duration,
    ) -> Bytes {
        match &mut self.writer {
            Writer::Native { done_at_end: true } => sse::event(sse::DONE),
            Writer::Native { .. } => Bytes::new(),
            Writer::Chat(rebuild) => {
                let orchestrator = served.map(|served| served.url.to_string());
                let cost = served.map(|served| served.cost.as_ratio().ceil().to_integer());
                rebuild.close(&Facts {
                    request_id: &id.to_string(),
                    orchestrator: orchestrator.as_deref().unwrap_or_default(),
                    attempts: served.map_or(0, |served| served.attempts.len() as u32 + 1),
                    units: served.map_or(0, |served| served.units),
                    cost_wei: &cost.unwrap_or_default(),
                    first_event: self.first.unwrap_or(total),
                    total,
                })
            }
        }
    }
}

// ---- errors --------------------------------------------------------------------------------------------------

/// A request that is the caller's to mend.
pub(super) fn bad_request(shape: Shape, probe: Option<Probe>, bad: &BadRequest) -> Refused {
    match (shape, probe) {
        (Shape::OpenAi, Some(Probe::Image)) => return image::unreadable(),
        (Shape::OpenAi, Some(Probe::Audio)) => return transcript::unreadable(),
        _ => {}
    }
    let refused = Refused::new(Code::InvalidValue, bad.text.as_str());
    match &bad.param {
        Some(param) => refused.at(param.as_str()),
        None => refused,
    }
}

/// A stream that broke off.
pub(super) fn broken_off() -> Refused {
    let text = "The orchestrator's stream broke off before its end.";
    Refused::new(Code::UpstreamStreamBroken, text)
}

/// Work that took too long.
pub(super) fn timed_out(shape: Shape) -> Refused {
    match shape {
        Shape::Native => Refused::new(Code::NoOrchestrator, NOBODY),
        _ => Refused::new(Code::UpstreamTimeout, "No orchestrator answered in time."),
    }
}

/// The failure of a job, in the words of its route.
pub(super) fn failed(now: Time, shape: Shape, job: &Job, failed: Failed) -> Refused {
    let native = shape == Shape::Native;
    match failed {
        Failed::Caller { text, by } => {
            let code = match by {
                RefusedBy::Runner => Code::RunnerRefused,
                RefusedBy::Orchestrator => Code::OrchestratorRefused,
            };
            Refused::peer(code, &text)
        }
        Failed::Broken { failure, .. } => match &failure.cause {
            Cause::Ended(text) => Refused::peer(Code::RunnerFailed, text),
            _ => broken_off(),
        },
        Failed::NoMatch { excluded } => Refused::no_match(&excluded),
        Failed::Closed => {
            Refused::new(Code::Draining, "This instance is shutting down; try again.")
        }
        Failed::Ours(failure) if failure.cause.is_limit() => Refused::new(
            Code::InsufficientQuota,
            "The spending limit of this gateway is reached.",
        ),
        Failed::TimedOut { .. } => timed_out(shape),
        Failed::NoOrchestrator { .. } | Failed::UnknownModel if native => {
            Refused::new(Code::NoOrchestrator, NOBODY)
        }
        _ if native => Refused::new(Code::InternalError, OTHER),
        Failed::NoOrchestrator { attempts, .. }
            if attempts
                .last()
                .is_some_and(|last| last.reason == Left::InvalidAnswer) =>
        {
            Refused::no_answer(job.pipeline.name())
        }
        Failed::NoOrchestrator {
            attempts,
            tried,
            again,
        } if attempts.is_empty() && !tried.is_empty() => {
            let again = again.map(|at| at.since(now));
            Refused::nobody_free(job.pipeline.name(), tried.len(), again)
        }
        Failed::NoOrchestrator { attempts, .. } => {
            let told: Vec<(String, String)> = attempts
                .iter()
                .map(|attempt| (attempt.url.origin(), format!("{}", attempt.reason)))
                .collect();
            let told = told
                .iter()
                .map(|(url, reason)| (url.clone(), reason.as_str()));
            Refused::no_orchestrator(job.pipeline.name(), told)
        }
        Failed::UnknownModel => Refused::no_model(&job.model),
        Failed::ResultLost { .. } => result_lost(),
        Failed::Ours(_) => Refused::new(
            Code::InternalError,
            "This gateway could not pay for the work; its operator has to look.",
        ),
    }
}
