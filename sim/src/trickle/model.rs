//! A model of what readers may see, given what publishers did: the reference for sequence and bytes.

use std::collections::{BTreeMap, BTreeSet};

use livepeer_core::trickle::{Ending, WINDOW, publisher, subscriber};

/// The outcome of a segment, as the publisher reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it arrived.
    Delivered,
    /// The segment was given up.
    Lost,
}

#[derive(Debug)]
struct Published {
    bytes: Vec<u8>,
    ended: bool,
    outcome: Option<Outcome>,
}

/// The reports of one subscriber so far.
#[derive(Debug, Default)]
struct Reader {
    current: Option<(u64, Vec<u8>)>,
    next: Option<u64>,
    complete: Vec<(u64, Vec<u8>)>,
    gaps: u64,
    truncated: u64,
    discontinuities: u64,
    closed: Option<Ending>,
}

/// Everything published and everything told.
#[derive(Debug, Default)]
pub struct Model {
    /// By seq; several where numbers were used again after a restart.
    published: BTreeMap<u64, Vec<Published>>,
    /// The publisher's segments, as places in `published`, and which one is being written.
    writing: Option<(u64, usize)>,
    open: BTreeMap<u64, usize>,
    readers: BTreeMap<usize, Reader>,
    /// Seqs whose number restarted or was given up: gaps there are no surprise.
    excused: BTreeSet<u64>,
    /// The server forgot everything at least once, or the publisher began anew.
    pub restarted: bool,
    /// Faults may outlast a reader's patience.
    rough: bool,
    /// How many segments the publisher continued after a break.
    pub resumed: u64,
    /// How the current publisher ended.
    pub publisher_closed: Option<Ending>,
}

impl Model {
    /// Nothing published, nothing told.
    #[must_use]
    pub fn new(rough: bool) -> Self {
        Self {
            rough,
            ..Self::default()
        }
    }

    /// The publisher began a segment.
    ///
    /// # Panics
    /// If the number was used before in the same run.
    pub fn begun(&mut self, seq: u64) {
        let list = self.published.entry(seq).or_default();
        assert!(
            self.restarted || list.iter().all(|s| s.outcome == Some(Outcome::Lost)),
            "seq {seq} was begun twice in one run"
        );
        list.push(Published {
            bytes: Vec::new(),
            ended: false,
            outcome: None,
        });
        self.writing = Some((seq, list.len() - 1));
        self.open.insert(seq, list.len() - 1);
    }

    /// The publisher took bytes.
    pub fn wrote(&mut self, bytes: &[u8]) {
        if let Some((seq, at)) = self.writing
            && let Some(segment) = self
                .published
                .get_mut(&seq)
                .and_then(|list| list.get_mut(at))
        {
            segment.bytes.extend_from_slice(bytes);
        }
    }

    /// The publisher ended the segment.
    pub fn ended(&mut self) {
        if let Some((seq, at)) = self.writing.take()
            && let Some(segment) = self
                .published
                .get_mut(&seq)
                .and_then(|list| list.get_mut(at))
        {
            segment.ended = true;
        }
    }

    /// The publisher is gone, and with it what it had not delivered.
    pub fn publisher_died(&mut self) {
        self.writing = None;
        self.restarted = true;
        for seq in std::mem::take(&mut self.open).into_keys() {
            self.excused.insert(seq);
        }
        self.publisher_closed = None;
    }

    /// Takes an event of the publisher.
    ///
    /// # Panics
    /// If a segment has two outcomes, or anything follows the end.
    pub fn publisher_told(&mut self, event: &publisher::Event) {
        assert!(
            self.publisher_closed.is_none(),
            "the publisher told {event:?} after its end"
        );
        match event {
            publisher::Event::Delivered(seq) => self.judge(seq.get(), Outcome::Delivered),
            publisher::Event::Lost(seq, _) => {
                self.judge(seq.get(), Outcome::Lost);
                self.excused.insert(seq.get());
            }
            publisher::Event::Resumed(..) => self.resumed += 1,
            publisher::Event::Closed(ending) => {
                self.publisher_closed = Some(ending.clone());
                assert!(
                    self.open.is_empty(),
                    "no outcome for {:?}",
                    self.open.keys()
                );
            }
            _ => {}
        }
    }

    fn judge(&mut self, seq: u64, outcome: Outcome) {
        let at = self
            .open
            .remove(&seq)
            .unwrap_or_else(|| panic!("a second outcome for seq {seq}: {outcome:?}"));
        let segment = &mut self.published.get_mut(&seq).expect("it was begun")[at];
        assert!(
            segment.ended || outcome == Outcome::Lost,
            "seq {seq} was delivered before it ended"
        );
        segment.outcome = Some(outcome);
    }

    /// Takes an event of a subscriber, and the server's head at that time.
    ///
    /// # Panics
    /// If it may not tell that.
    pub fn subscriber_told(&mut self, who: usize, event: &subscriber::Event, head: u64) {
        let reader = self.readers.entry(who).or_default();
        assert!(
            reader.closed.is_none(),
            "subscriber {who} told {event:?} after its end"
        );
        match event {
            subscriber::Event::Begin(seq, _) => {
                let seq = seq.get();
                assert!(reader.current.is_none(), "{seq} begins inside another");
                assert!(
                    reader.next.is_none_or(|next| next == seq),
                    "{seq} begins where {:?} is due",
                    reader.next
                );
                reader.current = Some((seq, Vec::new()));
            }
            subscriber::Event::Data(seq, bytes) => {
                let (current, held) = reader.current.as_mut().expect("data outside a segment");
                assert_eq!(*current, seq.get(), "data of another segment");
                assert!(!bytes.is_empty(), "empty data");
                let from = held.len();
                held.extend_from_slice(bytes);
                let fits = self.published.get(current).is_some_and(|list| {
                    list.iter().any(|segment| {
                        segment.bytes.len() >= held.len()
                            && segment.bytes[..from] == held[..from]
                            && segment.bytes[from..held.len()] == **bytes
                    })
                });
                assert!(
                    fits,
                    "what subscriber {who} holds of {seq} is no beginning of what was published"
                );
            }
            subscriber::Event::End(seq) => {
                let (current, held) = reader.current.take().expect("an end outside a segment");
                assert_eq!(current, seq.get(), "the end of another segment");
                reader.next = Some(current + 1);
                reader.complete.push((current, held));
            }
            subscriber::Event::Truncated(seq, told) => {
                let (current, held) = reader.current.take().expect("cut outside a segment");
                assert_eq!((current, held.len() as u64), (seq.get(), *told));
                reader.next = Some(current + 1);
                reader.truncated += 1;
            }
            subscriber::Event::Gap(range) => {
                assert!(reader.current.is_none(), "a gap inside a segment");
                let (from, to) = (range.start.get(), range.end.get());
                assert!(from < to, "an empty gap");
                assert!(
                    reader.next.is_none_or(|next| next == from),
                    "the gap begins at {from}, due is {:?}",
                    reader.next
                );
                // Why the first had to be skipped; how far is the lag policy's choice.
                {
                    let seq = from;
                    // Requests for segments beyond the head evict too: the next one's, and in a rough world those
                    // of segments whose first bytes overtook each other or are held back.
                    let beyond = if self.rough { 4 } else { 1 };
                    let evicted = head + beyond >= seq + WINDOW as u64;
                    let pending = self.rough
                        && self
                            .published
                            .get(&seq)
                            .is_some_and(|list| list.iter().any(|s| s.outcome.is_none()));
                    assert!(
                        evicted || pending || self.restarted || self.excused.contains(&seq),
                        "subscriber {who} skips {seq} without need; the head is {head}"
                    );
                }
                reader.next = Some(to);
                reader.gaps += to - from;
            }
            subscriber::Event::Discontinuity => {
                assert!(reader.current.is_none(), "a jump inside a segment");
                assert!(self.restarted, "nothing restarted");
                reader.next = None;
                reader.discontinuities += 1;
            }
            subscriber::Event::Closed(ending) => reader.closed = Some(ending.clone()),
            other => panic!("unknown event {other:?}"),
        }
    }

    /// Whether that subscriber has ended.
    #[must_use]
    pub fn reader_closed(&self, who: usize) -> Option<&Ending> {
        self.readers.get(&who)?.closed.as_ref()
    }

    /// Checks what holds for every run once it is over.
    ///
    /// # Panics
    /// If a reader was told the end of a delivered segment and does not hold all of it.
    pub fn check(&self) {
        for (who, reader) in &self.readers {
            assert!(
                reader.current.is_none(),
                "subscriber {who} ended inside a segment"
            );
            for (seq, held) in &reader.complete {
                let Some(list) = self.published.get(seq) else {
                    // Nobody began it: a warm request that was given up, empty.
                    assert!(held.is_empty(), "{seq} was never published");
                    continue;
                };
                // An empty one may be the shadow of a number that was given up.
                let shadow = held.is_empty()
                    && (self.restarted
                        || list.iter().any(|s| s.outcome != Some(Outcome::Delivered)));
                let fits = shadow
                    || list.iter().any(|segment| match segment.outcome {
                        // A server that forgot may have ended it before, for want of the rest.
                        Some(Outcome::Delivered) if !self.restarted => segment.bytes == *held,
                        _ => segment.bytes.starts_with(held),
                    });
                assert!(
                    fits,
                    "subscriber {who} was told the end of {seq} after {} bytes; published: {:?}",
                    held.len(),
                    list.iter()
                        .map(|segment| (segment.bytes.len(), segment.outcome))
                        .collect::<Vec<_>>()
                );
            }
        }
    }

    /// Checks what holds if no fault was beyond recovery: everything delivered, everything read.
    ///
    /// # Panics
    /// If something is missing.
    pub fn check_lossless(&self) {
        for (seq, list) in &self.published {
            for segment in list {
                assert_eq!(
                    segment.outcome,
                    Some(Outcome::Delivered),
                    "seq {seq} was not delivered"
                );
            }
        }
        for (who, reader) in &self.readers {
            assert_eq!(
                (reader.gaps, reader.truncated, reader.discontinuities),
                (0, 0, 0),
                "subscriber {who} missed something"
            );
            assert_eq!(reader.closed, Some(Ending::EndOfStream), "subscriber {who}");
            let mut read: Vec<u64> = reader.complete.iter().map(|(seq, _)| *seq).collect();
            if let Some(last) = read.last().copied()
                && !self.published.contains_key(&last)
            {
                // The warm request of the segment after the last, ended by the end of the channel.
                read.pop();
            }
            let all: Vec<u64> = self.published.keys().copied().collect();
            assert_eq!(read, all, "subscriber {who} did not read everything");
        }
    }

    /// Segments published, and missed by readers in gaps.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (
            self.published.values().map(|list| list.len() as u64).sum(),
            self.readers.values().map(|reader| reader.gaps).sum(),
        )
    }
}
