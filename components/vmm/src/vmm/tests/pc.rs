//! A guest with the devices of a PC: their interrupts, and the end of the machine.

use spec::{EXIT_RESET, EXIT_SUCCESS};

use super::*;
use crate::Pc;

/// A machine whose time stamp counter has a tick in each microsecond, with the 8259s set
/// up for vectors from 0x20 and only IRQ 0 let through.
fn machine(functions: &[FunctionInfo]) -> Machine<'_> {
    let mut m = Machine::new(functions);
    m.vmm.set_pc(Pc::new(1000, 0));
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfe),
    ] {
        outb(&mut m, port, value);
    }
    m
}

fn outb(m: &mut Machine<'_>, port: u64, value: u64) -> Outcome {
    m.regs.gpr[RDX] = port;
    m.regs.gpr[RAX] = value;
    m.privileged(&[0xee])
}

/// Starts channel 0, whose clock is a little faster than the time stamp counter.
fn start_timer(m: &mut Machine<'_>, count: u64) {
    for (port, value) in [(0x43, 0x34), (0x40, count & 0xff), (0x40, count >> 8)] {
        assert_eq!(outb(m, port, value), Outcome::Resume);
    }
}

#[test]
fn an_8254_wakes_the_guest_through_the_8259() {
    let functions = functions();
    let mut m = machine(&functions);
    start_timer(&mut m, 1193);
    assert_eq!(m.host.deadline, Some(1000));
    assert_eq!(m.privileged(&[0xfb, 0xf4]), Outcome::Wait);
    m.host.now = 1000;
    m.timer();
    assert!(m.vmm.wants_injection());
    assert_eq!(m.inject(), Outcome::Resume);
    assert!(m.interrupted_with(0x20));
    assert_eq!(m.host.deadline, Some(2000));
    // The local APIC has nothing to end, and no say in the next one.
    m.privileged(&[0xfb]);
    m.host.now = 2000;
    m.timer();
    assert!(!m.vmm.wants_injection());
    assert_eq!(outb(&mut m, 0x20, 0x20), Outcome::Resume);
    assert!(m.interrupted_with(0x20));
}

#[test]
fn the_interrupt_flag_and_lint0_hold_the_8259_back() {
    let functions = functions();
    let mut m = machine(&functions);
    start_timer(&mut m, 1193);
    m.host.now = 1000;
    m.timer();
    assert!(!m.vmm.wants_injection(), "interrupts are off");
    // The local vector table's LINT0, masked.
    let lint0 = |m: &mut Machine<'_>, value| {
        m.regs.gpr[RCX] = 0xfee0_0350;
        m.regs.gpr[RAX] = value;
        m.memory(0xfee0_0350, &[0x89, 0x01])
    };
    lint0(&mut m, 0x1_0700);
    m.privileged(&[0xfb]);
    assert!(!m.vmm.wants_injection());
    assert_eq!(m.regs.rip, CODE + 1);
    lint0(&mut m, 0x700);
    assert!(m.interrupted_with(0x20));
}

#[test]
fn the_local_apic_comes_first() {
    let functions = functions();
    let mut m = machine(&functions);
    m.host.routes[1] = Some(route(0x31, false));
    start_timer(&mut m, 1193);
    m.host.now = 1000;
    m.timer();
    m.vmm.events(slot_badge(1), &mut m.host);
    m.privileged(&[0xfb]);
    assert!(m.interrupted_with(0x31));
    m.privileged(&[0x48, 0xcf]);
    assert!(m.interrupted_with(0x20));
}

#[test]
fn the_8254_is_pin_2_of_the_io_apic() {
    let functions = functions();
    let mut m = machine(&functions);
    outb(&mut m, 0x21, 0xff);
    for (address, value) in [(0xfec0_0000, 0x14), (0xfec0_0010, 0x55)] {
        m.regs.gpr[RCX] = address;
        m.regs.gpr[RAX] = value;
        m.memory(address, &[0x89, 0x01]);
    }
    start_timer(&mut m, 1193);
    m.host.now = 1000;
    m.timer();
    m.privileged(&[0xfb]);
    assert!(m.interrupted_with(0x55));
}

#[test]
fn a_fast_8254_interrupts_no_more_often_than_any_timer() {
    let functions = functions();
    let mut m = machine(&functions);
    start_timer(&mut m, 1);
    m.host.now = 1;
    m.timer();
    // BUDGET.timer: 10 ticks from the last one.
    assert_eq!(m.host.deadline, Some(11));
}

#[test]
fn the_machine_is_switched_off_and_reset() {
    let functions = functions();
    let mut m = machine(&functions);
    m.regs.gpr[RDX] = 0x604;
    m.regs.gpr[RAX] = 0x2000;
    let off = Outcome::Stop(StopReason::Exit(EXIT_SUCCESS));
    assert_eq!(m.privileged(&[0x66, 0xef]), off);
    let reset = Outcome::Stop(StopReason::Exit(EXIT_RESET));
    assert_eq!(outb(&mut m, 0x64, 0xfe), reset);
    assert_eq!(outb(&mut m, 0xcf9, 6), reset);
}

#[test]
fn other_guests_have_none_of_it() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    for port in [0x20, 0x40, 0x61, 0x71, 0xcf9, 0x64] {
        assert_eq!(outb(&mut m, port, 0xfe), Outcome::Resume);
    }
    m.regs.gpr[RDX] = 0x604;
    m.regs.gpr[RAX] = 0x2000;
    assert_eq!(m.privileged(&[0x66, 0xef]), Outcome::Resume);
    assert_eq!(m.vmm.counters.unclaimed_ports, 7);
}

#[test]
fn a_pc_posts_nothing() {
    let functions = functions();
    let mut m = machine(&functions);
    let unclaimed = m.vmm.counters.unclaimed_ports.get();
    m.outl(spec::posted::PORT.into(), RAM + 0x3000);
    assert_eq!(m.vmm.counters.unclaimed_ports, unclaimed + 1);
}
