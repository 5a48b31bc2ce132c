//! What stands on the screen, in rows that move up.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Letters of a row.
pub const COLUMNS: usize = 80;
/// Rows.
pub const ROWS: usize = 25;

/// What stands on the screen: its memory is only written, since reading it is slow, and
/// only where something changes. Empty cells are 0, so that the image has none of it.
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

    /// Shows all that stands there. `show` takes the number of a cell and its letter.
    pub fn draw(&self, mut show: impl FnMut(usize, u8)) {
        for (cell, byte) in self.cells.iter().enumerate() {
            show(cell, letter(byte));
        }
    }

    /// Writes text behind what is there; past the last row everything moves up.
    pub fn write(&self, text: &str, mut show: impl FnMut(usize, u8)) {
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
                    show(at, shown);
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
    fn scroll(&self, mut show: impl FnMut(usize, u8)) -> usize {
        let last = self.cells.len() - COLUMNS;
        for (number, cell) in self.cells.iter().enumerate() {
            let below = self.cells.get(number + COLUMNS).map_or(b' ', letter);
            if letter(cell) != below {
                cell.store(below, Ordering::Relaxed);
                show(number, below);
            }
        }
        last
    }
}

/// Returns what a cell shows.
fn letter(cell: &AtomicU8) -> u8 {
    cell.load(Ordering::Relaxed).max(b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::format;
    use std::string::String;

    /// A screen, and its memory.
    struct Screen(Text, [u8; COLUMNS * ROWS]);

    impl Screen {
        fn new() -> Self {
            Self(Text::new(), [b' '; COLUMNS * ROWS])
        }

        fn write(&mut self, text: &str) {
            self.0.write(text, |cell, value| self.1[cell] = value);
        }

        fn row(&self, row: usize) -> String {
            let cells = &self.1[row * COLUMNS..][..COLUMNS];
            let letters = cells.iter().map(|letter| char::from(*letter));
            letters.collect::<String>().trim_end().into()
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
    fn what_stays_is_not_written_again() {
        let text = Text::new();
        text.write(&"same\n".repeat(ROWS), |_, _| {});
        let mut written = 0;
        text.write("same", |_, _| written += 1);
        // The row that was last moves up as it is, and the new one is written.
        assert_eq!(written, "same".len() + "same".len());
    }
}
