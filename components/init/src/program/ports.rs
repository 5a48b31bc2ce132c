//! Init's own two ways to the outside world: writing text to COM1, and ending the
//! machine.
//!
//! Both are for the moments when no component can: before the console runs, and when
//! a component is dead.

use core::fmt;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use sel4::cap::IoPort;
use sel4::init_thread::slot;
use spec::{COM1, Ending};

/// Offset of the line status register, and its bit that says there is room.
const STATUS: u16 = 5;
const EMPTY: u8 = 1 << 5;
/// Looks for room before a byte is given up.
const PATIENCE: u32 = 100_000;

static COM1_PORT: AtomicU16 = AtomicU16::new(COM1);
static COM1_CAP: AtomicU64 = AtomicU64::new(0);
static EXIT_CAP: AtomicU64 = AtomicU64::new(0);
static EXIT_PORT: AtomicU16 = AtomicU16::new(0);

/// Uses the capability to all ports until [`keep`] narrows it.
pub fn start() {
    let all = slot::IO_PORT_CONTROL.cap().bits();
    COM1_CAP.store(all, Ordering::Relaxed);
    EXIT_CAP.store(all, Ordering::Relaxed);
}

/// Takes the machine's ports from the image: COM1's first, and the one that ends
/// the machine, or 0.
pub fn set(com1: u16, exit: u16) {
    COM1_PORT.store(com1, Ordering::Relaxed);
    EXIT_PORT.store(exit, Ordering::Relaxed);
}

/// Keeps the capabilities to use from now on: COM1 and the exit port, if there is one.
pub fn keep(com1: IoPort, exit: Option<IoPort>) {
    COM1_CAP.store(com1.bits(), Ordering::Relaxed);
    EXIT_CAP.store(exit.map_or(0, IoPort::bits), Ordering::Relaxed);
}

/// Returns the first and last port of COM1, and the exit port.
pub fn needed() -> ((u16, u16), Option<u16>) {
    let exit = EXIT_PORT.load(Ordering::Relaxed);
    let com1 = COM1_PORT.load(Ordering::Relaxed);
    ((com1, com1 + 7), (exit != 0).then_some(exit))
}

/// Returns the Unix time, by the machine's clock chip, if it has one. To be called
/// before [`keep`].
pub fn unix_time() -> Option<u64> {
    let all = slot::IO_PORT_CONTROL.cap();
    let ports: IoPort = sel4::Cap::from_bits(all.bits());
    init::unix_time(|register| {
        let chosen = ports.ioport_out8(init::INDEX_PORT, register);
        let value = chosen.and_then(|()| ports.ioport_in8(init::DATA_PORT));
        value.unwrap_or(0xff)
    })
}

/// Text on COM1. If the console was in the middle of a line, a new one begins.
pub struct Com1;

impl fmt::Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let ports = IoPort::from_bits(COM1_CAP.load(Ordering::Relaxed));
        let data = COM1_PORT.load(Ordering::Relaxed);
        for byte in text.bytes() {
            for _ in 0..PATIENCE {
                if ports.ioport_in8(data + STATUS).unwrap_or(0) & EMPTY != 0 {
                    break;
                }
            }
            // The capability covers the port, so that this cannot fail.
            let _ = ports.ioport_out8(data, byte);
        }
        Ok(())
    }
}

/// Writes the end's number to the exit port; where there is none, waits forever.
pub fn exit(ending: Ending) -> ! {
    let port = EXIT_PORT.load(Ordering::Relaxed);
    if port != 0 {
        let ports = IoPort::from_bits(EXIT_CAP.load(Ordering::Relaxed));
        let _ = ports.ioport_out8(port, ending as u8);
    }
    loop {
        sel4::r#yield();
    }
}
