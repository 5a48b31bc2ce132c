//! Programs the HPET: timer 0 as a one-shot on an I/O APIC pin, or by message.

use tock_registers::LocalRegisterCopy;
use tock_registers::fields::FieldValue;

use crate::clock::Clock;
use crate::registers::{self, Configuration, Status, Timer};

/// The HPET's registers.
pub trait Registers {
    /// Reads 32 bits at byte `offset`, a multiple of 4 below 1024.
    fn read(&mut self, offset: u16) -> u32;
    /// Writes 32 bits at byte `offset`, a multiple of 4 below 1024.
    fn write(&mut self, offset: u16, value: u32);
}

/// Why this HPET cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The period is 0 or above 100 ns: nothing that works is there.
    BadPeriod(u32),
    /// Timer 0 cannot drive the pin; it can drive those whose bits are set.
    NoRoute(u32),
    /// Timer 0 cannot send messages.
    NoMessages,
}

/// How the timer interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By this pin of the I/O APIC, 0 to 31.
    Pin(u8),
    /// By a message: data is written to the address (an FSB message, section
    /// 2.3.10). This works where an IOMMU blocks the I/O APIC.
    Message {
        /// Address, below 4 GiB.
        address: u32,
        /// Data.
        data: u32,
    },
}

/// The HPET with its counter running and timer 0 ours. Times are ticks of the
/// low half of the main counter, and wrap.
pub struct Hpet<R> {
    registers: R,
    period: u32,
}

impl<R: Registers> Hpet<R> {
    /// Starts the counter and sets timer 0 up, not armed: level-triggered on a
    /// pin, edge-triggered by message.
    ///
    /// # Errors
    ///
    /// See [`SetupError`]; the HPET is then as it was.
    pub fn new(mut registers: R, delivery: Delivery) -> Result<Self, SetupError> {
        let period = registers.read(registers::PERIOD);
        if period == 0 || period > registers::LARGEST_PERIOD {
            return Err(SetupError::BadPeriod(period));
        }
        let fields = match delivery {
            Delivery::Pin(pin) => {
                let routes = registers.read(registers::TIMER0_ROUTES);
                if pin > 31 || routes >> pin & 1 == 0 {
                    return Err(SetupError::NoRoute(routes));
                }
                Timer::LEVEL::SET + Timer::FSB::CLEAR + Timer::ROUTE.val(pin.into())
            }
            Delivery::Message { .. } => {
                let timer = registers.read(registers::TIMER0);
                let timer = LocalRegisterCopy::<u32, Timer::Register>::new(timer);
                if !timer.is_set(Timer::FSB_CAPABLE) {
                    return Err(SetupError::NoMessages);
                }
                Timer::LEVEL::CLEAR + Timer::FSB::SET
            }
        };
        let mut hpet = Self { registers, period };
        hpet.modify_configuration(Configuration::ENABLE::CLEAR + Configuration::LEGACY::CLEAR);
        hpet.modify_timer(Timer::INTERRUPT::CLEAR + Timer::FSB::CLEAR);
        if let Delivery::Message { address, data } = delivery {
            hpet.registers.write(registers::TIMER0_MESSAGE_DATA, data);
            let at = registers::TIMER0_MESSAGE_ADDRESS;
            hpet.registers.write(at, address);
        }
        // Narrow: the low half of counter and comparator is then all there is,
        // on a 64-bit HPET as on a 32-bit one.
        hpet.modify_timer(
            Timer::INTERRUPT::CLEAR + Timer::PERIODIC::CLEAR + Timer::NARROW::SET + fields,
        );
        hpet.acknowledge();
        hpet.modify_configuration(Configuration::ENABLE::SET);
        Ok(hpet)
    }

    /// Changes fields of the configuration; reserved bits keep their values (section 2.3.5).
    fn modify_configuration(&mut self, fields: FieldValue<u32, Configuration::Register>) {
        let current = self.registers.read(registers::CONFIGURATION);
        let mut register = LocalRegisterCopy::<u32, Configuration::Register>::new(current);
        register.modify(fields);
        self.registers
            .write(registers::CONFIGURATION, register.get());
    }

    fn modify_timer(&mut self, fields: FieldValue<u32, Timer::Register>) {
        let current = self.registers.read(registers::TIMER0);
        let mut register = LocalRegisterCopy::<u32, Timer::Register>::new(current);
        register.modify(fields);
        self.registers.write(registers::TIMER0, register.get());
    }
}

impl<R: Registers> Clock for Hpet<R> {
    /// A quarter of the counter's round, so that past and future can be told apart.
    const LONGEST: u32 = 1 << 30;

    fn period(&self) -> u32 {
        self.period
    }

    fn arm(&mut self, ticks: u32) -> bool {
        let start = self.registers.read(registers::COUNTER);
        let at = registers::TIMER0_COMPARATOR;
        self.registers.write(at, start.wrapping_add(ticks));
        self.modify_timer(Timer::INTERRUPT::SET);
        // A comparator that the counter has passed would wait for a whole
        // round: look again after it was set.
        let elapsed = self.registers.read(registers::COUNTER).wrapping_sub(start);
        elapsed < ticks
    }

    fn disarm(&mut self) {
        self.modify_timer(Timer::INTERRUPT::CLEAR);
    }

    /// Ends the level that timer 0 holds on its pin.
    fn acknowledge(&mut self) {
        self.registers
            .write(registers::STATUS, Status::TIMER0::SET.value);
    }
}
