//! The rules, one by one, against a function laid out like an 82574 (PM 0xc8,
//! MSI 0xd0, PCI Express 0xe0, MSI-X 0xa0) and an msix and an irq-router that
//! keep a log.

extern crate std;
use std::boxed::Box;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use channel::irq_router::Block;
use channel::irq_router::msi::{self, MsiRouter};
use channel::msix::control::{Client, MsixControl, dispatch};
use channel::pci_config::{Effect, PciConfig};
use channel::{Caller, Error, Local, Message};
use pci::{BarInfo, BarKind, Bdf, FunctionInfo};
use shm::Kept;

use super::*;
use crate::reset::{PATIENCE_MS, POWER_MS, RESET_MS};

mod bars;
mod capabilities;
mod messages;
mod reset;

use Width::{Byte, Dword, Qword, Word};

const VMM: Caller = Caller(5);
const MSIX: u16 = 0xa0;
const PM: u16 = 0xc8;
const MSI: u16 = 0xd0;
const PCIE: u16 = 0xe0;
/// Where some of these functions have Advanced Features.
const AF: u16 = 0x50;
/// irq-router's message for the device.
const OURS: (u64, u32) = (0xfee0_0000, 0x38);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Written down only where a test asks for it.
    Read(u16),
    Write(u16, Width, u32),
    MsixControl(u16),
    MsixReset,
    /// Block, address, data and mask.
    Bind(Block, u64, u32, u32),
    Message(u64, u32),
    Mask(u32),
    Unbind,
}
use Event::Write;
use spec::FunctionId;

struct World {
    config: Vec<u8>,
    log: Vec<Event>,
    control: u16,
    /// Answer to every call on msix.
    error: Option<Error>,
    /// Answer to every call on irq-router.
    router_error: Option<Error>,
    extended: bool,
    /// The clock, which goes on by `tick` with each look at it.
    now: u64,
    tick: u64,
    /// Reads of the device are in the log, too.
    logs_reads: bool,
    /// Until when nothing may touch the device: it is in a reset.
    reset_over: u64,
    /// How much longer it answers with ones and loses writes.
    slow: u64,
    /// The way from D3hot to D0 is a reset.
    power_resets: bool,
    /// A register that no reset clears.
    survives: u16,
    /// A function-level reset is one.
    flr_resets: bool,
    /// Registers of BAR 0, if they are there.
    registers: Option<BTreeMap<u32, u32>>,
    /// One of them that nothing changes.
    stuck: Option<u32>,
    /// The reset bit of these clears them.
    model_resets: bool,
    /// Whether MSI-X was on at the first of them.
    stopped_with_msix_on: Option<bool>,
    /// It is a virtio function, whose registers these are instead.
    virtio: Option<Common>,
}

/// The common registers of a virtio function, at [`COMMON`].
#[derive(Clone)]
struct Common {
    status: u8,
    /// How long its reset takes; it says so until then.
    takes: u64,
    over: Option<u64>,
    queues: u16,
    selected: u16,
    enabled: BTreeSet<u16>,
    /// A queue that no reset ends.
    stuck: Option<u16>,
}

/// Where on their page they begin.
const COMMON: u32 = 0x400;

impl Common {
    fn read(&mut self, offset: u32, width: Width, now: u64) -> u32 {
        if self.over.is_some_and(|over| now >= over) {
            self.over = None;
            self.status = 0;
            self.enabled.retain(|queue| Some(*queue) == self.stuck);
        }
        match (offset - COMMON, width) {
            (0x12, Word) => self.queues.into(),
            (0x14, Byte) => self.status.into(),
            (0x1c, Word) => self.enabled.contains(&self.selected).into(),
            other => panic!("read: {other:x?}"),
        }
    }

    fn write(&mut self, offset: u32, width: Width, value: u32, now: u64) {
        match (offset - COMMON, width) {
            (0x14, Byte) => {
                assert_eq!(value, 0, "only a reset");
                self.over = now.checked_add(self.takes);
            }
            (0x16, Word) => {
                assert_eq!(self.status, 0, "touched while it is reset");
                self.selected = value as u16;
            }
            other => panic!("written: {other:x?}"),
        }
    }
}

#[derive(Clone)]
struct Fake(Rc<RefCell<World>>);

impl Hardware for Fake {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        assert!(width != Qword && width.is_aligned(offset.into()));
        let mut world = self.0.borrow_mut();
        if world.logs_reads {
            world.log.push(Event::Read(offset));
        }
        assert!(world.now >= world.reset_over, "read while it is reset");
        if world.reset_over != 0 && world.now < world.reset_over.saturating_add(world.slow) {
            return width.all_ones() as u32;
        }
        let at = usize::from(offset);
        let bytes = &world.config[at..at + width.bytes() as usize];
        bytes.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b))
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        assert!(width != Qword && width.is_aligned(offset.into()));
        assert_eq!(value & !(width.all_ones() as u32), 0, "bits past the width");
        let mut world = self.0.borrow_mut();
        assert!(world.now >= world.reset_over, "written while it is reset");
        assert!(
            world.reset_over == 0 || world.now >= world.reset_over.saturating_add(world.slow),
            "the write is lost"
        );
        world.log.push(Write(offset, width, value));
        let state = world.config[usize::from(PM) + 4] & 3;
        world.put(offset, width.bytes() as usize, value);
        if (offset, value >> 15) == (PCIE + 8, 1) && world.has_reset() {
            world.put(PCIE + 8, 2, 0x2810);
            let forgets = world.flr_resets;
            world.reset(RESET_MS, forgets);
        }
        if (offset, value) == (AF + 4, 1) && world.config[usize::from(AF)] == 0x13 {
            world.put(AF + 4, 1, 0);
            world.reset(RESET_MS, true);
        }
        if offset == PM + 4 && u32::from(state) != value & 3 {
            let forgets = value & 3 == 0 && world.power_resets;
            world.reset(POWER_MS, forgets);
        }
    }

    fn has_registers(&self) -> bool {
        let world = self.0.borrow();
        world.registers.is_some() || world.virtio.is_some()
    }

    fn read_register(&mut self, offset: u32, width: Width) -> u32 {
        let world = &mut *self.0.borrow_mut();
        if let Some(common) = &mut world.virtio {
            return common.read(offset, width, world.now);
        }
        assert_eq!(width, Dword);
        let registers = world.registers.as_ref().expect("it has them");
        registers.get(&offset).copied().unwrap_or(0)
    }

    fn write_register(&mut self, offset: u32, width: Width, value: u32) {
        let world = &mut *self.0.borrow_mut();
        if let Some(common) = &mut world.virtio {
            return common.write(offset, width, value, world.now);
        }
        assert_eq!(width, Dword);
        let resets = world.model_resets;
        if (offset, value >> 26 & 1) == (0, 1) {
            let on = world.config[usize::from(MSIX) + 3] & 0x80 != 0;
            world.stopped_with_msix_on.get_or_insert(on);
        }
        let stuck = world.stuck;
        let registers = world.registers.as_mut().expect("it has them");
        let keeps = stuck.and_then(|stuck| Some((stuck, *registers.get(&stuck)?)));
        match (offset, value >> 26 & 1) {
            (0, 1) if resets => registers.clear(),
            // Writes to mask clear and causes are not kept.
            (0xd8, _) if resets => drop(registers.insert(0xd0, 0)),
            (0xc0 | 0xd8, _) => {}
            _ => drop(registers.insert(offset, value)),
        }
        registers.extend(keeps);
    }

    fn has_extended_space(&self) -> bool {
        self.0.borrow().extended
    }

    fn now_ms(&mut self) -> u64 {
        let mut world = self.0.borrow_mut();
        world.now += world.tick;
        world.now
    }
}

impl World {
    /// Puts the device into a reset.
    fn reset(&mut self, takes: u64, forgets: bool) {
        self.reset_over = self.now + takes;
        if !forgets {
            return;
        }
        // It has forgotten its BARs, its command register and some more.
        let bars = (0x10..0x28).step_by(4).map(|bar| (bar, 4));
        for (at, bytes) in [(PCIE + 8, 2), (0x04, 2), (0x0c, 1), (0x3c, 1)]
            .into_iter()
            .chain(bars)
        {
            if self.survives != at {
                self.put(at, bytes, 0);
            }
        }
    }

    fn has_reset(&self) -> bool {
        self.config[usize::from(PCIE) + 7] >> 4 & 1 == 1
    }

    fn put(&mut self, offset: u16, bytes: usize, value: u32) {
        let at = usize::from(offset);
        self.config[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
}

impl MsixControl for Fake {
    fn read_control(&mut self, _: Caller, _: FunctionId) -> Result<u16, Error> {
        let world = self.0.borrow();
        world.error.map_or(Ok(world.control), Err)
    }

    fn write_control(
        &mut self,
        _: Caller,
        _: FunctionId,
        value: u16,
    ) -> Result<Option<u16>, Error> {
        let mut world = self.0.borrow_mut();
        if let Some(error) = world.error {
            return Err(error);
        }
        world.log.push(Event::MsixControl(value));
        let before = world.control;
        world.control = value & 0xc000 | 4;
        Ok((before != world.control).then_some(world.control))
    }

    fn reset(&mut self, _: Caller, _: FunctionId) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        world.log.push(Event::MsixReset);
        world.control = 4;
        world.error.map_or(Ok(()), Err)
    }
}

impl Fake {
    fn route<V>(&mut self, event: Event, value: V) -> Result<V, Error> {
        let mut world = self.0.borrow_mut();
        world.log.push(event);
        world.router_error.map_or(Ok(value), Err)
    }
}

impl MsiRouter for Fake {
    fn bind_block(
        &mut self,
        _: Caller,
        block: Block,
        address: u64,
        data: u32,
        mask: u32,
    ) -> Result<(u64, u32), Error> {
        self.route(Event::Bind(block, address, data, mask), OURS)
    }

    fn set_message(
        &mut self,
        _: Caller,
        _: FunctionId,
        address: u64,
        data: u32,
    ) -> Result<(), Error> {
        self.route(Event::Message(address, data), ())
    }

    fn set_mask(&mut self, _: Caller, _: FunctionId, mask: u32) -> Result<(), Error> {
        self.route(Event::Mask(mask), ())
    }

    fn unbind_block(&mut self, _: Caller, _: FunctionId) -> Result<(), Error> {
        self.route(Event::Unbind, ())
    }
}

type Link = Local<Box<dyn FnMut(Message) -> Message>>;

struct Rig {
    functions: Functions<'static, Fake, Link, 1>,
    fake: Fake,
}

fn bdf() -> Bdf {
    Bdf::new(0, 3, 0).expect("an address")
}

fn world() -> World {
    let mut world = World {
        config: vec![0; 4096],
        log: Vec::new(),
        control: 4,
        error: None,
        router_error: None,
        extended: true,
        now: 1_000_000,
        tick: 0,
        logs_reads: false,
        reset_over: 0,
        slow: 0,
        power_resets: false,
        survives: 0,
        flr_resets: true,
        registers: None,
        stuck: None,
        model_resets: true,
        stopped_with_msix_on: None,
        virtio: None,
    };
    for (offset, value) in [
        (0x00, 0x10d3_8086),
        (0x04, 0x0010_0007),
        (0x08, 0x0200_0001),
        (0x0c, 0x8080_4010),
        (0x10, 0xfe80_0000),
        (0x14, 0xfe90_0004),
        (0x18, 0x0000_0001),
        (0x1c, 0xc001),
        (0x28, 0x1234),
        (0x2c, 0x0000_8086),
        (0x30, 0xfeb0_0001),
        (0x34, 0xc8),
        (0x3c, 0x0000_010b),
        (0x40, 0xdead_beef),
        (0x100, 0x1401_0001),
        (MSIX, 0x8004_0011),
        (MSIX + 4, 0x0000_0000),
        (MSIX + 8, 0x0000_2000),
        (PM, 0xc822_d001),
        (PM + 4, 0x0000_2108),
        (MSI, 0x0081_e005),
        (MSI + 4, 0xfee0_0000),
        (PCIE, 0x0001_a010),
        (PCIE + 4, 0x1000_8cc1),
        (PCIE + 8, 0x0009_2810),
    ] {
        world.put(offset, 4, value);
    }
    world
}

fn info(permissive: bool) -> FunctionInfo {
    let bar = |kind, address, size| BarInfo {
        kind,
        address,
        guest: address,
        size,
        ..BarInfo::default()
    };
    let mut info = FunctionInfo {
        guest_bdf: bdf().requester_id(),
        permissive: permissive.into(),
        intx: 20,
        ..FunctionInfo::default()
    };
    info.bars[0] = bar(BarKind::Memory32, 0xfe80_0000, 0x2_0000);
    info.bars[1] = bar(BarKind::Memory64, 0x1_fe90_0000, 0x10_0000);
    // The firmware gave it no ports.
    info.bars[3] = bar(BarKind::Io, 0, 0x20);
    info.msix.entries = 5;
    info.msix.capability = MSIX.into();
    info
}

fn router(fake: &Fake) -> msi::Client<Link> {
    let mut server = fake.clone();
    msi::Client(Local(Box::new(move |request| {
        msi::dispatch(&mut server, Caller(1), request)
    })))
}

fn msix(fake: &Fake) -> Client<Link> {
    let mut server = fake.clone();
    Client(Local(Box::new(move |request| {
        dispatch(&mut server, Caller(1), request)
    })))
}

fn info_with_ports() -> FunctionInfo {
    let mut info = info(false);
    info.bars[3] = BarInfo {
        address: 0xc000,
        guest: 0xc000,
        ..info.bars[3]
    };
    info
}

fn rig_of(world: World, info: FunctionInfo) -> Rig {
    let fake = Fake(Rc::new(RefCell::new(world)));
    let (msix, router) = (msix(&fake), router(&fake));
    let kept: &Kept<{ kept_words(1) }> = Box::leak(Box::default());
    let mut functions = Functions::new(msix, router);
    functions.take_over([(info, VMM, fake.clone())], kept);
    Rig { functions, fake }
}

fn rig() -> Rig {
    let rig = rig_of(world(), info(false));
    rig.log();
    rig
}

fn permissive() -> Rig {
    let rig = rig_of(world(), info(true));
    rig.log();
    rig
}

impl Rig {
    fn log(&self) -> Vec<Event> {
        std::mem::take(&mut self.fake.0.borrow_mut().log)
    }

    fn read(&mut self, offset: u16, width: Width) -> u32 {
        let value = self.functions.read(VMM, bdf(), offset, width);
        value.expect("reads always answer")
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) -> Effect {
        let effect = self.functions.write(VMM, bdf(), offset, width, value);
        effect.expect("writes always answer")
    }

    fn bar(&mut self, index: u8) -> u64 {
        self.functions
            .bar(VMM, FunctionId(0), index)
            .expect("there")
    }

    fn device(&mut self, offset: u16, width: Width) -> u32 {
        Hardware::read(&mut self.fake, offset, width)
    }

    /// Advances the clock, in ms.
    fn pass(&mut self, time: u64) {
        self.fake.0.borrow_mut().now += time;
    }

    /// Returns the offsets of the capabilities that the guest finds.
    fn capabilities(&mut self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut at = self.read(0x34, Byte);
        while at != 0 {
            found.push(at);
            at = self.read(at as u16 + 1, Byte);
        }
        found
    }
}

#[test]
fn c1_every_width_agrees_byte_for_byte() {
    for mut rig in [rig(), permissive()] {
        for offset in 0..0x110 {
            let byte = rig.read(offset, Byte);
            for width in [Word, Dword] {
                let start = offset & !(width.bytes() as u16 - 1);
                let whole = rig.read(start, width);
                assert_eq!(whole >> (8 * (offset - start)) & 0xff, byte, "{offset:#x}");
            }
        }
        assert_eq!(rig.log(), []);
    }
}

#[test]
fn c1_a_write_is_split_over_its_handlers() {
    let mut rig = rig();
    // Cache line size, latency timer, header type, self test.
    rig.write(0x0c, Dword, 0xffff_ff20);
    assert_eq!(rig.log(), [Write(0x0c, Byte, 0x20)]);
    // Command and status in one dword.
    assert_eq!(rig.write(0x04, Dword, 0x0800_0406), Effect::NONE);
    assert_eq!(rig.read(0x04, Word), 0x0406);
    assert_eq!(
        rig.log(),
        [Write(0x04, Word, 0x0406), Write(0x06, Word, 0x0810)]
    );
}

#[test]
fn c1_a_bad_shape_reads_ones_and_drops() {
    let mut rig = rig();
    for (offset, width) in [
        (1, Word),
        (2, Dword),
        (0, Qword),
        (4096, Dword),
        (0xffff, Byte),
    ] {
        assert_eq!(rig.read(offset, width), width.all_ones() as u32);
        assert_eq!(rig.write(offset, width, 0), Effect::NONE);
    }
    assert_eq!(rig.functions.counters.dropped, 10);
    assert_eq!(rig.log(), []);
}

#[test]
fn c2_strict_gaps_read_0_and_drop() {
    let mut rig = rig();
    assert_eq!(rig.read(0x40, Dword), 0);
    rig.write(0x40, Dword, 0x55);
    assert_eq!(rig.log(), []);
    assert_eq!(rig.functions.counters.dropped, 1);
}

#[test]
fn c2_permissive_gaps_pass() {
    let mut rig = permissive();
    assert_eq!(rig.read(0x40, Dword), 0xdead_beef);
    rig.write(0x41, Byte, 0x55);
    assert_eq!(rig.log(), [Write(0x41, Byte, 0x55)]);
    // Part gap, part constant: the capability pointer is not the device's.
    rig.write(0x34, Dword, 0x1122_3344);
    assert_eq!(
        rig.log(),
        [Write(0x35, Byte, 0x33), Write(0x36, Word, 0x1122)]
    );
}

#[test]
fn c2_write_1_to_clear_bits_that_are_not_written_stay() {
    let mut world = world();
    world.put(0x06, 2, 0xf916);
    let mut rig = rig_of(world, info(false));
    rig.log();
    rig.write(0x07, Byte, 0x80);
    assert_eq!(rig.log(), [Write(0x06, Word, 0x8010)]);
    rig.write(0x06, Byte, 0xff);
    assert_eq!(rig.log(), [], "only a byte without such bits was written");
}

#[test]
fn c3_a_function_that_is_not_there_reads_ones() {
    let mut rig = rig();
    let other = Bdf::new(0, 4, 0).expect("an address");
    assert_eq!(rig.functions.read(VMM, other, 0, Word), Ok(0xffff));
    assert_eq!(rig.functions.read(Caller(6), bdf(), 0, Dword), Ok(u32::MAX));
    let write = rig.functions.write(Caller(6), bdf(), 4, Word, 0);
    assert_eq!(write, Ok(Effect::NONE));
    assert_eq!(
        rig.functions.bar(Caller(6), FunctionId(0), 0),
        Err(Error::NotFound)
    );
    assert_eq!(
        rig.functions.reset(Caller(6), FunctionId(0)),
        Err(Error::NotFound)
    );
    assert_eq!(
        rig.functions.bar(VMM, FunctionId(1), 0),
        Err(Error::NotFound)
    );
    assert_eq!(
        rig.functions.bar(VMM, FunctionId(0), 6),
        Err(Error::NotFound)
    );
    assert_eq!(rig.functions.counters.not_found, 6);
    assert_eq!(rig.log(), []);
}

#[test]
fn c5_host_decode_stays_on_and_io_off() {
    let mut rig = rig();
    assert_eq!(rig.read(0x04, Word), 0x0002);
    assert_eq!(rig.write(0x04, Word, 0xffff), Effect::NONE);
    assert_eq!(rig.read(0x04, Word), 0x0406);
    assert_eq!(rig.log(), [Write(0x04, Word, 0x0406)]);
    assert_eq!(rig.write(0x04, Word, 0x0004), Effect::DECODE);
    assert_eq!(rig.log(), [Write(0x04, Word, 0x0006)]);
    assert_eq!(rig.read(0x04, Word), 0x0004);
}

#[test]
fn c5_permissive_passes_all_but_decode() {
    let mut rig = permissive();
    rig.write(0x04, Word, 0xffff);
    assert_eq!(rig.read(0x04, Word), 0x07fe);
    assert_eq!(rig.log(), [Write(0x04, Word, 0x07fe)]);
    rig.write(0x04, Word, 0);
    assert_eq!(rig.log(), [Write(0x04, Word, 0x0002)]);
}

#[test]
fn c5_intx_is_off_while_msix_is_on() {
    let mut rig = rig();
    rig.write(0x04, Word, 0x0006);
    rig.log();
    assert_eq!(rig.write(MSIX + 2, Word, 0x8000), Effect::NONE);
    let enabled = [
        Event::MsixControl(0x8000),
        Write(0x04, Word, 0x0406),
        Write(MSIX + 2, Word, 0x8004),
    ];
    assert_eq!(rig.log(), enabled);
    assert_eq!(rig.read(0x04, Word), 0x0006, "the guest's bit is its own");
    rig.write(0x04, Word, 0x0002);
    assert_eq!(rig.log(), [Write(0x04, Word, 0x0402)]);
    rig.write(MSIX + 2, Word, 0);
    let disabled = [
        Event::MsixControl(0),
        Write(MSIX + 2, Word, 4),
        Write(0x04, Word, 0x0002),
    ];
    assert_eq!(rig.log(), disabled);
}

#[test]
fn m2_any_width_reaches_message_control() {
    let mut rig = rig();
    rig.write(MSIX + 3, Byte, 0x80);
    rig.write(MSIX + 2, Byte, 0xff);
    rig.write(MSIX, Dword, 0xc000_ffff);
    let mut log = rig.log();
    log.retain(|event| matches!(event, Event::MsixControl(_)));
    let merged = [0x8004, 0x80ff, 0xc000].map(Event::MsixControl);
    assert_eq!(log, merged);
    assert_eq!(rig.read(MSIX, Dword), 0xc004_0011);
    assert_eq!(rig.read(MSIX + 3, Byte), 0xc0);
}

#[test]
fn m2_no_effect_writes_nothing() {
    let mut rig = rig();
    assert_eq!(rig.write(MSIX + 2, Word, 0x3fff), Effect::NONE);
    assert_eq!(rig.log(), [Event::MsixControl(0x3fff)]);
}

#[test]
fn an_msix_that_fails_changes_nothing() {
    let mut rig = rig();
    rig.fake.0.borrow_mut().error = Some(Error::Gone(1));
    assert_eq!(rig.write(MSIX + 2, Word, 0x8000), Effect::NONE);
    assert_eq!(rig.read(MSIX + 2, Word), 0xffff);
    assert_eq!(rig.functions.counters.failures, 2);
    assert_eq!(rig.log(), []);
}

#[test]
fn functions_of_one_device_say_so() {
    let fakes = [0, 1, 2].map(|_| Fake(Rc::new(RefCell::new(world()))));
    let (msix, router) = (msix(&fakes[0]), router(&fakes[0]));
    let mut infos = [info(false); 3];
    infos[1].guest_bdf += 1;
    infos[2].guest_bdf += 8;
    let [a, b, c] = fakes;
    let list = [(infos[0], VMM, a), (infos[1], VMM, b), (infos[2], VMM, c)];
    let kept = Kept::<{ kept_words(4) }>::new();
    let mut functions: Functions<'_, _, _, 4> = Functions::new(msix, router);
    functions.take_over(list, &kept);
    for (info, expected) in infos.iter().zip([0x80, 0x80, 0]) {
        let read = functions.read(VMM, info.guest(), 0x0e, Byte);
        assert_eq!(read, Ok(expected));
    }
}

#[test]
fn c9_a_pin_that_is_offered_shows_and_is_the_guests_to_disable() {
    let mut rig = rig();
    assert_eq!(
        rig.read(0x3c, Word),
        0x0114,
        "pin A, at the I/O APIC's pin 20"
    );
    rig.write(0x3c, Word, 0x0255);
    assert_eq!(rig.read(0x3c, Word), 0x0155);
    rig.write(0x04, Word, 0x0006);
    rig.write(0x04, Word, 0x0406);
    let writes = [Write(0x04, Word, 0x0006), Write(0x04, Word, 0x0406)];
    assert_eq!(rig.log(), writes);
}

#[test]
fn c9_without_a_pin_intx_is_never_offered_nor_on() {
    let mut info = info(true);
    info.intx = 0;
    let mut rig = rig_of(world(), info);
    rig.log();
    assert_eq!(rig.read(0x3c, Word), 0x000b, "the line is only a note");
    rig.write(0x04, Word, 0x0006);
    rig.write(MSIX + 2, Word, 0x8000);
    rig.write(MSIX + 2, Word, 0);
    for event in rig.log() {
        if let Write(0x04, _, command) = event {
            assert_eq!(command, 0x0406, "off in the device");
        }
    }
    assert_eq!(rig.read(0x04, Word), 0x0006);
}
