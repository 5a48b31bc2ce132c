//! Memory: mappings, and initial contents.

use sel4::cap::{Granule, LargePage, PDPT, PageDirectory, PageTable, VSpace};
use sel4::init_thread::slot;
use sel4::{Cap, CapRights, Error, ObjectBlueprint, VmAttributes};
use spec::{Cache, Mapping, NONE, Object};

use super::builder::Builder;
use super::fatal::fatal;
use super::rights;

/// Where init maps a page for a moment. Its own program and the kernel's
/// BootInfo lie far below.
pub const SCRATCH: usize = 0x2_0000_0000;

impl Builder<'_> {
    /// Maps a page, with the paging structures that are missing.
    pub fn map<T: sel4::cap::CapTypeForFrameObject>(
        &mut self,
        frame: Cap<T>,
        vspace: VSpace,
        address: usize,
        rights: CapRights,
        attributes: VmAttributes,
        what: &str,
    ) {
        // At most three levels can be missing.
        for _ in 0..4 {
            match frame.frame_map(vspace, address, rights, attributes) {
                Ok(()) => return,
                Err(Error::FailedLookup) => {}
                Err(error) => fatal!("mapping {what} at {address:#x}: {error:?}"),
            }
            let missing = sel4::last_lookup_bits_missing();
            let default = VmAttributes::DEFAULT;
            let made = match missing {
                21 => {
                    let slot = self.retype(what, &ObjectBlueprint::PageTable, 1, None);
                    self.kept.add(slot);
                    PageTable::from_bits(slot as u64).page_table_map(vspace, address, default)
                }
                30 => {
                    let slot = self.retype(what, &ObjectBlueprint::PageDirectory, 1, None);
                    self.kept.add(slot);
                    PageDirectory::from_bits(slot as u64)
                        .page_directory_map(vspace, address, default)
                }
                39 => {
                    let slot = self.retype(what, &ObjectBlueprint::PDPT, 1, None);
                    self.kept.add(slot);
                    PDPT::from_bits(slot as u64).pdpt_map(vspace, address, default)
                }
                _ => fatal!("mapping {what}: the kernel misses level {missing}"),
            };
            if let Err(error) = made {
                fatal!("page tables of {what} at {address:#x}: {error:?}");
            }
        }
        fatal!("mapping {what} at {address:#x}: page tables stay missing");
    }

    /// Calls `f` with a page of a memory object, mapped for that time.
    fn with_page(&mut self, object: u32, page: u64, f: impl FnOnce(&mut [u8])) {
        let name = self.object(object).name.as_str();
        let frame: Granule = self.cap(object, page);
        self.map(
            frame,
            slot::VSPACE.cap(),
            SCRATCH,
            CapRights::read_write(),
            VmAttributes::DEFAULT,
            name,
        );
        let start = core::ptr::with_exposed_provenance_mut::<u8>(SCRATCH);
        // SAFETY: the page was just mapped there, writable, for this thread
        // alone, and nothing else runs yet.
        f(unsafe { core::slice::from_raw_parts_mut(start, 4096) });
        if let Err(error) = frame.frame_unmap() {
            fatal!("unmapping {name}: {error:?}");
        }
    }

    /// Copies bytes to the start of a memory object.
    pub fn write(&mut self, object: u32, bytes: &[u8]) {
        self.write_at(object, 0, bytes);
    }

    fn write_at(&mut self, object: u32, offset: u64, bytes: &[u8]) {
        if self.object(object).size_bits != 12 {
            fatal!(
                "{}: only small pages can be filled",
                self.object(object).name.as_str()
            );
        }
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let start = (at % 4096) as usize;
            let (now, later) = rest.split_at(rest.len().min(4096 - start));
            self.with_page(object, at / 4096, |page| {
                page[start..start + now.len()].copy_from_slice(now);
            });
            at += now.len() as u64;
            rest = later;
        }
    }

    /// Carries out the fills.
    pub fn fill(&mut self) {
        let system = self.system;
        for fill in system.fills {
            self.write_at(fill.object, fill.offset, system.source(fill));
        }
    }

    /// Carries out the mappings. A mapping takes a capability of its own, which
    /// goes to the mapping's holder.
    pub fn map_all(&mut self) {
        for mapping in self.system.mappings {
            let object = self.object(mapping.object);
            if !self.places.has(object.requires) {
                continue;
            }
            for page in 0..object.pages {
                let from = self.first_slots[mapping.object as usize] + page as usize;
                let copy = self.copy(from, CapRights::all(), object.name.as_str());
                self.map_page(mapping, object, page, copy);
                if mapping.holder == NONE {
                    // With it the mapping would go.
                    self.kept.add(copy);
                } else {
                    let to = mapping.holder_slot + page as u32;
                    self.give(copy, mapping.holder, to, object.name.as_str());
                }
            }
        }
    }

    fn map_page(&mut self, mapping: &Mapping, object: &Object, page: u64, slot: usize) {
        let address = (mapping.address + (page << object.size_bits)) as usize;
        let vspace: VSpace = self.cap(mapping.vspace, 0);
        let rights = rights(mapping.rights);
        let attributes = if mapping.cache == Cache::Uncached {
            VmAttributes::UNCACHEABLE
        } else {
            VmAttributes::DEFAULT
        };
        let name = object.name.as_str();
        if object.size_bits == 21 {
            let frame = LargePage::from_bits(slot as u64);
            self.map(frame, vspace, address, rights, attributes, name);
        } else {
            let frame = Granule::from_bits(slot as u64);
            self.map(frame, vspace, address, rights, attributes, name);
        }
    }
}
