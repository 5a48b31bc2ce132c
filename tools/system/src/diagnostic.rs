//! Errors with their place, all of them at once.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

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

    pub(crate) fn error(
        &mut self,
        source: &Source,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let diagnostic = source.diagnostic(span, message.into(), help.into());
        self.diagnostics.push(diagnostic);
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

/// A file and those that it inherits from, to turn byte ranges into places. A byte's
/// position counts through all of them, so that it says the file too.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub files: Vec<File>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct File {
    /// As messages name it.
    pub name: String,
    pub path: PathBuf,
    start: usize,
    /// Blank up to `start`: what is parsed from it has its positions in the whole.
    pub text: String,
}

impl File {
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

impl Source {
    pub fn add(&mut self, name: String, path: PathBuf, text: &str) {
        // The end of a file is a place as well, and not the next file's first.
        let start = self.files.last().map_or(0, |file| file.text.len() + 1);
        let text = " ".repeat(start) + text;
        self.files.push(File {
            name,
            path,
            start,
            text,
        });
    }

    pub fn diagnostic(&self, span: &Range<usize>, message: String, help: String) -> Diagnostic {
        let holds = |file: &File| file.start <= span.start;
        let file = &self.files[self.files.iter().rposition(holds).unwrap_or(0)];
        let mut start = span.start.min(file.text.len());
        while !file.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &file.text[file.start..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = &file.text[file.start + line_start..];
        Diagnostic {
            file: file.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            source: line.lines().next().unwrap_or("").to_owned(),
            message,
            help,
        }
    }
}
