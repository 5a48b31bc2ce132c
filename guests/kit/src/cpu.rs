//! The few instructions that Rust has no name for.
//!
//! Port accesses are safe functions here although a port can do anything to
//! the machine: the guest owns its whole machine, and no port that this crate
//! names moves memory.

use core::arch::asm;

/// Reads a byte from an I/O port.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: reads a port; touches no memory and no flags.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, preserves_flags)) };
    value
}

/// Writes a byte to an I/O port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: writes a port; the compiler must keep its order with memory
    // accesses (no `nomem`), which is all that a device needs.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(preserves_flags)) };
}

/// Reads 16 bits from an I/O port.
pub fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: as for `in8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, preserves_flags)) };
    value
}

/// Writes 16 bits to an I/O port.
pub fn out16(port: u16, value: u16) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(preserves_flags)) };
}

/// Reads 32 bits from an I/O port.
pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as for `in8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, preserves_flags)) };
    value
}

/// Writes 32 bits to an I/O port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(preserves_flags)) };
}

/// Reads the time stamp counter, in ticks (see [`crate::clock::Clock`]).
pub fn tsc() -> u64 {
    // SAFETY: reading the counter has no side effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Returns the vendor string of the hypervisor that CPUID names (leaf
/// 0x4000_0000), or `None` on a CPU that names none.
///
/// CPUID does not trap for a deprivileged guest, so on Vectis this is the
/// machine's own vendor string.
pub fn hypervisor() -> Option<[u8; 12]> {
    let features = core::arch::x86_64::__cpuid(1).ecx;
    // Bit 31: a hypervisor is present, by agreement of CPU and hypervisor vendors.
    if features & (1 << 31) == 0 {
        return None;
    }
    let leaf = core::arch::x86_64::__cpuid(0x4000_0000);
    let mut vendor = [0; 12];
    for (bytes, register) in vendor
        .chunks_exact_mut(4)
        .zip([leaf.ebx, leaf.ecx, leaf.edx])
    {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    Some(vendor)
}

/// Returns whether CPUID offers x2APIC mode (leaf 1, ECX bit 21).
#[cfg(feature = "entry")]
pub(crate) fn has_x2apic() -> bool {
    core::arch::x86_64::__cpuid(1).ecx & (1 << 21) != 0
}

/// Reads a model-specific register.
///
/// # Safety
/// The register must exist, otherwise the CPU raises #GP.
#[cfg(feature = "entry")]
pub(crate) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller says that the register exists.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
             options(nomem, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must exist and take `value`, and the write must not change
/// what compiled code relies on (paging, segments, entry points).
#[cfg(feature = "entry")]
pub(crate) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller answers for register and value.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(preserves_flags));
    }
}

/// Halts the CPU forever.
pub fn stop() -> ! {
    loop {
        // SAFETY: nothing can wake a halted CPU with interrupts off but a
        // non-maskable interrupt, after which it halts again.
        unsafe { asm!("cli", "hlt") };
    }
}
