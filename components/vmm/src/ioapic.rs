//! The guest's I/O APIC (Intel 82093AA datasheet, section 3), through which the
//! INTx pins of its functions come (C9).
//!
//! A pin of it is the machine's pin of the same number. The kernel masks that
//! one when it delivers an interrupt, until the handler is acknowledged, which
//! is done here on the guest's EOI: a line that is still asserted then comes
//! again. So no state of the line is kept: a masked pin is not acknowledged, and
//! unmasking it looks at the line anew.

use channel::GuestMessage;
use channel::irq_router::Source;
use pci::{FunctionInfo, PAGE_SIZE, Width};

use crate::host::Interrupts;
use crate::lapic::Lapic;

pub use spec::acpi::IOAPIC_BASE;

/// Pins.
const PINS: usize = 24;
/// Register select: which register the window shows.
const SELECT: u64 = 0x00;
/// The window.
const WINDOW: u64 = 0x10;

/// Registers behind the window.
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const REDIRECTION: u8 = 0x10;
const REDIRECTION_LAST: u8 = REDIRECTION + 2 * PINS as u8 - 1;

/// Version 0x11: an EOI comes from the local APIC, not through a register.
const VERSION_VALUE: u32 = 0x11 | (PINS as u32 - 1) << 16;

/// Redirection entry: logical destination mode, as in bit 11.
const LOGICAL: u32 = 1 << 11;
/// Redirection entry: remote IRR, read-only.
const REMOTE_IRR: u32 = 1 << 14;
/// Redirection entry: level-triggered.
const LEVEL: u32 = 1 << 15;
/// Redirection entry: masked.
const MASKED: u32 = 1 << 16;
/// What a guest can write in the low half: all but delivery status (12) and
/// remote IRR.
const WRITABLE: u32 = 0x0001_ffff & !(1 << 12 | REMOTE_IRR);

#[derive(Clone, Copy, Debug)]
struct Pin {
    low: u32,
    /// Destination, bits 31:24.
    high: u32,
    /// A function of the guest is behind it.
    connected: bool,
    /// The handler was acknowledged: the next event will come.
    armed: bool,
    /// Delivered by this vector, which has had no EOI yet.
    in_service: Option<u8>,
    /// Over its budget: not acknowledged (M23).
    throttled: bool,
}

impl Pin {
    const fn message(&self) -> GuestMessage {
        GuestMessage {
            vector: self.low as u8,
            destination: (self.high >> 24) as u8,
            delivery_mode: (self.low >> 8 & 7) as u8,
            level: self.low & LEVEL != 0,
            logical: self.low & LOGICAL != 0,
        }
    }
}

/// The I/O APIC.
#[derive(Clone, Debug)]
pub struct IoApic {
    select: u8,
    id: u32,
    pins: [Pin; PINS],
    /// A function is behind one of them; otherwise none is ever in service.
    wired: bool,
}

impl IoApic {
    /// Creates the I/O APIC as at reset, all pins masked, with these functions behind
    /// them.
    pub fn new(functions: &[FunctionInfo]) -> Self {
        let pins: [Pin; PINS] = core::array::from_fn(|pin| Pin {
            low: MASKED,
            high: 0,
            connected: pin != 0 && functions.iter().any(|info| info.intx == pin as u32),
            armed: false,
            in_service: None,
            throttled: false,
        });
        Self {
            select: 0,
            id: 0,
            wired: pins.iter().any(|pin| pin.connected),
            pins,
        }
    }

    /// Returns the register at an address: 32-bit aligned accesses of its page
    /// only.
    pub fn register(address: u64, width: Width) -> Option<u64> {
        let offset = address.checked_sub(IOAPIC_BASE)?;
        (offset < PAGE_SIZE && offset % 16 == 0 && width == Width::Dword).then_some(offset)
    }

    /// Reads a register.
    pub fn read(&self, register: u64) -> u32 {
        match register {
            SELECT => self.select.into(),
            WINDOW => self.read_window(),
            _ => 0,
        }
    }

    fn read_window(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_VALUE,
            REDIRECTION..=REDIRECTION_LAST => {
                let pin = &self.pins[usize::from(self.select - REDIRECTION) / 2];
                match self.select % 2 {
                    0 if pin.in_service.is_some() && pin.low & LEVEL != 0 => pin.low | REMOTE_IRR,
                    0 => pin.low,
                    _ => pin.high,
                }
            }
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, register: u64, value: u32, host: &mut impl Interrupts) {
        match register {
            SELECT => self.select = value as u8,
            WINDOW => self.write_window(value, host),
            _ => {}
        }
    }

    fn write_window(&mut self, value: u32, host: &mut impl Interrupts) {
        match self.select {
            // Bits 27:24.
            ID => self.id = value & 0x0f00_0000,
            REDIRECTION..=REDIRECTION_LAST => {
                let index = usize::from(self.select - REDIRECTION) / 2;
                let pin = &mut self.pins[index];
                if self.select % 2 == 1 {
                    pin.high = value & 0xff00_0000;
                    return;
                }
                pin.low = value & WRITABLE;
                if value & LEVEL == 0 {
                    // That clears remote IRR: the way out for a guest that has
                    // lost an EOI.
                    pin.in_service = None;
                }
                self.arm(index, host);
            }
            _ => {}
        }
    }

    /// Acknowledges the handler of a pin that can deliver, so that its line is
    /// looked at again.
    fn arm(&mut self, index: usize, host: &mut impl Interrupts) {
        let pin = &mut self.pins[index];
        let delivers = pin.low & MASKED == 0 && pin.in_service.is_none() && !pin.throttled;
        if pin.connected && !pin.armed && delivers {
            pin.armed = host.acknowledge_pin(index as u8);
        }
    }

    /// Leaves a pin unacknowledged, so that the kernel keeps its line masked, or
    /// stops doing so (M23).
    pub fn set_throttled(&mut self, source: Source, throttled: bool, host: &mut impl Interrupts) {
        let index = usize::from(source.entry);
        if let Some(pin) = self.pins.get_mut(index) {
            pin.throttled = throttled;
            self.arm(index, host);
        }
    }

    /// Takes a rising edge of a pin that no function is behind.
    pub fn edge(&self, pin: u8, lapic: &mut Lapic) {
        let pin = &self.pins[usize::from(pin) % PINS];
        if pin.low & MASKED == 0 && !pin.connected {
            lapic.accept(&pin.message());
        }
    }

    /// Handles a pin's asserted line. Returns `false` if nothing takes the
    /// interrupt.
    pub fn event(&mut self, source: Source, lapic: &mut Lapic) -> bool {
        let Some(pin) = self.pins.get_mut(usize::from(source.entry)) else {
            return false;
        };
        pin.armed = false;
        if pin.low & MASKED != 0 || pin.in_service.is_some() {
            // It comes again when that ends.
            return true;
        }
        let message = pin.message();
        let taken = lapic.accept(&message);
        if taken {
            pin.in_service = Some(message.vector);
        }
        taken
    }

    /// Handles the local APIC's end of a vector's interrupt.
    pub fn end(&mut self, vector: u8, host: &mut impl Interrupts) {
        if !self.wired {
            return;
        }
        for index in 0..PINS {
            if self.pins[index].in_service == Some(vector) {
                self.pins[index].in_service = None;
                self.arm(index, host);
            }
        }
    }
}
