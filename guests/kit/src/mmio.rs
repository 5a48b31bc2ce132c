//! Device registers, behind a trait so that drivers run against fakes in tests.

use core::arch::asm;
use core::marker::PhantomData;
use core::ops::Range;

use tock_registers::fields::FieldValue;
use tock_registers::{LocalRegisterCopy, RegisterLongName};

/// 32-bit registers of one device, by byte offset.
pub trait Registers {
    /// Reads the register at `offset` (a multiple of 4).
    fn read(&self, offset: u32) -> u32;
    /// Writes the register at `offset` (a multiple of 4).
    fn write(&mut self, offset: u32, value: u32);
}

/// A 32-bit register at a fixed offset, with the layout `L` of its fields.
pub struct Register<L: RegisterLongName = ()> {
    /// Byte offset among the device's registers.
    pub(crate) offset: u32,
    layout: PhantomData<L>,
}

impl<L: RegisterLongName> Register<L> {
    /// The register at byte `offset`.
    pub const fn at(offset: u32) -> Self {
        Self {
            offset,
            layout: PhantomData,
        }
    }

    /// Reads it.
    pub fn read(&self, registers: &impl Registers) -> LocalRegisterCopy<u32, L> {
        LocalRegisterCopy::new(registers.read(self.offset))
    }

    /// Writes fields; the others become 0.
    pub fn write(&self, registers: &mut impl Registers, fields: FieldValue<u32, L>) {
        registers.write(self.offset, fields.value);
    }

    /// Writes a plain number.
    pub fn set(&self, registers: &mut impl Registers, value: u32) {
        registers.write(self.offset, value);
    }
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

/// The hole below 4 GiB where firmware and Vectis place BARs, and the I/O APIC's
/// page behind it.
const PCI_WINDOW: Range<u64> = 0xc000_0000..0xfec0_1000;

/// All BARs of the machine, by address and at any width: for looking at what a
/// driver would never do.
#[derive(Debug)]
pub struct PciWindow(());

impl PciWindow {
    /// The machine's window.
    #[expect(clippy::new_without_default, reason = "it is a place, not a value")]
    pub const fn new() -> Self {
        Self(())
    }

    /// Whether `bytes` bytes at `address` lie inside.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        address >= PCI_WINDOW.start
            && address
                .checked_add(bytes)
                .is_some_and(|end| end <= PCI_WINDOW.end)
    }

    /// Reads `bytes` bytes (1, 2, 4 or 8), which need no alignment; `None`
    /// outside the window or for another width.
    pub fn read(&self, address: u64, bytes: u64) -> Option<u64> {
        if !self.contains(address, bytes) {
            return None;
        }
        // SAFETY: the window holds device registers or nothing, never memory
        // of this program, and is identity mapped and uncached (boot.s, or the
        // monitor on Vectis). By assembly, since it may be misaligned, and so
        // that the width is the one asked for.
        unsafe {
            match bytes {
                1 => {
                    let value: u32;
                    asm!("movzx {:e}, byte ptr [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags));
                    Some(value.into())
                }
                2 => {
                    let value: u32;
                    asm!("movzx {:e}, word ptr [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags));
                    Some(value.into())
                }
                4 => {
                    let value: u32;
                    asm!("mov {:e}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags));
                    Some(value.into())
                }
                8 => {
                    let value: u64;
                    asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags));
                    Some(value)
                }
                _ => None,
            }
        }
    }

    /// Writes `bytes` bytes, as [`read`](Self::read) reads them; false if there
    /// was nothing to write to.
    pub fn write(&mut self, address: u64, bytes: u64, value: u64) -> bool {
        if !self.contains(address, bytes) {
            return false;
        }
        // SAFETY: as in `read`.
        unsafe {
            match bytes {
                1 => {
                    asm!("mov [{}], {}", in(reg) address, in(reg_byte) value as u8, options(nostack, preserves_flags))
                }
                2 => {
                    asm!("mov [{}], {:x}", in(reg) address, in(reg) value as u16, options(nostack, preserves_flags))
                }
                4 => {
                    asm!("mov [{}], {:e}", in(reg) address, in(reg) value as u32, options(nostack, preserves_flags))
                }
                8 => {
                    asm!("mov [{}], {}", in(reg) address, in(reg) value, options(nostack, preserves_flags))
                }
                _ => return false,
            }
        }
        true
    }
}
