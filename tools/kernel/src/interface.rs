//! A kernel's interface to user level, of the bundled sources or of an install folder.

use std::path::{Path, PathBuf};

use sel4_idl::bitfield::Description;
use sel4_idl::constants::{Check, Constants};
use sel4_idl::invocation::Api;
use sel4_idl::syscall::Syscalls;
use sel4_idl::{
    Options, bitfield_c, constants, facts, invocation, invocation_rust, parser, syscall,
};

use crate::headers::{SYSCALLS, autoconf, bitfields, read_invocations, read_syscalls, write};
use crate::{Config, Error, Installed, Source};

/// A kernel's interface to user level.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Bit fields shared with user level: message info, rights, guards, faults.
    pub bitfields: Vec<Description>,
    /// Invocations in the order of their numbering: generic, x86_64, x86.
    pub invocations: [Api; 3],
    /// System calls.
    pub syscalls: Syscalls,
    /// What only the C headers say.
    pub constants: Constants,
    /// The options on which the interface depends.
    pub options: Options,
    /// The files and folders that all this was read from.
    pub files: Vec<PathBuf>,
}

impl Interface {
    /// Returns the facts on which code that uses the interface depends.
    ///
    /// # Errors
    /// If a part has none of the known forms.
    pub fn facts(&self) -> Result<Vec<&'static str>, Error> {
        let apis: Vec<&Api> = self.invocations.iter().collect();
        facts::of(&apis, &self.bitfields, &self.options).map_err(|e| {
            let folder = self.files.first().map(|file| file.display().to_string());
            unknown(format!("{}: {e}", folder.unwrap_or_default()))
        })
    }
}

fn unknown(e: impl std::fmt::Display) -> Error {
    Error::new(
        "cannot use the kernel's interface",
        e,
        "use the bundled kernel, or an install folder of seL4 13.0.0 to 16.0.0 for x86_64 \
         without MCS",
    )
}

/// Bit fields of the bundled sources.
const BUNDLED_BITFIELDS: [&str; 3] = [
    "libsel4/include/sel4/shared_types_64.bf",
    "libsel4/include/sel4/types_64.bf",
    "libsel4/sel4_arch_include/x86_64/sel4/sel4_arch/types.bf",
];
/// The headers that libsel4's own build makes of them.
const BUNDLED_GENERATED: [&str; 3] = [
    "sel4/shared_types_gen.h",
    "sel4/types_gen.h",
    "sel4/sel4_arch/types_gen.h",
];
const BUNDLED_INCLUDES: [&str; 4] = [
    "libsel4/include",
    "libsel4/arch_include/x86",
    "libsel4/sel4_arch_include/x86_64",
    "libsel4/sel4_plat_include/pc99",
];

/// Returns the interface of the bundled sources as `config` has it. `scratch` is a folder
/// for generated files.
///
/// # Errors
/// If a description cannot be read or is not understood.
pub fn interface(source: &Source, config: &Config, scratch: &Path) -> Result<Interface, Error> {
    let descriptions = scratch.join("descriptions");
    let headers = scratch.join("headers");
    // The descriptions include it, and get the options by the preprocessor's arguments.
    write(&descriptions, "autoconf.h", "")?;
    let mut includes = vec![descriptions];
    includes.extend(BUNDLED_INCLUDES.iter().map(|i| source.root.join(i)));
    let mut parsed = Vec::new();
    for (file, header) in BUNDLED_BITFIELDS.iter().zip(BUNDLED_GENERATED) {
        let description = bitfields(source, file, &includes, config)?;
        let guard = header.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        write(&headers, header, &bitfield_c::emit(&description, &guard))?;
        parsed.push(description);
    }
    write(&headers, "autoconf.h", &autoconf(config))?;
    // What generated headers and libsel4's include, and constants do not need.
    for empty in ["config.h", "util.h", "sel4/syscall.h"] {
        write(&headers, empty, "")?;
    }
    includes[0] = headers;
    let folders: Vec<&Path> = includes.iter().map(PathBuf::as_path).collect();
    // The headers with the numbers of invocations are made from the same descriptions,
    // so that there is nothing to compare them with.
    let constants = constants::read(&folders, &[], scratch).map_err(unknown)?;
    Ok(Interface {
        bitfields: parsed,
        invocations: read_invocations(source)?,
        syscalls: read_syscalls(source)?,
        constants,
        options: config.options.clone(),
        files: vec![source.root.join("libsel4"), source.root.join(SYSCALLS)],
    })
}

/// Bit fields of an install folder, preprocessed already.
const INSTALLED_BITFIELDS: [&str; 2] = ["sel4/shared_types.pbf", "sel4/sel4_arch/types.pbf"];
const INSTALLED_INVOCATIONS: [&str; 3] = [
    "interfaces/object-api.xml",
    "interfaces/object-api-sel4-arch.xml",
    "interfaces/object-api-arch.xml",
];
const INSTALLED_SYSCALLS: &str = "api/syscall.xml";

/// Returns the interface of an installed kernel. `scratch` is a folder for generated
/// files.
///
/// # Errors
/// If a file is not there or not understood, or if the numbers that follow from the
/// descriptions are not those in the folder's C headers.
pub fn installed_interface(installed: &Installed, scratch: &Path) -> Result<Interface, Error> {
    let include = &installed.include();
    let options = &installed.configuration().macros();
    let read = |file: &str| {
        let path = include.join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::new(
                format!("cannot read {}", path.display()),
                e,
                "give the folder that `ninja install` of seL4 made; its headers are in \
                 libsel4/include",
            )
        })?;
        Ok::<_, Error>((path.display().to_string(), text))
    };
    let mut bitfields = Vec::new();
    for file in INSTALLED_BITFIELDS {
        let (path, text) = read(file)?;
        bitfields.push(parser::parse(&path, &text).map_err(unknown)?);
    }
    let invocations = |file: &str| {
        let (path, text) = read(file)?;
        invocation::parse(&path, &text).map_err(unknown)
    };
    let [generic, sel4_arch, arch] = INSTALLED_INVOCATIONS;
    let invocations = [
        invocations(generic)?,
        invocations(sel4_arch)?,
        invocations(arch)?,
    ];
    let (path, text) = read(INSTALLED_SYSCALLS)?;
    let syscalls = syscall::parse(&path, &text).map_err(unknown)?;

    let apis: Vec<&Api> = invocations.iter().collect();
    let labels = invocation_rust::labels(&apis, options)
        .map_err(|e| unknown(format!("{}: {e}", include.display())))?;
    let labels = labels.into_iter().map(|(method, number)| Check {
        name: method.label.clone(),
        value: number.cast_signed(),
    });
    let calls = syscalls
        .of(options)
        .iter()
        .zip(1..)
        .map(|(call, number)| Check {
            name: format!("seL4_Sys{call}"),
            value: -number,
        });
    let checks: Vec<Check> = labels.chain(calls).collect();
    std::fs::create_dir_all(scratch).map_err(|e| unknown(format!("{}: {e}", scratch.display())))?;
    let constants = constants::read(&[include], &checks, scratch).map_err(unknown)?;
    Ok(Interface {
        bitfields,
        invocations,
        syscalls,
        constants,
        options: options.clone(),
        files: vec![include.to_path_buf()],
    })
}
