//! The kernel and iommu as irq-router reaches them.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use channel::{Error, retry};
use irq_router::{IrqControl, KernelError, Slot};
use spec::{FunctionId, host_message};

use super::world::{Component, Entries, Handler, KernelState, Killed, World};

/// The kernel as irq-router reaches it, step by step as the program does it.
#[derive(Clone)]
pub struct Kernel(pub Rc<World>);

impl Kernel {
    fn step(&self) -> std::cell::RefMut<'_, KernelState> {
        self.0.step(Component::Irq);
        self.0.kernel.borrow_mut()
    }
}

impl IrqControl for Kernel {
    fn acquire(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError> {
        let mut kernel = self.step();
        kernel.births += 1;
        let birth = kernel.births;
        kernel.handlers.entry(vector).or_insert(Handler {
            birth,
            signals: None,
        });
        drop(kernel);
        let mut kernel = self.step();
        let handler = kernel.handlers.get_mut(&vector).expect("just made");
        handler.signals = Some(slot);
        drop(kernel);
        let mut kernel = self.step();
        let place = (slot.guest, slot.index);
        let copy = *kernel.copies.entry(place).or_insert(vector);
        assert_eq!(copy, vector, "another handler's copy is in {slot:?}");
        Ok(())
    }

    fn acquire_pin(&mut self, slot: Slot, vector: u8, _: u8) -> Result<(), KernelError> {
        self.acquire(slot, vector)
    }

    fn allow(
        &mut self,
        function: FunctionId,
        first: u8,
        count: u8,
    ) -> Result<(u64, u32), KernelError> {
        self.0.step(Component::Irq);
        change(&self.0, first..first + count, |entries, vector| {
            entries.insert((function, vector));
        })?;
        Ok(host_message(first))
    }

    fn forbid(&mut self, function: FunctionId, first: u8, count: u8) -> Result<(), KernelError> {
        self.0.step(Component::Irq);
        let kernel = self.0.kernel.borrow();
        let births = kernel.handlers.range(first..first + count);
        let births = births.map(|(_, handler)| handler.birth);
        self.0.forbidden.borrow_mut().extend(births);
        drop(kernel);
        change(&self.0, first..first + count, |entries, vector| {
            entries.remove(&(function, vector));
        })
    }

    fn clear_slot(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.step().copies.remove(&(slot.guest, slot.index));
        Ok(())
    }

    fn clear_vector(&mut self, vector: u8) -> Result<(), KernelError> {
        let mut kernel = self.step();
        let copied = kernel.copies.values().any(|&copy| copy == vector);
        assert!(!copied, "a copy outlives the handler of {vector}");
        kernel.handlers.remove(&vector);
        Ok(())
    }
}

/// Changes the remapping entry of each vector in iommu, which can die at each, and
/// asks again if it does, as irq-router's program does. Fails only if clients do not try again; then a
/// part may be done.
fn change(
    world: &World,
    vectors: Range<u8>,
    change: impl Fn(&mut Entries, u8),
) -> Result<(), KernelError> {
    let call = |_| {
        let all = || {
            for vector in vectors.clone() {
                world.step(Component::Iommu);
                change(&mut world.allowed.borrow_mut(), vector);
            }
            // Dying here, it has done all but not answered.
            world.step(Component::Iommu);
        };
        catch_unwind(AssertUnwindSafe(all)).map_err(|why| {
            if !why.is::<Killed>() {
                resume_unwind(why);
            }
            if world.impatient.get() {
                Error::Failed
            } else {
                Error::Gone(1)
            }
        })
    };
    retry(call).map_err(|_| KernelError)
}
