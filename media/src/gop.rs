//! The pictures from the last key frame on, for those who join a stream in the middle.

use crate::frame::{AccessUnit, Ticks};

/// Bytes that are kept at most.
pub const MAX_BYTES: usize = 4 << 20;
/// How much media time is kept at most.
pub const MAX_TIME: Ticks = Ticks(4 * Ticks::SECOND.0);

/// The current group of pictures. A group that passes [`MAX_BYTES`] or [`MAX_TIME`] is not kept: who joins waits for
/// the next key frame.
#[derive(Debug, Default)]
pub struct Gop {
    units: Vec<AccessUnit>,
    bytes: usize,
}

impl Gop {
    /// Takes the next picture in decoding order.
    pub fn push(&mut self, unit: &AccessUnit) {
        if unit.key {
            self.clear();
        } else if self.units.is_empty() {
            return;
        }
        self.bytes += unit.data.len();
        self.units.push(unit.clone());
        let time = unit.dts - self.units[0].dts;
        if self.bytes > MAX_BYTES || time > MAX_TIME {
            self.clear();
        }
    }

    /// Pictures were lost: what follows does not continue what is kept.
    pub fn clear(&mut self) {
        // Memory goes with it: groups differ in size.
        *self = Self::default();
    }

    /// The pictures from the last key frame on; none if there was none or the group is too large.
    #[must_use]
    pub fn units(&self) -> &[AccessUnit] {
        &self.units
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn unit(millis: i64, key: bool, bytes: usize) -> AccessUnit {
        AccessUnit {
            pts: Ticks::from_millis(millis),
            dts: Ticks::from_millis(millis),
            key,
            data: Bytes::from(vec![0; bytes]),
        }
    }

    #[test]
    fn the_pictures_from_the_last_key_frame_on_are_kept() {
        let mut gop = Gop::default();
        gop.push(&unit(0, false, 10));
        assert!(gop.units().is_empty());
        for millis in 1..10 {
            gop.push(&unit(millis, millis == 3 || millis == 7, 10));
        }
        let kept: Vec<_> = gop.units().iter().map(|unit| unit.dts.0 / 90).collect();
        assert_eq!(kept, [7, 8, 9]);
        gop.clear();
        gop.push(&unit(10, false, 10));
        assert!(gop.units().is_empty());
    }

    #[test]
    fn a_group_that_is_too_large_or_too_long_is_not_kept() {
        let mut gop = Gop::default();
        gop.push(&unit(0, true, 10));
        gop.push(&unit(4000, false, 10));
        assert_eq!(gop.units().len(), 2);
        gop.push(&unit(4001, false, 10));
        assert!(gop.units().is_empty());
        gop.push(&unit(5000, true, MAX_BYTES));
        assert_eq!(gop.units().len(), 1);
        gop.push(&unit(5001, false, 1));
        gop.push(&unit(5002, false, 1));
        assert!(gop.units().is_empty());
    }
}
