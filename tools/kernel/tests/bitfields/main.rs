//! Checks both bit field back ends against the kernel's descriptions.
//!
//! `model` evaluates a description a second time, bit by bit and sharing no
//! code with the generator. From it, `c` and `rust` write a program for each
//! back end that exercises every accessor of every type; the programs are
//! compiled with gcc and rustc and run here.

mod c;
mod model;
mod rust;

use std::path::{Path, PathBuf};
use std::process::Command;

use kernel::{Config, Profile};
use sel4_idl::{cpp, parser};
use spec::CpuKind;

/// The kernel's descriptions, and those it shares with user level.
const DESCRIPTIONS: [&str; 6] = [
    "include/64/mode/api/shared_types.bf",
    "include/arch/x86/arch/object/structures.bf",
    "include/plat/pc99/plat/64/plat_mode/machine/hardware.bf",
    "libsel4/include/sel4/shared_types_64.bf",
    "libsel4/include/sel4/types_64.bf",
    "libsel4/sel4_arch_include/x86_64/sel4/sel4_arch/types.bf",
];

const INCLUDES: [&str; 6] = [
    "include",
    "include/arch/x86",
    "include/arch/x86/arch/64",
    "libsel4/include",
    "libsel4/arch_include/x86",
    "libsel4/sel4_arch_include/x86_64",
];

/// Returns the preprocessed text of each description.
fn descriptions(scratch: &Path) -> Vec<(&'static str, String)> {
    let source = kernel::locate().unwrap_or_else(|e| panic!("{e}"));
    let config = Config::x86_64_pc99(Profile::Debug, CpuKind::HugePages);
    std::fs::write(scratch.join("autoconf.h"), "").unwrap();
    let mut includes = vec![scratch.to_path_buf()];
    includes.extend(INCLUDES.iter().map(|dir| source.root.join(dir)));
    let includes: Vec<&Path> = includes.iter().map(PathBuf::as_path).collect();
    let read = |&file: &&'static str| {
        let text = cpp::preprocess(&source.root.join(file), &includes, &config.options)
            .unwrap_or_else(|e| panic!("{e}"));
        (file, text)
    };
    DESCRIPTIONS.iter().map(read).collect()
}

/// Runs a command; fails with its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}\n{out}{}",
        &err[..err.len().min(4000)]
    );
    out.into_owned()
}

/// Compiles and runs the program for each description; `compile` gets the
/// description, its model and a folder, and returns the program. Every program
/// prints how many checks it made.
fn check(compile: impl Fn(&sel4_idl::bitfield::Description, &[model::Type], &Path) -> PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    for (file, text) in descriptions(scratch.path()) {
        let description = parser::parse(file, &text).unwrap_or_else(|e| panic!("{e}"));
        let types = model::parse(&text);
        assert!(!types.is_empty(), "{file}: the model found no types");
        let expected: usize = description.blocks.len()
            + description
                .unions
                .iter()
                .map(|u| u.variants.len())
                .sum::<usize>();
        assert_eq!(types.len(), expected, "{file}: parser and model differ");
        let folder = scratch.path().join(file.replace('/', "_"));
        std::fs::create_dir(&folder).unwrap();
        let program = compile(&description, &types, &folder);
        let checks: usize = run(&mut Command::new(program)).trim().parse().unwrap();
        let fields: usize = types.iter().map(|t| t.own_fields().len()).sum();
        assert!(
            checks >= 20 * fields,
            "{file}: only {checks} checks of {fields} fields"
        );
    }
}

#[test]
fn c_accessors_agree_with_the_descriptions() {
    check(c::compile);
}

#[test]
fn rust_accessors_agree_with_the_descriptions() {
    check(rust::compile);
}
