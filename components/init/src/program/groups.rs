//! Has bridges and functions send requests up to the IOMMU, and refuses functions that reach
//! those of another guest all the same.

use core::fmt::Write as _;

use init::{Owned, conflict, is_stray};
use pci::{
    Bdf, ConfigSpace, PAGE_SIZE, Reach, Tree, Width, bridge_above, carried_id, redirect, regs,
    switch_ats_off,
};
use runtime::Mmio;
use sel4::cap::Granule;
use sel4::init_thread::slot;
use sel4::{CapRights, VmAttributes};
use spec::FUNCTIONS;

use super::builder::Builder;
use super::fatal::fatal;
use super::functions::{Found, each_function, read, space};
use super::memory::SCRATCH;
use super::ports::Serial;

/// Functions and ports that are looked at; each further one counts as one without ACS.
const LOOKED_AT: usize = 64;

/// All of a function's configuration space, which is mapped for init for the moment.
struct Page(Mmio);

impl ConfigSpace for Page {
    fn read32(&mut self, offset: u16) -> u32 {
        self.0.read(offset.into(), Width::Dword) as u32
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.0.write(offset.into(), Width::Dword, value.into());
    }
    fn write16(&mut self, offset: u16, value: u16) {
        self.0.write(offset.into(), Width::Word, value.into());
    }
}

/// The machine's functions. What is assigned has been given away.
struct Functions<'b, 'a> {
    builder: &'b mut Builder<'a>,
    found: &'b Found,
    /// Whether each sends requests up, as far as that was asked.
    known: heapless::Vec<(Bdf, bool), LOOKED_AT>,
}

impl Functions<'_, '_> {
    /// Does something with a function's whole configuration space, where that can be had.
    fn with_page<V>(&mut self, bdf: Bdf, act: impl FnOnce(&mut Page) -> V) -> Option<V> {
        let builder = &mut *self.builder;
        if u64::from(bdf.bus()) >= builder.places.buses {
            return None;
        }
        // Ports do not reach extended capabilities: nothing is known then.
        let page = builder.places.config_page(bdf)?;
        let own = self.found.iter().position(|(own, _)| *own == bdf);
        let name = "a function's configuration space";
        let frame = match own {
            Some(own) => {
                let function = &builder.system.functions[own];
                let from = builder.place(function.config_cnode, function.config_slot);
                builder.copy_from(&from, CapRights::read_write(), name)
            }
            None => builder.try_device_page(page)?,
        };
        let frame = Granule::from_bits(frame as u64);
        builder.map(
            frame,
            slot::VSPACE.cap(),
            SCRATCH,
            CapRights::read_write(),
            VmAttributes::UNCACHEABLE,
            name,
        );
        // SAFETY: the page was just mapped there, for this thread alone.
        let mut page = Page(unsafe { Mmio::new(SCRATCH, PAGE_SIZE as usize) });
        let value = act(&mut page);
        // It is mapped, so that this cannot fail.
        let _ = frame.frame_unmap();
        Some(value)
    }
}

impl Tree for Functions<'_, '_> {
    fn read(&mut self, bdf: Bdf, offset: u16) -> u32 {
        read(bdf, offset)
    }
    fn bridge_above(&mut self, bus: u8) -> Option<Bdf> {
        bridge_above(bus, read)
    }
    fn redirects(&mut self, bdf: Bdf) -> bool {
        if let Some((_, known)) = self.known.iter().find(|(known, _)| *known == bdf) {
            return *known;
        }
        !self.known.is_full() && {
            let redirects = self.with_page(bdf, redirect).unwrap_or(false);
            let _ = self.known.push((bdf, redirects));
            redirects
        }
    }
}

/// Ends the boot if a function reaches another guest's without the unit, which is in force,
/// and has what nobody has in its group send nothing.
pub fn check(builder: &mut Builder<'_>, found: &Found) {
    let functions = builder.system.functions;
    let owned: heapless::Vec<Owned, FUNCTIONS> = (functions.iter().zip(found))
        .map(|(function, (bdf, _))| Owned {
            bdf: *bdf,
            guest: function.bar_cnode,
            shares: function.shares_group == 1,
        })
        .collect();
    let tree = &mut Functions {
        builder,
        found,
        known: heapless::Vec::new(),
    };
    if let Some(conflict) = conflict(tree, &owned) {
        let [one, other] = [conflict.from, conflict.to]
            .map(|index| (functions[index].name.as_str(), owned[index].bdf));
        fatal!(
            "devices {} ({}) and {} ({}) go to two guests, and {conflict}. Choose: one guest for \
             both; a slot of the machine that keeps them apart; or `group = \"shared\"` in \
             [device.{}] and [device.{}], if each guest may reach the other's function",
            one.0,
            one.1,
            other.0,
            other.1,
            one.0,
            other.0
        );
    }
    for (function, own) in functions.iter().zip(&owned) {
        let name = function.name.as_str();
        if tree.with_page(own.bdf, switch_ats_off) == Some(true) {
            defmt::info!(
                "device {=str}: its address translation services are off",
                name
            );
        }
        if let Some(carried) = carried_id(tree, own.bdf) {
            defmt::warn!(
                "device {=str}: its requests carry the id {=u16:#06x} of the bridge above it, and \
                 reach nothing: it needs a slot that is not behind a conventional bridge, or a \
                 board with iommu = \"none\"",
                name,
                carried.requester_id()
            );
        }
        let reach = Reach::of(tree, own.bdf);
        if reach.is_alone() {
            continue;
        }
        each_function(u64::from(reach.bus()) + 1, |bdf| {
            if is_stray(tree, bdf, &owned) && reach.has(tree, bdf) {
                let mut space = space(bdf);
                let command = space.read32(regs::COMMAND) as u16;
                space.write16(regs::COMMAND, command & !regs::COMMAND_BUS_MASTER);
                let _ = write!(
                    Serial,
                    "init: {bdf} is in the group of {} and no guest's: its bus mastering is \
                     switched off\r\n",
                    name
                );
            }
            false
        });
    }
}
