//! A connection whose bytes come from and go to a machine.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBuf, Write};

use crate::{Runtime, lock};

/// At most this many bytes are read at once.
const PIECE: usize = 16 << 10;
/// At most this many pieces are read before other tasks have their turn.
const PIECES_A_TURN: usize = 16;

/// Our side of a connection: the bytes that are to be sent, until it is closed.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    ending: Option<Ending>,
    task: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Once all is sent.
    Finish,
    /// With all that is unsent.
    Now,
}

/// Things that happen at a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// Bytes came.
    Data(Bytes),
    /// The system took so many of ours.
    Sent(usize),
}

impl Line {
    /// Adds bytes to be sent. Returns how many wait then.
    pub(super) fn push(&self, data: Bytes) -> usize {
        self.change(|state| {
            if state.ending.is_none() {
                state.bytes += data.len();
                state.queue.push_back(data);
            }
            state.bytes
        })
    }

    /// Closes the connection once all is sent.
    pub(super) fn finish(&self) {
        self.change(|state| state.ending = state.ending.or(Some(Ending::Finish)));
    }

    /// Closes the connection with all that is unsent.
    pub(super) fn close(&self) {
        self.change(|state| state.ending = Some(Ending::Now));
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.0);
        let changed = change(&mut state);
        let task = state.task.take();
        drop(state);
        task.into_iter().for_each(Waker::wake);
        changed
    }

    /// Waits for `future`, but not longer than for [`Line::close`].
    pub(super) async fn unless_closed<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.watch(cx) == Some(Ending::Now) {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// How the connection is to end; the task is woken when that changes, or when there is more to send.
    fn watch(&self, cx: &Context<'_>) -> Option<Ending> {
        let mut state = lock(&self.0);
        state.task = Some(cx.waker().clone());
        state.ending
    }

    /// Sends until the system takes no more. Returns how much it took, and whether that was all there is.
    fn poll_send<S: Write + Unpin>(
        &self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> io::Result<(usize, bool)> {
        let mut state = lock(&self.0);
        let mut sent = 0;
        while let Some(piece) = state.queue.front_mut() {
            match Pin::new(&mut *stream).poll_write(cx, piece) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(taken)) => {
                    piece.advance(taken);
                    let is_done = piece.is_empty();
                    if is_done {
                        state.queue.pop_front();
                    }
                    state.bytes -= taken;
                    sent += taken;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok((sent, false)),
            }
        }
        drop(state);
        let flushed = Pin::new(stream).poll_flush(cx)?.is_ready();
        Ok((sent, flushed))
    }

    /// Runs the connection to its end: until the peer or [`Line::finish`] or [`Line::close`] ends it, or it breaks. One that is
    /// finished is read until the peer closes it too, for `linger` at most: the system throws away what is on its way where the
    /// peer still has its say (`what_a_stream_sent_last_arrives`).
    pub(super) async fn run<R: Runtime, S: Read + Write + Unpin>(
        &self,
        runtime: &R,
        mut stream: S,
        linger: Duration,
        heard: impl Fn(Heard),
    ) -> io::Result<()> {
        let mut scratch = vec![0; PIECE];
        let mut alarm: Option<Pin<Box<R::Sleep>>> = None;
        let mut is_shut = false;
        poll_fn(|cx| {
            for _ in 0..PIECES_A_TURN {
                let ending = self.watch(cx);
                if ending == Some(Ending::Now) {
                    return Poll::Ready(Ok(()));
                }
                let (sent, is_all) = match is_shut {
                    false => self.poll_send(&mut stream, cx)?,
                    true => (0, true),
                };
                if sent > 0 {
                    heard(Heard::Sent(sent));
                }
                if ending == Some(Ending::Finish) {
                    let until = || Box::pin(runtime.sleep_until(runtime.now() + linger));
                    if alarm.get_or_insert_with(until).as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    if is_all && !is_shut {
                        is_shut = Pin::new(&mut stream).poll_shutdown(cx)?.is_ready();
                    }
                }
                let mut buffer = ReadBuf::new(&mut scratch);
                match Pin::new(&mut stream).poll_read(cx, buffer.unfilled()) {
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Ok(())) if ending.is_none() => {
                        heard(Heard::Data(Bytes::copy_from_slice(buffer.filled())));
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes so many bytes and then no more.
    struct Taking(usize);

    impl Write for Taking {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = self.0.min(bytes.len());
            self.0 -= taken;
            match taken {
                0 => Poll::Pending,
                taken => Poll::Ready(Ok(taken)),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn bytes_are_counted_until_they_are_sent() {
        let line = Line::default();
        let mut cx = Context::from_waker(Waker::noop());
        let piece = || Bytes::from(vec![7; 1_000]);
        assert_eq!([line.push(piece()), line.push(piece())], [1_000, 2_000]);
        let sent = line.poll_send(&mut Taking(1_500), &mut cx);
        assert_eq!(sent.expect("it works"), (1_500, false));
        assert_eq!(line.push(piece()), 1_500);
        line.finish();
        assert_eq!(line.push(piece()), 1_500, "nothing follows the end");
        let sent = line.poll_send(&mut Taking(usize::MAX), &mut cx);
        assert_eq!(sent.expect("it works"), (1_500, true));
    }
}
