//! The component dies and starts again; the unit goes on.

use spec::VECTORS;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

use super::board::*;
use crate::*;

/// Returns the visible state of a unit.
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

/// Returns a board with function 1 attached with two vectors, function 2 built,
/// and function 0 untouched.
fn running(kind: Kind) -> (Shared, Box<dyn Unit>) {
    let (board, mut unit) = kind.fresh();
    for function in [1, 2] {
        unit.build(function, RAM, &[], &mut Backwards)
            .expect("build");
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
        unit.build(0, ram, &[], &mut Backwards).expect("build");
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
            requesters: &requesters(&IDS),
            firmware: &[],
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

/// One register of those that say whose tables the unit uses, changed while the
/// component was dead. Whoever did that, the unit is not ours any more.
#[test]
fn each_register_that_leads_to_a_table_is_looked_at() {
    for kind in KINDS {
        let registers: &[(usize, u64)] = if kind.is_intel() {
            // Root table, queue, interrupt table (VT-d 11.4).
            &[
                (0x20, BASE + 0x1000),
                (0x90, BASE + 0x1000),
                (0xb8, BASE + 0x1000),
            ]
        } else {
            // Device table, command buffer, event log, exclusion range (48882
            // section 3.4).
            &[
                (0x00, (BASE + 0x1000) | 511),
                (0x00, BASE | 510),
                (0x08, (BASE + 0x1000) | 8 << 56),
                (0x10, (BASE + 0x1000) | 8 << 56),
                (0x20, 1),
            ]
        };
        for &(register, value) in registers {
            let (board, unit) = running(kind);
            drop(unit);
            assert!(kind.start(&board, Start::Adopt).is_ok());
            // Off meanwhile, bit by bit where the unit wants that.
            let control = board.clone().read64(0x18);
            let (off, on): (&[u64], &[u64]) = if kind.is_intel() {
                let (queue, both) = (1 << 26, 1 << 26 | 1 << 25);
                (&[both, queue, 0], &[queue, both, both | 1 << 31])
            } else {
                (&[control & !1], &[control])
            };
            let mut registers = board.clone();
            off.iter().for_each(|value| registers.write64(0x18, *value));
            let before = registers.read64(register);
            registers.write64(register, value);
            assert_ne!(registers.read64(register), before, "{register:#x}");
            if (kind.is_intel(), register) == (true, 0x90) {
                // An empty queue.
                registers.write64(0x88, 0);
            }
            on.iter().for_each(|value| registers.write64(0x18, *value));
            let error = kind.start(&board, Start::Adopt).err();
            assert_eq!(error, Some(SetupError::NotOurs), "{kind:?} {register:#x}");
        }
    }
}

/// On in part is not on: commands that are not run take nothing away.
#[test]
fn a_unit_that_is_on_in_part_is_not_ours() {
    for kind in KINDS {
        let (board, unit) = running(kind);
        drop(unit);
        let mut registers = board.clone();
        let part = if kind.is_intel() {
            // Without translation.
            1 << 26 | 1 << 25
        } else {
            // Without commands.
            registers.read64(0x18) & !(1 << 12)
        };
        registers.write64(0x18, part);
        let error = kind.start(&board, Start::Adopt).err();
        assert_eq!(error, Some(SetupError::NotOurs), "{kind:?}");
    }
}
