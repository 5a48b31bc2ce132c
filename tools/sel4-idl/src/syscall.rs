//! System call numbers: `syscall.xml` to the kernel's header and to Rust.
//!
//! Numbers count down from -1. The API's calls come first, in their order; those
//! under `<debug>` follow, each group only where its condition holds. Newer
//! descriptions list the API twice, `<api-master>` and `<api-mcs>`: the second is that
//! of a kernel with scheduling contexts (`CONFIG_KERNEL_MCS`).

use std::fmt::Write;

use crate::condition::Condition;
use crate::names::constant;
use crate::xml::Xml;
use crate::{Error, Options};

/// System calls that exist under one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The condition.
    pub condition: Condition,
    /// The calls' names in order.
    pub calls: Vec<String>,
}

/// All system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Syscalls {
    /// The calls that every kernel has which has no scheduling contexts.
    pub api: Vec<String>,
    /// The calls of a kernel with scheduling contexts; empty in a description
    /// that is older than these.
    pub mcs: Vec<String>,
    /// Calls of debug and special builds.
    pub optional: Vec<Group>,
}

impl Syscalls {
    /// Returns the API's calls of a kernel with these options.
    pub fn of(&self, options: &Options) -> &[String] {
        if options.contains_key("CONFIG_KERNEL_MCS") {
            &self.mcs
        } else {
            &self.api
        }
    }
}

/// Parses `text`, the content of `file`.
///
/// # Errors
/// If the XML or its structure is wrong, with file and line.
pub fn parse(file: &str, text: &str) -> Result<Syscalls, Error> {
    let xml = Xml::parse(file, text)?;
    let mut result = Syscalls::default();
    for section in xml.root().children().filter(|n| n.is_element()) {
        xml.only(section, &[])?;
        let list = match section.tag_name().name() {
            "api" | "api-master" => Some(&mut result.api),
            "api-mcs" => Some(&mut result.mcs),
            "debug" => None,
            _ => return Err(xml.unexpected(section)),
        };
        let mut groups = Vec::new();
        for config in section.children().filter(|n| n.is_element()) {
            if !config.has_tag_name("config") {
                return Err(xml.unexpected(config));
            }
            xml.only(config, &["condition"])?;
            let condition = xml.condition(config)?;
            let mut calls = Vec::new();
            for call in config.children().filter(|n| n.is_element()) {
                match call.attribute("name") {
                    _ if call.has_tag_name("condition") => {}
                    Some(name) if call.has_tag_name("syscall") => calls.push(name.to_string()),
                    _ => return Err(xml.error(call, "expected `<syscall name=...>`")),
                }
            }
            if list.is_some() && condition != Condition::ALWAYS {
                return Err(xml.error(config, "a condition on the API's system calls"));
            }
            groups.push(Group { condition, calls });
        }
        match list {
            None => result.optional.extend(groups),
            Some(list) if list.is_empty() => {
                list.extend(groups.into_iter().flat_map(|group| group.calls));
            }
            Some(_) => return Err(xml.error(section, "the same list of calls again")),
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

/// Writes Rust constants for the API's calls of a kernel with these options. Calls of
/// debug builds have none: nothing of ours may use them.
pub fn emit_rust(syscalls: &Syscalls, options: &Options) -> String {
    let mut out = String::new();
    for (index, call) in syscalls.of(options).iter().enumerate() {
        let _ = writeln!(
            out,
            "/// System call number of `{call}`.\npub const SYS_{}: i64 = -{};",
            constant(call),
            index + 1
        );
    }
    out
}
