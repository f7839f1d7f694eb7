//! An output to another RTMP server over TCP or TLS.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use livepeer_core::http::{BadUrl, Url};
use livepeer_ingest::rtmp::push::{self, Attempt, Event, Input, Output, Sound, Target};
use livepeer_media::frame::{AccessUnit, Audio, Tracks};
use tracing::{info, warn};

use super::link::{Heard, Line};
use super::news::News;
use crate::{Driver, Handle, Runtime, lock, seed};

/// An output to another RTMP server, which is kept up until [`Push::stop`], or until it is dropped.
pub struct Push<R: Runtime>(Arc<Shared<R>>);

struct Shared<R: Runtime> {
    push: Handle<push::Push, R>,
    /// The target as far as connecting is concerned.
    server: Url,
    news: News<Event>,
    /// The connection of the latest attempt.
    line: Mutex<Option<(Attempt, Arc<Line>)>>,
}

impl<R: Runtime> Push<R> {
    /// Connects to `target`, to send an output with those tracks.
    ///
    /// # Errors
    /// If the host of the target is none.
    pub fn open(
        driver: &Driver<R>,
        target: Target,
        tracks: Tracks,
        sound: Sound,
    ) -> Result<Self, BadUrl> {
        let scheme = if target.secure { "https" } else { "http" };
        let host = match target.host.contains(':') {
            true => format!("[{}]", target.host),
            false => target.host.clone(),
        };
        let server = Url::parse(&format!("{scheme}://{host}:{}/", target.port))?;
        let push = push::Push::new(driver.now(), target, tracks, sound, seed());
        let shared = Arc::new(Shared {
            push: driver.drive(push),
            server,
            news: News::default(),
            line: Mutex::default(),
        });
        let weak = Arc::downgrade(&shared);
        shared.push.take_in_place(move |output| {
            if let Some(shared) = weak.upgrade() {
                shared.output(output);
            }
        });
        Ok(Self(shared))
    }

    /// Sends a picture.
    pub fn video(&self, unit: &AccessUnit) {
        self.0.push.with(|push, now| push.video(now, unit));
    }

    /// Sends a frame of sound.
    pub fn audio(&self, audio: &Audio) {
        self.0.push.with(|push, now| push.audio(now, audio));
    }

    /// The next event; `None` after the last one.
    pub async fn next(&self) -> Option<Event> {
        self.0.news.next().await
    }

    /// Asks the machine.
    pub fn look<T>(&self, look: impl FnOnce(&push::Push) -> T) -> T {
        self.0.push.with(|push, _| look(push))
    }

    /// Ends the output.
    pub fn stop(&self) {
        self.0.push.with(|push, now| push.stop(now));
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
        self.0.push.close();
    }
}

impl<R: Runtime> Shared<R> {
    fn output(self: &Arc<Self>, output: Output) {
        match output {
            Output::Connect(attempt) => {
                let line = Arc::<Line>::default();
                *lock(&self.line) = Some((attempt, Arc::clone(&line)));
                let runtime = self.push.driver().runtime();
                runtime.spawn(Arc::clone(self).connect(attempt, line));
            }
            Output::Write(attempt, data) => {
                if let Some(line) = self.line(attempt) {
                    // The machine bounds what waits.
                    line.push(data);
                }
            }
            Output::Close(attempt) => {
                if let Some(line) = self.line(attempt) {
                    line.close();
                }
            }
            Output::Event(event) => {
                self.log(&event);
                let over = matches!(event, Event::Over(_));
                // One that goes on for ever tells no more than somebody reads.
                if over || !self.news.is_full() {
                    self.news.push(event);
                }
                if over {
                    self.news.close();
                }
            }
            Output::Idle(_) => {}
        }
    }

    fn log(&self, event: &Event) {
        let server = self.server.authority();
        match event {
            Event::Publishing => info!(server, "the output goes there by RTMP"),
            Event::Lost(why, _) => warn!(server, why, "the output does not get there; tried again"),
            Event::Slow => warn!(server, "too slow for the output: pictures are dropped"),
            Event::Over(why) => info!(server, why, "the output goes there no more"),
            _ => {}
        }
    }

    fn line(&self, attempt: Attempt) -> Option<Arc<Line>> {
        let line = lock(&self.line);
        let (latest, line) = line.as_ref()?;
        (*latest == attempt).then(|| Arc::clone(line))
    }

    fn input(&self, input: Input) {
        self.push.with(|push, now| push.handle_input(now, input));
    }

    async fn connect(self: Arc<Self>, attempt: Attempt, line: Arc<Line>) {
        let ended = line.unless_closed(self.talk(attempt, &line)).await;
        let why = match ended {
            Some(Ok(())) => "the server closed the connection".to_owned(),
            Some(Err(error)) => error.to_string(),
            None => return,
        };
        self.input(Input::Closed(attempt, why));
    }

    async fn talk(&self, attempt: Attempt, line: &Line) -> io::Result<()> {
        let driver = self.push.driver();
        let stream = driver
            .connect(&self.server)
            .await
            .map_err(io::Error::other)?;
        self.input(Input::Connected(attempt));
        let heard = |heard| {
            self.input(match heard {
                Heard::Data(data) => Input::Data(attempt, data),
                Heard::Sent(count) => Input::Sent(attempt, count),
            });
        };
        line.run(driver.runtime(), stream, heard).await
    }
}
