//! The router against a kernel that keeps a list.

extern crate std;
use std::boxed::Box;
use std::vec::Vec;

use shm::Kept;
use spec::VECTORS;

use super::*;

mod batch;
mod block;
mod restart;

const MSIX: Caller = Caller(1);
const ADDRESS: u64 = 0xfee0_0000;
/// Slots of the two guests: as many as badges of 64 bits have, and of 28.
const COUNTS: [usize; 2] = [SLOTS, spec::slots(28)];

#[derive(Default)]
struct Kernel {
    held: Vec<(Slot, u8)>,
    pins: Vec<u8>,
    refuse_acquire: bool,
    refuse_release: bool,
    refuse_allow: bool,
    refuse_forbid: bool,
    /// Function, first vector and number of what was allowed.
    allowed: Vec<(u8, u8, u8)>,
    forbidden: Vec<(u8, u8, u8)>,
}

impl IrqControl for Kernel {
    fn acquire(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError> {
        if self.refuse_acquire {
            return Err(KernelError);
        }
        assert!(vector < VECTORS, "no user vector");
        assert!(
            !self.held.iter().any(|&(s, v)| s == slot || v == vector),
            "slot or vector given twice"
        );
        self.held.push((slot, vector));
        Ok(())
    }

    fn acquire_pin(&mut self, slot: Slot, vector: u8, pin: u8) -> Result<(), KernelError> {
        self.acquire(slot, vector)?;
        self.pins.push(pin);
        Ok(())
    }

    fn allow(
        &mut self,
        function: FunctionId,
        first: u8,
        count: u8,
    ) -> Result<(u64, u32), KernelError> {
        if self.refuse_allow {
            return Err(KernelError);
        }
        for vector in first..first + count {
            assert!(
                self.held.iter().any(|&(_, v)| v == vector),
                "vector {vector} is allowed before it is taken"
            );
        }
        self.allowed.push((function.0, first, count));
        Ok(host_message(first))
    }

    fn forbid(&mut self, function: FunctionId, first: u8, count: u8) -> Result<(), KernelError> {
        for vector in first..first + count {
            // A vector that could not be acquired is only made sure of.
            assert!(
                self.refuse_acquire || self.held.iter().any(|&(_, v)| v == vector),
                "vector {vector} was given back before the device lost it"
            );
        }
        if self.refuse_forbid {
            return Err(KernelError);
        }
        self.forbidden.push((function.0, first, count));
        Ok(())
    }

    fn release(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError> {
        if self.refuse_release {
            return Err(KernelError);
        }
        let position = self.held.iter().position(|&held| held == (slot, vector));
        self.held.remove(position.expect("released what was held"));
        Ok(())
    }

    fn clear_slot(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.held.retain(|&(held, _)| held != slot);
        Ok(())
    }

    fn clear_vector(&mut self, vector: u8) -> Result<(), KernelError> {
        self.held.retain(|&(_, held)| held != vector);
        Ok(())
    }
}

type Two<'a> = Router<'a, Kernel, 2, 5>;

fn router<'a>(pages: &'a [RoutePage; 2]) -> Two<'a> {
    Router::new(
        Kernel::default(),
        pages.each_ref(),
        [0, 1, 1, 1, 9],
        COUNTS,
        0,
        nothing_kept(),
    )
}

fn nothing_kept() -> &'static Kept<{ kept_words(2) }> {
    Box::leak(Box::default())
}

/// Returns how many slots and vectors the counters say are in use.
fn used(router: &Two<'_>) -> [u64; 2] {
    [&router.counters.slots_used, &router.counters.vectors_used].map(shm::Counter::get)
}

fn source(function: FunctionId, entry: u16) -> Source {
    Source::msix(function, entry)
}

#[test]
fn m19_the_route_is_the_guests_and_the_message_ours() {
    let pages = Default::default();
    let mut router = router(&pages);
    let message = router.bind(MSIX, source(FunctionId(1), 3), 0xfee3_f004, 0x8141);
    assert_eq!(message, Ok((ADDRESS, 0x30)));
    assert_eq!(
        router.set_masked(MSIX, source(FunctionId(1), 3), true),
        Ok(())
    );
    assert_eq!(
        pages[1].get(0),
        Some(Route {
            message: GuestMessage {
                vector: 0x41,
                destination: 0x3f,
                delivery_mode: 1,
                level: true,
                logical: true,
            },
            masked: true,
            source: source(FunctionId(1), 3),
        })
    );
    assert_eq!(pages[0].get(0), None);
    let bound = IrqDump::next(&mut router, MSIX, 1, 0).unwrap();
    assert_eq!((bound.guest, bound.slot, bound.vector), (1, 0, 0));
    assert_eq!(
        IrqDump::find(&mut router, MSIX, source(FunctionId(1), 3)),
        Ok(bound)
    );
    assert_eq!(IrqDump::next(&mut router, MSIX, 1, 1), Err(Error::NotFound));
    assert_eq!(IrqDump::next(&mut router, MSIX, 9, 0), Err(Error::NotFound));
    assert_eq!(router.control.held, [(Slot { guest: 1, index: 0 }, 0)]);
}

#[test]
fn m17_a_bad_message_takes_nothing() {
    let pages = Default::default();
    let mut router = router(&pages);
    let result = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x0f);
    assert_eq!(result, Err(Error::Refused));
    assert_eq!(router.counters.refused, 1);
    assert!(router.control.held.is_empty());
}

#[test]
fn m22_slots_run_out_for_one_guest_only() {
    for (guest, other) in [(0, 1), (1, 0)] {
        let pages = Default::default();
        let mut router = router(&pages);
        let (own, other) = (FunctionId(guest), FunctionId(other));
        for entry in 0..COUNTS[own.index()] as u16 {
            let result = router.bind(MSIX, source(own, entry), ADDRESS, 0x30);
            assert!(result.is_ok());
        }
        let result = router.bind(MSIX, source(own, 100), ADDRESS, 0x30);
        assert_eq!(result, Err(Error::Exhausted));
        assert_eq!(router.counters.exhausted, 1);
        assert!(router.bind(MSIX, source(other, 0), ADDRESS, 0x30).is_ok());
        assert_eq!(router.unbind(MSIX, source(own, 7)), Ok(()));
        assert!(router.bind(MSIX, source(own, 100), ADDRESS, 0x30).is_ok());
        let page = &pages[usize::from(guest)];
        let bound = (0..SLOTS).filter(|&slot| page.get(slot).is_some());
        assert_eq!(bound.max(), Some(COUNTS[own.index()] - 1));
    }
}

#[test]
fn m22_vectors_run_out() {
    let pages = Default::default();
    let all_but_one = u128::MAX ^ 1 << 77;
    let mut router: Two = Router::new(
        Kernel::default(),
        <[RoutePage; 2]>::each_ref(&pages),
        [0, 1, 1, 1, 9],
        COUNTS,
        all_but_one,
        nothing_kept(),
    );
    let result = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x30);
    assert_eq!(result, Ok((ADDRESS, 0x30 + 77)));
    let result = router.bind(MSIX, source(FunctionId(0), 1), ADDRESS, 0x30);
    assert_eq!(result, Err(Error::Exhausted));
}

#[test]
fn m21_a_rebound_source_keeps_its_slot() {
    let pages = Default::default();
    let mut router = router(&pages);
    for entry in 0..3 {
        assert!(
            router
                .bind(MSIX, source(FunctionId(0), entry), ADDRESS, 0x30)
                .is_ok()
        );
    }
    assert_eq!(router.unbind(MSIX, source(FunctionId(0), 0)), Ok(()));
    assert_eq!(router.unbind(MSIX, source(FunctionId(0), 1)), Ok(()));
    assert_eq!(pages[0].get(1), None);
    let result = router.bind(MSIX, source(FunctionId(0), 1), ADDRESS, 0x55);
    assert_eq!(result, Ok((ADDRESS, 0x31)));
    assert_eq!(
        pages[0].get(1).map(|route| route.message.vector),
        Some(0x55)
    );
}

#[test]
fn m21_a_freed_slot_goes_to_another_source_last() {
    let pages = Default::default();
    let mut router = router(&pages);
    for round in 0..SLOTS as u16 {
        assert!(
            router
                .bind(MSIX, source(FunctionId(0), round), ADDRESS, 0x30)
                .is_ok()
        );
        assert!(pages[0].get(usize::from(round)).is_some());
        assert_eq!(router.unbind(MSIX, source(FunctionId(0), round)), Ok(()));
    }
    assert!(
        router
            .bind(MSIX, source(FunctionId(0), 999), ADDRESS, 0x30)
            .is_ok()
    );
    assert!(pages[0].get(0).is_some());
}

#[test]
fn m5_a_refused_acquire_takes_nothing() {
    let pages = Default::default();
    let mut router = router(&pages);
    router.control.refuse_acquire = true;
    for _ in 0..200 {
        let result = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x30);
        assert_eq!(result, Err(Error::Failed));
    }
    assert_eq!(pages[0].get(0), None);
    router.control.refuse_acquire = false;
    assert!(
        router
            .bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x30)
            .is_ok()
    );
    assert_eq!(router.counters.failed, 200);
}

#[test]
fn m5_a_refused_unbind_keeps_the_binding() {
    let pages = Default::default();
    let mut router = router(&pages);
    assert!(
        router
            .bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x30)
            .is_ok()
    );
    router.control.refuse_forbid = true;
    assert_eq!(
        router.unbind(MSIX, source(FunctionId(0), 0)),
        Err(Error::Failed)
    );
    assert!(pages[0].get(0).is_some());
    router.control.refuse_forbid = false;
    assert_eq!(router.unbind(MSIX, source(FunctionId(0), 0)), Ok(()));
    assert_eq!(
        router.unbind(MSIX, source(FunctionId(0), 0)),
        Err(Error::NotFound)
    );
}

#[test]
fn a_source_that_is_bound_again_keeps_slot_and_vector() {
    let pages = Default::default();
    let mut router = router(&pages);
    let first = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x30);
    assert!(first.is_ok());
    assert_eq!(
        router.set_masked(MSIX, source(FunctionId(0), 0), true),
        Ok(())
    );
    let again = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x40);
    assert_eq!(again, first);
    let route = pages[0]
        .get(0)
        .map(|route| (route.message.vector, route.masked));
    assert_eq!(route, Some((0x40, false)));
    assert_eq!(router.control.held.len(), 1);
    assert_eq!(router.counters.bound, 1);
    // A bad message is refused, and changes nothing.
    let bad = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x0f);
    assert_eq!(bad, Err(Error::Refused));
    assert_eq!(
        pages[0].get(0).map(|route| route.message.vector),
        Some(0x40)
    );
}

#[test]
fn m20_masks_of_entry_and_function_add_up() {
    let pages = Default::default();
    let mut router = router(&pages);
    for function in [1, 2] {
        assert!(
            router
                .bind(MSIX, source(FunctionId(function), 0), ADDRESS, 0x30)
                .is_ok()
        );
    }
    let masked = || [0, 1].map(|slot| pages[1].get(slot).map(|route| route.masked));
    assert_eq!(masked(), [Some(false), Some(false)]);
    assert_eq!(
        router.set_function_masked(MSIX, FunctionId(2), true),
        Ok(())
    );
    assert_eq!(masked(), [Some(false), Some(true)]);
    assert_eq!(
        router.set_masked(MSIX, source(FunctionId(2), 0), true),
        Ok(())
    );
    assert_eq!(
        router.set_function_masked(MSIX, FunctionId(2), false),
        Ok(())
    );
    assert_eq!(masked(), [Some(false), Some(true)]);
    assert_eq!(
        router.set_masked(MSIX, source(FunctionId(2), 0), false),
        Ok(())
    );
    assert_eq!(masked(), [Some(false), Some(false)]);
    assert_eq!(
        router.set_function_masked(MSIX, FunctionId(3), true),
        Ok(())
    );
    assert!(
        router
            .bind(MSIX, source(FunctionId(3), 0), ADDRESS, 0x30)
            .is_ok()
    );
    assert_eq!(pages[1].get(2).map(|route| route.masked), Some(true));
}

#[test]
fn unknown_functions_and_sources_are_not_found() {
    let pages = Default::default();
    let mut router = router(&pages);
    for function in [4, 5, 255] {
        let result = router.bind(MSIX, source(FunctionId(function), 0), ADDRESS, 0x30);
        assert_eq!(result, Err(Error::NotFound));
        let result = router.set_function_masked(MSIX, FunctionId(function), true);
        assert_eq!(result, Err(Error::NotFound));
    }
    let result = router.set_masked(MSIX, source(FunctionId(0), 0), true);
    assert_eq!(result, Err(Error::NotFound));
}

#[test]
fn a_new_router_clears_the_pages() {
    let pages = Default::default();
    let mut first = router(&pages);
    assert!(
        first
            .bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x30)
            .is_ok()
    );
    let _second = router(&pages);
    assert_eq!(pages[0].get(0), None);
}

#[test]
fn m24_a_function_gives_back_all_that_it_has() {
    let pages = Default::default();
    let mut router = router(&pages);
    for (function, entry) in [(1, 0), (2, 0), (1, 7)] {
        let result = router.bind(MSIX, source(FunctionId(function), entry), ADDRESS, 0x30);
        assert!(result.is_ok());
    }
    assert_eq!(
        router.set_function_masked(MSIX, FunctionId(1), true),
        Ok(())
    );
    router.control.refuse_release = true;
    assert_eq!(
        router.unbind_function(MSIX, FunctionId(1)),
        Err(Error::Failed)
    );
    router.control.refuse_release = false;
    assert_eq!(router.unbind_function(MSIX, FunctionId(1)), Ok(()));
    let left: Vec<Source> = pages
        .iter()
        .flat_map(|page| (0..SLOTS).filter_map(|slot| page.get(slot)))
        .map(|route| route.source)
        .collect();
    assert_eq!(left, [source(FunctionId(2), 0)]);
    assert!(
        router
            .bind(MSIX, source(FunctionId(1), 0), ADDRESS, 0x30)
            .is_ok()
    );
    assert_eq!(pages[1].get(0).map(|route| route.masked), Some(false));
    assert_eq!(router.unbind_function(MSIX, FunctionId(3)), Ok(()));
}

#[test]
fn c9_a_pin_has_a_slot_for_good() {
    let pages = Default::default();
    let mut router = router(&pages);
    assert_eq!(router.bind_pin(FunctionId(1), 20), Ok(()));
    assert_eq!(router.control.pins, [20]);
    let route = pages[1].get(0).expect("a route");
    assert_eq!(route.source, Source::pin(FunctionId(1), 20));
    assert!(route.message.level && !route.masked);
    assert_eq!(
        router.set_function_masked(MSIX, FunctionId(1), true),
        Ok(())
    );
    assert_eq!(router.unbind_function(MSIX, FunctionId(1)), Ok(()));
    assert_eq!(pages[1].get(0), Some(route), "MSI-X does not concern it");
    let unbind = router.unbind(MSIX, Source::pin(FunctionId(1), 20));
    assert_eq!(unbind, Err(Error::NotFound));
    assert_eq!(router.bind_pin(FunctionId(4), 21), Err(Error::NotFound));
}

#[test]
fn m22_what_is_parked_makes_room_for_others() {
    let pages = Default::default();
    let mut router: Two = Router::new(
        Kernel::default(),
        <[RoutePage; 2]>::each_ref(&pages),
        [0, 1, 1, 1, 9],
        [2, 2],
        u128::MAX << 3,
        nothing_kept(),
    );
    let [bind, unbind] = [true, false];
    let mut step = |bound: bool, function: u8, entry: u16| {
        let source = source(FunctionId(function), entry);
        if bound == bind {
            let message = router.bind(MSIX, source, ADDRESS, 0x41);
            let vector = message.map(|(_, data)| data - 0x30);
            (vector, router.control.held.len())
        } else {
            let unbound = router.unbind(MSIX, source).map(|()| 0);
            (unbound, router.control.held.len())
        }
    };
    // Guest 1 parks vectors 0 and 1, in its both slots.
    assert_eq!(step(bind, 1, 0), (Ok(0), 1));
    assert_eq!(step(bind, 1, 1), (Ok(1), 2));
    assert_eq!(step(unbind, 1, 0), (Ok(0), 2));
    assert_eq!(step(unbind, 1, 1), (Ok(0), 2));
    // Its third source takes the slot of the first, and the vector that nobody has.
    assert_eq!(step(bind, 1, 2), (Ok(2), 2));
    // Guest 0 takes what is free, and then what is parked.
    assert_eq!(step(bind, 0, 0), (Ok(0), 3));
    assert_eq!(step(bind, 0, 1), (Ok(1), 3));
    // The source whose vector that was finds none; then another's, and its own slot.
    assert_eq!(step(bind, 1, 1), (Err(Error::Exhausted), 3));
    assert_eq!(step(unbind, 0, 0), (Ok(0), 3));
    assert_eq!(step(bind, 1, 1), (Ok(0), 3));
    let held = [(0, 1, 1), (1, 0, 2), (1, 1, 0)];
    let held = held.map(|(guest, index, vector)| (Slot { guest, index }, vector));
    router
        .control
        .held
        .sort_by_key(|&(slot, _)| (slot.guest, slot.index));
    assert_eq!(router.control.held, held);
}

#[test]
fn m5_what_is_parked_and_not_given_back_makes_no_room() {
    let pages = Default::default();
    let mut router: Two = Router::new(
        Kernel::default(),
        <[RoutePage; 2]>::each_ref(&pages),
        [0, 1, 1, 1, 9],
        COUNTS,
        u128::MAX << 1,
        nothing_kept(),
    );
    let first = source(FunctionId(1), 0);
    let bound = router.bind(MSIX, first, ADDRESS, 0x41);
    assert!(bound.is_ok());
    assert_eq!(router.unbind(MSIX, first), Ok(()));
    router.control.refuse_release = true;
    let other = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x41);
    assert_eq!(other, Err(Error::Failed));
    assert_eq!((pages[0].get(0), used(&router)), (None, [0, 0]));
    assert_eq!(router.bind(MSIX, first, ADDRESS, 0x41), bound);
}

#[test]
fn a_function_may_raise_what_is_bound_and_no_more() {
    let pages = [RoutePage::new(), RoutePage::new()];
    let mut router = router(&pages);
    assert!(
        router
            .bind(MSIX, source(FunctionId(2), 7), ADDRESS, 0x41)
            .is_ok()
    );
    assert_eq!(router.control.allowed, [(2, 0, 1)]);
    assert_eq!(router.unbind(MSIX, source(FunctionId(2), 7)), Ok(()));
    assert_eq!(router.control.forbidden, [(2, 0, 1)]);
}

/// What stays bound can be raised, whatever was done in vain.
#[test]
fn what_is_not_given_back_is_allowed_again() {
    let pages = [RoutePage::new(), RoutePage::new()];
    let mut router = router(&pages);
    let bound = router.bind(MSIX, source(FunctionId(2), 7), ADDRESS, 0x41);
    assert!(bound.is_ok());
    router.control.refuse_release = true;
    assert_eq!(
        router.unbind_function(MSIX, FunctionId(2)),
        Err(Error::Failed)
    );
    assert_eq!(router.control.forbidden, [(2, 0, 1)]);
    assert_eq!(router.control.allowed, [(2, 0, 1); 2]);
    // iommu died too often: its last call may have had an effect, or none.
    router.control.refuse_forbid = true;
    assert_eq!(
        router.unbind(MSIX, source(FunctionId(2), 7)),
        Err(Error::Failed)
    );
    assert_eq!(router.control.allowed, [(2, 0, 1); 3]);
    assert!(pages[1].get(0).is_some());
}

#[test]
fn what_the_iommu_refuses_stays_unbound() {
    let pages = [RoutePage::new(), RoutePage::new()];
    let mut router = router(&pages);
    router.control.refuse_allow = true;
    let refused = router.bind(MSIX, source(FunctionId(1), 0), ADDRESS, 0x41);
    assert_eq!(refused, Err(Error::Failed));
    assert!(router.control.held.is_empty() && pages[1].get(0).is_none());
    router.control.refuse_allow = false;
    assert!(
        router
            .bind(MSIX, source(FunctionId(1), 0), ADDRESS, 0x41)
            .is_ok()
    );
}
