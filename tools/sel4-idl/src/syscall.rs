//! System call numbers: `syscall.xml` to the kernel's header and to Rust.
//!
//! Numbers count down from -1. The calls under `<api>` come first, in their
//! order; those under `<debug>` follow, each group only where its condition
//! holds.

use std::fmt::Write;

use crate::names::constant;
use crate::{Error, Options, condition};

/// System calls that exist under one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The C condition; empty for always.
    pub condition: String,
    /// The calls' names in order.
    pub calls: Vec<String>,
}

/// All system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Syscalls {
    /// The calls that every kernel has.
    pub api: Vec<String>,
    /// Calls of debug and special builds.
    pub optional: Vec<Group>,
}

/// Parses `text`, the content of `file`.
///
/// # Errors
/// If the XML or its structure is wrong, with file and line.
pub fn parse(file: &str, text: &str) -> Result<Syscalls, Error> {
    let document = roxmltree::Document::parse(text)
        .map_err(|e| Error::new(file, e.pos().row, e.to_string()))?;
    let at = |node: roxmltree::Node<'_, '_>, message: String| {
        Error::new(file, document.text_pos_at(node.range().start).row, message)
    };
    let mut result = Syscalls::default();
    for section in document
        .root_element()
        .children()
        .filter(|n| n.is_element())
    {
        let optional = match section.tag_name().name() {
            "api" => false,
            "debug" => true,
            other => return Err(at(section, format!("unexpected element `{other}`"))),
        };
        for config in section.children().filter(|n| n.is_element()) {
            let condition = config.attribute("condition").unwrap_or("").to_string();
            if !optional && !condition.is_empty() {
                return Err(at(config, "a condition on the API's system calls".into()));
            }
            let mut calls = Vec::new();
            for call in config.children().filter(|n| n.is_element()) {
                match call.attribute("name") {
                    Some(name) if call.has_tag_name("syscall") => calls.push(name.to_string()),
                    _ => return Err(at(call, "expected `<syscall name=...>`".into())),
                }
            }
            if optional {
                result.optional.push(Group { condition, calls });
            } else {
                result.api.extend(calls);
            }
        }
    }
    if result.api.is_empty() {
        return Err(Error::new(file, 0, "no system calls"));
    }
    Ok(result)
}

/// Writes the kernel's `arch/api/syscall.h`.
pub fn emit_c(syscalls: &Syscalls) -> String {
    let mut out = String::from("#ifndef ARCH_API_SYSCALL_H\n#define ARCH_API_SYSCALL_H\n\n");
    let _ = writeln!(
        out,
        "#define SYSCALL_MAX (-1)\n#define SYSCALL_MIN (-{})\n",
        syscalls.api.len()
    );
    out.push_str("enum syscall {\n");
    for (i, call) in syscalls.api.iter().enumerate() {
        let _ = writeln!(out, "    Sys{call} = -{},", i + 1);
    }
    let mut number = syscalls.api.len();
    for group in &syscalls.optional {
        let _ = writeln!(out, "#if {}", group.condition);
        for call in &group.calls {
            number += 1;
            let _ = writeln!(out, "    Sys{call} = -{number},");
        }
        out.push_str("#endif\n");
    }
    out.push_str("};\ntypedef word_t syscall_t;\n\n#ifdef CONFIG_DEBUG_BUILD\n");
    out.push_str("static char *syscall_names[] UNUSED = {\n");
    for (i, call) in syscalls.api.iter().enumerate() {
        let _ = writeln!(out, "    [{}] = \"{call}\",", i + 1);
    }
    out.push_str("};\n#endif\n\n#endif\n");
    out
}

/// Writes Rust constants for the calls that exist under `options`.
///
/// # Errors
/// A message if a condition is not understood.
pub fn emit_rust(syscalls: &Syscalls, options: &Options) -> Result<String, String> {
    let mut out = String::new();
    let mut number = 0i64;
    let mut item = |out: &mut String, call: &str, exists: bool| {
        number -= 1;
        if exists {
            let _ = writeln!(
                out,
                "/// System call number of `{call}`.\npub const SYS_{}: i64 = {number};",
                constant(call)
            );
        }
    };
    for call in &syscalls.api {
        item(&mut out, call, true);
    }
    for group in &syscalls.optional {
        let exists = condition::holds(&group.condition, options)?;
        for call in &group.calls {
            item(&mut out, call, exists);
        }
    }
    Ok(out)
}
