//! A guest's turn in each period, and the bound on the cost of its events outside
//! of the turn.
//!
//! Traps are emulated above all guests, so the guest that traps most would get most
//! of the CPU. Turns bound that without any measurement: in its turn a guest runs
//! before the others of its priority, outside of it only while they wait. So the
//! emulation of its traps comes out of its own turn. Events, which it does not cause
//! by running, are handled at once, up to a part of the period; past that they wait
//! for its next turn.

/// The part of a period that events may cost a guest outside of its turn.
const EVENTS_PART: u64 = 12;

/// A guest's part of each period, in ticks of the time stamp counter. The turns
/// of all guests lie on the same clock, so that they follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    period: u64,
    start: u64,
    length: u64,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// It is the guest's own.
    pub own: bool,
    /// Time stamp at which that changes; never for a guest that has it all.
    pub until: u64,
}

impl Share {
    /// All of the time: no other guest has the same priority.
    pub const WHOLE: Self = Self {
        period: 1,
        start: 0,
        length: 1,
    };

    /// Creates a turn of `length` ticks from `start` on in every period. A turn that
    /// does not lie inside the period counts as all of it.
    #[must_use]
    pub const fn new(period: u64, start: u64, length: u64) -> Self {
        match start.checked_add(length) {
            Some(end) if length > 0 && length < period && end <= period => Self {
                period,
                start,
                length,
            },
            _ => Self::WHOLE,
        }
    }

    /// Returns whether it is always the guest's turn.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.length == self.period
    }

    /// Returns whose turn it is at `now`.
    #[must_use]
    pub const fn turn(&self, now: u64) -> Turn {
        if self.is_whole() {
            return Turn {
                own: true,
                until: u64::MAX,
            };
        }
        let since = (now % self.period + self.period - self.start) % self.period;
        let (own, left) = if since < self.length {
            (true, self.length - since)
        } else {
            (false, self.period - since)
        };
        Turn {
            own,
            until: now.saturating_add(left),
        }
    }

    /// Returns the first time stamp from `now` on that lies in a turn of the
    /// guest.
    #[must_use]
    pub const fn next_own(&self, now: u64) -> u64 {
        let turn = self.turn(now);
        if turn.own { now } else { turn.until }
    }
}

/// Cost of a guest's events outside of its turn.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    share: Share,
    /// Ticks since the guest's turn ended.
    used: u64,
    /// The end of the stretch that `used` is about.
    until: u64,
}

impl Outside {
    /// Creates an account without any cost so far.
    #[must_use]
    pub const fn new(share: Share) -> Self {
        Self {
            share,
            used: 0,
            until: 0,
        }
    }

    /// Charges events that took from `start` to `now`: the part that lies outside of
    /// the guest's turn.
    pub fn charge(&mut self, start: u64, now: u64) {
        let turn = self.share.turn(now);
        if turn.own {
            return;
        }
        if turn.until != self.until {
            self.until = turn.until;
            self.used = 0;
        }
        // A turn that ended meanwhile was the guest's own until then.
        let began = turn
            .until
            .saturating_sub(self.share.period - self.share.length);
        self.used += now.saturating_sub(start.max(began));
    }

    /// Returns the time until which further events have to wait, if they do.
    #[must_use]
    pub fn waits_until(&self, now: u64) -> Option<u64> {
        let over = now < self.until && self.used > self.share.period / EVENTS_PART;
        over.then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_without_gap_or_overlap() {
        let shares = [
            Share::new(1000, 0, 500),
            Share::new(1000, 500, 200),
            Share::new(1000, 700, 300),
        ];
        for now in 0..3000 {
            let own = shares.iter().filter(|share| share.turn(now).own);
            assert_eq!(own.count(), 1, "at {now}");
        }
        for share in shares {
            for now in 0..3000 {
                let turn = share.turn(now);
                assert!(turn.until > now);
                assert_eq!(share.turn(turn.until - 1).own, turn.own);
                assert_eq!(share.turn(turn.until).own, !turn.own);
                let next = share.next_own(now);
                assert!(share.turn(next).own && (next == now) == turn.own);
            }
        }
    }

    #[test]
    fn what_is_no_part_of_a_period_is_all_of_it() {
        for (start, length) in [(0, 1000), (0, 0), (600, 500), (u64::MAX, 2), (0, u64::MAX)] {
            let share = Share::new(1000, start, length);
            assert!(share.is_whole(), "{start} {length}");
            assert!(share.turn(u64::MAX).own);
        }
        assert_eq!(Share::new(0, 0, 0), Share::WHOLE);
        assert!(Share::new(1000, 0, 1).turn(u64::MAX).until == u64::MAX);
    }

    #[test]
    fn events_cost_a_part_of_the_period_and_then_wait() {
        let mut outside = Outside::new(Share::new(1200, 0, 600));
        // In the guest's own turn nothing is charged.
        outside.charge(0, 599);
        assert_eq!(outside.waits_until(599), None);
        // Only from the turn's end on.
        outside.charge(0, 700);
        assert_eq!(outside.waits_until(700), None);
        outside.charge(700, 701);
        assert_eq!(outside.waits_until(701), Some(1200));
        assert_eq!(outside.waits_until(1199), Some(1200));
        // The next turn, and the time after it, begin anew.
        assert_eq!(outside.waits_until(1200), None);
        outside.charge(1900, 1950);
        assert_eq!(outside.waits_until(1950), None);
        outside.charge(1950, 2001);
        assert_eq!(outside.waits_until(2001), Some(2400));
    }

    #[test]
    fn who_has_all_of_the_time_is_never_charged() {
        let mut outside = Outside::new(Share::WHOLE);
        outside.charge(0, 1 << 60);
        assert_eq!(outside.waits_until(1), None);
    }
}
