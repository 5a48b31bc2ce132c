//! The memory of a PC, as the Linux boot protocol tells it (Documentation/arch/x86/boot.rst
//! and zero-page.rst of Linux).

use core::ops::Range;

use spec::CONFIG_WINDOW;
use spec::acpi::{DISPLAY, FIRMWARE, RSDP};

use crate::host::GuestMemory;

/// Offsets in the boot parameters: the RSDP's address, the entries of the memory map, and
/// their number.
const RSDP_ADDRESS: u64 = 0x70;
const COUNT: u64 = 0x1e8;
const TABLE: u64 = 0x2d0;
/// Bytes of an entry.
const ENTRY: usize = 20;
/// Types of memory.
const USABLE: u32 = 1;
const RESERVED: u32 = 2;

/// Replaces the memory map in the boot parameters of a guest with this RAM by that of a
/// PC, whose firmware has left ACPI's tables in memory, and names them. Returns `false` if
/// the parameters are not in RAM.
pub fn describe(ram: &Range<u64>, boot_params: u64, host: &mut impl GuestMemory) -> bool {
    let map = [
        (ram.start..DISPLAY, USABLE),
        (FIRMWARE, RESERVED),
        (FIRMWARE.end..ram.end, USABLE),
        // Kernels use MCFG's window only where it is reserved.
        (CONFIG_WINDOW, RESERVED),
    ];
    let mut table = [0; 4 * ENTRY];
    for (entry, (range, kind)) in table.chunks_exact_mut(ENTRY).zip(map) {
        entry[..8].copy_from_slice(&range.start.to_le_bytes());
        let length = range.end.saturating_sub(range.start);
        entry[8..16].copy_from_slice(&length.to_le_bytes());
        entry[16..].copy_from_slice(&kind.to_le_bytes());
    }
    let count = (table.len() / ENTRY) as u8;
    host.write_ram(boot_params + TABLE, &table)
        && host.write_ram(boot_params + COUNT, &[count])
        && host.write_ram(boot_params + RSDP_ADDRESS, &RSDP.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Page([u8; 4096]);

    impl GuestMemory for Page {
        fn read_ram(&mut self, _: u64, _: &mut [u8]) -> bool {
            false
        }
        fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool {
            let at = address as usize - 0x1000;
            let place = self.0.get_mut(at..at + bytes.len());
            place.map(|place| place.copy_from_slice(bytes)).is_some()
        }
    }

    #[test]
    fn tables_are_reserved_and_named() {
        let mut page = Page([0xff; 4096]);
        assert!(describe(&(0..32 << 20), 0x1000, &mut page));
        let long = |at: usize| u64::from_le_bytes(page.0[at..at + 8].try_into().unwrap());
        assert_eq!(page.0[0x1e8], 4);
        assert_eq!(long(0x70), 0xf_0000);
        let entry = |index: usize| {
            let at = 0x2d0 + 20 * index;
            (long(at), long(at + 8), page.0[at + 16])
        };
        assert_eq!(entry(0), (0, 0xa_0000, 1));
        assert_eq!(entry(1), (0xf_0000, 0x1_0000, 2));
        assert_eq!(entry(2), (1 << 20, 31 << 20, 1));
        assert_eq!(entry(3), (0xfef0_0000, 1 << 20, 2));
    }

    #[test]
    fn parameters_that_are_nowhere() {
        let mut page = Page([0; 4096]);
        assert!(!describe(&(0..32 << 20), 0x2000, &mut page));
    }
}
