//! Headers and what becomes of them.

use spec::shim::{HANDOFF_OFFSET, Handoff};
use system::Boot;
use zerocopy::FromBytes as _;

use super::*;

const MIB: u64 = 1 << 20;

/// Returns a file that is no ELF file, with a header at offset 64 that asks for these
/// flags, and these addresses.
fn raw(flags: u32, addresses: [u32; 5]) -> Vec<u8> {
    let mut file = vec![0x90; 64];
    let magic = 0x1bad_b002u32;
    let sum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    for word in [magic, flags, sum].into_iter().chain(addresses) {
        file.extend(word.to_le_bytes());
    }
    file.resize(4096, 0x42);
    file
}

/// Loaded at 1 MiB, with its header 64 bytes behind; 0x2000 bytes in memory.
const ADDRESSES: [u32; 5] = [0x10_0040, 0x10_0000, 0x10_0800, 0x10_2000, 0x10_0060];

fn guest() -> Guest<'static> {
    Guest {
        ram: 0..32 * MIB,
        name: "image",
        command_line: "a b",
        pc: false,
        rewritten: true,
        boot: Boot::Auto,
        modules: Vec::new(),
        solo5: None,
        place: "",
    }
}

/// A shim's file: one segment in its RAM.
fn shim() -> Vec<u8> {
    let segment = Segment {
        address: 25 * MIB,
        size: 16,
        bytes: vec![0xf4; 16],
        writable: false,
        executable: true,
    };
    system::elf_file(25 * MIB, &[segment])
}

fn refused(result: Result<impl Sized, Error>) -> String {
    match result {
        Ok(_) => panic!("it is accepted"),
        Err(error) => error.cause,
    }
}

fn segment_at(file: &[u8], address: u64) -> Segment {
    let image = Foreign::from_elf(file).unwrap();
    let mut segments = image.segments.into_iter();
    segments.find(|segment| segment.address == address).unwrap()
}

#[test]
fn addresses_in_the_header_come_first() {
    let image = multiboot(&raw(ADDRESSES_AND_ALL, ADDRESSES)).unwrap();
    assert_eq!(image.entry, 0x10_0060);
    let [segment] = &image.segments[..] else {
        panic!("{image:?}")
    };
    assert_eq!((segment.address, segment.size), (0x10_0000, 0x2000));
    assert_eq!(segment.bytes, raw(ADDRESSES_AND_ALL, ADDRESSES)[..0x800]);
    // The whole file, and nothing to zero.
    let [header, start, .., entry] = ADDRESSES;
    let image = multiboot(&raw(ADDRESSES_AND_ALL, [header, start, 0, 0, entry])).unwrap();
    assert_eq!(
        (image.segments[0].size, image.segments[0].bytes.len()),
        (4096, 4096)
    );
}

const ADDRESSES_AND_ALL: u32 = ADDRESSES_FLAG | 3;
const ADDRESSES_FLAG: u32 = 1 << 16;

#[test]
fn wrong_headers() {
    assert!(refused(multiboot(&[0; 4096])).contains("no Multiboot 1 header"));
    assert!(refused(multiboot(&raw(4, ADDRESSES))).contains("video mode"));
    assert!(refused(multiboot(&raw(1 << 5, ADDRESSES))).contains("flags 0x20"));
    assert!(refused(multiboot(&raw(0, ADDRESSES))).contains("no addresses"));
    let [header, start, load_end, zero_end, entry] = ADDRESSES;
    for addresses in [
        [start - 1, start, load_end, zero_end, entry],
        [header + 1, start, load_end, zero_end, entry],
        [header, start, start - 1, zero_end, entry],
        [header, start, start + 8192, zero_end, entry],
        [header, start, load_end, start - 1, entry],
    ] {
        let cause = refused(multiboot(&raw(ADDRESSES_AND_ALL, addresses)));
        assert!(cause.contains("contradict"), "{addresses:x?}: {cause}");
    }
}

#[test]
fn an_entry_out_of_the_image() {
    let [header, start, load_end, zero_end, _] = ADDRESSES;
    let file = raw(
        ADDRESSES_AND_ALL,
        [header, start, load_end, zero_end, zero_end],
    );
    let cause = refused(prepare(&file, &Kind::Multiboot(1), &guest(), &shim()));
    assert!(cause.contains("0x102000"), "{cause}");
    assert!(refused(pvh_image(&file)).contains("no PVH note"));
}

#[test]
fn modules_tables_and_the_block() {
    let file = raw(ADDRESSES_AND_ALL, ADDRESSES);
    let guest = Guest {
        pc: true,
        modules: vec![("one".into(), vec![1; 5000]), ("two".into(), vec![2; 3])],
        ..guest()
    };
    let merged = prepare(&file, &Kind::Multiboot(1), &guest, &shim()).unwrap();
    let limit = 24 * MIB;
    let one = segment_at(&merged, limit - 8192);
    assert_eq!(one.bytes, vec![1; 5000]);
    assert_eq!(segment_at(&merged, limit - 12288).bytes, [2; 3]);
    assert_eq!(
        segment_at(&merged, spec::acpi::RSDP).bytes[..8],
        *b"RSD PTR "
    );
    let block = segment_at(&merged, limit + HANDOFF_OFFSET).bytes;
    let (head, line, payload) = Handoff::parse(&block).unwrap();
    assert_eq!(
        (head.entry, head.ram_end, line),
        (0x10_0060, limit, &b"image a b"[..])
    );
    let (boot, rest) = Boot32::read_from_prefix(payload).unwrap();
    let expected = Boot32 {
        protocol: protocol::MULTIBOOT,
        modules: 2,
        rsdp: 0xf_0000,
        ram_end: 32 * MIB,
        rewritten: 1,
    };
    assert_eq!(boot, expected);
    let (first, _) = Boot32Module::read_from_prefix(rest).unwrap();
    assert_eq!(
        (first.start, first.end),
        (limit - 8192, limit - 8192 + 5000)
    );
    assert!(rest.ends_with(b"onetwo"));
}

#[test]
fn modules_that_do_not_fit() {
    let file = raw(ADDRESSES_AND_ALL, ADDRESSES);
    for size in [24 * MIB, 30 * MIB] {
        let guest = Guest {
            modules: vec![("big".into(), vec![0; size as usize])],
            ..guest()
        };
        let cause = refused(prepare(&file, &Kind::Multiboot(1), &guest, &shim()));
        assert!(cause.contains("big"), "{cause}");
    }
}
