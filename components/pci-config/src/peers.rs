//! msix and irq-router as pci-config calls them, and the two calls that cannot
//! simply be made again if their server dies in them.

use channel::irq_router::{Block, msi};
use channel::msix::control;
use channel::{Error, Transport, retry};
use spec::FunctionId;

/// The components that a function's messages need.
pub struct Peers<T> {
    pub msix: control::Client<T>,
    pub router: msi::Client<T>,
}

impl<T: Transport> Peers<T> {
    /// Writes message control. If the reply of a write that msix carried out was
    /// lost, the device is written with what the register is now.
    pub fn write_control(
        &mut self,
        function: FunctionId,
        value: u16,
    ) -> Result<Option<u16>, Error> {
        retry(|again| {
            let write = self.msix.write_control(function, value)?;
            if again {
                return self.msix.read_control(function).map(Some);
            }
            Ok(write)
        })
    }

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
                self.router.unbind_block(block.function)?;
            }
            self.router.bind_block(block, address, data, mask)
        })
    }
}
