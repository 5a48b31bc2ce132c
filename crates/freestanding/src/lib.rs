//! Symbols that the compiler expects of a program without a C library.
//!
//! Responsible for: the memory functions and the personality symbol that the
//! prebuilt core library names. Must never: be linked into a program that has a
//! C library. May call: nothing. Invariants: none.

#![no_std]

use core::arch::global_asm;

global_asm!(include_str!("memory.s"));

/// Named by the unwind tables of the prebuilt core library; never called,
/// because every profile aborts on panic.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
