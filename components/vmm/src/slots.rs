//! Slots: what came over each, what is held back (M20), and which source is over
//! its budget (M23).

use channel::events::SlotEvents;
use channel::irq_router::{Source, SourceKind};
use channel::routes::{Route, SLOTS};

use crate::host::Host;
use crate::lapic::Lapic;

/// How many events of one source a guest takes, in what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Events in an interval; more, and the source is masked until it is over.
    pub events: u64,
    /// The interval, in ticks of the time stamp counter.
    pub interval: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    source: Option<Source>,
    events: SlotEvents,
    /// When the current interval began.
    start: u64,
    /// Events in it.
    count: u64,
    /// When the source is let go again, if it is throttled.
    until: Option<u64>,
}

/// All slots of a guest.
#[derive(Debug)]
pub struct Slots {
    slots: [Slot; SLOTS],
    /// Slots with an event that is held back: looked at for each access to
    /// emulated memory.
    held: u32,
    budget: Budget,
    /// Sources that went over it, since somebody asked.
    storms: u64,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The local APIC has it.
    Delivered,
    /// It waits for its route to be unmasked.
    Held,
    /// Nobody took it.
    Lost,
}

impl Slots {
    /// Slots on which nothing has come.
    pub fn new(budget: Budget) -> Self {
        Self {
            slots: [Slot::default(); SLOTS],
            held: 0,
            budget,
            storms: 0,
        }
    }

    /// An event came over a slot, or is tried again (`fresh` is false): gives it
    /// to the local APIC by the slot's route.
    pub fn event(
        &mut self,
        index: usize,
        fresh: bool,
        lapic: &mut Lapic,
        host: &mut impl Host,
    ) -> Taken {
        let Some(slot) = self.slots.get_mut(index) else {
            return Taken::Lost;
        };
        self.held &= !(1 << index);
        let Some(route) = host.route(index) else {
            slot.events.waiting = false;
            return Taken::Lost;
        };
        if slot.source != Some(route.source) {
            // Another source has the slot now: counting begins anew.
            *slot = Slot {
                source: Some(route.source),
                ..Slot::default()
            };
        }
        let taken = if route.masked {
            slot.events.held += u64::from(fresh);
            Taken::Held
        } else if lapic.accept(&route) {
            slot.events.delivered += 1;
            Taken::Delivered
        } else {
            slot.events.lost += 1;
            Taken::Lost
        };
        slot.events.waiting = taken == Taken::Held;
        self.held |= u32::from(slot.events.waiting) << index;
        if fresh {
            self.count(index, &route, host);
        }
        let slot = &self.slots[index];
        host.publish_events(index, route.source, &slot.events);
        taken
    }

    /// Counts an event against the budget. The kernel cannot mask an MSI, so the
    /// device's entry is masked instead.
    fn count(&mut self, index: usize, route: &Route, host: &mut impl Host) {
        let now = host.now();
        let slot = &mut self.slots[index];
        if now.wrapping_sub(slot.start) >= self.budget.interval {
            slot.start = now;
            slot.count = 0;
        }
        slot.count += 1;
        let over = slot.count > self.budget.events && slot.until.is_none();
        if over && route.source.kind == SourceKind::Msix && host.set_throttled(route.source, true) {
            slot.until = Some(slot.start.saturating_add(self.budget.interval));
            slot.events.storms += 1;
            self.storms += 1;
        }
    }

    /// How often a source went over its budget since this was last asked.
    pub fn take_storms(&mut self) -> u64 {
        core::mem::take(&mut self.storms)
    }

    /// Slots with an event that is held back, a bit each.
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// When the first throttled source is to be let go.
    pub fn deadline(&self) -> Option<u64> {
        self.slots.iter().filter_map(|slot| slot.until).min()
    }

    /// Lets go every source whose time is over.
    pub fn release(&mut self, now: u64, host: &mut impl Host) {
        for slot in &mut self.slots {
            if slot.until.is_some_and(|until| until <= now) {
                slot.until = None;
                slot.start = now;
                slot.count = 0;
                if let Some(source) = slot.source {
                    // If it failed the source is gone, and its throttling too.
                    host.set_throttled(source, false);
                }
            }
        }
    }
}
