//! Starts a component again: its program's memory as at boot, its registers as
//! at boot, its capabilities and its shared memory as they are.

use sel4::cap::{Granule, Tcb};
use sel4::init_thread::slot;
use sel4::{CapRights, Result, VmAttributes};
use spec::{System, Thread};

use super::authority::Watched;
use super::memory::SCRATCH;

/// Makes the thread's own writable memory anew and starts it with `generation`
/// as its argument.
pub fn restart(
    system: &System<'_>,
    watched: &Watched<'_>,
    thread: &Thread,
    generation: u64,
) -> Result<()> {
    let tcb = Tcb::from_bits(watched.first_slots[thread.tcb as usize] as u64);
    tcb.tcb_suspend()?;
    for mapping in system.mappings.iter().filter(|m| m.vspace == thread.vspace) {
        let object = &system.objects[mapping.object as usize];
        if object.kind == spec::ObjectKind::Memory && object.renewed {
            for page in 0..object.pages {
                renew(system, watched, mapping.object, page)?;
            }
        }
    }
    let registers = sel4::UserContext {
        rip: thread.entry,
        rsp: thread.stack_top,
        rflags: 0x202,
        rdi: generation,
        ..sel4::UserContext::default()
    };
    tcb.tcb_write_all_registers(true, &registers)
}

/// Clears a page and fills it again from the image.
fn renew(system: &System<'_>, watched: &Watched<'_>, object: u32, page: u64) -> Result<()> {
    let frame = Granule::from_bits(watched.first_slots[object as usize] as u64 + page);
    frame.frame_map(
        slot::VSPACE.cap(),
        SCRATCH,
        CapRights::read_write(),
        VmAttributes::DEFAULT,
    )?;
    let start = core::ptr::with_exposed_provenance_mut::<u8>(SCRATCH);
    // SAFETY: the page was just mapped there, and the component that has it
    // mapped as well is suspended.
    let bytes = unsafe { core::slice::from_raw_parts_mut(start, 4096) };
    bytes.fill(0);
    let page_start = page * 4096;
    for fill in system.fills.iter().filter(|f| f.object == object) {
        let source = system.source(fill);
        let from = fill.offset.max(page_start);
        let to = (fill.offset + fill.length).min(page_start + 4096);
        if from < to {
            let piece = &source[(from - fill.offset) as usize..(to - fill.offset) as usize];
            let at = (from - page_start) as usize;
            bytes[at..at + piece.len()].copy_from_slice(piece);
        }
    }
    frame.frame_unmap()
}
