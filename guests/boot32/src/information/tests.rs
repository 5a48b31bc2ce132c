//! The information, read back as an image reads it.

extern crate std;

use std::vec;
use std::vec::Vec;

use zerocopy::IntoBytes as _;

use super::*;

const ADDRESS: u32 = 0x30_0000;
const MIB: u64 = 1 << 20;

fn block(protocol: u32, modules: &[(u64, u64, &str)]) -> Vec<u8> {
    let boot = Boot32 {
        protocol,
        modules: modules.len() as u32,
        rsdp: 0xe_0000,
        ram_end: 32 * MIB,
        rewritten: 0,
    };
    let mut payload = boot.as_bytes().to_vec();
    for &(start, end, name) in modules {
        let name = name.len() as u64;
        payload.extend(Boot32Module { start, end, name }.as_bytes());
    }
    for (_, _, name) in modules {
        payload.extend(name.as_bytes());
    }
    let head = Handoff::new(MIB, (MIB, 2 * MIB), (0, 24 * MIB)).with(5, payload.len() as u64);
    [head.as_bytes(), b"a=1 b", &payload].concat()
}

/// Written information, by the image's addresses.
struct Read(Vec<u8>);

impl Read {
    fn new(block: &[u8]) -> (Self, (u32, u32)) {
        let mut room = vec![0xaa; 4096];
        let facts = Facts::parse(block).expect("a block");
        let registers = facts.write(&mut room, ADDRESS).expect("room");
        (Self(room), registers)
    }

    fn word(&self, address: u32) -> u32 {
        let at = (address - ADDRESS) as usize;
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn long(&self, address: u32) -> u64 {
        u64::from(self.word(address + 4)) << 32 | u64::from(self.word(address))
    }

    fn text(&self, address: u32) -> &str {
        let text = &self.0[(address - ADDRESS) as usize..];
        let end = text.iter().position(|&byte| byte == 0).unwrap();
        str::from_utf8(&text[..end]).unwrap()
    }
}

#[test]
fn multiboot() {
    let modules = [
        (20 * MIB, 20 * MIB + 5, "initrd"),
        (21 * MIB, 22 * MIB, "b"),
    ];
    let (read, (eax, info)) = Read::new(&block(protocol::MULTIBOOT, &modules));
    assert_eq!(eax, 0x2bad_b002);
    assert_eq!(read.word(info), 0x24d);
    assert_eq!(read.word(info + 4), 640);
    assert_eq!(read.word(info + 8), 23 * 1024);
    assert_eq!(read.text(read.word(info + 16)), "a=1 b");
    assert_eq!(read.text(read.word(info + 64)), "Vectis");
    assert_eq!(read.word(info + 20), 2);
    let list = read.word(info + 24);
    assert_eq!(read.word(list), 20 << 20);
    assert_eq!(read.word(list + 4), (20 << 20) + 5);
    assert_eq!(read.text(read.word(list + 8)), "initrd");
    assert_eq!(read.text(read.word(list + 24)), "b");
    let (length, map) = (read.word(info + 44), read.word(info + 48));
    let entries: Vec<_> = (0..length / 24)
        .map(|index| map + 24 * index)
        .map(|at| {
            assert_eq!(read.word(at), 20);
            (read.long(at + 4), read.long(at + 12), read.word(at + 20))
        })
        .collect();
    let expected = [
        (0x1000, 0x9_f000, 1),
        (0xf_0000, 0x1_0000, 2),
        (MIB, 23 * MIB, 1),
        (24 * MIB, 8 * MIB, 2),
        (0xfef0_0000, MIB, 2),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn pvh() {
    let (read, (_, info)) = Read::new(&block(protocol::PVH, &[(20 * MIB, 21 * MIB, "m")]));
    assert_eq!((read.word(info), read.word(info + 4)), (0x336e_c578, 1));
    assert_eq!((read.word(info + 8), read.word(info + 12)), (0, 1));
    let list = read.long(info + 16) as u32;
    assert_eq!((read.long(list), read.long(list + 8)), (20 * MIB, MIB));
    assert_eq!(read.text(read.long(list + 16) as u32), "m");
    assert_eq!(read.text(read.long(info + 24) as u32), "a=1 b");
    assert_eq!(read.long(info + 32), 0xe_0000);
    assert_eq!(read.word(info + 48), 5);
    let map = read.long(info + 40) as u32;
    assert_eq!((read.long(map + 48), read.long(map + 56)), (MIB, 23 * MIB));
    assert_eq!(read.word(map + 64), 1);
    let window = (
        read.long(map + 96),
        read.long(map + 104),
        read.word(map + 112),
    );
    assert_eq!(window, (0xfef0_0000, MIB, 2));
}

#[test]
fn a_block_that_is_not_for_this_shim() {
    assert!(Facts::parse(&[0; 64]).is_none());
    assert!(Facts::parse(&block(7, &[])).is_none());
    let whole = block(protocol::PVH, &[]);
    assert!(Facts::parse(&whole[..whole.len() - 1]).is_none());
}

#[test]
fn modules_that_the_block_does_not_have_are_left_out() {
    let mut lying = block(protocol::MULTIBOOT, &[(MIB, MIB, "x")]);
    let at = size_of::<Handoff>() + 5;
    assert_eq!(
        lying[at..at + 8],
        [1, 0, 0, 0, 1, 0, 0, 0],
        "protocol and count"
    );
    lying[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let (read, (_, info)) = Read::new(&lying);
    assert!(read.word(info + 20) <= 1);
}

#[test]
fn too_little_room_is_none() {
    for protocol in [protocol::MULTIBOOT, protocol::PVH] {
        let block = block(protocol, &[(MIB, 2 * MIB, "name")]);
        let facts = Facts::parse(&block).unwrap();
        let fits = (0..4096).find(|&size| facts.write(&mut vec![0; size], 0).is_some());
        assert!(
            fits.is_some_and(|size| (100..400).contains(&size)),
            "{fits:?}"
        );
    }
}
