//! Results that an answer names: each distinct URL is fetched once (jobs spec 2.7).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Batch;
use super::job::{Fetching, Kept, Stage};
use super::types::{Config, Event, Failed, File, Finished, JobId, Left};
use crate::error::{Cause, Failure, Party};
use crate::exchange::{Bounds, Exchange};
use crate::http::{In, Method, Request, Url};
use crate::machine::EffectId;
use crate::payment::session::Delivered;
use crate::pipeline::Pipeline;
use crate::pool::{Outcome, Selector};
use crate::wire::batch::{Answer, data_url};

/// At most this many results of a job are downloaded at a time.
const AT_A_TIME: usize = 8;

/// The longest name of a result.
const MAX_NAME: usize = 64;

impl<S: Selector> Batch<S> {
    /// Brings along what an answer names, then the job is done.
    pub(super) fn fetch(&mut self, id: JobId, answer: Answer) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(orchestrator) = job.engaged.as_ref().map(|engaged| engaged.url.clone()) else {
            return;
        };
        let config = Arc::clone(&job.config);
        let took = job.lap(self.now);
        job.upstream += took;
        if let Some(engaged) = &mut job.engaged {
            engaged.took = Some(self.now.since(engaged.asked));
        }
        let mut distinct: Vec<&String> = Vec::new();
        for url in answer.urls() {
            if !distinct.contains(&url) {
                distinct.push(url);
            }
        }
        let mut kept = Kept {
            files: Vec::new(),
            room: config.max_results,
        };
        let mut waiting = VecDeque::new();
        let mut fault = None;
        for url in distinct {
            match data_url(url) {
                Some(Ok(content)) => {
                    let name = format!("{}.{}", self.draw(), self.ending());
                    fault = fault.or(kept.keep(url.clone(), name, content, &config));
                }
                // The picture was to be in the answer, and is not.
                Some(Err(err)) => return self.on_no_answer(id, err.into()),
                None => match place(&orchestrator, url) {
                    Ok(place) => waiting.push_back((url.clone(), place)),
                    Err(cause) => fault = Some(cause),
                },
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.stage = Stage::Fetching(Box::new(Fetching {
                answer,
                kept,
                waiting,
                fetches: BTreeMap::new(),
            }));
        }
        match fault {
            Some(cause) => self.result_lost(id, cause),
            None => self.fetch_more(id),
        }
    }

    /// Begins downloads, or ends the job once there are none.
    fn fetch_more(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::Fetching(fetching) = &mut job.stage else {
            return;
        };
        while fetching.fetches.len() < AT_A_TIME
            && let Some((url, place)) = fetching.waiting.pop_front()
        {
            let bounds = Bounds {
                doing: "a result",
                what: "a result in bytes",
                limit: job.config.max_result.min(fetching.kept.room),
                within: job.config.download_within,
                redirects: true,
            };
            let request = Request::new(Method::Get, place).trust(self.config.trust);
            let fetch = Exchange::start(&mut self.out, self.now, request, bounds);
            if let Some(exchange) = fetch.id() {
                self.exchanges.insert(exchange, id);
                fetching.fetches.insert(exchange, (url, fetch));
            }
        }
        let wake = fetching
            .fetches
            .values()
            .filter_map(|(_, fetch)| fetch.wake())
            .min();
        if wake.is_some() {
            return self.set_wake(id, wake);
        }
        let Some(served) = job.served.take() else {
            return;
        };
        let Stage::Fetching(fetching) = core::mem::replace(&mut job.stage, Stage::Selecting) else {
            return;
        };
        self.did_well(id);
        self.remove(id);
        let finished = Finished {
            answer: Some(fetching.answer),
            files: fetching.kept.files,
            served: *served,
        };
        self.out.event(Event::Done(id, Box::new(finished)));
    }

    pub(super) fn on_result(&mut self, id: JobId, exchange: EffectId, step: In) {
        let ending = self.ending();
        let drawn = self.draw();
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::Fetching(fetching) = &mut job.stage else {
            return;
        };
        let Some((url, mut fetch)) = fetching.fetches.remove(&exchange) else {
            return;
        };
        self.exchanges.remove(&exchange);
        let lost = match fetch.step(&mut self.out, step) {
            None => {
                // A redirect goes on under another name.
                if let Some(exchange) = fetch.id() {
                    self.exchanges.insert(exchange, id);
                    fetching.fetches.insert(exchange, (url, fetch));
                }
                return;
            }
            Some(Ok(reply)) if reply.is_success() => {
                let mut name = base_name(fetch.url(), &drawn, ending);
                if fetching.kept.files.iter().any(|file| file.name == name) {
                    name = format!("{drawn}-{name}");
                }
                fetching
                    .kept
                    .keep(url, name, reply.body.into(), &job.config)
            }
            Some(Ok(reply)) => Some(Cause::Refused {
                doing: "a result",
                status: reply.status,
                reason: crate::error::Reason::Other,
                text: String::new(),
            }),
            Some(Err(cause)) => Some(cause),
        };
        match lost {
            Some(cause) => self.result_lost(id, cause),
            None => self.fetch_more(id),
        }
    }

    pub(super) fn result_is_late(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let cause = Cause::TimedOut {
            doing: "a result",
            after: job.config.download_within,
        };
        self.result_lost(id, cause);
    }

    /// A result cannot be had. The work was done and paid for, so nobody does it again (jobs spec 11.1).
    fn result_lost(&mut self, id: JobId, cause: Cause) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(engaged) = &job.engaged else { return };
        let url = engaged.url.clone();
        let failure = Failure::new(Party::Orchestrator(url.clone()), cause);
        job.left(url, Left::InvalidAnswer);
        let attempts = core::mem::take(&mut job.attempts);
        self.leave(id, Delivered::Accepted, Outcome::Failed(failure.clone()));
        let failure = Box::new(failure);
        self.fail(id, Failed::ResultLost { attempts, failure });
    }

    /// Eight random digits.
    fn draw(&mut self) -> String {
        hex::encode(&self.rng.bytes32()[..4])
    }

    /// The ending of results whose name has none.
    const fn ending(&self) -> &'static str {
        match self.pipeline {
            Pipeline::TextToSpeech => "wav",
            Pipeline::ImageToVideo => "mp4",
            _ => "png",
        }
    }
}

impl Kept {
    /// Keeps a result, or says why not.
    fn keep(
        &mut self,
        url: String,
        name: String,
        content: Bytes,
        config: &Config,
    ) -> Option<Cause> {
        let limit = config.max_result.min(self.room);
        if content.len() > limit {
            let what = "a result in bytes";
            return Some(Cause::TooMuch { what, limit });
        }
        self.room -= content.len();
        self.files.push(File { url, name, content });
        None
    }
}

/// Where a result is, if an orchestrator may name that place.
fn place(orchestrator: &Url, url: &str) -> Result<Url, Cause> {
    let nonsense = |why: String| Cause::Nonsense {
        what: "the URL of a result",
        why,
    };
    let place = orchestrator.with_path("/").resolve(url);
    let place = place.map_err(|err| nonsense(err.to_string()))?;
    let named = place.named_by(orchestrator);
    named.map_err(|forbidden| Cause::Link(forbidden.into()))
}

/// The last part of a path, as far as it is fit to be a name.
fn base_name(url: &Url, drawn: &str, ending: &str) -> String {
    let path = url.path().split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = last.chars().filter(|c| fit(*c)).collect();
    let name = name.trim_start_matches('.');
    match name {
        "" => format!("{drawn}.{ending}"),
        name => name[name.len().saturating_sub(MAX_NAME)..].to_string(),
    }
}
