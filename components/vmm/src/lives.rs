//! What follows a guest's end.

use spec::{Backoff, EXIT_SUCCESS, OnExit};

use crate::host::StopReason;

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
    /// The reset of one of its functions failed later: leave it as it is.
    NotReset,
    /// Start it again after so many milliseconds.
    Restart(u64),
}

impl Next {
    /// Returns the same, once it is known in how many milliseconds all
    /// functions are back at start, if ever.
    #[must_use]
    pub fn when_ready(self, back_ms: Option<u64>) -> Self {
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
    on_exit: OnExit,
    /// Starts after the first.
    pub restarts: u64,
    backoff: Backoff,
}

impl Lives {
    /// Creates the count before the first start.
    #[must_use]
    pub fn new(on_exit: OnExit) -> Self {
        Self {
            on_exit,
            restarts: 0,
            backoff: Backoff::default(),
        }
    }

    /// Counts the guest's end, `now_ms` milliseconds after an arbitrary start. One
    /// that did its work may do it again as often as it likes; failures in a row
    /// are slowed down and end. Every start waits: one that ends at once takes no
    /// more time from all guests than they have.
    pub fn ended(&mut self, reason: StopReason, now_ms: u64) -> Next {
        match self.on_exit {
            OnExit::Stop => return Next::Stop,
            OnExit::Halt => return Next::Halt,
            OnExit::Restart => {}
        }
        let failures = if reason == StopReason::Exit(EXIT_SUCCESS) {
            self.backoff.forgive();
            0
        } else if let Some(failures) = self.backoff.failed(now_ms) {
            failures
        } else {
            return Next::GiveUp;
        };
        self.restarts += 1;
        Next::Restart(Backoff::wait_ms(failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: StopReason = StopReason::Exit(0x11);

    #[test]
    fn ends_without_restart() {
        for (on_exit, next) in [(OnExit::Stop, Next::Stop), (OnExit::Halt, Next::Halt)] {
            let mut lives = Lives::new(on_exit);
            assert_eq!(lives.ended(StopReason::HaltForever, 5), next);
            assert_eq!(lives.restarts, 0);
        }
    }

    #[test]
    fn failures_in_a_row_are_slowed_down_and_end() {
        let mut lives = Lives::new(OnExit::Restart);
        for wait in [5, 10, 20, 40, 80, 160] {
            assert_eq!(lives.ended(PANIC, 100), Next::Restart(wait));
        }
        assert_eq!(lives.ended(StopReason::TripleFault(13), 100), Next::GiveUp);
        assert_eq!(lives.restarts, u64::from(Backoff::LIMIT));
        // What lived long enough begins anew.
        assert_eq!(
            lives.ended(PANIC, 101 + Backoff::WINDOW_MS),
            Next::Restart(5)
        );
    }

    #[test]
    fn a_function_that_was_not_taken_back_ends_the_lives() {
        for next in [Next::Stop, Next::Halt, Next::GiveUp, Next::Restart(5)] {
            assert_eq!(next.when_ready(Some(0)), next);
        }
        assert_eq!(Next::Restart(5).when_ready(None), Next::Unclean);
        for next in [Next::Stop, Next::Halt, Next::GiveUp] {
            assert_eq!(next.when_ready(None), next);
            assert_eq!(next.when_ready(Some(100)), next);
        }
    }

    #[test]
    fn a_restart_waits_for_the_functions() {
        for (wait, back, both) in [(5, 100, 100), (160, 100, 160), (5, 0, 5)] {
            assert_eq!(
                Next::Restart(wait).when_ready(Some(back)),
                Next::Restart(both)
            );
        }
    }

    #[test]
    fn work_that_was_done_may_be_done_again() {
        let mut lives = Lives::new(OnExit::Restart);
        for _ in 0..1000 {
            assert_eq!(
                lives.ended(StopReason::Exit(EXIT_SUCCESS), 1),
                Next::Restart(5)
            );
        }
        assert_eq!(lives.ended(PANIC, 1), Next::Restart(5));
        assert_eq!(
            lives.ended(StopReason::Exit(EXIT_SUCCESS), 1),
            Next::Restart(5)
        );
        assert_eq!(lives.ended(PANIC, 1), Next::Restart(5));
        assert_eq!(lives.restarts, 1003);
    }
}
