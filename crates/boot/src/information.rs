//! The information that the kernel reads.

use crate::Region;
use crate::handoff::Protocol;
use crate::tags;

/// What a Multiboot 1 loader leaves in EAX.
pub const MAGIC_ONE: u32 = 0x2bad_b002;

/// What the kernel is told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its command line, without a zero.
    pub command_line: &'a [u8],
    /// Init's file.
    pub module: Region,
    /// RAM, from 1 MiB on.
    pub memory: &'a [Region],
    /// ACPI's root pointer.
    pub root: Option<&'a [u8]>,
}

/// Fields that follow one another.
struct Fields<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Fields<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    fn dwords(&mut self, values: &[u32]) -> Option<()> {
        values.iter().try_for_each(|v| self.bytes(&v.to_le_bytes()))
    }

    fn qwords(&mut self, values: &[u64]) -> Option<()> {
        values.iter().try_for_each(|v| self.bytes(&v.to_le_bytes()))
    }

    fn text(&mut self, text: &[u8]) -> Option<()> {
        self.bytes(text)?;
        self.bytes(&[0])
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

/// Writes the information into `out`, which is zeroed and lies at the address `at`. Returns
/// what has to be in EAX; `None` if there is no room.
pub fn write(protocol: Protocol, told: &Told<'_>, at: u32, out: &mut [u8]) -> Option<u32> {
    match protocol {
        Protocol::One => one(told, at, out).map(|()| MAGIC_ONE),
        Protocol::Two => two(told, out).map(|()| tags::MAGIC),
    }
}

/// Bytes of the main part, with the fields about the screen, which stay empty.
const HEAD: usize = 120;
/// Bytes of memory below 640 KiB and from 1 MiB on, command line, modules, memory map.
const FLAGS: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6;

/// Writes the older form (Multiboot Specification 0.6.96, section 3.3).
fn one(told: &Told<'_>, base: u32, out: &mut [u8]) -> Option<()> {
    let place = |at: usize| base.checked_add(u32::try_from(at).ok()?);
    let mut fields = Fields { out, at: HEAD };
    let module = place(fields.at)?;
    let (start, end) = (told.module.start, told.module.end);
    fields.dwords(&[u32::try_from(start).ok()?, u32::try_from(end).ok()?, 0, 0])?;
    let memory = fields.at;
    for region in told.memory {
        // Bytes of what follows; address, length, and the type of RAM.
        fields.dwords(&[20])?;
        fields.qwords(&[region.start, region.end - region.start])?;
        fields.dwords(&[1])?;
    }
    let memory_bytes = u32::try_from(fields.at - memory).ok()?;
    let command_line = place(fields.at)?;
    fields.text(told.command_line)?;
    let upper = told.memory.first().map_or(0, |r| (r.end - r.start) >> 10);
    let upper = u32::try_from(upper).unwrap_or(u32::MAX);
    fields.at = 0;
    fields.dwords(&[FLAGS, 640, upper, 0, command_line, 1, module])?;
    fields.dwords(&[0; 4])?;
    fields.dwords(&[memory_bytes, place(memory)?])
}

/// Writes the newer form (Multiboot2 specification 2.0, section 3.6).
fn two(told: &Told<'_>, out: &mut [u8]) -> Option<()> {
    let mut fields = Fields { out, at: 8 };
    let mut tag = |kind: u32, body: &mut dyn FnMut(&mut Fields<'_>) -> Option<()>| {
        let start = fields.at;
        fields.dwords(&[kind, 0])?;
        body(&mut fields)?;
        let end = fields.at;
        fields.at = start + 4;
        fields.dwords(&[u32::try_from(end - start).ok()?])?;
        fields.at = end;
        fields.align();
        Some(fields.at)
    };
    tag(1, &mut |fields| fields.text(told.command_line))?;
    let module = [
        u32::try_from(told.module.start).ok()?,
        u32::try_from(told.module.end).ok()?,
    ];
    tag(3, &mut |fields| {
        fields.dwords(&module)?;
        fields.text(b"init")
    })?;
    tag(6, &mut |fields| {
        // Bytes of an entry, version.
        fields.dwords(&[24, 0])?;
        told.memory.iter().try_for_each(|region| {
            fields.qwords(&[region.start, region.end - region.start])?;
            fields.dwords(&[1, 0])
        })
    })?;
    if let Some(root) = told.root {
        let kind = if root.len() < crate::POINTER { 14 } else { 15 };
        tag(kind, &mut |fields| fields.bytes(root))?;
    }
    let end = tag(0, &mut |_| Some(()))?;
    let mut head = Fields { out, at: 0 };
    head.dwords(&[u32::try_from(end).ok()?, 0])
}
