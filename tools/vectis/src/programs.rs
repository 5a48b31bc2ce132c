//! Builds the programs of the image: components, init and guests.
//!
//! They are ordinary crates for the host's target, linked by scripts of ours
//! and without the C library. The explicit `--target` keeps the flags away
//! from build scripts and procedural macros; a target folder of their own
//! keeps them from being rebuilt whenever the tools are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kernel::Profile;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::kernels::{Kernel, of_cpu};
use crate::workspace::{Workspace, read};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Compiler and linker flags of every program. The addresses are fixed; backtraces
/// follow frame pointers; a build id would differ by folder.
const FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Ccode-model=small",
    "-Cforce-frame-pointers=yes",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
];

/// More flags of components. The kernel hands the FPU on at its next use, by a trap: most of
/// what they do needs none, so that the compiler is not to copy and clear by vector registers.
/// It does not where a CPU is slow at that, of which the K8 was one; that has the
/// instructions of every 64-bit CPU and no others that the compiler would choose by itself.
const COMPONENT_FLAGS: &[&str] = &[
    "-Ctarget-cpu=k8",
    "-Cno-vectorize-loops",
    "-Cno-vectorize-slp",
    // The sections of defmt's strings; after the script that it adds to.
    "-Clink-arg=-Tdefmt.x",
];

/// A call of cargo for programs of one kind.
struct Call<'a> {
    workspace: &'a Workspace,
    /// Below the target folder.
    folder: String,
    /// From the project's folder.
    script: &'a str,
    more_flags: Vec<String>,
    packages: Vec<&'a str>,
    features: Vec<String>,
    log: Option<&'a str>,
    /// The seL4 that the binding is made for; `None` where there is no binding.
    sel4: Option<&'a Kernel>,
}

/// Builds component programs and init for a kernel. Returns each one's file by its name.
///
/// # Errors
/// If cargo fails; cargo has printed the reason.
pub fn components(
    workspace: &Workspace,
    profile: Profile,
    names: &[&str],
    sel4: &Kernel,
) -> Result<BTreeMap<String, PathBuf>> {
    let (folder, log) = match profile {
        Profile::Release => ("sel4", "info"),
        Profile::Debug => ("sel4-debug", "trace"),
    };
    // A binding for another kernel makes cargo build everything anew: those for the
    // bundled ones keep folders of their own.
    let folder = match sel4 {
        Kernel::Bundled(cpu) => of_cpu(folder, *cpu),
        Kernel::Installed { .. } => format!("{folder}-installed"),
    };
    let built = Call {
        workspace,
        folder,
        script: "crates/runtime/component.ld",
        more_flags: COMPONENT_FLAGS.iter().map(ToString::to_string).collect(),
        packages: names.to_vec(),
        features: names.iter().map(|name| format!("{name}/sel4")).collect(),
        log: Some(log),
        sel4: Some(sel4),
    }
    .run()?;
    for name in names {
        if !built.contains_key(*name) {
            return Err(Error::new(
                format!("cannot build component {name}"),
                format!("its crate has no binary `{name}`"),
                "add a [[bin]] of that name with required-features = [\"sel4\"]",
            ));
        }
    }
    Ok(built)
}

/// Builds what runs between a boot loader and the kernel. Returns its file.
///
/// # Errors
/// If cargo fails.
pub fn boot(workspace: &Workspace) -> Result<PathBuf> {
    const NAME: &str = "boot";
    let built = Call {
        workspace,
        folder: NAME.to_owned(),
        script: "crates/boot/boot.ld",
        more_flags: Vec::new(),
        packages: vec![NAME],
        features: vec!["boot/stub".to_owned()],
        log: None,
        sel4: None,
    }
    .run()?;
    built.get(NAME).cloned().ok_or_else(|| {
        Error::new(
            "cannot build what starts the kernel",
            "crate boot has no binary",
            "look at crates/boot/Cargo.toml",
        )
    })
}

/// How kit's guests are linked.
const GUEST_SCRIPT: &str = "guests/kit/guest.ld";

/// Returns the linker script that a guest's crate names, from the project's folder, by
/// `package.metadata.vectis.linker-script` in its Cargo.toml.
fn script_of(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = text.parse().ok()?;
    let mut value = manifest.get("package")?;
    for key in ["metadata", "vectis", "linker-script"] {
        value = value.get(key)?;
    }
    value.as_str().map(str::to_owned)
}

/// Builds a guest's crate, which lies in `folder`, for RAM that starts at `ram`. Returns its file. Each start
/// address has its own target folder: with different flags in one folder, cargo would
/// rebuild everything for each guest, and overwrite the file.
///
/// # Errors
/// If cargo fails, or the crate has not exactly one binary.
pub fn guest(workspace: &Workspace, folder: &Path, package: &str, ram: u64) -> Result<PathBuf> {
    let script = script_of(folder).unwrap_or_else(|| GUEST_SCRIPT.to_owned());
    let built = Call {
        workspace,
        folder: format!("guest-{ram:x}"),
        script: &script,
        more_flags: vec![format!("-Clink-arg=-Wl,--defsym=guest_ram={ram:#x}")],
        packages: vec![package],
        features: vec![format!("{package}/guest")],
        log: None,
        sel4: None,
    }
    .run()?;
    let mut files = built.into_values();
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file),
        (first, _) => Err(Error::new(
            format!("cannot use guest crate {package}"),
            match first {
                None => "it has no binary",
                Some(_) => "it has several binaries",
            },
            "give it one [[bin]] with required-features = [\"guest\"]",
        )),
    }
}

impl Call<'_> {
    /// Runs cargo, whose progress goes to standard error.
    fn run(&self) -> Result<BTreeMap<String, PathBuf>> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(&self.workspace.root)
            .args(["build", "--release", "--bins", "--target", TARGET])
            .arg("--message-format=json-render-diagnostics")
            .arg("--target-dir")
            .arg(self.workspace.target.join(&self.folder))
            .args(self.packages.iter().flat_map(|package| ["-p", package]))
            .args(["--features", &self.features.join(",")])
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags()?.join("\x1f"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        command.env_remove(kernel::PREFIX).env_remove(kernel::CPU);
        match self.sel4 {
            Some(Kernel::Installed { installed, .. }) => {
                command.env(kernel::PREFIX, installed.prefix());
            }
            Some(Kernel::Bundled(cpu)) => {
                command.env(kernel::CPU, cpu.name());
            }
            None => {}
        }
        if let Some(level) = self.log {
            command.env("DEFMT_LOG", level);
        }
        let what = format!("cannot build {}", self.packages.join(", "));
        let output = command
            .output()
            .map_err(|e| Error::new(&what, format!("cargo: {e}"), "cargo must be in the PATH"))?;
        if !output.status.success() {
            return Err(Error::new(
                what,
                "cargo failed",
                "cargo's own message above says why",
            ));
        }
        Ok(executables(&String::from_utf8_lossy(&output.stdout)))
    }

    fn flags(&self) -> Result<Vec<String>> {
        let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        // Named from the project's folder, where cargo starts the compiler, so
        // that the same sources give the same file wherever they lie.
        flags.push(format!("-Clink-arg=-T{}", self.script));
        flags.extend(self.more_flags.iter().cloned());
        // Cargo does not watch the script; a flag that changes with it makes
        // cargo link again.
        let script = read(&self.workspace.root.join(self.script))?;
        let hash = crate::manifest::hex(&Sha256::digest(&script));
        flags.push(format!("--cfg=linker_script=\"{}\"", &hash[..16]));
        let home = cargo_home();
        let target = self.workspace.target.join(&self.folder);
        // The last that fits wins.
        for (from, to) in [
            (home.as_deref(), "cargo"),
            (Some(self.workspace.root.as_path()), "vectis"),
            (Some(target.as_path()), "target"),
        ] {
            if let Some(from) = from {
                flags.push(format!("--remap-path-prefix={}={to}", from.display()));
            }
        }
        Ok(flags)
    }
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")))
}

/// Returns the executables in cargo's messages, by name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let file = message["executable"].as_str()?;
            Some((
                message["target"]["name"].as_str()?.to_owned(),
                PathBuf::from(file),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargo_s_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"spec"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"init"},"executable":"/t/init"}
not json
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found["init"], Path::new("/t/init"));
    }

    #[test]
    fn flags_change_with_the_linker_script() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace {
            root: folder.path().to_path_buf(),
            target: folder.path().join("target"),
        };
        let call = Call {
            workspace: &workspace,
            folder: "x".to_owned(),
            script: "a.ld",
            more_flags: Vec::new(),
            packages: Vec::new(),
            features: Vec::new(),
            log: None,
            sel4: None,
        };
        assert!(call.flags().is_err());
        std::fs::write(folder.path().join("a.ld"), "one").unwrap();
        let one = call.flags().unwrap();
        assert_eq!(call.flags().unwrap(), one);
        std::fs::write(folder.path().join("a.ld"), "two").unwrap();
        assert_ne!(call.flags().unwrap(), one);
    }
}
