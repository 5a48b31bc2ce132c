//! Builds the seL4 kernel for an x86_64 PC from pinned, published sources, or takes one
//! that the user has installed.
//!
//! - **Responsible for:** finding the sources, the kernel's options, the
//!   declared edits, the generated headers, compiling, linking, and the 32-bit
//!   image that a multiboot loader takes; reading and checking an installed
//!   kernel's options.
//! - **Must never:** change the sources or an installed kernel where they lie, or build
//!   from sources other than the pinned ones.
//! - **May call:** `cargo metadata`, `gcc`.
//! - **Invariants:** equal options, sources and compiler give the same image,
//!   byte for byte; every edit was found exactly once in the text it expects.
#![forbid(unsafe_code)]

mod build;
mod check;
mod config;
mod configuration;
mod edits;
mod elf32;
mod entry;
mod error;
mod headers;
mod installed;
mod interface;
mod locate;
mod mask;
mod sources;

pub use build::{Built, build};
pub use check::Purpose;
pub use config::{CPU, Config, Profile, cpu_from_environment};
pub use configuration::{Configuration, Setting};
pub use edits::{EDITS, Edit};
pub use elf32::{Segment, entry, segments};
pub use entry::{Entry, adopt};
pub use error::Error;
pub use installed::{Installed, PREFIX};
pub use interface::{Interface, installed_interface, interface};
pub use locate::{BADGE_BITS, Source, VERSION, locate};
pub use mask::Site;
