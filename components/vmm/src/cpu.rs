//! State of the guest's CPU that is not in its real registers.

/// Control and system registers of the virtual CPU.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// The guest's interrupt flag.
    pub interrupts: bool,
    /// Waiting in HLT.
    pub halted: bool,
    /// Interrupt descriptor table: base.
    pub idt_base: u64,
    /// Interrupt descriptor table: limit.
    pub idt_limit: u16,
    /// Base and limit of the table for interrupts, vectors from 32 on, where it is not that
    /// for exceptions: the shim's, whatever table its image loads.
    pub interrupt_table: Option<(u64, u16)>,
    /// CR0, as the boot protocol promises it: paging and protection on.
    pub cr0: u64,
    /// CR2: address of the last page fault that was injected.
    pub cr2: u64,
    /// CR3: kept, but translates nothing.
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
            idt_base: 0,
            idt_limit: 0,
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
    /// Returns base and limit of the table that holds a vector's gate.
    #[must_use]
    pub fn table_of(&self, vector: u8) -> (u64, u16) {
        let own = self.interrupt_table.filter(|_| vector >= EXCEPTIONS);
        own.unwrap_or((self.idt_base, self.idt_limit))
    }
}
