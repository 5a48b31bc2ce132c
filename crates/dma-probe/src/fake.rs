//! A device made of its registers' meaning, on a bus where an IOMMU may stand:
//! for tests of this crate and of those that use it.
//!
//! Must never: be part of a program. Feature `fake` is for dev-dependencies.

extern crate std;

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::vec::Vec;

use crate::registers::*;
use crate::{MEMORY_SIZE, Memory, Registers};

/// A device, and the bus that it is on.
#[derive(Debug, Default)]
pub struct Device {
    registers: BTreeMap<u32, u32>,
    memory: BTreeMap<u64, u8>,
    /// Addresses that the device cannot read: the frame is dropped, or has
    /// [`Device::answer`] in place of each byte.
    pub unreadable: Vec<Range<u64>>,
    /// What a read gives that is blocked, if anything.
    pub answer: Option<u8>,
    /// Addresses that the device cannot write: the bytes are lost, and the device
    /// does not notice.
    pub unwritable: Vec<Range<u64>>,
    /// Resets that end; all those after them hang. `None`: all end.
    pub good_resets: Option<u32>,
    /// Lengths of frames that the network puts before ours.
    pub strangers: Vec<u16>,
    /// How often a register was read.
    pub reads: u32,
}

impl Device {
    /// A register as it was written last.
    #[must_use]
    pub fn register(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    /// Whether somebody wrote the byte at an address.
    #[must_use]
    pub fn was_written(&self, address: u64) -> bool {
        self.memory.contains_key(&address)
    }

    /// Reads memory as the CPU does.
    #[must_use]
    pub fn load(&self, address: u64, length: u64) -> Vec<u8> {
        (address..address + length)
            .map(|at| self.memory.get(&at).copied().unwrap_or(0))
            .collect()
    }

    /// Writes memory as the CPU does.
    pub fn store(&mut self, address: u64, bytes: &[u8]) {
        self.memory.extend((address..).zip(bytes.iter().copied()));
    }

    /// Reads as the device does; `None` if it gets nothing.
    fn fetch(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = self.load(address, length);
        for (byte, at) in bytes.iter_mut().zip(address..) {
            if self.unreadable.iter().any(|range| range.contains(&at)) {
                *byte = self.answer?;
            }
        }
        Some(bytes)
    }

    /// Writes as the device does.
    fn put(&mut self, address: u64, bytes: &[u8]) {
        for (byte, at) in bytes.iter().zip(address..) {
            if !self.unwritable.iter().any(|range| range.contains(&at)) {
                self.memory.insert(at, *byte);
            }
        }
    }

    fn word(&self, address: u64) -> Option<u64> {
        let bytes = self.fetch(address, 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    fn wide(&self, low: u32) -> u64 {
        u64::from(self.register(low + 4)) << 32 | u64::from(self.register(low))
    }

    /// Takes a frame from the loop or the network; one that finds no descriptor
    /// is lost.
    fn receive(&mut self, bytes: &[u8]) -> Option<()> {
        let control = self.register(RCTL);
        let wanted = RCTL_EN | RCTL_LBM_MAC | RCTL_SECRC | RCTL_UPE | RCTL_MPE | RCTL_BAM;
        let head = self.register(RDH);
        if control & wanted != wanted || head == self.register(RDT) {
            return None;
        }
        let descriptor = self.wide(RDBAL) + u64::from(head) * 16;
        let to = self.word(descriptor)?;
        self.put(to, bytes);
        let fields = bytes.len() as u64 | DONE;
        self.put(descriptor + 8, &fields.to_le_bytes());
        self.registers.insert(RDH, head + 1);
        Some(())
    }

    /// Sends what is in the ring, until a descriptor cannot be read.
    fn send(&mut self) -> Option<()> {
        while self.register(TCTL) & TCTL_EN != 0 && self.register(TDH) != self.register(TDT) {
            let head = self.register(TDH);
            let descriptor = self.wide(TDBAL) + u64::from(head) * 16;
            let (address, fields) = (self.word(descriptor)?, self.word(descriptor + 8)?);
            assert_ne!(fields & SEND_END, 0, "a frame without an end");
            let frame = match self.strangers.pop() {
                Some(stranger) => Some(std::vec![0xee; usize::from(stranger)]),
                None => self.fetch(address, u64::from(fields as u16)),
            };
            if let Some(frame) = frame {
                // A frame that is lost is no matter to the sender.
                let _ = self.receive(&frame);
            }
            self.put(descriptor + 8, &(fields | DONE).to_le_bytes());
            self.registers.insert(TDH, head + 1);
        }
        Some(())
    }

    /// Forgets the rings. The device is in its reset as long as `CTRL` says so.
    fn reset(&mut self) {
        let hangs = match &mut self.good_resets {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        self.registers.clear();
        let stays = if hangs { CTRL_RST } else { 0 };
        self.registers.insert(CTRL, stays);
    }
}

/// The device as an engine has it: its registers, and memory of the engine's own.
#[derive(Clone, Debug)]
pub struct Fake {
    device: Rc<RefCell<Device>>,
    own: u64,
}

impl Fake {
    /// A device whose engine has its memory at this bus address.
    #[must_use]
    pub fn new(own: u64) -> Self {
        Self {
            device: Rc::default(),
            own,
        }
    }

    /// The device itself, until the result is dropped.
    #[must_use]
    pub fn device(&self) -> RefMut<'_, Device> {
        self.device.borrow_mut()
    }
}

impl Registers for Fake {
    fn read(&mut self, offset: u32) -> u32 {
        let mut device = self.device();
        device.reads += 1;
        device.register(offset)
    }

    fn write(&mut self, offset: u32, value: u32) {
        let mut device = self.device();
        if offset == CTRL && value & CTRL_RST != 0 {
            device.reset();
            return;
        }
        device.registers.insert(offset, value);
        // A device that cannot read its ring stops there.
        let _ = device.send();
    }
}

impl Memory for Fake {
    fn read(&mut self, offset: usize, bytes: &mut [u8]) {
        let from = self.own + offset as u64;
        bytes.copy_from_slice(&self.device().load(from, bytes.len() as u64));
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= MEMORY_SIZE);
        self.device().store(self.own + offset as u64, bytes);
    }
}
