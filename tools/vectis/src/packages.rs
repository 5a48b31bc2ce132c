//! The programs that must be installed, and installing them on Debian and
//! Ubuntu.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::output::progress;

/// A program and the packages that contain it. Recommended packages are not needed:
/// QEMU's machine firmware and the network card's option ROM are real dependencies
/// (seabios, ipxe-qemu).
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// A program in the PATH, or a file by its whole path.
    command: &'static str,
    packages: &'static [&'static str],
}

/// Compiles the kernel.
pub const GCC: Need = Need {
    command: "gcc",
    packages: &["gcc", "libc6-dev"],
};

/// Runs the image.
pub const QEMU: Need = Need {
    command: "qemu-system-x86_64",
    packages: &["qemu-system-x86"],
};

/// Make what boots a PC.
pub const MEDIA: &[Need] = &[
    Need {
        command: "grub-mkimage",
        packages: &["grub-common"],
    },
    Need {
        command: BIOS_BOOT,
        packages: &["grub-pc-bin"],
    },
    Need {
        command: "/usr/lib/grub/x86_64-efi/moddep.lst",
        packages: &["grub-efi-amd64-bin"],
    },
    Need {
        command: "xorriso",
        packages: &["xorriso"],
    },
    Need {
        command: "mcopy",
        packages: &["mtools"],
    },
];

/// GRUB's first sector, of a disk that is a CD image.
pub const BIOS_BOOT: &str = "/usr/lib/grub/i386-pc/boot_hybrid.img";

/// Makes an image in QEMU's own form.
pub const QEMU_IMG: Need = Need {
    command: "qemu-img",
    packages: &["qemu-utils"],
};

/// Makes sure that the programs are there: as root installs missing packages,
/// unless `VECTIS_NO_INSTALL` is 1.
///
/// # Errors
/// If a program remains missing; the error names the command that installs it.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let absent = || -> Vec<Need> {
        needs
            .iter()
            .filter(|need| !is_there(need.command))
            .copied()
            .collect()
    };
    let missing = absent();
    if missing.is_empty() {
        return Ok(());
    }
    let install = arguments(&missing);
    let forbidden = std::env::var("VECTIS_NO_INSTALL").is_ok_and(|value| value == "1");
    if is_root() && !forbidden {
        progress(&format!(
            "{} not found; installing with apt-get {}",
            commands(&missing),
            install.join(" ")
        ));
        for arguments in [&["update".to_owned()][..], &install[..]] {
            let done = Command::new("apt-get")
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .status()
                .is_ok_and(|status| status.success());
            if !done {
                break;
            }
        }
    }
    let missing = absent();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        "a program is missing",
        format!("{} is not there", commands(&missing)),
        format!(
            "run `sudo apt-get {}`, or install it as your system does",
            arguments(&missing).join(" ")
        ),
    ))
}

/// Returns whether a program is in the PATH, or a file is there.
#[must_use]
pub fn is_there(command: &str) -> bool {
    if command.starts_with('/') {
        return Path::new(command).is_file();
    }
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| is_program(&dir, command)))
}

fn commands(needs: &[Need]) -> String {
    let names: Vec<&str> = needs.iter().map(|need| need.command).collect();
    names.join(", ")
}

/// Returns apt-get's arguments.
fn arguments(needs: &[Need]) -> Vec<String> {
    ["install", "-y", "--no-install-recommends"]
        .into_iter()
        .chain(needs.iter().flat_map(|need| need.packages).copied())
        .map(str::to_owned)
        .collect()
}

fn is_program(folder: &Path, name: &str) -> bool {
    const EXECUTABLE: u32 = 0o111;
    std::fs::metadata(folder.join(name))
        .is_ok_and(|file| file.is_file() && file.mode() & EXECUTABLE != 0)
}

/// Returns whether this process runs as root: it owns its folder in /proc.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_installs_all() {
        assert_eq!(
            arguments(&[GCC, QEMU]).join(" "),
            "install -y --no-install-recommends gcc libc6-dev qemu-system-x86"
        );
        assert_eq!(commands(&[GCC, QEMU]), "gcc, qemu-system-x86_64");
    }

    #[test]
    fn a_program_is_an_executable_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("directory")).unwrap();
        std::fs::write(folder.path().join("text"), "").unwrap();
        for name in ["directory", "text", "absent"] {
            assert!(!is_program(folder.path(), name), "{name}");
        }
        assert!(is_program(Path::new("/bin"), "sh"));
    }
}
