//! The guest's segments: its GDT and task state segment, which lie in its RAM (SDM vol. 3
//! sections 3.4.5 and 8.2.3). Ring 3 has the kernel's segments, so that nothing here
//! changes how memory is reached but the bases of FS and GS.
//!
//! `None` is #GP: a segment that is not present raises that as well.

use crate::cpu::Cpu;
use crate::decode::Source;
use crate::host::GuestMemory;
use crate::registers::{RSP, Trapped, is_canonical};

/// A descriptor table, or a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Guest address of its first byte.
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u16,
}

impl Table {
    /// Reads the operand of LGDT or LIDT.
    pub fn load(host: &mut impl GuestMemory, address: u64) -> Option<Self> {
        let limit = host.read_word(address)? as u16;
        let base = host.read_word(address.wrapping_add(2))?;
        is_canonical(base).then_some(Self { base, limit })
    }

    /// Returns the address of `length` bytes at an offset, if they are inside.
    fn part(self, offset: u64, length: u64) -> Option<u64> {
        let inside = offset + length - 1 <= u64::from(self.limit);
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
}

/// Selector bits: requested privilege level, and a local descriptor.
const PRIVILEGE: u16 = 3;
const LOCAL: u16 = 1 << 2;
/// Bits of a descriptor: its type with the bit for code and data, present, 64-bit code and
/// 32-bit code.
const TYPE: u64 = 0x1f << 40;
const MEMORY: u64 = 0x10 << 40;
const CODE: u64 = 0x18 << 40;
const PRESENT: u64 = 1 << 47;
const LONG: u64 = 1 << 53;
const BIG: u64 = 1 << 54;
/// The type of a 64-bit task state segment that is not in use.
const TASK: u64 = 9 << 40;
/// In the byte of the type, which is the sixth: in use.
const BUSY: u8 = 2;
/// Offset of IST 1 in a task state segment, in bytes.
const IST_OFFSET: u64 = 36;

/// Returns address and value of a selector's descriptor, if it is present and these bits
/// have this value.
fn descriptor(
    gdt: Table,
    host: &mut impl GuestMemory,
    selector: u16,
    bits: u64,
    value: u64,
) -> Option<(u64, u64)> {
    let address = gdt.part((selector & !(PRIVILEGE | LOCAL)).into(), 8)?;
    let found = host.read_word(address)?;
    let fits = found & (bits | PRESENT) == value | PRESENT && selector & LOCAL == 0;
    fits.then_some((address, found))
}

/// Returns bits 31:0 of a descriptor's base.
const fn base(descriptor: u64) -> u64 {
    descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000
}

/// Loads a register that holds a selector. Before the guest has a GDT of its own, those of
/// code and data are the boot protocol's, and not looked at.
pub fn load(
    segment: Segment,
    source: Source,
    cpu: &mut Cpu,
    regs: &mut Trapped<'_>,
    host: &mut impl GuestMemory,
) -> Option<()> {
    let stack = regs.get(RSP);
    let selector = match source {
        Source::Register(register) => register.read(regs),
        Source::Memory(address) => host.read_word(address.of(regs))?,
        Source::Stack => host.read_word(stack)?,
    } as u16;
    if segment == Segment::Task {
        let (address, low) = descriptor(cpu.gdt?, host, selector, TYPE, TASK)?;
        cpu.gdt?.part((selector & !PRIVILEGE).into(), 16)?;
        let high = host.read_word(address.wrapping_add(8))?;
        cpu.task = Table {
            base: high << 32 | base(low),
            limit: low as u16,
        };
        host.write_ram(address.wrapping_add(5), &[(low >> 40) as u8 | BUSY]);
        return Some(());
    }
    let base_of = match cpu.gdt {
        Some(gdt) if selector & !PRIVILEGE != 0 => {
            base(descriptor(gdt, host, selector, MEMORY, MEMORY)?.1)
        }
        _ => 0,
    };
    match segment {
        Segment::Stack => cpu.ss = selector,
        Segment::Fs => regs.set_base(false, base_of),
        Segment::Gs => regs.set_base(true, base_of),
        Segment::Data | Segment::Task => {}
    }
    if source == Source::Stack {
        regs.set(RSP, stack.wrapping_add(8));
    }
    Some(())
}

/// Has the guest go on with this code selector: 64-bit code in ring 0. Ring 3 of the guest
/// and 32-bit code cannot be.
pub fn enter(selector: u16, cpu: &mut Cpu, host: &mut impl GuestMemory) -> Option<()> {
    if selector == 0 || selector & PRIVILEGE != 0 {
        return None;
    }
    if let Some(gdt) = cpu.gdt {
        descriptor(gdt, host, selector, CODE | LONG | BIG, CODE | LONG)?;
    }
    cpu.cs = selector;
    Some(())
}

/// Carries out a far return with 64-bit operands. Returns where it leads to.
pub fn far_return(
    cpu: &mut Cpu,
    regs: &mut Trapped<'_>,
    host: &mut impl GuestMemory,
) -> Option<u64> {
    let stack = regs.get(RSP);
    let rip = host.read_word(stack).filter(|&rip| is_canonical(rip))?;
    enter(host.read_word(stack.wrapping_add(8))? as u16, cpu, host)?;
    regs.set(RSP, stack.wrapping_add(16));
    Some(rip)
}

/// Returns the stack that the task state segment names for a gate's IST, 1 to 7.
pub fn interrupt_stack(cpu: &Cpu, host: &mut impl GuestMemory, ist: u64) -> Option<u64> {
    let place = cpu.task.part(IST_OFFSET + 8 * (ist - 1), 8)?;
    host.read_word(place)
}
