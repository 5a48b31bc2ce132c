//! The test program for the Rust back end.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use sel4_idl::bitfield::Description;
use sel4_idl::bitfield_rust;
use sel4_idl::names::{camel, constant, snake};

use crate::model::Type;

const PRELUDE: &str = r#"
use std::sync::atomic::{AtomicUsize, Ordering};
static CHECKS: AtomicUsize = AtomicUsize::new(0);
#[track_caller]
fn check<T: PartialEq + std::fmt::Debug>(a: T, b: T) {
    CHECKS.fetch_add(1, Ordering::Relaxed);
    assert_eq!(a, b);
}
#[track_caller]
fn refused(f: impl FnOnce() + std::panic::UnwindSafe) {
    check(std::panic::catch_unwind(f).is_err(), true);
}
"#;

fn words(words: &[u64]) -> String {
    let list: Vec<String> = words.iter().map(|w| format!("{w:#x}")).collect();
    format!("[{}]", list.join(", "))
}

fn exercise(out: &mut String, t: &Type, index: usize) {
    let ty = camel(t.union.as_ref().map_or(&t.block, |u| &u.0));
    let p = if t.union.is_some() {
        format!("{}_", snake(&t.block))
    } else {
        String::new()
    };
    let own = t.own_fields();
    writeln!(out, "fn test{index}() {{").unwrap();
    for round in 0..5 {
        let mut expected = t.background(false);
        let mut arguments = Vec::new();
        for &f in &own {
            let stored = t.patterns(f)[(f + round) % 5];
            expected = t.store(&expected, f, stored);
            arguments.push(format!("{:#x}", t.value(f, stored)));
        }
        let list = arguments.join(", ");
        writeln!(
            out,
            "check({ty}::{p}new({list}).words, {});",
            words(&expected)
        )
        .unwrap();
    }
    for &f in &own {
        let name = snake(&t.fields[f].0);
        for ones in [false, true] {
            let start = words(&t.background(ones));
            for stored in t.patterns(f) {
                let value = t.value(f, stored);
                let expected = words(&t.store(&t.background(ones), f, stored));
                write!(out, "{{ let mut x = {ty} {{ words: {start} }}; ").unwrap();
                write!(
                    out,
                    "x.set_{p}{name}({value:#x}); check(x.words, {expected}); "
                )
                .unwrap();
                writeln!(out, "check(x.{p}{name}(), {value:#x}); }}").unwrap();
            }
            if let Some(value) = t.unfit(f) {
                writeln!(
                    out,
                    "refused(|| {ty} {{ words: {start} }}.set_{p}{name}({value:#x}));"
                )
                .unwrap();
            }
        }
    }
    if let Some((_, field, _)) = &t.union {
        let tag = snake(&t.fields[*field].0);
        for ones in [false, true] {
            let start = words(&t.background(ones));
            let name = constant(&t.block);
            writeln!(
                out,
                "check({ty} {{ words: {start} }}.{tag}(), {ty}::TAG_{name});"
            )
            .unwrap();
        }
    }
    writeln!(out, "}}").unwrap();
}

/// Writes and compiles the program.
pub fn compile(description: &Description, types: &[Type], folder: &Path) -> PathBuf {
    let mut program = String::from(PRELUDE);
    program.push_str(&bitfield_rust::emit(description));
    for (index, t) in types.iter().enumerate() {
        exercise(&mut program, t, index);
    }
    program.push_str("fn main() {\nstd::panic::set_hook(Box::new(|i| if !i.to_string().contains(\"assertion failed\") { eprintln!(\"{i}\") }));\n");
    (0..types.len()).for_each(|i| writeln!(program, "test{i}();").unwrap());
    program.push_str("println!(\"{}\", CHECKS.load(Ordering::Relaxed));\n}\n");
    std::fs::write(folder.join("test.rs"), program).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc
        .current_dir(folder)
        .args(["--edition=2024", "-Adead_code", "-Cdebug-assertions=yes"]);
    crate::run(rustc.args(["-Cdebuginfo=0", "-o", "test", "test.rs"]));
    folder.join("test")
}
