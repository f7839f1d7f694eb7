//! The port of WHIP and WHEP on a UDP socket.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use livepeer_core::http::{Body, Method, Response};
use livepeer_core::{EffectId, Time};
use livepeer_ingest::bridge::Source;
use livepeer_ingest::port::{
    Certificate, Clock, Config, Datagram, Denied, Event, Frame, MAX_DATAGRAM, Output, Port,
    SessionId,
};
use livepeer_media::timeline::Clocks;
use tracing::{debug, warn};

use super::news::News;
use super::taker::{Sent, Taker};
use crate::signal::enlist;
use crate::{Driver, Handle, Runtime, lock, seed};

pub use livepeer_ingest::port::Call;

/// At most this many datagrams are read before other tasks have their turn.
const BATCH: usize = 32;
/// At most this many bytes wait for room in the system's buffer; what is sent beyond them is lost, as on any network.
const MAX_UNSENT: usize = 4 << 20;
/// How long receiving rests after an error that is not about a single datagram.
const PAUSE: Duration = Duration::from_millis(100);

/// The UDP port of all sessions of WHIP and WHEP. Clones are one port; dropping the last one closes it.
///
/// Requests come in by [`Webrtc::call`]. Whether a sender is let in is for the owner to say, who hears of it by
/// [`Webrtc::next`] and gives its [`Taker`] to [`Webrtc::admit`]. Everything else that [`Port`] can do is done with
/// [`Webrtc::with`].
pub struct Webrtc<R: Runtime>(Arc<Owner<R>>);

struct Owner<R: Runtime>(Arc<Shared<R>>);

/// A port as those know it whom it feeds: they do not keep it open.
pub(super) struct WeakWebrtc<R: Runtime>(Weak<Owner<R>>);

impl<R: Runtime> WeakWebrtc<R> {
    /// Does as [`Webrtc::with`] does, unless the port is closed.
    pub(super) fn with(&self, f: impl FnOnce(&mut Port, Time)) {
        if let Some(owner) = self.0.upgrade() {
            owner.0.port.with(f);
        }
    }
}

impl<R: Runtime> Clone for WeakWebrtc<R> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

struct Shared<R: Runtime> {
    port: Handle<Port, R>,
    socket: R::Udp,
    at: SocketAddr,
    news: News<Event>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: u64,
    waiting: BTreeMap<EffectId, Waiting>,
    takers: BTreeMap<SessionId, Arc<dyn Taker>>,
    /// Datagrams for which the system had no room.
    unsent: VecDeque<Datagram>,
    unsent_bytes: usize,
    /// Datagrams that the system did not take.
    lost: u64,
    /// The task that reads the socket.
    task: Option<Waker>,
    /// Callers that wait until it has read all that is there.
    behind: Vec<Waker>,
    /// How often it had.
    caught_up: u64,
    closed: bool,
}

/// A request that was not answered yet.
#[derive(Default)]
struct Waiting {
    response: Option<Response>,
    task: Option<Waker>,
}

/// The reason why the task at the socket looks up.
enum Turn {
    Closed,
    Failed(io::Error),
}

/// The addresses at which peers reach a socket that is bound to `at`: that one, or for an unspecified one those that
/// this machine reaches others from, and loopback. Addresses behind which the machine is hidden are for its operator to
/// add.
#[must_use]
pub fn addresses(at: SocketAddr) -> Vec<SocketAddr> {
    /// An address of documentation (RFC 5737 and 3849): routes to it are those to the world, and nothing is sent.
    const WORLD: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    const LOOPBACK: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    if !at.ip().is_unspecified() {
        return vec![at];
    }
    let route = |world: &IpAddr| {
        let any: IpAddr = match world {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((*world, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let routes = WORLD.iter().filter_map(route);
    let mut found = Vec::new();
    for ip in routes.chain(LOOPBACK) {
        let address = SocketAddr::new(ip, at.port());
        if (ip.is_ipv4() || at.is_ipv6()) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

impl<R: Runtime> Webrtc<R> {
    /// Opens a port on a socket, which [`bind_udp`](crate::rt::bind_udp) makes. If the settings have no addresses, they
    /// are those of [`addresses`].
    ///
    /// # Errors
    /// If the system does not tell the socket's address, or the runtime cannot watch it.
    pub fn open(driver: &Driver<R>, socket: UdpSocket, mut config: Config) -> io::Result<Self> {
        let at = socket.local_addr()?;
        if config.addresses.is_empty() {
            config.addresses = addresses(at);
        }
        let now = driver.now();
        let clock = Clock::new(Instant::now(), now);
        let port = Port::new(now, config, Certificate::generate(), clock, seed());
        let shared = Arc::new(Shared {
            port: driver.drive(port),
            socket: driver.runtime().take_udp(socket)?,
            at,
            news: News::default(),
            state: Mutex::default(),
        });
        let weak = Arc::downgrade(&shared);
        shared.port.take_in_place(move |output| {
            if let Some(shared) = weak.upgrade() {
                shared.output(output);
            }
        });
        driver.runtime().spawn(Arc::clone(&shared).run());
        Ok(Self(Arc::new(Owner(shared))))
    }

    fn shared(&self) -> &Arc<Shared<R>> {
        &self.0.0
    }

    pub(super) fn downgrade(&self) -> WeakWebrtc<R> {
        WeakWebrtc(Arc::downgrade(&self.0))
    }

    /// The address that the socket is bound to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().at
    }

    /// Makes a request, and waits for its answer: that to an offer of a sender follows when the owner has said whether it
    /// is let in. [`Call::exchange`] is filled in here. Dropping the future says that the caller is gone.
    pub async fn call(&self, mut call: Call) -> Response {
        let shared = self.shared();
        if shared.news.is_full() {
            return unavailable("too much waits to be decided");
        }
        // The last pictures were sent before the goodbye, by another way.
        if call.request.method == Method::Delete {
            shared.catch_up().await;
        }
        call.exchange = {
            let mut state = lock(&shared.state);
            state.calls += 1;
            let id = EffectId::by_peer(state.calls);
            state.waiting.insert(id, Waiting::default());
            id
        };
        let asking = Asking {
            shared,
            id: call.exchange,
        };
        shared.port.with(|port, now| port.call(now, &call));
        poll_fn(|cx| asking.poll(cx)).await
    }

    /// The next event; `None` once the port is closed. Frames are not among them: they go to their [`Taker`].
    pub async fn next(&self) -> Option<Event> {
        self.shared().news.next().await
    }

    /// Lets a sender in whose stream goes to `taker`: see [`Port::admit`]. Whether it still waited.
    pub fn admit(&self, session: SessionId, playback: Option<&str>, taker: Arc<dyn Taker>) -> bool {
        lock(&self.shared().state).takers.insert(session, taker);
        let admitted = self.with(|port, now| port.admit(now, session, playback));
        if !admitted {
            lock(&self.shared().state).takers.remove(&session);
        }
        admitted
    }

    /// Keeps a sender out: see [`Port::deny`].
    pub fn deny(&self, session: SessionId, denied: &Denied) {
        self.with(|port, now| port.deny(now, session, denied));
    }

    /// Runs any other command of the port, or asks it something, and does what follows. Not [`Port::call`] or
    /// [`Port::admit`]: the answers would go nowhere. `f` should be brief and must not use the port.
    pub fn with<T>(&self, f: impl FnOnce(&mut Port, Time) -> T) -> T {
        self.shared().port.with(f)
    }

    /// Datagrams that could not be sent, for want of room or because the system did not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lock(&self.shared().state).lost
    }

    /// Says goodbye to all peers and closes the port.
    pub fn close(&self) {
        self.with(|port, now| port.kick_all(now, "the gateway ends"));
        self.shared().close();
    }
}

impl<R: Runtime> Clone for Webrtc<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Runtime> fmt::Debug for Webrtc<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webrtc")
            .field("at", &self.local_addr())
            .field("sessions", &self.with(|port, _| port.len()))
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
        let (task, waiting, takers) = {
            let mut state = lock(&self.state);
            state.closed = true;
            let waiting = state.waiting.values_mut();
            let mut waiting: Vec<_> = waiting.filter_map(|one| one.task.take()).collect();
            waiting.append(&mut state.behind);
            (
                state.task.take(),
                waiting,
                std::mem::take(&mut state.takers),
            )
        };
        self.port.close();
        self.news.close();
        task.into_iter().chain(waiting).for_each(Waker::wake);
        for taker in takers.into_values() {
            taker.take(Sent::Ended);
        }
    }

    /// Does what the port asks for.
    fn output(&self, output: Output) {
        match output {
            Output::Send(datagram) => self.send(datagram),
            Output::Reply(id, response) => {
                let task = {
                    let mut state = lock(&self.state);
                    let waiting = state.waiting.get_mut(&id);
                    waiting.and_then(|waiting| {
                        waiting.response = Some(response);
                        waiting.task.take()
                    })
                };
                task.into_iter().for_each(Waker::wake);
            }
            Output::Event(event) => self.event(event),
            Output::Idle(_) => {}
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Frame(session, frame) => self.hand(session, sent(frame)),
            Event::Opened(session, sound) => {
                let clocks = Clocks::Apart;
                self.hand(session, Sent::Source(Source { clocks, sound }));
                self.news.push(event);
            }
            Event::Ended(session, _) => {
                let taker = lock(&self.state).takers.remove(&session);
                if let Some(taker) = taker {
                    taker.take(Sent::Ended);
                }
                self.news.push(event);
            }
            // A sender may do this for ever.
            Event::Stalled(_) | Event::Resumed(_) if self.news.is_full() => {}
            event => self.news.push(event),
        }
    }

    /// Waits until everything was read that has come by now.
    async fn catch_up(&self) {
        let mut since = None;
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            let before = *since.get_or_insert(state.caught_up);
            // The first turn may have looked before the last datagram came.
            if state.closed || state.caught_up >= before + 2 {
                return Poll::Ready(());
            }
            enlist(&mut state.behind, cx);
            let task = state.task.take();
            drop(state);
            task.into_iter().for_each(Waker::wake);
            Poll::Pending
        })
        .await;
    }

    fn hand(&self, session: SessionId, sent: Sent) {
        let taker = lock(&self.state).takers.get(&session).cloned();
        if let Some(taker) = taker {
            taker.take(sent);
        }
    }

    fn send(&self, datagram: Datagram) {
        let mut state = lock(&self.state);
        if state.unsent.is_empty() {
            match self.try_send(&datagram) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return state.lose(&datagram, &error.to_string()),
            }
        }
        if state.unsent_bytes + datagram.data.len() > MAX_UNSENT {
            return state.lose(&datagram, "the system's buffer is full");
        }
        state.unsent_bytes += datagram.data.len();
        state.unsent.push_back(datagram);
        let task = state.task.take();
        drop(state);
        task.into_iter().for_each(Waker::wake);
    }

    fn try_send(&self, datagram: &Datagram) -> io::Result<()> {
        let to = match datagram.peer {
            // A socket of IPv6 that takes IPv4 too writes its addresses so.
            SocketAddr::V4(to) if self.at.is_ipv6() => {
                SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port())
            }
            to => to,
        };
        self.runtime().try_send(&self.socket, &datagram.data, to)
    }

    fn runtime(&self) -> &R {
        self.port.driver().runtime()
    }

    /// Reads the socket until the port is closed.
    async fn run(self: Arc<Self>) {
        let mut scratch = [0; MAX_DATAGRAM + 1];
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            match poll_fn(|cx| self.poll(cx, &mut scratch, &mut batch)).await {
                Turn::Closed => return,
                Turn::Failed(error) => {
                    warn!(%error, at = %self.at, "cannot receive datagrams");
                    let at = self.port.now() + PAUSE;
                    self.runtime().sleep_until(at).await;
                }
            }
        }
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        batch: &mut Vec<Datagram>,
    ) -> Poll<Turn> {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return Poll::Ready(Turn::Closed);
            }
            state.task = Some(cx.waker().clone());
        }
        self.poll_unsent(cx);
        let mut more = true;
        let mut failed = None;
        for _ in 0..BATCH {
            match self.runtime().poll_receive(&self.socket, cx, scratch) {
                Poll::Ready(Ok((length, from))) => batch.push(Datagram {
                    peer: SocketAddr::new(from.ip().to_canonical(), from.port()),
                    data: scratch[..length].to_vec(),
                }),
                Poll::Ready(Err(error)) if is_about_one(&error) => {
                    debug!(%error, "a datagram of ours did not arrive");
                }
                Poll::Ready(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                Poll::Pending => {
                    more = false;
                    break;
                }
            }
        }
        if !batch.is_empty() {
            self.port.with(|port, now| {
                for datagram in batch.drain(..) {
                    port.receive(now, &datagram);
                }
            });
        }
        if let Some(error) = failed {
            return Poll::Ready(Turn::Failed(error));
        }
        if more {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let behind = {
            let mut state = lock(&self.state);
            state.caught_up += 1;
            std::mem::take(&mut state.behind)
        };
        behind.into_iter().for_each(Waker::wake);
        Poll::Pending
    }

    /// Sends what waits for room.
    fn poll_unsent(&self, cx: &mut Context<'_>) {
        let mut state = lock(&self.state);
        while let Some(datagram) = state.unsent.pop_front() {
            match self.try_send(&datagram) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.unsent.push_front(datagram);
                    match self.runtime().poll_sendable(&self.socket, cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) | Poll::Pending => return,
                    }
                }
                sent => {
                    state.unsent_bytes -= datagram.data.len();
                    if let Err(error) = sent {
                        state.lose(&datagram, &error.to_string());
                    }
                }
            }
        }
    }
}

impl State {
    fn lose(&mut self, datagram: &Datagram, why: &str) {
        self.lost += 1;
        debug!(to = %datagram.peer, why, "a datagram was not sent");
    }
}

/// An error that tells of an earlier datagram of ours, and is over with that.
fn is_about_one(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | Interrupted
    )
}

fn sent(frame: Frame) -> Sent {
    match frame {
        Frame::Video(unit) => Sent::Video(unit),
        Frame::Audio(audio) => Sent::Audio(audio),
        Frame::Report(kind, stamp, micros) => Sent::Report(kind, stamp, micros),
        Frame::Lost => Sent::Lost,
    }
}

fn unavailable(why: &str) -> Response {
    Response::new(503)
        .header("content-type", "text/plain; charset=utf-8")
        .header("retry-after", "5")
        .body(Body::Full(format!("{why}\n").into()))
}

/// A request whose caller waits.
struct Asking<'a, R: Runtime> {
    shared: &'a Shared<R>,
    id: EffectId,
}

impl<R: Runtime> Asking<'_, R> {
    fn poll(&self, cx: &Context<'_>) -> Poll<Response> {
        let mut state = lock(&self.shared.state);
        let closed = state.closed;
        let Some(waiting) = state.waiting.get_mut(&self.id) else {
            return Poll::Pending;
        };
        match waiting.response.take() {
            Some(response) => Poll::Ready(response),
            None if closed => Poll::Ready(unavailable("the gateway ends")),
            None => {
                waiting.task = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<R: Runtime> Drop for Asking<'_, R> {
    fn drop(&mut self) {
        lock(&self.shared.state).waiting.remove(&self.id);
        // Of a request that was answered the port knows nothing any more.
        self.shared.port.with(|port, now| port.gone(now, self.id));
    }
}
