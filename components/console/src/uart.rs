//! Drives a 16550 by polling for output and by interrupt for input.

use tock_registers::LocalRegisterCopy;

use crate::Output;
use crate::registers::{
    DATA, FCR, FIFO_CONTROL, IER, INTERRUPT_ENABLE, LCR, LINE_CONTROL, LINE_STATUS, LSR, MCR,
    MODEM_CONTROL,
};

/// The eight ports, by offset.
pub trait Ports {
    /// Reads a port.
    fn read(&mut self, offset: u16) -> u8;
    /// Writes a port.
    fn write(&mut self, offset: u16, value: u8);
}

/// Bytes of the transmit FIFO.
const FIFO: u8 = 16;
/// Times to look for room before a byte is given up: a UART whose line is stuck must not
/// block the console forever. At 115200 baud a FIFO empties in 1.4 ms, and a port access
/// takes more than 100 ns. But a virtual machine's port has no room while whoever reads it
/// has no turn on a busy host, for a good part of a second; and the loss of one byte of a
/// log frame costs that frame and the next.
const PATIENCE: u32 = 2_000_000;

/// Keys that are taken at once: a FIFO of them, more than a person types between
/// two looks. A sender without a pause does not keep the guests from running.
pub const KEYS_AT_ONCE: usize = 16;

/// A UART.
#[derive(Debug)]
pub struct Uart<P> {
    ports: P,
    /// Bytes that surely fit into the FIFO.
    room: u8,
    /// A byte was given up, and there was no room since: the next ones are not waited for.
    stuck: bool,
}

impl<P: Ports> Uart<P> {
    /// Sets 115200 baud, 8 data bits, no parity, FIFOs on; interrupts for
    /// received bytes if `receive`.
    ///
    /// The FIFOs keep their contents: a restarted console reads keys that were typed
    /// meanwhile, and the monitor's last line goes out.
    pub fn new(mut ports: P, receive: bool) -> Self {
        ports.write(INTERRUPT_ENABLE, 0);
        ports.write(LINE_CONTROL, LCR::DIVISOR::SET.value);
        ports.write(DATA, 1);
        ports.write(INTERRUPT_ENABLE, 0);
        ports.write(LINE_CONTROL, LCR::WORD::Eight.value);
        ports.write(FIFO_CONTROL, FCR::ENABLE::SET.value);
        ports.write(
            MODEM_CONTROL,
            (MCR::READY.val(3) + MCR::INTERRUPT::SET).value,
        );
        if receive {
            ports.write(INTERRUPT_ENABLE, IER::RECEIVED::SET.value);
        }
        Self {
            ports,
            room: 0,
            stuck: false,
        }
    }

    fn status(&mut self) -> LocalRegisterCopy<u8, LSR::Register> {
        LocalRegisterCopy::new(self.ports.read(LINE_STATUS))
    }

    /// Returns the next received byte.
    pub fn get(&mut self) -> Option<u8> {
        let status = self.status();
        // All ones: no UART answers.
        (status.is_set(LSR::RECEIVED) && status.get() != 0xff).then(|| self.ports.read(DATA))
    }

    /// Hands received bytes to `take`, [`KEYS_AT_ONCE`] at most. Returns whether
    /// there may be more.
    pub fn take_keys(&mut self, mut take: impl FnMut(&mut Self, u8)) -> bool {
        for _ in 0..KEYS_AT_ONCE {
            let Some(key) = self.get() else {
                return false;
            };
            take(self, key);
        }
        true
    }
}

impl<P: Ports> Output for Uart<P> {
    fn put(&mut self, byte: u8) {
        if self.room == 0 {
            let looks = if self.stuck { 1 } else { PATIENCE };
            for _ in 0..looks {
                if self.status().is_set(LSR::EMPTY) {
                    self.room = FIFO;
                    break;
                }
            }
            self.stuck = self.room == 0;
            if self.stuck {
                return;
            }
        }
        self.room -= 1;
        self.ports.write(DATA, byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    /// Takes 16 bytes between two looks at its status.
    struct Fake {
        sent: Vec<u8>,
        /// What of it still waits in the FIFO.
        in_fifo: usize,
        divisor: bool,
        enabled: bool,
        ready: bool,
        received: Vec<u8>,
        /// Looks at its status, and after how many of them it gets ready.
        looks: u32,
        ready_after: u32,
    }

    impl Ports for Fake {
        fn read(&mut self, offset: u16) -> u8 {
            match offset {
                LINE_STATUS => {
                    self.in_fifo = 0;
                    self.looks += 1;
                    self.ready |= self.looks == self.ready_after;
                    u8::from(!self.received.is_empty()) | u8::from(self.ready) << 5
                }
                DATA => self.received.remove(0),
                _ => 0,
            }
        }
        fn write(&mut self, offset: u16, value: u8) {
            match offset {
                DATA if self.divisor => {}
                DATA => {
                    self.in_fifo += 1;
                    assert!(self.in_fifo <= 16, "overrun");
                    self.sent.push(value);
                }
                LINE_CONTROL => self.divisor = value & 1 << 7 != 0,
                // Bits 1 and 2 empty the receiver's and the transmitter's FIFO;
                // so does switching them on or off (8.5).
                FIFO_CONTROL => {
                    let changed = self.enabled != (value & 1 == 1);
                    self.enabled = value & 1 == 1;
                    if changed || value & 1 << 1 != 0 {
                        self.received.clear();
                    }
                    if changed || value & 1 << 2 != 0 {
                        self.sent.truncate(self.sent.len() - self.in_fifo);
                        self.in_fifo = 0;
                    }
                }
                _ => {}
            }
        }
    }

    fn fake(ready: bool) -> Uart<Fake> {
        let mut uart = Uart::new(
            Fake {
                sent: Vec::new(),
                in_fifo: 0,
                divisor: false,
                enabled: false,
                ready,
                received: b"firmware's".to_vec(),
                looks: 0,
                ready_after: 0,
            },
            true,
        );
        assert_eq!(uart.get(), None, "keys that were not for us");
        uart.ports.received = b"hS".to_vec();
        uart
    }

    #[test]
    fn never_overruns_the_fifo() {
        let mut uart = fake(true);
        let text = "0123456789".repeat(10);
        uart.text(&text);
        assert_eq!(uart.ports.sent, text.as_bytes());
    }

    #[test]
    fn gives_up_on_a_port_that_is_never_ready() {
        let mut uart = fake(false);
        uart.put(b'x');
        assert!(uart.ports.sent.is_empty());
        // Once is enough: the next bytes are not waited for.
        let before = uart.ports.looks;
        uart.text("yz");
        assert_eq!(uart.ports.looks - before, 2);
        // Until there is room again.
        uart.ports.ready = true;
        uart.text("on");
        uart.ports.ready = false;
        assert_eq!(uart.ports.sent, b"on");
    }

    /// QEMU's port has no room while its reader's thread has no turn.
    #[test]
    fn waits_for_a_reader_on_a_busy_host() {
        let mut uart = fake(false);
        uart.ports.ready_after = uart.ports.looks + 1_000_000;
        uart.text("text");
        assert_eq!(uart.ports.sent, b"text");
    }

    #[test]
    fn receives_until_empty() {
        let mut uart = fake(true);
        assert_eq!(uart.get(), Some(b'h'));
        assert_eq!(uart.get(), Some(b'S'));
        assert_eq!(uart.get(), None);
    }
    #[test]
    fn a_restart_loses_nothing_that_was_typed_or_sent() {
        let mut uart = fake(true);
        uart.text("restarted");
        let mut uart = Uart::new(uart.ports, true);
        assert_eq!(uart.get(), Some(b'h'));
        assert_eq!(uart.get(), Some(b'S'));
        uart.text(", generation 1");
        assert_eq!(uart.ports.sent, b"restarted, generation 1");
    }

    #[test]
    fn keys_without_end_are_taken_a_few_at_once() {
        let mut uart = fake(true);
        uart.ports.received = (0..40).collect();
        let mut keys = Vec::new();
        for (more, all) in [(true, 16), (true, 32), (false, 40), (false, 40)] {
            assert_eq!(uart.take_keys(|_, key| keys.push(key)), more);
            assert_eq!(keys.len(), all);
        }
        assert!(keys.is_sorted());
    }
}
