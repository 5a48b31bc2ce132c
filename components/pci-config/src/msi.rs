//! Plain MSI (P1 to P3): what the guest writes, and what its device gets.

use channel::irq_router::{Block, msi};
use channel::{Error, Transport};
use pci::{Width, regs};
use spec::bit;

use crate::Hardware;
use crate::function::Function;
use crate::peers::Peers;
use crate::registers::MsiField;

/// Message control: log2 of the messages that the function can send, bits 3:1
/// (PCIe 6.0 section 7.7.1.2).
const CAPABLE_SHIFT: u16 = 1;
/// Message control: log2 of the messages that it may send, bits 6:4.
const ALLOWED_SHIFT: u16 = 4;
/// Either of them, from bit 0. 6 and 7 are reserved.
const LOG2: u16 = 7;
/// Message control: has an upper half of the address.
const WIDE: u16 = 1 << 7;
/// Message control: has a mask bit for each message.
const MASKABLE: u16 = 1 << 8;
/// Message control: use 32 bits of data. Never offered: no local APIC has more
/// than 16.
const EXTENDED_DATA: u16 = 1 << 10;

/// What the guest wrote.
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
    /// than irq-router gives in one block.
    capable: u8,
    pub state: State,
    /// The device has a message of ours and is enabled.
    pub live: bool,
    /// Kept from sending (M23). A restart forgets it: the device sends again, and
    /// the vmm counts again.
    throttled: bool,
}

impl Msi {
    /// The capability at `at`, as at reset.
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

    /// Whether the guest has MSI enabled.
    pub const fn enabled(&self) -> bool {
        self.state.enabled
    }

    /// Offset of the data register.
    pub const fn data_at(&self) -> u16 {
        self.at + if self.wide { 12 } else { 8 }
    }

    /// Offset of the mask register, if it has one; pending bits follow it.
    pub const fn mask_at(&self) -> u16 {
        self.data_at() + 4
    }

    /// A register as the guest sees it.
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

    /// Back to start; the device is off already. Vectors are given back.
    pub fn reset<T: Transport>(&mut self, function: u8, peers: &mut Peers<T>) -> Result<(), Error> {
        self.state = State::default();
        self.live = false;
        self.throttled = false;
        peers.router.unbind_block(function)
    }
}

impl<H: Hardware> Function<'_, H> {
    /// Whether the guest has MSI enabled.
    pub fn msi_enabled(&self) -> bool {
        self.msi.is_some_and(|msi| msi.enabled())
    }

    /// Carries out a guest's write of a whole MSI register, merged.
    pub fn write_msi<T: Transport>(
        &mut self,
        field: MsiField,
        value: u32,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        let Some(msi) = &mut self.msi else {
            return Ok(());
        };
        let state = &mut msi.state;
        match field {
            MsiField::Control => return self.write_msi_control(value as u16, peers),
            MsiField::Mask => return self.write_msi_mask(value, peers),
            // Bits 1:0 are reserved.
            MsiField::Address => state.address = state.address >> 32 << 32 | u64::from(value & !3),
            MsiField::AddressHigh => {
                state.address = state.address & 0xffff_ffff | u64::from(value) << 32;
            }
            MsiField::Data => state.data = value as u16,
        }
        // P1: at once, and the device need not hear of it.
        let State { address, data, .. } = *state;
        if msi.live {
            return peers.router.set_message(self.index, address, data.into());
        }
        if msi.state.enabled {
            return self.start_msi(peers);
        }
        Ok(())
    }

    fn write_msi_control<T: Transport>(
        &mut self,
        value: u16,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        let Some(msi) = &mut self.msi else {
            return Ok(());
        };
        // P3: not while MSI-X is on.
        let enabled = value & regs::MSI_CONTROL_ENABLE != 0 && !self.msix_enabled;
        let log2 = ((value >> ALLOWED_SHIFT & LOG2) as u8).min(msi.capable);
        let state = msi.state;
        msi.state.log2 = log2;
        msi.state.enabled = enabled;
        if (enabled, log2) == (state.enabled, state.log2) && msi.live == enabled {
            return Ok(());
        }
        if !enabled && !state.enabled {
            return Ok(());
        }
        if enabled {
            // INTx off first, as for MSI-X (M6).
            self.write_host_command();
            return self.start_msi(peers);
        }
        let result = self.stop_msi(peers);
        self.write_host_command();
        result
    }

    fn write_msi_mask<T: Transport>(
        &mut self,
        value: u32,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        let Some(msi) = &mut self.msi else {
            return Ok(());
        };
        let offered = (1 << (1 << msi.capable)) - 1;
        msi.state.mask = value & offered;
        let (mask, mask_at) = (msi.state.mask, msi.mask_at());
        if !msi.live {
            return Ok(());
        }
        if !msi.throttled {
            self.hardware.write(mask_at, Width::Dword, mask);
        }
        // What was sent before the mask is here once the read is (M20).
        self.hardware.read(mask_at, Width::Dword);
        peers.router.set_mask(self.index, mask)
    }

    /// Keeps the device from sending, or lets it again: by its mask bits, which
    /// keep what it would have sent, else by its enable bit.
    pub fn throttle_msi<T: Transport>(
        &mut self,
        throttled: bool,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        let ready = self.is_ready(peers);
        let Some(msi) = self.msi.as_mut().filter(|msi| msi.live && ready) else {
            return Err(Error::NotFound);
        };
        msi.throttled = throttled;
        let (state, at) = (msi.state, msi.mask_at());
        if msi.maskable {
            let mask = if throttled { u32::MAX } else { state.mask };
            self.hardware.write(at, Width::Dword, mask);
        } else {
            let enable = if throttled {
                0
            } else {
                regs::MSI_CONTROL_ENABLE
            };
            self.write_device_msi_control(enable | u16::from(state.log2) << ALLOWED_SHIFT);
        }
        Ok(())
    }

    /// Binds the messages and switches the device's MSI on. If that fails, the
    /// device stays off; the guest's next write of control, address or data
    /// tries again.
    fn start_msi<T: Transport>(&mut self, peers: &mut Peers<T>) -> Result<(), Error> {
        self.stop_msi(peers)?;
        let Some(msi) = &mut self.msi else {
            return Ok(());
        };
        let State {
            log2,
            address,
            data,
            mask,
            ..
        } = msi.state;
        let block = Block {
            function: self.index,
            log2,
        };
        let (address, data) = peers.bind_block(block, address, data.into(), mask)?;
        let hardware = &mut self.hardware;
        let address_at = msi.at + regs::MSI_ADDRESS;
        hardware.write(address_at, Width::Dword, address as u32);
        if msi.wide {
            let high = (address >> 32) as u32;
            hardware.write(address_at + 4, Width::Dword, high);
        }
        hardware.write(msi.data_at(), Width::Word, data & 0xffff);
        if msi.maskable {
            hardware.write(msi.mask_at(), Width::Dword, mask);
        }
        msi.live = true;
        msi.throttled = false;
        let on = regs::MSI_CONTROL_ENABLE | u16::from(log2) << ALLOWED_SHIFT;
        self.write_device_msi_control(on);
        Ok(())
    }

    /// Makes device and irq-router agree with the messages as they were
    /// recalled: live ones in place, so that no event is lost, and what was
    /// half on or half off anew.
    pub fn adopt_msi<T: Transport>(&mut self, peers: &mut Peers<T>) -> Result<(), Error> {
        let Some(msi) = &mut self.msi else {
            return Ok(());
        };
        let State {
            enabled,
            address,
            data,
            mask,
            ..
        } = msi.state;
        if msi.live {
            if msi.maskable {
                let mask_at = msi.mask_at();
                self.hardware.write(mask_at, Width::Dword, mask);
            }
            let on = regs::MSI_CONTROL_ENABLE | u16::from(msi.state.log2) << ALLOWED_SHIFT;
            let routed = peers
                .router
                .set_message(self.index, address, data.into())
                .and_then(|()| peers.router.set_mask(self.index, mask));
            if routed != Err(Error::NotFound) {
                // It may have been throttled (M23).
                self.write_device_msi_control(on);
                return routed;
            }
        }
        let Some(msi) = &mut self.msi else {
            return Ok(());
        };
        // It may be on.
        msi.live = true;
        if enabled {
            self.start_msi(peers)
        } else {
            self.stop_msi(peers)
        }
    }

    /// Switches the device's MSI off and gives the vectors back.
    fn stop_msi<T: Transport>(&mut self, peers: &mut Peers<T>) -> Result<(), Error> {
        let Some(msi) = &mut self.msi else {
            return Ok(());
        };
        if msi.live {
            msi.live = false;
            self.record.doubt_msi();
            let control_at = msi.at + regs::MSI_CONTROL;
            self.write_device_msi_control(0);
            // What was sent before is here once the read is: no event is on its
            // way to a vector that is given back.
            self.hardware.read(control_at, Width::Word);
        }
        peers.router.unbind_block(self.index)
    }

    /// Writes the bits of the device's message control that can be written.
    fn write_device_msi_control(&mut self, value: u16) {
        let Some(msi) = &self.msi else {
            return;
        };
        let at = msi.at + regs::MSI_CONTROL;
        let writable = regs::MSI_CONTROL_ENABLE | LOG2 << ALLOWED_SHIFT | EXTENDED_DATA;
        let kept = self.hardware.read(at, Width::Word) as u16 & !writable;
        self.hardware.write(at, Width::Word, (kept | value).into());
    }
}
