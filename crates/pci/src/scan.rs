//! Finds the functions of a machine.

use core::ops::RangeInclusive;

use crate::{Bdf, regs};

/// Header type 1 is a PCI-to-PCI bridge; its secondary bus number is here.
const SECONDARY_BUS: u16 = 0x19;
const BUSES: usize = 256;

/// Calls `visit` for every function that is there, until it says `true`; gives
/// whether it did. `read` reads a dword of a function's configuration space.
///
/// Buses behind bus 0 come first, one by one. Other root buses are told of by
/// ACPI's namespace only, which nobody here can interpret, so all of the `buses`
/// that no bridge leads to are looked at: after everything else, for that takes
/// 32 reads a bus, and a machine with one root bus has what is looked for by then.
pub fn each_function(
    buses: u16,
    mut read: impl FnMut(Bdf, u16) -> u32,
    mut visit: impl FnMut(Bdf) -> bool,
) -> bool {
    let mut reached = [false; BUSES];
    let mut seen = [false; BUSES];
    reached[0] = true;
    for roots in [false, true] {
        for bus in 0..=u8::MAX {
            let at = usize::from(bus);
            let wanted = reached[at] || roots && u16::from(bus) < buses;
            if seen[at] || !wanted {
                continue;
            }
            seen[at] = true;
            if scan_bus(bus, &mut reached, &mut read, &mut visit) {
                return true;
            }
        }
    }
    false
}

fn scan_bus(
    bus: u8,
    reached: &mut [bool; BUSES],
    read: &mut impl FnMut(Bdf, u16) -> u32,
    visit: &mut impl FnMut(Bdf) -> bool,
) -> bool {
    for device in 0..32 {
        let mut functions = 1;
        let mut function = 0;
        while function < functions {
            let Some(bdf) = Bdf::new(bus, device, function) else {
                break;
            };
            function += 1;
            if read(bdf, regs::VENDOR) as u16 == 0xffff {
                continue;
            }
            if visit(bdf) {
                return true;
            }
            let header = read(bdf, regs::HEADER_TYPE & !3) >> 16;
            if header & 0x80 != 0 {
                // Function 0 says that there are others.
                functions = 8;
            }
            if header & 0x7f == 1 {
                let secondary = (read(bdf, SECONDARY_BUS & !3) >> 8) as u8;
                // A bridge's secondary bus has a higher number.
                reached[usize::from(secondary)] |= secondary > bus;
            }
        }
    }
    false
}

/// Returns the buses behind a bridge, the one right behind it first (PCI-to-PCI Bridge
/// Architecture Specification 1.2, section 3.2.5); `None` if there is none at `bdf`. `read`
/// reads a dword of a function's configuration space.
pub fn buses_behind(bdf: Bdf, mut read: impl FnMut(Bdf, u16) -> u32) -> Option<RangeInclusive<u8>> {
    if read(bdf, regs::VENDOR) as u16 == 0xffff
        || read(bdf, regs::HEADER_TYPE & !3) >> 16 & 0x7f != 1
    {
        return None;
    }
    let [_, secondary, subordinate, _] = read(bdf, SECONDARY_BUS & !3).to_le_bytes();
    // Firmware that has not numbered it yet leaves 0.
    (secondary > bdf.bus() && secondary <= subordinate).then_some(secondary..=subordinate)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Functions by address: header type, secondary bus.
    struct Machine(BTreeMap<u16, (u32, u32)>);

    impl Machine {
        fn new(functions: &[(&str, u32, u32)]) -> Self {
            let bdf = |text| Bdf::parse(text).expect("an address").requester_id();
            let each = functions.iter();
            Self(
                each.map(|&(at, kind, bus)| (bdf(at), (kind, bus)))
                    .collect(),
            )
        }

        fn find(&self, buses: u16, end: Option<&str>) -> (Vec<std::string::String>, u32) {
            let mut found = Vec::new();
            let mut reads = 0;
            let read = |bdf: Bdf, offset| {
                reads += 1;
                match (self.0.get(&bdf.requester_id()), offset) {
                    (None, _) => u32::MAX,
                    (Some((kind, _)), 0x0c) => kind << 16,
                    (Some((_, bus)), 0x18) => bus << 8,
                    _ => 0x0010_1b36,
                }
            };
            each_function(buses, read, |bdf| {
                found.push(std::format!("{bdf}"));
                end == found.last().map(|text| text.as_str())
            });
            (found, reads)
        }
    }

    #[test]
    fn a_second_root_bus_is_found() {
        // QEMU's pxb-pcie with a root port and an NVMe; nvme-cli#2391.
        let machine = Machine::new(&[
            ("00:00.0", 0, 0),
            ("00:03.0", 1, 1),
            ("80:00.0", 1, 0x81),
            ("81:00.0", 0, 0),
            ("01:00.0", 0x80, 0),
            ("01:00.3", 0, 0),
            ("c0:1f.0", 0, 0),
        ]);
        let all = [
            "00:00.0", "00:03.0", "01:00.0", "01:00.3", "80:00.0", "81:00.0", "c0:1f.0",
        ];
        assert_eq!(machine.find(256, None).0, all);
        // The window ends before bus 0xc0.
        assert_eq!(machine.find(0xc0, None).0, all[..6]);
    }

    #[test]
    fn what_is_behind_a_bridge_is_found_before_other_roots_are_looked_at() {
        for bridge in [1, 0x81] {
            let machine = Machine::new(&[
                ("00:00.0", 0, 0),
                ("00:1c.0", bridge, 5),
                ("05:00.0", 0, 0),
                ("02:00.0", 0, 0),
            ]);
            let (found, reads) = machine.find(256, Some("05:00.0"));
            assert_eq!(found, ["00:00.0", "00:1c.0", "05:00.0"], "{bridge:#x}");
            assert!(reads < 60, "{reads}");
        }
        // A bridge's bus number that cannot be behind it leads nowhere, and a function
        // that is not a bridge has other registers there.
        let machine = Machine::new(&[
            ("00:01.0", 1, 0),
            ("00:02.0", 0, 7),
            ("07:00.0", 0, 0),
            ("03:00.0", 0, 0),
        ]);
        let all = machine.find(256, None).0;
        assert_eq!(all, ["00:01.0", "00:02.0", "03:00.0", "07:00.0"]);
    }

    #[test]
    fn what_lies_behind_a_bridge_is_its_own_word() {
        let buses = |header: u32, numbers: u32| {
            let bdf = Bdf::new(2, 1, 0).unwrap();
            buses_behind(bdf, |of, offset| match (of == bdf, offset) {
                (true, 0x0c) => header << 16,
                (true, 0x18) => numbers,
                (true, _) => 0x0010_1b36,
                _ => u32::MAX,
            })
        };
        assert_eq!(buses(1, 0x4005_0302), Some(3..=5));
        assert_eq!(buses(0x81, 0x4003_0302), Some(3..=3));
        for (header, numbers) in [(0, 0x4005_0302), (1, 0), (1, 0x0002_0302), (1, 0x0005_0202)] {
            assert_eq!(buses(header, numbers), None, "{header} {numbers:#x}");
        }
        let nothing = Bdf::new(0, 1, 0).unwrap();
        assert_eq!(buses_behind(nothing, |_, _| u32::MAX), None);
    }

    #[test]
    fn a_device_has_the_functions_that_its_first_says() {
        let machine = Machine::new(&[
            ("00:03.0", 0, 0),
            ("00:03.1", 0, 0),
            ("00:04.0", 0x80, 0),
            ("00:04.7", 0, 0),
        ]);
        let all = machine.find(1, None).0;
        assert_eq!(all, ["00:03.0", "00:04.0", "00:04.7"]);
    }

    #[test]
    fn what_is_behind_bus_0_costs_no_look_at_other_roots() {
        let machine = Machine::new(&[("00:00.0", 0, 0), ("00:1f.0", 0x80, 0), ("00:1f.2", 0, 0)]);
        let (found, reads) = machine.find(256, Some("00:1f.2"));
        assert_eq!(found, ["00:00.0", "00:1f.0", "00:1f.2"]);
        assert!(reads < 60, "{reads}");
        assert!(machine.find(256, Some("02:00.0")).1 < 256 * 33);
    }

    #[test]
    fn bridges_that_lead_nowhere_or_back_end() {
        let machine = Machine::new(&[
            ("00:01.0", 1, 0),
            ("00:02.0", 1, 2),
            ("02:00.0", 1, 2),
            ("02:01.0", 1, 1),
            ("ff:1f.0", 1, 0xff),
        ]);
        assert_eq!(machine.find(256, None).0.len(), 5);
    }
}
