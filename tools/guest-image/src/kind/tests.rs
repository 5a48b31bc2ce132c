use super::*;

/// An ELF file with one segment for memory, and notes.
struct File {
    long: bool,
    machine: elf::Machine,
    address: u64,
    entry: u64,
    notes: Vec<u8>,
    /// Behind everything else.
    tail: Vec<u8>,
}

impl File {
    fn new() -> Self {
        Self {
            long: true,
            machine: elf::EM_X86_64,
            address: 0x10_0000,
            entry: 0x10_0000,
            notes: Vec::new(),
            tail: Vec::new(),
        }
    }

    fn note(mut self, name: &str, number: elf::NoteType, words: &[u32]) -> Self {
        let name = format!("{name}\0");
        let lengths = [name.len() as u32, 4 * words.len() as u32, number.0];
        self.notes
            .extend(lengths.into_iter().flat_map(u32::to_le_bytes));
        self.notes.extend(name.as_bytes());
        self.notes.resize(self.notes.len().next_multiple_of(4), 0);
        self.notes
            .extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Returns the number as an address of this class.
    fn word(&self, value: u64) -> Vec<u8> {
        let bytes = value.to_le_bytes();
        bytes[..if self.long { 8 } else { 4 }].to_vec()
    }

    fn header(&self, kind: elf::ProgramType, address: u64, size: u64, offset: u64) -> Vec<u8> {
        let mut header = kind.0.to_le_bytes().to_vec();
        let flags = 5_u32.to_le_bytes();
        if self.long {
            header.extend(flags);
        }
        for value in [offset, address, address, size, size] {
            header.extend(self.word(value));
        }
        if !self.long {
            header.extend(flags);
        }
        header.extend(self.word(4));
        header
    }

    fn bytes(&self) -> Vec<u8> {
        let (class, size, entry) = if self.long { (2, 64, 56) } else { (1, 52, 32) };
        let mut file = b"\x7fELF".to_vec();
        file.extend([class, 1, 1]);
        file.resize(16, 0);
        file.extend([2, 0]);
        file.extend(self.machine.0.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for value in [self.entry, size, 0] {
            file.extend(self.word(value));
        }
        file.extend([0; 4]);
        for half in [size as u16, entry, 2, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let behind = size + 2 * u64::from(entry);
        file.extend(self.header(elf::PT_LOAD, self.address, 4096, 0));
        file.extend(self.header(elf::PT_NOTE, 0, self.notes.len() as u64, behind));
        file.extend(&self.notes);
        file.extend(&self.tail);
        file.resize(4096, 0);
        file
    }

    fn kind(&self) -> Kind {
        Kind::of(&self.bytes())
    }
}

const HVT: [u32; 4] = [1, 2, 0, 0];

fn multiboot_header() -> Vec<u8> {
    let words = [MULTIBOOT, 3, 0_u32.wrapping_sub(MULTIBOOT + 3)];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn each_kind_of_elf_file_is_known() {
    assert_eq!(File::new().kind(), Kind::Linux64);
    for (number, target) in [
        (1, Solo5Target::Hvt),
        (2, Solo5Target::Spt),
        (3, Solo5Target::Virtio),
        (6, Solo5Target::Xen),
        (9, Solo5Target::Other(9)),
    ] {
        let file = File::new().note("Solo5", SOLO5_ABI1, &[number, 2, 0, 0]);
        assert_eq!(file.kind(), Kind::Solo5(target, 2));
    }
    // A kit guest: a note for bare machines, and a 64-bit entry.
    let kit = File::new().note("Xen", PVH_ENTRY, &[0x10_0000, 0]);
    assert_eq!(kit.kind(), Kind::Linux64);
    let elsewhere = kit.with(|file| file.entry = 0xffff_8000_0010_0000);
    assert_eq!(elsewhere.kind(), Kind::Pvh);
    let long = File::new().with(|file| file.tail = multiboot_header());
    assert_eq!(long.kind(), Kind::Multiboot(1));
    let short = long.with(|file| (file.long, file.machine) = (false, elf::EM_386));
    assert_eq!(short.kind(), Kind::Multiboot(1));
    let plain = short.with(|file| file.tail.clear());
    assert_eq!(plain.kind(), Kind::Elf32);
    let other = File::new().with(|file| file.machine = elf::EM_AARCH64);
    assert_eq!(other.kind(), Kind::OtherMachine(elf::EM_AARCH64));
    let nanos = File::new().with(|file| file.address = 0xffff_ffff_8000_0000);
    assert_eq!(nanos.kind(), Kind::KernelHalf(0xffff_ffff_8000_0000));
}

#[test]
fn a_virtio_image_of_solo5_is_entered_as_a_pc_s() {
    let virtio = File::new().note("Solo5", SOLO5_ABI1, &[3, 1, 0, 0]);
    let virtio = virtio.with(|file| file.tail = multiboot_header());
    assert_eq!(virtio.kind(), Kind::Multiboot(1));
    let hvt = File::new().note("Solo5", SOLO5_ABI1, &HVT);
    let hvt = hvt.with(|file| file.tail = multiboot_header());
    assert_eq!(hvt.kind(), Kind::Solo5(Solo5Target::Hvt, 2));
}

#[test]
fn a_multiboot_header_has_a_checksum_and_a_place() {
    let wrong = File::new().with(|file| {
        file.tail = multiboot_header();
        file.tail[4] += 1;
    });
    assert_eq!(wrong.kind(), Kind::Linux64);
    let raw = |at: usize| {
        let mut file = vec![0; at];
        file.extend(multiboot_header());
        Kind::of(&file)
    };
    assert_eq!(raw(4096), Kind::Multiboot(1));
    assert_eq!(raw(8180), Kind::Multiboot(1));
    assert_eq!(raw(8184), Kind::Unknown);
    assert_eq!(raw(4098), Kind::Unknown);
}

#[test]
fn files_that_are_not_elf_are_known() {
    let mut bz_image = vec![0; 0x400];
    bz_image[..2].copy_from_slice(b"MZ");
    bz_image[0x202..0x206].copy_from_slice(b"HdrS");
    assert_eq!(Kind::of(&bz_image), Kind::BzImage);
    assert_eq!(Kind::of(b"MZ rest"), Kind::Efi);
    assert_eq!(Kind::of(b"\x1f\x8b\x08"), Kind::Compressed("gzip"));
    assert_eq!(Kind::of(b"#!/bin/sh"), Kind::Unknown);
    assert_eq!(Kind::of(b""), Kind::Unknown);
    assert_eq!(Kind::of(b"\x7fELF\x02"), Kind::Unknown);
}

#[test]
fn broken_notes_are_no_notes() {
    let mut file = File::new().note("Solo5", SOLO5_ABI1, &HVT);
    file.notes[0] = 0xff;
    assert_eq!(file.kind(), Kind::Linux64);
    file.notes.truncate(7);
    assert_eq!(file.kind(), Kind::Linux64);
    let short = File::new().note("Solo5", SOLO5_ABI1, &[1]);
    assert_eq!(short.kind(), Kind::Linux64);
}

#[test]
fn each_refusal_names_the_kind() {
    for (kind, words) in [
        (
            Kind::Solo5(Solo5Target::Spt, 1),
            "Solo5 image for the target spt",
        ),
        (Kind::BzImage, "bzImage"),
        (
            Kind::OtherMachine(elf::EM_AARCH64),
            "another machine, AArch64",
        ),
        (
            Kind::KernelHalf(0xffff_ffff_8020_0000),
            "0xffffffff80200000",
        ),
        (Kind::Compressed("xz"), "xz"),
    ] {
        let Error { cause, help } = kind.refusal();
        assert!(cause.contains(words), "{cause}");
        assert!(!help.is_empty());
    }
}
