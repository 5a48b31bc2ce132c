//! The component dies and starts again; the unit goes on.

use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

use super::board::*;
use crate::*;

/// What there is to see of a unit.
fn state(unit: &dyn Unit) -> Vec<(bool, Vec<u8>)> {
    let vectors = |function| {
        (0..VECTORS)
            .filter(|v| unit.allowed(function, *v))
            .collect()
    };
    (0..IDS.len())
        .map(|function| (unit.attached(function), vectors(function)))
        .collect()
}

/// Function 1 attached with two vectors, function 2 built, function 0 nothing.
fn running(kind: Kind) -> (Shared, Box<dyn Unit>) {
    let (board, mut unit) = kind.fresh();
    for function in [1, 2] {
        unit.build(function, RAM, &mut Backwards).expect("build");
    }
    unit.attach(1).expect("attach");
    unit.allow(1, 20, 2).expect("allow");
    board.0.borrow_mut().model.lag();
    (board, unit)
}

#[test]
fn what_was_is_and_nothing_goes_off_meanwhile() {
    for kind in KINDS {
        let (board, unit) = running(kind);
        let before = state(&*unit);
        board.0.borrow_mut().probes = Vec::from([
            (IDS[1], RAM.address, Some(machine(1, RAM.address))),
            (IDS[0], RAM.address, None),
            (IDS[2], RAM.address, None),
            (STRANGERS[0], 0, None),
        ]);
        drop(unit);
        for _ in 0..3 {
            let mut unit = kind.start(&board, Start::Adopt).expect("adopt");
            assert_eq!(state(&*unit), before, "{kind:?}");
            // And it obeys.
            unit.allow(2, 3, 1).expect("allow");
            unit.forbid(2, 3, 1).expect("forbid");
        }
    }
}

/// What a component was doing when it died.
const WORK: [fn(&mut dyn Unit); 6] = [
    |unit| unit.detach(1).expect("detach"),
    |unit| unit.attach(1).expect("attach"),
    |unit| unit.attach(2).expect("attach"),
    |unit| assert!(unit.allow(1, 40, 4).is_ok()),
    |unit| unit.forbid(1, 20, 2).expect("forbid"),
    |unit| {
        let ram = Ram { frames: 1, ..RAM };
        unit.build(0, ram, &mut Backwards).expect("build");
    },
];

#[test]
fn wherever_it_dies_the_tables_tell_the_truth_afterwards() {
    for kind in [Kind::Amd, Kind::Intel, Kind::OddIntel] {
        for (number, work) in WORK.into_iter().enumerate() {
            for writes in 0.. {
                let (board, mut unit) = running(kind);
                // So that the unit remembers something.
                board.dma(IDS[1], RAM.address, true);
                let message = unit.allow(1, 20, 2).expect("allow");
                board.message(IDS[1], message, 1);
                board.0.borrow_mut().dies_in = Some(writes);
                let died = catch_unwind(AssertUnwindSafe(|| work(&mut *unit))).is_err();
                board.0.borrow_mut().dies_in = None;
                let unit = kind.start(&board, Start::Adopt).expect("adopt");
                let place = std::format!("{kind:?} work {number} write {writes}");
                for (function, id) in IDS.into_iter().enumerate() {
                    let there = Some(machine(function, RAM.address));
                    let expected = there.filter(|_| unit.attached(function));
                    let reached = board.dma(id, RAM.address, true);
                    assert_eq!(reached, expected, "{place}");
                }
                for number in 0..2 {
                    let vector = 20 + number as u8;
                    let expected = Some(0x30 + vector).filter(|_| unit.allowed(1, vector));
                    assert_eq!(board.message(IDS[1], message, number), expected, "{place}");
                }
                if !died {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_wait_from_before_is_not_taken_for_ours() {
    for kind in KINDS {
        let (board, unit) = running(kind);
        drop(unit);
        board.0.borrow_mut().model.hang();
        let error = kind.start(&board, Start::Adopt).err();
        assert!(matches!(error, Some(SetupError::Lost(_))), "{kind:?}");
    }
}

#[test]
fn a_unit_that_is_not_as_it_was() {
    for kind in KINDS {
        // Never set up, and off.
        let board = kind.board();
        let off = match kind {
            Kind::Amd | Kind::OldAmd => (0x18, 0),
            Kind::Intel | Kind::OddIntel => (0x18, 1 << 26 | 1 << 23),
        };
        board.clone().write64(off.0, off.1);
        if kind.is_intel() {
            board.clone().write64(0x18, 1 << 23);
        }
        let error = kind.start(&board, Start::Adopt).err();
        assert_eq!(error, Some(SetupError::Off), "{kind:?}");
        // On with other tables.
        let (board, unit) = running(kind);
        drop(unit);
        let memory = Memory {
            tables: board.clone(),
            base: BASE + (2 << 20),
            size: SIZE,
            requesters: &IDS,
            ioapic: IOAPIC,
        };
        let error = kind.start_with(&board, memory, Start::Adopt).err();
        assert_eq!(error, Some(SetupError::NotOurs), "{kind:?}");
        // On, and letting old messages pass.
        if kind.is_intel() {
            let (board, unit) = running(kind);
            drop(unit);
            board
                .clone()
                .write64(0x18, 1 << 31 | 1 << 26 | 1 << 25 | 1 << 23);
            let error = kind.start(&board, Start::Adopt).err();
            assert_eq!(error, Some(SetupError::NotOurs), "{kind:?}");
        }
        assert!(SetupError::NotOurs.lost() && !SetupError::Off.lost());
    }
}
