//! The manifest of an image: its inputs, in JSON. It has no paths and no times, so
//! that equal inputs give equal bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use guest_image::Rewritten;
use kernel::{Built, Entry, Profile};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system::{Image, Model};

use crate::error::{Error, Result};
use crate::workspace::read;

/// Returns the bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the first line that a tool prints about its version.
fn version(tool: &str) -> Result<String> {
    let output = Command::new(tool).arg("--version").output().map_err(|e| {
        Error::new(
            format!("cannot ask {tool} for its version"),
            e,
            format!("{tool} must be in the PATH"),
        )
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("").to_owned())
}

/// Describes an image that is being written: only the names of its files. Nothing can
/// be run or decoded by such a manifest.
pub fn incomplete(files: &[String]) -> Value {
    let files: BTreeMap<&String, Value> = files.iter().map(|name| (name, json!({}))).collect();
    json!({
        "incomplete": "the build was cut short: build again",
        "versions": { "vectis": env!("CARGO_PKG_VERSION") },
        "components": [],
        "files": files,
    })
}

/// Returns the kernel's version. Installed ones do not say theirs.
fn sel4_version(kernel: &Built) -> &'static str {
    match kernel.installed {
        None => kernel::VERSION,
        Some(_) => "installed",
    }
}

/// Describes the kernel: what it is, which of a guest's flags it runs with, and of one that
/// was installed the file and what was changed in the image's copy.
fn of_kernel(kernel: &Built) -> Result<Value> {
    let (flags, changed) = match &kernel.entry {
        Entry::Closed => ("cleared", &[][..]),
        Entry::Completed(sites) => ("completed", &sites[..]),
        Entry::Open(_) => ("open", &[][..]),
    };
    let changed: Vec<Value> = changed
        .iter()
        .map(|site| {
            let (address, from, to) = (site.address, site.value, site.completed());
            json!({
                "wrmsr": format!("{address:#x}"),
                "from": format!("{from:#x}"),
                "to": format!("{to:#x}"),
            })
        })
        .collect();
    let installed = match &kernel.installed {
        None => Value::Null,
        Some(file) => json!({ "sha256": hex(&Sha256::digest(read(file)?)) }),
    };
    Ok(json!({
        "label": kernel.label,
        "installed": installed,
        "guest-flags": flags,
        "changed": changed,
    }))
}

/// Describes the image whose files (their names in the folder) are `files`.
///
/// # Errors
/// If a file cannot be read or a tool not be asked.
pub fn manifest(
    model: &Model,
    profile: Profile,
    kernel: &Built,
    image: &Image,
    rewritten: &BTreeMap<String, Rewritten>,
    folder: &Path,
    files: &[String],
) -> Result<Value> {
    let mut described = BTreeMap::new();
    for name in files {
        let bytes = read(&folder.join(name))?;
        described.insert(
            name,
            json!({ "bytes": bytes.len(), "sha256": hex(&Sha256::digest(&bytes)) }),
        );
    }
    let writers: Vec<Value> = image
        .log_writers
        .iter()
        .enumerate()
        .map(|(id, name)| {
            let program = model
                .components
                .iter()
                .find(|component| component.name == *name)
                .map_or(name, |component| &component.program.name);
            json!({ "name": name, "elf": format!("programs/{program}"), "log": id })
        })
        .collect();
    let rewritten: BTreeMap<&String, Value> = rewritten
        .iter()
        .map(|(name, Rewritten { replaced, left })| {
            (name, json!({ "replaced": replaced, "left": left }))
        })
        .collect();
    Ok(json!({
        "system": model.name,
        "board": model.board.name,
        "profile": profile.to_string(),
        "versions": {
            "vectis": env!("CARGO_PKG_VERSION"),
            "sel4": sel4_version(kernel),
            "rustc": version("rustc")?,
            "gcc": version("gcc")?,
        },
        "kernel": of_kernel(kernel)?,
        "kernel-options": kernel.options,
        "components": writers,
        "rewritten-instructions": rewritten,
        "files": described,
    }))
}
