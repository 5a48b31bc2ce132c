//! Turns the kernel's names into Rust's.

/// Returns a function, field or module name: `seL4_GetMSI` becomes `get_msi`.
pub fn snake(name: &str) -> String {
    // "CNode" is one word; the rules below would split it.
    let name = name.trim_start_matches("seL4_").replace("CNode", "Cnode");
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let after_lower = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_ascii_digit());
        let ends_acronym = i > 0
            && chars[i - 1].is_uppercase()
            && chars.get(i + 1).is_some_and(|n| n.is_lowercase());
        if c.is_uppercase() && (after_lower || ends_acronym) {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    match out.as_str() {
        "type" | "self" | "in" | "ref" | "move" | "loop" => out + "_",
        _ => out,
    }
}

/// Returns a type name: `x86_irq_state` becomes `X86IrqState`.
pub fn camel(name: &str) -> String {
    let mut out = String::new();
    for part in name.trim_start_matches("seL4_").split('_') {
        let mut chars = part.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

/// Returns a constant's name: `CapFault` becomes `CAP_FAULT`.
pub fn constant(name: &str) -> String {
    snake(name).trim_end_matches('_').to_ascii_uppercase()
}
