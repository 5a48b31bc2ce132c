//! Hypercalls, and text for the console.

use core::arch::asm;
use core::fmt::{self, Write};

use solo5::abi::{Halt, Puts, call};

/// Port of hypercall 0 (`HVT_HYPERCALL_PIO_BASE`).
pub const PORTS: u16 = 0x500;

/// Makes a hypercall with the argument at any address, good or bad.
pub fn at(number: u32, address: u32) {
    // SAFETY: the monitor writes to the argument only, and what it names, which the
    // compiler has to take as changed; where that is bad, nothing is written.
    unsafe {
        asm!("out dx, eax", in("dx") PORTS + number as u16, in("eax") address);
    }
}

/// Makes a hypercall in the two instructions that a C compiler makes of Solo5's, which the
/// build tool leads to the shim directly. Those of [`at`] are trapped.
pub fn make<const NUMBER: u32, T>(argument: &mut T) {
    // SAFETY: as in `at`.
    unsafe {
        asm!("mov edx, {port}", "out dx, eax",
             port = const PORTS as u32 + NUMBER,
             in("eax") (argument as *mut T).addr() as u32, out("edx") _);
    }
}

/// Ends the guest.
pub fn halt(status: i32) -> ! {
    let mut halt = Halt {
        exit_status: status,
        ..Halt::default()
    };
    loop {
        make::<{ call::HALT }, _>(&mut halt);
    }
}

/// Text for one call, so that a line goes out in one piece.
pub struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Line {
    fn flush(&mut self) {
        let mut puts = Puts {
            data: self.bytes.as_ptr().addr() as u64,
            length: self.length as u64,
        };
        make::<{ call::PUTS }, _>(&mut puts);
        self.length = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// Writes one line; use `println!`.
pub fn print_line(arguments: fmt::Arguments) {
    let mut line = Line {
        bytes: [0; 256],
        length: 0,
    };
    let _ = line.write_fmt(arguments);
    let _ = line.write_str("\n");
    line.flush();
}

/// Writes a formatted line to the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::call::print_line(format_args!($($argument)*)) };
}
