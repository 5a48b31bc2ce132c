//! Splits preprocessed `.bf` text into tokens with their file and line.

use crate::Error;

/// Kind of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A word: keyword or name; the parser tells which from its place.
    Word(String),
    /// An integer in C notation (decimal, octal, hexadecimal, binary).
    Number(u64),
    /// One of `{ } ( ) ,`.
    Mark(char),
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub file: String,
    pub line: u32,
}

/// Splits `text`. Preprocessor line markers (`# 12 "file"`) move the position;
/// comments run from `--` to the end of the line.
pub(crate) fn lex(file: &str, text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let mut file = file.to_string();
    let mut line = 0u32;
    for raw in text.lines() {
        line += 1;
        if let Some(directive) = raw.trim_start().strip_prefix('#') {
            if let Some((marker_line, marker_file)) = line_marker(directive) {
                file = marker_file;
                // The marker numbers the line that follows it.
                line = marker_line.saturating_sub(1);
            }
            continue;
        }
        let code = raw.split("--").next().unwrap_or("");
        lex_line(&file, line, code, &mut tokens)?;
    }
    Ok(tokens)
}

/// Parses a line marker: `# 12 "some/file.bf" 2` yields (12, some/file.bf).
fn line_marker(directive: &str) -> Option<(u32, String)> {
    let rest = directive.trim_start();
    let rest = rest.strip_prefix("line").unwrap_or(rest).trim_start();
    let (number, rest) = rest.split_once(' ')?;
    let name = rest.trim_start().strip_prefix('"')?.split('"').next()?;
    Some((number.parse().ok()?, name.to_string()))
}

fn lex_line(file: &str, line: u32, code: &str, tokens: &mut Vec<Token>) -> Result<(), Error> {
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let (kind, length) = if "{}(),".contains(first) {
            (TokenKind::Mark(first), 1)
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let length = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let word = &rest[..length];
            let kind =
                if first.is_ascii_digit() {
                    TokenKind::Number(number(word).ok_or_else(|| {
                        Error::new(file, line, format!("`{word}` is not a number"))
                    })?)
                } else {
                    TokenKind::Word(word.to_string())
                };
            (kind, length)
        } else {
            return Err(Error::new(
                file,
                line,
                format!("unexpected character `{first}`"),
            ));
        };
        tokens.push(Token {
            kind,
            file: file.to_string(),
            line,
        });
        rest = rest[length..].trim_start();
    }
    Ok(())
}

fn number(word: &str) -> Option<u64> {
    let word = word.trim_end_matches(['l', 'L']);
    let lower = word.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        u64::from_str_radix(digits, 16).ok()
    } else if let Some(digits) = lower.strip_prefix("0b") {
        u64::from_str_radix(digits, 2).ok()
    } else if lower.len() > 1 && lower.starts_with('0') {
        u64::from_str_radix(lower[1..].trim_start_matches('o'), 8).ok()
    } else {
        lower.parse().ok()
    }
}
