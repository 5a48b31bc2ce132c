//! Checks of delivery: rules M9, M10, M20, M21 and P1, with a device that raises interrupts.

use crate::check::{Verdict, expect};
use crate::machine::{Cpu, Machine, Source};
use crate::target::{
    ADDRESS, ADDRESS_HIGH, BUS_MASTER, CONTROL, DATA, ENABLE, FUNCTION_MASK, INTX_DISABLE, MEMORY,
    MSI_ENABLE, Target,
};

/// Vectors of the messages; the second is the one that an entry moves to.
pub const VECTORS: [u8; 2] = [0x51, 0x62];

/// How often [`Cpu::rest`] is tried until an event must have come.
const PATIENCE: u32 = 400;

/// First address of interrupt messages (Intel SDM vol. 3, 10.11.1).
const MESSAGES: u64 = 0xfee0_0000;

/// The I/O APIC's page: register select, and the window 16 bytes behind it
/// (82093AA datasheet, section 3.1).
const IOAPIC: u64 = 0xfec0_0000;
/// Redirection entry: level-triggered; fixed delivery, physical destination.
const LEVEL: u32 = 1 << 15;
/// Redirection entry: masked.
const MASKED: u32 = 1 << 16;
/// Interrupt line and pin registers (PCI Local Bus 3.0 section 6.2.4).
const INTERRUPT_LINE: u8 = 0x3c;
const INTERRUPT_PIN: u8 = 0x3d;

/// One check.
type Check<D> = fn(&mut D) -> Verdict;

/// A function with a device that raises one of its entries.
pub struct Delivery<'a, 'm, M, C, S> {
    /// The function.
    pub target: &'a mut Target<'m, M>,
    /// Where interrupts arrive.
    pub cpu: &'a mut C,
    /// The device.
    pub source: &'a mut S,
}

impl<M: Machine, C: Cpu, S: Source> Delivery<'_, '_, M, C, S> {
    /// Runs all checks and passes each name and verdict to `result`. The entry is
    /// masked and MSI-X off afterwards.
    pub fn run(&mut self, mut result: impl FnMut(&'static str, Verdict)) {
        let checks: [(_, Check<Self>); 8] = [
            ("m3_enabled_entry_delivers", Self::delivers),
            ("m4_disable_and_enable_delivers", Self::enabled_again),
            ("m10_message_written_after_unmask", Self::late_message),
            ("m20_masked_event_is_kept", Self::masked),
            ("m20_function_masked_event_is_kept", Self::function_masked),
            ("m21_moves_to_another_vector", Self::moves),
            (
                "m21_pending_event_goes_to_the_new_vector",
                Self::moves_pending,
            ),
            ("p1_message_moves_at_once", Self::plain_message),
        ];
        for (name, check) in checks {
            self.target.set_command(MEMORY | BUS_MASTER | INTX_DISABLE);
            let verdict = check(self);
            let stopped = self.stop();
            // Late interrupts belong to this check, not to the next.
            self.cpu.rest();
            result(name, verdict.and(stopped));
        }
        // Only a function with `intx` in system.toml shows a pin.
        if let Some(pin) = self.pin() {
            self.target.set_command(MEMORY | BUS_MASTER);
            let verdict = self.pin_delivers(pin);
            self.target.set_command(MEMORY | BUS_MASTER | INTX_DISABLE);
            result("c9_pin_delivers_until_it_is_lowered", verdict);
        }
    }

    /// Returns the I/O APIC's pin of the function, which Vectis shows in the
    /// interrupt line register; `None` if it has no interrupt pin or this is not
    /// Vectis.
    fn pin(&mut self) -> Option<u8> {
        let has_pin = self.target.emulated && self.target.config(INTERRUPT_PIN, 1) != 0;
        has_pin.then(|| self.target.config(INTERRUPT_LINE, 1) as u8)
    }

    fn write_ioapic(&mut self, register: u8, value: u32) -> Verdict {
        let machine = &mut *self.target.machine;
        let written = machine.memory_write(IOAPIC, 4, register.into())
            && machine.memory_write(IOAPIC + 0x10, 4, value.into());
        expect("way to I/O APIC register", register, true, written)
    }

    /// Checks that a level is delivered again after each EOI until the device ends it,
    /// and then no more: each delivery was acknowledged, or there would be only one.
    fn pin_delivers(&mut self, pin: u8) -> Verdict {
        let entry = 0x10 + 2 * pin;
        let destination = u32::from(self.cpu.destination()) << 24;
        self.write_ioapic(entry + 1, destination)?;
        self.write_ioapic(entry, LEVEL | u32::from(VECTORS[0]))?;
        for _ in 0..3 {
            let before = self.counts()[0];
            self.source.raise();
            for _ in 0..PATIENCE {
                if self.counts()[0] >= before + 2 {
                    break;
                }
                self.cpu.rest();
            }
            let taken = self.counts()[0] - before;
            expect("two deliveries on pin", pin, true, taken >= 2)?;
            self.source.lower();
            // Interrupts on their way may still come.
            self.cpu.rest();
            let quiet = self.counts();
            self.expect_more(quiet, [0, 0])?;
        }
        self.write_ioapic(entry, MASKED)?;
        let before = self.counts();
        self.source.raise();
        self.expect_more(before, [0, 0])?;
        self.source.lower();
        Ok(())
    }

    fn stop(&mut self) -> Verdict {
        if let Ok(msi) = self.target.msi() {
            self.target.set_word(msi.capability + 2, 0);
        }
        self.mask(true)?;
        self.target.set_control(0)
    }

    fn mask(&mut self, masked: bool) -> Verdict {
        let entry = self.source.entry();
        self.target.set_entry(entry, CONTROL, 4, masked.into())
    }

    fn write_message(&mut self, vector: u8) -> Verdict {
        let entry = self.source.entry();
        let address = MESSAGES | u64::from(self.cpu.destination()) << 12;
        for (field, value) in [(ADDRESS, address), (ADDRESS_HIGH, 0), (DATA, vector.into())] {
            self.target.set_entry(entry, field, 4, value)?;
        }
        Ok(())
    }

    /// Points the entry at the first vector.
    fn start(&mut self) -> Verdict {
        self.mask(true)?;
        self.write_message(VECTORS[0])?;
        self.mask(false)?;
        self.target.set_control(ENABLE)
    }

    fn counts(&self) -> [u64; 2] {
        VECTORS.map(|vector| self.cpu.taken(vector))
    }

    /// Waits until the vectors have `more` interrupts than `before`.
    fn expect_more(&mut self, before: [u64; 2], more: [u64; 2]) -> Verdict {
        let wanted = [before[0] + more[0], before[1] + more[1]];
        for _ in 0..PATIENCE {
            if self.counts() == wanted {
                break;
            }
            self.cpu.rest();
        }
        // One more look: nothing else may follow.
        self.cpu.rest();
        let got = self.counts();
        for (index, vector) in VECTORS.into_iter().enumerate() {
            expect("interrupts on vector", vector, wanted[index], got[index])?;
        }
        Ok(())
    }

    /// Waits until the entry shows as pending, then sees that it was not
    /// delivered.
    fn expect_pending(&mut self, before: [u64; 2]) -> Verdict {
        let entry = self.source.entry();
        for _ in 0..PATIENCE {
            if self.target.is_pending(entry)? {
                break;
            }
            self.cpu.rest();
        }
        let pending = self.target.is_pending(entry)?;
        expect("pending bit of entry", entry, true, pending)?;
        self.expect_more(before, [0, 0])
    }

    fn expect_not_pending(&mut self) -> Verdict {
        let entry = self.source.entry();
        let pending = self.target.is_pending(entry)?;
        expect("pending bit of entry", entry, false, pending)
    }

    fn delivers(&mut self) -> Verdict {
        self.start()?;
        for _ in 0..3 {
            let before = self.counts();
            self.source.raise();
            self.expect_more(before, [1, 0])?;
            self.expect_not_pending()?;
        }
        Ok(())
    }

    fn enabled_again(&mut self) -> Verdict {
        self.start()?;
        self.target.set_control(0)?;
        self.target.set_control(ENABLE)?;
        let before = self.counts();
        self.source.raise();
        self.expect_more(before, [1, 0])
    }

    fn late_message(&mut self) -> Verdict {
        // Bound to the other vector first: an old binding would show.
        self.write_message(VECTORS[1])?;
        self.target.set_control(ENABLE)?;
        self.mask(false)?;
        self.write_message(VECTORS[0])?;
        self.mask(true)?;
        self.mask(false)?;
        let before = self.counts();
        self.source.raise();
        self.expect_more(before, [1, 0])
    }

    fn masked(&mut self) -> Verdict {
        self.start()?;
        self.mask(true)?;
        let before = self.counts();
        self.source.raise();
        self.expect_pending(before)?;
        self.mask(false)?;
        self.expect_more(before, [1, 0])?;
        self.expect_not_pending()
    }

    fn function_masked(&mut self) -> Verdict {
        self.start()?;
        self.target.set_control(ENABLE | FUNCTION_MASK)?;
        let before = self.counts();
        self.source.raise();
        self.expect_pending(before)?;
        self.target.set_control(ENABLE)?;
        self.expect_more(before, [1, 0])?;
        self.expect_not_pending()
    }

    fn moves(&mut self) -> Verdict {
        self.start()?;
        self.mask(true)?;
        self.write_message(VECTORS[1])?;
        self.mask(false)?;
        let before = self.counts();
        self.source.raise();
        self.expect_more(before, [0, 1])
    }

    fn moves_pending(&mut self) -> Verdict {
        self.start()?;
        self.mask(true)?;
        let before = self.counts();
        self.source.raise();
        self.expect_pending(before)?;
        self.write_message(VECTORS[1])?;
        self.mask(false)?;
        self.expect_more(before, [0, 1])
    }

    /// Checks plain MSI: one message for all of the device.
    fn plain_message(&mut self) -> Verdict {
        let msi = self.target.msi()?;
        let address = MESSAGES as u32 | u32::from(self.cpu.destination()) << 12;
        self.target.set_dword(msi.address(), address);
        if msi.wide {
            self.target.set_dword(msi.address() + 4, 0);
        }
        self.target.set_word(msi.data(), VECTORS[0].into());
        self.target.set_word(msi.capability + 2, MSI_ENABLE);
        for (vector, more) in [(VECTORS[0], [1, 0]), (VECTORS[1], [0, 1])] {
            self.target.set_word(msi.data(), vector.into());
            let before = self.counts();
            self.source.raise();
            self.expect_more(before, more)?;
        }
        Ok(())
    }
}
