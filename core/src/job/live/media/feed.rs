//! An orchestrator's part in the media: its channels, and how far input and output are there.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::log::{Log, Next};
use super::{Event, News, Owed, TAIL_WITHIN};
use crate::error::{Failure, Misuse};
use crate::http::Url;
use crate::machine::{Child, Outbox, earlier};
use crate::time::Time;
use crate::trickle::{ContentType, Ending, Publisher, publisher};

/// How far the media are with one orchestrator. Before anybody works there is one without channels, which keeps the
/// input.
#[derive(Debug)]
pub(super) struct Feed {
    /// The number of the session, as the job counts them.
    pub(super) session: u32,
    pub(super) log: Log,
    /// Addresses of the channels: the input's while input is to go there, the output's as long as there may be some.
    pub(super) channel: Option<Url>,
    pub(super) output: Option<Url>,
    pub(super) input: Option<Child<Publisher>>,
    /// Whether [`Event::Delivered`] was told, whether the input's channel is being closed, and whether it was closed
    /// by us.
    delivered: bool,
    ending: bool,
    pub(super) closed: bool,
    /// The state that the job was told last.
    waits: bool,
    /// When the log has something to hand over again.
    due: Option<Time>,
    /// When something moved last: a delivery, or output.
    pub(super) moved: Time,
    /// The first segment of the input that the orchestrator gets, and how many it gets although another had them.
    first: u64,
    pub(super) again: usize,
    /// Segments that the publisher gave up, and why.
    pub(super) lost: BTreeMap<u64, Failure>,
    /// Times a segment's connection broke and the rest followed on another.
    pub(super) resumed: u64,
    /// The kind of the output segment that has begun and has no bytes yet, where output is not told.
    pub(super) begun: Option<ContentType>,
}

impl Feed {
    pub(super) fn new(now: Time, log: Log) -> Self {
        Self {
            session: 0,
            log,
            channel: None,
            output: None,
            input: None,
            delivered: false,
            ending: false,
            closed: false,
            waits: false,
            due: None,
            moved: now,
            first: 0,
            again: 0,
            lost: BTreeMap::new(),
            resumed: 0,
            begun: None,
        }
    }

    /// Feeds the same input to another orchestrator, beginning with what is not answered.
    pub(super) fn fork(&self, now: Time) -> Self {
        let mut fork = Self {
            lost: self.lost.clone(),
            ..Self::new(now, self.log.clone())
        };
        (fork.first, _) = fork.log.restart();
        // Those given up have another chance.
        fork.lost.retain(|number, _| *number < fork.first);
        fork
    }

    /// Takes the place of the feed of an orchestrator that is left. What that one was given too since the fork was
    /// given again.
    pub(super) fn follow(&mut self, left: &Self) {
        self.again = usize::try_from(left.log.begun_here().saturating_sub(self.first)).unwrap_or(0);
        self.resumed += left.resumed;
    }

    /// Whether the orchestrator was left, so that nothing more is given to it.
    pub(super) const fn is_left(&self) -> bool {
        self.channel.is_none()
    }

    pub(super) const fn is_delivered(&self) -> bool {
        self.delivered
    }

    /// Closes the channel of the input in order.
    pub(super) fn close(&mut self, now: Time) {
        if !core::mem::replace(&mut self.ending, true)
            && let Some(input) = &mut self.input
        {
            input.get_mut().close(now);
        }
    }

    /// Hands over what may go, and acts on what the publisher tells.
    pub(super) fn settle(&mut self, now: Time, out: &mut Outbox<News>) {
        while let Some(mut input) = self.input.take() {
            let (moved, blocked) = self.hand_over(now, &mut input, out);
            let mut told = Vec::new();
            input.drain(out, |event| told.push(event));
            self.log.note_sent(|seq| input.get().sent(seq));
            self.input = Some(input);
            if moved {
                // What moves does not stand still, though there may be more.
                self.set_waits(false, out);
            }
            if told.is_empty() {
                self.set_waits(blocked, out);
                break;
            }
            for event in told {
                self.on_publisher(now, event, out);
            }
        }
    }

    /// Hands over what the publisher takes. Returns whether it took anything, and whether less than there is.
    fn hand_over(
        &mut self,
        now: Time,
        input: &mut Child<Publisher>,
        out: &mut Outbox<News>,
    ) -> (bool, bool) {
        let publisher = input.get_mut();
        self.due = None;
        if self.ending {
            return (false, false);
        }
        let mut moved = false;
        loop {
            let taken = match self.log.next(now) {
                Next::Begin => match publisher.begin(now) {
                    Ok(seq) => {
                        self.log.took_begin(now, seq);
                        self.tell(Event::Begun, out);
                        true
                    }
                    // It says when to try again, or that it has ended.
                    Err(_) => false,
                },
                Next::Join => {
                    self.log.took_join(now);
                    true
                }
                Next::Data(data) => {
                    match publisher.write(now, data) {
                        Ok(()) => {
                            self.log.took_data();
                            true
                        }
                        // It was silent for too long, and is over.
                        Err(publisher::Unwritten::Misuse(Misuse::NotOpen)) => {
                            self.log.took_end();
                            true
                        }
                        Err(_) => false,
                    }
                }
                Next::End => {
                    let taken = matches!(publisher.end(now), Ok(()) | Err(Misuse::NotOpen));
                    if taken {
                        self.log.took_end();
                    }
                    taken
                }
                Next::Wait(until) => {
                    self.due = Some(until);
                    return (moved, false);
                }
                Next::Nothing => return (moved, false),
            };
            if !taken {
                return (moved, true);
            }
            moved = true;
        }
    }

    fn on_publisher(&mut self, now: Time, event: publisher::Event, out: &mut Outbox<News>) {
        match event {
            publisher::Event::Delivered(seq) => {
                self.log.settled(seq, false);
                self.moved = now;
                self.tell(Event::Done, out);
            }
            publisher::Event::Lost(seq, failure) => {
                for number in self.log.settled(seq, true) {
                    self.lost.insert(number, failure.clone());
                }
                self.tell(Event::Done, out);
            }
            publisher::Event::Resumed(..) => self.resumed += 1,
            publisher::Event::Cut(_) => self.log.took_end(),
            publisher::Event::Closed(ending) => {
                self.input = None;
                if self.ending {
                    self.closed = true;
                } else {
                    self.ended(ending, out);
                }
            }
            publisher::Event::Ready(_) | publisher::Event::Writable => {}
        }
    }

    fn set_waits(&mut self, waits: bool, out: &mut Outbox<News>) {
        if core::mem::replace(&mut self.waits, waits) != waits {
            self.tell(Event::Waits(waits), out);
        }
    }

    pub(super) fn tell(&self, event: Event, out: &mut Outbox<News>) {
        out.event(News {
            session: self.session,
            event,
        });
    }

    /// Tells that a channel has ended.
    pub(super) fn ended(&self, ending: Ending, out: &mut Outbox<News>) {
        let failure = match ending {
            Ending::Failed(failure) => Some(failure),
            _ => None,
        };
        self.tell(Event::Ended(failure), out);
    }

    /// When the channel of the input may be closed, if all is delivered and the input is over.
    pub(super) fn closes_at(&self, now: Time) -> Option<Time> {
        if self.delivered || self.ending {
            return None;
        }
        let settled = self.log.is_settled();
        match (&self.input, self.log.owed()) {
            // Whoever works or not, there is nothing left to do.
            (None, Owed::Nothing) => Some(now),
            (Some(_), Owed::Nothing) if !self.log.expects_rest() => Some(now),
            (Some(_), Owed::Unknown) if settled => Some(now),
            (Some(_), Owed::Something | Owed::Nothing) if settled => Some(self.moved + TAIL_WITHIN),
            _ => None,
        }
    }

    /// Tells that the input is over and delivered.
    pub(super) fn tell_delivered(&mut self, out: &mut Outbox<News>) {
        self.delivered = true;
        self.tell(Event::Delivered, out);
    }

    /// When to look again, for all but the end.
    pub(super) fn wake(&self) -> Option<Time> {
        let input = self.input.as_ref()?;
        earlier(self.due, input.wake())
    }
}
