//! `trickle pub`: an input, cut into segments, to a channel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_channel::Receiver;
use bytes::Bytes;
use futures_lite::future;
use livepeer_core::trickle::publisher::{Event, Publisher, Unbegun, Unwritten};
use livepeer_core::trickle::{Ending, Seq};
use livepeer_core::{Failure, Misuse, Time};
use livepeer_media::{Pacer, Speed};
use livepeer_runtime::{Driver, Handle, Runtime};

use super::cut::{self, Piece};
use super::failed;
use super::figures::Figures;
use crate::args::{Cut, Place, PubArgs};
use crate::cmd::on;
use crate::cmd::socket::sleep_until;
use crate::cmd::stop::Stop;
use crate::ui::{Failed, Outcome, Progress};

/// The advice for a channel that is not there.
const MISSING: &str = "Make it with --create, if its server lets you";

/// How long answers of the server are waited for after Ctrl-C, beside the time for readers.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Publish<'a>(pub(super) &'a PubArgs);

impl on::Work for Publish<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let input = cut::start(&args.input, args.cut)?;
        let channel = Publisher::new(driver.now(), args.config(), args.channel.clone());
        stop.in_order(args.linger + CLOSES_WITHIN);
        let mut pipe = Pipe {
            channel: driver.drive(channel),
            stop,
            pacer: match (&args.input, args.cut) {
                (Place::File(_), Cut::KeyFrame) => Pacer::new(args.speed.unwrap_or_default()),
                _ => Pacer::new(Speed::Max),
            },
            every: args.every,
            due: Time::ZERO,
            longest: match args.cut {
                Cut::Time(longest) => Some(longest),
                _ => None,
            },
            ends: None,
            open: None,
            ended: BTreeMap::new(),
            closed: false,
            loss: None,
            figures: Figures::new(args.channel.to_string(), "acknowledged after p50 / p99"),
            progress: Progress::new("segments", None),
        };
        let outcome = pipe.run(&input).await;
        // The first cause counts.
        let outcome = outcome.and(pipe.close().await);
        let Pipe {
            figures,
            loss,
            progress,
            ..
        } = pipe;
        drop(progress);
        let lost = figures.lost;
        let outcome = outcome.and(match loss {
            None => Ok(()),
            Some(failure) => {
                let plural = if lost == 1 { " was" } else { "s were" };
                Err(failed(failure, MISSING).during(format_args!("{lost} segment{plural} lost")))
            }
        });
        figures.show(args.json, true, outcome)
    }
}

/// The way from the input to the channel.
struct Pipe<R: Runtime> {
    channel: Handle<Publisher, R>,
    stop: Stop,
    pacer: Pacer<Time>,
    /// Segments begin at least this much apart, and the next one not before that.
    every: Option<Duration>,
    due: Time,
    /// Segments last at most this long, and the open one until then.
    longest: Option<Duration>,
    ends: Option<Time>,
    open: Option<Seq>,
    /// The times when the segments ended whose answers are awaited.
    ended: BTreeMap<Seq, Instant>,
    closed: bool,
    /// The failure by which the first lost segment was lost.
    loss: Option<Failure>,
    figures: Figures,
    progress: Progress,
}

/// Events that the command waits for.
enum Happened {
    Piece(Piece),
    Event(Event),
    Due,
    Interrupted,
}

impl<R: Runtime> Pipe<R> {
    /// Publishes until the input is over.
    async fn run(&mut self, input: &Receiver<Piece>) -> Outcome {
        loop {
            match self.next(Some(input), self.ends).await {
                Happened::Piece(Piece::Whole(data, length)) => {
                    self.begin(length).await?;
                    self.write(data).await?;
                    self.end();
                }
                Happened::Piece(Piece::Part(data)) => {
                    if self.open.is_none() {
                        self.begin(Duration::ZERO).await?;
                    }
                    self.write(data).await?;
                }
                Happened::Piece(Piece::Cut) | Happened::Due => self.end(),
                // Nothing tells then whether the channel is there.
                Happened::Piece(Piece::End) if self.figures.bytes == 0 => {
                    return Err(Failed::new(
                        "the input is empty, so nothing was published",
                        "Check the path, or that the program before the pipe writes something",
                    ));
                }
                Happened::Piece(Piece::End) => return Ok(()),
                Happened::Piece(Piece::Bad(failed)) => return Err(failed),
                Happened::Event(event) => self.note(event)?,
                Happened::Interrupted => return Err(Failed::interrupted()),
            }
        }
    }

    async fn begin(&mut self, length: Duration) -> Outcome {
        let due = self.pacer.next_due(self.channel.now()).max(self.due);
        self.pacer.plays(length);
        while self.channel.now() < due {
            match self.next(None, Some(due)).await {
                Happened::Event(event) => self.note(event)?,
                Happened::Interrupted => return Err(Failed::interrupted()),
                Happened::Piece(_) | Happened::Due => {}
            }
        }
        let seq = loop {
            match self.channel.with(|channel, now| channel.begin(now)) {
                Ok(seq) => break seq,
                Err(Unbegun::Misuse(misuse)) => return Err(self.why(misuse).await),
                Err(_) => self.room().await?,
            }
        };
        let now = self.channel.now();
        self.open = Some(seq);
        self.due = self.every.map_or(now, |every| now + every);
        self.ends = self.longest.map(|longest| now + longest);
        Ok(())
    }

    async fn write(&mut self, mut data: Bytes) -> Outcome {
        self.figures.bytes += data.len() as u64;
        loop {
            let piece = data.clone();
            match self.channel.with(|channel, now| channel.write(now, piece)) {
                Ok(()) => return Ok(()),
                Err(Unwritten::Misuse(Misuse::NotOpen)) => {
                    // It was silent for too long.
                    self.end();
                    self.begin(Duration::ZERO).await?;
                    continue;
                }
                Err(Unwritten::Misuse(misuse)) => return Err(self.why(misuse).await),
                Err(Unwritten::Full(back)) => data = back,
                Err(_) => return Ok(()),
            }
            self.room().await?;
        }
    }

    /// Ends the open segment, if there is one.
    fn end(&mut self) {
        self.ends = None;
        if let Some(seq) = self.open.take() {
            self.ended.insert(seq, Instant::now());
            // Only a channel that is over refuses, and its last event says so.
            let _ = self.channel.with(|channel, now| channel.end(now));
        }
    }

    /// Waits for room.
    async fn room(&mut self) -> Outcome {
        loop {
            match self.next(None, None).await {
                Happened::Event(Event::Writable) => return Ok(()),
                Happened::Event(event) => self.note(event)?,
                Happened::Interrupted => return Err(Failed::interrupted()),
                Happened::Piece(_) | Happened::Due => {}
            }
        }
    }

    /// Closes the channel and waits until it is closed.
    async fn close(&mut self) -> Outcome {
        self.end();
        self.channel.with(|channel, now| channel.close(now));
        while !self.closed
            && let Some(event) = self.channel.next().await
        {
            self.note(event)?;
        }
        Ok(())
    }

    /// The failure when the channel refuses a call that fits its order: it is over.
    async fn why(&mut self, misuse: Misuse) -> Failed {
        while !self.closed
            && let Some(event) = self.channel.next().await
        {
            if let Err(failed) = self.note(event) {
                return failed;
            }
        }
        misuse.into()
    }

    /// # Errors
    /// If it says that the channel is over, and not because we closed it.
    fn note(&mut self, event: Event) -> Outcome {
        match event {
            Event::Delivered(seq) => {
                self.figures.segments += 1;
                if let Some(ended) = self.ended.remove(&seq) {
                    self.figures.latency.record(ended.elapsed());
                }
                let figures = &self.figures;
                self.progress.set(figures.segments, || figures.note());
            }
            Event::Cut(seq) if self.open == Some(seq) => self.end(),
            Event::Resumed(..) => self.figures.resumed += 1,
            Event::Lost(seq, failure) => {
                self.figures.lost += 1;
                self.ended.remove(&seq);
                self.loss.get_or_insert(failure);
            }
            Event::Closed(ending) => {
                self.closed = true;
                return match ending {
                    Ending::Failed(failure) => Err(failed(failure, MISSING)),
                    Ending::EndOfStream => Err(Failed::new(
                        "somebody else deleted the channel",
                        "Start again with --create, or ask who did",
                    )),
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits for what comes first: Ctrl-C, an event, a piece if there is an input, the time if there is one.
    async fn next(&self, input: Option<&Receiver<Piece>>, until: Option<Time>) -> Happened {
        let stopped = async {
            self.stop.pressed().await;
            Happened::Interrupted
        };
        let event = async {
            match self.channel.next().await {
                Some(event) => Happened::Event(event),
                // It was not closed by hand.
                None => future::pending().await,
            }
        };
        let piece = async {
            match input {
                // A thread without a last word has none to say.
                Some(input) => Happened::Piece(input.recv().await.unwrap_or(Piece::End)),
                None => future::pending().await,
            }
        };
        let due = async {
            match until {
                Some(until) => {
                    sleep_until(self.channel.driver(), until).await;
                    Happened::Due
                }
                None => future::pending().await,
            }
        };
        // What comes when the time is up belongs after it.
        future::or(future::or(stopped, event), future::or(due, piece)).await
    }
}
