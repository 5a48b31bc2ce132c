//! A new router takes over the state of the last.

use super::*;

/// Creates a router on an earlier one's kept words, with the kernel as that one left it.
fn again<'a>(
    pages: &'a [RoutePage; 2],
    kept: &'a Kept<{ kept_words(2) }>,
    kernel: Kernel,
) -> Two<'a> {
    Router::new(kernel, pages.each_ref(), [0, 1, 1, 1, 9], COUNTS, 0, kept)
}

/// Returns the kernel of a test, which accepts a handler that exists already.
fn held(router: &Two<'_>) -> Vec<(Slot, u8)> {
    router.control.held.clone()
}

#[test]
fn bindings_masks_and_order_outlive_the_router() {
    let (pages, kept) = (Default::default(), nothing_kept());
    let mut first = again(&pages, kept, Kernel::default());
    for entry in 0..4 {
        let bound = first.bind(MSIX, source(FunctionId(1), entry), 0xfee3_f004, 0x8141);
        assert!(bound.is_ok());
    }
    assert_eq!(
        first.set_masked(MSIX, source(FunctionId(1), 2), true),
        Ok(())
    );
    assert_eq!(first.unbind(MSIX, source(FunctionId(1), 1)), Ok(()));
    assert_eq!(first.unbind(MSIX, source(FunctionId(1), 0)), Ok(()));
    assert_eq!(first.set_function_masked(MSIX, FunctionId(2), true), Ok(()));
    let routes = |pages: &[RoutePage; 2]| {
        let all = pages
            .iter()
            .flat_map(|page| (0..SLOTS).map(|s| page.get(s)));
        all.collect::<Vec<_>>()
    };
    let before = routes(&pages);
    let bound = [2, 3].map(|index| (Slot { guest: 1, index }, index));
    assert_eq!((held(&first).len(), used(&first)), (4, [2, 2]), "2 parked");

    let mut second = again(&pages, kept, Kernel::default());
    assert_eq!(routes(&pages), before);
    assert_eq!(held(&second), bound, "made again, the kernel was empty");
    assert_eq!(used(&second), [2, 2]);
    // The source that had slot 1 gets it back, and a function mask holds.
    let result = second.bind(MSIX, source(FunctionId(1), 1), ADDRESS, 0x31);
    assert_eq!(result, Ok((ADDRESS, 0x31)));
    assert_eq!(
        pages[1].get(1).map(|r| r.source),
        Some(source(FunctionId(1), 1))
    );
    assert!(
        second
            .bind(MSIX, source(FunctionId(2), 0), ADDRESS, 0x30)
            .is_ok()
    );
    assert_eq!(pages[1].get(4).map(|r| r.masked), Some(true));
    let find = IrqDump::find(&mut second, MSIX, source(FunctionId(2), 0)).map(|slot| slot.vector);
    assert_eq!(find, Ok(4), "not the one that was given back last");
}

#[test]
fn a_bound_source_is_restored() {
    let (pages, kept) = (Default::default(), nothing_kept());
    let mut router = again(&pages, kept, Kernel::default());
    let message = router.bind(MSIX, source(FunctionId(1), 3), ADDRESS, 0x31);
    assert_eq!(router.restore(MSIX, source(FunctionId(1), 3)), message);
    for none in [
        source(FunctionId(1), 2),
        source(FunctionId(4), 0),
        source(FunctionId(9), 0),
        Source::msi(FunctionId(1), 3),
    ] {
        assert_eq!(router.restore(MSIX, none), Err(Error::NotFound));
    }
    assert_eq!(router.counters.not_found, 0);
}

#[test]
fn what_was_parked_is_deleted() {
    let (pages, kept) = (Default::default(), nothing_kept());
    let mut first = again(&pages, kept, Kernel::default());
    for entry in 0..2 {
        let source = source(FunctionId(1), entry);
        assert!(first.bind(MSIX, source, ADDRESS, 0x31).is_ok());
        assert_eq!(first.unbind(MSIX, source), Ok(()));
    }
    let kernel = Kernel {
        held: held(&first),
        ..Kernel::default()
    };
    assert_eq!(kernel.held.len(), 2);
    let mut second = again(&pages, kept, kernel);
    assert_eq!(held(&second), []);
    let bound = second.bind(MSIX, source(FunctionId(1), 1), ADDRESS, 0x31);
    assert_eq!(bound, Ok((ADDRESS, 0x31)));
    assert_eq!(held(&second).len(), 1);
}

#[test]
fn a_pin_is_bound_once() {
    let (pages, kept) = (Default::default(), nothing_kept());
    let mut first = again(&pages, kept, Kernel::default());
    assert_eq!(first.bind_pin(FunctionId(1), 20), Ok(()));
    let mut second = again(&pages, kept, Kernel::default());
    assert_eq!(second.bind_pin(FunctionId(1), 20), Ok(()));
    assert_eq!(second.control.pins, [20]);
    assert_eq!(held(&second).len(), 1);
}

#[test]
fn what_the_kernel_does_not_give_again_is_unbound() {
    let (pages, kept) = (Default::default(), nothing_kept());
    let mut first = again(&pages, kept, Kernel::default());
    assert!(
        first
            .bind(MSIX, source(FunctionId(1), 3), ADDRESS, 0x31)
            .is_ok()
    );
    let refuses = Kernel {
        refuse_acquire: true,
        refuse_release: true,
        ..Kernel::default()
    };
    let mut second = again(&pages, kept, refuses);
    assert_eq!(pages[1].get(0), None);
    assert_eq!(
        second.restore(MSIX, source(FunctionId(1), 3)),
        Err(Error::NotFound)
    );
    assert_eq!(second.counters.failed, 1);
    second.control.refuse_acquire = false;
    assert!(
        second
            .bind(MSIX, source(FunctionId(1), 3), ADDRESS, 0x31)
            .is_ok()
    );
}

/// A binding that is not made again must not be raised either. As long as it can
/// be, its vector has no other owner.
#[test]
fn what_is_unbound_at_start_is_forbidden() {
    for refuse_forbid in [false, true] {
        let (pages, kept) = (Default::default(), nothing_kept());
        let mut first = again(&pages, kept, Kernel::default());
        assert!(
            first
                .bind(MSIX, source(FunctionId(1), 3), ADDRESS, 0x31)
                .is_ok()
        );
        let refuses = Kernel {
            held: held(&first),
            refuse_acquire: true,
            refuse_forbid,
            ..Kernel::default()
        };
        let mut second = again(&pages, kept, refuses);
        assert_eq!(pages[1].get(0), None);
        assert_eq!(held(&second), []);
        assert_eq!(second.control.allowed, []);
        second.control.refuse_acquire = false;
        let other = second.bind(MSIX, source(FunctionId(2), 0), ADDRESS, 0x31);
        let vector = u32::from(refuse_forbid);
        assert_eq!(second.control.forbidden.is_empty(), refuse_forbid);
        assert_eq!(other, Ok((ADDRESS, 0x30 + vector)));
    }
}

#[test]
fn words_that_make_no_sense_are_free_slots() {
    use shm::Keep;
    let (pages, kept) = (Default::default(), nothing_kept());
    let mut first = again(&pages, kept, Kernel::default());
    assert!(
        first
            .bind(MSIX, source(FunctionId(1), 3), ADDRESS, 0x31)
            .is_ok()
    );
    // Slot 0 of guest 1 has a good word; the others get it too, then worse.
    let good = kept.get(1 + SLOTS * 2);
    for slot in 0..2 * SLOTS {
        kept.set(1 + slot * 2, good);
    }
    let second = again(&pages, kept, Kernel::default());
    assert_eq!(held(&second), [(Slot { guest: 1, index: 0 }, 0)]);
    for word in [u64::MAX, u64::MAX << 24, good | 0x7f << 24, good | 9 << 48] {
        for slot in 0..2 * SLOTS {
            kept.set(1 + slot * 2, word);
        }
        let third = again(&pages, kept, Kernel::default());
        assert_eq!(held(&third), [], "{word:#x}");
    }
}
