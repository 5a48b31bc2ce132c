//! The order in which a guest's functions and memory are taken back after its end.

use pci::FunctionInfo;
use spec::FunctionId;

use crate::lives::Next;

/// What a guest had, as far as it is taken back.
pub trait TakeBack {
    /// Has `pci-config` start or continue resetting a function (M24). Returns in how
    /// many milliseconds it is done, or `None` if it failed.
    fn reset(&mut self, function: FunctionId) -> Option<u64>;
    /// Has `iommu` take the guest's memory away from a function. Returns `false` if
    /// that failed.
    fn detach(&mut self, function: FunctionId) -> bool;
    /// Unmaps the BARs of all functions.
    fn unmap_bars(&mut self);
    /// Drops the guest's deadline and the events that are pending.
    fn drop_events(&mut self);
    /// Reports what follows.
    fn report(&mut self, next: Next);
    /// Waits at least so many milliseconds; events are dropped.
    fn rest(&mut self, wait_ms: u64);
    /// Zeroes the guest's memory.
    fn clear_ram(&mut self);
}

/// Takes everything back from a guest that ended, and waits until it may start
/// again, if `next` says so. Returns `false` if it stays halted.
pub fn take_back(host: &mut impl TakeBack, functions: &[FunctionInfo], next: Next) -> bool {
    let mut back_ms = Some(0);
    for info in functions {
        // Also a function that one of the two fails for gets the other.
        let left_ms = host.reset(info.index);
        let detached = host.detach(info.index);
        let both = back_ms.zip(left_ms).filter(|_| detached);
        back_ms = both.map(|(others, own): (u64, u64)| others.max(own));
    }
    host.unmap_bars();
    host.drop_events();
    let next = next.when_ready(back_ms);
    host.report(next);
    if let Next::Restart(wait_ms) = next {
        host.rest(wait_ms);
    }
    // A function is taken back to its end, also where no life follows; and until
    // then none reaches the next life's memory (M24).
    let back = loop {
        match left_ms(host, functions) {
            Some(0) => break true,
            Some(wait_ms) => host.rest(wait_ms),
            None => break false,
        }
    };
    if !matches!(next, Next::Restart(_)) {
        return false;
    }
    if !back {
        host.report(Next::NotReset);
        return false;
    }
    host.clear_ram();
    true
}

/// Returns in how many milliseconds to look again at the resets, 0 when all
/// functions are back, or `None` if one failed and could disturb another life.
fn left_ms(host: &mut impl TakeBack, functions: &[FunctionInfo]) -> Option<u64> {
    functions.iter().try_fold(0, |others: u64, info| {
        host.reset(info.index).map(|own| own.max(others))
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;
    use std::vec::Vec;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Step {
        Reset(u8),
        Detach(u8),
        UnmapBars,
        DropEvents,
        Report(Next),
        Rest(u64),
        ClearRam,
    }
    use Step::{ClearRam, Detach, DropEvents, Report, Reset, Rest, UnmapBars};

    /// Two functions, and a record of what is done to them.
    #[derive(Default)]
    struct Fake {
        /// The answers to resets of each function; then it is back.
        resets: [VecDeque<Option<u64>>; 2],
        /// The function that cannot be detached.
        attached: Option<u8>,
        steps: Vec<Step>,
    }

    impl TakeBack for Fake {
        fn reset(&mut self, function: FunctionId) -> Option<u64> {
            self.steps.push(Reset(function.0));
            let answers = &mut self.resets[function.index()];
            answers.pop_front().unwrap_or(Some(0))
        }

        fn detach(&mut self, function: FunctionId) -> bool {
            self.steps.push(Detach(function.0));
            self.attached != Some(function.0)
        }

        fn unmap_bars(&mut self) {
            self.steps.push(UnmapBars);
        }

        fn drop_events(&mut self) {
            self.steps.push(DropEvents);
        }

        fn report(&mut self, next: Next) {
            self.steps.push(Report(next));
        }

        fn rest(&mut self, wait_ms: u64) {
            self.steps.push(Rest(wait_ms));
        }

        fn clear_ram(&mut self) {
            self.steps.push(ClearRam);
        }
    }

    /// Whatever comes of it, this is done first.
    const FIRST: [Step; 6] = [
        Reset(0),
        Detach(0),
        Reset(1),
        Detach(1),
        UnmapBars,
        DropEvents,
    ];

    /// Checks what follows [`FIRST`], and whether the guest starts again.
    fn check(mut fake: Fake, next: Next, steps: &[Step], again: bool) {
        let functions = [0, 1].map(|index| FunctionInfo {
            index: FunctionId(index),
            ..FunctionInfo::default()
        });
        assert_eq!(take_back(&mut fake, &functions, next), again);
        assert_eq!(fake.steps, [&FIRST, steps].concat());
    }

    /// Returns a fake whose functions answer so to resets.
    fn fake(first: &[Option<u64>], second: &[Option<u64>]) -> Fake {
        Fake {
            resets: [first, second].map(|answers| answers.iter().copied().collect()),
            ..Fake::default()
        }
    }

    const RESTART: Next = Next::Restart(5);

    #[test]
    fn memory_is_cleared_once_all_functions_are_back() {
        check(
            Fake::default(),
            RESTART,
            &[Report(RESTART), Rest(5), Reset(0), Reset(1), ClearRam],
            true,
        );
        // The longest of all waits counts, each time.
        let slow = fake(
            &[Some(100), Some(0), Some(0)],
            &[Some(20), Some(30), Some(0)],
        );
        let steps = [
            Report(Next::Restart(100)),
            Rest(100),
            Reset(0),
            Reset(1),
            Rest(30),
            Reset(0),
            Reset(1),
            ClearRam,
        ];
        check(slow, RESTART, &steps, true);
    }

    #[test]
    fn without_a_restart_the_resets_are_still_finished() {
        for next in [Next::Halt, Next::GiveUp] {
            let slow = fake(&[Some(100), Some(7)], &[]);
            let steps = [
                Report(next),
                Reset(0),
                Reset(1),
                Rest(7),
                Reset(0),
                Reset(1),
            ];
            check(slow, next, &steps, false);
            // A failure changes nothing and is not reported again.
            check(
                fake(&[], &[None]),
                next,
                &[Report(next), Reset(0), Reset(1)],
                false,
            );
            check(
                fake(&[None, None], &[]),
                next,
                &[Report(next), Reset(0)],
                false,
            );
        }
    }

    #[test]
    fn a_function_that_is_not_taken_back_keeps_the_guest_halted() {
        let report = Report(Next::Unclean);
        for answers in [[&[None][..], &[]], [&[], &[None]]] {
            let failing = fake(answers[0], answers[1]);
            check(failing, RESTART, &[report, Reset(0), Reset(1)], false);
        }
    }

    #[test]
    fn a_function_that_is_not_detached_keeps_the_guest_halted() {
        for function in [0, 1] {
            let attached = Fake {
                attached: Some(function),
                ..Fake::default()
            };
            let steps = [Report(Next::Unclean), Reset(0), Reset(1)];
            check(attached, RESTART, &steps, false);
        }
    }

    #[test]
    fn a_reset_that_fails_later_keeps_the_guest_halted() {
        let failed = Report(Next::NotReset);
        check(
            fake(&[Some(100), None], &[]),
            RESTART,
            &[Report(Next::Restart(100)), Rest(100), Reset(0), failed],
            false,
        );
        check(
            fake(&[], &[Some(9), Some(1), None]),
            RESTART,
            &[
                Report(Next::Restart(9)),
                Rest(9),
                Reset(0),
                Reset(1),
                Rest(1),
                Reset(0),
                Reset(1),
                failed,
            ],
            false,
        );
    }
}
