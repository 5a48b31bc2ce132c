//! Typed IPC between components; [`interface!`] shows how one is declared and used.
//!
//! Responsible for: the interfaces (one module each), and for making from each
//! of them a client stub, the server's dispatch and a host-side transport; for
//! which interface a caller reaches; and for what a client does when its server
//! dies in a call.
//! Must never: know about seL4; a [`Transport`] is what carries a message.
//! May call: nothing but the transport it is given.
//! Invariants: a message fits the four message registers of the kernel's
//! fastpath (checked at compile time); a malformed one is answered with
//! [`Error::Malformed`], never with a panic; a caller reaches the one interface
//! that its badge stands for, or none.

#![no_std]
#![forbid(unsafe_code)]

mod dispatch;
pub mod events;
mod guest_message;
#[macro_use]
mod interface;
pub mod iommu;
pub mod irq_router;
mod message;
pub mod msix;
pub mod pci_config;
mod retry;
pub mod routes;
pub mod timer;

pub use dispatch::{Dispatch, Interface};
pub use guest_message::GuestMessage;
pub use message::{Caller, Error, Local, MESSAGE_WORDS, Message, Transport, Word, Words};
pub use retry::{RETRIES, repeatable, retry};

#[cfg(test)]
mod tests;
