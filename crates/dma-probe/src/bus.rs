//! A bus on which an IOMMU may stand, for the fakes of this crate's functions.
//!
//! Must never: be part of a program. Feature `fake` is for dev-dependencies.

extern crate std;

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::vec::Vec;

use crate::Memory;

/// Memory, and who may reach it.
#[derive(Debug, Default)]
pub struct Bus {
    memory: BTreeMap<u64, u8>,
    /// Addresses that the function cannot read: it gets [`Bus::answer`], or nothing.
    pub unreadable: Vec<Range<u64>>,
    /// The value of each byte of a blocked read, if any.
    pub answer: Option<u8>,
    /// Addresses that the function cannot write: the bytes are lost without its notice.
    pub unwritable: Vec<Range<u64>>,
    /// Whether requests of the function are taken.
    pub mastering: bool,
}

impl Bus {
    /// Reads as the CPU does.
    #[must_use]
    pub fn load(&self, address: u64, length: usize) -> Vec<u8> {
        (address..address + length as u64)
            .map(|at| self.memory.get(&at).copied().unwrap_or(0))
            .collect()
    }

    /// Writes as the CPU does.
    pub fn store(&mut self, address: u64, bytes: &[u8]) {
        self.memory.extend((address..).zip(bytes.iter().copied()));
    }

    /// Reads as the function does; `None` if it gets nothing.
    #[must_use]
    pub fn fetch(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = self.mastering.then(|| self.load(address, length))?;
        for (byte, at) in bytes.iter_mut().zip(address..) {
            if self.unreadable.iter().any(|range| range.contains(&at)) {
                *byte = self.answer?;
            }
        }
        Some(bytes)
    }

    /// Reads a number as the function does.
    #[must_use]
    pub fn number(&self, address: u64, length: usize) -> Option<u64> {
        let bytes = self.fetch(address, length)?;
        let number = |value, byte: &u8| value << 8 | u64::from(*byte);
        Some(bytes.iter().rev().fold(0, number))
    }

    /// Writes as the function does.
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        for (byte, at) in bytes.iter().zip(address..) {
            let blocked = self.unwritable.iter().any(|range| range.contains(&at));
            if self.mastering && !blocked {
                self.memory.insert(at, *byte);
            }
        }
    }
}

/// The same bus for several, and the memory on it that is the engine's own.
#[derive(Clone, Debug)]
pub struct Shared {
    bus: Rc<RefCell<Bus>>,
    own: u64,
}

impl Shared {
    /// Creates a bus that takes requests, on which the engine's memory is at `own`.
    #[must_use]
    pub fn new(own: u64) -> Self {
        let bus = Bus {
            mastering: true,
            ..Bus::default()
        };
        Self {
            bus: Rc::new(RefCell::new(bus)),
            own,
        }
    }

    /// Returns the bus, until the result is dropped.
    #[must_use]
    pub fn bus(&self) -> RefMut<'_, Bus> {
        self.bus.borrow_mut()
    }
}

impl Memory for Shared {
    fn read(&mut self, offset: usize, bytes: &mut [u8]) {
        let there = self.bus().load(self.own + offset as u64, bytes.len());
        bytes.copy_from_slice(&there);
    }
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.bus().store(self.own + offset as u64, bytes);
    }
}
