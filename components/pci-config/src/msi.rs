//! The MSI capability of a function as its guest sees it.

use channel::irq_router::msi;
use channel::{Error, Transport};
use pci::{Width, regs};
use spec::{FunctionId, bit};

use crate::Hardware;
use crate::peers::Peers;
use crate::registers::MsiField;

/// Message control: log2 of the messages that the function can send, bits 3:1
/// (PCIe 6.0 section 7.7.1.2).
const CAPABLE_SHIFT: u16 = 1;
/// Message control: log2 of the messages that it may send, bits 6:4.
pub const ALLOWED_SHIFT: u16 = 4;
/// Either of them, from bit 0. 6 and 7 are reserved.
pub const LOG2: u16 = 7;
/// Message control: has an upper half of the address.
const WIDE: u16 = 1 << 7;
/// Message control: has a mask bit for each message.
const MASKABLE: u16 = 1 << 8;
/// Message control: use 32 bits of data. Never offered: no local APIC has more
/// than 16.
pub const EXTENDED_DATA: u16 = 1 << 10;

/// Values that the guest wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub enabled: bool,
    /// Log2 of the messages allowed.
    pub log2: u8,
    pub address: u64,
    pub data: u16,
    /// Bit `i` masks message `i`.
    pub mask: u32,
}

/// The MSI capability of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Offset of the capability.
    pub at: u16,
    /// It has an upper half of the address.
    pub wide: bool,
    /// It has a mask bit for each message.
    pub maskable: bool,
    /// Log2 of the messages offered: those that the device has, but no more
    /// than irq-router binds in one block.
    pub capable: u8,
    pub state: State,
    /// The device has a message of ours and is enabled.
    pub live: bool,
    /// Kept from sending (M23). A restart forgets it: the device sends again, and
    /// the vmm counts again.
    pub throttled: bool,
}

impl Msi {
    /// Returns the capability at `at`, as at reset.
    pub fn latch(hardware: &mut impl Hardware, at: u16) -> Self {
        let control = hardware.read(at + regs::MSI_CONTROL, Width::Word) as u16;
        let capable = (control >> CAPABLE_SHIFT & LOG2) as u8;
        Self {
            at,
            wide: control & WIDE != 0,
            maskable: control & MASKABLE != 0,
            capable: capable.min(msi::MAX_LOG2),
            state: State::default(),
            live: false,
            throttled: false,
        }
    }

    /// Returns whether the guest has MSI enabled.
    pub const fn enabled(&self) -> bool {
        self.state.enabled
    }

    /// Returns the offset of the data register.
    pub const fn data_at(&self) -> u16 {
        self.at + if self.wide { 12 } else { 8 }
    }

    /// Returns the offset of the mask register, if it has one; pending bits
    /// follow it.
    pub const fn mask_at(&self) -> u16 {
        self.data_at() + 4
    }

    /// Returns a register as the guest sees it.
    pub fn read(&self, field: MsiField) -> u32 {
        match field {
            MsiField::Control => self.control().into(),
            MsiField::Address => self.state.address as u32,
            MsiField::AddressHigh => (self.state.address >> 32) as u32,
            MsiField::Data => self.state.data.into(),
            MsiField::Mask => self.state.mask,
        }
    }

    fn control(&self) -> u16 {
        bit(self.state.enabled, regs::MSI_CONTROL_ENABLE)
            | u16::from(self.capable) << CAPABLE_SHIFT
            | u16::from(self.state.log2) << ALLOWED_SHIFT
            | bit(self.wide, WIDE)
            | bit(self.maskable, MASKABLE)
    }

    /// Returns to the state at start; the device is off already. Vectors are freed.
    pub fn reset<T: Transport>(
        &mut self,
        function: FunctionId,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        self.state = State::default();
        self.live = false;
        self.throttled = false;
        peers.router.unbind_block(function)
    }
}
