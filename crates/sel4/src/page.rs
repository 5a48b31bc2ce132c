//! Mapping pages and paging structures.

use sel4_sys::vm_attributes;

use crate::cap::{Cap, CapTypeForFrameObject, PDPT, PageDirectory, PageTable, VSpace};
use crate::ipc_buffer::invoke;
use crate::{CapRights, Error, Result, is_canonical, with_ipc_buffer};

/// How a mapping is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmAttributes(u64);

impl VmAttributes {
    /// Write back, for ordinary memory.
    pub const DEFAULT: Self = Self::WRITE_BACK;
    /// Write back, for ordinary memory.
    pub const WRITE_BACK: Self = VmAttributes(vm_attributes::WRITE_BACK);
    /// Write through.
    pub const WRITE_THROUGH: Self = VmAttributes(vm_attributes::WRITE_THROUGH);
    /// Caching disabled, unless an MTRR says write combining.
    pub const CACHE_DISABLED: Self = VmAttributes(vm_attributes::CACHE_DISABLED);
    /// Uncacheable, for device registers.
    pub const UNCACHEABLE: Self = VmAttributes(vm_attributes::UNCACHEABLE);
    /// Write combining.
    pub const WRITE_COMBINING: Self = VmAttributes(vm_attributes::WRITE_COMBINING);
}

impl Default for VmAttributes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Returns how many address bits lie below the missing paging structure, after a
/// mapping call failed with
/// [`FailedLookup`](crate::Error::FailedLookup): 21 for a page table, 30 for a page
/// directory, 39 for a PDPT. Only valid until the next message or invocation.
pub fn last_lookup_bits_missing() -> usize {
    with_ipc_buffer(|buffer| buffer.msg_regs()[sel4_sys::MAPPING_LOOKUP_LEVEL] as usize)
}

/// Returns `vaddr` as the kernel takes it, or an error if no page may be mapped
/// there.
fn checked(vaddr: usize) -> Result<u64> {
    let vaddr = vaddr as u64;
    if is_canonical(vaddr) {
        Ok(vaddr)
    } else {
        Err(Error::InvalidArgument)
    }
}

impl<T: CapTypeForFrameObject> Cap<T> {
    /// Maps the page at `vaddr`, which must be aligned to its size. One
    /// capability holds one mapping: copy it to map the page twice. Mapping
    /// again at the same place changes rights and attributes.
    ///
    /// # Errors
    /// [`FailedLookup`](crate::Error::FailedLookup) if a paging structure is
    /// missing ([`last_lookup_bits_missing`] tells which),
    /// [`DeleteFirst`](crate::Error::DeleteFirst) if something is mapped
    /// there, and others for bad arguments.
    pub fn frame_map(
        self,
        vspace: VSpace,
        vaddr: usize,
        rights: CapRights,
        attributes: VmAttributes,
    ) -> Result<()> {
        let vaddr = checked(vaddr)?;
        invoke(|ipc| {
            sel4_sys::x86_page_map(
                ipc,
                self.bits(),
                vspace.bits(),
                vaddr,
                rights.inner(),
                attributes.0,
            )
        })
    }

    /// Unmaps the page; no error if it is not mapped.
    ///
    /// # Errors
    /// If this is not a page.
    pub fn frame_unmap(self) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_page_unmap(ipc, self.bits()))
    }

    /// Returns the page's physical address.
    ///
    /// # Errors
    /// If this is not a page.
    pub fn frame_get_address(self) -> Result<usize> {
        invoke(|ipc| sel4_sys::x86_page_get_address(ipc, self.bits())).map(|paddr| paddr as usize)
    }
}

impl PageTable {
    /// Maps the page table over the 2 MiB around `vaddr`.
    ///
    /// # Errors
    /// As [`frame_map`](Cap::frame_map).
    pub fn page_table_map(
        self,
        vspace: VSpace,
        vaddr: usize,
        attributes: VmAttributes,
    ) -> Result<()> {
        let vaddr = checked(vaddr)?;
        invoke(|ipc| {
            let vspace = vspace.bits();
            sel4_sys::x86_page_table_map(ipc, self.bits(), vspace, vaddr, attributes.0)
        })
    }

    /// Unmaps the page table and all that it maps.
    ///
    /// # Errors
    /// If this is not a page table.
    pub fn page_table_unmap(self) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_page_table_unmap(ipc, self.bits()))
    }
}

impl PageDirectory {
    /// Maps the page directory over the 1 GiB around `vaddr`.
    ///
    /// # Errors
    /// As [`frame_map`](Cap::frame_map).
    pub fn page_directory_map(
        self,
        vspace: VSpace,
        vaddr: usize,
        attributes: VmAttributes,
    ) -> Result<()> {
        let vaddr = checked(vaddr)?;
        invoke(|ipc| {
            let vspace = vspace.bits();
            sel4_sys::x86_page_directory_map(ipc, self.bits(), vspace, vaddr, attributes.0)
        })
    }

    /// Unmaps the page directory and all that it maps.
    ///
    /// # Errors
    /// If this is not a page directory.
    pub fn page_directory_unmap(self) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_page_directory_unmap(ipc, self.bits()))
    }
}

impl PDPT {
    /// Maps the page directory pointer table over the 512 GiB around `vaddr`.
    ///
    /// # Errors
    /// As [`frame_map`](Cap::frame_map).
    pub fn pdpt_map(self, vspace: VSpace, vaddr: usize, attributes: VmAttributes) -> Result<()> {
        let vaddr = checked(vaddr)?;
        invoke(|ipc| {
            let vspace = vspace.bits();
            sel4_sys::x86_pdpt_map(ipc, self.bits(), vspace, vaddr, attributes.0)
        })
    }

    /// Unmaps the page directory pointer table and all that it maps.
    ///
    /// # Errors
    /// If this is not a page directory pointer table.
    pub fn pdpt_unmap(self) -> Result<()> {
        invoke(|ipc| sel4_sys::x86_pdpt_unmap(ipc, self.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cap::Granule;

    /// Before the kernel is asked, of which there is none here.
    #[test]
    fn nothing_is_mapped_at_an_address_that_no_cpu_takes() {
        let refused = Err(Error::InvalidArgument);
        let vspace = VSpace::from_bits(1);
        let attributes = VmAttributes::DEFAULT;
        for odd in [1 << 47, usize::MAX >> 1] {
            let page = Granule::from_bits(2);
            let mapped = page.frame_map(vspace, odd, CapRights::read_write(), attributes);
            assert_eq!(mapped, refused);
            let table = PageTable::from_bits(2);
            assert_eq!(table.page_table_map(vspace, odd, attributes), refused);
            let directory = PageDirectory::from_bits(2);
            assert_eq!(
                directory.page_directory_map(vspace, odd, attributes),
                refused
            );
            let pdpt = PDPT::from_bits(2);
            assert_eq!(pdpt.pdpt_map(vspace, odd, attributes), refused);
        }
        assert_eq!(checked(0x7fff_ffff_f000), Ok(0x7fff_ffff_f000));
    }
}
