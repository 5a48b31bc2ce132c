//! The bench guest: counts what accesses, interrupts and packets cost, prints it, and ends.
//!
//! Responsible for: the same work on Vectis and on a bare machine, so that the difference
//! is what the monitor adds. A tick of the time stamp counter is an instruction where the
//! machine's clock counts them (`vectis bench`).
//! Must never: wait without a bound, or print while something is measured.
//! May call: kit, the library.
//! Invariants: interrupts are off except in `Interrupts::wait` and `window`, until those
//! that are posted are measured, last; each result
//! is a line `# bench: NAME NUMBER`, and the last line is `# bench: end`.
#![no_std]
#![no_main]

mod accesses;
mod instructions;
mod packets;

use kit::boot::Boot;
use kit::clock::Clock;
use kit::e1000e::dma::DmaMemory;
use kit::e1000e::{self, E1000e};
use kit::interrupts::Interrupts;
use kit::lapic::{self, Lapic};
use kit::mmio::Mmio;
use kit::msix::{Capability, Msix};
use kit::network::{OTHER_ENTRY, RECEIVE_ENTRY, TRANSMIT_ENTRY};
use kit::pci::{self, Config, Function, PortConfig, Way};
use kit::{EXIT_FAILURE, EXIT_SUCCESS, console, cpu, println};

kit::entry!(main);

/// Vectors of the device's entries; the last two are bound on demand.
const VECTORS: [u8; 5] = [0x51, 0x52, 0x53, 0x54, 0x55];
/// Vector of the interrupts that the CPU sends to itself.
const SELF_VECTOR: u8 = 0x60;
/// Bound on everything that is waited for, in microseconds.
const PATIENCE: u64 = 30_000_000;

static DMA: DmaMemory = DmaMemory::new();

/// The machine, set up.
struct Bench {
    clock: Clock,
    interrupts: Interrupts,
    lapic: Lapic,
    function: Function<Config>,
    /// The function's configuration space by the ports.
    ports: PortConfig,
    msix: Msix<Mmio>,
    nic: E1000e<'static, Mmio>,
    frame: [u8; kit::network::BUFFER],
}

fn main(boot: Boot) -> ! {
    console::init();
    println!("bench: entry tsc={}", boot.entry_tsc);
    let line = &boot.command_line;
    let clock = Clock::calibrated(boot.entry_tsc, line);
    let interrupts = Interrupts::install();
    let lapic = Lapic::enable(&clock, line);
    let mut function = pci::find(Way::of(line), e1000e::VENDOR, e1000e::DEVICE)
        .expect("there is no 82574L network function");
    function.enable();
    let capability = Capability::read(&function).expect("the function has no usable MSI-X");
    let table = function
        .map(capability.table_bar)
        .expect("the MSI-X table cannot be mapped");
    let mut msix = Msix::new(capability, table, &mut function);
    for entry in [RECEIVE_ENTRY, TRANSMIT_ENTRY, OTHER_ENTRY] {
        msix.route(entry, VECTORS[entry], lapic.id())
            .expect("the MSI-X table is too small");
    }
    msix.enable(&mut function);
    let registers = function
        .map(e1000e::REGISTER_BAR)
        .expect("BAR 0 cannot be mapped");
    let stopped = e1000e::Stopped::reset(registers).expect("the network device does not start");
    function.enable_bus_master();
    let nic = stopped.start(&DMA);
    println!("bench: driver up tsc={}", cpu::tsc());

    let mut bench = Bench {
        clock,
        interrupts,
        lapic,
        ports: PortConfig::new(function.bdf),
        function,
        msix,
        nic,
        frame: [0; kit::network::BUFFER],
    };
    // Where several guests measure, they begin together.
    if let Some(start) = line.number("start") {
        while cpu::tsc() < start {
            core::hint::spin_loop();
        }
    }
    let wanted = line.value("work").unwrap_or("packets,accesses,posted");
    for work in wanted.split(',') {
        match work {
            "packets" => packets::measure(&mut bench),
            "accesses" => accesses::measure(&mut bench),
            "posted" => {
                bench.interrupts.post(line);
                packets::posted(&mut bench);
                accesses::timer(&mut bench, "timer-200us-posted", 200);
            }
            _ => {
                println!("# bench: there is no work `{work}`");
                kit::exit(EXIT_FAILURE)
            }
        }
    }
    println!("# bench: end");
    kit::exit(EXIT_SUCCESS)
}

impl Bench {
    /// Returns the ticks of so many microseconds.
    fn ticks(&self, micros: u64) -> u64 {
        self.clock.khz() * micros / 1000
    }

    /// Lets time pass, with interrupts off.
    fn spin(&self, micros: u64) {
        let end = cpu::tsc() + self.ticks(micros);
        while cpu::tsc() < end {
            core::hint::spin_loop();
        }
    }

    /// Starts the time that [`wait`](Self::wait) may take altogether.
    fn begin(&mut self) {
        self.lapic.arm(PATIENCE);
    }

    /// Halts until an interrupt came; the guest fails if that was the timer's.
    fn wait(&mut self) {
        let timers = self.interrupts.count(lapic::TIMER_VECTOR);
        self.interrupts.wait();
        if self.interrupts.count(lapic::TIMER_VECTOR) != timers {
            println!("# bench: nothing came in {PATIENCE} us");
            kit::exit(EXIT_FAILURE)
        }
    }
}

/// Prints a result.
fn tell(name: &str, value: u64) {
    println!("# bench: {name} {value}");
}
