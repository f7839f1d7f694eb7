//! The stream of a media server by RTMP, over TCP or TLS.

use std::fmt;
use std::sync::Arc;

use livepeer_ingest::bridge::Source;
use livepeer_ingest::rtmp::pull::{self, Event};
use livepeer_ingest::rtmp::push::Target;
use livepeer_media::timeline::Clocks;
use tracing::{debug, info};

use super::dial::Dialled;
use super::news::News;
use super::taker::{Sent, Taker};
use crate::{Driver, Runtime, seed};

/// The stream of a media server, which is played until [`Pull::stop`], until the server has it no more, or until this is
/// dropped.
pub struct Pull<R: Runtime> {
    dialled: Arc<Dialled<pull::Pull, R>>,
    news: Arc<News<Event>>,
}

impl<R: Runtime> Pull<R> {
    /// Connects to `target`, and hands its stream to `taker`.
    #[must_use]
    pub fn open(driver: &Driver<R>, target: Target, taker: Arc<dyn Taker>) -> Self {
        let server = target.application();
        let pull = pull::Pull::new(driver.now(), target, seed());
        let news = Arc::<News<Event>>::default();
        let told = Arc::clone(&news);
        let tell = move |event| match event {
            Event::Playing => {
                info!(server, "the stream is fetched there by RTMP");
                // Whether there is sound, it shows.
                let (clocks, sound) = (Clocks::Shared, true);
                taker.take(Sent::Source(Source { clocks, sound }));
                told.push(Event::Playing);
            }
            Event::Video(unit) => taker.take(Sent::Video(unit)),
            Event::Audio(audio) => taker.take(Sent::Audio(audio)),
            Event::Damaged(damaged) => {
                debug!(%damaged, server, "a frame was dropped");
                taker.take(Sent::Lost);
            }
            Event::Lost(why, _) => info!(server, why, "the stream is not to be had there now"),
            Event::Over(why) => {
                info!(server, why, "the stream is fetched there no more");
                taker.take(Sent::Ended);
                told.push(Event::Over(why));
                told.close();
            }
            _ => {}
        };
        Self {
            dialled: Dialled::new(driver, pull, tell),
            news,
        }
    }

    /// The next event; `None` after the last one. Frames are not among them: they go to the [`Taker`].
    pub async fn next(&self) -> Option<Event> {
        self.news.next().await
    }

    /// Ends it.
    pub fn stop(&self) {
        self.dialled.stop();
    }
}

impl<R: Runtime> fmt::Debug for Pull<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.dialled.server();
        f.debug_tuple("Pull").field(&server).finish()
    }
}

impl<R: Runtime> Drop for Pull<R> {
    fn drop(&mut self) {
        self.stop();
        self.dialled.machine.close();
    }
}
