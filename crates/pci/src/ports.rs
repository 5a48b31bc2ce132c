//! Configuration space by I/O ports: configuration mechanism #1 (PCI Local Bus 3.0, section
//! 3.2.2.3.2).

use crate::regs::{CONFIG_ADDRESS, CONFIG_DATA, CONFIG_ENABLE};
use crate::{Bdf, ConfigSpace, Width};

/// The mechanism's eight ports: four of the address, four of the data.
pub trait ConfigPorts {
    /// Reads a port; all ones if that cannot be.
    fn read(&mut self, port: u16, width: Width) -> u32;
    /// Writes a port.
    fn write(&mut self, port: u16, width: Width, value: u32);
}

/// Bytes of a function's configuration space that the mechanism reaches.
const REACHED: u64 = 256;

/// A function's configuration space, of which the ports reach the first 256 bytes.
///
/// An access is two: one writes which dword is meant, the next reads or writes some of its
/// bytes. Nobody else may use the ports between them, so one program at a time has the
/// capability to them: init, and then pci-config. If that dies between the two, nothing is
/// left of it: each access begins with the address.
#[derive(Debug)]
pub struct Mechanism1<P> {
    bdf: Bdf,
    ports: P,
}

impl<P: ConfigPorts> Mechanism1<P> {
    /// Creates the space of the function at `bdf`.
    pub const fn new(bdf: Bdf, ports: P) -> Self {
        Self { bdf, ports }
    }

    /// Selects the dword with the bytes of an access. Returns the port of the first of them;
    /// `None` if the access is not aligned, wider than a dword, or beyond what is reached.
    fn select(&mut self, offset: u16, width: Width) -> Option<u16> {
        let at = u64::from(offset);
        if width > Width::Dword || !width.is_aligned(at) || at >= REACHED {
            return None;
        }
        let function = u32::from(self.bdf.requester_id()) << 8;
        let address = CONFIG_ENABLE | function | u32::from(offset & 0xfc);
        self.ports.write(CONFIG_ADDRESS, Width::Dword, address);
        Some(CONFIG_DATA + (offset & 3))
    }

    /// Reads at `offset`; all ones if the access is not aligned, or beyond what is reached.
    ///
    /// Two calls of the kernel in each place where it is used would be much code.
    #[inline(never)]
    pub fn read(&mut self, offset: u16, width: Width) -> u32 {
        match self.select(offset, width) {
            Some(port) => self.ports.read(port, width),
            None => u32::MAX >> (32 - 8 * width.bytes().min(4)),
        }
    }

    /// Writes at `offset`; dropped if the access is not aligned, or beyond what is reached.
    #[inline(never)]
    pub fn write(&mut self, offset: u16, width: Width, value: u32) {
        if let Some(port) = self.select(offset, width) {
            self.ports.write(port, width, value);
        }
    }
}

impl<P: ConfigPorts> ConfigSpace for Mechanism1<P> {
    fn read32(&mut self, offset: u16) -> u32 {
        self.read(offset, Width::Dword)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.write(offset, Width::Dword, value);
    }
    fn write16(&mut self, offset: u16, value: u16) {
        self.write(offset, Width::Word, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    /// A host bridge with one function behind it; other functions read all ones.
    struct Bridge {
        address: u32,
        function: [u8; 256],
        /// Accesses of the data.
        data: Vec<(u16, Width)>,
    }

    const FUNCTION: u16 = 0x12_2b;

    impl Bridge {
        fn at(&mut self, port: u16, width: Width) -> Option<usize> {
            assert!(width.is_aligned(port.into()) && (0xcfc..0xd00).contains(&port));
            self.data.push((port, width));
            let enabled = self.address >> 8 == 0x80_0000 | u32::from(FUNCTION);
            enabled.then_some((self.address as usize & 0xff) + usize::from(port & 3))
        }
    }

    impl ConfigPorts for &mut Bridge {
        fn read(&mut self, port: u16, width: Width) -> u32 {
            let Some(at) = self.at(port, width) else {
                return width.all_ones() as u32;
            };
            let bytes = &self.function[at..at + width.bytes() as usize];
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u32::from(*byte))
        }
        fn write(&mut self, port: u16, width: Width, value: u32) {
            if port == 0xcf8 {
                assert_eq!((width, value & 3), (Width::Dword, 0));
                self.address = value;
                return;
            }
            let bytes = width.bytes() as usize;
            if let Some(at) = self.at(port, width) {
                self.function[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
        }
    }

    fn bridge() -> Bridge {
        Bridge {
            address: 0,
            function: core::array::from_fn(|index| index as u8),
            data: Vec::new(),
        }
    }

    const WIDTHS: [Width; 3] = [Width::Byte, Width::Word, Width::Dword];

    #[test]
    fn every_byte_is_reached_in_every_width() {
        let mut bridge = bridge();
        for width in WIDTHS {
            for offset in (0..256).step_by(width.bytes() as usize) {
                let mut space = Mechanism1::new(Bdf::from_requester_id(FUNCTION), &mut bridge);
                let bytes = (0..width.bytes() as u32).rev();
                let expected = bytes.fold(0, |value, byte| value << 8 | (u32::from(offset) + byte));
                assert_eq!(space.read(offset, width), expected, "{offset:#x} {width:?}");
                space.write(offset, width, !expected);
                let mut space = Mechanism1::new(Bdf::from_requester_id(FUNCTION), &mut bridge);
                assert_eq!(
                    space.read(offset, width),
                    !expected & width.all_ones() as u32
                );
                space.write(offset, width, expected);
            }
        }
        let mut bytes = bridge.function.iter().enumerate();
        assert!(bytes.all(|(index, byte)| usize::from(*byte) == index));
    }

    #[test]
    fn what_is_not_reached_reads_all_ones_and_touches_no_port() {
        let mut bridge = bridge();
        let mut space = Mechanism1::new(Bdf::from_requester_id(FUNCTION), &mut bridge);
        let beyond = [256, 0x104, 0xffc].into_iter();
        let beyond = beyond.flat_map(|offset| WIDTHS.map(|width| (offset, width)));
        let odd = [
            (1, Width::Word),
            (2, Width::Dword),
            (0xff, Width::Word),
            (0, Width::Qword),
        ];
        for (offset, width) in beyond.chain(odd) {
            let ones = width.all_ones() as u32;
            assert_eq!(space.read(offset, width), ones, "{offset:#x} {width:?}");
            space.write(offset, width, 0);
        }
        assert_eq!((bridge.address, bridge.data), (0, vec![]));
    }

    #[test]
    fn another_function_is_another_address() {
        let mut bridge = bridge();
        for id in [FUNCTION ^ 1, FUNCTION ^ 8, FUNCTION ^ 0x100, 0] {
            let mut space = Mechanism1::new(Bdf::from_requester_id(id), &mut bridge);
            assert_eq!(space.read32(0), u32::MAX);
            space.write16(4, 0);
        }
        assert_eq!(bridge.function[4], 4);
    }
}
