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

/// The texts of a file and of those that it inherits from, to turn byte ranges into
/// places. A byte's position counts through all of them, so that it says the file
/// too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source(Vec<File>);

#[derive(Clone, Debug)]
struct File {
    name: String,
    folder: PathBuf,
    start: usize,
    /// Blank up to `start`: what is parsed from it has the positions that it has in
    /// the whole.
    text: String,
}

impl Source {
    /// Adds a file, by the name that messages give it.
    pub fn add(&mut self, name: String, folder: PathBuf, text: &str) {
        // The end of a file is a place as well, and not the next file's first.
        let start = self.0.last().map_or(0, |file| file.text.len() + 1);
        let text = " ".repeat(start) + text;
        self.0.push(File {
            name,
            folder,
            start,
            text,
        });
    }

    /// Each file's text and folder.
    pub fn files(&self) -> impl DoubleEndedIterator<Item = (&str, &Path)> {
        self.0
            .iter()
            .map(|file| (file.text.as_str(), file.folder.as_path()))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|file| file.name.as_str())
    }

    /// The text of the file that was added last.
    pub fn last(&self) -> &str {
        self.0.last().map_or("", |file| &file.text)
    }

    pub fn diagnostic(&self, span: &Range<usize>, message: String, help: String) -> Diagnostic {
        let holds = |file: &&File| file.start <= span.start;
        let file = self.0.iter().rfind(holds);
        let (name, text, start) = file.map_or(("", "", 0), |file| {
            (&*file.name, &file.text[file.start..], file.start)
        });
        let mut start = (span.start - start).min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let source = text[line_start..].lines().next().unwrap_or("");
        Diagnostic {
            file: name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            source: source.to_owned(),
            message,
            help,
        }
    }
}
