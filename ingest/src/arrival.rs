//! Counts of what arrives of a peer's packets: how many, how many are missing, and how evenly (RFC 3550, A.1, A.3, A.8).
//!
//! The heads of datagrams are read that came by a session's own addresses, before anything has checked them, so that packets
//! that are repaired later count as lost, as in the reference. Nothing is decided by the counts.

use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::wire::entry::{IngestMetrics, TrackMetrics};

use crate::sdp::Kind;

/// How far the number of a packet may be from the one before. Beyond it the sender has begun to count anew.
const MAX_STEP: u16 = 3_000;
/// The name of a connection. The reference has no other, and the session's own is a key to it.
const CONNECTION: &str = "iceTransport";

/// The counts of a session.
#[derive(Debug)]
pub(crate) struct Arrival {
    received: u64,
    sent: u64,
    tracks: [Track; 2],
}

#[derive(Debug)]
struct Track {
    kind: Kind,
    /// Stamps a second.
    clock: u64,
    /// The payload types of its packets; repairs have others.
    payloads: Vec<u8>,
    /// Packets that came, and those that should have come, before the sender began to count anew.
    before: (u64, u64),
    run: Option<Run>,
}

/// Packets that one source counts through.
#[derive(Debug)]
struct Run {
    source: u32,
    first: i64,
    last: i64,
    packets: u64,
    /// When the last packet with a new stamp came, and its stamp.
    stamped: (Time, u32),
    /// Sixteen times the jitter, in units of the clock.
    jitter: u64,
}

/// The head of a packet of RTP.
struct Head {
    payload: u8,
    number: u16,
    stamp: u32,
    source: u32,
}

impl Head {
    fn read(data: &[u8]) -> Option<Self> {
        let (head, _) = data.split_first_chunk::<12>()?;
        let [first, second, n0, n1, s0, s1, s2, s3, source @ ..] = *head;
        // RTCP has the payload types in between on the same port (RFC 5761).
        let payload = second & 0x7f;
        let is_media = first >> 6 == 2 && !(64..96).contains(&payload);
        is_media.then_some(Self {
            payload,
            number: u16::from_be_bytes([n0, n1]),
            stamp: u32::from_be_bytes([s0, s1, s2, s3]),
            source: u32::from_be_bytes(source),
        })
    }
}

impl Arrival {
    /// Nothing has come. `payloads` are the payload types of a kind.
    pub(crate) fn new(payloads: impl Fn(Kind) -> Vec<u8>) -> Self {
        let track = |kind, clock| Track {
            kind,
            clock,
            payloads: payloads(kind),
            before: (0, 0),
            run: None,
        };
        Self {
            received: 0,
            sent: 0,
            tracks: [track(Kind::Video, 90_000), track(Kind::Audio, 48_000)],
        }
    }

    /// A datagram came.
    pub(crate) fn came(&mut self, now: Time, data: &[u8]) {
        self.received += data.len() as u64;
        let Some(head) = Head::read(data) else {
            return;
        };
        let mut tracks = self.tracks.iter_mut();
        if let Some(track) = tracks.find(|track| track.payloads.contains(&head.payload)) {
            track.came(now, &head);
        }
    }

    /// A datagram of so many bytes went.
    pub(crate) const fn went(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The counts in the shape of the reference.
    pub(crate) fn metrics(&self) -> IngestMetrics {
        IngestMetrics {
            id: CONNECTION.to_owned(),
            received: self.received,
            sent: self.sent,
            tracks: self.tracks.iter().filter_map(Track::metrics).collect(),
        }
    }
}

impl Track {
    fn came(&mut self, now: Time, head: &Head) {
        if let Some(run) = &mut self.run
            && run.goes_on_with(head)
        {
            return run.came(now, head, self.clock);
        }
        let begun = Run {
            source: head.source,
            first: head.number.into(),
            last: head.number.into(),
            packets: 1,
            stamped: (now, head.stamp),
            jitter: 0,
        };
        if let Some(over) = self.run.replace(begun) {
            self.before.0 += over.packets;
            self.before.1 += over.expected();
        }
    }

    /// The counts; `None` if nothing came.
    fn metrics(&self) -> Option<TrackMetrics> {
        let run = self.run.as_ref()?;
        let received = signed(self.before.0 + run.packets);
        let expected = signed(self.before.1 + run.expected());
        Some(TrackMetrics {
            video: self.kind == Kind::Video,
            jitter: run.jitter as f64 / 16.0 / self.clock as f64 * 1_000.0,
            lost: expected - received,
            received,
            rtt: Duration::ZERO,
            last_input: 0.0,
            last_output: 0.0,
        })
    }
}

impl Run {
    /// How far a packet is ahead of the last one; below zero if it comes late.
    const fn step(&self, head: &Head) -> i16 {
        head.number.wrapping_sub(self.last as u16) as i16
    }

    fn goes_on_with(&self, head: &Head) -> bool {
        head.source == self.source && self.step(head).unsigned_abs() <= MAX_STEP
    }

    fn came(&mut self, now: Time, head: &Head, clock: u64) {
        let number = self.last + i64::from(self.step(head));
        self.first = self.first.min(number);
        self.last = self.last.max(number);
        self.packets += 1;
        let (came, stamp) = self.stamped;
        // Packets of one picture are sent one after the other, which is not the network's doing.
        if stamp == head.stamp {
            return;
        }
        self.stamped = (now, head.stamp);
        let between = now.since(came).as_nanos() * u128::from(clock) / 1_000_000_000;
        let between = i64::try_from(between).unwrap_or(i64::MAX);
        let stamps = i64::from(head.stamp.wrapping_sub(stamp) as i32);
        let uneven = between.saturating_sub(stamps).unsigned_abs();
        self.jitter = self.jitter.saturating_add(uneven) - ((self.jitter + 8) >> 4);
    }

    const fn expected(&self) -> u64 {
        (self.last - self.first) as u64 + 1
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of RTP: payload type, number, stamp, source.
    fn packet(payload: u8, number: u16, stamp: u32, source: u32) -> Vec<u8> {
        let mut packet = vec![0x80, payload | 0x80];
        packet.extend(number.to_be_bytes());
        packet.extend(stamp.to_be_bytes());
        packet.extend(source.to_be_bytes());
        packet
    }

    fn arrival() -> Arrival {
        Arrival::new(|kind| match kind {
            Kind::Video => vec![96, 98],
            Kind::Audio => vec![111],
        })
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(1_000_000 + millis)
    }

    fn counts(arrival: &Arrival) -> Vec<(bool, i64, i64)> {
        let tracks = arrival.metrics().tracks;
        let count = |track: &TrackMetrics| (track.video, track.received, track.lost);
        tracks.iter().map(count).collect()
    }

    #[test]
    fn packets_are_counted_by_their_numbers_over_wraps_and_out_of_order() {
        let mut arrival = arrival();
        for number in [65_533, 65_535, 65_534, 1, 2, 2, 5] {
            arrival.came(at(0), &packet(96, number, 7, 1));
        }
        // 65533 to 5 are nine; seven came, one of them twice.
        assert_eq!(counts(&arrival), [(true, 7, 2)]);
        arrival.came(at(0), &packet(111, 9, 7, 2));
        arrival.came(at(0), &packet(97, 10, 7, 3));
        arrival.came(at(0), &packet(72, 11, 7, 1));
        arrival.came(at(0), &[0x80; 11]);
        arrival.went(100);
        assert_eq!(counts(&arrival), [(true, 7, 2), (false, 1, 0)]);
        let metrics = arrival.metrics();
        assert_eq!((metrics.received, metrics.sent), (12 * 10 + 11, 100));
    }

    #[test]
    fn a_sender_that_counts_anew_has_lost_nothing_by_that() {
        let mut arrival = arrival();
        for (number, source) in [(1, 1), (3, 1), (40_000, 1), (40_001, 1), (9, 2)] {
            arrival.came(at(0), &packet(98, number, 7, source));
        }
        assert_eq!(counts(&arrival), [(true, 5, 1)]);
    }

    #[test]
    fn even_packets_have_no_jitter_and_uneven_ones_as_much_as_they_are() {
        let jitter = |late: fn(u64) -> u64| {
            let mut arrival = arrival();
            for frame in 0..500 {
                let stamp = (frame as u32 * 3_000).wrapping_sub(4_000);
                for piece in 0..3 {
                    let number = (frame * 3 + piece) as u16;
                    let now = at(frame * 100 / 3 + late(frame) + piece);
                    arrival.came(now, &packet(96, number, stamp, 1));
                }
            }
            arrival.metrics().tracks[0].jitter
        };
        assert!(jitter(|_| 0) < 0.7, "a clock of milliseconds");
        let uneven = jitter(|frame| frame % 2 * 20);
        assert!((uneven - 20.0).abs() < 1.0, "{uneven}");
    }
}
