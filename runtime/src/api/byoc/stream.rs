//! Streams of media through a container: a handle, an input and an output.

mod data;

pub use data::ByocData;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use livepeer_core::Misuse;
use livepeer_core::http::Url;
use livepeer_core::job::byoc::stream::{Begun, StreamAnswer, StreamEvent, StreamOrder, UpdateId};
use livepeer_core::job::byoc::{BadOrder, Byoc, Failed, JobId};
use livepeer_core::job::live::media::{self, Media};
use livepeer_core::trickle::{publisher, subscriber};
use livepeer_core::wire::{Params, RunnerEvent};

use super::{ByocSubmission, News};
use crate::api::board::Board;
use crate::api::error::{Error, Over};
use crate::api::feed::{Feed, Feeds};
use crate::api::fleet::Fleet;
use crate::api::hub::{Held, Hub};
use crate::api::input::{Input, publishing};
use crate::api::output::Output;
use crate::api::ring::Ring;
use crate::{Handle, Runtime, lock};

/// The settings of a stream through a container. Made by [`ByocSubmission::stream`], whose settings hold: the parameters
/// say which media the stream has, and the time is how long an orchestrator may take to start it.
#[must_use = "a stream begins when it is started"]
pub struct ByocStreamBuilder<R: Runtime> {
    job: ByocSubmission<R>,
    params: Option<Params>,
    input: publisher::Config,
    output: subscriber::Config,
}

impl<R: Runtime> ByocStreamBuilder<R> {
    pub(super) fn new(mut job: ByocSubmission<R>) -> Self {
        // Our publisher waits by itself when too much is in flight, so that is no sign of a slow orchestrator.
        job.config.max_in_flight = usize::MAX;
        Self {
            job,
            params: None,
            input: publishing(),
            output: subscriber::Config::default(),
        }
    }

    /// Sets the container's first parameters.
    pub fn params(mut self, params: Params) -> Self {
        self.params = Some(params);
        self
    }

    /// Changes how the input is published; its certificate rule is the job's.
    pub fn input(mut self, change: impl FnOnce(&mut publisher::Config)) -> Self {
        change(&mut self.input);
        self
    }

    /// Changes how the output is read; its certificate rule is the job's.
    pub fn output(mut self, change: impl FnOnce(&mut subscriber::Config)) -> Self {
        change(&mut self.output);
        self
    }

    /// Finds an orchestrator, pays it and starts the stream. The input is `None` where the parameters say that no video
    /// goes in, and the output where they say that none comes out.
    ///
    /// # Errors
    /// If the settings are no good, or no orchestrator starts the stream.
    pub async fn start(
        mut self,
    ) -> Result<(ByocStream<R>, Option<Input<R>>, Option<Output<R>>), Error> {
        let job = { self.job.timed().order.job.clone() }.with_media();
        let capability = job.capability.clone();
        let order = StreamOrder {
            params: self.params,
            may_repeat: self.job.order.may_repeat,
            search_within: self.job.order.search_within,
            token_within: self.job.order.token_within,
            ..StreamOrder::new(job)
        };
        order.check().map_err(BadOrder::from)?;
        let wishes = order.job.wishes().map_err(BadOrder::from)?;
        self.input.trust = self.job.config.trust;
        self.output.trust = self.job.config.trust;
        let fleet = self.job.fleet.clone();
        let hub = self.job.hub()?;
        let held = Arc::clone(&hub)
            .submit(|byoc, now| byoc.open_stream(now, order))
            .map_err(super::too_many)?;
        let shared = Shared::start(hub, held, fleet);
        let stream = ByocStream {
            shared,
            capability,
            reading: self.output.clone(),
        };
        // Dropped here, it stops.
        let shared = &stream.shared;
        shared
            .state
            .until(|state| match (&state.begun, &state.ended) {
                (Some(_), _) => Some(Ok(())),
                (None, Some(Err(failed))) => Some(Err(Error::Byoc(failed.clone()))),
                (None, Some(Ok(_))) => Some(Err(Error::Closed)),
                _ => None,
            })
            .await?;
        // The output first: none of it may be missed.
        let feed = || Feed::of(Arc::clone(shared));
        let output = wishes.video_out.then(|| Output::new(feed(), self.output));
        let input = wishes.video_in.then(|| Input::new(feed(), self.input));
        Ok((stream, input, output))
    }
}

impl<R: Runtime> fmt::Debug for ByocStreamBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByocStreamBuilder")
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

/// A stream through a container: control and figures. Its [`Input`] and its [`Output`] come with it from
/// [`ByocStreamBuilder::start`].
///
/// Dropping it stops the stream in the background; [`ByocStream::stop`] waits for that.
pub struct ByocStream<R: Runtime> {
    shared: Arc<Shared<R>>,
    capability: String,
    reading: subscriber::Config,
}

impl<R: Runtime> ByocStream<R> {
    /// Where the stream runs, or ran last.
    #[must_use]
    pub fn begun(&self) -> Option<Begun> {
        self.shared.state.with(|state| state.begun.clone())
    }

    /// The orchestrator that works, or the last one that did.
    #[must_use]
    pub fn orchestrator(&self) -> Option<Url> {
        Some(self.begun()?.url)
    }

    /// Figures of input and output so far. Missing output is reported here and nowhere else.
    #[must_use]
    pub fn media_figures(&self) -> media::Figures {
        self.shared.media.with(|media, _| media.figures())
    }

    /// The container's last status report.
    #[must_use]
    pub fn status(&self) -> Option<RunnerEvent> {
        let id = self.shared.id;
        let byoc = self.shared.hub.machine();
        byoc.with(|byoc, _| byoc.stream_status(id).cloned())
    }

    /// Changes the container's parameters, and waits for its answer.
    ///
    /// # Errors
    /// If the stream has ended or does not run now, too many updates wait, or no answer came.
    pub async fn update_params(&self, params: &Params) -> Result<StreamAnswer, Error> {
        let shared = &*self.shared;
        let update = shared.state.with(|state| {
            let (id, body) = (shared.id, Bytes::from(params.to_json()));
            let byoc = shared.hub.machine();
            let update = byoc.with(|byoc, now| byoc.update_stream(now, id, body))?;
            // Still under the lock of the state: the answer finds its place.
            state.updates.insert(update, None);
            Ok::<_, Misuse>(update)
        })?;
        let _place = Place { shared, update };
        let answered = shared.state.until(|state| {
            let answer = state.updates.get_mut(&update).and_then(Option::take);
            answer.or_else(|| Some(Err(state.over()?)))
        });
        answered.await
    }

    /// The events of the stream, from the first on. Whoever asks gets all of them; those that nobody reads are dropped,
    /// the oldest first, once there are more than 256.
    #[must_use]
    pub fn events(&self) -> ByocStreamEvents<R> {
        ByocStreamEvents {
            shared: Arc::clone(&self.shared),
            next: 0,
        }
    }

    /// The data that the container says beside its media, from now on: nothing where the parameters say that none comes out.
    #[must_use]
    pub fn data(&self) -> ByocData<R> {
        ByocData::new(Arc::clone(&self.shared), self.reading.clone())
    }

    /// Waits for the stream's end: of itself after its input was closed and its output read, or by a failure. The
    /// container's last words come back.
    ///
    /// # Errors
    /// If it failed.
    pub async fn wait(&self) -> Result<Bytes, Error> {
        let state = &self.shared.state;
        let ended = state.until(|state| state.ended.clone()).await;
        ended.map_err(Error::Byoc)
    }

    /// Ends the stream in order: tells the container, closes the channels, and waits until that is done. The container's
    /// last words come back.
    ///
    /// # Errors
    /// If it had failed before.
    pub async fn stop(self) -> Result<Bytes, Error> {
        self.stop_with(Bytes::new()).await
    }

    /// Ends the stream as [`ByocStream::stop`] does, with a last word for the container.
    ///
    /// # Errors
    /// As [`ByocStream::stop`].
    pub async fn stop_with(self, words: Bytes) -> Result<Bytes, Error> {
        self.shared.stop(words);
        let outcome = self.wait().await;
        let feed = Feed::of(Arc::clone(&self.shared));
        feed.until(|| feed.look(|media| media.is_idle().then_some(())))
            .await;
        outcome
    }
}

impl<R: Runtime> Drop for ByocStream<R> {
    fn drop(&mut self) {
        self.shared.stop(Bytes::new());
    }
}

impl<R: Runtime> fmt::Debug for ByocStream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByocStream")
            .field("capability", &self.capability)
            .field("orchestrator", &self.orchestrator())
            .field("media", &self.media_figures())
            .finish_non_exhaustive()
    }
}

/// The events of a stream through a container: a [`Stream`], which ends with it. See [`ByocStream::events`].
pub struct ByocStreamEvents<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// The number of the event that comes next.
    next: u64,
}

impl<R: Runtime> ByocStreamEvents<R> {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<StreamEvent>> {
        let next = &mut self.next;
        let board = &self.shared.state;
        board.poll(cx, |state| match state.events.read(next) {
            Some(event) => Some(Some(event)),
            None => state.ended.is_some().then_some(None),
        })
    }
}

impl<R: Runtime> Stream for ByocStreamEvents<R> {
    type Item = StreamEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        self.poll(cx)
    }
}

impl<R: Runtime> fmt::Debug for ByocStreamEvents<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByocStreamEvents")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// A stream's machine and media, and what its tasks know of them.
struct Shared<R: Runtime> {
    hub: Arc<Hub<Byoc, R>>,
    id: JobId,
    media: Handle<Media, R>,
    state: Board<State>,
    /// Held while news go from one machine to the other: they have to arrive in their order.
    carrying: Mutex<()>,
}

/// State that changes while a stream runs.
#[derive(Default)]
struct State {
    begun: Option<Begun>,
    events: Ring<StreamEvent>,
    /// The answers that are waited for, once they are there.
    updates: BTreeMap<UpdateId, Option<Result<StreamAnswer, Error>>>,
    stopped: bool,
    ended: Option<Result<Bytes, Box<Failed>>>,
}

impl State {
    /// How the stream ended, once it has.
    fn over(&self) -> Option<Error> {
        Some(match self.ended.as_ref()? {
            Err(failed) => Error::Byoc(failed.clone()),
            Ok(_) if self.stopped => Error::Ended(Over::Stopped),
            Ok(_) => Error::Ended(Over::Complete),
        })
    }
}

/// A call that waits for the answer to an update.
struct Place<'a, R: Runtime> {
    shared: &'a Shared<R>,
    update: UpdateId,
}

impl<R: Runtime> Drop for Place<'_, R> {
    fn drop(&mut self) {
        let state = &self.shared.state;
        state.with(|state| state.updates.remove(&self.update));
    }
}

impl<R: Runtime> Shared<R> {
    fn start(hub: Arc<Hub<Byoc, R>>, held: Held<Byoc, R>, fleet: Fleet<R>) -> Arc<Self> {
        let driver = hub.machine().driver();
        let media = driver.drive(Media::new(driver.now(), media::Config::default()));
        let runtime = driver.runtime().clone();
        let shared = Arc::new(Self {
            id: held.id(),
            hub,
            media,
            state: Board::new(State::default()),
            carrying: Mutex::new(()),
        });
        runtime.spawn(Arc::clone(&shared).pump(held, fleet));
        shared
    }

    fn stop(&self, words: Bytes) {
        self.state.with(|state| state.stopped = true);
        let byoc = self.hub.machine();
        byoc.with(|byoc, now| byoc.stop_stream(now, self.id, words));
    }

    /// Carries news until stream and input have ended. The machines live as long.
    async fn pump(self: Arc<Self>, mut held: Held<Byoc, R>, _fleet: Fleet<R>) {
        poll_fn(|cx| self.poll_pump(&mut held, cx)).await;
    }

    fn poll_pump(&self, held: &mut Held<Byoc, R>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            while let Poll::Ready(Some(news)) = held.poll(cx) {
                moved = true;
                self.on_stream(match news {
                    News::Stream(event) => event,
                    _ => StreamEvent::Ended(Err(Box::new(Failed::Closed))),
                });
            }
            moved |= self.carry_news(|| match self.media.poll_next(cx) {
                Poll::Ready(news) => news,
                Poll::Pending => None,
            });
            if moved {
                self.state.wake();
                continue;
            }
            let over = self.state.with(|state| state.ended.is_some());
            return match over && self.media.with(|media, _| media.is_idle()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            };
        }
    }

    /// Carries what the media tell to the machine. Says whether that was anything.
    fn carry_news(&self, mut next: impl FnMut() -> Option<media::News>) -> bool {
        let _turn = lock(&self.carrying);
        let mut told = false;
        while let Some(news) = next() {
            told = true;
            let byoc = self.hub.machine();
            byoc.with(|byoc, now| byoc.on_stream_media(now, self.id, &news));
            if matches!(news.event, media::Event::Delivered) {
                self.media.with(Media::close_channel);
            }
        }
        told
    }

    fn on_stream(&self, event: StreamEvent) {
        let turn = lock(&self.carrying);
        self.media.with(|media, now| match &event {
            StreamEvent::Begun(begun) => {
                let channels = begun.channels.clone();
                media.go_by(now, begun.session, channels.publish, channels.subscribe);
            }
            StreamEvent::Left(session) => media.leave(now, *session),
            StreamEvent::Runner(event) => media.runner_said(now, event),
            // Nobody is left to write to.
            StreamEvent::Ended(_) => media.end(now),
            _ => {}
        });
        drop(turn);
        self.state.with(|state| match event {
            StreamEvent::Updated(update, answer) => {
                if let Some(place) = state.updates.get_mut(&update) {
                    *place = Some(answer.map_err(Error::Failed));
                }
            }
            StreamEvent::Ended(end) => state.ended = Some(end),
            event => {
                if let StreamEvent::Begun(begun) = &event {
                    state.begun = Some((**begun).clone());
                }
                state.events.push(event);
            }
        });
    }
}

impl<R: Runtime> Feeds<R> for Shared<R> {
    fn media(&self) -> &Handle<Media, R> {
        &self.media
    }

    fn carry(&self) {
        if self.carry_news(|| self.media.try_next()) {
            self.state.wake();
        }
    }

    /// Output that nobody reads is not missed here.
    fn set_output_read(&self, _: bool) {}

    fn ended(&self) -> Option<Error> {
        self.state.with(|state| state.over())
    }

    fn enlist(&self, cx: &Context<'_>) {
        self.state.enlist(cx);
    }
}
