//! Binds init to seL4: the kernel starts it with everything there is.

#![no_std]
#![no_main]

mod program;

use core::arch::global_asm;

/// Address and length of the image, written into the ELF file by the build
/// tool when it attaches the image as one more segment.
#[used]
#[unsafe(no_mangle)]
static VECTIS_IMAGE: [core::sync::atomic::AtomicU64; 2] =
    [const { core::sync::atomic::AtomicU64::new(0) }; 2];

/// A [`screen::Framebuffer`], written into the loaded file by `crates/boot` where there is one.
/// It is among the initialised data, so that the file has room for it.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static VECTIS_SCREEN: [core::sync::atomic::AtomicU64; 4] =
    [const { core::sync::atomic::AtomicU64::new(0) }; 4];

const STACK_SIZE: usize = 256 * 1024;

/// Init's stack: the kernel provides none.
#[repr(C, align(16))]
struct Stack(core::cell::UnsafeCell<[u8; STACK_SIZE]>);

// SAFETY: only the one thread uses it, as its stack.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK_SIZE]));

// rdi holds the address of BootInfo (seL4 5.0.0, src/arch/x86/kernel/boot.c);
// it stays where the ABI has the first argument.
global_asm!(
    ".global _start",
    "_start:",
    "lea rsp, [rip + {stack} + {size}]",
    "xor ebp, ebp",
    "call {start}",
    "ud2",
    stack = sym STACK,
    size = const STACK_SIZE,
    start = sym program::start,
);
