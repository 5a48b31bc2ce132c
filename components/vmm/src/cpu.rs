//! State of the guest's CPU that is not in its real registers.

use crate::descriptors::Table;
use crate::registers::{RFLAGS_FIXED, RFLAGS_IF, RFLAGS_USER, Trapped};

/// Control and system registers of the virtual CPU.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// The guest's interrupt flag.
    pub interrupts: bool,
    /// Waiting in HLT.
    pub halted: bool,
    /// Interrupt descriptor table.
    pub idt: Table,
    /// Global descriptor table; `None` before the guest has loaded one.
    pub gdt: Option<Table>,
    /// Task state segment; limit 0 before the guest has loaded one.
    pub task: Table,
    /// Code selector, which frames on the guest's stack show.
    pub cs: u16,
    /// Stack selector, likewise.
    pub ss: u16,
    /// Base that SWAPGS exchanges with that of GS, always canonical.
    pub kernel_gs_base: u64,
    /// STAR, LSTAR, CSTAR and FMASK: kept, change nothing.
    pub syscall: [u64; 4],
    /// XCR0: kept, changes nothing.
    pub xcr0: u64,
    /// The table for interrupts, vectors from 32 on, where it is not that for exceptions:
    /// the shim's, whatever table its image loads.
    pub interrupt_table: Option<Table>,
    /// CR0, as the boot protocol promises it: paging and protection on.
    pub cr0: u64,
    /// CR2: address of the last page fault that was injected.
    pub cr2: u64,
    /// CR3: what it translates is checked once ([`crate::paging`]).
    pub cr3: u64,
    /// CR4: physical address extension and SSE on.
    pub cr4: u64,
    /// Extended features: long mode is on.
    pub efer: u64,
    /// Page attribute table: kept, changes nothing.
    pub pat: u64,
    /// The local APIC is in x2APIC mode: MSRs 0x800 to 0x8ff answer.
    pub x2apic: bool,
}

/// Selectors of the Linux 64-bit boot protocol: `__BOOT_CS` and `__BOOT_DS`.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
/// XCR0 at reset: x87 state (SDM vol. 1 section 13.3).
const XCR0_START: u64 = 1;
/// Vectors that are exceptions come before this.
const EXCEPTIONS: u8 = 32;
/// CR0: PG, WP, NE, ET, MP, PE.
const CR0_START: u64 = 0x8001_0033;
/// CR4: PAE, OSFXSR, OSXMMEXCPT.
const CR4_START: u64 = 0x620;
/// EFER: LME, LMA.
const EFER_START: u64 = 0x500;
/// PAT at reset, SDM vol. 3 section 12.12.4.
const PAT_START: u64 = 0x0007_0406_0007_0406;

impl Default for Cpu {
    fn default() -> Self {
        Self {
            interrupts: false,
            halted: false,
            idt: Table::default(),
            gdt: None,
            task: Table::default(),
            cs: BOOT_CS,
            ss: BOOT_DS,
            kernel_gs_base: 0,
            syscall: [0; 4],
            xcr0: XCR0_START,
            interrupt_table: None,
            cr0: CR0_START,
            cr2: 0,
            cr3: 0,
            cr4: CR4_START,
            efer: EFER_START,
            pat: PAT_START,
            x2apic: false,
        }
    }
}

impl Cpu {
    /// Returns the flags as the guest's own, with its interrupt flag.
    #[must_use]
    pub fn flags(&self, regs: &Trapped<'_>) -> u64 {
        let interrupts = if self.interrupts { RFLAGS_IF } else { 0 };
        regs.rflags() & !RFLAGS_IF | interrupts
    }

    /// Sets the flags as the guest wants them, as far as ring 3 may have them.
    pub fn set_flags(&mut self, regs: &mut Trapped<'_>, flags: u64) {
        regs.set_rflags(flags & RFLAGS_USER | RFLAGS_FIXED | RFLAGS_IF);
        self.interrupts = flags & RFLAGS_IF != 0;
    }

    /// Returns the table that holds a vector's gate.
    #[must_use]
    pub fn table_of(&self, vector: u8) -> Table {
        let own = self.interrupt_table.filter(|_| vector >= EXCEPTIONS);
        own.unwrap_or(self.idt)
    }
}
