//! Warnings that a guest can cause: so many a second and no more.

/// Warnings that get through in a second.
const PER_SECOND: u32 = 10;

/// Limits how often a message is logged, and counts the suppressed ones.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Time stamp ticks of a second.
    second: u64,
    /// When the current second began.
    start: u64,
    /// Messages in it.
    said: u32,
    /// Occurrences suppressed since the last message.
    suppressed: u64,
}

impl RateLimit {
    /// Creates a limit of ten a second, by a clock with `tsc_khz` thousand ticks a
    /// second.
    #[must_use]
    pub const fn per_second(tsc_khz: u64) -> Self {
        Self {
            second: tsc_khz.saturating_mul(1000),
            start: 0,
            said: 0,
            suppressed: 0,
        }
    }

    /// Records `count` occurrences. Returns `Some(n)` if one message may be logged now,
    /// `n` being the occurrences suppressed so far (`count` - 1 of these among them);
    /// `None` over the limit.
    pub const fn allow(&mut self, now: u64, count: u32) -> Option<u64> {
        if now.wrapping_sub(self.start) >= self.second {
            self.start = now;
            self.said = 0;
        }
        if self.said == PER_SECOND {
            self.suppressed = self.suppressed.saturating_add(count as u64);
            return None;
        }
        self.said += 1;
        let suppressed = self.suppressed + (count as u64).saturating_sub(1);
        self.suppressed = 0;
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted() {
        let mut limit = RateLimit::per_second(1);
        for _ in 0..PER_SECOND {
            assert_eq!(limit.allow(5000, 1), Some(0));
        }
        assert_eq!(limit.allow(5999, 1), None);
        assert_eq!(limit.allow(5999, 4), None);
        assert_eq!(limit.allow(6000, 3), Some(7));
        assert_eq!(limit.allow(6000, 1), Some(0));
    }
}
