//! Errors in a description, with their place.

use std::fmt;

/// An error in a description file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Path of the file, as the user passed it.
    pub file: String,
    /// The line, from 1; 0 if the whole file is meant.
    pub line: u32,
    /// The fault, without a final full stop.
    pub message: String,
}

impl Error {
    /// Creates an error at `line` of `file`.
    pub fn new(file: impl Into<String>, line: u32, message: impl Into<String>) -> Self {
        Error {
            file: file.into(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)
        } else {
            write!(f, "{}:{}: {}", self.file, self.line, self.message)
        }
    }
}

impl std::error::Error for Error {}
