//! Several entries in one call.

use super::*;

const FUNCTION: FunctionId = FunctionId(1);

fn message(data: u32) -> ShortMessage {
    ShortMessage::new((ADDRESS, data)).expect("below 4 GiB")
}

/// Binds entries to the guest's vectors from 0x40 on.
fn bind(router: &mut Two<'_>, entries: [Option<u16>; 3]) -> [Result<(u64, u32), Error>; 3] {
    bind_to(router, entries, [0x40, 0x41, 0x42])
}

fn bind_to(
    router: &mut Two<'_>,
    entries: [Option<u16>; 3],
    data: [u32; 3],
) -> [Result<(u64, u32), Error>; 3] {
    let [first, second, third] = data.map(message);
    let batch = Batch {
        function: FUNCTION,
        entries,
    };
    let answers = router.bind_batch(MSIX, batch, first, second, third);
    let Answers(answers) = answers.expect("an answer for each");
    answers.map(|answer| answer.map(ShortMessage::parts))
}

fn unbind(router: &mut Two<'_>, entries: u64) -> Result<u64, Error> {
    router.unbind_entries(MSIX, source(FUNCTION, 0), entries)
}

/// Returns the entries on the page of the functions' guest.
fn routed(pages: &[RoutePage; 2]) -> Vec<u16> {
    let routes = (0..SLOTS).filter_map(|slot| pages[1].get(slot));
    routes.map(|route| route.source.entry).collect()
}

#[test]
fn the_iommu_is_asked_once_for_vectors_that_follow_each_other() {
    let pages = Default::default();
    let mut router = router(&pages);
    let bound = [0x30, 0x31, 0x32].map(|data| Ok((ADDRESS, data)));
    let entries = [Some(0), Some(5), Some(9)];
    assert_eq!(bind(&mut router, entries), bound);
    assert_eq!(router.control.allowed, [(1, 0, 3)]);
    assert_eq!(routed(&pages), [0, 5, 9]);
    assert_eq!(
        pages[1].get(1).map(|route| route.message.vector),
        Some(0x41)
    );
    // Again, as a client does whose router died in it.
    assert_eq!(bind(&mut router, entries), bound);
    assert_eq!((held(&router), used(&router)), (3, [3, 3]));
    let all = 1 | 1 << 5 | 1 << 9;
    assert_eq!(unbind(&mut router, all), Ok(all));
    assert_eq!(router.control.forbidden, [(1, 0, 3)]);
    assert_eq!((held(&router), used(&router)), (3, [0, 0]));
    assert_eq!(router.counters.vectors_parked, 3);
    assert!(routed(&pages).is_empty());
    assert_eq!(unbind(&mut router, all), Ok(all));
    assert_eq!(router.control.forbidden.len(), 1);
    // A kernel that were asked for them again would say so.
    assert_eq!(bind(&mut router, entries), bound);
    assert_eq!((held(&router), used(&router)), (3, [3, 3]));
    assert_eq!(router.counters.vectors_parked, 0);
    assert_eq!(routed(&pages), [0, 5, 9]);
    // At its guest's end nothing is kept.
    assert_eq!(router.unbind_function(MSIX, FUNCTION), Ok(()));
    assert_eq!((held(&router), used(&router)), (0, [0, 0]));
    assert_eq!(bind(&mut router, entries), bound);
    assert_eq!(held(&router), 3);
}

#[test]
fn vectors_with_others_between_are_asked_for_apart() {
    let pages = Default::default();
    let mut router = router(&pages);
    bind(&mut router, [Some(0), None, None])[0].expect("a vector");
    let other = router.bind(MSIX, source(FunctionId(2), 0), ADDRESS, 0x50);
    assert_eq!(other, Ok((ADDRESS, 0x31)));
    let answers = bind(&mut router, [Some(0), None, Some(1)]);
    let none = Err(Error::NotFound);
    assert_eq!(answers, [Ok((ADDRESS, 0x30)), none, Ok((ADDRESS, 0x32))]);
    assert_eq!(router.control.allowed[2..], [(1, 0, 1), (1, 2, 1)]);
    assert_eq!(unbind(&mut router, 0b11), Ok(0b11));
    assert_eq!(router.control.forbidden, [(1, 0, 1), (1, 2, 1)]);
    assert_eq!(routed(&pages), [0], "the other function's");
}

#[test]
fn m5_an_entry_that_cannot_be_bound_keeps_no_other_from_it() {
    let pages = Default::default();
    let mut router = router(&pages);
    let answers = bind_to(&mut router, [Some(0), Some(1), Some(2)], [0x40, 5, 0x42]);
    let bound = |data| Ok((ADDRESS, data));
    assert_eq!(answers, [bound(0x30), Err(Error::Refused), bound(0x31)]);
    assert_eq!(router.control.allowed, [(1, 0, 2)]);
    assert_eq!(routed(&pages), [0, 2]);
    assert_eq!(router.counters.refused, 1);
    // What the IOMMU does not let it raise is not bound.
    router.control.refuse_allow = true;
    let failed = [Err(Error::Failed); 3];
    assert_eq!(bind(&mut router, [Some(3), Some(4), Some(5)]), failed);
    assert_eq!(
        (routed(&pages), router.counters.failed.get()),
        ([0, 2].into(), 3)
    );
    router.control.refuse_allow = false;
    // M22: one slot is left.
    for entry in 10..10 + COUNTS[1] as u16 - 3 {
        bind(&mut router, [None, Some(entry), None])[1].expect("a slot");
    }
    let answers = bind(&mut router, [Some(3), Some(4), Some(5)]);
    let full = Err(Error::Exhausted);
    assert!(answers[0].is_ok());
    assert_eq!(answers[1..], [full, full]);
}

/// One call for each entry leaves the same.
#[test]
fn m4_an_unbind_that_fails_stops_and_what_stays_bound_can_be_raised() {
    let pages = Default::default();
    let mut router = router(&pages);
    assert!(
        bind(&mut router, [Some(0), Some(1), Some(2)])
            .iter()
            .all(Result::is_ok)
    );
    router.control.refuse_forbid = true;
    assert_eq!(unbind(&mut router, 0b1_0111), Ok(0b1_0000));
    assert_eq!(routed(&pages), [0, 1, 2]);
    assert_eq!(router.control.allowed, [(1, 0, 3), (1, 0, 3)]);
    assert_eq!((router.counters.failed.get(), used(&router)), (1, [3, 3]));
}

#[test]
fn batches_of_what_is_not_there() {
    let pages = Default::default();
    let mut router = router(&pages);
    for (first, error) in [
        (source(FunctionId(4), 0), Error::NotFound),
        (source(FunctionId(5), 0), Error::NotFound),
        (Source::pin(FUNCTION, 0), Error::Refused),
        (Source::msi(FUNCTION, 0), Error::Refused),
    ] {
        assert_eq!(router.unbind_entries(MSIX, first, 1), Err(error));
    }
    // Past the largest number there is nothing either.
    let last = source(FUNCTION, u16::MAX);
    assert_eq!(router.unbind_entries(MSIX, last, u64::MAX), Ok(u64::MAX));
}

fn held(router: &Two<'_>) -> usize {
    router.control.held.len()
}
