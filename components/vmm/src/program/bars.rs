//! Maps BAR pages into the guest, with page tables from the vmm's own memory.

use pci::{BarInfo, FunctionInfo};
use runtime::Context;
use sel4::cap::{CNode, Granule, PageDirectory, PageTable, Untyped, VSpace};
use sel4::{Cap, CapRights, Error, ObjectBlueprint, VmAttributes};
use shm::Counter;
use spec::names;
use vmm::{Level, Structure, Tables};

/// The guest's address space as far as BARs go.
pub struct Bars {
    vspace: VSpace,
    untyped: Untyped,
    cnode: CNode,
    /// First slot for paging structures, in the order of their numbers.
    first_slot: u64,
    tables: Tables,
    /// Slots that have a paging structure.
    pub used: Counter,
}

impl Bars {
    /// Takes the capabilities from the component's resources.
    pub fn new(context: &Context) -> Self {
        Self {
            vspace: context.capability(names::GUEST_VSPACE),
            untyped: context.capability(names::GUEST_UNTYPED),
            cnode: Cap::from_bits(context.get(names::CNODE).slot),
            first_slot: context.get(names::TABLE_SLOTS).first,
            tables: Tables::default(),
            used: Counter::default(),
        }
    }

    /// Maps every page of the BAR that holds no MSI-X table or PBA at
    /// `address`, or unmaps them.
    pub fn map(&mut self, info: &FunctionInfo, index: usize, address: Option<u64>) {
        let bar: &BarInfo = &info.bars[index];
        if bar.first_slot == 0 || !bar.is_memory() {
            return;
        }
        match address {
            // It fits in its window, and does not wrap.
            Some(address) => self.tables.map(bar.first_slot, address..address + bar.size),
            None => self.tables.unmap(bar.first_slot),
        }
        let mut failed = None;
        for (number, grain) in (0..).zip(info.grains(index)) {
            // The kernel knows by the capability how large the page is.
            let frame = Granule::from_bits(bar.first_slot + number);
            let done = match address {
                Some(address) => self.map_page(frame, address + grain.offset),
                None => frame.frame_unmap(),
            };
            if let Err(error) = done {
                failed = Some((grain.offset, error));
            }
        }
        if let Some((offset, error)) = failed {
            defmt::error!(
                "BAR {=usize} at offset {=u64:#x}: error {=u64}; the guest reads all ones there",
                index,
                offset,
                error as u64
            );
        }
    }

    fn map_page(&mut self, frame: Granule, address: u64) -> sel4::Result<()> {
        // A directory and a page table can be missing, or a page table be in the way.
        for _ in 0..3 {
            let mapped = frame.frame_map(
                self.vspace,
                address as usize,
                CapRights::read_write(),
                VmAttributes::UNCACHEABLE,
            );
            match mapped {
                Err(Error::FailedLookup) => self.add_table(address)?,
                Err(Error::DeleteFirst) => {
                    let number = self.tables.in_the_way(address).ok_or(Error::DeleteFirst)?;
                    PageTable::from_bits(self.first_slot + number as u64).page_table_unmap()?;
                }
                done => return done,
            }
        }
        Err(Error::FailedLookup)
    }

    /// Maps the paging structure that the kernel just missed.
    fn add_table(&mut self, address: u64) -> sel4::Result<()> {
        let (level, blueprint) = match sel4::last_lookup_bits_missing() {
            21 => (Level::PageTable, ObjectBlueprint::PageTable),
            30 => (Level::Directory, ObjectBlueprint::PageDirectory),
            // What is above is there, for RAM.
            _ => return Err(Error::FailedLookup),
        };
        let taken = self.tables.take(level, address);
        let (number, is_new) = match taken.ok_or(Error::NotEnoughMemory)? {
            Structure::New(number) => (number, true),
            Structure::Again(number) => (number, false),
        };
        let slot = self.first_slot + number as u64;
        if is_new {
            self.used += 1;
            let cnode = self.cnode.absolute_cptr_for_self();
            self.untyped
                .untyped_retype(&blueprint, &cnode, slot as usize, 1)?;
        }
        let (vspace, default) = (self.vspace, VmAttributes::DEFAULT);
        if level == Level::PageTable {
            let table = PageTable::from_bits(slot);
            if !is_new {
                table.page_table_unmap()?;
            }
            table.page_table_map(vspace, address as usize, default)
        } else {
            let directory = PageDirectory::from_bits(slot);
            if !is_new {
                directory.page_directory_unmap()?;
            }
            directory.page_directory_map(vspace, address as usize, default)
        }
    }
}
