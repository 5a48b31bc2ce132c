//! The guest's command line: words separated by spaces, some of them `name=value`.
#![forbid(unsafe_code)]

/// Longest command line that is read, in bytes (Linux's COMMAND_LINE_SIZE on x86).
pub const MAX_LENGTH: usize = 2048;

/// A command line.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine<'a>(&'a str);

impl<'a> CommandLine<'a> {
    /// Takes the bytes up to the first zero; invalid UTF-8 ends the line too.
    pub fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or(&[]);
        Self(match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        })
    }

    /// Returns the value of the last `name=value` word.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.0
            .split_ascii_whitespace()
            .rev()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns the value of `name=N` as a decimal number; `None` if it is not
    /// one.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::CommandLine;

    #[test]
    fn values_are_found_by_whole_name_and_the_last_wins() {
        let line = CommandLine::new(b"host=vectis  tsc_khz=1 tsc_khz=2400000 xhost=no\0junk=1");
        assert_eq!(line.value("host"), Some("vectis"));
        assert_eq!(line.number("tsc_khz"), Some(2_400_000));
        assert_eq!(line.value("junk"), None);
        assert_eq!(line.number("host"), None);
        assert_eq!(line.value("tsc"), None);
    }

    #[test]
    fn bad_bytes_end_the_line() {
        let line = CommandLine::new(b"a=1 b=\xff c=3");
        assert_eq!(line.value("a"), Some("1"));
        assert_eq!(line.value("c"), None);
    }
}
