//! The test program for the C back end.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use sel4_idl::bitfield::Description;
use sel4_idl::bitfield_c;

use crate::model::Type;

const PRELUDE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
unsigned long asserts;
static unsigned long checks;
#define CHECK(e) do { checks++; if (!(e) || asserts) { \
    fprintf(stderr, "line %d: %s (%lu asserts)\n", __LINE__, #e, asserts); exit(1); } } while (0)
#define REFUSED(e) do { checks++; asserts = 0; (void)(e); if (!asserts) { \
    fprintf(stderr, "line %d: not refused: %s\n", __LINE__, #e); exit(1); } asserts = 0; } while (0)
"#;

fn same(object: &str, words: &[u64]) -> String {
    let each = words.iter().enumerate();
    each.map(|(i, w)| format!("CHECK({object}.words[{i}] == {w:#x}ull);"))
        .collect()
}

fn words(words: &[u64]) -> String {
    let list: Vec<String> = words.iter().map(|w| format!("{w:#x}ull")).collect();
    format!("{{{{{}}}}}", list.join(", "))
}

fn exercise(out: &mut String, t: &Type, index: usize, others: &[&Type]) {
    let ty = t.union.as_ref().map_or(&t.block, |u| &u.0);
    let p = t
        .union
        .as_ref()
        .map_or(t.block.clone(), |u| format!("{}_{}", u.0, t.block));
    let own = t.own_fields();
    writeln!(out, "static void test{index}(void) {{").unwrap();
    for round in 0..5 {
        let mut expected = t.background(false);
        let mut arguments = Vec::new();
        for &f in &own {
            let stored = t.patterns(f)[(f + round) % 5];
            expected = t.store(&expected, f, stored);
            arguments.push(format!("{:#x}ull", t.value(f, stored)));
        }
        let list = arguments.join(", ");
        let comma = if list.is_empty() { "" } else { ", " };
        let dirt = words(&vec![u64::MAX >> (64 - t.word_bits); expected.len()]);
        writeln!(
            out,
            "{{ {ty}_t x = {p}_new({list}); {}",
            same("x", &expected)
        )
        .unwrap();
        writeln!(
            out,
            "{ty}_t y = {dirt}; {p}_ptr_new(&y{comma}{list}); {} }}",
            same("y", &expected)
        )
        .unwrap();
    }
    for &f in &own {
        let name = &t.fields[f].0;
        for ones in [false, true] {
            let start = words(&t.background(ones));
            for stored in t.patterns(f) {
                let value = format!("{:#x}ull", t.value(f, stored));
                let expected = t.store(&t.background(ones), f, stored);
                write!(
                    out,
                    "{{ {ty}_t x = {start}, y = x; x = {p}_set_{name}(x, {value});"
                )
                .unwrap();
                write!(out, "{p}_ptr_set_{name}(&y, {value});").unwrap();
                write!(out, "{}{}", same("x", &expected), same("y", &expected)).unwrap();
                write!(out, "CHECK({p}_get_{name}(x) == {value});").unwrap();
                writeln!(out, "CHECK({p}_ptr_get_{name}(&x) == {value}); }}").unwrap();
            }
            if let Some(value) = t.unfit(f) {
                write!(
                    out,
                    "{{ {ty}_t x = {start}; REFUSED(({p}_set_{name}(x, {value:#x}ull), 0));"
                )
                .unwrap();
                writeln!(
                    out,
                    "REFUSED(({p}_ptr_set_{name}(&x, {value:#x}ull), 0)); }}"
                )
                .unwrap();
            }
        }
        for other in others {
            let start = words(&other.background(false));
            writeln!(out, "{{ {ty}_t x = {start}; REFUSED({p}_get_{name}(x)); REFUSED({p}_ptr_get_{name}(&x)); }}").unwrap();
        }
    }
    if let Some((union, field, value)) = &t.union {
        let tag = &t.fields[*field].0;
        for ones in [false, true] {
            let start = words(&t.background(ones));
            write!(
                out,
                "{{ {ty}_t x = {start}; CHECK({union}_get_{tag}(x) == {value});"
            )
            .unwrap();
            write!(out, "CHECK({union}_ptr_get_{tag}(&x) == {p});").unwrap();
            write!(out, "CHECK({union}_{tag}_equals(x, {p}));").unwrap();
            for other in others {
                let wrong = other.union.as_ref().unwrap().2;
                write!(out, "CHECK(!{union}_{tag}_equals(x, {wrong}));").unwrap();
            }
            writeln!(out, "}}").unwrap();
        }
    }
    writeln!(out, "}}").unwrap();
}

/// Writes and compiles the program.
pub fn compile(description: &Description, types: &[Type], folder: &Path) -> PathBuf {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    // Stand-ins for the kernel's headers that the generated one includes.
    write(
        "assert.h",
        "extern unsigned long asserts;\n#define assert(e) do { if (!(e)) asserts++; } while (0)\n",
    );
    write("config.h", "");
    // Not `const` and `pure` as in the kernel: here accessors count refusals.
    write("util.h", "#define CONST\n#define PURE\n");
    write("generated.h", &bitfield_c::emit(description, "GENERATED_H"));
    let mut program = String::from(PRELUDE);
    program.push_str("#include \"generated.h\"\n");
    for (index, t) in types.iter().enumerate() {
        let others: Vec<&Type> = types
            .iter()
            .filter(
                |o| matches!((&o.union, &t.union), (Some(a), Some(b)) if a.0 == b.0 && a.2 != b.2),
            )
            .collect();
        exercise(&mut program, t, index, &others);
    }
    program.push_str("int main(void) {\n");
    (0..types.len()).for_each(|i| writeln!(program, "test{i}();").unwrap());
    program.push_str("printf(\"%lu\\n\", checks); return 0; }\n");
    write("test.c", &program);
    let mut gcc = Command::new("gcc");
    gcc.current_dir(folder).args([
        "-std=c99",
        "-O0",
        "-Wall",
        "-Werror",
        "-Wno-unused-function",
    ]);
    crate::run(gcc.args(["-I", ".", "-o", "test", "test.c"]));
    folder.join("test")
}
