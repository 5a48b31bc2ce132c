//! Hand-made tables, sound and broken.

extern crate std;
use std::vec::Vec;

use super::*;

mod machine;
mod root;
mod shapes;
mod units;

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

/// Returns a table: head, `more` bytes of head, contents.
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

/// Returns a machine with one table of interest and one before it.
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

/// Where firmware has memory for functions.
const MEMORY: u64 = 0x7d00_0000;

/// Returns a block about 64 KiB at [`MEMORY`], which are to be read and written.
fn ivmd(kind: u8, first: u16, last: u16) -> Vec<u8> {
    let mut block = Vec::from([kind, 7, 32, 0]);
    block.extend(first.to_le_bytes());
    block.extend(last.to_le_bytes());
    block.resize(16, 0);
    block.extend(MEMORY.to_le_bytes());
    block.extend(0x1_0000u64.to_le_bytes());
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
    memory.extend(MEMORY.to_le_bytes());
    memory.extend((MEMORY + 0xffff).to_le_bytes());
    memory.extend(scopes);
    memory
}

fn look(mut machine: Machine) -> Result<Found, Unusable> {
    find(
        &mut machine,
        None,
        &mut [0; 4096],
        &[NIC, 0x0300],
        &mut |_| None,
    )
}

const BASE: u64 = 0xfed8_0000;

/// Returns what is found of units with these registers: which of them has each function that
/// was asked about, and the I/O APIC.
fn units(registers: &[u64], of: &[u8], ioapic: u16) -> Units {
    Units {
        registers: registers.iter().copied().collect(),
        of: of.iter().copied().collect(),
        ioapic,
        reserved: heapless::Vec::new(),
    }
}

/// Returns the one unit that has both functions of [`look`].
fn amd_at(registers: u64) -> Found {
    Found::Amd(units(&[registers], &[0, 0], 0xa0))
}

fn intel_at(registers: u64, ioapic: u16) -> Found {
    Found::Intel(units(&[registers], &[0, 0], ioapic))
}

fn amd() -> Found {
    amd_at(BASE)
}

fn intel() -> Found {
    intel_at(BASE, 0xf0f8)
}

fn ioapic_scope() -> Vec<u8> {
    scope(3, 0xf0, &[0x1f, 0])
}

/// Linux refuses the like too (`warn_invalid_dmar`), since firmware does it:
/// slimbootloader issue 786, linuxboot/heads issue 286.
#[test]
fn registers_where_none_can_be() {
    let malformed = Err(Unusable::Malformed);
    let with_intel = |base| look(machine(2, dmar(1, &[drhd(1, 0, base, &[ioapic_scope()])])));
    let with_amd = |base| look(machine(2, ivrs(&[ivhd(0x10, base, &PLAIN)])));
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
        assert_eq!(with_intel(base), malformed, "{base:#x}");
        assert_eq!(with_amd(base), malformed, "{base:#x}");
    }
    // 16 KiB of them, aligned to that, or 4 KiB.
    assert_eq!(with_amd(BASE + 0x1000), malformed);
    for base in [0x10_0000, BASE + 0x1000, 0xfedf_f000, 0xfef0_0000] {
        assert_eq!(with_intel(base), Ok(intel_at(base, 0xf0f8)), "{base:#x}");
    }
    assert_eq!(with_amd(0xfee0_0000 - 0x2000), malformed);
    for base in [0x10_0000, 0xfedf_c000, 0xfef0_0000, (1 << 52) - 0x4000] {
        assert!(with_amd(base).is_ok(), "{base:#x}");
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
        // The next structure then begins where this one says.
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

#[test]
fn three_blocks_of_one_unit_are_one_unit() {
    let blocks = [0x10, 0x11, 0x40].map(|kind| ivhd(kind, BASE, &PLAIN));
    assert_eq!(look(machine(2, ivrs(&blocks))), Ok(amd()));
    let two = [ivhd(0x10, BASE, &PLAIN), ivhd(0x10, BASE + 0x4000, &[])];
    let found = Found::Amd(units(&[BASE, BASE + 0x4000], &[0, 0], 0xa0));
    assert_eq!(look(machine(2, ivrs(&two))), Ok(found));
}

#[test]
fn a_unit_that_does_not_remap_or_is_elsewhere() {
    let no_ioapic = ivrs(&[ivhd(0x10, BASE, &PLAIN[..4])]);
    assert_eq!(look(machine(2, no_ioapic)), Err(Unusable::NoRemapping));
    let mut elsewhere = ivhd(0x10, BASE, &PLAIN);
    elsewhere[16] = 1;
    let elsewhere = ivrs(&[elsewhere]);
    assert_eq!(look(machine(2, elsewhere)), Err(Unusable::Segment));
    let unit = |flags, segment| drhd(flags, segment, BASE, &[ioapic_scope()]);
    for (flags, structure, why) in [
        (0, unit(1, 0), Unusable::NoRemapping),
        (1, drhd(1, 0, BASE, &[]), Unusable::NoRemapping),
        (1, unit(0, 0), Unusable::NoUnit(NIC)),
        (1, unit(1, 1), Unusable::Segment),
    ] {
        assert_eq!(look(machine(2, dmar(flags, &[structure]))), Err(why));
    }
}

/// QEMU's unit has no INCLUDE_PCI_ALL flag, but lists its functions.
#[test]
fn a_unit_that_lists_its_functions() {
    let with = |segment: u16, scopes: &[Vec<u8>]| {
        let scopes = [&[ioapic_scope()], scopes].concat();
        look(machine(2, dmar(1, &[drhd(0, segment, BASE, &scopes)])))
    };
    let nic = || scope(1, 0, &[2, 0]);
    let second = || scope(1, 3, &[0, 0]);
    let bridge = || scope(2, 0, &[1, 0]);
    assert_eq!(with(0, &[nic(), second()]), Ok(intel()));
    // The second function is behind the bridge, or may be.
    assert_eq!(
        with(0, &[scope(1, 0, &[5, 0]), bridge(), nic()]),
        Ok(intel())
    );
    for (listed, whose) in [
        ([].as_slice(), NIC),
        (&[nic()], 0x0300),
        (&[second()], NIC),
        // Behind a bridge is not beside it.
        (&[bridge()], NIC),
        (&[nic(), scope(2, 3, &[0, 0])], 0x0300),
        // Its neighbours.
        (&[second(), scope(1, 0, &[2, 1]), scope(1, 0, &[3, 0])], NIC),
        // No kind that a function has.
        (&[second(), scope(4, 0, &[2, 0])], NIC),
    ] {
        let none = Err(Unusable::NoUnit(whose));
        assert_eq!(with(0, listed), none, "{listed:?}");
    }
    assert_eq!(with(1, &[nic(), second()]), Err(Unusable::Segment));
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
    assert_eq!(with(&alias(NIC, NIC)), Ok(amd()));
    assert_eq!(with(&alias(0x18, 0x20)), Ok(amd()));
    // A range, with its end before, at and after the function, and without.
    let range = |first: u8, end: u8| [0x43, first, 0, 0, 0, 0x20, 0, 0, 4, end, 0, 0];
    assert_eq!(with(&range(0x08, 0x0f)), Ok(amd()));
    assert_eq!(with(&range(0x08, 0x10)), Err(Unusable::Alias(NIC)));
    assert_eq!(with(&range(0x10, 0x17)), Err(Unusable::Alias(NIC)));
    assert_eq!(with(&range(0x08, 0xff)[..8]), Err(Unusable::Alias(NIC)));
    // An entry with a name: its length is in it.
    let mut named = Vec::from([0xf0]);
    named.resize(21, 0);
    named.extend([3, b'a', b'b', b'c']);
    assert_eq!(with(&named), Ok(amd()));
    named[21] = 2;
    assert!(with(&named).is_err());
}

/// Returns the memory of firmware that functions behind the first unit are to reach.
fn reserved(requesters: &[u16]) -> Vec<Reserved> {
    let of = |&requester: &u16| Reserved {
        requester,
        unit: 0,
        start: MEMORY,
        end: MEMORY + 0x1_0000,
        read: true,
        write: true,
    };
    requesters.iter().map(of).collect()
}

/// Returns the memory of firmware that is found.
fn reserved_in(found: Result<Found, Unusable>) -> Result<Vec<Reserved>, Unusable> {
    match found? {
        Found::None => panic!("no unit"),
        Found::Amd(units) | Found::Intel(units) => Ok(units.reserved.to_vec()),
    }
}

#[test]
fn memory_that_amd_s_firmware_needs() {
    let unit = || ivhd(0x10, BASE, &PLAIN);
    let with = |block| reserved_in(look(machine(2, ivrs(&[unit(), block]))));
    let of = |requesters: &[u16]| Ok(reserved(requesters));
    assert_eq!(with(ivmd(0x20, 0, 0)), of(&[NIC, 0x0300]));
    assert_eq!(with(ivmd(0x21, NIC, 0)), of(&[NIC]));
    // That of a function that nobody has, if it is named.
    assert_eq!(with(ivmd(0x21, NIC + 1, 0)), of(&[NIC + 1]));
    assert_eq!(with(ivmd(0x22, NIC + 1, NIC + 1)), of(&[NIC + 1]));
    assert_eq!(with(ivmd(0x22, 1, NIC)), of(&[NIC]));
    assert_eq!(with(ivmd(0x22, 1, NIC - 1)), of(&[]));
    assert_eq!(with(ivmd(0x22, NIC, 1)), of(&[]));
    // What of it: nothing without the flag, and all of an exclusion range.
    for (flags, access) in [
        (0, None),
        (1, None),
        (6, None),
        (3, Some((true, false))),
        (5, Some((false, true))),
        (7, Some((true, true))),
        (8, Some((true, true))),
        (0xf1, Some((false, false))),
    ] {
        let mut block = ivmd(0x21, NIC, 0);
        block[1] = flags;
        let found = with(block).expect("found");
        let found = found.first().map(|found| (found.read, found.write));
        let access = access.filter(|access| *access != (false, false));
        assert_eq!(found, access, "{flags:#x}");
    }
    // No pages, and past the end of all addresses.
    for (at, byte) in [(16, 8), (24, 8), (26, 0), (23, 0xff), (31, 0xff)] {
        let mut block = ivmd(0x21, NIC, 0);
        block[at] = byte;
        let found = with(block);
        let bad = Err(Unusable::FirmwareMemory(NIC));
        // The highest address is one.
        assert!(
            found == bad || at == 23 && found.is_ok(),
            "{at}: {found:x?}"
        );
        let mut nobody_s = ivmd(0x21, NIC + 1, 0);
        nobody_s[at] = byte;
        assert!(with(nobody_s).is_ok());
    }
}

#[test]
fn memory_that_intel_s_firmware_needs() {
    let unit = || drhd(1, 0, BASE, &[ioapic_scope()]);
    let with = |memory| reserved_in(look(machine(2, dmar(1, &[unit(), memory]))));
    let of = |requesters: &[u16]| Ok(reserved(requesters));
    assert_eq!(with(rmrr(0, &[scope(1, 0, &[2, 0])])), of(&[NIC]));
    assert_eq!(with(rmrr(1, &[scope(1, 0, &[2, 0])])), of(&[]));
    // That of a function that nobody has.
    let both = [scope(1, 0, &[3, 0]), scope(1, 0, &[2, 0])];
    assert_eq!(with(rmrr(0, &both)), of(&[NIC, 0x18]));
    // Behind a bridge of bus 0: maybe the function on bus 3.
    let behind = || of(&[0x0300]);
    assert_eq!(with(rmrr(0, &[scope(1, 0, &[1, 0, 0, 0])])), behind());
    assert_eq!(with(rmrr(0, &[scope(2, 0, &[1, 0])])), behind());
    assert_eq!(with(rmrr(0, &[scope(4, 0, &[2, 0])])), of(&[]));
    for (at, byte) in [(8, 8), (16, 8), (18, 0), (11, 0x7e)] {
        let mut memory = rmrr(0, &[scope(1, 0, &[2, 0])]);
        memory[at] = byte;
        let bad = Err(Unusable::FirmwareMemory(NIC));
        // The last byte is before the first.
        let bad = if at == 18 { of(&[NIC]) } else { bad };
        assert_eq!(with(memory), bad, "{at}");
    }
    let mut memory = rmrr(0, &[scope(1, 0, &[2, 0])]);
    memory[16..24].fill(0xff);
    assert_eq!(with(memory), Err(Unusable::FirmwareMemory(NIC)));
}

#[test]
fn more_of_it_than_there_is_room_for() {
    let scopes = |device: u8, count| std::vec![scope(1, 0, &[device, 0]); count];
    let with = |scopes: &[Vec<u8>]| {
        let unit = drhd(1, 0, BASE, &[ioapic_scope()]);
        reserved_in(look(machine(2, dmar(1, &[unit, rmrr(0, scopes)]))))
    };
    let full = with(&scopes(2, RESERVED)).map(|all| all.len());
    assert_eq!(full, Ok(RESERVED));
    let bad = Err(Unusable::FirmwareMemory(NIC));
    assert_eq!(with(&scopes(2, RESERVED + 1)), bad);
    // Those that nobody has come last.
    let some = [scopes(3, RESERVED + 1), scopes(2, 1)].concat();
    let found = with(&some).expect("found");
    assert_eq!((found.len(), found[0].requester), (RESERVED, NIC));
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
    let at = |ioapic| Ok(intel_at(BASE, ioapic));
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
        Unusable::Segment,
        Unusable::NoUnit(0),
        Unusable::Unclear(0),
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
fn a_reason_says_whose_it_is() {
    for (unusable, end) in [
        (
            Unusable::NoUnit(0x03fa),
            "no unit has an assigned function (03:1f.2)",
        ),
        (
            Unusable::Units(9),
            "more units than there is room for (9, and room for 8)",
        ),
        (
            Unusable::Root,
            "the firmware's table of ACPI tables is malformed",
        ),
    ] {
        let text = std::string::ToString::to_string(&unusable);
        assert!(text.ends_with(end), "{text}");
    }
}

#[test]
fn a_table_for_a_larger_buffer() {
    let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    let found = find(&mut machine, None, &mut [0; 64], &[NIC], &mut |_| None);
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
        let _ = find(&mut chaos, None, &mut [0; 4096], &[NIC], &mut |_| None);
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
            let _ = dmar::parse(&bad, &[NIC], &mut |_| None);
        }
    }
}
