//! Calls of an image to the shim beside it.

use super::*;

const SHIM: u64 = CODE + 0x800;
const SHIM_IDT: u64 = RAM + 0x2000;

/// Returns a machine whose shim has registered, and whose image has loaded its own table.
fn machine(functions: &[FunctionInfo]) -> Machine<'_> {
    let mut m = Machine::new(functions);
    m.vmm = m.vmm.with_shim(true);
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
    m.vmm.events(1 << 1, &mut m.host);
    assert_eq!(m.inject(), Outcome::Resume);
    assert!(m.interrupted_with(0x41));
}

#[test]
fn a_shim_registers_once() {
    let functions = functions();
    let mut m = machine(&functions);
    m.outl(0x500, CODE);
    m.outl(0x501, 0);
    assert_eq!(m.regs.rip, SHIM);
    assert_eq!(m.vmm.counters.unclaimed_ports, 1);
}

#[test]
fn other_ports_and_widths_are_not_calls() {
    let functions = functions();
    let mut m = machine(&functions);
    for (port, code) in [
        (0x509, &[0xef][..]),
        (0x501, &[0xee]),
        (0x501, &[0x66, 0xef]),
    ] {
        m.regs.gpr[RDX] = port;
        assert_eq!(m.privileged(code), Outcome::Resume);
        assert_eq!(m.regs.rip, CODE + code.len() as u64);
    }
    assert_eq!(m.vmm.counters.unclaimed_ports, 3);
    assert_eq!(m.vmm.counters.shim_calls, 0);
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
    m.vmm = m.vmm.with_shim(true);
    m.outl(0x501, 0);
    assert_eq!(m.regs.rip, CODE + 1);
}
