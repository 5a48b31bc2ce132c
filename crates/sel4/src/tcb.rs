//! Threads.

use sel4_sys::{LABEL_TCB_READ_REGISTERS, LABEL_TCB_WRITE_REGISTERS};

use crate::cap::{CNode, Granule, Notification, Tcb, VSpace};
use crate::ipc_buffer::invoke;
use crate::{CNodeCapData, CPtr, Error, Result, Word, is_canonical};

/// Whether the kernel keeps each thread's FS and GS base for it, as registers of its
/// context. If not (seL4 5.0.0), it sets both at each exit: the FS base to that of the
/// context, and the GS base to the address of the thread's IPC buffer, whatever the
/// thread itself made of them.
pub const KERNEL_KEEPS_BASES: bool = cfg!(sel4_gs_base);

macro_rules! user_context {
    ($($register:ident),*) => {
        /// A thread's registers, in the kernel's order.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[expect(
            missing_docs,
            reason = "the fields are the registers that they are named after"
        )]
        pub struct UserContext {
            $(pub $register: Word,)*
            /// Base of the segment FS.
            pub fs_base: Word,
            /// Base of the segment GS; no part of the kernel's context unless
            /// [`KERNEL_KEEPS_BASES`]: not written then, and read as 0.
            pub gs_base: Word,
        }

        impl UserContext {
            /// Words of the kernel's context.
            pub const WORDS: usize = sel4_sys::UserContext::WORDS;
            /// Words of this structure.
            pub const ALL: usize = [$(stringify!($register)),*].len() + 2;

            /// Returns the registers in the kernel's order, the bases last.
            pub const fn to_words(self) -> [Word; Self::ALL] {
                [$(self.$register,)* self.fs_base, self.gs_base]
            }

            /// Returns the registers that these words are, in the same order.
            pub const fn from_words(words: [Word; Self::ALL]) -> Self {
                let [$($register,)* fs_base, gs_base] = words;
                Self { $($register,)* fs_base, gs_base }
            }
        }
    };
}

user_context!(
    rip, rsp, rflags, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
);

const NO_DATA: Word = 0;

impl Tcb {
    /// Sets fault endpoint, spaces and IPC buffer; leaves the priority as it
    /// is (0 for a new thread). `fault_ep` is resolved in the thread's own
    /// CSpace when it faults. An IPC buffer address of 0 means none.
    ///
    /// These are two invocations: if the second fails the first has been done.
    ///
    /// # Errors
    /// If a capability or the buffer's address (a multiple of 1024) is not
    /// valid.
    pub fn tcb_configure(
        self,
        fault_ep: CPtr,
        cspace_root: CNode,
        cspace_root_data: CNodeCapData,
        vspace_root: VSpace,
        ipc_buffer: usize,
        ipc_buffer_frame: Granule,
    ) -> Result<()> {
        self.tcb_set_space(fault_ep, cspace_root, cspace_root_data, vspace_root)?;
        self.tcb_set_ipc_buffer(ipc_buffer, ipc_buffer_frame)
    }

    /// Sets fault endpoint, CSpace and VSpace.
    ///
    /// # Errors
    /// If a capability is not valid.
    pub fn tcb_set_space(
        self,
        fault_ep: CPtr,
        cspace_root: CNode,
        cspace_root_data: CNodeCapData,
        vspace_root: VSpace,
    ) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::tcb_set_space(
                ipc,
                self.bits(),
                fault_ep.bits(),
                cspace_root.bits(),
                cspace_root_data.into_word(),
                vspace_root.bits(),
                NO_DATA,
            )
        })
    }

    /// Sets the IPC buffer: its address in the thread's VSpace, a multiple of
    /// 1024 (0 for none), and the page it lies in. Unless [`KERNEL_KEEPS_BASES`] it is also
    /// the GS base: without a page (an empty slot), which the bundled kernel takes by a
    /// declared edit, it is only that, and any canonical address.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if the address is not
    /// [canonical](is_canonical); others if address or page are not valid.
    pub fn tcb_set_ipc_buffer(self, address: usize, frame: Granule) -> Result<()> {
        if !is_canonical(address as u64) {
            return Err(Error::InvalidArgument);
        }
        invoke(|ipc| sel4_sys::tcb_set_ipc_buffer(ipc, self.bits(), address as u64, frame.bits()))
    }

    /// Sets the priority, 255 being most urgent. `authority` is the caller's own thread,
    /// which a kernel may take for granted.
    ///
    /// # Errors
    /// [`RangeError`](crate::Error::RangeError) if it is above `authority`'s
    /// maximum controlled priority.
    #[cfg_attr(
        not(sel4_priority_authority),
        expect(unused_variables, reason = "this kernel takes the caller's")
    )]
    pub fn tcb_set_priority(self, authority: Tcb, priority: u8) -> Result<()> {
        #[cfg(sel4_priority_authority)]
        return invoke(|ipc| {
            sel4_sys::tcb_set_priority(ipc, self.bits(), authority.bits(), priority.into())
        });
        #[cfg(not(sel4_priority_authority))]
        invoke(|ipc| sel4_sys::tcb_set_priority(ipc, self.bits(), priority))
    }

    /// Sets the maximum controlled priority: the highest that the thread may
    /// assign to others. `authority` is as in [`tcb_set_priority`](Self::tcb_set_priority).
    ///
    /// # Errors
    /// [`RangeError`](crate::Error::RangeError) if it is above `authority`'s.
    #[cfg_attr(
        not(sel4_priority_authority),
        expect(unused_variables, reason = "this kernel takes the caller's")
    )]
    pub fn tcb_set_mc_priority(self, authority: Tcb, mcp: u8) -> Result<()> {
        #[cfg(sel4_priority_authority)]
        return invoke(|ipc| {
            sel4_sys::tcb_set_mc_priority(ipc, self.bits(), authority.bits(), mcp.into())
        });
        #[cfg(not(sel4_priority_authority))]
        invoke(|ipc| sel4_sys::tcb_set_mc_priority(ipc, self.bits(), mcp))
    }

    /// Reads the first `count` registers (at most all) in the order of
    /// [`UserContext`]; the others are zero. Suspends the thread first if
    /// `suspend`.
    ///
    /// # Errors
    /// [`IllegalOperation`](crate::Error::IllegalOperation) on the caller's own
    /// thread, [`RangeError`](crate::Error::RangeError) if `count` is 0.
    pub fn tcb_read_registers(self, suspend: bool, count: usize) -> Result<UserContext> {
        let count = count.min(UserContext::WORDS);
        invoke(|ipc| {
            // Not the generated stub, which copies all registers always: this
            // is on the path of every guest fault.
            let info = sel4_sys::MessageInfo::new(LABEL_TCB_READ_REGISTERS, 0, 0, 2);
            let arguments = [u64::from(suspend), count as u64, 0, 0];
            let mrs = sel4_sys::invoke(ipc, self.bits(), info, arguments)?;
            let mut words = [0; UserContext::ALL];
            let in_registers = count.min(mrs.len());
            words[..in_registers].copy_from_slice(&mrs[..in_registers]);
            words[in_registers..count].copy_from_slice(&ipc.msg[in_registers..count]);
            Ok(UserContext::from_words(words))
        })
    }

    /// Reads all registers.
    ///
    /// # Errors
    /// As [`tcb_read_registers`](Self::tcb_read_registers).
    pub fn tcb_read_all_registers(self, suspend: bool) -> Result<UserContext> {
        self.tcb_read_registers(suspend, UserContext::WORDS)
    }

    /// Writes the first `count` registers (at most all) in the order of
    /// [`UserContext`]. Resumes the thread then if `resume`; on a thread that
    /// waits for the reply to a fault, this replaces the reply.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if RIP is not
    /// [canonical](is_canonical), or the FS base is not, unless [`KERNEL_KEEPS_BASES`]:
    /// such a kernel makes a base 0 that is not canonical, which may be one that the
    /// thread gave itself.
    /// [`IllegalOperation`](crate::Error::IllegalOperation) on the caller's own
    /// thread.
    pub fn tcb_write_registers(
        self,
        resume: bool,
        count: usize,
        registers: &UserContext,
    ) -> Result<()> {
        let base = KERNEL_KEEPS_BASES || is_canonical(registers.fs_base);
        if !is_canonical(registers.rip) || !base {
            return Err(Error::InvalidArgument);
        }
        let count = count.min(UserContext::WORDS);
        invoke(|ipc| {
            // Not the generated stub, for the same reason as in reading.
            let words = registers.to_words();
            let info =
                sel4_sys::MessageInfo::new(LABEL_TCB_WRITE_REGISTERS, 0, 0, 2 + count as u64);
            if let Some(rest) = words.get(2..count) {
                ipc.msg[4..2 + count].copy_from_slice(rest);
            }
            let arguments = [u64::from(resume), count as u64, words[0], words[1]];
            sel4_sys::invoke(ipc, self.bits(), info, arguments).map(drop)
        })
    }

    /// Writes all registers.
    ///
    /// # Errors
    /// As [`tcb_write_registers`](Self::tcb_write_registers).
    pub fn tcb_write_all_registers(self, resume: bool, registers: &UserContext) -> Result<()> {
        self.tcb_write_registers(resume, UserContext::WORDS, registers)
    }

    /// Resumes the thread.
    ///
    /// # Errors
    /// If this is not a thread.
    pub fn tcb_resume(self) -> Result<()> {
        invoke(|ipc| sel4_sys::tcb_resume(ipc, self.bits()))
    }

    /// Suspends the thread.
    ///
    /// # Errors
    /// If this is not a thread.
    pub fn tcb_suspend(self) -> Result<()> {
        invoke(|ipc| sel4_sys::tcb_suspend(ipc, self.bits()))
    }

    /// Binds a notification: its signals are received on any endpoint that the
    /// thread waits on.
    ///
    /// # Errors
    /// [`IllegalOperation`](crate::Error::IllegalOperation) if either is bound.
    pub fn tcb_bind_notification(self, notification: Notification) -> Result<()> {
        invoke(|ipc| sel4_sys::tcb_bind_notification(ipc, self.bits(), notification.bits()))
    }

    /// Unbinds the notification.
    ///
    /// # Errors
    /// [`IllegalOperation`](crate::Error::IllegalOperation) if none is bound.
    pub fn tcb_unbind_notification(self) -> Result<()> {
        invoke(|ipc| sel4_sys::tcb_unbind_notification(ipc, self.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last that no CPU takes.
    const ODD: [u64; 2] = [1 << 47, (1 << 63) - 1];

    /// Before the kernel is asked, of which there is none here.
    #[test]
    fn addresses_that_no_cpu_takes_are_refused() {
        let refused = Err(Error::InvalidArgument);
        let tcb = Tcb::from_bits(1);
        for odd in ODD {
            let context = UserContext {
                rip: odd,
                ..UserContext::default()
            };
            assert_eq!(tcb.tcb_write_all_registers(true, &context), refused);
            assert_eq!(tcb.tcb_write_registers(false, 1, &context), refused);
            // It becomes the GS base of some kernels.
            let buffer = tcb.tcb_set_ipc_buffer(odd as usize, Granule::from_bits(2));
            assert_eq!(buffer, refused);
            if !KERNEL_KEEPS_BASES {
                let context = UserContext {
                    fs_base: odd,
                    ..UserContext::default()
                };
                assert_eq!(tcb.tcb_write_all_registers(true, &context), refused);
            }
        }
    }

    #[test]
    fn a_context_is_that_of_the_kernel() {
        let words: [Word; UserContext::ALL] = core::array::from_fn(|word| word as Word);
        let context = UserContext::from_words(words);
        assert_eq!(context.to_words(), words);
        let kernels = sel4_sys::UserContext::from_words(words.first_chunk().unwrap());
        assert_eq!((context.rip, context.rbp), (kernels.rip, kernels.rbp));
        assert_eq!((context.r8, context.r15), (kernels.r8, kernels.r15));
        #[cfg(sel4_gs_base)]
        let bases = (kernels.fs_base, kernels.gs_base);
        #[cfg(not(sel4_gs_base))]
        let bases = (kernels.tls_base, context.gs_base);
        assert_eq!((context.fs_base, context.gs_base), bases);
    }
}
