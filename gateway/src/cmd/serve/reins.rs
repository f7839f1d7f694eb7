//! The pace of an answer, as the client takes it.

use async_channel::Receiver;
use futures_lite::future;

use super::sessions::Pace;

/// The pace at which the task of a request hands on its answer.
pub(super) struct Reins {
    steered: Receiver<Pace>,
    goes: bool,
}

/// A turn of handing on an answer.
pub(super) enum Turn<T> {
    /// A part of the answer came.
    Came(T),
    /// The pace may be another: what was waited for is to be waited for anew.
    Again,
    /// Nobody waits any more.
    Gone,
}

impl Reins {
    pub(super) const fn new(steered: Receiver<Pace>) -> Self {
        let goes = true;
        Self { steered, goes }
    }

    /// Waits for the next part of an answer if the client has room, and for a word about the pace. A part that is still
    /// waited for then is dropped.
    pub(super) async fn turn<T>(&mut self, part: impl Future<Output = T>) -> Turn<T> {
        let part = async {
            match self.goes {
                true => Turn::Came(part.await),
                false => future::pending().await,
            }
        };
        let word = async {
            match self.steered.recv().await {
                Ok(word) => Err(word),
                Err(_) => Ok(Turn::Gone),
            }
        };
        match future::or(word, async { Ok(part.await) }).await {
            Ok(turn) => turn,
            Err(word) => {
                match word {
                    Pace::Go => self.goes = true,
                    Pace::Stop => self.goes = false,
                    // Of a client beyond HTTP, which these answers have none of.
                    Pace::Said(_) | Pace::SaidAll => {}
                }
                Turn::Again
            }
        }
    }
}
