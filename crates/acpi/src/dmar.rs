//! DMAR: the Intel units (Intel Virtualization Technology for Directed I/O
//! Architecture Specification, revision 4.x, chapter 8).

use crate::bytes::{self, Records};
use crate::{Buses, Found, Reserved, Units, Unusable, check_ioapic};

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

/// Reads a table whose checksum is right.
pub fn parse(table: &[u8], assigned: &[u16], buses: Buses<'_>) -> Result<Found, Unusable> {
    let structures = table.get(HEAD..).ok_or(Unusable::Malformed)?;
    let flags = bytes::u8(table, 37).ok_or(Unusable::Malformed)?;
    let mut count = 0;
    for structure in structures_in(structures) {
        let structure = structure.ok_or(Unusable::Malformed)?;
        match bytes::u16(structure, 0) {
            Some(UNIT) => {
                let unit = Unit::read(structure).ok_or(Unusable::Malformed)?;
                unit.check(assigned)?;
                count += 1;
            }
            Some(RESERVED_MEMORY) => Memory::read(structure).and_then(Memory::check)?,
            // No other structure changes how a unit is used.
            _ => {}
        }
    }
    if count == 0 {
        return Ok(Found::None);
    }
    let mut units = Units::default();
    for unit in own_units(structures) {
        units.add(unit.registers, REGISTERS, count)?;
    }
    if units.registers.is_empty() {
        return Err(Unusable::Segment);
    }
    if flags & INTERRUPT_REMAPPING == 0 {
        return Err(Unusable::NoRemapping);
    }
    for &id in assigned {
        units.give(owner(structures, id, buses)?.registers)?;
    }
    let ioapic = own_units(structures).find_map(|unit| unit.ioapic());
    units.ioapic = ioapic.ok_or(Unusable::NoRemapping)?;
    for (memory, scope) in reserved_in(structures) {
        for &id in assigned {
            if scope.has(id, buses).unwrap_or_else(|| scope.may_be(id)) {
                units.reserve(memory.of(id, &units, owner(structures, id, buses)?)?)?;
            }
        }
    }
    // What is left of the room is for functions that nobody has.
    for (memory, scope) in reserved_in(structures) {
        let id = scope.endpoint(buses).filter(|id| !assigned.contains(id));
        if let Some(id) = id
            && let Ok(owner) = owner(structures, id, buses)
            && let Ok(reserved) = memory.of(id, &units, owner)
        {
            // That which cannot be reached is no reason to use no unit.
            let _ = units.reserve(reserved);
        }
    }
    Ok(Found::Intel(units))
}

/// Memory that firmware wants functions to reach (section 8.4).
#[derive(Clone, Copy)]
struct Memory<'a> {
    segment: u16,
    start: u64,
    /// Its last byte.
    last: u64,
    scopes: &'a [u8],
}

impl<'a> Memory<'a> {
    fn read(structure: &'a [u8]) -> Result<Self, Unusable> {
        let read = || {
            Some(Self {
                segment: bytes::u16(structure, 6)?,
                start: bytes::u64(structure, 8)?,
                last: bytes::u64(structure, 16)?,
                scopes: structure.get(24..)?,
            })
        };
        read().ok_or(Unusable::Malformed)
    }

    /// Checks its scopes.
    fn check(self) -> Result<(), Unusable> {
        let mut scopes = scopes_in(self.scopes);
        match scopes.all(|scope| Scope::read(scope).is_some()) {
            true => Ok(()),
            false => Err(Unusable::Malformed),
        }
    }

    /// Returns it as that of a function, which is behind a unit.
    fn of(self, requester: u16, units: &Units, owner: Unit<'_>) -> Result<Reserved, Unusable> {
        let bad = Unusable::FirmwareMemory(requester);
        Ok(Reserved {
            requester,
            unit: units.position(owner.registers).ok_or(bad)?,
            start: self.start,
            end: self.last.checked_add(1).ok_or(bad)?,
            read: true,
            write: true,
        })
    }
}

/// Returns the firmware's memory on segment 0, with each scope of it, among structures that
/// were checked.
fn reserved_in(structures: &[u8]) -> impl Iterator<Item = (Memory<'_>, Scope<'_>)> {
    structures_in(structures)
        .flatten()
        .filter(|structure| bytes::u16(structure, 0) == Some(RESERVED_MEMORY))
        .filter_map(|structure| Memory::read(structure).ok())
        .filter(|memory| memory.segment == 0)
        .flat_map(|memory| {
            let scopes = scopes_in(memory.scopes).filter_map(Scope::read);
            scopes.map(move |scope| (memory, scope))
        })
}

/// Returns the unit that has a function: the first that lists it, else the one for the
/// rest of the segment.
fn owner<'a>(structures: &'a [u8], id: u16, buses: Buses<'_>) -> Result<Unit<'a>, Unusable> {
    let own = || own_units(structures);
    let alone = own().nth(1).is_none();
    for unit in own() {
        match unit.lists(id, buses) {
            Some(true) => return Ok(unit),
            Some(false) => {}
            // Where there is one unit only, nobody else has what it may have.
            None if alone && (unit.all || unit.may_list(id)) => return Ok(unit),
            None => return Err(Unusable::Unclear(id)),
        }
    }
    own().find(|unit| unit.all).ok_or(Unusable::NoUnit(id))
}

fn structures_in(structures: &[u8]) -> Records<'_> {
    Records::new(structures, 4, |structure| {
        bytes::u16(structure, 2).map(usize::from)
    })
}

/// Returns the units among structures that were checked.
fn units_in(structures: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    structures_in(structures)
        .flatten()
        .filter(|structure| bytes::u16(structure, 0) == Some(UNIT))
        .filter_map(Unit::read)
}

/// Returns the units of segment 0 among structures that were checked.
fn own_units(structures: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    units_in(structures).filter(|unit| unit.segment == 0)
}

/// A unit.
#[derive(Clone, Copy)]
struct Unit<'a> {
    registers: u64,
    segment: u16,
    /// It has all functions of its segment that no other lists.
    all: bool,
    scopes: &'a [u8],
}

impl<'a> Unit<'a> {
    fn read(structure: &'a [u8]) -> Option<Self> {
        Some(Self {
            all: bytes::u8(structure, 4)? & ALL != 0,
            segment: bytes::u16(structure, 6)?,
            registers: bytes::u64(structure, 8)?,
            scopes: structure.get(16..)?,
        })
    }

    /// Checks its scopes.
    fn check(&self, assigned: &[u16]) -> Result<(), Unusable> {
        for scope in scopes_in(self.scopes) {
            let scope = Scope::read(scope).ok_or(Unusable::Malformed)?;
            if scope.kind == IOAPIC && self.segment == 0 {
                // One behind a bridge has no id that we could tell.
                let id = scope.id().ok_or(Unusable::NoRemapping)?;
                check_ioapic(id, assigned)?;
            }
        }
        Ok(())
    }

    /// Returns its scopes, which were checked.
    fn scopes(&self) -> impl Iterator<Item = Scope<'a>> + use<'a> {
        scopes_in(self.scopes).filter_map(Scope::read)
    }

    /// Returns the id of its first I/O APIC.
    fn ioapic(&self) -> Option<u16> {
        let mut scopes = self.scopes();
        scopes.find(|scope| scope.kind == IOAPIC)?.id()
    }

    /// Returns whether it lists a function; `None` if that cannot be told.
    fn lists(&self, id: u16, buses: Buses<'_>) -> Option<bool> {
        let mut told = Some(false);
        for scope in self.scopes() {
            match scope.has(id, buses) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => told = None,
            }
        }
        told
    }

    /// Returns whether it may list it, as far as is known without the bridges.
    fn may_list(&self, id: u16) -> bool {
        self.scopes().any(|scope| scope.may_be(id))
    }
}

fn scopes_in(scopes: &[u8]) -> Records<'_> {
    Records::new(scopes, 8, |scope| bytes::u8(scope, 1).map(usize::from))
}

/// A device, as the way to it.
#[derive(Clone, Copy)]
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
        id_of(self.bus, [device, function])
    }

    /// Returns the id of what its way leads to, and the bus that is on; `None` if nobody
    /// knows a bridge on the way.
    fn end(&self, buses: Buses<'_>) -> Option<(u16, u8)> {
        let (steps, []) = self.path.as_chunks::<2>() else {
            return None;
        };
        let (last, between) = steps.split_last()?;
        let mut bus = self.bus;
        for step in between {
            bus = *buses(id_of(bus, *step)?)?.start();
        }
        Some((id_of(bus, *last)?, bus))
    }

    /// Returns the id of the one function that it is, if it is one.
    fn endpoint(&self, buses: Buses<'_>) -> Option<u16> {
        let (id, _) = self.end(buses)?;
        (self.kind == ENDPOINT).then_some(id)
    }

    /// Returns whether it is, or has behind it, the function with this id; `None` if
    /// nobody knows a bridge on the way.
    fn has(&self, id: u16, buses: Buses<'_>) -> Option<bool> {
        if !matches!(self.kind, ENDPOINT | BRIDGE) {
            return Some(false);
        }
        let (own, bus) = self.end(buses)?;
        if self.kind == ENDPOINT {
            return Some(own == id);
        }
        let [_, of_id] = id.to_le_bytes();
        // What is on the bridge's own bus is not behind it.
        if of_id == bus {
            return Some(false);
        }
        Some(buses(own)?.contains(&of_id))
    }

    /// Returns whether it may be, or have behind it, the function with this id, where
    /// nobody knows the bridges.
    fn may_be(&self, id: u16) -> bool {
        match (self.kind, self.id()) {
            (ENDPOINT, Some(own)) => own == id,
            (ENDPOINT | BRIDGE, _) => id >> 8 != u16::from(self.bus),
            _ => false,
        }
    }
}

/// Returns a requester id; `None` for a device or function that there cannot be.
fn id_of(bus: u8, [device, function]: [u8; 2]) -> Option<u16> {
    (device < 32 && function < 8)
        .then(|| u16::from(bus) << 8 | u16::from(device) << 3 | u16::from(function))
}
