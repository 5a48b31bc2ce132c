//! Init's authority after boot: it drops every capability that the monitor does not
//! need.

use core::ops::Range;

use heapless::Vec;
use sel4::CapRights;
use sel4::cap::{Endpoint, Notification};
use sel4::init_thread::slot;
use spec::{GUESTS, NONE, ObjectKind, Start};

use super::builder::Builder;
use super::fatal::fatal;
use super::{own_slot, ports};

/// Slots of init's CNode, as 64-bit words: at most 2^16 (CONFIG_ROOT_CNODE_SIZE_BITS
/// of the kernel's build).
const KEPT_WORDS: usize = (1 << 16) / 64;

/// The slots of init's CNode whose capability stays.
pub struct Kept {
    /// Slots below hold the kernel's capabilities of init itself: its program, its page
    /// tables.
    fixed: usize,
    /// A bit for each slot.
    words: [u64; KEPT_WORDS],
}

impl Kept {
    /// Creates the set of the kernel's capabilities below the untyped memory.
    pub const fn new(untyped: &Range<usize>) -> Self {
        Self {
            fixed: untyped.start,
            words: [0; KEPT_WORDS],
        }
    }

    /// Adds a slot whose capability is to stay.
    pub fn add(&mut self, slot: usize) {
        match self.words.get_mut(slot / 64) {
            Some(word) => *word |= 1 << (slot % 64),
            None => fatal!("slot {slot} is past init's CNode"),
        }
    }

    /// Returns whether a capability may be in the slot after boot.
    pub fn contains(&self, slot: usize) -> bool {
        let dropped = [
            slot::IRQ_CONTROL.index(),
            slot::ASID_CONTROL.index(),
            slot::IO_PORT_CONTROL.index(),
            slot::DOMAIN.index(),
        ];
        let word = self.words.get(slot / 64).copied().unwrap_or(0);
        slot < self.fixed && !dropped.contains(&slot) || word >> (slot % 64) & 1 == 1
    }
}

/// The capabilities that init keeps after boot.
pub struct Watched<'a> {
    /// Endpoint for faults.
    pub monitor: Endpoint,
    /// First slot of each object's capabilities.
    pub first_slots: &'a [usize],
    /// Slots never used.
    pub slots_left: usize,
    /// For each guest the signals that say it is gone, to pci-config and iommu.
    pub gone: Vec<Vec<Notification, 2>, GUESTS>,
}

impl Builder<'_> {
    /// Returns the monitor's view of the system.
    pub fn watched(&self, gone: Vec<Vec<Notification, 2>, GUESTS>) -> Watched<'_> {
        Watched {
            monitor: self.cap(self.system.header.monitor as u32, 0),
            first_slots: &self.first_slots,
            slots_left: self.slots_left(),
            gone,
        }
    }

    /// Returns the capabilities by which the monitor says that a guest is gone.
    fn gone(&mut self) -> Vec<Vec<Notification, 2>, GUESTS> {
        let guests = self
            .system
            .threads
            .iter()
            .filter(|t| t.start == Start::Guest)
            .count();
        let mut gone = Vec::new();
        for guest in 0..guests {
            let mut signals = Vec::new();
            let there = self.system.header.gone.into_iter().filter(|&n| n != NONE);
            for notification in there {
                let unbadged = self.first_slots[notification as usize];
                let slot = self.slot();
                self.kept.add(slot);
                let badge = spec::BADGE_GUEST_GONE << guest;
                let minted =
                    own_slot(slot).mint(&own_slot(unbadged), CapRights::write_only(), badge);
                if let Err(error) = minted {
                    fatal!("signal for the end of guest {guest}: {error:?}");
                }
                // There are two of them at most.
                let _ = signals.push(Notification::from_bits(slot as u64));
            }
            if gone.push(signals).is_err() {
                fatal!("{guests} guests, at most {GUESTS} can be watched");
            }
        }
        gone
    }

    /// Deletes every capability that the monitor does not need: above all untyped
    /// memory, whose holder can revoke everything that was made of it.
    pub fn drop_authority(&mut self) -> Vec<Vec<Notification, 2>, GUESTS> {
        ports::kept().for_each(|slot| self.kept.add(slot));
        let gone = self.gone();
        for (index, object) in self.system.objects.iter().enumerate() {
            let kept = match object.kind {
                ObjectKind::Tcb => true,
                ObjectKind::Endpoint => index as u64 == self.system.header.monitor,
                ObjectKind::Notification => index as u64 == self.system.header.doorbell,
                // A component's own memory: a backtrace reads its stack. A
                // guest's RAM has a given address, its vmm holds it; what the
                // IOMMU reads has large pages, and no other component writes it.
                ObjectKind::Memory => object.address == u64::MAX && object.size_bits == 12,
                _ => false,
            };
            let count = object.capabilities() as usize;
            let first = self.first_slots[index];
            if kept {
                (first..first + count).for_each(|slot| self.kept.add(slot));
            }
        }
        // The ASID pool stays: with its last capability the kernel would take
        // every address space in it out of use.
        let fixed = slot::TCB.index()..slot::COUNT;
        for slot in fixed.chain(self.given.clone()).chain(self.filled()) {
            if !self.kept.contains(slot) {
                // An empty slot is as good as a deleted capability.
                let _ = own_slot(slot).delete();
            }
        }
        gone
    }
}
