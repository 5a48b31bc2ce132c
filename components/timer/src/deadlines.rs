//! The clients' deadlines.

use core::num::NonZeroU32;

use channel::timer::Timer;
use channel::{Caller, Error};

use crate::clock::Clock;
use crate::ratio::Ratio;

/// Clients that can wait at the same time: a vmm for each guest, and a few more.
pub const CLIENTS: usize = 24;

/// How often the clock is set again after it was overtaken while it was being set.
/// The distance doubles each time, from a few ticks to many milliseconds.
const ATTEMPTS: u32 = 20;

/// How often a client may have the clock programmed in an interval of
/// [`INTERVAL_US`]. Each time takes about five accesses of an HPET, or two of an 8254, of
/// which one may take a microsecond: that is less than a tenth of the CPU for a client that does
/// nothing else. A guest's timer and a console that looks for keys need far less.
const PROGRAMMINGS: u32 = 16;
/// Microseconds of an interval.
const INTERVAL_US: u64 = 1_000;

/// The timer's surroundings.
pub trait System {
    /// Returns the time stamp counter.
    fn tsc(&mut self) -> u64;
    /// Signals the client's notification.
    fn signal(&mut self, client: Caller);
    /// Lets the clock's next interrupt come: the kernel masks a pin until then, and an edge
    /// on a masked one is lost.
    fn unmask(&mut self);
}

shm::counters! {
    /// What happened so far.
    pub struct Counters {
        /// Deadlines asked for.
        armed,
        /// Deadlines dropped by their client.
        cancelled,
        /// Deadlines that came.
        fired,
        /// Deadlines for which there was no room.
        exhausted,
        /// Deadlines that were put off, since their client had asked too often.
        deferred,
        /// Interrupts of the clock.
        interrupts,
        /// Times the clock was overtaken while it was being set.
        overtaken,
    }
}

/// State of a client.
#[derive(Clone, Copy)]
struct Place {
    client: Caller,
    deadline: Option<u64>,
    /// When its interval began.
    since: u64,
    /// How often it had the clock programmed in it.
    used: u32,
}

/// The deadlines of all clients.
pub struct Timers<C, S> {
    clock: C,
    system: S,
    ratio: Ratio,
    /// Cycles of an interval.
    interval: u64,
    /// Those that are taken come first.
    places: [Option<Place>; CLIENTS],
    /// The clock interrupts at this time at the latest, or has done so.
    armed: Option<u64>,
    /// What happened so far.
    pub counters: Counters,
}

impl<C: Clock, S: System> Timers<C, S> {
    /// Creates a set without deadlines; `tsc_mhz` is the rate of the time stamp counter.
    pub fn new(clock: C, system: S, tsc_mhz: NonZeroU32) -> Self {
        Self {
            ratio: Ratio::new(tsc_mhz, clock.period()),
            interval: u64::from(tsc_mhz.get()) * INTERVAL_US,
            clock,
            system,
            places: [None; CLIENTS],
            armed: None,
            counters: Counters::default(),
        }
    }

    /// Handles an interrupt of the clock, a spurious one too.
    pub fn interrupt(&mut self) {
        self.counters.interrupts += 1;
        // In this order: a level that still holds would interrupt again, and an edge of what
        // is armed next would be lost on a pin that is still masked.
        self.clock.acknowledge();
        self.system.unmask();
        self.service();
    }

    /// Signals clients whose deadline is due, and sets the clock for the earliest remaining
    /// deadline.
    fn service(&mut self) {
        for attempt in 0..ATTEMPTS {
            let now = self.system.tsc();
            self.signal_due(now);
            let Some(earliest) = self.earliest() else {
                self.armed = None;
                self.clock.disarm();
                return;
            };
            self.armed = Some(earliest);
            let ticks = self.ratio.ticks(earliest - now, C::LONGEST);
            if self.clock.arm(ticks.max(1 << attempt)) {
                return;
            }
            self.counters.overtaken += 1;
        }
        // Whoever calls next tries again.
        self.armed = None;
    }

    fn earliest(&self) -> Option<u64> {
        self.places
            .iter()
            .map_while(Option::as_ref)
            .filter_map(|p| p.deadline)
            .min()
    }

    /// Signals every client whose deadline is `now` or before.
    fn signal_due(&mut self, now: u64) {
        for place in self.places.iter_mut().map_while(Option::as_mut) {
            if place
                .deadline
                .take_if(|deadline| *deadline <= now)
                .is_some()
            {
                self.system.signal(place.client);
                self.counters.fired += 1;
            }
        }
    }

    /// Returns the client's place: its own, an empty one, or that of a client
    /// that waits for nothing. `None` if all wait.
    fn place(&mut self, client: Caller, now: u64) -> Option<&mut Place> {
        let own = |place: &Option<Place>| place.is_some_and(|place| place.client == client);
        let idle = |place: &Option<Place>| place.is_some_and(|place| place.deadline.is_none());
        let mut places = self.places.iter();
        let index = places
            .position(own)
            .or_else(|| self.places.iter().position(Option::is_none))
            .or_else(|| self.places.iter().position(idle))?;
        let place = self.places[index].get_or_insert(Place {
            client,
            deadline: None,
            since: now,
            used: 0,
        });
        if place.client != client || now.wrapping_sub(place.since) >= self.interval {
            *place = Place {
                client,
                since: now,
                used: 0,
                ..*place
            };
        }
        Some(place)
    }
}

impl<C: Clock, S: System> Timer for Timers<C, S> {
    fn arm(&mut self, caller: Caller, tsc: u64) -> Result<(), Error> {
        let (now, interval) = (self.system.tsc(), self.interval);
        let Some(place) = self.place(caller, now) else {
            self.counters.exhausted += 1;
            return Err(Error::Exhausted);
        };
        let over = place.used >= PROGRAMMINGS;
        if over {
            // Whatever it was, it is remembered, so that a guest whose timer this is
            // does not stand still.
            let end = place.since.saturating_add(interval);
            place.deadline = Some(tsc.max(end));
        } else {
            place.used += 1;
            place.deadline = Some(tsc);
        }
        self.counters.armed += 1;
        if over {
            self.counters.deferred += 1;
            // The clock interrupts in time, but for the first such deadline.
            if self.armed > self.earliest() || self.armed.is_none() {
                self.service();
            }
            return Err(Error::TooOften);
        }
        if tsc <= now {
            // The clock has nothing to do with it.
            self.signal_due(now);
        } else {
            self.service();
        }
        Ok(())
    }

    fn cancel(&mut self, caller: Caller) -> Result<(), Error> {
        let now = self.system.tsc();
        let mut waiting = self.places.iter().flatten();
        if !waiting.any(|place| place.client == caller && place.deadline.is_some()) {
            return Ok(());
        }
        if let Some(place) = self.place(caller, now) {
            place.deadline = None;
            let over = place.used >= PROGRAMMINGS;
            place.used = place.used.saturating_add(1);
            self.counters.cancelled += 1;
            // An interrupt without a deadline costs less than a client that does this
            // without end.
            if !over {
                self.service();
            }
        }
        Ok(())
    }
}
