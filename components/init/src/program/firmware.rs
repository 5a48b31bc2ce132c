//! The firmware's tables, read a page at a time, and the board checked against them.

use core::fmt::Write as _;

use acpi_tables::{Description, PhysicalMemory, Pointer, Unusable, describe};
use heapless::Vec;
use init::{Stated, settle};
use pci::PAGE_SIZE;
use sel4::cap::Granule;
use sel4::init_thread::slot;
use sel4::{CapRights, VmAttributes};
use spec::{Console, Requires};

use super::builder::Builder;
use super::clock;
use super::fatal::fatal;
use super::memory::SCRATCH;
use super::ports::{self, Serial};

/// Pages of firmware memory that are looked at: the 32 below 1 MiB, where the
/// root pointer is, and those with the tables.
const PAGES: usize = 128;
/// Longest of the tables about the board: the one with every processor.
const TABLE: usize = 8192;

/// Pages that were made so far: a second one of the same memory is not to be had.
pub struct Pages(Vec<(u64, Granule), PAGES>);

impl Pages {
    /// Returns none.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Deletes the pages.
    pub fn end(self) {
        for (_, frame) in &self.0 {
            let _ = super::own_slot(frame.bits() as usize).delete();
        }
    }
}

/// Returns the firmware's root pointer, where it is looked for without the kernel's help.
pub fn root_pointer(builder: &mut Builder<'_>, pages: &mut Pages) -> Option<Pointer> {
    let mut firmware = Firmware::new(builder, pages);
    let pointer = acpi_tables::pointer(&mut firmware);
    firmware.end();
    pointer
}

/// Reads what the tables say about the machine's devices.
pub fn described(
    builder: &mut Builder<'_>,
    pages: &mut Pages,
    root_pointer: Option<&[u8]>,
) -> Result<Option<Description>, Unusable> {
    let mut firmware = Firmware::new(builder, pages);
    let described = describe(&mut firmware, root_pointer, &mut [0; TABLE]);
    firmware.end();
    described
}

/// Finds out where the machine's devices are. Ends the boot if it is not as the board says, or
/// lacks what that leaves to the machine.
pub fn place(builder: &mut Builder<'_>, pages: &mut Pages, root_pointer: Option<&[u8]>) {
    let header = builder.system.header;
    let functions = !builder.system.functions.is_empty();
    let stated = Stated {
        ecam: functions.then_some((header.ecam, header.buses)),
        hpet: header.hpet,
        hpet_pin: clock::pin(builder.system, Requires::Hpet),
        pit: clock::pin(builder.system, Requires::Pit),
        serial: [header.com1, header.com2],
        open_console: header.console_by_tables == 1,
    };
    let machine = match described(builder, pages, root_pointer) {
        Ok(Some(machine)) => Some(machine),
        Ok(None) => {
            defmt::warn!("the machine has no ACPI tables to check the board by");
            None
        }
        Err(unusable) => {
            defmt::warn!(
                "the board cannot be checked by ACPI's tables: {=str}",
                unusable.reason()
            );
            None
        }
    };
    match settle(&stated, machine.as_ref()) {
        Ok(places) => builder.places = places,
        Err(unfit) => fatal!("{unfit}"),
    }
    if stated.open_console {
        console(
            &stated,
            builder.places.console,
            machine.and_then(|machine| machine.console),
        );
    }
    clock::choose(builder, &stated, machine.as_ref());
}

/// Moves what init says itself to the serial port with the text for people, and says there and
/// where it was before that it does.
fn console(stated: &Stated, console: Console, said: Option<u64>) {
    let [com1, com2] = stated.serial;
    match (console, said) {
        (Console::Com2, _) => {
            defmt::info!(
                "text for people is at {=u64:#x}, the logs are at {=u64:#x}",
                com2,
                com1
            );
            let moved = format_args!(
                "init: the firmware's console is at {com2:#x} (ACPI, SPCR): text is there from \
                 here on\r\n"
            );
            // Writing to a serial port cannot fail.
            let _ = Serial.write_fmt(moved);
            ports::set_console(com2 as u16);
            let _ = Serial.write_fmt(moved);
        }
        (Console::Com1, Some(port)) if port != com1 => {
            defmt::warn!(
                "the firmware's console is at port {=u64:#x} (ACPI, SPCR), where this board has no \
                 serial port: text for people is at {=u64:#x}",
                port,
                com1
            );
            let _ = write!(
                Serial,
                "init: the firmware's console is at port {port:#x} (ACPI, SPCR), and this board \
                 has {com1:#x} and {com2:#x}: text stays here\r\n"
            );
        }
        (Console::Com1, Some(_)) => {
            defmt::info!(
                "text for people is at {=u64:#x}, as the firmware's (ACPI, SPCR)",
                com1
            );
        }
        (Console::Com1, None) => defmt::info!(
            "text for people is at {=u64:#x}: ACPI names no 16550 at I/O ports (SPCR)",
            com1
        ),
    }
}

/// Device memory, mapped a page at a time. RAM cannot be read: the tables are not in
/// it.
pub struct Firmware<'b, 'a> {
    builder: &'b mut Builder<'a>,
    pages: &'b mut Pages,
    /// The one that is mapped.
    mapped: Option<(u64, Granule)>,
}

impl<'b, 'a> Firmware<'b, 'a> {
    /// Looks at memory through these pages.
    pub const fn new(builder: &'b mut Builder<'a>, pages: &'b mut Pages) -> Self {
        Self {
            builder,
            pages,
            mapped: None,
        }
    }

    /// Maps the page at an address, if it is one that can be.
    fn page(&mut self, address: u64) -> Option<()> {
        if self.mapped.is_some_and(|(mapped, _)| mapped == address) {
            return Some(());
        }
        self.unmap();
        let known = self.pages.0.iter().find(|(page, _)| *page == address);
        let frame = match known {
            Some((_, frame)) => *frame,
            None => {
                if self.pages.0.is_full() {
                    return None;
                }
                let frame = self.builder.try_device_page(address)?;
                let frame = Granule::from_bits(frame as u64);
                // There is room.
                let _ = self.pages.0.push((address, frame));
                frame
            }
        };
        self.builder.map(
            frame,
            slot::VSPACE.cap(),
            SCRATCH,
            CapRights::read_only(),
            VmAttributes::DEFAULT,
            "firmware tables",
        );
        self.mapped = Some((address, frame));
        Some(())
    }

    fn unmap(&mut self) {
        if let Some((_, frame)) = self.mapped.take() {
            // It is mapped, so that this cannot fail.
            let _ = frame.frame_unmap();
        }
    }

    /// Leaves nothing mapped.
    pub fn end(mut self) {
        self.unmap();
    }
}

impl PhysicalMemory for Firmware<'_, '_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        // A table may lie about where another is.
        if address.checked_add(bytes.len() as u64).is_none() {
            return false;
        }
        let (mut at, mut rest) = (address, bytes);
        while !rest.is_empty() {
            let Some(()) = self.page(at & !(PAGE_SIZE - 1)) else {
                return false;
            };
            let start = (at % PAGE_SIZE) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE_SIZE as usize - start));
            let page = core::ptr::with_exposed_provenance::<u8>(SCRATCH);
            // SAFETY: the page was just mapped there, for this thread alone; the
            // firmware writes it no more.
            let page = unsafe { core::slice::from_raw_parts(page, PAGE_SIZE as usize) };
            now.copy_from_slice(&page[start..start + now.len()]);
            at += now.len() as u64;
            rest = later;
        }
        true
    }
}
