//! Images that are guests, and images that are not.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;

const RAM: Range<u64> = 0x1000_0000..0x1010_0000;

struct Memory(Vec<u8>);

impl GuestMemory for Memory {
    fn read_ram(&mut self, _: u64, _: &mut [u8]) -> bool {
        false
    }
    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool {
        let start = (address - RAM.start) as usize;
        self.0
            .get_mut(start..start + bytes.len())
            .map(|place| place.copy_from_slice(bytes))
            .is_some()
    }
}

fn memory() -> Memory {
    Memory(vec![0xee; (RAM.end - RAM.start) as usize])
}

/// Returns an ELF file with one segment of four bytes, `memory` bytes large.
fn image(address: u64, memory: u64) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(2u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(address.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    file.extend(7u32.to_le_bytes());
    for word in [120, address, address, 4, memory, 16] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(b"code");
    file
}

#[test]
fn loads_segment_and_boot_parameters() {
    let mut host = memory();
    let at = RAM.start + 0x2_0000;
    let result = load(&image(at, 0x3000), b"tsc_khz=5", RAM, &mut host);
    assert_eq!(result, Ok((at, RAM.start + BOOT_PARAMS_OFFSET)));
    assert_eq!(&host.0[0x2_0000..0x2_0005], b"code\0");
    assert!(host.0[0x2_0004..0x2_3000].iter().all(|&b| b == 0));
    assert_eq!(host.0[0x2_3000], 0xee);
    let params = &host.0[BOOT_PARAMS_OFFSET as usize..];
    assert_eq!(params[E820_COUNT], 1);
    assert_eq!(params[E820_TABLE..][..8], RAM.start.to_le_bytes());
    assert_eq!(params[E820_TABLE + 8..][..8], 0x10_0000u64.to_le_bytes());
    assert_eq!(&host.0[0x2000..0x200a], b"tsc_khz=5\0");
}

#[test]
fn an_image_that_is_linked_elsewhere_is_entered_there() {
    let (at, linked) = (RAM.start + 0x2_0000, 0xffff_8000_0002_0000_u64);
    let entered_at = |entry: u64| {
        let mut file = image(at, 0x3000);
        file[24..32].copy_from_slice(&entry.to_le_bytes());
        file[80..88].copy_from_slice(&linked.to_le_bytes());
        let loaded = load(&file, b"", RAM, &mut memory());
        loaded.map(|(entry, _)| entry)
    };
    assert_eq!(entered_at(linked + 2), Ok(linked + 2));
    assert_eq!(entered_at(at + 2), Ok(at + 2));
    let behind = linked + 0x3000;
    assert_eq!(entered_at(behind), Err(LoadError::BadEntry(behind)));
}

#[test]
fn refuses_what_does_not_fit() {
    for (address, size) in [
        (RAM.start, 4),
        (RAM.start + RESERVED - 1, 4),
        (RAM.end - 4, 8),
        (0x10_0000, 4),
        (u64::MAX - 2, 4),
        (RAM.start + RESERVED, u64::MAX),
        (RAM.start + RESERVED, 3),
    ] {
        let result = load(&image(address, size), b"", RAM, &mut memory());
        assert_eq!(result, Err(LoadError::DoesNotFit(address, size)));
    }
}

#[test]
fn refuses_what_is_no_guest() {
    let good = image(RAM.start + RESERVED, 16);
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        load(&bad, b"", RAM, &mut memory())
    };
    assert_eq!(with(0, 0), Err(LoadError::NotElf));
    assert_eq!(with(18, 40), Err(LoadError::OtherMachine));
    assert_eq!(with(16, 3), Err(LoadError::NotExecutable));
    assert!(matches!(with(26, 0), Err(LoadError::BadEntry(_))));
    let long = vec![b'a'; COMMAND_LINE_MAX + 1];
    assert_eq!(
        load(&good, &long, RAM, &mut memory()),
        Err(LoadError::CommandLine)
    );
}

#[test]
fn cut_files_never_panic() {
    let good = image(RAM.start + RESERVED, 16);
    for end in 0..good.len() {
        assert!(
            load(&good[..end], b"", RAM, &mut memory()).is_err(),
            "{end}"
        );
    }
}
