//! What functions reach and may raise, on every kind of unit.

use std::vec::Vec;

use channel::Error;

use super::board::*;
use crate::*;

fn attach(unit: &mut dyn Unit, function: usize) {
    unit.build(function, RAM, &[], &mut Backwards)
        .expect("build");
    unit.attach(function).expect("attach");
}

#[test]
fn an_attached_function_reaches_its_guest_and_nothing_else() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 1);
        let end = RAM.address + RAM.frames * FRAME;
        for address in (RAM.address..end).step_by(0x1000) {
            for write in [false, true] {
                let there = Some(machine(1, address) + 8);
                assert_eq!(board.dma(IDS[1], address + 8, write), there, "{kind:?}");
            }
        }
        let outside = [
            0,
            RAM.address - 8,
            end,
            0xfee0_0000,
            1 << 38,
            1 << 39,
            1 << 48,
        ];
        for address in outside {
            assert_eq!(board.dma(IDS[1], address, true), None, "{address:#x}");
        }
        for id in [IDS[0], IDS[2]].iter().chain(&STRANGERS) {
            assert_eq!(board.dma(*id, RAM.address, false), None);
        }
    }
}

#[test]
fn a_detached_function_reaches_nothing_that_was_remembered() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        board.0.borrow_mut().model.lag();
        attach(&mut *unit, 1);
        attach(&mut *unit, 2);
        assert!(unit.attached(1) && unit.attached(2) && !unit.attached(0));
        for function in [1, 2] {
            let there = Some(machine(function, RAM.address));
            assert_eq!(board.dma(IDS[function], RAM.address, true), there);
        }
        let other = (IDS[2], RAM.address, Some(machine(2, RAM.address)));
        board.0.borrow_mut().probes = Vec::from([other]);
        unit.detach(1).expect("detach");
        assert!(!unit.attached(1) && unit.attached(2));
        assert_eq!(board.dma(IDS[1], RAM.address, true), None, "{kind:?}");
        // Also once more, and back again.
        unit.detach(1).expect("detach");
        unit.attach(1).expect("attach");
        unit.attach(1).expect("attach");
        let there = Some(machine(1, RAM.address));
        assert_eq!(board.dma(IDS[1], RAM.address, true), there);
    }
}

/// Errors of a unit's queue: bits of VT-d's fault status, and AMD-Vi's events.
const QUEUE_ERRORS: [(Kind, u32, &str); 8] = [
    (Kind::Intel, 1 << 4, "stood still"),
    (Kind::OddIntel, 1 << 4, "stood still"),
    (Kind::Intel, 1 << 5, "answer to an invalidation is wrong"),
    (Kind::Intel, 1 << 6, "does not answer"),
    (Kind::OddIntel, 1 << 6, "does not answer"),
    (Kind::Amd, 5, "illegal command"),
    (Kind::OldAmd, 5, "illegal command"),
    (Kind::Amd, 6, "cannot be read"),
];

#[test]
fn what_the_queue_refuses_is_asked_for_again() {
    for (kind, error, why) in QUEUE_ERRORS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 1);
        let message = unit.allow(1, 7, 1).expect("allow");
        let there = Some(machine(1, RAM.address));
        assert_eq!(board.dma(IDS[1], RAM.address, true), there);
        assert_eq!(board.message(IDS[1], message, 0), Some(0x37));
        board.0.borrow_mut().model.refuse(2, error);
        unit.detach(1).expect("detach");
        assert_eq!(board.dma(IDS[1], RAM.address, true), None, "{kind:?} {why}");
        board.0.borrow_mut().model.refuse(3, error);
        unit.forbid(1, 7, 1).expect("forbid");
        assert_eq!(board.message(IDS[1], message, 0), None, "{kind:?} {why}");
        // Each is on record, besides what the device tried.
        let faults: Vec<_> = std::iter::from_fn(|| unit.next_fault()).collect();
        let of_queue = faults.iter().filter(|fault| fault.requester == NO_DEVICE);
        let reasons: Vec<_> = of_queue.map(|fault| unit.explain(fault.reason)).collect();
        assert_eq!(reasons.len(), 5, "{faults:?}");
        assert!(reasons.iter().all(|text| text.contains(why)), "{reasons:?}");
    }
}

#[test]
fn a_queue_that_always_fails_is_given_up_and_not_for_ever() {
    for (kind, error, why) in QUEUE_ERRORS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 1);
        board.0.borrow_mut().model.refuse(usize::MAX, error);
        assert_eq!(unit.detach(1), Err(Error::Failed), "{kind:?} {why}");
        board.0.borrow_mut().model.refuse(0, 0);
        unit.detach(1).expect("it works again");
        assert_eq!(board.dma(IDS[1], RAM.address, true), None, "{kind:?} {why}");
    }
}

#[test]
fn an_error_of_the_queue_is_found_by_who_takes_over() {
    for (kind, error, why) in QUEUE_ERRORS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 1);
        board.0.borrow_mut().model.refuse(usize::MAX, error);
        assert_eq!(unit.detach(1), Err(Error::Failed));
        board.0.borrow_mut().model.refuse(1, error);
        let mut unit = kind.start(&board, Start::Adopt).expect("taken over");
        assert_eq!(board.dma(IDS[1], RAM.address, true), None, "{kind:?} {why}");
        unit.attach(1).expect("attach");
        let there = Some(machine(1, RAM.address));
        assert_eq!(board.dma(IDS[1], RAM.address, true), there);
    }
}

/// A device that never rests: the models refuse entries that are half written.
#[test]
fn no_entry_is_seen_half_written() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        unit.build(1, RAM, &[], &mut Backwards).expect("build");
        board.0.borrow_mut().meanwhile = Some(|model, ram| {
            model.dma(ram, IDS[1], RAM.address, true);
            for address in [0xfee0_0000, 0xfee0_0018 | (128 + 7) << 5] {
                model.interrupt(ram, IDS[1], address, 7);
                model.interrupt(ram, IDS[1], address, 0);
            }
        });
        unit.attach(1).expect("attach");
        let message = unit.allow(1, 7, 1).expect("allow");
        let there = Some(machine(1, RAM.address));
        assert_eq!(board.dma(IDS[1], RAM.address, true), there, "{kind:?}");
        assert_eq!(board.message(IDS[1], message, 0), Some(0x37), "{kind:?}");
        unit.detach(1).expect("detach");
        unit.forbid(1, 7, 1).expect("forbid");
        board.0.borrow_mut().meanwhile = None;
        assert_eq!(board.dma(IDS[1], RAM.address, true), None, "{kind:?}");
        assert_eq!(board.message(IDS[1], message, 0), None, "{kind:?}");
    }
}

#[test]
fn to_build_again_changes_nothing() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 0);
        attach(&mut *unit, 1);
        let before = board.0.borrow().ram.seen.clone();
        board.0.borrow_mut().probes = Vec::from([
            (IDS[0], RAM.address, Some(machine(0, RAM.address))),
            (IDS[1], RAM.address, Some(machine(1, RAM.address))),
        ]);
        unit.build(0, RAM, &[], &mut Backwards).expect("build");
        assert!(before == board.0.borrow().ram.seen, "{kind:?}");
    }
}

#[test]
fn memory_that_no_function_may_have() {
    for kind in KINDS {
        let (_board, mut unit) = kind.fresh();
        let mut build =
            |address, frames| unit.build(0, Ram { address, frames }, &[], &mut Backwards);
        let refused = Err(Error::Refused);
        assert_eq!(build(RAM.address, 0), refused);
        assert_eq!(build(RAM.address + 0x1000, 1), refused);
        // The interrupt address range, from below, inside and from above.
        assert_eq!(build(0xfec0_0000, 1), Ok(()));
        assert_eq!(build(0xfec0_0000, 2), refused);
        assert_eq!(build(0xfee0_0000, 1), refused);
        assert_eq!(build(0, 1 << 11), refused);
        // 0xfef00000 lies in the middle of a frame.
        assert_eq!(build(0xff00_0000, 1), Ok(()));
        assert_eq!(build(u64::MAX - FRAME + 1, 1), refused);
        assert_eq!(build(0, u64::MAX), refused);
        let walk = if kind == Kind::OddIntel { 48 } else { 39 };
        assert_eq!(build((1 << walk) - FRAME, 2), refused);
        assert_eq!(build((1 << walk) - FRAME, 1), Ok(()), "{kind:?}");
    }
}

#[test]
fn frames_that_are_not_there_or_not_aligned() {
    struct Few(u64);
    impl Frames for Few {
        fn machine(&mut self, _: usize, index: u64) -> Option<u64> {
            (index == 0).then_some(self.0)
        }
    }
    for kind in KINDS {
        let (_board, mut unit) = kind.fresh();
        let mut build = |machine, frames| {
            let ram = Ram { frames, ..RAM };
            unit.build(0, ram, &[], &mut Few(machine))
        };
        assert_eq!(build(FRAME, 1), Ok(()));
        assert_eq!(build(FRAME, 2), Err(Error::Failed));
        assert_eq!(build(FRAME + 0x1000, 1), Err(Error::Refused));
        assert_eq!(build(1 << 52, 1), Err(Error::Refused));
    }
}

#[test]
fn more_than_the_tables_hold_is_exhausted_and_stays_in_its_share() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 1);
        attach(&mut *unit, 2);
        // A frame in every GiB needs a table for each.
        struct Always;
        impl Frames for Always {
            fn machine(&mut self, _: usize, _: u64) -> Option<u64> {
                Some(0x4000_0000)
            }
        }
        let mut large = Ram {
            address: 0x1_0000_0000,
            frames: 512 * 400,
        };
        if kind == Kind::OddIntel {
            large.frames = 600;
        }
        let result = unit.build(0, large, &[], &mut Always);
        assert_eq!(result, Err(Error::Exhausted), "{kind:?}");
        for function in [1, 2] {
            let there = Some(machine(function, RAM.address));
            assert_eq!(board.dma(IDS[function], RAM.address, true), there);
        }
        assert_eq!(board.dma(IDS[0], RAM.address, true), None);
    }
}

#[test]
fn a_function_raises_what_it_is_allowed_and_nothing_else() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        let one = unit.allow(1, 107, 1).expect("allow");
        let block = unit.allow(1, 16, 16).expect("allow");
        unit.allow(0, 64, 16).expect("allow");
        unit.allow(2, 64, 16).expect("allow");
        assert_eq!(board.message(IDS[1], one, 0), Some(0x30 + 107), "{kind:?}");
        for number in 0..16 {
            let vector = 0x40 + number as u8;
            assert_eq!(board.message(IDS[1], block, number), Some(vector));
            assert!(unit.allowed(1, 16 + number as u8));
        }
        assert!(!unit.allowed(1, 15) && !unit.allowed(1, 32) && !unit.allowed(0, 16));
        // The same message by another function.
        for id in [IDS[0], IDS[2]].iter().chain(&STRANGERS) {
            for number in 0..16 {
                assert_eq!(board.message(*id, block, number), None, "{kind:?} {id:#x}");
            }
        }
        // Any other message: no vector that is not allowed.
        for data in 0..0x1000 {
            for address in [block.0, 0xfee0_0000, 0xfeef_fffc] {
                if let Some(vector) = board.interrupt(IDS[1], address, data) {
                    assert!(vector == 0x30 + 107 || (0x40..0x50).contains(&vector));
                }
            }
        }
    }
}

#[test]
fn each_further_vector_has_one_more_in_its_data() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        board.0.borrow_mut().model.lag();
        // Neither aligned nor a power of two.
        let (address, data) = unit.allow(1, 41, 26).expect("allow");
        for number in 0..26 {
            let vector = board.interrupt(IDS[1], address, data + number);
            assert_eq!(vector, Some(0x30 + 41 + number as u8), "{kind:?}");
        }
        unit.forbid(1, 42, 3).expect("forbid");
        let raised = (0..26).filter(|number| {
            let vector = board.interrupt(IDS[1], address, data + number);
            vector.is_some()
        });
        assert!(raised.eq((0..1).chain(4..26)), "{kind:?}");
    }
}

#[test]
fn a_vector_that_is_forbidden_is_forgotten() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        board.0.borrow_mut().model.lag();
        let first = unit.allow(0, 8, 2).expect("allow");
        let other = unit.allow(0, 10, 1).expect("allow");
        let neighbour = unit.allow(2, 8, 1).expect("allow");
        assert_eq!(board.message(IDS[0], first, 1), Some(0x39));
        unit.forbid(0, 8, 2).expect("forbid");
        assert!(!unit.allowed(0, 8) && !unit.allowed(0, 9) && unit.allowed(0, 10));
        assert_eq!(board.message(IDS[0], first, 0), None, "{kind:?}");
        assert_eq!(board.message(IDS[0], first, 1), None, "{kind:?}");
        assert_eq!(board.message(IDS[0], other, 0), Some(0x3a));
        assert_eq!(board.message(IDS[2], neighbour, 0), Some(0x38));
        // Twice does no harm, and it comes back.
        unit.forbid(0, 8, 2).expect("forbid");
        assert_eq!(unit.allow(0, 8, 2), Ok(first));
        assert_eq!(board.message(IDS[0], first, 1), Some(0x39));
    }
}

#[test]
fn positions_that_are_no_function() {
    for kind in KINDS {
        let (_board, mut unit) = kind.fresh();
        for function in [3, 8, usize::MAX] {
            let none = Err(Error::NotFound);
            assert_eq!(unit.build(function, RAM, &[], &mut Backwards), none);
            assert_eq!(unit.attach(function), none);
            assert_eq!(unit.detach(function), none);
            assert_eq!(unit.forbid(function, 0, 1), none);
            assert_eq!(unit.allow(function, 0, 1), Err(Error::NotFound));
        }
        assert!(!unit.attached(3) && !unit.allowed(3, 0));
    }
}

#[test]
fn a_unit_that_hangs_fails_what_waits_for_it() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 1);
        unit.build(0, RAM, &[], &mut Backwards).expect("build");
        board.0.borrow_mut().model.hang();
        assert_eq!(unit.detach(1), Err(Error::Failed), "{kind:?}");
        assert_eq!(unit.attach(0), Err(Error::Failed));
        assert!(!unit.attached(0));
        assert_eq!(unit.allow(0, 3, 1), Err(Error::Failed));
        assert_eq!(board.dma(IDS[0], RAM.address, false), None);
    }
}

#[test]
fn the_ring_of_commands_wraps() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        board.0.borrow_mut().model.lag();
        attach(&mut *unit, 1);
        for _ in 0..300 {
            unit.detach(1).expect("detach");
            assert_eq!(board.dma(IDS[1], RAM.address, true), None);
            unit.attach(1).expect("attach");
            assert!(board.dma(IDS[1], RAM.address, true).is_some());
        }
    }
}

#[test]
fn faults_are_told_once_and_in_full() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        attach(&mut *unit, 1);
        assert_eq!(unit.next_fault(), None);
        assert!(!unit.overflowed());
        for (write, id) in [(true, IDS[1]), (false, IDS[1]), (true, IDS[2])] {
            board.dma(id, 0x7_5000, write);
            let fault = unit.next_fault().expect("a fault");
            assert_eq!(
                (fault.requester, fault.write, fault.interrupt, fault.address),
                (id, write, false, 0x7_5000),
                "{kind:?}"
            );
            let why = unit.explain(fault.reason);
            assert!(why.starts_with("not "), "{why}");
            assert_eq!(unit.next_fault(), None);
        }
        let message = unit.allow(1, 5, 1).expect("allow");
        board.message(IDS[1], message, 2);
        let fault = unit.next_fault().expect("a fault");
        assert!(fault.interrupt && fault.requester == IDS[1], "{kind:?}");
    }
}

#[test]
fn lost_faults_are_noticed_and_new_ones_come() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        for _ in 0..600 {
            board.dma(IDS[0], 0x1000, true);
        }
        let mut taken = 0;
        while unit.next_fault().is_some() {
            taken += 1;
        }
        assert!((1..600).contains(&taken), "{kind:?}: {taken}");
        assert!(unit.overflowed());
        assert!(!unit.overflowed());
        board.dma(IDS[2], 0x2000, false);
        assert_eq!(unit.next_fault().map(|fault| fault.requester), Some(IDS[2]));
        assert_eq!(unit.next_fault(), None);
    }
}
