//! The device of a trace, and a router that records the calls.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use channel::GuestMessage;
use channel::irq_router::msi::MsiRouter;
use channel::irq_router::{Answers, Batch, Block, IrqRouter, ShortMessage, Source};
use channel::{Caller, Error};
use models::{Device, Registers};
use pci::{BarKind, FUNCTION_BARS, Width, regs};
use spec::FunctionId;

use crate::trace::{self, Bar, Event, Hook};

/// Returns the trace's device, as firmware leaves it.
pub(crate) fn device(trace: &trace::Device) -> Device {
    let mut config = trace.config.clone();
    let mut bar_masks = [0; FUNCTION_BARS];
    for (index, bar) in trace.bars.iter().enumerate() {
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
    let device = Device::new(Registers::new(config).with_bar_masks(bar_masks));
    for (bar, offset, content) in &trace.memory {
        for (index, byte) in (0..).zip(content) {
            let pages = &mut device.change().pages;
            pages.write(*bar, offset + index, Width::Byte, (*byte).into());
        }
    }
    device
}

/// Returns the registers of a BAR as firmware leaves them; none if there is no
/// BAR.
fn registers(bar: &Bar, prefetchable: u32) -> Option<(u32, Option<u32>)> {
    let low = bar.host as u32;
    match bar.kind {
        BarKind::None => None,
        BarKind::Io => Some((low | 1, None)),
        BarKind::Memory32 => Some((low | prefetchable, None)),
        BarKind::Memory64 => Some((low | prefetchable | 4, Some((bar.host >> 32) as u32))),
    }
}

/// State of the router.
#[derive(Default)]
pub(crate) struct State {
    check_address: bool,
    bound: BTreeSet<u16>,
    failing: BTreeSet<(bool, u16)>,
    pub events: Vec<Event>,
}

/// A router that records its calls. Clones are the same router.
#[derive(Clone)]
pub(crate) struct Router(pub Rc<RefCell<State>>);

impl Router {
    pub fn new(check_address: bool) -> Self {
        Self(Rc::new(RefCell::new(State {
            check_address,
            ..State::default()
        })))
    }

    /// Makes a call for an entry fail, or work again.
    pub fn set_failing(&self, hook: Hook, entry: u16, fail: bool) {
        let mut state = self.0.borrow_mut();
        let key = (hook == Hook::Bind, entry);
        if fail {
            state.failing.insert(key);
        } else {
            state.failing.remove(&key);
        }
    }
}

impl IrqRouter for Router {
    fn bind(
        &mut self,
        _caller: Caller,
        source: Source,
        addr: u64,
        data: u32,
    ) -> Result<(u64, u32), Error> {
        let mut state = self.0.borrow_mut();
        let entry = source.entry;
        if state.failing.contains(&(true, entry)) {
            return Err(Error::Failed);
        }
        let bad_message = state.check_address && GuestMessage::parse(addr, data).is_none();
        if bad_message {
            return Err(Error::Refused);
        }
        state.bound.insert(entry);
        state.events.push(Event::Bind {
            entry,
            addr,
            data,
            masked: false,
        });
        Ok(spec::host_message(0))
    }

    fn unbind(&mut self, _caller: Caller, source: Source) -> Result<(), Error> {
        let mut state = self.0.borrow_mut();
        let entry = source.entry;
        if state.failing.contains(&(false, entry)) {
            return Err(Error::Failed);
        }
        if !state.bound.remove(&entry) {
            return Err(Error::NotFound);
        }
        state.events.push(Event::Unbind { entry });
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

    fn set_function_masked(&mut self, _: Caller, _: FunctionId, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn unbind_function(&mut self, caller: Caller, function: FunctionId) -> Result<(), Error> {
        let bound = self.0.borrow().bound.clone();
        bound
            .into_iter()
            .try_for_each(|entry| self.unbind(caller, Source::msix(function, entry)))
    }

    fn restore(&mut self, _: Caller, source: Source) -> Result<(u64, u32), Error> {
        let bound = self.0.borrow().bound.contains(&source.entry);
        bound.then(|| spec::host_message(0)).ok_or(Error::NotFound)
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
        Ok(first.each_until(entries, |source| self.unbind(caller, source)))
    }
}

/// The trace format has no events of plain MSI: it is bound in silence.
impl MsiRouter for Router {
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

    fn set_message(&mut self, _: Caller, _: FunctionId, _: u64, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn set_mask(&mut self, _: Caller, _: FunctionId, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn unbind_block(&mut self, _: Caller, _: FunctionId) -> Result<(), Error> {
        Ok(())
    }
}
