//! C back end for bit fields: the types and accessors that the kernel's sources call.
//!
//! Names and signatures are the kernel's: `X_t`, `X_new`, `X_ptr_new`,
//! `X_get_f`, `X_set_f`, `X_ptr_get_f`, `X_ptr_set_f`; for a union `U` with a
//! variant `V` the same with `U_V`, and `U_get_tag`, `U_ptr_get_tag`,
//! `U_tag_equals`, `enum U_tag`.

use std::fmt::Write;

use crate::bitfield::{Base, Block, Description, Field, Union};

/// Writes the header for `description`; `guard` is its include guard.
pub fn emit(description: &Description, guard: &str) -> String {
    let mut out = String::new();
    line(&mut out, &format!("#ifndef {guard}\n#define {guard}\n"));
    line(
        &mut out,
        "#include <assert.h>\n#include <config.h>\n#include <stdint.h>",
    );
    line(&mut out, "#include <util.h>\n");
    for block in &description.blocks {
        typedef(&mut out, &block.name, block.base, block.words);
        let target = Target {
            ty: &block.name,
            prefix: &block.name,
            guard: None,
        };
        accessors(&mut out, &target, block, None);
    }
    for union in &description.unions {
        emit_union(&mut out, union);
    }
    line(&mut out, "#endif");
    out
}

/// Subject of an accessor.
struct Target<'a> {
    /// The struct, without `_t`.
    ty: &'a str,
    /// Prefix of function names.
    prefix: &'a str,
    /// For a union's variant: the tag field and the enum constant to assert.
    guard: Option<(&'a Field, &'a str)>,
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn word_type(base: Base) -> String {
    format!("uint{}_t", base.word_bits)
}

fn hex(value: u64) -> String {
    format!("{value:#x}ull")
}

fn typedef(out: &mut String, name: &str, base: Base, words: usize) {
    let ty = word_type(base);
    line(
        out,
        &format!(
            "struct {name} {{\n    {ty} words[{words}];\n}};\ntypedef struct {name} {name}_t;\n"
        ),
    );
}

/// Returns the expression that reads `field` from `words` (an lvalue of array
/// type).
fn read(words: &str, field: &Field, base: Base) -> String {
    let raw = format!(
        "(({words}[{}] >> {}) & {})",
        field.word,
        field.shift,
        hex(field.mask())
    );
    let value = match field.value_shift(base) {
        0 => raw,
        shift => format!("({raw} << {shift})"),
    };
    match field.sign_bit(base) {
        // Flip and subtract the sign bit: extends it without a branch.
        Some(bit) => format!("(({value} ^ {s}) - {s})", s = hex(1 << bit)),
        None => value,
    }
}

/// Returns the expression of `value` as it is stored, at its place in the word.
fn stored(value: &str, field: &Field, base: Base) -> String {
    format!(
        "((({ty})({value} >> {vs}) & {mask}) << {shift})",
        ty = word_type(base),
        vs = field.value_shift(base),
        mask = hex(field.mask()),
        shift = field.shift
    )
}

/// Returns the statement that fails if `value` would change by being stored and
/// read.
fn check(value: &str, field: &Field, base: Base) -> String {
    let kept = hex(field.mask() << field.value_shift(base));
    let kept = match field.sign_bit(base) {
        Some(bit) => format!("((({value} & {kept}) ^ {s}) - {s})", s = hex(1 << bit)),
        None => format!("({value} & {kept})"),
    };
    format!("    assert(({ty}){kept} == {value});", ty = word_type(base))
}

fn accessors(out: &mut String, target: &Target<'_>, block: &Block, tag: Option<(&Field, &str)>) {
    let Target { ty, prefix, guard } = target;
    let word = word_type(block.base);
    let is_tag = |f: &Field| tag.is_some_and(|(t, _)| t.name == f.name);
    let arguments: Vec<String> = block
        .visible_fields()
        .filter(|f| !is_tag(f))
        .map(|f| format!("{word} {}", f.name))
        .collect();
    let by_value = if arguments.is_empty() {
        "void".to_string()
    } else {
        arguments.join(", ")
    };
    let mut pointer = vec![format!("{ty}_t *self")];
    pointer.extend(arguments);

    let mut body = String::new();
    for field in block.visible_fields().filter(|f| !is_tag(f)) {
        line(&mut body, &check(&field.name, field, block.base));
    }
    for index in 0..block.words {
        let mut terms: Vec<String> = block
            .visible_fields()
            .filter(|f| f.word == index && !is_tag(f))
            .map(|f| stored(&f.name, f, block.base))
            .collect();
        if let Some((field, constant)) = tag.filter(|(f, _)| f.word == index) {
            terms.push(stored(&format!("({word}){constant}"), field, block.base));
        }
        let value = if terms.is_empty() {
            "0".to_string()
        } else {
            terms.join(" | ")
        };
        line(&mut body, &format!("    self->words[{index}] = {value};"));
    }
    let pointer = pointer.join(", ");
    line(
        out,
        &format!("static inline void\n{prefix}_ptr_new({pointer})\n{{\n{body}}}\n"),
    );
    let names: Vec<&str> = block
        .visible_fields()
        .filter(|f| !is_tag(f))
        .map(|f| f.name.as_str())
        .collect();
    let mut passed = vec!["&self"];
    passed.extend(names);
    line(
        out,
        &format!(
            "static inline {ty}_t CONST\n{prefix}_new({by_value})\n{{\n    {ty}_t self;\n    \
             {prefix}_ptr_new({});\n    return self;\n}}\n",
            passed.join(", ")
        ),
    );

    for field in block.fields.iter().filter(|f| !is_tag(f)) {
        let name = &field.name;
        let tag_check = |words: &str| match guard {
            Some((tag, constant)) => {
                format!(
                    "    assert({} == {constant});\n",
                    read(words, tag, block.base)
                )
            }
            None => String::new(),
        };
        let keep = hex(!(field.mask() << field.shift));
        let assign = |words: &str| {
            format!(
                "{}\n    {words}[{i}] = ({word})({words}[{i}] & {keep}) | {};",
                check("v", field, block.base),
                stored("v", field, block.base),
                i = field.word
            )
        };
        line(
            out,
            &format!(
                "static inline {word} CONST\n{prefix}_get_{name}({ty}_t self)\n{{\n{}    return {};\n}}\n",
                tag_check("self.words"),
                read("self.words", field, block.base)
            ),
        );
        line(
            out,
            &format!(
                "static inline {word} PURE\n{prefix}_ptr_get_{name}({ty}_t *self)\n{{\n{}    return {};\n}}\n",
                tag_check("self->words"),
                read("self->words", field, block.base)
            ),
        );
        line(
            out,
            &format!(
                "static inline {ty}_t CONST\n{prefix}_set_{name}({ty}_t self, {word} v)\n{{\n{}{}\n    return self;\n}}\n",
                tag_check("self.words"),
                assign("self.words")
            ),
        );
        line(
            out,
            &format!(
                "static inline void\n{prefix}_ptr_set_{name}({ty}_t *self, {word} v)\n{{\n{}{}\n}}\n",
                tag_check("self->words"),
                assign("self->words")
            ),
        );
    }
}

fn emit_union(out: &mut String, union: &Union) {
    let name = &union.name;
    let tag = &union.tag.name;
    let word = word_type(union.base);
    typedef(out, name, union.base, union.words);
    line(out, &format!("enum {name}_tag {{"));
    for (i, variant) in union.variants.iter().enumerate() {
        let comma = if i + 1 < union.variants.len() {
            ","
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "    {name}_{} = {}{comma}",
            variant.block.name, variant.tag
        );
    }
    line(
        out,
        &format!("}};\ntypedef enum {name}_tag {name}_tag_t;\n"),
    );
    let by_value = read("self.words", &union.tag, union.base);
    let by_pointer = read("self->words", &union.tag, union.base);
    line(
        out,
        &format!(
            "static inline {word} CONST\n{name}_get_{tag}({name}_t self)\n{{\n    return {by_value};\n}}\n\n\
             static inline {word} PURE\n{name}_ptr_get_{tag}({name}_t *self)\n{{\n    return {by_pointer};\n}}\n\n\
             static inline int CONST\n{name}_{tag}_equals({name}_t self, {word} tag)\n{{\n    return {by_value} == tag;\n}}\n"
        ),
    );
    for variant in &union.variants {
        let prefix = format!("{name}_{}", variant.block.name);
        let target = Target {
            ty: name,
            prefix: &prefix,
            guard: Some((&union.tag, &prefix)),
        };
        accessors(out, &target, &variant.block, Some((&union.tag, &prefix)));
    }
}
