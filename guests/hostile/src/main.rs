//! The hostile guest: runs the attacks that its command line names.
//!
//! Responsible for: running any instructions and surviving their exceptions,
//! wiring kit's hardware to the attacks of this crate's library, and the end.
//! Must never: judge anything itself, or run without a monitor: on a bare machine
//! nothing confines it.
//! May call: kit, dma-probe, the library.
//! Invariants: interrupts are open only in `rest` and `window`, or in code that
//! opens them itself.
#![no_std]
#![no_main]

mod armed;
mod processor;

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use dma_probe::{Engine, MEMORY_SIZE};
use hostile::machine::{Dma, Ended, Machine, Reach, Registers};
use hostile::options::{Exit, Options, Random};
use hostile::{Hostile, churn, ends, run, soak};
use kit::boot::Boot;
use kit::boot_params::MemoryKind;
use kit::clock::Clock;
use kit::e1000e;
use kit::e1000e::dma::DmaMemory;
use kit::interrupts::Interrupts;
use kit::lapic::Lapic;
use kit::mmio::Mmio;
use kit::network::BUFFER;
use kit::pci::{self, Config, Function, Way};
use kit::{EXIT_FAILURE, EXIT_SUCCESS, console, println};
use probe::target::Target;

kit::entry!(main);

/// Longest rest, in microseconds: the time that a message takes from the device.
const REST_MICROS: u64 = 5_000;

/// #PF, and where the monitor sends a guest that is to crash.
const PAGE_FAULT: u8 = 14;
const CRASH: u64 = 8;

/// Returns where the last page fault was.
fn fault_address() -> u64 {
    let mut registers = Registers::default();
    // mov rax, cr2
    processor::run(&[0x0f, 0x20, 0xd0], &mut registers);
    registers.rax
}

static NETWORK_MEMORY: DmaMemory = DmaMemory::new();

/// Memory that the copy engine's rings and buffers lie in.
#[repr(C, align(4096))]
struct EngineMemory([AtomicU64; MEMORY_SIZE / 8]);

static ENGINE_MEMORY: EngineMemory = EngineMemory([const { AtomicU64::new(0) }; MEMORY_SIZE / 8]);

struct EngineView;

impl dma_probe::Memory for EngineView {
    fn read(&mut self, offset: usize, bytes: &mut [u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            let word = ENGINE_MEMORY.0[at / 8].load(Ordering::Acquire);
            *byte = word.to_le_bytes()[at % 8];
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            let word = &ENGINE_MEMORY.0[at / 8];
            let mut value = word.load(Ordering::Relaxed).to_le_bytes();
            value[at % 8] = *byte;
            word.store(u64::from_le_bytes(value), Ordering::Release);
        }
    }
}

/// The device's registers for the engine; made anew by each `Engine`.
struct EngineRegisters(Mmio);

impl dma_probe::Registers for EngineRegisters {
    fn read(&mut self, offset: u32) -> u32 {
        kit::mmio::Registers::read(&self.0, offset)
    }

    fn write(&mut self, offset: u32, value: u32) {
        kit::mmio::Registers::write(&mut self.0, offset, value);
    }
}

/// This machine.
struct Hardware {
    interrupts: Interrupts,
    lapic: Lapic,
    ram: Range<u64>,
    registers: Option<Mmio>,
    engine: Option<Engine<EngineRegisters, EngineView>>,
    /// An exception in code that is run ends the guest: nothing that is done
    /// raises one, so it was made to crash.
    frail: bool,
    /// But for now they are part of an attack.
    tolerant: bool,
}

impl Machine for Hardware {
    fn run(&mut self, code: &[u8], registers: &mut Registers) -> Ended {
        let ended = processor::run(code, registers);
        let told = ended != Ended::Returned && !self.tolerant;
        let crashed = ended == Ended::Exception(PAGE_FAULT) && fault_address() == CRASH;
        if self.frail && (told || crashed) {
            println!("hostile: {ended:?}");
            kit::exit(EXIT_FAILURE);
        }
        ended
    }

    fn tolerate(&mut self, exceptions: bool) {
        self.tolerant = exceptions;
    }

    fn taken(&self, vector: u8) -> u64 {
        self.interrupts.count(vector)
    }

    fn rest(&mut self) {
        self.lapic.arm(REST_MICROS);
        self.interrupts.wait();
    }

    fn window(&mut self) {
        self.interrupts.window();
    }

    fn end_of_interrupt(&mut self) {
        self.lapic.end_of_interrupt();
    }

    fn scratch(&self) -> u64 {
        processor::scratch()
    }

    fn ram(&self) -> Range<u64> {
        self.ram.clone()
    }

    fn reset_console(&mut self) {
        console::init();
    }

    fn line(&mut self, text: fmt::Arguments) {
        println!("{text}");
    }

    fn dma(&mut self) -> Option<&mut dyn Dma> {
        if self.engine.is_none() {
            let registers = EngineRegisters(self.registers.take()?);
            let address = ENGINE_MEMORY.0.as_ptr().addr() as u64;
            self.engine = Engine::new(registers, EngineView, address).ok();
        }
        self.engine.as_mut().map(|engine| engine as &mut dyn Dma)
    }
}

fn main(boot: Boot) -> ! {
    let options = Options::new(&boot.command_line);
    if options.at_once {
        kit::exit(EXIT_SUCCESS);
    }
    console::init();
    if boot.command_line.value("host") != Some("vectis") {
        println!("hostile: not on a machine that nobody guards");
        kit::exit(EXIT_FAILURE);
    }
    let clock = Clock::calibrated(boot.entry_tsc, &boot.command_line);
    let mut interrupts = Interrupts::install();
    processor::install(&mut interrupts);
    let lapic = Lapic::enable(&clock, &boot.command_line);
    // Where the image is, there is the RAM: the map's other ranges are none of it.
    let here = processor::scratch();
    let ram = boot
        .params
        .memory()
        .filter(|range| range.kind == MemoryKind::Usable)
        .map(|range| range.start..range.start + range.size)
        .find(|range| range.contains(&here))
        .expect("there is no memory");
    let mut hardware = Hardware {
        interrupts,
        lapic,
        ram,
        registers: None,
        engine: None,
        frail: options.soak,
        tolerant: false,
    };
    let way = Way::of(&boot.command_line);
    let bdf = pci::present(way).next().expect("there is no function");
    let mut function = Function::at(way, bdf);
    let mut registers = function.map(e1000e::REGISTER_BAR);
    if options.armed {
        let lives = boot.command_line.number("restarts").unwrap_or(0);
        let registers = registers.expect("BAR 0 cannot be mapped");
        armed::live(&mut function, registers, lives, || hardware.rest())
    }
    if options.wait {
        function.enable();
        registers =
            registers.map(|registers| wait_for_frame(registers, &mut function, &mut hardware));
    }
    hardware.registers = registers;

    println!("# hostile: start seed={}", options.seed);
    let mut reach = Reach(hardware);
    let mut hostile = Hostile {
        target: Target::new(&mut reach, bdf, true),
        random: Random::new(options.seed),
        count: options.count,
    };
    if options.soak {
        // Each life another one.
        hostile.random = Random::new(options.seed ^ boot.entry_tsc);
        let exit = soak::live(&mut hostile, || clock.micros());
        end(exit, true, &mut hostile)
    }
    if options.after > 0 && churn::churn(&mut hostile, options.after).is_err() {
        println!("not ok churn");
    }
    let passed = run::run(&mut hostile, options.attacks);
    println!("# hostile: {}", if passed { "pass" } else { "fail" });
    end(options.exit, passed, &mut hostile)
}

/// Waits for any frame from the network. Returns the registers.
fn wait_for_frame(
    registers: Mmio,
    function: &mut Function<Config>,
    hardware: &mut Hardware,
) -> Mmio {
    let stopped = e1000e::Stopped::reset(registers).expect("the network device does not start");
    function.enable_bus_master();
    let mut driver = stopped.start(&NETWORK_MEMORY);
    println!("# hostile: waits for a frame");
    let mut frame = [0; BUFFER];
    while driver.receive(&mut frame).is_none() {
        hardware.rest();
    }
    driver.stop()
}

/// Ends as the command line says.
fn end(exit: Exit, passed: bool, hostile: &mut Hostile<Hardware>) -> ! {
    match exit {
        Exit::Result if passed => kit::exit(EXIT_SUCCESS),
        Exit::Result => kit::exit(EXIT_FAILURE),
        Exit::Code(code) => kit::exit(code),
        Exit::Panic => panic!("asked to"),
        Exit::Triple => {
            let _ = ends::triple_fault(hostile);
            kit::exit(EXIT_FAILURE)
        }
        Exit::Hang => loop {
            core::hint::spin_loop();
        },
        Exit::Stay => {
            let machine = hostile.machine();
            machine.lapic.close();
            loop {
                machine.interrupts.wait();
            }
        }
    }
}
