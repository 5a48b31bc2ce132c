//! Machines with several units: the one that is taken.

use super::*;

/// What [`drhd`] has, for the NIC at 00:02.0 and the function at 03:00.0, with units that
/// differ by their registers.
fn intel(units: &[Vec<u8>], assigned: &[u16]) -> Result<Found, Unusable> {
    // Buses 3 and 4 lie behind 00:01.0, bus 5 behind 00:1c.0.
    let mut buses = |bridge: u16| match bridge {
        0x0008 => Some(3..=4),
        0x00e0 => Some(5..=5),
        _ => None,
    };
    let mut machine = machine(2, dmar(1, units));
    find(&mut machine, None, &mut [0; 4096], assigned, &mut buses)
}

fn at(registers: u64) -> Result<Found, Unusable> {
    Ok(Found::Intel {
        registers,
        ioapic: 0xf0f8,
        address_bits: 39,
    })
}

const OTHER: u64 = 0xfed9_0000;
const FUNCTION: u16 = 0x0300;

#[test]
fn the_unit_that_lists_a_function_has_it_else_the_one_for_the_rest() {
    let listed = |scopes: &[Vec<u8>]| drhd(0, 0, BASE, scopes);
    let rest = || drhd(1, 0, OTHER, &[ioapic_scope()]);
    let behind = |device: u8| scope(2, 0, &[device, 0]);
    for (units, assigned, found) in [
        (
            [listed(&[scope(1, 0, &[2, 0])]), rest()],
            [FUNCTION].as_slice(),
            at(OTHER),
        ),
        (
            [listed(&[scope(1, 0, &[3, 0])]), rest()],
            &[NIC, FUNCTION],
            at(OTHER),
        ),
        (
            [listed(&[behind(1), ioapic_scope()]), rest()],
            &[FUNCTION],
            at(BASE),
        ),
        // By the way through the bridge.
        (
            [
                listed(&[scope(1, 0, &[1, 0, 0, 0]), ioapic_scope()]),
                rest(),
            ],
            &[FUNCTION],
            at(BASE),
        ),
        (
            [listed(&[scope(1, 0, &[1, 0, 1, 0])]), rest()],
            &[FUNCTION],
            at(OTHER),
        ),
        ([listed(&[behind(0x1c)]), rest()], &[FUNCTION], at(OTHER)),
        // The order is not the firmware's word.
        (
            [rest(), listed(&[behind(1), ioapic_scope()])],
            &[FUNCTION],
            at(BASE),
        ),
        ([rest(), listed(&[scope(1, 0, &[2, 0])])], &[], at(OTHER)),
        // What lies on a bridge's bus is not behind it, whatever is.
        ([listed(&[behind(7)]), rest()], &[NIC], at(OTHER)),
        // Of two that list it, the first.
        (
            [
                listed(&[scope(1, 0, &[2, 0]), ioapic_scope()]),
                drhd(1, 0, OTHER, &[scope(1, 0, &[2, 0]), ioapic_scope()]),
            ],
            &[NIC],
            at(BASE),
        ),
        // Of another segment.
        ([drhd(1, 1, BASE, &[]), rest()], &[FUNCTION], at(OTHER)),
    ] {
        assert_eq!(intel(&units, assigned), found, "{units:x?} {assigned:x?}");
    }
}

#[test]
fn several_units_that_nobody_can_use_as_one() {
    let unit = |scopes: &[Vec<u8>]| drhd(0, 0, BASE, scopes);
    let rest = |scopes: &[Vec<u8>]| drhd(1, 0, OTHER, scopes);
    let nic = || scope(1, 0, &[2, 0]);
    let several = Err(Unusable::Units(2));
    for units in [
        // One function each.
        [unit(&[nic(), ioapic_scope()]), rest(&[ioapic_scope()])],
        // Nobody has the second.
        [unit(&[nic(), ioapic_scope()]), drhd(0, 0, OTHER, &[])],
        // The I/O APIC's interrupts, and the HPET's, go another way.
        [unit(&[ioapic_scope()]), rest(&[])],
        [unit(&[scope(4, 0xf0, &[0xf, 0])]), rest(&[ioapic_scope()])],
        // Nobody knows what is behind 00:07.0, nor a way of three bytes.
        [unit(&[scope(2, 0, &[7, 0])]), rest(&[ioapic_scope()])],
        [unit(&[scope(1, 0, &[7, 0, 1])]), rest(&[ioapic_scope()])],
    ] {
        assert_eq!(intel(&units, &[NIC, FUNCTION]), several, "{units:x?}");
    }
    // Where the taken one's registers cannot be.
    let units = [unit(&[nic()]), drhd(1, 0, 0, &[ioapic_scope()])];
    assert_eq!(intel(&units, &[FUNCTION]), Err(Unusable::Malformed));
}

#[test]
fn memory_of_firmware_behind_a_bridge_is_of_what_is_there() {
    let rest = || drhd(1, 0, OTHER, &[ioapic_scope()]);
    let memory = |scope| [rest(), rmrr(0, &[scope])];
    let refused = Err(Unusable::FirmwareMemory(FUNCTION));
    assert_eq!(intel(&memory(scope(2, 0, &[1, 0])), &[FUNCTION]), refused);
    assert_eq!(
        intel(&memory(scope(2, 0, &[0x1c, 0])), &[FUNCTION]),
        at(OTHER)
    );
    assert_eq!(
        intel(&memory(scope(1, 0, &[1, 0, 0, 0])), &[FUNCTION]),
        refused
    );
    // Nobody knows: it may be.
    assert_eq!(intel(&memory(scope(2, 0, &[7, 0])), &[FUNCTION]), refused);
}

/// The entries of AMD's units: each kind that has functions.
#[test]
fn amd_s_unit_whose_entries_have_the_function() {
    let look = |blocks: &[Vec<u8>], assigned: &[u16]| {
        find(
            &mut machine(2, ivrs(blocks)),
            None,
            &mut [0; 4096],
            assigned,
            &mut |_| None,
        )
    };
    let range = |first: u16, last: u16| {
        let (first, last) = (first.to_le_bytes(), last.to_le_bytes());
        [3, first[0], first[1], 0, 4, last[0], last[1], 0]
    };
    let special = |id: u8, variety: u8| [0x48, 0, 0, 0, 0, id, 0, variety];
    let second = Ok(Found::Amd {
        registers: OTHER,
        unit: 0x18,
        ioapic: 0xa1,
    });
    let with = |entries: &[u8]| {
        let first = [&range(0x4000, 0x5fff)[..], &special(0xa0, 1)].concat();
        let entries = [entries, &special(0xa1, 1)].concat();
        [ivhd(0x10, BASE, &first), ivhd(0x11, OTHER, &entries)]
    };
    for entries in [
        &range(0x0200, 0x03ff)[..],
        &[2, 0, 3, 0],
        &[0x42, 0, 3, 0, 0, 0, 3, 0],
        &[0x46, 0, 3, 0, 0, 0, 0, 0],
        &[0x47, 0, 2, 0, 0, 0, 0, 0, 4, 0, 3, 0],
        &[1, 0, 0, 0],
    ] {
        assert_eq!(look(&with(entries), &[FUNCTION]), second, "{entries:x?}");
    }
    let several = Err(Unusable::Units(2));
    for entries in [
        &range(0x0301, 0x03ff)[..],
        &range(0x0200, 0x02ff),
        &[2, 1, 3, 0],
        &[],
    ] {
        assert_eq!(look(&with(entries), &[FUNCTION]), several, "{entries:x?}");
    }
    // A unit of another segment has other functions with these ids.
    let mut elsewhere = with(&[2, 0, 3, 0]);
    elsewhere[1][16] = 1;
    assert_eq!(look(&elsewhere, &[FUNCTION]), several);
    // Each has one of them; the HPET is the other's.
    assert_eq!(look(&with(&[2, 0, 3, 0]), &[FUNCTION, 0x4000]), several);
    let mut blocks = with(&[2, 0, 3, 0]);
    blocks[0] = ivhd(
        0x10,
        BASE,
        &[range(0x4000, 0x5fff), special(0xa0, 2)].concat(),
    );
    assert_eq!(look(&blocks, &[FUNCTION]), several);
}
