//! Slots: what came over each, what is held back (M20), and which source is over
//! its budget (M23).

use channel::events::SlotEvents;
use channel::irq_router::Source;
use channel::routes::Route;
use spec::SLOTS;

use crate::host::Host;
use crate::lapic::Lapic;

/// Events of a masked source that may still have been on their way. More, and it
/// is not masked any more.
const LATE: u32 = 8;

/// How many events a guest takes, in what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Events of one source in an interval; more, and the source is masked until
    /// it is over.
    pub events: u64,
    /// The interval, in ticks of the time stamp counter.
    pub interval: u64,
    /// Ticks between two interrupts of the guest's own timer, at least.
    pub timer: u64,
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
    /// Events since it was throttled.
    late: u32,
}

impl Slot {
    /// Counts anew if another source has the slot now. Returns the one that had it
    /// before if that is throttled: nothing but the slot holds the
    /// end of that.
    #[must_use]
    fn owned_by(&mut self, source: Source) -> Option<Source> {
        if self.source == Some(source) {
            return None;
        }
        let before = core::mem::replace(
            self,
            Self {
                source: Some(source),
                ..Self::default()
            },
        );
        before.source.filter(|_| before.until.is_some())
    }
}

/// Returns the places of the bits that are set, from the lowest on.
pub fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let place = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(place)
    })
}

/// All slots of a guest.
#[derive(Debug)]
pub struct Slots {
    slots: [Slot; SLOTS],
    /// Slots with an event that is held back: looked at for each access to
    /// emulated memory.
    held: u64,
    /// Slots whose source is throttled: looked at for each trap.
    throttled: u64,
    budget: Budget,
    /// Sources that went over it, since somebody asked.
    storms: u64,
    /// Until then a source is masked with its first event, whatever its budget.
    deferred: u64,
}

/// Why a source is throttled, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// It is over its own budget (M23).
    Budget(u64),
    /// The guest's events together wait for its turn.
    Deferred(u64),
    /// It is throttled and goes on all the same: its guest made its function forget
    /// that, by a reset, or by switching plain MSI off and on.
    Again,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The local APIC has it.
    Delivered,
    /// It waits for its route to be unmasked.
    Held,
    /// It was not taken.
    Lost,
}

impl Slots {
    /// Creates slots without events.
    pub fn new(budget: Budget) -> Self {
        Self {
            slots: [Slot::default(); SLOTS],
            held: 0,
            throttled: 0,
            budget,
            storms: 0,
            deferred: 0,
        }
    }

    /// Masks every source that interrupts before `until`: the guest's events have cost
    /// others too much.
    pub const fn defer(&mut self, until: u64) {
        self.deferred = until;
    }

    /// Handles an event of a slot, or one that is tried again (`fresh` is false):
    /// sends it to the local APIC by the slot's route, which the caller has read.
    pub fn event(
        &mut self,
        index: usize,
        route: Option<Route>,
        fresh: bool,
        lapic: &mut Lapic,
        host: &mut impl Host,
    ) -> Taken {
        let Some(slot) = self.slots.get_mut(index) else {
            return Taken::Lost;
        };
        self.held &= !(1 << index);
        let Some(route) = route else {
            slot.events.waiting = false;
            return Taken::Lost;
        };
        if let Some(before) = slot.owned_by(route.source) {
            self.throttled &= !(1 << index);
            // If it failed the source is gone, and its throttling too.
            host.set_throttled(before, false);
        }
        let taken = if route.masked {
            slot.events.held += u64::from(fresh);
            Taken::Held
        } else if lapic.accept(&route.message) {
            slot.events.delivered += 1;
            Taken::Delivered
        } else {
            slot.events.lost += 1;
            Taken::Lost
        };
        slot.events.waiting = taken == Taken::Held;
        self.held |= u64::from(slot.events.waiting) << index;
        if fresh
            && let Some(over) = self.count(index, host.now())
            && host.set_throttled(route.source, true)
        {
            self.throttle(index, over, route.source, host);
        }
        let slot = &self.slots[index];
        host.publish_events(index, route.source, &slot.events);
        taken
    }

    /// Counts an event of an I/O APIC pin. Returns whether it is over its budget
    /// now: it is not to be acknowledged until [`Slots::release`] says so.
    pub fn pin_is_over(&mut self, index: usize, source: Source, host: &mut impl Host) -> bool {
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        if let Some(before) = slot.owned_by(source) {
            self.throttled &= !(1 << index);
            host.set_throttled(before, false);
        }
        let over = self.count(index, host.now());
        if let Some(over) = over {
            self.throttle(index, over, source, host);
        }
        over.is_some()
    }

    /// Counts an event against the budget. The kernel cannot mask a message, so
    /// the device has to when it is over.
    fn count(&mut self, index: usize, now: u64) -> Option<Over> {
        let slot = &mut self.slots[index];
        if now.wrapping_sub(slot.start) >= self.budget.interval {
            slot.start = now;
            slot.count = 0;
        }
        slot.count += 1;
        if slot.until.is_some() {
            slot.late += 1;
            (slot.late > LATE).then_some(Over::Again)
        } else if slot.count > self.budget.events {
            Some(Over::Budget(
                slot.start.saturating_add(self.budget.interval),
            ))
        } else {
            (now < self.deferred).then_some(Over::Deferred(self.deferred))
        }
    }

    fn throttle(&mut self, index: usize, over: Over, source: Source, host: &mut impl Host) {
        if matches!(over, Over::Budget(_)) {
            host.report_storm(source);
        }
        let slot = &mut self.slots[index];
        slot.late = 0;
        slot.until = match over {
            Over::Budget(until) => {
                slot.events.storms += 1;
                self.storms += 1;
                Some(until)
            }
            Over::Deferred(until) => Some(until),
            Over::Again => slot.until,
        };
        self.throttled |= u64::from(slot.until.is_some()) << index;
    }

    /// Returns how often a source went over its budget since this was last
    /// asked.
    pub fn take_storms(&mut self) -> u64 {
        core::mem::take(&mut self.storms)
    }

    /// Returns the slots with an event that is held back, a bit each.
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// Returns the slots whose source is throttled, a bit each.
    pub const fn throttled(&self) -> u64 {
        self.throttled
    }

    /// Returns when the first throttled source is to be released.
    pub fn deadline(&self) -> Option<u64> {
        let throttled = bits(self.throttled).filter_map(|index| self.slots.get(index)?.until);
        throttled.min()
    }

    /// Takes a source whose time is over from the throttled ones, with its slot:
    /// it is to be let go. To be called until there is none.
    pub fn release(&mut self, now: u64) -> Option<(usize, Source)> {
        let over = |&index: &usize| {
            let until = self.slots.get(index).and_then(|slot| slot.until);
            until.is_some_and(|until| until <= now)
        };
        let index = bits(self.throttled).find(over)?;
        let slot = &mut self.slots[index];
        slot.until = None;
        self.throttled &= !(1 << index);
        slot.start = now;
        slot.count = 0;
        Some((index, slot.source?))
    }
}
