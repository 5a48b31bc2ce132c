//! Driver of an NVMe controller's admin queue: identify, completed by MSI-X.
//!
//! One command is under way at a time. The admin completion queue always uses
//! MSI-X entry 0 (NVMe 1.4 section 7.6.1). Nothing here waits for a command:
//! after the interrupt, [`Nvme::collect`] takes what completed.
#![forbid(unsafe_code)]

pub mod dma;
mod registers;
#[cfg(test)]
mod tests;

use core::sync::atomic::{Ordering, fence};

use crate::mmio::Registers;
use dma::{NvmeMemory, QUEUE};
use registers::*;

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
    tail: usize,
    head: usize,
    /// The phase of completions that are new in this round.
    phase: bool,
    identifier: u16,
    busy: bool,
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
        memory.clear();
        AQA.write(
            r,
            AdminQueues::ASQS.val(QUEUE as u32 - 1) + AdminQueues::ACQS.val(QUEUE as u32 - 1),
        );
        ASQ.set(r, memory.submissions() as u32);
        ASQ_HIGH.set(r, (memory.submissions() >> 32) as u32);
        ACQ.set(r, memory.completions() as u32);
        ACQ_HIGH.set(r, (memory.completions() >> 32) as u32);
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
            tail: 0,
            head: 0,
            phase: true,
            identifier: 0,
            busy: false,
        })
    }
}

impl<R: Registers> Nvme<'_, R> {
    /// Starts an identify command. False if one is still under way.
    pub fn identify(&mut self) -> bool {
        if self.busy {
            return false;
        }
        self.busy = true;
        self.identifier = self.identifier.wrapping_add(1);
        self.memory.clear_data();
        // Words of 8 bytes: opcode and identifier, data pointer (PRP1) at byte
        // 24, command dword 10 at byte 40.
        let mut command = [0; 8];
        command[0] = IDENTIFY | u64::from(self.identifier) << 16;
        command[3] = self.memory.data();
        command[5] = CONTROLLER;
        self.memory.submit(self.tail, &command);
        self.tail = (self.tail + 1) % QUEUE;
        // The command before its doorbell.
        fence(Ordering::Release);
        self.registers.write(DOORBELLS, self.tail as u32);
        true
    }

    /// Takes the completion of the command under way; `None` if there is none
    /// yet.
    pub fn collect(&mut self) -> Option<Result<Model, CommandError>> {
        if !self.busy {
            return None;
        }
        // Bits of the second half: submission queue 31:16, identifier 47:32,
        // phase 48, status 63:49.
        let completion = self.memory.completion(self.head);
        if (completion >> 48 & 1 != 0) != self.phase {
            return None;
        }
        self.busy = false;
        self.head = (self.head + 1) % QUEUE;
        self.phase ^= self.head == 0;
        self.registers
            .write(DOORBELLS + self.stride, self.head as u32);
        let identifier = (completion >> 32) as u16;
        let status = (completion >> 49) as u16 & 0x7ff;
        if identifier != self.identifier {
            return Some(Err(CommandError::Identifier(identifier)));
        }
        if status != 0 {
            return Some(Err(CommandError::Status(status)));
        }
        let mut model = [0; MODEL_LENGTH];
        self.memory.copy_data(MODEL, &mut model);
        Some(Ok(Model(model)))
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
