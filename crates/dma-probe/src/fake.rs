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

/// A bit of CTRL that the NVM sets (bit 20, wake-up), and that this driver does not use.
pub const FROM_NVM: u32 = 1 << 20;

/// A device, and the bus that it is on.
#[derive(Debug, Default)]
pub struct Device {
    registers: BTreeMap<u32, u32>,
    memory: BTreeMap<u64, u8>,
    /// Addresses that the device cannot read: the frame is dropped, or has
    /// [`Device::answer`] in place of each byte.
    pub unreadable: Vec<Range<u64>>,
    /// The value that a blocked read returns, if any.
    pub answer: Option<u8>,
    /// Addresses that the device cannot write: the bytes are lost, and the device
    /// does not notice.
    pub unwritable: Vec<Range<u64>>,
    /// Resets that end; all those after them hang. `None`: all end.
    pub good_resets: Option<u32>,
    /// Lengths of frames that the network puts before ours.
    pub strangers: Vec<u16>,
    /// Register reads until the outstanding bus requests have ended, after the
    /// device was told to make no more.
    pub drains: u32,
    /// Reads after a reset until the NVM is read, which writes over [`CTRL`] then.
    pub nvm: u32,
    /// Those reads that remain.
    nvm_left: u32,
    /// Whether it still holds a setup from before its reset.
    pub armed: bool,
    /// Whether the bus takes requests from it.
    pub mastering: bool,
    /// How often a register was read.
    pub reads: u32,
}

impl Device {
    /// Returns a register as it was written last.
    #[must_use]
    pub fn register(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    /// Returns whether somebody wrote the byte at an address.
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
        if !self.mastering || self.register(CTRL) & CTRL_GIO_MASTER_DISABLE != 0 {
            return None;
        }
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

    /// Sends the frames in the ring, until a descriptor cannot be read.
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
                // The sender does not notice a lost frame.
                let _ = self.receive(&frame);
            }
            self.put(descriptor + 8, &(fields | DONE).to_le_bytes());
            self.registers.insert(TDH, head + 1);
        }
        Some(())
    }

    /// Returns a register's value. A read moves a pending operation towards its end.
    fn register_read(&mut self, offset: u32) -> u32 {
        self.reads += 1;
        if self.nvm_left > 0 {
            self.nvm_left -= 1;
            if self.nvm_left == 0 {
                self.registers.insert(CTRL, FROM_NVM);
            }
        }
        let value = self.register(offset);
        let disabled = self.register(CTRL) & CTRL_GIO_MASTER_DISABLE != 0;
        match offset {
            EECD if self.nvm_left == 0 => value | EECD_AUTO_RD,
            STATUS if !disabled => value | STATUS_GIO_MASTER_EN,
            STATUS if self.drains > 0 => {
                self.drains -= 1;
                value | STATUS_GIO_MASTER_EN
            }
            _ => value,
        }
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
        assert!(
            self.register(RCTL) & RCTL_EN == 0 && self.register(TCTL) & TCTL_EN == 0,
            "reset while it receives or sends"
        );
        self.armed = false;
        self.registers.clear();
        self.nvm_left = self.nvm;
        let stays = if hangs { CTRL_RST } else { FROM_NVM };
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
    /// Creates a device whose engine has its memory at this bus address, and
    /// which the bus takes requests from.
    #[must_use]
    pub fn new(own: u64) -> Self {
        let device = Device {
            mastering: true,
            ..Device::default()
        };
        Self {
            device: Rc::new(RefCell::new(device)),
            own,
        }
    }

    /// Returns the device itself, until the result is dropped.
    #[must_use]
    pub fn device(&self) -> RefMut<'_, Device> {
        self.device.borrow_mut()
    }
}

impl Registers for Fake {
    fn read(&mut self, offset: u32) -> u32 {
        self.device().register_read(offset)
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
