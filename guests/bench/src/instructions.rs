//! Instructions that kit has no reason to name, to be counted one by one.

use core::arch::asm;

/// IA32_APIC_BASE, a register that every CPU has (SDM vol. 3, 10.4.4).
const APIC_BASE: u32 = 0x1b;
/// A port that firmware writes its progress to: any value may be written.
const PROGRESS_PORT: u16 = 0x80;

/// Clears the interrupt flag, which is clear.
pub fn cli() {
    // SAFETY: interrupts are off already.
    unsafe { asm!("cli", options(nomem, nostack)) };
}

/// Sets the interrupt flag and clears it again: there is no instruction between, after
/// which an interrupt could come (SDM vol. 2, STI).
pub fn sti_cli() {
    // SAFETY: interrupts are off before and afterwards, and none is taken between.
    unsafe { asm!("sti", "cli", options(nomem, nostack)) };
}

/// Reads a model-specific register.
pub fn rdmsr() {
    // SAFETY: every CPU has the register, and reading it changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") APIC_BASE, out("eax") _, out("edx") _,
             options(nomem, nostack, preserves_flags));
    }
}

/// Writes a port behind which nothing is.
pub fn out_port() {
    kit::cpu::out8(PROGRESS_PORT, 0);
}

/// Asks for the CPU's vendor.
pub fn cpuid() {
    core::hint::black_box(core::arch::x86_64::__cpuid(0));
}
