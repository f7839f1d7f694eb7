//! The answer of a machine to a peer that is played.

use livepeer_core::http::{Body, Out};

/// An answer, so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: Option<u16>,
    stream: bool,
    pub(super) over: bool,
    pub(super) body: Vec<u8>,
    /// The bytes of a streamed body that the peer has not taken yet.
    unsent: usize,
}

impl Answer {
    /// Takes a step of the machine, which has to fit what came before. Players know what an abort means to them.
    pub(super) fn take(&mut self, step: Out) {
        match step {
            Out::Reply(head) => {
                assert!(self.status.is_none(), "one answer for each request");
                self.status = Some(head.status);
                self.over = !matches!(head.body, Body::Stream);
                match head.body {
                    Body::Stream => self.stream = true,
                    Body::Full(bytes) => self.body = bytes.to_vec(),
                    Body::Pieces(pieces) => self.body = pieces.concat(),
                    Body::Empty => {}
                }
            }
            Out::Data(bytes) => {
                assert!(self.stream && !self.over, "bytes belong to a body");
                self.unsent += bytes.len();
                self.body.extend_from_slice(&bytes);
            }
            Out::End(_) => {
                assert!(self.stream && !self.over, "a body ends once");
                self.over = true;
            }
            Out::Abort | Out::Pause | Out::Resume | Out::Report => {}
            Out::Request(_) => panic!("a peer's exchange is not opened again"),
        }
    }

    /// The peer takes all but `less` bytes. Returns how many.
    pub(super) fn taken(&mut self, less: usize) -> usize {
        let taken = self.unsent.saturating_sub(less);
        self.unsent -= taken;
        taken
    }
}
