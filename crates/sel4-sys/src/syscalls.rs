//! The system call instruction.
//!
//! Registers (libsel4 `sel4_arch/syscalls_syscall.h`): RDX the call's number,
//! RDI capability or badge, RSI message info, R10 R8 R9 R15 the first four
//! message words. The kernel keeps the other registers but for RCX and R11,
//! which the instruction overwrites, and RSP, which comes back as zero.

use core::arch::asm;

use crate::{CPtr, IpcBuffer, MessageInfo};
use crate::{SYS_CALL, SYS_NB_RECV, SYS_NB_SEND, SYS_RECV, SYS_REPLY, SYS_REPLY_RECV};
use crate::{SYS_SEND, SYS_YIELD};

/// The message words that travel in registers.
pub type MessageRegisters = [u64; 4];

/// Result of a system call that receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message's info; zero for a notification.
    pub info: MessageInfo,
    /// The sender's badge, or a notification's word.
    pub badge: u64,
    /// The first four words of the message.
    pub mrs: MessageRegisters,
}

/// Makes any system call. `ipc` is not passed to the kernel, which knows the
/// buffer's place: naming it here tells the compiler that the call reads and
/// writes the buffer.
#[inline(always)]
fn syscall(
    number: i64,
    dest: CPtr,
    info: u64,
    mrs: MessageRegisters,
    ipc: *mut IpcBuffer,
) -> Received {
    let [mut mr0, mut mr1, mut mr2, mut mr3] = mrs;
    let (mut badge, mut tag) = (dest, info);
    // SAFETY: the clobbers are those listed above, and RSP is restored from a
    // register that the kernel keeps. Memory that the kernel writes on the
    // thread's behalf is its IPC buffer alone, whose users pass it in `ipc`;
    // effects of invocations on mappings are the caller's to reason about.
    unsafe {
        asm!(
            "mov r12, rsp",
            "syscall",
            "mov rsp, r12",
            in("rdx") number,
            inout("rdi") badge,
            inout("rsi") tag,
            inout("r10") mr0,
            inout("r8") mr1,
            inout("r9") mr2,
            inout("r15") mr3,
            in("rax") ipc,
            out("rcx") _,
            out("r11") _,
            out("r12") _,
        );
    }
    Received {
        info: MessageInfo { words: [tag] },
        badge,
        mrs: [mr0, mr1, mr2, mr3],
    }
}

const NO_BUFFER: *mut IpcBuffer = core::ptr::null_mut();

/// Sends and waits until someone receives. No effect if `dest` is not an
/// endpoint or notification with the right to send.
#[inline]
pub fn send(dest: CPtr, info: MessageInfo, mrs: MessageRegisters, ipc: *mut IpcBuffer) {
    syscall(SYS_SEND, dest, info.words[0], mrs, ipc);
}

/// Sends if someone is waiting, else drops the message.
#[inline]
pub fn nb_send(dest: CPtr, info: MessageInfo, mrs: MessageRegisters, ipc: *mut IpcBuffer) {
    syscall(SYS_NB_SEND, dest, info.words[0], mrs, ipc);
}

/// Signals a notification. Never blocks.
#[inline]
pub fn signal(dest: CPtr) {
    syscall(SYS_SEND, dest, 0, [0; 4], NO_BUFFER);
}

/// Sends and waits for the reply.
#[inline]
pub fn call(dest: CPtr, info: MessageInfo, mrs: MessageRegisters, ipc: *mut IpcBuffer) -> Received {
    syscall(SYS_CALL, dest, info.words[0], mrs, ipc)
}

/// Waits for a message or a notification.
#[inline]
pub fn recv(src: CPtr, ipc: *mut IpcBuffer) -> Received {
    syscall(SYS_RECV, src, 0, [0; 4], ipc)
}

/// Takes a message or notification that is there; a badge of zero if none.
#[inline]
pub fn nb_recv(src: CPtr, ipc: *mut IpcBuffer) -> Received {
    syscall(SYS_NB_RECV, src, 0, [0; 4], ipc)
}

/// Replies to the last caller.
#[inline]
pub fn reply(info: MessageInfo, mrs: MessageRegisters, ipc: *mut IpcBuffer) {
    syscall(SYS_REPLY, 0, info.words[0], mrs, ipc);
}

/// Replies to the last caller and waits for the next message.
#[inline]
pub fn reply_recv(
    src: CPtr,
    info: MessageInfo,
    mrs: MessageRegisters,
    ipc: *mut IpcBuffer,
) -> Received {
    syscall(SYS_REPLY_RECV, src, info.words[0], mrs, ipc)
}

/// Yields the rest of the time slice to other threads of the same priority.
#[inline]
pub fn yield_() {
    syscall(SYS_YIELD, 0, 0, [0; 4], NO_BUFFER);
}

/// Invokes a kernel object: the call of every generated stub. If it is
/// refused, returns the error's number and leaves the reply's first words, its
/// details, in `ipc`.
#[inline]
pub fn invoke(
    ipc: &mut IpcBuffer,
    service: CPtr,
    info: MessageInfo,
    mrs: MessageRegisters,
) -> Result<MessageRegisters, u64> {
    let received = call(service, info, mrs, ipc);
    match received.info.label() {
        0 => Ok(received.mrs),
        error => {
            ipc.msg[..4].copy_from_slice(&received.mrs);
            Err(error)
        }
    }
}
