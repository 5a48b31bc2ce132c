//! What failed, why, and what to do next.

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
    /// Nobody reads standard output any more: there is nothing to say, and nothing
    /// failed.
    pub quiet: bool,
}

/// What every command gives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What failed and where, the cause, and what to do about it.
    pub fn new(what: impl fmt::Display, cause: impl fmt::Display, help: impl fmt::Display) -> Self {
        Self {
            text: format!("{what}: {cause}\n  help: {help}"),
            status: FAILURE,
            quiet: false,
        }
    }

    /// Whoever read standard output has seen enough, as `| head` has.
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

    /// A file that cannot be read, written, made or removed.
    pub fn file(verb: &str, path: &Path, cause: &std::io::Error) -> Self {
        Self::new(
            format!("cannot {verb} {}", path.display()),
            cause,
            "check the path, its rights, and that the disk is not full",
        )
    }

    /// The same with another exit status.
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
        // Each of its errors has a place and a help line already, and begins with
        // "error: ", as what is printed of any error does.
        let text = report.to_string();
        Self {
            text: text.strip_prefix("error: ").unwrap_or(&text).to_owned(),
            status: FAILURE,
            quiet: false,
        }
    }
}
