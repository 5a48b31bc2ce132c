//! `vectis build`: everything that boots, in one folder.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use kernel::{Config, Profile};
use serde_json::Value;
use system::{GuestImage, Model, Program, Programs};

use crate::error::{Error, Result};
use crate::manifest::manifest;
use crate::steps::Steps;
use crate::workspace::{Workspace, read, write};
use crate::{guest, programs};

/// Steps that [`build`] begins.
pub const STEPS: usize = 5;

/// What the kernel gets as its command line: nothing. Without its own IOMMU
/// driver it needs no word about it.
pub const KERNEL_COMMAND_LINE: &str = "";

/// A built image.
#[derive(Clone, Debug)]
pub struct Built {
    /// The folder.
    pub folder: PathBuf,
    /// Who writes which log: name and ELF file, in the order of the ids.
    pub writers: Vec<(String, PathBuf)>,
    /// The kernel's options.
    pub kernel_options: BTreeMap<String, String>,
}

impl Built {
    /// The kernel, for a multiboot loader.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("kernel.elf")
    }

    /// The root task with the system's image.
    #[must_use]
    pub fn init(&self) -> PathBuf {
        self.folder.join("init.elf")
    }
}

/// Builds the guests' images, by the guest's name, and checks that they fit.
///
/// # Errors
/// If one cannot be built or loaded.
pub fn guests(workspace: &Workspace, model: &Model) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for guest in &model.guests {
        let file = match &guest.image {
            GuestImage::Crate(_, package) => programs::guest(workspace, package, guest.address)?,
            GuestImage::File(file) => file.clone(),
        };
        guest::check(guest, &read(&file)?)?;
        files.insert(guest.name.clone(), file);
    }
    Ok(files)
}

/// Removes the files of an earlier image, which must not look like parts of
/// this one. The folder is the user's: only what its manifest lists goes.
fn remove_earlier(folder: &Path) -> Result<()> {
    let text = std::fs::read(folder.join("manifest.json")).unwrap_or_default();
    let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
    for name in manifest["files"].as_object().into_iter().flatten() {
        let path = Path::new(name.0);
        let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
        let path = folder.join(path);
        if inside && path.is_file() {
            std::fs::remove_file(&path).map_err(|e| Error::file("remove", &path, &e))?;
        }
    }
    Ok(())
}

/// Builds `model` into `folder`.
///
/// # Errors
/// If a part cannot be built; says which.
pub fn build(
    workspace: &Workspace,
    model: &Model,
    profile: Profile,
    folder: &Path,
    steps: &mut Steps,
) -> Result<Built> {
    let _lock = workspace.lock()?;
    steps.begin("kernel", &format!("seL4 {}, {profile}", kernel::VERSION));
    let config = Config::x86_64_pc99(profile);
    let mut cached = true;
    let kernel = kernel::build(
        &config,
        &workspace.output(profile).join("kernel"),
        &mut |text| {
            cached = false;
            steps.note(text);
        },
    )?;
    if cached {
        steps.note("unchanged");
    }

    let mut names = vec!["init"];
    for component in &model.components {
        if !names.contains(&component.program.as_str()) {
            names.push(&component.program);
        }
    }
    steps.begin("components", &names.join(", "));
    let built = programs::components(workspace, profile, &names)?;

    let named: Vec<&str> = model.guests.iter().map(|g| g.name.as_str()).collect();
    steps.begin("guests", &named.join(", "));
    let guest_files = guests(workspace, model)?;

    steps.begin(
        "system",
        &format!("{} for {}", model.name, model.board.name),
    );
    let mut programs = Programs::default();
    for component in &model.components {
        let bytes = read(&built[&component.program])?;
        let program = Program::parse(&bytes).map_err(|e| {
            Error::new(
                format!("component program {} cannot be used", component.program),
                e,
                "crates/runtime/component.ld lays it out; check what it links",
            )
        })?;
        programs
            .components
            .insert(component.program.clone(), program);
    }
    for (name, file) in &guest_files {
        programs.guests.insert(name.clone(), read(file)?);
    }
    let image = system::compose(model, &programs).map_err(|e| {
        Error::new(
            "the system cannot be put together",
            e,
            "change system.toml as it says",
        )
    })?;
    let init = system::attach(&read(&built["init"])?, &image.bytes).map_err(|e| {
        Error::new(
            "the image cannot be attached to init",
            e,
            "check components/init",
        )
    })?;

    steps.begin("image", &folder.display().to_string());
    remove_earlier(folder)?;
    let mut files = vec![
        "kernel.elf".to_owned(),
        "init.elf".to_owned(),
        "command-line".to_owned(),
    ];
    write(&folder.join("kernel.elf"), read(&kernel.elf32)?)?;
    write(&folder.join("init.elf"), &init)?;
    write(
        &folder.join("command-line"),
        format!("{KERNEL_COMMAND_LINE}\n"),
    )?;
    for (name, file) in &built {
        let name = format!("programs/{name}");
        write(&folder.join(&name), read(file)?)?;
        files.push(name);
    }
    for (name, file) in &guest_files {
        let name = format!("guests/{name}");
        write(&folder.join(&name), read(file)?)?;
        files.push(name);
    }
    let text = manifest(model, profile, &kernel, &image, folder, &files)?;
    write(&folder.join("manifest.json"), format!("{text:#}\n"))?;
    for name in ["kernel.elf", "init.elf"] {
        let bytes = read(&folder.join(name))?.len();
        steps.note(&format!("{name:<10} {:>6} KiB", bytes.div_ceil(1024)));
    }
    let writers = image
        .log_writers
        .iter()
        .map(|name| {
            let program = model
                .components
                .iter()
                .find(|component| component.name == *name)
                .map_or(name, |component| &component.program);
            (name.clone(), folder.join("programs").join(program))
        })
        .collect();
    Ok(Built {
        folder: folder.to_path_buf(),
        writers,
        kernel_options: kernel.options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_manifest_lists_is_removed() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("image");
        let exists = |name: &str| folder.join(name).exists();
        for name in ["kernel.elf", "programs/vmm", "mine", "../outside"] {
            write(&folder.join(name), "").unwrap();
        }
        remove_earlier(&folder).unwrap();
        assert!(exists("kernel.elf"), "there was no manifest");
        let manifest = r#"{"files":{"kernel.elf":{},"programs/vmm":{},"../outside":{},"gone":{}}}"#;
        write(&folder.join("manifest.json"), manifest).unwrap();
        remove_earlier(&folder).unwrap();
        assert!(!exists("kernel.elf") && !exists("programs/vmm"));
        assert!(exists("mine") && exists("../outside"));
    }
}
