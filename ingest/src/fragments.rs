//! Fragments of NAL units as they arrive (FU-A, RFC 6184, 5.8), and whether those of a picture fit together.
//!
//! The engine joins the fragments of a picture without a look at where a unit begins and ends: it makes a unit of a torso,
//! and keeps fragments without an end, in any number, to put them before the next unit. So the packets are looked at
//! before: a picture of fragments that do not fit is dropped, and who never ends a unit is closed.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use livepeer_media::h264::MAX_UNIT;

/// At most this many packets wait for their pictures: the engine keeps as many.
const MAX_PACKETS: usize = 4_096;
/// The type of a fragment (FU-A).
const FRAGMENT: u8 = 28;
const BEGINS: u8 = 0x80;
const ENDS: u8 = 0x40;

/// The place of a packet in a NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The packet has units of its own.
    Whole,
    /// The packet has a fragment: whether it is the first of its unit, and the last.
    Part { begins: bool, ends: bool },
}

impl Place {
    fn of(payload: &[u8]) -> Self {
        match payload {
            [head, part, ..] if head & 0x1f == FRAGMENT => Self::Part {
                begins: part & BEGINS != 0,
                ends: part & ENDS != 0,
            },
            _ => Self::Whole,
        }
    }
}

/// A packet that no picture has claimed.
#[derive(Clone, Copy, Debug)]
struct Seen {
    number: u16,
    place: Place,
    bytes: usize,
}

impl Seen {
    /// Two packets with one number: the engine takes one of them, and nobody knows which. The worse is believed.
    fn or(self, other: Self) -> Self {
        let is_open = |seen: &Self| matches!(seen.place, Place::Part { ends: false, .. });
        let worse = if is_open(&other) { other } else { self };
        Self {
            bytes: self.bytes + other.bytes,
            ..worse
        }
    }
}

/// The video packets of a sender that have one payload type. See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    /// In the order in which they came.
    seen: VecDeque<Seen>,
    /// Whether a picture has left a unit without an end to the engine, which puts it before the next one.
    torn: bool,
    /// Bytes that the engine holds at most of units without an end.
    held: usize,
}

impl Fragments {
    /// Takes note of a packet.
    pub(crate) fn see(&mut self, number: u16, payload: &[u8]) {
        if self.seen.len() == MAX_PACKETS
            && let Some(oldest) = self.seen.pop_front()
        {
            self.give_up(oldest);
        }
        self.seen.push_back(Seen {
            number,
            place: Place::of(payload),
            bytes: payload.len(),
        });
    }

    /// Whether the fragments of a picture, whose packets have these numbers, fit together. Packets that were repeated by
    /// the sender were not seen, and are believed.
    pub(crate) fn claim(&mut self, numbers: RangeInclusive<u64>) -> bool {
        // Numbers have 16 bits in a packet, and pictures far fewer packets.
        let (first, last) = (*numbers.start() as u16, *numbers.end() as u16);
        let count = usize::from(last.wrapping_sub(first)) + 1;
        let mut places = vec![None; count.min(MAX_PACKETS)];
        let mut passed = Vec::new();
        self.seen.retain(|seen| {
            let place = usize::from(seen.number.wrapping_sub(first));
            if let Some(place) = places.get_mut(place) {
                *place = Some(place.map_or(*seen, |other: Seen| other.or(*seen)));
                return false;
            }
            let is_later = seen.number.wrapping_sub(last) < 1 << 15;
            if !is_later {
                passed.push(*seen);
            }
            is_later
        });
        passed.into_iter().for_each(|seen| self.give_up(seen));

        let mut fits = true;
        let mut inside = Some(false);
        for seen in places {
            let Some(seen) = seen else {
                // Anything may have been there.
                inside = None;
                continue;
            };
            match seen.place {
                Place::Whole => {
                    fits &= inside != Some(true);
                    inside = Some(false);
                }
                Place::Part { begins, ends } => {
                    fits &= inside.is_none_or(|inside| inside != begins);
                    // The first unit that ends takes with it whatever was left before.
                    fits &= !(ends && std::mem::take(&mut self.torn));
                    self.held = if ends { 0 } else { self.held + seen.bytes };
                    inside = Some(!ends);
                }
            }
        }
        if inside == Some(true) {
            self.torn = true;
            fits = false;
        }
        fits
    }

    /// Whether more bytes without an end came than a picture may have.
    pub(crate) const fn is_endless(&self) -> bool {
        self.held > MAX_UNIT
    }

    /// A packet was part of no picture. The engine may have kept its fragment all the same.
    fn give_up(&mut self, seen: Seen) {
        if matches!(seen.place, Place::Part { .. }) {
            self.held += seen.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = &[28, BEGINS | 5, 1];
    const NEXT: &[u8] = &[28, 5, 2];
    const LAST: &[u8] = &[28, ENDS | 5, 3];
    const WHOLE: &[u8] = &[0x41, 1, 2];

    /// Whether each of these pictures fits, whose packets are numbered from `from` on.
    fn fits(from: u64, pictures: &[&[&[u8]]]) -> Vec<bool> {
        let mut fragments = Fragments::default();
        let mut number = from;
        let judge = |packets: &&[&[u8]]| {
            let first = number;
            for packet in *packets {
                fragments.see(number as u16, packet);
                number += 1;
            }
            fragments.claim(first..=number - 1)
        };
        pictures.iter().map(judge).collect()
    }

    #[test]
    fn whole_units_and_whole_rows_of_fragments_fit() {
        for from in [0, 65_534, 131_070] {
            let pictures: [&[&[u8]]; 4] = [
                &[WHOLE],
                &[WHOLE, FIRST, NEXT, NEXT, LAST, FIRST, LAST],
                &[FIRST, LAST, WHOLE],
                &[&[28], &[]],
            ];
            assert_eq!(fits(from, &pictures), [true; 4]);
        }
    }

    #[test]
    fn a_row_without_a_beginning_or_an_end_does_not_fit_nor_what_an_end_is_joined_to() {
        for torso in [
            &[NEXT, LAST][..],
            &[FIRST, NEXT],
            &[FIRST, WHOLE],
            &[FIRST, LAST, NEXT],
            &[FIRST, FIRST, LAST],
            &[WHOLE, LAST],
        ] {
            assert!(!fits(7, &[torso])[0], "{torso:?}");
        }
        let pictures: [&[&[u8]]; 4] = [&[FIRST, NEXT], &[WHOLE], &[FIRST, LAST], &[FIRST, LAST]];
        assert_eq!(fits(9, &pictures), [false, true, false, true]);
    }

    #[test]
    fn packets_that_were_not_seen_are_believed_and_order_does_not_matter() {
        let mut fragments = Fragments::default();
        for (number, packet) in [(12, LAST), (10, FIRST), (13, WHOLE)] {
            fragments.see(number, packet);
        }
        assert!(fragments.claim(10..=12), "the one between was repeated");
        assert!(fragments.claim(13..=13));
        assert_eq!(fragments.seen.len(), 0);
    }

    #[test]
    fn fragments_without_an_end_are_counted_whether_they_came_in_pictures_or_not() {
        let long = [NEXT, &[0; 1_000]].concat();
        let mut fragments = Fragments::default();
        let mut number = 0;
        while !fragments.is_endless() {
            fragments.see(number as u16, &long);
            fragments.see(number as u16 + 1, &long);
            fragments.see(number as u16 + 2, WHOLE);
            if number % 2 == 0 {
                fragments.claim(number + 1..=number + 1);
            }
            assert!(fragments.claim(number + 2..=number + 2));
            number += 3;
            assert!(number < 30_000 && fragments.seen.is_empty());
        }
        assert!(number as usize * 1_000 > MAX_UNIT / 2);
        // Of packets that no picture claims no more is remembered than the engine keeps.
        let mut fragments = Fragments::default();
        for number in 0..60_000 {
            fragments.see(number, &long);
            assert!(fragments.seen.len() <= MAX_PACKETS);
        }
        assert!(fragments.is_endless());
        // Of two with one number the end is not believed.
        let mut fragments = Fragments::default();
        for (number, packet) in [(0, FIRST), (1, LAST), (1, NEXT)] {
            fragments.see(number, packet);
        }
        assert!(!fragments.claim(0..=1) && fragments.held > 0);
    }
}
