//! The event log (section 2.5): refused accesses.

use channel::iommu::FaultRecord;

use super::EVENTS;
use super::registers::{self, Control, Event, Status};
use crate::faults::NO_DEVICE;
use crate::hardware::{PAGE, Region, Registers, Tables};

/// Bytes of an event.
const EVENT: usize = 16;
/// How often an event is looked at that the unit counts but has not written: it
/// may move the tail before the event is in memory.
const LOOKS: u32 = 1000;

/// Events (section 2.5.1), by code.
const ILLEGAL_ENTRY: u8 = 1;
const PAGE_FAULT: u8 = 2;
const ENTRY_HARDWARE: u8 = 3;
const PAGE_HARDWARE: u8 = 4;
const ILLEGAL_COMMAND: u8 = 5;
const COMMAND_HARDWARE: u8 = 6;
const INVALID_REQUEST: u8 = 8;

/// Takes the oldest event of the unit whose own tables begin at `own`.
pub fn next<R: Registers, T: Tables>(
    registers: &mut R,
    region: &mut Region<T>,
    own: usize,
) -> Option<FaultRecord> {
    let head = registers.read64(registers::EVENT_HEAD) as usize % PAGE / EVENT * EVENT;
    let tail = registers.read64(registers::EVENT_TAIL) as usize % PAGE / EVENT * EVENT;
    if head == tail {
        return None;
    }
    let at = own + EVENTS + head;
    let first = (0..LOOKS)
        .map(|_| region.read(at))
        .find(|first| Event::CODE.read(*first) != 0)
        .unwrap_or(0);
    let fault = fault(first, region.read(at + 8));
    // So that the next event here is seen when it is written, and not before.
    region.write(at, 0);
    registers.write64(registers::EVENT_HEAD, ((head + EVENT) % PAGE) as u64);
    Some(fault)
}

fn fault(first: u64, address: u64) -> FaultRecord {
    let code = Event::CODE.read(first) as u8;
    let of_device = !matches!(code, 0 | ILLEGAL_COMMAND | COMMAND_HARDWARE);
    FaultRecord {
        number: 0,
        requester: if of_device {
            Event::DEVICE.read(first) as u16
        } else {
            NO_DEVICE
        },
        write: of_device && Event::WRITE.is_set(first),
        interrupt: of_device && Event::INTERRUPT.is_set(first),
        reason: code,
        address,
    }
}

/// Restarts the event log after events were lost (section 2.5).
pub fn restart<R: Registers>(registers: &mut R) -> bool {
    if !Status::EVENT_OVERFLOW.is_set(registers.read64(registers::STATUS)) {
        return false;
    }
    let control = registers.read64(registers::CONTROL);
    let log = Control::EVENT_LOG::SET.value;
    registers.write64(registers::CONTROL, control & !log);
    registers.write64(registers::STATUS, Status::EVENT_OVERFLOW::SET.value);
    registers.write64(registers::CONTROL, control | log);
    true
}

pub fn explain(reason: u8) -> &'static str {
    match reason {
        ILLEGAL_ENTRY => "illegal device table entry",
        PAGE_FAULT => "not mapped or not allowed",
        ENTRY_HARDWARE => "device table cannot be read",
        PAGE_HARDWARE => "page table cannot be read",
        ILLEGAL_COMMAND => "illegal command: the command buffer stopped, and is begun anew",
        COMMAND_HARDWARE => "its command buffer cannot be read, and is begun anew",
        INVALID_REQUEST => "request that no device may make",
        _ => "unknown event",
    }
}
