//! The meter: counts the units of work that it gets done in a span of time, and ends.
//!
//! Responsible for: a number that says how much of the CPU a guest has beside
//! others. A unit is always the same instructions, and the span is one of the time
//! stamp counter; where that counts instructions (`vectis run --icount`) the number
//! is the same in each run.
//! Must never: trap, wait or touch a device between the first unit and the last.
//! May call: kit.
//! Invariants: interrupts stay off.
#![no_std]
#![no_main]

use kit::boot::Boot;
use kit::{EXIT_SUCCESS, console, cpu, println};

kit::entry!(main);

/// Ticks before the count begins: the others have come so far then that they do
/// what they are there for.
const DEFAULT_AFTER: u64 = 50_000_000;
/// Ticks of the count.
const DEFAULT_SPAN: u64 = 400_000_000;
/// Steps of a unit.
const STEPS: u64 = 250;

fn main(boot: Boot) -> ! {
    console::init();
    let line = &boot.command_line;
    let after = line.number("after").unwrap_or(DEFAULT_AFTER);
    let span = line.number("span").unwrap_or(DEFAULT_SPAN);
    units(boot.entry_tsc.saturating_add(after));
    println!("# meter: begins");
    let units = units(cpu::tsc().saturating_add(span));
    println!("# meter: {units} units in {span} ticks");
    kit::exit(EXIT_SUCCESS)
}

/// Works until the time stamp counter says `end`; gives the units done.
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
