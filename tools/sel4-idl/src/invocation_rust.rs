//! Rust back end for invocations: label constants, structures and stubs.
//!
//! A stub packs its arguments as the kernel expects (capabilities in the
//! buffer's capability slots, integers at their own alignment, the first four
//! words in registers) and calls `invoke(ipc, service, info, mrs)` which the
//! including crate defines.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::Options;
use crate::invocation::{Api, Method, Parameter, Struct, Type};
use crate::names::{camel, constant, snake};

/// Message registers that travel in CPU registers on x86_64.
const REGISTERS: usize = 4;

/// Writes labels, structures and stubs for the files in their numbering
/// order: generic, variant of the architecture, architecture.
///
/// # Errors
/// A message if a structure is not declared, or two methods have one label.
pub fn emit(apis: &[&Api], options: &Options) -> Result<String, String> {
    let mut out = String::new();
    let structs: Vec<&Struct> = apis.iter().flat_map(|a| &a.structs).collect();
    let mut used = BTreeSet::new();
    for (method, number) in labels(apis, options)? {
        let _ = writeln!(
            out,
            "/// Label of the invocation `{i}_{m}`.\npub const LABEL_{l}: u64 = {number};\n",
            i = method.interface,
            m = method.name,
            l = constant(&method.label)
        );
        emit_stub(&mut out, method, &structs)?;
        used.extend(
            method
                .inputs
                .iter()
                .chain(&method.outputs)
                .filter_map(|p| match &p.ty {
                    Type::Struct(name) => Some(name),
                    _ => None,
                }),
        );
    }
    for name in used {
        emit_struct(&mut out, find(&structs, name)?);
    }
    Ok(out)
}

/// Returns the methods that exist under `options`, with their numbers: labels count
/// from 1 through all files.
///
/// # Errors
/// A message if two of them have one label.
pub fn labels<'a>(apis: &[&'a Api], options: &Options) -> Result<Vec<(&'a Method, u64)>, String> {
    let mut labels: Vec<(&Method, u64)> = Vec::new();
    for method in apis.iter().flat_map(|a| &a.methods) {
        if !method.condition.holds(options) {
            continue;
        }
        if labels.iter().any(|(other, _)| other.label == method.label) {
            return Err(format!("two methods have the label `{}`", method.label));
        }
        labels.push((method, labels.len() as u64 + 1));
    }
    Ok(labels)
}

fn emit_struct(out: &mut String, structure: &Struct) {
    let name = camel(&structure.name);
    let count = structure.members.len();
    let _ = writeln!(
        out,
        "/// `{}` of the kernel's interface, in message order.\n#[repr(C)]\n\
         #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]\npub struct {name} {{",
        structure.name
    );
    for member in &structure.members {
        let _ = writeln!(out, "    /// `{member}`\n    pub {}: u64,", snake(member));
    }
    let members: Vec<String> = structure.members.iter().map(|m| snake(m)).collect();
    let read: Vec<String> = members.iter().map(|m| format!("self.{m}")).collect();
    let write: Vec<String> = members
        .iter()
        .enumerate()
        .map(|(i, m)| format!("{m}: words[{i}]"))
        .collect();
    let _ = writeln!(
        out,
        "}}\n\nimpl {name} {{\n    /// Words in the structure.\n    pub const WORDS: usize = {count};\n\n\
         \x20   /// The members in message order.\n    pub const fn to_words(&self) -> [u64; {count}] {{\n        [{}]\n    }}\n\n\
         \x20   /// The structure of these words in message order.\n    pub const fn from_words(words: &[u64; {count}]) -> Self {{\n        Self {{ {} }}\n    }}\n}}\n",
        read.join(", "),
        write.join(", ")
    );
}

fn rust_type(ty: &Type, output: bool) -> String {
    match ty {
        Type::Cap => "CPtr".to_string(),
        Type::Integer(1) => "bool".to_string(),
        Type::Integer(bits) => format!("u{bits}"),
        Type::BitField(name) => camel(name),
        Type::Struct(name) if output => camel(name),
        Type::Struct(name) => format!("&{}", camel(name)),
    }
}

/// Returns a parameter's place: first bit, counted from the start of the
/// message.
fn positions<'a>(
    parameters: &[&'a Parameter],
    structs: &[&Struct],
) -> Result<Vec<(&'a Parameter, usize, usize)>, String> {
    let mut used = 0usize;
    let mut places = Vec::new();
    for parameter in parameters {
        let bits = match &parameter.ty {
            Type::Integer(bits) => *bits as usize,
            Type::Cap | Type::BitField(_) => 64,
            Type::Struct(name) => 64 * find(structs, name)?.members.len(),
        };
        used = used.next_multiple_of(bits.min(64));
        places.push((*parameter, used, bits));
        used += bits;
    }
    Ok(places)
}

fn find<'a>(structs: &[&'a Struct], name: &str) -> Result<&'a Struct, String> {
    structs
        .iter()
        .find(|s| s.name == name)
        .copied()
        .ok_or_else(|| format!("structure `{name}` is used but not declared"))
}

/// Returns one expression per word of the message.
fn pack(parameters: &[&Parameter], structs: &[&Struct]) -> Result<Vec<String>, String> {
    let mut words: Vec<Vec<String>> = Vec::new();
    for (parameter, first, bits) in positions(parameters, structs)? {
        let name = snake(&parameter.name);
        let word = first / 64;
        words.resize(words.len().max((first + bits).div_ceil(64)), Vec::new());
        match &parameter.ty {
            Type::Struct(ty) => {
                for (i, member) in find(structs, ty)?.members.iter().enumerate() {
                    words[word + i].push(format!("{name}.{}", snake(member)));
                }
            }
            Type::BitField(_) => words[word].push(format!("{name}.words[0]")),
            Type::Integer(64) | Type::Cap => words[word].push(name),
            Type::Integer(_) => {
                let value = format!("u64::from({name})");
                words[word].push(match first % 64 {
                    0 => value,
                    shift => format!("({value} << {shift})"),
                });
            }
        }
    }
    Ok(words.into_iter().map(|terms| terms.join(" | ")).collect())
}

fn source(word: usize) -> String {
    if word < REGISTERS {
        format!("mrs[{word}]")
    } else {
        format!("ipc.msg[{word}]")
    }
}

/// Returns one expression per output.
fn unpack(outputs: &[&Parameter], structs: &[&Struct]) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    for (parameter, first, _) in positions(outputs, structs)? {
        let word = first / 64;
        let raw = match first % 64 {
            0 => source(word),
            shift => format!("({} >> {shift})", source(word)),
        };
        values.push(match &parameter.ty {
            Type::Struct(name) => {
                let structure = find(structs, name)?;
                let members: Vec<String> = structure
                    .members
                    .iter()
                    .enumerate()
                    .map(|(i, m)| format!("{}: {}", snake(m), source(word + i)))
                    .collect();
                format!("{} {{ {} }}", camel(name), members.join(", "))
            }
            Type::BitField(name) => format!("{} {{ words: [{raw}] }}", camel(name)),
            Type::Integer(1) => format!("{raw} & 1 != 0"),
            Type::Integer(64) | Type::Cap => raw,
            Type::Integer(bits) => format!("{raw} as u{bits}"),
        });
    }
    Ok(values)
}

fn emit_stub(out: &mut String, method: &Method, structs: &[&Struct]) -> Result<(), String> {
    let (caps, data): (Vec<&Parameter>, Vec<&Parameter>) =
        method.inputs.iter().partition(|p| p.ty == Type::Cap);
    let outputs: Vec<&Parameter> = method.outputs.iter().collect();
    let words = pack(&data, structs)?;
    let values = unpack(&outputs, structs)?;
    let types: Vec<String> = outputs.iter().map(|p| rust_type(&p.ty, true)).collect();
    let result = match types.as_slice() {
        [] => "()".to_string(),
        [one] => one.clone(),
        many => format!("({})", many.join(", ")),
    };
    if method.inputs.len() + 2 > 7 {
        out.push_str(
            "#[expect(clippy::too_many_arguments, reason = \"one per parameter of the description\")]\n",
        );
    }
    let mut arguments = vec![
        "ipc: &mut IpcBuffer".to_string(),
        "service: CPtr".to_string(),
    ];
    arguments.extend(
        method
            .inputs
            .iter()
            .map(|p| format!("{}: {}", snake(&p.name), rust_type(&p.ty, false))),
    );
    let _ = writeln!(
        out,
        "/// Invokes `{i}_{m}` on `service`. An error is the reply's label; its details are\n\
         /// then in the first message words of `ipc`.\n\
         pub fn {}_{}({}) -> Result<{result}, u64> {{",
        snake(&method.interface),
        snake(&method.name),
        arguments.join(", "),
        i = method.interface,
        m = method.name,
    );
    for (i, cap) in caps.iter().enumerate() {
        let _ = writeln!(out, "    ipc.caps_or_badges[{i}] = {};", snake(&cap.name));
    }
    for (i, word) in words.iter().enumerate().skip(REGISTERS) {
        let _ = writeln!(out, "    ipc.msg[{i}] = {word};");
    }
    let registers: Vec<&str> = (0..REGISTERS)
        .map(|i| words.get(i).map_or("0", String::as_str))
        .collect();
    let binding = if values.iter().any(|v| v.contains("mrs[")) {
        "mrs"
    } else {
        "_"
    };
    let _ = writeln!(
        out,
        "    let info = MessageInfo::new(LABEL_{}, 0, {}, {});",
        constant(&method.label),
        caps.len(),
        words.len()
    );
    let call = format!("invoke(ipc, service, info, [{}])?", registers.join(", "));
    let value = match values.as_slice() {
        [] => "()".to_string(),
        [one] => one.clone(),
        many => format!("({})", many.join(", ")),
    };
    if binding == "_" {
        let _ = writeln!(out, "    {call};\n    Ok({value})\n}}\n");
    } else {
        let _ = writeln!(out, "    let mrs = {call};\n    Ok({value})\n}}\n");
    }
    Ok(())
}
