//! Message control: enable, function mask, and what they bind (M1 to M6).

use super::*;
use crate::entry::{BOUND, UPDATED};

#[test]
fn m1_control_is_never_the_hardwares() {
    let mut rig = rig();
    assert_eq!(rig.msix.read_control(CONTROL, FunctionId(0)), Ok(69));
    rig.control(ENABLE | FUNCTION_MASK);
    assert_eq!(
        rig.msix.read_control(CONTROL, FunctionId(0)),
        Ok(0xc000 | 69)
    );
    assert_eq!(
        MsixDump::state(&mut rig.msix, VMM, FunctionId(0)),
        Ok(0xc000 | 69)
    );
    rig.control(FUNCTION_MASK);
    assert_eq!(
        rig.msix.read_control(CONTROL, FunctionId(0)),
        Ok(0x4000 | 69)
    );
}

#[test]
fn m2_other_bits_do_not_count_and_no_change_is_nothing() {
    let mut rig = Rig::live(&[3]);
    rig.write(at(3, 8), Width::Dword, 0x99);
    assert_eq!(rig.control(ENABLE | 0x3fff), None);
    assert_eq!(rig.log(), []);
}

#[test]
fn m3_enable_updates_what_is_due_in_order() {
    let mut rig = rig();
    for entry in [65, 2, 9, 4] {
        rig.program(entry, 0xfee0_0000, 0x30 + u32::from(entry));
    }
    for entry in [65, 2, 9, 0] {
        rig.mask(entry, false);
    }
    assert_eq!(rig.log(), []);
    rig.control(ENABLE);
    assert_eq!(rig.routed(), [bound(2), bound(9), bound(65)]);
}

#[test]
fn m3_clearing_the_function_mask_updates_what_is_due() {
    let mut rig = Rig::live(&[1, 2]);
    rig.control(ENABLE | FUNCTION_MASK);
    rig.write(at(2, 8), Width::Dword, 0x77);
    rig.log();
    rig.control(ENABLE);
    let expected = [FunctionMask(false), Unbind(2), Bind(2, 0xfee0_0000, 0x77)];
    assert_eq!(rig.routed(), expected);
}

#[test]
fn m4_disable_unbinds_in_order_and_enable_binds_again() {
    let mut rig = Rig::live(&[8, 1, 69]);
    assert_eq!(rig.control(0), Some(69));
    assert_eq!(rig.routed(), [Unbind(1), Unbind(8), Unbind(69)]);
    rig.control(ENABLE);
    assert_eq!(rig.routed(), [bound(1), bound(8), bound(69)]);
}

#[test]
fn m4_an_unbind_error_stops_and_keeps_control() {
    let mut rig = Rig::live(&[1, 4, 8]);
    rig.fail(&[], &[4]);
    assert_eq!(rig.control(FUNCTION_MASK), None);
    assert_eq!(rig.routed(), [Unbind(1)]);
    assert_eq!(
        rig.msix.read_control(CONTROL, FunctionId(0)),
        Ok(ENABLE | 69)
    );
    assert!(rig.entry(1).is(UPDATED) && !rig.entry(1).is(BOUND));
    assert!(!rig.entry(4).is(UPDATED) && rig.entry(4).is(BOUND));
    assert_eq!(rig.entry(4).error(), Some(Error::Failed));
    assert_eq!([1, 4, 8].map(|entry| rig.device(entry, 12)), [1, 0, 0]);
    assert_eq!(rig.msix.counters.unbind_failures, 1);
    rig.fail(&[], &[]);
    assert_eq!(rig.control(0), Some(69));
    assert_eq!(rig.routed(), [Unbind(4), Unbind(8)]);
}

/// A router that dies in each call may have lost an entry, and given its vector away.
#[test]
fn m4_an_entry_that_the_router_lost_stays_masked() {
    let mut rig = Rig::live(&[1, 4, 8]);
    {
        let mut world = rig.fake.0.borrow_mut();
        world.dies = true;
        world.bound.remove(&(FunctionId(0), 4));
    }
    assert_eq!(rig.control(0), None);
    assert_eq!([1, 4, 8].map(|entry| rig.device(entry, 12)), [0, 1, 0]);
    assert_eq!(rig.entry(1).error(), Some(Error::Failed));
    rig.fake.0.borrow_mut().dies = false;
    rig.log();
    rig.fake.0.borrow_mut().bound.insert((FunctionId(0), 4));
    assert_eq!(rig.control(0), Some(69));
    assert_eq!(rig.routed(), [Unbind(1), Unbind(4), Unbind(8)]);
}

#[test]
fn m4_the_function_mask_binds_and_unbinds_nothing() {
    let mut rig = Rig::live(&[1]);
    assert_eq!(rig.control(ENABLE | FUNCTION_MASK), Some(0xc000 | 69));
    assert_eq!(rig.routed(), [FunctionMask(true)]);
    let mut rig = self::rig();
    rig.program(1, 0xfee0_0000, 0x31);
    rig.mask(1, false);
    rig.control(ENABLE | FUNCTION_MASK);
    assert_eq!(rig.routed(), [FunctionMask(true)]);
}

#[test]
fn m5_bind_error_keeps_updated() {
    let mut rig = rig();
    for entry in [1, 2] {
        rig.program(entry, 0xfee0_0000, 0x30 + u32::from(entry));
        rig.mask(entry, false);
    }
    rig.fail(&[1], &[]);
    assert_eq!(rig.control(ENABLE), Some(ENABLE | 69));
    assert_eq!(rig.routed(), [bound(2)]);
    let entry = rig.entry(1);
    assert!(entry.is(UPDATED) && !entry.masked() && !entry.is(BOUND));
    assert_eq!(entry.error(), Some(Error::Failed));
    assert_eq!(rig.device(1, 12), 1);
    assert_eq!(rig.msix.counters.bind_failures, 1);
    rig.fail(&[], &[]);
    rig.mask(1, true);
    rig.mask(1, false);
    assert_eq!(rig.routed(), [bound(1)]);
    assert_eq!(rig.entry(1).error(), None);
    assert!(!rig.entry(1).is(UPDATED));
}

#[test]
fn m5_a_failed_bind_is_retried_at_mask_clear_and_enable() {
    let mut rig = rig();
    rig.program(1, 0xfee0_0000, 0x31);
    rig.mask(1, false);
    rig.fail(&[1], &[]);
    rig.control(ENABLE);
    rig.fail(&[], &[]);
    rig.control(ENABLE | FUNCTION_MASK);
    rig.log();
    rig.control(ENABLE);
    assert_eq!(rig.routed(), [FunctionMask(false), bound(1)]);
}

#[test]
fn m5_unbind_error_keeps_the_old_binding() {
    let mut rig = Rig::live(&[1]);
    rig.mask(1, true);
    rig.write(at(1, 8), Width::Dword, 0x77);
    rig.fail(&[], &[1]);
    rig.log();
    rig.mask(1, false);
    assert_eq!(rig.routed(), []);
    let entry = rig.entry(1);
    assert!(entry.is(UPDATED) && entry.is(BOUND) && !entry.masked());
    assert_eq!(rig.device(1, 12), 1, "as masked in the device as before");
    rig.fail(&[], &[]);
    rig.mask(1, true);
    rig.mask(1, false);
    let expected = [Mask(1, true), Unbind(1), Bind(1, 0xfee0_0000, 0x77)];
    assert_eq!(rig.routed(), expected);
}

#[test]
fn m5_the_entry_is_written_while_masked() {
    let mut rig = Rig::live(&[]);
    rig.program(1, 0xfee0_1000, 0x55);
    assert_eq!(rig.log(), []);
    rig.mask(1, false);
    let dword = |field, value| Write(at(1, field), Width::Dword, value);
    let written = [
        dword(0, HOST & 0xffff_ffff),
        dword(4, HOST >> 32),
        dword(8, 0x1001),
        dword(12, 0),
    ];
    let log = rig.log();
    assert_eq!(log[0], Bind(1, 0xfee0_1000, 0x55));
    assert_eq!(log[1..], written);
}

#[test]
fn m6_enable_tells_what_to_write() {
    let mut rig = rig();
    assert_eq!(rig.control(ENABLE), Some(ENABLE | 69));
    assert_eq!(rig.log(), []);
}

/// Returns the largest table, each entry unmasked and updated with this
/// message, under the function mask.
fn largest(data: u32, room: usize, error: Error) -> Rig {
    let mut rig = rig_of(2053, |functions| {
        let msix = &mut functions[0].msix;
        msix.entries = 2048;
        msix.pba_offset = 0xa000;
        msix.page_count = 10;
        for (index, page) in (1..=10).enumerate() {
            msix.pages[index] = MsixPage { bar: 0, page };
        }
    });
    rig.control(ENABLE | FUNCTION_MASK);
    for entry in 0..2048 {
        rig.program(entry, 0xfee0_0000, data);
        rig.mask(entry, false);
    }
    rig.fake.0.borrow_mut().room = Some((room, error));
    rig
}

impl Rig {
    /// Calls of the router and accesses to the device by a write of control.
    fn cost(&mut self, value: u16) -> (u32, u32) {
        let before = {
            let world = self.fake.0.borrow();
            (world.calls, world.accesses)
        };
        self.control(value);
        self.log();
        let world = self.fake.0.borrow();
        (world.calls - before.0, world.accesses - before.1)
    }
}

#[test]
fn m5_what_is_refused_for_a_whole_table_costs_a_few_calls() {
    // Slots; nothing that works at all; a message that no local APIC takes.
    for (data, room, error, calls) in [
        (0x41, 26, Error::Exhausted, 9),
        (0x41, 0, Error::Exhausted, 1),
        (0x41, 0, Error::Failed, 3),
        (0x41, 0, Error::Gone(1), 12),
        (0x41, 26, Error::Failed, 12),
        (0x41, 0, Error::NotFound, 3),
        (0x05, 26, Error::Exhausted, 0),
    ] {
        let mut rig = largest(data, room, error);
        // A guest may toggle as often as it likes, by either bit.
        for (off, on) in [(ENABLE | FUNCTION_MASK, ENABLE), (0, ENABLE)] {
            let failures = rig.msix.counters.bind_failures.get();
            let (made, accesses) = rig.cost(on);
            assert!(made <= calls, "{made} calls, {error:?}");
            assert!(accesses <= 26 * 7, "{accesses} accesses, {error:?}");
            let bound = rig.fake.0.borrow().bound.len();
            assert_eq!(bound, if data == 0x41 { room } else { 0 });
            // The guest and a dump see the same as if each had been tried.
            let failed = rig.msix.counters.bind_failures.get() - failures;
            let waiting = (0..2048).filter(|&entry| rig.entry(entry).is(UPDATED));
            assert_eq!(failed, waiting.count() as u64);
            assert_eq!(failed, 2048 - bound as u64);
            let (warned, failure) = rig.msix.take_failures().expect("a warning");
            assert_eq!((u64::from(warned), failure.entry), (failed, 2047));
            let last = rig.entry(2047);
            let why = match error {
                _ if data != 0x41 => Error::Refused,
                // A router that dies in each try.
                Error::Gone(_) => Error::Failed,
                error => error,
            };
            assert!(!last.is(BOUND) && last.error() == Some(why), "{last:?}");
            let (made, accesses) = rig.cost(off);
            assert!(made <= 1 && accesses <= 26 + 1, "{made} {accesses}");
            if off != 0 {
                rig.cost(0);
            }
        }
    }
}

#[test]
fn m5_bad_entries_do_not_keep_good_ones_from_being_bound() {
    let mut rig = largest(0x41, 26, Error::Exhausted);
    for entry in 0..2000 {
        rig.program(entry, 0xfee0_0000, 0x05);
    }
    let (calls, _) = rig.cost(ENABLE);
    assert_eq!(calls, 9);
    assert!(rig.entry(2000).is(BOUND));
    // The slot and vector of a bound entry are free again when its new message is refused.
    let mut rig = largest(0x41, 26, Error::Exhausted);
    rig.cost(ENABLE);
    assert!(!rig.entry(26).is(BOUND));
    rig.control(ENABLE | FUNCTION_MASK);
    rig.program(25, 0xfee0_0000, 0x05);
    rig.program(3, 0xfee0_0000, 0x05);
    rig.cost(ENABLE);
    let bound = [3, 25, 26, 27, 28].map(|entry| rig.entry(entry).is(BOUND));
    assert_eq!(bound, [false, false, true, true, false]);
    // A few that the router refuses, each for itself, do not either.
    let mut rig = largest(0x41, 26, Error::Exhausted);
    rig.fail(&[0, 1, 2, 3, 4, 5, 6], &[]);
    rig.cost(ENABLE);
    assert!(rig.entry(7).is(BOUND) && rig.entry(32).is(BOUND));
}
