//! What follows a guest's end.

use crate::host::StopReason;

/// What a guest that did its work writes to its exit port (guests/README.md).
const SUCCESS: u32 = 0x10;
/// Failures in a row after which a guest is not started again.
pub const LIMIT: u32 = 6;
/// A guest that lived for so long, in milliseconds, before it failed begins a
/// new row.
pub const WINDOW_MS: u64 = 10_000;
/// Wait before a start, in milliseconds: to clear memory and load an image takes
/// time from all guests, and one that ends at once gets no more than they do. It
/// doubles with each failure in a row.
const WAIT_MS: u64 = 5;

/// What system.toml says about a guest's end (`on-exit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The system ends.
    Stop,
    /// The guest stays as it is, and its functions are silent.
    Halt,
    /// It starts again from its image.
    Restart,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// End the system.
    Stop,
    /// Leave the guest as it is.
    Halt,
    /// It failed too often: leave it as it is.
    GiveUp,
    /// One of its functions was not taken back, and could disturb another life:
    /// leave it as it is.
    Unclean,
    /// Start it again after so many milliseconds.
    Restart(u64),
}

impl Next {
    /// The same, once it is known in how many milliseconds all functions are back
    /// at start, if ever.
    #[must_use]
    pub fn given(self, back_ms: Option<u64>) -> Self {
        match (self, back_ms) {
            (Self::Restart(wait_ms), Some(back_ms)) => Self::Restart(wait_ms.max(back_ms)),
            (Self::Restart(_), None) => Self::Unclean,
            (next, _) => next,
        }
    }
}

/// A guest's lives so far.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    policy: Policy,
    /// Starts after the first.
    pub restarts: u64,
    failures: u32,
    last_ms: u64,
}

impl Lives {
    /// Before the first start.
    #[must_use]
    pub const fn new(policy: Policy) -> Self {
        Self {
            policy,
            restarts: 0,
            failures: 0,
            last_ms: 0,
        }
    }

    /// The guest ended, `now_ms` milliseconds after an arbitrary start. One that
    /// did its work may do it again as often as it likes; failures in a row are
    /// slowed down and end.
    pub fn ended(&mut self, reason: StopReason, now_ms: u64) -> Next {
        match self.policy {
            Policy::Stop => return Next::Stop,
            Policy::Halt => return Next::Halt,
            Policy::Restart => {}
        }
        if now_ms.saturating_sub(self.last_ms) > WINDOW_MS {
            self.failures = 0;
        }
        let mut wait = WAIT_MS;
        if reason == StopReason::Exit(SUCCESS) {
            self.failures = 0;
        } else {
            self.last_ms = now_ms;
            if self.failures == LIMIT {
                return Next::GiveUp;
            }
            wait <<= self.failures;
            self.failures += 1;
        }
        self.restarts += 1;
        Next::Restart(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: StopReason = StopReason::Exit(0x11);

    #[test]
    fn policies_without_restart() {
        for (policy, next) in [(Policy::Stop, Next::Stop), (Policy::Halt, Next::Halt)] {
            let mut lives = Lives::new(policy);
            assert_eq!(lives.ended(StopReason::HaltForever, 5), next);
            assert_eq!(lives.restarts, 0);
        }
    }

    #[test]
    fn failures_in_a_row_are_slowed_down_and_end() {
        let mut lives = Lives::new(Policy::Restart);
        for wait in [5, 10, 20, 40, 80, 160] {
            assert_eq!(lives.ended(PANIC, 100), Next::Restart(wait));
        }
        assert_eq!(lives.ended(StopReason::TripleFault(13), 100), Next::GiveUp);
        assert_eq!(lives.restarts, u64::from(LIMIT));
        // What lived long enough begins anew.
        assert_eq!(lives.ended(PANIC, 101 + WINDOW_MS), Next::Restart(WAIT_MS));
    }

    #[test]
    fn a_function_that_was_not_taken_back_ends_the_lives() {
        for next in [Next::Stop, Next::Halt, Next::GiveUp, Next::Restart(5)] {
            assert_eq!(next.given(Some(0)), next);
        }
        assert_eq!(Next::Restart(5).given(None), Next::Unclean);
        for next in [Next::Stop, Next::Halt, Next::GiveUp] {
            assert_eq!(next.given(None), next);
            assert_eq!(next.given(Some(100)), next);
        }
    }

    #[test]
    fn a_restart_waits_for_the_functions() {
        for (wait, back, both) in [(5, 100, 100), (160, 100, 160), (5, 0, 5)] {
            assert_eq!(Next::Restart(wait).given(Some(back)), Next::Restart(both));
        }
    }

    #[test]
    fn work_that_was_done_may_be_done_again() {
        let mut lives = Lives::new(Policy::Restart);
        for _ in 0..1000 {
            assert_eq!(
                lives.ended(StopReason::Exit(SUCCESS), 1),
                Next::Restart(WAIT_MS)
            );
        }
        assert_eq!(lives.ended(PANIC, 1), Next::Restart(WAIT_MS));
        assert_eq!(
            lives.ended(StopReason::Exit(SUCCESS), 1),
            Next::Restart(WAIT_MS)
        );
        assert_eq!(lives.ended(PANIC, 1), Next::Restart(WAIT_MS));
        assert_eq!(lives.restarts, 1003);
    }
}
