//! The fault recording registers (section 7.3): refused accesses.

use channel::iommu::FaultRecord;

use super::registers::{self, Capability, Fault, FaultStatus};
use crate::faults::NO_DEVICE;
use crate::hardware::Registers;

/// The first reason that is about an interrupt, and the first after them
/// (chapter 7).
const INTERRUPT_REASONS: core::ops::Range<u8> = 0x20..0x30;

/// Reasons for errors of the queue, which the unit has no number for: above those of
/// chapter 7.
const QUEUE_ERROR: u8 = 0xf0;
const COMPLETION_ERROR: u8 = 0xf1;
const TIMEOUT: u8 = 0xf2;

/// Returns the record of an error of the invalidation queue, by bits of the fault status, at
/// a descriptor.
pub fn of_queue(errors: u32, descriptor: usize) -> FaultRecord {
    let reason = if FaultStatus::QUEUE_ERROR.is_set(errors) {
        QUEUE_ERROR
    } else if FaultStatus::COMPLETION_ERROR.is_set(errors) {
        COMPLETION_ERROR
    } else {
        TIMEOUT
    };
    FaultRecord {
        number: 0,
        requester: NO_DEVICE,
        write: false,
        interrupt: false,
        reason,
        address: descriptor as u64,
    }
}

/// Where the records are.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    first: usize,
    count: usize,
}

impl Records {
    pub fn new(capability: u64) -> Self {
        Self {
            first: Capability::FAULT_OFFSET.read(capability) as usize * registers::FAULT_RECORD,
            count: Capability::FAULTS.read(capability) as usize + 1,
        }
    }

    /// Takes the oldest fault.
    pub fn next<R: Registers>(self, registers: &mut R) -> Option<FaultRecord> {
        let status = registers.read32(registers::FAULT_STATUS);
        if !FaultStatus::PENDING.is_set(status) {
            return None;
        }
        let oldest = FaultStatus::FIRST.read(status) as usize;
        (0..self.count).find_map(|position| {
            let record = (oldest + position) % self.count * registers::FAULT_RECORD;
            self.take(registers, self.first + record)
        })
    }

    /// Frees each record once: a device may fill them again meanwhile.
    pub fn clear<R: Registers>(self, registers: &mut R) {
        for _ in 0..self.count {
            let _ = self.next(registers);
        }
        Self::restart(registers);
    }

    fn take<R: Registers>(self, registers: &mut R, record: usize) -> Option<FaultRecord> {
        let upper = registers.read64(record + registers::FAULT_UPPER);
        if !Fault::USED.is_set(upper) {
            return None;
        }
        let lower = registers.read64(record);
        registers.write32(record + registers::FAULT_TOP, registers::FAULT_FREE);
        let reason = Fault::REASON.read(upper) as u8;
        let interrupt = INTERRUPT_REASONS.contains(&reason);
        Some(FaultRecord {
            number: 0,
            requester: Fault::SOURCE.read(upper) as u16,
            write: interrupt || !Fault::READ.is_set(upper),
            interrupt,
            reason,
            address: if interrupt {
                lower >> 48
            } else {
                lower & !0xfff
            },
        })
    }

    /// Restarts the recording of faults after some were lost.
    pub fn restart<R: Registers>(registers: &mut R) -> bool {
        let status = registers.read32(registers::FAULT_STATUS);
        let lost = FaultStatus::OVERFLOW.is_set(status);
        if lost {
            registers.write32(registers::FAULT_STATUS, registers::FAULT_OVERFLOW);
        }
        lost
    }
}

/// Reasons of legacy mode and of interrupts (chapter 7).
pub fn explain(reason: u8) -> &'static str {
    match reason {
        0x01 => "its bus has no devices attached",
        0x02 => "not attached",
        0x03 => "invalid context entry",
        0x04 => "address beyond the page tables",
        0x05 => "not mapped or not allowed, write",
        0x06 => "not mapped or not allowed, read",
        0x07 => "page table cannot be read",
        0x08 => "root table cannot be read",
        0x09 => "context table cannot be read",
        0x0a..=0x0c => "reserved bits are set in a table",
        0x20 => "reserved bits are set in an interrupt message",
        0x21 => "no such interrupt entry",
        0x22 => "interrupt entry is not present",
        0x23 => "interrupt table cannot be read",
        0x24 => "reserved bits are set in an interrupt entry",
        0x25 => "message in compatibility format",
        0x26 => "interrupt entry belongs to another function",
        QUEUE_ERROR => "the invalidation queue stood still, and was asked again",
        COMPLETION_ERROR => "a device's answer to an invalidation is wrong",
        TIMEOUT => "a device does not answer an invalidation",
        _ => "unknown fault",
    }
}
