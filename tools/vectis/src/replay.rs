//! `vectis replay`: recorded accesses against the components' own logic.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::output;

/// The exit status for a file that is not a trace.
const NO_TRACE: u8 = 2;

/// Replays every file. Differences from the trace go to standard error.
///
/// # Errors
/// If a file cannot be read or is not a trace, or if a result differs from the
/// expected one.
pub fn replay(files: &[PathBuf], summary: bool) -> Result<()> {
    let mut operations = 0;
    let mut mismatches = 0;
    for file in files {
        let report = play(file)?;
        if !summary {
            for outcome in &report.outcomes {
                let line = serde_json::to_string(outcome)
                    .map_err(|e| Error::new("cannot print an outcome", e, "report this"))?;
                output::line(&line)?;
            }
        }
        for mismatch in &report.mismatches {
            output::progress(&format!("{}: {mismatch}", file.display()));
        }
        operations += report.outcomes.len();
        mismatches += report.mismatches.len();
        if summary {
            output::line(&format!(
                "{}: {} operations, {} mismatches",
                file.display(),
                report.outcomes.len(),
                report.mismatches.len()
            ))?;
        }
    }
    if summary {
        output::line(&format!(
            "{} files, {operations} operations, {mismatches} mismatches",
            files.len()
        ))?;
    }
    if mismatches > 0 {
        return Err(Error::new(
            format!("{mismatches} mismatches"),
            "the components did not do what the trace expects",
            "the lines above name each; docs/semantics.md has the rules",
        ));
    }
    Ok(())
}

fn play(file: &Path) -> Result<::replay::Report> {
    let bytes =
        std::fs::read(file).map_err(|e| Error::file("read", file, &e).with_status(NO_TRACE))?;
    let no_trace = |place: String, cause: String| {
        Error::new(
            format!("{}{place} is no trace", file.display()),
            cause,
            "docs/replay.md describes the format",
        )
        .with_status(NO_TRACE)
    };
    let text =
        String::from_utf8(bytes).map_err(|e| no_trace(String::new(), format!("not UTF-8: {e}")))?;
    let trace = ::replay::parse(&text)
        .map_err(|e| no_trace(format!(":{}:{}", e.line, e.column.max(1)), e.message))?;
    Ok(::replay::run(&trace))
}
