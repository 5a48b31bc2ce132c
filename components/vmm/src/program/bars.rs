//! Maps BAR pages into the guest, with page tables from the vmm's own memory.

use pci::{BarInfo, FunctionInfo, MsixPage, PAGE_SIZE};
use runtime::Context;
use sel4::cap::{CNode, Granule, PDPT, PageDirectory, PageTable, Untyped, VSpace};
use sel4::{Cap, CapRights, Error, ObjectBlueprint, VmAttributes};
use shm::Counter;
use spec::names;

/// The guest's address space as far as BARs go.
pub struct Bars {
    vspace: VSpace,
    untyped: Untyped,
    cnode: CNode,
    next_slot: u64,
    end_slot: u64,
    /// Slots that have a paging structure.
    pub used: Counter,
}

impl Bars {
    /// Takes the capabilities from the component's resources.
    pub fn new(context: &Context) -> Self {
        let slots = context.get(names::TABLE_SLOTS);
        Self {
            vspace: context.capability(names::GUEST_VSPACE),
            untyped: context.capability(names::GUEST_UNTYPED),
            cnode: Cap::from_bits(context.get(names::CNODE).slot),
            next_slot: slots.first,
            end_slot: slots.first + slots.count,
            used: Counter::default(),
        }
    }

    /// Maps every page of the BAR that holds no MSI-X table or PBA at
    /// `address`, or unmaps them.
    pub fn map(&mut self, info: &FunctionInfo, index: usize, address: Option<u64>) {
        let bar: &BarInfo = &info.bars[index];
        if bar.first_slot == 0 {
            return;
        }
        for page in 0..bar.size / PAGE_SIZE {
            let claimed = MsixPage {
                bar: index as u32,
                page: page as u32,
            };
            if info.msix.pages().contains(&claimed) {
                continue;
            }
            let frame = Granule::from_bits(bar.first_slot + page);
            let done = match address {
                Some(address) => self.map_page(frame, address + page * PAGE_SIZE),
                None => frame.frame_unmap(),
            };
            if let Err(error) = done {
                defmt::error!(
                    "BAR {=usize} page {=u64}: error {=u64}; the guest reads all ones there",
                    index,
                    page,
                    error as u64
                );
            }
        }
    }

    fn map_page(&mut self, frame: Granule, address: u64) -> sel4::Result<()> {
        let address = address as usize;
        // At most three levels can be missing.
        for _ in 0..4 {
            let mapped = frame.frame_map(
                self.vspace,
                address,
                CapRights::read_write(),
                VmAttributes::UNCACHEABLE,
            );
            match mapped {
                Err(Error::FailedLookup) => {}
                done => return done,
            }
            let default = VmAttributes::DEFAULT;
            match sel4::last_lookup_bits_missing() {
                21 => {
                    let slot = self.table(&ObjectBlueprint::PageTable)?;
                    PageTable::from_bits(slot).page_table_map(self.vspace, address, default)?;
                }
                30 => {
                    let slot = self.table(&ObjectBlueprint::PageDirectory)?;
                    PageDirectory::from_bits(slot).page_directory_map(
                        self.vspace,
                        address,
                        default,
                    )?;
                }
                _ => {
                    let slot = self.table(&ObjectBlueprint::PDPT)?;
                    PDPT::from_bits(slot).pdpt_map(self.vspace, address, default)?;
                }
            }
        }
        Err(Error::FailedLookup)
    }

    /// Allocates a paging structure. It is never freed: the window for BARs
    /// bounds how many there can be.
    fn table(&mut self, blueprint: &ObjectBlueprint) -> sel4::Result<u64> {
        if self.next_slot == self.end_slot {
            return Err(Error::NotEnoughMemory);
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        self.used += 1;
        self.untyped.untyped_retype(
            blueprint,
            &self.cnode.absolute_cptr_for_self(),
            slot as usize,
            1,
        )?;
        Ok(slot)
    }
}
