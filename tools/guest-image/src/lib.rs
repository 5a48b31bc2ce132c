//! Recognises a guest's image, and makes of it the one file that the vmm loads.
//!
//! - **Responsible for:** the kinds of images that there are, what each needs, and the
//!   message for one that cannot run.
//! - **Must never:** accept a file that the vmm's loader refuses.
//! - **May call:** the vmm's loader.
//! - **Invariants:** equal files give an equal image.
#![forbid(unsafe_code)]

pub mod acpi;
mod boot32;
mod calls;
mod elf;
mod fit;
#[cfg(test)]
mod fixture;
mod kind;
mod merge;
mod protect;
mod rewrite;
mod second;
mod solo5;

use std::ops::Range;

use system::Boot;

pub use kind::{Kind, Solo5Target};
pub use merge::{Foreign, merge, shim_ram};
pub use protect::read_only;
pub use rewrite::{Rewritten, rewrite};
pub use second::second_address;
pub use solo5::Solo5Function;

/// Why a file cannot be a guest's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The cause.
    pub cause: String,
    /// Remedy for the user.
    pub help: String,
}

impl Error {
    fn new(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            help: help.into(),
        }
    }
}

/// A guest, as far as its image depends on it.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// Guest addresses of its RAM.
    pub ram: Range<u64>,
    /// The file's name, without its folder.
    pub name: &'a str,
    /// Its command line.
    pub command_line: &'a str,
    /// It has the devices of a PC.
    pub pc: bool,
    /// How the file says that its image is entered.
    pub boot: Boot,
    /// Instructions of its image were rewritten.
    pub rewritten: bool,
    /// Its boot modules: name and contents.
    pub modules: Vec<(String, Vec<u8>)>,
    /// The functions that stand for devices of a Solo5 image; `None` where system.toml has
    /// no `solo5`.
    pub solo5: Option<Vec<Solo5Function<'a>>>,
    /// Where system.toml has the guest, or its `solo5`.
    pub place: &'a str,
}

/// Makes of `file` the image that the vmm loads. `shim` is the file of the kind's shim
/// ([`Kind::shim`]), built for [`shim_ram`].
///
/// # Errors
/// If the file cannot run, or does not fit.
pub fn prepare(file: Vec<u8>, guest: &Guest<'_>, shim: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    if guest.pc && guest.ram.start != 0 {
        return Err(Error::new(
            format!(
                "it has `machine = \"pc\"`, but its RAM begins at {:#x}, so that there is none \
                 for ACPI's tables",
                guest.ram.start
            ),
            "give the guest `address = 0`, which its devices can use where an IOMMU translates \
             (`--iommu amd`)",
        ));
    }
    let kind = Kind::entered(&file, guest.boot)?;
    let is_solo5 = matches!(kind, Kind::Solo5(Solo5Target::Hvt, _));
    if guest.solo5.is_some() && !is_solo5 {
        return Err(Error::new(
            format!(
                "{}: the guest has `solo5`, but its image is no Solo5 hvt image",
                guest.place
            ),
            "remove `solo5`, or name an image for hvt",
        ));
    }
    let has_modules = matches!(kind, Kind::Multiboot(1) | Kind::Pvh);
    if !guest.modules.is_empty() && !has_modules {
        return Err(Error::new(
            "it gets `modules`, but is entered neither by Multiboot nor by PVH",
            "leave `modules` out, or name an image with such an entry",
        ));
    }
    // A shim's words do not stand on the vmm's command line.
    let (file, command_line) = match (&kind, shim) {
        (Kind::Linux64, _) if guest.pc => {
            let file = elf::with_segment(&file, &acpi::segment());
            let file = file.ok_or_else(|| Kind::Unknown.refusal())?;
            (file, guest.command_line)
        }
        (Kind::Linux64, _) => (file, guest.command_line),
        (Kind::Multiboot(1) | Kind::Pvh, Some(shim)) => {
            (boot32::prepare(&file, &kind, guest, shim)?, "")
        }
        (Kind::Solo5(Solo5Target::Hvt, _), Some(shim)) => {
            let image = Foreign::from_elf(&file)?;
            let payload = solo5::payload(&file, &image, guest)?;
            let line = guest.command_line.as_bytes();
            let mut file = file;
            let stubs = calls::direct(&mut file, shim, &shim_ram(&guest.ram)?)?;
            let image = Foreign::from_elf(&file)?;
            (merge(&image, shim, &guest.ram, line, &payload, stubs)?, "")
        }
        _ => return Err(kind.refusal()),
    };
    fit::check(&file, &guest.ram, command_line)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Load, elf};

    const RAM: Range<u64> = 0x1000_0000..0x1040_0000;

    /// Returns an ELF file with one segment without contents.
    fn file(address: u64, size: u64) -> Vec<u8> {
        let load = Load {
            flags: 4,
            linked: address,
            loaded: address,
            size,
        };
        elf(address, &[load])
    }

    fn prepared(file: Vec<u8>, command_line: &str) -> Result<Vec<u8>, Error> {
        let guest = Guest {
            ram: RAM,
            name: "image",
            command_line,
            pc: false,
            rewritten: false,
            boot: Boot::Auto,
            modules: Vec::new(),
            solo5: None,
            place: "",
        };
        prepare(file, &guest, None)
    }

    fn refused(file: Vec<u8>) -> String {
        let error = prepared(file, "").unwrap_err();
        format!("{} / {}", error.cause, error.help)
    }

    #[test]
    fn a_fitting_image_is_taken_as_it_is() {
        let file = file(0x1010_0000, 4096);
        assert_eq!(prepared(file.clone(), ""), Ok(file));
    }

    #[test]
    fn each_mistake_is_named() {
        assert!(refused(b"#!/bin/sh".to_vec()).contains("ELF"));
        assert!(refused(file(0x1010_0000, 4 << 20)).contains("does not fit"));
        let low = refused(file(0x10_0000, 4096));
        assert!(low.contains("0x10000000 to 0x10400000"), "{low}");
        assert!(low.contains("`address = 0`"), "{low}");
        let high = refused(file(0xffff_8000_0010_0000, 4096));
        assert!(high.contains("physical"), "{high}");
        let text = "x".repeat(vmm::COMMAND_LINE_MAX + 1);
        let long = prepared(file(0x1010_0000, 4096), &text).unwrap_err();
        assert!(long.cause.contains("command line"), "{long:?}");
    }
}
