//! The files that are generated for the kernel, and the descriptions they come from.

use std::path::{Path, PathBuf};

use sel4_idl::bitfield::Description;
use sel4_idl::invocation::Api;
use sel4_idl::syscall::Syscalls;
use sel4_idl::{bitfield_c, cpp, invocation, invocation_c, parser, syscall};

use crate::edits::Edited;
use crate::sources::INCLUDES;
use crate::{Config, Error, Source};

pub(crate) const SYSCALLS: &str = "include/api/syscall.xml";
const INVOCATIONS: [&str; 3] = [
    "libsel4/include/interfaces/sel4.xml",
    "libsel4/sel4_arch_include/x86_64/interfaces/sel4arch.xml",
    "libsel4/arch_include/x86/interfaces/sel4arch.xml",
];

/// The kernel's own bit fields: description, and the header made from it as
/// the sources include it.
const KERNEL_BITFIELDS: &[(&str, &str)] = &[
    (
        "include/64/mode/api/shared_types.bf",
        "mode/api/shared_types_gen.h",
    ),
    (
        "include/arch/x86/arch/object/structures.bf",
        "arch/object/structures_gen.h",
    ),
    (
        "include/plat/pc99/plat/64/plat_mode/machine/hardware.bf",
        "plat_mode/machine/hardware_gen.h",
    ),
];

pub(crate) fn wrong(e: impl std::fmt::Display) -> Error {
    Error::new(
        "cannot use the kernel's interface description",
        e,
        "the kernel's sources are not the pinned ones, or gcc is missing",
    )
}

/// Returns `autoconf.h`: the options as macros.
pub(crate) fn autoconf(config: &Config) -> String {
    let mut out = String::from("#ifndef AUTOCONF_H\n#define AUTOCONF_H\n\n");
    for (name, value) in &config.options {
        out.push_str(&format!("#define {name} {value}\n"));
    }
    out.push_str("\n#endif\n");
    out
}

pub(crate) fn bitfields(
    source: &Source,
    file: &str,
    includes: &[PathBuf],
    config: &Config,
) -> Result<Description, Error> {
    let includes: Vec<&Path> = includes.iter().map(PathBuf::as_path).collect();
    let text =
        cpp::preprocess(&source.root.join(file), &includes, &config.options).map_err(wrong)?;
    parser::parse(file, &text).map_err(wrong)
}

pub(crate) fn read_invocations(source: &Source) -> Result<[Api; 3], Error> {
    let read = |file: &str| invocation::parse(file, &source.read(file)?).map_err(wrong);
    let [generic, sel4_arch, arch] = INVOCATIONS;
    Ok([read(generic)?, read(sel4_arch)?, read(arch)?])
}

pub(crate) fn read_syscalls(source: &Source) -> Result<Syscalls, Error> {
    syscall::parse(SYSCALLS, &source.read(SYSCALLS)?).map_err(wrong)
}

/// Writes `text` to `name` below `folder`.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = folder.join(name);
    let failed = |e| {
        Error::new(
            format!("cannot write {}", path.display()),
            e,
            "check that the folder is writable and the disk not full",
        )
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(&path, text).map_err(failed)
}

/// Returns every header that is searched before the sources' own, by its name
/// in an `#include`, in a fixed order: generated ones and edited ones.
pub(crate) fn kernel_headers(
    source: &Source,
    config: &Config,
    edits: &Edited<'_>,
) -> Result<Vec<(String, String)>, Error> {
    let includes: Vec<PathBuf> = INCLUDES.iter().map(|i| source.root.join(i)).collect();
    let mut headers = vec![("autoconf.h".to_string(), autoconf(config))];
    for (description, header) in KERNEL_BITFIELDS {
        let parsed = bitfields(source, description, &includes, config)?;
        let guard: String = header
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        headers.push((header.to_string(), bitfield_c::emit(&parsed, &guard)));
    }
    let [generic, sel4_arch, arch] = read_invocations(source)?;
    let text = [
        ("api/invocation.h", invocation_c::emit_generic(&generic)),
        (
            "arch/api/sel4_invocation.h",
            invocation_c::emit_sel4_arch(&sel4_arch),
        ),
        ("arch/api/invocation.h", invocation_c::emit_arch(&arch)),
        (
            "arch/api/syscall.h",
            syscall::emit_c(&read_syscalls(source)?),
        ),
    ];
    headers.extend(text.map(|(name, text)| (name.to_string(), text)));
    for file in edits.files {
        if let Some(name) = header_name(file) {
            let text = (edits.apply)(file, source.read(file)?)?;
            headers.push((name.to_string(), text));
        }
    }
    Ok(headers)
}

/// Returns a header's name in an `#include`: relative to the innermost search
/// folder that holds it. `None` if none does.
pub(crate) fn header_name(file: &str) -> Option<&str> {
    INCLUDES
        .iter()
        .filter_map(|dir| file.strip_prefix(dir)?.strip_prefix('/'))
        .min_by_key(|name| name.len())
}
