//! Posted interrupts, for guests that ask: a block of the guest's own memory in which the
//! vmm sets a bit for each interrupt, and from which the guest takes it without a trap.
//!
//! A guest asks by output of the block's guest-physical address to [`PORT`], 32 bits at once:
//! a multiple of [`SIZE`], all of it RAM. From then on interrupts are not delivered by its
//! interrupt table, but their bits are set, whatever its interrupt flag says; only HLT still
//! looks at that. HLT ends when a bit is set, also one that was set before. The guest takes
//! bits by an instruction that reads and clears at once; it ends no interrupt at its local APIC
//! but a level-triggered one. Instead of the local APIC's timer it may write [`DEADLINE`],
//! which HLT looks at. Address 0 takes all of that back.

/// The port by which a guest asks.
pub const PORT: u16 = 0x510;
/// Bytes of a block. What is not described is 0 and stays so.
pub const SIZE: u64 = 64;
/// 64-bit words from the block's start with a bit for each vector, the lowest first.
pub const VECTOR_WORDS: usize = 4;
/// Offset of a 64-bit word: the time stamp at which the local APIC's timer interrupts, once,
/// by the vector and mask of its own entry; 0 for never.
pub const DEADLINE: u64 = 32;
