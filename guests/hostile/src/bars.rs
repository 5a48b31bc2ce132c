//! Attacks by BARs: not decoded, on top of something else, out of the window.

use probe::check::{Verdict, expect};
use probe::target::{BAR0, MEMORY};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Machine, ones};
use crate::nic::STATION;

const WIDTHS: [u8; 4] = [1, 2, 4, 8];
/// Stays in scratch RAM whatever is moved over it.
const PATTERN: u64 = 0x5ca1_ab1e_0ddb_a115;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 2] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [
        attack("decode-off", decode_off),
        attack("bar-moves", bar_moves),
    ]
}

/// Checks that addresses which are not decoded read all ones, at once and at every width.
fn decode_off<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let registers = h.target.bar_address(0);
    let table = h.target.table()?;
    let pba = h.target.pba()?;
    h.target.set_command(MEMORY);
    let station = h.target.load(registers + STATION, 4)?;
    for round in 0..h.times(100) {
        h.target.set_command(0);
        for address in [registers + STATION, table, pba] {
            for bytes in WIDTHS {
                let found = h.target.load(address, bytes)? & ones(bytes);
                expect("read of a BAR that is off", address, ones(bytes), found)?;
                h.target.store(address, bytes, 0)?;
            }
        }
        h.target.set_command(MEMORY);
        let found = h.target.load(registers + STATION, 4)? & ones(4);
        expect(
            "station address with the BAR on again",
            round,
            station & ones(4),
            found,
        )?;
    }
    Ok(())
}

/// Moves a BAR over RAM, over another BAR, over foreign addresses and out of
/// reach: RAM stays RAM, and moving it back works.
fn bar_moves<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let scratch = h.machine().scratch();
    let ram_end = h.machine().ram().end;
    let registers = h.target.bar_address(0);
    let table = h.target.table()?;
    h.target.set_command(MEMORY);
    let station = h.target.load(registers + STATION, 4)?;
    h.reach().store(scratch, 8, PATTERN);
    let places = [
        scratch,
        ram_end - 0x1000,
        table,
        registers,
        0xfee0_0000,
        0xfec0_0000,
        0xfed0_0000,
        0xb000_0000,
        0xc000_0000,
        0xbfff_f000,
        0xffff_f000,
        0x1000,
        0,
    ];
    for index in [0u8, 1, 3] {
        for place in places {
            let mine = h.target.bar_address(index);
            h.target.set_command(0);
            h.target.set_dword(BAR0 + 4 * index, place as u32);
            h.target.set_command(MEMORY);
            for bytes in WIDTHS {
                // Only the guest's own RAM has a defined value there now.
                let _ = h.target.load(place, bytes);
                let _ = h.target.load(mine, bytes);
                if place != scratch && place + 0x1000 != ram_end {
                    let _ = h.target.store(place, bytes, u64::MAX);
                }
            }
            // Decode stays on: it moves at once (C4).
            let elsewhere = h.random.word() as u32;
            h.target.set_dword(BAR0 + 4 * index, elsewhere);
            let (_, kept) = h.reach().load(scratch, 8);
            expect("RAM under a BAR", place, PATTERN, kept)?;
            h.target.restore();
            h.target.set_command(MEMORY);
            let found = h.target.load(registers + STATION, 4)? & ones(4);
            expect(
                "station address after a move",
                place,
                station & ones(4),
                found,
            )?;
        }
    }
    Ok(())
}
