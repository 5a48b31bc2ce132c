//! Builds page tables, of whichever format.

use core::ops::Range;

use channel::Error;
use spec::MESSAGES;

use crate::hardware::{PAGE, Region, Tables};

/// Bytes of a frame of guest RAM: a large page of the CPU and of the units.
pub const FRAME: u64 = 2 << 20;
/// Bits of an address that a table decides.
const INDEX_BITS: u32 = 9;
/// Levels that both makers have.
const MAX_LEVELS: usize = 4;

/// The machine addresses of a guest's frames: those for which there is a
/// capability, and no others.
pub trait Frames {
    /// Returns the machine address of the frame at this position of the
    /// function's guest; `None` if there is no such frame.
    fn machine(&mut self, function: usize, index: u64) -> Option<u64>;
}

/// No frames: for what is nobody's.
pub(crate) struct NoFrames;

impl Frames for NoFrames {
    fn machine(&mut self, _: usize, _: u64) -> Option<u64> {
        None
    }
}

/// A guest's RAM: frames that follow each other in its address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ram {
    /// Guest address of the first.
    pub address: u64,
    /// How many of [`FRAME`] bytes.
    pub frames: u64,
}

impl Ram {
    /// Returns the number of its 4 KiB pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.frames.saturating_mul(FRAME / PAGE as u64)
    }

    /// Returns the range of guest addresses, if no interrupt message lies among them,
    /// it is not empty, and it lies below `end`.
    fn range(self, end: u64) -> Option<Range<u64>> {
        let size = self.frames.checked_mul(FRAME)?;
        let range = self.address..self.address.checked_add(size)?;
        let messages = range.start < MESSAGES.end && MESSAGES.start < range.end;
        let usable =
            !range.is_empty() && range.start.is_multiple_of(FRAME) && range.end <= end && !messages;
        usable.then_some(range)
    }
}

/// Memory of the firmware that a function reaches at the machine's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Address of the first page.
    pub start: u64,
    /// Address after the last page.
    pub end: u64,
    /// What is allowed.
    pub access: Access,
}

impl Fixed {
    /// Returns its range, if it is whole pages that can be, as [`Ram::range`].
    fn range(self, end: u64) -> Option<Range<u64>> {
        let range = self.start..self.end;
        let messages = range.start < MESSAGES.end && MESSAGES.start < range.end;
        let pages = [range.start, range.end].map(|edge| edge.is_multiple_of(PAGE as u64));
        let usable = pages == [true; 2] && !range.is_empty() && range.end <= end && !messages;
        usable.then_some(range)
    }
}

/// Sorts pieces of the firmware's memory by address, and makes one of those that have bytes
/// in common: with what is allowed in either.
pub fn join<const N: usize>(pieces: &mut heapless::Vec<Fixed, N>) {
    pieces.sort_unstable_by_key(|piece| piece.start);
    let mut joined = heapless::Vec::<Fixed, N>::new();
    for piece in &*pieces {
        match joined.last_mut() {
            Some(last) if piece.start < last.end => {
                last.end = last.end.max(piece.end);
                last.access.read |= piece.access.read;
                last.access.write |= piece.access.write;
            }
            _ => {
                // There are no more than before.
                let _ = joined.push(*piece);
            }
        }
    }
    *pieces = joined;
}

/// What a function may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It may read it.
    pub read: bool,
    /// It may write it.
    pub write: bool,
}

impl Access {
    /// Reading and writing.
    pub const FULL: Self = Self {
        read: true,
        write: true,
    };
}

/// A format of page tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// How many levels a walk has: 3 or 4.
    pub levels: usize,
    /// Whether an entry of level 2 can be a page of 2 MiB.
    pub large: bool,
    /// The guest addresses that a walk tells apart end here, if not earlier.
    pub end: u64,
    /// The entry for a table of this level at a machine address.
    pub table: fn(u64, usize) -> u64,
    /// The entry of this level for a page at a machine address.
    pub page: fn(u64, usize, Access) -> u64,
}

/// Returns which entry of a table of this level an address takes.
const fn index(address: u64, level: usize) -> usize {
    (address >> shift(level) & 0x1ff) as usize
}

/// Returns the bits of an address below those that a table of this level
/// decides.
const fn shift(level: usize) -> u32 {
    12 + INDEX_BITS * (level as u32 - 1)
}

/// The tables under construction. Addresses come in ascending order, so that
/// one open table of each level is enough, and the tables that an address gets
/// depend on the RAM alone: building again writes the same values.
struct Builder<'a, T> {
    region: &'a mut Region<T>,
    format: Format,
    free: Range<usize>,
    /// The open table of each level, with the address bits above its own.
    open: [Option<(u64, usize)>; MAX_LEVELS + 1],
}

impl<T: Tables> Builder<'_, T> {
    fn take(&mut self) -> Result<usize, Error> {
        let table = self.free.start;
        if self.free.len() < PAGE {
            return Err(Error::Exhausted);
        }
        self.free.start += PAGE;
        Ok(table)
    }

    /// Returns the table of this level for an address, which is made if there
    /// is none.
    fn table(&mut self, address: u64, level: usize) -> Result<usize, Error> {
        let prefix = address >> (shift(level) + INDEX_BITS);
        if let Some((of, table)) = self.open[level]
            && (of == prefix || level == self.format.levels)
        {
            return Ok(table);
        }
        let table = if level == self.format.levels {
            self.take()?
        } else {
            let above = self.table(address, level + 1)?;
            let table = self.take()?;
            let entry = (self.format.table)(self.region.address(table), level);
            self.region
                .write(above + 8 * index(address, level + 1), entry);
            table
        };
        self.open[level] = Some((prefix, table));
        Ok(table)
    }

    fn page(
        &mut self,
        guest: u64,
        machine: u64,
        level: usize,
        access: Access,
    ) -> Result<(), Error> {
        let table = self.table(guest, level)?;
        let entry = (self.format.page)(machine, level, access);
        self.region.write(table + 8 * index(guest, level), entry);
        Ok(())
    }
}

impl<T: Tables> Builder<'_, T> {
    /// Maps a guest's RAM.
    fn ram(
        &mut self,
        range: Range<u64>,
        function: usize,
        frames: &mut dyn Frames,
    ) -> Result<(), Error> {
        for (position, guest) in range.step_by(FRAME as usize).enumerate() {
            let machine = frames
                .machine(function, position as u64)
                .ok_or(Error::Failed)?;
            if !machine.is_multiple_of(FRAME) || machine >> 52 != 0 {
                return Err(Error::Refused);
            }
            if self.format.large {
                self.page(guest, machine, 2, Access::FULL)?;
                continue;
            }
            for offset in (0..FRAME).step_by(PAGE) {
                self.page(guest + offset, machine + offset, 1, Access::FULL)?;
            }
        }
        Ok(())
    }

    /// Maps the firmware's memory.
    fn fixed(&mut self, range: Range<u64>, access: Access) -> Result<(), Error> {
        let mut address = range.start;
        while address < range.end {
            let whole = address.is_multiple_of(FRAME) && range.end - address >= FRAME;
            let (level, size) = match whole && self.format.large {
                true => (2, FRAME),
                false => (1, PAGE as u64),
            };
            self.page(address, address, level, access)?;
            address += size;
        }
        Ok(())
    }
}

/// What page tables are for.
pub(crate) struct Contents<'a> {
    /// The function's position.
    pub function: usize,
    /// Its guest's RAM; none for a function that nobody has.
    pub ram: Option<Ram>,
    /// The firmware's memory, in the order of its addresses, no piece over another.
    pub fixed: &'a [Fixed],
}

/// Builds the tables of a function in `place`, whose first table is the root.
pub(crate) fn build<T: Tables>(
    region: &mut Region<T>,
    format: Format,
    place: Range<usize>,
    contents: &Contents<'_>,
    frames: &mut dyn Frames,
) -> Result<(), Error> {
    let end = format.end.min(1 << (shift(format.levels) + INDEX_BITS));
    let mut ram = match contents.ram {
        Some(ram) => Some(ram.range(end).ok_or(Error::Refused)?),
        None => None,
    };
    let mut builder = Builder {
        region,
        format,
        free: place,
        open: [None; MAX_LEVELS + 1],
    };
    // All ranges in ascending order: the RAM comes before the first piece that ends behind
    // its start.
    let mut before = 0;
    for piece in contents.fixed {
        let range = piece.range(end).ok_or(Error::Refused)?;
        if let Some(ram) = ram.take_if(|ram| ram.start < range.end) {
            before = ram.end;
            builder.ram(ram, contents.function, frames)?;
        }
        if range.start < before {
            return Err(Error::Refused);
        }
        before = range.end;
        builder.fixed(range, piece.access)?;
    }
    match ram {
        Some(ram) => builder.ram(ram, contents.function, frames),
        None => Ok(()),
    }
}

/// Returns the part of the memory from `start` on that belongs to a set of
/// page tables: an equal share, so that nothing has to be remembered about it.
pub(crate) fn share(start: usize, size: usize, sets: usize, set: usize) -> Range<usize> {
    let share = size.saturating_sub(start) / sets.max(1) / PAGE * PAGE;
    let first = start + set * share;
    first..first + share
}
