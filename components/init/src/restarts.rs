//! How often a component may be started again.

use spec::Backoff;

/// One component's restarts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    /// All of them: the component's generation.
    pub generation: u64,
    backoff: Backoff,
}

impl Restarts {
    /// Counts a fault, `now_ms` milliseconds after an arbitrary start. Returns the
    /// milliseconds after which the component starts again, at once after the first
    /// fault in a row; `None` if it is given up.
    pub fn fault(&mut self, now_ms: u64) -> Option<u64> {
        let before = self.backoff.failed(now_ms)?;
        self.generation += 1;
        Some(before.checked_sub(1).map_or(0, Backoff::wait_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_and_gives_up() {
        let mut restarts = Restarts::default();
        for wait in [0, 5, 10, 20, 40, 80] {
            assert_eq!(restarts.fault(100), Some(wait));
        }
        assert_eq!(restarts.fault(100), None);
        assert_eq!(restarts.generation, u64::from(Backoff::LIMIT));
    }

    #[test]
    fn a_quiet_time_forgives() {
        let mut restarts = Restarts::default();
        for _ in 0..Backoff::LIMIT {
            restarts.fault(5);
        }
        assert_eq!(restarts.fault(5 + Backoff::WINDOW_MS + 1), Some(0));
    }
}
