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
use kit::e1000e::{self, E1000e};
use kit::interrupts::Interrupts;
use kit::lapic::Lapic;
use kit::mmio::{Mmio, PciWindow};
use kit::network::TRANSMIT_ENTRY;
use kit::nvme::dma::NvmeMemory;
use kit::nvme::{self, CommandError, Model, Nvme};
use kit::pci::{self, Config, Function, Way};
use kit::{EXIT_FAILURE, EXIT_SUCCESS, console, cpu, println};
use probe::check::expect;
use probe::interrupts::Delivery;
use probe::machine::{Cpu, Machine, Source};
use probe::tap::Tap;
use probe::target::{ENABLE, Target};

kit::entry!(main);

/// Longest rest, in microseconds: the time that a message takes from the device.
const REST_MICROS: u64 = 5_000;

static NETWORK_MEMORY: DmaMemory = DmaMemory::new();
static DISK_MEMORY: NvmeMemory = NvmeMemory::new();

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

    fn lower(&mut self) {
        self.0.lower();
    }
}

/// An NVMe controller, which raises its admin entry as a command completes.
struct Disk {
    driver: Nvme<'static, Mmio>,
    last: Option<Result<Model, CommandError>>,
}

impl Disk {
    fn collect(&mut self) {
        self.last = self.driver.collect().or(self.last);
    }
}

impl Source for Disk {
    fn entry(&self) -> u32 {
        nvme::ADMIN_ENTRY
    }

    fn raise(&mut self) {
        // Each check waits for the interrupt of the one before, if there is to
        // be one; by then it has completed.
        self.collect();
        self.driver.identify();
    }

    fn lower(&mut self) {
        self.collect();
    }
}

fn main(boot: Boot) -> ! {
    console::init();
    let clock = Clock::calibrated(boot.entry_tsc, &boot.command_line);
    let interrupts = Interrupts::install();
    let lapic = Lapic::enable(&clock, &boot.command_line);
    let mut processor = Processor { interrupts, lapic };
    let emulated = boot.command_line.value("host") == Some("vectis");
    let mut hardware = Hardware(if emulated {
        PciWindow::with_high()
    } else {
        PciWindow::new()
    });

    let mut tap = Tap::new(|line| println!("{line}"));
    let way = Way::of(&boot.command_line);
    for bdf in pci::present(way) {
        let mut target = Target::new(&mut hardware, bdf, emulated);
        // A bare machine has functions of its own; those under test have MSI-X.
        if !emulated && target.msix().is_err() {
            continue;
        }
        probe::run::run(&mut target, &mut tap);
        let mut function = Function::at(way, bdf);
        tap.note(format_args!(
            "{bdf} is {:04x}:{:04x}, class {:06x}",
            function.vendor, function.device, function.class
        ));
        function.enable();
        let identity = (function.vendor, function.device);
        if identity == (e1000e::VENDOR, e1000e::DEVICE) {
            check_network(&mut target, &mut function, &mut processor, &mut tap);
        } else if function.class == nvme::CLASS {
            check_disk(&mut target, &mut function, &mut processor, &mut tap);
        }
        target.restore();
    }
    let code = if tap.finish() {
        EXIT_SUCCESS
    } else {
        EXIT_FAILURE
    };
    kit::exit(code)
}

/// Checks delivery from a network function.
fn check_network(
    target: &mut Target<Hardware>,
    function: &mut Function<Config>,
    processor: &mut Processor,
    tap: &mut Tap<impl FnMut(fmt::Arguments)>,
) {
    let stopped = function
        .map(e1000e::REGISTER_BAR)
        .and_then(|registers| e1000e::Stopped::reset(registers).ok());
    function.enable_bus_master();
    let driver = stopped.map(|stopped| stopped.start(&NETWORK_MEMORY));
    let started = expect("driver", 0u8, true, driver.is_some());
    tap.result(target.bdf, "e1000e_starts", started);
    if let Some(driver) = driver {
        deliver(target, processor, &mut Network(driver), tap);
    }
}

/// Checks delivery from an NVMe controller, by identify commands.
fn check_disk(
    target: &mut Target<Hardware>,
    function: &mut Function<Config>,
    processor: &mut Processor,
    tap: &mut Tap<impl FnMut(fmt::Arguments)>,
) {
    // The controller chooses its interrupts as it starts. A function without
    // MSI-X has failed its checks by now.
    let on = target.set_control(ENABLE);
    let stopped = function
        .map(nvme::REGISTER_BAR)
        .and_then(|registers| nvme::Stopped::reset(registers).ok());
    function.enable_bus_master();
    let driver = stopped.and_then(|stopped| stopped.start(&DISK_MEMORY).ok());
    let started = on.and_then(|()| expect("driver", 0u8, true, driver.is_some()));
    tap.result(target.bdf, "nvme_starts", started);
    let Some(driver) = driver else { return };
    let mut disk = Disk { driver, last: None };
    deliver(target, processor, &mut disk, tap);
    disk.collect();
    let model = disk.last.and_then(Result::ok);
    let model = model.as_ref().and_then(Model::as_str);
    tap.note(format_args!("model={}", model.unwrap_or("?")));
    let identified = expect("printable model", 0u8, true, model.is_some());
    tap.result(target.bdf, "nvme_identify_by_msix", identified);
}

fn deliver(
    target: &mut Target<Hardware>,
    processor: &mut Processor,
    source: &mut impl Source,
    tap: &mut Tap<impl FnMut(fmt::Arguments)>,
) {
    let bdf = target.bdf;
    let mut delivery = Delivery {
        target,
        cpu: processor,
        source,
    };
    delivery.run(|name, verdict| tap.result(bdf, name, verdict));
}
