//! Driver of an NVMe controller: identify, and reads and writes of its first namespace,
//! completed by MSI-X.
//!
//! One command is under way at a time in each of two pairs of queues. Both use MSI-X
//! entry 0, as the admin completion queue always does (NVMe 1.4 section 7.6.1). Nothing in
//! [`Nvme`] waits for a command: after the interrupt, [`Nvme::collect`] takes what
//! completed. A [`Disk`] waits in a way that its user chooses.
#![forbid(unsafe_code)]

mod disk;
pub mod dma;
mod registers;
#[cfg(test)]
mod tests;

use core::sync::atomic::{Ordering, fence};

use crate::mmio::Registers;
use dma::{NvmeMemory, QUEUE};
use registers::*;

pub use disk::{Disk, DiskError};

/// PCI class code of NVMe controllers, 24 bits.
pub const CLASS: u32 = 0x01_08_02;
/// BAR of the registers.
pub const REGISTER_BAR: usize = 0;
/// MSI-X entry of the admin completion queue.
pub const ADMIN_ENTRY: u32 = 0;

/// Bound on the reads that wait until the controller starts or stops. It may
/// take CAP.TO half seconds (NVMe 1.4 section 3.1.1); models and most drives
/// take less than a second, which is less than this many uncached reads.
const READY_READS: u32 = 2_000_000;

/// Entry sizes as powers of two: 64 and 16 bytes (NVMe 1.4 sections 4.2, 4.6).
const SUBMISSION_SHIFT: u32 = 6;
const COMPLETION_SHIFT: u32 = 4;

/// Identify command (NVMe 1.4 section 5.15).
const IDENTIFY: u64 = 0x06;
/// Identify: the controller's data structure.
const CONTROLLER: u64 = 0x01;
/// Model number in it: byte offset and length.
const MODEL: usize = 24;
const MODEL_LENGTH: usize = 40;

/// Why the controller cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// It neither becomes ready nor stops.
    Stuck,
    /// It reports a fatal error.
    Fatal,
    /// It has no pages of 4 KiB, or too short queues.
    Unsupported,
}

/// Result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The controller's status field, without phase and retry bits: type in
    /// bits 10:8, code in 7:0.
    Status(u16),
    /// The completion is of another command.
    Identifier(u16),
}

/// The model number of a controller: 40 characters, filled with spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model([u8; MODEL_LENGTH]);

impl Model {
    /// Returns its text without the spaces; `None` if the controller gave other
    /// than printable ASCII.
    pub fn as_str(&self) -> Option<&str> {
        let text = core::str::from_utf8(&self.0).ok()?.trim_ascii();
        text.bytes()
            .all(|byte| (0x20..0x7f).contains(&byte))
            .then_some(text)
    }
}

/// The driver.
pub struct Nvme<'m, R> {
    registers: R,
    memory: &'m NvmeMemory,
    /// Bytes from one doorbell to the next.
    stride: u32,
    pairs: [State; 2],
}

/// Positions in [`NvmeMemory`]'s pairs of queues, which are the controller's numbers of them.
const ADMIN: usize = 0;
const IO: usize = 1;

/// How far a pair of queues is.
#[derive(Clone, Copy)]
struct State {
    tail: usize,
    head: usize,
    /// The phase of completions that are new in this round.
    phase: bool,
    identifier: u16,
    busy: bool,
}

impl State {
    const START: Self = Self {
        tail: 0,
        head: 0,
        phase: true,
        identifier: 0,
        busy: false,
    };
}

/// A controller after its reset: it is silent and reaches no memory.
#[derive(Debug)]
pub struct Stopped<R> {
    registers: R,
    /// Bytes from one doorbell to the next.
    stride: u32,
}

impl<R: Registers> Stopped<R> {
    /// Resets the controller. Its bus mastering is off or about to be, because it
    /// may still hold an earlier owner's setup.
    ///
    /// # Errors
    /// [`InitError`] names the step that the controller failed.
    pub fn reset(mut registers: R) -> Result<Self, InitError> {
        let r = &mut registers;
        let low = CAP.read(r);
        let high = CAP_HIGH.read(r);
        if high.read(CapabilitiesHigh::MPSMIN) != 0
            || !high.is_set(CapabilitiesHigh::NVM)
            || low.read(CapabilitiesLow::MQES) < QUEUE as u32 - 1
        {
            return Err(InitError::Unsupported);
        }
        CC.set(r, 0);
        wait(r, false)?;
        Ok(Self {
            registers,
            stride: 4 << high.read(CapabilitiesHigh::DSTRD),
        })
    }

    /// Starts it with its admin queues in `memory`. Bus mastering and MSI-X are on
    /// by then, for some controllers choose their interrupts here.
    ///
    /// # Errors
    /// [`InitError`] says what the controller failed to do.
    pub fn start(mut self, memory: &NvmeMemory) -> Result<Nvme<'_, R>, InitError> {
        let r = &mut self.registers;
        for pair in &memory.pairs {
            pair.clear();
        }
        let admin = &memory.pairs[ADMIN];
        AQA.write(
            r,
            AdminQueues::ASQS.val(QUEUE as u32 - 1) + AdminQueues::ACQS.val(QUEUE as u32 - 1),
        );
        ASQ.set(r, admin.submissions() as u32);
        ASQ_HIGH.set(r, (admin.submissions() >> 32) as u32);
        ACQ.set(r, admin.completions() as u32);
        ACQ_HIGH.set(r, (admin.completions() >> 32) as u32);
        fence(Ordering::Release);
        CC.write(
            r,
            Configuration::EN::SET
                + Configuration::IOSQES.val(SUBMISSION_SHIFT)
                + Configuration::IOCQES.val(COMPLETION_SHIFT),
        );
        wait(r, true)?;
        Ok(Nvme {
            stride: self.stride,
            registers: self.registers,
            memory,
            pairs: [State::START; 2],
        })
    }
}

impl<R: Registers> Nvme<'_, R> {
    /// Starts an identify command. False if one is still under way.
    pub fn identify(&mut self) -> bool {
        if self.pairs[ADMIN].busy {
            return false;
        }
        self.memory.clear_data();
        // Words of 8 bytes: opcode and identifier, data pointer (PRP1) at byte
        // 24, command dword 10 at byte 40.
        let mut command = [0; 8];
        command[0] = IDENTIFY;
        command[3] = self.memory.data();
        command[5] = CONTROLLER;
        self.submit(ADMIN, command);
        true
    }

    /// Takes the completion of the identify command under way; `None` if there is none
    /// yet.
    pub fn collect(&mut self) -> Option<Result<Model, CommandError>> {
        Some(self.completed(ADMIN)?.map(|()| {
            let mut model = [0; MODEL_LENGTH];
            self.memory.copy_data(MODEL, &mut model);
            Model(model)
        }))
    }

    /// Puts a command without its identifier into a pair of queues, none of whose commands
    /// is under way.
    fn submit(&mut self, pair: usize, mut command: [u64; 8]) {
        let state = &mut self.pairs[pair];
        state.busy = true;
        state.identifier = state.identifier.wrapping_add(1);
        command[0] |= u64::from(state.identifier) << 16;
        self.memory.pairs[pair].submit(state.tail, &command);
        state.tail = (state.tail + 1) % QUEUE;
        let tail = state.tail as u32;
        // The command before its doorbell.
        fence(Ordering::Release);
        self.registers.write(self.doorbell(2 * pair), tail);
    }

    /// Takes the completion of a pair's command under way; `None` if there is none yet.
    fn completed(&mut self, pair: usize) -> Option<Result<(), CommandError>> {
        let state = &mut self.pairs[pair];
        if !state.busy {
            return None;
        }
        // Bits of the second half: submission queue 31:16, identifier 47:32,
        // phase 48, status 63:49.
        let completion = self.memory.pairs[pair].completion(state.head);
        if (completion >> 48 & 1 != 0) != state.phase {
            return None;
        }
        state.busy = false;
        state.head = (state.head + 1) % QUEUE;
        state.phase ^= state.head == 0;
        let (head, expected) = (state.head as u32, state.identifier);
        self.registers.write(self.doorbell(2 * pair + 1), head);
        let identifier = (completion >> 32) as u16;
        let status = (completion >> 49) as u16 & 0x7ff;
        if identifier != expected {
            return Some(Err(CommandError::Identifier(identifier)));
        }
        if status != 0 {
            return Some(Err(CommandError::Status(status)));
        }
        Some(Ok(()))
    }

    /// Returns the offset of doorbell `number`: a pair has one for its submissions and then
    /// one for its completions (NVMe 1.4 sections 3.1.24 and 3.1.25).
    const fn doorbell(&self, number: usize) -> u32 {
        DOORBELLS + self.stride * number as u32
    }
}

/// Waits until the controller is ready, or stopped.
fn wait(registers: &mut impl Registers, ready: bool) -> Result<(), InitError> {
    for _ in 0..READY_READS {
        let status = CSTS.read(registers);
        // A stop is how one leaves the fatal state.
        if ready && status.is_set(Status::CFS) {
            return Err(InitError::Fatal);
        }
        if status.is_set(Status::RDY) == ready {
            return Ok(());
        }
    }
    Err(InitError::Stuck)
}
