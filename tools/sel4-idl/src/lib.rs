//! Reads seL4's interface descriptions and writes C headers and Rust source from them.
//!
//! - **Responsible for:** the three description languages of seL4 5.0.0 (bit
//!   fields in `.bf` files, invocations in XML, system call numbers in XML)
//!   and two back ends that agree with each other: C for the kernel, Rust for
//!   `sel4-sys`.
//! - **Must never:** depend on time, environment or hash order; equal input
//!   gives equal output, byte for byte.
//! - **May call:** the C preprocessor (`gcc -E`), because `.bf` files use it.
//! - **Invariants:** every error names a file and a line; input that the
//!   x86_64 kernel does not use is refused, not guessed at.
#![forbid(unsafe_code)]

pub mod bitfield;
pub mod bitfield_c;
pub mod bitfield_rust;
pub mod condition;
pub mod cpp;
mod error;
pub mod invocation;
pub mod invocation_c;
pub mod invocation_rust;
mod lexer;
pub mod names;
pub mod parser;
pub mod syscall;

pub use error::Error;

use std::collections::BTreeMap;

/// Kernel options by name (`CONFIG_...`), with their values as C sees them.
pub type Options = BTreeMap<String, String>;
