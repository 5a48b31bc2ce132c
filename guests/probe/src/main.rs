//! The probe guest: runs the checks on every function it was given.
//!
//! Responsible for: wiring kit's hardware to the checks of this crate's
//! library, and ending the machine with their conclusion.
//! Must never: judge anything itself.
//! May call: kit, the library.
//! Invariants: interrupts are open only while a check rests.
#![no_std]
#![no_main]

use core::fmt;

use kit::boot::Boot;
use kit::clock::Clock;
use kit::e1000e::dma::DmaMemory;
use kit::e1000e::{self, E1000e, TRANSMIT_ENTRY};
use kit::interrupts::Interrupts;
use kit::lapic::Lapic;
use kit::mmio::{Mmio, PciWindow};
use kit::pci::{self, Bdf, Function};
use kit::{EXIT_FAILURE, EXIT_SUCCESS, console, cpu, println};
use probe::check::{self, expect};
use probe::interrupts::Delivery;
use probe::machine::{Cpu, Machine, Source};
use probe::tap::Tap;
use probe::target::Target;

kit::entry!(main);

/// Longest rest, in microseconds: what a message takes from the device.
const REST_MICROS: u64 = 5_000;

static DMA: DmaMemory = DmaMemory::new();

/// Ports and BARs of this machine.
struct Hardware(PciWindow);

impl Machine for Hardware {
    fn port_read(&mut self, port: u16, bytes: u8) -> u32 {
        match bytes {
            1 => cpu::in8(port).into(),
            2 => cpu::in16(port).into(),
            _ => cpu::in32(port),
        }
    }

    fn port_write(&mut self, port: u16, bytes: u8, value: u32) {
        match bytes {
            1 => cpu::out8(port, value as u8),
            2 => cpu::out16(port, value as u16),
            _ => cpu::out32(port, value),
        }
    }

    fn memory_read(&mut self, address: u64, bytes: u8) -> Option<u64> {
        self.0.read(address, bytes.into())
    }

    fn memory_write(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        self.0.write(address, bytes.into(), value)
    }
}

/// This CPU.
struct Processor {
    interrupts: Interrupts,
    lapic: Lapic,
}

impl Cpu for Processor {
    fn taken(&self, vector: u8) -> u64 {
        self.interrupts.count(vector)
    }

    fn rest(&mut self) {
        self.lapic.arm(REST_MICROS);
        self.interrupts.wait();
    }

    fn destination(&self) -> u8 {
        self.lapic.id()
    }
}

/// A network function, whose transmit interrupt can be raised by a register.
struct Network(E1000e<'static, Mmio>);

impl Source for Network {
    fn entry(&self) -> u32 {
        TRANSMIT_ENTRY as u32
    }

    fn raise(&mut self) {
        self.0.raise_transmit();
    }
}

fn main(boot: Boot) -> ! {
    console::init();
    let clock = Clock::calibrated(boot.entry_tsc, &boot.command_line);
    let interrupts = Interrupts::install();
    let lapic = Lapic::enable(&clock, &boot.command_line);
    let mut processor = Processor { interrupts, lapic };
    let mut hardware = Hardware(PciWindow::new());
    let emulated = boot.command_line.value("host") == Some("vectis");

    let mut tap = Tap::new(|line| println!("{line}"));
    for bdf in pci::present() {
        let mut target = Target::new(&mut hardware, bdf, emulated);
        // A bare machine has functions of its own; those under test have MSI-X.
        if !emulated && target.msix().is_err() {
            continue;
        }
        check::run(&mut target, &mut tap);
        check_delivery(&mut target, &mut processor, &mut tap);
    }
    let code = if tap.finish() {
        EXIT_SUCCESS
    } else {
        EXIT_FAILURE
    };
    kit::exit(code)
}

/// Runs the checks for which the device must be driven, if kit can drive it.
fn check_delivery(
    target: &mut Target<Hardware>,
    processor: &mut Processor,
    tap: &mut Tap<impl FnMut(fmt::Arguments)>,
) {
    let bdf = target.bdf;
    let mut function = Function::at(bdf);
    tap.note(format_args!(
        "{bdf} is {:04x}:{:04x}, class {:06x}",
        function.vendor, function.device, function.class
    ));
    function.enable();
    if (function.vendor, function.device) == (e1000e::VENDOR, e1000e::DEVICE) {
        match network(&mut function) {
            Some(mut source) => deliver(target, processor, &mut source, tap),
            None => tap.result(bdf, "e1000e_starts", expect("driver", 0u8, true, false)),
        }
    }
    target.restore();
}

fn network(function: &mut Function<pci::PortConfig>) -> Option<Network> {
    let registers = function.map(e1000e::REGISTER_BAR)?;
    E1000e::new(registers, &DMA).ok().map(Network)
}

fn deliver(
    target: &mut Target<Hardware>,
    processor: &mut Processor,
    source: &mut impl Source,
    tap: &mut Tap<impl FnMut(fmt::Arguments)>,
) {
    let bdf: Bdf = target.bdf;
    let mut delivery = Delivery {
        target,
        cpu: processor,
        source,
    };
    delivery.run(|name, verdict| tap.result(bdf, name, verdict));
}
