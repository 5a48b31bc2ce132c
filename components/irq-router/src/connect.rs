//! The kernel's side of a binding, made step by step so that a router that dies
//! between any two of them can begin again.

use crate::router::Slot;

/// Why the kernel did not carry out an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The slot for the new capability holds one already.
    Occupied,
    /// Another error, by its number.
    Refused(u64),
}

/// The kernel's operations on the capabilities of a binding. Each is carried out
/// whole or not at all.
pub trait Capabilities {
    /// Makes the IRQ handler of a user vector, for messages or for a pin of the I/O
    /// APIC, in our slot for that vector.
    fn make_handler(&mut self, vector: u8, pin: Option<u8>) -> Result<(), Failure>;
    /// Deletes our slot's capability for a vector; an empty slot is not an error.
    fn delete_handler(&mut self, vector: u8) -> Result<(), Failure>;
    /// Mints the notification of the guest's vmm, with the slot's bit as its badge,
    /// into the spare slot.
    fn mint_notification(&mut self, slot: Slot) -> Result<(), Failure>;
    /// Lets the vector's handler signal the notification in the spare slot.
    fn set_notification(&mut self, vector: u8) -> Result<(), Failure>;
    /// Deletes the spare slot's capability; an empty slot is not an error.
    fn delete_notification(&mut self) -> Result<(), Failure>;
    /// Copies the vector's handler into the slot of the guest's vmm.
    fn copy_to_vmm(&mut self, slot: Slot, vector: u8) -> Result<(), Failure>;
}

/// Lets a vector signal the slot's bit and gives its handler to the vmm. What an
/// earlier call that was cut off has made already stays: a handler that is deleted
/// and made again would lose an event that comes between.
///
/// # Errors
/// The kernel's error. Then no handler is left.
pub fn connect(
    kernel: &mut impl Capabilities,
    slot: Slot,
    vector: u8,
    pin: Option<u8>,
) -> Result<(), Failure> {
    steps(kernel, slot, vector, pin).inspect_err(|_| {
        // The copy in the vmm is made last, so that it is not there.
        let _ = kernel.delete_handler(vector);
    })
}

fn steps(
    kernel: &mut impl Capabilities,
    slot: Slot,
    vector: u8,
    pin: Option<u8>,
) -> Result<(), Failure> {
    there(kernel.make_handler(vector, pin))?;
    match kernel.mint_notification(slot) {
        Err(Failure::Occupied) => {
            // A crash has left one there, of another slot.
            kernel.delete_notification()?;
            kernel.mint_notification(slot)?;
        }
        minted => minted?,
    }
    let set = kernel.set_notification(vector);
    kernel.delete_notification()?;
    set?;
    there(kernel.copy_to_vmm(slot, vector))
}

/// Accepts a capability that was there already: only the router puts any into
/// these slots.
fn there(made: Result<(), Failure>) -> Result<(), Failure> {
    match made {
        Err(Failure::Occupied) => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot { guest: 1, index: 5 };
    const VECTOR: u8 = 9;
    const STEPS: usize = 5;
    /// Steps if there is a notification of another slot.
    const MOST_STEPS: usize = STEPS + 2;

    /// One vector and one vmm's slot of a kernel.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Kernel {
        /// The handler: how many were made before it, its pin, and its signal.
        handler: Option<(u32, Option<u8>, Option<Slot>)>,
        made: u32,
        spare: Option<Slot>,
        in_vmm: bool,
        operations: usize,
        /// The operation that is refused.
        refused: Option<usize>,
        /// From this operation on the router is dead.
        dead: Option<usize>,
    }

    impl Kernel {
        fn operation(&mut self) -> Result<(), Failure> {
            let number = self.operations;
            self.operations += 1;
            let dead = self.dead.is_some_and(|dead| dead <= number);
            if dead || self.refused == Some(number) {
                return Err(Failure::Refused(3));
            }
            Ok(())
        }
    }

    impl Capabilities for Kernel {
        fn make_handler(&mut self, vector: u8, pin: Option<u8>) -> Result<(), Failure> {
            assert_eq!(vector, VECTOR);
            self.operation()?;
            if self.handler.is_some() {
                return Err(Failure::Occupied);
            }
            self.handler = Some((self.made, pin, None));
            self.made += 1;
            Ok(())
        }
        fn delete_handler(&mut self, vector: u8) -> Result<(), Failure> {
            assert_eq!(vector, VECTOR);
            self.operation()?;
            self.handler = None;
            Ok(())
        }
        fn mint_notification(&mut self, slot: Slot) -> Result<(), Failure> {
            self.operation()?;
            if self.spare.is_some() {
                return Err(Failure::Occupied);
            }
            self.spare = Some(slot);
            Ok(())
        }
        fn set_notification(&mut self, vector: u8) -> Result<(), Failure> {
            assert_eq!(vector, VECTOR);
            self.operation()?;
            let (_, _, signals) = self.handler.as_mut().expect("made before");
            *signals = Some(self.spare.expect("minted before"));
            Ok(())
        }
        fn delete_notification(&mut self) -> Result<(), Failure> {
            self.operation()?;
            self.spare = None;
            Ok(())
        }
        fn copy_to_vmm(&mut self, slot: Slot, vector: u8) -> Result<(), Failure> {
            assert_eq!((slot, vector), (SLOT, VECTOR));
            self.operation()?;
            let (_, _, signals) = self.handler.expect("made before");
            assert_eq!(signals, Some(SLOT), "the vmm has what signals its bit");
            if self.in_vmm {
                return Err(Failure::Occupied);
            }
            self.in_vmm = true;
            Ok(())
        }
    }

    fn assert_whole(kernel: &Kernel, made: u32, pin: Option<u8>) {
        assert_eq!(kernel.handler, Some((made, pin, Some(SLOT))));
        assert_eq!((kernel.spare, kernel.in_vmm), (None, true));
    }

    #[test]
    fn a_vector_signals_its_slot_and_the_vmm_has_the_handler() {
        for pin in [None, Some(20)] {
            let mut kernel = Kernel::default();
            assert_eq!(connect(&mut kernel, SLOT, VECTOR, pin), Ok(()));
            assert_eq!(kernel.operations, STEPS);
            assert_whole(&kernel, 0, pin);
            // A second time nothing is made anew.
            assert_eq!(connect(&mut kernel, SLOT, VECTOR, pin), Ok(()));
            assert_whole(&kernel, 0, pin);
        }
    }

    #[test]
    fn what_was_cut_off_is_completed_and_the_handler_stays() {
        for deaths in 0..=MOST_STEPS {
            for again in 0..=MOST_STEPS {
                let mut kernel = Kernel::default();
                for dead in [deaths, again] {
                    kernel.operations = 0;
                    kernel.dead = Some(dead);
                    let connected = connect(&mut kernel, SLOT, VECTOR, None).is_ok();
                    assert_eq!(connected, kernel.operations <= dead);
                }
                kernel.dead = None;
                assert_eq!(connect(&mut kernel, SLOT, VECTOR, None), Ok(()));
                assert_whole(&kernel, 0, None);
            }
        }
    }

    #[test]
    fn a_notification_of_another_slot_is_not_taken() {
        let mut kernel = Kernel {
            spare: Some(Slot { guest: 0, index: 1 }),
            ..Kernel::default()
        };
        assert_eq!(connect(&mut kernel, SLOT, VECTOR, None), Ok(()));
        assert_whole(&kernel, 0, None);
    }

    #[test]
    fn what_the_kernel_refuses_leaves_no_handler() {
        for refused in 0..STEPS {
            let mut kernel = Kernel {
                refused: Some(refused),
                ..Kernel::default()
            };
            let result = connect(&mut kernel, SLOT, VECTOR, None);
            assert_eq!(result, Err(Failure::Refused(3)), "{refused}");
            assert_eq!((kernel.handler, kernel.in_vmm), (None, false), "{refused}");
            kernel.refused = None;
            assert_eq!(connect(&mut kernel, SLOT, VECTOR, None), Ok(()));
            assert_whole(&kernel, kernel.made - 1, None);
        }
    }
}
