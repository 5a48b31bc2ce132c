//! How soon something that fails is started again, and when it is given up.

/// The failures in a row of one component or guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    in_a_row: u32,
    last_ms: u64,
}

impl Backoff {
    /// Failures in a row that are followed by a start; the next is not.
    pub const LIMIT: u32 = 6;
    /// Milliseconds without a failure after which a new row begins.
    pub const WINDOW_MS: u64 = 10_000;

    /// Counts a failure, `now_ms` milliseconds after an arbitrary start. Returns
    /// how many came before it in the row; `None` if there were too many.
    pub fn failed(&mut self, now_ms: u64) -> Option<u32> {
        if now_ms.saturating_sub(self.last_ms) > Self::WINDOW_MS {
            self.in_a_row = 0;
        }
        self.last_ms = now_ms;
        let before = self.in_a_row;
        if before == Self::LIMIT {
            return None;
        }
        self.in_a_row += 1;
        Some(before)
    }

    /// Ends the row: something was done.
    pub fn forgive(&mut self) {
        self.in_a_row = 0;
    }

    /// Returns the milliseconds to wait after `failures` others. A start takes time
    /// from everybody, so that the wait doubles each time.
    #[must_use]
    pub const fn wait_ms(failures: u32) -> u64 {
        5 << failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_an_end() {
        let mut backoff = Backoff::default();
        for before in 0..Backoff::LIMIT {
            assert_eq!(backoff.failed(100), Some(before));
        }
        assert_eq!(backoff.failed(100), None);
        backoff.forgive();
        assert_eq!(backoff.failed(100), Some(0));
    }

    #[test]
    fn a_quiet_time_begins_a_new_row() {
        let mut backoff = Backoff::default();
        for _ in 0..Backoff::LIMIT {
            backoff.failed(5);
        }
        assert_eq!(backoff.failed(5 + Backoff::WINDOW_MS), None);
        assert_eq!(backoff.failed(6 + 2 * Backoff::WINDOW_MS), Some(0));
    }

    #[test]
    fn waits_double() {
        let waits = [0, 1, 2, 3, 4, 5].map(Backoff::wait_ms);
        assert_eq!(waits, [5, 10, 20, 40, 80, 160]);
    }
}
