//! The report of a guest's end: where it was, and how it came there.

use core::fmt;

use crate::host::GuestMemory;
use crate::registers::{RBP, RSP, Registers};

/// Return addresses in a report, at most: a chain of frames may have no end.
const FRAMES: usize = 16;
/// Words of the stack in a report of a guest that keeps no frame pointers.
const WORDS: usize = 8;
/// Names of the general registers, in the order of [`Registers::gpr`].
const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// A guest's last state, for people. Displays as lines of `name=value` words, the first
/// of which begins with `ip=`, and a last one of addresses that begins with `backtrace`
/// or, where there are no frames, with `stack`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    registers: Registers,
    cr2: u64,
    error: u64,
    /// Return addresses, the innermost first.
    frames: heapless::Vec<u64, FRAMES>,
    stack: heapless::Vec<u64, WORDS>,
}

impl Crash {
    /// Collects the report of a guest that ended with these registers. `cr2` is the
    /// address of its last page fault, and `error` the error code of its last exception.
    pub fn new(registers: &Registers, cr2: u64, error: u64, ram: &mut impl GuestMemory) -> Self {
        let mut crash = Self {
            registers: *registers,
            cr2,
            error,
            frames: heapless::Vec::new(),
            stack: heapless::Vec::new(),
        };
        // Frames of the System V ABI with frame pointers: the caller's RBP, and above
        // it the return address. A stack grows down, so callers lie higher.
        let mut frame = registers.gpr[RBP];
        while let (Some(next), Some(address)) = (word(ram, frame), word(ram, frame.wrapping_add(8)))
            && address != 0
            && crash.frames.push(address).is_ok()
            && next > frame
        {
            frame = next;
        }
        let top = registers.gpr[RSP];
        for index in 0..WORDS as u64 {
            if let Some(word) = word(ram, top.wrapping_add(8 * index)) {
                // There is room for all.
                let _ = crash.stack.push(word);
            }
        }
        crash
    }
}

/// Returns a word of RAM at an aligned address.
fn word(ram: &mut impl GuestMemory, address: u64) -> Option<u64> {
    ram.read_word(address).filter(|_| address.is_multiple_of(8))
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Registers {
            gpr, rip, rflags, ..
        } = &self.registers;
        let (cr2, error) = (self.cr2, self.error);
        write!(
            f,
            "ip={rip:#x} flags={rflags:#x} cr2={cr2:#x} error={error:#x}"
        )?;
        for (index, (name, value)) in NAMES.iter().zip(gpr).enumerate() {
            let separator = if index % 4 == 0 { '\n' } else { ' ' };
            write!(f, "{separator}{name}={value:#x}")?;
        }
        let (kind, words) = if self.frames.is_empty() {
            ("stack", &self.stack[..])
        } else {
            ("backtrace", &self.frames[..])
        };
        write!(f, "\n{kind}")?;
        words.iter().try_for_each(|word| write!(f, " {word:#x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::string::ToString as _;
    use std::vec;
    use std::vec::Vec;

    const RAM: u64 = 0x20_0000;

    struct Memory(Vec<u8>);

    impl GuestMemory for Memory {
        fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
            let start = address.wrapping_sub(RAM) as usize;
            let end = start.wrapping_add(bytes.len());
            let found = self.0.get(start..end);
            found.map(|found| bytes.copy_from_slice(found)).is_some()
        }
        fn write_ram(&mut self, _: u64, _: &[u8]) -> bool {
            false
        }
    }

    fn memory(words: &[(u64, u64)]) -> Memory {
        let mut bytes = vec![0; 4096];
        for &(address, value) in words {
            let at = (address - RAM) as usize;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        Memory(bytes)
    }

    fn crash(rsp: u64, rbp: u64, words: &[(u64, u64)]) -> Crash {
        let mut registers = Registers {
            rip: RAM + 0x123,
            ..Registers::default()
        };
        registers.gpr[RSP] = rsp;
        registers.gpr[RBP] = rbp;
        Crash::new(&registers, 0x18, 2, &mut memory(words))
    }

    #[test]
    fn frames_are_followed_to_their_end() {
        let chain = [
            (RAM + 0x100, RAM + 0x140),
            (RAM + 0x108, 0x1111),
            (RAM + 0x140, 0),
            (RAM + 0x148, 0x2222),
        ];
        let text = crash(RAM + 0xf0, RAM + 0x100, &chain).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ip=0x200123 flags=0x0 cr2=0x18 error=0x2");
        assert_eq!(lines[2], "rsp=0x2000f0 rbp=0x200100 rsi=0x0 rdi=0x0");
        assert_eq!(lines.last(), Some(&"backtrace 0x1111 0x2222"));
    }

    #[test]
    fn a_chain_without_an_end_is_cut() {
        // It leads back to itself, up through all of RAM, or out of it.
        let back = [(RAM + 0x100, RAM + 0x100), (RAM + 0x108, 0x1111)];
        assert_eq!(crash(RAM, RAM + 0x100, &back).frames.len(), 1);
        let up: Vec<_> = (0..200u64)
            .flat_map(|i| [(RAM + 16 * i, RAM + 16 * i + 16), (RAM + 16 * i + 8, 7)])
            .collect();
        assert_eq!(crash(RAM, RAM, &up).frames.len(), FRAMES);
        for rbp in [0, u64::MAX, u64::MAX - 7, RAM + 1, RAM + 4088] {
            assert!(crash(RAM, rbp, &[]).frames.is_empty(), "{rbp:#x}");
        }
    }

    #[test]
    fn without_frames_the_stack_is_shown() {
        let crash = crash(RAM + 4080, 0, &[(RAM + 4080, 0x10_0000)]);
        assert!(crash.to_string().ends_with("\nstack 0x100000 0x0"));
    }
}
