//! Where the firmware says that a board's devices are: MCFG (PCI Firmware Specification 3.3,
//! section 4.1.2), HPET (IA-PC HPET Specification 1.0a, section 3.2.4), MADT (ACPI 6.5 section
//! 5.2.12), SPCR (Serial Port Console Redirection Table 1.07).

use core::ops::RangeInclusive;

use crate::bytes::{self, Records};
use crate::root::{HEAD, Root};
use crate::{PhysicalMemory, Unusable};

/// The window through which configuration space is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Machine address of bus 0.
    pub base: u64,
    /// The first bus that it has.
    pub first: u8,
    /// The last one.
    pub last: u8,
}

/// What the tables say; `None` where there is no such table, or it names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The window of PCI segment 0.
    pub window: Option<Window>,
    /// Address of the first HPET's registers.
    pub hpet: Option<u64>,
    /// First I/O port of the firmware's console, if that is a 16550 at ports.
    pub console: Option<u64>,
    /// Number of the first interrupt of the first I/O APIC, the only one that the kernel uses.
    pub interrupts: Option<u32>,
    /// The interrupt that the 8254 raises: ISA's number 0, which most machines have elsewhere.
    pub pit: Option<u32>,
}

/// Length of an entry of MCFG.
const WINDOW: usize = 16;
/// Where the entries of MCFG and MADT begin.
const ENTRIES: usize = HEAD + 8;
/// Types in MADT: an I/O APIC; an interrupt of ISA with another number than there (ACPI 6.5
/// section 5.2.12.5).
const IO_APIC: u8 = 1;
const OVERRIDE: u8 = 2;
/// ISA's bus and the 8254's interrupt there, as an override names them.
const ISA_PIT: [u8; 2] = [0, 0];
/// Address spaces of a generic address (ACPI 6.5 section 5.2.3.2).
const MEMORY: u8 = 0;
const PORTS: u8 = 1;
/// Interface types of SPCR that are a 16550: full, and as a subset of it.
const SERIAL: RangeInclusive<u8> = 0..=1;

fn window(table: &[u8]) -> Option<Window> {
    let entries = table.get(ENTRIES..)?.chunks_exact(WINDOW);
    let windows = entries.filter_map(|entry| {
        let window = Window {
            base: bytes::u64(entry, 0)?,
            first: bytes::u8(entry, 10)?,
            last: bytes::u8(entry, 11)?,
        };
        (bytes::u16(entry, 8)? == 0).then_some(window)
    });
    // The one with bus 0, if segment 0 has several.
    windows.min_by_key(|window| window.first)
}

/// Returns the address of a generic address in this space.
fn address(table: &[u8], at: usize, space: u8) -> Option<u64> {
    (bytes::u8(table, at)? == space).then_some(())?;
    bytes::u64(table, at + 4)
}

fn console(table: &[u8]) -> Option<u64> {
    SERIAL
        .contains(&bytes::u8(table, HEAD)?)
        .then(|| address(table, HEAD + 4, PORTS))
        .flatten()
        // Console redirection is off (SPCR 1.07, Base Address).
        .filter(|port| *port != 0)
}

fn controllers(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    let length = |bytes: &[u8]| bytes::u8(bytes, 1).map(usize::from);
    Records::new(table.get(ENTRIES..).unwrap_or(&[]), 2, length).flatten()
}

fn interrupts(table: &[u8]) -> Option<u32> {
    let record = controllers(table).find(|record| record.first() == Some(&IO_APIC))?;
    bytes::u32(record, 8)
}

/// Returns the 8254's interrupt by a table MADT, which names no number that is ISA's own.
fn pit(table: &[u8]) -> u32 {
    let ours =
        |record: &&[u8]| record.first() == Some(&OVERRIDE) && record.get(2..4) == Some(&ISA_PIT);
    let other = controllers(table).find(ours);
    other.and_then(|record| bytes::u32(record, 4)).unwrap_or(0)
}

/// Reads what the tables say about a board's devices. `pointer` and `buffer` are as for
/// [`crate::find`].
///
/// # Errors
/// If the root of the tables, or one of these, is broken.
pub fn describe(
    memory: &mut impl PhysicalMemory,
    pointer: Option<&[u8]>,
    buffer: &mut [u8],
) -> Result<Option<Description>, Unusable> {
    let Some(root) = Root::given_or_found(memory, pointer)? else {
        return Ok(None);
    };
    let mut table = |signature: &[u8; 4], read: &mut dyn FnMut(&[u8])| {
        root.table(memory, *signature, buffer)
            .map(|table| table.into_iter().for_each(&mut *read))
    };
    let mut said = Description::default();
    table(b"MCFG", &mut |table| said.window = window(table))?;
    table(b"HPET", &mut |table| {
        said.hpet = address(table, HEAD + 4, MEMORY);
    })?;
    table(b"SPCR", &mut |table| said.console = console(table))?;
    table(b"APIC", &mut |table| {
        said.interrupts = interrupts(table);
        said.pit = Some(pit(table));
    })?;
    Ok(Some(said))
}
