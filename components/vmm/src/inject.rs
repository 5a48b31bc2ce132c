//! Delivers an interrupt or exception as the CPU does: by the frame that the
//! guest's IDT gate asks for (SDM vol. 3 sections 7.12 and 7.14).

use crate::cpu::Cpu;
use crate::host::GuestMemory;
use crate::registers::{RFLAGS_FIXED, RFLAGS_IF, RFLAGS_USER, RSP, Registers};
// An interrupt on a real machine overwrites the red zone, but a guest built for user space
// relies on it.
use spec::shim::RED_ZONE;

/// Trap flag: cleared for the handler.
const RFLAGS_TF: u64 = 1 << 8;
/// Stack selector of the frame: the boot protocol's data segment. Its RPL 0
/// makes the handler's iretq trap, which is where IF comes back.
const KERNEL_DS: u64 = 0x18;

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
    regs: &mut Registers,
    host: &mut impl GuestMemory,
    vector: u8,
    error: Option<u32>,
) -> Result<(), Undeliverable> {
    let offset = u64::from(vector) * 16;
    let (base, limit) = cpu.table_of(vector);
    if offset + 15 > u64::from(limit) {
        return Err(Undeliverable);
    }
    let mut gate = [0; 16];
    if !host.read_ram(base.wrapping_add(offset), &mut gate) {
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
    let selector = (gate >> 16) as u16;
    let handler =
        (gate & 0xffff) as u64 | (gate >> 32 & 0xffff_0000) as u64 | (gate >> 64 << 32) as u64;
    let interrupts = if cpu.interrupts { RFLAGS_IF } else { 0 };
    let rflags = regs.rflags & !RFLAGS_IF | interrupts;
    let frame = [
        u64::from(error.unwrap_or(0)),
        regs.rip,
        u64::from(selector) & !3,
        rflags,
        regs.gpr[RSP],
        KERNEL_DS,
    ];
    let frame = if error.is_some() {
        &frame[..]
    } else {
        &frame[1..]
    };
    let top = regs.gpr[RSP].wrapping_sub(RED_ZONE) & !15;
    let bottom = top.wrapping_sub(8 * frame.len() as u64);
    let mut bytes = [0; 48];
    for (place, word) in bytes.chunks_exact_mut(8).zip(frame) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    if !host.write_ram(bottom, &bytes[..8 * frame.len()]) {
        return Err(Undeliverable);
    }
    regs.gpr[RSP] = bottom;
    regs.rip = handler;
    regs.rflags &= !RFLAGS_TF;
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
    regs: &mut Registers,
    host: &mut impl GuestMemory,
    handler: u64,
    back: u64,
) -> Result<(), Undeliverable> {
    let place = regs.gpr[RSP].wrapping_sub(RED_ZONE + 8);
    if !host.write_ram(place, &back.to_le_bytes()) {
        return Err(Undeliverable);
    }
    regs.gpr[RSP] = place;
    regs.rip = handler;
    Ok(())
}

/// Does iretq: takes the five-word frame off the stack.
///
/// # Errors
/// [`Undeliverable`] if the stack is not in RAM.
pub fn interrupt_return(
    cpu: &mut Cpu,
    regs: &mut Registers,
    host: &mut impl GuestMemory,
) -> Result<(), Undeliverable> {
    let mut bytes = [0; 40];
    if !host.read_ram(regs.gpr[RSP], &mut bytes) {
        return Err(Undeliverable);
    }
    let word = |index: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[8 * index..8 * index + 8]);
        u64::from_le_bytes(word)
    };
    let rflags = word(2);
    regs.rip = word(0);
    regs.gpr[RSP] = word(3);
    regs.rflags = rflags & RFLAGS_USER | RFLAGS_FIXED | RFLAGS_IF;
    cpu.interrupts = rflags & RFLAGS_IF != 0;
    Ok(())
}
