//! Runs the C preprocessor over a description, keeping line markers.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Options};

/// Preprocesses `file` with `includes` searched in order and `options` defined.
///
/// # Errors
/// If `gcc` cannot be run or fails; the message holds its output.
pub fn preprocess(file: &Path, includes: &[&Path], options: &Options) -> Result<String, Error> {
    let shown = file.display().to_string();
    let mut gcc = Command::new("gcc");
    // -w: apostrophes in comments are not C and would be warned about.
    gcc.args(["-E", "-w", "-nostdinc", "-undef", "-x", "c"]);
    for dir in includes {
        gcc.arg("-I").arg(dir);
    }
    for (name, value) in options {
        gcc.arg(format!("-D{name}={value}"));
    }
    let output = gcc.arg(file).stdin(Stdio::null()).output().map_err(|e| {
        Error::new(
            &shown,
            0,
            format!("cannot run the C preprocessor `gcc`: {e}; install gcc"),
        )
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(&shown, 0, format!("gcc -E failed:\n{text}")));
    }
    String::from_utf8(output.stdout).map_err(|_| Error::new(&shown, 0, "not valid UTF-8"))
}
