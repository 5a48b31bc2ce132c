//! Memory that firmware wants functions to reach: of assigned ones, and of others.

use std::boxed::Box;

use channel::Error;

use super::board::*;
use crate::*;

const READ_ONLY: Access = Access {
    read: true,
    write: false,
};

const fn fixed(start: u64, end: u64, access: Access) -> Fixed {
    Fixed { start, end, access }
}

/// Below the RAM, right above it, and whole large pages with odd ends.
const PIECES: [Fixed; 3] = [
    fixed(0x9_e000, 0xa_0000, Access::FULL),
    fixed(0xa0_0000, 0xa0_1000, READ_ONLY),
    fixed(0x7d1f_f000, 0x7d60_1000, Access::FULL),
];

#[test]
fn a_function_reaches_it_beside_its_guest_s_memory() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        assert_eq!(PIECES[1].start, RAM.address + RAM.frames * FRAME);
        unit.build(1, RAM, &PIECES, &mut Backwards).expect("build");
        unit.attach(1).expect("attach");
        let reach = |address, write| board.dma(IDS[1], address, write);
        for piece in PIECES {
            for address in (piece.start..piece.end).step_by(0x1000) {
                let written = Some(address + 8).filter(|_| piece.access.write);
                assert_eq!(reach(address + 8, true), written, "{kind:?} {address:#x}");
                assert_eq!(reach(address + 8, false), Some(address + 8), "{kind:?}");
            }
            for outside in [piece.end, piece.start - 0x1000] {
                let ram = RAM.address..RAM.address + RAM.frames * FRAME;
                let there = ram.contains(&outside).then(|| machine(1, outside));
                assert_eq!(reach(outside, false), there, "{kind:?} {outside:#x}");
            }
        }
        let there = Some(machine(1, RAM.address));
        assert_eq!(reach(RAM.address, true), there);
        // It goes with the rest, and comes back with it.
        unit.detach(1).expect("detach");
        assert_eq!(reach(PIECES[0].start, false), None, "{kind:?}");
        unit.attach(1).expect("attach");
        assert_eq!(reach(PIECES[0].start, false), Some(PIECES[0].start));
        // Nobody else's.
        assert_eq!(board.dma(IDS[0], PIECES[0].start, false), None);
    }
}

#[test]
fn to_build_again_with_it_changes_nothing() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        unit.build(1, RAM, &PIECES, &mut Backwards).expect("build");
        let before = board.0.borrow().ram.seen.clone();
        unit.build(1, RAM, &PIECES, &mut Backwards).expect("build");
        assert!(before == board.0.borrow().ram.seen, "{kind:?}");
    }
}

#[test]
fn memory_over_other_memory_or_none_is_refused() {
    let end = RAM.address + RAM.frames * FRAME;
    for kind in KINDS {
        let (_board, mut unit) = kind.fresh();
        let mut build = |pieces: &[Fixed]| unit.build(0, RAM, pieces, &mut Backwards);
        for (start, last) in [
            // The RAM, from below, inside, from above and all of it.
            (RAM.address - 0x1000, RAM.address + 0x1000),
            (RAM.address + 0x1000, RAM.address + 0x2000),
            (end - 0x1000, end + 0x1000),
            (RAM.address - 0x1000, end + 0x1000),
            // Interrupt messages.
            (0xfedf_f000, 0xfee0_1000),
            (0xfeef_f000, 0xfef0_1000),
            // No pages, or beyond what a walk tells apart.
            (0x7000_0000, 0x7000_0800),
            (0x7000_0800, 0x7000_1000),
            (0x7000_1000, 0x7000_1000),
            (0x7000_2000, 0x7000_1000),
            (1 << 51, (1 << 51) + 0x1000),
        ] {
            let piece = fixed(start, last, Access::FULL);
            assert_eq!(build(&[piece]), Err(Error::Refused), "{piece:x?} {kind:?}");
        }
        let twice = [PIECES[2], PIECES[2]];
        assert_eq!(build(&twice), Err(Error::Refused));
        assert_eq!(build(&[PIECES[2], PIECES[0]]), Err(Error::Refused));
        assert_eq!(build(&PIECES), Ok(()));
    }
}

/// Functions that firmware uses: one on a function's bus, and one on a bus of its own.
const USB: u16 = 0x0011;
const GRAPHICS: u16 = 0x0200;

fn start(kind: Kind, board: &Shared, start: Start) -> Box<dyn Unit> {
    let requesters = requesters(&IDS);
    let firmware = [(USB, 0), (GRAPHICS, 1)].map(|(id, unit)| Requester { id, unit });
    let memory = Memory {
        tables: board.clone(),
        base: BASE,
        size: SIZE,
        requesters: &requesters,
        firmware: &firmware,
        ioapic: IOAPIC,
    };
    let units = [0, 1].map(|unit| Shared(board.0.clone(), unit));
    kind.start_all(units, memory, start).expect("started")
}

#[test]
fn functions_that_firmware_uses_reach_it_and_nothing_else() {
    for kind in KINDS {
        let board = kind.board();
        board.0.borrow_mut().second = Some(kind.model());
        let mut unit = start(kind, &board, Start::Fresh);
        let second = Shared(board.0.clone(), 1);
        for (own, id) in [(&board, USB), (&second, GRAPHICS)] {
            assert_eq!(own.dma(id, PIECES[0].start, false), None, "{kind:?}");
        }
        unit.keep(&PIECES).expect("kept");
        unit.build(0, RAM, &[], &mut Backwards).expect("build");
        unit.attach(0).expect("attach");
        for (own, id) in [(&board, USB), (&second, GRAPHICS)] {
            for piece in PIECES {
                let written = Some(piece.start).filter(|_| piece.access.write);
                assert_eq!(own.dma(id, piece.start, true), written, "{kind:?}");
                assert_eq!(own.dma(id, piece.end - 8, false), Some(piece.end - 8));
            }
            for outside in [RAM.address, 0x7d60_1000, BASE, 0] {
                assert_eq!(own.dma(id, outside, false), None, "{kind:?} {outside:#x}");
            }
            assert_eq!(own.interrupt(id, 0xfee0_0000, 0x31), None, "{kind:?}");
        }
        // Who is assigned does not reach it, and reaches its own.
        assert_eq!(board.dma(IDS[0], PIECES[0].start, false), None, "{kind:?}");
        let there = Some(machine(0, RAM.address));
        assert_eq!(board.dma(IDS[0], RAM.address, true), there, "{kind:?}");
        // It outlives the component.
        drop(unit);
        let unit = start(kind, &board, Start::Adopt);
        assert!(unit.attached(0));
        let kept = second.dma(GRAPHICS, PIECES[2].start, true);
        assert_eq!(kept, Some(PIECES[2].start), "{kind:?}");
    }
}

#[test]
fn a_unit_that_does_not_answer_keeps_nothing() {
    for kind in KINDS {
        let board = kind.board();
        board.0.borrow_mut().second = Some(kind.model());
        let mut unit = start(kind, &board, Start::Fresh);
        board.0.borrow_mut().model.hang();
        assert_eq!(unit.keep(&PIECES), Err(Error::Failed), "{kind:?}");
        assert_eq!(board.dma(USB, PIECES[0].start, false), None, "{kind:?}");
    }
}

#[test]
fn pieces_with_bytes_in_common_are_one() {
    let write_only = Access {
        read: false,
        write: true,
    };
    let mut pieces = heapless::Vec::from([
        fixed(0x5000, 0x9000, READ_ONLY),
        fixed(0x1000, 0x2000, READ_ONLY),
        fixed(0x2000, 0x3000, Access::FULL),
        fixed(0x6000, 0x7000, write_only),
        fixed(0x8000, 0xa000, READ_ONLY),
    ]);
    join::<5>(&mut pieces);
    let expected = [
        fixed(0x1000, 0x2000, READ_ONLY),
        fixed(0x2000, 0x3000, Access::FULL),
        fixed(0x5000, 0xa000, Access::FULL),
    ];
    assert_eq!(pieces[..], expected);
}
