//! The guest's thread.

use core::cell::Cell;

use runtime::Context;
use sel4::UserContext;
use sel4::cap::{Granule, Tcb};
use spec::names;
use vmm::{Registers, StopReason};

/// Position of rsi among the registers.
const RSI: usize = 6;
/// #GP: raised for an address that is not canonical.
const GENERAL_PROTECTION: u8 = 13;
/// A slot without a capability: an IPC buffer without a page.
const NO_PAGE: u64 = 0;

/// The guest's thread.
pub struct Guest {
    tcb: Tcb,
    /// Its GS base, unless the kernel keeps it.
    gs_base: Cell<u64>,
}

impl Guest {
    /// Returns the thread that init configured.
    pub fn new(context: &Context) -> Self {
        Self {
            tcb: context.capability(names::GUEST_TCB),
            gs_base: Cell::new(0),
        }
    }

    /// Starts the guest at `entry`, in the state that the Linux 64-bit boot
    /// protocol promises as far as ring 3 can see it: rsi points to the boot
    /// parameters.
    pub fn start(&self, entry: u64, boot_params: u64) -> Result<(), StopReason> {
        let mut registers = Registers {
            rip: entry,
            rflags: 0x202,
            ..Registers::default()
        };
        registers.gpr[RSI] = boot_params;
        self.write(&registers, true)
    }

    /// Suspends the guest for the last time; the kernel drops its pending IPC and fault
    /// message.
    pub fn end(&self) {
        // The capability is the VMM's own, so that this cannot fail.
        let _ = self.tcb.tcb_suspend();
    }

    /// Reads its registers.
    pub fn read(&self) -> Registers {
        // The capability is the VMM's own and the count is right.
        let c = match self.tcb.tcb_read_all_registers(false) {
            Ok(context) => context,
            Err(error) => panic!("the guest's registers: {error:?}"),
        };
        Registers {
            gpr: [
                c.rax, c.rcx, c.rdx, c.rbx, c.rsp, c.rbp, c.rsi, c.rdi, c.r8, c.r9, c.r10, c.r11,
                c.r12, c.r13, c.r14, c.r15,
            ],
            rip: c.rip,
            rflags: c.rflags,
            fs_base: c.fs_base,
            gs_base: if sel4::KERNEL_KEEPS_BASES {
                c.gs_base
            } else {
                self.gs_base.get()
            },
        }
    }

    /// Writes its registers, and lets it go on if `resume`.
    ///
    /// # Errors
    /// A guest that put an address into them which no CPU takes is over.
    pub fn write(&self, registers: &Registers, resume: bool) -> Result<(), StopReason> {
        let Registers {
            gpr,
            rip,
            rflags,
            fs_base,
            gs_base,
        } = *registers;
        let [
            rax,
            rcx,
            rdx,
            rbx,
            rsp,
            rbp,
            rsi,
            rdi,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = gpr;
        let context = UserContext {
            rip,
            rsp,
            rflags,
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            fs_base,
            gs_base,
        };
        let mut written = Ok(());
        if !sel4::KERNEL_KEEPS_BASES && gs_base != self.gs_base.get() {
            let no_page = Granule::from_bits(NO_PAGE);
            written = self.tcb.tcb_set_ipc_buffer(gs_base as usize, no_page);
            self.gs_base.set(gs_base);
        }
        written = written.and_then(|()| self.tcb.tcb_write_all_registers(resume, &context));
        written.map_err(|error| {
            defmt::warn!(
                "guest registers refused (rip {=u64:#x}): error {=u64}",
                rip,
                error as u64
            );
            StopReason::TripleFault(GENERAL_PROTECTION)
        })
    }
}
