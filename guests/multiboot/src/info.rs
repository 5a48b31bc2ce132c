//! Multiboot information (specification 0.6.96 section 3.3).

use crate::Memory;

/// Bits of the flags: memory sizes, command line, modules, memory map.
pub const MEMORY: u32 = 1 << 0;
/// There is a command line.
pub const COMMAND_LINE: u32 = 1 << 2;
/// There are modules.
pub const MODULES: u32 = 1 << 3;
/// There is a memory map.
pub const MAP: u32 = 1 << 6;

/// The information at an address.
#[derive(Clone, Copy, Debug)]
pub struct Info<'m, M> {
    memory: &'m M,
    address: u64,
}

impl<'m, M: Memory> Info<'m, M> {
    /// Takes the information at an address.
    pub const fn new(memory: &'m M, address: u64) -> Self {
        Self { memory, address }
    }

    fn field(&self, offset: u64) -> u32 {
        self.memory.word(self.address + offset).unwrap_or(0)
    }

    /// Returns whether all of these flags are set.
    pub fn has(&self, flags: u32) -> bool {
        self.field(0) & flags == flags
    }

    /// Returns the KiB of memory from 1 MiB on.
    pub fn upper_kib(&self) -> u32 {
        self.field(8)
    }

    /// Returns the address of the command line.
    pub fn command_line(&self) -> u64 {
        self.field(16).into()
    }

    /// Returns the start, the end and the name's address of a module.
    pub fn module(&self, index: u32) -> Option<(u64, u64, u64)> {
        if index >= self.field(20) {
            return None;
        }
        let at = u64::from(self.field(24)) + 16 * u64::from(index);
        let word = |offset| self.memory.word(at + offset).map(u64::from);
        Some((word(0)?, word(4)?, word(8)?))
    }

    /// Returns the bytes of usable memory in the map, which has 64 entries at most.
    pub fn usable(&self) -> u64 {
        let start = u64::from(self.field(48));
        let end = start + u64::from(self.field(44));
        let mut at = start;
        let mut sum = 0;
        for _ in 0..64 {
            let entry = |offset| self.memory.word(at + offset).unwrap_or(0);
            if at >= end {
                break;
            }
            let length = u64::from(entry(16)) << 32 | u64::from(entry(12));
            if entry(20) == 1 {
                sum += length;
            }
            at += u64::from(entry(0)) + 4;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    struct Bytes(Vec<u8>);

    impl Memory for Bytes {
        fn byte(&self, address: u64) -> Option<u8> {
            self.0.get(usize::try_from(address).ok()?).copied()
        }
    }

    #[test]
    fn fields() {
        let mut memory = Bytes(vec![0; 256]);
        let mut put = |at: usize, value: u32| {
            memory.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        for (at, value) in [
            (0, 0x4d),
            (8, 7),
            (16, 200),
            (20, 1),
            (24, 128),
            (44, 48),
            (48, 144),
            (128, 1),
            (132, 2),
            (136, 3),
            (144, 20),
            (156, 100),
            (164, 1),
            (168, 20),
            (188, 2),
        ] {
            put(at, value);
        }
        put(180, 50);
        memory.0[200..203].copy_from_slice(b"hi\0");
        let info = Info::new(&memory, 0);
        assert!(info.has(MEMORY | COMMAND_LINE | MODULES | MAP) && !info.has(2));
        assert_eq!((info.upper_kib(), info.usable()), (7, 100));
        assert!(memory.is_text(info.command_line(), "hi"));
        assert!(!memory.is_text(info.command_line(), "h"));
        assert_eq!(info.module(0), Some((1, 2, 3)));
        assert_eq!(info.module(1), None);
    }

    #[test]
    fn a_map_without_end_ends() {
        let memory = Bytes(vec![0xff; 64]);
        Info::new(&memory, 0).usable();
    }
}
