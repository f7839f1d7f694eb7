//! The task of a stream's job: it begins when live entry says so, carries pictures both ways, and tells how it goes.

use std::sync::Mutex;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::future;
use livepeer_core::chain::ChainView;
use livepeer_core::entry::{Job, JobEnd, StreamId, without_addresses};
use livepeer_core::job::byoc::stream::StreamAnswer;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::prefer::{Limits, Named};
use livepeer_core::wire::{DEFAULT_MODEL, Params};
use livepeer_runtime::Runtime;
use livepeer_runtime::api::{
    ByocData, ByocFailed, Error, LiveVideoJobBuilder, Output, OutputEvent, Over,
};
use livepeer_runtime::ingest::Show;
use livepeer_runtime::ingest::machines::rtmp::push::{Sound, Target};
use tracing::{info, warn};

use super::Live;
use super::lock;
use super::running::{Running, Started};
use crate::cmd::serve::config::Settings;
use crate::cmd::serve::wiring::with_places;

/// A word to the task of a job.
pub(super) enum Word<R: Runtime> {
    /// The job begins.
    Start(Box<Job>),
    /// The model has other parameters. Somebody may wait to hear whether the orchestrator has them.
    Update(Change),
    /// The chain is as this says.
    Chain(Box<ChainView>),
    /// The sender is gone: what it sent still goes through.
    End,
    /// The stream is over at once; a last word for a container, and who waits for its own.
    Stop(Option<Farewell>),
    /// Somebody wants the data that a container says beside its video.
    Data(Sender<ByocData<R>>),
}

/// A last word for a container, and who waits for the container's own.
pub(super) type Farewell = (Bytes, Sender<Bytes>);

impl<R: Runtime> Live<R> {
    /// Does all the work of a stream, from its first word to its last.
    pub(super) async fn work(&self, id: StreamId, show: Show<R>, words: Receiver<Word<R>>) {
        let Some(job) = first(&words).await else {
            return show.close();
        };
        let starting = async { Some(self.begin(&job, &show).await) };
        let (started, early) = {
            let mut early = Vec::new();
            let stopped = async {
                while let Ok(word) = words.recv().await {
                    match word {
                        // Nothing of it has gone anywhere.
                        Word::End | Word::Stop(_) => return None,
                        word => early.push(word),
                    }
                }
                None
            };
            let started = future::or(starting, stopped).await;
            (started, early)
        };
        let end = match started {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok((running, input, output))) => {
                if let Some(orchestrator) = running.orchestrator() {
                    info!(stream = %job.name, %orchestrator, "a live job runs");
                    let url = orchestrator.clone();
                    self.entry.with(|entry, now| entry.started(now, id, url));
                }
                let (updates, changed) = async_channel::unbounded();
                let farewell = Mutex::new(None);
                let obey = |word| match word {
                    Word::Start(_) => false,
                    Word::Update(change) => {
                        // They wait behind each other, and nothing else waits behind them.
                        let _ = updates.try_send(change);
                        false
                    }
                    Word::Chain(view) => {
                        running.set_chain(*view);
                        false
                    }
                    Word::End => {
                        show.end();
                        false
                    }
                    Word::Data(tell) => {
                        if let Some(data) = running.data() {
                            let _ = tell.try_send(data);
                        }
                        false
                    }
                    Word::Stop(words) => {
                        *lock(&farewell) = words;
                        true
                    }
                };
                for word in early {
                    obey(word);
                }
                let feeding = async {
                    if let Some(input) = input {
                        show.feed(input).await?;
                    }
                    future::pending().await
                };
                let playing = self.play(id, &running, &show, output);
                let telling = self.tell_events(id, &running);
                let obeying = async {
                    while let Ok(word) = words.recv().await {
                        if obey(word) {
                            return Ok(());
                        }
                    }
                    Ok(())
                };
                let updating = update(&running, &changed);
                let carried =
                    future::or(future::or(feeding, playing), future::or(telling, obeying));
                let carried = future::or(carried, updating).await;
                show.close();
                let (words, waits) = lock(&farewell).take().unzip();
                let stopped = running.stop(words.unwrap_or_default()).await;
                let stopped = stopped.map(|words| {
                    if let Some(waits) = waits {
                        let _ = waits.try_send(words);
                    }
                });
                carried.and(stopped.or_else(|error| match error {
                    Error::Ended(_) => Ok(()),
                    error => Err(error),
                }))
            }
        };
        show.close();
        let figures = show.figures();
        info!(
            stream = %job.name,
            pictures_in = figures.input.pictures,
            pictures_out = figures.pictures,
            "a live job is over"
        );
        if let Err(error) = &end {
            warn!(stream = %job.name, %error, "a live job failed");
        }
        self.entry.with(|entry, now| {
            let text;
            let end = match &end {
                Ok(()) | Err(Error::Ended(Over::Stopped | Over::Complete)) => JobEnd::Finished,
                Err(Error::NoOrchestrator(_) | Error::NothingFound(_)) => JobEnd::NoOrchestrator,
                Err(Error::Byoc(failed))
                    if matches!(**failed, ByocFailed::NoOrchestrator { .. }) =>
                {
                    JobEnd::NoOrchestrator
                }
                Err(error) => {
                    text = words_of(error);
                    JobEnd::Failed(&text)
                }
            };
            entry.job_over(now, id, end);
        });
    }

    /// Starts the job.
    async fn begin(&self, job: &Job, show: &Show<R>) -> Result<Started<R>, Error> {
        for output in &job.outputs {
            match Target::named(output) {
                // Services such as Twitch take AAC alone; a media server that announced the stream takes both.
                Ok(target) => show.push(target, Sound::Aac),
                Err(why) => warn!(stream = %job.name, %why, "an output is left out"),
            }
        }
        if let Some(container) = &job.container {
            return self.begin_container(job, container).await;
        }
        let (job, input, output) = self.builder(job).start().await?;
        Ok((Running::Model(Box::new(job)), Some(input), Some(output)))
    }

    /// The job as the configuration has it.
    fn builder(&self, job: &Job) -> LiveVideoJobBuilder<R> {
        let config = self.wiring.config();
        let settings = &config.settings;
        let model = model(settings, &job.pipeline);
        let wiring = &self.wiring;
        let builder = wiring.gateway().live_video(&model);
        let mut builder = with_places!(builder, settings, wiring.peers())
            .request_id(&job.request_id)
            .stream_id(&job.stream_id)
            .limits(settings.limits.clone())
            .payer(wiring.purse().payer(&settings.endpoints))
            .trust(wiring.peers().trust)
            .pin_change(wiring.peers().pin_change);
        if !job.orchestrator.is_empty() {
            let named = Named::Part(job.orchestrator.clone());
            builder = builder.limits(Limits {
                only: Some(vec![named]),
                ..Limits::default()
            });
        }
        if let Some(params) = &job.params {
            builder = builder.params(params.clone());
        }
        if let Some(price) = wiring.ceiling(Pipeline::LiveVideoToVideo, &model) {
            builder = builder.max_price(price);
        }
        builder
    }

    /// Carries the job's output to those who watch, until there will be no more.
    async fn play(
        &self,
        id: StreamId,
        job: &Running<R>,
        show: &Show<R>,
        output: Option<Output<R>>,
    ) -> Result<(), Error> {
        let Some(mut output) = output else {
            return future::pending().await;
        };
        let mut sent = false;
        while let Some(event) = show.next(&mut output).await? {
            sent = self.tell_input(id, job, sent);
            if let OutputEvent::End(_) = event {
                self.entry.with(|entry, now| entry.output_seen(now, id));
            }
        }
        Ok(())
    }
}

/// The job that a stream begins with; `None` if it is over before.
async fn first<R: Runtime>(words: &Receiver<Word<R>>) -> Option<Box<Job>> {
    loop {
        match words.recv().await {
            Ok(Word::Start(job)) => return Some(job),
            Ok(Word::End | Word::Stop(_)) | Err(_) => return None,
            Ok(Word::Update(_) | Word::Chain(_) | Word::Data(_)) => {}
        }
    }
}

/// Parameters on their way to the model, and who waits to hear that the orchestrator has them.
pub(super) type Change = (Params, Option<Sender<Answered>>);

/// The answer of a container to parameters, if a container had them; or why they were not taken.
pub(super) type Answered = Result<Option<StreamAnswer>, String>;

/// Sends parameters to the model, one after the other.
async fn update<R: Runtime>(job: &Running<R>, changes: &Receiver<Change>) -> Result<(), Error> {
    while let Ok((params, tell)) = changes.recv().await {
        let updated = job.update(params).await;
        if let Err(error) = &updated {
            warn!(%error, "parameters did not reach the model");
        }
        if let Some(tell) = tell {
            let _ = tell.try_send(updated.map_err(|error| words_of(&error)));
        }
    }
    future::pending().await
}

/// The model that a sender's pipeline means.
fn model(settings: &Settings, asked: &str) -> String {
    match settings.aliases.get(asked) {
        Some((Pipeline::LiveVideoToVideo, model)) => model.clone(),
        _ if asked.is_empty() => DEFAULT_MODEL.to_owned(),
        _ => asked.to_owned(),
    }
}

/// The words of an error for everybody: without the address of any peer.
fn words_of(error: &Error) -> String {
    match error {
        Error::Failed(failure) => without_addresses(failure),
        Error::AllFailed(_) => "no orchestrator is left for the job".to_owned(),
        Error::Rejected(_, why) => format!("the orchestrator does not fit: {why}"),
        Error::Url { .. } | Error::Options(_) | Error::Input(_) => {
            "the gateway's configuration does not fit this job".to_owned()
        }
        _ => "the job failed".to_owned(),
    }
}
