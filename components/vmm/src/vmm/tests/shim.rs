//! Calls of an image to the shim beside it.

use super::*;
use crate::registers::Source;

const SHIM: u64 = CODE + 0x800;
const SHIM_IDT: u64 = RAM + 0x2000;

/// Returns a machine whose shim has registered, and whose image has loaded its own table.
fn machine(functions: &[FunctionInfo]) -> Machine<'_> {
    let mut m = Machine::new(functions);
    m.vmm = m.vmm.with_shim(Some(SHIM));
    let own = m.host.ram[(IDT - RAM) as usize..][..4096].to_vec();
    m.host.write_ram(SHIM_IDT, &own);
    m.vmm.cpu.idt.base = SHIM_IDT;
    assert_eq!(m.outl(0x500, SHIM), Outcome::Resume);
    assert_eq!(m.regs.rip, CODE + 1);
    // The image's table has other handlers.
    m.vmm.cpu.idt.base = IDT;
    for vector in 0..256u64 {
        m.host.write_ram(IDT + 16 * vector, &[0xff]);
    }
    m
}

#[test]
fn a_call_enters_the_shim_below_the_red_zone() {
    let functions = functions();
    let mut m = machine(&functions);
    m.regs.gpr[3] = 0x1234;
    for port in 0x501..=0x508 {
        m.regs.gpr[RSP] = STACK;
        let before = m.regs;
        assert_eq!(m.outl(port, 0x5678), Outcome::Resume);
        assert_eq!(m.regs.rip, SHIM);
        assert_eq!(m.regs.gpr[RSP], STACK - 128 - 8);
        assert_eq!(m.host.word(STACK - 128 - 8), CODE + 1);
        // All the others are the image's.
        let mut others = m.regs;
        others.gpr[RSP] = STACK;
        others.rip = before.rip;
        others.gpr[RAX] = before.gpr[RAX];
        others.gpr[RDX] = before.gpr[RDX];
        assert_eq!(others, before);
        assert_eq!((m.regs.gpr[RAX], m.regs.gpr[RDX]), (0x5678, port));
    }
    assert_eq!(m.vmm.counters.shim_calls, 8);
    assert_eq!(m.vmm.counters.unclaimed_ports, 0);
}

#[test]
fn interrupts_go_to_the_shim_and_exceptions_to_the_image() {
    let functions = functions();
    let mut m = machine(&functions);
    m.fault(Fault::Exception { vector: 3, code: 0 });
    assert_eq!(m.regs.rip & 0xff, 0xff);
    m.host.routes[1] = Some(route(0x41, false));
    m.code(&[0x90]);
    m.vmm.cpu.interrupts = true;
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.inject(), Outcome::Resume);
    assert!(m.interrupted_with(0x41));
}

#[test]
fn a_shim_registers_once() {
    let functions = functions();
    let mut m = machine(&functions);
    from_shim(&mut m, 0x500, CODE);
    assert_eq!(m.vmm.counters.unclaimed_ports, 1);
    m.outl(0x501, 0);
    assert_eq!(m.regs.rip, SHIM);
}

/// Makes an output that lies in the shim.
fn from_shim(m: &mut Machine<'_>, port: u64, value: u64) {
    m.regs.gpr[RDX] = port;
    m.regs.gpr[RAX] = value;
    m.regs.rip = SHIM + 8;
    assert!(m.host.write_ram(SHIM + 8, &[0xef]));
    let privileged = Fault::Exception {
        vector: 13,
        code: 0,
    };
    assert_eq!(m.fault(privileged), Outcome::Resume);
    assert_eq!(m.regs.rip, SHIM + 9);
}

/// Which port it is, the shim finds out, and makes the output itself.
#[test]
fn outputs_of_eax_by_dx_enter_the_shim_and_its_own_are_made() {
    let functions = functions();
    let mut m = machine(&functions);
    for port in [0x509, 0xcf8, 0x500] {
        assert_eq!(m.outl(port, 0x8000_1234), Outcome::Resume);
        assert_eq!(m.regs.rip, SHIM);
    }
    assert_eq!(m.vmm.counters.unclaimed_ports, 0);
    for port in [0x509, 0x501] {
        from_shim(&mut m, port, 0);
    }
    assert_eq!(m.vmm.counters.unclaimed_ports, 2);
    from_shim(&mut m, 0xcf8, 0x8000_1234);
    m.regs.gpr[RDX] = 0xcf8;
    m.privileged(&[0xed]);
    assert_eq!(m.regs.gpr[RAX], 0x8000_1234);
    // Other instructions and widths are made.
    let calls = m.vmm.counters.shim_calls.get();
    for code in [&[0xee][..], &[0x66, 0xef], &[0xe7, 0x80]] {
        m.regs.gpr[RDX] = 0x501;
        assert_eq!(m.privileged(code), Outcome::Resume);
        assert_eq!(m.regs.rip, CODE + code.len() as u64);
    }
    assert_eq!(m.vmm.counters.unclaimed_ports, 5);
    assert_eq!(m.vmm.counters.shim_calls, calls);
}

/// It is what a call costs: the message tells of RIP, RSP and flags.
#[test]
fn a_call_reads_no_register() {
    struct Nothing;
    impl Source for Nothing {
        fn read(&self, _: &mut [u64]) {
            panic!("a register was read");
        }
    }
    let functions = functions();
    let mut m = machine(&functions);
    m.code(&[0xef]);
    let mut regs = Trapped::new(&Nothing, &[CODE, STACK, 0x202]);
    let fault = Fault::Exception {
        vector: 13,
        code: 0,
    };
    assert_eq!(m.vmm.fault(fault, &mut regs, &mut m.host), Outcome::Resume);
    assert!(regs.written().eq([SHIM, STACK - 128 - 8]));
}

#[test]
fn a_call_without_a_stack_is_a_stack_fault() {
    let functions = functions();
    for stack in [0, 7, RAM + 135, RAM + RAM_SIZE + 200, u64::MAX] {
        let mut m = machine(&functions);
        m.regs.gpr[RSP] = stack;
        let outcome = m.outl(0x501, 0);
        // The exception has no stack either.
        assert_eq!(
            outcome,
            Outcome::Stop(StopReason::TripleFault(12)),
            "{stack:#x}"
        );
        assert_eq!((m.regs.rip, m.regs.gpr[RSP]), (CODE, stack));
    }
}

#[test]
fn without_a_shim_the_ports_are_not_there() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    for port in 0x500..=0x508 {
        assert_eq!(m.outl(port, SHIM), Outcome::Resume);
        assert_eq!(m.regs.rip, CODE + 1);
    }
    assert_eq!(m.vmm.counters.unclaimed_ports, 9);
    // Nor before it has registered.
    let mut m = Machine::new(&functions);
    m.vmm = m.vmm.with_shim(Some(SHIM));
    m.outl(0x501, 0);
    assert_eq!(m.regs.rip, CODE + 1);
}
