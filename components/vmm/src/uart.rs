//! The guest's serial port: a 16550 whose transmitter is always ready and whose
//! receiver is always empty. It has the eight ports of a PC's COM1.

/// Line status: transmitter holding register and transmitter empty.
const LSR_IDLE: u8 = 0x60;
/// Interrupt identification: none pending, FIFOs on.
const IIR_NONE: u8 = 0xc1;
/// Modem status: carrier, ring off, data set ready, clear to send.
const MSR_READY: u8 = 0xb0;
/// Line control: divisor latch access.
const LCR_DLAB: u8 = 0x80;

/// Register state that the guest can read back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uart {
    divisor: [u8; 2],
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
}

impl Uart {
    /// Reads register `offset` (0 to 7).
    #[must_use]
    pub fn read(&self, offset: u16) -> u8 {
        let latch = self.line_control & LCR_DLAB != 0;
        match offset {
            0 if latch => self.divisor[0],
            1 if latch => self.divisor[1],
            1 => self.interrupt_enable,
            2 => IIR_NONE,
            3 => self.line_control,
            4 => self.modem_control,
            5 => LSR_IDLE,
            6 => MSR_READY,
            7 => self.scratch,
            _ => 0,
        }
    }

    /// Writes register `offset`. Returns the byte to be sent, if the write was one.
    pub fn write(&mut self, offset: u16, value: u8) -> Option<u8> {
        let latch = self.line_control & LCR_DLAB != 0;
        match offset {
            0 if latch => self.divisor[0] = value,
            1 if latch => self.divisor[1] = value,
            0 => return Some(value),
            1 => self.interrupt_enable = value & 0x0f,
            3 => self.line_control = value,
            4 => self.modem_control = value & 0x1f,
            7 => self.scratch = value,
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_only_without_the_divisor_latch() {
        let mut uart = Uart::default();
        assert_eq!(uart.write(0, b'a'), Some(b'a'));
        uart.write(3, 0x83);
        assert_eq!(uart.write(0, 1), None);
        assert_eq!((uart.read(0), uart.read(3)), (1, 0x83));
        uart.write(3, 3);
        assert_eq!((uart.read(0), uart.read(5)), (0, LSR_IDLE));
    }
}
