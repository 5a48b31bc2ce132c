//! INTx through the I/O APIC (C9).

use super::*;
use crate::IOAPIC_BASE;
use spec::FunctionId;

const PIN: u8 = 20;
/// Slot of the pin's handler.
const SLOT: usize = 2;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

fn with_pin() -> [FunctionInfo; 1] {
    let mut functions = functions();
    functions[0].intx = PIN.into();
    functions
}

fn machine(functions: &[FunctionInfo]) -> Machine<'_> {
    let mut machine = Machine::new(functions);
    machine.host.routes[SLOT] = Some(Route {
        source: Source::pin(FunctionId(0), PIN),
        ..route(0, false)
    });
    machine
}

impl Machine<'_> {
    fn store(&mut self, address: u64, value: u32) {
        self.regs.gpr[RCX] = address;
        self.regs.gpr[RAX] = value.into();
        // mov [rcx], eax
        assert_eq!(self.memory(address, &[0x89, 0x01]), Outcome::Resume);
    }

    fn load(&mut self, address: u64) -> u32 {
        self.regs.gpr[RCX] = address;
        // mov eax, [rcx]
        assert_eq!(self.memory(address, &[0x8b, 0x01]), Outcome::Resume);
        self.regs.gpr[RAX] as u32
    }

    fn ioapic(&mut self, register: u8, value: u32) {
        self.store(IOAPIC_BASE, register.into());
        self.store(IOAPIC_BASE + 0x10, value);
    }

    fn read_ioapic(&mut self, register: u8) -> u32 {
        self.store(IOAPIC_BASE, register.into());
        self.load(IOAPIC_BASE + 0x10)
    }

    fn redirect(&mut self, pin: u8, low: u32) {
        self.ioapic(0x10 + 2 * pin, low);
    }

    fn assert_line(&mut self) {
        self.vmm.events(slot_badge(SLOT as u8), &mut self.host);
    }

    fn take_interrupt(&mut self, vector: u64) {
        assert!(self.vmm.wants_injection());
        assert_eq!(self.inject(), Outcome::Resume);
        assert!(self.interrupted_with(vector));
    }

    fn end_of_interrupt(&mut self) {
        self.store(0xfee0_00b0, 0);
    }

    /// Switches interrupts on again, as after iretq.
    fn sti(&mut self) {
        assert_eq!(self.privileged(&[0xfb, 0x90]), Outcome::Resume);
    }
}

#[test]
fn c9_the_ioapic_has_24_masked_pins() {
    let functions = with_pin();
    let mut m = machine(&functions);
    assert_eq!(m.read_ioapic(1), 0x0017_0011);
    for pin in 0..24 {
        assert_eq!(m.read_ioapic(0x10 + 2 * pin), MASKED);
    }
    m.ioapic(0x3e, u32::MAX);
    m.ioapic(0x3f, u32::MAX);
    assert_eq!(m.read_ioapic(0x3e), 0x0001_afff);
    assert_eq!(m.read_ioapic(0x3f), 0xff00_0000);
    for register in [3, 0x0f, 0x40, 0xff] {
        m.ioapic(register, u32::MAX);
        assert_eq!(m.read_ioapic(register), 0);
    }
    assert_eq!(m.host.acknowledged, []);
}

#[test]
fn c9_a_level_interrupt_is_acknowledged_on_eoi() {
    let functions = with_pin();
    let mut m = machine(&functions);
    m.sti();
    m.redirect(PIN, LEVEL | 0x51);
    assert_eq!(m.host.acknowledged, [PIN], "the line is watched");
    m.assert_line();
    m.take_interrupt(0x51);
    assert_eq!(m.read_ioapic(0x10 + 2 * PIN), LEVEL | REMOTE_IRR | 0x51);
    m.redirect(PIN, LEVEL | 0x51);
    assert_eq!(m.host.acknowledged, [PIN], "not before the EOI");
    m.end_of_interrupt();
    assert_eq!(m.host.acknowledged, [PIN, PIN]);
    assert_eq!(m.read_ioapic(0x10 + 2 * PIN), LEVEL | 0x51);
    // Still asserted: the kernel delivers again.
    m.sti();
    m.assert_line();
    m.take_interrupt(0x51);
}

#[test]
fn c9_an_eoi_of_another_vector_acknowledges_nothing() {
    let functions = with_pin();
    let mut m = machine(&functions);
    m.sti();
    m.host.routes[1] = Some(route(0x61, false));
    m.redirect(PIN, LEVEL | 0x51);
    m.assert_line();
    m.take_interrupt(0x51);
    m.vmm.events(slot_badge(1), &mut m.host);
    m.sti();
    assert!(m.interrupted_with(0x61));
    m.end_of_interrupt();
    assert_eq!(m.host.acknowledged, [PIN]);
    m.end_of_interrupt();
    assert_eq!(m.host.acknowledged, [PIN, PIN]);
}

#[test]
fn c9_a_masked_pin_waits_for_its_unmask() {
    let functions = with_pin();
    let mut m = machine(&functions);
    m.redirect(PIN, LEVEL | 0x51);
    m.redirect(PIN, MASKED | LEVEL | 0x51);
    m.assert_line();
    assert!(!m.vmm.wants_injection());
    assert_eq!(m.host.acknowledged, [PIN]);
    m.redirect(PIN, LEVEL | 0x52);
    assert_eq!(
        m.host.acknowledged,
        [PIN, PIN],
        "the line is looked at anew"
    );
    m.sti();
    m.assert_line();
    m.take_interrupt(0x52);
    // Masked by its handler: the EOI leaves the line alone.
    m.redirect(PIN, MASKED | LEVEL | 0x52);
    m.end_of_interrupt();
    assert_eq!(m.host.acknowledged, [PIN, PIN]);
}

#[test]
fn c9_a_pin_without_a_function_is_never_asked_for() {
    let functions = with_pin();
    let mut m = machine(&functions);
    for pin in 0..24 {
        if pin != PIN {
            m.redirect(pin, LEVEL | 0x51);
        }
    }
    assert_eq!(m.host.acknowledged, []);
    // Nor is any where no function has INTx.
    let functions = super::functions();
    let mut m = machine(&functions);
    m.redirect(0, 0x51);
    m.redirect(PIN, LEVEL | 0x51);
    assert_eq!(m.host.acknowledged, []);
}

#[test]
fn c9_a_handler_that_is_not_there_yet_is_asked_for_again() {
    let functions = with_pin();
    let mut m = machine(&functions);
    m.host.no_pins = true;
    m.redirect(PIN, LEVEL | 0x51);
    m.host.no_pins = false;
    m.redirect(PIN, LEVEL | 0x51);
    assert_eq!(m.host.acknowledged, [PIN]);
    // It is watched: writing the same again asks for nothing.
    m.redirect(PIN, LEVEL | 0x51);
    assert_eq!(m.host.acknowledged, [PIN]);
}

#[test]
fn c9_an_edge_entry_does_not_flood_the_guest() {
    let functions = with_pin();
    let mut m = machine(&functions);
    m.sti();
    m.redirect(PIN, 0x51);
    m.assert_line();
    m.take_interrupt(0x51);
    assert_eq!(m.read_ioapic(0x10 + 2 * PIN), 0x51, "no remote IRR");
    assert_eq!(m.host.acknowledged, [PIN]);
    m.end_of_interrupt();
    assert_eq!(m.host.acknowledged, [PIN, PIN]);
}

#[test]
fn m23_a_pin_over_its_budget_is_not_acknowledged() {
    let functions = with_pin();
    let mut m = machine(&functions);
    m.sti();
    m.redirect(PIN, LEVEL | 0x51);
    let mut storm = || {
        m.assert_line();
        m.take_interrupt(0x51);
        m.end_of_interrupt();
        m.sti();
        m.host.acknowledged.len()
    };
    for event in 0..BUDGET.events as usize {
        assert_eq!(storm(), event + 2, "the first is of the redirection entry");
    }
    let all = BUDGET.events as usize + 1;
    assert_eq!(storm(), all, "one too many: the line stays masked");
    assert_eq!(m.vmm.counters.storms, 1);
    assert_eq!(m.host.deadline, Some(1000));
    m.host.now = 1000;
    m.timer();
    assert_eq!(m.host.acknowledged.len(), all + 1);
    assert!(m.host.throttled.is_empty(), "nobody else is asked");
}

#[test]
fn a_level_that_is_posted_comes_again_when_the_guest_ends_it() {
    const BLOCK: u64 = RAM + 0x3000;
    let functions = with_pin();
    let mut m = machine(&functions);
    m.outl(spec::posted::PORT.into(), BLOCK);
    m.redirect(PIN, LEVEL | 0x61);
    m.host.acknowledged.clear();
    m.assert_line();
    assert_eq!(m.host.word(BLOCK + 8), 1 << 0x21);
    assert!(
        m.host.acknowledged.is_empty(),
        "its source waits for the end"
    );
    m.end_of_interrupt();
    assert_eq!(m.host.acknowledged, [PIN]);
    // An edge ends by itself.
    m.redirect(PIN, 0x62);
    m.host.acknowledged.clear();
    m.assert_line();
    assert_eq!(m.host.word(BLOCK + 8), 3 << 0x21);
    assert_eq!(m.host.acknowledged, [PIN]);
}
