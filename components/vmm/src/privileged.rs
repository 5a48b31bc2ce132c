//! MSRs and control registers.

use crate::cpu::Cpu;
use crate::lapic::{LAPIC_BASE, Lapic, X2APIC_BASE};
use crate::registers::{RCX, Trapped, is_canonical};

/// Local APIC base (SDM vol. 3 section 11.4.4).
const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC: u32 = 0x10;
const IA32_PAT: u32 = 0x277;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const IA32_EFER: u32 = 0xc000_0080;
/// Entry points and selectors of SYSCALL: STAR, LSTAR, CSTAR, FMASK.
const SYSCALL_FIRST: u32 = 0xc000_0081;
const IA32_LSTAR: u32 = 0xc000_0082;
const IA32_CSTAR: u32 = 0xc000_0083;
const SYSCALL_LAST: u32 = 0xc000_0084;
const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_GS_BASE: u32 = 0xc000_0101;
const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// Bootstrap processor, APIC globally enabled.
const APIC_BASE_FLAGS: u64 = 1 << 8 | 1 << 11;
/// x2APIC mode, in the same register.
const APIC_BASE_X2APIC: u64 = 1 << 10;
/// Bits of CR3 that no CPU of ours has (SDM vol. 3 table 4-12).
const CR3_RESERVED: u64 = 0xfff0_0000_0000_0000;
/// CR4: five levels of page tables.
const CR4_LA57: u64 = 1 << 12;
const X2APIC_LAST: u32 = 0x8ff;
/// x2APIC only: the interrupt command register is one MSR.
const X2APIC_ICR: u32 = 0x830;
/// x2APIC ids have 32 bits; ours is 0.
const X2APIC_ID: u32 = 0x802;

/// Reads the MSR that rcx names; `None` (#GP) if it does not exist.
#[must_use]
pub fn read_msr(regs: &Trapped<'_>, cpu: &Cpu, lapic: &Lapic, now: u64) -> Option<u64> {
    let msr = regs.get(RCX) as u32;
    Some(match msr {
        IA32_TSC => now,
        IA32_APIC_BASE => {
            let x2apic = if cpu.x2apic { APIC_BASE_X2APIC } else { 0 };
            LAPIC_BASE | APIC_BASE_FLAGS | x2apic
        }
        IA32_PAT => cpu.pat,
        IA32_TSC_DEADLINE => lapic.tsc_deadline(),
        IA32_EFER => cpu.efer,
        SYSCALL_FIRST..=SYSCALL_LAST => cpu.syscall[(msr - SYSCALL_FIRST) as usize],
        IA32_FS_BASE => regs.base(false),
        IA32_GS_BASE => regs.base(true),
        IA32_KERNEL_GS_BASE => cpu.kernel_gs_base,
        X2APIC_ID if cpu.x2apic => 0,
        X2APIC_ICR if cpu.x2apic => {
            let high = lapic.read((X2APIC_ICR - X2APIC_BASE + 1) * 16, now);
            let low = lapic.read((X2APIC_ICR - X2APIC_BASE) * 16, now);
            u64::from(high) << 32 | u64::from(low)
        }
        X2APIC_BASE..=X2APIC_LAST if cpu.x2apic => {
            u64::from(lapic.read((msr - X2APIC_BASE) * 16, now))
        }
        _ => return None,
    })
}

/// Writes the MSR that rcx names from rdx and rax; `None` (#GP) if it does not exist or
/// does not take this value.
pub fn write_msr(regs: &mut Trapped<'_>, cpu: &mut Cpu, lapic: &mut Lapic, now: u64) -> Option<()> {
    let value = regs.edx_eax();
    let msr = regs.get(RCX) as u32;
    match msr {
        IA32_LSTAR | IA32_CSTAR | IA32_FS_BASE | IA32_GS_BASE | IA32_KERNEL_GS_BASE
            if !is_canonical(value) =>
        {
            return None;
        }
        // System calls of a guest are not carried out: what it sets is only kept.
        SYSCALL_FIRST..=SYSCALL_LAST => cpu.syscall[(msr - SYSCALL_FIRST) as usize] = value,
        IA32_FS_BASE => regs.set_base(false, value),
        IA32_GS_BASE => regs.set_base(true, value),
        IA32_KERNEL_GS_BASE => cpu.kernel_gs_base = value,
        IA32_APIC_BASE => {
            // Neither may the page move, nor the APIC go away.
            if value & !APIC_BASE_X2APIC != LAPIC_BASE | APIC_BASE_FLAGS {
                return None;
            }
            // x2APIC mode is left only by a reset (SDM vol. 3 section 11.12.1).
            if cpu.x2apic && value & APIC_BASE_X2APIC == 0 {
                return None;
            }
            cpu.x2apic = value & APIC_BASE_X2APIC != 0;
        }
        IA32_PAT => cpu.pat = value,
        IA32_TSC_DEADLINE => lapic.set_tsc_deadline(value),
        // Long mode stays on; the rest changes nothing that ring 3 can see.
        IA32_EFER => cpu.efer = value & 0xd01 | 0x500,
        X2APIC_ICR if cpu.x2apic => {
            // The destination moves from bits 63:32 to xAPIC's 63:56.
            let destination = (value >> 32).min(0xff);
            lapic.command(destination << 56 | value & 0xffff_ffff);
        }
        X2APIC_BASE..=X2APIC_LAST if cpu.x2apic => {
            let value = u32::try_from(value).ok()?;
            lapic.write((msr - X2APIC_BASE) * 16, value, now);
        }
        _ => return None,
    }
    Some(())
}

/// Reads control register `number`; `None`: #UD.
#[must_use]
pub fn read_control(number: u8, cpu: &Cpu, lapic: &Lapic) -> Option<u64> {
    Some(match number {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        8 => u64::from(lapic.read(0x80, 0) >> 4),
        _ => return None,
    })
}

/// Writes control register `number`; `None`: #UD.
pub fn write_control(number: u8, value: u64, cpu: &mut Cpu, lapic: &mut Lapic) -> Option<()> {
    match number {
        // Paging and protection stay on: guest-physical is guest-virtual.
        0 => cpu.cr0 = value & 0xe005_003f | 0x8000_0011,
        2 => cpu.cr2 = value,
        3 if value & CR3_RESERVED != 0 => return None,
        3 => cpu.cr3 = value,
        // Five levels of page tables cannot be.
        4 if value & CR4_LA57 != 0 => return None,
        4 => cpu.cr4 = value & 0xffff_ffff | 0x20,
        8 => {
            lapic.write(0x80, (value as u32 & 0xf) << 4, 0);
        }
        _ => return None,
    }
    Some(())
}
