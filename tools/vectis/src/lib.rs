//! The one command: builds the system's image, runs it, and shows its output.
//!
//! Responsible for: the command line, calling cargo and the kernel builder,
//! putting the image together, QEMU's life, and turning serial streams into
//! text. Must never: leave a process or a temporary file behind. May call:
//! cargo, gcc, QEMU, apt-get (as root only).
//! Invariants: equal inputs give an equal image; every error names the failure, its
//! place, and the next step.

#![forbid(unsafe_code)]

mod bench;
mod cli;
mod commands;
mod control;
mod error;
mod frames;
mod guest;
mod image;
mod logs;
mod manifest;
mod network;
mod output;
mod packages;
mod programs;
mod qemu;
mod record;
mod replay;
mod run;
mod soak;
mod steps;
mod symbols;
mod text;
mod trace;
mod workspace;

pub use cli::main;
pub use error::{Error, Result};
