//! What a boot loader tells the image: Multiboot information (Multiboot specification
//! 0.6.96 section 3.3) or PVH start information (Xen's public/arch-x86/hvm/start_info.h).

use core::ops::Range;

use spec::CONFIG_WINDOW;
use spec::acpi::{DISPLAY, FIRMWARE};
use spec::shim::{Boot32, Boot32Module, Handoff, protocol};
use zerocopy::FromBytes as _;

/// EAX of an image that Multiboot enters (section 3.2).
const MULTIBOOT_MAGIC: u32 = 0x2bad_b002;
/// First word of PVH start information.
const PVH_MAGIC: u32 = 0x336e_c578;
/// How the loader is called.
const LOADER: &[u8] = b"Vectis\0";

/// Bits of Multiboot's flags: memory sizes, command line, modules, memory map, loader name.
const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
/// Bytes of Multiboot information, all optional fields included.
const MULTIBOOT_SIZE: usize = 120;
/// Bytes of PVH start information of version 1.
const PVH_SIZE: usize = 56;

/// Type of usable and of reserved memory, in both protocols.
const USABLE: u32 = 1;
const RESERVED: u32 = 2;
/// A page that is mapped nowhere, so that null pointers are found.
const PAGE: u64 = 0x1000;
/// The facts that the image is told.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The block of the build tool.
    pub head: Handoff,
    /// The command line.
    pub command_line: &'a [u8],
    /// How the image is entered.
    pub boot: Boot32,
    modules: &'a [u8],
}

impl<'a> Facts<'a> {
    /// Reads the block; `None` if it is not one for this shim.
    #[must_use]
    pub fn parse(block: &'a [u8]) -> Option<Self> {
        let (head, command_line, payload) = Handoff::parse(block)?;
        let (boot, modules) = Boot32::read_from_prefix(payload).ok()?;
        let known = [protocol::MULTIBOOT, protocol::PVH].contains(&boot.protocol);
        known.then_some(Self {
            head,
            command_line,
            boot,
            modules,
        })
    }

    /// Returns each module with its name.
    fn modules(&self) -> impl Iterator<Item = (Boot32Module, &'a [u8])> {
        let size = size_of::<Boot32Module>();
        let count = (self.boot.modules as usize).min(self.modules.len() / size);
        let (records, mut names) = self.modules.split_at(count * size);
        records.chunks_exact(size).filter_map(move |record| {
            let module = Boot32Module::read_from_bytes(record).ok()?;
            let (name, rest) = names.split_at_checked(usize::try_from(module.name).ok()?)?;
            names = rest;
            Some((module, name))
        })
    }

    /// Returns the memory map: each range with its type.
    fn memory(&self) -> impl Iterator<Item = (Range<u64>, u32)> {
        let ram = self.head.ram_start..self.head.ram_end;
        let below = ram.start.max(PAGE)..ram.end.min(DISPLAY);
        let firmware = ram.start.max(FIRMWARE.start)..ram.end.min(FIRMWARE.end);
        let above = ram.start.max(FIRMWARE.end)..ram.end;
        let shim = self.head.ram_end..self.boot.ram_end;
        [
            (below, USABLE),
            (firmware, RESERVED),
            (above, USABLE),
            (shim, RESERVED),
            // Kernels use MCFG's window only where it is reserved.
            (CONFIG_WINDOW, RESERVED),
        ]
        .into_iter()
        .filter(|(range, _)| !range.is_empty())
    }

    /// Writes the information into `room`, which the image finds at `address`. Returns
    /// EAX and EBX for its entry; `None` if there is too little room.
    #[must_use]
    pub fn write(&self, room: &mut [u8], address: u32) -> Option<(u32, u32)> {
        let mut room = Room {
            bytes: room,
            used: 0,
            address,
        };
        if self.boot.protocol == protocol::PVH {
            self.write_pvh(&mut room)
        } else {
            self.write_multiboot(&mut room)
        }
    }

    fn write_multiboot(&self, room: &mut Room<'_>) -> Option<(u32, u32)> {
        let info = room.take(MULTIBOOT_SIZE)?;
        let command_line = room.text(self.command_line)?;
        let loader = room.text(LOADER)?;
        let count = self.modules().count();
        let list = room.take(16 * count)?;
        for (index, (module, name)) in self.modules().enumerate() {
            let name = room.text(name)?;
            for (field, value) in [module.start as u32, module.end as u32, name, 0]
                .into_iter()
                .enumerate()
            {
                room.put(list, 16 * index + 4 * field, &value.to_le_bytes())?;
            }
        }
        let map = room.take(24 * self.memory().count())?;
        for (index, (range, kind)) in self.memory().enumerate() {
            let at = 24 * index;
            // The size does not count itself.
            room.put(map, at, &20u32.to_le_bytes())?;
            room.put(map, at + 4, &range.start.to_le_bytes())?;
            room.put(map, at + 12, &(range.end - range.start).to_le_bytes())?;
            room.put(map, at + 20, &kind.to_le_bytes())?;
        }
        // KiB from the start of a part of memory to the end of what is usable there.
        let kib = |part: Range<u64>| {
            let usable = self
                .memory()
                .filter(|(range, kind)| *kind == USABLE && part.contains(&range.start));
            let end = usable.map(|(range, _)| range.end).last();
            ((end.unwrap_or(part.start) - part.start) / 1024) as u32
        };
        let lower = kib(0..DISPLAY);
        let upper = kib(FIRMWARE.end..u64::MAX);
        for (at, value) in [
            (0, FLAGS),
            (4, lower),
            (8, upper),
            (16, command_line),
            (20, count as u32),
            (24, room.address_of(list)),
            (44, 24 * self.memory().count() as u32),
            (48, room.address_of(map)),
            (64, loader),
        ] {
            room.put(info, at, &value.to_le_bytes())?;
        }
        Some((MULTIBOOT_MAGIC, room.address_of(info)))
    }

    fn write_pvh(&self, room: &mut Room<'_>) -> Option<(u32, u32)> {
        let info = room.take(PVH_SIZE)?;
        let command_line = room.text(self.command_line)?;
        let count = self.modules().count();
        let list = room.take(32 * count)?;
        for (index, (module, name)) in self.modules().enumerate() {
            let name = room.text(name)?;
            for (field, value) in [module.start, module.end - module.start, name.into(), 0]
                .into_iter()
                .enumerate()
            {
                room.put(list, 32 * index + 8 * field, &value.to_le_bytes())?;
            }
        }
        let map = room.take(24 * self.memory().count())?;
        for (index, (range, kind)) in self.memory().enumerate() {
            let at = 24 * index;
            room.put(map, at, &range.start.to_le_bytes())?;
            room.put(map, at + 8, &(range.end - range.start).to_le_bytes())?;
            room.put(map, at + 16, &kind.to_le_bytes())?;
        }
        for (at, value) in [
            (16, u64::from(room.address_of(list))),
            (24, command_line.into()),
            (32, self.boot.rsdp),
            (40, room.address_of(map).into()),
        ] {
            room.put(info, at, &value.to_le_bytes())?;
        }
        for (at, value) in [
            (0, PVH_MAGIC),
            (4, 1),
            (12, count as u32),
            (48, self.memory().count() as u32),
        ] {
            room.put(info, at, &value.to_le_bytes())?;
        }
        Some((0, room.address_of(info)))
    }
}

/// Memory that is given out from its start.
struct Room<'a> {
    bytes: &'a mut [u8],
    used: usize,
    address: u32,
}

impl Room<'_> {
    /// Takes so many zeroed bytes. Returns where they begin in the room.
    fn take(&mut self, size: usize) -> Option<usize> {
        let start = self.used.next_multiple_of(8);
        let end = start.checked_add(size)?;
        self.bytes.get_mut(start..end)?.fill(0);
        self.used = end;
        Some(start)
    }

    /// Adds a text and the zero that ends it. Returns its address.
    fn text(&mut self, text: &[u8]) -> Option<u32> {
        let start = self.take(text.len().checked_add(1)?)?;
        self.put(start, 0, text)?;
        Some(self.address_of(start))
    }

    fn put(&mut self, start: usize, at: usize, value: &[u8]) -> Option<()> {
        let start = start + at;
        let to = self.bytes.get_mut(start..start + value.len())?;
        to.copy_from_slice(value);
        Some(())
    }

    const fn address_of(&self, start: usize) -> u32 {
        self.address + start as u32
    }
}

#[cfg(test)]
mod tests;
