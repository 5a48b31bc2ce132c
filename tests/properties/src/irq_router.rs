//! irq-router against a list of bindings: one slot and one vector for each
//! source, no vector out of range, and a routing page that says what is bound.

use channel::irq_router::{Answers, Batch, IrqRouter, ShortMessage, Source};
use channel::routes::{Route, RoutePage};
use channel::{Caller, Error, GuestMessage};
use irq_router::{Router, Slot, kept_words};
use models::Kernel;
use proptest::prelude::*;
use shm::Kept;
use spec::{FunctionId, SLOTS};

const MSIX: Caller = Caller(1);
const GUESTS: usize = 2;
/// Guest of each function; the last has none.
const OWNERS: [u8; 6] = [0, 1, 0, 1, 1, 9];
/// Slots of each guest, less than the entries of its functions.
const COUNTS: [usize; GUESTS] = [spec::slots(28), 31];
/// What a guest may have is limited by the slots, what all may by the vectors;
/// this keeps all but 40 vectors for others, so that both limits are met.
const RESERVED: u128 = !(0xff_ffff_ffff << 30);
const VECTORS: std::ops::Range<u8> = 30..70;

#[derive(Clone, Copy, Debug)]
enum Op {
    Bind(u8, u16, u64, u32),
    /// Up to three entries of a function, with their messages' data.
    BindBatch(u8, [(Option<u16>, u32); 3]),
    Unbind(u8, u16),
    /// A function's entries from the second on, a bit each.
    UnbindEntries(u8, u64),
    Mask(u8, u16, bool),
    MaskFunction(u8, bool),
    UnbindFunction(u8),
    /// The kernel refuses to give, or to take back, from now on.
    Refuse(bool, bool),
}

fn ops() -> impl Strategy<Value = Op> {
    let address = prop_oneof![
        8 => (0..0x10_0000u64).prop_map(|low| 0xfee0_0000 | low),
        1 => any::<u64>(),
    ];
    let data = prop_oneof![8 => 0x10..0x100u32, 1 => any::<u32>()];
    let source = || (0..7u8, 0..24u16);
    prop_oneof![
        12 => (source(), address, data)
            .prop_map(|((f, e), address, data)| Op::Bind(f, e, address, data)),
        6 => (0..7u8, proptest::array::uniform3((proptest::option::of(0..24u16), 0..0x100u32)))
            .prop_map(|(f, entries)| Op::BindBatch(f, entries)),
        5 => source().prop_map(|(f, e)| Op::Unbind(f, e)),
        2 => (0..7u8, 0..1u64 << 24).prop_map(|(f, entries)| Op::UnbindEntries(f, entries)),
        3 => (source(), any::<bool>()).prop_map(|((f, e), masked)| Op::Mask(f, e, masked)),
        1 => (0..7u8, any::<bool>()).prop_map(|(f, masked)| Op::MaskFunction(f, masked)),
        1 => (0..7u8).prop_map(Op::UnbindFunction),
        1 => any::<(bool, bool)>().prop_map(|(give, take)| Op::Refuse(give && take, take && !give)),
    ]
}

fn source(function: FunctionId, entry: u16) -> Source {
    Source::msix(function, entry)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Binding {
    source: Source,
    guest: u8,
    address: u64,
    data: u32,
    masked: bool,
    message: (u64, u32),
}

struct Pair<'a> {
    router: Router<'a, Kernel, GUESTS, 6>,
    pages: &'a [RoutePage; GUESTS],
    kernel: Kernel,
    bindings: Vec<Binding>,
    function_masked: [bool; 6],
    /// Vectors that were parked before the operation.
    parked_before: usize,
}

/// Returns the guest of a function, if both are there.
fn owner(function: FunctionId) -> Result<u8, Error> {
    let guest = OWNERS.get(function.index()).copied();
    guest
        .filter(|&guest| usize::from(guest) < GUESTS)
        .ok_or(Error::NotFound)
}

/// Returns whether a local APIC takes the message (M17).
fn deliverable(address: u64, data: u32) -> bool {
    (0xfee0_0000..0xfef0_0000).contains(&address)
        && data % 256 >= 16
        && ![3, 6].contains(&(data / 256 % 8))
}

impl Pair<'_> {
    fn find(&self, source: Source) -> Result<usize, Error> {
        owner(source.function)?;
        let at = self.bindings.iter().position(|b| b.source == source);
        at.ok_or(Error::NotFound)
    }

    /// Returns the answer that a bind must have; the message, if any, is the router's choice.
    fn expect_bind(&self, source: Source, address: u64, data: u32) -> Result<u8, Error> {
        let guest = owner(source.function)?;
        if !deliverable(address, data) {
            return Err(Error::Refused);
        }
        if self.find(source).is_ok() {
            return Ok(guest);
        }
        let slots = self.bindings.iter().filter(|b| b.guest == guest).count();
        if slots == COUNTS[usize::from(guest)] || self.bindings.len() == VECTORS.len() {
            return Err(Error::Exhausted);
        }
        if self.kernel.0.borrow().refuse_acquire {
            return Err(Error::Failed);
        }
        Ok(guest)
    }

    /// Unbinds a source, whose capabilities stay.
    fn unbind(&mut self, source: Source) -> Result<(), Error> {
        let at = self.find(source)?;
        self.bindings.remove(at);
        Ok(())
    }

    /// Unbinds a source at its guest's end.
    fn release(&mut self, source: Source) -> Result<(), Error> {
        if self.kernel.0.borrow().refuse_release {
            return self.find(source).and(Err(Error::Failed));
        }
        self.unbind(source)
    }

    /// Checks the answer to a bind, and notes the binding.
    fn bound(&mut self, source: Source, address: u64, data: u32, got: Result<(u64, u32), Error>) {
        let mut expected = self.expect_bind(source, address, data);
        let kernel = self.kernel.0.borrow();
        // Whether the kernel is asked depends on what was bound before: it is not for what
        // this source left, and twice where another's has to go first.
        if kernel.refuse_acquire && expected == Err(Error::Failed) && got.is_ok() {
            expected = owner(source.function);
            assert!(self.parked_before > 0, "{source:?} is bound by no kernel");
        } else if kernel.refuse_release && expected.is_ok() && got == Err(Error::Failed) {
            expected = Err(Error::Failed);
            assert!(self.parked_before > 0, "{source:?} needed nothing released");
        }
        drop(kernel);
        assert_eq!(got.map(|_| ()), expected.map(|_| ()));
        if let (Ok(guest), Ok(message)) = (expected, got) {
            let binding = Binding {
                source,
                guest,
                address,
                data,
                masked: false,
                message,
            };
            match self.find(source) {
                Ok(at) => {
                    assert_eq!(self.bindings[at].message, message);
                    self.bindings[at] = binding;
                }
                Err(_) => self.bindings.push(binding),
            }
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Bind(function, entry, address, data) => {
                let source = source(FunctionId(function), entry);
                let got = self.router.bind(MSIX, source, address, data);
                self.bound(source, address, data, got);
            }
            Op::BindBatch(function, entries) => {
                let function = FunctionId(function);
                let address = 0xfee0_0000;
                let [first, second, third] = entries
                    .map(|(_, data)| ShortMessage::new((address, data)).expect("below 4 GiB"));
                let batch = Batch {
                    function,
                    entries: entries.map(|(entry, _)| entry),
                };
                let answers = self.router.bind_batch(MSIX, batch, first, second, third);
                let Answers(answers) = answers.expect("an answer for each");
                // As if each were a call of its own.
                for ((entry, data), got) in entries.into_iter().zip(answers) {
                    match entry {
                        Some(entry) => {
                            let got = got.map(ShortMessage::parts);
                            self.bound(source(function, entry), address, data, got);
                        }
                        None => assert_eq!(got, Err(Error::NotFound)),
                    }
                }
            }
            Op::UnbindEntries(function, entries) => {
                let function = FunctionId(function);
                let got = self
                    .router
                    .unbind_entries(MSIX, source(function, 1), entries);
                let expected = owner(function).map(|_| {
                    (0..24).fold((0, true), |(done, goes_on), bit| {
                        if entries >> bit & 1 == 0 {
                            return (done, goes_on);
                        }
                        let source = source(function, 1 + bit);
                        let gone =
                            self.find(source).is_err() || goes_on && self.unbind(source).is_ok();
                        (done | u64::from(gone) << bit, goes_on && gone)
                    })
                });
                assert_eq!(got, expected.map(|(done, _)| done));
            }
            Op::Unbind(function, entry) => {
                let source = source(FunctionId(function), entry);
                let expected = self.unbind(source);
                assert_eq!(self.router.unbind(MSIX, source), expected);
            }
            Op::Mask(function, entry, masked) => {
                let source = source(FunctionId(function), entry);
                let at = self.find(source);
                if let Ok(at) = at {
                    self.bindings[at].masked = masked;
                }
                let got = self.router.set_masked(MSIX, source, masked);
                assert_eq!(got, at.map(|_| ()));
            }
            Op::MaskFunction(function, masked) => {
                let expected = owner(FunctionId(function));
                if expected.is_ok() {
                    self.function_masked[usize::from(function)] = masked;
                }
                let got = self
                    .router
                    .set_function_masked(MSIX, FunctionId(function), masked);
                assert_eq!(got, expected.map(|_| ()));
            }
            Op::UnbindFunction(function) => {
                let mut expected = owner(FunctionId(function)).map(|_| ());
                if expected.is_ok() {
                    self.function_masked[usize::from(function)] = false;
                }
                for Binding { source, .. } in self.bindings.clone() {
                    if source.function == FunctionId(function) {
                        expected = expected.and(self.release(source));
                    }
                }
                let got = self.router.unbind_function(MSIX, FunctionId(function));
                assert_eq!(got, expected);
            }
            Op::Refuse(acquire, release) => {
                let mut kernel = self.kernel.0.borrow_mut();
                kernel.refuse_acquire = acquire;
                kernel.refuse_release = release;
            }
        }
        self.check();
        self.parked_before = self.parked();
    }

    /// Returns how many vectors the router says are parked.
    fn parked(&self) -> usize {
        self.router.counters.vectors_parked.get() as usize
    }

    /// Checks that pages and kernel hold exactly the bindings, and the kernel what is parked.
    fn check(&self) {
        let kernel = self.kernel.0.borrow();
        assert_eq!(kernel.held.len(), self.bindings.len() + self.parked());
        for &(slot, vector) in &kernel.held {
            assert!(VECTORS.contains(&vector), "vector {vector} is not ours");
            let count = COUNTS.get(usize::from(slot.guest));
            assert!(count.is_some_and(|&count| usize::from(slot.index) < count));
        }
        let mut shown = 0;
        for (guest, page) in self.pages.iter().enumerate() {
            for slot in 0..SLOTS {
                let Some(route) = page.get(slot) else {
                    continue;
                };
                shown += 1;
                let at = self.find(route.source).expect("only bound sources show");
                let binding = self.bindings[at];
                assert_eq!(usize::from(binding.guest), guest);
                assert_eq!(route, self.route(&binding));
                let vector = (binding.message.1 - 0x30) as u8;
                let held = Slot {
                    guest: guest as u8,
                    index: slot as u8,
                };
                assert_eq!(binding.message.0, 0xfee0_0000);
                assert!(kernel.held.contains(&(held, vector)), "{binding:?}");
            }
        }
        assert_eq!(shown, self.bindings.len());
    }

    fn route(&self, binding: &Binding) -> Route {
        let function_masked = self.function_masked[binding.source.function.index()];
        Route {
            message: GuestMessage {
                vector: (binding.data % 256) as u8,
                destination: (binding.address / 4096 % 256) as u8,
                delivery_mode: (binding.data / 256 % 8) as u8,
                level: binding.data & 0x8000 != 0,
                logical: binding.address & 4 != 0,
            },
            masked: binding.masked || function_masked,
            source: binding.source,
        }
    }
}

proptest! {
    #![proptest_config(crate::config(400))]

    #[test]
    fn m22_no_two_sources_share_a_slot_or_vector(
        ops in prop::collection::vec(ops(), 1..200),
    ) {
        let pages = <[RoutePage; GUESTS]>::default();
        let kernel = Kernel::default();
        let kept = Kept::<{ kept_words(GUESTS) }>::new();
        let router = Router::new(kernel.clone(), pages.each_ref(), OWNERS, COUNTS, RESERVED, &kept);
        let mut pair = Pair {
            router,
            pages: &pages,
            kernel,
            bindings: Vec::new(),
            function_masked: [false; 6],
            parked_before: 0,
        };
        for &op in &ops {
            pair.play(op);
        }
    }

    #[test]
    fn m21_a_source_bound_again_at_once_keeps_slot_and_vector(
        entries in prop::collection::vec(0..24u16, 1..20),
        again in any::<prop::sample::Index>(),
    ) {
        let pages = <[RoutePage; GUESTS]>::default();
        let kernel = Kernel::default();
        let kept = Kept::<{ kept_words(GUESTS) }>::new();
        let mut router = Router::new(kernel, pages.each_ref(), OWNERS, COUNTS, RESERVED, &kept);
        let mut bind = |entry, data| {
            router.bind(MSIX, source(FunctionId(0), entry), 0xfee0_0000, data)
        };
        for &entry in &entries {
            assert!(bind(entry, 0x40).is_ok());
        }
        let entry = entries[again.index(entries.len())];
        let slot_of = |entry| {
            (0..SLOTS).find(|&slot| pages[0].get(slot).is_some_and(|r| r.source == source(FunctionId(0), entry)))
        };
        let before = slot_of(entry);
        assert!(before.is_some());
        assert_eq!(router.unbind(MSIX, source(FunctionId(0), entry)), Ok(()));
        let message = router.bind(MSIX, source(FunctionId(0), entry), 0xfee0_0000, 0x41);
        assert!(message.is_ok());
        assert_eq!(slot_of(entry), before);
    }
}
