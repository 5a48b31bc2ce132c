//! The event page: the vmm counts what came over each slot, the console shows
//! it.

use core::sync::atomic::{AtomicU64, Ordering};
use spec::SLOTS;

use crate::Word;
use crate::irq_router::Source;

/// What became of the events of one source while it has had its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotEvents {
    /// Given to the guest's local APIC.
    pub delivered: u64,
    /// Held back, since the route was masked (M20).
    pub held: u64,
    /// Not taken by the local APIC: software-disabled, or another destination.
    pub lost: u64,
    /// Times that the source was over its budget (M23).
    pub storms: u64,
    /// One is held back now.
    pub waiting: bool,
}

#[repr(C)]
struct Slot {
    /// 0, or the source's word and 1 << 63.
    source: AtomicU64,
    delivered: AtomicU64,
    held: AtomicU64,
    lost: AtomicU64,
    storms: AtomicU64,
    waiting: AtomicU64,
}

/// One guest's events, as they lie in shared memory: one writer, any number of
/// readers. All zeroes is a page on which nothing has come.
#[repr(C)]
pub struct EventPage {
    slots: [Slot; SLOTS],
}

const VALID: u64 = 1 << 63;

impl EventPage {
    /// Creates a page without events.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    source: AtomicU64::new(0),
                    delivered: AtomicU64::new(0),
                    held: AtomicU64::new(0),
                    lost: AtomicU64::new(0),
                    storms: AtomicU64::new(0),
                    waiting: AtomicU64::new(0),
                }
            }; SLOTS],
        }
    }

    /// Publishes a slot's counts, for the writer; a slot that does not exist is ignored.
    pub fn publish(&self, slot: usize, source: Source, events: &SlotEvents) {
        let Some(slot) = self.slots.get(slot) else {
            return;
        };
        slot.delivered.store(events.delivered, Ordering::Relaxed);
        slot.held.store(events.held, Ordering::Relaxed);
        slot.lost.store(events.lost, Ordering::Relaxed);
        slot.storms.store(events.storms, Ordering::Relaxed);
        slot.waiting.store(events.waiting.into(), Ordering::Relaxed);
        slot.source
            .store(VALID | source.to_word(), Ordering::Release);
    }

    /// Returns, for the reader, the events of a slot for `source`; none
    /// if the slot was last another source's. Values may be from two moments
    /// when the writer is at work on another core.
    #[must_use]
    pub fn read(&self, slot: usize, source: Source) -> SlotEvents {
        let Some(slot) = self.slots.get(slot) else {
            return SlotEvents::default();
        };
        if slot.source.load(Ordering::Acquire) != VALID | source.to_word() {
            return SlotEvents::default();
        }
        SlotEvents {
            delivered: slot.delivered.load(Ordering::Relaxed),
            held: slot.held.load(Ordering::Relaxed),
            lost: slot.lost.load(Ordering::Relaxed),
            storms: slot.storms.load(Ordering::Relaxed),
            waiting: slot.waiting.load(Ordering::Relaxed) != 0,
        }
    }
}

impl Default for EventPage {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::FunctionId;

    #[test]
    fn counts_belong_to_a_source() {
        let page = EventPage::new();
        let events = SlotEvents {
            delivered: 1,
            held: 2,
            lost: 3,
            storms: 4,
            waiting: true,
        };
        page.publish(3, Source::msix(FunctionId(0), 0), &events);
        assert_eq!(page.read(3, Source::msix(FunctionId(0), 0)), events);
        assert_eq!(
            page.read(3, Source::msi(FunctionId(0), 0)),
            SlotEvents::default()
        );
        page.publish(SLOTS, Source::msix(FunctionId(0), 0), &events);
        assert_eq!(
            page.read(SLOTS, Source::msix(FunctionId(0), 0)),
            SlotEvents::default()
        );
    }

    #[test]
    fn fits_a_page() {
        assert!(size_of::<EventPage>() <= 4096);
    }
}
