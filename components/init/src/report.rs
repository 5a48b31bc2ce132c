//! A component's fault in words.

use core::fmt;

use heapless::Vec;
use spec::STACK_TOP;

/// Deepest backtrace.
pub const BACKTRACE_MAX: usize = 16;
const PAGE: u64 = 4096;

/// Why a component stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ran out of stack: an access in the guard page below it.
    StackOverflow(u64),
    /// An access at this address.
    Memory {
        /// The address.
        address: u64,
        /// It was a write.
        write: bool,
        /// It was an instruction fetch.
        fetch: bool,
    },
    /// A processor exception with this vector.
    Exception(u64),
    /// A capability that is not there.
    Capability(u64),
    /// A system call that does not exist.
    SystemCall(u64),
    /// It panicked, and has said why.
    Panic,
    /// Something else.
    Unknown(u64),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::StackOverflow(address) => {
                write!(f, "stack-overflow address={address:#x}")
            }
            Self::Memory {
                address,
                write,
                fetch,
            } => {
                let access = match (fetch, write) {
                    (true, _) => "fetch",
                    (false, true) => "write",
                    (false, false) => "read",
                };
                write!(f, "page-fault access={access} address={address:#x}")
            }
            Self::Exception(6) => f.write_str("invalid-instruction"),
            Self::Exception(vector) => write!(f, "exception vector={vector}"),
            Self::Capability(cptr) => write!(f, "missing-capability cptr={cptr:#x}"),
            Self::SystemCall(number) => write!(f, "unknown-system-call number={number}"),
            Self::Panic => f.write_str("panic"),
            Self::Unknown(label) => write!(f, "unknown label={label}"),
        }
    }
}

/// The text of a panic, for a terminal: each of its lines begins with the monitor's name, and
/// what is no printable ASCII becomes a question mark.
pub struct LastWords<'a>(pub &'a [u64]);

impl fmt::Display for LastWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.iter().flat_map(|word| word.to_le_bytes());
        f.write_str("init:  ")?;
        for byte in bytes.take_while(|byte| *byte != 0) {
            match byte {
                b'\n' => f.write_str("\r\ninit:  ")?,
                b' '..=b'~' => fmt::Write::write_char(f, byte.into())?,
                _ => f.write_str("?")?,
            }
        }
        f.write_str("\r\n")
    }
}

/// Returns whether an address lies in the guard page below a stack of this many
/// bytes.
#[must_use]
pub const fn in_guard_page(address: u64, stack_size: u64) -> bool {
    let bottom = STACK_TOP - stack_size;
    address < bottom && address >= bottom - PAGE
}

/// Returns the return addresses, innermost first, by following frame pointers
/// from `rbp` through a stack of `stack_size` bytes; `read` returns the word
/// at an address of the stack. Ends at the first invalid frame.
pub fn backtrace(
    rbp: u64,
    stack_size: u64,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Vec<u64, BACKTRACE_MAX> {
    let mut trace = Vec::new();
    let mut frame = rbp;
    let bottom = STACK_TOP - stack_size;
    while frame >= bottom && frame <= STACK_TOP - 16 && frame.is_multiple_of(8) {
        let (Some(next), Some(address)) = (read(frame), read(frame + 8)) else {
            break;
        };
        if trace.push(address).is_err() || next <= frame {
            break;
        }
        frame = next;
    }
    trace
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString;

    #[test]
    fn last_words_are_shown_and_harmless() {
        let text = b"panicked at x.rs:1:\nno HPET\x1b[2J\xff here\0behind";
        let mut words = [0u64; 6];
        for (word, bytes) in words.iter_mut().zip(text.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(eight);
        }
        let shown = LastWords(&words).to_string();
        let expected = "init:  panicked at x.rs:1:\r\ninit:  no HPET?[2J? here\r\n";
        assert_eq!(shown, expected);
        assert_eq!(LastWords(&[]).to_string(), "init:  \r\n");
        // A message without an end.
        assert_eq!(LastWords(&[0x4141_4141_4141_4141]).to_string().len(), 17);
    }

    #[test]
    fn follows_frames_to_the_end() {
        let frames = [
            (STACK_TOP - 0x100, STACK_TOP - 0x40, 1),
            (STACK_TOP - 0x40, 0, 2),
        ];
        let read = |at: u64| {
            frames.iter().find_map(|&(frame, next, address)| {
                (at == frame)
                    .then_some(next)
                    .or((at == frame + 8).then_some(address))
            })
        };
        assert_eq!(&backtrace(STACK_TOP - 0x100, 4096, read)[..], [1, 2]);
    }

    #[test]
    fn a_broken_stack_ends_the_trace() {
        assert!(backtrace(0, 4096, |_| Some(1)).is_empty());
        assert!(backtrace(STACK_TOP - 8, 4096, |_| Some(1)).is_empty());
        // A frame that points at itself.
        let own = STACK_TOP - 0x100;
        assert_eq!(backtrace(own, 4096, |_| Some(own)).len(), 1);
        // A long chain is cut.
        assert_eq!(
            backtrace(STACK_TOP - 4096, 4096, |at| Some(at + 16)).len(),
            BACKTRACE_MAX
        );
    }

    #[test]
    fn guard_page() {
        assert!(in_guard_page(STACK_TOP - 4096 - 1, 4096));
        assert!(!in_guard_page(STACK_TOP - 4096, 4096));
        assert!(!in_guard_page(STACK_TOP - 8192 - 1, 4096));
    }

    #[test]
    fn words_for_people() {
        let cause = Cause::Memory {
            address: 16,
            write: true,
            fetch: false,
        };
        assert_eq!(cause.to_string(), "page-fault access=write address=0x10");
    }
}
