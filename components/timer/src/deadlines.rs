//! Who wants to be woken when.

use core::num::NonZeroU32;

use channel::timer::Timer;
use channel::{Caller, Error};

use crate::hpet::{Hpet, Registers};
use crate::ratio::Ratio;

/// Clients that can wait at the same time.
pub const CLIENTS: usize = 8;

/// Longest wait for which the comparator is set: a quarter of the counter's
/// round, so that ahead and behind can be told apart. What lies further off is
/// waited for in steps.
const LONGEST_STEP: u32 = 1 << 30;

/// How often the comparator is set again after the counter has overtaken it.
/// The distance doubles each time, from a few ticks to many milliseconds.
const ATTEMPTS: u32 = 20;

/// What the timer needs from its surroundings.
pub trait System {
    /// The time stamp counter.
    fn tsc(&mut self) -> u64;
    /// Signals the client's notification.
    fn signal(&mut self, client: Caller);
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deadlines asked for.
    pub armed: u64,
    /// Deadlines dropped by their client.
    pub cancelled: u64,
    /// Deadlines that came.
    pub fired: u64,
    /// Deadlines for which there was no room.
    pub exhausted: u64,
    /// Interrupts of the HPET.
    pub interrupts: u64,
    /// Times the counter overtook the comparator while it was being set.
    pub overtaken: u64,
}

#[derive(Clone, Copy)]
struct Deadline {
    client: Caller,
    tsc: u64,
}

/// The deadlines of all clients.
pub struct Timers<R, S> {
    hpet: Hpet<R>,
    system: S,
    ratio: Ratio,
    deadlines: [Option<Deadline>; CLIENTS],
    /// What happened so far.
    pub counters: Counters,
}

impl<R: Registers, S: System> Timers<R, S> {
    /// No deadlines; `tsc_mhz` is the rate of the time stamp counter.
    pub fn new(hpet: Hpet<R>, system: S, tsc_mhz: NonZeroU32) -> Self {
        Self {
            ratio: Ratio::new(tsc_mhz, hpet.period()),
            hpet,
            system,
            deadlines: [None; CLIENTS],
            counters: Counters::default(),
        }
    }

    /// Handles an interrupt of the HPET, a spurious one too. The IRQ handler
    /// capability is acknowledged after this, or the level fires again.
    pub fn interrupt(&mut self) {
        self.counters.interrupts += 1;
        self.hpet.acknowledge();
        self.service();
    }

    /// Signals what is due and sets the comparator for the earliest rest.
    fn service(&mut self) {
        for attempt in 0..ATTEMPTS {
            let now = self.system.tsc();
            self.signal_due(now);
            let Some(earliest) = self.deadlines.iter().flatten().map(|d| d.tsc).min() else {
                self.hpet.disarm();
                return;
            };
            let start = self.hpet.now();
            let ticks = self.ratio.ticks(earliest - now, LONGEST_STEP);
            let ticks = ticks.max(1 << attempt);
            self.hpet.arm(start.wrapping_add(ticks));
            // A comparator that the counter has passed would wait for a whole
            // round: look again after it was set.
            let elapsed = self.hpet.now().wrapping_sub(start);
            if elapsed < ticks {
                return;
            }
            self.counters.overtaken += 1;
        }
    }

    /// Signals every client whose deadline is `now` or before.
    fn signal_due(&mut self, now: u64) {
        for place in &mut self.deadlines {
            if let Some(due) = place.take_if(|deadline| deadline.tsc <= now) {
                self.system.signal(due.client);
                self.counters.fired += 1;
            }
        }
    }
}

impl<R: Registers, S: System> Timer for Timers<R, S> {
    fn arm(&mut self, caller: Caller, tsc: u64) -> Result<(), Error> {
        let index = self
            .deadlines
            .iter()
            .position(|place| place.is_some_and(|d| d.client == caller))
            .or_else(|| self.deadlines.iter().position(Option::is_none));
        let Some(index) = index else {
            self.counters.exhausted += 1;
            return Err(Error::Exhausted);
        };
        self.deadlines[index] = Some(Deadline {
            client: caller,
            tsc,
        });
        self.counters.armed += 1;
        self.service();
        Ok(())
    }

    fn cancel(&mut self, caller: Caller) -> Result<(), Error> {
        let place = self
            .deadlines
            .iter_mut()
            .find(|place| place.is_some_and(|d| d.client == caller));
        if let Some(place) = place {
            *place = None;
            self.counters.cancelled += 1;
            self.service();
        }
        Ok(())
    }
}
