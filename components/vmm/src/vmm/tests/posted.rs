//! Interrupts posted in the guest's memory.

use super::*;
use spec::posted::{DEADLINE, PORT, SIZE};

const BLOCK: u64 = RAM + 0x3000;

/// Returns a machine whose guest has asked, with an entry that sends vector 0x41.
fn machine(functions: &[FunctionInfo]) -> Machine<'_> {
    let mut m = Machine::new(functions);
    m.host.routes[1] = Some(route(0x41, false));
    m.privileged(&[0xfb]);
    assert_eq!(m.outl(PORT.into(), BLOCK), Outcome::Resume);
    assert_eq!(m.vmm.counters.unclaimed_ports, 0);
    m
}

fn halt(m: &mut Machine<'_>) -> Outcome {
    m.privileged(&[0xf4])
}

fn arm(m: &mut Machine<'_>, deadline: u64) {
    m.host.write_ram(BLOCK + DEADLINE, &deadline.to_le_bytes());
}

/// Takes the vectors, as a guest does.
fn take(m: &mut Machine<'_>) -> Vec<u64> {
    let vectors =
        (0..256).filter(|vector| m.host.word(BLOCK + vector / 64 * 8) >> (vector % 64) & 1 == 1);
    let vectors = vectors.collect();
    m.host.write_ram(BLOCK, &[0; 32]);
    vectors
}

#[test]
fn an_interrupt_is_a_bit_and_nothing_else() {
    let functions = functions();
    let mut m = machine(&functions);
    let before = (m.regs, m.host.ram.clone());
    m.vmm.events(slot_badge(1), &mut m.host);
    assert!(!m.vmm.wants_injection());
    assert_eq!(take(&mut m), [0x41]);
    assert_eq!((m.regs, m.host.ram.clone()), before);
    // Without an end of interrupt the next one comes, also with interrupts off.
    m.privileged(&[0xfa]);
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(take(&mut m), [0x41]);
    assert_eq!(m.vmm.counters.posted, 2);
    assert_eq!(m.vmm.counters.injected, 0);
}

#[test]
fn a_halt_ends_by_a_bit_that_is_or_will_be_there() {
    let functions = functions();
    let mut m = machine(&functions);
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(halt(&mut m), Outcome::Resume);
    assert_eq!(m.regs.rip, CODE + 1);
    assert_eq!(take(&mut m), [0x41]);
    assert_eq!(halt(&mut m), Outcome::Wait);
    assert!(!m.vmm.wants_injection());
    m.vmm.events(slot_badge(1), &mut m.host);
    assert!(m.vmm.wants_injection());
    assert_eq!(m.inject(), Outcome::Resume);
    assert_eq!((m.regs.rip, m.vmm.halted()), (CODE + 1, false));
    // With interrupts off it is the end.
    m.privileged(&[0xfa]);
    assert_eq!(halt(&mut m), Outcome::Stop(StopReason::HaltForever));
}

#[test]
fn the_task_priority_holds_interrupts_back() {
    let functions = functions();
    let mut m = machine(&functions);
    let priority = |m: &mut Machine<'_>, value| {
        m.regs.gpr[RCX] = 0xfee0_0080;
        m.regs.gpr[RAX] = value;
        m.memory(0xfee0_0080, &[0x89, 0x01]);
    };
    priority(&mut m, 0xf0);
    m.vmm.events(slot_badge(1), &mut m.host);
    assert!(take(&mut m).is_empty());
    priority(&mut m, 0);
    assert_eq!(take(&mut m), [0x41]);
}

#[test]
fn a_deadline_in_memory_is_the_local_apic_s() {
    let functions = functions();
    let mut m = machine(&functions);
    m.regs.gpr[RCX] = 0xfee0_0320;
    m.regs.gpr[RAX] = 0x50;
    m.memory(0xfee0_0320, &[0x89, 0x01]);
    arm(&mut m, 5000);
    assert_eq!(m.host.deadline, None, "nobody looks before it sleeps");
    assert_eq!(halt(&mut m), Outcome::Wait);
    assert_eq!(m.host.deadline, Some(5000));
    // Another interrupt comes first, and the guest moves the deadline on: the timer stays.
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.inject(), Outcome::Resume);
    assert_eq!(take(&mut m), [0x41]);
    arm(&mut m, 9000);
    assert_eq!(halt(&mut m), Outcome::Wait);
    assert_eq!(m.host.deadline, Some(5000));
    m.host.now = 5000;
    m.timer();
    assert!(!m.vmm.wants_injection());
    assert_eq!(m.host.deadline, Some(9000));
    m.host.now = 9000;
    m.timer();
    assert_eq!(m.inject(), Outcome::Resume);
    assert_eq!(take(&mut m), [0x50]);
    // It was once; an earlier one is set at once, and one that is past comes at once.
    assert_eq!(halt(&mut m), Outcome::Wait);
    assert_eq!(m.host.deadline, None);
    m.vmm.events(slot_badge(1), &mut m.host);
    m.inject();
    take(&mut m);
    arm(&mut m, 20_000);
    halt(&mut m);
    m.vmm.events(slot_badge(1), &mut m.host);
    m.inject();
    take(&mut m);
    arm(&mut m, 15_000);
    halt(&mut m);
    assert_eq!(m.host.deadline, Some(15_000));
    m.vmm.events(slot_badge(1), &mut m.host);
    m.inject();
    take(&mut m);
    m.host.now = 16_000;
    arm(&mut m, 15_500);
    assert_eq!(halt(&mut m), Outcome::Resume);
    assert_eq!(take(&mut m), [0x50]);
}

#[test]
fn a_block_must_be_ram_and_may_be_taken_back() {
    let functions = functions();
    let mut m = machine(&functions);
    for address in [
        BLOCK + 1,
        BLOCK + 32,
        RAM - SIZE,
        RAM + RAM_SIZE,
        0xffff_ffc0,
    ] {
        let unclaimed = m.vmm.counters.unclaimed_ports.get();
        assert_eq!(
            m.outl(PORT.into(), address),
            Outcome::Resume,
            "{address:#x}"
        );
        assert_eq!(m.vmm.counters.unclaimed_ports, unclaimed + 1);
        m.outl(PORT.into(), BLOCK);
    }
    m.outl(PORT.into(), RAM + RAM_SIZE - SIZE);
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.host.word(RAM + RAM_SIZE - SIZE + 8), 2);
    // As before it asked.
    m.outl(PORT.into(), 0);
    m.vmm.events(slot_badge(1), &mut m.host);
    assert!(m.vmm.wants_injection());
    assert_eq!(m.inject(), Outcome::Resume);
    assert!(m.interrupted_with(0x41));
}

#[test]
fn every_vector_has_its_bit() {
    let functions = functions();
    let mut m = machine(&functions);
    for vector in 16..=255 {
        m.host.routes[1] = Some(route(vector, false));
        m.vmm.events(slot_badge(1), &mut m.host);
    }
    assert_eq!(take(&mut m), (16..256).collect::<Vec<_>>());
    assert_eq!(m.host.word(BLOCK + DEADLINE), 0);
}
