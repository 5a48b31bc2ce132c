//! Who may ask for what.

use std::boxed::Box;
use std::vec::Vec;

use channel::iommu::Vectors;
use channel::iommu::dma::DmaControl;
use channel::iommu::dump::IommuDump;
use channel::iommu::remap::InterruptRemap;
use channel::{Caller, Error};
use shm::Counter;
use spec::{FUNCTIONS, FunctionId, IommuKind};

use super::board::*;
use crate::*;

const VMM: Caller = Caller(1 << 27 | 1);
const OTHER: Caller = Caller(1 << 27 | 2);
const ROUTER: Caller = Caller(1 << 27 | 3);

/// Functions 0 and 1 are one guest's, function 2 another's.
fn functions() -> Vec<Function> {
    let owners = [(VMM, 0), (VMM, 0), (OTHER, 1)];
    IDS.iter()
        .zip(owners)
        .map(|(requester, (owner, guest))| Function {
            requester: *requester,
            owner,
            guest,
            ram: RAM,
        })
        .collect()
}

fn vectors(function: FunctionId, first: u8, count: u8) -> Vectors {
    Vectors {
        function,
        first,
        count,
    }
}

fn with_unit(kind: Kind, test: impl FnOnce(&Shared, &mut Iommu<'_, Backwards>)) {
    let (board, mut unit) = kind.fresh();
    let mut iommu = Iommu::new(Ok(&mut *unit), Backwards, functions());
    test(&board, &mut iommu);
}

#[test]
fn firmware_s_memory_is_reached_by_whose_it_is_while_attached() {
    with_unit(Kind::Amd, |board, iommu| {
        let piece = |start| Fixed {
            start,
            end: start + 0x1000,
            access: Access::FULL,
        };
        iommu.reserve(1, &[piece(0x7d00_0000), piece(0x7f00_0000)]);
        iommu.reserve(2, &[piece(0x7e00_0000)]);
        let reach = |id, address| board.dma(id, address, true).is_some();
        assert!(!reach(IDS[1], 0x7d00_0000));
        assert_eq!(iommu.attach(VMM, FunctionId(1)), Ok(()));
        assert_eq!(iommu.attach(OTHER, FunctionId(2)), Ok(()));
        let all = [0x7d00_0000, 0x7e00_0000, 0x7f00_0000];
        assert_eq!(all.map(|at| reach(IDS[1], at)), [true, false, true]);
        assert_eq!(all.map(|at| reach(IDS[2], at)), [false, true, false]);
        assert_eq!(iommu.detach(VMM, FunctionId(1)), Ok(()));
        assert_eq!(all.map(|at| reach(IDS[1], at)), [false; 3]);
        // It lies where the guest has RAM: nothing of either.
        iommu.reserve(0, &[piece(RAM.address)]);
        assert_eq!(iommu.attach(VMM, FunctionId(0)), Err(Error::Refused));
        assert!(!reach(IDS[0], RAM.address));
    });
}

#[test]
fn only_the_owner_attaches_and_detaches() {
    with_unit(Kind::Amd, |board, iommu| {
        assert_eq!(iommu.attach(OTHER, FunctionId(1)), Err(Error::NotFound));
        assert_eq!(iommu.attach(VMM, FunctionId(2)), Err(Error::NotFound));
        assert_eq!(iommu.attach(VMM, FunctionId(3)), Err(Error::NotFound));
        assert_eq!(iommu.attach(VMM, FunctionId(255)), Err(Error::NotFound));
        assert_eq!(iommu.counters.not_found, 4);
        assert_eq!(iommu.attach(VMM, FunctionId(1)), Ok(()));
        assert_eq!(iommu.detach(OTHER, FunctionId(1)), Err(Error::NotFound));
        let there = Some(machine(1, RAM.address));
        assert_eq!(board.dma(IDS[1], RAM.address, true), there);
        assert_eq!(iommu.counters.attached, 1);
        assert_eq!(iommu.counters.pages_mapped, 4 * 512);
        assert_eq!(iommu.detach(VMM, FunctionId(1)), Ok(()));
        assert_eq!(board.dma(IDS[1], RAM.address, true), None);
        assert_eq!(iommu.counters.pages_mapped, 0);
        assert_eq!(iommu.attach(VMM, FunctionId(1)), Ok(()));
    });
}

#[test]
fn vectors_that_do_not_exist() {
    with_unit(Kind::Intel, |_, iommu| {
        let mut ask = |v| {
            let allowed = iommu.allow(ROUTER, v).map(|_| ());
            assert_eq!(iommu.forbid(ROUTER, v), allowed);
            allowed
        };
        for (first, count) in [(107, 1), (80, 16), (7, 26), (0, 108)] {
            assert_eq!(ask(vectors(FunctionId(0), first, count)), Ok(()));
        }
        for (first, count) in [(108, 1), (255, 1), (96, 13), (0, 109), (2, 254), (3, 0)] {
            let answer = ask(vectors(FunctionId(0), first, count));
            assert_eq!(answer, Err(Error::Refused), "{first} {count}");
        }
        assert_eq!(ask(vectors(FunctionId(3), 0, 1)), Err(Error::NotFound));
    });
}

#[test]
fn messages_are_the_makers() {
    with_unit(Kind::Amd, |_, iommu| {
        let message = iommu.allow(ROUTER, vectors(FunctionId(2), 3, 1));
        assert_eq!(message, Ok((0xfee0_0000, 3)));
    });
    with_unit(Kind::Intel, |_, iommu| {
        let message = iommu.allow(ROUTER, vectors(FunctionId(2), 3, 1));
        let handle = 2 * 128 + 3;
        assert_eq!(message, Ok((0xfee0_0018 | handle << 5, 0)));
    });
}

#[test]
fn a_dump_shows_what_is() {
    with_unit(Kind::Intel, |board, iommu| {
        iommu.attach(VMM, FunctionId(0)).expect("attach");
        iommu
            .allow(ROUTER, vectors(FunctionId(0), 16, 8))
            .expect("allow");
        iommu
            .allow(ROUTER, vectors(FunctionId(0), 16, 1))
            .expect("allow");
        for address in [0x10_0000, 0x11_0000] {
            board.dma(IDS[0], address, true);
            iommu.poll_faults(|fault, function, _| {
                assert_eq!((fault.address, function), (address, Some(0)));
            });
        }
        let state = iommu.function(ROUTER, FunctionId(0)).expect("state");
        assert_eq!((state.unit, state.attached), (IommuKind::Intel, true));
        assert_eq!((state.vectors, state.pages, state.faults), (8, 2048, 2));
        let other = iommu.function(ROUTER, FunctionId(2)).expect("state");
        assert_eq!((other.attached, other.vectors, other.faults), (false, 0, 0));
        assert_eq!(
            iommu.function(ROUTER, FunctionId(3)).err(),
            Some(Error::NotFound)
        );
        let numbers =
            [0, 1, 2].map(|from| iommu.next_fault(ROUTER, from).map(|fault| fault.number));
        assert_eq!(numbers, [Ok(0), Ok(1), Err(Error::NotFound)]);
        iommu
            .forbid(ROUTER, vectors(FunctionId(0), 16, 4))
            .expect("forbid");
        assert_eq!(iommu.counters.entries_used, 4);
    });
}

#[test]
fn sixteen_faults_are_kept_and_a_poll_is_bounded() {
    with_unit(Kind::Amd, |board, iommu| {
        for number in 0..100 {
            board.dma(STRANGERS[3], number << 12, false);
        }
        let mut seen = 0;
        iommu.poll_faults(|_, function, _| {
            seen += 1;
            assert_eq!(function, None);
        });
        assert_eq!(seen, FAULTS_A_POLL);
        iommu.poll_faults(|_, _, _| seen += 1);
        assert_eq!(seen, 100);
        let first = iommu.next_fault(ROUTER, 0).expect("a fault");
        assert_eq!(first.number, 100 - KEPT_FAULTS as u64);
        assert_eq!(first.address, first.number << 12);
        assert_eq!(iommu.counters.faults, 100);
        assert_eq!(iommu.counters.overflows, 0);
        for number in 0..300 {
            board.dma(STRANGERS[3], number << 12, false);
        }
        iommu.poll_faults(|_, _, _| {});
        iommu.poll_faults(|_, _, _| {});
        assert_eq!(iommu.counters.overflows, 1);
    });
}

#[test]
fn a_guest_that_is_gone_leaves_nothing_attached() {
    with_unit(Kind::Amd, |board, iommu| {
        for (owner, function) in [(VMM, 0), (VMM, 1), (OTHER, 2)] {
            iommu.attach(owner, FunctionId(function)).expect("attach");
        }
        assert_eq!(iommu.guest_gone(0), 0);
        assert_eq!(board.dma(IDS[0], RAM.address, true), None);
        assert_eq!(board.dma(IDS[1], RAM.address, true), None);
        assert!(board.dma(IDS[2], RAM.address, true).is_some());
        assert_eq!(iommu.counters.attached, 1);
        board.0.borrow_mut().model.hang();
        assert_eq!(iommu.guest_gone(1), 1);
        assert_eq!(iommu.counters.failed, 1);
        assert_eq!(iommu.counters.attached, 1);
    });
}

#[test]
fn a_restarted_service_knows_what_was() {
    for kind in KINDS {
        let (board, mut unit) = kind.fresh();
        let mut iommu = Iommu::new(Ok(&mut *unit), Backwards, functions());
        iommu.attach(VMM, FunctionId(1)).expect("attach");
        iommu
            .allow(ROUTER, vectors(FunctionId(1), 4, 4))
            .expect("allow");
        let gauges = |iommu: &Counters| {
            [&iommu.attached, &iommu.entries_used, &iommu.pages_mapped].map(Counter::get)
        };
        let before = gauges(&iommu.counters);
        let state = iommu.function(ROUTER, FunctionId(1));
        let mut unit = kind.start(&board, Start::Adopt).expect("adopt");
        // Frames are not asked for again: none are here.
        let mut iommu = Iommu::new(Ok(&mut *unit), NoFrames, functions());
        assert_eq!(gauges(&iommu.counters), before);
        assert_eq!(iommu.function(ROUTER, FunctionId(1)), state);
        iommu.attach(VMM, FunctionId(1)).expect("attach");
        assert_eq!(iommu.attach(VMM, FunctionId(0)), Err(Error::Failed));
    }
}

struct NoFrames;

impl Frames for NoFrames {
    fn machine(&mut self, _: usize, _: u64) -> Option<u64> {
        None
    }
}

#[test]
fn without_a_unit_everything_succeeds_and_nothing_is_claimed() {
    let none = Err(SetupError::Stuck("something"));
    let mut iommu = Iommu::new(none, NoFrames, functions());
    assert_eq!(iommu.attach(VMM, FunctionId(0)), Ok(()));
    assert_eq!(iommu.attach(OTHER, FunctionId(0)), Err(Error::NotFound));
    let message = iommu.allow(ROUTER, vectors(FunctionId(0), 2, 1));
    assert_eq!(message, Ok((0xfee0_0000, 0x32)));
    assert_eq!(iommu.forbid(ROUTER, vectors(FunctionId(0), 2, 1)), Ok(()));
    let state = iommu.function(ROUTER, FunctionId(0)).expect("state");
    assert_eq!((state.unit, state.attached), (IommuKind::None, false));
    assert_eq!(iommu.detach(VMM, FunctionId(0)), Ok(()));
}

#[test]
fn with_a_lost_unit_nothing_succeeds() {
    let lost: Result<&mut dyn Unit, _> = Err(SetupError::Lost("something"));
    let mut iommu = Iommu::new(lost, NoFrames, functions());
    assert_eq!(iommu.attach(VMM, FunctionId(0)), Err(Error::Failed));
    assert_eq!(iommu.detach(VMM, FunctionId(0)), Err(Error::Failed));
    assert_eq!(
        iommu.allow(ROUTER, vectors(FunctionId(0), 2, 1)),
        Err(Error::Failed)
    );
    assert_eq!(
        iommu.forbid(ROUTER, vectors(FunctionId(0), 2, 1)),
        Err(Error::Failed)
    );
    assert_eq!(iommu.counters.failed, 4);
    assert_eq!(iommu.guest_gone(0), 2);
}

#[test]
fn functions_past_the_limit_do_not_exist() {
    let many = Box::leak(Box::new(functions())).iter().copied().cycle();
    let none = Err(SetupError::Absent);
    let mut iommu = Iommu::new(none, NoFrames, many.take(100));
    assert_eq!(
        iommu.function(ROUTER, FunctionId::at(FUNCTIONS)).err(),
        Some(Error::NotFound)
    );
    assert!(
        iommu
            .function(ROUTER, FunctionId::at(FUNCTIONS - 1))
            .is_ok()
    );
}

/// Before init measures: what could not be attached is told, and the others are.
#[test]
fn all_are_attached_and_what_fails_is_told() {
    with_unit(Kind::Amd, |board, iommu| {
        assert_eq!(iommu.attach_all(), None);
        for (function, id) in IDS.into_iter().enumerate() {
            let there = Some(machine(function, RAM.address));
            assert_eq!(board.dma(id, RAM.address, true), there);
        }
    });
    let (board, mut unit) = Kind::Amd.fresh();
    let mut functions = functions();
    // RAM that cannot be mapped: in the range of interrupt messages.
    functions[1].ram.address = 0xfee0_0000;
    let mut iommu = Iommu::new(Ok(&mut *unit), Backwards, functions);
    assert_eq!(iommu.attach_all(), Some(1));
    assert_eq!(board.dma(IDS[1], 0xfee0_0000, true), None);
    let there = Some(machine(2, RAM.address));
    assert_eq!(board.dma(IDS[2], RAM.address, true), there);
}
