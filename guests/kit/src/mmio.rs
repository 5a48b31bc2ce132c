//! Device registers, behind a trait so that drivers run against fakes in tests.

/// 32-bit registers of one device, by byte offset.
pub trait Registers {
    /// Reads the register at `offset` (a multiple of 4).
    fn read(&self, offset: u32) -> u32;
    /// Writes the register at `offset` (a multiple of 4).
    fn write(&mut self, offset: u32, value: u32);
}

/// A device's registers in memory.
pub struct Mmio {
    base: *mut u32,
    size: u32,
}

impl Mmio {
    /// Takes the registers at physical address `base`, `size` bytes.
    ///
    /// # Safety
    /// The range must be a device's registers, identity mapped and uncached,
    /// and used through this value only.
    pub unsafe fn new(base: u64, size: u32) -> Self {
        Self {
            base: base as *mut u32,
            size,
        }
    }

    fn at(&self, offset: u32) -> *mut u32 {
        assert!(
            offset.is_multiple_of(4) && offset < self.size,
            "register {offset:#x}"
        );
        self.base.wrapping_byte_add(offset as usize)
    }
}

impl Registers for Mmio {
    fn read(&self, offset: u32) -> u32 {
        // SAFETY: `at` stays inside the range that `new` was promised.
        unsafe { self.at(offset).read_volatile() }
    }

    fn write(&mut self, offset: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe { self.at(offset).write_volatile(value) }
    }
}
