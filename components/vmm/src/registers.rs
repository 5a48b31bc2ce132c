//! The guest's user-visible registers.

/// Registers of a stopped guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// General registers in the order of their x86 encoding: rax, rcx, rdx,
    /// rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags. Bit 9 (IF) is the hardware's, always 1; the guest's is in the
    /// virtual CPU.
    pub rflags: u64,
    /// Base of FS, always canonical.
    pub fs_base: u64,
    /// Base of GS, always canonical.
    pub gs_base: u64,
}

/// Number of a register in [`Registers::gpr`].
pub const RAX: usize = 0;
/// See [`RAX`].
pub const RCX: usize = 1;
/// See [`RAX`].
pub const RDX: usize = 2;
/// See [`RAX`].
pub const RSP: usize = 4;
/// See [`RAX`].
pub const RBP: usize = 5;

/// Interrupt flag.
pub const RFLAGS_IF: u64 = 1 << 9;
/// Flags that a ring-3 thread may really have set: CF PF AF ZF SF DF OF AC ID.
pub const RFLAGS_USER: u64 = 0x0024_0cd5;
/// Bit 1 always reads 1.
pub const RFLAGS_FIXED: u64 = 1 << 1;

/// Returns whether a CPU with 48-bit addresses takes this one: bits 63 to 47 are equal
/// (SDM vol. 1 section 3.3.7.1).
#[must_use]
pub const fn is_canonical(address: u64) -> bool {
    (address << 16).cast_signed() >> 16 == address.cast_signed()
}

impl Registers {
    /// Returns the low 32 bits of rdx and rax as one value: the operand of
    /// wrmsr.
    #[must_use]
    pub const fn edx_eax(&self) -> u64 {
        self.gpr[RDX] << 32 | self.gpr[RAX] & 0xffff_ffff
    }

    /// Sets rdx and rax from the two halves of a value: the result of rdmsr.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.gpr[RAX] = value & 0xffff_ffff;
        self.gpr[RDX] = value >> 32;
    }
}
