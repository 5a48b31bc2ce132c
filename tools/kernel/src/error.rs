//! Build errors: the failure, its cause, and a remedy.

use std::fmt;

/// A failure of the kernel build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The step that failed.
    pub what: String,
    /// Why it failed; may have several lines.
    pub cause: String,
    /// Remedy for the user.
    pub help: String,
}

impl Error {
    pub(crate) fn new(
        what: impl Into<String>,
        cause: impl fmt::Display,
        help: impl Into<String>,
    ) -> Self {
        Error {
            what: what.into(),
            cause: cause.to_string(),
            help: help.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  help: {}", self.what, self.cause, self.help)
    }
}

impl std::error::Error for Error {}
