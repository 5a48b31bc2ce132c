//! Accesses and interrupts without a packet.

use core::hint::black_box;

use bench::samples::Samples;
use kit::cpu;
use kit::lapic::TIMER_VECTOR;
use kit::mmio::{Registers, WindowRegisters};
use kit::network::{OTHER_ENTRY, TRANSMIT_ENTRY};
use kit::pci::{Config, ConfigSpace};

use crate::{Bench, SELF_VECTOR, VECTORS, instructions, tell};

/// How often each access is repeated.
const TIMES: u64 = 1000;
/// How often what takes longer is.
const FEW: usize = 100;
/// Configuration offsets: vendor and device, command, BAR 0.
const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const BAR0: u8 = 0x10;
/// Bits of the capability's first dword.
const ENABLE: u32 = 1 << 31;
const FUNCTION_MASK: u32 = 1 << 30;
/// Interrupt cause read, of the device: a register of BAR 0.
const STATUS: u32 = 0x0008;
/// Offset of the second word of data in an entry, and of its control word.
const DATA: u32 = 8;
const CONTROL: u32 = 12;

/// Prints the ticks of one `work`, on average.
fn mean(name: &str, times: u64, mut work: impl FnMut()) {
    // What is only done at the first time is not counted.
    work();
    let start = cpu::tsc();
    for _ in 0..times {
        work();
    }
    let ticks = cpu::tsc() - start;
    tell(name, (ticks + times / 2) / times);
}

/// Measures all of them.
pub fn measure(bench: &mut Bench) {
    let capability = *bench.msix.capability();
    let header = bench.function.config.read(capability.offset) | ENABLE;
    let command = bench.function.config.read(COMMAND) & 0xffff;
    let config = &mut bench.ports;
    mean("config-read", TIMES, || {
        black_box(config.read(ID));
    });
    if let Config::Memory(memory) = &bench.function.config {
        mean("config-read-memory", TIMES, || {
            black_box(memory.read(ID));
        });
    }
    let config = &mut bench.ports;
    mean("config-read-bar", TIMES, || {
        black_box(config.read(BAR0));
    });
    mean("config-read-msix", TIMES, || {
        black_box(config.read(capability.offset));
    });
    mean("config-write-command", TIMES, || {
        config.write(COMMAND, command)
    });
    mean("config-write-msix", TIMES, || {
        config.write(capability.offset, header);
    });

    let mut table = shared(bench, capability.table_bar);
    let entry = |index: usize| capability.table_offset + 16 * index as u32;
    let data = entry(TRANSMIT_ENTRY) + DATA;
    let control = entry(OTHER_ENTRY) + CONTROL;
    // The last entry is masked and bound to nothing.
    let idle = entry(VECTORS.len() - 1) + DATA;
    mean("table-read", TIMES, || {
        black_box(table.read(data));
    });
    let same = table.read(data);
    mean("table-write", TIMES, || table.write(data, same));
    let mut other = 0;
    mean("table-write-masked", TIMES, || {
        other ^= 1;
        table.write(idle, other);
    });
    let mut masked = 0;
    mean("mask-unmask", TIMES, || {
        masked ^= 1;
        table.write(control, masked);
    });
    table.write(control, 0);
    let mut vector = 0;
    mean("mask-data-unmask", FEW as u64, || {
        vector ^= 1;
        table.write(control, 1);
        table.write(entry(OTHER_ENTRY) + DATA, u32::from(VECTORS[2]) ^ vector);
        table.write(control, 0);
    });
    let pba = shared(bench, capability.pba_bar);
    mean("pba-read", TIMES, || {
        black_box(pba.read(capability.pba_offset));
    });
    let registers = shared(bench, 0);
    mean("register-read", TIMES, || {
        black_box(registers.read(STATUS));
    });

    mean("cpuid", TIMES, instructions::cpuid);
    mean("cli", TIMES, instructions::cli);
    mean("sti-cli", TIMES, instructions::sti_cli);
    mean("rdmsr", TIMES, instructions::rdmsr);
    mean("port-write", TIMES, instructions::out_port);
    mean("eoi", TIMES, || bench.lapic.end_of_interrupt());
    mean("timer-arm", TIMES, || bench.lapic.arm(10_000_000));
    interrupts(bench);
    switching(bench);
}

/// Returns the registers of a BAR that its driver has, too.
fn shared(bench: &Bench, bar: usize) -> WindowRegisters {
    let registers = bench.function.map_shared(bar, 0);
    registers.expect("the BAR is there, since its driver has mapped it")
}

/// Measures interrupts that the CPU or the device raises without a packet.
fn interrupts(bench: &mut Bench) {
    bench.begin();
    mean("self-interrupt", TIMES, || {
        bench.lapic.interrupt_self(SELF_VECTOR);
        bench.interrupts.window();
    });
    let mut samples = Samples::<FEW>::new();
    for _ in 0..FEW {
        let vector = VECTORS[TRANSMIT_ENTRY];
        let before = bench.interrupts.count(vector);
        // The device leaves 128 us between two of its interrupts (QEMU's model).
        bench.spin(200);
        let start = cpu::tsc();
        bench.nic.raise_transmit();
        while bench.interrupts.count(vector) == before {
            bench.wait();
        }
        samples.push(cpu::tsc() - start);
    }
    summarise("device-interrupt", &mut samples);
    for (name, micros) in [("timer-200us", 200), ("timer-1ms", 1000)] {
        timer(bench, name, micros);
    }
}

/// Measures how late the timer interrupts.
pub fn timer(bench: &mut Bench, name: &str, micros: u64) {
    let mut samples = Samples::<FEW>::new();
    for _ in 0..FEW {
        let before = bench.interrupts.count(TIMER_VECTOR);
        let start = cpu::tsc();
        bench.lapic.arm(micros);
        while bench.interrupts.count(TIMER_VECTOR) == before {
            bench.interrupts.wait();
        }
        let due = start + bench.ticks(micros);
        samples.push(cpu::tsc().saturating_sub(due));
    }
    summarise(name, &mut samples);
}

/// Prints the median.
fn summarise(name: &str, samples: &mut Samples<FEW>) {
    if let Some(summary) = samples.summary() {
        tell(name, summary.median);
    }
}

/// Measures MSI-X off and on, and its function mask, with 3, 4 and 5 entries bound.
fn switching(bench: &mut Bench) {
    let offset = bench.msix.capability().offset;
    let off = bench.function.config.read(offset) & !(ENABLE | FUNCTION_MASK);
    for (bound, switch, mask) in [
        (3, "msix-off-on-3", "function-mask-3"),
        (4, "msix-off-on-4", "function-mask-4"),
        (5, "msix-off-on-5", "function-mask-5"),
    ] {
        if bound > 3 {
            let entry = bound - 1;
            // The device has as many, which its driver relies on.
            let routed = bench.msix.route(entry, VECTORS[entry], bench.lapic.id());
            routed.expect("an 82574L has 5 entries");
        }
        let config = &mut bench.function.config;
        mean(switch, FEW as u64, || {
            config.write(offset, off);
            config.write(offset, off | ENABLE);
        });
        mean(mask, FEW as u64, || {
            config.write(offset, off | ENABLE | FUNCTION_MASK);
            config.write(offset, off | ENABLE);
        });
    }
}
