//! Compares a Solo5 hvt image with its guest in system.toml.

use ::solo5::abi::{IMAGE_START, MFT1, NOTE_NAME};
use ::solo5::manifest::{ENTRIES, Kind, Manifest};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};
use spec::shim::{NO_DEVICE, Solo5Devices};
use system::Solo5Kind;
use zerocopy::IntoBytes as _;

use crate::merge::Foreign;
use crate::{Error, Guest};

/// Bytes before the manifest in its note, by which a compiler aligns it (mft_abi.h).
const PADDING: usize = 4;

/// The function that stands for a device of an image's manifest.
#[derive(Clone, Copy, Debug)]
pub struct Solo5Function<'a> {
    /// The device's name there.
    pub name: &'a str,
    /// Its kind.
    pub kind: Solo5Kind,
    /// Requester id of the function, as the guest sees it.
    pub function: u16,
    /// Where system.toml says so.
    pub place: &'a str,
}

/// Returns what the shim needs to know of a guest's devices: the payload of its block.
///
/// # Errors
/// If the image's manifest is broken, or its devices and the guest's are not the same.
pub fn payload(file: &[u8], image: &Foreign, guest: &Guest<'_>) -> Result<Vec<u8>, Error> {
    if guest.ram.start != 0 {
        return Err(Error::new(
            format!(
                "a Solo5 hvt image has memory from address 0 on, and the guest's begins at {:#x}",
                guest.ram.start
            ),
            "give the guest `address = 0`, which its devices can use where an IOMMU translates \
             (`--iommu amd`)",
        ));
    }
    let start = image.range().start;
    if start < IMAGE_START {
        return Err(Error::new(
            format!("it begins at {start:#x}, where Solo5 has its boot information"),
            format!("link it at {IMAGE_START:#x}, as Solo5's own linker script does"),
        ));
    }
    let note = note(file).ok_or_else(|| {
        Error::new(
            "it has no manifest of its devices (a note MFT1)",
            "link it with the manifest that `solo5-elftool gen-manifest` makes",
        )
    })?;
    let bytes = note.get(PADDING..).unwrap_or_default();
    let manifest = Manifest::parse(bytes).map_err(|error| {
        Error::new(
            format!("its manifest is broken: {error:?}"),
            "link it with the manifest that `solo5-elftool gen-manifest` makes",
        )
    })?;
    let functions = functions(&manifest, guest)?;
    Ok([Solo5Devices { functions }.as_bytes(), manifest.bytes()].concat())
}

/// Returns the function of each entry, and checks that none is left over on either side.
fn functions(manifest: &Manifest<'_>, guest: &Guest<'_>) -> Result<[u16; ENTRIES], Error> {
    let given = guest.solo5.as_deref().unwrap_or_default();
    let mut functions = [NO_DEVICE; ENTRIES];
    let mut wanted = Vec::new();
    for (place, entry) in functions.iter_mut().zip(manifest.entries()) {
        let kind = match entry.kind() {
            Some(Kind::Net) => Solo5Kind::Net,
            Some(Kind::Block) => Solo5Kind::Block,
            None => continue,
        };
        let name = entry.name().unwrap_or_default().to_owned();
        let found = given.iter().find(|of| (of.kind, of.name) == (kind, &name));
        let Some(found) = found else {
            return Err(Error::new(
                format!(
                    "its manifest has {}, and no function stands for it",
                    key(kind, &name)
                ),
                format!(
                    "add `solo5.{} = \"DEVICE\"` to the guest at {}, with one of its `devices`",
                    key(kind, &name),
                    guest.place
                ),
            ));
        };
        *place = found.function;
        wanted.push((kind, name));
    }
    for (kind, most) in [
        (Solo5Kind::Net, ::solo5::NETWORKS),
        (Solo5Kind::Block, ::solo5::DISKS),
    ] {
        let count = wanted.iter().filter(|(other, _)| *other == kind).count();
        if count > most {
            return Err(Error::new(
                format!("its manifest has {count} devices of a kind, and its shim serves {most}"),
                "build the unikernel with fewer",
            ));
        }
    }
    for of in given {
        if !wanted
            .iter()
            .any(|(kind, name)| (*kind, name.as_str()) == (of.kind, of.name))
        {
            let has: Vec<_> = wanted.iter().map(|(kind, name)| key(*kind, name)).collect();
            return Err(Error::new(
                format!(
                    "{}: its manifest has no {}, but {}",
                    of.place,
                    key(of.kind, of.name),
                    if has.is_empty() {
                        "no device".to_owned()
                    } else {
                        has.join(", ")
                    }
                ),
                "remove the key, or correct its name",
            ));
        }
    }
    Ok(functions)
}

/// Returns how system.toml names a device of a manifest, below `solo5`.
fn key(kind: Solo5Kind, name: &str) -> String {
    let kind = match kind {
        Solo5Kind::Net => "net",
        Solo5Kind::Block => "block",
    };
    // A name that cannot be a bare key in TOML is quoted.
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(bare) {
        format!("{kind}.{name}")
    } else {
        format!("{kind}.{name:?}")
    }
}

/// Returns the contents of the note with the manifest. Solo5 lays its notes out with an
/// alignment of 4, whatever that of their program header is.
fn note(file: &[u8]) -> Option<&[u8]> {
    let header = elf::FileHeader64::<Endianness>::parse(file).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, file).ok()? {
        if segment.p_type(endian) != elf::PT_NOTE {
            continue;
        }
        let mut rest = segment.data(endian, file).unwrap_or_default();
        while let Some((note, length)) = first_note(rest) {
            if let Some(contents) = note {
                return Some(contents);
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    None
}

/// Returns the contents of the first note if it is a manifest, and the bytes that it takes;
/// `None` if there is none, or no whole one.
fn first_note(notes: &[u8]) -> Option<(Option<&[u8]>, usize)> {
    let word = |at: usize| {
        let word: [u8; 4] = notes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(word))
    };
    let name_length = word(0)? as usize;
    let name = notes.get(12..12 + name_length)?;
    let start = 12 + name_length.next_multiple_of(4);
    let end = start + word(4)? as usize;
    let contents = notes.get(start..end)?;
    let ours = word(8)? == MFT1 && name.strip_suffix(b"\0") == Some(NOTE_NAME);
    Some((ours.then_some(contents), end.next_multiple_of(4)))
}

#[cfg(test)]
mod tests;
