//! `vectis caps --live`: walks the CSpace of every component and guest before
//! anything but iommu runs, and then init's own after it dropped its authority,
//! and compares each slot with the table.
//!
//! The release kernel cannot be asked for a capability's type. A copy shows whether a
//! slot is filled, and a harmless operation on the copy shows its type: a frame
//! returns its address.

use core::fmt::Write as _;

use init::{Expect, Given};
use sel4::cap::{CNode, Granule, IoPort, IrqHandler, Tcb};
use sel4::{AbsoluteCPtr, CapRights, Error};
use spec::{BY_TABLES, Ending, MESSAGES, ObjectKind, Thread};

use super::builder::Builder;
use super::own_slot;
use super::ports::{self, Serial};

/// An audit in progress.
pub struct Audit<'a> {
    given: Given<'a>,
    /// Two empty slots of init's.
    scratch: [usize; 2],
    /// Slots that are not as the table says.
    differences: usize,
}

/// Contents of a slot, as far as a copy shows them.
enum Content {
    Empty,
    /// It was copied.
    Copied,
    /// It cannot be copied: IRQControl, or untyped memory that is in use.
    Unique,
}

impl<'a> Audit<'a> {
    /// Creates an audit against the capabilities that were given out.
    pub fn new(builder: &mut Builder<'_>, given: Given<'a>) -> Self {
        Self {
            given,
            scratch: [builder.slot(), builder.slot()],
            differences: 0,
        }
    }

    fn copied(&self) -> AbsoluteCPtr {
        own_slot(self.scratch[0])
    }

    fn look(&self, slot: &AbsoluteCPtr) -> Content {
        match self.copied().copy(slot, CapRights::all()) {
            Ok(()) => Content::Copied,
            Err(Error::FailedLookup) => Content::Empty,
            Err(_) => Content::Unique,
        }
    }

    fn forget(&self) {
        // An empty slot is as good as a deleted capability.
        let _ = self.copied().delete();
    }

    /// Walks the CSpace of every thread.
    pub fn threads(&mut self, builder: &Builder<'_>) {
        for thread in builder.system.threads {
            self.thread(builder, thread);
        }
    }

    fn thread(&mut self, builder: &Builder<'_>, thread: &Thread) {
        let name = thread.name.as_str();
        let slots = 1 << builder.system.objects[thread.cnode as usize].size_bits;
        let mut filled = 0;
        let mut run: Option<(u64, u64)> = None;
        for slot in 0..slots {
            let expected = self.given.expected(thread.cnode, slot);
            let content = self.look(&builder.place(thread.cnode, slot));
            filled += usize::from(!matches!(content, Content::Empty));
            let good = match (&content, &expected) {
                (Content::Empty, None) => true,
                (Content::Empty, Some(_)) | (_, None) => false,
                (Content::Unique, Some(expected)) => self.is_unique(expected),
                (Content::Copied, Some(expected)) => self.is(builder, expected),
            };
            if !good {
                self.differences += 1;
                let found = match content {
                    Content::Empty => "empty",
                    Content::Copied => "filled",
                    Content::Unique => "filled, and cannot be copied",
                };
                let _ = write!(
                    Serial,
                    "audit: {name}: slot {slot} is {found}, the table says {expected:?}\r\n"
                );
            }
            if let Some(Expect::Page(address)) = expected
                && good
            {
                self.no_message(name, address);
                run = match run {
                    Some((first, last)) if last + 4096 == address => Some((first, address)),
                    before => {
                        pages(name, before);
                        Some((address, address))
                    }
                };
            }
            self.forget();
        }
        pages(name, run);
        let _ = write!(
            Serial,
            "audit: {name}: {filled} of {slots} slots filled\r\n"
        );
    }

    /// Checks that a page is not among those at which messages raise interrupts: on
    /// the first are the CPU's own interrupt controller's registers.
    fn no_message(&mut self, name: &str, address: u64) {
        if MESSAGES.contains(&address) {
            self.differences += 1;
            let _ = write!(
                Serial,
                "audit: {name} can raise interrupts at {address:#x}\r\n"
            );
        }
    }

    fn kind(&self, object: u32) -> ObjectKind {
        self.given.system.objects[object as usize].kind
    }

    fn is_unique(&self, expected: &Expect) -> bool {
        matches!(*expected, Expect::Object { object, .. }
            if matches!(self.kind(object), ObjectKind::IrqControl | ObjectKind::Untyped))
    }

    /// Returns whether the copied capability is the one that is expected.
    fn is(&mut self, builder: &Builder<'_>, expected: &Expect) -> bool {
        let bits = self.scratch[0] as u64;
        let address = || Granule::from_bits(bits).frame_get_address();
        let (object, index, badge) = match *expected {
            Expect::Page(page) => return address() == Ok(page as usize),
            Expect::Ports(first, last) => return are_ports(bits, first, last),
            Expect::Object {
                object,
                index,
                badge,
            } => (object, index, badge),
        };
        let record = &self.given.system.objects[object as usize];
        match record.kind {
            ObjectKind::Memory => {
                let own = builder.cap::<sel4::cap_type::Granule>(object, index);
                address() == own.frame_get_address()
            }
            ObjectKind::Device => {
                let first = match record.address {
                    BY_TABLES => self.given.places.hpet,
                    address => address,
                };
                let page = first + index * 4096;
                self.no_message(record.name.as_str(), page);
                address() == Ok(page as usize)
            }
            ObjectKind::IoPorts => are_ports(bits, record.first_port, record.last_port),
            ObjectKind::Tcb => Tcb::from_bits(bits).tcb_read_registers(false, 1).is_ok(),
            ObjectKind::IoApicIrq | ObjectKind::MessageIrq => {
                IrqHandler::from_bits(bits).irq_handler_ack().is_ok()
            }
            ObjectKind::CNode => {
                // Slot 0 of each is empty; another kind cannot be looked into.
                let depth = record.size_bits as usize;
                let inside = CNode::from_bits(bits).absolute_cptr_from_bits_with_depth(0, depth);
                let scratch = own_slot(self.scratch[1]);
                scratch.copy(&inside, CapRights::all()) == Err(Error::FailedLookup)
            }
            // A badge cannot be replaced, and can be given where there is none.
            ObjectKind::Endpoint | ObjectKind::Notification => {
                let scratch = own_slot(self.scratch[1]);
                let minted = scratch.mint(&self.copied(), CapRights::all(), 1);
                let _ = scratch.delete();
                minted.is_err() == (badge != 0)
            }
            ObjectKind::VSpace | ObjectKind::Untyped => true,
            ObjectKind::IrqControl => false,
        }
    }

    /// Walks init's own CSpace, after it dropped its authority.
    pub fn own(&mut self, builder: &Builder<'_>) {
        let slots = builder.own_slots();
        let mut kept = 0;
        for slot in (0..slots).filter(|slot| !self.scratch.contains(slot)) {
            // Kept slots need no check, and must not be copied: init stops at
            // a copy of the paging structures that the kernel made for it.
            if builder.kept.contains(slot) {
                kept += 1;
            } else if !matches!(self.look(&own_slot(slot)), Content::Empty) {
                self.forget();
                self.differences += 1;
                let _ = write!(
                    Serial,
                    "audit: init: slot {slot} is filled, it was to be dropped\r\n"
                );
            }
        }
        let _ = write!(
            Serial,
            "audit: init: {kept} of {slots} slots may be filled\r\n"
        );
    }

    /// Says how it went, and ends the machine with it.
    pub fn end(self) -> ! {
        let _ = write!(Serial, "audit: {} differences\r\n", self.differences);
        ports::exit(match self.differences {
            0 => Ending::Success,
            _ => Ending::Failure,
        })
    }
}

/// Returns whether the capability is to these ports and to none beside them.
fn are_ports(bits: u64, first: u16, last: u16) -> bool {
    let ports = IoPort::from_bits(bits);
    // The last port of a serial controller is a scratch register; what a function loses
    // by a read, no guest has seen, and the machine ends with the audit.
    ports.ioport_in8(last).is_ok()
        && ports.ioport_in8(last.wrapping_add(1)).is_err()
        && ports.ioport_in8(first.wrapping_sub(1)).is_err()
}

fn pages(name: &str, run: Option<(u64, u64)>) {
    if let Some((first, last)) = run {
        let _ = write!(
            Serial,
            "audit: {name}: device pages {first:#x}-{:#x}\r\n",
            last + 4095
        );
    }
}
