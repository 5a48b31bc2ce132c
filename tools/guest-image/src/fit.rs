//! Checks an image before anything starts, by the loader that the vmm itself uses.

use std::ops::Range;

use vmm::{GuestMemory, LoadError};

use crate::Error;

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
pub fn check(file: &[u8], ram: &Range<u64>, command_line: &str) -> Result<(), Error> {
    let loaded = vmm::load(
        file,
        command_line.as_bytes(),
        ram.clone(),
        &mut Room(ram.clone()),
    );
    let Err(error) = loaded else {
        return Ok(());
    };
    Err(match error {
        LoadError::NotElf => Error::new(
            "it is not a whole ELF file",
            "name a static ELF64 executable, or the folder of a guest's crate",
        ),
        LoadError::OtherMachine => Error::new(
            "it is for another machine",
            "build it for x86_64 (ELF64, little-endian)",
        ),
        LoadError::NotExecutable => Error::new(
            "it is not a static executable",
            "link it at a fixed address, without a dynamic loader (-static -no-pie)",
        ),
        LoadError::DoesNotFit(start, size) => Error::new(
            format!(
                "a segment of {size:#x} bytes at {start:#x} does not fit into its RAM, \
                 {:#x} to {:#x}, whose first 64 KiB are taken",
                ram.start, ram.end
            ),
            if start >> 47 != 0 {
                "link it at a physical address in that memory: virtual addresses may lie \
                 elsewhere, physical ones (LMA, `AT` in a linker script) may not"
            } else if start < ram.start {
                "give the guest `address = 0`, which its devices can use where an IOMMU \
                 translates (`--iommu amd`), or link it for that memory"
            } else {
                "give it more `memory`, or link it for that memory (guests/kit/guest.ld does)"
            },
        ),
        LoadError::BadEntry(entry) => Error::new(
            format!("its entry point {entry:#x} is in no segment"),
            "check the linker script's ENTRY",
        ),
        LoadError::CommandLine => {
            Error::new("its command line is too long", "shorten `command-line`")
        }
    })
}
