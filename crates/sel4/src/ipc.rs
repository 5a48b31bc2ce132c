//! Messages and signals.
//!
//! The plain calls take and leave all message words in the IPC buffer. Those
//! with `_with_mrs` pass the first four in registers and leave these four
//! words of the buffer alone; words beyond them, if the header counts more,
//! are still in the buffer.

use sel4_sys::{IpcBuffer as Buffer, Received};

use crate::cap::{Endpoint, Notification};
use crate::{MessageInfo, Word, with_ipc_buffer_mut};

/// Word that identifies the capability with which a message was sent or a
/// notification signalled; [`BADGE_BITS`](crate::BADGE_BITS) bits.
pub type Badge = u64;

/// The reply to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallWithMRs {
    /// The reply's header.
    pub info: MessageInfo,
    /// Its first four words; those beyond its length mean nothing.
    pub msg: [Word; 4],
}

/// A received message or notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvWithMRs {
    /// The message's header; zero for a notification.
    pub info: MessageInfo,
    /// The sender's badge, or the notification's signals.
    pub badge: Badge,
    /// Its first four words; those beyond its length mean nothing.
    pub msg: [Word; 4],
}

const NO_BUFFER: *mut Buffer = core::ptr::null_mut();

fn registers(buffer: &Buffer) -> [Word; 4] {
    let [a, b, c, d, ..] = buffer.msg;
    [a, b, c, d]
}

fn keep(buffer: &mut Buffer, received: Received) -> (MessageInfo, Badge) {
    buffer.msg[..4].copy_from_slice(&received.mrs);
    (MessageInfo::from_inner(received.info), received.badge)
}

fn with_mrs(received: Received) -> RecvWithMRs {
    RecvWithMRs {
        info: MessageInfo::from_inner(received.info),
        badge: received.badge,
        msg: received.mrs,
    }
}

impl Endpoint {
    /// Sends the message in the IPC buffer, waiting for a receiver.
    pub fn send(self, info: MessageInfo) {
        with_ipc_buffer_mut(|b| {
            let b = b.inner_mut();
            sel4_sys::send(self.bits(), info.inner(), registers(b), b);
        });
    }

    /// Sends the message in the IPC buffer if a receiver waits, else drops it.
    pub fn nb_send(self, info: MessageInfo) {
        with_ipc_buffer_mut(|b| {
            let b = b.inner_mut();
            sel4_sys::nb_send(self.bits(), info.inner(), registers(b), b);
        });
    }

    /// Sends the message in the IPC buffer and waits for the reply, whose
    /// words are then in the buffer.
    pub fn call(self, info: MessageInfo) -> MessageInfo {
        with_ipc_buffer_mut(|b| {
            let b = b.inner_mut();
            let received = sel4_sys::call(self.bits(), info.inner(), registers(b), b);
            keep(b, received).0
        })
    }

    /// Waits for a message or a signal of the bound notification.
    pub fn recv(self, _reply_authority: ()) -> (MessageInfo, Badge) {
        with_ipc_buffer_mut(|b| {
            let b = b.inner_mut();
            let received = sel4_sys::recv(self.bits(), b);
            keep(b, received)
        })
    }

    /// Takes a message if one waits; a badge of 0 and an empty header if not.
    pub fn nb_recv(self, _reply_authority: ()) -> (MessageInfo, Badge) {
        with_ipc_buffer_mut(|b| {
            let b = b.inner_mut();
            let received = sel4_sys::nb_recv(self.bits(), b);
            keep(b, received)
        })
    }

    /// Replies to the last caller with the message in the IPC buffer, and
    /// waits for the next.
    pub fn reply_recv(self, info: MessageInfo) -> (MessageInfo, Badge) {
        with_ipc_buffer_mut(|b| {
            let b = b.inner_mut();
            let received = sel4_sys::reply_recv(self.bits(), info.inner(), registers(b), b);
            keep(b, received)
        })
    }

    /// Sends a message, as [`send`](Self::send) does,
    /// with the first four words in registers.
    #[inline]
    pub fn send_with_mrs(self, info: MessageInfo, msg: [Word; 4]) {
        sel4_sys::send(self.bits(), info.inner(), msg, NO_BUFFER);
    }

    /// Sends a message, as [`nb_send`](Self::nb_send) does,
    /// with the first four words in registers.
    #[inline]
    pub fn nb_send_with_mrs(self, info: MessageInfo, msg: [Word; 4]) {
        sel4_sys::nb_send(self.bits(), info.inner(), msg, NO_BUFFER);
    }

    /// Calls, as [`call`](Self::call) does,
    /// with the first four words in registers.
    #[inline]
    pub fn call_with_mrs(self, info: MessageInfo, msg: [Word; 4]) -> CallWithMRs {
        let received = sel4_sys::call(self.bits(), info.inner(), msg, NO_BUFFER);
        CallWithMRs {
            info: MessageInfo::from_inner(received.info),
            msg: received.mrs,
        }
    }

    /// Receives, as [`recv`](Self::recv) does,
    /// with the first four words in registers.
    #[inline]
    pub fn recv_with_mrs(self, _reply_authority: ()) -> RecvWithMRs {
        with_mrs(sel4_sys::recv(self.bits(), NO_BUFFER))
    }

    /// Receives, as [`nb_recv`](Self::nb_recv) does,
    /// with the first four words in registers.
    #[inline]
    pub fn nb_recv_with_mrs(self, _reply_authority: ()) -> RecvWithMRs {
        with_mrs(sel4_sys::nb_recv(self.bits(), NO_BUFFER))
    }

    /// Replies and receives, as [`reply_recv`](Self::reply_recv) does,
    /// with the first four words in registers.
    #[inline]
    pub fn reply_recv_with_mrs(self, info: MessageInfo, msg: [Word; 4]) -> RecvWithMRs {
        with_mrs(sel4_sys::reply_recv(
            self.bits(),
            info.inner(),
            msg,
            NO_BUFFER,
        ))
    }
}

impl Notification {
    /// Signals: its badge is OR-ed into the notification's word. Never blocks.
    #[inline]
    pub fn signal(self) {
        sel4_sys::signal(self.bits());
    }

    /// Waits for signals; their badges OR-ed together.
    #[inline]
    pub fn wait(self) -> Badge {
        sel4_sys::recv(self.bits(), NO_BUFFER).badge
    }

    /// Takes the signals that are there; 0 if none.
    #[inline]
    pub fn poll(self) -> Badge {
        sel4_sys::nb_recv(self.bits(), NO_BUFFER).badge
    }
}

/// Replies to the last caller with the message in the IPC buffer.
pub fn reply(info: MessageInfo) {
    with_ipc_buffer_mut(|b| {
        let b = b.inner_mut();
        sel4_sys::reply(info.inner(), registers(b), b);
    });
}

/// Replies, as [`reply`] does, with the first four words in registers.
#[inline]
pub fn reply_with_mrs(info: MessageInfo, msg: [Word; 4]) {
    sel4_sys::reply(info.inner(), msg, NO_BUFFER);
}

/// Yields the rest of the time slice to other threads of the same priority.
#[inline]
pub fn r#yield() {
    sel4_sys::yield_();
}
