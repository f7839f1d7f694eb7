//! The ends of connections, and what becomes of their streams.

use super::Server;
use crate::rtmp::connection::{Connection, LAST_WORDS, Phase};
use crate::rtmp::types::{ConnectionId, Ending, Event, HOLD, Output, Why};

/// How a connection ends.
pub(super) enum End {
    /// At once.
    Silently(Why),
    /// With this code.
    Refused(&'static str, Why),
    /// With a refusal that is written.
    Answered(Why),
}

impl Server {
    /// Closes a connection with a word for its peer, who is given a moment to read it.
    pub(super) fn close(
        &mut self,
        id: ConnectionId,
        connection: Connection,
        code: &str,
        text: &str,
        why: Why,
    ) {
        self.left(id, &connection);
        self.close_silently(id, connection, code, text, why);
    }

    /// Closes a connection with a word for its peer, but none for its stream.
    pub(super) fn close_silently(
        &mut self,
        id: ConnectionId,
        mut connection: Connection,
        code: &str,
        text: &str,
        why: Why,
    ) {
        let mut out = Vec::new();
        // A refusal that cannot be written is as good as none: the connection is closed anyway.
        let written = connection.dialogue.refuse(code, text, &mut out).is_ok();
        if written && !matches!(connection.phase, Phase::Closing) {
            self.write(id, out);
        }
        self.finish(id, connection, why);
    }

    /// Closes a connection once its peer has read the last words.
    pub(super) fn finish(&mut self, id: ConnectionId, mut connection: Connection, why: Why) {
        connection.phase = Phase::Closing;
        connection.deadline = Some(self.now + LAST_WORDS);
        self.connections.insert(id, connection);
        self.tell(Event::Closed(id, why));
    }

    /// Closes a connection at once.
    pub(super) fn drop_bad(&mut self, id: ConnectionId, connection: Connection, why: Why) {
        self.left(id, &connection);
        self.out.push_back(Output::Close(id));
        self.tell(Event::Closed(id, why));
    }

    /// The stream's publisher is gone: a stream that had begun waits for it, another one is forgotten.
    pub(super) fn left(&mut self, id: ConnectionId, connection: &Connection) {
        let Phase::Publishing(publishing) = &connection.phase else {
            return;
        };
        let name = &publishing.publication.name;
        let Some(stream) = self.streams.get_mut(name) else {
            return;
        };
        if stream.publisher != Some(id) {
            return;
        }
        if stream.begun {
            (stream.publisher, stream.hold) = (None, Some(self.now + HOLD));
            let stalled = Event::Stalled(stream.id);
            self.tell(stalled);
        } else {
            self.streams.remove(name);
        }
    }

    pub(super) fn end_stream(&mut self, connection: &Connection, ending: Ending) {
        if let Phase::Publishing(publishing) = &connection.phase
            && let Some(stream) = self.streams.remove(&publishing.publication.name)
            && stream.begun
        {
            self.tell(Event::Ended(stream.id, ending));
        }
    }
}
