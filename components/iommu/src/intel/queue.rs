//! The invalidation queue (section 6.5.2).

use tock_registers::fields::FieldValue;

use super::registers::{self, Descriptor, FaultStatus};
use super::{QUEUE, STATUS};
use crate::hardware::{PAGE, Region, Registers, Stuck, Tables, poll};

/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;

/// Why invalidations are not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The unit does nothing.
    Stuck(Stuck),
    /// It says that the queue has an error: these bits of the fault status.
    Error(u32),
}

/// Returns the errors of the queue that the unit shows.
fn errors<R: Registers>(registers: &mut R) -> u32 {
    let all = FaultStatus::QUEUE_ERROR::SET
        + FaultStatus::COMPLETION_ERROR::SET
        + FaultStatus::TIMEOUT::SET;
    registers.read32(registers::FAULT_STATUS) & all.value
}

/// Looks until `done`, but not for ever, nor at a queue with an error.
fn poll_queue<R: Registers>(
    registers: &mut R,
    what: &'static str,
    mut done: impl FnMut(&mut R) -> bool,
) -> Result<(), Failure> {
    let mut found = 0;
    poll(what, || {
        done(registers) || {
            found = errors(registers);
            found != 0
        }
    })
    .map_err(Failure::Stuck)?;
    match found {
        0 => Ok(()),
        found => Err(Failure::Error(found)),
    }
}

/// Our side of the queue.
#[derive(Debug)]
pub struct Queue {
    /// Where the unit's own tables begin.
    own: usize,
    /// Where the next descriptor goes: a byte offset.
    tail: usize,
    /// Value that the last wait stores.
    sequence: u32,
}

impl Queue {
    /// Creates an empty queue, of the unit whose own tables begin there.
    pub const fn new(own: usize) -> Self {
        Self {
            own,
            tail: 0,
            sequence: 0,
        }
    }

    /// Takes over the queue that the unit works on. The last wait may not be
    /// complete yet: it would store one more than is there.
    pub fn adopt<R: Registers, T: Tables>(&mut self, registers: &mut R, region: &Region<T>) {
        let tail = registers.read64(registers::QUEUE_TAIL) as usize;
        self.tail = tail % PAGE / DESCRIPTOR * DESCRIPTOR;
        self.sequence = (region.read(self.own + STATUS) as u32).wrapping_add(1);
    }

    fn submit<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
        lower: FieldValue<u64, Descriptor::Register>,
        upper: u64,
    ) -> Result<(), Failure> {
        let next = (self.tail + DESCRIPTOR) % PAGE;
        poll_queue(
            registers,
            "its invalidation queue stays full",
            |registers| registers.read64(registers::QUEUE_HEAD) != next as u64,
        )?;
        region.write(self.own + QUEUE + self.tail, lower.value);
        region.write(self.own + QUEUE + self.tail + 8, upper);
        self.tail = next;
        registers.write64(registers::QUEUE_TAIL, next as u64);
        Ok(())
    }

    /// Invalidates every context entry and every translation, after accesses on their
    /// way. All of them, since it is rare, and since a unit in caching mode
    /// remembers absent entries under a domain that is not the function's
    /// (section 6.1).
    pub fn translations<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
    ) -> Result<(), Failure> {
        let contexts = Descriptor::TYPE::Context + Descriptor::GRANULARITY::Global;
        self.submit(registers, region, contexts, 0)?;
        let translations = Descriptor::TYPE::Translations
            + Descriptor::GRANULARITY::Global
            + Descriptor::DRAIN_READS::SET
            + Descriptor::DRAIN_WRITES::SET;
        self.submit(registers, region, translations, 0)
    }

    /// Forgets every interrupt entry.
    pub fn interrupts<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
    ) -> Result<(), Failure> {
        self.submit(registers, region, Descriptor::TYPE::Interrupts, 0)
    }

    /// Waits until everything before is done.
    pub fn wait<R: Registers, T: Tables>(
        &mut self,
        registers: &mut R,
        region: &mut Region<T>,
    ) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = u64::from(self.sequence);
        let wait = Descriptor::TYPE::Wait + Descriptor::STORE::SET + Descriptor::DATA.val(sequence);
        let status = self.own + STATUS;
        let address = region.address(status);
        self.submit(registers, region, wait, address)?;
        // It stores 32 bits, and the other half of the word stays 0.
        poll_queue(registers, "its invalidations are not completed", |_| {
            region.read(status) == sequence
        })
    }

    /// Has the unit go on after an error (section 6.5.2.11): in place of the descriptor at
    /// which it stands it finds a wait that does nothing. What was asked for is to be asked
    /// for again. Returns the byte offset of that descriptor.
    pub fn recover<R: Registers, T: Tables>(
        &self,
        registers: &mut R,
        region: &mut Region<T>,
        errors: u32,
    ) -> usize {
        let head =
            registers.read64(registers::QUEUE_HEAD) as usize % PAGE / DESCRIPTOR * DESCRIPTOR;
        if FaultStatus::QUEUE_ERROR.is_set(errors) {
            region.write(self.own + QUEUE + head, Descriptor::TYPE::Wait.value);
            region.write(self.own + QUEUE + head + 8, 0);
        }
        // Bits that are written as 1 are cleared, and the unit reads the queue again.
        registers.write32(registers::FAULT_STATUS, errors);
        head
    }
}
