//! The guest's local APIC with its timer (SDM vol. 3 chapter 11), reached as
//! xAPIC registers in memory or as x2APIC MSRs.

use channel::GuestMessage;

/// Guest-physical address of the xAPIC page; it does not move.
pub const LAPIC_BASE: u64 = spec::MESSAGES.start;
/// First x2APIC MSR; register offset n is MSR `X2APIC_BASE + n / 16`.
pub const X2APIC_BASE: u32 = 0x800;

/// Version 0x14, six LVT entries, as recent CPUs have it.
const VERSION: u32 = 0x14 | 5 << 16;
const LVT_MASKED: u32 = 1 << 16;
/// Delivery mode ExtINT.
const LVT_EXTERNAL: u32 = 7 << 8;
/// Position of LINT0 in the local vector table.
const LINT0: usize = 3;
const SVR_ENABLE: u32 = 1 << 8;
const TIMER_MODE_PERIODIC: u32 = 1;
const TIMER_MODE_DEADLINE: u32 = 2;

/// Offset of the register that ends an interrupt, whatever is written to it.
pub const EOI: u32 = 0xb0;

/// Register offsets from the start of the page (SDM vol. 3 table 11-1).
mod offset {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TPR: u32 = 0x80;
    pub const PPR: u32 = 0xa0;
    pub const LDR: u32 = 0xd0;
    pub const DFR: u32 = 0xe0;
    pub const SVR: u32 = 0xf0;
    pub const ISR: u32 = 0x100;
    pub const TMR: u32 = 0x180;
    pub const IRR: u32 = 0x200;
    pub const ESR: u32 = 0x280;
    pub const ICR: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_LAST: u32 = 0x370;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
    pub const SELF_IPI: u32 = 0x3f0;
}

/// 256 bits, one a vector.
#[derive(Clone, Copy, Debug, Default)]
struct Vectors {
    words: [u32; 8],
    /// Words that are not 0, a bit each: the highest vector is asked for with each trap.
    used: u8,
}

impl Vectors {
    const fn set(&mut self, vector: u8) {
        self.words[(vector >> 5) as usize] |= 1 << (vector & 31);
        self.used |= 1 << (vector >> 5);
    }
    const fn clear(&mut self, vector: u8) {
        let word = &mut self.words[(vector >> 5) as usize];
        *word &= !(1 << (vector & 31));
        if *word == 0 {
            self.used &= !(1 << (vector >> 5));
        }
    }
    fn highest(&self) -> Option<u8> {
        let word = self.used.checked_ilog2()? as u8;
        let bit = self.words[usize::from(word)].checked_ilog2()?;
        Some(word * 32 + bit as u8)
    }
}

/// A local APIC with id 0, the bootstrap processor's.
#[derive(Clone, Debug)]
pub struct Lapic {
    irr: Vectors,
    isr: Vectors,
    tmr: Vectors,
    tpr: u32,
    ldr: u32,
    dfr: u32,
    svr: u32,
    icr: u64,
    lvt: [u32; 6],
    divide: u32,
    initial: u32,
    /// Time stamp at which the count started.
    started: u64,
    /// Time stamp at which the timer fires next.
    deadline: Option<u64>,
    /// The vector of the last EOI since [`Lapic::take_ended`].
    ended: Option<u8>,
    /// The deadline was changed since [`Lapic::take_deadline_change`].
    deadline_changed: bool,
}

impl Default for Lapic {
    fn default() -> Self {
        Self {
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            icr: 0,
            lvt: [LVT_MASKED; 6],
            divide: 0,
            initial: 0,
            started: 0,
            deadline: None,
            ended: None,
            deadline_changed: false,
        }
    }
}

impl Lapic {
    /// Creates the local APIC as a PC's firmware leaves it: enabled, with the 8259s'
    /// interrupts passed through its pin LINT0 (virtual wire mode).
    pub fn virtual_wire() -> Self {
        let mut lapic = Self {
            svr: 0x1ff,
            ..Self::default()
        };
        lapic.lvt[LINT0] = LVT_EXTERNAL;
        lapic
    }

    /// Returns whether interrupts of the 8259s get through. They have no priority here
    /// and are ended there.
    pub const fn passes_external(&self) -> bool {
        self.lvt[LINT0] & (LVT_MASKED | LVT_EXTERNAL) == LVT_EXTERNAL
    }

    /// Takes a routed message; `false` if this APIC does not: software-disabled,
    /// not the destination, or no fixed delivery.
    pub fn accept(&mut self, message: &GuestMessage) -> bool {
        let addressed = if message.logical {
            // Flat model: one bit a processor (SDM vol. 3 section 11.6.2.2).
            u32::from(message.destination) & (self.ldr >> 24) != 0
        } else {
            message.destination == 0 || message.destination == 0xff
        };
        let fixed = matches!(message.delivery_mode, 0 | 1);
        addressed && fixed && self.raise(message.vector, message.level)
    }

    fn raise(&mut self, vector: u8, level: bool) -> bool {
        if self.svr & SVR_ENABLE == 0 || vector < 16 {
            return false;
        }
        self.irr.set(vector);
        if level {
            self.tmr.set(vector);
        } else {
            self.tmr.clear(vector);
        }
        true
    }

    fn processor_priority(&self) -> u32 {
        let in_service = u32::from(self.isr.highest().unwrap_or(0)) & 0xf0;
        if self.tpr & 0xf0 >= in_service {
            self.tpr & 0xff
        } else {
            in_service
        }
    }

    /// Returns the vector that would be delivered now, if interrupts are on.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (u32::from(vector) & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// Returns whether the vector's interrupt was level-triggered when it came last.
    #[must_use]
    pub const fn is_level(&self, vector: u8) -> bool {
        self.tmr.words[(vector >> 5) as usize] >> (vector & 31) & 1 == 1
    }

    /// Sets the time stamp at which the timer interrupts, whatever its mode.
    pub const fn set_deadline(&mut self, deadline: Option<u64>) {
        self.deadline = deadline;
        self.deadline_changed = true;
    }

    /// Moves a pending vector into service.
    pub const fn acknowledge(&mut self, vector: u8) {
        self.irr.clear(vector);
        self.isr.set(vector);
    }

    /// Ends the interrupt of the highest priority in service.
    pub fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.isr.highest() {
            self.isr.clear(vector);
            self.ended = Some(vector);
        }
    }

    /// Returns the vector whose service the guest ended, if it has since the
    /// last call. To be called after each access: this is the vector of an EOI
    /// broadcast to I/O APICs (SDM vol. 3 section 11.8.5).
    pub const fn take_ended(&mut self) -> Option<u8> {
        self.ended.take()
    }

    /// Returns the timer's deadline, if it was changed since the last call.
    pub fn take_deadline_change(&mut self) -> Option<Option<u64>> {
        core::mem::take(&mut self.deadline_changed).then_some(self.deadline)
    }

    /// Returns whether [`take_deadline_change`](Self::take_deadline_change) has one.
    pub const fn deadline_changed(&self) -> bool {
        self.deadline_changed
    }

    /// Handles the timer's signal: raises its vector if the deadline is past. Returns
    /// whether it is.
    pub fn timer(&mut self, now: u64) -> bool {
        let Some(deadline) = self.deadline else {
            return false;
        };
        self.deadline_changed = true;
        if now < deadline {
            return false;
        }
        let lvt = self.lvt[0];
        self.deadline = None;
        if lvt >> 17 & 3 == TIMER_MODE_PERIODIC {
            self.started = now;
            self.deadline = Some(now.saturating_add(self.interval()));
        }
        if lvt & LVT_MASKED == 0 {
            self.raise(lvt as u8, false);
        }
        true
    }

    /// Returns the ticks of the time stamp counter in the whole count.
    fn interval(&self) -> u64 {
        u64::from(self.initial) << self.divide_shift()
    }

    /// Returns the divide configuration (SDM vol. 3 figure 11-10): bits 0, 1
    /// and 3 make a number n; the count runs at the bus clock / 2^(n + 1), 7
    /// stands for / 1.
    const fn divide_shift(&self) -> u32 {
        let n = self.divide & 3 | self.divide >> 1 & 4;
        (n + 1) & 7
    }

    fn current(&self, now: u64) -> u32 {
        match self.deadline {
            Some(deadline) if self.lvt[0] >> 17 & 3 != TIMER_MODE_DEADLINE => {
                (deadline.saturating_sub(now) >> self.divide_shift()) as u32
            }
            _ => 0,
        }
    }

    /// Returns the TSC deadline MSR (SDM vol. 3 section 11.5.4.1): 0 when
    /// disarmed.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        if self.lvt[0] >> 17 & 3 == TIMER_MODE_DEADLINE {
            self.deadline.unwrap_or(0)
        } else {
            0
        }
    }

    /// Writes the TSC deadline MSR; ignored in the other timer modes.
    pub const fn set_tsc_deadline(&mut self, value: u64) {
        if self.lvt[0] >> 17 & 3 == TIMER_MODE_DEADLINE {
            self.deadline = if value == 0 { None } else { Some(value) };
            self.deadline_changed = true;
        }
    }

    /// Reads a 32-bit register; one that is not there reads 0.
    #[must_use]
    pub fn read(&self, register: u32, now: u64) -> u32 {
        let bits = |vectors: &Vectors, base| vectors.words[((register - base) / 16) as usize & 7];
        match register & !0xf {
            offset::VERSION => VERSION,
            offset::TPR => self.tpr,
            offset::PPR => self.processor_priority(),
            offset::LDR => self.ldr,
            offset::DFR => self.dfr,
            offset::SVR => self.svr,
            offset::ISR..offset::TMR => bits(&self.isr, offset::ISR),
            offset::TMR..offset::IRR => bits(&self.tmr, offset::TMR),
            offset::IRR..offset::ESR => bits(&self.irr, offset::IRR),
            offset::ICR => self.icr as u32,
            offset::ICR_HIGH => (self.icr >> 32) as u32,
            offset::LVT_TIMER..=offset::LVT_LAST => {
                self.lvt[((register - offset::LVT_TIMER) / 16) as usize % 6]
            }
            offset::TIMER_INITIAL => self.initial,
            offset::TIMER_CURRENT => self.current(now),
            offset::TIMER_DIVIDE => self.divide,
            offset::ID | EOI | offset::ESR => 0,
            _ => 0,
        }
    }

    /// Writes a 32-bit register; one that is not there or read-only is ignored.
    pub fn write(&mut self, register: u32, value: u32, now: u64) {
        match register & !0xf {
            offset::TPR => self.tpr = value & 0xff,
            EOI => self.end_of_interrupt(),
            offset::LDR => self.ldr = value & 0xff00_0000,
            offset::DFR => self.dfr = value | 0x0fff_ffff,
            offset::SVR => {
                self.svr = value & 0x1ff;
                if value & SVR_ENABLE == 0 {
                    // Software-disabled: every LVT entry is masked.
                    for lvt in &mut self.lvt {
                        *lvt |= LVT_MASKED;
                    }
                }
            }
            offset::ICR => self.command(self.icr & !0xffff_ffff | u64::from(value)),
            offset::ICR_HIGH => self.icr = self.icr & 0xffff_ffff | u64::from(value) << 32,
            offset::LVT_TIMER..=offset::LVT_LAST => {
                let index = ((register - offset::LVT_TIMER) / 16) as usize % 6;
                let masked = if self.svr & SVR_ENABLE == 0 {
                    LVT_MASKED
                } else {
                    0
                };
                let mode = |lvt: u32| lvt >> 17 & 3;
                if index == 0 && mode(value) != mode(self.lvt[0]) {
                    // A change of mode disarms the timer.
                    self.deadline = None;
                    self.deadline_changed = true;
                }
                self.lvt[index] = value & 0x0007_a7ff | masked;
            }
            offset::TIMER_INITIAL if self.lvt[0] >> 17 & 3 != TIMER_MODE_DEADLINE => {
                self.initial = value;
                self.started = now;
                self.deadline = (value != 0).then(|| now.saturating_add(self.interval()));
                self.deadline_changed = true;
            }
            offset::TIMER_DIVIDE => self.divide = value & 0xb,
            offset::SELF_IPI => {
                self.raise(value as u8, false);
            }
            _ => {}
        }
    }

    /// Writes the whole interrupt command register: an IPI, which only this
    /// processor can be the target of.
    pub fn command(&mut self, icr: u64) {
        self.icr = icr & !(1 << 12);
        let shorthand = icr >> 18 & 3;
        let destination = (icr >> 56) as u8;
        let me = match shorthand {
            1 | 2 => true,
            3 => false,
            _ => destination == 0 || destination == 0xff,
        };
        if me && icr >> 8 & 7 <= 1 {
            self.raise(icr as u8, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(vector: u8) -> GuestMessage {
        GuestMessage {
            vector,
            ..GuestMessage::default()
        }
    }

    fn enabled() -> Lapic {
        let mut lapic = Lapic::default();
        lapic.write(offset::SVR, 0x1ff, 0);
        lapic
    }

    #[test]
    fn takes_nothing_while_software_disabled() {
        let mut lapic = Lapic::default();
        assert!(!lapic.accept(&message(0x40)));
        lapic.write(offset::SVR, 0x1ff, 0);
        assert!(lapic.accept(&message(0x40)));
        assert_eq!(lapic.pending(), Some(0x40));
    }

    #[test]
    fn priority_class_holds_back_the_same_and_lower() {
        let mut lapic = enabled();
        lapic.accept(&message(0x41));
        lapic.acknowledge(0x41);
        lapic.accept(&message(0x4f));
        assert_eq!(lapic.pending(), None);
        lapic.accept(&message(0x50));
        assert_eq!(lapic.pending(), Some(0x50));
        lapic.acknowledge(0x50);
        lapic.write(EOI, 0, 0);
        assert_eq!(lapic.pending(), None);
        lapic.write(EOI, 0, 0);
        assert_eq!(lapic.pending(), Some(0x4f));
        lapic.write(offset::TPR, 0x40, 0);
        assert_eq!(lapic.pending(), None);
    }

    #[test]
    fn only_messages_for_this_processor() {
        let mut lapic = enabled();
        let other = GuestMessage {
            destination: 1,
            ..message(0x40)
        };
        assert!(!lapic.accept(&other));
        let broadcast = GuestMessage {
            destination: 0xff,
            ..message(0x40)
        };
        assert!(lapic.accept(&broadcast));
        let logical = GuestMessage {
            logical: true,
            destination: 2,
            ..message(0x41)
        };
        assert!(!lapic.accept(&logical));
        lapic.write(offset::LDR, 2 << 24, 0);
        assert!(lapic.accept(&logical));
        let nmi = GuestMessage {
            delivery_mode: 4,
            ..message(0x42)
        };
        assert!(!lapic.accept(&nmi));
    }

    #[test]
    fn vectors_below_16_are_not_taken() {
        let mut lapic = enabled();
        for vector in 0..16 {
            assert!(!lapic.accept(&message(vector)), "{vector}");
        }
        assert_eq!(lapic.read(offset::IRR, 0), 0);
        assert!(lapic.accept(&message(16)));
    }

    #[test]
    fn one_shot_timer() {
        let mut lapic = enabled();
        lapic.write(offset::LVT_TIMER, 0x60, 0);
        lapic.write(offset::TIMER_DIVIDE, 0xb, 0);
        lapic.take_deadline_change();
        lapic.write(offset::TIMER_INITIAL, 1000, 5000);
        assert_eq!(lapic.take_deadline_change(), Some(Some(6000)));
        assert_eq!(lapic.take_deadline_change(), None);
        assert_eq!(lapic.read(offset::TIMER_CURRENT, 5600), 400);
        lapic.timer(5999);
        assert_eq!(lapic.pending(), None);
        lapic.timer(6000);
        assert_eq!(lapic.pending(), Some(0x60));
        assert_eq!(lapic.read(offset::TIMER_CURRENT, 6000), 0);
    }

    #[test]
    fn periodic_timer_counts_again_from_when_it_fired() {
        let mut lapic = enabled();
        lapic.write(offset::LVT_TIMER, 1 << 17 | 0x61, 0);
        lapic.write(offset::TIMER_DIVIDE, 0xb, 0);
        lapic.write(offset::TIMER_INITIAL, 100, 0);
        assert_eq!(lapic.take_deadline_change(), Some(Some(100)));
        assert!(!lapic.timer(99));
        assert!(lapic.timer(130));
        assert_eq!(lapic.take_deadline_change(), Some(Some(230)));
        assert_eq!(lapic.pending(), Some(0x61));
    }

    #[test]
    fn tsc_deadline_works_only_in_its_mode() {
        let mut lapic = enabled();
        lapic.set_tsc_deadline(77);
        assert_eq!(lapic.tsc_deadline(), 0);
        lapic.write(offset::LVT_TIMER, 2 << 17 | 0x62, 0);
        lapic.set_tsc_deadline(77);
        assert_eq!(lapic.tsc_deadline(), 77);
        lapic.timer(77);
        assert_eq!((lapic.pending(), lapic.tsc_deadline()), (Some(0x62), 0));
    }

    #[test]
    fn self_ipi() {
        let mut lapic = enabled();
        lapic.write(offset::ICR, 1 << 18 | 0x70, 0);
        assert_eq!(lapic.pending(), Some(0x70));
        lapic.write(offset::ICR, 3 << 18 | 0x80, 0);
        assert_eq!(lapic.pending(), Some(0x70));
    }

    #[test]
    fn every_register_can_be_read_and_written() {
        let mut lapic = enabled();
        for register in 0..0x1000 {
            let _ = lapic.read(register, 0);
            lapic.write(register, u32::MAX, 0);
        }
    }
}
