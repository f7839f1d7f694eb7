//! A machine that keeps a connection to an RTMP server up, over TCP or TLS.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use livepeer_core::http::Url;
use livepeer_ingest::rtmp::dial::{Attempt, Dial, Input, Output};

use super::link::{Heard, Line};
use super::news::News;
use crate::engine::Drivable;
use crate::{Driver, Handle, Runtime, lock};

/// How long a server may take to read what is left, and to close.
const FAREWELL: Duration = Duration::from_secs(10);

/// The machine, and the connection of its latest attempt.
pub(super) struct Dialled<M: Dial + Drivable, R: Runtime> {
    pub(super) machine: Handle<M, R>,
    /// The target as far as connecting is concerned.
    server: Url,
    line: Mutex<Option<(Attempt, Arc<Line>)>>,
    /// Closed once nothing is left to be sent.
    left: Arc<News<()>>,
    tell: Box<dyn Fn(M::News) + Send + Sync>,
}

impl<M: Dial + Drivable, R: Runtime> Dialled<M, R> {
    /// Drives a machine, whose news `tell` takes in place.
    pub(super) fn new(
        driver: &Driver<R>,
        machine: M,
        tell: impl Fn(M::News) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let dialled = Arc::new(Self {
            server: machine.target().server.clone(),
            machine: driver.drive(machine),
            line: Mutex::default(),
            left: Arc::default(),
            tell: Box::new(tell),
        });
        let weak = Arc::downgrade(&dialled);
        dialled.machine.take_in_place(move |output| {
            if let Some(dialled) = weak.upgrade() {
                dialled.output(output);
            }
        });
        dialled
    }

    /// The server's host and port.
    pub(super) fn server(&self) -> String {
        self.server.authority()
    }

    /// News that end when its last connection is closed, once somebody has ended it and let go of it.
    pub(super) fn left(&self) -> Arc<News<()>> {
        Arc::clone(&self.left)
    }

    /// Ends it for good. What is to be sent yet keeps it until that is done.
    pub(super) fn stop(&self) {
        self.machine.with(|machine, now| machine.stop(now));
    }

    fn output(self: &Arc<Self>, output: Output<M::News>) {
        match output {
            Output::Connect(attempt) => {
                let line = Arc::<Line>::default();
                *lock(&self.line) = Some((attempt, Arc::clone(&line)));
                let runtime = self.machine.driver().runtime();
                runtime.spawn(Arc::clone(self).connect(attempt, line));
            }
            Output::Write(attempt, data) => {
                if let Some(line) = self.line(attempt) {
                    // The machine bounds what waits.
                    line.push(data);
                }
            }
            Output::Finish(attempt) => {
                if let Some(line) = self.line(attempt) {
                    line.finish();
                }
            }
            Output::Close(attempt) => {
                if let Some(line) = self.line(attempt) {
                    line.close();
                }
            }
            Output::Event(news) => (self.tell)(news),
            Output::Idle(_) => {}
        }
    }

    fn line(&self, attempt: Attempt) -> Option<Arc<Line>> {
        let line = lock(&self.line);
        let (latest, line) = line.as_ref()?;
        (*latest == attempt).then(|| Arc::clone(line))
    }

    fn input(&self, input: Input) {
        self.machine.with(|machine, now| machine.hear(now, input));
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
        let driver = self.machine.driver();
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
        line.run(driver.runtime(), stream, FAREWELL, heard).await
    }
}

impl<M: Dial + Drivable, R: Runtime> Drop for Dialled<M, R> {
    fn drop(&mut self) {
        self.left.close();
    }
}
