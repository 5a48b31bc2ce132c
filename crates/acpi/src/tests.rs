//! Hand-made tables, sound and broken.

extern crate std;
use std::vec::Vec;

use super::*;

const NIC: u16 = 0x0010;
const POINTER: u64 = 0xf_5a80;
const XSDT: u64 = 0x1000;
const RSDT: u64 = 0x2000;
const TABLE: u64 = 0x3000;

/// Pieces of memory.
#[derive(Clone, Default)]
struct Machine(Vec<(u64, Vec<u8>)>);

impl PhysicalMemory for Machine {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let piece = self.0.iter().find_map(|(start, piece)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            piece.get(offset..offset.checked_add(bytes.len())?)
        });
        piece.map(|piece| bytes.copy_from_slice(piece)).is_some()
    }
}

fn fix(bytes: &mut [u8], place: usize) {
    bytes[place] = 0;
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[place] = sum.wrapping_neg();
}

/// A table: head, `more` bytes of head, contents.
fn table(signature: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(*signature);
    bytes.extend((36 + contents.len() as u32).to_le_bytes());
    bytes.resize(36, 0);
    bytes.extend(contents);
    fix(&mut bytes, 9);
    bytes
}

fn pointer(revision: u8) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0VECTIS".to_vec();
    bytes.truncate(15);
    bytes.push(revision);
    bytes.extend((RSDT as u32).to_le_bytes());
    fix(&mut bytes, 8);
    bytes.extend(36u32.to_le_bytes());
    bytes.extend(XSDT.to_le_bytes());
    bytes.resize(36, 0);
    fix(&mut bytes, 32);
    bytes
}

/// A machine with one table of interest and one before it.
fn machine(revision: u8, of_interest: Vec<u8>) -> Machine {
    let other = table(b"APIC", &[1, 2, 3]);
    let addresses = [0x9000, TABLE];
    let narrow: Vec<u8> = addresses
        .iter()
        .flat_map(|a| (*a as u32).to_le_bytes())
        .collect();
    let wide: Vec<u8> = addresses
        .iter()
        .flat_map(|a: &u64| a.to_le_bytes())
        .collect();
    Machine(Vec::from([
        (POINTER, pointer(revision)),
        (XSDT, table(b"XSDT", &wide)),
        (RSDT, table(b"RSDT", &narrow)),
        (0x9000, other),
        (TABLE, of_interest),
    ]))
}

fn ivhd(kind: u8, base: u64, entries: &[u8]) -> Vec<u8> {
    let head = if kind == 0x10 { 24 } else { 40 };
    let mut block = Vec::from([kind, 0]);
    block.extend((head + entries.len() as u16).to_le_bytes());
    block.extend(0x0018u16.to_le_bytes());
    block.extend(0x40u16.to_le_bytes());
    block.extend(base.to_le_bytes());
    block.resize(head.into(), 0);
    block.extend(entries);
    block
}

/// The entries of every device and of the I/O APIC.
const PLAIN: [u8; 12] = [1, 0, 0, 0, 0x48, 0, 0, 0, 0, 0xa0, 0x00, 1];

fn ivrs(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut contents = Vec::from([0; 12]);
    contents.extend(blocks.concat());
    table(b"IVRS", &contents)
}

fn ivmd(kind: u8, first: u16, last: u16) -> Vec<u8> {
    let mut block = Vec::from([kind, 1, 32, 0]);
    block.extend(first.to_le_bytes());
    block.extend(last.to_le_bytes());
    block.resize(32, 0);
    block
}

fn dmar(flags: u8, structures: &[Vec<u8>]) -> Vec<u8> {
    let mut contents = Vec::from([38, flags]);
    contents.resize(12, 0);
    contents.extend(structures.concat());
    table(b"DMAR", &contents)
}

fn scope(kind: u8, bus: u8, path: &[u8]) -> Vec<u8> {
    let mut scope = Vec::from([kind, 6 + path.len() as u8, 0, 0, 0, bus]);
    scope.extend(path);
    scope
}

fn drhd(flags: u8, segment: u16, base: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    let mut unit = Vec::from([0, 0]);
    unit.extend((16 + scopes.len() as u16).to_le_bytes());
    unit.extend([flags, 0]);
    unit.extend(segment.to_le_bytes());
    unit.extend(base.to_le_bytes());
    unit.extend(scopes);
    unit
}

fn rmrr(segment: u16, scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    let mut memory = Vec::from([1, 0]);
    memory.extend((24 + scopes.len() as u16).to_le_bytes());
    memory.extend([0, 0]);
    memory.extend(segment.to_le_bytes());
    memory.resize(24, 0);
    memory.extend(scopes);
    memory
}

fn look(mut machine: Machine) -> Result<Found, Unusable> {
    find(&mut machine, &mut [0; 4096], &[NIC, 0x0300])
}

const BASE: u64 = 0xfed8_0000;
const AMD: Found = Found::Amd {
    registers: BASE,
    unit: 0x18,
    ioapic: 0xa0,
};
const INTEL: Found = Found::Intel {
    registers: BASE,
    ioapic: 0xf0f8,
    address_bits: 39,
};

fn ioapic_scope() -> Vec<u8> {
    scope(3, 0xf0, &[0x1f, 0])
}

#[test]
fn both_makers_by_both_roots() {
    for revision in [0, 2] {
        let amd = ivrs(&[ivhd(0x10, BASE, &PLAIN)]);
        assert_eq!(look(machine(revision, amd)), Ok(AMD));
        let intel = dmar(1, &[drhd(1, 0, BASE, &[ioapic_scope()])]);
        assert_eq!(look(machine(revision, intel)), Ok(INTEL));
        let none = table(b"MCFG", &[0; 8]);
        assert_eq!(look(machine(revision, none)), Ok(Found::None));
    }
}

#[test]
fn the_revision_decides_which_root() {
    for (revision, gone) in [(0, RSDT), (2, XSDT)] {
        let mut machine = machine(revision, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
        machine.0.retain(|(address, _)| *address != gone);
        assert_eq!(look(machine), Err(Unusable::Root));
    }
}

/// As ACPICA does it (source/components/tables/tbutils.c).
#[test]
fn a_pointer_without_an_xsdt_leads_to_the_rsdt() {
    let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    machine.0[0].1[24..32].fill(0);
    fix(&mut machine.0[0].1, 32);
    machine.0[1].1.clear();
    assert_eq!(look(machine.clone()), Ok(AMD));
    // And nothing leads to what is at 0.
    machine.0[0].1[16..20].fill(0);
    fix(&mut machine.0[0].1[..20], 8);
    fix(&mut machine.0[0].1, 32);
    assert_eq!(look(machine), Err(Unusable::Root));
}

#[test]
fn a_wrong_checksum_or_signature_is_named() {
    let good = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    for (piece, signature, sum) in [
        // Without its signature nothing is a root pointer, or this table.
        (0, Ok(Found::None), Err(Unusable::Checksum)),
        (1, Err(Unusable::Root), Err(Unusable::Root)),
        (4, Ok(Found::None), Err(Unusable::Checksum)),
    ] {
        let last = good.0[piece].1.len() - 1;
        for (place, expected) in [(0, signature), (10, sum), (last, sum)] {
            let mut bad = good.clone();
            bad.0[piece].1[place] ^= 4;
            assert_eq!(look(bad), expected, "piece {piece} byte {place}");
        }
    }
    // Another table's mistake is no matter.
    let mut other = good;
    other.0[3].1[10] ^= 4;
    assert_eq!(look(other), Ok(AMD));
}

/// What lengths a table can claim, and where an entry can lead.
#[test]
fn a_table_that_ends_nowhere_is_named() {
    let good = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    for (length, expected) in [
        (0, Unusable::Malformed),
        (35, Unusable::Malformed),
        // Longer than the memory that is there.
        (good.0[4].1.len() as u32 + 1, Unusable::Malformed),
        (4096, Unusable::Malformed),
        (4097, Unusable::TooLarge),
        (u32::MAX, Unusable::TooLarge),
    ] {
        let mut bad = good.clone();
        bad.0[4].1[4..8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(look(bad), Err(expected), "{length}");
    }
}

#[test]
fn an_entry_that_leads_nowhere_is_passed_over() {
    for nowhere in [0, 1, 0x9000_0000, u64::MAX, u64::MAX - 7] {
        let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
        let entries: Vec<u8> = [nowhere, TABLE].map(u64::to_le_bytes).concat();
        machine.0[1].1 = table(b"XSDT", &entries);
        assert_eq!(look(machine.clone()), Ok(AMD), "{nowhere:#x}");
        machine.0[1].1 = table(b"XSDT", &entries[..8]);
        assert_eq!(look(machine), Ok(Found::None), "{nowhere:#x}");
    }
}

#[test]
fn a_sound_table_after_a_broken_one_is_used() {
    let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    let mut broken = machine.0[4].1.clone();
    broken[10] ^= 1;
    machine.0[3].1 = broken;
    assert_eq!(look(machine), Ok(AMD));
}

/// Linux refuses the like too (`warn_invalid_dmar`), since firmware does it:
/// slimbootloader issue 786, linuxboot/heads issue 286.
#[test]
fn registers_where_none_can_be() {
    let malformed = Err(Unusable::Malformed);
    let intel = |base| look(machine(2, dmar(1, &[drhd(1, 0, base, &[ioapic_scope()])])));
    let amd = |base| look(machine(2, ivrs(&[ivhd(0x10, base, &PLAIN)])));
    for base in [
        0,
        0x1000,
        0xf_c000,
        0xfee0_0000,
        0xfee0_4000,
        0xfeef_c000,
        1 << 52,
        !0x3fff,
        u64::MAX,
        BASE + 8,
        BASE + 0x800,
    ] {
        assert_eq!(intel(base), malformed, "{base:#x}");
        assert_eq!(amd(base), malformed, "{base:#x}");
    }
    // 16 KiB of them, aligned to that, or 4 KiB.
    assert_eq!(amd(BASE + 0x1000), malformed);
    for base in [0x10_0000, BASE + 0x1000, 0xfedf_f000, 0xfef0_0000] {
        let found = Found::Intel {
            registers: base,
            ioapic: 0xf0f8,
            address_bits: 39,
        };
        assert_eq!(intel(base), Ok(found), "{base:#x}");
    }
    assert_eq!(amd(0xfee0_0000 - 0x2000), malformed);
    for base in [0x10_0000, 0xfedf_c000, 0xfef0_0000, (1 << 52) - 0x4000] {
        assert!(amd(base).is_ok(), "{base:#x}");
    }
}

/// Each structure whose length is 0, one less than its fields need, or one more
/// than there is.
#[test]
fn structures_of_a_wrong_length() {
    let wrong = |bytes: &[u8], at: usize, wide: bool, lengths: &[usize]| -> Vec<Vec<u8>> {
        let with = |length: &usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] = *length as u8;
            if wide {
                bytes[at + 1] = (*length >> 8) as u8;
            }
            bytes
        };
        lengths.iter().map(with).collect()
    };
    let unit = drhd(1, 0, BASE, &[ioapic_scope()]);
    let memory = rmrr(0, &[scope(1, 0, &[9, 0])]);
    let sound = unit.clone();
    for bad in wrong(&unit, 2, true, &[0, 3, 15, 17, 23, 25, 0xffff]) {
        let found = look(machine(2, dmar(1, &[bad])));
        assert_eq!(found, Err(Unusable::Malformed));
    }
    for bad in wrong(&memory, 2, true, &[0, 3, 23, 31, 33]) {
        let found = look(machine(2, dmar(1, &[sound.clone(), bad])));
        assert_eq!(found, Err(Unusable::Malformed));
    }
    for scope in wrong(&ioapic_scope(), 1, false, &[0, 5, 7, 9, 255]) {
        let found = look(machine(2, dmar(1, &[drhd(1, 0, BASE, &[scope])])));
        assert_eq!(found, Err(Unusable::Malformed));
    }
    for (kind, lengths) in [
        (0x10, [0, 3, 23, 35, 37]),
        (0x11, [0, 3, 39, 51, 53]),
        (0x40, [0, 3, 39, 51, 53]),
    ] {
        for bad in wrong(&ivhd(kind, BASE, &PLAIN), 2, true, &lengths) {
            let found = look(machine(2, ivrs(&[bad])));
            assert_eq!(found, Err(Unusable::Malformed), "{kind:#x}");
        }
    }
    for length in [0, 3, 4, 31, 33] {
        let mut bad = ivmd(0x21, 1, 0);
        bad[2] = length;
        // So that what follows begins where it says.
        bad.truncate(length.max(4).into());
        let found = look(machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN), bad])));
        assert_eq!(found, Err(Unusable::Malformed), "{length}");
    }
    // A table that ends inside its own head.
    for signature in [b"DMAR", b"IVRS"] {
        let short = table(signature, &[0; 11]);
        assert_eq!(look(machine(2, short)), Err(Unusable::Malformed));
    }
}

/// The shape of a Sandy Bridge board's table, as public dumps have it: one unit
/// for all, with the HPET's eight timers beside the I/O APIC, and memory for the
/// USB controllers 00:1d.0 and 00:1a.0.
#[test]
fn the_shape_of_a_sandy_bridge_table() {
    let timers = (0..8).map(|timer| scope(4, 0xf0, &[0x0f, timer]));
    let scopes: Vec<_> = [scope(3, 0xf0, &[0x1f, 7])]
        .into_iter()
        .chain(timers)
        .collect();
    let usb = [scope(1, 0, &[0x1d, 0]), scope(1, 0, &[0x1a, 0])];
    let board = machine(
        2,
        dmar(1, &[drhd(1, 0, 0xfed9_1000, &scopes), rmrr(0, &usb)]),
    );
    let find = |id| find(&mut board.clone(), &mut [0; 4096], &[id]);
    let unit = Found::Intel {
        registers: 0xfed9_1000,
        ioapic: 0xf0ff,
        address_bits: 39,
    };
    assert_eq!(find(0x00c8), Ok(unit));
    for usb in [0x00e8, 0x00d0] {
        assert_eq!(find(usb), Err(Unusable::FirmwareMemory(usb)));
    }
}

/// The shapes of later tables: a unit of the graphics before the one for all,
/// with structures that came later (SATC is type 5, SIDP type 6) after them.
#[test]
fn the_shapes_of_tables_with_several_units() {
    let graphics = |base| drhd(0, 0, base, &[scope(1, 0, &[2, 0])]);
    let rest = || {
        drhd(
            1,
            0,
            0xfed9_1000,
            &[scope(3, 0, &[0x1e, 7]), scope(4, 0, &[0x1e, 6])],
        )
    };
    let later = |kind: u8| Vec::from([kind, 0, 16, 0, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 2, 0]);
    let look = |structures: &[Vec<u8>]| {
        let mut machine = machine(2, dmar(1, structures));
        find(&mut machine, &mut [0; 4096], &[0x0300])
    };
    let two = [graphics(BASE), rest(), later(5), later(6)];
    assert_eq!(look(&two), Err(Unusable::Units(2)));
    let four: Vec<_> = [0xfe71_0000, 0xfe71_4000, 0xfe71_9000, 0xfe71_8000]
        .map(graphics)
        .into();
    assert_eq!(look(&four), Err(Unusable::Units(4)));
    let one = [drhd(1, 0, BASE, &[ioapic_scope()]), later(5), later(6)];
    assert_eq!(look(&one), Ok(INTEL));
}

/// The shape of AMD boards' tables: a block of each kind for one unit, whose
/// range of functions ends before the I/O APICs, an alias for all of bus 2, and
/// the FCH's I/O APIC and HPET.
#[test]
fn the_shape_of_an_amd_board_s_table() {
    let entries = [
        &[3, 8, 0, 0, 4, 0xfe, 0xff, 0][..],
        &[0x43, 0x00, 0x02, 0, 0, 0xa4, 0, 0, 4, 0xff, 0x02, 0],
        // Padding.
        &[0, 0, 0, 0],
        // HPET, two I/O APICs.
        &[0x48, 0, 0, 0, 0, 0xa5, 0, 2],
        &[0x48, 0, 0, 0xd7, 0x21, 0xa0, 0, 1],
        &[0x48, 0, 0, 0, 0x22, 1, 0, 1],
    ]
    .concat();
    let blocks = [0x10, 0x11, 0x40].map(|kind| ivhd(kind, 0xfeb8_0000, &entries));
    let board = machine(2, ivrs(&blocks));
    let find = |id| find(&mut board.clone(), &mut [0; 4096], &[id]);
    let unit = Found::Amd {
        registers: 0xfeb8_0000,
        unit: 0x18,
        ioapic: 0xa0,
    };
    assert_eq!(find(0x0300), Ok(unit));
    assert_eq!(find(0x0208), Err(Unusable::Alias(0x0208)));
    assert_eq!(find(0x0001), Err(Unusable::SharedId(1)));
}

#[test]
fn a_broken_pointer_before_the_sound_one_is_passed_over() {
    let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    let mut broken = pointer(2);
    broken[33] ^= 1;
    machine.0.push((0xe_0000, broken));
    assert_eq!(look(machine), Ok(AMD));
}

#[test]
fn an_old_pointer_has_one_checksum_that_counts() {
    let mut machine = machine(0, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    machine.0[0].1[32] ^= 1;
    assert_eq!(look(machine.clone()), Ok(AMD));
    machine.0[0].1[8] ^= 1;
    assert_eq!(look(machine), Err(Unusable::Checksum));
}

#[test]
fn a_table_of_tables_has_a_shortest_and_a_longest_form() {
    let with = |entries: usize| {
        let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
        let addresses = core::iter::repeat_n(0x9000, entries - 1).chain([TABLE]);
        let addresses: Vec<u8> = addresses.flat_map(u64::to_le_bytes).collect();
        machine.0[1].1 = table(b"XSDT", &addresses);
        machine
    };
    let narrow = |entries: usize| {
        let mut machine = machine(0, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
        let addresses = core::iter::repeat_n(0x9000, entries - 1).chain([TABLE as u32]);
        let addresses: Vec<u8> = addresses.flat_map(u32::to_le_bytes).collect();
        machine.0[2].1 = table(b"RSDT", &addresses);
        machine
    };
    assert_eq!(look(narrow(256)), Ok(AMD));
    assert_eq!(look(narrow(257)), Err(Unusable::Root));
    assert_eq!(look(with(256)), Ok(AMD));
    assert_eq!(look(with(257)), Err(Unusable::Root));
    let mut short = with(1);
    short.0[1].1[4] = 35;
    let sound = &mut short.0[1].1[..35];
    fix(sound, 9);
    assert_eq!(look(short), Err(Unusable::Root));
}

#[test]
fn three_blocks_of_one_unit_are_one_unit() {
    let blocks = [0x10, 0x11, 0x40].map(|kind| ivhd(kind, BASE, &PLAIN));
    assert_eq!(look(machine(2, ivrs(&blocks))), Ok(AMD));
    let two = [ivhd(0x10, BASE, &PLAIN), ivhd(0x10, BASE + 0x8_0000, &[])];
    assert_eq!(look(machine(2, ivrs(&two))), Err(Unusable::Units(2)));
}

#[test]
fn a_unit_that_does_not_remap_or_is_elsewhere() {
    let no_ioapic = ivrs(&[ivhd(0x10, BASE, &PLAIN[..4])]);
    assert_eq!(look(machine(2, no_ioapic)), Err(Unusable::NoRemapping));
    let mut elsewhere = ivhd(0x10, BASE, &PLAIN);
    elsewhere[16] = 1;
    let elsewhere = ivrs(&[elsewhere]);
    assert_eq!(look(machine(2, elsewhere)), Err(Unusable::Partial));
    let unit = |flags, segment| drhd(flags, segment, BASE, &[ioapic_scope()]);
    for (flags, structure, why) in [
        (0, unit(1, 0), Unusable::NoRemapping),
        (1, drhd(1, 0, BASE, &[]), Unusable::NoRemapping),
        (1, unit(0, 0), Unusable::Partial),
        (1, unit(1, 1), Unusable::Partial),
        (1, [unit(0, 0), unit(1, 0)].concat(), Unusable::Units(2)),
    ] {
        assert_eq!(look(machine(2, dmar(flags, &[structure]))), Err(why));
    }
}

/// QEMU's unit is not for all that no other has, but lists what it is for.
#[test]
fn a_unit_that_lists_its_functions() {
    let with = |segment: u16, scopes: &[Vec<u8>]| {
        let scopes = [&[ioapic_scope()], scopes].concat();
        look(machine(2, dmar(1, &[drhd(0, segment, BASE, &scopes)])))
    };
    let nic = || scope(1, 0, &[2, 0]);
    let second = || scope(1, 3, &[0, 0]);
    let bridge = || scope(2, 0, &[1, 0]);
    assert_eq!(with(0, &[nic(), second()]), Ok(INTEL));
    // The second function is behind the bridge, or may be.
    assert_eq!(with(0, &[scope(1, 0, &[5, 0]), bridge(), nic()]), Ok(INTEL));
    for (segment, listed) in [
        (0, [].as_slice()),
        (0, &[nic()]),
        (0, &[second()]),
        // Behind a bridge is not beside it.
        (0, &[bridge()]),
        (0, &[nic(), scope(2, 3, &[0, 0])]),
        // Its neighbours.
        (0, &[second(), scope(1, 0, &[2, 1]), scope(1, 0, &[3, 0])]),
        // No kind that a function has.
        (0, &[second(), scope(4, 0, &[2, 0])]),
        (1, &[nic(), second()]),
    ] {
        assert_eq!(with(segment, listed), Err(Unusable::Partial), "{listed:?}");
    }
    assert_eq!(
        with(0, &[nic(), Vec::from([1, 0])]),
        Err(Unusable::Malformed)
    );
}

#[test]
fn aliases_of_assigned_functions() {
    let with = |entries: &[u8]| {
        let entries = [entries, &PLAIN].concat();
        look(machine(2, ivrs(&[ivhd(0x11, BASE, &entries)])))
    };
    // One function, with another's id and with its own.
    let alias = |id: u16, used: u16| {
        let (id, used) = (id.to_le_bytes(), used.to_le_bytes());
        [0x42, id[0], id[1], 0, 0, used[0], used[1], 0]
    };
    assert_eq!(with(&alias(NIC, 0x20)), Err(Unusable::Alias(NIC)));
    assert_eq!(with(&alias(NIC, NIC)), Ok(AMD));
    assert_eq!(with(&alias(0x18, 0x20)), Ok(AMD));
    // A range, with its end before, at and after the function, and without.
    let range = |first: u8, end: u8| [0x43, first, 0, 0, 0, 0x20, 0, 0, 4, end, 0, 0];
    assert_eq!(with(&range(0x08, 0x0f)), Ok(AMD));
    assert_eq!(with(&range(0x08, 0x10)), Err(Unusable::Alias(NIC)));
    assert_eq!(with(&range(0x10, 0x17)), Err(Unusable::Alias(NIC)));
    assert_eq!(with(&range(0x08, 0xff)[..8]), Err(Unusable::Alias(NIC)));
    // An entry with a name: its length is in it.
    let mut named = Vec::from([0xf0]);
    named.resize(21, 0);
    named.extend([3, b'a', b'b', b'c']);
    assert_eq!(with(&named), Ok(AMD));
    named[21] = 2;
    assert!(with(&named).is_err());
}

#[test]
fn memory_that_firmware_needs() {
    let unit = || ivhd(0x10, BASE, &PLAIN);
    let with = |block| look(machine(2, ivrs(&[unit(), block])));
    let needed = Err(Unusable::FirmwareMemory(NIC));
    assert_eq!(with(ivmd(0x20, 0, 0)), needed);
    assert_eq!(with(ivmd(0x21, NIC, 0)), needed);
    assert_eq!(with(ivmd(0x21, NIC + 1, 0)), Ok(AMD));
    assert_eq!(with(ivmd(0x22, 1, NIC)), needed);
    assert_eq!(with(ivmd(0x22, 1, NIC - 1)), Ok(AMD));
    let unit = || drhd(1, 0, BASE, &[ioapic_scope()]);
    let with = |memory| look(machine(2, dmar(1, &[unit(), memory])));
    assert_eq!(with(rmrr(0, &[scope(1, 0, &[2, 0])])), needed);
    assert_eq!(with(rmrr(1, &[scope(1, 0, &[2, 0])])), Ok(INTEL));
    assert_eq!(with(rmrr(0, &[scope(1, 0, &[3, 0])])), Ok(INTEL));
    // Behind a bridge of bus 0: maybe the function on bus 3.
    let behind = Err(Unusable::FirmwareMemory(0x0300));
    assert_eq!(with(rmrr(0, &[scope(1, 0, &[1, 0, 0, 0])])), behind);
    assert_eq!(with(rmrr(0, &[scope(2, 0, &[1, 0])])), behind);
    assert_eq!(with(rmrr(0, &[scope(4, 0, &[2, 0])])), Ok(INTEL));
}

#[test]
fn a_function_with_the_ioapics_id() {
    let mut entries = PLAIN;
    entries[9] = NIC as u8;
    let shared = Err(Unusable::SharedId(NIC));
    assert_eq!(
        look(machine(2, ivrs(&[ivhd(0x10, BASE, &entries)]))),
        shared
    );
    let second = drhd(1, 0, BASE, &[ioapic_scope(), scope(3, 0, &[2, 0])]);
    assert_eq!(look(machine(2, dmar(1, &[second]))), shared);
}

/// There are 32 devices on a bus, of 8 functions each.
#[test]
fn a_scope_names_a_device_that_can_be() {
    let with = |path: &[u8]| {
        let unit = drhd(1, 0, BASE, &[scope(3, 0xf0, path)]);
        look(machine(2, dmar(1, &[unit])))
    };
    let at = |ioapic| {
        Ok(Found::Intel {
            registers: BASE,
            ioapic,
            address_bits: 39,
        })
    };
    assert_eq!(with(&[31, 7]), at(0xf0ff));
    for path in [&[32, 0][..], &[0, 8], &[255, 255], &[1, 0, 31, 7]] {
        assert_eq!(with(path), Err(Unusable::NoRemapping), "{path:?}");
    }
}

#[test]
fn every_reason_says_something_of_its_own() {
    let reasons = [
        Unusable::TooLarge,
        Unusable::Malformed,
        Unusable::Checksum,
        Unusable::Root,
        Unusable::Units(2),
        Unusable::Partial,
        Unusable::NoRemapping,
        Unusable::FirmwareMemory(0),
        Unusable::Alias(0),
        Unusable::SharedId(0),
    ]
    .map(Unusable::reason);
    for (index, reason) in reasons.iter().enumerate() {
        assert!(reason.len() > 10 && !reasons[..index].contains(reason));
    }
}

#[test]
fn a_table_for_a_larger_buffer() {
    let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    let found = find(&mut machine, &mut [0; 64], &[NIC]);
    assert_eq!(found, Err(Unusable::TooLarge));
}

/// Numbers that look random and are the same in each run (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A machine whose every byte is noise, however much is asked for.
struct Chaos {
    noise: Noise,
    reads: u64,
}

impl PhysicalMemory for Chaos {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.reads += 1;
        bytes.fill_with(|| self.noise.next() as u8);
        if address & 15 == 0 && address < 0x10_0000 && bytes.len() == 8 {
            bytes.copy_from_slice(b"RSD PTR ");
        }
        self.noise.next() & 7 != 0
    }
}

#[test]
fn noise_gives_an_answer_in_bounded_time() {
    for seed in 1..20 {
        let mut chaos = Chaos {
            noise: Noise(seed),
            reads: 0,
        };
        let _ = find(&mut chaos, &mut [0; 4096], &[NIC]);
        assert!(chaos.reads < 100_000);
    }
}

#[test]
fn tables_with_any_bytes_changed_give_an_answer() {
    let mut noise = Noise(42);
    let amd = ivrs(&[
        ivhd(0x10, BASE, &PLAIN),
        ivhd(0x40, BASE, &PLAIN),
        ivmd(0x22, 1, 2),
    ]);
    let intel = dmar(
        1,
        &[
            drhd(1, 0, BASE, &[ioapic_scope()]),
            rmrr(0, &[scope(2, 0, &[1, 0])]),
        ],
    );
    for good in [amd, intel] {
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..1 + noise.next() % 4 {
                let place = 36 + noise.next() as usize % (bad.len() - 36);
                bad[place] = noise.next() as u8;
            }
            bad.truncate(36 + noise.next() as usize % (bad.len() - 35));
            let _ = ivrs::parse(&bad, &[NIC]);
            let _ = dmar::parse(&bad, &[NIC]);
        }
    }
}
