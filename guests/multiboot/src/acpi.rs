//! The tables through which a kernel powers a PC off (ACPI 6.5 chapters 5 and 7).

use spec::acpi::PM1_CONTROL;

use crate::Memory;

/// Where the RSDP is looked for, at multiples of 16 (section 5.2.5.1).
const SEARCH: core::ops::Range<u64> = 0xe_0000..0x10_0000;
/// Longest table that is looked at, in bytes.
const LONGEST: u32 = 0x1_0000;

/// What there is to power off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// PM1a control register.
    pub control: u16,
    /// Power management timer.
    pub timer: u16,
    /// Sleep type of S5.
    pub sleep_type: u8,
    /// Entries of the MADT: local APICs, I/O APICs, overrides.
    pub controllers: [u32; 3],
}

impl Power {
    /// Returns whether it is the machine that the hypervisor documents.
    #[must_use]
    pub fn is_documented(&self) -> bool {
        self.control == PM1_CONTROL && self.controllers == [1, 1, 1]
    }
}

/// Finds the tables; `None` if one is missing or has a wrong checksum.
pub fn find(memory: &impl Memory) -> Option<Power> {
    let rsdp = SEARCH.step_by(16).find(|&at| {
        memory.bytes(at) == Some(*b"RSD PTR ") && sums_to_0(memory, at, 20) == Some(true)
    })?;
    let rsdt: u64 = memory.word(rsdp + 16)?.into();
    let fadt = listed(memory, rsdt, *b"FACP")?;
    let madt = listed(memory, rsdt, *b"APIC")?;
    let dsdt: u64 = memory.word(fadt + 40)?.into();
    Some(Power {
        control: memory.word(fadt + 64)? as u16,
        timer: memory.word(fadt + 76)? as u16,
        sleep_type: sleep_type(memory, dsdt, length(memory, dsdt, *b"DSDT")?)?,
        controllers: controllers(memory, madt, length(memory, madt, *b"APIC")?),
    })
}

fn sums_to_0(memory: &impl Memory, start: u64, length: u32) -> Option<bool> {
    let mut sum = 0u8;
    for at in start..start + u64::from(length) {
        sum = sum.wrapping_add(memory.byte(at)?);
    }
    Some(sum == 0)
}

/// Returns the length of a table that is whole.
fn length(memory: &impl Memory, table: u64, signature: [u8; 4]) -> Option<u32> {
    let length = memory.word(table + 4)?;
    let whole = memory.bytes(table) == Some(signature)
        && (36..LONGEST).contains(&length)
        && sums_to_0(memory, table, length)?;
    whole.then_some(length)
}

/// Returns the table with a signature that the RSDT lists.
fn listed(memory: &impl Memory, rsdt: u64, signature: [u8; 4]) -> Option<u64> {
    let end = rsdt + u64::from(length(memory, rsdt, *b"RSDT")?);
    (rsdt + 36..end)
        .step_by(4)
        .filter_map(|at| memory.word(at))
        .map(u64::from)
        .find(|&table| length(memory, table, signature).is_some())
}

/// Returns the first number of the package `_S5`: a zero or a byte.
fn sleep_type(memory: &impl Memory, dsdt: u64, length: u32) -> Option<u8> {
    let name = (dsdt..dsdt + u64::from(length)).find(|&at| memory.bytes(at) == Some(*b"_S5_"))?;
    // Package, its length of one byte, its count.
    let [package, _, _, first, second] = memory.bytes(name + 4)?;
    match (package, first) {
        (0x12, 0) => Some(0),
        (0x12, 0x0a) => Some(second),
        _ => None,
    }
}

/// Returns how many local APICs, I/O APICs and overrides there are.
fn controllers(memory: &impl Memory, madt: u64, length: u32) -> [u32; 3] {
    let mut counts = [0; 3];
    let mut at = madt + 44;
    while at < madt + u64::from(length) {
        let Some([kind, size]) = memory.bytes(at) else {
            break;
        };
        if let Some(count) = counts.get_mut(usize::from(kind)) {
            *count += 1;
        }
        at += u64::from(size.max(2));
    }
    counts
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    struct Tables(Vec<u8>);

    impl Memory for Tables {
        fn byte(&self, address: u64) -> Option<u8> {
            let at = address.checked_sub(spec::acpi::RSDP)?;
            self.0.get(at as usize).copied()
        }
    }

    #[test]
    fn the_tool_s_tables() {
        let power = find(&Tables(guest_image::acpi::tables())).expect("all tables");
        assert!(power.is_documented());
        assert_eq!(
            (power.control, power.timer, power.sleep_type),
            (0x604, 0x608, 0)
        );
    }

    #[test]
    fn any_byte_changed_is_noticed_or_changes_nothing_that_counts() {
        let tables = guest_image::acpi::tables();
        let whole = find(&Tables(tables.clone()));
        let mut refused = 0;
        for at in 0..tables.len() {
            let mut broken = tables.clone();
            broken[at] ^= 0x10;
            match find(&Tables(broken)) {
                None => refused += 1,
                found => assert_eq!(found, whole, "byte {at}"),
            }
        }
        assert!(refused > 300, "{refused}");
    }
}
