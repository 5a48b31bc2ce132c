//! Which functions may not go to two guests, and which nobody may wake.

use core::fmt;

use pci::{Bdf, Reach, Tree, regs};

/// An assigned function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Where it is.
    pub bdf: Bdf,
    /// Its guest, by a number of the caller's.
    pub guest: u32,
    /// Functions of its group may go to other guests.
    pub shares: bool,
}

/// A function that reaches one of another guest without the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its position.
    pub from: usize,
    /// That of the other.
    pub to: usize,
    /// How.
    pub reach: Reach,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the first reaches the second without the IOMMU: {}",
            self.reach
        )
    }
}

/// Returns the first function that reaches another guest's, unless both may share a group.
pub fn conflict(tree: &mut impl Tree, owned: &[Owned]) -> Option<Conflict> {
    for (from, one) in owned.iter().enumerate() {
        let reach = Reach::of(tree, one.bdf);
        let mut others = owned.iter();
        let to = others.position(|other| {
            let apart = other.guest != one.guest && !(other.shares && one.shares);
            apart && reach.has(tree, other.bdf)
        });
        if let Some(to) = to {
            return Some(Conflict { from, to, reach });
        }
    }
    None
}

/// Base classes, and a class with subclass, of what works for the whole machine (PCI Code
/// and ID Assignment Specification 1.11, section 1): bridges, IOMMUs.
const BRIDGES: u32 = 0x06;
const IOMMU: u32 = 0x0806;

/// Returns whether a function is a device that sends requests, though nobody has it.
pub fn is_stray(tree: &mut impl Tree, bdf: Bdf, owned: &[Owned]) -> bool {
    let class = tree.read(bdf, regs::REVISION) >> 16;
    let header = tree.read(bdf, regs::HEADER_TYPE & !3) >> 16 & 0x7f;
    let command = tree.read(bdf, regs::COMMAND) as u16;
    header == 0
        && class >> 8 != BRIDGES
        && class != IOMMU
        && command & regs::COMMAND_BUS_MASTER != 0
        && owned.iter().all(|other| other.bdf != bdf)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString as _;

    /// Functions of one device on bus 0, and one of another: class and command.
    struct Machine(&'static [(u32, u16)]);

    impl Tree for Machine {
        fn read(&mut self, bdf: Bdf, offset: u16) -> u32 {
            let function = match (bdf.device(), usize::from(bdf.function())) {
                (2, function) => self.0.get(function),
                (3, 0) => Some(&(0x0200, 0)),
                _ => None,
            };
            match (function, offset) {
                (None, _) => u32::MAX,
                (Some(_), 0x0c) => u32::from(bdf.device() == 2) << 23,
                (Some((class, _)), 0x08) => class << 16,
                (Some((_, command)), 0x04) => (*command).into(),
                _ => 0,
            }
        }
        fn bridge_above(&mut self, _: u8) -> Option<Bdf> {
            None
        }
        fn redirects(&mut self, _: Bdf) -> bool {
            false
        }
    }

    fn owned(function: u8, guest: u32, shares: bool) -> Owned {
        Owned {
            bdf: Bdf::new(0, 2, function).expect("an address"),
            guest,
            shares,
        }
    }

    #[test]
    fn one_group_goes_to_one_guest_unless_all_agree() {
        let machine = &mut Machine(&[(0x0200, 0); 3]);
        let other = Owned {
            bdf: Bdf::new(0, 3, 0).expect("an address"),
            ..owned(0, 9, false)
        };
        let mut hit = |owned: &[Owned]| {
            let hit = conflict(machine, owned);
            hit.map(|hit| (hit.from, hit.to, hit.to_string()))
        };
        assert_eq!(hit(&[owned(0, 1, false), owned(1, 1, false), other]), None);
        let both = [other, owned(0, 1, false), owned(1, 2, true)];
        let (from, to, text) = hit(&both).expect("a conflict");
        assert_eq!((from, to), (1, 2));
        assert!(
            text.contains("00:02.0 is one of several functions"),
            "{text}"
        );
        assert_eq!(hit(&[owned(0, 1, true), owned(1, 2, true), other]), None);
        let third = [owned(0, 1, true), owned(1, 2, true), owned(2, 3, false)];
        assert_eq!(hit(&third).map(|hit| (hit.0, hit.1)), Some((0, 2)));
    }

    #[test]
    fn only_devices_that_nobody_has_are_stray() {
        const FUNCTIONS: &[(u32, u16)] = &[
            (0x0200, 7),
            (0x0c03, 7),
            (0x0c03, 3),
            (0x0601, 7),
            (0x0806, 7),
        ];
        let machine = &mut Machine(FUNCTIONS);
        let all = [owned(0, 1, false)];
        let stray: std::vec::Vec<bool> = (0..FUNCTIONS.len() as u8)
            .map(|function| is_stray(machine, owned(function, 0, false).bdf, &all))
            .collect();
        assert_eq!(stray, [false, true, false, false, false]);
    }
}
