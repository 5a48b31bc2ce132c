//! Delivers an interrupt or exception as the CPU does: by the frame that the
//! guest's IDT gate asks for (SDM vol. 3 sections 7.12 and 7.14).

use crate::cpu::Cpu;
use crate::descriptors;
use crate::host::GuestMemory;
use crate::registers::{RSP, Trapped, is_canonical};
// An interrupt on a real machine overwrites the red zone, but a guest built for user space
// relies on it.
use spec::shim::RED_ZONE;

/// Trap flag: cleared for the handler.
const RFLAGS_TF: u64 = 1 << 8;

/// The vector could not be delivered: no present gate, or no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undeliverable;

/// Makes the guest's next instruction the first of its handler for `vector`,
/// with `error` pushed if there is one.
///
/// # Errors
/// [`Undeliverable`]; registers and memory are then as before.
pub fn deliver(
    cpu: &mut Cpu,
    regs: &mut Trapped<'_>,
    host: &mut impl GuestMemory,
    vector: u8,
    error: Option<u32>,
) -> Result<(), Undeliverable> {
    let offset = u64::from(vector) * 16;
    let table = cpu.table_of(vector);
    if offset + 15 > u64::from(table.limit) {
        return Err(Undeliverable);
    }
    let mut gate = [0; 16];
    if !host.read_ram(table.base.wrapping_add(offset), &mut gate) {
        return Err(Undeliverable);
    }
    let gate = u128::from_le_bytes(gate);
    let present = gate >> 47 & 1 == 1;
    let trap = match gate >> 40 & 0x1f {
        0xe => false,
        0xf => true,
        _ => return Err(Undeliverable),
    };
    if !present {
        return Err(Undeliverable);
    }
    let handler =
        (gate & 0xffff) as u64 | (gate >> 32 & 0xffff_0000) as u64 | (gate >> 64 << 32) as u64;
    // The selectors have RPL 0, so that the handler's iretq traps, which is where IF
    // comes back.
    let frame = [
        u64::from(error.unwrap_or(0)),
        regs.rip(),
        cpu.cs.into(),
        cpu.flags(regs),
        regs.get(RSP),
        cpu.ss.into(),
    ];
    let frame = if error.is_some() {
        &frame[..]
    } else {
        &frame[1..]
    };
    let top = match (gate >> 32) as u64 & 7 {
        0 => regs.get(RSP).wrapping_sub(RED_ZONE),
        ist => descriptors::interrupt_stack(cpu, host, ist).ok_or(Undeliverable)?,
    };
    let top = top & !15;
    let bottom = top.wrapping_sub(8 * frame.len() as u64);
    let mut bytes = [0; 48];
    for (place, word) in bytes.chunks_exact_mut(8).zip(frame) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    if !host.write_ram(bottom, &bytes[..8 * frame.len()]) {
        return Err(Undeliverable);
    }
    // What a guest reads from CS to put it into its gates is the hardware's, with RPL 3:
    // that stands for the segment that it runs in. Whether it is a code segment shows at
    // the way back.
    let selector = (gate >> 16) as u16;
    if selector & 3 == 0 {
        cpu.cs = selector;
    }
    regs.set(RSP, bottom);
    regs.set_rip(handler);
    regs.set_rflags(regs.rflags() & !RFLAGS_TF);
    if !trap {
        cpu.interrupts = false;
    }
    Ok(())
}

/// Makes the guest's next instruction the first of its shim's `handler`, which returns to
/// `back`.
///
/// # Errors
/// [`Undeliverable`] if the stack is not in RAM; registers and memory are then as before.
pub fn call(
    regs: &mut Trapped<'_>,
    host: &mut impl GuestMemory,
    handler: u64,
    back: u64,
) -> Result<(), Undeliverable> {
    let place = regs.get(RSP).wrapping_sub(RED_ZONE + 8);
    if !host.write_ram(place, &back.to_le_bytes()) {
        return Err(Undeliverable);
    }
    regs.set(RSP, place);
    regs.set_rip(handler);
    Ok(())
}

/// Does iretq: takes the five-word frame off the stack. Returns where it leads to; `None`
/// (#GP) if the stack is not in RAM, or the guest cannot run there.
pub fn interrupt_return(
    cpu: &mut Cpu,
    regs: &mut Trapped<'_>,
    host: &mut impl GuestMemory,
) -> Option<u64> {
    let mut frame = [[0; 8]; 5];
    if !host.read_ram(regs.get(RSP), frame.as_flattened_mut()) {
        return None;
    }
    let [rip, cs, flags, rsp, ss] = frame.map(u64::from_le_bytes);
    if !is_canonical(rip) {
        return None;
    }
    descriptors::enter(cs as u16, cpu, host)?;
    // What a guest reads from SS itself is the hardware's, with RPL 3: that is no
    // selector of its own.
    if ss & 3 == 0 {
        cpu.ss = ss as u16;
    }
    regs.set(RSP, rsp);
    cpu.set_flags(regs, flags);
    Some(rip)
}
