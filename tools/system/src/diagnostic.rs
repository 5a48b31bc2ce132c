//! Errors with their place, all of them at once.

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// File as the user named it.
    pub file: String,
    /// Line, from 1; 0 if the file could not be read at all.
    pub line: usize,
    /// Column, in characters from 1.
    pub column: usize,
    /// The line's text.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        if self.line > 0 {
            writeln!(f, "  --> {}:{}:{}", self.file, self.line, self.column)?;
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            // A tab stays one, so that the mark stands under its place.
            let indent: String = self
                .source
                .chars()
                .take(self.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            writeln!(f, "{margin} |")?;
            writeln!(f, "{number} | {}", self.source)?;
            writeln!(f, "{margin} | {indent}^")?;
        }
        writeln!(f, "  help: {}", self.help)
    }
}

/// All errors of one reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The errors, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    pub(crate) fn sort(&mut self) {
        self.diagnostics
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    }

    pub(crate) fn file_error(&mut self, file: &Path, error: &std::io::Error, help: &str) {
        self.diagnostics.push(Diagnostic {
            file: file.display().to_string(),
            line: 0,
            column: 0,
            source: String::new(),
            message: format!("cannot read {}: {error}", file.display()),
            help: help.to_owned(),
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        let count = self.diagnostics.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} error{plural} in the system description")
    }
}

impl std::error::Error for Report {}

/// A file's text, to turn byte ranges into places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Source<'_> {
    pub fn diagnostic(&self, span: &Range<usize>, message: String, help: String) -> Diagnostic {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let source = self.text[line_start..].lines().next().unwrap_or("");
        Diagnostic {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            source: source.to_owned(),
            message,
            help,
        }
    }
}
