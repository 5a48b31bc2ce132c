//! Strict reading of TOML tables: every key must be known, every value of its
//! type, and each mistake becomes a diagnostic instead of an end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Report, Source};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Bytes of the file.
    pub span: Range<usize>,
}

/// The file that is being read.
pub struct Context<'a> {
    pub source: &'a Source,
    pub report: &'a RefCell<&'a mut Report>,
    /// The whole file.
    pub root: &'a DeTable<'a>,
}

impl Context<'_> {
    pub fn error(&self, span: &Range<usize>, message: impl AsRef<str>, help: impl AsRef<str>) {
        let (message, help) = (message.as_ref(), help.as_ref());
        let mut report = self.report.borrow_mut();
        report.error(self.source, span, None, message, help);
    }

    /// Adds an error about two places that do not go together.
    pub fn conflict(
        &self,
        span: &Range<usize>,
        first: &Range<usize>,
        message: impl AsRef<str>,
        help: impl AsRef<str>,
    ) {
        let (message, help) = (message.as_ref(), help.as_ref());
        let mut report = self.report.borrow_mut();
        report.error(self.source, span, Some(first), message, help);
    }

    /// Returns where `[table.name]` stands.
    pub fn key_span(&self, table: &str, name: &str) -> Range<usize> {
        let table = self.root.get(table);
        let table = table.and_then(|value| value.get_ref().as_table());
        table
            .and_then(|table| table.keys().find(|key| key.get_ref().as_ref() == name))
            .map_or(0..0, Spanned::span)
    }

    /// Returns how many errors there are so far.
    pub fn errors(&self) -> usize {
        self.report.borrow().diagnostics.len()
    }

    /// Parses a file's text, as far as its syntax is right.
    pub fn parse<'s>(&self, text: &'s str) -> DeTable<'s> {
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            self.error(&span, error.message(), "see https://toml.io for the format");
        }
        document.into_inner()
    }

    /// Returns a help text: the most similar name, or the list of all.
    pub fn suggest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
        let known: Vec<&str> = known.into_iter().collect();
        let best = known
            .iter()
            .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match (best, known.is_empty()) {
            (Some((_, candidate)), _) => format!("did you mean `{candidate}`?"),
            (None, true) => "there is none".to_owned(),
            (None, false) => format!("there is {}", list(known)),
        }
    }
}

/// Returns a name's index among the known ones, or adds an error.
pub fn find<'n>(
    context: &Context<'_>,
    what: &str,
    name: &Located<String>,
    known: impl Iterator<Item = &'n str> + Clone,
) -> Option<usize> {
    let found = known.clone().position(|candidate| candidate == name.value);
    if found.is_none() {
        context.error(
            &name.span,
            format!("there is no {what} `{}`", name.value),
            Context::suggest(&name.value, known),
        );
    }
    found
}

/// Reads a key whose value is one of these words, and returns what the word stands
/// for; the first if the key is missing. `what` names the kind of word in an error.
pub fn choice<T: Copy>(
    section: &Section<'_, '_>,
    key: &'static str,
    what: &str,
    words: &[(&str, T)],
) -> T {
    let first = words[0].1;
    let Some(text) = section.string(key) else {
        return first;
    };
    let known = words.iter().find(|(word, _)| *word == text.value);
    known.map_or_else(
        || {
            section.context.error(
                &text.span,
                format!("`{}` is not {}", text.value, with_article(what)),
                Context::suggest(&text.value, words.iter().map(|(word, _)| *word)),
            );
            first
        },
        |(_, value)| *value,
    )
}

/// Reads a list of names, none of them twice, and returns the index of each that is
/// among the known ones.
pub fn indices<'n>(
    section: &Section<'_, '_>,
    key: &'static str,
    what: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> Vec<Located<usize>> {
    let names = section.strings(key);
    let mut found = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let mut before = names[..index].iter();
        if let Some(first) = before.find(|other| other.value == name.value) {
            section.context.conflict(
                &name.span,
                &first.span,
                format!("`{}` is named twice", name.value),
                "once is enough: remove one",
            );
        }
        let span = name.span.clone();
        let value = find(section.context, what, name, known.clone());
        found.extend(value.map(|value| Located { value, span }));
    }
    found
}

/// Checks that there are no more guests or devices than components have room for.
pub fn room<T>(context: &Context<'_>, what: &str, named: &[(Located<String>, T)], most: usize) {
    if let Some((name, _)) = named.get(most) {
        context.error(
            &name.span,
            format!("{} {what}s are too many for one system", named.len()),
            format!("components have room for {most}"),
        );
    }
}

/// Returns the names as a list for people.
pub fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A table whose keys are read one by one; a key that is not read is unknown.
pub struct Section<'c, 't> {
    pub context: &'c Context<'c>,
    pub table: &'t DeTable<'t>,
    /// How messages name the table.
    pub name: String,
    pub span: Range<usize>,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'c, 't> Section<'c, 't> {
    pub fn new(
        context: &'c Context<'c>,
        table: &'t DeTable<'t>,
        name: impl Into<String>,
        span: Range<usize>,
    ) -> Self {
        Self {
            context,
            table,
            name: name.into(),
            span,
            known: RefCell::default(),
        }
    }

    pub fn get(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        self.context.error(
            &value.span(),
            format!(
                "`{key}` in {} must be {wanted}, not {}",
                self.name,
                with_article(value.get_ref().type_str())
            ),
            format!("write {wanted}"),
        );
    }

    /// Adds an error if a key is missing.
    pub fn require(&self, key: &'static str, example: &str) {
        if self.get(key).is_none() {
            self.context.error(
                &self.span,
                format!("{} has no `{key}`", self.name),
                format!("add `{key} = {example}`"),
            );
        }
    }

    pub fn string(&self, key: &'static str) -> Option<Located<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Located {
                value: text.to_owned(),
                span: value.span(),
            }),
            None => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        boolean
    }

    pub fn required_string(&self, key: &'static str, example: &str) -> Option<Located<String>> {
        self.require(key, example);
        self.string(key)
    }

    pub fn number(&self, key: &'static str, range: Range<u64>) -> Option<Located<u64>> {
        let value = self.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a whole number");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| range.contains(number));
        if number.is_none() {
            self.context.error(
                &value.span(),
                format!("`{key}` in {} is out of range", self.name),
                if integer.radix() == 16 {
                    format!("it must be {:#x} to {:#x}", range.start, range.end - 1)
                } else {
                    format!("it must be {} to {}", range.start, range.end - 1)
                },
            );
        }
        Some(Located {
            value: number?,
            span: value.span(),
        })
    }

    pub fn required_number(
        &self,
        key: &'static str,
        range: Range<u64>,
        example: &str,
    ) -> Option<Located<u64>> {
        self.require(key, example);
        self.number(key, range)
    }

    /// Reads a size in bytes: `"16K"`, `"32M"`, a multiple of 4 KiB.
    pub fn size(&self, key: &'static str) -> Option<Located<u64>> {
        const HELP: &str = "write a multiple of 4K such as \"16K\" or \"32M\"";
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            let found = with_article(value.get_ref().type_str());
            self.context.error(
                &value.span(),
                format!("`{key}` in {} must be a size, not {found}", self.name),
                HELP,
            );
            return None;
        };
        let bytes = parse_size(text).filter(|bytes| *bytes > 0 && bytes % 4096 == 0);
        if bytes.is_none() {
            self.context.error(
                &value.span(),
                format!("`{text}` is not a size that `{key}` can have"),
                HELP,
            );
        }
        Some(Located {
            value: bytes?,
            span: value.span(),
        })
    }

    pub fn required_size(&self, key: &'static str, example: &str) -> Option<Located<u64>> {
        self.require(key, example);
        self.size(key)
    }

    pub fn strings(&self, key: &'static str) -> Vec<Located<String>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings");
            return Vec::new();
        };
        let mut strings = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => strings.push(Located {
                    value: text.to_owned(),
                    span: item.span(),
                }),
                None => self.wrong_type(key, item, "a list of strings"),
            }
        }
        strings
    }

    pub fn texts(&self, key: &'static str) -> Vec<String> {
        let strings = self.strings(key).into_iter();
        strings.map(|text| text.value).collect()
    }

    pub fn section(&self, key: &'static str) -> Option<Section<'c, 't>> {
        let value = self.get(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, "a table");
        }
        Some(Section::new(
            self.context,
            table?,
            format!("`{key}`"),
            value.span(),
        ))
    }

    /// Returns the keys of a table and their values, which are strings.
    pub fn pairs(&self, key: &'static str) -> Vec<(Located<String>, Located<String>)> {
        let Some(section) = self.section(key) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in section.table {
            let Some(text) = value.get_ref().as_str() else {
                section.wrong_type(name.get_ref(), value, "a string");
                continue;
            };
            let located = |value: &str, span| Located {
                value: value.to_owned(),
                span,
            };
            let name = located(name.get_ref(), name.span());
            pairs.push((name, located(text, value.span())));
        }
        pairs
    }

    pub fn required_section(&self, key: &'static str, example: &str) -> Option<Section<'c, 't>> {
        self.require(key, example);
        self.section(key)
    }

    /// Returns the tables `[key.NAME]`, in the file's order.
    pub fn named(&self, key: &'static str) -> Vec<(Located<String>, Section<'c, 't>)> {
        let Some(tables) = self.section(key) else {
            return Vec::new();
        };
        let mut named = Vec::new();
        for (name, value) in tables.table {
            let located = Located {
                value: name.get_ref().to_string(),
                span: name.span(),
            };
            if !good_name(&located.value) {
                self.context.error(
                    &located.span,
                    format!("`{}` is not a name for a {key}", located.value),
                    "use lower-case letters, digits and hyphens, at most 20, a letter first",
                );
            }
            match value.get_ref().as_table() {
                Some(table) => {
                    let title = format!("[{key}.{}]", located.value);
                    let section = Section::new(self.context, table, title, name.span());
                    named.push((located, section));
                }
                None => self.wrong_type(&located.value, value, "a table"),
            }
        }
        named
    }

    /// Returns the tables `[[key]]`, in the file's order.
    pub fn array(&self, key: &'static str) -> Vec<Section<'c, 't>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "tables `[[...]]`");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let title = format!("[[{key}]]");
                    sections.push(Section::new(self.context, table, title, item.span()));
                }
                None => self.wrong_type(key, item, "tables `[[...]]`"),
            }
        }
        sections
    }

    /// Adds an error for each key that was not read.
    pub fn finish(&self) {
        let known = self.known.borrow();
        for key in self.table.keys() {
            if !known.contains(key.get_ref().as_ref()) {
                self.context.error(
                    &key.span(),
                    format!("{} has no key `{}`", self.name, key.get_ref()),
                    Context::suggest(key.get_ref(), known.iter().copied()),
                );
            }
        }
    }
}

/// Returns whether a name is short enough for every name that is made from it
/// to fit into a `spec::Name` (the longest addition is `client:MsixControl:`).
fn good_name(name: &str) -> bool {
    name.len() <= 20
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'I', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

/// More than any machine has. Sums of sizes and addresses stay far from the
/// end of 64 bits.
const SIZE_MAX: u64 = 1 << 48;

fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= SIZE_MAX)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16K"), Some(16 << 10));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        assert_eq!(parse_size("4096"), Some(4096));
        for bad in [
            "",
            "K",
            "-1K",
            "1.5M",
            "16k",
            "999999G",
            "99999999999G",
            "0x10",
        ] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
