//! The meter: counts the units of work that it gets done in a span of time, and ends.
//!
//! Responsible for: a number that says how much of the CPU a guest has beside
//! others. A unit is always the same instructions, and the span is one of the time
//! stamp counter; where that counts instructions (`vectis run --icount`) the number
//! is the same in each run.
//! With `overflow` on its command line it runs out of stack instead, which must be
//! the end of it.
//! Must never: trap, wait or touch a device between the first unit and the last.
//! May call: kit.
//! Invariants: interrupts stay off.
#![no_std]
#![no_main]

use kit::boot::Boot;
use kit::interrupts::Interrupts;
use kit::{EXIT_SUCCESS, console, cpu, println};

kit::entry!(main, stack = STACK);

/// Bytes of the stack.
const STACK: usize = 16 << 10;

/// Ticks before the count begins, by which the other guests have started their work.
const DEFAULT_AFTER: u64 = 50_000_000;
/// Ticks of the count.
const DEFAULT_SPAN: u64 = 400_000_000;
/// Steps of a unit.
const STEPS: u64 = 250;

fn main(boot: Boot) -> ! {
    console::init();
    let line = &boot.command_line;
    if line.value("overflow").is_some() {
        let _interrupts = Interrupts::install();
        println!("# meter: overflows its stack");
        println!("# meter: {} bytes deep", overflow(0));
        kit::exit(EXIT_SUCCESS)
    }
    let after = line.number("after").unwrap_or(DEFAULT_AFTER);
    let span = line.number("span").unwrap_or(DEFAULT_SPAN);
    units(boot.entry_tsc.saturating_add(after));
    println!("# meter: begins");
    let units = units(cpu::tsc().saturating_add(span));
    println!("# meter: {units} units in {span} ticks");
    kit::exit(EXIT_SUCCESS)
}

/// Recurses deeper than any stack. Returns the depth if it returns at all.
fn overflow(deep: u64) -> u64 {
    // A little more than the stack has: where nothing is in the way, what is written
    // over is not enough to be the end by itself.
    if deep > STACK as u64 + 1024 {
        return deep;
    }
    let block = core::hint::black_box([deep; 64]);
    overflow(deep + size_of_val(&block) as u64) + block[0] - deep
}

/// Works until the time stamp counter reads `end`. Returns the units done.
fn units(end: u64) -> u64 {
    let mut done = 0;
    while cpu::tsc() < end {
        for step in 0..STEPS {
            core::hint::black_box(step);
        }
        done += 1;
    }
    done
}
