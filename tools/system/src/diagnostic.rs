//! Errors with their place, all of them at once.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

/// One error, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as the user named it, and the byte in it.
    place: (String, usize),
    text: String,
}

impl Diagnostic {
    fn new(place: (String, usize), snippets: &[Group<'_>]) -> Self {
        let text = Renderer::plain().render(snippets);
        Self { place, text }
    }
}

/// All errors of one reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The errors, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Returns whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    pub(crate) fn sort(&mut self) {
        self.diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
    }

    /// Adds an error at `span`; where it is about two places, the other is `first`.
    pub(crate) fn error(
        &mut self,
        source: &Source,
        span: &Range<usize>,
        first: Option<&Range<usize>>,
        message: &str,
        help: &str,
    ) {
        let (file, bytes) = source.place(span);
        let place = (file.name.clone(), bytes.start);
        let wrong = AnnotationKind::Primary.span(bytes);
        let error = Level::ERROR.primary_title(message);
        let error = match first.map(|first| source.place(first)) {
            None => error.element(file.snippet().annotation(wrong)),
            Some((other, bytes)) => {
                let first = AnnotationKind::Context
                    .span(bytes)
                    .label("the first is here");
                if std::ptr::eq(file, other) {
                    error.element(file.snippet().annotation(wrong).annotation(first))
                } else {
                    let error = error.element(file.snippet().annotation(wrong));
                    error.element(other.snippet().annotation(first))
                }
            }
        };
        let error = error.element(Level::HELP.message(help));
        self.diagnostics.push(Diagnostic::new(place, &[error]));
    }

    pub(crate) fn file_error(&mut self, file: &Path, error: &std::io::Error, help: &str) {
        let name = file.display().to_string();
        let message = format!("cannot read {name}: {error}");
        let error = Level::ERROR.primary_title(message);
        let error = error.element(Level::HELP.message(help));
        self.diagnostics.push(Diagnostic::new((name, 0), &[error]));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{}\n", diagnostic.text)?;
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
    /// Returns its text without the blanks.
    fn own(&self) -> &str {
        &self.text[self.start..]
    }

    fn snippet(&self) -> Snippet<'_, Annotation<'_>> {
        Snippet::source(self.own()).path(&self.name)
    }

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

    /// Returns file, line and column of a span, from 1, as `system.toml:12:5`.
    pub fn line_of(&self, span: &Range<usize>) -> String {
        let (file, bytes) = self.place(span);
        let before = &file.own()[..bytes.start];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[start..].chars().count() + 1;
        format!("{}:{line}:{column}", file.name)
    }

    /// Returns the file that holds a span, and which bytes of it these are.
    fn place(&self, span: &Range<usize>) -> (&File, Range<usize>) {
        let holds = |file: &File| file.start <= span.start;
        let file = &self.files[self.files.iter().rposition(holds).unwrap_or(0)];
        let bytes = [span.start, span.end].map(|at| {
            let at = at.saturating_sub(file.start);
            file.own().floor_char_boundary(at)
        });
        (file, bytes[0]..bytes[1])
    }
}
