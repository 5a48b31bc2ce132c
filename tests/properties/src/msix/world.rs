//! What stands behind the msix component: a device and a router that write
//! down what they are asked for, and hold the component to its own promises.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use channel::irq_router::{Answers, Batch, IrqRouter, ShortMessage, Source};
use channel::msix::FunctionBar;
use channel::{Caller, Error};
use models::Pages;
use msix::Hardware;
use pci::Width;
use spec::FunctionId;

use super::layout::{Layout, Place};

/// What the router was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Bind { entry: u16, address: u64, data: u32 },
    BindFailed { entry: u16, address: u64, data: u32 },
    Unbind(u16),
    UnbindFailed(u16),
    Mask(u16, bool),
    UnbindFunction,
}

/// An access to the device beside the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub bar: u8,
    pub offset: u64,
    pub width: Width,
    pub written: Option<u64>,
}

/// Returns a byte of the device that was not written yet. No table entry
/// starts masked or empty: what the hardware holds must not matter.
pub fn initial_byte(bar: u8, offset: u64) -> u8 {
    (offset as u8).wrapping_mul(23).wrapping_add(bar) & 0xfe
}

pub struct World {
    layout: Layout,
    pages: Pages,
    /// Bound entries, with the message that the device is to send.
    pub bound: BTreeMap<u16, (u64, u32)>,
    pub function_mask: bool,
    pub fail_bind: Vec<u16>,
    pub fail_unbind: Vec<u16>,
    binds: u32,
    pub events: Vec<Event>,
    pub accesses: Vec<Access>,
}

impl World {
    fn value(&self, bar: u8, offset: u64, width: Width) -> u64 {
        (offset..offset + width.bytes()).rev().fold(0, |value, at| {
            let stored = self.pages.byte(bar, at as u32);
            value << 8 | u64::from(stored.unwrap_or(initial_byte(bar, at)))
        })
    }

    /// Returns a dword of the device's own table.
    pub fn table(&self, entry: u16, dword: u64) -> u32 {
        let (bar, start) = self.layout.table;
        let offset = u64::from(start) + 16 * u64::from(entry) + 4 * dword;
        self.value(bar, offset, Width::Dword) as u32
    }

    fn message(&self, entry: u16) -> (u64, u32) {
        let address = u64::from(self.table(entry, 0)) | u64::from(self.table(entry, 1)) << 32;
        (address, self.table(entry, 2))
    }

    pub fn is_masked(&self, entry: u16) -> bool {
        self.table(entry, 3) & 1 == 1
    }

    /// Checks that an entry which sends is bound, and sends the router's message (M19).
    pub fn check_entry(&self, entry: u16) {
        if !self.is_masked(entry) {
            let given = self.bound.get(&entry).copied();
            assert_eq!(given, Some(self.message(entry)), "entry {entry} is open");
        }
    }
}

#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<World>>);

impl Shared {
    pub fn new(layout: Layout) -> Self {
        Self(Rc::new(RefCell::new(World {
            layout,
            pages: Pages::default(),
            bound: BTreeMap::new(),
            function_mask: false,
            fail_bind: Vec::new(),
            fail_unbind: Vec::new(),
            binds: 0,
            events: Vec::new(),
            accesses: Vec::new(),
        })))
    }
}

impl Hardware for Shared {
    fn read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        let mut world = self.0.borrow_mut();
        let (bar, offset) = (place.bar, u64::from(offset));
        assert!(width.is_aligned(offset), "unaligned device access");
        match world.layout.place(bar, offset) {
            Place::Table => {}
            Place::Unclaimed => panic!("read outside of the claimed pages"),
            Place::Pba | Place::Adjacent => world.accesses.push(Access {
                bar,
                offset,
                width,
                written: None,
            }),
        }
        world.value(bar, offset, width)
    }

    fn write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        let mut world = self.0.borrow_mut();
        let (bar, offset) = (place.bar, u64::from(offset));
        assert!(width.is_aligned(offset), "unaligned device access");
        assert_eq!(value & !width.all_ones(), 0, "bits past the width");
        world.pages.write(bar, offset as u32, width, value);
        match world.layout.place(bar, offset) {
            Place::Table => {
                let at = offset - u64::from(world.layout.table.1);
                world.check_entry((at / 16) as u16);
            }
            Place::Unclaimed => panic!("write outside of the claimed pages"),
            Place::Pba | Place::Adjacent => world.accesses.push(Access {
                bar,
                offset,
                width,
                written: Some(value),
            }),
        }
    }
}

impl IrqRouter for Shared {
    fn bind(
        &mut self,
        _: Caller,
        source: Source,
        address: u64,
        data: u32,
    ) -> Result<(u64, u32), Error> {
        let mut world = self.0.borrow_mut();
        let entry = source.entry;
        let mode = data >> 8 & 7;
        let deliverable = address >> 20 == 0xfee && mode != 3 && mode != 6 && data & 0xf0 != 0;
        if !deliverable || world.fail_bind.contains(&entry) {
            world.events.push(Event::BindFailed {
                entry,
                address,
                data,
            });
            return Err(Error::Refused);
        }
        world.binds += 1;
        // A new message each time: one that stayed from before shows.
        let message = (0xfee0_1000, 0x1000 + world.binds);
        world.bound.insert(entry, message);
        world.events.push(Event::Bind {
            entry,
            address,
            data,
        });
        Ok(message)
    }

    fn unbind(&mut self, _: Caller, source: Source) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        let entry = source.entry;
        if world.fail_unbind.contains(&entry) {
            world.events.push(Event::UnbindFailed(entry));
            return Err(Error::Failed);
        }
        assert!(world.is_masked(entry), "entry {entry} unbound while open");
        assert!(world.bound.remove(&entry).is_some(), "{entry} is not bound");
        world.events.push(Event::Unbind(entry));
        Ok(())
    }

    fn set_masked(&mut self, _: Caller, source: Source, masked: bool) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        assert!(world.bound.contains_key(&source.entry), "not bound");
        world.events.push(Event::Mask(source.entry, masked));
        Ok(())
    }

    fn set_function_masked(&mut self, _: Caller, _: FunctionId, masked: bool) -> Result<(), Error> {
        self.0.borrow_mut().function_mask = masked;
        Ok(())
    }

    fn unbind_function(&mut self, _: Caller, _: FunctionId) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        let fails = world.fail_unbind.clone();
        world.bound.retain(|entry, _| fails.contains(entry));
        world.function_mask = false;
        world.events.push(Event::UnbindFunction);
        if world.bound.is_empty() {
            Ok(())
        } else {
            Err(Error::Failed)
        }
    }

    fn restore(&mut self, _: Caller, source: Source) -> Result<(u64, u32), Error> {
        let bound = self.0.borrow().bound.get(&source.entry).copied();
        bound.ok_or(Error::NotFound)
    }

    fn bind_batch(
        &mut self,
        caller: Caller,
        batch: Batch,
        first: ShortMessage,
        second: ShortMessage,
        third: ShortMessage,
    ) -> Result<Answers, Error> {
        let messages = [first, second, third];
        let bind = |source, address, data| self.bind(caller, source, address, data);
        Ok(Answers::of_each(batch, messages, bind))
    }

    fn unbind_entries(
        &mut self,
        caller: Caller,
        first: Source,
        entries: u64,
    ) -> Result<u64, Error> {
        // One that fails is asked for by itself then: its failure is noted once.
        Ok(first.each_until(entries, |source| {
            if self.0.borrow().fail_unbind.contains(&source.entry) {
                return Err(Error::Failed);
            }
            self.unbind(caller, source)
        }))
    }
}
