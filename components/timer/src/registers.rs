//! The HPET's registers (IA-PC HPET specification 1.0a, section 2.3), as the
//! 32-bit halves in which we access them: not every HPET takes 64 bits at once.

use tock_registers::register_bitfields;

/// Period of the main counter in femtoseconds: the upper half of the general
/// capabilities register (section 2.3.4).
pub const PERIOD: u16 = 0x004;
/// General configuration (section 2.3.5).
pub const CONFIGURATION: u16 = 0x010;
/// General interrupt status (section 2.3.6).
pub const STATUS: u16 = 0x020;
/// Main counter, low half (section 2.3.7).
pub const COUNTER: u16 = 0x0f0;
/// Timer 0 configuration (section 2.3.8).
pub const TIMER0: u16 = 0x100;
/// I/O APIC pins that timer 0 can drive, a bit each: the upper half of its
/// configuration (section 2.3.8).
pub const TIMER0_ROUTES: u16 = 0x104;
/// Timer 0 comparator, low half (section 2.3.9).
pub const TIMER0_COMPARATOR: u16 = 0x108;

/// Timer 0's message: data, and address in the upper half (section 2.3.10).
pub const TIMER0_MESSAGE_DATA: u16 = 0x110;
/// Its address.
pub const TIMER0_MESSAGE_ADDRESS: u16 = 0x114;

/// Largest legal period, 100 ns (section 2.3.4).
pub const LARGEST_PERIOD: u32 = 100_000_000;

register_bitfields![u32,
    /// General configuration.
    pub Configuration [
        /// The main counter runs and timers interrupt.
        ENABLE OFFSET(0) NUMBITS(1) [],
        /// Timers 0 and 1 replace PIT and RTC, whatever their route says.
        LEGACY OFFSET(1) NUMBITS(1) []
    ],
    /// General interrupt status.
    pub Status [
        /// Timer 0's level is active; write 1 to clear.
        TIMER0 OFFSET(0) NUMBITS(1) []
    ],
    /// Timer configuration, low half.
    pub Timer [
        /// Level-triggered, not edge.
        LEVEL OFFSET(1) NUMBITS(1) [],
        /// The timer interrupts.
        INTERRUPT OFFSET(2) NUMBITS(1) [],
        /// Periodic, not one-shot.
        PERIODIC OFFSET(3) NUMBITS(1) [],
        /// Compares 32 bits only.
        NARROW OFFSET(8) NUMBITS(1) [],
        /// I/O APIC pin.
        ROUTE OFFSET(9) NUMBITS(5) [],
        /// Delivers by message instead of a pin.
        FSB OFFSET(14) NUMBITS(1) [],
        /// Can do that.
        FSB_CAPABLE OFFSET(15) NUMBITS(1) []
    ]
];
