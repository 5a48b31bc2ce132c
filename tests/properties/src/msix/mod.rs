//! The msix component against [`model::Model`].

mod layout;
mod model;
mod world;

use channel::irq_router::{Client, Source};
use channel::msix::FunctionBar;
use channel::msix::control::MsixControl;
use channel::msix::table::MsixTable;
use channel::{Caller, Error, Local, Message};
use msix::Msix;
use pci::Width;
use proptest::prelude::*;
use shm::Kept;

use layout::{Layout, layouts, widths};
use model::Model;
use spec::FunctionId;
use world::Shared;

const CONTROL: Caller = Caller(1);
const VMM: Caller = Caller(2);
const ROUTER: Caller = Caller(3);

/// One thing that a guest, pci-config or a failing router does.
#[derive(Clone, Debug)]
enum Op {
    Control(u16),
    /// Address, data and an unmask, as a driver does it.
    Program(u8, u8),
    /// A write to an entry, from this dword on.
    Entry(u8, u32, Width, u64),
    /// An access near an edge: read, or write of a value.
    Edge(u8, i32, Width, Option<u64>),
    FailBind(u8, bool),
    FailUnbind(u8, bool),
    Throttle(u8, bool),
    Reset,
}

/// Values that mean something, for the dword at which they are written.
fn values() -> impl Strategy<Value = (u32, Width, u64)> {
    let address = prop_oneof![
        4 => (0..0x10_0000u64).prop_map(|low| 0xfee0_0000 | low),
        1 => any::<u64>(),
    ];
    let high = prop_oneof![3 => Just(0), 1 => any::<u64>()];
    let data = prop_oneof![
        4 => (0x10..=0xffu64, any::<u32>()).prop_map(|(v, high)| v | u64::from(high & !7) << 32),
        1 => any::<u64>(),
    ];
    let control = prop_oneof![4 => 0..2u64, 1 => any::<u64>()];
    let dword_or_qword = || prop::sample::select(vec![Width::Dword, Width::Qword]);
    prop_oneof![
        1 => (dword_or_qword(), address).prop_map(|(width, value)| (0, width, value)),
        1 => high.prop_map(|value| (4, Width::Dword, value)),
        1 => (dword_or_qword(), data).prop_map(|(width, value)| (8, width, value)),
        3 => control.prop_map(|value| (12, Width::Dword, value)),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let control = (any::<u16>(), 0..4u16).prop_map(|(low, bits)| low & 0x3fff | bits << 14);
    prop_oneof![
        4 => control.prop_map(Op::Control),
        2 => (any::<u8>(), 0x10..=0xffu8).prop_map(|(e, v)| Op::Program(e, v)),
        8 => (any::<u8>(), values()).prop_map(|(e, (at, width, v))| Op::Entry(e, at, width, v)),
        4 => (any::<u8>(), -9..9, widths(), any::<Option<u64>>())
            .prop_map(|(edge, delta, width, value)| Op::Edge(edge, delta, width, value)),
        1 => any::<(u8, bool)>().prop_map(|(e, fail)| Op::FailBind(e, fail)),
        1 => any::<(u8, bool)>().prop_map(|(e, fail)| Op::FailUnbind(e, fail)),
        1 => any::<(u8, bool)>().prop_map(|(e, throttled)| Op::Throttle(e, throttled)),
        1 => Just(Op::Reset),
    ]
}

type Link = Local<Box<dyn FnMut(Message) -> Message>>;

/// The component and the model side by side.
struct Pair<'a> {
    msix: Msix<'a, Shared, Link, 1>,
    world: Shared,
    model: Model,
}

fn place(bar: u8) -> FunctionBar {
    FunctionBar {
        function: FunctionId(0),
        bar,
    }
}

type Words = Kept<{ msix::kept_words(1, 2048) }>;

impl<'a> Pair<'a> {
    fn new(layout: Layout, kept: &'a Words) -> Self {
        let world = Shared::new(layout);
        let mut router = world.clone();
        let link: Link = Local(Box::new(move |request| {
            channel::irq_router::dispatch(&mut router, ROUTER, request)
        }));
        let info = layout.info();
        let mut msix = Msix::new(world.clone(), Client(link), kept);
        msix.take_over(2048, [(info, VMM)]);
        let mut pair = Self {
            msix,
            world,
            model: Model::new(layout),
        };
        assert!(pair.model.reset());
        pair.check();
        pair
    }

    fn play(&mut self, op: &Op) {
        let layout = self.model.layout;
        match *op {
            Op::Control(value) => {
                let got = self.msix.write_control(CONTROL, FunctionId(0), value);
                assert_eq!(got, Ok(self.model.write_control(value)));
            }
            Op::Program(entry, vector) => {
                let fields = [(0, 0xfee0_0000), (4, 0), (8, vector.into()), (12, 0)];
                for (at, value) in fields {
                    self.play(&Op::Entry(entry, at, Width::Dword, value));
                }
                return;
            }
            Op::Entry(entry, at, width, value) => {
                let (bar, start) = layout.table;
                let offset = start + 16 * u32::from(layout.entry(entry)) + at;
                self.write(bar, offset, width, value);
            }
            Op::Edge(edge, delta, width, value) => {
                let (bar, at) = layout.edge(edge);
                let offset = at.wrapping_add_signed(delta);
                match value {
                    Some(value) => self.write(bar, offset, width, value),
                    None => self.read(bar, offset, width),
                }
            }
            Op::FailBind(entry, fail) => {
                let entry = layout.entry(entry);
                fail_at(&mut self.model.fail_bind, entry, fail);
                fail_at(&mut self.world.0.borrow_mut().fail_bind, entry, fail);
            }
            Op::FailUnbind(entry, fail) => {
                let entry = layout.entry(entry);
                fail_at(&mut self.model.fail_unbind, entry, fail);
                fail_at(&mut self.world.0.borrow_mut().fail_unbind, entry, fail);
            }
            Op::Throttle(entry, throttled) => {
                let entry = layout.entry(entry);
                let source = Source::msix(FunctionId(0), entry);
                let got = self.msix.set_throttled(VMM, source, throttled);
                assert_eq!(got, Ok(()));
                self.model.throttle(entry, throttled);
            }
            Op::Reset => {
                let got = self.msix.reset(CONTROL, FunctionId(0));
                assert_eq!(got.is_ok(), self.model.reset());
            }
        }
        self.check();
    }

    fn write(&mut self, bar: u8, offset: u32, width: Width, value: u64) {
        let got = self.msix.write(VMM, place(bar), offset, width, value);
        let model = self.model.write(bar, offset.into(), width, value);
        assert_eq!(got, model.ok_or(Error::Refused));
    }

    fn read(&mut self, bar: u8, offset: u32, width: Width) {
        let got = self.msix.read(VMM, place(bar), offset, width);
        let model = self.model.read(bar, offset.into(), width);
        assert_eq!(got, model.ok_or(Error::Refused));
    }

    /// Checks everything that shows after a step.
    fn check(&mut self) {
        let mut world = self.world.0.borrow_mut();
        assert_eq!(
            std::mem::take(&mut world.events),
            std::mem::take(&mut self.model.events)
        );
        assert_eq!(
            std::mem::take(&mut world.accesses),
            std::mem::take(&mut self.model.accesses)
        );
        assert_eq!(world.function_mask, self.model.function_mask);
        for (index, entry) in self.model.entries.iter().enumerate() {
            let index = index as u16;
            let bound = world.bound.contains_key(&index);
            assert_eq!(bound, entry.bound || entry.left_over, "bound {index}");
            assert_eq!(world.is_masked(index), entry.device_masked, "mask {index}");
            world.check_entry(index);
        }
        drop(world);
        let control = self.msix.read_control(CONTROL, FunctionId(0));
        assert_eq!(control, Ok(self.model.control()));
        let counters = &self.msix.counters;
        let counted = (
            counters.dropped.get(),
            counters.bind_failures.get(),
            counters.unbind_failures.get(),
        );
        let model = &self.model;
        let expected = (model.dropped, model.bind_failures, model.unbind_failures);
        assert_eq!(counted, expected);
    }

    /// Checks the whole table as the guest reads it.
    fn check_table(&mut self) {
        let (bar, start) = self.model.layout.table;
        let end = self.model.layout.table_end();
        for offset in (start..end).step_by(4) {
            self.read(bar, offset, Width::Dword);
        }
        for offset in (start..end).step_by(8) {
            self.read(bar, offset, Width::Qword);
        }
    }
}

fn fail_at(failing: &mut Vec<u16>, entry: u16, fail: bool) {
    failing.retain(|&other| other != entry);
    if fail {
        failing.push(entry);
    }
}

proptest! {
    #![proptest_config(crate::config(400))]

    #[test]
    fn m1_to_m18_hold_for_any_sequence(
        layout in layouts(),
        ops in prop::collection::vec(ops(), 1..80),
    ) {
        let kept = Words::new();
        let mut pair = Pair::new(layout, &kept);
        for op in &ops {
            pair.play(op);
        }
        pair.check_table();
    }
}
