//! Loaders' information as GRUB writes it, and machines as firmware describes them.

extern crate std;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::information::{self, MAGIC_ONE, Told};
use crate::*;

/// Bytes of the tags' list.
fn tag(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(kind.to_le_bytes());
    bytes.extend((body.len() as u32 + 8).to_le_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(8), 0xee);
    bytes
}

const RAM: u32 = 1;
const RESERVED: u32 = 2;
const SLEEP: u32 = 4;

fn memory(entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut body = Vec::from([24, 0, 0, 0, 0, 0, 0, 0]);
    for (start, end, kind) in entries {
        body.extend(start.to_le_bytes());
        body.extend((end - start).to_le_bytes());
        body.extend(u64::from(*kind).to_le_bytes());
    }
    tag(6, &body)
}

fn map(entries: &[(u64, u64, u32)]) -> Map {
    let bytes = memory(entries);
    Information::new(&bytes).memory().unwrap()
}

fn region(start: u64, end: u64) -> Region {
    Region { start, end }
}

/// As OVMF describes a machine of 512 MiB that can sleep: pieces that touch, and some that
/// are kept.
const OVMF: &[(u64, u64, u32)] = &[
    (0, 0x1000, RAM),
    (0x1000, 0xa_0000, RAM),
    (0x10_0000, 0x80_0000, RAM),
    (0x80_0000, 0x80_8000, SLEEP),
    (0x80_8000, 0x80_b000, RAM),
    (0x80_b000, 0x80_c000, SLEEP),
    (0x80_c000, 0x81_0000, RAM),
    (0x81_0000, 0x90_0000, SLEEP),
    (0x90_0000, 0x150_0000, RAM),
    (0x150_0000, 0x14a2_3000, RAM),
    (0x14a2_3000, 0x1eeb_a000, RAM),
    (0x1eeb_a000, 0x1ef7_b000, RESERVED),
    (0x1ef7_b000, 0x1f8e_d000, RAM),
    (0xb000_0000, 0xc000_0000, RESERVED),
];

#[test]
fn pieces_that_touch_are_one_and_what_is_kept_is_not_there() {
    let regions = map(OVMF).for_kernel();
    let expected = [
        region(0x10_0000, 0x80_0000),
        region(0x80_8000, 0x80_b000),
        region(0x80_c000, 0x81_0000),
        region(0x90_0000, 0x1eeb_a000),
        region(0x1ef7_b000, 0x1f8e_d000),
    ];
    assert_eq!(regions, expected);
    // What is kept wins, wherever it stands in the list, and in the middle of RAM.
    let kept = map(&[
        (0x20_0000, 0x30_0000, RESERVED),
        (0x10_0000, 0x50_0000, RAM),
    ]);
    let expected = [region(0x10_0000, 0x20_0000), region(0x30_0000, 0x50_0000)];
    assert_eq!(kept.for_kernel(), expected);
}

#[test]
fn the_kernel_gets_the_largest_pieces_in_order() {
    // 40 pieces of growing size, each with a gap behind it, and a part of a page.
    let pieces: Vec<(u64, u64, u32)> = (0..40u64)
        .map(|n| {
            (
                0x10_0000 + (n << 20),
                0x10_0000 + (n << 20) + (n << 12) + 0x123,
                RAM,
            )
        })
        .collect();
    let regions = map(&pieces).for_kernel();
    assert_eq!(regions.len(), REGIONS);
    for (region, n) in regions.iter().zip(24u64..) {
        let start = 0x10_0000 + (n << 20);
        assert_eq!(
            *region,
            Region {
                start,
                end: start + (n << 12)
            }
        );
    }
}

#[test]
fn the_low_page_is_the_last_that_firmware_has_given_up() {
    assert_eq!(map(OVMF).low_page(), Ok(0x9_f000));
    // A BIOS keeps what is behind 0x9fc00.
    let bios = map(&[(0, 0x9_fc00, RAM), (0x9_fc00, 0xa_0000, RESERVED)]);
    assert_eq!(bios.low_page(), Ok(0x9_e000));
    // The first has the firmware's variables, and nothing is where the screen is.
    assert_eq!(map(&[(0, 0x1fff, RAM)]).low_page(), Err(Trouble::NoLowPage));
    let above = map(&[(0xb_0000, 0x50_0000, RAM)]);
    assert_eq!(above.low_page(), Err(Trouble::NoLowPage));
}

#[test]
fn what_does_not_fit_is_named_before_the_kernel_starts() {
    let regions = map(OVMF).for_kernel();
    let small = region(0x10_0000, 0x72_e000);
    let module = region(0x202_0000, 0x216_0000);
    assert_eq!(check(&regions, small, module, 0x18_7000), Ok(()));
    // A kernel that reaches into memory that firmware keeps for sleep.
    let large = region(0x10_0000, 0xa1_2000);
    assert_eq!(
        check(&regions, large, module, 0x18_7000),
        Err(Trouble::Taken(large))
    );
    let awake: Vec<_> = OVMF
        .iter()
        .map(|(start, end, kind)| (*start, *end, if *kind == SLEEP { RAM } else { *kind }))
        .collect();
    let regions = map(&awake).for_kernel();
    assert_eq!(check(&regions, large, module, 0x18_7000), Ok(()));
    // No room behind init's file, or none between the kernel and it.
    let short = [region(0x10_0000, 0x216_0000)];
    assert!(matches!(
        check(&short, small, module, 0x1000),
        Err(Trouble::Taken(_))
    ));
    // The kernel wants a byte behind init's memory.
    let exact = region(0x10_0000, 0x216_1000);
    let longer = Region {
        end: exact.end + 1,
        ..exact
    };
    assert!(check(&[exact], small, module, 0x1000).is_err());
    assert_eq!(check(&[longer], small, module, 0x1000), Ok(()));
    let split = [region(0x10_0000, 0x72_e000), region(0x200_0000, 0x800_0000)];
    let none = Err(Trouble::NoRoom(0x18_7000, 0x72_e000));
    assert_eq!(check(&split, small, module, 0x18_7000), none);
}

#[test]
fn lists_that_make_no_sense_are_read_to_their_end_and_no_further() {
    assert_eq!(Information::new(&[]).memory(), Err(Trouble::Unknown));
    for bytes in [
        // A length of nothing, of half a head, beyond the list.
        [6, 0, 0, 0, 0, 0, 0, 0],
        [6, 0, 0, 0, 7, 0, 0, 0],
        [6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ] {
        let information = Information::new(&bytes);
        assert_eq!(information.memory(), Err(Trouble::Unknown));
        assert_eq!(information.root_pointer(), None);
        assert_eq!(information.screen(), None);
    }
    // Entries of a size that none has, and addresses beyond all.
    let short = tag(6, &[8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(Information::new(&short).memory(), Err(Trouble::Unknown));
    let mut beyond = memory(&[(0x10_0000, 0x20_0000, RAM)]);
    beyond[16..24].fill(0xff);
    let regions = Information::new(&beyond).memory().unwrap().for_kernel();
    assert!(regions.is_empty());
    let many: Vec<_> = (0..600u64)
        .map(|n| (n << 21, (n << 21) + 0x1000, RAM))
        .collect();
    let bytes = memory(&many);
    assert_eq!(Information::new(&bytes).memory(), Err(Trouble::TooMany));
}

fn screen(address: u64, [pitch, width, height]: [u32; 3], bits: u8, kind: u8) -> Vec<u8> {
    let mut body = Vec::from(address.to_le_bytes());
    for value in [pitch, width, height] {
        body.extend(value.to_le_bytes());
    }
    body.extend([bits, kind, 0, 0, 16, 8, 8, 8, 0, 8]);
    tag(8, &body)
}

#[test]
fn a_screen_of_text_is_used_if_it_is_the_usual_one() {
    let text = |address, size, kind| Information::new(&screen(address, size, 16, kind)).screen();
    assert_eq!(text(0xb_8000, [160, 80, 25], 2), Some(Screen::Text));
    assert_eq!(text(0xb_8000, [160, 80, 50], 2), Some(Screen::Text));
    for (address, size, kind) in [
        (0x10_0000, [160, 80, 25], 2),
        (0xb_8000, [80, 40, 25], 2),
        (0xb_8000, [160, 80, 24], 2),
        (0xb_8000, [160, 80, 25], 0),
        (0xb_8000, [160, 80, 25], 3),
    ] {
        assert_eq!(
            text(address, size, kind),
            None,
            "{address:#x} {size:?} {kind}"
        );
    }
}

#[test]
fn a_framebuffer_is_used_if_it_is_in_no_memory() {
    const USUAL: [u32; 3] = [5120, 1280, 800];
    let map = memory(&[
        (0x10_0000, 0x1000_0000, RAM),
        (0xf000_0000, 0xf100_0000, RESERVED),
        (0x1_0000_0000, 0x2_0000_0000, RAM),
    ]);
    let at = |address, bits| {
        let bytes = [map.clone(), screen(address, USUAL, bits, 1)].concat();
        Information::new(&bytes).screen()
    };
    for address in [0x8000_0000, 0xf000_0000, 0x38_0000_0000] {
        let Some(Screen::Points(points)) = at(address, 32) else {
            panic!("none at {address:#x}");
        };
        assert_eq!((points.address, points.bits), (address, 32));
        assert_eq!([points.pitch, points.width, points.height], USUAL);
        let colours = points.colours.map(|colour| (colour.first, colour.bits));
        assert_eq!(colours, [(16, 8), (8, 8), (0, 8)]);
    }
    for address in [0x20_0000, 0xfff_f000, 0xffff_f000, u64::MAX - 3] {
        assert_eq!(at(address, 32), None, "{address:#x}");
    }
    // Absurd ones, and some that are cut short anywhere.
    assert_eq!(at(0x8000_0000, 8), None);
    let whole = screen(0x8000_0000, USUAL, 32, 1);
    for length in 0..38 {
        let mut bytes = whole.clone();
        bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        assert_eq!(Information::new(&bytes).screen(), None, "{length}");
        assert_eq!(
            Information::new(&whole[..length]).screen(),
            None,
            "{length}"
        );
    }
    let ones = tag(8, &[0xff; 40]);
    assert_eq!(Information::new(&ones).screen(), None);
}

/// Memory with a root pointer at an address, or none.
struct Low(Option<u64>);

fn pointer() -> [u8; POINTER] {
    let mut bytes = [0; POINTER];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[16..20].copy_from_slice(&0x1fb7_e000u32.to_le_bytes());
    bytes[8] = bytes
        .iter()
        .fold(0u8, |sum, b| sum.wrapping_add(*b))
        .wrapping_neg();
    bytes
}

impl acpi_tables::PhysicalMemory for Low {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        bytes.fill(0);
        if Some(address) == self.0 {
            let all = pointer();
            bytes.copy_from_slice(&all[..bytes.len()]);
        }
        true
    }
}

#[test]
fn the_root_pointer_is_copied_where_there_is_none() {
    let old = tag(14, &pointer()[..20]);
    let both = [old.clone(), tag(15, &pointer())].concat();
    let newer = Information::new(&both).root_pointer().unwrap();
    assert_eq!(newer, pointer());
    let place = root_place(&mut Low(None), newer, 0x9_f000).unwrap();
    assert_eq!((place.address, place.segment), (0x9_f000, 0x9f00));
    assert_eq!(place.bytes, pointer());
    let older = Information::new(&old).root_pointer().unwrap();
    let place = root_place(&mut Low(None), older, 0x9_f000).unwrap();
    assert_eq!(place.bytes[..20], pointer()[..20]);
    assert_eq!(place.bytes[20..], [0; 16]);
    // A BIOS has one already: nothing of its memory is written.
    assert_eq!(root_place(&mut Low(Some(0xf_5a80)), newer, 0x9_f000), None);
    // Cut short.
    assert_eq!(root_place(&mut Low(None), &newer[..10], 0x9_f000), None);
    assert!(has_rsdt(newer) && !has_rsdt(&[0; POINTER]));
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn qword(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

const AT: u32 = 0x1e1_0000;

fn told<'a>(memory: &'a [Region], root: &'a [u8]) -> Told<'a> {
    Told {
        command_line: b"disable_iommu",
        module: region(0x200_0000, 0x212_3456),
        memory,
        root: Some(root),
    }
}

#[test]
fn the_older_information_is_what_5_0_0_reads() {
    let memory = [region(0x10_0000, 0x80_0000), region(0x90_0000, 1 << 33)];
    let mut out = [0; 512];
    let root = pointer();
    let told = told(&memory, &root);
    let magic = information::write(Protocol::One, &told, AT, &mut out);
    assert_eq!(magic, Some(MAGIC_ONE));
    // Memory, command line, modules, memory map; nothing about a screen (bits 11 and 12).
    assert_eq!(dword(&out, 0), 0b100_1101);
    let at = |field: usize| (dword(&out, field) - AT) as usize;
    assert_eq!(&out[at(16)..][..14], b"disable_iommu\0");
    assert_eq!(dword(&out, 20), 1);
    let module = at(24);
    assert_eq!(dword(&out, module), 0x200_0000);
    assert_eq!(dword(&out, module + 4), 0x212_3456);
    assert_eq!(dword(&out, 44), 48);
    let map = at(48);
    for (n, region) in memory.iter().enumerate() {
        let entry = map + 24 * n;
        assert_eq!(dword(&out, entry), 20);
        assert_eq!(qword(&out, entry + 4), region.start);
        assert_eq!(qword(&out, entry + 12), region.end - region.start);
        assert_eq!(dword(&out, entry + 20), 1);
    }
    assert_eq!(out[52..120], [0; 68]);
    assert_eq!(
        information::write(Protocol::One, &told, AT, &mut [0; 100]),
        None
    );
}

#[test]
fn the_newer_information_is_read_back_as_it_was_told() {
    let memory = [region(0x10_0000, 0x80_0000), region(0x90_0000, 1 << 33)];
    let root = pointer();
    for root in [&root[..], &root[..20]] {
        let mut out = [0; 512];
        let told = told(&memory, root);
        let magic = information::write(Protocol::Two, &told, AT, &mut out);
        assert_eq!(magic, Some(MAGIC));
        let length = dword(&out, 0) as usize;
        let read = Information::new(&out[8..length]);
        assert_eq!(read.root_pointer(), Some(root));
        // An older pointer has a type of its own.
        let kind = if root.len() < POINTER { 14 } else { 15 };
        let mut heads = out[8..length].chunks_exact(8);
        assert!(
            heads.any(|head| dword(head, 0) == kind && dword(head, 4) == 8 + root.len() as u32)
        );
        assert_eq!(read.memory().unwrap().for_kernel(), memory);
        // The command line, in a tag of its own, is the first; the end is the last.
        assert_eq!((dword(&out, 8), dword(&out, 12)), (1, 22));
        assert_eq!(&out[16..30], b"disable_iommu\0");
        assert_eq!(dword(&out, length - 8), 0);
        assert_eq!(dword(&out, length - 4), 8);
    }
}

#[test]
fn each_feature_that_is_missing_is_named() {
    let bundled = |option: &str| ["HUGE_PAGE", "FSGSBASE_INST", "SYSCALL"].contains(&option);
    let needed = cpu::needed(bundled);
    let names = |cpuid: fn(u32, u32) -> [u32; 4]| -> Vec<String> {
        let missing = cpu::missing(needed, cpuid);
        missing.map(|feature| feature.name.to_string()).collect()
    };
    assert!(names(|_, _| [u32::MAX; 4]).is_empty());
    // QEMU's qemu64, which has neither; leaf 7 is there.
    let qemu64 = names(|leaf, _| match leaf {
        0x8000_0001 => [0, 0, 0, !(1 << 26)],
        7 => [0, !1, 0, 0],
        _ => [u32::MAX; 4],
    });
    assert_eq!(
        qemu64,
        [
            "pages of 1 GiB (pdpe1gb)",
            "instructions for the FS and GS base (fsgsbase)"
        ]
    );
    // A CPU that has fewer leaves answers those of another one.
    let old = names(|leaf, _| match leaf {
        0 => [6, 0, 0, 0],
        _ => [u32::MAX; 4],
    });
    assert_eq!(old, ["instructions for the FS and GS base (fsgsbase)"]);
    // What every kernel needs, whatever its options.
    let apic = |edx: u32| move |leaf: u32, _| [leaf & 0x8000_0000 | 7, 0, 0, edx];
    let lacking = |edx| cpu::missing(cpu::needed(|_| false), apic(edx)).count();
    assert_eq!((lacking(0), lacking(1 << 9)), (1, 0));
    let pcid = cpu::needed(|option| option == "SUPPORT_PCID");
    assert_eq!(
        cpu::missing(pcid, |_, _| [u32::MAX, 0, 0, 1 << 9]).count(),
        2
    );
    // A bit of a leaf's second part.
    let forms = cpu::needed(|option| ["XSAVE_XSAVEOPT", "XSAVE_XSAVES"].contains(&option));
    let second = |eax: u32| {
        move |leaf, subleaf| match (leaf, subleaf) {
            (0xd, 1) => [eax, 0, 0, 0],
            (0xd, _) => [0; 4],
            _ => [u32::MAX; 4],
        }
    };
    let lacking = |eax| -> Vec<&str> {
        let missing = cpu::missing(forms, second(eax));
        missing.map(|feature| feature.name).collect()
    };
    assert_eq!(lacking(0), ["XSAVEOPT (xsaveopt)", "XSAVES (xsaves)"]);
    assert_eq!(lacking(1 | 1 << 1), ["XSAVES (xsaves)"]);
    assert!(lacking(1 | 1 << 3).is_empty());
}

#[test]
fn the_kernel_s_place_is_that_of_its_segments() {
    let mut handoff = Handoff::empty();
    assert_eq!(handoff.kernel(), (0, 0));
    let segment = |to, size| Segment {
        to,
        size,
        ..Segment::default()
    };
    handoff.segments[0] = segment(0x10_0000, 0x6000);
    handoff.segments[1] = segment(0x70_e000, 0x2_0000);
    assert_eq!(handoff.kernel(), (0x10_0000, 0x72_e000));
    assert_eq!(handoff.segments().count(), 2);
    assert_eq!(text(b"5.0.0,bundled\0\0"), "5.0.0,bundled");
    let said = format!("{}", Trouble::Taken(region(0x10_0000, 0x20_0000)));
    assert!(said.contains("0x100000-0x1fffff"), "{said}");
}

#[test]
fn each_feature_has_the_name_of_a_flag() {
    let flags: Vec<&str> = cpu::flags(u64::MAX).collect();
    assert_eq!(flags.len(), cpu::FEATURES.len());
    assert_eq!(flags[..2], ["pdpe1gb", "fsgsbase"]);
    assert_eq!(cpu::flags(1 << 2).collect::<Vec<_>>(), ["apic"]);
}
