//! A connection of a server: its stream, and for how long it may be idle.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use livepeer_core::Time;

use super::Limits;
use crate::lane::Lane;
use crate::lock;

/// How long a TLS handshake may take. These times are looked at every `LOOK_EVERY`, and kept as exactly as that.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closed connection listens to a peer that still sends what nobody wants, and how long one may take to end
/// all of whose exchanges were given up.
const LINGER: Duration = Duration::from_secs(1);
/// How often a server looks at these times.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many bytes a connection listens to that nobody wants; see [`Listening`].
const LINGER_BYTES: usize = 1 << 20;
/// The first bytes that an HTTP/2 client sends.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// News of a connection's stream and exchanges for the server that watches over it.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Whether the connection's TLS handshake goes on.
    pub(super) shakes_hands: AtomicBool,
    /// Whether the connection speaks HTTP/2.
    pub(super) http2: AtomicBool,
    /// Exchanges that run.
    running: AtomicUsize,
    /// How often one began or ended.
    turns: AtomicUsize,
    /// Something was read since the last look.
    heard: AtomicBool,
    /// The peer takes no more of what is written to it.
    blocked: AtomicBool,
    /// How often it took something.
    taken: AtomicUsize,
    /// A request was answered before all of it was read.
    unread: AtomicBool,
    /// The connection is closed but for what the peer still sends.
    lingers: AtomicBool,
    /// The exchanges that run.
    lanes: Mutex<Vec<Arc<Lane>>>,
}

impl Pulse {
    /// Notes that part of what the peer sends will not be read.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether exchanges run, and the machine has given up all of them: a peer that takes nothing keeps hyper from
    /// seeing that.
    fn is_given_up(&self) -> bool {
        let lanes = lock(&self.lanes);
        !lanes.is_empty() && lanes.iter().all(|lane| lane.is_aborted())
    }
}

/// How long a connection has been idle, looked at from time to time.
#[derive(Debug)]
pub(super) struct Idle {
    quiet_since: Time,
    head_since: Option<Time>,
    lingers_since: Option<Time>,
    given_up_since: Option<Time>,
    /// Since when the peer has taken nothing, and how often it had before.
    blocked_since: Option<(Time, usize)>,
    turns: usize,
    limits: Limits,
}

impl Idle {
    pub(super) const fn new(now: Time, limits: Limits) -> Self {
        Self {
            quiet_since: now,
            head_since: None,
            lingers_since: None,
            given_up_since: None,
            blocked_since: None,
            turns: 0,
            limits,
        }
    }

    /// Whether it has been idle for too long.
    pub(super) fn is_over(&mut self, now: Time, pulse: &Pulse) -> bool {
        let since = |since: Time, limit| now.since(since) >= limit;
        if pulse.lingers.load(Ordering::Relaxed) {
            return since(*self.lingers_since.get_or_insert(now), LINGER);
        }
        if pulse.shakes_hands.load(Ordering::Relaxed) {
            return since(self.quiet_since, HANDSHAKE_TIMEOUT);
        }
        if pulse.is_given_up() {
            return since(*self.given_up_since.get_or_insert(now), LINGER);
        }
        self.given_up_since = None;
        if self.is_blocked(now, pulse) {
            return true;
        }
        let heard = pulse.heard.swap(false, Ordering::Relaxed);
        let runs = pulse.running.load(Ordering::Acquire) > 0;
        let turns = pulse.turns.load(Ordering::Relaxed);
        // What was heard since the last look is of an exchange that has run since, and no head that dribbles in.
        if runs || turns != self.turns {
            self.turns = turns;
            self.quiet_since = now;
            self.head_since = None;
            return false;
        }
        // HTTP/2 connections have something to say between requests.
        if heard && !pulse.http2.load(Ordering::Relaxed) {
            self.head_since.get_or_insert(now);
        }
        let idle = if turns == 0 && self.head_since.is_none() {
            self.limits.first_within
        } else {
            self.limits.idle
        };
        self.head_since
            .is_some_and(|head| since(head, self.limits.head_within))
            || since(self.quiet_since, idle)
    }

    /// Whether the peer has taken nothing for too long of what is written to it.
    fn is_blocked(&mut self, now: Time, pulse: &Pulse) -> bool {
        let Some(stall) = self.limits.write_stall else {
            return false;
        };
        let taken = pulse.taken.load(Ordering::Relaxed);
        if !pulse.blocked.load(Ordering::Relaxed) {
            self.blocked_since = None;
            return false;
        }
        let (since, before) = *self.blocked_since.get_or_insert((now, taken));
        if before != taken {
            self.blocked_since = Some((now, taken));
            return false;
        }
        now.since(since) >= stall
    }
}

/// A server's stream. When it is shut down with part of a request unread, it listens on for a while: closing at
/// once would reset the connection, and the reset could overtake the answer (trickle spec 6.2-5).
#[derive(Debug)]
pub(super) struct Listening<S> {
    stream: S,
    pulse: Arc<Pulse>,
    unwanted: usize,
}

impl<S> Listening<S> {
    pub(super) const fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self {
            stream,
            pulse,
            unwanted: 0,
        }
    }

    /// Notes whether the peer takes what is written to it.
    fn note<T>(&self, written: &Poll<T>) {
        self.pulse
            .blocked
            .store(written.is_pending(), Ordering::Relaxed);
        if written.is_ready() {
            self.pulse.taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: Read + Unpin> Read for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.pulse.heard.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: Read + Write + Unpin> Write for Listening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.pulse.lingers.load(Ordering::Relaxed) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.pulse.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.pulse.lingers.store(true, Ordering::Relaxed);
        }
        let mut unwanted = [0; 8 << 10];
        while self.unwanted < LINGER_BYTES {
            let mut buf = ReadBuf::new(&mut unwanted);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, buf.unfilled())) {
                Ok(()) if !buf.filled().is_empty() => self.unwanted += buf.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a client speaks HTTP/2, and the bytes that told.
pub(super) async fn sniff<S: Read + Unpin>(stream: &mut S) -> io::Result<(bool, Bytes)> {
    let mut bytes = [0; PREFACE.len()];
    let mut have = 0;
    while have < PREFACE.len() {
        let read = std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut bytes[have..]);
            ready!(Pin::new(&mut *stream).poll_read(cx, buf.unfilled()))?;
            Poll::Ready(io::Result::Ok(buf.filled().len()))
        });
        have += match read.await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => n,
        };
        if bytes[..have] != PREFACE[..have] {
            return Ok((false, Bytes::copy_from_slice(&bytes[..have])));
        }
    }
    Ok((true, Bytes::copy_from_slice(&bytes)))
}

/// Counts an exchange of a connection while it lives.
pub(super) struct Running {
    pulse: Arc<Pulse>,
    lane: Option<Arc<Lane>>,
}

impl Running {
    pub(super) fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.running.fetch_add(1, Ordering::Relaxed);
        pulse.turns.fetch_add(1, Ordering::Relaxed);
        Self {
            pulse: Arc::clone(pulse),
            lane: None,
        }
    }

    /// Notes that part of the request will not be read.
    pub(super) fn leave_unread(&self) {
        self.pulse.leave_unread();
    }

    /// Has the server see when the machine gives the exchange up.
    pub(super) fn watch(&mut self, lane: &Arc<Lane>) {
        lock(&self.pulse.lanes).push(Arc::clone(lane));
        self.lane = Some(Arc::clone(lane));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(lane) = &self.lane {
            lock(&self.pulse.lanes).retain(|one| !Arc::ptr_eq(one, lane));
        }
        // In this order: who sees that nothing runs sees that something has ended.
        self.pulse.turns.fetch_add(1, Ordering::Relaxed);
        self.pulse.running.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_secs(1000 + secs)
    }

    #[test]
    fn a_silent_connection_may_wait_for_its_first_request() {
        let pulse = Pulse::default();
        let mut idle = Idle::new(at(0), Limits::default());
        assert!(!idle.is_over(at(599), &pulse));
        assert!(idle.is_over(at(600), &pulse));
    }

    #[test]
    fn a_handshake_may_not_take_long_whatever_is_heard() {
        let pulse = Pulse::default();
        pulse.shakes_hands.store(true, Ordering::Relaxed);
        let mut idle = Idle::new(at(0), Limits::default());
        assert!(!idle.is_over(at(9), &pulse));
        assert!(idle.is_over(at(10), &pulse));
        pulse.shakes_hands.store(false, Ordering::Relaxed);
        assert!(!idle.is_over(at(10), &pulse), "it is done in time");
    }

    #[test]
    fn the_head_of_a_request_may_not_dribble_in() {
        let pulse = Pulse::default();
        let mut idle = Idle::new(at(0), Limits::default());
        for second in 1..16 {
            pulse.heard.store(true, Ordering::Relaxed);
            assert!(!idle.is_over(at(second), &pulse), "{second}");
        }
        pulse.heard.store(true, Ordering::Relaxed);
        assert!(
            idle.is_over(at(16), &pulse),
            "15 s after the first look that heard it"
        );
        // HTTP/2 is never quite silent.
        pulse.http2.store(true, Ordering::Relaxed);
        let mut idle = Idle::new(at(0), Limits::default());
        for second in 1..600 {
            pulse.heard.store(true, Ordering::Relaxed);
            assert!(!idle.is_over(at(second), &pulse));
        }
    }

    #[test]
    fn a_request_that_ends_between_two_looks_is_no_head_that_dribbles_in() {
        let pulse = Arc::<Pulse>::default();
        let mut idle = Idle::new(at(0), Limits::default());
        let running = Running::new(&pulse);
        assert!(!idle.is_over(at(1), &pulse));
        pulse.heard.store(true, Ordering::Relaxed);
        drop(running);
        assert!(!idle.is_over(at(2), &pulse));
        assert!(!idle.is_over(at(601), &pulse));
        assert!(idle.is_over(at(602), &pulse));
        // The next head may dribble in no longer than others.
        pulse.heard.store(true, Ordering::Relaxed);
        let mut idle = Idle::new(at(0), Limits::default());
        drop(Running::new(&pulse));
        assert!(!idle.is_over(at(1), &pulse));
        pulse.heard.store(true, Ordering::Relaxed);
        assert!(!idle.is_over(at(2), &pulse));
        assert!(idle.is_over(at(17), &pulse));
    }

    #[test]
    fn a_running_exchange_keeps_its_connection() {
        let pulse = Arc::<Pulse>::default();
        let mut idle = Idle::new(at(0), Limits::default());
        let running = Running::new(&pulse);
        for second in 0..10_000 {
            pulse.heard.store(true, Ordering::Relaxed);
            assert!(!idle.is_over(at(second), &pulse));
        }
        drop(running);
        assert!(!idle.is_over(at(10_000), &pulse));
        assert!(!idle.is_over(at(10_590), &pulse));
        assert!(idle.is_over(at(10_600), &pulse));
    }

    #[test]
    fn a_connection_whose_exchanges_were_all_given_up_ends() {
        let pulse = Arc::<Pulse>::default();
        let mut idle = Idle::new(at(0), Limits::default());
        let mut running = [Running::new(&pulse), Running::new(&pulse)];
        let lanes = [(); 2].map(|()| Arc::<Lane>::default());
        for (running, lane) in running.iter_mut().zip(&lanes) {
            running.watch(lane);
        }
        lanes[0].abort();
        assert!(!idle.is_over(at(100), &pulse), "another one goes on");
        lanes[1].abort();
        assert!(!idle.is_over(at(101), &pulse), "it may end by itself");
        assert!(idle.is_over(at(102), &pulse));
        drop(running);
        assert!(!idle.is_over(at(103), &pulse), "they have ended");
    }

    #[test]
    fn a_closed_connection_listens_for_a_second() {
        let pulse = Arc::<Pulse>::default();
        let mut idle = Idle::new(at(0), Limits::default());
        let _running = Running::new(&pulse);
        pulse.lingers.store(true, Ordering::Relaxed);
        assert!(!idle.is_over(at(7), &pulse));
        assert!(idle.is_over(at(8), &pulse));
    }

    #[test]
    fn a_new_connection_of_a_front_door_has_to_speak_soon() {
        let pulse = Arc::<Pulse>::default();
        let mut idle = Idle::new(at(0), Limits::front_door());
        assert!(!idle.is_over(at(9), &pulse));
        assert!(idle.is_over(at(10), &pulse));
        drop(Running::new(&pulse));
        assert!(!idle.is_over(at(11), &pulse), "it has had a request");
        assert!(!idle.is_over(at(600), &pulse));
        assert!(idle.is_over(at(611), &pulse));
    }

    #[test]
    fn a_peer_that_takes_nothing_is_let_go_and_a_slow_one_is_not() {
        let pulse = Arc::<Pulse>::default();
        let _running = Running::new(&pulse);
        pulse.blocked.store(true, Ordering::Relaxed);
        let mut patient = Idle::new(at(0), Limits::default());
        let mut idle = Idle::new(at(0), Limits::front_door());
        for second in 0..100 {
            pulse
                .taken
                .fetch_add(second as usize % 2, Ordering::Relaxed);
            assert!(!idle.is_over(at(second), &pulse), "it takes a little");
        }
        assert!(!idle.is_over(at(158), &pulse));
        assert!(idle.is_over(at(159), &pulse));
        assert!(!patient.is_over(at(10_000), &pulse));
    }
}
