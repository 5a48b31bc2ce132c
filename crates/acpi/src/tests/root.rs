//! From the root pointer to a table: the choice of root, valid and skipped tables.

use super::*;

#[test]
fn both_makers_by_both_roots() {
    for revision in [0, 2] {
        let table_of_amd = ivrs(&[ivhd(0x10, BASE, &PLAIN)]);
        assert_eq!(look(machine(revision, table_of_amd)), Ok(amd()));
        let table_of_intel = dmar(1, &[drhd(1, 0, BASE, &[ioapic_scope()])]);
        assert_eq!(look(machine(revision, table_of_intel)), Ok(intel()));
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
    assert_eq!(look(machine.clone()), Ok(amd()));
    // And no pointer leads to address 0.
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
        for (place, expected) in [(0, signature), (10, sum.clone()), (last, sum)] {
            let mut bad = good.clone();
            bad.0[piece].1[place] ^= 4;
            assert_eq!(look(bad), expected, "piece {piece} byte {place}");
        }
    }
    // A fault in another table does not matter.
    let mut other = good;
    other.0[3].1[10] ^= 4;
    assert_eq!(look(other), Ok(amd()));
}

/// Every length that a table can claim, and every place an entry can point to.
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
        assert_eq!(look(machine.clone()), Ok(amd()), "{nowhere:#x}");
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
    assert_eq!(look(machine), Ok(amd()));
}

#[test]
fn a_broken_pointer_before_the_sound_one_is_passed_over() {
    let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    let mut broken = pointer(2);
    broken[33] ^= 1;
    machine.0.push((0xe_0000, broken));
    assert_eq!(look(machine), Ok(amd()));
}

#[test]
fn an_old_pointer_has_one_checksum_that_counts() {
    let mut machine = machine(0, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    machine.0[0].1[32] ^= 1;
    assert_eq!(look(machine.clone()), Ok(amd()));
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
    assert_eq!(look(narrow(256)), Ok(amd()));
    assert_eq!(look(narrow(257)), Err(Unusable::Root));
    assert_eq!(look(with(256)), Ok(amd()));
    assert_eq!(look(with(257)), Err(Unusable::Root));
    let mut short = with(1);
    short.0[1].1[4] = 35;
    let sound = &mut short.0[1].1[..35];
    fix(sound, 9);
    assert_eq!(look(short), Err(Unusable::Root));
}

/// The boot loader's pointer counts, wherever it lay.
#[test]
fn a_pointer_that_is_given_is_not_looked_for() {
    for revision in [0, 2] {
        let mut machine = machine(revision, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
        let (_, given) = machine.0.remove(0);
        let mut find = |pointer: &[u8]| {
            find(
                &mut machine,
                Some(pointer),
                &mut [0; 4096],
                &[NIC],
                &mut |_| None,
            )
        };
        let found = Found::Amd(units(&[BASE], &[0], 0xa0));
        assert_eq!(find(&given), Ok(found));
        let short = if revision == 0 { 19 } else { 35 };
        assert_eq!(find(&given[..short]), Err(Unusable::Checksum));
        for place in [0, 10] {
            let mut bad = given.clone();
            bad[place] ^= 4;
            assert_eq!(find(&bad), Err(Unusable::Checksum));
        }
        // Of another kind, and sound.
        let mut other = given.clone();
        other[0] ^= 4;
        fix(&mut other[..20], 8);
        fix(&mut other, 32);
        assert_eq!(find(&other), Err(Unusable::Checksum));
    }
}

/// Section 5.2.5.1. What boots from UEFI puts the pointer there.
#[test]
fn a_pointer_in_the_extended_data_area_is_found() {
    let mut machine = machine(2, ivrs(&[ivhd(0x10, BASE, &PLAIN)]));
    let pointer = machine.0.remove(0).1;
    assert_eq!(look(machine.clone()), Ok(Found::None));
    machine.0.push((0x40e, Vec::from(0x9f00u16.to_le_bytes())));
    assert_eq!(crate::pointer(&mut machine), None);
    for (offset, found) in [(0, Ok(amd())), (1008, Ok(amd())), (1024, Ok(Found::None))] {
        let mut machine = machine.clone();
        machine.0.push((0x9_f000 + offset, pointer.clone()));
        assert_eq!(look(machine.clone()), found, "{offset}");
        assert_eq!(crate::pointer(&mut machine).is_some(), found == Ok(amd()));
    }
    // No such area: what lies at address 0 is none.
    machine.0[4].1.fill(0);
    machine.0.push((0, pointer));
    assert_eq!(look(machine), Ok(Found::None));
}
