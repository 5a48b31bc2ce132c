//! Device registers, behind a trait so that drivers run against fakes in tests.

use core::arch::asm;
use core::cell::UnsafeCell;
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
    /// Returns the register at byte `offset`.
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

    /// Reads it and writes it back with these fields changed: for registers of
    /// which firmware or hardware owns the other bits.
    pub fn modify(&self, registers: &mut impl Registers, fields: FieldValue<u32, L>) {
        let mut value = self.read(registers);
        value.modify(fields);
        registers.write(self.offset, value.get());
    }

    /// Writes a plain number.
    pub fn set(&self, registers: &mut impl Registers, value: u32) {
        registers.write(self.offset, value);
    }
}

/// A device's registers in memory.
#[derive(Debug)]
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

/// Memory that a device reads and writes by itself, copied in bulk.
///
/// A device may write at any time, against its specification too: a copy out takes
/// each byte once, and only the copy is examined afterwards.
#[repr(C, align(64))]
pub struct SharedBytes<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

// SAFETY: the bytes are reached only by `copy_to` and `copy_from`, whose
// accesses are assembly: to the compiler they race with nothing.
unsafe impl<const SIZE: usize> Sync for SharedBytes<SIZE> {}

impl<const SIZE: usize> SharedBytes<SIZE> {
    /// Creates zeroed memory, for a `static`.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; SIZE]))
    }

    /// Returns the bus address, which equals the virtual address in a guest.
    pub fn address(&self) -> u64 {
        self.0.get().addr() as u64
    }

    /// Returns the bytes for an interface that takes a slice: whoever makes a reference of it
    /// answers for its being the only one, and the device's not writing meanwhile.
    pub(crate) fn as_ptr(&self) -> *mut [u8; SIZE] {
        self.0.get()
    }

    /// Copies the first `to.len()` bytes out, at most as many as there are; the
    /// rest of `to` stays unchanged.
    pub fn copy_to(&self, to: &mut [u8]) {
        self.copy_out(0, to);
    }

    /// Copies bytes from `offset` on out, at most as many as there are; the rest of `to` stays
    /// unchanged.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let offset = offset.min(SIZE);
        let length = to.len().min(SIZE - offset);
        let from = self.0.get().cast::<u8>();
        // SAFETY: `length` bytes lie inside both, and a `&mut` slice and this
        // memory cannot overlap: there are no references into it.
        unsafe { copy(from.add(offset), to.as_mut_ptr(), length) };
    }

    /// Copies `from` in, at most as many bytes as there are. The rest stays
    /// unchanged.
    pub fn copy_from(&self, from: &[u8]) {
        self.copy_in(0, from);
    }

    /// Copies `from` to `offset`, at most as many bytes as there are. The rest stays unchanged.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let offset = offset.min(SIZE);
        let length = from.len().min(SIZE - offset);
        let to = self.0.get().cast::<u8>();
        // SAFETY: as in `copy_out`.
        unsafe { copy(from.as_ptr(), to.add(offset), length) };
    }
}

impl<const SIZE: usize> Default for SharedBytes<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies `length` bytes, eight at a time and the rest one by one. By assembly,
/// because the device may write meanwhile, and the compiler must neither split,
/// repeat nor leave out the accesses.
///
/// # Safety
/// Both ranges must be valid for that many bytes and not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller answers for the ranges; the direction flag is clear, as
    // the ABI has it, and these instructions change no flag.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) length % 8,
            inout("rcx") length / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

/// The hole below 4 GiB where firmware and Vectis place BARs, and the I/O APIC's
/// page behind it.
const PCI_WINDOW: Range<u64> = 0xc000_0000..0xfec0_1000;
/// Where Vectis has 64-bit BARs too: a bare machine maps nothing there.
const HIGH_WINDOW: Range<u64> = 0x1_0000_0000..0x80_0000_0000;

/// All BARs of the machine, by address and at any width, for accesses that a driver
/// would never make.
#[derive(Debug)]
pub struct PciWindow {
    /// It goes on above 4 GiB.
    high: bool,
}

impl PciWindow {
    /// Returns the machine's window.
    #[expect(clippy::new_without_default, reason = "it is a place, not a value")]
    pub const fn new() -> Self {
        Self { high: false }
    }

    /// Returns the same with the window above 4 GiB, for a guest of Vectis. Where no BAR is
    /// there, an access is a page fault.
    pub const fn with_high() -> Self {
        Self { high: true }
    }

    /// Returns whether `bytes` bytes at `address` lie inside.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        let inside = |window: &Range<u64>| {
            let end = address.checked_add(bytes);
            window.start <= address && end.is_some_and(|end| end <= window.end)
        };
        inside(&PCI_WINDOW) || self.high && inside(&HIGH_WINDOW)
    }

    /// Reads `bytes` bytes (1, 2, 4 or 8), which need no alignment; `None`
    /// outside the window or for another width.
    pub fn read(&self, address: u64, bytes: u64) -> Option<u64> {
        if !self.contains(address, bytes) {
            return None;
        }
        // SAFETY: the window holds device registers or nothing, never memory
        // of this program, and is identity mapped and uncached (boot.s, or the
        // monitor on Vectis), or not mapped. By assembly, since it may be misaligned, and so
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

/// A device's registers that share a BAR with others, such as an MSI-X table.
#[derive(Debug)]
pub struct WindowRegisters {
    window: PciWindow,
    base: u64,
}

impl WindowRegisters {
    /// Returns the registers from `base` on. What is outside of the window reads all ones,
    /// and takes no writes.
    pub const fn new(base: u64) -> Self {
        Self {
            window: PciWindow::new(),
            base,
        }
    }
}

impl WindowRegisters {
    /// Reads the 16-bit register at `offset` (a multiple of 2).
    pub fn read16(&self, offset: u32) -> u16 {
        let value = self.window.read(self.base + u64::from(offset), 2);
        value.map_or(u16::MAX, |value| value as u16)
    }

    /// Writes the 16-bit register at `offset` (a multiple of 2).
    pub fn write16(&mut self, offset: u32, value: u16) {
        let address = self.base + u64::from(offset);
        self.window.write(address, 2, value.into());
    }
}

impl Registers for WindowRegisters {
    fn read(&self, offset: u32) -> u32 {
        let value = self.window.read(self.base + u64::from(offset), 4);
        value.map_or(u32::MAX, |value| value as u32)
    }

    fn write(&mut self, offset: u32, value: u32) {
        let address = self.base + u64::from(offset);
        self.window.write(address, 4, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::SharedBytes;

    #[test]
    fn bytes_are_copied_at_every_length_and_no_further() {
        for length in 0..=40 {
            let memory = SharedBytes::<40>::new();
            memory.copy_from(&[0xee; 40]);
            let from: [u8; 40] = core::array::from_fn(|n| n as u8 + 1);
            memory.copy_from(&from[..length]);
            let mut to = [0x55; 48];
            memory.copy_to(&mut to[..40]);
            assert_eq!(to[..length], from[..length]);
            assert!(to[length..40].iter().all(|byte| *byte == 0xee));
            assert_eq!(to[40..], [0x55; 8]);
            let mut to = [0x55; 48];
            memory.copy_to(&mut to[..length]);
            assert!(to[length..].iter().all(|byte| *byte == 0x55));
        }
    }

    #[test]
    fn bytes_are_copied_from_and_to_an_offset() {
        let memory = SharedBytes::<8>::new();
        memory.copy_in(6, &[1, 2, 3]);
        memory.copy_in(9, &[4]);
        let mut to = [0x55; 4];
        memory.copy_out(5, &mut to);
        assert_eq!(to, [0, 1, 2, 0x55]);
        memory.copy_out(9, &mut to);
        assert_eq!(to, [0, 1, 2, 0x55]);
    }

    #[test]
    fn what_does_not_fit_is_left() {
        let memory = SharedBytes::<8>::new();
        memory.copy_from(&[7; 12]);
        let mut to = [0x55; 12];
        memory.copy_to(&mut to);
        assert_eq!(to, [7, 7, 7, 7, 7, 7, 7, 7, 0x55, 0x55, 0x55, 0x55]);
    }
}
