//! The rules, one by one, against a device that is plain memory and a router
//! that keeps a log. Names start with the rule that they would break.

extern crate std;
use std::boxed::Box;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec::Vec;

use channel::irq_router::{Answers, Batch, Client, IrqRouter, ShortMessage, Source};
use channel::msix::FunctionBar;
use channel::msix::control::MsixControl;
use channel::msix::dump::MsixDump;
use channel::msix::table::MsixTable;
use channel::{Caller, Error, Local, Message};
use pci::{FunctionInfo, MsixInfo, MsixPage, Width};
use shm::Kept;

use super::*;

mod control;
mod table;

const CONTROL: Caller = Caller(1);
const VMM: Caller = Caller(2);
const ENABLE: u16 = 0x8000;
const FUNCTION_MASK: u16 = 0x4000;
/// Starts at 8 mod 16 (M18), on page 1 with the PBA and other registers.
const TABLE: u32 = 0x1008;
const PBA: u32 = 0x1ff0;
const ENTRIES: u32 = 70;
/// Where the router's messages point.
const HOST: u64 = 0xfee0_1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Bind(u16, u64, u32),
    Unbind(u16),
    Mask(u16, bool),
    FunctionMask(bool),
    UnbindFunction,
    /// Offset and value of a write to the device.
    Write(u32, Width, u64),
    Read(u32, Width),
}
use Event::{Bind, FunctionMask, Mask, Read, Unbind, UnbindFunction, Write};
use spec::FunctionId;

#[derive(Default)]
struct World {
    log: Vec<Event>,
    memory: BTreeMap<(FunctionBarKey, u32), u8>,
    fail_bind: BTreeSet<u16>,
    fail_unbind: BTreeSet<u16>,
    bound: BTreeSet<(FunctionId, u16)>,
    /// The router dies in each unbind.
    dies: bool,
    /// Every call, the refused ones too.
    calls: u32,
    /// Every access to the device.
    accesses: u32,
    /// Sources that can be bound; then binds fail like this.
    room: Option<(usize, Error)>,
}

type FunctionBarKey = (FunctionId, u8);

impl World {
    fn value(&self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        (0..width.bytes() as u32).fold(0, |value, byte| {
            let key = ((place.function, place.bar), offset + byte);
            value | u64::from(*self.memory.get(&key).unwrap_or(&0)) << (8 * byte)
        })
    }
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<World>>);

impl Hardware for Fake {
    fn read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        assert!(width.is_aligned(offset.into()));
        let mut world = self.0.borrow_mut();
        world.accesses += 1;
        world.log.push(Read(offset, width));
        world.value(place, offset, width)
    }

    fn write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        assert!(width.is_aligned(offset.into()));
        let mut world = self.0.borrow_mut();
        world.accesses += 1;
        world.log.push(Write(offset, width, value));
        for byte in 0..width.bytes() as u32 {
            let key = ((place.function, place.bar), offset + byte);
            world.memory.insert(key, (value >> (8 * byte)) as u8);
        }
    }
}

impl Fake {
    fn bind_one(&mut self, source: Source, address: u64, data: u32) -> Result<(u64, u32), Error> {
        let mut world = self.0.borrow_mut();
        if let Some((room, error)) = world.room
            && world.bound.len() >= room
        {
            return Err(error);
        }
        if world.fail_bind.contains(&source.entry) {
            return Err(Error::Failed);
        }
        assert!(
            world.bound.insert((source.function, source.entry)),
            "bound twice"
        );
        world.log.push(Bind(source.entry, address, data));
        Ok(message(source.entry))
    }

    fn unbind_one(&mut self, source: Source) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        if world.dies {
            return Err(Error::Gone(1));
        }
        if world.fail_unbind.contains(&source.entry) {
            return Err(Error::Failed);
        }
        assert!(
            world.bound.remove(&(source.function, source.entry)),
            "not bound"
        );
        world.log.push(Unbind(source.entry));
        Ok(())
    }
}

impl IrqRouter for Fake {
    fn bind(
        &mut self,
        _: Caller,
        source: Source,
        address: u64,
        data: u32,
    ) -> Result<(u64, u32), Error> {
        self.0.borrow_mut().calls += 1;
        self.bind_one(source, address, data)
    }

    fn unbind(&mut self, _: Caller, source: Source) -> Result<(), Error> {
        self.0.borrow_mut().calls += 1;
        self.unbind_one(source)
    }

    fn set_masked(&mut self, _: Caller, source: Source, masked: bool) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        assert!(
            world.bound.contains(&(source.function, source.entry)),
            "not bound"
        );
        world.log.push(Mask(source.entry, masked));
        Ok(())
    }

    fn set_function_masked(&mut self, _: Caller, _: FunctionId, masked: bool) -> Result<(), Error> {
        self.0.borrow_mut().log.push(FunctionMask(masked));
        Ok(())
    }

    fn unbind_function(&mut self, _: Caller, function: FunctionId) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        world.bound.retain(|&(f, _)| f != function);
        world.log.push(UnbindFunction);
        Ok(())
    }

    fn restore(&mut self, _: Caller, source: Source) -> Result<(u64, u32), Error> {
        let world = self.0.borrow();
        let bound = world.bound.contains(&(source.function, source.entry));
        bound
            .then_some(message(source.entry))
            .ok_or(Error::NotFound)
    }

    fn bind_batch(
        &mut self,
        _: Caller,
        batch: Batch,
        first: ShortMessage,
        second: ShortMessage,
        third: ShortMessage,
    ) -> Result<Answers, Error> {
        let messages = [first, second, third];
        let room = {
            let mut world = self.0.borrow_mut();
            world.calls += 1;
            world.room
        };
        // A router that dies answers for none of them.
        if let Some((0, Error::Gone(generation))) = room {
            return Err(Error::Gone(generation));
        }
        let bind = |source, address, data| self.bind_one(source, address, data);
        Ok(Answers::of_each(batch, messages, bind))
    }

    fn unbind_entries(&mut self, _: Caller, first: Source, entries: u64) -> Result<u64, Error> {
        self.0.borrow_mut().calls += 1;
        if self.0.borrow().dies {
            return Err(Error::Gone(1));
        }
        Ok(first.each_until(entries, |source| self.unbind_one(source)))
    }
}

fn message(entry: u16) -> (u64, u32) {
    (HOST, 0x1000 + u32::from(entry))
}

type Link = Local<Box<dyn FnMut(Message) -> Message>>;

struct Rig {
    msix: Msix<'static, Fake, Link, 3>,
    fake: Fake,
}

/// Returns function 0 as the constants above say, 1 permissive with five entries at
/// the start of its BAR, 2 without MSI-X.
fn rig_with(storage: usize) -> Rig {
    rig_of(storage, |_| {})
}

/// Creates a rig with changed functions.
fn rig_of(storage: usize, change: impl FnOnce(&mut [FunctionInfo; 3])) -> Rig {
    let function = |entries, table_offset, pba_offset, permissive| {
        let mut info = FunctionInfo {
            permissive,
            ..FunctionInfo::default()
        };
        info.msix = MsixInfo {
            entries,
            table_offset,
            pba_offset,
            page_count: 1,
            ..MsixInfo::default()
        };
        info.msix.pages[0] = MsixPage {
            bar: 0,
            page: table_offset / 4096,
        };
        info
    };
    let mut functions = [
        function(ENTRIES, TABLE, PBA, 0),
        function(5, 0, 0x800, 1),
        FunctionInfo::default(),
    ];
    change(&mut functions);
    let [first, second, third] = functions;
    let fake = Fake::default();
    let mut router = fake.clone();
    let link: Link = Local(Box::new(move |request| {
        channel::irq_router::dispatch(&mut router, Caller(7), request)
    }));
    let functions = [(first, VMM), (second, VMM), (third, VMM)];
    let kept: &Kept<{ kept_words(3, 2053) }> = Box::leak(Box::default());
    let mut msix = Msix::new(fake.clone(), Client(link), kept);
    msix.take_over(storage, functions);
    let rig = Rig { msix, fake };
    rig.log();
    rig
}

fn rig() -> Rig {
    rig_with(75)
}

fn at(entry: u16, field: u32) -> u32 {
    TABLE + 16 * u32::from(entry) + field
}

impl Rig {
    /// Returns the events since the last call.
    fn log(&self) -> Vec<Event> {
        std::mem::take(&mut self.fake.0.borrow_mut().log)
    }

    /// Returns only the router's calls.
    fn routed(&self) -> Vec<Event> {
        let mut log = self.log();
        log.retain(|event| !matches!(event, Read(..) | Write(..)));
        log
    }

    fn read_of(&mut self, function: FunctionId, offset: u32, width: Width) -> u64 {
        let place = FunctionBar { function, bar: 0 };
        self.msix.read(VMM, place, offset, width).expect("claimed")
    }

    fn write_of(&mut self, function: FunctionId, offset: u32, width: Width, value: u64) {
        let place = FunctionBar { function, bar: 0 };
        self.msix
            .write(VMM, place, offset, width, value)
            .expect("claimed");
    }

    fn read(&mut self, offset: u32, width: Width) -> u64 {
        self.read_of(FunctionId(0), offset, width)
    }

    fn write(&mut self, offset: u32, width: Width, value: u64) {
        self.write_of(FunctionId(0), offset, width, value);
    }

    fn program(&mut self, entry: u16, address: u64, data: u32) {
        self.write(at(entry, 0), Width::Qword, address);
        self.write(at(entry, 8), Width::Dword, data.into());
    }

    fn mask(&mut self, entry: u16, masked: bool) {
        self.write(at(entry, 12), Width::Dword, masked.into());
    }

    fn control(&mut self, value: u16) -> Option<u16> {
        self.msix
            .write_control(CONTROL, FunctionId(0), value)
            .expect("there")
    }

    /// Creates an enabled function, with these entries bound to their number plus 0x30.
    fn live(entries: &[u16]) -> Self {
        let mut rig = rig();
        rig.control(ENABLE);
        for &entry in entries {
            rig.program(entry, 0xfee0_0000, 0x30 + u32::from(entry));
            rig.mask(entry, false);
        }
        rig.log();
        rig
    }

    fn fail(&self, bind: &[u16], unbind: &[u16]) {
        let mut world = self.fake.0.borrow_mut();
        world.fail_bind = bind.iter().copied().collect();
        world.fail_unbind = unbind.iter().copied().collect();
    }

    fn device(&self, entry: u16, field: u32) -> u64 {
        let place = FunctionBar {
            function: FunctionId(0),
            bar: 0,
        };
        let world = self.fake.0.borrow();
        world.value(place, at(entry, field), Width::Dword)
    }

    fn entry(&self, entry: u16) -> Entry {
        self.msix.entry(0, entry)
    }

    /// Returns how many of a function's entries are no longer as after reset.
    fn in_use(&self, function: usize) -> usize {
        let entries = 0..self.msix.functions[function].info.entries as u16;
        let entries = entries.map(|entry| self.msix.entry(function, entry));
        entries.filter(|entry| *entry != Entry::RESET).count()
    }
}

fn bound(entry: u16) -> Event {
    Bind(entry, 0xfee0_0000, 0x30 + u32::from(entry))
}

#[test]
fn m16_no_room_for_its_entries_means_no_msix() {
    let mut rig = rig_with(74);
    assert_eq!(rig.msix.read_control(CONTROL, FunctionId(0)), Ok(69));
    assert_eq!(
        rig.msix.read_control(CONTROL, FunctionId(1)),
        Err(Error::NotFound)
    );
    let place = FunctionBar {
        function: FunctionId(1),
        bar: 0,
    };
    let result = rig.msix.read(VMM, place, 0, Width::Dword);
    assert_eq!(result, Err(Error::NotFound));
}

#[test]
fn m19_the_device_gets_the_routers_message() {
    let mut rig = Rig::live(&[2]);
    assert_eq!(rig.device(2, 0), HOST & 0xffff_ffff);
    assert_eq!(rig.device(2, 8), 0x1002);
    assert_eq!(rig.read(at(2, 0), Width::Qword), 0xfee0_0000);
    assert_eq!(rig.read(at(2, 8), Width::Dword), 0x32);
}

#[test]
fn m20_the_function_mask_is_routed_before_it_is_written() {
    let mut rig = Rig::live(&[2]);
    rig.control(ENABLE | FUNCTION_MASK);
    assert_eq!(rig.log(), [FunctionMask(true)]);
    assert_eq!(rig.control(0), Some(69));
    assert_eq!(rig.routed(), [Unbind(2), FunctionMask(false)]);
}

#[test]
fn m21_a_live_entry_is_masked_and_flushed_before_it_is_unbound() {
    let mut rig = Rig::live(&[2]);
    rig.control(0);
    let control = at(2, 12);
    let log = [
        Write(control, Width::Dword, 1),
        Read(control, Width::Dword),
        Unbind(2),
    ];
    assert_eq!(rig.log(), log);
}

#[test]
fn m21_an_entry_that_is_masked_is_not_masked_again_before_it_is_unbound() {
    let mut rig = Rig::live(&[2]);
    rig.mask(2, true);
    rig.write(at(2, 8), Width::Dword, 0x99);
    rig.log();
    rig.mask(2, false);
    assert_eq!(rig.log().first(), Some(&Unbind(2)));
}

#[test]
fn m22_nothing_is_bound_for_the_size_of_the_table() {
    let mut rig = Rig::live(&[2, 3]);
    assert_eq!(rig.fake.0.borrow().bound.len(), 2);
    rig.control(ENABLE | FUNCTION_MASK);
    rig.control(ENABLE);
    assert_eq!(rig.fake.0.borrow().bound.len(), 2);
}

#[test]
fn m23_a_throttled_source_is_masked_in_the_device_only() {
    let mut rig = Rig::live(&[2]);
    let source = Source::msix(FunctionId(0), 2);
    let control = at(2, 12);
    assert_eq!(rig.msix.set_throttled(VMM, source, true), Ok(()));
    let masked = [Write(control, Width::Dword, 1), Read(control, Width::Dword)];
    assert_eq!(rig.log(), masked);
    assert_eq!(rig.read(control, Width::Dword), 0);
    rig.mask(2, true);
    rig.mask(2, false);
    rig.write(at(2, 8), Width::Dword, 0x99);
    rig.mask(2, true);
    rig.mask(2, false);
    assert_eq!(rig.device(2, 12), 1);
    rig.log();
    assert_eq!(rig.msix.set_throttled(VMM, source, false), Ok(()));
    assert_eq!(rig.log(), [Write(control, Width::Dword, 0)]);
    assert_eq!(rig.msix.counters.throttled, 1);
    for none in [
        Source::msix(FunctionId(0), 70),
        Source::msi(FunctionId(0), 2),
    ] {
        assert_eq!(
            rig.msix.set_throttled(VMM, none, true),
            Err(Error::NotFound)
        );
    }
}

#[test]
fn m24_reset_masks_unbinds_and_forgets() {
    let mut rig = Rig::live(&[2, 69]);
    assert_eq!(rig.msix.reset(CONTROL, FunctionId(0)), Ok(()));
    let log = rig.log();
    assert_eq!(log.len(), 72);
    for (entry, event) in log[..70].iter().enumerate() {
        assert_eq!(*event, Write(at(entry as u16, 12), Width::Dword, 1));
    }
    assert_eq!(log[71], UnbindFunction);
    assert!(rig.fake.0.borrow().bound.is_empty());
    assert_eq!(rig.msix.read_control(CONTROL, FunctionId(0)), Ok(69));
    assert_eq!(rig.in_use(0), 0);
    rig.control(ENABLE);
    assert_eq!(rig.routed(), []);
}

#[test]
fn functions_are_kept_apart() {
    let mut rig = Rig::live(&[2]);
    rig.write_of(FunctionId(1), 0x28, Width::Dword, 0x77);
    assert_eq!(rig.read(at(2, 8), Width::Dword), 0x32);
    assert_eq!(rig.msix.read_control(CONTROL, FunctionId(1)), Ok(4));
    assert_eq!(rig.in_use(1), 1);
}

#[test]
fn strangers_get_nothing() {
    let mut rig = rig();
    let place = FunctionBar {
        function: FunctionId(0),
        bar: 0,
    };
    let read = rig.msix.read(CONTROL, place, TABLE, Width::Dword);
    assert_eq!(read, Err(Error::NotFound));
    let source = Source::msix(FunctionId(0), 0);
    let throttle = rig.msix.set_throttled(CONTROL, source, true);
    assert_eq!(throttle, Err(Error::NotFound));
    for function in [2, 3, 255] {
        assert_eq!(
            rig.msix.reset(CONTROL, FunctionId(function)),
            Err(Error::NotFound)
        );
    }
    assert_eq!(rig.msix.counters.not_found, 5);
    assert_eq!(rig.log(), []);
}
