//! The body of a request while it comes in: held once, bounded, and never waited for without end.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::types::{BODY_GAP, BODY_WITHIN};
use crate::time::Time;
use crate::wire::refused::{Code, Refused};

/// Bytes that have to be there before room is made for as many as the caller announced.
const TRUSTED_FROM: usize = 64 << 10;

/// A body that comes in.
#[derive(Debug)]
pub(super) struct Incoming {
    pieces: Pieces,
    limit: usize,
    announced: usize,
    heard: Time,
    until: Time,
}

#[derive(Debug)]
enum Pieces {
    /// At most one piece, as it came: small bodies are not copied.
    One(Bytes),
    Joined(Vec<u8>),
}

impl Incoming {
    /// A body of at most `limit` bytes.
    ///
    /// # Errors
    /// If the caller announces more.
    pub(super) fn new(now: Time, limit: usize, announced: Option<u64>) -> Result<Self, Refused> {
        let announced = usize::try_from(announced.unwrap_or(0)).unwrap_or(usize::MAX);
        if announced > limit {
            return Err(Refused::too_large(limit));
        }
        Ok(Self {
            pieces: Pieces::One(Bytes::new()),
            limit,
            announced,
            heard: now,
            until: now + BODY_WITHIN,
        })
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// If the body is too large with them.
    pub(super) fn take(&mut self, now: Time, data: Bytes) -> Result<(), Refused> {
        let have = self.len();
        if have + data.len() > self.limit {
            return Err(Refused::too_large(self.limit));
        }
        self.heard = now;
        if let Pieces::One(first) = &mut self.pieces {
            if first.is_empty() {
                *first = data;
                return Ok(());
            }
            self.pieces = Pieces::Joined(first.to_vec());
        }
        if let Pieces::Joined(joined) = &mut self.pieces {
            let all = have + data.len();
            if joined.capacity() < all {
                let expected = if all < TRUSTED_FROM {
                    all
                } else {
                    self.announced
                };
                // An unannounced body grows by a quarter at a time: copied a few times, and never held twice over.
                let room = expected.max(all + all / 4).min(self.limit.max(all));
                joined.reserve_exact(room - have);
            }
            joined.extend_from_slice(&data);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        match &self.pieces {
            Pieces::One(bytes) => bytes.len(),
            Pieces::Joined(bytes) => bytes.len(),
        }
    }

    /// All of it.
    pub(super) fn whole(self) -> Bytes {
        match self.pieces {
            Pieces::One(bytes) => bytes,
            Pieces::Joined(bytes) => bytes.into(),
        }
    }

    /// When it will have taken too long.
    pub(super) fn next(&self) -> Time {
        self.until.min(self.heard + BODY_GAP)
    }

    /// The error if it has taken too long.
    pub(super) fn late(&self, now: Time) -> Option<Refused> {
        let text = if now >= self.until {
            format!(
                "The request body took longer than {} s.",
                BODY_WITHIN.as_secs()
            )
        } else if now >= self.heard + BODY_GAP {
            format!("The request body stopped for {} s.", BODY_GAP.as_secs())
        } else {
            return None;
        };
        Some(Refused::new(Code::RequestTimeout, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(body: &Incoming) -> usize {
        match &body.pieces {
            Pieces::One(bytes) => bytes.len(),
            Pieces::Joined(bytes) => bytes.capacity(),
        }
    }

    #[test]
    fn a_body_is_held_once_and_an_announced_one_exactly() {
        let mut body =
            Incoming::new(Time::ZERO, 10 << 20, Some(5 << 20)).expect("it is not too large");
        let piece = Bytes::from(alloc::vec![7; 64 << 10]);
        let first = piece.as_ptr();
        body.take(Time::ZERO, piece.clone()).expect("room");
        for _ in 1..80 {
            body.take(Time::ZERO, piece.clone()).expect("room");
        }
        assert_eq!(capacity(&body), 5 << 20);
        assert_eq!(body.whole().len(), 5 << 20);

        let mut small = Incoming::new(Time::ZERO, 10, None).expect("it is not too large");
        small.take(Time::ZERO, piece.slice(..10)).expect("room");
        assert_eq!(small.whole().as_ptr(), first, "not copied");
    }

    #[test]
    fn too_much_is_refused_as_soon_as_it_is_announced_or_there() {
        let text = "The request body is larger than 10 bytes.";
        let refused = Incoming::new(Time::ZERO, 10, Some(11)).expect_err("too much");
        assert_eq!((refused.status(), &*refused.message), (413, text));
        let mut body = Incoming::new(Time::ZERO, 10, None).expect("not announced");
        body.take(Time::ZERO, Bytes::from_static(b"0123456789"))
            .expect("as many as may be");
        let refused = body
            .take(Time::ZERO, Bytes::from_static(b"x"))
            .expect_err("one more");
        assert_eq!(refused.message, text);
    }

    #[test]
    fn a_body_may_stop_for_half_a_minute_and_take_five() {
        let mut body = Incoming::new(Time::ZERO, 10 << 20, None).expect("not announced");
        for second in (0..300).step_by(29) {
            let now = Time::from_secs(second);
            assert_eq!(body.late(now), None);
            body.take(now, Bytes::from_static(b"x")).expect("room");
        }
        let gap = body
            .late(Time::from_secs(299))
            .map(|refused| refused.message);
        assert_eq!(gap, None, "it goes on");
        let late = body.late(Time::from_secs(300)).expect("too long");
        assert_eq!(late.message, "The request body took longer than 300 s.");
        let stopped = Incoming::new(Time::ZERO, 1, None).expect("not announced");
        assert_eq!(stopped.next(), Time::from_secs(30));
        let late = stopped.late(Time::from_secs(30)).expect("too long");
        assert_eq!(late.message, "The request body stopped for 30 s.");
    }
}
