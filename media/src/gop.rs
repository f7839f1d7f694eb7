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
