//! `vectis build`: everything that boots, in one folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use guest_image::{Kind, Rewritten, Solo5Function};
use kernel::Profile;
use serde_json::Value;
use system::{Guest, GuestImage, Model, Options, Program, Programs};

use crate::error::{Error, Result};
use crate::kernels::{Kernel, check_trust};
use crate::manifest::{incomplete, manifest};
use crate::programs;
use crate::steps::Steps;
use crate::workspace::{Workspace, read, write};

/// Steps that [`build`] begins.
pub const STEPS: usize = 5;

/// A built image.
#[derive(Debug)]
pub struct Built {
    /// The folder.
    pub folder: PathBuf,
    /// Writers of the logs: name and ELF file, in the order of the ids.
    pub writers: Vec<(String, PathBuf)>,
    /// The kernel.
    pub kernel: kernel::Built,
    /// The kernel's command line.
    pub command_line: String,
    /// Keeps other builds away, which could replace the image's files, until this is
    /// dropped.
    pub lock: File,
}

impl Built {
    /// Returns the kernel, for a multiboot loader.
    #[must_use]
    pub fn kernel_file(&self) -> PathBuf {
        self.folder.join("kernel.elf")
    }

    /// Returns the root task with the system's image.
    #[must_use]
    pub fn init(&self) -> PathBuf {
        self.folder.join("init.elf")
    }

    /// Returns the root task as it was compiled, with its symbols.
    #[must_use]
    pub fn root_task(&self) -> PathBuf {
        self.folder.join("programs").join(system::ROOT_TASK)
    }
}

/// Returns the bits of the CPU's features that a kernel needs ([`boot::cpu::FEATURES`]).
#[must_use]
pub fn features(kernel: &kernel::Built) -> u64 {
    boot::cpu::needed(|option| {
        let value = kernel.options.get(&format!("CONFIG_{option}"));
        value.is_some_and(|value| value != "0")
    })
}

/// Returns the file with a guest's image, built if it is a crate's.
///
/// # Errors
/// If it cannot be built.
pub fn guest_file(workspace: &Workspace, guest: &Guest) -> Result<PathBuf> {
    match &guest.image {
        GuestImage::Crate(folder, package) => {
            programs::guest(workspace, folder, package, guest.address)
        }
        GuestImage::File(file) => Ok(file.clone()),
    }
}

/// A guest's files in the image's folder.
struct GuestFiles {
    /// The file that the vmm loads.
    image: Vec<u8>,
    /// What became of its instructions.
    rewritten: Rewritten,
    /// Where that has parts: the files that symbols come from, by what they are.
    parts: Vec<(&'static str, Vec<u8>)>,
    /// Where its RAM is a second time, if the image is linked elsewhere.
    second_address: Option<u64>,
    /// The addresses that it must not write, if its kind asks for that.
    read_only: Option<Vec<Range<u64>>>,
}

/// Makes the guests' images for the vmm, by the guest's name. `user_top` is where the
/// kernel's addresses begin, if it has the whole upper half.
///
/// # Errors
/// If one cannot be built or loaded.
fn guests<'a>(
    workspace: &Workspace,
    model: &'a Model,
    user_top: Option<u64>,
) -> Result<BTreeMap<String, GuestFiles>> {
    let mut images = BTreeMap::new();
    for guest in &model.guests {
        let path = guest_file(workspace, guest)?;
        let failed = |error: guest_image::Error| {
            Error::new(
                format!(
                    "the image of guest {}, {}, cannot be loaded",
                    guest.name,
                    path.display()
                ),
                error.cause,
                error.help,
            )
        };
        let mut file = read(&path)?;
        let rewritten = guest_image::rewrite(&mut file);
        let ram = guest.address..guest.address + guest.memory;
        let kind = Kind::entered(&file, guest.boot).map_err(failed)?;
        let second_address = match kind {
            Kind::Linux64 => {
                guest_image::second_address(&mut file, &ram, user_top).map_err(failed)?
            }
            _ => None,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let needs = guest_image::Guest {
            name: &name,
            ram,
            command_line: &guest.command_line,
            pc: guest.pc,
            rewritten: rewritten.replaced > 0,
            boot: guest.boot,
            modules: modules(guest)?,
            solo5: guest.solo5.as_ref().map(|all| {
                let function = |of: &'a system::Solo5Device| Solo5Function {
                    name: &of.name,
                    kind: of.kind,
                    function: model.devices[of.device].guest_address.requester_id(),
                    place: &of.place.0,
                };
                all.iter().map(function).collect()
            }),
            place: &guest.place.0,
        };
        let shim = match kind.shim() {
            None => None,
            Some(package) => {
                let ram = guest_image::shim_ram(&needs.ram).map_err(failed)?;
                let folder = workspace.root.join("guests").join(package);
                Some(read(&programs::guest(
                    workspace, &folder, package, ram.start,
                )?)?)
            }
        };
        let image = guest_image::prepare(file.clone(), &needs, shim.as_deref()).map_err(failed)?;
        // Solo5's hosts protect an image as its file says.
        let solo5 = matches!(Kind::of(&file), Kind::Solo5(..));
        let read_only = solo5.then(|| guest_image::read_only(&file));
        let parts = shim.map_or(Vec::new(), |shim| {
            vec![(IMAGE_PART, file), (SHIM_PART, shim)]
        });
        let files = GuestFiles {
            image,
            rewritten,
            parts,
            second_address,
            read_only,
        };
        images.insert(guest.name.clone(), files);
    }
    Ok(images)
}

/// Reads a guest's boot modules, each of which is called by its file's name.
fn modules(guest: &Guest) -> Result<Vec<(String, Vec<u8>)>> {
    let modules = guest.modules.iter().map(|path| {
        let name = path.file_name().unwrap_or_default();
        Ok((name.to_string_lossy().into_owned(), read(path)?))
    });
    modules.collect()
}

/// Returns the files with the symbols of a guest of the image in `folder`.
#[must_use]
pub fn symbol_files(folder: &Path, guest: &str) -> Vec<PathBuf> {
    let file = |name: &str| folder.join("guests").join(name);
    let parts: Vec<PathBuf> = [IMAGE_PART, SHIM_PART]
        .map(|part| file(&format!("{guest}.{part}")))
        .into_iter()
        .filter(|path| path.is_file())
        .collect();
    if parts.is_empty() {
        vec![file(guest)]
    } else {
        parts
    }
}

/// The parts of a guest's image with a shim.
const IMAGE_PART: &str = "image";
const SHIM_PART: &str = "shim";

/// The manifest's name in an image's folder.
const MANIFEST: &str = "manifest.json";

/// Where an image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Below the project's target folder: made anew.
    Own(PathBuf),
    /// The user's: nothing is touched there but an earlier image's files.
    Named(PathBuf),
}

impl Folder {
    /// Takes a folder of the user's.
    ///
    /// # Errors
    /// If it is neither empty nor an earlier image's: its files could not be told
    /// from the image's afterwards.
    pub fn named(path: &Path) -> Result<Self> {
        let refused = |cause: &str| {
            Error::new(
                format!("cannot build into {}", path.display()),
                cause,
                "name a folder that is not there yet, an empty one, or one that \
                 `vectis build` made",
            )
        };
        match std::fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() && !is_image(path) {
                    return Err(refused("it has files in it that are no image's"));
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(refused(&e.to_string())),
        }
        Ok(Self::Named(path.to_path_buf()))
    }

    /// Returns its path.
    fn path(&self) -> &Path {
        let (Self::Own(path) | Self::Named(path)) = self;
        path
    }

    /// Removes the files of an earlier build, which must not look like parts of this
    /// image, and records the files about to be written, so that after a build that
    /// was cut short the next one can remove them.
    fn clear(&self, files: &[String]) -> Result<()> {
        match self {
            Self::Own(path) => match std::fs::remove_dir_all(path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::file("remove", path, &e));
                }
                _ => {}
            },
            Self::Named(path) => remove_earlier(path)?,
        }
        let text = incomplete(files);
        write(&self.path().join(MANIFEST), format!("{text:#}\n"))
    }
}

/// Returns whether a folder is that of an image, by its manifest.
fn is_image(folder: &Path) -> bool {
    let text = std::fs::read(folder.join(MANIFEST)).unwrap_or_default();
    let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
    manifest["files"].is_object()
        && manifest["components"].is_array()
        && manifest["versions"]["vectis"].is_string()
}

/// Removes the files of an earlier image. The folder is the user's, so only files in
/// its manifest are removed.
fn remove_earlier(folder: &Path) -> Result<()> {
    let text = std::fs::read(folder.join(MANIFEST)).unwrap_or_default();
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
    options: Options,
    chosen: &Kernel,
    profile: Profile,
    folder: &Folder,
    steps: &mut Steps,
) -> Result<Built> {
    let lock = workspace.lock()?;
    let kernel = chosen.build(profile, &workspace.output(profile), steps)?;
    check_trust(&kernel, &model.guests)?;
    let limits = chosen.limits(&workspace.output(profile))?;
    let options = Options {
        kernel: spec::KernelLabel::new(&kernel.label),
        badge_bits: limits.badge_bits,
        ..options
    };

    let mut names = vec![system::ROOT_TASK];
    for component in &model.components {
        if !names.contains(&component.program.name.as_str()) {
            names.push(&component.program.name);
        }
    }
    steps.begin("components", &names.join(", "));
    let built = programs::components(workspace, profile, &names, chosen)?;

    let named: Vec<&str> = model.guests.iter().map(|g| g.name.as_str()).collect();
    steps.begin("guests", &named.join(", "));
    let guest_images = guests(workspace, model, limits.user_top)?;
    let rewritten: BTreeMap<String, Rewritten> = guest_images
        .iter()
        .map(|(name, files)| (name.clone(), files.rewritten))
        .collect();
    for (name, Rewritten { replaced, left }) in &rewritten {
        if *replaced > 0 || *left > 0 {
            steps.note(&format!(
                "{name}: {replaced} instructions rewritten, {left} left"
            ));
        }
    }

    steps.begin(
        "system",
        &format!("{} for {}", model.name, model.board.name),
    );
    let mut programs = Programs::default();
    for component in &model.components {
        let bytes = read(&built[&component.program.name])?;
        let program = Program::parse(&bytes).map_err(|e| {
            Error::new(
                format!(
                    "component program {} cannot be used",
                    component.program.name
                ),
                e,
                "crates/runtime/component.ld lays it out; check what it links",
            )
        })?;
        programs
            .components
            .insert(component.program.name.clone(), program);
    }
    for (name, files) in &guest_images {
        programs.guests.insert(name.clone(), files.image.clone());
        if !files.parts.is_empty() {
            // Only a Solo5 image, which is protected, calls its shim.
            let called = files.read_only.is_some();
            programs.shims.insert(name.clone(), called);
        }
        if files.rewritten.replaced > 0 {
            programs.rewritten.insert(name.clone());
        }
        if let Some(address) = files.second_address {
            programs.second_addresses.insert(name.clone(), address);
        }
        if let Some(parts) = &files.read_only {
            programs.read_only.insert(name.clone(), parts.clone());
        }
        if files.rewritten.replaced > 0 {
            programs.rewritten.insert(name.clone());
        }
    }
    let image = system::compose(model, &programs, options).map_err(|e| {
        Error::new(
            "the system cannot be put together",
            e,
            "change system.toml as it says",
        )
    })?;
    let init = system::attach(&read(&built[system::ROOT_TASK])?, &image.bytes).map_err(|e| {
        Error::new(
            "the image cannot be attached to init",
            e,
            "check components/init",
        )
    })?;

    steps.begin("image", &folder.path().display().to_string());
    let mut contents = vec![
        ("kernel.elf".to_owned(), read(&kernel.elf32)?),
        ("init.elf".to_owned(), init),
        (
            "command-line".to_owned(),
            format!("{}\n", chosen.command_line()).into_bytes(),
        ),
    ];
    for (name, file) in &built {
        contents.push((format!("programs/{name}"), read(file)?));
    }
    for (name, files) in guest_images {
        for (part, bytes) in files.parts {
            contents.push((format!("guests/{name}.{part}"), bytes));
        }
        contents.push((format!("guests/{name}"), files.image));
    }
    let files: Vec<String> = contents.iter().map(|(name, _)| name.clone()).collect();
    folder.clear(&files)?;
    let folder = folder.path();
    for (name, bytes) in &contents {
        write(&folder.join(name), bytes)?;
    }
    let text = manifest(model, profile, &kernel, &image, &rewritten, folder, &files)?;
    write(&folder.join(MANIFEST), format!("{text:#}\n"))?;
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
                .map_or(name, |component| &component.program.name);
            (name.clone(), folder.join("programs").join(program))
        })
        .collect();
    Ok(Built {
        folder: folder.to_path_buf(),
        writers,
        kernel,
        command_line: chosen.command_line().to_owned(),
        lock,
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

    fn made(files: &[&str]) -> Folder {
        let files: Vec<String> = files.iter().map(|name| (*name).to_owned()).collect();
        let outer = tempfile::tempdir().unwrap().keep();
        let folder = Folder::named(&outer.join("image")).unwrap();
        folder.clear(&files).unwrap();
        for name in &files {
            write(&folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn only_a_new_an_empty_or_an_image_s_folder_is_taken() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path();
        assert!(Folder::named(&path.join("new")).is_ok());
        assert!(Folder::named(path).is_ok());
        std::fs::write(path.join("mine"), "").unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for other in [
            path,
            Path::new("/"),
            Path::new("/proc"),
            &root,
            &path.join("mine"),
        ] {
            let text = Folder::named(other).unwrap_err().to_string();
            assert!(text.contains("cannot build into"), "{text}");
        }
        // Another program's manifest is none of ours.
        std::fs::write(path.join(MANIFEST), r#"{"files":{"mine":{}},"name":"x"}"#).unwrap();
        assert!(Folder::named(path).is_err());
        // One that a build began.
        let begun = made(&["kernel.elf"]);
        std::fs::write(begun.path().join("mine"), "").unwrap();
        assert_eq!(Folder::named(begun.path()), Ok(begun.clone()));
        std::fs::remove_dir_all(begun.path().parent().unwrap()).unwrap();
    }

    #[test]
    fn nothing_of_a_build_that_was_cut_short_stays() {
        let begun = made(&["kernel.elf", "programs/gone"]);
        let path = begun.path();
        std::fs::write(path.join("mine"), "").unwrap();
        begun.clear(&["init.elf".to_owned()]).unwrap();
        assert!(!path.join("kernel.elf").exists() && !path.join("programs/gone").exists());
        assert!(path.join("mine").exists());
        // The build's own folder has nothing else in it.
        Folder::Own(path.to_path_buf()).clear(&[]).unwrap();
        let names: Vec<_> = std::fs::read_dir(path).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
