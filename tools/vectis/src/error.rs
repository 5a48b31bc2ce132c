//! Errors: the failure, its cause, and the next step.

use std::fmt;
use std::path::Path;

/// The exit status of a failure that has none of its own.
const FAILURE: u8 = 1;

/// A failure as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    text: String,
    /// The exit status of `vectis`.
    pub status: u8,
    /// The reader of standard output has gone away: nothing failed, and nothing is
    /// printed.
    pub quiet: bool,
}

/// Result of every command.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Creates an error: the failure and its place, the cause, and a remedy.
    pub fn new(what: impl fmt::Display, cause: impl fmt::Display, help: impl fmt::Display) -> Self {
        Self {
            text: format!("{what}: {cause}\n  help: {help}"),
            status: FAILURE,
            quiet: false,
        }
    }

    /// Creates the error for a reader of standard output that went away, such as
    /// `| head`.
    #[must_use]
    pub fn reader_gone() -> Self {
        Self {
            status: 0,
            quiet: true,
            ..Self::new(
                "cannot print",
                "nobody reads it",
                "keep standard output open",
            )
        }
    }

    /// Creates a file that cannot be read, written, made or removed.
    pub fn file(verb: &str, path: &Path, cause: &std::io::Error) -> Self {
        Self::new(
            format!("cannot {verb} {}", path.display()),
            cause,
            "check the path, its rights, and that the disk is not full",
        )
    }

    /// Returns the same with another exit status.
    #[must_use]
    pub fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<kernel::Error> for Error {
    fn from(error: kernel::Error) -> Self {
        Self::new(error.what, error.cause, error.help)
    }
}

impl From<system::Report> for Error {
    fn from(report: system::Report) -> Self {
        // Each of its errors already has a place and a help line, and begins with
        // "error: ", as every printed error does.
        let text = report.to_string();
        Self {
            text: text.strip_prefix("error: ").unwrap_or(&text).to_owned(),
            status: FAILURE,
            quiet: false,
        }
    }
}
