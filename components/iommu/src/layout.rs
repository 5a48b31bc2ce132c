//! Which frame capabilities make up a guest's RAM.

use core::ops::Range;

use crate::hardware::PAGE;
use crate::pages::FRAME;

/// Small pages in the place of a frame.
const SPLIT: u64 = FRAME / PAGE as u64;

/// A guest's RAM as pages, in the order of their addresses: each is a frame of
/// [`FRAME`] bytes, or 512 pages of 4 KiB stand in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The number of pages.
    pub pages: u64,
    /// Which of the first 64 frames are 512 pages: a bit each.
    pub split: u64,
}

impl Layout {
    /// Returns the number of frames.
    #[must_use]
    pub const fn frames(self) -> u64 {
        let more = self.split.count_ones() as u64 * (SPLIT - 1);
        self.pages.saturating_sub(more)
    }

    /// Returns the pages that make up a frame; `None` if there is no such frame.
    #[must_use]
    pub fn pages_of(self, frame: u64) -> Option<Range<u64>> {
        if frame >= self.frames() {
            return None;
        }
        let below = match 1u64.checked_shl(u32::try_from(frame).unwrap_or(u32::MAX)) {
            Some(bit) => self.split & (bit - 1),
            None => self.split,
        };
        let first = frame + u64::from(below.count_ones()) * (SPLIT - 1);
        let is_split = frame < 64 && self.split >> frame & 1 == 1;
        let pages = if is_split { SPLIT } else { 1 };
        Some(first..first + pages)
    }

    /// Returns the machine address of a frame of which `address` returns that of each
    /// page. `None` if there is no such frame, or its pages do not lie behind each other.
    pub fn machine(self, frame: u64, mut address: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        let mut pages = self.pages_of(frame)?;
        let first = address(pages.next()?)?;
        let mut next = first;
        for page in pages {
            next = next.checked_add(PAGE as u64)?;
            if address(page) != Some(next) {
                return None;
            }
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_not_split_are_pages() {
        let layout = Layout {
            pages: 200,
            split: 0,
        };
        assert_eq!(layout.frames(), 200);
        for frame in [0, 63, 64, 199] {
            assert_eq!(layout.pages_of(frame), Some(frame..frame + 1));
        }
        assert_eq!(layout.pages_of(200), None);
        assert_eq!(layout.pages_of(u64::MAX), None);
    }

    #[test]
    fn a_split_frame_moves_those_behind_it() {
        let layout = Layout {
            pages: 512 + 2 + 512 + 70,
            split: 0b1001,
        };
        assert_eq!(layout.frames(), 74);
        assert_eq!(layout.pages_of(0), Some(0..512));
        assert_eq!(layout.pages_of(1), Some(512..513));
        assert_eq!(layout.pages_of(2), Some(513..514));
        assert_eq!(layout.pages_of(3), Some(514..1026));
        assert_eq!(layout.pages_of(4), Some(1026..1027));
        assert_eq!(layout.pages_of(73), Some(1095..1096));
        assert_eq!(layout.pages_of(74), None);
        let last = Layout {
            pages: 63 + 512 + 1,
            split: 1 << 63,
        };
        assert_eq!(last.pages_of(63), Some(63..575));
        assert_eq!(last.pages_of(64), Some(575..576));
    }

    #[test]
    fn the_pages_of_a_frame_lie_behind_each_other() {
        let layout = Layout {
            pages: 513,
            split: 1,
        };
        let at = |page: u64| 0x20_0000 + page * 0x1000;
        assert_eq!(layout.machine(0, |page| Some(at(page))), Some(0x20_0000));
        assert_eq!(layout.machine(1, |page| Some(at(page))), Some(0x40_0000));
        assert_eq!(layout.machine(2, |page| Some(at(page))), None);
        let hole = |page| (page != 77).then(|| at(page));
        assert_eq!(layout.machine(0, hole), None);
        let moved = |page| Some(if page == 511 { 0 } else { at(page) });
        assert_eq!(layout.machine(0, moved), None);
        assert_eq!(layout.machine(1, moved), Some(0x40_0000));
    }
}
