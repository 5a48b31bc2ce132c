//! The console: COM1, a 16550, written without interrupts.
//!
//! Each port access traps on Vectis, so the transmit FIFO is filled 16 bytes at
//! a time for one look at the line status.

use core::fmt;

use spec::COM1;

use crate::cpu;

/// Transmit FIFO depth of a 16550 in bytes.
const FIFO: usize = 16;
/// Line status register: transmitter holding register (and FIFO) empty.
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// Bound on the wait for the FIFO: at 115,200 baud it empties in 1.4 ms, far
/// less than this many port reads, and a missing UART must not stop the guest.
const WAIT_READS: u32 = 100_000;

/// Sets up COM1: 115,200 baud, 8N1, FIFO on, no interrupts.
pub fn init() {
    cpu::out8(COM1 + 1, 0x00); // IER: no interrupts
    cpu::out8(COM1 + 3, 0x80); // LCR: divisor latch
    cpu::out8(COM1, 0x01); // divisor 1 = 115,200 baud
    cpu::out8(COM1 + 1, 0x00);
    cpu::out8(COM1 + 3, 0x03); // LCR: 8 data bits, no parity, 1 stop bit
    cpu::out8(COM1 + 2, 0x07); // FCR: enable and clear the FIFOs
}

/// Writes bytes as they are.
pub fn write(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO) {
        for _ in 0..WAIT_READS {
            if cpu::in8(COM1 + 5) & TRANSMIT_EMPTY != 0 {
                break;
            }
        }
        for &byte in chunk {
            cpu::out8(COM1, byte);
        }
    }
}

/// Gathers formatted text, so that a line goes out in whole FIFO loads.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.bytes.len() {
                write(&self.bytes);
                self.length = 0;
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// Writes one line; use [`println!`](crate::println).
pub fn print_line(arguments: fmt::Arguments) {
    let mut line = Line {
        bytes: [0; 256],
        length: 0,
    };
    // A formatting error can only come from a value's own Display code; the text
    // before it is still worth showing.
    let _ = fmt::Write::write_fmt(&mut line, arguments);
    let _ = fmt::Write::write_str(&mut line, "\n");
    write(&line.bytes[..line.length]);
}

/// Writes a formatted line to the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print_line(format_args!($($argument)*)) };
}
