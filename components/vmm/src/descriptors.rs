//! The guest's segments: its GDT and task state segment, which lie in its RAM (SDM vol. 3
//! sections 3.4.5 and 8.2.3), and the far return. Ring 3 has the kernel's segments, so
//! that nothing here changes how memory is reached but the bases of FS and GS.

use crate::cpu::Cpu;
use crate::host::GuestMemory;
use crate::registers::{RSP, Registers, is_canonical};

/// An exception that an instruction raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector.
    pub vector: u8,
    /// Its error code.
    pub code: u64,
}

impl Exception {
    /// Returns #GP with this error code.
    #[must_use]
    pub const fn general_protection(code: u64) -> Self {
        Self { vector: 13, code }
    }
}

/// A descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Guest address of its first byte.
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u16,
}

impl Table {
    /// Reads the operand of LGDT or LIDT; `None` if it is not in RAM or its base is not
    /// canonical.
    pub fn load(host: &mut impl GuestMemory, address: u64) -> Option<Self> {
        let mut bytes = [0; 10];
        if !host.read_ram(address, &mut bytes) {
            return None;
        }
        let [a, b, base @ ..] = bytes;
        let base = u64::from_le_bytes(base);
        let limit = u16::from_le_bytes([a, b]);
        is_canonical(base).then_some(Self { base, limit })
    }

    /// Returns the address of a selector's descriptor of so many bytes, if it lies in
    /// this table.
    fn descriptor(&self, selector: u16, bytes: u64) -> Option<u64> {
        let offset = u64::from(selector & !7);
        let inside = offset + bytes - 1 <= u64::from(self.limit);
        inside.then(|| self.base.wrapping_add(offset))
    }
}

/// A register that holds a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// DS or ES.
    Data,
    /// SS.
    Stack,
    /// FS.
    Fs,
    /// GS.
    Gs,
    /// The task register.
    Task,
    /// The local descriptor table, of which only the empty one can be.
    Local,
}

/// Bit 4: code or data, and not a system segment.
const TYPE_MEMORY: u64 = 1 << 4;
/// Bit 3: code.
const TYPE_CODE: u64 = 1 << 3;
/// A 64-bit task state segment that is not in use.
const TYPE_TASK: u64 = 9;
/// In the second doubleword's place of a descriptor: present, 64-bit code, 32-bit code.
const PRESENT: u64 = 1 << 47;
const LONG: u64 = 1 << 53;
const BIG: u64 = 1 << 54;
/// Selector bits: requested privilege level, and a local descriptor.
const PRIVILEGE: u16 = 3;
const LOCAL: u16 = 1 << 2;
const NOT_PRESENT: u8 = 11;
/// Offset of IST 1 in a task state segment, in bytes.
const IST_OFFSET: u64 = 36;

fn word(host: &mut impl GuestMemory, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    host.read_ram(address, &mut bytes)
        .then(|| u64::from_le_bytes(bytes))
}

/// Returns address and value of a selector's descriptor in the GDT, if `fits` its type
/// and it is present.
fn lookup(
    gdt: Table,
    host: &mut impl GuestMemory,
    selector: u16,
    bytes: u64,
    fits: impl Fn(u64) -> bool,
) -> Result<(u64, u64), Exception> {
    let code = u64::from(selector & !PRIVILEGE);
    let refused = Exception::general_protection(code);
    if selector & LOCAL != 0 {
        return Err(refused);
    }
    let address = gdt.descriptor(selector, bytes).ok_or(refused)?;
    let descriptor = word(host, address).ok_or(refused)?;
    if !fits(descriptor) {
        return Err(refused);
    }
    if descriptor & PRESENT == 0 {
        return Err(Exception {
            vector: NOT_PRESENT,
            code,
        });
    }
    Ok((address, descriptor))
}

const fn kind(descriptor: u64) -> u64 {
    descriptor >> 40 & 0x1f
}

/// Bits 31:0 of a descriptor's base.
const fn base(descriptor: u64) -> u64 {
    descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000
}

/// Loads `selector` into a segment register.
///
/// # Errors
/// Those of the CPU. Before the guest has loaded a GDT, selectors of code and data are
/// the boot protocol's, and not looked at.
pub fn load(
    segment: Segment,
    selector: u16,
    cpu: &mut Cpu,
    regs: &mut Registers,
    host: &mut impl GuestMemory,
) -> Result<(), Exception> {
    let null = selector & !PRIVILEGE == 0;
    match segment {
        Segment::Task => {
            let gdt = cpu.gdt.filter(|_| !null);
            let gdt = gdt.ok_or(Exception::general_protection(0))?;
            let task = |descriptor| kind(descriptor) == TYPE_TASK;
            let (address, descriptor) = lookup(gdt, host, selector, 16, task)?;
            let refused = Exception::general_protection(selector.into());
            let high = word(host, address.wrapping_add(8)).ok_or(refused)?;
            let limit = descriptor & 0xffff | descriptor >> 32 & 0xf_0000;
            let whole = descriptor >> 55 & 1 == 1;
            cpu.task = Table {
                base: high << 32 | base(descriptor),
                limit: if whole || limit > 0xffff {
                    0xffff
                } else {
                    limit as u16
                },
            };
            // Busy from now on: bit 1 of the type, which is in the descriptor's byte 5.
            let marked = (descriptor >> 40) as u8 | 2;
            host.write_ram(address.wrapping_add(5), &[marked]);
            return Ok(());
        }
        Segment::Local if null => return Ok(()),
        Segment::Local => return Err(Exception::general_protection(selector.into())),
        _ => {}
    }
    let mut base_of = 0;
    if !null && let Some(gdt) = cpu.gdt {
        let data = |descriptor| {
            kind(descriptor) & TYPE_MEMORY != 0
                && (segment != Segment::Stack || kind(descriptor) & (TYPE_CODE | 2) == 2)
        };
        base_of = base(lookup(gdt, host, selector, 8, data)?.1);
    }
    match segment {
        Segment::Stack => cpu.ss = selector,
        Segment::Fs => regs.fs_base = base_of,
        Segment::Gs => regs.gs_base = base_of,
        _ => {}
    }
    Ok(())
}

/// Checks that `selector` is one that the guest can run at: 64-bit code in ring 0. Ring 3
/// of the guest and 32-bit code cannot be.
///
/// # Errors
/// #GP or #NP.
pub fn check_code(selector: u16, cpu: &Cpu, host: &mut impl GuestMemory) -> Result<(), Exception> {
    if selector & PRIVILEGE != 0 || selector == 0 {
        let code = u64::from(selector & !PRIVILEGE);
        return Err(Exception::general_protection(code));
    }
    let Some(gdt) = cpu.gdt else {
        return Ok(());
    };
    let long = |descriptor: u64| {
        let code = TYPE_MEMORY | TYPE_CODE;
        kind(descriptor) & code == code && descriptor & (LONG | BIG) == LONG
    };
    lookup(gdt, host, selector, 8, long).map(|_| ())
}

/// Carries out a far return with 64-bit operands, which takes `extra` bytes more off the
/// stack.
///
/// # Errors
/// #GP or #NP; the registers are then as before.
pub fn far_return(
    extra: u16,
    cpu: &mut Cpu,
    regs: &mut Registers,
    host: &mut impl GuestMemory,
) -> Result<(), Exception> {
    let refused = Exception::general_protection(0);
    let stack = regs.gpr[RSP];
    let rip = word(host, stack).ok_or(refused)?;
    let selector = word(host, stack.wrapping_add(8)).ok_or(refused)? as u16;
    check_code(selector, cpu, host)?;
    if !is_canonical(rip) {
        return Err(refused);
    }
    cpu.cs = selector;
    regs.rip = rip;
    regs.gpr[RSP] = stack.wrapping_add(16 + u64::from(extra));
    Ok(())
}

/// Returns the stack that the task state segment names for a gate's IST, 1 to 7; `None` if
/// there is none.
pub fn interrupt_stack(cpu: &Cpu, host: &mut impl GuestMemory, ist: u64) -> Option<u64> {
    let offset = IST_OFFSET + 8 * (ist - 1);
    let inside = offset + 7 <= u64::from(cpu.task.limit);
    let address = cpu.task.base.wrapping_add(offset);
    inside.then(|| word(host, address)).flatten()
}
