//! What setting a unit up needs and leaves.

use std::boxed::Box;

use super::amd_model::AmdModel;
use super::board::*;
use super::intel_model::IntelModel;
use crate::*;

#[test]
fn nothing_passes_from_the_first_moment() {
    for kind in KINDS {
        let board = kind.board();
        let places = [0, RAM.address, BASE, 0xffff_f000, 1 << 40];
        // What the AMD model remembers, the last step makes it forget.
        board.0.borrow_mut().probes = IDS
            .iter()
            .chain(&STRANGERS)
            .filter(|id| kind.is_intel() || !AmdModel::REMEMBERED.contains(id))
            .map(|id| (*id, RAM.address, None))
            .collect();
        kind.start(&board, Start::Fresh).expect("set up");
        for id in IDS.iter().chain(&STRANGERS) {
            for address in places {
                for write in [false, true] {
                    assert_eq!(board.dma(*id, address, write), None, "{kind:?} {id:#x}");
                }
            }
            for data in [0, 9, 0x31, 0x80, 0x7ff, 0x231] {
                for address in [0xfee0_0000, 0xfee0_0010, 0xfee0_0018, 0xfeef_fff8] {
                    let vector = board.interrupt(*id, address, data);
                    assert_eq!(vector, None, "{kind:?} {id:#x} {address:#x} {data:#x}");
                }
            }
        }
    }
}

#[test]
fn every_id_is_on_abort() {
    for kind in KINDS {
        let (board, _unit) = kind.fresh();
        for id in 0..=u16::MAX {
            assert_eq!(board.dma(id, 0x1000, true), None, "{kind:?} {id:#x}");
            assert_eq!(board.interrupt(id, 0xfee0_0000, 0x31), None);
        }
    }
}

#[test]
fn memory_that_cannot_hold_the_tables() {
    let cases = [
        (BASE + 0x1000, SIZE, IOAPIC, SetupError::Tables),
        (BASE + 0x10_0000, SIZE, IOAPIC, SetupError::Tables),
        (1 << 52, SIZE, IOAPIC, SetupError::Tables),
        (0u64.wrapping_sub(2 << 20), SIZE, IOAPIC, SetupError::Tables),
        (BASE, 0x8000, IOAPIC, SetupError::Tables),
        (BASE, SIZE, IDS[1], SetupError::SharedId),
    ];
    for kind in KINDS {
        for (base, size, ioapic, error) in cases {
            let board = kind.board();
            let memory = Memory {
                tables: board.clone(),
                base,
                size,
                requesters: &requesters(&IDS),
                firmware: &[],
                ioapic,
            };
            let result = kind.start_with(&board, memory, Start::Fresh);
            assert_eq!(result.err(), Some(error), "{kind:?}");
        }
        let board = kind.board();
        let too_many: std::vec::Vec<u16> = (1..).take(spec::FUNCTIONS + 1).collect();
        let memory = Memory {
            tables: board.clone(),
            base: BASE,
            size: SIZE,
            requesters: &requesters(&too_many),
            firmware: &[],
            ioapic: IOAPIC,
        };
        let result = kind.start_with(&board, memory, Start::Fresh);
        assert_eq!(result.err(), Some(SetupError::Functions));
    }
}

#[test]
fn a_unit_without_what_is_needed() {
    let (capability, extended) = (0x00d2_008c_2226_0206, 0x00f0_0f4a);
    let cases = [
        (u64::MAX, u64::MAX, SetupError::Absent),
        (0, 0, SetupError::Absent),
        (capability, extended & !2, SetupError::NoQueue),
        (capability, extended & !8, SetupError::NoRemapping),
        (capability & !0x600, extended, SetupError::NoWalk),
    ];
    for (capability, extended, error) in cases {
        let board = Kind::Intel.board();
        board.0.borrow_mut().model = Box::new(IntelModel::with(capability, extended));
        let result = Kind::Intel.start(&board, Start::Fresh);
        assert_eq!(result.err(), Some(error));
    }
}

#[test]
fn a_bit_that_never_comes_has_a_name() {
    let cases = [
        (26, "the queue does not go off"),
        (25, "remapping does not go off"),
        (30, "the root table is not taken"),
        (24, "the interrupt table is not taken"),
        (23, "compatibility-format messages do not go off"),
        (31, "translation does not go on"),
    ];
    for (bit, what) in cases {
        let board = Kind::Intel.board();
        let mut model = IntelModel::qemu();
        model.deaf_to = 1 << bit;
        board.0.borrow_mut().model = Box::new(model);
        let result = Kind::Intel.start(&board, Start::Fresh);
        assert_eq!(result.err(), Some(SetupError::Stuck(what)));
        assert!(!board.0.borrow().model.on());
    }
}

#[test]
fn a_unit_that_does_nothing_is_off_again_or_named() {
    for kind in KINDS {
        let board = kind.board();
        board.0.borrow_mut().model.hang();
        let result = kind.start(&board, Start::Fresh);
        assert!(
            matches!(result.err(), Some(SetupError::Stuck(_))),
            "{kind:?}"
        );
        assert!(!board.0.borrow().model.on());
    }
}
