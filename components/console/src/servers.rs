//! Data of the dump keys: from msix, irq-router and iommu by call, and from the vmms
//! by their event pages.

use channel::events::{EventPage, SlotEvents};
use channel::iommu::{FaultRecord, FunctionState, dump as iommu};
use channel::irq_router::Source;
use channel::irq_router::dump::{self as irq, BoundSlot};
use channel::msix::{EntryState, dump as msix};
use console::dump::{Function, State};
use heapless::Vec;
use pci::Bdf;
use runtime::{Channel, Context};
use spec::{FunctionId, GUESTS, names};

/// The servers, if system.toml has channels to them.
pub struct Servers {
    context: Context,
    msix: Option<msix::Client<Channel>>,
    irq: Option<irq::Client<Channel>>,
    iommu: Option<iommu::Client<Channel>>,
    pages: Vec<&'static EventPage, GUESTS>,
}

impl Servers {
    pub fn new(context: &Context) -> Self {
        Self {
            context: *context,
            msix: context.find_channel(msix::NAME).map(msix::Client),
            irq: context.find_channel(irq::NAME).map(irq::Client),
            iommu: context.find_channel(iommu::NAME).map(iommu::Client),
            pages: context
                .resources
                .each(names::EVENTS_OF)
                .take(GUESTS)
                .map(|(guest, _)| context.shared(names::EVENTS_OF.of(guest)))
                .collect(),
        }
    }
}

impl State for Servers {
    fn function(&self, function: FunctionId) -> Option<Function> {
        let mut functions = self.context.resources.each(names::ASSIGNED);
        let (name, assigned) = functions.nth(function.index())?;
        Some(Function {
            name,
            guest: self.guest(assigned.guest as u8)?,
            bdf: Bdf::from_requester_id(assigned.bdf as u16),
        })
    }
    fn guest(&self, guest: u8) -> Option<&'static str> {
        let mut guests = self.context.resources.each(names::GUEST);
        Some(guests.nth(guest.into())?.0)
    }
    fn control(&mut self, function: FunctionId) -> Option<u16> {
        self.msix.as_mut()?.state(function).ok()
    }
    fn next_entry(&mut self, function: FunctionId, from: u16, all: bool) -> Option<EntryState> {
        self.msix.as_mut()?.next_entry(function, from, all).ok()
    }
    fn slot_of(&mut self, source: Source) -> Option<BoundSlot> {
        self.irq.as_mut()?.find(source).ok()
    }
    fn next_slot(&mut self, guest: u8, from: u8) -> Option<BoundSlot> {
        self.irq.as_mut()?.next(guest, from).ok()
    }
    fn confinement(&mut self, function: FunctionId) -> Option<FunctionState> {
        self.iommu.as_mut()?.function(function).ok()
    }
    fn next_fault(&mut self, from: u64) -> Option<FaultRecord> {
        self.iommu.as_mut()?.next_fault(from).ok()
    }
    fn events(&self, guest: u8, slot: u8, source: Source) -> SlotEvents {
        self.pages
            .get(usize::from(guest))
            .map_or(SlotEvents::default(), |page| page.read(slot.into(), source))
    }
}
