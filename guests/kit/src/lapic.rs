//! The local APIC: end of interrupt, one-shot timer, identity.
//!
//! Intel SDM vol. 3, chapter 10. Register accesses trap on Vectis, so nothing
//! here is done twice without need.

use crate::clock::Clock;
use crate::command_line::CommandLine;
use crate::{cpu, interrupts};

/// Vector of the timer interrupt.
pub const TIMER_VECTOR: u8 = 0x40;
const SPURIOUS_VECTOR: u8 = 0xff;

/// IA32_APIC_BASE: enable (bit 11) and x2APIC mode (bit 10), SDM vol. 3, 10.4.4.
const APIC_BASE_MSR: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
/// Physical address bits of IA32_APIC_BASE, below the 52 that x86 allows.
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Register offsets in xAPIC mode; divided by 16 they are MSR numbers from
/// 0x800 on (SDM vol. 3, tables 10-1 and 10-6).
const ID: u32 = 0x020;
const TASK_PRIORITY: u32 = 0x080;
const EOI: u32 = 0x0b0;
const SPURIOUS: u32 = 0x0f0;
const COMMAND: u32 = 0x300;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const LVT_MASKED: u32 = 1 << 16;
/// Interrupt command: destination shorthand "self" (SDM vol. 3, 10.6.1).
const TO_SELF: u32 = 0b01 << 18;
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Divide configuration "by 16": 32 bits then last a minute at 1 GHz.
const DIVIDE_BY_16: u32 = 0b0011;
/// How long the timer is compared with the clock, in microseconds.
const CALIBRATION_MICROS: u64 = 5_000;

#[derive(Clone, Copy)]
enum Mode {
    /// Registers in memory at this address.
    Xapic(u64),
    X2apic,
}

/// The local APIC of the guest's only CPU.
pub struct Lapic {
    mode: Mode,
    /// Timer ticks per millisecond.
    ticks_per_milli: u64,
    /// Time stamp ticks per millisecond.
    tsc_per_milli: u64,
}

impl Lapic {
    /// Enables the local APIC with its timer stopped and its pins masked.
    ///
    /// x2APIC mode is used if CPUID offers it and it takes effect, or by
    /// `apic=x2apic` on the command line; `apic=xapic` keeps it off. The timer's
    /// rate is `apic_khz=N` (after division by 16), else it is measured.
    pub fn enable(clock: &Clock, command_line: &CommandLine) -> Self {
        let want_x2apic = match command_line.value("apic") {
            Some("x2apic") => true,
            Some("xapic") => false,
            _ => cpu::has_x2apic(),
        };
        // SAFETY: every x86-64 CPU has this register; the value keeps the
        // address and only turns the APIC on.
        let base = unsafe {
            let base = cpu::read_msr(APIC_BASE_MSR) | BASE_ENABLE;
            let mode = if want_x2apic { BASE_X2APIC } else { 0 };
            cpu::write_msr(APIC_BASE_MSR, base | mode);
            cpu::read_msr(APIC_BASE_MSR)
        };
        let mode = if base & BASE_X2APIC != 0 {
            Mode::X2apic
        } else {
            Mode::Xapic(base & BASE_ADDRESS)
        };
        let mut lapic = Self {
            mode,
            ticks_per_milli: 0,
            tsc_per_milli: clock.khz(),
        };
        interrupts::set_eoi_address(match mode {
            Mode::Xapic(address) => address + u64::from(EOI),
            Mode::X2apic => 0,
        });
        lapic.write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
        lapic.write(LVT_LINT0, LVT_MASKED);
        lapic.write(LVT_LINT1, LVT_MASKED);
        lapic.write(TIMER_DIVIDE, DIVIDE_BY_16);
        lapic.ticks_per_milli = command_line
            .number("apic_khz")
            .unwrap_or_else(|| lapic.measure(clock))
            .max(1);
        lapic.write(LVT_TIMER, u32::from(TIMER_VECTOR));
        lapic
    }

    fn measure(&mut self, clock: &Clock) -> u64 {
        self.write(LVT_TIMER, LVT_MASKED);
        let start = clock.micros();
        self.write(TIMER_INITIAL, u32::MAX);
        while clock.micros() - start < CALIBRATION_MICROS {}
        let ticks = u32::MAX - self.read(TIMER_CURRENT);
        let elapsed = clock.micros() - start;
        self.write(TIMER_INITIAL, 0);
        u64::from(ticks) * 1000 / elapsed
    }

    /// Arms the timer to interrupt once in `micros` microseconds, or as late as
    /// it can if that is further away; an earlier setting is replaced.
    pub fn arm(&mut self, micros: u64) {
        let wait = u128::from(micros) * u128::from(self.tsc_per_milli) / 1000;
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        if interrupts::set_deadline(cpu::tsc().saturating_add(wait)) {
            return;
        }
        let ticks = u128::from(micros) * u128::from(self.ticks_per_milli) / 1000;
        self.write(TIMER_INITIAL, ticks.clamp(1, u128::from(u32::MAX)) as u32);
    }

    /// Returns this CPU's APIC identifier: the destination of its messages, 0 to 255 in
    /// the form that an MSI address holds.
    pub fn id(&self) -> u8 {
        match self.mode {
            Mode::Xapic(_) => (self.read(ID) >> 24) as u8,
            Mode::X2apic => self.read(ID) as u8,
        }
    }

    /// Ends an interrupt whose handler did not: the stubs do it for those that
    /// they count.
    pub fn end_of_interrupt(&mut self) {
        self.write(EOI, 0);
    }

    /// Sends this CPU an interrupt on `vector` (16 to 255).
    pub fn interrupt_self(&mut self, vector: u8) {
        self.write(COMMAND, TO_SELF | u32::from(vector));
    }

    /// Lets no interrupt through any more, by the highest task priority.
    pub fn close(&mut self) {
        self.write(TASK_PRIORITY, 0xf0);
    }

    /// Returns whether registers are reached as MSRs.
    pub fn is_x2apic(&self) -> bool {
        matches!(self.mode, Mode::X2apic)
    }

    fn read(&self, offset: u32) -> u32 {
        match self.mode {
            // SAFETY: the APIC page is identity mapped, on bare hardware by
            // our own tables and on Vectis by emulation.
            Mode::Xapic(base) => unsafe {
                ((base + u64::from(offset)) as *const u32).read_volatile()
            },
            // SAFETY: x2APIC mode is on, so these registers exist.
            Mode::X2apic => unsafe { cpu::read_msr(0x800 + (offset >> 4)) as u32 },
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        match self.mode {
            // SAFETY: as in `read`; no APIC register moves memory.
            Mode::Xapic(base) => unsafe {
                ((base + u64::from(offset)) as *mut u32).write_volatile(value);
            },
            // SAFETY: as in `read`.
            Mode::X2apic => unsafe { cpu::write_msr(0x800 + (offset >> 4), u64::from(value)) },
        }
    }
}
