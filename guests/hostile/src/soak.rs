//! A life beside components that are crashed from outside: rest, then attacks that need them, then an end of a random kind.

use crate::attack::Hostile;
use crate::flood;
use crate::machine::Machine;
use crate::options::{Exit, Random};
use crate::run::run;

/// Attacks that are repeated. None may fail, whichever component crashes.
const WORK: [&str; 22] = [
    "churn:100",
    "churn:200",
    "churn:300",
    "churn:400",
    "storm:20000",
    "dma-reads:1",
    "dma-writes:1",
    "dma-interrupts:40",
    "kernel-flags:2000",
    "nested-task-calls",
    "top-of-canonical:16",
    "cli-loop:20",
    "decode-toggles:1",
    "mask-toggles:2",
    "bar-flood:1",
    "console-flood:4",
    "timer-flood:1",
    "one-shot-flood:1",
    "deadline-past:1",
    "self-ipi:10",
    "msix-flood:40",
    "msi-flood:40",
];
/// Quiet time at the beginning, in microseconds: nothing is bound meanwhile, so
/// that what components hold can be compared with another such time.
const REST_MICROS: u64 = 2_500_000;
/// Shortest life that ends in a failure, in microseconds: longer than the 10 s
/// after which a failure begins a new row (components/vmm/src/lives.rs), so that
/// a guest which is crashed from outside as well is not given up.
const FAILING_MICROS: u64 = 11_000_000;
/// By how much a life may be longer than it must.
const SPAN_MICROS: u64 = 10_000_000;

/// How a life goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    /// How long it lasts, with its rest.
    micros: u64,
    /// The attack that ends it; empty for none.
    last: &'static str,
    /// How it ends otherwise.
    exit: Exit,
}

impl Life {
    fn new(random: &mut Random) -> Self {
        let ends = [
            ("", Exit::Code(kit::EXIT_SUCCESS)),
            ("", Exit::Code(kit::EXIT_FAILURE)),
            ("", Exit::Panic),
            ("", Exit::Triple),
            ("stack-gone", Exit::Result),
            ("idt-garbage", Exit::Result),
            ("halt", Exit::Result),
        ];
        let (last, exit) = random.pick(&ends);
        let least = if exit == Exit::Code(kit::EXIT_SUCCESS) {
            REST_MICROS
        } else {
            FAILING_MICROS
        };
        Self {
            micros: least + random.below(SPAN_MICROS),
            last,
            exit,
        }
    }
}

/// Lives one life by a clock that begins with it. Returns how to end it.
pub fn live<M: Machine>(h: &mut Hostile<M>, micros: impl Fn() -> u64) -> Exit {
    let life = Life::new(&mut h.random);
    // The vmm allocates the page tables for a moved BAR's second place once and keeps
    // them: so they exist at the first comparison as well as at the last.
    flood::move_bar(h, 2);
    h.machine().line(format_args!("# soak: rests"));
    while micros() < REST_MICROS {
        h.machine().rest();
    }
    h.machine().line(format_args!("# soak: works"));
    while micros() < life.micros {
        let work = h.random.pick(&WORK);
        if !run(h, work) {
            return Exit::Code(kit::EXIT_FAILURE);
        }
    }
    h.machine()
        .line(format_args!("# soak: ends {:?} {}", life.exit, life.last));
    run(h, life.last);
    life.exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_that_fail_are_long() {
        let mut random = Random::new(1);
        let mut short = 0;
        for _ in 0..1000 {
            let life = Life::new(&mut random);
            assert!(life.micros >= REST_MICROS);
            assert!(life.micros < FAILING_MICROS + SPAN_MICROS);
            if life.micros < FAILING_MICROS {
                assert_eq!(life.exit, Exit::Code(kit::EXIT_SUCCESS));
                short += 1;
            }
        }
        assert!(short > 0);
    }
}
