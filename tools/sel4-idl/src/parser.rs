//! Parses preprocessed `.bf` text and computes the layout.
//!
//! The language: `base BITS [(VALUE_BITS, SIGN)]`, `block NAME [(field order)]
//! { field|field_high NAME WIDTH | padding WIDTH ... }` and `tagged_union NAME
//! TAGFIELD { tag BLOCK VALUE ... }`. Fields are listed from the topmost bit
//! down. Unions with tags of several widths (`mask`) are refused: only the
//! 32-bit kernels use them.

use crate::Error;
use crate::bitfield::{Base, Block, Description, Field, Union, Variant};
use crate::lexer::{Token, TokenKind, lex};

/// Parses `text`. `file` is named in errors until a line marker says otherwise.
///
/// # Errors
/// The first mistake found, with file and line.
pub fn parse(file: &str, text: &str) -> Result<Description, Error> {
    let tokens = lex(file, text)?;
    let end = (file.to_string(), text.lines().count() as u32);
    let mut parser = Parser {
        tokens,
        next: 0,
        end,
    };
    let items = parser.items()?;
    resolve(items)
}

struct Position {
    file: String,
    line: u32,
}

impl Position {
    fn error(&self, message: impl Into<String>) -> Error {
        Error::new(self.file.clone(), self.line, message)
    }
}

struct RawUnion {
    at: Position,
    name: String,
    tag_field: String,
    base: Base,
    tags: Vec<(Position, String, u64)>,
}

#[derive(Default)]
struct Items {
    blocks: Vec<Block>,
    unions: Vec<RawUnion>,
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    end: (String, u32),
}

impl Parser {
    fn here(&self) -> Position {
        match self.tokens.get(self.next) {
            Some(t) => Position {
                file: t.file.clone(),
                line: t.line,
            },
            None => Position {
                file: self.end.0.clone(),
                line: self.end.1,
            },
        }
    }

    fn describe_next(&self) -> String {
        match self.tokens.get(self.next).map(|t| &t.kind) {
            Some(TokenKind::Word(w)) => format!("`{w}`"),
            Some(TokenKind::Number(n)) => format!("`{n}`"),
            Some(TokenKind::Mark(m)) => format!("`{m}`"),
            None => "the end of the file".to_string(),
        }
    }

    fn unexpected(&self, wanted: &str) -> Error {
        self.here()
            .error(format!("expected {wanted}, found {}", self.describe_next()))
    }

    fn word(&mut self, wanted: &str) -> Result<String, Error> {
        match self.tokens.get(self.next).map(|t| &t.kind) {
            Some(TokenKind::Word(w)) => {
                let w = w.clone();
                self.next += 1;
                Ok(w)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn number(&mut self, wanted: &str) -> Result<u64, Error> {
        match self.tokens.get(self.next).map(|t| &t.kind) {
            Some(&TokenKind::Number(n)) => {
                self.next += 1;
                Ok(n)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn accept(&mut self, mark: char) -> bool {
        let found = self
            .tokens
            .get(self.next)
            .is_some_and(|t| t.kind == TokenKind::Mark(mark));
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<(), Error> {
        if self.accept(mark) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{mark}`")))
        }
    }

    fn items(&mut self) -> Result<Items, Error> {
        let mut items = Items::default();
        let mut base = None;
        while self.next < self.tokens.len() {
            let at = self.here();
            let keyword = self.word("`base`, `block` or `tagged_union`")?;
            let need_base =
                |base: Option<Base>| base.ok_or_else(|| at.error("no `base` line before this"));
            match keyword.as_str() {
                "base" => base = Some(self.base()?),
                "block" => {
                    let block = self.block(need_base(base)?)?;
                    if items.blocks.iter().any(|b| b.name == block.name) {
                        return Err(at.error(format!("block `{}` is declared twice", block.name)));
                    }
                    items.blocks.push(block);
                }
                "tagged_union" => {
                    let union = self.union(need_base(base)?, at)?;
                    items.unions.push(union);
                }
                other => {
                    return Err(at.error(format!(
                        "expected `base`, `block` or `tagged_union`, found `{other}`"
                    )));
                }
            }
        }
        Ok(items)
    }

    fn base(&mut self) -> Result<Base, Error> {
        let at = self.here();
        let word_bits = self.number("the bits of a word")?;
        let (mut value_bits, mut sign) = (word_bits, 0);
        if self.accept('(') {
            value_bits = self.number("the significant bits of a value")?;
            self.expect(',')?;
            sign = self.number("0 or 1 for sign extension")?;
            self.expect(')')?;
        }
        if ![8, 16, 32, 64].contains(&word_bits) {
            return Err(at.error(format!(
                "a base of {word_bits} bits; it must be 8, 16, 32 or 64"
            )));
        }
        if value_bits == 0 || value_bits > word_bits || sign > 1 {
            return Err(at.error("the base's value bits or sign flag are out of range"));
        }
        Ok(Base {
            word_bits: word_bits as u32,
            value_bits: value_bits as u32,
            sign_extend: sign == 1,
        })
    }

    fn block(&mut self, base: Base) -> Result<Block, Error> {
        let at = self.here();
        let name = self.word("the block's name")?;
        let mut order = None;
        if self.accept('(') {
            let mut names = Vec::new();
            if !self.accept(')') {
                loop {
                    let at = self.here();
                    names.push((at, self.word("a field's name")?));
                    if !self.accept(',') {
                        break;
                    }
                }
                self.expect(')')?;
            }
            order = Some(names);
        }
        self.expect('{')?;
        // (name or padding, width, high), topmost first
        let mut raw: Vec<(Position, Option<String>, u64, bool)> = Vec::new();
        while !self.accept('}') {
            let at = self.here();
            let keyword = self.word("`field`, `field_high`, `padding` or `}`")?;
            let (name, high) = match keyword.as_str() {
                "field" => (Some(self.word("the field's name")?), false),
                "field_high" => (Some(self.word("the field's name")?), true),
                "padding" => (None, false),
                other => {
                    return Err(at.error(format!(
                        "expected `field`, `field_high`, `padding` or `}}`, found `{other}`"
                    )));
                }
            };
            let width = self.number("a width in bits")?;
            if width == 0 || width > 1 << 16 {
                return Err(at.error(format!("a width of {width} bits")));
            }
            raw.push((at, name, width, high));
        }
        layout(at, name, base, &raw, order)
    }

    fn union(&mut self, base: Base, at: Position) -> Result<RawUnion, Error> {
        let name = self.word("the union's name")?;
        let tag_field = self.word("the tag field's name")?;
        self.expect('{')?;
        let mut tags: Vec<(Position, String, u64)> = Vec::new();
        while !self.accept('}') {
            let at = self.here();
            let keyword = self.word("`tag` or `}`")?;
            if keyword == "mask" {
                return Err(at.error("tags of several widths (`mask`) are not supported"));
            }
            if keyword != "tag" {
                return Err(at.error(format!("expected `tag` or `}}`, found `{keyword}`")));
            }
            let block = self.word("a block's name")?;
            let value = self.number("the tag's value")?;
            if tags.iter().any(|(_, b, v)| *b == block || *v == value) {
                return Err(at.error(format!("tag `{block}` or its value {value} is used twice")));
            }
            tags.push((at, block, value));
        }
        if tags.is_empty() {
            return Err(at.error(format!("tagged union `{name}` has no tags")));
        }
        Ok(RawUnion {
            at,
            name,
            tag_field,
            base,
            tags,
        })
    }
}

fn layout(
    at: Position,
    name: String,
    base: Base,
    raw: &[(Position, Option<String>, u64, bool)],
    order: Option<Vec<(Position, String)>>,
) -> Result<Block, Error> {
    let total: u64 = raw.iter().map(|r| r.2).sum();
    let word_bits = u64::from(base.word_bits);
    if total == 0 || !total.is_multiple_of(word_bits) {
        return Err(at.error(format!(
            "block `{name}` has {total} bits, which is no multiple of the base ({word_bits})"
        )));
    }
    let mut fields: Vec<Field> = Vec::new();
    let mut top = total;
    for (at, field, width, high) in raw {
        top -= width;
        let Some(field) = field else { continue };
        if top / word_bits != (top + width - 1) / word_bits {
            return Err(at.error(format!("field `{field}` crosses a word boundary")));
        }
        if *high && *width > u64::from(base.value_bits) {
            return Err(at.error(format!("field `{field}` is wider than the base's values")));
        }
        if fields.iter().any(|f| f.name == *field) {
            return Err(at.error(format!("field `{field}` is declared twice")));
        }
        fields.push(Field {
            name: field.clone(),
            word: (top / word_bits) as usize,
            shift: (top % word_bits) as u32,
            width: *width as u32,
            high: *high,
        });
    }
    let visible = match order {
        None => (0..fields.len()).collect(),
        Some(names) => visible_order(&at, &name, &fields, &names)?,
    };
    Ok(Block {
        name,
        base,
        words: (total / word_bits) as usize,
        fields,
        visible,
    })
}

fn visible_order(
    at: &Position,
    block: &str,
    fields: &[Field],
    names: &[(Position, String)],
) -> Result<Vec<usize>, Error> {
    let mut visible = Vec::new();
    for (at, name) in names {
        let index = fields
            .iter()
            .position(|f| f.name == *name)
            .ok_or_else(|| at.error(format!("block `{block}` has no field `{name}`")))?;
        if visible.contains(&index) {
            return Err(at.error(format!("field `{name}` is listed twice")));
        }
        visible.push(index);
    }
    if let Some(missing) = (0..fields.len()).find(|i| !visible.contains(i)) {
        return Err(at.error(format!(
            "the field order of block `{block}` leaves out `{}`",
            fields[missing].name
        )));
    }
    Ok(visible)
}

fn resolve(items: Items) -> Result<Description, Error> {
    let mut unions = Vec::new();
    let mut in_union = vec![false; items.blocks.len()];
    for raw in items.unions {
        let mut variants: Vec<Variant> = Vec::new();
        let mut shared: Option<(Field, usize)> = None;
        for (at, block_name, value) in raw.tags {
            let index = items
                .blocks
                .iter()
                .position(|b| b.name == block_name)
                .ok_or_else(|| at.error(format!("no block `{block_name}`")))?;
            let mut block = items.blocks[index].clone();
            // A union may stand after a new `base` line; that matters only
            // if the words or the values of its blocks change with it.
            let high = block.fields.iter().any(|f| f.high);
            if block.base.word_bits != raw.base.word_bits || high && block.base != raw.base {
                return Err(at.error(format!("block `{block_name}` has another base")));
            }
            block.base = raw.base;
            in_union[index] = true;
            let tag = block.field(&raw.tag_field).cloned().ok_or_else(|| {
                at.error(format!(
                    "block `{block_name}` has no tag field `{}`",
                    raw.tag_field
                ))
            })?;
            if tag.high || value > tag.mask() {
                return Err(at.error(format!("value {value} does not fit the tag field")));
            }
            match &shared {
                None => shared = Some((tag, block.words)),
                Some(first) if *first == (tag, block.words) => {}
                Some(_) => {
                    return Err(at.error(format!(
                        "block `{block_name}` differs in size or in its tag's place from the \
                         union's first block"
                    )));
                }
            }
            variants.push(Variant { tag: value, block });
        }
        let (tag, words) =
            shared.ok_or_else(|| raw.at.error(format!("union `{}` is empty", raw.name)))?;
        unions.push(Union {
            name: raw.name,
            tag,
            base: raw.base,
            words,
            variants,
        });
    }
    let mut free = in_union.iter().map(|used| !used);
    let blocks = items
        .blocks
        .into_iter()
        .filter(|_| free.next().unwrap_or(false))
        .collect();
    Ok(Description { blocks, unions })
}
