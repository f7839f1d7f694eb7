//! Channels whose segments go out again of another: the work of programs that are built in and hold a live session.

use livepeer_core::Time;
use livepeer_core::trickle::Start;
use livepeer_core::trickle::server::{Read, ReaderId};
use serde_json::json;

use super::Orchestrator;

/// The fate of the segments that a reader gets.
pub(super) struct Copying {
    /// The channel into which they go, if any.
    to: Option<String>,
    /// The channel that tells how long each was, if any.
    tells: Option<String>,
    bytes: usize,
}

impl Orchestrator {
    /// Sends what comes into a channel out of another from now on, and tells of it in a third. `None` if there is no such
    /// channel.
    pub(super) fn begin_copy(
        &mut self,
        now: Time,
        from: &str,
        to: Option<String>,
        tells: Option<String>,
    ) -> Option<ReaderId> {
        let reader = self.server.subscribe(now, from, Start::Current).ok()?;
        let bytes = 0;
        self.copies.insert(reader, Copying { to, tells, bytes });
        self.copy(now, reader);
        Some(reader)
    }

    pub(super) fn end_copy(&mut self, reader: ReaderId) {
        self.copies.remove(&reader);
        self.server.unsubscribe(reader);
    }

    /// Sends out what has come in.
    pub(super) fn copy(&mut self, now: Time, reader: ReaderId) {
        let Some(copying) = self.copies.get_mut(&reader) else {
            return;
        };
        let server = &mut self.server;
        loop {
            let to = copying.to.as_deref();
            // Errors: somebody deleted the channel, and wants nothing.
            match server.read(now, reader) {
                Read::Begin(..) => {
                    copying.bytes = 0;
                    let _ = to.map(|to| server.begin(now, to));
                }
                Read::Data(_, bytes) => {
                    copying.bytes += bytes.len();
                    let _ = to.map(|to| server.write(now, to, bytes));
                }
                Read::End(seq) => {
                    let _ = to.map(|to| server.end(now, to));
                    if let Some(tells) = &copying.tells {
                        let told = json!({ "segment": seq.get(), "bytes": copying.bytes });
                        let _ = server.publish(now, tells, format!("{told}\n").into());
                    }
                }
                Read::Gap(_) | Read::Discontinuity => {}
                Read::Ended => {
                    if let Some(to) = to {
                        server.delete_channel(now, to);
                    }
                    self.copies.remove(&reader);
                    return;
                }
                _ => return,
            }
        }
    }
}
