//! Lines from the serial port for people.

/// Longest line kept while it is not complete, in bytes.
const LINE_MAX: usize = 1024;

/// Puts bytes together to lines that are safe to print.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
}

impl Lines {
    /// Takes bytes. Returns the lines that they complete. Control characters become
    /// dots: the guest must not control the terminal.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => lines.push(self.take()),
                b'\r' => {}
                b'\t' | b' '..=b'~' | 0x80.. => self.line.push(byte),
                _ => self.line.push(b'.'),
            }
            if self.line.len() >= LINE_MAX {
                lines.push(self.take());
            }
        }
        lines
    }

    /// Returns the incomplete last line, if any.
    pub fn finish(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.line)
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '.' } else { c })
            .collect();
        self.line.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let mut lines = Lines::default();
        assert!(lines.push(b"[web] he").is_empty());
        assert_eq!(lines.push(b"llo\r\nnext"), ["[web] hello"]);
        assert_eq!(lines.finish().as_deref(), Some("next"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn nothing_drives_the_terminal() {
        let mut lines = Lines::default();
        // The second is CSI as one character of Unicode.
        assert_eq!(lines.push(b"\x1b[2J\xc2\x9b1m\n"), [".[2J.1m"]);
    }

    #[test]
    fn an_endless_line_is_broken() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&[b'x'; 3 * LINE_MAX]).len(), 3);
    }
}
