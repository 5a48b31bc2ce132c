//! Turns, the floor of the guest's timer, and budgets of sources without a mask bit.

use super::*;
use spec::FunctionId;

const LVT_TIMER: u64 = 0xfee0_0320;
const TIMER_INITIAL: u64 = 0xfee0_0380;
const TIMER_DIVIDE: u64 = 0xfee0_03e0;
const PERIODIC: u64 = 1 << 17;
const DEADLINE: u64 = 2 << 17;

/// A guest whose turn is the second half of each 1,200 ticks.
const HALF: Share = Share::new(1200, 600, 600);

impl<'a> Machine<'a> {
    fn sharing(functions: &'a [FunctionInfo], share: Share) -> Self {
        let mut m = Machine::new(functions);
        let mut vmm = Vmm::new(functions, BUDGET, share);
        m.host.foreground.clear();
        vmm.start(&mut m.host);
        m.vmm = vmm;
        m.load_idt();
        m
    }

    fn lapic(&mut self, register: u64, value: u64) {
        self.regs.gpr[RCX] = register;
        self.regs.gpr[RAX] = value;
        // mov [rcx], eax
        assert_eq!(self.memory(register, &[0x89, 0x01]), Outcome::Resume);
    }

    fn tsc_deadline(&mut self, value: u64) {
        self.regs.gpr[RCX] = 0x6e0;
        self.regs.set_edx_eax(value);
        assert_eq!(self.privileged(&[0x0f, 0x30]), Outcome::Resume);
    }

    /// Ends the guest's interrupt and puts it to sleep.
    fn sleep(&mut self) {
        self.lapic(0xfee0_00b0, 0);
        assert_eq!(self.privileged(&[0xfb, 0xf4]), Outcome::Wait);
    }
}

#[test]
fn who_has_all_of_the_time_hears_of_turns_once() {
    let functions = functions();
    let mut m = Machine::sharing(&functions, Share::WHOLE);
    for now in 0..5000 {
        m.host.now = now;
        m.privileged(&[0xfa]);
    }
    assert_eq!(m.host.foreground, [true]);
    assert_eq!(m.host.deadline, None);
}

#[test]
fn a_turn_begins_and_ends_on_the_common_clock() {
    let functions = functions();
    let mut m = Machine::sharing(&functions, HALF);
    assert_eq!(m.host.foreground, [false]);
    // The timer ends the turn of a guest that spins.
    assert_eq!(m.host.deadline, Some(600));
    m.host.now = 601;
    m.timer();
    assert_eq!(m.host.foreground, [false, true]);
    assert_eq!(m.host.deadline, Some(1200));
    // One that traps, by its trap.
    m.host.now = 1230;
    m.privileged(&[0xfa]);
    assert_eq!(m.host.foreground, [false, true, false]);
    assert_eq!(m.host.deadline, Some(1800));
}

#[test]
fn a_guest_that_sleeps_needs_no_turn_until_it_wakes() {
    let functions = functions();
    let mut m = Machine::sharing(&functions, HALF);
    m.host.routes[1] = Some(route(0x41, false));
    assert_eq!(m.privileged(&[0xfb, 0xf4]), Outcome::Wait);
    m.host.now = 600;
    m.timer();
    assert_eq!(m.host.deadline, None, "nothing is waited for");
    assert_eq!(m.host.foreground, [false]);
    m.host.now = 700;
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.inject(), Outcome::Resume);
    assert_eq!(m.host.foreground, [false, true]);
    assert_eq!(m.host.deadline, Some(1200));
}

#[test]
fn a_periodic_timer_of_count_1_interrupts_no_faster_than_the_floor() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.now = 1000;
    m.lapic(LVT_TIMER, PERIODIC | 0x61);
    m.lapic(TIMER_DIVIDE, 0xb);
    m.lapic(TIMER_INITIAL, 1);
    let mut fired = Vec::new();
    m.privileged(&[0xfb]);
    while m.host.now < 1100 {
        m.host.now += 1;
        if m.host.deadline.is_some_and(|due| due <= m.host.now) {
            m.timer();
            m.inject();
            if m.interrupted_with(0x61) {
                fired.push(m.host.now);
                m.sleep();
            }
        }
    }
    assert_eq!(fired.len(), 10, "{fired:?}");
    assert!(
        fired
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= BUDGET.timer)
    );
}

#[test]
fn a_timer_waits_four_times_as_long_as_it_costs() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.lapic(LVT_TIMER, PERIODIC | 0x61);
    m.lapic(TIMER_DIVIDE, 0xb);
    m.lapic(TIMER_INITIAL, 20);
    assert_eq!(m.host.deadline, Some(20));
    // It is only heard 15 ticks after it was due: so much the machine needs.
    m.host.now = 35;
    m.timer();
    assert_eq!(m.host.deadline, Some(20 + 4 * 15));
    // A machine slower than this is not assumed.
    m.host.now = 100_000;
    m.timer();
    assert_eq!(
        m.host.deadline,
        Some(80 + 4 * 16 * BUDGET.timer).max(Some(100_020))
    );
}

#[test]
fn a_timer_that_was_put_off_costs_no_more_for_that() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.puts_off = true;
    m.lapic(LVT_TIMER, PERIODIC | 0x61);
    m.lapic(TIMER_DIVIDE, 0xb);
    m.lapic(TIMER_INITIAL, 20);
    // Three intervals later than it was asked for.
    m.host.now = 80;
    m.timer();
    assert_eq!(m.host.deadline, Some(100));
    // The cost of its delivery counts as before.
    m.host.puts_off = false;
    m.host.now = 100;
    m.timer();
    m.host.now = 140;
    m.timer();
    assert_eq!(m.host.deadline, Some(120 + 4 * 20));
}

#[test]
fn a_deadline_that_is_past_needs_no_timer_but_has_the_floor() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.now = 1000;
    m.lapic(LVT_TIMER, DEADLINE | 0x62);
    m.privileged(&[0xfb]);
    m.tsc_deadline(5);
    assert!(m.interrupted_with(0x62));
    assert_eq!(m.host.deadline, None);
    // The next one in the past has to wait.
    m.lapic(0xfee0_00b0, 0);
    m.tsc_deadline(6);
    assert!(!m.interrupted_with(0x62));
    assert_eq!(m.host.deadline, Some(1000 + BUDGET.timer));
    m.host.now = 1000 + BUDGET.timer;
    m.timer();
    m.privileged(&[0xfb]);
    assert!(m.interrupted_with(0x62));
}

#[test]
fn the_end_of_a_turn_does_not_fire_a_timer_before_its_floor() {
    let functions = functions();
    let mut m = Machine::sharing(&functions, HALF);
    m.host.now = 595;
    m.lapic(LVT_TIMER, DEADLINE | 0x62);
    m.tsc_deadline(5);
    m.tsc_deadline(5);
    assert_eq!(m.host.deadline, Some(600));
    m.host.now = 600;
    m.timer();
    assert_eq!(m.host.deadline, Some(605));
}

#[test]
fn events_outside_the_turn_wait_when_they_have_cost_enough() {
    let functions = functions();
    let mut m = Machine::sharing(&functions, HALF);
    m.host.routes[1] = Some(route(0x41, false));
    m.lapic(LVT_TIMER, PERIODIC | 0x61);
    m.lapic(TIMER_DIVIDE, 0xb);
    m.lapic(TIMER_INITIAL, 50);
    assert_eq!(m.host.deadline, Some(50));
    // Each event takes 60 ticks, of which four gaps of the timer are believed:
    // the third is more than a twelfth of 1,200.
    m.host.event_cost = 60;
    for deferrals in [0, 0, 1] {
        m.vmm.events(slot_badge(1), &mut m.host);
        assert_eq!(m.vmm.counters.deferrals, deferrals);
    }
    assert_eq!(m.host.deadline, Some(600), "the guest's timer waits too");
    m.host.event_cost = 0;
    assert!(m.host.throttled.is_empty());
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.host.throttled, [(2, true)]);
    assert_eq!(m.vmm.counters.storms, 0, "its own budget is another matter");
    assert!(m.host.storms.is_empty());
    // All of it comes with the turn.
    m.host.now = 600;
    m.timer();
    assert_eq!(m.host.throttled, [(2, true), (2, false)]);
    m.privileged(&[0xfb]);
    assert!(m.interrupted_with(0x61));
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.host.throttled.len(), 2);
}

#[test]
fn m23_plain_msi_is_throttled_and_comes_once_more_at_the_end() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    let message = |entry| Route {
        source: Source::msi(FunctionId(0), entry),
        ..route(0x50 + entry as u8, false)
    };
    let routes = [message(0), message(1), route(0x41, false)];
    for (slot, route) in routes.into_iter().enumerate() {
        m.host.routes[slot] = Some(route);
    }
    for _ in 0..BUDGET.events {
        m.vmm.events(slot_badge(0), &mut m.host);
    }
    assert!(m.host.throttled.is_empty());
    m.vmm.events(slot_badge(0), &mut m.host);
    assert_eq!(m.host.throttled, [(0, true)]);
    assert_eq!(m.vmm.counters.storms, 1);
    let delivered = m.host.events[1].delivered;
    m.host.now = 1000;
    m.timer();
    assert_eq!(m.host.throttled, [(0, true), (0, false)]);
    // The whole function was silent, so that each of its messages may be lost.
    assert_eq!(m.host.events[1].delivered, delivered + 1);
    assert_eq!(m.host.events[2].delivered, 0);
}

#[test]
fn a_source_that_cannot_be_masked_counts_no_storm() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    m.host.no_throttling = true;
    for _ in 0..2 * BUDGET.events {
        m.vmm.events(slot_badge(1), &mut m.host);
    }
    assert_eq!((m.vmm.counters.storms.get(), m.host.deadline), (0, None));
}

#[test]
fn a_guest_that_only_seems_to_sleep_does_not_keep_its_turn() {
    // A message that the guest sent on its fault endpoint, and did not wait for an
    // answer to, looks like the trap of its hlt.
    let functions = functions();
    let mut m = Machine::sharing(&functions, HALF);
    m.host.now = 600;
    m.timer();
    assert_eq!(m.privileged(&[0xfb, 0xf4]), Outcome::Wait);
    assert_eq!(m.host.foreground, [false, true]);
    assert_eq!(m.host.deadline, Some(1200));
    m.host.now = 1200;
    m.timer();
    assert_eq!(m.host.foreground, [false, true, false]);
    assert_eq!(m.host.deadline, None, "nothing is waited for");
}
