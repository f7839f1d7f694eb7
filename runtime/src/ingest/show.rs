//! A live stream from its sender through a job to those who watch it.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use livepeer_core::job::live::media::OutputEvent;
use livepeer_core::wire::entry::IngestMetrics;
use livepeer_ingest::bridge::{self, Bridge, Config, Event};
use livepeer_ingest::port::SessionId;
use livepeer_ingest::rtmp::push::{Sound, Target};
use livepeer_media::frame::Ticks;
use livepeer_media::hls::Packager;

use super::player::Player;
use super::taker::{Sent, Taker};
use super::webrtc::{WeakWebrtc, Webrtc};
use crate::api::{Error, Input, Output};
use crate::{Driver, Handle, Runtime, lock};

/// A live stream: its sender, the job that it goes through, and those who watch it. Clones are one.
///
/// A show begins before its job does: [`Show::whip`] and [`Show::rtmp`] give what the port and the listener want to know of a
/// sender that is let in, and frames are kept while the job starts. [`Show::run`] joins it to the job. Dropping the last
/// clone closes it, but a sender counts as one as long as it is there.
pub struct Show<R: Runtime>(Arc<Shared<R>>);

struct Shared<R: Runtime> {
    bridge: Handle<Bridge, R>,
    /// The sender that is heard: the last that began.
    heard: AtomicU64,
    stalled: AtomicBool,
    state: Mutex<State<R>>,
    player: Mutex<Player<R>>,
}

struct State<R: Runtime> {
    way: Way<R>,
    /// The input of the job takes no more for now.
    blocked: bool,
    /// How the sender is asked for a key frame.
    keys: Option<Keys<R>>,
    /// The task that runs the show.
    task: Option<Waker>,
}

/// The way from the bridge to the job.
enum Way<R: Runtime> {
    /// The job has not begun.
    Kept(Kept),
    Open(Input<R>),
    Over,
}

/// Bytes that wait at most for a job to begin: half a minute of 2 Mbit/s. With more, the bridge is told that the job takes no
/// more, and goes on for as long and as much as it does then.
const MAX_KEPT: usize = 8 << 20;

/// The stream as long as its job has not begun, however slowly that does.
#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    bytes: usize,
}

impl Kept {
    /// Keeps an event. Whether there is room for more.
    fn push(&mut self, event: Event) -> bool {
        if let Event::Write(data) = &event {
            self.bytes += data.len();
        }
        self.events.push(event);
        self.bytes <= MAX_KEPT
    }
}

/// The way to the encoder of a sender.
#[derive(Clone)]
enum Keys<R: Runtime> {
    Whip(WeakWebrtc<R>, SessionId),
    /// Nobody can ask.
    Rtmp,
}

/// Counts of what became of a show's frames.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Figures {
    /// Frames on their way to the job.
    pub input: bridge::Figures,
    /// Pictures of the job's output.
    pub pictures: u64,
    /// Pictures that another orchestrator made again.
    pub again: u64,
    /// Frames of sound of the job's output.
    pub sounds: u64,
    /// Frames of the output that could not be read.
    pub dropped: u64,
    /// Whether no picture has come for [`Config::stalled_after`].
    pub stalled: bool,
}

impl<R: Runtime> Show<R> {
    /// A show without a sender.
    #[must_use]
    pub fn new(driver: &Driver<R>, config: Config) -> Self {
        let shared = Arc::new(Shared {
            bridge: driver.drive(Bridge::new(driver.now(), config)),
            heard: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            state: Mutex::new(State {
                way: Way::Kept(Kept::default()),
                blocked: false,
                keys: None,
                task: None,
            }),
            player: Mutex::new(Player::new(driver.clone())),
        });
        let weak = Arc::downgrade(&shared);
        shared.bridge.take_in_place(move |event| {
            if let Some(shared) = weak.upgrade() {
                shared.on_bridge(event);
            }
        });
        Self(shared)
    }

    /// Takes the stream of a sender by WHIP: for [`Webrtc::admit`].
    #[must_use]
    pub fn whip(&self, webrtc: &Webrtc<R>, session: SessionId) -> Arc<dyn Taker> {
        self.entrance(Keys::Whip(webrtc.downgrade(), session))
    }

    /// Takes the stream of a sender by RTMP: for [`Rtmp::admit`](super::Rtmp::admit).
    #[must_use]
    pub fn rtmp(&self) -> Arc<dyn Taker> {
        self.entrance(Keys::Rtmp)
    }

    fn entrance(&self, keys: Keys<R>) -> Arc<dyn Taker> {
        Arc::new(Entrance {
            shared: Arc::clone(&self.0),
            keys,
            number: AtomicU64::new(u64::MAX),
        })
    }

    /// Lets viewers watch the output under a name, until the show is over.
    pub fn watch(&self, webrtc: &Webrtc<R>, name: &str) {
        webrtc.with(|port, _| port.open_stream(name));
        lock(&self.0.player).watch(webrtc.downgrade(), name);
    }

    /// Sends the output to another server too, as soon as there is some.
    pub fn push(&self, target: Target, sound: Sound) {
        lock(&self.0.player).push(target, sound);
    }

    /// Has segments for players of HLS made of the output and kept, each of that time at least, as the only rendition of
    /// the stream of that name.
    pub fn package(&self, stream: &str, rendition: &str, least: Duration) {
        lock(&self.0.player).package(stream, rendition, least);
    }

    /// Looks at those segments; `None` if none are made.
    pub fn packaged<T>(&self, look: impl FnOnce(&Packager) -> T) -> Option<T> {
        lock(&self.0.player).packager().map(look)
    }

    /// Joins the show to its job, whose input begins with what was kept, and carries the output to those who watch it
    /// until there will be no more. The job's input is closed when the sender is gone for good or [`Show::end`] is called.
    /// Dropping the future closes the show.
    ///
    /// # Errors
    /// If the job has failed: why it did.
    pub async fn run(&self, input: Input<R>, mut output: Output<R>) -> Result<(), Error> {
        let _closing = Closing(self);
        let mut feeding = pin!(self.feed(input));
        let mut playing = pin!(async {
            while self.next(&mut output).await?.is_some() {}
            Ok(())
        });
        let mut fed = false;
        poll_fn(|cx| {
            if !fed {
                match feeding.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => fed = true,
                    Poll::Ready(failed) => return Poll::Ready(failed),
                    Poll::Pending => {}
                }
            }
            playing.as_mut().poll(cx)
        })
        .await
    }

    /// Does one half of [`Show::run`]: carries the sender's stream into a job, until it is over and the input closed.
    ///
    /// # Errors
    /// If the job has ended: why it did.
    pub async fn feed(&self, input: Input<R>) -> Result<(), Error> {
        self.0.join(input);
        poll_fn(|cx| self.0.poll_feed(cx)).await
    }

    /// Does the other half: the next event of the job's output, which those who watch have had. `None` after the last.
    ///
    /// # Errors
    /// If the job has failed: why it did.
    pub async fn next(&self, output: &mut Output<R>) -> Result<Option<OutputEvent>, Error> {
        poll_fn(|cx| {
            let next = output.poll_event(cx);
            let mut player = lock(&self.0.player);
            match &next {
                Poll::Ready(Ok(Some(event))) => player.take(event),
                Poll::Ready(_) => player.end(),
                Poll::Pending => player.poll_idle(cx),
            }
            next
        })
        .await
    }

    /// Ends the stream as if its sender had: what was sent so far still goes through the job.
    pub fn end(&self) {
        self.0.bridge.with(|bridge, now| bridge.end(now));
    }

    /// Ends the stream on both sides: the job's input is closed, and nobody watches any more.
    pub fn close(&self) {
        self.0.leave();
        self.end();
        lock(&self.0.player).end();
    }

    /// Waits, after the end of the output, until its last frames have left for other servers, or those had their time.
    pub async fn left(&self) {
        let leaving = lock(&self.0.player).leaving();
        for server in leaving {
            while server.next().await.is_some() {}
        }
    }

    /// Whether the sender is gone for good, or the show was ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.bridge.with(|bridge, _| bridge.has_ended())
    }

    /// How the stream of a sender by WHIP arrives, and how far the job is with it; `None` if the sender is gone.
    #[must_use]
    pub fn metrics(&self, webrtc: &Webrtc<R>, session: SessionId) -> Option<IngestMetrics> {
        let mut metrics = webrtc.with(|port, _| port.metrics(session))?;
        let input = self.0.bridge.with(|bridge, _| bridge.figures().last);
        let output = lock(&self.0.player).last();
        for track in &mut metrics.tracks {
            let seconds = |last: [Ticks; 2]| {
                let last = last[usize::from(!track.video)];
                last.to_duration().as_secs_f64()
            };
            (track.last_input, track.last_output) = (seconds(input), seconds(output));
        }
        Some(metrics)
    }

    /// Counts what became of the frames so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let [pictures, again, sounds, dropped] = lock(&self.0.player).counts();
        Figures {
            input: self.0.bridge.with(|bridge, _| bridge.figures()),
            pictures,
            again,
            sounds,
            dropped,
            stalled: self.0.stalled.load(Ordering::Relaxed),
        }
    }
}

impl<R: Runtime> Clone for Show<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Runtime> fmt::Debug for Show<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Show")
            .field("figures", &self.figures())
            .finish_non_exhaustive()
    }
}

/// A show that is closed when this is dropped.
struct Closing<'a, R: Runtime>(&'a Show<R>);

impl<R: Runtime> Drop for Closing<'_, R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The place where a sender's stream comes in.
struct Entrance<R: Runtime> {
    shared: Arc<Shared<R>>,
    keys: Keys<R>,
    /// The number of the sender among those of the show, once it has begun.
    number: AtomicU64,
}

impl<R: Runtime> Taker for Entrance<R> {
    fn take(&self, sent: Sent) {
        let bridge = &self.shared.bridge;
        if let Sent::Source(source) = sent {
            let number = self.shared.heard.fetch_add(1, Ordering::Relaxed) + 1;
            self.number.store(number, Ordering::Relaxed);
            lock(&self.shared.state).keys = Some(self.keys.clone());
            return bridge.with(|bridge, now| bridge.source(now, source));
        }
        // Another sender has taken over from one that has begun.
        let number = self.number.load(Ordering::Relaxed);
        let heard = self.shared.heard.load(Ordering::Relaxed);
        if number != heard && heard != 0 {
            return;
        }
        bridge.with(|bridge, now| match sent {
            Sent::Source(_) => {}
            Sent::Video(unit) => bridge.video(now, unit),
            Sent::Audio(audio) => bridge.audio(now, audio),
            Sent::Report(kind, stamp, micros) => bridge.report(now, kind, stamp, micros),
            Sent::Lost => bridge.lost(now),
            Sent::Ended => bridge.end(now),
        });
    }
}

impl<R: Runtime> Shared<R> {
    /// Does what the bridge says, in the task of whoever brought the frame that it is about.
    fn on_bridge(&self, event: Event) {
        match event {
            Event::Key => {
                let keys = lock(&self.state).keys.clone();
                if let Some(Keys::Whip(webrtc, session)) = keys {
                    webrtc.with(|port, now| port.want_key_frame(now, session));
                }
            }
            Event::Stalled => self.stalled.store(true, Ordering::Relaxed),
            Event::Flows => self.stalled.store(false, Ordering::Relaxed),
            event => self.carry(event),
        }
    }

    fn carry(&self, event: Event) {
        let mut state = lock(&self.state);
        let is_over = matches!(event, Event::Done);
        let is_blocked = !state.way.carry(event);
        let turned = is_blocked && !std::mem::replace(&mut state.blocked, is_blocked);
        let task = if turned || is_over {
            state.task.take()
        } else {
            None
        };
        drop(state);
        task.into_iter().for_each(Waker::wake);
        if turned {
            self.bridge.with(|bridge, now| bridge.blocked(now, true));
        }
    }

    /// The job has begun.
    fn join(&self, input: Input<R>) {
        let mut state = lock(&self.state);
        let kept = match std::mem::replace(&mut state.way, Way::Open(input)) {
            Way::Kept(kept) => kept.events,
            Way::Open(_) | Way::Over => Vec::new(),
        };
        for event in kept {
            state.way.carry(event);
        }
    }

    /// Leaves the job.
    fn leave(&self) {
        let (way, task) = {
            let mut state = lock(&self.state);
            let way = std::mem::replace(&mut state.way, Way::Over);
            (way, state.task.take())
        };
        // Dropping the input closes it.
        drop(way);
        task.into_iter().for_each(Waker::wake);
    }

    /// Lets the bridge go on once the input of the job takes more again, until the stream is over or the job is.
    fn poll_feed(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = lock(&self.state);
        state.task = Some(cx.waker().clone());
        let room = match &state.way {
            Way::Kept(_) => return Poll::Pending,
            Way::Over => return Poll::Ready(Ok(())),
            Way::Open(_) if !state.blocked => return Poll::Pending,
            Way::Open(input) => ready!(input.poll_handed_over(cx)),
        };
        state.blocked = false;
        drop(state);
        if let Err(failed) = room {
            self.leave();
            return Poll::Ready(Err(failed));
        }
        self.bridge.with(|bridge, now| bridge.blocked(now, false));
        Poll::Pending
    }
}

impl<R: Runtime> Way<R> {
    /// Carries an event into the job's input. Whether that takes more.
    fn carry(&mut self, event: Event) -> bool {
        let input = match self {
            Self::Kept(kept) => return kept.push(event),
            Self::Open(input) => input,
            Self::Over => return true,
        };
        match event {
            // A job that has ended says why to whoever waits for room.
            Event::Begin if input.begin_now().is_err() => return false,
            Event::Begin => {}
            Event::Write(data) => input.write_now(data),
            Event::End => input.cut(),
            Event::Done => {
                // Dropping the input closes it.
                *self = Self::Over;
                return true;
            }
            _ => return true,
        }
        input.has_room()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Only so is a stream whole whose job takes seconds to begin: a bridge that is told of no room drops pictures after one.
    #[test]
    fn a_stream_waits_for_its_job_as_long_as_there_is_room() {
        let mut kept = Kept::default();
        let piece = Bytes::from(vec![0; 64 << 10]);
        let pieces = MAX_KEPT / piece.len();
        assert!(kept.push(Event::Begin));
        for _ in 0..pieces {
            assert!(kept.push(Event::Write(piece.clone())));
        }
        assert!(!kept.push(Event::Write(piece)), "8 MiB are enough");
        assert_eq!(kept.events.len(), pieces + 2, "and nothing is lost of them");
    }
}
