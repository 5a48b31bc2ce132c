//! The thread's IPC buffer.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use sel4_sys::{MSG_MAX_EXTRA_CAPS, MSG_MAX_LENGTH};

use crate::{AbsoluteCPtr, CPtrWithDepth, Cap};

/// The IPC buffer: message words beyond the fourth, capabilities, the slot for
/// a received capability.
#[repr(transparent)]
#[derive(Debug)]
pub struct IpcBuffer(sel4_sys::IpcBuffer);

impl IpcBuffer {
    /// Returns the message's words.
    pub fn msg_regs(&self) -> &[u64; MSG_MAX_LENGTH] {
        &self.0.msg
    }

    /// Returns the message's words, to write.
    pub fn msg_regs_mut(&mut self) -> &mut [u64; MSG_MAX_LENGTH] {
        &mut self.0.msg
    }

    /// Badges of received capabilities, or capabilities to send.
    pub fn caps_or_badges(&self) -> &[u64; MSG_MAX_EXTRA_CAPS] {
        &self.0.caps_or_badges
    }

    /// Capabilities to send.
    pub fn caps_or_badges_mut(&mut self) -> &mut [u64; MSG_MAX_EXTRA_CAPS] {
        &mut self.0.caps_or_badges
    }

    /// Returns the slot where a received capability is put.
    pub fn recv_slot(&self) -> AbsoluteCPtr {
        // A depth above 64 cannot have come from `set_recv_slot`.
        let depth = self.0.receive_depth.min(64) as usize;
        let path = CPtrWithDepth::from_bits_with_depth(self.0.receive_index, depth);
        AbsoluteCPtr::new(Cap::from_bits(self.0.receive_cnode), path)
    }

    /// Sets the slot where a received capability is put.
    pub fn set_recv_slot(&mut self, slot: &AbsoluteCPtr) {
        self.0.receive_cnode = slot.root().bits();
        self.0.receive_index = slot.path().bits();
        self.0.receive_depth = slot.path().depth() as u64;
    }

    pub(crate) fn inner_mut(&mut self) -> &mut sel4_sys::IpcBuffer {
        &mut self.0
    }
}

/// Where the buffer is; null before it is named and while it is lent out.
static IPC_BUFFER: AtomicPtr<IpcBuffer> = AtomicPtr::new(null_mut());

/// Names the thread's IPC buffer.
///
/// # Safety
/// `address` must be the address of the buffer that this thread was configured
/// with, mapped for as long as the program runs, and nothing but this crate
/// and the kernel may access it. The program must have one thread that uses
/// the buffer.
pub unsafe fn set_ipc_buffer(address: usize) {
    IPC_BUFFER.store(
        core::ptr::with_exposed_provenance_mut(address),
        Ordering::Relaxed,
    );
}

/// Calls `f` with the buffer.
///
/// # Panics
/// If no buffer was named, or within another call of this kind.
pub fn with_ipc_buffer<R>(f: impl FnOnce(&IpcBuffer) -> R) -> R {
    with_ipc_buffer_mut(|buffer| f(buffer))
}

/// Calls `f` with the buffer, to write.
///
/// # Panics
/// If no buffer was named, or within another call of this kind.
pub fn with_ipc_buffer_mut<R>(f: impl FnOnce(&mut IpcBuffer) -> R) -> R {
    // With one thread a plain load and store suffice; Relaxed compiles to them.
    let buffer = IPC_BUFFER.load(Ordering::Relaxed);
    assert!(
        !buffer.is_null(),
        "the IPC buffer is not set, or in use by an outer call"
    );
    IPC_BUFFER.store(null_mut(), Ordering::Relaxed);
    // SAFETY: `set_ipc_buffer`'s caller vouches for the pointer; the null left
    // in its place keeps a nested call from making a second reference.
    let result = f(unsafe { &mut *buffer });
    IPC_BUFFER.store(buffer, Ordering::Relaxed);
    result
}

/// Calls an invocation stub with the buffer.
pub(crate) fn invoke<R>(
    f: impl FnOnce(&mut sel4_sys::IpcBuffer) -> core::result::Result<R, u64>,
) -> crate::Result<R> {
    with_ipc_buffer_mut(|buffer| f(buffer.inner_mut())).map_err(crate::Error::from_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recv_slot_reads_back() {
        let mut buffer = IpcBuffer(sel4_sys::IpcBuffer {
            tag: sel4_sys::MessageInfo::default(),
            msg: [0; MSG_MAX_LENGTH],
            user_data: 0,
            caps_or_badges: [0; MSG_MAX_EXTRA_CAPS],
            receive_cnode: 0,
            receive_index: 0,
            receive_depth: u64::MAX,
        });
        assert_eq!(buffer.recv_slot().path().depth(), 64);
        let cnode: crate::cap::CNode = Cap::from_bits(2);
        let slot = cnode.absolute_cptr_from_bits_with_depth(5, 12);
        buffer.set_recv_slot(&slot);
        assert_eq!(buffer.recv_slot(), slot);
    }
}
