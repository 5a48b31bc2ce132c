//! The manifest of an image: its inputs, in JSON. It has no paths and no times, so
//! that equal inputs give equal bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use guest_image::Rewritten;
use kernel::{Built, Profile};
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
            "sel4": kernel::VERSION,
            "rustc": version("rustc")?,
            "gcc": version("gcc")?,
        },
        "kernel-options": kernel.options,
        "components": writers,
        "rewritten-instructions": rewritten,
        "files": described,
    }))
}
