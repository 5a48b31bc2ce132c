//! The raw interface of an seL4 kernel on x86_64: numbers, layouts, system calls.
//!
//! - **Responsible for:** everything that depends on the kernel's version:
//!   generated bit fields, labels and invocation stubs; the system call
//!   instruction; sizes, object types, fault and boot layouts.
//! - **Must never:** hold state, or interpret the words that it carries.
//! - **May call:** the kernel.
//! - **Invariants:** the generated part is made from the same description and
//!   options as the kernel's own headers. Where kernels differ in form, `cfg(sel4_...)`
//!   says which holds (`sel4_idl::facts`).
//!
//! Names follow the kernel's, in Rust's style. Use the `sel4` crate instead,
//! unless you write it.
#![no_std]

mod syscalls;

pub use syscalls::*;

/// A capability's address in a thread's CSpace.
pub type CPtr = u64;

/// A thread's IPC buffer as the kernel reads and writes it (`seL4_IPCBuffer`,
/// libsel4 `shared_types.h`). The kernel asks for 1 KiB alignment, so that it
/// never crosses a page.
#[repr(C, align(1024))]
#[derive(Clone, Debug)]
pub struct IpcBuffer {
    /// Unused by the kernel on x86_64: the tag travels in a register.
    pub tag: MessageInfo,
    /// The message; its first four words travel in registers.
    pub msg: [u64; MSG_MAX_LENGTH],
    /// Free for the program.
    pub user_data: u64,
    /// Capabilities to send, or badges of received ones.
    pub caps_or_badges: [u64; MSG_MAX_EXTRA_CAPS],
    /// CNode for a received capability, as a capability in the own CSpace.
    pub receive_cnode: CPtr,
    /// Slot in `receive_cnode` for a received capability.
    pub receive_index: u64,
    /// Bits of `receive_index` to resolve.
    pub receive_depth: u64,
}

/// As the kernel lays it out.
const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    use ipc_buffer_offset as at;
    assert!(size_of::<IpcBuffer>() == at::LENGTH && align_of::<IpcBuffer>() == at::LENGTH);
    assert!(offset_of!(IpcBuffer, msg) == at::MSG);
    assert!(offset_of!(IpcBuffer, user_data) == at::USER_DATA);
    assert!(offset_of!(IpcBuffer, caps_or_badges) == at::CAPS_OR_BADGES);
    assert!(offset_of!(IpcBuffer, receive_cnode) == at::RECEIVE_CNODE);
    assert!(offset_of!(IpcBuffer, receive_depth) == at::RECEIVE_DEPTH);
};

include!(concat!(env!("OUT_DIR"), "/interface.rs"));
