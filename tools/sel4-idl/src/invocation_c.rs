//! C back end for invocations: the enums of labels that the kernel includes.
//!
//! The three files number on: the generic labels from 1, then those of the
//! architecture's variant (x86_64), then those of the architecture (x86).

use std::fmt::Write;

use crate::condition::Condition;
use crate::invocation::Api;

/// Returns `api/invocation.h`: the labels of every architecture.
pub fn emit_generic(api: &Api) -> String {
    header(
        "API_INVOCATION_H",
        "",
        "invocation_label",
        Some("InvalidInvocation"),
        None,
        api,
        "nInvocationLabels",
    )
}

/// Returns `arch/api/sel4_invocation.h`: the labels of x86_64 alone.
pub fn emit_sel4_arch(api: &Api) -> String {
    header(
        "ARCH_API_SEL4_INVOCATION_H",
        "#include <api/invocation.h>\n",
        "sel4_arch_invocation_label",
        None,
        Some("nInvocationLabels"),
        api,
        "nSeL4ArchInvocationLabels",
    )
}

/// Returns `arch/api/invocation.h`: the labels of both x86 architectures.
pub fn emit_arch(api: &Api) -> String {
    header(
        "ARCH_API_INVOCATION_H",
        "#include <arch/api/sel4_invocation.h>\n",
        "arch_invocation_label",
        None,
        Some("nSeL4ArchInvocationLabels"),
        api,
        "nArchInvocationLabels",
    )
}

fn header(
    guard: &str,
    include: &str,
    name: &str,
    zero: Option<&str>,
    start: Option<&str>,
    api: &Api,
    end: &str,
) -> String {
    let mut out = format!("#ifndef {guard}\n#define {guard}\n\n{include}\nenum {name} {{\n");
    // The count of the labels before these; one more than the last of them.
    let mut start = start;
    if let Some(zero) = zero {
        let _ = writeln!(out, "    {zero} = 0,");
    }
    for method in &api.methods {
        if method.condition != Condition::ALWAYS {
            let _ = writeln!(out, "#if {}", method.condition);
        }
        match start.take() {
            Some(start) => {
                let _ = writeln!(out, "    {} = {start},", method.label);
            }
            None => {
                let _ = writeln!(out, "    {},", method.label);
            }
        }
        if method.condition != Condition::ALWAYS {
            out.push_str("#endif\n");
        }
    }
    match start {
        Some(start) => {
            let _ = writeln!(out, "    {end} = {start}");
        }
        None => {
            let _ = writeln!(out, "    {end}");
        }
    }
    let _ = writeln!(out, "}};\n\n#endif");
    out
}
