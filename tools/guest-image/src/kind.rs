//! Which kind of image a file is.

use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, elf};

use system::Boot;

use crate::{Error, boot32};

/// How a file is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A static ELF64 file for x86-64, entered by the Linux 64-bit boot protocol.
    Linux64,
    /// An image for Solo5, with the version of the target's ABI.
    Solo5(Solo5Target, u32),
    /// Multiboot 1 (specification 0.6.96, section 3.1), or 2.
    Multiboot(u32),
    /// Entered in 32-bit mode by its PVH note, since its own entry is no 64-bit code at
    /// a physical address.
    Pvh,
    /// A Linux bzImage (Documentation/arch/x86/boot.rst of Linux).
    BzImage,
    /// A PE file: an EFI application.
    Efi,
    /// Compressed, by this.
    Compressed(&'static str),
    /// An ELF file for another machine (the number is ELF's `e_machine`).
    OtherMachine(elf::Machine),
    /// A 32-bit ELF file without a boot protocol in it.
    Elf32,
    /// An ELF file whose addresses the kernel keeps for itself, with the first of them.
    KernelHalf(u64),
    /// Not a kind that is known.
    Unknown,
}

/// The target that a Solo5 image was built for (`abi_target` in Solo5's elf_abi.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solo5Target {
    /// hvt: hypercalls by ports.
    Hvt,
    /// spt: a Linux process.
    Spt,
    /// virtio: a PC.
    Virtio,
    /// muen: a Muen subject.
    Muen,
    /// genode: a Genode component.
    Genode,
    /// xen: a Xen PVH domain.
    Xen,
    /// A number that means none of these.
    Other(u32),
}

impl Solo5Target {
    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Hvt,
            2 => Self::Spt,
            3 => Self::Virtio,
            4 => Self::Muen,
            5 => Self::Genode,
            6 => Self::Xen,
            other => Self::Other(other),
        }
    }

    /// Returns the target's name, as Solo5 and Mirage call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hvt => "hvt",
            Self::Spt => "spt",
            Self::Virtio => "virtio",
            Self::Muen => "muen",
            Self::Genode => "genode",
            Self::Xen => "xen",
            Self::Other(_) => "an unknown one",
        }
    }
}

/// Type of the note with the ABI of a Solo5 image, "ABI1" (elf_abi.h).
const SOLO5_ABI1: elf::NoteType = elf::NoteType(0x3149_4241);
/// Type of the note with the 32-bit entry of PVH: XEN_ELFNOTE_PHYS32_ENTRY (Xen's
/// public/elfnote.h).
const PVH_ENTRY: elf::NoteType = elf::NoteType(18);
/// Magic number of a Multiboot 1 header, which lies within the first 8 KiB.
const MULTIBOOT: u32 = 0x1bad_b002;
const MULTIBOOT_SEARCH: usize = 8192;
/// Magic number of a Multiboot 2 header, which lies within the first 32 KiB.
const MULTIBOOT2: u32 = 0xe852_50d6;
const MULTIBOOT2_SEARCH: usize = 32768;
/// First address that seL4 5.0.0 keeps for itself (PPTR_USER_TOP).
pub const KERNEL_HALF: u64 = 0xffff_ff80_0000_0000;
/// Magic numbers of compressed files.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
];

impl Kind {
    /// Returns which kind `file` is.
    #[must_use]
    pub fn of(file: &[u8]) -> Self {
        let multiboot = multiboot(file);
        if file.starts_with(&elf::ELFMAG) {
            return elf_kind(file, multiboot).unwrap_or(Self::Unknown);
        }
        if let Some(version) = multiboot {
            return Self::Multiboot(version);
        }
        if file.get(0x202..0x206) == Some(b"HdrS") {
            return Self::BzImage;
        }
        if file.starts_with(b"MZ") {
            return Self::Efi;
        }
        let compressed = COMPRESSED.iter().find(|(magic, _)| file.starts_with(magic));
        compressed.map_or(Self::Unknown, |(_, name)| Self::Compressed(name))
    }

    /// Returns the package of the shim that such an image runs beside.
    #[must_use]
    pub const fn shim(&self) -> Option<&'static str> {
        match self {
            Self::Multiboot(1) | Self::Pvh => Some(boot32::SHIM),
            Self::Solo5(Solo5Target::Hvt, ::solo5::abi::VERSION) => Some("solo5"),
            _ => None,
        }
    }

    /// Returns which kind `file` is if it is entered as system.toml says.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn entered(file: &[u8], boot: Boot) -> Result<Self, Error> {
        let kind = Self::of(file);
        let long = || {
            let header = elf::FileHeader64::<Endianness>::parse(file).ok();
            header.is_some_and(|header| header.e_machine(Endianness::Little) == elf::EM_X86_64)
        };
        let (offered, as_kind, word) = match boot {
            Boot::Auto => return Ok(kind),
            Boot::Linux => (long(), Self::Linux64, "linux"),
            Boot::Multiboot => (
                multiboot_header(file).is_some(),
                Self::Multiboot(1),
                "multiboot",
            ),
            Boot::Pvh => (pvh_entry(file).is_some(), Self::Pvh, "pvh"),
        };
        if offered {
            return Ok(as_kind);
        }
        Err(Error::new(
            format!("it does not offer what `boot = \"{word}\"` asks for"),
            "leave `boot` out, or build it with that entry",
        ))
    }

    /// Returns the error for a file of a kind that cannot run, with what would.
    #[must_use]
    pub fn refusal(&self) -> Error {
        let (cause, help): (String, &str) = match self {
            Self::Linux64 => (
                "it is a Linux 64-bit image".into(),
                "report this: it should run",
            ),
            Self::Solo5(Solo5Target::Hvt, version) => (
                format!("it is a Solo5 hvt image of ABI version {version}"),
                "build it with Solo5 0.7 or newer, whose ABI version is 2",
            ),
            Self::Solo5(target, _) => (
                format!("it is a Solo5 image for the target {}", target.name()),
                "build it for hvt, such as by `mirage configure -t hvt`",
            ),
            Self::Multiboot(version) => (
                format!("it is a Multiboot {version} image"),
                "build it with a Multiboot 1 header or a PVH note, or as an ELF64 file with a \
                 Linux 64-bit entry",
            ),
            Self::Pvh => ("it is a PVH image".into(), "report this: it should run"),
            Self::BzImage => (
                "it is a Linux bzImage, which starts in 16-bit or 32-bit mode".into(),
                "name the ELF file that it was made from (vmlinux), if that is a unikernel: \
                 Linux itself does not run here",
            ),
            Self::Efi => (
                "it is an EFI application, and there is no EFI firmware".into(),
                "build the unikernel as a static ELF64 file",
            ),
            Self::Compressed(by) => (format!("it is compressed, by {by}"), "unpack it first"),
            Self::OtherMachine(machine) => (
                format!("it is for another machine, {}", machine_name(*machine)),
                "build it for x86_64 (ELF64, little-endian)",
            ),
            Self::Elf32 => (
                "it is a 32-bit ELF file without a Multiboot header".into(),
                "build it for x86_64 (ELF64, little-endian)",
            ),
            Self::KernelHalf(address) => (
                format!("it is linked at {address:#x}, where seL4 itself is"),
                "link it below 0xffffff8000000000: kernels of the last 2 GiB, such as Nanos, \
                 cannot run in ring 3 on seL4",
            ),
            Self::Unknown => (
                "it is not an ELF file, nor another image that is known".into(),
                "name a static ELF64 executable, or the folder of a guest's crate",
            ),
        };
        Error::new(cause, help)
    }
}

fn machine_name(machine: elf::Machine) -> String {
    match machine {
        elf::EM_386 => "i386 (32 bits)".into(),
        elf::EM_ARM => "Arm (32 bits)".into(),
        elf::EM_AARCH64 => "AArch64".into(),
        elf::EM_RISCV => "RISC-V".into(),
        elf::EM_PPC64 => "POWER (64 bits)".into(),
        elf::EM_S390 => "s390".into(),
        other => format!("number {} of ELF's list", other.0),
    }
}

/// Returns the version of Multiboot that a file has a header of.
fn multiboot(file: &[u8]) -> Option<u32> {
    if multiboot_header(file).is_some() {
        return Some(1);
    }
    header(file, MULTIBOOT2, MULTIBOOT2_SEARCH, 4).map(|_| 2)
}

/// Returns the offset of a file's Multiboot 1 header.
pub fn multiboot_header(file: &[u8]) -> Option<usize> {
    header(file, MULTIBOOT, MULTIBOOT_SEARCH, 3)
}

/// Returns the offset of a header of `count` words, the first of which is `magic` and
/// whose sum is 0, within the first `bytes` bytes of a file.
fn header(file: &[u8], magic: u32, bytes: usize, count: usize) -> Option<usize> {
    let part = file.get(..file.len().min(bytes))?;
    let places = (0..part.len()).step_by(4);
    places.into_iter().find(|&at| {
        let Some(header) = part.get(at..at + 4 * count) else {
            return false;
        };
        let words = header.chunks_exact(4);
        let mut words = words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let first = words.next();
        first == Some(magic) && words.fold(magic, u32::wrapping_add) == 0
    })
}

/// Returns the 32-bit entry point of an ELF file's PVH note.
pub fn pvh_entry(file: &[u8]) -> Option<u64> {
    fn of<H: FileHeader<Endian = Endianness>>(file: &[u8]) -> Option<u64> {
        facts(H::parse(file).ok()?, file)?.pvh
    }
    of::<elf::FileHeader64<Endianness>>(file).or_else(|| of::<elf::FileHeader32<Endianness>>(file))
}

/// Returns the kind of an ELF file; `None` for one that is broken.
fn elf_kind(file: &[u8], multiboot: Option<u32>) -> Option<Kind> {
    match file.get(4).copied().map(elf::FileClass) {
        Some(elf::ELFCLASS64) => {
            let header = elf::FileHeader64::<Endianness>::parse(file).ok()?;
            facts(header, file)?.kind(true, multiboot)
        }
        Some(elf::ELFCLASS32) => {
            let header = elf::FileHeader32::<Endianness>::parse(file).ok()?;
            facts(header, file)?.kind(false, multiboot)
        }
        _ => None,
    }
}

/// What an ELF file's headers and notes say.
struct Facts {
    machine: elf::Machine,
    solo5: Option<(u32, u32)>,
    /// The entry point of its PVH note.
    pvh: Option<u64>,
    /// Highest virtual address of a segment.
    highest: u64,
    /// The entry point is an address of a segment in physical memory.
    entered: bool,
}

impl Facts {
    fn kind(&self, long: bool, multiboot: Option<u32>) -> Option<Kind> {
        if let Some((target, version)) = self.solo5 {
            let target = Solo5Target::from_number(target);
            // Those of a PC are entered as any other image for one.
            if target != Solo5Target::Virtio || multiboot.is_none() {
                return Some(Kind::Solo5(target, version));
            }
        }
        if let Some(version) = multiboot {
            return Some(Kind::Multiboot(version));
        }
        if !long && self.machine == elf::EM_386 {
            return Some(if self.pvh.is_some() {
                Kind::Pvh
            } else {
                Kind::Elf32
            });
        }
        if !long || self.machine != elf::EM_X86_64 {
            return Some(Kind::OtherMachine(self.machine));
        }
        if self.highest >= KERNEL_HALF {
            return Some(Kind::KernelHalf(self.highest));
        }
        if self.pvh.is_some() && !self.entered {
            return Some(Kind::Pvh);
        }
        Some(Kind::Linux64)
    }
}

fn facts<H: FileHeader>(header: &H, file: &[u8]) -> Option<Facts> {
    let endian = header.endian().ok()?;
    let mut facts = Facts {
        machine: header.e_machine(endian),
        solo5: None,
        pvh: None,
        highest: 0,
        entered: false,
    };
    let entry: u64 = header.e_entry(endian).into();
    for segment in header.program_headers(endian, file).ok()? {
        let start: u64 = segment.p_paddr(endian).into();
        let size: u64 = segment.p_memsz(endian).into();
        match segment.p_type(endian) {
            elf::PT_LOAD => {
                let address: u64 = segment.p_vaddr(endian).into();
                facts.highest = facts.highest.max(address);
                facts.entered |= start <= entry && entry - start < size;
            }
            elf::PT_NOTE => {
                if let Ok(Some(notes)) = segment.notes(endian, file) {
                    notes_of(notes, endian, &mut facts);
                }
            }
            _ => {}
        }
    }
    Some(facts)
}

fn notes_of<H: FileHeader>(mut notes: NoteIterator<'_, H>, endian: H::Endian, facts: &mut Facts) {
    while let Ok(Some(note)) = notes.next() {
        let word = |at: usize| {
            let word: [u8; 4] = note.desc().get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(word))
        };
        match (note.name(), note.n_type(endian)) {
            (b"Solo5", SOLO5_ABI1) => facts.solo5 = word(0).zip(word(4)),
            // Four bytes or eight, of an address below 4 GiB.
            (b"Xen", PVH_ENTRY) => facts.pvh = word(0).map(u64::from),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
