//! The guest's thread.

use runtime::Context;
use sel4::UserContext;
use sel4::cap::Tcb;
use spec::names;
use vmm::{Registers, StopReason};

/// Position of rsi among the registers.
const RSI: usize = 6;
/// #GP: raised for an address that is not canonical.
const GENERAL_PROTECTION: u8 = 13;

/// The guest's thread.
pub struct Guest {
    tcb: Tcb,
}

/// Its registers, and those that the VMM has no use for.
pub struct State {
    /// The registers that the VMM works on.
    pub registers: Registers,
    tls_base: u64,
}

impl Guest {
    /// Returns the thread that init configured.
    pub fn new(context: &Context) -> Self {
        Self {
            tcb: context.capability(names::GUEST_TCB),
        }
    }

    /// Starts the guest at `entry`, in the state that the Linux 64-bit boot
    /// protocol promises as far as ring 3 can see it: rsi points to the boot
    /// parameters.
    pub fn start(&self, entry: u64, boot_params: u64) -> Result<(), StopReason> {
        let mut state = self.read();
        state.registers = Registers {
            rip: entry,
            rflags: 0x202,
            ..Registers::default()
        };
        state.registers.gpr[RSI] = boot_params;
        self.write(&state, true)
    }

    /// Suspends the guest for the last time; the kernel drops its pending IPC and fault
    /// message.
    pub fn end(&self) {
        // The capability is the VMM's own, so that this cannot fail.
        let _ = self.tcb.tcb_suspend();
    }

    /// Reads its registers.
    pub fn read(&self) -> State {
        // The capability is the VMM's own and the count is right.
        let c = match self.tcb.tcb_read_all_registers(false) {
            Ok(context) => context,
            Err(error) => panic!("the guest's registers: {error:?}"),
        };
        State {
            registers: Registers {
                gpr: [
                    c.rax, c.rcx, c.rdx, c.rbx, c.rsp, c.rbp, c.rsi, c.rdi, c.r8, c.r9, c.r10,
                    c.r11, c.r12, c.r13, c.r14, c.r15,
                ],
                rip: c.rip,
                rflags: c.rflags,
            },
            tls_base: c.tls_base,
        }
    }

    /// Writes its registers, and lets it go on if `resume`.
    ///
    /// # Errors
    /// A guest that put an address into them which no CPU takes is over.
    pub fn write(&self, state: &State, resume: bool) -> Result<(), StopReason> {
        let Registers { gpr, rip, rflags } = state.registers;
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
            tls_base: state.tls_base,
        };
        let written = self.tcb.tcb_write_all_registers(resume, &context);
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
