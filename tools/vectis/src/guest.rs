//! Checks a guest's image before anything starts, by the loader that the vmm
//! itself uses.

use std::ops::Range;

use system::Guest;
use vmm::{GuestMemory, LoadError};

use crate::error::{Error, Result};

/// Guest RAM of which only the place counts.
struct Room(Range<u64>);

impl GuestMemory for Room {
    fn read_ram(&mut self, _address: u64, _bytes: &mut [u8]) -> bool {
        false
    }
    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool {
        let end = address.checked_add(bytes.len() as u64);
        self.0.start <= address && end.is_some_and(|end| end <= self.0.end)
    }
}

/// Checks that the vmm will be able to load `file`.
///
/// # Errors
/// If not, with the file's fault.
pub fn check(guest: &Guest, file: &[u8]) -> Result<()> {
    let ram = guest.address..guest.address + guest.memory;
    let Err(error) = vmm::load(
        file,
        guest.command_line.as_bytes(),
        ram.clone(),
        &mut Room(ram.clone()),
    ) else {
        return Ok(());
    };
    let (cause, help) = match error {
        LoadError::NotElf => (
            "it is not a (whole) ELF file".to_owned(),
            "name a static ELF64 executable, or the folder of a guest's crate",
        ),
        LoadError::OtherMachine => (
            "it is for another machine".to_owned(),
            "build it for x86_64 (ELF64, little-endian)",
        ),
        LoadError::NotExecutable => (
            "it is not a static executable".to_owned(),
            "link it at a fixed address, without a dynamic loader (-static -no-pie)",
        ),
        LoadError::DoesNotFit(start, size) => (
            format!(
                "a segment of {size:#x} bytes at {start:#x} does not fit into its RAM, \
                 {:#x} to {:#x}, whose first 64 KiB are taken",
                ram.start, ram.end
            ),
            "link it for that memory (guests/kit/guest.ld does), or give it more `memory`",
        ),
        LoadError::BadEntry(entry) => (
            format!("its entry point {entry:#x} is in no segment"),
            "check the linker script's ENTRY",
        ),
        LoadError::CommandLine => (
            "its command line is too long".to_owned(),
            "shorten `command-line`",
        ),
    };
    Err(Error::new(
        format!("the image of guest {} cannot be loaded", guest.name),
        cause,
        help,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest {
            name: "g".to_owned(),
            image: system::GuestImage::File("g".into()),
            vmm: 0,
            memory: 4 << 20,
            address: 0x1000_0000,
            machine_address: 0x1000_0000,
            priority: 1,
            devices: Vec::new(),
            command_line: String::new(),
            interrupt_budget: 20_000,
            on_exit: system::OnExit::Stop,
            share: 1,
        }
    }

    /// Returns an ELF file for `machine` with one segment without contents.
    fn file(machine: u16, address: u64, size: u64) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2, 0]);
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        for word in [address, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0; 4]);
        for half in [64u16, 56, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1u32.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        for word in [120, address, address, 0, size, 4096] {
            file.extend(word.to_le_bytes());
        }
        file
    }

    fn cause(bytes: &[u8]) -> String {
        check(&guest(), bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_fitting_image_passes() {
        assert_eq!(check(&guest(), &file(62, 0x1010_0000, 4096)), Ok(()));
    }

    #[test]
    fn each_mistake_is_named() {
        assert!(cause(b"#!/bin/sh").contains("ELF"));
        assert!(cause(&file(183, 0x1010_0000, 4096)).contains("another machine"));
        assert!(cause(&file(62, 0x1010_0000, 4 << 20)).contains("does not fit"));
        assert!(cause(&file(62, 0x10_0000, 4096)).contains("0x10000000 to 0x10400000"));
    }
}
