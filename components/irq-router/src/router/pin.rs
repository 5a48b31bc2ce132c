//! INTx pins (C9) are bound once at boot and never unbound; the binding survives a
//! restart of the router.
//!
//! Where a pin's interrupt goes is decided by the guest's I/O APIC, which the vmm
//! emulates: the route only tells the vmm which pin the slot stands for. Its vector
//! is one that no local APIC takes.

use channel::irq_router::Source;
use channel::{Error, GuestMessage};
use spec::FunctionId;

use super::{Binding, IrqControl, Router};

/// What stands on the routing page beside the source.
const MESSAGE: GuestMessage = GuestMessage {
    vector: 0,
    destination: 0,
    delivery_mode: 0,
    level: true,
    logical: false,
};

impl<C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize> Router<'_, C, GUESTS, FUNCTIONS> {
    /// Binds the function's INTx pin, which is pin `pin` of the machine's I/O APIC,
    /// to a vector and a slot of its guest, unless it is bound already. To be called
    /// for each pin at start.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a function without an owner,
    /// [`Error::Exhausted`] when vectors or slots are used up,
    /// [`Error::Failed`] if the kernel refuses.
    pub fn bind_pin(&mut self, function: FunctionId, pin: u8) -> Result<(), Error> {
        let source = Source::pin(function, pin);
        let guest = self.guest_of(source)?;
        if self.slot_of(guest, source).is_some() {
            return Ok(());
        }
        let binding = Binding {
            message: Some(MESSAGE),
            masked: false,
        };
        self.bind_slot(guest, source, binding).map(|_| ())
    }
}
