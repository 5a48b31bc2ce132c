//! Reads seL4's interface descriptions and writes C headers and Rust source from them.
//!
//! - **Responsible for:** seL4's description languages (bit fields in `.bf` and
//!   `.pbf` files, invocations in XML, system call numbers in XML) as 5.0.0 and as
//!   13.0.0 to 16.0.0 have them; what only the C headers say, by a small C program;
//!   and two back ends that agree with each other: C for the kernel, Rust for
//!   `sel4-sys`.
//! - **Must never:** depend on time, environment or hash order; equal input
//!   gives equal output, byte for byte.
//! - **May call:** `gcc`: the preprocessor, because `.bf` files use it, and the
//!   compiler for that program, which it then runs.
//! - **Invariants:** every error names a file and a line; input that the
//!   x86_64 kernel does not use is refused, not guessed at.
#![forbid(unsafe_code)]

pub mod bitfield;
pub mod bitfield_c;
pub mod bitfield_rust;
pub mod condition;
pub mod constants;
pub mod cpp;
mod error;
pub mod facts;
pub mod invocation;
pub mod invocation_c;
pub mod invocation_rust;
mod lexer;
pub mod names;
pub mod parser;
pub mod syscall;
mod xml;

pub use error::Error;

use std::collections::BTreeMap;

/// Kernel options by name (`CONFIG_...`), with their values as C sees them.
pub type Options = BTreeMap<String, String>;
