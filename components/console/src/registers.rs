//! Registers of a 16550 UART (National Semiconductor PC16550D data sheet,
//! section 8), by their port offset.

use tock_registers::register_bitfields;

/// Receiver and transmitter (8.0), or the divisor's low byte.
pub const DATA: u16 = 0;
/// Interrupt enable (8.4), or the divisor's high byte.
pub const INTERRUPT_ENABLE: u16 = 1;
/// FIFO control (8.5), write only.
pub const FIFO_CONTROL: u16 = 2;
/// Line control (8.1).
pub const LINE_CONTROL: u16 = 3;
/// Modem control (8.7).
pub const MODEM_CONTROL: u16 = 4;
/// Line status (8.6).
pub const LINE_STATUS: u16 = 5;

register_bitfields![u8,
    /// Interrupt enable.
    pub IER [
        /// A byte has come.
        RECEIVED OFFSET(0) NUMBITS(1) []
    ],
    /// FIFO control.
    pub FCR [
        /// FIFOs on; a change empties both.
        ENABLE OFFSET(0) NUMBITS(1) []
    ],
    /// Line control.
    pub LCR [
        /// Bits of a character.
        WORD OFFSET(0) NUMBITS(2) [
            Eight = 3
        ],
        /// The first two ports are the divisor.
        DIVISOR OFFSET(7) NUMBITS(1) []
    ],
    /// Modem control.
    pub MCR [
        /// Data terminal ready, request to send.
        READY OFFSET(0) NUMBITS(2) [],
        /// On a PC this pin gates the interrupt.
        INTERRUPT OFFSET(3) NUMBITS(1) []
    ],
    /// Line status.
    pub LSR [
        /// A byte has come.
        RECEIVED OFFSET(0) NUMBITS(1) [],
        /// The transmitter has room: a whole FIFO of 16, if it was empty.
        EMPTY OFFSET(5) NUMBITS(1) []
    ]
];
