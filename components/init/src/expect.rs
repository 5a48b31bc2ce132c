//! The expected contents of each slot, by the image's records and the functions found
//! at boot: the reference of an audit.

use pci::{FunctionInfo, MsixPage, PAGE_SIZE};
use spec::{Function, IommuInfo, NONE, ObjectKind, System};

use crate::board::Places;

/// The capability that a slot must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A capability of this object, or of its `index`th page.
    Object {
        /// The object.
        object: u32,
        /// The page.
        index: u64,
        /// Badge, 0 for none.
        badge: u64,
    },
    /// The device page at this machine address.
    Page(u64),
    /// The I/O ports from the first to the last.
    Ports(u16, u16),
}

/// Functions and IOMMU that were found at boot and given out.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The image.
    pub system: &'a System<'a>,
    /// The functions, in the image's order.
    pub functions: &'a [FunctionInfo],
    /// The machine's devices.
    pub places: Places,
    /// The IOMMU.
    pub iommu: IommuInfo,
}

impl Given<'_> {
    /// Returns the capability that `slot` of a CNode must hold; `None` if it must be empty. A slot that
    /// a component fills later is empty at boot.
    #[must_use]
    pub fn expected(&self, cnode: u32, slot: u32) -> Option<Expect> {
        self.by_record(cnode, slot)
            .or_else(|| self.by_mapping(cnode, slot))
            .or_else(|| {
                let functions = self.system.functions.iter().zip(self.functions);
                functions
                    .filter_map(|(function, info)| self.by_function(function, info, cnode, slot))
                    .next()
            })
            .or_else(|| self.by_unit(cnode, slot))
    }

    fn by_record(&self, cnode: u32, slot: u32) -> Option<Expect> {
        self.system.capabilities.iter().find_map(|capability| {
            let object = &self.system.objects[capability.object as usize];
            let index = u64::from(slot.checked_sub(capability.slot)?);
            let given = capability.cnode == cnode && self.places.has(object.requires);
            (given && index < object.capabilities()).then_some(Expect::Object {
                object: capability.object,
                index,
                // A CNode's badge is its guard.
                badge: match object.kind {
                    ObjectKind::CNode => 0,
                    _ => capability.badge,
                },
            })
        })
    }

    fn by_mapping(&self, cnode: u32, slot: u32) -> Option<Expect> {
        self.system.mappings.iter().find_map(|mapping| {
            let object = &self.system.objects[mapping.object as usize];
            let index = u64::from(slot.checked_sub(mapping.holder_slot)?);
            let held = mapping.holder == cnode && mapping.holder != NONE;
            (held && index < object.pages && self.places.has(object.requires)).then_some(
                Expect::Object {
                    object: mapping.object,
                    index,
                    badge: 0,
                },
            )
        })
    }

    fn by_function(
        &self,
        function: &Function,
        info: &FunctionInfo,
        cnode: u32,
        slot: u32,
    ) -> Option<Expect> {
        if (function.config_cnode, function.config_slot) == (cnode, slot) {
            return self.places.config_page(info.host()).map(Expect::Page);
        }
        if function.config_cnode == cnode
            && let Some(page) = slot.checked_sub(function.registers_slot)
            && let Some(registers) = info.reset_registers()
            && u64::from(page) < registers.pages
        {
            let first = info.bars[registers.bar].address + registers.first;
            return Some(Expect::Page(first + u64::from(page) * PAGE_SIZE));
        }
        let address = |page: &MsixPage| {
            let bar = info.bars.get(page.bar as usize)?;
            // A BAR that is smaller than a page may begin anywhere on it.
            let first = bar.address & !(PAGE_SIZE - 1);
            Some(first + u64::from(page.page) * PAGE_SIZE)
        };
        if function.msix_cnode == cnode
            && let Some(index) = slot.checked_sub(function.msix_slot)
            && let Some(page) = info.msix.pages().get(index as usize)
        {
            return address(page).map(Expect::Page);
        }
        if function.bar_cnode != cnode {
            return None;
        }
        (0..).zip(&info.bars).find_map(|(index, bar)| {
            if bar.has_ports() && bar.first_slot != 0 && bar.first_slot == slot.into() {
                let ports = bar.ports();
                return Some(Expect::Ports(*ports.start(), *ports.end()));
            }
            let number = u64::from(slot).checked_sub(bar.first_slot)?;
            let given = bar.first_slot != 0 && number < info.grain_count(index);
            let grain = given.then(|| info.grains(index).nth(number as usize))??;
            Some(Expect::Page(bar.address + grain.offset))
        })
    }

    fn by_unit(&self, cnode: u32, slot: u32) -> Option<Expect> {
        let place = &self.system.header.iommu;
        let index = u64::from(slot.checked_sub(place.slot)?);
        if place.cnode != cnode {
            return None;
        }
        let mut offset = index * PAGE_SIZE;
        for unit in self.iommu.units() {
            if offset < unit.size {
                return Some(Expect::Page(unit.registers + offset));
            }
            offset -= unit.size;
        }
        None
    }
}

#[cfg(test)]
mod tests;
