//! Looks at the machine in place of building a system: prints a board's file and what each
//! function could do, and ends.

use core::fmt::{self, Write as _};

use acpi_tables::{Description, Found, Unusable, find as find_unit};
use heapless::Vec;
use init::{Cpu, HpetTimer, Machine, conclude, guest_memory, memory};
use pci::{Bdf, buses_behind};
use sel4::BootInfo;
use sel4::cap::Granule;
use spec::Ending;

use super::builder::Builder;
use super::clock;
use super::firmware::{Firmware, Pages, described};
use super::functions::{each_function, space};
use super::iommu::TABLE;
use super::ports::{self, Serial};
use super::screen;

/// Free pieces of RAM that are looked at: the list has fewer.
const PIECES: usize = 512;
/// Serial ports that are looked at.
const SERIAL: [u16; 2] = [0x3f8, 0x2f8];

/// COM1 as a terminal wants it.
struct Terminal;

impl fmt::Write for Terminal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (number, line) in text.split('\n').enumerate() {
            if number != 0 {
                Serial.write_str("\r\n")?;
            }
            Serial.write_str(line)?;
        }
        Ok(())
    }
}

/// Prints everything and ends the machine.
pub fn run(
    builder: &mut Builder<'_>,
    boot_info: &BootInfo<'_>,
    mut pages: Pages,
    root_pointer: Option<&[u8]>,
) -> ! {
    screen::show();
    let tables = described(builder, &mut pages, root_pointer);
    let said = tables.ok().flatten().unwrap_or_default();
    let ram = boot_info.untyped_list().filter(|piece| !piece.is_device());
    let free: Vec<(u64, u64), PIECES> = ram
        .map(|piece| (piece.paddr() as u64, 1 << piece.size_bits()))
        .take(PIECES)
        .collect();
    let machine = Machine {
        tables,
        memory: memory(&free),
        guest_memory: guest_memory(&free),
        hpet: hpet(builder, &said),
        iommu: unit(builder, &mut pages, root_pointer, &[]),
        serial: SERIAL.map(|first| {
            let slot = builder.slot();
            ports::answers(first, slot)
        }),
    };
    let _ = write!(Terminal, "{machine}\n{}", Cpu(cpuid));
    let buses = said.window.map_or(256, |window| u64::from(window.last) + 1);
    let mut given = 0;
    each_function(buses, |bdf| {
        let unit = unit(builder, &mut pages, root_pointer, &[bdf.requester_id()]);
        let own = &mut space(bdf);
        // Writing to COM1 cannot fail.
        let starts = init::function(&mut Terminal, own, bdf, buses, space, unit);
        given += usize::from(starts.unwrap_or_default());
        false
    });
    let _ = conclude(&mut Terminal, &machine, given);
    ports::exit(Ending::Success)
}

/// Returns EAX to EDX of a leaf's subleaf.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// Returns the units, and which of them these functions are behind.
fn unit(
    builder: &mut Builder<'_>,
    pages: &mut Pages,
    root_pointer: Option<&[u8]>,
    assigned: &[u16],
) -> Result<Found, Unusable> {
    let mut firmware = Firmware::new(builder, pages);
    let mut buses = |id| buses_behind(Bdf::from_requester_id(id), super::functions::read);
    let buffer = &mut [0; TABLE];
    let found = find_unit(&mut firmware, root_pointer, buffer, assigned, &mut buses);
    firmware.end();
    found
}

/// Returns what the HPET says of its timer 0, if it answers.
fn hpet(builder: &mut Builder<'_>, said: &Description) -> Option<HpetTimer> {
    let page = builder.try_device_page(said.hpet?)?;
    clock::look(builder, Granule::from_bits(page as u64))
}
