//! Attacks that end the guest: the monitor must report the end, and nothing else may be affected.

use probe::check::{Mismatch, Stop, Verdict};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Ended, Machine};

const INVALID_OPCODE: u64 = 6;

/// Returns the attacks with the monitor's name for the end: `guest triple fault,
/// exception 6` unless noted.
pub fn attacks<M: Machine>() -> [Attack<M>; 8] {
    let attack = |name, run| Attack {
        name,
        group: Group::End,
        run,
    };
    [
        attack("triple-fault", triple_fault),
        attack("stack-gone", stack_gone),
        attack("stack-at-0", stack_at_0),
        attack("idt-gone", idt_gone),
        attack("idt-garbage", idt_garbage),
        attack("fault-loop", fault_loop),
        // "guest halted with interrupts off"
        attack("halt", halt),
        // It executes device registers: with which exception it ends, and
        // whether it does, is not defined.
        attack("jump-mmio", jump_mmio),
    ]
}

/// Fails: the guest should not have come so far.
pub fn survived(ended: Ended) -> Verdict {
    Err(Stop::Fail(Mismatch {
        what: "the guest goes on",
        at: 0,
        expected: INVALID_OPCODE,
        got: ended.number(),
    }))
}

/// Loads an interrupt table by a descriptor in scratch RAM, and takes #UD.
fn with_table<M: Machine>(h: &mut Hostile<M>, limit: u16, base: u64) -> Verdict {
    let scratch = h.machine().scratch();
    h.reach().place(scratch, &limit.to_le_bytes());
    h.reach().place(scratch + 2, &base.to_le_bytes());
    // lidt [rdi]; ud2
    let ended = h.run(&[0x0f, 0x01, 0x1f, 0x0f, 0x0b], 0, scratch);
    survived(ended)
}

/// Loads an interrupt table of length 0.
pub fn triple_fault<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    with_table(h, 0, 0)
}

/// Loads an interrupt table outside of RAM.
fn idt_gone<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    with_table(h, 0xfff, 0xffff_ffff_ffff_f800)
}

/// Loads a table of random bytes, none of which is a gate.
fn idt_garbage<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let scratch = h.machine().scratch();
    for at in (0x1000..0x2000).step_by(8) {
        // Bit 47, present, is off.
        let word = h.random.word() & !(1 << 47);
        h.reach().store(scratch + at, 8, word);
    }
    with_table(h, 0xfff, scratch + 0x1000)
}

/// Installs a handler that itself faults, until the stack is used up.
fn fault_loop<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let scratch = h.machine().scratch();
    let handler = scratch + 0x100;
    h.reach().place(handler, &[0x0f, 0x0b]);
    // A gate (Intel SDM vol. 3 section 6.14.1) with the boot protocol's code
    // selector.
    let low = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
    let gate = scratch + 0x1000 + 16 * INVALID_OPCODE;
    h.reach().store(gate, 8, low);
    h.reach().store(gate + 8, 8, handler >> 32);
    with_table(h, 0xfff, scratch + 0x1000)
}

/// Sets a stack pointer that is not canonical, then traps.
fn stack_gone<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // mov rsp, rax; ud2
    let ended = h.run(&[0x48, 0x89, 0xc4, 0x0f, 0x0b], 1 << 63, 0);
    survived(ended)
}

/// Puts the stack where there is no RAM.
fn stack_at_0<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let ended = h.run(&[0x48, 0x89, 0xc4, 0x0f, 0x0b], 0x80, 0);
    survived(ended)
}

fn halt<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // cli; hlt
    let ended = h.run(&[0xfa, 0xf4], 0, 0);
    survived(ended)
}

fn jump_mmio<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let registers = h.target.bar_address(0);
    // jmp rax
    match h.run(&[0xff, 0xe0], registers, 0) {
        Ended::Exception(_) => Ok(()),
        Ended::Returned => survived(Ended::Returned),
    }
}
