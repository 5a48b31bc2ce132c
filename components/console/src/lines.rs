//! Guest output, a line at a time under the guest's name.

use heapless::Vec;
use shm::{RING_RECORD_MAX, Ring};

use crate::Output;

/// Longest line, in bytes; a longer one is broken.
pub const LINE_MAX: usize = 240;

/// Records taken from one guest before the others have their turn.
const TURN: usize = 64;

/// One guest's output.
#[derive(Debug)]
pub struct Lines<'a> {
    name: &'a str,
    line: Vec<u8, LINE_MAX>,
}

impl<'a> Lines<'a> {
    /// Returns the output of the guest `name`.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self {
            name,
            line: Vec::new(),
        }
    }

    /// Takes the guest's output. A line is printed when it is complete;
    /// control characters become dots, so that a guest cannot drive the
    /// terminal. `true` if there may be more: a vmm that was taken over can fill
    /// its ring faster than a serial port empties it.
    pub fn drain(&mut self, ring: &Ring, output: &mut impl Output) -> bool {
        let mut record = [0; RING_RECORD_MAX];
        for _ in 0..TURN {
            let Some(length) = ring.pop(&mut record) else {
                return false;
            };
            for &byte in &record[..length] {
                match byte {
                    b'\n' => self.flush(output),
                    b'\r' => {}
                    _ => {
                        let shown = match byte {
                            b'\t' | b' '..=b'~' | 0x80.. => byte,
                            _ => b'.',
                        };
                        if self.line.push(shown).is_err() {
                            self.flush(output);
                            let _ = self.line.push(shown);
                        }
                    }
                }
            }
        }
        !ring.is_empty()
    }

    fn flush(&mut self, output: &mut impl Output) {
        output.put(b'[');
        output.text(self.name);
        output.text("] ");
        for &byte in &self.line {
            output.put(byte);
        }
        output.text("\r\n");
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::boxed::Box;
    use std::string::{String, ToString};

    #[derive(Default)]
    struct Text(std::vec::Vec<u8>);

    impl Output for Text {
        fn put(&mut self, byte: u8) {
            self.0.push(byte);
        }
    }

    fn drained(records: &[&[u8]]) -> String {
        let ring = Box::new(Ring::new());
        for record in records {
            assert!(ring.push(record));
        }
        let mut text = Text::default();
        assert!(!Lines::new("web").drain(&ring, &mut text));
        String::from_utf8_lossy(&text.0).to_string()
    }

    #[test]
    fn whole_lines_under_the_guest_s_name() {
        assert_eq!(
            drained(&[b"a", b"b\r\n", b"c\nd"]),
            "[web] ab\r\n[web] c\r\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(drained(&[b"\x1b[2Jx\n"]), "[web] .[2Jx\r\n");
    }

    #[test]
    fn a_flood_gets_one_turn() {
        let ring = Box::new(Ring::new());
        for _ in 0..=TURN {
            ring.push(b"x\n");
        }
        let mut lines = Lines::new("web");
        let mut text = Text::default();
        assert!(lines.drain(&ring, &mut text));
        assert_eq!(text.0.len(), TURN * "[web] x\r\n".len());
        assert!(!lines.drain(&ring, &mut text));
        assert_eq!(text.0.len(), (TURN + 1) * "[web] x\r\n".len());
    }

    #[test]
    fn long_lines_are_broken() {
        let long = [b'x'; LINE_MAX + 1];
        let text = drained(&[&long, b"\n"]);
        assert_eq!(text.lines().count(), 2);
        // Nothing of them is lost.
        assert_eq!(text.matches('x').count(), LINE_MAX + 1);
        let text = drained(&[&long[1..], b"\n"]);
        assert_eq!(text.lines().count(), 1);
    }
}
