//! A VGA that shows text: how to tell that it does, and how a cell is written.

use crate::COLUMNS;

/// Ports by which a register of the graphics controller is chosen and read.
pub const GRAPHICS_PORTS: (u16, u16) = (0x3ce, 0x3cf);
/// Ports by which a register of the CRT controller is chosen and read, in colour.
pub const CRT_PORTS: (u16, u16) = (0x3d4, 0x3d5);
/// The graphics controller's register that says what is shown and where its memory is.
pub const MISCELLANEOUS: u8 = 6;
/// The CRT controller's register with the columns, less one.
pub const COLUMNS_LESS_ONE: u8 = 1;
/// Where the memory of a colour text screen is.
pub const TEXT_MEMORY: u64 = 0xb8000;

/// Light grey on black.
const COLOUR: u16 = 0x0700;

/// Returns whether these registers are of a screen that shows text of 80 columns at
/// [`TEXT_MEMORY`]. Where there is no VGA, each is all ones.
#[must_use]
pub const fn shows_text(miscellaneous: u8, columns_less_one: u8) -> bool {
    // Bit 0: graphics; bits 3 and 2: 32 KiB at 0xb8000.
    miscellaneous & 0xd == 0xc && columns_less_one as usize + 1 == COLUMNS
}

/// Returns what the memory of a cell holds that shows this letter.
#[must_use]
pub const fn cell(letter: u8) -> u16 {
    COLOUR | letter as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_screen_of_text_is_one() {
        // As SeaBIOS sets it, and QEMU's for graphics; no VGA; monochrome; 40 columns.
        assert!(shows_text(0x0e, 79));
        for (miscellaneous, columns) in
            [(0x05, 79), (0x0f, 79), (0xff, 0xff), (0x0a, 79), (0x0e, 39)]
        {
            assert!(!shows_text(miscellaneous, columns));
        }
    }
}
