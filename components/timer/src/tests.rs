//! Deadlines on a fake HPET that counts one tick in ten cycles and lets time
//! go by at each register access.

extern crate std;
use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::vec::Vec;

use channel::timer::Timer;
use channel::{Caller, Error};

use super::*;

mod pit;

const CYCLES: u64 = 10;
const PIN: u8 = 20;
const A: Caller = Caller(1);
const B: Caller = Caller(2);
/// Reserved bits that have to survive in both configuration registers.
const RESERVED: u32 = 0xa000_0000;
/// Configuration of timer 0: level, 32 bits, the pin.
const IDLE: u32 = RESERVED | 1 << 1 | 1 << 8 | (PIN as u32) << 9;
const INTERRUPT: u32 = 1 << 2;
const FSB: u32 = 1 << 14;
const FSB_CAPABLE: u32 = 1 << 15;

struct Board {
    tsc: u64,
    /// The counter at tsc 0.
    base: u32,
    /// Cycles that one register access takes.
    cost: u64,
    period: u32,
    routes: u32,
    configuration: u32,
    timer: u32,
    comparator: u32,
    level: bool,
    /// Data and address of timer 0's message.
    message: [u32; 2],
    /// Messages sent.
    sent: usize,
    signals: Vec<(Caller, u64)>,
    /// Register accesses.
    accesses: usize,
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Board>>);

impl Board {
    fn counter(&self) -> u32 {
        self.base.wrapping_add((self.tsc / CYCLES) as u32)
    }

    /// Lets time go by; the comparator matches only when it is met.
    fn pass(&mut self, cycles: u64) {
        let to_match = u64::from(self.comparator.wrapping_sub(self.counter()));
        let before = self.tsc / CYCLES;
        self.tsc += cycles;
        let ticks = self.tsc / CYCLES - before;
        let met = (1..=ticks).contains(&to_match);
        let fires = met && self.timer & INTERRUPT != 0 && self.configuration & 1 != 0;
        let by_message = self.timer & FSB != 0;
        self.level |= fires && !by_message;
        self.sent += usize::from(fires && by_message);
    }
}

impl Registers for Shared {
    fn read(&mut self, offset: u16) -> u32 {
        let mut board = self.0.borrow_mut();
        let cost = board.cost;
        board.accesses += 1;
        board.pass(cost);
        match offset {
            0x004 => board.period,
            0x010 => board.configuration,
            0x0f0 => board.counter(),
            0x100 => board.timer,
            0x104 => board.routes,
            _ => panic!("read at {offset:#x}"),
        }
    }

    fn write(&mut self, offset: u16, value: u32) {
        let mut board = self.0.borrow_mut();
        let cost = board.cost;
        board.accesses += 1;
        board.pass(cost);
        match offset {
            0x010 => board.configuration = value,
            0x020 => board.level &= value & 1 == 0,
            0x100 => board.timer = value,
            0x108 => board.comparator = value,
            0x110 => board.message[0] = value,
            0x114 => board.message[1] = value,
            _ => panic!("write at {offset:#x}"),
        }
    }
}

impl System for Shared {
    fn tsc(&mut self) -> u64 {
        self.0.borrow().tsc
    }
    fn signal(&mut self, client: Caller) {
        let mut board = self.0.borrow_mut();
        let tsc = board.tsc;
        board.signals.push((client, tsc));
    }
    fn unmask(&mut self) {
        let level = self.0.borrow().level;
        assert!(!level, "it would interrupt again");
    }
}

fn board() -> Shared {
    Shared(Rc::new(RefCell::new(Board {
        tsc: 1_000_000,
        base: 0,
        cost: 3,
        period: 10_000_000,
        routes: 1 << PIN,
        configuration: RESERVED | 2,
        timer: RESERVED | 1 << 14 | 1 << 3 | INTERRUPT | 3 << 9,
        comparator: 0,
        level: true,
        message: [0; 2],
        sent: 0,
        signals: Vec::new(),
        accesses: 0,
    })))
}

struct Rig {
    timers: Timers<Hpet<Shared>, Shared>,
    board: Shared,
}

fn rig_on(board: Shared) -> Rig {
    let hpet = Hpet::new(board.clone(), Delivery::Pin(PIN)).expect("usable");
    let mhz = NonZeroU32::new(1000).expect("not 0");
    Rig {
        timers: Timers::new(hpet, board.clone(), mhz),
        board,
    }
}

fn rig() -> Rig {
    rig_on(board())
}

impl Rig {
    fn now(&self) -> u64 {
        self.board.0.borrow().tsc
    }

    /// Lets `cycles` go by in steps of `step`, handling interrupts.
    fn pass_in(&mut self, cycles: u64, step: u64) {
        let end = self.now() + cycles;
        while self.now() < end {
            self.board.0.borrow_mut().pass(step);
            let message = std::mem::take(&mut self.board.0.borrow_mut().sent) > 0;
            if self.board.0.borrow().level || message {
                self.timers.interrupt();
            }
        }
    }

    fn pass(&mut self, cycles: u64) {
        self.pass_in(cycles, 7);
    }

    fn signals(&self) -> Vec<(Caller, u64)> {
        std::mem::take(&mut self.board.0.borrow_mut().signals)
    }

    /// Returns the register accesses since this was last asked.
    fn accesses(&self) -> usize {
        std::mem::take(&mut self.board.0.borrow_mut().accesses)
    }

    fn who(&self) -> Vec<Caller> {
        self.signals()
            .into_iter()
            .map(|(client, _)| client)
            .collect()
    }
}

#[test]
fn set_up_is_one_shot_level_narrow_on_the_pin() {
    let rig = rig();
    let board = rig.board.0.borrow();
    assert_eq!(board.timer, IDLE);
    assert_eq!(board.configuration, RESERVED | 1);
    assert!(!board.level);
}

#[test]
fn set_up_refuses_a_pin_that_timer_0_cannot_drive() {
    let board = board();
    for pin in [PIN + 1, 32, 255] {
        let result = Hpet::new(board.clone(), Delivery::Pin(pin)).err();
        assert_eq!(result, Some(SetupError::NoRoute(1 << PIN)));
    }
    assert_eq!(board.0.borrow().configuration, RESERVED | 2);
}

#[test]
fn set_up_refuses_an_impossible_period() {
    for period in [0, 100_000_001, u32::MAX] {
        let board = board();
        board.0.borrow_mut().period = period;
        let result = Hpet::new(board, Delivery::Pin(PIN)).err();
        assert_eq!(result, Some(SetupError::BadPeriod(period)));
    }
}

#[test]
fn a_deadline_fires_once_and_not_early() {
    let mut rig = rig();
    let deadline = rig.now() + 5_000;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    rig.pass(10_000);
    let signals = rig.signals();
    assert_eq!(signals.len(), 1);
    let (client, at) = signals[0];
    assert_eq!(client, A);
    assert!(at >= deadline && at < deadline + 200, "{at} {deadline}");
    assert_eq!(rig.board.0.borrow().timer, IDLE, "not armed any more");
    assert!(!rig.board.0.borrow().level, "the level is off");
    assert_eq!(rig.timers.counters.interrupts, 1);
}

#[test]
fn a_deadline_in_the_past_fires_at_once() {
    let mut rig = rig();
    for deadline in [0, rig.now()] {
        assert_eq!(rig.timers.arm(A, deadline), Ok(()));
        assert_eq!(rig.who(), [A]);
    }
    rig.pass(1_000);
    assert_eq!(rig.who(), []);
}

#[test]
fn the_earliest_comes_first() {
    let mut rig = rig();
    let now = rig.now();
    assert_eq!(rig.timers.arm(A, now + 9_000), Ok(()));
    assert_eq!(rig.timers.arm(B, now + 4_000), Ok(()));
    rig.pass(6_000);
    assert_eq!(rig.who(), [B]);
    rig.pass(6_000);
    assert_eq!(rig.who(), [A]);
}

#[test]
fn arming_again_replaces() {
    let mut rig = rig();
    let now = rig.now();
    assert_eq!(rig.timers.arm(A, now + 2_000), Ok(()));
    assert_eq!(rig.timers.arm(A, now + 8_000), Ok(()));
    rig.pass(5_000);
    assert_eq!(rig.who(), []);
    rig.pass(5_000);
    assert_eq!(rig.who(), [A]);
}

#[test]
fn a_cancelled_deadline_does_not_fire() {
    let mut rig = rig();
    let now = rig.now();
    assert_eq!(rig.timers.arm(A, now + 2_000), Ok(()));
    assert_eq!(rig.timers.arm(B, now + 3_000), Ok(()));
    assert_eq!(rig.timers.cancel(A), Ok(()));
    rig.pass(5_000);
    assert_eq!(rig.who(), [B]);
    assert_eq!(rig.timers.cancel(A), Ok(()));
    assert_eq!(rig.timers.counters.cancelled, 1);
}

#[test]
fn a_client_too_many_has_to_wait() {
    let mut rig = rig();
    let last = Caller(CLIENTS as u64);
    let deadline = rig.now() + 5_000;
    for client in 0..CLIENTS as u64 {
        assert_eq!(rig.timers.arm(Caller(client), deadline), Ok(()));
    }
    assert_eq!(rig.timers.arm(last, deadline), Err(Error::Exhausted));
    assert_eq!(rig.timers.arm(Caller(3), deadline), Ok(()));
    rig.pass(6_000);
    assert_eq!(rig.who().len(), CLIENTS);
    let deadline = rig.now() + 5_000;
    assert_eq!(rig.timers.arm(last, deadline), Ok(()));
    assert_eq!(rig.timers.counters.exhausted, 1);
    // And is the one that is woken.
    rig.pass(6_000);
    assert_eq!(rig.who(), [last]);
    let counters = &rig.timers.counters;
    let came = CLIENTS as u64 + 1;
    assert_eq!(
        (counters.armed.get(), counters.fired.get()),
        (came + 1, came)
    );
}

#[test]
fn the_counter_may_wrap() {
    let board = board();
    let ticks = (board.0.borrow().tsc / CYCLES) as u32;
    board.0.borrow_mut().base = 0_u32.wrapping_sub(ticks + 100);
    let mut rig = rig_on(board);
    let deadline = rig.now() + 5_000;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    assert!(rig.board.0.borrow().comparator < 1_000);
    rig.pass(6_000);
    let signals = rig.signals();
    assert_eq!(signals.len(), 1);
    assert!(signals[0].1 < deadline + 200);
}

#[test]
fn a_far_deadline_is_waited_for_in_steps() {
    let mut rig = rig();
    // Ten rounds of the counter.
    let wait = 10 * (CYCLES << 32);
    let deadline = rig.now() + wait;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    rig.pass_in(wait - 1_000_000_000, 1_000_000);
    assert_eq!(rig.who(), []);
    assert!(rig.timers.counters.interrupts.get() >= 39);
    rig.pass_in(1_000_000_000, 1_000_000);
    assert_eq!(rig.who(), [A]);
}

#[test]
fn a_deadline_that_never_comes_does_not_overflow() {
    let mut rig = rig();
    assert_eq!(rig.timers.arm(A, u64::MAX), Ok(()));
    rig.pass(10_000);
    assert_eq!(rig.who(), []);
}

#[test]
fn a_comparator_that_was_overtaken_is_set_again() {
    let mut rig = rig();
    // Ten ticks at each access: any short wait is over before it is set.
    rig.board.0.borrow_mut().cost = 100;
    let deadline = rig.now() + 150;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    assert!(rig.timers.counters.overtaken.get() > 0);
    rig.pass_in(20_000, 100);
    let signals = rig.signals();
    assert_eq!(signals.len(), 1);
    assert!(signals[0].1 >= deadline && signals[0].1 < deadline + 5_000);
}

#[test]
fn a_spurious_interrupt_signals_nobody() {
    let mut rig = rig();
    let deadline = rig.now() + 5_000;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    rig.timers.interrupt();
    assert_eq!(rig.who(), []);
    rig.pass(6_000);
    assert_eq!(rig.who(), [A]);
}

const MESSAGE: Delivery = Delivery::Message {
    address: 0xfee0_0000,
    data: 0x9b,
};

#[test]
fn by_message_it_fires_once_and_the_pin_stays_silent() {
    let board = board();
    board.0.borrow_mut().timer |= FSB_CAPABLE;
    let hpet = Hpet::new(board.clone(), MESSAGE).expect("usable");
    assert_eq!(board.0.borrow().message, [0x9b, 0xfee0_0000]);
    // Edge, 32 bits, by message.
    let timer = board.0.borrow().timer;
    assert_eq!(timer & (1 << 1 | 1 << 8 | FSB | INTERRUPT), 1 << 8 | FSB);
    let mhz = NonZeroU32::new(1000).expect("not 0");
    let mut rig = Rig {
        timers: Timers::new(hpet, board.clone(), mhz),
        board,
    };
    let deadline = rig.now() + 5_000;
    assert_eq!(rig.timers.arm(A, deadline), Ok(()));
    rig.pass(10_000);
    assert_eq!(rig.who(), [A]);
    assert!(!rig.board.0.borrow().level);
    assert_eq!(rig.timers.counters.interrupts, 1);
}

#[test]
fn set_up_refuses_messages_that_timer_0_cannot_send() {
    let board = board();
    let result = Hpet::new(board.clone(), MESSAGE).err();
    assert_eq!(result, Some(SetupError::NoMessages));
    assert_eq!(board.0.borrow().configuration, RESERVED | 2);
}

#[test]
fn a_deadline_that_has_come_does_not_touch_the_hpet() {
    let mut rig = rig();
    let now = rig.now();
    assert_eq!(rig.timers.arm(B, now + 5_000), Ok(()));
    rig.accesses();
    for deadline in [0, now, rig.now()] {
        assert_eq!(rig.timers.arm(A, deadline), Ok(()));
        assert_eq!(rig.who(), [A]);
    }
    assert_eq!(rig.accesses(), 0);
    // And takes nothing from the others.
    rig.pass(6_000);
    assert_eq!(rig.who(), [B]);
}

/// Cycles of a millisecond, at 1000 MHz.
const MILLISECOND: u64 = 1_000_000;

/// Whatever a client does without end, the HPET is programmed a fixed number of
/// times in a millisecond.
#[test]
fn a_client_that_arms_without_end_gets_a_share_of_the_hpet() {
    type Flood = fn(&mut Rig, u64) -> Result<(), Error>;
    let floods: [Flood; 5] = [
        |rig, _| rig.timers.arm(A, 0),
        |rig, round| rig.timers.arm(A, rig.now() + round % 50),
        |rig, round| rig.timers.arm(A, rig.now() + 500_000 - round),
        |rig, round| rig.timers.arm(A, if round % 2 == 0 { u64::MAX } else { 0 }),
        |rig, _| {
            let _ = rig.timers.arm(A, rig.now() + 900_000);
            rig.timers.cancel(A)
        },
    ];
    for (number, flood) in floods.into_iter().enumerate() {
        let mut rig = rig();
        let end = rig.now() + 10 * MILLISECOND;
        let mut rounds = 0;
        while rig.now() < end {
            let _ = flood(&mut rig, rounds);
            rounds += 1;
            rig.pass(100);
        }
        assert!(rounds > 50_000, "flood {number}: {rounds} rounds");
        // Eleven intervals at most, 17 programmings and as many interrupts in each
        // with five accesses, of a deadline so near that it was overtaken twice.
        let accesses = rig.accesses();
        assert!(accesses < 11 * 17 * 2 * 15, "flood {number}: {accesses}");
        assert!(
            rig.timers.counters.interrupts.get() < 11 * 18,
            "flood {number}"
        );
        assert!(rig.who().len() < 11 * 18, "flood {number}");
    }
}

/// The last deadline of a client that asked too often counts.
#[test]
fn a_deadline_that_was_put_off_comes_at_the_interval_s_end() {
    let mut rig = rig();
    let start = rig.now();
    let mut last = Ok(());
    let mut asked = 0;
    while last.is_ok() && asked < 100 {
        last = rig.timers.arm(A, start + 100_000);
        asked += 1;
    }
    assert_eq!((asked, last), (17, Err(Error::TooOften)));
    assert_eq!(rig.timers.counters.deferred, 1);
    rig.accesses();
    for _ in 0..100 {
        assert_eq!(rig.timers.arm(A, start + 200_000), Err(Error::TooOften));
    }
    assert_eq!(rig.accesses(), 0);
    // Others have their own share.
    let near = rig.now() + 5_000;
    assert_eq!(rig.timers.arm(B, near), Ok(()));
    rig.pass(6_000);
    assert_eq!(rig.who(), [B]);
    rig.pass(2 * MILLISECOND);
    let signals = rig.signals();
    assert_eq!(signals.len(), 1);
    let (client, at) = signals[0];
    assert_eq!(client, A);
    let end = start + MILLISECOND;
    assert!(at >= end && at < end + 500, "{at} {end}");
    // Then it has a share again.
    let next = rig.now() + 5_000;
    assert_eq!(rig.timers.arm(A, next), Ok(()));
    rig.pass(6_000);
    assert_eq!(rig.who(), [A]);
}

#[test]
fn a_deadline_that_was_put_off_and_lies_further_off_is_not_early() {
    let mut rig = rig();
    let start = rig.now();
    let later = start + 3 * MILLISECOND;
    for _ in 0..100 {
        let _ = rig.timers.arm(A, start + 100_000);
    }
    assert_eq!(rig.timers.arm(A, later), Err(Error::TooOften));
    rig.pass(4 * MILLISECOND);
    let signals = rig.signals();
    assert_eq!(signals.len(), 1);
    assert!(signals[0].1 >= later && signals[0].1 < later + 500);
    // A cancelled one does not come at all.
    for _ in 0..100 {
        let _ = rig.timers.arm(A, rig.now() + 100_000);
    }
    assert_eq!(rig.timers.cancel(A), Ok(()));
    rig.pass(2 * MILLISECOND);
    assert_eq!(rig.who(), []);
}

/// Also where the HPET had nothing to do before.
#[test]
fn a_deadline_that_had_come_and_was_put_off_comes_too() {
    let mut rig = rig();
    let start = rig.now();
    for _ in 0..16 {
        assert_eq!(rig.timers.arm(A, 0), Ok(()));
    }
    assert_eq!(rig.who(), [A; 16]);
    assert_eq!(rig.timers.arm(A, 0), Err(Error::TooOften));
    assert_eq!(rig.who(), []);
    rig.pass(2 * MILLISECOND);
    let signals = rig.signals();
    assert_eq!(signals.len(), 1);
    let end = start + MILLISECOND;
    assert!(signals[0].1 >= end && signals[0].1 < end + 500);
}

/// The deadline of one client is not another's to cancel.
#[test]
fn a_client_cancels_its_own_deadline_only() {
    let mut rig = rig();
    let now = rig.now();
    assert_eq!(rig.timers.arm(A, now + 2_000), Ok(()));
    assert_eq!(rig.timers.cancel(B), Ok(()));
    assert_eq!(rig.timers.counters.cancelled, 0);
    assert_eq!(rig.timers.arm(B, now + 3_000), Ok(()));
    assert_eq!(rig.timers.cancel(B), Ok(()));
    rig.pass(5_000);
    assert_eq!(rig.who(), [A]);
    // Nor does one that waits for nothing count.
    assert_eq!(rig.timers.cancel(A), Ok(()));
    assert_eq!(rig.timers.counters.cancelled, 1);
}
