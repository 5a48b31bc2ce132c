//! Printing that survives a reader who went away: a panic in the middle of a
//! run would leave QEMU behind.

use std::io::{self, Write};

use crate::error::{Error, Result};

/// Prints a line to standard output.
///
/// # Errors
/// If that fails; [`Error::quiet`] if its reader has gone away.
pub fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Error::reader_gone(),
            _ => Error::new("cannot print", e, "check what standard output leads to"),
        })
}

/// Prints a line of progress or trouble to standard error. A missing reader is not
/// an error.
pub fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
