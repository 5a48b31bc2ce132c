//! Machines with several units: which has a function.

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

const OTHER: u64 = 0xfed9_0000;
const FUNCTION: u16 = 0x0300;

/// Returns what is found of the units at [`BASE`] and [`OTHER`], of which these have the
/// functions.
fn both(of: &[u8]) -> Result<Found, Unusable> {
    Ok(Found::Intel(units(&[BASE, OTHER], of, 0xf0f8)))
}

#[test]
fn the_unit_that_lists_a_function_has_it_else_the_one_for_the_rest() {
    let listed = |scopes: &[Vec<u8>]| drhd(0, 0, BASE, scopes);
    let rest = || drhd(1, 0, OTHER, &[ioapic_scope()]);
    let behind = |device: u8| scope(2, 0, &[device, 0]);
    let nic = || scope(1, 0, &[2, 0]);
    for (unit, assigned, of) in [
        (listed(&[nic()]), [FUNCTION].as_slice(), [1].as_slice()),
        (listed(&[nic()]), &[NIC, FUNCTION], &[0, 1]),
        (listed(&[scope(1, 0, &[3, 0])]), &[NIC, FUNCTION], &[1, 1]),
        (listed(&[behind(1)]), &[FUNCTION, NIC], &[0, 1]),
        // By the way through the bridge.
        (listed(&[scope(1, 0, &[1, 0, 0, 0])]), &[FUNCTION], &[0]),
        (listed(&[scope(1, 0, &[1, 0, 1, 0])]), &[FUNCTION], &[1]),
        (listed(&[behind(0x1c)]), &[FUNCTION], &[1]),
        // The HPET's way is no function's, and its unit need not have one.
        (listed(&[scope(4, 0xf0, &[0xf, 0])]), &[FUNCTION], &[1]),
        (listed(&[nic()]), &[], &[]),
        // What lies on a bridge's bus is not behind it, whatever is.
        (listed(&[behind(7)]), &[NIC], &[1]),
    ] {
        let found = intel(&[unit.clone(), rest()], assigned);
        assert_eq!(found, both(of), "{unit:x?} {assigned:x?}");
    }
    // The order is not the firmware's word.
    let turned = intel(&[rest(), listed(&[behind(1)])], &[FUNCTION, NIC]);
    let found = Found::Intel(units(&[OTHER, BASE], &[1, 0], 0xf0f8));
    assert_eq!(turned, Ok(found));
    // Of two that list it, the first.
    let twice = [
        listed(&[nic()]),
        drhd(1, 0, OTHER, &[nic(), ioapic_scope()]),
    ];
    assert_eq!(intel(&twice, &[NIC]), both(&[0]));
    // One of another segment is not looked at, but for its form.
    let elsewhere = |scopes: &[Vec<u8>]| [drhd(1, 1, 0, scopes), rest()];
    let found = Found::Intel(units(&[OTHER], &[0], 0xf0f8));
    assert_eq!(intel(&elsewhere(&[]), &[FUNCTION]), Ok(found.clone()));
    let same_id = elsewhere(&[scope(3, 3, &[0, 0])]);
    assert_eq!(intel(&same_id, &[FUNCTION]), Ok(found));
    let malformed = intel(&elsewhere(&[Vec::from([1, 0])]), &[FUNCTION]);
    assert_eq!(malformed, Err(Unusable::Malformed));
}

#[test]
fn a_function_of_which_nobody_knows_the_unit() {
    let unit = |scopes: &[Vec<u8>]| drhd(0, 0, BASE, scopes);
    let rest = |scopes: &[Vec<u8>]| drhd(1, 0, OTHER, scopes);
    let nic = || scope(1, 0, &[2, 0]);
    let look = |units: &[Vec<u8>]| intel(units, &[NIC, FUNCTION]);
    // Nobody has the second.
    let none = [unit(&[nic(), ioapic_scope()]), drhd(0, 0, OTHER, &[])];
    assert_eq!(look(&none), Err(Unusable::NoUnit(FUNCTION)));
    // Nobody knows what is behind 00:07.0, nor a way of three bytes.
    let bridge = [unit(&[scope(2, 0, &[7, 0])]), rest(&[ioapic_scope()])];
    assert_eq!(look(&bridge), Err(Unusable::Unclear(FUNCTION)));
    let odd = [unit(&[scope(1, 0, &[7, 0, 1])]), rest(&[ioapic_scope()])];
    assert_eq!(look(&odd), Err(Unusable::Unclear(NIC)));
    // Whoever has it, all of them are turned on.
    let nowhere = [unit(&[nic()]), drhd(1, 0, 0, &[ioapic_scope()])];
    assert_eq!(look(&nowhere), Err(Unusable::Malformed));
    let no_ioapic = [unit(&[nic()]), rest(&[])];
    assert_eq!(look(&no_ioapic), Err(Unusable::NoRemapping));
}

#[test]
fn as_many_units_as_there_is_room_for() {
    let unit = |number: usize| drhd(0, 0, BASE + 0x1000 * number as u64, &[]);
    let some = |count: usize| {
        let rest = drhd(1, 0, OTHER, &[ioapic_scope()]);
        (1..count).map(unit).chain([rest]).collect::<Vec<_>>()
    };
    let Ok(Found::Intel(found)) = intel(&some(UNITS), &[FUNCTION]) else {
        panic!("not found");
    };
    assert_eq!((found.registers.len(), &found.of[..]), (UNITS, &[7][..]));
    let many = intel(&some(UNITS + 1), &[FUNCTION]);
    assert_eq!(many, Err(Unusable::Units(UNITS + 1)));
    let block = |number: usize| ivhd(0x10, 0xfd00_0000 + 0x4000 * number as u64, &PLAIN);
    // Each has a second block, which is no unit.
    let blocks: Vec<_> = (0..UNITS + 1).chain(0..UNITS + 1).map(block).collect();
    let look = |blocks: &[Vec<u8>]| {
        let mut machine = machine(2, ivrs(blocks));
        find(&mut machine, None, &mut [0; 4096], &[], &mut |_| None)
    };
    assert_eq!(look(&blocks), Err(Unusable::Units(UNITS + 1)));
    assert!(look(&blocks[1..]).is_err() && look(&blocks[..UNITS]).is_ok());
}

#[test]
fn what_is_found_is_told() {
    let told = |assigned: &[u16]| {
        let nic = [scope(1, 0, &[2, 0])];
        let two = [drhd(0, 0, BASE, &nic), drhd(1, 0, OTHER, &[ioapic_scope()])];
        std::string::ToString::to_string(&intel(&two, assigned).expect("found"))
    };
    assert_eq!(told(&[]), "VT-d units at 0xfed80000, 0xfed90000");
    assert_eq!(told(&[NIC]), "VT-d unit at 0xfed80000, of 2 units");
    assert_eq!(told(&[FUNCTION]), "VT-d unit at 0xfed90000, of 2 units");
    assert_eq!(told(&[FUNCTION, NIC]), told(&[]));
}

#[test]
fn memory_of_firmware_behind_a_bridge_is_of_what_is_there() {
    let first = || drhd(0, 0, BASE, &[scope(2, 0, &[1, 0])]);
    let rest = || drhd(1, 0, OTHER, &[ioapic_scope()]);
    let with = |scope| {
        let structures = [first(), rest(), rmrr(0, &[scope])];
        let found = reserved_in(intel(&structures, &[FUNCTION]))?;
        Ok(found.iter().map(|one| (one.requester, one.unit)).collect())
    };
    let of = |functions: &[(u16, u8)]| Ok::<_, Unusable>(functions.to_vec());
    let own = || of(&[(FUNCTION, 0)]);
    assert_eq!(with(scope(2, 0, &[1, 0])), own());
    assert_eq!(with(scope(2, 0, &[0x1c, 0])), of(&[]));
    assert_eq!(with(scope(1, 0, &[1, 0, 0, 0])), own());
    // Nobody knows: it may be.
    assert_eq!(with(scope(2, 0, &[7, 0])), own());
    // Functions that nobody has, behind the same bridge and another.
    assert_eq!(with(scope(1, 0, &[1, 0, 1, 2])), of(&[(0x030a, 0)]));
    assert_eq!(with(scope(1, 0, &[0x1c, 0, 0, 0])), of(&[(0x0500, 1)]));
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
    let found = |of: &[u8]| Ok(Found::Amd(units(&[BASE, OTHER], of, 0xa0)));
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
        assert_eq!(
            look(&with(entries), &[FUNCTION]),
            found(&[1]),
            "{entries:x?}"
        );
    }
    let none = Err(Unusable::NoUnit(FUNCTION));
    for entries in [
        &range(0x0301, 0x03ff)[..],
        &range(0x0200, 0x02ff),
        &[2, 1, 3, 0],
        &[],
    ] {
        assert_eq!(look(&with(entries), &[FUNCTION]), none, "{entries:x?}");
    }
    // A unit of another segment has other functions with these ids.
    let mut elsewhere = with(&[2, 0, 3, 0]);
    elsewhere[0] = ivhd(
        0x10,
        BASE,
        &[&range(0x4000, 0x5fff)[..], &special(0xa0, 1)].concat(),
    );
    elsewhere[1][16] = 1;
    let alone = Ok(Found::Amd(units(&[BASE], &[0], 0xa0)));
    assert_eq!(look(&elsewhere, &[0x4000]), alone);
    // Each has one of them.
    let two = look(&with(&[2, 0, 3, 0]), &[FUNCTION, 0x4000]);
    assert_eq!(two, found(&[1, 0]));
    // Aliases and I/O APICs of each are looked at.
    let alias = with(&[0x42, 0, 3, 0, 0, 1, 3, 0]);
    assert_eq!(look(&alias, &[FUNCTION]), Err(Unusable::Alias(FUNCTION)));
    assert_eq!(look(&with(&[]), &[0xa1]), Err(Unusable::SharedId(0xa1)));
}
