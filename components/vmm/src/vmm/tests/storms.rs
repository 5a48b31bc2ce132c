//! Sources over their budget (M23).

use super::*;
use spec::FunctionId;

#[test]
fn m23_a_storm_is_masked_counted_and_let_go() {
    for slot in [0, 1, 31, 32, SLOTS - 1] {
        let functions = functions();
        let mut m = Machine::new(&functions);
        m.host.routes[slot] = Some(route(0x41, false));
        let event = slot_badge(slot as u8);
        m.host.now = 5000;
        for _ in 0..100 {
            m.vmm.events(event, &mut m.host);
        }
        assert!(m.host.throttled.is_empty());
        m.vmm.events(event, &mut m.host);
        assert_eq!(m.host.throttled, [(2, true)]);
        assert_eq!(m.host.storms, [2]);
        assert_eq!(m.host.events[slot].storms, 1);
        // Events that were on their way are still delivered, and the entry is not masked
        // twice.
        m.vmm.events(event, &mut m.host);
        assert_eq!(m.host.events[slot].delivered, 102);
        assert_eq!(m.host.throttled.len(), 1);
        assert_eq!(m.vmm.counters.storms, 1);
        // The timer is set for the end of the interval.
        assert_eq!(m.host.deadline, Some(6000));
        m.host.now = 6000;
        m.timer();
        assert_eq!(m.host.throttled, [(2, true), (2, false)]);
        assert_eq!(m.host.deadline, None);
    }
}

#[test]
fn m23_a_source_that_goes_on_is_masked_again() {
    // Its guest has it forget that it is masked: by a reset, or by switching plain
    // MSI off and on.
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    for _ in 0..101 {
        m.vmm.events(slot_badge(1), &mut m.host);
    }
    assert_eq!(m.host.throttled, [(2, true)]);
    for _ in 0..90 {
        m.vmm.events(slot_badge(1), &mut m.host);
    }
    assert_eq!(m.host.throttled, [(2, true); 11]);
    // It is one storm all the same, and is over when the interval is.
    assert_eq!((m.vmm.counters.storms.get(), m.host.storms.len()), (1, 1));
    assert_eq!(m.host.deadline, Some(1000));
    m.host.now = 1000;
    m.timer();
    assert_eq!(m.host.throttled.last(), Some(&(2, false)));
}

#[test]
fn m23_a_masked_source_that_loses_its_slot_is_let_go() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    for _ in 0..101 {
        m.vmm.events(slot_badge(1), &mut m.host);
    }
    assert_eq!(m.host.throttled, [(2, true)]);
    // The guest binds anew, and another of its sources has the slot.
    m.host.routes[2] = m.host.routes[1];
    m.host.routes[1] = Some(Route {
        source: Source::msix(FunctionId(0), 4),
        ..route(0x44, false)
    });
    m.vmm.events(slot_badge(1), &mut m.host);
    assert_eq!(m.host.throttled, [(2, true), (2, false)]);
    assert_eq!(m.host.deadline, None);
}

#[test]
fn m23_a_quiet_source_is_never_masked() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    for second in 0..20 {
        m.host.now = 1000 * second;
        for _ in 0..100 {
            m.vmm.events(slot_badge(1), &mut m.host);
        }
    }
    assert!(m.host.throttled.is_empty());
}

#[test]
fn m23_the_guest_s_own_timer_goes_on_beside_a_throttled_source() {
    let functions = functions();
    let mut m = Machine::new(&functions);
    m.host.routes[1] = Some(route(0x41, false));
    let mut lapic = |offset: u64, value: u64| {
        m.regs.gpr[RCX] = 0xfee0_0000 + offset;
        m.regs.gpr[RAX] = value;
        m.memory(0xfee0_0000 + offset, &[0x89, 0x01])
    };
    lapic(0x320, 0x50);
    lapic(0x3e0, 0xb);
    lapic(0x380, 400);
    assert_eq!(m.host.deadline, Some(400));
    for _ in 0..101 {
        m.vmm.events(slot_badge(1), &mut m.host);
    }
    assert_eq!(m.host.deadline, Some(400));
    m.host.now = 400;
    m.timer();
    assert_eq!(m.host.deadline, Some(1000));
    m.host.now = 1000;
    m.timer();
    assert_eq!(m.host.throttled.last(), Some(&(2, false)));
}
