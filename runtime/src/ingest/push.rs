//! An output to another RTMP server over TCP or TLS.

use std::fmt;
use std::sync::Arc;

use livepeer_ingest::rtmp::dial::Dial as _;
use livepeer_ingest::rtmp::push::{self, Event, Sound, Target};
use livepeer_media::frame::{AccessUnit, Audio, Tracks};
use tracing::{info, warn};

use super::dial::Dialled;
use super::news::News;
use crate::{Driver, Runtime, seed};

/// An output to another RTMP server, which is kept up until [`Push::stop`], or until it is dropped. What came before is still
/// sent then.
pub struct Push<R: Runtime> {
    dialled: Arc<Dialled<push::Push, R>>,
    news: Arc<News<Event>>,
}

impl<R: Runtime> Push<R> {
    /// Connects to `target`, to send an output with those tracks.
    #[must_use]
    pub fn open(driver: &Driver<R>, target: Target, tracks: Tracks, sound: Sound) -> Self {
        let server = target.application();
        let push = push::Push::new(driver.now(), target, tracks, sound, seed());
        let news = Arc::<News<Event>>::default();
        let told = Arc::clone(&news);
        let tell = move |event: Event| {
            log(&server, &event);
            let over = matches!(event, Event::Over(_));
            // One that goes on for ever tells no more than somebody reads.
            if over || !told.is_full() {
                told.push(event);
            }
            if over {
                told.close();
            }
        };
        Self {
            dialled: Dialled::new(driver, push, tell),
            news,
        }
    }

    /// Sends a picture.
    pub fn video(&self, unit: &AccessUnit) {
        self.dialled.machine.with(|push, now| push.video(now, unit));
    }

    /// Sends a frame of sound.
    pub fn audio(&self, audio: &Audio) {
        self.dialled
            .machine
            .with(|push, now| push.audio(now, audio));
    }

    /// The next event; `None` after the last one.
    pub async fn next(&self) -> Option<Event> {
        self.news.next().await
    }

    /// Asks the machine.
    pub fn look<T>(&self, look: impl FnOnce(&push::Push) -> T) -> T {
        self.dialled.machine.with(|push, _| look(push))
    }

    /// Ends the output.
    pub fn stop(&self) {
        self.dialled.stop();
    }

    /// News that end once the last frames have left, or had their time, after it was dropped.
    pub(super) fn left(&self) -> Arc<News<()>> {
        self.dialled.left()
    }
}

fn log(server: &str, event: &Event) {
    match event {
        Event::Publishing => info!(server, "the output goes there by RTMP"),
        Event::Lost(why, _) => warn!(server, why, "the output does not get there; tried again"),
        Event::Slow => warn!(server, "too slow for the output: pictures are dropped"),
        Event::Over(why) => info!(server, why, "the output goes there no more"),
        _ => {}
    }
}

impl<R: Runtime> fmt::Debug for Push<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Push")
            .field(&self.look(|push| push.target().clone()))
            .finish()
    }
}

impl<R: Runtime> Drop for Push<R> {
    fn drop(&mut self) {
        self.stop();
    }
}
