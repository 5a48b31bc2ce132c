//! Device registers in a component's address space.

use core::ptr::NonNull;

use pci::Width;

/// A range of device registers that belongs to this component alone.
#[derive(Debug)]
pub struct Mmio {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the registers belong to the component, which has one thread.
unsafe impl Send for Mmio {}

impl Mmio {
    /// Returns the registers mapped at `address`, `size` bytes of them.
    ///
    /// # Safety
    /// init must have mapped them there, uncached, for this component, and
    /// nothing else may make a reference to that memory.
    #[must_use]
    pub unsafe fn new(address: usize, size: usize) -> Self {
        let base = core::ptr::with_exposed_provenance_mut(address);
        Self {
            base: NonNull::new(base).unwrap_or(NonNull::dangling()),
            size,
        }
    }

    /// Returns whether an aligned access of this width lies inside.
    fn at(&self, offset: usize, width: Width) -> Option<NonNull<u8>> {
        let end = offset.checked_add(width.bytes() as usize)?;
        if end > self.size || !width.is_aligned(offset as u64) {
            return None;
        }
        // SAFETY: the offset lies inside the mapped range.
        Some(unsafe { self.base.add(offset) })
    }

    /// Reads a register; all ones if the access is not aligned or lies outside.
    #[must_use]
    pub fn read(&self, offset: usize, width: Width) -> u64 {
        let Some(at) = self.at(offset, width) else {
            return width.all_ones();
        };
        // SAFETY: mapped (see `new`), aligned and inside (see `at`); a register
        // read as an integer is valid for every value.
        unsafe {
            match width {
                Width::Byte => at.read_volatile().into(),
                Width::Word => at.cast::<u16>().read_volatile().into(),
                Width::Dword => at.cast::<u32>().read_volatile().into(),
                Width::Qword => at.cast::<u64>().read_volatile(),
            }
        }
    }

    /// Writes a register; dropped if the access is not aligned or lies outside.
    pub fn write(&mut self, offset: usize, width: Width, value: u64) {
        let Some(at) = self.at(offset, width) else {
            return;
        };
        // SAFETY: mapped (see `new`), aligned and inside (see `at`).
        unsafe {
            match width {
                Width::Byte => at.write_volatile(value as u8),
                Width::Word => at.cast::<u16>().write_volatile(value as u16),
                Width::Dword => at.cast::<u32>().write_volatile(value as u32),
                Width::Qword => at.cast::<u64>().write_volatile(value),
            }
        }
    }
}
