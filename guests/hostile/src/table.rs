//! Attacks on the MSI-X table and the PBA, through their BAR.

use probe::check::{Verdict, expect};
use probe::target::{CONTROL, DATA, ENABLE, MEMORY};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Machine, ones};

/// Entries whose contents are followed.
const FOLLOWED: usize = 64;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 2] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [attack("msix-table", msix_table), attack("pba", pba)]
}

/// Accesses the table and the bytes around it with every width at every alignment,
/// with MSI-X on and off: accesses other than aligned ones of 4 or 8 bytes read all
/// ones and are dropped (M12), the others hold the written value (M7, M9, M11).
fn msix_table<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let msix = h.target.msix()?;
    let table = h.target.table()?;
    let size = u64::from(msix.entries) * 16;
    let followed = FOLLOWED.min(msix.entries as usize);
    let mut model = [[0u32; 4]; FOLLOWED];
    h.target.set_command(MEMORY);
    for entry in 0..followed as u32 {
        for (field, value) in [(0, 0), (4, 0), (DATA, 0), (CONTROL, 1)] {
            h.target.set_entry(entry, field, 4, value)?;
        }
        model[entry as usize][3] = 1;
    }
    for round in 0..h.times(2_000) {
        if round % 64 == 0 {
            let control = if h.random.below(2) == 0 { 0 } else { ENABLE };
            h.target.set_control(control)?;
        }
        let bytes = h.random.pick(&[1u8, 2, 4, 4, 4, 8, 8]);
        // From 64 bytes before to 64 behind.
        let offset = h.random.below(size + 128).wrapping_sub(64) & !7
            | h.random.pick(&[0, 0, 0, 4, 1, 2, 3, 6, 7]);
        let value = h.random.odd() & ones(bytes);
        let aligned = bytes >= 4 && offset.is_multiple_of(bytes.into());
        let address = table.wrapping_add(offset);
        if address < h.target.bar_address(msix.table.0) {
            continue;
        }
        if h.random.below(2) == 0 {
            h.target.store(address, bytes, value)?;
            let entry = (offset / 16) as usize;
            if aligned && offset < size && entry < followed {
                let first = (offset % 16 / 4) as usize;
                for half in 0..usize::from(bytes / 4) {
                    let value = (value >> (32 * half)) as u32;
                    let field = first + half;
                    model[entry][field] = if field == 3 { value & 1 } else { value };
                }
            }
        } else if offset < size {
            let found = h.target.load(address, bytes)? & ones(bytes);
            let entry = (offset / 16) as usize;
            if !aligned {
                expect("read of no register", offset, ones(bytes), found)?;
            } else if entry < followed {
                let field = (offset % 16 / 4) as usize;
                let low = u64::from(model[entry][field]);
                let expected = if bytes == 8 {
                    u64::from(model[entry][field + 1]) << 32 | low
                } else {
                    low
                };
                expect("table entry", offset, expected, found)?;
            }
        } else {
            h.target.load(address, bytes)?;
        }
    }
    h.target.set_control(0)
}

/// Accesses the PBA, which is the device's: writes are dropped, odd reads return all
/// ones.
fn pba<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let msix = h.target.msix()?;
    let pba = h.target.pba()?;
    h.target.set_command(MEMORY);
    let size = u64::from(msix.entries.div_ceil(64)) * 8;
    for _ in 0..h.times(500) {
        let bytes = h.random.pick(&[1u8, 2, 4, 8]);
        let offset = h.random.below(size + 16);
        let value = h.random.odd();
        h.target.store(pba + offset, bytes, value)?;
        let found = h.target.load(pba + offset, bytes)? & ones(bytes);
        let whole = bytes >= 4 && offset.is_multiple_of(bytes.into());
        if offset < size {
            let expected = if whole { 0 } else { ones(bytes) };
            expect("pending bits", offset, expected, found)?;
        }
    }
    Ok(())
}
