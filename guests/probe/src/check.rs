//! Findings of a check.

use core::fmt;

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
