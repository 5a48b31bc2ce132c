//! Looks at the machine in place of building a system: prints a board's file and what each
//! function could do, and ends.

use core::fmt::{self, Write as _};

use acpi_tables::{Description, Found, Unusable, find as find_unit};
use heapless::Vec;
use init::{Cpu, HpetTimer, Machine, conclude, guest_memory, memory};
use pci::{Bdf, PAGE_SIZE, Width, buses_behind};
use runtime::Mmio;
use sel4::cap::Granule;
use sel4::init_thread::slot;
use sel4::{BootInfo, CapRights, VmAttributes};
use spec::Ending;

use super::builder::Builder;
use super::firmware::{Firmware, Pages, described};
use super::functions::{Mechanism1, each_function};
use super::iommu::TABLE;
use super::memory::SCRATCH;
use super::ports::{self, Com1};

/// Registers of an HPET (IA-PC HPET Specification 1.0a, section 2.3): its period, and what
/// timer 0 can do, of which the upper half says which pins.
const PERIOD: usize = 4;
const TIMER: usize = 0x100;
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
                Com1.write_str("\r\n")?;
            }
            Com1.write_str(line)?;
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
        let read = |bdf, offset| super::functions::read(bdf, offset);
        let space = &mut Mechanism1(bdf);
        // Writing to COM1 cannot fail.
        let starts = init::function(&mut Terminal, space, bdf, buses, read, unit);
        given += usize::from(starts.unwrap_or_default());
        false
    });
    let _ = conclude(&mut Terminal, &machine, given);
    ports::exit(Ending::Success)
}

fn cpuid(leaf: u32) -> [u32; 4] {
    let answer = core::arch::x86_64::__cpuid_count(leaf, 0);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// Returns the unit that has these functions, the I/O APIC and the HPET.
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
    let frame = Granule::from_bits(builder.try_device_page(said.hpet?)? as u64);
    builder.map(
        frame,
        slot::VSPACE.cap(),
        SCRATCH,
        CapRights::read_only(),
        VmAttributes::UNCACHEABLE,
        "the HPET",
    );
    // SAFETY: the page was just mapped there, for this thread alone.
    let registers = unsafe { Mmio::new(SCRATCH, PAGE_SIZE as usize) };
    let read = |offset| registers.read(offset, Width::Dword);
    let period = read(PERIOD);
    let timer = read(TIMER) | read(TIMER + 4) << 32;
    // It is mapped, so that this cannot fail.
    let _ = frame.frame_unmap();
    (period != 0 && period != Width::Dword.all_ones()).then_some(HpetTimer(timer))
}
