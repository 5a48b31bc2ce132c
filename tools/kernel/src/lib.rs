//! Builds the seL4 kernel for an x86_64 PC from pinned, published sources.
//!
//! - **Responsible for:** finding the sources, the kernel's options, the
//!   declared edits, the generated headers, compiling, linking, and the 32-bit
//!   image that a multiboot loader takes.
//! - **Must never:** change the sources where they lie, or build from sources
//!   other than the pinned ones.
//! - **May call:** `cargo metadata`, `gcc`.
//! - **Invariants:** equal options, sources and compiler give the same image,
//!   byte for byte; every edit was found exactly once in the text it expects.
#![forbid(unsafe_code)]

mod build;
mod config;
mod edits;
mod elf32;
mod error;
mod headers;
mod locate;
mod sources;

pub use build::{Built, build};
pub use config::{Config, Profile};
pub use edits::{EDITS, Edit};
pub use error::Error;
pub use headers::{Interface, interface};
pub use locate::{Source, VERSION, locate};
