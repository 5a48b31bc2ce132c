//! Results as TAP, version 13 (testanything.org), with the plan at the end.

use core::fmt;

use crate::check::{Stop, Verdict};

/// Counts results and writes a line for each.
pub struct Tap<F> {
    write: F,
    run: u32,
    failed: u32,
}

impl<F: FnMut(fmt::Arguments)> Tap<F> {
    /// Starts the stream; `write` gets one line at a time, without its end.
    pub fn new(mut write: F) -> Self {
        write(format_args!("TAP version 13"));
        Self {
            write,
            run: 0,
            failed: 0,
        }
    }

    /// Writes the result of check `name` of the thing called `subject`.
    pub fn result(&mut self, subject: impl fmt::Display, name: &str, verdict: Verdict) {
        self.run += 1;
        let run = self.run;
        match verdict {
            Ok(()) => (self.write)(format_args!("ok {run} - {subject} {name}")),
            Err(Stop::Skip(reason)) => {
                (self.write)(format_args!("ok {run} - {subject} {name} # SKIP {reason}"));
            }
            Err(Stop::Fail(mismatch)) => {
                self.failed += 1;
                (self.write)(format_args!("not ok {run} - {subject} {name}"));
                (self.write)(format_args!("# {mismatch}"));
            }
        }
    }

    /// Writes a line that is not a result.
    pub fn note(&mut self, text: fmt::Arguments) {
        (self.write)(format_args!("# {text}"));
    }

    /// Writes plan and conclusion. True if there was a result and none failed.
    pub fn finish(mut self) -> bool {
        let passed = self.failed == 0 && self.run != 0;
        (self.write)(format_args!("1..{}", self.run));
        let conclusion = if passed { "pass" } else { "fail" };
        (self.write)(format_args!("# probe: {conclusion}"));
        passed
    }
}
