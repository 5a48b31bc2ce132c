//! Interrupts posted in the guest's memory ([`spec::posted`]).

use spec::posted::{DEADLINE, SIZE, VECTOR_WORDS};

use super::Vmm;
use crate::host::Host;

/// A guest's block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    address: u64,
    /// A bit was set when it was last looked at, or since.
    pub(super) waiting: bool,
    /// The deadline that was last read.
    deadline: u64,
}

impl Vmm<'_> {
    /// Posts interrupts at this address from now on, or at none. Returns whether a block can
    /// be there.
    #[cold]
    pub(super) fn post_at(&mut self, address: u64, host: &mut impl Host) -> bool {
        let mut bytes = [0; SIZE as usize];
        let there = address.is_multiple_of(SIZE) && host.read_ram(address, &mut bytes);
        self.block = (address != 0 && there).then_some(Block {
            address,
            waiting: false,
            deadline: 0,
        });
        there || address == 0
    }

    /// Sets the bits of interrupts that the local APIC would deliver, if they are posted.
    pub(super) fn post(&mut self, host: &mut impl Host) {
        let Some(block) = &mut self.block else {
            return;
        };
        while let Some(vector) = self.lapic.pending() {
            let place = block.address + u64::from(vector / 64) * 8;
            // It was RAM, and stays so.
            let word = host.read_word(place).unwrap_or(0) | 1 << (vector % 64);
            host.write_ram(place, &word.to_le_bytes());
            block.waiting = true;
            self.counters.posted += 1;
            self.lapic.acknowledge(vector);
            // The guest ends those itself whose source waits for that.
            if !self.lapic.is_level(vector) {
                self.lapic.end_of_interrupt();
                self.lapic.take_ended();
                self.devices.ioapic.end(vector, host);
            }
        }
    }

    /// Looks whether a bit is set, as the guest has left them.
    pub(super) fn look(&mut self, host: &mut impl Host) {
        if let Some(block) = &mut self.block {
            let mut bits = [0; 8 * VECTOR_WORDS];
            host.read_ram(block.address, &mut bits);
            block.waiting = bits != [0; 8 * VECTOR_WORDS];
        }
    }

    /// Takes the deadline that a guest left in its block, if it is another than before.
    pub(super) fn take_deadline(&mut self, host: &mut impl Host) {
        if let Some(block) = &mut self.block
            && let Some(deadline) = host.read_word(block.address + DEADLINE)
            && deadline != block.deadline
        {
            block.deadline = deadline;
            self.lapic.set_deadline((deadline != 0).then_some(deadline));
        }
    }
}
