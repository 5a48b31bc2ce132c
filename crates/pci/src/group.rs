//! Tells which functions can reach each other without the IOMMU.
//!
//! A request that is sent on before it comes to the root of the machine is translated by
//! nobody. Access Control Services (PCIe 6.0 section 6.12) have a port, and the functions of
//! one device, send every request up instead.

use core::fmt;

use crate::{Bdf, CapabilityList, ConfigSpace, buses_behind, each_function, regs};

/// Where extended capabilities begin (PCIe 6.0 section 7.6.3), and as many as fit.
const EXTENDED: u16 = 0x100;
const MOST_EXTENDED: usize = (4096 - 0x100) / 4;
/// Extended capability id: Access Control Services; its capabilities and its control, 16
/// bits each, from its start (section 7.7.11).
const CAP_ACS: u16 = 0x0d;
const ACS_CAPABILITIES: u16 = 4;
const ACS_CONTROL: u16 = 6;
/// Bits of both that keep requests from going anywhere but up: source validation,
/// translation blocking, request and completion redirect, upstream forwarding. The other
/// two, egress control and direct translated requests, open a way beside that.
const ACS_UP: u16 = 0b001_1111;
const ACS_ALL: u16 = 0b111_1111;
/// What a port cannot do without: source validation, request and completion redirect.
const ACS_REDIRECT: u16 = 0b000_1101;

/// Extended capability id: Address Translation Services; its control, 16 bits, and the bit of
/// that which has the function ask the unit for translations (section 10.5.1).
const CAP_ATS: u16 = 0x0f;
const ATS_CONTROL: u16 = 6;
const ATS_ENABLE: u16 = 1 << 15;

/// Has a function ask for no translations, which it would then send as if they had been
/// checked; firmware may have left that on. Returns whether it was on. `space` has to have
/// extended space.
pub fn switch_ats_off(space: &mut impl ConfigSpace) -> bool {
    let Some(at) = extended_capability(space, CAP_ATS) else {
        return false;
    };
    let control = (space.read32(at + ATS_CONTROL - 2) >> 16) as u16;
    let on = control & ATS_ENABLE != 0;
    if on {
        space.write16(at + ATS_CONTROL, control & !ATS_ENABLE);
    }
    on
}

/// Returns the offset of the first extended capability with this id. `space` has to have
/// extended space.
pub fn extended_capability(space: &mut impl ConfigSpace, id: u16) -> Option<u16> {
    let mut at = EXTENDED;
    // A list that leads back ends here.
    for _ in 0..MOST_EXTENDED {
        let head = space.read32(at);
        if head == 0 || head == u32::MAX {
            return None;
        }
        if head as u16 == id {
            return Some(at);
        }
        at = (head >> 20) as u16 & !3;
        if at < EXTENDED {
            return None;
        }
    }
    None
}

/// Has a function send all requests up, as far as it knows of other ways. Returns whether it
/// does so now. `space` has to have extended space.
pub fn redirect(space: &mut impl ConfigSpace) -> bool {
    let Some(at) = extended_capability(space, CAP_ACS) else {
        return false;
    };
    let can = space.read32(at + ACS_CAPABILITIES) as u16;
    space.write16(at + ACS_CONTROL, can & ACS_UP);
    let does = (space.read32(at + ACS_CAPABILITIES) >> 16) as u16;
    can & ACS_REDIRECT == ACS_REDIRECT && does & ACS_ALL == can & ACS_UP
}

/// Returns whether [`redirect`] could have a function do that.
pub fn can_redirect(space: &mut impl ConfigSpace) -> bool {
    extended_capability(space, CAP_ACS)
        .is_some_and(|at| space.read32(at + ACS_CAPABILITIES) as u16 & ACS_REDIRECT == ACS_REDIRECT)
}

/// Returns the bridge whose secondary bus this is; `None` for a root bus. `read` reads a
/// dword of any function's configuration space.
pub fn bridge_above(bus: u8, mut read: impl FnMut(Bdf, u16) -> u32) -> Option<Bdf> {
    let read = core::cell::RefCell::new(&mut read);
    let read = |bdf, offset| (read.borrow_mut())(bdf, offset);
    let mut found = None;
    if bus != 0 {
        // A bridge is on a bus with a lower number than those behind it.
        each_function(bus.into(), read, |bdf| {
            let leads = buses_behind(bdf, read).is_some_and(|buses| *buses.start() == bus);
            found = leads.then_some(bdf);
            leads
        });
    }
    found
}

/// A machine's functions.
pub trait Tree {
    /// Reads a dword of a function's configuration space, its first 256 bytes.
    fn read(&mut self, bdf: Bdf, offset: u16) -> u32;
    /// Returns the bridge above a bus, as [`bridge_above`] does.
    fn bridge_above(&mut self, bus: u8) -> Option<Bdf>;
    /// Returns whether a function sends all requests up.
    fn redirects(&mut self, bdf: Bdf) -> bool;
}

/// One function's space in a tree, which is only read.
struct Space<'a, T>(&'a mut T, Bdf);

impl<T: Tree> ConfigSpace for Space<'_, T> {
    fn read32(&mut self, offset: u16) -> u32 {
        self.0.read(self.1, offset)
    }
    fn write32(&mut self, _: u16, _: u32) {}
    fn write16(&mut self, _: u16, _: u16) {}
}

/// Kinds of bridges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bridge {
    Root,
    Upstream,
    Downstream,
    /// One of a conventional bus, on either side.
    Conventional,
}

fn bridge(tree: &mut impl Tree, bdf: Bdf) -> Bridge {
    let space = &mut Space(tree, bdf);
    let Some(at) = CapabilityList::read(space).find(regs::CAP_PCIE) else {
        return Bridge::Conventional;
    };
    // Device/port type (PCIe 6.0 section 7.5.3.2).
    match space.read32(at) >> 20 & 15 {
        4 => Bridge::Root,
        5 => Bridge::Upstream,
        6 => Bridge::Downstream,
        _ => Bridge::Conventional,
    }
}

/// Returns the id that a function's requests carry if that is not its own: behind a bridge to a
/// conventional bus they have that of the bus's device 0 (PCI Express to PCI/PCI-X Bridge
/// Specification 1.0, section 2.3), and behind one between conventional buses that of the
/// bridge. The bridge that is next to the root decides.
pub fn carried_id(tree: &mut impl Tree, bdf: Bdf) -> Option<Bdf> {
    let mut carried = None;
    let mut at = bdf;
    // Each turn comes to a lower bus.
    while let Some(above) = tree.bridge_above(at.bus()) {
        if bridge(tree, above) == Bridge::Conventional {
            let express = CapabilityList::read(&mut Space(tree, above)).find(regs::CAP_PCIE);
            carried = match express {
                Some(_) => Bdf::new(at.bus(), 0, 0),
                None => Some(above),
            };
        }
        at = above;
    }
    carried.filter(|carried| *carried != bdf)
}

/// Returns whether a device has several functions.
fn has_neighbours(tree: &mut impl Tree, bdf: Bdf) -> bool {
    let first = Bdf::from_requester_id(bdf.requester_id() & !7);
    bdf.function() != 0 || tree.read(first, regs::HEADER_TYPE & !3) >> 16 & 0x80 != 0
}

/// A part of a machine, each with what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Function(Bdf),
    /// All functions of this one's device.
    Device(Bdf),
    Bus(u8),
}

impl Part {
    fn has(self, bdf: Bdf) -> bool {
        match self {
            Self::Function(own) => own == bdf,
            Self::Device(own) => own.requester_id() | 7 == bdf.requester_id() | 7,
            Self::Bus(bus) => bus == bdf.bus(),
        }
    }
}

/// Why a function reaches others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    None,
    /// By its device, or that of this port above it.
    Device(Bdf),
    /// By this port above it.
    Port(Bdf),
    /// By this bridge above it.
    Conventional(Bdf),
}

/// What a function's requests may come to without the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    part: Part,
    way: Way,
}

impl Reach {
    /// Returns that of a function.
    pub fn of(tree: &mut impl Tree, bdf: Bdf) -> Self {
        let mut reach = Self {
            part: Part::Function(bdf),
            way: Way::None,
        };
        let mut at = bdf;
        // Each turn comes to a lower bus.
        loop {
            let above = tree.bridge_above(at.bus());
            let above = above.map(|above| (above, bridge(tree, above)));
            if has_neighbours(tree, at) && !tree.redirects(at) {
                reach.way = Way::Device(at);
                reach.part = match above {
                    // There is one device at the end of a link, whatever number its functions
                    // have (ARI).
                    Some((_, Bridge::Root | Bridge::Downstream)) => Part::Bus(at.bus()),
                    _ => Part::Device(at),
                };
            }
            let Some((above, kind)) = above else {
                return reach;
            };
            match kind {
                Bridge::Conventional => {
                    reach.way = Way::Conventional(above);
                    reach.part = Part::Function(above);
                }
                // Other ports of its switch.
                Bridge::Downstream if !tree.redirects(above) => {
                    reach.way = Way::Port(above);
                    reach.part = Part::Bus(above.bus());
                }
                Bridge::Root if !tree.redirects(above) => {
                    reach.way = Way::Port(above);
                    reach.part = Part::Function(above);
                }
                Bridge::Root | Bridge::Upstream | Bridge::Downstream => {}
            }
            at = above;
        }
    }

    /// Returns whether it has this function.
    pub fn has(self, tree: &mut impl Tree, bdf: Bdf) -> bool {
        let mut at = Some(bdf);
        while let Some(bdf) = at {
            if self.part.has(bdf) {
                return true;
            }
            at = tree.bridge_above(bdf.bus());
        }
        false
    }

    /// Returns whether it is the function alone.
    #[must_use]
    pub fn is_alone(self) -> bool {
        self.way == Way::None
    }

    /// Returns the highest number of a bus on which it has functions that are not behind
    /// others of it.
    #[must_use]
    pub const fn bus(self) -> u8 {
        match self.part {
            Part::Function(bdf) | Part::Device(bdf) => bdf.bus(),
            Part::Bus(bus) => bus,
        }
    }
}

/// In words: how it reaches them.
impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::None => f.write_str("it reaches no other"),
            Way::Device(bdf) => {
                write!(
                    f,
                    "{bdf} is one of several functions of a device without ACS"
                )
            }
            Way::Port(bdf) => write!(f, "the port {bdf} above it has no ACS"),
            Way::Conventional(bdf) => write!(
                f,
                "the bridge {bdf} above it is a conventional one, behind which all functions \
                 share a bus and an id"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeMap;
    use std::string::ToString as _;
    use std::vec::Vec;

    /// A function: header type with the bit for several functions, port type if it is PCI
    /// Express, secondary and subordinate bus, and whether it redirects.
    #[derive(Clone, Copy)]
    struct Function(u32, Option<u32>, [u8; 2], bool);

    const NIC: Function = Function(0, Some(0), [0; 2], false);
    const PART: Function = Function(0x80, Some(0), [0; 2], false);
    const CONVENTIONAL: Function = Function(0, None, [0; 2], false);

    fn port(kind: u32, buses: [u8; 2], acs: bool) -> Function {
        Function(1, Some(kind), buses, acs)
    }

    struct Machine(BTreeMap<u16, Function>);

    impl Machine {
        fn new(functions: &[(&str, Function)]) -> Self {
            let each = functions.iter();
            Self(each.map(|&(at, of)| (bdf(at).requester_id(), of)).collect())
        }

        /// Returns which others a function reaches.
        fn reached(&mut self, from: &str) -> Vec<std::string::String> {
            let own = bdf(from);
            let reach = Reach::of(self, own);
            let all: Vec<u16> = self.0.keys().copied().collect();
            let all = all.into_iter().map(Bdf::from_requester_id);
            let ends = |machine: &Self, bdf: Bdf| machine.0[&bdf.requester_id()].0 & 0x7f == 0;
            let found: Vec<_> = all
                .filter(|&bdf| bdf != own && ends(self, bdf) && reach.has(self, bdf))
                .map(|bdf| bdf.to_string())
                .collect();
            assert!(reach.has(self, own), "{from}");
            assert!(!reach.is_alone() || found.is_empty(), "{from}");
            found
        }
    }

    impl Tree for Machine {
        fn read(&mut self, bdf: Bdf, offset: u16) -> u32 {
            let Some(&Function(header, kind, [secondary, subordinate], _)) =
                self.0.get(&bdf.requester_id())
            else {
                return u32::MAX;
            };
            match (offset, kind) {
                (0x0c, _) => header << 16,
                (0x18, _) => u32::from(subordinate) << 16 | u32::from(secondary) << 8,
                (0x04, Some(_)) => 0x0010_0000,
                (0x34, Some(_)) => 0x40,
                (0x40, Some(kind)) => kind << 20 | 0x2_0010,
                (0, _) => 0x1234_8086,
                _ => 0,
            }
        }
        fn bridge_above(&mut self, bus: u8) -> Option<Bdf> {
            super::bridge_above(bus, |bdf, offset| self.read(bdf, offset))
        }
        fn redirects(&mut self, bdf: Bdf) -> bool {
            self.0[&bdf.requester_id()].3
        }
    }

    fn bdf(text: &str) -> Bdf {
        Bdf::parse(text).expect("an address")
    }

    #[test]
    fn functions_of_one_device_are_a_group_unless_they_redirect() {
        let machine = |acs| {
            let part = Function(0x80, Some(0), [0; 2], acs);
            Machine::new(&[
                ("00:02.0", part),
                ("00:02.1", part),
                ("00:03.0", NIC),
                ("00:04.0", CONVENTIONAL),
            ])
        };
        assert_eq!(machine(false).reached("00:02.0"), ["00:02.1"]);
        assert_eq!(machine(false).reached("00:02.1"), ["00:02.0"]);
        assert!(machine(true).reached("00:02.1").is_empty());
        // One function of a root bus is alone, also without PCI Express.
        for alone in ["00:03.0", "00:04.0"] {
            assert!(machine(false).reached(alone).is_empty(), "{alone}");
        }
        let why = Reach::of(&mut machine(false), bdf("00:02.1")).to_string();
        assert!(
            why.starts_with("00:02.1 is one of several functions"),
            "{why}"
        );
    }

    #[test]
    fn a_root_port_leads_up_if_it_redirects() {
        // Two ports of one device, and one of another.
        let machine = |acs| {
            let part = |bus| Function(0x81, Some(4), [bus; 2], acs);
            Machine::new(&[
                ("00:1c.0", part(1)),
                ("00:1c.1", part(2)),
                ("00:1d.0", port(4, [3; 2], acs)),
                ("00:1f.0", NIC),
                ("01:00.0", NIC),
                ("02:00.0", PART),
                ("02:00.1", PART),
                ("03:00.0", NIC),
            ])
        };
        assert!(machine(true).reached("01:00.0").is_empty());
        assert_eq!(machine(true).reached("02:00.0"), ["02:00.1"]);
        assert_eq!(machine(false).reached("01:00.0"), ["02:00.0", "02:00.1"]);
        assert_eq!(machine(false).reached("02:00.1"), ["01:00.0", "02:00.0"]);
        assert!(machine(false).reached("03:00.0").is_empty());
    }

    #[test]
    fn all_below_a_switch_whose_ports_do_not_redirect_are_a_group() {
        let machine = |first, second, root| {
            Machine::new(&[
                ("00:01.0", port(4, [1, 5], root)),
                ("01:00.0", port(5, [2, 5], false)),
                ("02:00.0", port(6, [3; 2], first)),
                ("02:01.0", port(6, [4; 2], second)),
                ("02:02.0", port(6, [5; 2], true)),
                ("03:00.0", NIC),
                ("04:00.0", NIC),
                ("05:00.0", NIC),
            ])
        };
        for at in ["03:00.0", "04:00.0"] {
            assert!(machine(true, true, true).reached(at).is_empty(), "{at}");
        }
        let mut one = machine(false, true, true);
        assert_eq!(one.reached("03:00.0"), ["04:00.0", "05:00.0"]);
        assert!(one.reached("04:00.0").is_empty());
        let why = Reach::of(&mut one, bdf("03:00.0")).to_string();
        assert_eq!(why, "the port 02:00.0 above it has no ACS");
        // What the switch sends up, the root port may send back.
        let mut root = machine(true, true, false);
        assert_eq!(root.reached("04:00.0"), ["03:00.0", "05:00.0"]);
    }

    #[test]
    fn all_behind_a_conventional_bridge_are_a_group() {
        for kind in [Some(7), None] {
            let mut machine = Machine::new(&[
                ("00:1c.0", port(4, [1, 3], true)),
                ("01:00.0", Function(1, kind, [2, 3], true)),
                ("02:01.0", CONVENTIONAL),
                ("02:02.0", CONVENTIONAL),
                ("02:03.0", Function(1, None, [3; 2], false)),
                ("03:00.0", CONVENTIONAL),
                ("00:02.0", NIC),
            ]);
            assert_eq!(machine.reached("02:01.0"), ["02:02.0", "03:00.0"]);
            assert_eq!(machine.reached("03:00.0"), ["02:01.0", "02:02.0"]);
            assert!(machine.reached("00:02.0").is_empty());
        }
    }

    #[test]
    fn behind_a_conventional_bridge_requests_carry_its_id() {
        let carried = |kind, at: &str| {
            let mut machine = Machine::new(&[
                ("00:1c.0", port(4, [1, 3], true)),
                ("01:00.0", Function(1, kind, [2, 3], true)),
                ("02:00.0", CONVENTIONAL),
                ("02:01.0", CONVENTIONAL),
                ("02:03.0", Function(1, None, [3; 2], false)),
                ("03:00.0", CONVENTIONAL),
                ("00:02.0", NIC),
            ]);
            carried_id(&mut machine, bdf(at)).map(|carried| carried.to_string())
        };
        for at in ["02:01.0", "03:00.0"] {
            assert_eq!(carried(Some(7), at).as_deref(), Some("02:00.0"), "{at}");
            assert_eq!(carried(None, at).as_deref(), Some("01:00.0"), "{at}");
        }
        // Its own.
        assert_eq!(carried(Some(7), "02:00.0"), None);
        assert_eq!(carried(None, "02:00.0").as_deref(), Some("01:00.0"));
        for kind in [Some(7), None] {
            assert_eq!(carried(kind, "00:02.0"), None);
            assert_eq!(carried(kind, "01:00.0"), None);
        }
        // Behind ports and switches it is.
        assert_eq!(carried(Some(5), "02:01.0"), None);
    }

    #[test]
    fn functions_at_the_end_of_a_link_are_one_device() {
        let mut machine = Machine::new(&[
            ("00:1c.0", port(4, [1; 2], true)),
            ("01:00.0", PART),
            ("01:01.2", PART),
        ]);
        assert_eq!(machine.reached("01:00.0"), ["01:01.2"]);
        assert_eq!(machine.reached("01:01.2"), ["01:00.0"]);
    }

    #[test]
    fn bridges_that_lead_back_end() {
        let mut machine = Machine::new(&[
            ("00:01.0", port(4, [2; 2], false)),
            ("02:00.0", port(6, [2; 2], false)),
            ("02:01.0", port(6, [1; 2], false)),
            ("02:02.0", NIC),
        ]);
        assert!(machine.reached("02:02.0").is_empty());
    }

    /// Extended space from 0x100 on.
    struct Extended(Vec<u32>, u16);

    impl ConfigSpace for Extended {
        fn read32(&mut self, offset: u16) -> u32 {
            self.0[usize::from(offset - EXTENDED) / 4]
        }
        fn write32(&mut self, _: u16, _: u32) {
            panic!("a dword");
        }
        fn write16(&mut self, offset: u16, value: u16) {
            let dword = &mut self.0[usize::from(offset - EXTENDED) / 4];
            assert_eq!(offset & 3, 2);
            *dword = *dword & 0xffff | u32::from(value & self.1) << 16;
        }
    }

    fn with_acs(capabilities: u32, control: u32, sticks: u16) -> Extended {
        let mut space = std::vec![0; MOST_EXTENDED];
        space[..2].copy_from_slice(&[0x1401_0001, 7]);
        space[0x10..0x12].copy_from_slice(&[0x0001_000d, control << 16 | capabilities]);
        Extended(space, sticks)
    }

    #[test]
    fn acs_is_switched_on_as_far_as_it_goes_and_looked_at() {
        // What a root port has; egress control of a switch, which is switched off.
        for (capabilities, control, on) in [(0x1f, 0, 0x1f), (0x7f, 0x60, 0x1f), (0xd, 0, 0xd)] {
            let mut space = with_acs(capabilities, control, u16::MAX);
            assert!(can_redirect(&mut space) && redirect(&mut space));
            assert_eq!(space.0[0x11], on << 16 | capabilities);
        }
        // It cannot, or does not.
        assert!(!redirect(&mut with_acs(0x1b, 0, u16::MAX)));
        assert!(!can_redirect(&mut with_acs(0, 0, u16::MAX)));
        assert!(!redirect(&mut with_acs(0x1f, 0, 0x1b)));
    }

    #[test]
    fn translations_that_firmware_left_on_are_switched_off() {
        for (control, on) in [(0x8005, true), (0x0005, false)] {
            let mut space = std::vec![0; MOST_EXTENDED];
            space[0] = 0x1001_000f;
            space[1] = control << 16 | 0x20;
            let mut space = Extended(space, u16::MAX);
            assert_eq!(switch_ats_off(&mut space), on);
            assert_eq!(space.0[1], 0x0005_0020);
            assert!(!switch_ats_off(&mut space));
        }
        assert!(!switch_ats_off(&mut with_acs(0x1f, 0x8000, u16::MAX)));
    }

    #[test]
    fn lists_of_extended_capabilities_end() {
        let list = |heads: &[(usize, u32)]| {
            let mut space = std::vec![0; MOST_EXTENDED];
            for &(at, head) in heads {
                space[(at - 0x100) / 4] = head;
            }
            extended_capability(&mut Extended(space, 0), CAP_ACS)
        };
        // The low two bits of a pointer do not count.
        let pair = [(0x100, 0x1431_0001), (0x140, 0x000d)];
        assert_eq!(list(&pair), Some(0x140));
        for none in [0, u32::MAX, 0x1001_0001, 0x0401_0001, 0xffc1_0001] {
            assert_eq!(list(&[(0x100, none)]), None, "{none:#x}");
        }
    }
}
