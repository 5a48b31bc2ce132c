//! msix and irq-router as pci-config calls them: each may die in a call, and
//! then the call is made again.

use channel::irq_router::{Block, msi};
use channel::msix::control;
use channel::{Error, Transport, retry};

/// The components that a function's messages need.
pub struct Peers<T> {
    pub msix: Msix<T>,
    pub router: Router<T>,
}

/// The channel to msix.
pub struct Msix<T>(pub control::Client<T>);

impl<T: Transport> Msix<T> {
    /// Message control as the guest sees it.
    pub fn read_control(&mut self, function: u8) -> Result<u16, Error> {
        retry(|_| self.0.read_control(function))
    }

    /// Writes message control. If the reply of a write that msix carried out was
    /// lost, the device is written with what the register is now.
    pub fn write_control(&mut self, function: u8, value: u16) -> Result<Option<u16>, Error> {
        retry(|again| {
            let write = self.0.write_control(function, value)?;
            if again {
                return self.0.read_control(function).map(Some);
            }
            Ok(write)
        })
    }

    /// Everything masked and unbound.
    pub fn reset(&mut self, function: u8) -> Result<(), Error> {
        retry(|_| self.0.reset(function))
    }
}

/// The channel to irq-router.
pub struct Router<T>(pub msi::Client<T>);

impl<T: Transport> Router<T> {
    /// Binds a function's messages, none of which is bound.
    pub fn bind_block(
        &mut self,
        block: Block,
        address: u64,
        data: u32,
        mask: u32,
    ) -> Result<(u64, u32), Error> {
        retry(|again| {
            if again {
                // Some or all of them may be bound.
                self.0.unbind_block(block.function)?;
            }
            self.0.bind_block(block, address, data, mask)
        })
    }

    /// Routes them by another message.
    pub fn set_message(&mut self, function: u8, address: u64, data: u32) -> Result<(), Error> {
        retry(|_| self.0.set_message(function, address, data))
    }

    /// Holds some of them in the vmm.
    pub fn set_mask(&mut self, function: u8, mask: u32) -> Result<(), Error> {
        retry(|_| self.0.set_mask(function, mask))
    }

    /// Unbinds those that are bound.
    pub fn unbind_block(&mut self, function: u8) -> Result<(), Error> {
        retry(|_| self.0.unbind_block(function))
    }
}
