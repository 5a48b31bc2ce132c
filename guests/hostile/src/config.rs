//! Attacks on configuration space: any value into any register of any function.

use kit::pci::Bdf;
use probe::check::{Verdict, expect};
use probe::machine::{config_read, config_write};
use probe::target::{ENABLE, MSI_ENABLE};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Machine, ones};

/// Power management and PCI Express capabilities (PCIe 6.0 section 7.5).
const POWER: u8 = 0x01;
const EXPRESS: u8 = 0x10;
/// Device capabilities: the function can be reset by itself; device control:
/// do that.
const RESETS: u32 = 1 << 28;
const RESET: u16 = 1 << 15;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 3] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [
        attack("config-random", random),
        attack("config-absent", absent),
        attack("function-states", states),
    ]
}

/// Writes random values into every register of the function: its identity stays.
fn random<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let identity = h.target.dword(0);
    for round in 0..h.times(100_000) {
        let bytes = h.random.pick(&[1u8, 2, 4]);
        let offset = h.random.below(256) as u8 & !(bytes - 1);
        let value = h.random.odd() as u32;
        if h.random.below(4) == 0 {
            h.target.config(offset, bytes);
        } else {
            h.target.set_config(offset, bytes, value);
        }
        if round % 256 == 0 {
            expect("identity", round, identity, h.target.dword(0))?;
        }
    }
    h.target.restore();
    expect("identity", 0u8, identity, h.target.dword(0))
}

/// Reads functions that were not assigned, on every bus: none answers (C3).
fn absent<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let own = h.target.bdf;
    for _ in 0..h.times(20_000) {
        let place = h.random.word();
        let bdf = Bdf {
            bus: if place & 1 << 32 == 0 { 0 } else { place as u8 },
            device: (place >> 8 & 31) as u8,
            function: (place >> 16 & 7) as u8,
        };
        if bdf == own {
            continue;
        }
        let bytes = h.random.pick(&[1u8, 2, 4]);
        let offset = h.random.below(256) as u8 & !(bytes - 1);
        let value = h.random.odd() as u32;
        config_write(h.reach(), bdf, offset, bytes, value);
        let found = u64::from(config_read(h.reach(), bdf, offset, bytes)) & ones(bytes);
        let which = u64::from(bdf.bus) << 8 | u64::from(bdf.device << 3 | bdf.function);
        expect("register of nobody", which, ones(bytes), found)?;
    }
    Ok(())
}

/// Tries function-level reset, power states, and MSI and MSI-X on at once.
fn states<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let msix = h.target.msix()?;
    let msi = h.target.msi()?;
    let at = msi.capability + 2;
    let identity = h.target.dword(0);
    for round in 0..h.times(50) {
        let (first, second) = (h.random.below(2), h.random.below(2));
        for which in [first, second] {
            if which == 0 {
                h.target.set_control(ENABLE)?;
            } else {
                h.target.set_word(at, MSI_ENABLE);
            }
        }
        let both = h.target.control()? & ENABLE != 0 && h.target.word(at) & MSI_ENABLE != 0;
        expect("MSI and MSI-X on at once (P3)", round, false, both)?;
        if let Some(power) = h.target.capability(POWER) {
            for state in [3, 1, 2, 0] {
                h.target.set_word(power + 4, state);
            }
        }
        if let Some(express) = h.target.capability(EXPRESS)
            && h.target.dword(express + 4) & RESETS != 0
        {
            let control = h.target.word(express + 8);
            h.target.set_word(express + 8, control | RESET);
            expect(
                "MSI-X control after a reset (C8)",
                round,
                0u8,
                h.target.control()? & ENABLE,
            )?;
        }
        expect("identity", round, identity, h.target.dword(0))?;
        let size = u32::from(h.target.word(msix.capability + 2)) & 0x7ff;
        expect("table size", round, msix.entries - 1, size)?;
        h.target.restore();
    }
    Ok(())
}
