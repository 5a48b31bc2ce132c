//! The IOMMU's remapping entries: which function may raise which vector. They
//! outlive every component; iommu, which writes them, can die at each.

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use channel::{Error, retry};
use irq_router::KernelError;
use spec::FunctionId;

use super::world::{Component, Killed, World};

/// Functions, each with a vector that it may raise.
pub type Entries = BTreeSet<(FunctionId, u8)>;

/// Changes the entry of each vector in iommu, and asks again if it dies, as
/// irq-router's program does. It fails only if nobody asks again: then a part
/// may be done.
pub fn change(
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
            // All is done, and nobody is told.
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
