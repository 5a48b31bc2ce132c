//! DMAR: the Intel units (Intel Virtualization Technology for Directed I/O
//! Architecture Specification, revision 4.x, chapter 8).

use crate::bytes::{self, Records};
use crate::{Found, Unusable, check_registers, note_ioapic};

/// Bytes before the first structure (section 8.1).
const HEAD: usize = 48;
/// The flag that says: interrupts can be remapped.
const INTERRUPT_REMAPPING: u8 = 1 << 0;
/// Structures: a unit (section 8.3), memory that firmware needs (section 8.4).
const UNIT: u16 = 0;
const RESERVED_MEMORY: u16 = 1;
/// A unit's flag: it is for all functions of its segment that no other has.
const ALL: u8 = 1 << 0;

/// Bytes of a unit's registers that have to be there, and the alignment of their
/// address (section 8.3, "Register Base Address").
const REGISTERS: u64 = 0x1000;

/// Kinds of device scopes (section 8.3.1).
const ENDPOINT: u8 = 1;
const BRIDGE: u8 = 2;
const IOAPIC: u8 = 3;

/// A unit.
#[derive(Clone, Copy)]
struct Unit {
    registers: u64,
    /// For all functions of segment 0, or at least all that are assigned.
    all: bool,
}

/// Reads a table whose checksum is right.
pub fn parse(table: &[u8], assigned: &[u16]) -> Result<Found, Unusable> {
    let structures = table.get(HEAD..).ok_or(Unusable::Malformed)?;
    let width = bytes::u8(table, 36).ok_or(Unusable::Malformed)?;
    let flags = bytes::u8(table, 37).ok_or(Unusable::Malformed)?;
    let length = |structure: &[u8]| bytes::u16(structure, 2).map(usize::from);
    let (mut first, mut units, mut ioapic) = (None, 0, None);
    for structure in Records::new(structures, 4, length) {
        let structure = structure.ok_or(Unusable::Malformed)?;
        match bytes::u16(structure, 0) {
            Some(UNIT) => {
                let unit = unit(structure, &mut ioapic, assigned)?;
                first.get_or_insert(unit);
                units += 1;
            }
            Some(RESERVED_MEMORY) => check_memory(structure, assigned)?,
            // No other structure changes how a single unit for all functions is used.
            _ => {}
        }
    }
    let Some(Unit { registers, all }) = first else {
        return Ok(Found::None);
    };
    if units > 1 {
        return Err(Unusable::Units(units));
    }
    check_registers(registers, REGISTERS)?;
    if !all {
        return Err(Unusable::Partial);
    }
    if flags & INTERRUPT_REMAPPING == 0 {
        return Err(Unusable::NoRemapping);
    }
    Ok(Found::Intel {
        registers,
        ioapic: ioapic.ok_or(Unusable::NoRemapping)?,
        // The table has it less 1.
        address_bits: width.saturating_add(1),
    })
}

fn unit(structure: &[u8], ioapic: &mut Option<u16>, assigned: &[u16]) -> Result<Unit, Unusable> {
    let read = || {
        Some((
            bytes::u8(structure, 4)?,
            bytes::u16(structure, 6)?,
            bytes::u64(structure, 8)?,
            structure.get(16..)?,
        ))
    };
    let (flags, segment, registers, scopes) = read().ok_or(Unusable::Malformed)?;
    for scope in scopes_in(scopes) {
        let scope = Scope::read(scope).ok_or(Unusable::Malformed)?;
        if scope.kind == IOAPIC {
            // One behind a bridge has no id that we could tell.
            let id = scope.id().ok_or(Unusable::NoRemapping)?;
            note_ioapic(ioapic, id, assigned)?;
        }
    }
    // A unit without INCLUDE_PCI_ALL lists its functions, as QEMU's does.
    let listed = |id| {
        scopes_in(scopes).any(|scope| Scope::read(scope).is_some_and(|scope| scope.may_be(id)))
    };
    let all = flags & ALL != 0 || assigned.iter().all(|&id| listed(id));
    Ok(Unit {
        registers,
        all: all && segment == 0,
    })
}

fn scopes_in(scopes: &[u8]) -> Records<'_> {
    Records::new(scopes, 8, |scope| bytes::u8(scope, 1).map(usize::from))
}

/// A device, as the way to it.
struct Scope<'a> {
    kind: u8,
    bus: u8,
    /// Device and function, of each bridge on the way and of the device.
    path: &'a [u8],
}

impl<'a> Scope<'a> {
    fn read(scope: Option<&'a [u8]>) -> Option<Self> {
        let scope = scope?;
        Some(Self {
            kind: bytes::u8(scope, 0)?,
            bus: bytes::u8(scope, 5)?,
            path: scope.get(6..)?,
        })
    }

    /// Returns its requester id, if it is on the first bus of the way.
    fn id(&self) -> Option<u16> {
        let [device, function] = *self.path else {
            return None;
        };
        (device < 32 && function < 8)
            .then(|| u16::from(self.bus) << 8 | u16::from(device) << 3 | u16::from(function))
    }

    /// Returns whether it may be, or have behind it, the function with this id.
    /// Which bus lies behind a bridge, only configuration space tells: it may
    /// be any but the bridge's own.
    fn may_be(&self, id: u16) -> bool {
        match (self.kind, self.id()) {
            (ENDPOINT, Some(own)) => own == id,
            (ENDPOINT | BRIDGE, _) => id >> 8 != u16::from(self.bus),
            _ => false,
        }
    }
}

/// Checks that no assigned function needs memory that firmware reserved for it.
fn check_memory(structure: &[u8], assigned: &[u16]) -> Result<(), Unusable> {
    let segment = bytes::u16(structure, 6).ok_or(Unusable::Malformed)?;
    let scopes = structure.get(24..).ok_or(Unusable::Malformed)?;
    for scope in scopes_in(scopes) {
        let scope = Scope::read(scope).ok_or(Unusable::Malformed)?;
        let concerned = assigned.iter().find(|id| scope.may_be(**id));
        if let Some(id) = concerned
            && segment == 0
        {
            return Err(Unusable::FirmwareMemory(*id));
        }
    }
    Ok(())
}
