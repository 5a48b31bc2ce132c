//! Encodings that the build tool puts in the place of instructions that do not trap in
//! ring 3 but must, and that the vmm emulates. The CPU raises #UD for each in 64-bit mode
//! (SDM vol. 2 appendix A.3), and each is as long as the instruction that it replaces.

/// PUSHFQ, which shows the hardware's interrupt flag: 0x9c.
pub const PUSHF: u8 = 0x9c;
/// POPFQ, which leaves the interrupt flag as it is: 0x9d.
pub const POPF: u8 = 0x9d;
/// Stands for [`PUSHF`].
pub const REWRITTEN_PUSHF: u8 = 0x06;
/// Stands for [`POPF`].
pub const REWRITTEN_POPF: u8 = 0x07;
/// The prefix of WRFSBASE and WRGSBASE, whose effect the kernel takes back.
pub const BASE_PREFIX: u8 = 0xf3;
/// Stands for [`BASE_PREFIX`].
pub const REWRITTEN_BASE_PREFIX: u8 = 0x66;
