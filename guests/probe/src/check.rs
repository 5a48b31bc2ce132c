//! Findings of a check, and the list of checks of a function.

use core::fmt;

use crate::machine::Machine;
use crate::tap::Tap;
use crate::target::Target;
use crate::{config, message, table};

/// Something was not as a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The property that was checked.
    pub what: &'static str,
    /// Which of several: an offset, an entry, an index.
    pub at: u64,
    /// The value that the rule demands.
    pub expected: u64,
    /// The value that was found.
    pub got: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            what,
            at,
            expected,
            got,
        } = self;
        write!(f, "{what} at {at:#x}: expected {expected:#x} got {got:#x}")
    }
}

/// Why a check ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// There is nothing to check, for this reason.
    Skip(&'static str),
    /// The first thing that was wrong.
    Fail(Mismatch),
}

/// Result of a check.
pub type Verdict<T = ()> = Result<T, Stop>;

/// Fails unless `got` is the expected value.
///
/// # Errors
/// [`Stop::Fail`] with both.
pub fn expect(
    what: &'static str,
    at: impl Into<u64>,
    expected: impl Into<u64>,
    got: impl Into<u64>,
) -> Verdict {
    let (expected, got) = (expected.into(), got.into());
    if expected == got {
        return Ok(());
    }
    Err(Stop::Fail(Mismatch {
        what,
        at: at.into(),
        expected,
        got,
    }))
}

/// One check of a function.
pub struct Check<M: Machine> {
    /// The rule, and which part of it.
    pub name: &'static str,
    /// It holds for Vectis' emulation and not for every real function.
    pub emulated_only: bool,
    /// Does it.
    pub run: fn(&mut Target<M>) -> Verdict,
}

impl<M: Machine> Check<M> {
    fn verdict(&self, target: &mut Target<M>) -> Verdict {
        if self.emulated_only && !target.emulated {
            return Err(Stop::Skip("not on Vectis"));
        }
        (self.run)(target)
    }
}

/// Runs all checks on one function.
pub fn run<M: Machine, F: FnMut(fmt::Arguments)>(target: &mut Target<M>, tap: &mut Tap<F>) {
    // Taking a function back to how it should have been hides how it was: these
    // come first, and change nothing.
    for check in [
        message::check_at_start(),
        table::check_control_at_start(),
        table::check_entries_at_start(),
    ] {
        let verdict = check.verdict(target);
        tap.result(target.bdf, check.name, verdict);
    }
    target.restore();
    let checks = message::checks()
        .into_iter()
        .chain(config::checks())
        .chain(table::checks());
    for check in checks {
        let verdict = check.verdict(target);
        target.restore();
        tap.result(target.bdf, check.name, verdict);
    }
}
