//! Tables in the shapes that machines have.

use super::*;

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
    let find = |id| {
        find(&mut board.clone(), None, &mut [0; 4096], &[id], &mut |_| {
            None
        })
    };
    let with = |order: [u16; 2]| {
        let reserved = reserved(&order).into_iter().collect();
        let unit = units(&[0xfed9_1000], &[0], 0xf0ff);
        Ok(Found::Intel(Units { reserved, ..unit }))
    };
    assert_eq!(find(0x00c8), with([0x00e8, 0x00d0]));
    // That of the assigned one comes first.
    assert_eq!(find(0x00d0), with([0x00d0, 0x00e8]));
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
        find(&mut machine, None, &mut [0; 4096], &[0x0300], &mut |_| None)
    };
    let two = [graphics(BASE), rest(), later(5), later(6)];
    let both = [BASE, 0xfed9_1000];
    let found = Found::Intel(units(&both, &[1], 0x00f7));
    assert_eq!(look(&two), Ok(found));
    let four: Vec<_> = [0xfe71_0000, 0xfe71_4000, 0xfe71_9000, 0xfe71_8000]
        .map(graphics)
        .into();
    assert_eq!(look(&four), Err(Unusable::NoUnit(0x0300)));
    let one = [drhd(1, 0, BASE, &[ioapic_scope()]), later(5), later(6)];
    let found = Found::Intel(units(&[BASE], &[0], 0xf0f8));
    assert_eq!(look(&one), Ok(found));
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
    let find = |id| {
        find(&mut board.clone(), None, &mut [0; 4096], &[id], &mut |_| {
            None
        })
    };
    let unit = Found::Amd(units(&[0xfeb8_0000], &[0], 0xa0));
    assert_eq!(find(0x0300), Ok(unit));
    assert_eq!(find(0x0208), Err(Unusable::Alias(0x0208)));
    assert_eq!(find(0x0001), Err(Unusable::SharedId(1)));
}
