//! A VGA screen that shows text: where a letter goes, and how to tell that it does show text.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

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

const COLUMNS: usize = 80;
const ROWS: usize = 25;
/// Light grey on black.
const COLOUR: u16 = 0x0700;

/// Returns whether these registers are of a screen that shows text of 80 columns at
/// [`TEXT_MEMORY`]. Where there is no VGA, each is all ones.
#[must_use]
pub const fn shows_text(miscellaneous: u8, columns_less_one: u8) -> bool {
    // Bit 0: graphics; bits 3 and 2: 32 KiB at 0xb8000.
    miscellaneous & 0xd == 0xc && columns_less_one as usize + 1 == COLUMNS
}

/// What stands on the screen: its memory is only written, since reading it is slow.
/// Empty cells are 0, so that the image has none of it.
pub struct Text {
    cells: [AtomicU8; COLUMNS * ROWS],
    at: AtomicUsize,
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl Text {
    /// Returns an empty screen.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cells: [const { AtomicU8::new(0) }; COLUMNS * ROWS],
            at: AtomicUsize::new(0),
        }
    }

    /// Shows all that stands there. `show` takes the number of a cell and what it is to hold.
    pub fn draw(&self, mut show: impl FnMut(usize, u16)) {
        for (cell, byte) in self.cells.iter().enumerate() {
            let byte = byte.load(Ordering::Relaxed).max(b' ');
            show(cell, COLOUR | u16::from(byte));
        }
    }

    /// Writes text behind what is there; past the last row everything moves up.
    pub fn write(&self, text: &str, mut show: impl FnMut(usize, u16)) {
        for byte in text.bytes() {
            let mut at = self.at.load(Ordering::Relaxed);
            match byte {
                b'\n' => at = (at / COLUMNS + 1) * COLUMNS,
                b'\r' => at -= at % COLUMNS,
                _ => {
                    if at >= self.cells.len() {
                        at = self.scroll(&mut show);
                    }
                    let shown = if byte.is_ascii_graphic() || byte == b' ' {
                        byte
                    } else {
                        b'?'
                    };
                    self.cells[at].store(shown, Ordering::Relaxed);
                    show(at, COLOUR | u16::from(shown));
                    at += 1;
                }
            }
            if at > self.cells.len() {
                at = self.scroll(&mut show) + (at - self.cells.len());
            }
            self.at.store(at, Ordering::Relaxed);
        }
    }

    /// Moves everything up by a row. Returns the beginning of the last one.
    fn scroll(&self, show: impl FnMut(usize, u16)) -> usize {
        let last = self.cells.len() - COLUMNS;
        for cell in 0..self.cells.len() {
            let below = self.cells.get(cell + COLUMNS);
            let byte = below.map_or(0, |below| below.load(Ordering::Relaxed));
            self.cells[cell].store(byte, Ordering::Relaxed);
        }
        self.draw(show);
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::format;
    use std::string::String;

    /// A screen, and its memory.
    struct Screen(Text, [u16; COLUMNS * ROWS]);

    impl Screen {
        fn new() -> Self {
            Self(Text::new(), [COLOUR | b' ' as u16; COLUMNS * ROWS])
        }

        fn write(&mut self, text: &str) {
            self.0.write(text, |cell, value| self.1[cell] = value);
        }

        fn row(&self, row: usize) -> String {
            let cells = &self.1[row * COLUMNS..][..COLUMNS];
            let bytes = cells.iter().map(|cell| {
                assert_eq!(cell & 0xff00, COLOUR);
                char::from(*cell as u8)
            });
            bytes.collect::<String>().trim_end().into()
        }
    }

    #[test]
    fn lines_follow_each_other_and_move_up() {
        let mut screen = Screen::new();
        screen.write("one\r\ntwo\nth");
        screen.write("ree\u{e9}\t");
        assert_eq!(
            [0, 1, 2].map(|row| screen.row(row)),
            ["one", "two", "three???"]
        );
        for line in 0..100 {
            screen.write(&format!("\nline {line}"));
        }
        assert_eq!(screen.row(0), "line 75");
        assert_eq!(screen.row(24), "line 99");
        screen.write("\r\n");
        assert_eq!(
            screen.row(24),
            "line 99",
            "an end of line alone moves nothing"
        );
        screen.write("last");
        assert_eq!(
            (screen.row(23), screen.row(24)),
            ("line 99".into(), "last".into())
        );
    }

    #[test]
    fn long_lines_go_on_in_the_next_row() {
        let mut screen = Screen::new();
        let long: String = "x".repeat(COLUMNS * ROWS);
        screen.write(&long);
        assert_eq!(screen.row(24), "x".repeat(COLUMNS));
        screen.write("y\n\nz");
        assert_eq!([22, 23, 24].map(|row| screen.row(row)), ["y", "", "z"]);
        screen.write(&"\n".repeat(1000));
        screen.write("end");
        assert_eq!(
            (screen.row(23), screen.row(24)),
            (String::new(), "end".into())
        );
    }

    #[test]
    fn only_a_screen_of_text_is_one() {
        // As SeaBIOS sets it, and QEMU's for graphics; no VGA; monochrome; 40 columns.
        assert!(shows_text(0x0e, 79));
        for (miscellaneous, columns) in [(0x05, 79), (0xff, 0xff), (0x0a, 79), (0x0e, 39)] {
            assert!(!shows_text(miscellaneous, columns));
        }
    }
}
