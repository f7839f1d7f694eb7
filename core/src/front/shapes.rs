//! Between the forms of routes and batch jobs: a body becomes a request, and an answer a body.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::objects::name_among;
use super::pace::Pace;
use super::route::Route;
use super::types::{RequestId, Work};
use super::{Front, Job};
use crate::job::batch::{Failed, File, RefusedBy, Served};
use crate::prefer::Preferences;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::batch::fields::file_of;
use crate::wire::batch::{
    Answer, BadRequest, BatchRequest, Chunk, Media, Probe, native_chunk, native_error, read_chunk,
};
use crate::wire::refused::{Code, Refused, Shape};
use crate::wire::sse;

/// The text of Livepeer's own routes for work that nobody could do.
const NOBODY: &str = "Service Unavailable Error";
/// The text of Livepeer's own routes for any other failure.
const OTHER: &str = "Internal Server Error";

/// The form in which an answer is wanted.
#[derive(Debug)]
pub(super) enum Asked {
    /// As orchestrators give it.
    Native {
        /// Whether it comes in pieces.
        stream: bool,
    },
}

impl Asked {
    /// Takes the measures of the request's file.
    pub(super) const fn measured(&mut self, _media: Media, _ignored: &mut String) {}
}

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
    pub(super) native: &'a str,
}

impl Front {
    /// Reads a body as the work of its route.
    pub(super) fn translate(
        &mut self,
        id: RequestId,
        body: &Bytes,
    ) -> Result<(Box<Work>, Box<Job>), Refused> {
        let native = self.draw_native();
        let running = self
            .running
            .get(&id)
            .ok_or_else(|| Refused::new(Code::InternalError, "The request is over."))?;
        let route = running.target.route;
        let Route::Batch(pipeline) = route else {
            return Err(Refused::unknown_url("POST", route.name()));
        };
        let request = if file_of(pipeline).is_some() {
            BatchRequest::read_form(pipeline, &running.sent.content_type, body)
        } else {
            BatchRequest::read_json(pipeline, body)
        };
        let checked = request.and_then(|request| request.check().map(|()| request));
        let request = checked.map_err(|bad| bad_request(Shape::Native, None, &bad))?;
        let job = Job {
            asked: Asked::Native {
                stream: request.is_stream(),
            },
            pipeline,
            model: request.model().into(),
            probe: request.needs(),
            native,
            ignored: String::new(),
            defaults: String::new(),
            served: None,
            stream: None,
        };
        let work = Work {
            route,
            request,
            preferences: Preferences::default(),
        };
        Ok((Box::new(work), Box::new(job)))
    }
}

/// Writes a whole answer.
pub(super) fn whole(
    asked: &Asked,
    mut answer: Answer,
    files: &[File],
    place: &Place<'_>,
    rng: &mut Rng,
) -> Result<Written, Refused> {
    let _ = (asked, place.id, place.now, place.base, rng);
    let mut names = Vec::new();
    let paths: Vec<String> = files
        .iter()
        .map(|file| {
            let name = name_among(&names, &file.name);
            names.push(name.clone());
            alloc::format!("/stream/{}/{name}", place.native)
        })
        .collect();
    for url in answer.urls_mut() {
        let at = files.iter().position(|file| file.url == *url);
        let at = at.ok_or_else(result_lost)?;
        url.clone_from(&paths[at]);
    }
    let named = paths
        .into_iter()
        .zip(files.iter().map(|file| file.content.clone()));
    Ok(Written {
        content_type: "application/json",
        body: answer.to_json(),
        named: named.collect(),
    })
}

fn result_lost() -> Refused {
    Refused::new(
        Code::ResultUnavailable,
        "A result could not be fetched from the orchestrator.",
    )
}

// ---- streams -------------------------------------------------------------------------------------------------

/// The answer of a stream while it is written.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) pace: Pace,
    /// How long its first event took.
    pub(super) first: Option<Duration>,
    began: Time,
    finished: bool,
    done_at_end: bool,
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
    pub(super) fn new(
        asked: &Asked,
        id: RequestId,
        now: Time,
        pace: Pace,
        done_at_end: bool,
    ) -> Self {
        let _ = (asked, id);
        Self {
            pace,
            first: None,
            began: now,
            finished: false,
            done_at_end,
        }
    }

    pub(super) fn chunk(&mut self, payload: &Bytes) -> Said {
        match read_chunk(payload) {
            Chunk::Part(completion) => {
                let frame = sse::event(&native_chunk(payload));
                if completion.is_finished() {
                    self.finished = true;
                    return Said::Last {
                        frame,
                        early: false,
                    };
                }
                Said::Frame(frame)
            }
            Chunk::Failed(text) => Said::Failed(Refused::peer(Code::RunnerFailed, &text)),
            Chunk::Done | Chunk::Skipped => Said::Nothing,
        }
    }

    /// The orchestrator's stream has ended.
    pub(super) fn ended(&mut self) -> Said {
        Said::Nothing
    }

    /// The frame that tells a client that its stream is broken.
    pub(super) fn break_off(&mut self, refused: &Refused) -> Bytes {
        sse::event(&native_error(&refused.message))
    }

    /// The end of a stream, behind its last frame.
    pub(super) fn close(
        &mut self,
        id: RequestId,
        served: Option<&Served>,
        total: Duration,
    ) -> Bytes {
        let _ = (id, served, total, self.began);
        if self.done_at_end && self.finished {
            sse::event(sse::DONE)
        } else {
            Bytes::new()
        }
    }
}

// ---- errors --------------------------------------------------------------------------------------------------

/// A request that is the caller's to mend.
pub(super) fn bad_request(shape: Shape, probe: Option<Probe>, bad: &BadRequest) -> Refused {
    let _ = (shape, probe);
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
pub(super) fn failed(shape: Shape, job: &Job, failed: Failed) -> Refused {
    let native = shape == Shape::Native;
    match failed {
        Failed::Caller { text, by } => {
            let code = match by {
                RefusedBy::Runner => Code::RunnerRefused,
                RefusedBy::Orchestrator => Code::OrchestratorRefused,
            };
            Refused::peer(code, &text)
        }
        Failed::Broken { .. } => broken_off(),
        Failed::NoMatch { excluded } => Refused::no_match(&[("preferences", excluded)]),
        Failed::Closed => {
            Refused::new(Code::Draining, "This instance is shutting down; try again.")
        }
        Failed::TimedOut { .. } => timed_out(shape),
        Failed::NoOrchestrator { .. } | Failed::UnknownModel if native => {
            Refused::new(Code::NoOrchestrator, NOBODY)
        }
        _ if native => Refused::new(Code::InternalError, OTHER),
        Failed::NoOrchestrator { attempts, .. } => {
            let told: Vec<(String, String)> = attempts
                .iter()
                .map(|attempt| (attempt.url.origin(), alloc::format!("{}", attempt.reason)))
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
