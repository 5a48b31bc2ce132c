//! The kernel's IRQ handlers.

use std::cell::RefCell;
use std::rc::Rc;

use irq_router::{IrqControl, KernelError, Slot};

/// The handlers that are held, and the calls that the kernel refuses.
#[derive(Debug, Default)]
pub struct State {
    /// Slots with the vector of the handler in each.
    pub held: Vec<(Slot, u8)>,
    /// It makes no handler.
    pub refuse_acquire: bool,
    /// It takes none back.
    pub refuse_release: bool,
}

/// A kernel as irq-router reaches it, without an IOMMU. Clones are the same kernel. It
/// panics if a slot or a vector is given twice.
#[derive(Clone, Debug, Default)]
pub struct Kernel(pub Rc<RefCell<State>>);

impl IrqControl for Kernel {
    fn acquire(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError> {
        let mut kernel = self.0.borrow_mut();
        if kernel.refuse_acquire {
            return Err(KernelError);
        }
        for &(other, taken) in &kernel.held {
            assert!(other != slot, "{slot:?} given twice");
            assert!(taken != vector, "vector {vector} given twice");
        }
        kernel.held.push((slot, vector));
        Ok(())
    }

    fn acquire_pin(&mut self, slot: Slot, vector: u8, _: u8) -> Result<(), KernelError> {
        self.acquire(slot, vector)
    }

    fn release(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError> {
        let mut kernel = self.0.borrow_mut();
        if kernel.refuse_release {
            return Err(KernelError);
        }
        let at = kernel.held.iter().position(|&held| held == (slot, vector));
        kernel.held.remove(at.expect("only what is held goes back"));
        Ok(())
    }

    fn clear_slot(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.0.borrow_mut().held.retain(|&(held, _)| held != slot);
        Ok(())
    }

    fn clear_vector(&mut self, vector: u8) -> Result<(), KernelError> {
        self.0.borrow_mut().held.retain(|&(_, held)| held != vector);
        Ok(())
    }
}
