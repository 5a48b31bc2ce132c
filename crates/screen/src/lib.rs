//! Text on a PC's screen, of a VGA's characters or of a framebuffer's points.
//!
//! Responsible for: what stands where, how a letter becomes points, and whether a framebuffer
//! is one that can be drawn on. Must never: write memory itself; go outside of what it says
//! that it covers. May call: nothing. Invariants: any description yields a result, without a
//! panic and in bounded time.
//!
//! The letters are those of the `embedded-graphics` crate, as bits. Its drawing is not used:
//! it wants a target that it can borrow as a whole, and asks for far more than a letter.
#![no_std]
#![forbid(unsafe_code)]

mod framebuffer;
mod text;
pub mod vga;

pub use framebuffer::{Canvas, Field, Framebuffer, Points, SYMBOL};
pub use text::{COLUMNS, ROWS, Text};
