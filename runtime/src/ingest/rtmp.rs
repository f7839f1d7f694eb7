//! The listener of RTMP publishers on a TCP socket.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use livepeer_core::Time;
use livepeer_core::wire::entry::StreamName;
use livepeer_ingest::bridge::Source;
use livepeer_ingest::rtmp::{
    Config, ConnectionId, Event, Input, MAX_CONNECTIONS, Output, Server, StreamId,
};
use livepeer_media::timeline::Clocks;
use rustls::ServerConfig;
use tracing::{debug, warn};

use super::link::{Heard, Line};
use super::news::News;
use super::taker::{Sent, Taker};
use crate::http::io::{HyperIo, Io};
use crate::signal::{Signal, Stop};
use crate::{Driver, Handle, Runtime, lock};

/// At most this many bytes wait to be sent to a publisher, and as many times [`MAX_OPEN`] to all of them: answers are
/// short, and one who does not read them is left.
const MAX_UNSENT: usize = 64 << 10;
/// At most this many sockets are open, with those of connections that are being closed.
const MAX_OPEN: usize = 2 * MAX_CONNECTIONS;
/// How long a client may take to read our last words, and to close.
const LINGER: Duration = Duration::from_secs(1);
/// How long accepting rests when the system has no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener of RTMP publishers. Clones are one; dropping the last one closes it and all its connections.
///
/// Whether a stream may be published is for the owner to say, who hears of it by [`Rtmp::next`] and gives a [`Taker`] to
/// [`Rtmp::admit`].
pub struct Rtmp<R: Runtime>(Arc<Owner<R>>);

struct Owner<R: Runtime>(Arc<Shared<R>>);

struct Shared<R: Runtime> {
    server: Handle<Server, R>,
    at: SocketAddr,
    tls: Option<TlsAcceptor>,
    stop: Signal,
    news: News<Event>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accepted: u64,
    lines: BTreeMap<ConnectionId, Arc<Line>>,
    /// The connections that asked to publish, for what, and who takes it if they were let in.
    publishers: BTreeMap<ConnectionId, (StreamName, Option<Arc<dyn Taker>>)>,
    /// Streams that have begun.
    streams: BTreeMap<StreamId, Arc<dyn Taker>>,
}

impl<R: Runtime> Rtmp<R> {
    /// Takes publishers from a socket that listens, with TLS if `tls` says how.
    ///
    /// # Errors
    /// If the system does not tell the address of the socket.
    pub fn open(
        driver: &Driver<R>,
        listener: R::Listener,
        tls: Option<Arc<ServerConfig>>,
        config: Config,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            at: driver.runtime().local_addr(&listener)?,
            server: driver.drive(Server::new(driver.now(), config)),
            tls: tls.map(TlsAcceptor::from),
            stop: Signal::default(),
            news: News::default(),
            state: Mutex::default(),
        });
        let weak = Arc::downgrade(&shared);
        shared.server.take_in_place(move |output| {
            if let Some(shared) = weak.upgrade() {
                shared.output(output);
            }
        });
        driver.runtime().spawn(Arc::clone(&shared).accept(listener));
        Ok(Self(Arc::new(Owner(shared))))
    }

    fn shared(&self) -> &Arc<Shared<R>> {
        &self.0.0
    }

    /// The address that is listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().at
    }

    /// The next event; `None` once the listener is closed. Frames are not among them: they go to their [`Taker`].
    pub async fn next(&self) -> Option<Event> {
        self.shared().news.next().await
    }

    /// The connection may publish what it asked for, and the stream goes to `taker`; if it goes on with a stream that has
    /// begun, that one's taker stays. Ignored if it does not wait for this any more.
    pub fn admit(&self, connection: ConnectionId, taker: Arc<dyn Taker>) {
        if let Some((_, place)) = lock(&self.shared().state).publishers.get_mut(&connection) {
            *place = Some(taker);
        }
        self.with(|server, now| server.admit(now, connection));
    }

    /// The connection may not publish what it asked for. Ignored if it does not wait for this any more.
    pub fn refuse(&self, connection: ConnectionId, why: &str) {
        self.with(|server, now| server.refuse(now, connection, why));
    }

    /// Ends a stream, with a word for its publisher. Ignored if it is over.
    pub fn stop(&self, stream: StreamId, why: &str) {
        self.with(|server, now| server.stop(now, stream, why));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Server, Time) -> T) -> T {
        self.shared().server.with(f)
    }

    /// Closes the listener and all its connections.
    pub fn close(&self) {
        self.shared().close();
    }
}

impl<R: Runtime> Clone for Rtmp<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Runtime> fmt::Debug for Rtmp<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtmp")
            .field("at", &self.local_addr())
            .field("streams", &self.with(|server, _| server.streams()))
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Drop for Owner<R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<R: Runtime> Shared<R> {
    fn close(&self) {
        self.stop.raise(Stop::Now);
        self.server.close();
        self.news.close();
        let (lines, streams) = {
            let mut state = lock(&self.state);
            let lines: Vec<_> = state.lines.values().cloned().collect();
            (lines, std::mem::take(&mut state.streams))
        };
        lines.iter().for_each(|line| line.close());
        for taker in streams.into_values() {
            taker.take(Sent::Ended);
        }
    }

    fn input(&self, input: Input) {
        self.server
            .with(|server, now| server.handle_input(now, input));
    }

    async fn accept(self: Arc<Self>, listener: R::Listener) {
        let runtime = self.server.driver().runtime().clone();
        loop {
            let next = runtime.accept(&listener);
            match self.stop.unless_stopped(pin!(next)).await {
                Some(Ok((stream, from))) => self.take(stream, from.ip().to_canonical()),
                // The peer was gone before we looked.
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Some(Err(error)) => {
                    warn!(%error, at = %self.at, "cannot accept a connection");
                    runtime.sleep_until(runtime.now() + ACCEPT_PAUSE).await;
                }
                None => return,
            }
        }
    }

    fn take(self: &Arc<Self>, stream: R::Stream, from: IpAddr) {
        let line = Arc::<Line>::default();
        let id = {
            let mut state = lock(&self.state);
            if state.lines.len() >= MAX_OPEN {
                return;
            }
            state.accepted += 1;
            let id = ConnectionId(state.accepted);
            state.lines.insert(id, Arc::clone(&line));
            id
        };
        // A listener that closed just now may have overlooked it.
        if self.stop.level() == Stop::Now {
            line.close();
        }
        self.input(Input::Opened(id, from));
        let shared = Arc::clone(self);
        let runtime = self.server.driver().runtime();
        runtime.spawn(async move {
            let ended = line.unless_closed(shared.talk(stream, &line, id)).await;
            if let Some(Err(error)) = ended {
                debug!(%error, %from, "a connection of RTMP broke");
            }
            lock(&shared.state).lines.remove(&id);
            shared.input(Input::Closed(id));
        });
    }

    async fn talk(&self, stream: R::Stream, line: &Line, id: ConnectionId) -> io::Result<()> {
        let runtime = self.server.driver().runtime();
        let stream = match &self.tls {
            None => Io::Plain(stream),
            Some(acceptor) => Io::tls(acceptor.accept(HyperIo(stream)).await?.into()),
        };
        let heard = |heard| {
            if let Heard::Data(data) = heard {
                self.input(Input::Data(id, data));
            }
        };
        line.run(runtime, stream, LINGER, heard).await
    }

    /// Does what the machine asks for.
    fn output(&self, output: Output) {
        match output {
            Output::Write(id, data) => {
                if let Some(line) = self.line(id)
                    && line.push(data) > MAX_UNSENT
                {
                    line.close();
                }
            }
            Output::Close(id) => {
                if let Some(line) = self.line(id) {
                    line.finish();
                }
            }
            Output::Event(event) => self.event(event),
            Output::Idle(_) => {}
        }
    }

    fn line(&self, id: ConnectionId) -> Option<Arc<Line>> {
        lock(&self.state).lines.get(&id).cloned()
    }

    fn event(&self, event: Event) {
        match &event {
            Event::Asks {
                connection,
                publication,
                ..
            } => {
                if self.news.is_full() {
                    let connection = *connection;
                    self.server
                        .with(|server, now| server.refuse(now, connection, "try again later"));
                    return;
                }
                let asks = (publication.name.clone(), None);
                lock(&self.state).publishers.insert(*connection, asks);
            }
            Event::Opened {
                stream,
                publication,
                ..
            } => {
                lock(&self.state).open(*stream, &publication.name);
                self.source(*stream);
            }
            Event::Resumed(stream, _) => self.source(*stream),
            Event::Ended(stream, _) => {
                let ended = lock(&self.state).streams.remove(stream);
                if let Some(taker) = ended {
                    taker.take(Sent::Ended);
                }
            }
            Event::Closed(connection, _) => {
                lock(&self.state).publishers.remove(connection);
            }
            _ => {}
        }
        match event {
            Event::Video(stream, unit) => self.hand(stream, Sent::Video(unit)),
            Event::Audio(stream, audio) => self.hand(stream, Sent::Audio(audio)),
            Event::Damaged(stream, _) => self.hand(stream, Sent::Lost),
            // Peers may do this for ever.
            Event::Closed(..) | Event::Stalled(_) | Event::Resumed(..) if self.news.is_full() => {}
            event => self.news.push(event),
        }
    }

    fn source(&self, stream: StreamId) {
        // Whether there is sound, it shows.
        let (clocks, sound) = (Clocks::Shared, true);
        self.hand(stream, Sent::Source(Source { clocks, sound }));
    }

    fn hand(&self, stream: StreamId, sent: Sent) {
        let taker = lock(&self.state).streams.get(&stream).map(Arc::clone);
        if let Some(taker) = taker {
            taker.take(sent);
        }
    }
}

impl State {
    /// A stream begins: its taker is that of the publisher who was let in last under the name.
    fn open(&mut self, stream: StreamId, name: &StreamName) {
        let mut of_name = self.publishers.values().rev().filter(|(of, _)| of == name);
        if let Some(taker) = of_name.find_map(|(_, taker)| taker.clone()) {
            self.streams.insert(stream, taker);
        }
    }
}
