//! How often a component may be started again.

/// Restarts within [`WINDOW_MS`] after which it is given up.
pub const LIMIT: u32 = 6;
/// The window, in milliseconds: without a fault for that long, counting begins
/// anew.
pub const WINDOW_MS: u64 = 10_000;
/// Wait before the second restart in a row, in milliseconds; it doubles each
/// time.
const FIRST_WAIT_MS: u64 = 5;

/// One component's restarts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    /// All of them: the component's generation.
    pub generation: u64,
    in_a_row: u32,
    last_ms: u64,
}

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start it again, after so many milliseconds.
    Restart(u64),
    /// It faults again and again: give up.
    GiveUp,
}

impl Restarts {
    /// It faulted, `now_ms` milliseconds after an arbitrary start.
    pub fn fault(&mut self, now_ms: u64) -> Decision {
        if now_ms.saturating_sub(self.last_ms) > WINDOW_MS {
            self.in_a_row = 0;
        }
        self.last_ms = now_ms;
        if self.in_a_row == LIMIT {
            return Decision::GiveUp;
        }
        let wait = match self.in_a_row {
            0 => 0,
            n => FIRST_WAIT_MS << (n - 1),
        };
        self.in_a_row += 1;
        self.generation += 1;
        Decision::Restart(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_and_gives_up() {
        let mut restarts = Restarts::default();
        let mut waits = [0; LIMIT as usize];
        for wait in &mut waits {
            match restarts.fault(100) {
                Decision::Restart(ms) => *wait = ms,
                Decision::GiveUp => panic!("too early"),
            }
        }
        assert_eq!(waits, [0, 5, 10, 20, 40, 80]);
        assert_eq!(restarts.fault(100), Decision::GiveUp);
        assert_eq!(restarts.generation, u64::from(LIMIT));
    }

    #[test]
    fn a_quiet_time_forgives() {
        let mut restarts = Restarts::default();
        for _ in 0..LIMIT {
            restarts.fault(5);
        }
        assert_eq!(restarts.fault(5 + WINDOW_MS + 1), Decision::Restart(0));
    }
}
