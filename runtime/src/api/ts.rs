//! MPEG-TS as the input of a job.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_io::AsyncRead;
use livepeer_media::segmenter::{Config, Segment, Segmenter};
use livepeer_media::{Pacer, Speed, Warnings, pace};

use super::Error;
use super::input::Input;
use crate::Runtime;

/// At most this many bytes are read at once.
const PIECE: usize = 64 << 10;

impl<R: Runtime> Input<R> {
    /// Publishes an MPEG-TS stream to its end, cut into segments that a decoder can begin with: at key frames, with the
    /// tables before them, a second or more each. What is read leaves at once. The input stays open; several streams
    /// may follow each other.
    ///
    /// Tells of oddities that could be published all the same. With tokio, wrap a reader in `compat()` of
    /// `tokio_util::compat`.
    ///
    /// # Errors
    /// If the stream cannot be read or cut, the input is closed, or the job has ended. What came before is published.
    #[doc(alias = "MediaPublish")]
    #[doc(alias = "start_media")]
    pub async fn publish_ts(&mut self, reader: impl AsyncRead) -> Result<Warnings, Error> {
        self.publish_ts_at(reader, Speed::Max).await
    }

    /// Publishes an MPEG-TS stream as [`Input::publish_ts`] does, at the speed at which it is to be played: for files,
    /// of which a model in real time would miss most. Each segment is read whole before it leaves.
    ///
    /// # Errors
    /// As [`Input::publish_ts`].
    pub async fn publish_ts_at(
        &mut self,
        reader: impl AsyncRead,
        speed: Speed,
    ) -> Result<Warnings, Error> {
        let mut cutting = Cutting {
            input: self,
            segmenter: Segmenter::new(Config::default()),
            pacer: Pacer::new(speed),
            speed,
            is_open: false,
        };
        let published = cutting.run(pin!(reader)).await;
        if cutting.is_open {
            cutting.input.cut();
        }
        published.map(|()| cutting.segmenter.warnings())
    }
}

/// A stream that is being cut.
struct Cutting<'a, R: Runtime> {
    input: &'a Input<R>,
    segmenter: Segmenter,
    pacer: Pacer<livepeer_core::Time>,
    speed: Speed,
    /// Whether the segment that comes next has begun.
    is_open: bool,
}

impl<R: Runtime> Cutting<'_, R> {
    async fn run(&mut self, mut reader: Pin<&mut impl AsyncRead>) -> Result<(), Error> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = match poll_fn(|cx| reader.as_mut().poll_read(cx, &mut piece)).await {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Read(Arc::new(error))),
            };
            let fed = if read > 0 {
                self.segmenter.push(&piece[..read])
            } else {
                self.segmenter.finish()
            };
            while let Some(segment) = self.segmenter.next_segment() {
                self.publish(segment).await?;
            }
            if self.speed == Speed::Max
                && let Some(early) = self.segmenter.take_early()
            {
                self.begin().await?;
                self.input.write(early.data).await?;
            }
            fed?;
            if read == 0 {
                return Ok(());
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        if !self.is_open {
            self.input.open().await?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Publishes a segment, or what is left of it, when it is due.
    async fn publish(&mut self, segment: Segment) -> Result<(), Error> {
        self.input
            .until(self.pacer.next_due(self.input.now()))
            .await;
        self.pacer.plays(segment.duration);
        self.begin().await?;
        let began = self.input.now();
        for (offset, piece) in pace::pieces(&segment, self.speed) {
            self.input.until(began + offset).await;
            self.input.write(piece).await?;
        }
        self.input.cut();
        self.is_open = false;
        Ok(())
    }
}
