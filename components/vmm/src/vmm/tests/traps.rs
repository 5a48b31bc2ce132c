//! The exact results of a guest's traps.

use std::format;
use std::string::String;

use proptest::prelude::*;

use super::*;
use crate::registers::{Source, WORDS};

/// Returns the guest from an interrupt, with these flags in the frame.
fn iretq(m: &mut Machine<'_>, rflags: u64) {
    put_frame(m, rflags);
    assert_eq!(m.privileged(&[0x48, 0xcf]), Outcome::Resume);
    assert_eq!(m.regs.rip, CODE + 0x100);
}

/// Makes the frame of an interrupt at RSP.
fn put_frame(m: &mut Machine<'_>, rflags: u64) {
    let frame = [CODE + 0x100, 8, rflags, STACK, 0x18];
    for (index, word) in frame.iter().enumerate() {
        let at = STACK - 0x100 + 8 * index as u64;
        m.host.write_ram(at, &word.to_le_bytes());
    }
    m.regs.gpr[RSP] = STACK - 0x100;
}

/// With SMAP on, QEMU 7.2 raises a page fault of the supervisor for what is popped.
#[test]
fn a_supervisors_page_fault_at_a_return_is_its_trap() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    let fault = |code| Fault::Page {
        address: STACK - 0x100,
        fetch: false,
        code,
    };
    put_frame(&mut m, 0x202);
    m.code(&[0x48, 0xcf]);
    assert_eq!(m.fault(fault(1)), Outcome::Resume);
    assert_eq!(m.regs.rip, CODE + 0x100);
    // A far return without descriptors is refused as one.
    m.code(&[0x48, 0xcb]);
    m.fault(fault(1));
    assert!(m.interrupted_with(13));
    // Another instruction's, or a user's, is the guest's.
    for (code, bytes) in [(1, &[0x88, 0x08][..]), (5, &[0x48, 0xcf])] {
        m.code(bytes);
        m.fault(fault(code));
        assert!(m.interrupted_with(14));
    }
}

#[test]
fn iretq_gives_no_flag_that_ring_3_may_not_have() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    // TF, IOPL 3, NT, RF, VM, VIF, VIP and all that is reserved.
    for rflags in [
        u64::MAX,
        1 << 8,
        3 << 12,
        1 << 14,
        1 << 16,
        1 << 17,
        3 << 19,
        1 << 63,
    ] {
        iretq(&mut m, rflags);
        let user = 0x0024_0cd5;
        assert_eq!(m.regs.rflags, rflags & user | 0x202, "{rflags:#x}");
        assert_eq!(m.vmm.cpu.interrupts, rflags & RFLAGS_IF != 0);
    }
}

/// Such as a write to read-only text, or to the page at 0 of an image without one: it is
/// no access to a place where nothing is.
#[test]
fn a_fault_in_ram_is_the_guest_s_page_fault() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    // mov [rax], cl
    m.code(&[0x88, 0x08]);
    m.regs.gpr[RAX] = CODE + 0x10;
    let before = m.host.word(CODE + 0x10);
    m.fault(Fault::Page {
        address: CODE + 0x10,
        fetch: false,
        code: 7,
    });
    assert!(m.interrupted_with(14));
    assert_eq!(m.vmm.cpu.cr2, CODE + 0x10);
    assert_eq!(m.host.word(CODE + 0x10), before);
    assert_eq!(m.vmm.counters.unclaimed_memory, 0);
}

#[test]
fn a_handler_does_not_run_step_by_step() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.rflags = 0x302;
    m.fault(Fault::Exception { vector: 1, code: 0 });
    assert!(m.interrupted_with(1));
    assert_eq!(m.regs.rflags, 0x202);
    // The frame has it, for the way back.
    assert_eq!(m.host.word(m.regs.gpr[RSP] + 16) & 1 << 8, 1 << 8);
}

#[test]
fn exceptions_push_an_error_code_as_the_manual_says() {
    let functions = functions();
    // SDM vol. 3 table 7-1; 21 is #CP.
    let with_code = [8, 10, 11, 12, 13, 14, 17, 21];
    for vector in (0..32).filter(|vector| ![13, 14].contains(vector)) {
        let mut m = Machine::new(&functions);
        m.code(&[0x90]);
        m.fault(Fault::Exception { vector, code: 0x77 });
        assert!(m.interrupted_with(vector.into()), "{vector}");
        let first = m.host.word(m.regs.gpr[RSP]);
        let expected = if with_code.contains(&vector) {
            0x77
        } else {
            CODE
        };
        assert_eq!(first, expected, "vector {vector}");
    }
}

#[test]
fn a_gate_must_lie_within_the_idt_limit() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    let exception = Fault::Exception { vector: 3, code: 0 };
    // The gate of vector 3 ends at byte 63.
    m.vmm.cpu.idt.limit = 63;
    m.fault(exception);
    assert!(m.interrupted_with(3));
    m.vmm.cpu.idt.limit = 62;
    assert_eq!(
        m.fault(exception),
        Outcome::Stop(StopReason::TripleFault(3))
    );
}

#[test]
fn the_apic_base_takes_its_one_value_only() {
    let functions = functions();
    for value in [
        0xfee0_0100,        // switched off
        0xfee0_0800,        // not the bootstrap processor
        0xfee0_1900,        // moved
        0x1_0000_fee0_0900, // reserved
        0xfee0_0901,
    ] {
        let mut m = Machine::new(&functions);
        m.regs.gpr[RCX] = 0x1b;
        m.regs.set_edx_eax(value);
        m.privileged(&[0x0f, 0x30]);
        assert!(m.interrupted_with(13), "{value:#x}");
    }
    let mut m = Machine::new(&functions);
    m.regs.gpr[RCX] = 0x1b;
    m.regs.set_edx_eax(0xfee0_0900);
    m.privileged(&[0x0f, 0x30]);
    assert_eq!(m.regs.rip, CODE + 2);
}

#[test]
fn vectors_below_16_are_no_interrupts() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.privileged(&[0xfb]);
    let mut ipi = |vector: u64| {
        m.regs.gpr[RCX] = 0xfee0_0300;
        m.regs.gpr[RAX] = 1 << 18 | vector;
        m.memory(0xfee0_0300, &[0x89, 0x01]);
        m.interrupted_with(vector)
    };
    for vector in 0..16 {
        assert!(!ipi(vector), "{vector}");
    }
    assert!(ipi(16));
}

#[test]
fn a_guest_that_traps_is_awake() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    assert_eq!(m.privileged(&[0xfb, 0xf4]), Outcome::Wait);
    // Another event made it go on.
    assert_eq!(m.privileged(&[0xfa]), Outcome::Resume);
    assert!(!m.vmm.halted());
    m.host.routes[1] = Some(route(0x41, false));
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.inject(), Outcome::Resume);
    assert!(!m.interrupted_with(0x41), "its interrupts are off");
}

#[test]
fn m23_the_guest_s_timer_does_not_hide_the_end_of_a_throttle() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    for (register, value) in [(0x320, 0x50), (0x3e0, 0xb), (0x380, 5000)] {
        m.regs.gpr[RCX] = 0xfee0_0000 + register;
        m.regs.gpr[RAX] = value;
        m.memory(0xfee0_0000 + register, &[0x89, 0x01]);
    }
    assert_eq!(m.host.deadline, Some(5000));
    for _ in 0..=BUDGET.events {
        m.vmm.events(slot_badge(1), &mut m.host);
    }
    assert_eq!(m.host.deadline, Some(1000));
}

#[test]
fn an_operand_that_begins_on_the_page_before_is_not_at_the_table() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RCX] = BAR3 - 2;
    // mov [rcx], eax: the CPU names the second page, where nothing is mapped.
    assert_eq!(m.memory(BAR3, &[0x89, 0x01]), Outcome::Resume);
    assert!(m.host.table_writes.is_empty());
    assert_eq!(m.host.unclaimed, [Unclaimed::Memory(BAR3 - 2)]);
}

/// A thread of the kernel, whose registers are words.
struct Thread([u64; WORDS]);

impl Source for Thread {
    fn read(&self, words: &mut [u64]) {
        words.copy_from_slice(&self.0[..words.len()]);
    }
}

/// Has a guest trap at an instruction, with its registers `told` as far as the message goes,
/// and go on. Returns its registers, and what else could differ.
fn trap(code: &[u8], fault: Fault, start: &Registers, told: usize) -> (Registers, String) {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    m.vmm.cpu.interrupts = start.rflags & 1 == 0;
    m.vmm.events(slot_badge(1), &mut m.host);
    m.code(code);
    let mut thread = Thread([0; WORDS]);
    start.read(&mut thread.0);
    let (outcome, words) = {
        let mut regs = Trapped::new(&thread, &thread.0[..told]);
        let outcome = m.vmm.fault(fault, &mut regs, &mut m.host);
        (outcome, regs.written().collect::<Vec<u64>>())
    };
    thread.0[..words.len()].copy_from_slice(&words);
    let rest = format!(
        "{outcome:?} {:?} {:?} {:?} {:?}",
        m.vmm.cpu, m.vmm.lapic, m.host.table_writes, m.host.ram
    );
    (Trapped::new(&thread, &[]).all(), rest)
}

/// Instructions that trap, as their first bytes; random ones follow.
const TRAPPING: [&[u8]; 22] = [
    &[0xfa],
    &[0xfb],
    &[0xfb, 0xf4],
    &[0xf4],
    &[0x48, 0xcf],
    &[0xed],
    &[0xec],
    &[0xef],
    &[0xe4, 0x71],
    &[0x0f, 0x32],
    &[0x0f, 0x30],
    &[0x0f, 0x20, 0xc1],
    &[0x0f, 0x22, 0xc0],
    &[0x0f, 0x01, 0xf8],
    &[0x0f, 0x01, 0x18],
    &[0xcd, 0x80],
    &[0x8e, 0xe0],
    &[0x89, 0x01],
    &[0x8b, 0x48, 0x20],
    &[0x87, 0x18],
    &[0x44, 0x21, 0x38],
    &[0x65, 0x8b, 0x02],
];

proptest! {
    /// Registers that are read as they are needed, and written as far as they changed, leave
    /// the guest as if all had been read and written.
    #[test]
    fn the_short_way_and_the_full_way_end_the_same(
        code in (0..TRAPPING.len(), any::<[u8; 4]>())
            .prop_map(|(first, rest)| [TRAPPING[first], &rest].concat()),
        gpr in prop::array::uniform16(prop_oneof![
            0..0x900u64,
            Just(STACK),
            Just(BAR3 + 0x2c),
            Just(0xfee0_0080),
            Just(0xcfc),
            any::<u64>(),
        ]),
        rflags in 0..0x1000u64,
        address in prop_oneof![Just(BAR3), Just(BAR3 + 0x2c), Just(0xfee0_00b0), any::<u64>()],
        kind in 0..3u8,
    ) {
        let start = Registers {
            gpr,
            rip: CODE,
            rflags,
            fs_base: 0x1234,
            gs_base: BAR3,
        };
        let (fault, told) = match kind {
            0 => (Fault::Exception { vector: 13, code: 0 }, 3),
            1 => (Fault::Exception { vector: 6, code: 0 }, 3),
            _ => (Fault::Page { address, fetch: false, code: 6 }, 1),
        };
        let full = trap(&code, fault, &start, WORDS);
        prop_assert_eq!(trap(&code, fault, &start, told), full.clone());
        // As the bundled kernel tells them: all but the bases.
        prop_assert_eq!(trap(&code, fault, &start, WORDS - 2), full);
    }
}
