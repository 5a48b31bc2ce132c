//! Rust back end for bit fields: one struct per type with `const` accessors.
//!
//! A block `X` becomes `struct X { words }` with `new`, `f()` and `set_f()`;
//! a union `U` with a variant `v` has `TAG_V`, `v_new`, `v_f()`, `set_v_f()`.
//! A value that does not fit its field is a `debug_assert` failure, and is cut
//! to the field's bits in release builds.

use std::fmt::Write;

use crate::bitfield::{Base, Block, Description, Field, Union};
use crate::names::{camel, constant, snake};

/// Writes Rust items for `description`.
pub fn emit(description: &Description) -> String {
    let mut out = String::new();
    for block in &description.blocks {
        open(&mut out, &block.name, block.base, block.words);
        members(&mut out, block, "", None);
        out.push_str("}\n\n");
    }
    for union in &description.unions {
        emit_union(&mut out, union);
    }
    out
}

fn word_type(base: Base) -> String {
    format!("u{}", base.word_bits)
}

fn open(out: &mut String, name: &str, base: Base, words: usize) {
    let _ = write!(
        out,
        "/// `{name}` of the kernel's interface.\n\
         #[repr(C)]\n#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]\n\
         pub struct {ty} {{\n    /// The packed words, lowest first.\n    pub words: [{word}; {words}],\n}}\n\n\
         impl {ty} {{\n",
        ty = camel(name),
        word = word_type(base)
    );
}

fn shifted(expression: String, operator: &str, by: u32) -> String {
    if by == 0 {
        expression
    } else {
        format!("({expression} {operator} {by})")
    }
}

fn masked(expression: String, field: &Field, base: Base) -> String {
    if field.width == base.word_bits {
        expression
    } else {
        format!("({expression} & {:#x})", field.mask())
    }
}

/// Returns the value of `field`, sign-extended from its stored bits in `value`.
fn extended(value: String, field: &Field, base: Base) -> String {
    match field.sign_bit(base) {
        Some(bit) => {
            let s = format!("{:#x}", 1u64 << bit);
            format!("({value} ^ {s}).wrapping_sub({s})")
        }
        None => value,
    }
}

fn read(field: &Field, base: Base) -> String {
    let raw = shifted(format!("self.words[{}]", field.word), ">>", field.shift);
    let value = shifted(masked(raw, field, base), "<<", field.value_shift(base));
    strip(extended(value, field, base))
}

/// Returns the expression of `value` as stored, at its place in the word.
fn stored(value: &str, field: &Field, base: Base) -> String {
    let raw = shifted(value.to_string(), ">>", field.value_shift(base));
    shifted(masked(raw, field, base), "<<", field.shift)
}

fn check(value: &str, field: &Field, base: Base) -> Option<String> {
    if field.width == base.word_bits {
        return None;
    }
    let kept = format!("({value} & {:#x})", field.mask() << field.value_shift(base));
    let kept = strip(extended(kept, field, base));
    Some(format!("        debug_assert!({kept} == {value});\n"))
}

/// Drops one pair of parentheses around a whole expression.
fn strip(text: String) -> String {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth == 0 && i + 1 < text.len() {
            return text;
        }
    }
    match text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        Some(inner) => inner.to_string(),
        None => text,
    }
}

/// Writes constructor and accessors; `prefix` goes before names, `tag` is not a
/// parameter but set to its value.
fn members(out: &mut String, block: &Block, prefix: &str, tag: Option<(&Field, u64)>) {
    let word = word_type(block.base);
    let is_tag = |f: &Field| tag.is_some_and(|(t, _)| t.name == f.name);
    let arguments: Vec<&Field> = block.visible_fields().filter(|f| !is_tag(f)).collect();
    if arguments.len() > 7 {
        out.push_str(
            "    #[expect(clippy::too_many_arguments, reason = \"one per field of the description\")]\n",
        );
    }
    let list: Vec<String> = arguments
        .iter()
        .map(|f| format!("{}: {word}", snake(&f.name)))
        .collect();
    let _ = writeln!(
        out,
        "    /// A `{}` with these fields; all other bits are zero.\n    pub const fn {prefix}new({}) -> Self {{",
        block.name,
        list.join(", ")
    );
    for field in &arguments {
        out.push_str(&check(&snake(&field.name), field, block.base).unwrap_or_default());
    }
    let words: Vec<String> = (0..block.words)
        .map(|index| {
            let mut terms: Vec<String> = arguments
                .iter()
                .filter(|f| f.word == index)
                .map(|f| stored(&snake(&f.name), f, block.base))
                .collect();
            if let Some((field, value)) = tag.filter(|(f, v)| f.word == index && *v != 0) {
                terms.push(format!("{:#x}", value << field.shift));
            }
            match terms.len() {
                0 => "0".to_string(),
                1 => strip(terms.remove(0)),
                _ => terms.join(" | "),
            }
        })
        .collect();
    let _ = writeln!(
        out,
        "        Self {{ words: [{}] }}\n    }}\n",
        words.join(", ")
    );
    for field in block.fields.iter().filter(|f| !is_tag(f)) {
        let name = snake(&field.name);
        let _ = writeln!(
            out,
            "    /// `{}` of `{}`, {} bits.\n    pub const fn {prefix}{name}(&self) -> {word} {{\n        {}\n    }}\n",
            field.name,
            block.name,
            field.width,
            read(field, block.base)
        );
        let keep = !(field.mask() << field.shift) & (u64::MAX >> (64 - block.base.word_bits));
        let value = stored("value", field, block.base);
        let assigned = if keep == 0 {
            strip(value)
        } else {
            format!("(self.words[{}] & {keep:#x}) | {value}", field.word)
        };
        let _ = writeln!(
            out,
            "    /// Sets `{}` of `{}`, {} bits.\n    pub const fn set_{prefix}{name}(&mut self, value: {word}) {{\n{}        self.words[{}] = {assigned};\n    }}\n",
            field.name,
            block.name,
            field.width,
            check("value", field, block.base).unwrap_or_default(),
            field.word,
        );
    }
}

fn emit_union(out: &mut String, union: &Union) {
    let word = word_type(union.base);
    open(out, &union.name, union.base, union.words);
    for variant in &union.variants {
        let _ = writeln!(
            out,
            "    /// The tag of `{}`.\n    pub const TAG_{}: {word} = {};",
            variant.block.name,
            constant(&variant.block.name),
            variant.tag
        );
    }
    let _ = writeln!(
        out,
        "\n    /// The tag, one of the `TAG_` constants.\n    pub const fn {}(&self) -> {word} {{\n        {}\n    }}\n",
        snake(&union.tag.name),
        read(&union.tag, union.base)
    );
    for variant in &union.variants {
        let prefix = format!("{}_", snake(&variant.block.name));
        members(
            out,
            &variant.block,
            &prefix,
            Some((&union.tag, variant.tag)),
        );
    }
    out.push_str("}\n\n");
}
