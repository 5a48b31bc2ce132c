//! Plain MSI (P1 to P3): carries out the guest's writes in the device and in
//! irq-router.

use channel::irq_router::Block;
use channel::{Error, Transport};
use pci::{Width, regs};

use crate::Hardware;
use crate::function::Function;
use crate::msi::{ALLOWED_SHIFT, EXTENDED_DATA, LOG2, State};
use crate::peers::Peers;
use crate::registers::MsiField;

impl<H: Hardware> Function<'_, H> {
    /// Returns whether the guest has MSI enabled.
    pub fn msi_enabled(&self) -> bool {
        self.view.msi.is_some_and(|msi| msi.enabled())
    }

    /// Carries out a guest's write of a whole MSI register, merged.
    pub fn write_msi<T: Transport>(
        &mut self,
        field: MsiField,
        value: u32,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        let Some(msi) = &mut self.view.msi else {
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
        let Some(msi) = &mut self.view.msi else {
            return Ok(());
        };
        // P3: not while MSI-X is on.
        let enabled = value & regs::MSI_CONTROL_ENABLE != 0 && !self.view.msix_enabled;
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
        let Some(msi) = &mut self.view.msi else {
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
        // The read completes only after every message that was posted before the mask
        // (PCIe 6.0 section 2.4.1), so that none is still in flight (M20).
        self.hardware.read(mask_at, Width::Dword);
        peers.router.set_mask(self.index, mask)
    }

    /// Keeps the device from sending, or permits it again: by its mask bits, which
    /// keep pending messages, else by its enable bit.
    pub fn throttle_msi<T: Transport>(
        &mut self,
        throttled: bool,
        peers: &mut Peers<T>,
    ) -> Result<(), Error> {
        let ready = self.is_ready(peers);
        let Some(msi) = self.view.msi.as_mut().filter(|msi| msi.live && ready) else {
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
        let Some(msi) = &mut self.view.msi else {
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
        let Some(msi) = &mut self.view.msi else {
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
        let Some(msi) = &mut self.view.msi else {
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

    /// Switches the device's MSI off and releases the vectors.
    fn stop_msi<T: Transport>(&mut self, peers: &mut Peers<T>) -> Result<(), Error> {
        let Some(msi) = &mut self.view.msi else {
            return Ok(());
        };
        if msi.live {
            msi.live = false;
            self.record.doubt_msi();
            let control_at = msi.at + regs::MSI_CONTROL;
            self.write_device_msi_control(0);
            // The read completes only after every message that was posted before: no
            // event is on its way to a vector that is released.
            self.hardware.read(control_at, Width::Word);
        }
        peers.router.unbind_block(self.index)
    }

    /// Writes the bits of the device's message control that can be written.
    fn write_device_msi_control(&mut self, value: u16) {
        let Some(msi) = &self.view.msi else {
            return;
        };
        let at = msi.at + regs::MSI_CONTROL;
        let writable = regs::MSI_CONTROL_ENABLE | LOG2 << ALLOWED_SHIFT | EXTENDED_DATA;
        let kept = self.hardware.read(at, Width::Word) as u16 & !writable;
        self.hardware.write(at, Width::Word, (kept | value).into());
    }
}
