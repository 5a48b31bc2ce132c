//! The serial ports: people on one, log frames on the other.
//!
//! Responsible for: guest output line by line under the guest's name, debug
//! keys, and carrying every component's log frames to the log port. Must never:
//! wait for anything but the UART, or trust the contents of a ring. May call:
//! msix, irq-router and iommu, for the reports of its keys. Invariants: each
//! wake-up takes at most one ring's worth of records from each writer, so that one
//! that floods its ring cannot keep out the rest.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

pub mod dump;
mod keys;
mod lines;
mod logs;
mod registers;
pub mod uart;

pub use keys::{Keys, REPORTS, position};
pub use lines::{LINE_MAX, Lines};
pub use logs::{FRAME_START, send_frames};
pub use uart::{Ports, Uart};

/// Where bytes go.
pub trait Output {
    /// Sends a byte; waits until there is room for it.
    fn put(&mut self, byte: u8);

    /// Sends text.
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.put(byte);
        }
    }
}
