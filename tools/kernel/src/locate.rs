//! Finds the kernel's sources inside the pinned crates.io package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Error;

/// The kernel version that everything here is written for.
pub const VERSION: &str = "5.0.0";
/// Bits of a badge in that version.
pub const BADGE_BITS: u32 = 28;

/// The package that holds the sources, as this crate's Cargo.toml pins it.
const PACKAGE: (&str, &str) = ("sel4-sys", "0.0.28");

/// The kernel's source tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The folder with `include`, `src` and `libsel4`.
    pub root: PathBuf,
}

impl Source {
    /// Reads `file`, named from the root.
    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        std::fs::read_to_string(self.root.join(file)).map_err(|e| {
            Error::new(
                format!("cannot read the kernel's {file}"),
                e,
                format!(
                    "remove {} and build again, so that cargo unpacks the package anew",
                    self.root.parent().unwrap_or(&self.root).display()
                ),
            )
        })
    }
}

/// Finds the sources, downloading the package if cargo has not yet done so.
///
/// # Errors
/// If cargo fails, the package is not there, or its kernel is another version.
pub fn locate() -> Result<Source, Error> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--manifest-path",
        ])
        .arg(&manifest)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            Error::new(
                "cannot run `cargo metadata`",
                e,
                "cargo must be in the PATH",
            )
        })?;
    if !output.status.success() {
        return Err(Error::new(
            "`cargo metadata` failed",
            String::from_utf8_lossy(&output.stderr),
            "the first build needs the network, to download the kernel's sources; Cargo.lock must \
             be up to date, which any cargo build in the workspace sees to",
        ));
    }
    let root = find_in(&output.stdout)?;
    check_version(&root)?;
    Ok(Source { root })
}

fn find_in(metadata: &[u8]) -> Result<PathBuf, Error> {
    let help = "Cargo.lock must list the package; run `cargo metadata` to see what it finds";
    let metadata: Value = serde_json::from_slice(metadata)
        .map_err(|e| Error::new("cannot read what `cargo metadata` printed", e, help))?;
    let (name, version) = PACKAGE;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        // Ours of the same name has no `source`.
        .find(|p| p["name"] == name && p["version"] == version && p["source"].is_string())
        .and_then(|p| p["manifest_path"].as_str())
        .and_then(|path| Path::new(path).parent())
        .map(|folder| folder.join("seL4"))
        .ok_or_else(|| {
            Error::new(
                "cannot find the kernel's sources",
                format!("no package {name} {version} from a registry in cargo's metadata"),
                help,
            )
        })
}

fn check_version(root: &Path) -> Result<(), Error> {
    let file = root.join("VERSION");
    let help = format!("this kernel builder is written for seL4 {VERSION}");
    let found = std::fs::read_to_string(&file)
        .map_err(|e| Error::new(format!("cannot read {}", file.display()), e, help.clone()))?;
    if found.trim() == VERSION {
        Ok(())
    } else {
        Err(Error::new(
            "the kernel's sources have the wrong version",
            format!("{} says {}", file.display(), found.trim()),
            help,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_pinned_package_only_from_a_registry() {
        let ours = br#"{"packages":[{"name":"sel4-sys","version":"0.0.28","source":null,"manifest_path":"/a/Cargo.toml"}]}"#;
        assert!(find_in(ours).is_err());
        let theirs = br#"{"packages":[{"name":"sel4-sys","version":"0.0.28","source":"registry+x","manifest_path":"/a/Cargo.toml"}]}"#;
        assert_eq!(find_in(theirs).unwrap(), Path::new("/a/seL4"));
        assert!(find_in(b"{").is_err());
    }

    #[test]
    fn refuses_another_version() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_version(folder.path()).is_err());
        std::fs::write(folder.path().join("VERSION"), "6.0.0\n").unwrap();
        assert!(
            check_version(folder.path())
                .unwrap_err()
                .cause
                .contains("6.0.0")
        );
        std::fs::write(folder.path().join("VERSION"), "5.0.0\n").unwrap();
        assert_eq!(check_version(folder.path()), Ok(()));
    }
}
