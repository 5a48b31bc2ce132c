//! Facts about an interface on which code that uses it depends.
//!
//! Where two kernels differ in what a call takes or a structure holds, the code of the
//! binding has both forms, told apart by `cfg(NAME)` of a fact. A form that is none of
//! the known ones is an error: code for one of them would be wrong without a word.

use crate::Options;
use crate::bitfield::Description;
use crate::invocation::{Api, Method};

/// I/O ports are issued by a control capability; without it, narrowed from a
/// capability to all of them.
pub const IO_PORT_CONTROL: &str = "sel4_io_port_control";
/// A priority is set by the authority of a thread that the caller names; without it, of
/// the caller.
pub const PRIORITY_AUTHORITY: &str = "sel4_priority_authority";
/// A capability can have the right to grant nothing but a reply.
pub const GRANT_REPLY: &str = "sel4_grant_reply";
/// A CNode's guard travels as a tagged word, which a badge is too.
pub const CAP_DATA: &str = "sel4_cap_data";
/// A thread's registers include the FS and GS base, which the kernel keeps for it;
/// without it the FS base only.
pub const GS_BASE: &str = "sel4_gs_base";

/// Every fact.
pub const ALL: &[&str] = &[
    IO_PORT_CONTROL,
    PRIORITY_AUTHORITY,
    GRANT_REPLY,
    CAP_DATA,
    GS_BASE,
];

/// Returns the facts that hold.
///
/// # Errors
/// A message if something has none of the known forms.
pub fn of(
    apis: &[&Api],
    bitfields: &[Description],
    options: &Options,
) -> Result<Vec<&'static str>, String> {
    let mut facts = Vec::new();
    let mut holds = |fact, it_does: bool| {
        if it_does {
            facts.push(fact);
        }
    };
    let methods = || {
        let methods = apis.iter().flat_map(|api| &api.methods);
        methods.filter(|method| method.condition.holds(options))
    };
    let method = |label: &str| {
        let mut found = methods();
        found.find(|method| method.label == label)
    };
    let names = |method: &Method| -> Vec<String> {
        let inputs = method.inputs.iter();
        inputs.map(|input| input.name.clone()).collect()
    };

    holds(IO_PORT_CONTROL, method("X86IOPortControlIssue").is_some());

    let priority = method("TCBSetPriority").map(names).unwrap_or_default();
    match priority.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["authority", "priority"] => holds(PRIORITY_AUTHORITY, true),
        ["priority"] => {}
        _ => return Err(format!("TCBSetPriority takes {priority:?}")),
    }

    let block = |name: &str| {
        let mut blocks = bitfields.iter().flat_map(|description| &description.blocks);
        blocks.find(|block| block.name == name)
    };
    let rights: Vec<&str> = block("seL4_CapRights")
        .into_iter()
        .flat_map(|block| block.visible_fields())
        .map(|field| field.name.as_str())
        .collect();
    match rights[..] {
        [
            "capAllowGrantReply",
            "capAllowGrant",
            "capAllowRead",
            "capAllowWrite",
        ] => holds(GRANT_REPLY, true),
        ["capAllowGrant", "capAllowRead", "capAllowWrite"] => {}
        _ => return Err(format!("seL4_CapRights has the fields {rights:?}")),
    }

    let mut unions = bitfields.iter().flat_map(|description| &description.unions);
    let tagged = unions.any(|union| union.name == "seL4_CapData");
    match (tagged, block("seL4_CNode_CapData")) {
        (true, None) => holds(CAP_DATA, true),
        (false, Some(_)) => {}
        _ => return Err("a CNode's guard is in neither or both of the known forms".into()),
    }

    let context = apis
        .iter()
        .flat_map(|api| &api.structs)
        .find(|structure| structure.name == "seL4_UserContext")
        .map(|structure| structure.members.as_slice())
        .unwrap_or_default();
    let members: Vec<&str> = context.iter().map(String::as_str).collect();
    match members.strip_prefix(REGISTERS) {
        Some(["fs_base", "gs_base"]) => holds(GS_BASE, true),
        Some(["tls_base"]) => {}
        _ => return Err(format!("seL4_UserContext has the members {members:?}")),
    }
    Ok(facts)
}

/// The registers that every kernel's context begins with.
const REGISTERS: &[&str] = &[
    "rip", "rsp", "rflags", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10",
    "r11", "r12", "r13", "r14", "r15",
];
