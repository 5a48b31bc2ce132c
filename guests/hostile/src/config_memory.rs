//! Attacks on configuration space as memory (ECAM): it is the same as by the ports, and
//! what the ports cannot ask for, such as 8 bytes, odd places and other functions' pages,
//! reaches nothing else.

use kit::pci::Bdf;
use probe::check::{Verdict, expect};
use probe::target::{ENABLE, FUNCTION_MASK};
use spec::CONFIG_WINDOW;

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Machine, ones};

/// Bytes of a function's configuration space, and of the part that the ports reach.
const SPACE: u64 = 4096;
const BY_PORTS: u64 = 256;
/// Registers that no write changes: identity, class, subsystem, capability pointer.
const READ_ONLY: [u8; 4] = [0x00, 0x08, 0x2c, 0x34];

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 1] {
    [Attack {
        name: "config-memory",
        group: Group::Common,
        run: memory,
    }]
}

/// Returns the address of a function's configuration space.
fn space(bdf: Bdf) -> u64 {
    CONFIG_WINDOW.start + SPACE * u64::from(bdf.device << 3 | bdf.function)
}

fn memory<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let identity = h.target.dword(0);
    for round in 0..h.times(20_000) {
        match h.random.below(6) {
            0 => as_by_ports(h),
            1 => odd_places(h),
            2 => other_functions(h),
            3 => extended_space(h),
            4 => read_only(h),
            _ => message_control(h),
        }?;
        if round % 256 == 0 {
            expect("identity", round, identity, h.target.dword(0))?;
        }
    }
    h.target.restore();
    expect("identity", 0u8, identity, h.target.dword(0))
}

/// Reads the two dwords around an offset by the ports.
fn dwords<M: Machine>(h: &mut Hostile<M>, offset: u64) -> u64 {
    let at = offset as u8 & !7;
    u64::from(h.target.dword(at)) | u64::from(h.target.dword(at + 4)) << 32
}

/// Writes any value into any register, at any width, and reads it by both ways (C1).
fn as_by_ports<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let bytes = h.random.pick(&[1u8, 2, 4, 8]);
    let offset = h.random.below(BY_PORTS) & !u64::from(bytes - 1);
    let address = space(h.target.bdf) + offset;
    let value = h.random.odd();
    h.reach().store(address, bytes, value);
    let expected = dwords(h, offset) >> (8 * (offset & 7)) & ones(bytes);
    let (_, found) = h.reach().load(address, bytes);
    expect("register as memory", offset, expected, found)
}

/// Accesses that are not aligned, some of which cross the end of the function's page or of
/// the window: they read all ones, and change nothing (C1).
fn odd_places<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let bytes = h.random.pick(&[2u8, 4, 8]);
    let odd = 1 + h.random.below(u64::from(bytes) - 1);
    let start = space(h.target.bdf);
    let address = match h.random.below(4) {
        0 => CONFIG_WINDOW.end - u64::from(bytes) + odd,
        1 => start + SPACE - u64::from(bytes) + odd,
        _ => start + (h.random.below(BY_PORTS - 8) & !7) + odd,
    };
    let offset = (address - start).min(BY_PORTS - 8) & !7;
    let before = dwords(h, offset);
    let value = h.random.odd();
    h.reach().store(address, bytes, value);
    let (_, found) = h.reach().load(address, bytes);
    expect("odd place of the window", address, ones(bytes), found)?;
    expect(
        "register at an odd place",
        offset,
        before,
        dwords(h, offset),
    )
}

/// The pages of functions that are not there or another guest's: none answers (C3).
fn other_functions<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let own = h.target.bdf;
    let place = h.random.word();
    let bdf = Bdf {
        bus: 0,
        device: (place & 31) as u8,
        function: (place >> 8 & 7) as u8,
    };
    if bdf == own {
        return Ok(());
    }
    let bytes = h.random.pick(&[1u8, 2, 4, 8]);
    let address = space(bdf) + (h.random.below(SPACE) & !u64::from(bytes - 1));
    let value = h.random.odd();
    h.reach().store(address, bytes, value);
    let (_, found) = h.reach().load(address, bytes);
    expect("page of nobody", address, ones(bytes), found)
}

/// Extended capabilities are hidden, and nothing behind them is written (C7).
fn extended_space<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let bytes = h.random.pick(&[1u8, 2, 4, 8]);
    let offset = (BY_PORTS + h.random.below(SPACE - BY_PORTS)) & !u64::from(bytes - 1);
    let address = space(h.target.bdf) + offset;
    let value = h.random.odd();
    h.reach().store(address, bytes, value);
    let (_, found) = h.reach().load(address, bytes);
    expect("extended space", offset, 0u8, found)
}

/// What is read-only stays as it is (C2, C6).
fn read_only<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let offset = h.random.pick(&READ_ONLY);
    let before = h.target.dword(offset);
    let address = space(h.target.bdf) + u64::from(offset);
    let value = h.random.odd();
    h.reach().store(address, 4, value);
    expect("read-only register", offset, before, h.target.dword(offset))
}

/// MSI-X message control is one register by both ways (M2).
fn message_control<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let at = h.target.msix()?.capability + 2;
    // An enable while MSI is on would be dropped (P3).
    if let Ok(msi) = h.target.msi() {
        h.target.set_word(msi.capability + 2, 0);
    }
    let both = ENABLE | FUNCTION_MASK;
    let size = h.target.word(at) & !both;
    let value = h.random.pick(&[0, ENABLE, FUNCTION_MASK, both]);
    let address = space(h.target.bdf) + u64::from(at);
    h.reach().store(address, 2, value.into());
    expect("control by ports", value, size | value, h.target.word(at))?;
    h.target.set_word(at, both & !value);
    let (_, found) = h.reach().load(address, 2);
    expect("control as memory", value, size | both & !value, found)
}
