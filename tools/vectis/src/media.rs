//! What a PC boots from: one file for a boot loader, and images of a CD and of a disk, with
//! GRUB in them.
//!
//! The image of a CD is that of a disk as well: it begins with a boot sector and a GUID
//! partition table, with a partition for UEFI. GRUB is put together from modules, with the few
//! commands that it needs built in, and finds its files by a name that no other image has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boot::{Handoff, Segment};
use sha2::{Digest as _, Sha256};
use system::{Model, Program};
use zerocopy::IntoBytes as _;

use crate::cli;
use crate::error::{Error, Result};
use crate::image::{Built, features};
use crate::manifest::hex;
use crate::packages::{self, BIOS_BOOT, Need};
use crate::programs;
use crate::steps::Steps;
use crate::workspace::{Workspace, read, write as write_file};

/// Where a loader puts the kernel's and init's files: behind the program that starts them
/// (crates/boot/boot.ld).
const ATTACHED: u64 = 32 << 20;
const PAGE: usize = 4096;
/// The time of every file in an image, so that equal inputs give equal bytes: the first that
/// FAT knows, 1980.
const TIME: &str = "315532800";
/// Modules of GRUB for both firmwares: the file system, and what the commands need.
const MODULES: &[&str] = &[
    "iso9660",
    "multiboot2",
    "part_gpt",
    "part_msdos",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
];
/// The folder in the image.
const FOLDER: &str = "vectis";

/// Returns what has to be installed.
#[must_use]
pub fn needs(media: &cli::Media) -> Vec<Need> {
    let mut needs = Vec::new();
    if media.iso.is_some() || media.disk.is_some() {
        needs.extend(packages::MEDIA);
    }
    if media.disk.as_deref().is_some_and(is_qcow2) {
        needs.push(packages::QEMU_IMG);
    }
    needs
}

/// Returns the steps that [`write()`] begins.
#[must_use]
pub fn steps(media: &cli::Media) -> usize {
    files(media).count()
}

/// Returns the files that are to be written.
fn files(media: &cli::Media) -> impl Iterator<Item = &PathBuf> {
    [&media.boot, &media.iso, &media.disk].into_iter().flatten()
}

fn is_qcow2(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "qcow2")
}

/// Writes the media of a built image.
///
/// # Errors
/// If something cannot be built or written.
pub fn write(
    workspace: &Workspace,
    model: &Model,
    built: &Built,
    media: &cli::Media,
    steps: &mut Steps,
) -> Result<()> {
    if files(media).next().is_none() {
        return Ok(());
    }
    let com1 = com1(model);
    let file = boot_file(workspace, com1, built)?;
    if let Some(path) = &media.boot {
        steps.begin("boot file", &path.display().to_string());
        write_file(path, &file)?;
    }
    if media.iso.is_none() && media.disk.is_none() {
        return Ok(());
    }
    // One for all: the image's lock keeps other builds away.
    let work = workspace.target.join("vectis").join("media");
    let image = image(&work, com1, &file)?;
    for (what, path) in [("CD image", &media.iso), ("disk image", &media.disk)] {
        let Some(path) = path else { continue };
        steps.begin(what, &path.display().to_string());
        if what == "disk image" && is_qcow2(path) {
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
            tool(convert.arg(&image).arg(path), &work)?;
        } else {
            std::fs::copy(&image, path).map_err(|e| Error::file("write", path, &e))?;
        }
    }
    Ok(())
}

/// Returns the first register of the board's serial port; 0 without one.
fn com1(model: &Model) -> u16 {
    let mut devices = model.board.devices.iter();
    let com1 = devices.find(|device| device.name == "com1");
    com1.and_then(|device| device.ports)
        .map_or(0, |ports| ports.0)
}

/// Returns the file that a Multiboot 2 loader takes: the program that starts the kernel, with
/// the kernel and init.
///
/// # Errors
/// If the program cannot be built, or they do not fit together.
pub fn boot_file(workspace: &Workspace, com1: u16, built: &Built) -> Result<Vec<u8>> {
    let stub = read(&programs::boot(workspace)?)?;
    let kernel = read(&built.kernel.elf64)?;
    let init = read(&built.init())?;
    let symbols = read(&built.root_task())?;
    compose(&stub, &kernel, [&init, &symbols], com1, built).map_err(|cause| {
        Error::new(
            "the file for boot loaders cannot be put together",
            cause,
            "a smaller system may fit: see docs/boot.md",
        )
    })
}

fn compose(
    stub: &[u8],
    kernel: &[u8],
    [init, symbols]: [&[u8]; 2],
    com1: u16,
    built: &Built,
) -> std::result::Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    let mut handoff = Handoff {
        com1: com1.into(),
        entry: kernel::entry(kernel)?.into(),
        ..Handoff::empty()
    };
    let segments = kernel::segments(kernel)?;
    if segments.len() > handoff.segments.len() {
        return Err(format!("the kernel has {} segments", segments.len()));
    }
    for (place, segment) in handoff.segments.iter_mut().zip(segments) {
        *place = Segment {
            from: ATTACHED + payload.len() as u64,
            bytes: segment.data.len() as u64,
            to: segment.phys.into(),
            size: segment.memory.into(),
        };
        payload.extend(segment.data);
    }
    let program = Program::parse(stub).map_err(|e| e.to_string())?;
    let first = program.segments.iter().map(|segment| segment.address).min();
    let (_, end) = handoff.kernel();
    if first.is_none_or(|first| end > first) {
        return Err(format!("the kernel takes memory up to {end:#x}"));
    }
    payload.resize(payload.len().next_multiple_of(PAGE), 0);
    handoff.module = ATTACHED + payload.len() as u64;
    handoff.module_bytes = init.len() as u64;
    handoff.module_memory = memory(init)?;
    let screen = system::offset_of(symbols, init, screen::SYMBOL).map_err(|e| e.to_string())?;
    handoff.screen = handoff.module + screen;
    payload.extend(init);
    handoff.protocol = if built.kernel.installed.is_some() {
        2
    } else {
        1
    };
    handoff.features = features(&built.kernel);
    text(&mut handoff.command_line, &built.command_line)?;
    text(&mut handoff.label, &built.kernel.label)?;
    system::attach_to(stub, boot::SYMBOL, handoff.as_bytes(), ATTACHED, payload)
        .map_err(|e| e.to_string())
}

/// Returns the memory that init takes when it is loaded, in whole pages.
fn memory(init: &[u8]) -> std::result::Result<u64, String> {
    let program = Program::parse(init).map_err(|e| e.to_string())?;
    let segments = program.segments.iter();
    let start = segments.clone().map(|s| s.address).min().unwrap_or(0);
    let end = segments.map(|s| s.address + s.size).max().unwrap_or(0);
    Ok((end - start).next_multiple_of(PAGE as u64))
}

/// Copies a text, behind which there is a zero at least.
fn text(place: &mut [u8], text: &str) -> std::result::Result<(), String> {
    match place.get_mut(..text.len() + 1) {
        Some(room) => room[..text.len()].copy_from_slice(text.as_bytes()),
        None => return Err(format!("`{text}` is too long")),
    }
    Ok(())
}

/// Returns the commands that are built into GRUB.
fn commands(com1: u16, marker: &str) -> String {
    let mut lines = Vec::new();
    if com1 != 0 {
        // What GRUB says is then seen without a screen as well. Where there is no such port
        // the two commands fail, and the others follow.
        lines.push(format!("serial --port={com1:#x} --speed=115200"));
        lines.push("terminal_output console serial".to_owned());
    }
    lines.push(format!("search.file {marker} root"));
    lines.push(format!("multiboot2 /{FOLDER}/boot.elf"));
    lines.push("boot".to_owned());
    lines.join("\n") + "\n"
}

/// Makes the image in the folder `work`, which is made anew. Returns its file.
fn image(work: &Path, com1: u16, boot: &[u8]) -> Result<PathBuf> {
    match std::fs::remove_dir_all(work) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::file("remove", work, &e));
        }
        _ => {}
    }
    let tree = work.join("tree");
    let folder = tree.join(FOLDER);
    let marker = format!("{}.id", &hex(&Sha256::digest(boot))[..16]);
    write_file(&folder.join("boot.elf"), boot)?;
    write_file(&folder.join(&marker), "")?;
    let script = work.join("grub.cfg");
    write_file(&script, commands(com1, &format!("/{FOLDER}/{marker}")))?;

    grub(
        work,
        "i386-pc-eltorito",
        &["biosdisk"],
        &folder.join("bios.img"),
    )?;
    // From BIOS the screen stays as it is, with text. UEFI's shows points.
    let modules = ["efi_gop", "fat"];
    grub(work, "x86_64-efi", &modules, &work.join("BOOTX64.EFI"))?;
    let efi = folder.join("efi.img");
    let fat = format!("{}", efi.display());
    // 1.44 MB, of which the program takes a fifth. A serial number would be of the time.
    tool(
        Command::new("mformat").args(["-C", "-f", "1440", "-N", "56454354", "-i", &fat, "::"]),
        work,
    )?;
    tool(
        Command::new("mmd").args(["-i", &fat, "::/EFI", "::/EFI/BOOT"]),
        work,
    )?;
    let into = "::/EFI/BOOT/BOOTX64.EFI";
    tool(
        Command::new("mcopy")
            .args(["-i", &fat])
            .arg(work.join("BOOTX64.EFI"))
            .arg(into),
        work,
    )?;
    let image = work.join("image.iso");
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-r", "-V", "VECTIS"]);
    xorriso.args(["--set_all_file_dates", &format!("={TIME}")]);
    xorriso.args([
        "-b",
        "vectis/bios.img",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
    ]);
    xorriso.args([
        "-boot-info-table",
        "--grub2-boot-info",
        "--grub2-mbr",
        BIOS_BOOT,
    ]);
    xorriso.args(["--protective-msdos-label", "--efi-boot", "vectis/efi.img"]);
    xorriso.args(["-efi-boot-part", "--efi-boot-image", "-o"]);
    tool(xorriso.arg(&image).arg(&tree), work)?;
    Ok(image)
}

/// Makes GRUB for one firmware.
fn grub(work: &Path, format: &str, more: &[&str], out: &Path) -> Result<()> {
    let mut grub = Command::new("grub-mkimage");
    grub.args(["-O", format, "-p", "/vectis", "-c"])
        .arg(work.join("grub.cfg"))
        .arg("-o")
        .arg(out)
        .args(MODULES)
        .args(more);
    tool(&mut grub, work)
}

/// Runs a tool to its end.
fn tool(command: &mut Command, work: &Path) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |cause: String| {
        Error::new(
            format!("{name} failed"),
            cause,
            format!(
                "the files are in {}; the packages are grub-common, grub-pc-bin, \
                 grub-efi-amd64-bin, xorriso and mtools, for qcow2 qemu-utils",
                work.display()
            ),
        )
    };
    let output = command
        .env("SOURCE_DATE_EPOCH", TIME)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(iso: Option<&str>, disk: Option<&str>) -> cli::Media {
        cli::Media {
            iso: iso.map(PathBuf::from),
            disk: disk.map(PathBuf::from),
            boot: None,
        }
    }

    #[test]
    fn the_boot_program_has_room_for_what_init_has() {
        // A kernel's name grows with its options; "verification-build" was too much.
        assert_eq!(boot::LABEL, size_of::<spec::KernelLabel>());
    }

    #[test]
    fn only_what_is_written_needs_packages() {
        assert!(needs(&cli::Media::default()).is_empty());
        assert_eq!(
            needs(&media(Some("a.iso"), None)).len(),
            packages::MEDIA.len()
        );
        assert_eq!(
            needs(&media(None, Some("a.img"))).len(),
            packages::MEDIA.len()
        );
        let qcow2 = media(None, Some("a.qcow2"));
        assert_eq!(needs(&qcow2).len(), packages::MEDIA.len() + 1);
        assert_eq!(steps(&qcow2), 1);
        assert_eq!(steps(&media(Some("a.iso"), Some("b"))), 2);
    }

    #[test]
    fn grub_says_what_it_does_where_the_board_has_a_serial_port() {
        let with = commands(0x2f8, "/vectis/1.id");
        assert!(
            with.starts_with("serial --port=0x2f8 --speed=115200\n"),
            "{with}"
        );
        let without = commands(0, "/vectis/1.id");
        assert_eq!(
            without,
            "search.file /vectis/1.id root\nmultiboot2 /vectis/boot.elf\nboot\n"
        );
    }

    #[test]
    fn a_text_has_a_zero_behind_it() {
        let mut place = [0; 4];
        assert_eq!(text(&mut place, "abc"), Ok(()));
        assert_eq!(&place, b"abc\0");
        assert!(text(&mut place, "abcd").unwrap_err().contains("too long"));
    }

    #[test]
    fn a_tool_that_fails_is_named_with_its_reason() {
        let work = Path::new("/work");
        let error = tool(Command::new("sh").args(["-c", "echo no >&2; exit 1"]), work);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("sh failed: no") && error.contains("mtools"),
            "{error}"
        );
        let error = tool(&mut Command::new("/nowhere"), work).unwrap_err();
        assert!(error.to_string().contains("/nowhere failed"), "{error}");
    }
}
