//! The timer's clock: the HPET, or the 8254 where there is none that can be used.

use acpi_tables::Description;
use init::{HpetTimer, Stated};
use pci::{PAGE_SIZE, Width};
use runtime::Mmio;
use sel4::cap::Granule;
use sel4::init_thread::slot;
use sel4::{CapRights, VmAttributes};
use spec::{Object, ObjectKind, Requires, System};

use super::builder::Builder;
use super::fatal::fatal;
use super::memory::SCRATCH;

/// Registers of an HPET (IA-PC HPET Specification 1.0a, section 2.3): its period, and what
/// timer 0 can do, of which the upper half says which pins.
const PERIOD: usize = 4;
const TIMER: usize = 0x100;

/// Returns the pin of a clock that the image has, if that is to raise one.
pub fn pin(system: &System<'_>, requires: Requires) -> Option<u16> {
    let is = |object: &&Object| object.requires == requires && object.kind == ObjectKind::IoApicIrq;
    system.objects.iter().find(is).map(|object| object.pin)
}

/// Decides which clock the timer has, once the machine's devices are known.
pub fn choose(builder: &mut Builder<'_>, stated: &Stated, machine: Option<&Description>) {
    let timer = if builder.places.needs_look(stated) {
        hpet(builder)
    } else {
        None
    };
    let functions = builder.system.functions.iter();
    let taken = functions.fold(0, |taken, function| taken | 1u32 << (function.intx & 31));
    let chosen = builder.places.choose_clock(stated, machine, timer, taken);
    if let Err(unfit) = chosen {
        fatal!("{unfit}");
    }
}

/// Returns what the HPET of the image says of its timer 0, if it answers.
fn hpet(builder: &mut Builder<'_>) -> Option<HpetTimer> {
    let is =
        |object: &Object| object.requires == Requires::Hpet && object.kind == ObjectKind::Device;
    let index = builder.system.objects.iter().position(is)?;
    builder.make(index);
    look(builder, builder.cap(index as u32, 0))
}

/// Returns what the HPET on this page says of its timer 0, if it answers.
pub fn look(builder: &mut Builder<'_>, frame: Granule) -> Option<HpetTimer> {
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
