use super::*;

const RAM: Range<u64> = 0..32 << 20;
const SHIM: u64 = 24 << 20;

fn segment(address: u64, size: u64) -> Segment {
    Segment {
        address,
        size,
        bytes: vec![7; 16],
        writable: false,
        executable: true,
    }
}

fn image(address: u64, size: u64) -> Foreign {
    Foreign {
        entry: address,
        segments: vec![segment(address, size)],
    }
}

fn shim() -> Vec<u8> {
    system::elf_file(SHIM + 0x10_0010, &[segment(SHIM + 0x10_0000, 0x1000)])
}

fn refused(image: &Foreign, ram: &Range<u64>) -> String {
    let Error { cause, help } = merge(image, &shim(), ram, b"", b"", None).unwrap_err();
    format!("{cause} / {help}")
}

#[test]
fn all_parts_are_in_the_file_and_the_shim_is_entered() {
    let mut two = image(0x10_0000, 0x2000);
    two.segments.push(segment(0x10_2000, 0x1_0000));
    let file = merge(&two, &shim(), &RAM, b"line", b"payload", None).unwrap();
    let read = Foreign::from_elf(&file).unwrap();
    assert_eq!(read.entry, SHIM + 0x10_0010);
    let [first, second, shim, block] = &read.segments[..] else {
        panic!("{read:?}");
    };
    assert_eq!([first, second], [&two.segments[0], &two.segments[1]]);
    assert_eq!(shim.address, SHIM + 0x10_0000);
    assert_eq!(block.address, SHIM + HANDOFF_OFFSET);
    let (head, line, payload) = Handoff::parse(&block.bytes).unwrap();
    assert_eq!((line, payload), (&b"line"[..], &b"payload"[..]));
    assert_eq!(
        (head.entry, head.ram_start, head.ram_end),
        (0x10_0000, 0, SHIM)
    );
    assert_eq!((head.image_start, head.image_end), (0x10_0000, 0x11_2000));
}

#[test]
fn each_place_where_an_image_cannot_lie_is_named() {
    let low = refused(&image(0x8000, 0x1000), &RAM);
    assert!(
        low.contains("0x8000 to 0x9000") && low.contains("first 64 KiB"),
        "{low}"
    );
    let over = refused(&image(SHIM - 0x1000, 0x1001), &RAM);
    assert!(
        over.contains("0x1800000 to 0x2000000") && over.contains("shim"),
        "{over}"
    );
    assert!(merge(&image(SHIM - 0x1000, 0x1000), &shim(), &RAM, b"", b"", None).is_ok());
    let past = refused(&image(32 << 20, 0x1000), &RAM);
    assert!(
        past.contains("not in the guest's RAM") && past.contains("more `memory`"),
        "{past}"
    );
    let before = refused(&image(0x10_0000, 0x1000), &(0x200_0000..0x400_0000));
    assert!(before.contains("`address = 0`"), "{before}");
    let small = refused(&image(0x10_0000, 0x1000), &(0..8 << 20));
    assert!(
        small.contains("takes 8 MiB, but the guest has 8 MiB"),
        "{small}"
    );
}

#[test]
fn a_block_that_is_too_large_is_refused() {
    let payload = vec![0; HANDOFF_SIZE];
    let error = merge(
        &image(0x10_0000, 0x1000),
        &shim(),
        &RAM,
        b"",
        &payload,
        None,
    )
    .unwrap_err();
    assert!(error.cause.contains("handed to its shim"), "{error:?}");
}

#[test]
fn broken_files_are_refused() {
    let whole = system::elf_file(0, &[segment(0x10_0000, 0x1000)]);
    assert!(Foreign::from_elf(&whole).is_ok());
    let mut short = whole.clone();
    short.truncate(whole.len() - 1);
    let empty = system::elf_file(0, &[]);
    let mut wraps = whole.clone();
    // p_paddr of the only program header.
    wraps[64 + 24..][..8].copy_from_slice(&(u64::MAX - 0xfff).to_le_bytes());
    let mut longer = whole;
    // p_memsz below p_filesz.
    longer[64 + 40..][..8].copy_from_slice(&8_u64.to_le_bytes());
    for file in [
        &short,
        &empty,
        &wraps,
        &longer,
        &b"\x7fELF".to_vec(),
        &Vec::new(),
    ] {
        assert!(Foreign::from_elf(file).is_err());
    }
}

#[test]
fn a_32_bit_file_is_read_too() {
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    for word in [0x10_0020_u32, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // Type, offset, both addresses, both sizes, rights, alignment.
    for word in [1_u32, 84, 0x8010_0000, 0x10_0000, 4, 0x3000, 7, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"code");
    let read = Foreign::from_elf(&file).unwrap();
    assert_eq!(read.entry, 0x10_0020);
    assert_eq!(read.range(), 0x10_0000..0x10_3000);
    let [only] = &read.segments[..] else {
        panic!("{read:?}");
    };
    assert!(only.writable && only.executable && only.bytes == b"code");
}
