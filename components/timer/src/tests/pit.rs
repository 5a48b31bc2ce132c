//! Deadlines on a fake 8254, on a pin that the kernel masks at each edge until it is unmasked.

use super::*;

/// Cycles of a tick, in millionths, at 1000 MHz.
const TICK: u64 = 838_095_345;
/// Cycles of the longest count.
const SHOT: u64 = 0x1_0000 * TICK / 1_000_000;

struct Chip {
    tsc: u64,
    /// Cycles that one port access takes, and what lets the next interrupt come.
    cost: u64,
    low: Option<u8>,
    /// When the count is reached.
    end: Option<u64>,
    control: Vec<u8>,
    writes: usize,
    /// The pin is masked since an edge, of which the timer has not heard yet.
    masked: bool,
    pending: bool,
    /// Edges on the masked pin.
    lost: usize,
    signals: Vec<(Caller, u64)>,
}

impl Chip {
    fn pass(&mut self, cycles: u64) {
        self.tsc += cycles;
        if self.end.take_if(|end| *end <= self.tsc).is_some() {
            if self.masked {
                self.lost += 1;
            } else {
                (self.masked, self.pending) = (true, true);
            }
        }
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Chip>>);

impl Ports for Shared {
    fn write(&mut self, offset: u16, value: u8) {
        let mut chip = self.0.borrow_mut();
        let cost = chip.cost;
        chip.pass(cost);
        chip.writes += 1;
        match (offset, chip.low.take()) {
            (3, None) => {
                chip.control.push(value);
                chip.end = None;
            }
            (0, None) => {
                chip.low = Some(value);
                chip.end = None;
            }
            (0, Some(low)) => {
                let count = match u16::from_le_bytes([low, value]) {
                    0 => 0x1_0000,
                    count => u64::from(count),
                };
                // The output is high one tick after the count.
                chip.end = Some(chip.tsc + ((count + 1) * TICK).div_ceil(1_000_000));
            }
            (offset, low) => panic!("write at {offset} after {low:?}"),
        }
    }
}

impl System for Shared {
    fn tsc(&mut self) -> u64 {
        self.0.borrow().tsc
    }
    fn signal(&mut self, client: Caller) {
        let mut chip = self.0.borrow_mut();
        let tsc = chip.tsc;
        chip.signals.push((client, tsc));
    }
    fn unmask(&mut self) {
        let mut chip = self.0.borrow_mut();
        let cost = chip.cost;
        chip.pass(cost);
        chip.masked = false;
    }
}

struct Rig {
    timers: Timers<Pit<Shared>, Shared>,
    chip: Shared,
}

fn rig() -> Rig {
    let chip = Shared(Rc::new(RefCell::new(Chip {
        tsc: 1_000_000,
        cost: 500,
        low: None,
        // The firmware's periodic interrupt is about to come.
        end: Some(1_000_600),
        control: Vec::new(),
        writes: 0,
        masked: false,
        pending: false,
        lost: 0,
        signals: Vec::new(),
    })));
    let mhz = NonZeroU32::new(1000).expect("not 0");
    let timers = Timers::new(Pit::new(chip.clone()), chip.clone(), mhz);
    Rig { timers, chip }
}

impl Rig {
    fn now(&self) -> u64 {
        self.chip.0.borrow().tsc
    }

    /// Lets `cycles` go by; the timer hears of interrupts if it `listens`.
    fn pass(&mut self, cycles: u64, listens: bool) {
        let end = self.now() + cycles;
        while self.now() < end {
            self.chip.0.borrow_mut().pass(1_000);
            if listens && std::mem::take(&mut self.chip.0.borrow_mut().pending) {
                self.timers.interrupt();
            }
        }
    }

    fn signals(&self) -> Vec<(Caller, u64)> {
        std::mem::take(&mut self.chip.0.borrow_mut().signals)
    }

    /// Checks that just this client was signalled since this was last asked, at its deadline
    /// or a little later.
    fn came(&self, client: Caller, deadline: u64) {
        let signals = self.signals();
        assert_eq!(signals.len(), 1, "{signals:?}");
        let (who, at) = signals[0];
        assert_eq!(who, client);
        assert!(at >= deadline && at < deadline + 10_000, "{at} {deadline}");
    }
}

#[test]
fn set_up_ends_what_the_firmware_left_running() {
    let mut rig = rig();
    // Counter 0, both bytes, mode 0, binary.
    assert_eq!(rig.chip.0.borrow().control, [0x30]);
    rig.pass(10 * SHOT, true);
    assert_eq!(rig.timers.counters.interrupts, 0);
}

#[test]
fn a_deadline_fires_once_and_not_early() {
    let mut rig = rig();
    let deadline = rig.now() + 2_000_000;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    assert_eq!(rig.chip.0.borrow().writes, 3, "two ports for a deadline");
    rig.pass(4_000_000, true);
    rig.came(A, deadline);
    rig.pass(10 * SHOT, true);
    assert_eq!(rig.timers.counters.interrupts, 1);
}

#[test]
fn a_deadline_in_the_past_fires_at_once() {
    let mut rig = rig();
    for deadline in [0, rig.now()] {
        assert_eq!(rig.timers.arm(A, deadline), Ok(()));
        assert_eq!(rig.signals().len(), 1);
    }
    assert_eq!(rig.chip.0.borrow().writes, 1);
}

#[test]
fn a_deadline_beyond_one_count_is_waited_for_in_several() {
    for wait in [SHOT - 2_000, SHOT, SHOT + 2_000, 1_000_000_000, 36 * SHOT] {
        let mut rig = rig();
        let deadline = rig.now() + wait;
        assert_eq!(rig.timers.arm(A, deadline), Ok(()));
        rig.pass(wait - 10_000, true);
        assert_eq!(rig.signals(), []);
        rig.pass(30_000, true);
        rig.came(A, deadline);
        let interrupts = rig.timers.counters.interrupts.get();
        assert!(interrupts <= wait / SHOT + 2, "{interrupts} for {wait}");
    }
}

#[test]
fn a_deadline_that_is_moved_comes_where_it_was_moved() {
    for (first, second) in [(9_000_000, 3_000_000), (3_000_000, 9_000_000)] {
        let mut rig = rig();
        let start = rig.now();
        assert_eq!(rig.timers.arm(A, start + first), Ok(()));
        rig.pass(1_000_000, true);
        assert_eq!(rig.timers.arm(A, start + second), Ok(()));
        rig.pass(12_000_000, true);
        rig.came(A, start + second);
    }
}

#[test]
fn one_that_was_cancelled_costs_one_interrupt() {
    let mut rig = rig();
    let deadline = rig.now() + 3_000_000;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    assert_eq!(rig.timers.cancel(A), Ok(()));
    rig.pass(10 * SHOT, true);
    assert_eq!(rig.signals(), []);
    assert_eq!(rig.timers.counters.interrupts, 1);
}

/// The edge of what is armed from an interrupt comes on a pin that is not masked any more,
/// however soon it comes.
#[test]
fn what_is_armed_from_an_interrupt_is_not_lost() {
    for after in (1_000..40_000).step_by(500) {
        let mut rig = rig();
        rig.chip.0.borrow_mut().cost = 5_000;
        let near = rig.now() + 1_000_000;
        assert_eq!(rig.timers.arm(A, near), Ok(()));
        assert_eq!(rig.timers.arm(B, near + after), Ok(()));
        rig.pass(2_000_000, true);
        let who: Vec<Caller> = rig.signals().into_iter().map(|(who, _)| who).collect();
        assert_eq!(who, [A, B], "{after} cycles apart");
    }
}

/// A client may arm while an interrupt waits to be heard; the edge of its own count is lost
/// then, and the interrupt that waits makes up for it.
#[test]
fn an_edge_on_a_masked_pin_loses_no_deadline() {
    let mut rig = rig();
    let first = rig.now() + 1_000_000;
    assert_eq!(rig.timers.arm(A, first), Ok(()));
    rig.pass(1_100_000, false);
    assert!(rig.chip.0.borrow().pending);
    assert_eq!(rig.timers.arm(B, rig.now() + 20_000), Ok(()));
    rig.pass(100_000, false);
    assert_eq!(rig.chip.0.borrow().lost, 1);
    rig.pass(10_000, true);
    let who: Vec<Caller> = rig.signals().into_iter().map(|(who, _)| who).collect();
    assert_eq!(who, [A, B]);
    // Nor does one that is not due yet.
    let third = rig.now() + 1_000_000;
    assert_eq!(rig.timers.arm(A, third), Ok(()));
    rig.pass(3_000_000, true);
    rig.came(A, third);
}

#[test]
fn nothing_adds_up() {
    let mut rig = rig();
    let start = rig.now();
    for round in 1..=1_000 {
        let deadline = start + round * 1_234_567;
        assert_eq!(rig.timers.arm(A, deadline), Ok(()));
        while rig.chip.0.borrow().signals.is_empty() {
            rig.pass(1_000, true);
        }
        rig.came(A, deadline);
    }
}
