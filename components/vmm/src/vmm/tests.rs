//! A guest on a fake machine: every trap, its answer and its side effects.

extern crate std;

use std::vec;
use std::vec::Vec;

use channel::GuestMessage;
use channel::events::SlotEvents;
use channel::irq_router::Source;
use channel::msix::FunctionBar;
use channel::pci_config::Effect;
use channel::routes::Route;
use pci::{BarInfo, BarKind, Bdf, FunctionInfo, MsixInfo, MsixPage, Width};
use spec::{FunctionId, slot_badge};

use super::*;
use crate::host::{GuestMemory, Interrupts, PciFunctions, Unclaimed};

mod bars;
mod configuration;
mod pc;
mod pins;
mod posted;
mod processor;
mod shim;
mod storms;
mod traps;
mod turns;

use crate::descriptors::Table;
use crate::registers::{RAX, RCX, RDX, RFLAGS_IF, RSP};

const RAM: u64 = 0x1000_0000;
const RAM_SIZE: u64 = 0x2_0000;
const CODE: u64 = RAM + 0x1_0000;
const IDT: u64 = RAM + 0x4000;
const STACK: u64 = RAM + 0x8000;
const HANDLER: u64 = RAM + 0x9000;
const BAR0: u64 = 0xfea0_0000;
const BAR3: u64 = 0xfebf_0000;
const BUDGET: Budget = Budget {
    events: 100,
    interval: 1000,
    timer: 10,
};

/// Something of each slot: arrays of that length have no default.
struct EachSlot<T>([T; SLOTS]);

impl<T: Default> Default for EachSlot<T> {
    fn default() -> Self {
        Self(core::array::from_fn(|_| T::default()))
    }
}

impl<T> core::ops::Deref for EachSlot<T> {
    type Target = [T; SLOTS];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> core::ops::DerefMut for EachSlot<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

#[derive(Default)]
struct Fake {
    ram: Vec<u8>,
    now: u64,
    deadline: Option<u64>,
    /// The timer says of each deadline that it comes later.
    puts_off: bool,
    routes: EachSlot<Option<Route>>,
    route_reads: usize,
    bar: Option<u64>,
    /// BAR 0, which most tests have no use for.
    bar0: Option<u64>,
    decode_changes: bool,
    config_writes: Vec<(Bdf, u16, Width, u32)>,
    table_writes: Vec<(u32, Width, u64)>,
    /// Accesses to ports of BARs: BAR, offset, width, and what was written.
    port_accesses: Vec<(u8, u16, Width, Option<u32>)>,
    maps: Vec<(usize, usize, Option<u64>)>,
    /// How many of them were done while other guests go on.
    long_maps: usize,
    console: Vec<u8>,
    throttled: Vec<(u16, bool)>,
    events: EachSlot<SlotEvents>,
    /// Pins acknowledged, in order; none works while `no_pins`.
    acknowledged: Vec<u8>,
    no_pins: bool,
    /// Changes of the turn, in order.
    foreground: Vec<bool>,
    /// Ticks that pass while an event is handled.
    event_cost: u64,
    /// Sources whose storm was reported.
    storms: Vec<u16>,
    /// No source can be masked in its device.
    no_throttling: bool,
    /// Accesses that nothing answered, in order.
    unclaimed: Vec<Unclaimed>,
    /// Times that other guests went on meanwhile.
    long_work: usize,
}

impl Fake {
    fn range(address: u64, length: usize) -> Option<core::ops::Range<usize>> {
        let start = address.checked_sub(RAM)?;
        let end = start.checked_add(length as u64)?;
        (end <= RAM_SIZE).then_some(start as usize..end as usize)
    }

    fn word(&self, address: u64) -> u64 {
        let range = Self::range(address, 8).unwrap();
        u64::from_le_bytes(self.ram[range].try_into().unwrap())
    }
}

impl GuestMemory for Fake {
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        Self::range(address, bytes.len())
            .map(|range| bytes.copy_from_slice(&self.ram[range]))
            .is_some()
    }
    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool {
        Self::range(address, bytes.len())
            .map(|range| self.ram[range].copy_from_slice(bytes))
            .is_some()
    }
}

impl PciFunctions for Fake {
    fn config_read(&mut self, bdf: Bdf, offset: u16, _: Width) -> u32 {
        u32::from(bdf.requester_id()) << 16 | u32::from(offset)
    }
    fn config_write(&mut self, bdf: Bdf, offset: u16, width: Width, value: u32) -> Effect {
        self.config_writes.push((bdf, offset, width, value));
        if self.decode_changes {
            Effect::DECODE
        } else {
            Effect::NONE
        }
    }
    fn bar(&mut self, _: FunctionId, bar: usize) -> Option<u64> {
        match bar {
            0 => self.bar0,
            3 => self.bar,
            _ => None,
        }
    }
    fn map_bar(&mut self, function: FunctionId, bar: usize, address: Option<u64>, long: bool) {
        self.maps.push((function.index(), bar, address));
        self.long_maps += usize::from(long);
    }
    fn ports_read(&mut self, place: FunctionBar, offset: u16, width: Width) -> u32 {
        self.port_accesses.push((place.bar, offset, width, None));
        0x1234_5678 & width.all_ones() as u32
    }
    fn ports_write(&mut self, place: FunctionBar, offset: u16, width: Width, value: u32) {
        self.port_accesses
            .push((place.bar, offset, width, Some(value)));
    }
    fn table_read(&mut self, _: FunctionBar, offset: u32, _: Width) -> u64 {
        if offset >= 0x2000 {
            0
        } else {
            u64::from(offset)
        }
    }
    fn table_write(&mut self, _: FunctionBar, offset: u32, width: Width, value: u64) {
        self.table_writes.push((offset, width, value));
    }
}

impl Interrupts for Fake {
    fn route(&mut self, slot: usize) -> Option<Route> {
        self.route_reads += 1;
        *self.routes.get(slot)?
    }
    fn set_throttled(&mut self, source: Source, throttled: bool) -> bool {
        if !self.no_throttling {
            self.throttled.push((source.entry, throttled));
        }
        !self.no_throttling
    }
    fn report_storm(&mut self, source: Source) {
        self.storms.push(source.entry);
    }
    fn publish_events(&mut self, slot: usize, _: Source, events: &SlotEvents) {
        self.events[slot] = *events;
        self.now += self.event_cost;
    }
    fn acknowledge_pin(&mut self, pin: u8) -> bool {
        if !self.no_pins {
            self.acknowledged.push(pin);
        }
        !self.no_pins
    }
}

impl Host for Fake {
    fn now(&mut self) -> u64 {
        self.now
    }
    fn set_deadline(&mut self, deadline: Option<u64>) -> bool {
        self.deadline = deadline;
        self.puts_off
    }
    fn set_foreground(&mut self, foreground: bool) {
        self.foreground.push(foreground);
    }
    fn in_background<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.long_work += 1;
        work(self)
    }
    fn report_unclaimed(&mut self, place: Unclaimed) {
        self.unclaimed.push(place);
    }
    fn console_write(&mut self, byte: u8) {
        self.console.push(byte);
    }
}

fn functions() -> [FunctionInfo; 1] {
    let mut info = FunctionInfo::default();
    info.bars[3] = BarInfo {
        kind: BarKind::Memory32,
        size: 0x4000,
        address: BAR3,
        guest: BAR3,
        ..BarInfo::default()
    };
    info.msix = MsixInfo {
        entries: 5,
        table_bar: 3,
        pba_bar: 3,
        pba_offset: 0x2000,
        page_count: 2,
        ..MsixInfo::default()
    };
    info.msix.pages[0] = MsixPage { bar: 3, page: 0 };
    info.msix.pages[1] = MsixPage { bar: 3, page: 2 };
    [info]
}

fn route(vector: u8, masked: bool) -> Route {
    Route {
        message: GuestMessage {
            vector,
            ..GuestMessage::default()
        },
        masked,
        source: Source::msix(FunctionId(0), 2),
    }
}

impl Registers {
    fn edx_eax(&self) -> u64 {
        self.gpr[RDX] << 32 | self.gpr[RAX] & 0xffff_ffff
    }

    fn set_edx_eax(&mut self, value: u64) {
        self.gpr[RAX] = value & 0xffff_ffff;
        self.gpr[RDX] = value >> 32;
    }
}

struct Machine<'a> {
    vmm: Vmm<'a>,
    host: Fake,
    regs: Registers,
}

impl<'a> Machine<'a> {
    fn new(functions: &'a [FunctionInfo]) -> Self {
        let mut host = Fake {
            ram: vec![0; RAM_SIZE as usize],
            bar: Some(BAR3),
            ..Fake::default()
        };
        let mut vmm = Vmm::new(functions, BUDGET, Share::WHOLE);
        vmm.start(&mut host);
        let mut regs = Registers {
            rip: CODE,
            rflags: 0x202,
            ..Registers::default()
        };
        regs.gpr[RSP] = STACK;
        let mut machine = Self { vmm, host, regs };
        machine.load_idt();
        machine
    }

    /// Loads a table with an interrupt gate to HANDLER + vector for every vector.
    fn load_idt(&mut self) {
        for vector in 0..256u64 {
            let handler = HANDLER + vector;
            let gate = u128::from(handler & 0xffff)
                | 0x10 << 16
                | 0x8e << 40
                | u128::from(handler >> 16) << 48;
            self.host.write_ram(IDT + vector * 16, &gate.to_le_bytes());
        }
        let mut pointer = vec![0xff, 0x0f];
        pointer.extend_from_slice(&IDT.to_le_bytes());
        self.host.write_ram(STACK, &pointer);
        self.regs.gpr[RAX] = STACK;
        // lidt [rax]
        assert_eq!(self.privileged(&[0x0f, 0x01, 0x18]), Outcome::Resume);
        // The local APIC on: spurious vector register.
        self.regs.gpr[RAX] = 0x1ff;
        self.regs.gpr[RCX] = 0xfee0_00f0;
        // mov [rcx], eax
        assert_eq!(self.memory(0xfee0_00f0, &[0x89, 0x01]), Outcome::Resume);
    }

    fn code(&mut self, bytes: &[u8]) {
        self.regs.rip = CODE;
        assert!(self.host.write_ram(CODE, bytes));
    }

    fn fault(&mut self, fault: Fault) -> Outcome {
        let mut regs = Trapped::new(&self.regs, &[]);
        let outcome = self.vmm.fault(fault, &mut regs, &mut self.host);
        self.regs = regs.all();
        outcome
    }

    fn inject(&mut self) -> Outcome {
        let mut regs = Trapped::new(&self.regs, &[]);
        let outcome = self.vmm.inject(&mut regs, &mut self.host);
        self.regs = regs.all();
        outcome
    }

    fn privileged(&mut self, bytes: &[u8]) -> Outcome {
        self.code(bytes);
        self.fault(Fault::Exception {
            vector: 13,
            code: 0,
        })
    }

    fn outl(&mut self, port: u64, value: u64) -> Outcome {
        self.regs.gpr[RDX] = port;
        self.regs.gpr[RAX] = value;
        self.privileged(&[0xef])
    }

    fn memory(&mut self, address: u64, bytes: &[u8]) -> Outcome {
        self.code(bytes);
        self.fault(Fault::Page {
            address,
            fetch: false,
            code: 4,
        })
    }

    /// Signals the timer, once for each time that it was set.
    fn timer(&mut self) {
        self.host.deadline = None;
        self.vmm.events(BADGE_TIMER, &mut self.host);
    }

    fn interrupted_with(&self, vector: u64) -> bool {
        self.regs.rip == HANDLER + vector
    }
}

#[test]
fn halt_waits_until_a_slot_fires() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    // sti; hlt; cli
    assert_eq!(m.privileged(&[0xfb, 0xf4, 0xfa]), Outcome::Wait);
    assert!(m.vmm.halted() && !m.vmm.wants_injection());
    m.host.now = 700;
    m.vmm.events(slot_badge(1), &mut m.host);
    assert!(m.vmm.wants_injection());
    assert_eq!(m.inject(), Outcome::Resume);
    assert!(m.interrupted_with(0x41) && !m.vmm.halted());
    assert_eq!(m.vmm.counters.halted_ticks, 700);
    // The frame returns behind hlt, with interrupts on.
    let frame = m.regs.gpr[RSP];
    assert_eq!(m.host.word(frame), CODE + 2);
    assert_eq!(m.host.word(frame + 8), 0x10);
    assert_eq!(m.host.word(frame + 16) & RFLAGS_IF, RFLAGS_IF);
    assert_eq!(m.host.word(frame + 24), STACK);
    assert!(frame <= STACK - 128 - 40 && frame.is_multiple_of(8));
    // The handler runs with interrupts off until its iretq.
    m.host.routes[2] = Some(route(0x52, false));
    m.vmm.events(slot_badge(2), &mut m.host);
    assert!(!m.vmm.wants_injection());
    assert_eq!(m.privileged(&[0x48, 0xcf]), Outcome::Resume);
    assert!(m.interrupted_with(0x52));
}

#[test]
fn a_delivered_interrupt_reads_its_route_once() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[0] = Some(route(0x40, false));
    m.host.routes[1] = Some(Route {
        source: Source::pin(FunctionId(0), 20),
        ..route(0, false)
    });
    for slot in 0..2 {
        m.host.route_reads = 0;
        m.vmm.events(slot_badge(slot), &mut m.host);
        assert_eq!(m.host.route_reads, 1, "slot {slot}");
    }
    assert_eq!(m.host.events[0].delivered, 1);
}

#[test]
fn an_event_before_sti_hlt_is_not_slept_over() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[0] = Some(route(0x40, false));
    m.vmm.events(slot_badge(0), &mut m.host);
    assert_eq!(m.privileged(&[0xfb, 0xf4]), Outcome::Resume);
    assert!(m.interrupted_with(0x40));
    assert_eq!(m.host.word(m.regs.gpr[RSP]), CODE + 2);
}

#[test]
fn halt_with_interrupts_off_is_the_end() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    assert_eq!(
        m.privileged(&[0xf4]),
        Outcome::Stop(StopReason::HaltForever)
    );
}

#[test]
fn m20_masked_route_holds_the_event_and_shows_it_pending() {
    for slot in [0, 3, 31, 32, SLOTS - 1] {
        let functions = functions();
        let mut m = Machine::new(&functions);
        m.host.routes[slot] = Some(route(0x43, true));
        m.vmm.events(slot_badge(slot as u8), &mut m.host);
        assert_eq!(m.vmm.counters.held, 1);
        m.regs.gpr[RCX] = BAR3 + 0x2000;
        // mov eax, [rcx]
        m.memory(BAR3 + 0x2000, &[0x8b, 0x01]);
        assert_eq!(m.regs.gpr[RAX], 1 << 2);
        // A table write that unmasks the route lets it go.
        m.host.routes[slot] = Some(route(0x43, false));
        m.privileged(&[0xfb]);
        m.regs.gpr[RCX] = BAR3 + 0x2c;
        // mov dword ptr [rcx], 0
        let outcome = m.memory(BAR3 + 0x2c, &[0xc7, 0x01, 0, 0, 0, 0]);
        assert_eq!(outcome, Outcome::Resume);
        assert!(m.interrupted_with(0x43));
        assert_eq!(m.host.table_writes, [(0x2c, Width::Dword, 0)]);
    }
}

#[test]
fn m20_a_configuration_write_lets_a_held_event_go() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[3] = Some(route(0x43, true));
    m.vmm.events(slot_badge(3), &mut m.host);
    m.outl(0xcf8, 0x8000_1844);
    m.privileged(&[0xfb]);
    m.outl(0xcfc, 7);
    assert!(!m.interrupted_with(0x43), "it is still masked");
    m.host.routes[3] = Some(route(0x43, false));
    m.outl(0xcfc, 7);
    assert!(m.interrupted_with(0x43));
}

#[test]
fn p2_a_held_msi_message_is_no_pending_msix_entry() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[3] = Some(Route {
        source: Source::msi(FunctionId(0), 2),
        ..route(0x43, true)
    });
    m.vmm.events(slot_badge(3), &mut m.host);
    assert_eq!(m.vmm.counters.held, 1);
    m.regs.gpr[RCX] = BAR3 + 0x2000;
    // mov eax, [rcx]
    m.memory(BAR3 + 0x2000, &[0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], 0);
}

#[test]
fn events_without_a_route_are_dropped() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.vmm.events(u64::MAX, &mut m.host);
    assert_eq!(m.vmm.counters.dropped, SLOTS as u64);
    assert!(!m.vmm.wants_injection());
}

#[test]
fn timer_wakes_the_guest() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.now = 100;
    let lapic = |m: &mut Machine<'_>, offset: u64, value: u64| {
        m.regs.gpr[RCX] = 0xfee0_0000 + offset;
        m.regs.gpr[RAX] = value;
        m.memory(0xfee0_0000 + offset, &[0x89, 0x01])
    };
    lapic(&mut m, 0x320, 0x50);
    lapic(&mut m, 0x3e0, 0xb);
    lapic(&mut m, 0x380, 1000);
    assert_eq!(m.host.deadline, Some(1100));
    assert_eq!(m.privileged(&[0xfb, 0xf4]), Outcome::Wait);
    m.host.now = 1100;
    m.timer();
    assert_eq!(m.inject(), Outcome::Resume);
    assert!(m.interrupted_with(0x50));
    assert_eq!(m.host.deadline, None);
}

#[test]
fn x2apic_replaces_the_page() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RCX] = 0x1b;
    m.privileged(&[0x0f, 0x32]);
    assert_eq!(m.regs.gpr[RAX], 0xfee0_0900);
    m.regs.gpr[RAX] |= 1 << 10;
    m.privileged(&[0x0f, 0x30]);
    m.regs.gpr[RCX] = 0x80f;
    m.privileged(&[0x0f, 0x32]);
    assert_eq!(m.regs.gpr[RAX], 0x1ff);
    m.regs.gpr[RCX] = 0xfee0_00f0;
    m.memory(0xfee0_00f0, &[0x8b, 0x01]);
    assert_eq!(m.regs.gpr[RAX], 0xffff_ffff);
    // Back to xAPIC, or moving the page: #GP.
    m.regs.gpr[RCX] = 0x1b;
    m.regs.gpr[RAX] = 0xfee0_0900;
    m.privileged(&[0x0f, 0x30]);
    assert!(m.interrupted_with(13));
}

#[test]
fn unknown_registers_fault() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RCX] = 0x1234_5678;
    m.privileged(&[0x0f, 0x32]);
    assert!(m.interrupted_with(13));
    // The error code lies below the frame.
    assert_eq!(m.host.word(m.regs.gpr[RSP]), 0);
    assert_eq!(m.host.word(m.regs.gpr[RSP] + 8), CODE);
}

#[test]
fn software_interrupts_and_system_calls() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.privileged(&[0xcd, 0x80]);
    assert!(m.interrupted_with(0x80));
    assert_eq!(m.host.word(m.regs.gpr[RSP]), CODE + 2);
    m.fault(Fault::Syscall);
    assert!(m.interrupted_with(6));
    assert_eq!(m.vmm.counters.system_calls, 1);
}

#[test]
fn without_a_gate_or_a_stack_it_is_over() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RSP] = 0x1000;
    let outcome = m.fault(Fault::Exception { vector: 0, code: 0 });
    assert_eq!(outcome, Outcome::Stop(StopReason::TripleFault(0)));
    m.regs.gpr[RSP] = STACK;
    m.host.write_ram(IDT, &[0; 4096]);
    let outcome = m.fault(Fault::Exception { vector: 0, code: 0 });
    assert_eq!(outcome, Outcome::Stop(StopReason::TripleFault(0)));
}

#[test]
fn nothing_below_4g_reads_all_ones_above_is_a_page_fault() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RCX] = 0x5000_0000;
    m.memory(0x5000_0000, &[0x8a, 0x01]);
    assert_eq!(m.regs.gpr[RAX] & 0xff, 0xff);
    assert_eq!(m.vmm.counters.unclaimed_memory, 1);
    // in al, 0x71: no port.
    m.privileged(&[0xe4, 0x71]);
    assert_eq!(m.vmm.counters.unclaimed_ports, 1);
    let places = [Unclaimed::Memory(0x5000_0000), Unclaimed::Port(0x71)];
    assert_eq!(m.host.unclaimed, places);
    m.regs.gpr[RCX] = 1 << 40;
    m.memory(1 << 40, &[0x8a, 0x01]);
    assert!(m.interrupted_with(14));
    m.fault(Fault::Page {
        address: 0x10,
        fetch: true,
        code: 0x14,
    });
    assert!(m.interrupted_with(14));
}

#[test]
fn serial_port_and_exit() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.regs.gpr[RDX] = 0x3f8;
    m.regs.gpr[RAX] = u64::from(b'v');
    m.privileged(&[0xee]);
    assert_eq!(m.host.console, b"v");
    m.regs.gpr[RAX] = 0x10;
    assert_eq!(
        m.privileged(&[0xe6, 0xf4]),
        Outcome::Stop(StopReason::Exit(0x10))
    );
}

#[test]
fn random_traps_never_panic() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    // xorshift64*, fixed seed: the same run every time.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let interesting = [
        CODE,
        STACK,
        IDT,
        BAR3,
        BAR3 + 0x2000,
        0xfee0_0000,
        0xcf8,
        0xcfc,
        0x20,
        0x40,
    ];
    m.vmm.set_pc(crate::Pc::new(1000, 0));
    for _ in 0..200_000 {
        let bytes = [next().to_le_bytes(), next().to_le_bytes()].concat();
        m.code(&bytes);
        for gpr in &mut m.regs.gpr {
            let pick = next();
            *gpr = interesting[(pick % 10) as usize].wrapping_add(pick >> 8 & 0x1ff);
        }
        let fault = match next() % 4 {
            0 => Fault::Page {
                address: next() >> (next() % 64),
                fetch: next() % 8 == 0,
                code: next(),
            },
            1 => Fault::Syscall,
            _ => Fault::Exception {
                vector: if next() % 4 == 0 { next() as u8 } else { 13 },
                code: next(),
            },
        };
        m.fault(fault);
        m.vmm.events(next(), &mut m.host);
        m.inject();
    }
    assert!(m.vmm.counters.memory_accesses.get() > 100);
}
