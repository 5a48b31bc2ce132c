//! The device of a replay: plain bytes, and a router that writes down what it
//! is asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use channel::GuestMessage;
use channel::irq_router::msi::MsiRouter;
use channel::irq_router::{Block, IrqRouter, Source};
use channel::msix::FunctionBar;
use channel::{Caller, Error};
use pci::{BarKind, ConfigSpace, FUNCTION_BARS, Width, regs};

use crate::trace::{Bar, Device, Event, Hook};

/// What stands behind the emulation.
pub(crate) struct World {
    config: Vec<u8>,
    /// Bits of each BAR register that can be set.
    bar_masks: [u32; FUNCTION_BARS],
    /// Bytes that are not 0, by BAR and offset.
    memory: BTreeMap<(u8, u32), u8>,
    check_address: bool,
    bound: BTreeSet<u16>,
    failing: BTreeSet<(bool, u16)>,
    pub events: Vec<Event>,
    pub now_ms: u64,
}

/// A handle on the world, one for each of its roles.
#[derive(Clone)]
pub(crate) struct Shared(pub Rc<RefCell<World>>);

impl Shared {
    pub fn new(device: &Device) -> Self {
        let mut config = device.config.clone();
        let mut bar_masks = [0; FUNCTION_BARS];
        for (index, bar) in device.bars.iter().enumerate() {
            let at = usize::from(regs::BAR0) + 4 * index;
            let prefetchable = u32::from(config[at] & 8);
            let Some((low, high)) = registers(bar, prefetchable) else {
                continue;
            };
            let mask = !(bar.size - 1);
            config[at..at + 4].copy_from_slice(&low.to_le_bytes());
            bar_masks[index] = mask as u32;
            if let Some(high) = high {
                config[at + 4..at + 8].copy_from_slice(&high.to_le_bytes());
                bar_masks[index + 1] = (mask >> 32) as u32;
            }
        }
        let mut memory = BTreeMap::new();
        for (bar, offset, content) in &device.memory {
            for (index, byte) in content.iter().enumerate() {
                memory.insert((*bar, offset + index as u32), *byte);
            }
        }
        Self(Rc::new(RefCell::new(World {
            config,
            bar_masks,
            memory,
            check_address: device.check_address,
            bound: BTreeSet::new(),
            failing: BTreeSet::new(),
            events: Vec::new(),
            now_ms: 0,
        })))
    }

    /// Whether the trace gives contents of a BAR.
    pub fn has_contents(&self, bar: u8) -> bool {
        let world = self.0.borrow();
        world.memory.keys().any(|&(with, _)| with == bar)
    }

    /// Makes a router call for an entry fail, or work again.
    pub fn set_failing(&self, hook: Hook, entry: u16, fail: bool) {
        let mut world = self.0.borrow_mut();
        let key = (hook == Hook::Bind, entry);
        if fail {
            world.failing.insert(key);
        } else {
            world.failing.remove(&key);
        }
    }
}

/// The registers of a BAR as firmware leaves them; none if there is no BAR.
fn registers(bar: &Bar, prefetchable: u32) -> Option<(u32, Option<u32>)> {
    let low = bar.host as u32;
    match bar.kind {
        BarKind::None => None,
        BarKind::Io => Some((low | 1, None)),
        BarKind::Memory32 => Some((low | prefetchable, None)),
        BarKind::Memory64 => Some((low | prefetchable | 4, Some((bar.host >> 32) as u32))),
    }
}

impl World {
    fn read_config(&self, offset: u16, width: Width) -> u32 {
        let start = usize::from(offset);
        let bytes = &self.config[start..start + width.bytes() as usize];
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    fn write_config(&mut self, offset: u16, width: Width, value: u32) {
        for (at, byte) in (usize::from(offset)..)
            .zip(value.to_le_bytes())
            .take(width.bytes() as usize)
        {
            let bar_byte = at.wrapping_sub(usize::from(regs::BAR0));
            let mask = self
                .bar_masks
                .get(bar_byte / 4)
                .map_or(0xff, |mask| mask.to_le_bytes()[bar_byte % 4]);
            self.config[at] = self.config[at] & !mask | byte & mask;
        }
    }
}

impl ConfigSpace for Shared {
    fn read32(&mut self, offset: u16) -> u32 {
        self.0.borrow().read_config(offset, Width::Dword)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        let mut world = self.0.borrow_mut();
        world.write_config(offset, Width::Dword, value);
    }
    fn write16(&mut self, offset: u16, value: u16) {
        let mut world = self.0.borrow_mut();
        world.write_config(offset, Width::Word, value.into());
    }
}

impl pci_config::Hardware for Shared {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        self.0.borrow().read_config(offset, width)
    }
    fn write(&mut self, offset: u16, width: Width, value: u32) {
        self.0.borrow_mut().write_config(offset, width, value);
    }
    fn has_extended_space(&self) -> bool {
        self.0.borrow().config.len() > 256
    }
    fn now_ms(&mut self) -> u64 {
        self.0.borrow().now_ms
    }
}

impl msix::Hardware for Shared {
    fn read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        let world = self.0.borrow();
        (0..width.bytes() as u32).fold(0, |value, byte| {
            let stored = world.memory.get(&(place.bar, offset + byte));
            value | u64::from(*stored.unwrap_or(&0)) << (8 * byte)
        })
    }

    fn write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        let mut world = self.0.borrow_mut();
        for byte in 0..width.bytes() as u32 {
            let stored = (value >> (8 * byte)) as u8;
            world.memory.insert((place.bar, offset + byte), stored);
        }
    }
}

impl IrqRouter for Shared {
    fn bind(
        &mut self,
        _caller: Caller,
        source: Source,
        addr: u64,
        data: u32,
    ) -> Result<(u64, u32), Error> {
        let mut world = self.0.borrow_mut();
        let entry = source.entry;
        if world.failing.contains(&(true, entry)) {
            return Err(Error::Failed);
        }
        let bad_message = world.check_address && GuestMessage::parse(addr, data).is_none();
        if bad_message {
            return Err(Error::Refused);
        }
        world.bound.insert(entry);
        world.events.push(Event::Bind {
            entry,
            addr,
            data,
            masked: false,
        });
        Ok(spec::host_message(0))
    }

    fn unbind(&mut self, _caller: Caller, source: Source) -> Result<(), Error> {
        let mut world = self.0.borrow_mut();
        let entry = source.entry;
        if world.failing.contains(&(false, entry)) {
            return Err(Error::Failed);
        }
        if !world.bound.remove(&entry) {
            return Err(Error::NotFound);
        }
        world.events.push(Event::Unbind { entry });
        Ok(())
    }

    fn set_masked(&mut self, _caller: Caller, source: Source, masked: bool) -> Result<(), Error> {
        let entry = source.entry;
        self.0.borrow_mut().events.push(if masked {
            Event::Mask { entry }
        } else {
            Event::Unmask { entry }
        });
        Ok(())
    }

    fn set_function_masked(&mut self, _: Caller, _: u8, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn unbind_function(&mut self, caller: Caller, function: u8) -> Result<(), Error> {
        let bound = self.0.borrow().bound.clone();
        bound
            .into_iter()
            .try_for_each(|entry| self.unbind(caller, Source::msix(function, entry)))
    }

    fn restore(&mut self, _: Caller, source: Source) -> Result<(u64, u32), Error> {
        let bound = self.0.borrow().bound.contains(&source.entry);
        bound.then(|| spec::host_message(0)).ok_or(Error::NotFound)
    }
}

/// The trace format has no events of plain MSI: it is bound in silence.
impl MsiRouter for Shared {
    fn bind_block(
        &mut self,
        _: Caller,
        _: Block,
        _: u64,
        _: u32,
        _: u32,
    ) -> Result<(u64, u32), Error> {
        Ok(spec::host_message(0))
    }

    fn set_message(&mut self, _: Caller, _: u8, _: u64, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn set_mask(&mut self, _: Caller, _: u8, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn unbind_block(&mut self, _: Caller, _: u8) -> Result<(), Error> {
        Ok(())
    }
}
