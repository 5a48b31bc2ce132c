//! Typed capabilities, messages and invocations for seL4.
//!
//! - **Responsible for:** a safe face on `sel4-sys`, with the names of today's
//!   rust-sel4 so that its users are at home.
//! - **Must never:** use thread-local storage (`fs:`/`gs:`): seL4 5.0.0 does not keep
//!   their bases apart between threads.
//! - **May call:** `sel4-sys`, that is the kernel.
//! - **Invariants:** a component has one thread; its IPC buffer is named once
//!   with [`set_ipc_buffer`] and reached only through [`with_ipc_buffer`] and
//!   [`with_ipc_buffer_mut`], which do not nest.
#![no_std]

mod bootinfo;
pub mod cap;
mod cnode;
mod cptr;
mod error;
pub mod fault;
pub mod init_thread;
mod invocations;
mod ipc;
mod ipc_buffer;
mod message_info;
mod object;
mod page;
mod rights;
mod tcb;

pub use bootinfo::{BootInfo, BootInfoError, BootInfoExtra, BootInfoPtr, UntypedDesc};
pub use cap::{Cap, cap_type};
pub use cnode::{AbsoluteCPtr, CNodeCapData};
pub use cptr::{CPtr, CPtrBits, CPtrWithDepth};
pub use error::{Error, Result};
pub use fault::Fault;
pub use ipc::{Badge, CallWithMRs, RecvWithMRs, reply, reply_with_mrs, r#yield};
pub use ipc_buffer::{IpcBuffer, set_ipc_buffer, with_ipc_buffer, with_ipc_buffer_mut};
pub use message_info::{MessageInfo, MessageInfoBuilder};
pub use object::ObjectBlueprint;
pub use page::{VmAttributes, last_lookup_bits_missing};
pub use rights::{CapRights, CapRightsBuilder};
pub use tcb::{KERNEL_KEEPS_BASES, UserContext};

/// A machine word.
pub type Word = u64;

/// Message words that travel in CPU registers.
pub const NUM_FAST_MESSAGE_REGISTERS: usize = 4;
/// Size of the smallest page as a power of two, in bytes.
pub const GRANULE_BITS: usize = sel4_sys::size_bits::PAGE;
/// Size of the smallest page in bytes.
pub const GRANULE_SIZE: usize = 1 << GRANULE_BITS;
/// Bits of a badge.
pub const BADGE_BITS: u32 = sel4_sys::BADGE_BITS;
/// Most objects that one retype makes.
pub const MAX_RETYPE_OBJECTS: usize = sel4_sys::MAX_RETYPE_OBJECTS;

/// Returns whether bits 63 to 47 of `address` are equal, as the CPU demands of
/// every address (SDM vol. 1, 3.3.7.1).
///
/// seL4 5.0.0 does not check this. It takes the low 48 bits of an address to
/// map at, which may lead into its own part of the address space; and
/// returning to a thread whose RIP or TLS base is not canonical is a fault in
/// the kernel on real CPUs, which halts the machine. The calls of this crate
/// refuse such addresses; code that puts an IP into the reply to a fault must
/// check it first.
pub const fn is_canonical(address: u64) -> bool {
    (address << 16).cast_signed() >> 16 == address.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::is_canonical;

    #[test]
    fn canonical_addresses() {
        for address in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
            assert!(is_canonical(address));
        }
        for address in [
            0x8000_0000_0000,
            0xffff_c000_0000,
            0xffff_7fff_ffff_ffff,
            1 << 63,
        ] {
            assert!(!is_canonical(address));
        }
    }
}
