//! Blocks of MSI messages against the kernel of the other tests.

use channel::irq_router::Block;
use channel::irq_router::msi::MsiRouter;

use super::*;

const PCI_CONFIG: Caller = Caller(2);

fn block(function: FunctionId, log2: u8) -> Block {
    Block { function, log2 }
}

/// Returns the vector and mask of each route of a page, by slot.
fn routes(page: &RoutePage) -> Vec<(u8, bool)> {
    (0..SLOTS)
        .filter_map(|slot| page.get(slot))
        .map(|route| (route.message.vector, route.masked))
        .collect()
}

#[test]
fn p2_messages_get_consecutive_vectors_and_own_routes() {
    let pages = Default::default();
    let mut router = router(&pages);
    assert!(
        router
            .bind(MSIX, source(FunctionId(1), 0), ADDRESS, 0x99)
            .is_ok()
    );
    let bound = router.bind_block(PCI_CONFIG, block(FunctionId(1), 2), ADDRESS, 0x43, 0b0100);
    assert_eq!(bound, Ok((ADDRESS, 0x34)), "vector 0 is taken, 4 aligned");
    let expected = [
        (0x99, false),
        (0x40, false),
        (0x41, false),
        (0x42, true),
        (0x43, false),
    ];
    assert_eq!(routes(&pages[1]), expected);
    let vectors: Vec<u8> = router.control.held.iter().map(|held| held.1).collect();
    assert_eq!(vectors, [0, 4, 5, 6, 7]);
    assert_eq!(
        pages[1].get(2).unwrap().source,
        Source::msi(FunctionId(1), 1)
    );
}

#[test]
fn p1_a_new_message_keeps_slot_vector_and_mask() {
    let pages = Default::default();
    let mut router = router(&pages);
    let bound = router.bind_block(PCI_CONFIG, block(FunctionId(0), 1), ADDRESS, 0x40, 0b10);
    assert!(bound.is_ok());
    let held = router.control.held.clone();
    assert_eq!(
        router.set_message(PCI_CONFIG, FunctionId(0), ADDRESS, 0x61),
        Ok(())
    );
    assert_eq!(routes(&pages[0]), [(0x60, false), (0x61, true)]);
    assert_eq!(router.set_mask(PCI_CONFIG, FunctionId(0), 0b01), Ok(()));
    assert_eq!(routes(&pages[0]), [(0x60, true), (0x61, false)]);
    assert_eq!(router.control.held, held, "the kernel was not asked");
    let none = router.set_message(PCI_CONFIG, FunctionId(1), ADDRESS, 0x61);
    assert_eq!(none, Err(Error::NotFound));
}

#[test]
fn p1_a_bad_message_goes_nowhere_and_keeps_its_vector() {
    let pages = Default::default();
    let mut router = router(&pages);
    let bound = router.bind_block(PCI_CONFIG, block(FunctionId(0), 0), 0, 0x40, 0);
    assert_eq!(bound, Ok((ADDRESS, 0x30)));
    assert_eq!(routes(&pages[0]), []);
    assert_eq!(router.control.held.len(), 1);
    assert_eq!(
        router.set_message(PCI_CONFIG, FunctionId(0), ADDRESS, 0x40),
        Ok(())
    );
    assert_eq!(routes(&pages[0]), [(0x40, false)]);
    assert_eq!(
        router.set_message(PCI_CONFIG, FunctionId(0), ADDRESS, 0x0f),
        Ok(())
    );
    assert_eq!(routes(&pages[0]), []);
}

#[test]
fn p2_a_block_that_does_not_fit_takes_nothing() {
    let pages = Default::default();
    let mut router = router(&pages);
    for log2 in [5, 255] {
        let refused = router.bind_block(PCI_CONFIG, block(FunctionId(0), log2), ADDRESS, 0x40, 0);
        assert_eq!(refused, Err(Error::Refused));
    }
    let bound = router.bind_block(PCI_CONFIG, block(FunctionId(1), 4), ADDRESS, 0x40, 0);
    assert!(bound.is_ok());
    let twice = router.bind_block(PCI_CONFIG, block(FunctionId(1), 0), ADDRESS, 0x40, 0);
    assert_eq!(twice, Err(Error::Refused));
    // 16 of 26 slots are taken, and more than enough vectors are left.
    let full = router.bind_block(PCI_CONFIG, block(FunctionId(2), 4), ADDRESS, 0x40, 0);
    assert_eq!(full, Err(Error::Exhausted));
    assert_eq!(router.control.held.len(), 16);
    assert_eq!(routes(&pages[1]).len(), 16);
    assert_eq!(used(&router), [16, 16]);
    // Nor has it kept any vector: five more blocks of 16 fit into 108.
    for _ in 0..5 {
        assert!(router.vectors.take(None, 16).is_some());
    }
}

#[test]
fn p3_kinds_are_given_back_apart() {
    let pages = Default::default();
    let mut router = router(&pages);
    let no_entry = router.bind(MSIX, Source::msi(FunctionId(0), 0), ADDRESS, 0x30);
    assert_eq!(no_entry, Err(Error::Refused));
    let bound = router.bind(MSIX, source(FunctionId(0), 0), ADDRESS, 0x30);
    assert!(bound.is_ok());
    let bound = router.bind_block(PCI_CONFIG, block(FunctionId(0), 1), ADDRESS, 0x40, 0);
    assert!(bound.is_ok());
    assert_eq!(
        router.set_function_masked(MSIX, FunctionId(0), true),
        Ok(())
    );
    assert_eq!(
        routes(&pages[0]),
        [(0x30, true), (0x40, false), (0x41, false)]
    );
    assert_eq!(router.unbind_function(MSIX, FunctionId(0)), Ok(()));
    assert_eq!(routes(&pages[0]), [(0x40, false), (0x41, false)]);
    assert_eq!(router.unbind_block(PCI_CONFIG, FunctionId(0)), Ok(()));
    assert_eq!(router.unbind_block(PCI_CONFIG, FunctionId(0)), Ok(()));
    assert!(router.control.held.is_empty());
    let again = router.bind_block(PCI_CONFIG, block(FunctionId(0), 1), ADDRESS, 0x40, 0);
    assert_eq!(again, Ok((ADDRESS, 0x32)), "where it was");
    assert_eq!(
        router.bind_block(PCI_CONFIG, block(FunctionId(4), 0), ADDRESS, 0x40, 0),
        Err(Error::NotFound)
    );
}
