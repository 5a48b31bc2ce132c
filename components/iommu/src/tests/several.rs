//! Machines with two units, which share memory for their tables.

use std::boxed::Box;
use std::vec::Vec;

use super::board::*;
use super::intel_model::IntelModel;
use crate::*;

/// Which unit has each function: the last two share a bus, and not a unit.
const OF: [u8; 3] = [0, 0, 1];
/// A function of the second unit, and one of the first.
const SECOND: usize = 2;
const FIRST: usize = 1;

fn behind() -> Vec<Requester> {
    let all = IDS.into_iter().zip(OF);
    all.map(|(id, unit)| Requester { id, unit }).collect()
}

fn start(kind: Kind, board: &Shared, start: Start) -> Result<Box<dyn Unit>, Failed> {
    let requesters = behind();
    let memory = Memory {
        tables: board.clone(),
        base: BASE,
        size: SIZE,
        requesters: &requesters,
        firmware: &[],
        ioapic: IOAPIC,
    };
    let units = [0, 1].map(|unit| Shared(board.0.clone(), unit));
    kind.start_all(units, memory, start)
}

/// Returns a board with two units that are not set up.
fn off(kind: Kind) -> Shared {
    let board = kind.board();
    board.0.borrow_mut().second = Some(kind.model());
    board
}

/// Returns each unit of a board with two in force, and what drives them.
fn fresh(kind: Kind) -> ([Shared; 2], Box<dyn Unit>) {
    let board = off(kind);
    let unit = start(kind, &board, Start::Fresh).expect("set up");
    ([0, 1].map(|unit| Shared(board.0.clone(), unit)), unit)
}

fn attach(unit: &mut dyn Unit, function: usize) {
    unit.build(function, RAM, &[], &mut Backwards)
        .expect("build");
    unit.attach(function).expect("attach");
}

#[test]
fn nothing_passes_either_unit() {
    for kind in KINDS {
        let (units, _unit) = fresh(kind);
        for unit in &units {
            for id in 0..=u16::MAX {
                assert_eq!(unit.dma(id, RAM.address, true), None, "{kind:?} {id:#x}");
                assert_eq!(unit.interrupt(id, 0xfee0_0000, 0x31), None);
            }
        }
    }
}

#[test]
fn a_function_reaches_its_guest_through_its_own_unit() {
    for kind in KINDS {
        let (units, mut unit) = fresh(kind);
        attach(&mut *unit, FIRST);
        attach(&mut *unit, SECOND);
        for function in [FIRST, SECOND] {
            let own = &units[usize::from(OF[function])];
            let there = Some(machine(function, RAM.address));
            assert_eq!(own.dma(IDS[function], RAM.address, true), there, "{kind:?}");
        }
        assert_eq!(units[0].dma(IDS[0], RAM.address, true), None);
        if kind.is_intel() {
            // Who has its id behind the other unit reaches nothing there.
            assert_eq!(units[0].dma(IDS[SECOND], RAM.address, true), None);
            assert_eq!(units[1].dma(IDS[FIRST], RAM.address, true), None);
        }
    }
}

#[test]
fn what_is_taken_away_is_forgotten_by_its_unit() {
    for kind in KINDS {
        let (units, mut unit) = fresh(kind);
        for own in &units {
            own.0.borrow_mut().unit(own.1).0.lag();
        }
        attach(&mut *unit, FIRST);
        attach(&mut *unit, SECOND);
        let message = unit.allow(SECOND, 7, 1).expect("allow");
        for own in &units {
            // An AMD-Vi unit remembers any id that comes to it.
            own.dma(IDS[SECOND], RAM.address, true);
            own.message(IDS[SECOND], message, 0);
        }
        assert_eq!(units[1].message(IDS[SECOND], message, 0), Some(0x37));
        unit.detach(SECOND).expect("detach");
        unit.forbid(SECOND, 7, 1).expect("forbid");
        assert!(!unit.attached(SECOND) && unit.attached(FIRST));
        for own in &units {
            assert_eq!(own.dma(IDS[SECOND], RAM.address, true), None, "{kind:?}");
            assert_eq!(own.message(IDS[SECOND], message, 0), None, "{kind:?}");
        }
        let there = Some(machine(FIRST, RAM.address));
        assert_eq!(units[0].dma(IDS[FIRST], RAM.address, true), there);
    }
}

#[test]
fn a_function_raises_its_vectors_through_its_own_unit() {
    for kind in KINDS {
        let (units, mut unit) = fresh(kind);
        let second = unit.allow(SECOND, 16, 4).expect("allow");
        let first = unit.allow(FIRST, 32, 4).expect("allow");
        for number in 0..4 {
            let vector = number as u8;
            let raised = units[1].message(IDS[SECOND], second, number);
            assert_eq!(raised, Some(0x40 + vector), "{kind:?}");
            let raised = units[0].message(IDS[FIRST], first, number);
            assert_eq!(raised, Some(0x50 + vector), "{kind:?}");
            assert_eq!(units[1].message(IDS[FIRST], second, number), None);
            if kind.is_intel() {
                assert_eq!(units[0].message(IDS[SECOND], second, number), None);
            }
        }
        assert!(unit.allowed(SECOND, 16) && !unit.allowed(SECOND, 32));
    }
}

#[test]
fn a_unit_that_hangs_fails_its_own_functions() {
    for kind in KINDS {
        let (units, mut unit) = fresh(kind);
        attach(&mut *unit, FIRST);
        attach(&mut *unit, SECOND);
        for (own, function) in [(&units[0], FIRST), (&units[1], SECOND)] {
            own.dma(IDS[function], RAM.address, true);
        }
        units[0].0.borrow_mut().model.hang();
        assert_eq!(unit.detach(FIRST), Err(channel::Error::Failed), "{kind:?}");
        // An AMD-Vi unit may remember any function: whether this one does, nobody knows.
        let detached = unit.detach(SECOND);
        assert_eq!(detached.is_ok(), kind.is_intel(), "{kind:?}");
        assert_eq!(units[1].dma(IDS[SECOND], RAM.address, true), None);
    }
}

#[test]
fn both_are_in_force_or_neither() {
    for kind in KINDS {
        for broken in [0, 1] {
            let board = off(kind);
            board.0.borrow_mut().unit(broken).0.hang();
            let failed = start(kind, &board, Start::Fresh).err().expect("it hangs");
            assert_eq!(failed.unit, broken, "{kind:?}");
            assert!(matches!(failed.error, SetupError::Stuck(_)), "{failed:?}");
            for unit in [0, 1] {
                assert!(!board.0.borrow_mut().unit(unit).0.on(), "{kind:?} {unit}");
            }
        }
    }
}

#[test]
fn a_unit_that_is_not_there_or_a_function_without_one() {
    let board = off(Kind::Intel);
    board.0.borrow_mut().second = Some(Box::new(IntelModel::with(u64::MAX, u64::MAX)));
    let failed = start(Kind::Intel, &board, Start::Fresh).err();
    let absent = Failed {
        unit: 1,
        error: SetupError::Absent,
    };
    assert_eq!(failed, Some(absent));
    for kind in KINDS {
        let board = kind.board();
        // Both functions, and one unit.
        let failed = start_with(kind, [board.clone()], &board);
        assert_eq!(failed, Some(SetupError::Functions), "{kind:?}");
        let none = start_with(kind, [], &board);
        assert_eq!(none, Some(SetupError::Units), "{kind:?}");
        let many = start_with(kind, std::vec![board.clone(); spec::UNITS + 1], &board);
        assert_eq!(many, Some(SetupError::Units), "{kind:?}");
    }
}

fn start_with(
    kind: Kind,
    units: impl IntoIterator<Item = Shared>,
    board: &Shared,
) -> Option<SetupError> {
    let requesters = behind();
    let memory = Memory {
        tables: board.clone(),
        base: BASE,
        size: SIZE,
        requesters: &requesters,
        firmware: &[],
        ioapic: IOAPIC,
    };
    let started = kind.start_all(units, memory, Start::Fresh);
    started.err().map(|failed| failed.error)
}

#[test]
fn both_are_taken_over_as_they_are() {
    for kind in KINDS {
        let (units, mut unit) = fresh(kind);
        attach(&mut *unit, SECOND);
        let message = unit.allow(SECOND, 9, 1).expect("allow");
        drop(unit);
        for _ in 0..2 {
            let mut unit = start(kind, &units[0], Start::Adopt).expect("adopt");
            assert!(unit.attached(SECOND) && !unit.attached(FIRST), "{kind:?}");
            assert!(unit.allowed(SECOND, 9));
            attach(&mut *unit, FIRST);
            unit.detach(FIRST).expect("detach");
            let there = Some(machine(SECOND, RAM.address));
            assert_eq!(units[1].dma(IDS[SECOND], RAM.address, true), there);
            assert_eq!(units[1].message(IDS[SECOND], message, 0), Some(0x39));
        }
    }
}

/// Switches a unit off.
fn switch_off(kind: Kind, unit: &Shared) {
    let mut unit = unit.clone();
    if kind.is_intel() {
        // Translation, remapping, the queue.
        for command in [1 << 26 | 1 << 25, 1 << 26, 0] {
            unit.write64(0x18, command);
        }
    } else {
        unit.write64(0x18, 0);
    }
}

#[test]
fn one_that_is_off_beside_one_that_is_on_is_not_as_it_was() {
    for kind in KINDS {
        for which in [0, 1] {
            let (units, unit) = fresh(kind);
            drop(unit);
            switch_off(kind, &units[which]);
            let failed = start(kind, &units[0], Start::Adopt).err();
            let not_ours = Failed {
                unit: which,
                error: SetupError::NotOurs,
            };
            assert_eq!(failed, Some(not_ours), "{kind:?}");
            switch_off(kind, &units[1 - which]);
            let failed = start(kind, &units[0], Start::Adopt).err();
            let off = failed.map(|failed| failed.error);
            assert_eq!(off, Some(SetupError::Off), "{kind:?}");
        }
    }
}

#[test]
fn page_tables_are_such_as_both_units_walk() {
    // Three levels and large pages, or three or four and small ones.
    let large = 0x00d2_008c_2226_0206;
    let small = (large | 1 << 10) & !(3 << 34);
    let look = |first, second| {
        let board = Kind::Intel.board();
        let model = |capability| Box::new(IntelModel::with(capability, 0x00f0_0f4a));
        board.0.borrow_mut().model = model(first);
        board.0.borrow_mut().second = Some(model(second));
        start(Kind::Intel, &board, Start::Fresh).map(|unit| (board, unit))
    };
    for (first, second) in [(large, small), (small, large)] {
        let (board, mut unit) = look(first, second).expect("set up");
        for (function, of) in [(FIRST, 0), (SECOND, 1)] {
            attach(&mut *unit, function);
            let own = Shared(board.0.clone(), of);
            let there = Some(machine(function, RAM.address + 0x1008));
            assert_eq!(own.dma(IDS[function], RAM.address + 0x1008, true), there);
        }
    }
    let four = large & !(1 << 9) | 1 << 10;
    let failed = look(large, four).err().expect("no walk that both have");
    assert_eq!((failed.unit, failed.error), (1, SetupError::NoWalk));
    // A unit whose addresses are shorter.
    let narrow = large & !(0x3f << 16) | 35 << 16;
    for (first, second) in [(large, narrow), (narrow, large)] {
        let (_board, mut unit) = look(first, second).expect("set up");
        let mut build = |address| unit.build(0, Ram { address, frames: 1 }, &[], &mut Backwards);
        assert_eq!(build((1 << 36) - FRAME), Ok(()));
        assert_eq!(build(1 << 36), Err(channel::Error::Refused));
    }
}

#[test]
fn faults_of_each_unit_are_told_in_turn() {
    for kind in KINDS {
        let (units, mut unit) = fresh(kind);
        let refused = |own: &Shared, id, times| {
            for _ in 0..times {
                assert_eq!(own.dma(id, RAM.address, true), None);
            }
        };
        assert_eq!(unit.next_fault(), None);
        // As many as there are records of the smallest.
        refused(&units[0], IDS[FIRST], 1);
        refused(&units[1], IDS[SECOND], 1);
        let mut told: Vec<u16> = std::iter::from_fn(|| unit.next_fault())
            .map(|fault| fault.requester)
            .collect();
        told.sort_unstable();
        assert_eq!(told, [IDS[FIRST], IDS[SECOND]], "{kind:?}");
        // One whose device never rests hides none of the other's.
        refused(&units[1], IDS[SECOND], 1);
        let seen = (0..2).any(|_| {
            refused(&units[0], IDS[FIRST], 1);
            let fault = unit.next_fault().expect("a fault");
            fault.requester == IDS[SECOND]
        });
        assert!(seen, "{kind:?}");
        assert!(!unit.overflowed(), "{kind:?}");
        refused(&units[1], IDS[SECOND], 300);
        assert!(unit.overflowed(), "{kind:?}");
    }
}
