//! The machine below the components, as plain memory: for tests, fuzzing and replay.
//!
//! Responsible for: one fake of each thing that several tests stand on. A test that
//! watches an order or breaks something on purpose has its own fake, made of these
//! parts. Unit tests inside a component's crate cannot use them: there the component's
//! traits are another build's.
//! Must never: know a rule of the components.
//! May call: nothing.
//! Invariants: an access outside of the memory is a test's mistake, and panics.

#![forbid(unsafe_code)]

mod device;
mod kernel;
mod pages;
mod ram;
mod registers;

pub use device::Device;
pub use kernel::Kernel;
pub use pages::Pages;
pub use ram::Ram;
pub use registers::Registers;
