//! The machine's memory, in the few pieces that the kernel has room for.

use core::fmt;

use heapless::Vec;

/// Pieces of memory that seL4 takes: with more it does not boot (5.0.0
/// include/kernel/boot.h, `MAX_NUM_FREEMEM_REG`; the same in 16.0.0).
pub const REGIONS: usize = 16;
/// Pieces that firmware may tell of: UEFI's have a hundred, most of which touch.
const PIECES: usize = 512;
/// What lies below is the PC's own.
const HIGH: u64 = 0x10_0000;
/// Where RAM for everybody ends below that (the screen's memory follows).
const LOW_END: u64 = 0xa_0000;
const PAGE: u64 = 4096;

/// Memory from `start` up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
}

impl Region {
    const fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    const fn holds(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Returns whether both have a byte.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Returns the whole pages in it.
    const fn pages(self) -> Self {
        Self {
            start: self.start.saturating_add(PAGE - 1) & !(PAGE - 1),
            end: self.end & !(PAGE - 1),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end.saturating_sub(1))
    }
}

/// Why the kernel cannot be started in this memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The loader does not tell of memory.
    Unknown,
    /// It tells of too many pieces.
    TooMany,
    /// This has to be RAM for the kernel, and is not.
    Taken(Region),
    /// The kernel finds no room of so many bytes for init from this address on.
    NoRoom(u64, u64),
    /// There is no page below 640 KiB for ACPI's root pointer.
    NoLowPage,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the boot loader does not say which memory there is"),
            Self::TooMany => write!(
                f,
                "the boot loader tells of more than {PIECES} pieces of memory"
            ),
            Self::Taken(region) => write!(
                f,
                "the kernel needs the memory at {region}, and the firmware keeps some of it: \
                 where that is for sleep (ACPI S3), switch sleep off in the firmware's setup; in \
                 QEMU with `-global ICH9-LPC.disable_s3=1`"
            ),
            Self::NoRoom(bytes, from) => write!(
                f,
                "there are no {bytes} bytes of memory in one piece from {from:#x} on: give the \
                 machine more memory, or the system smaller guest images"
            ),
            Self::NoLowPage => f.write_str("the firmware leaves no page of memory below 640 KiB"),
        }
    }
}

/// Usable memory, in order, in pieces that do not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    pieces: Vec<Region, PIECES>,
}

impl Map {
    /// Puts together what firmware says: pieces that may be used, and others, which win
    /// where both are said of one place.
    ///
    /// # Errors
    /// If there are too many pieces.
    pub(crate) fn new(
        entries: impl Iterator<Item = (bool, Region)> + Clone,
    ) -> Result<Self, Trouble> {
        let mut pieces: Vec<Region, PIECES> = Vec::new();
        let push = |pieces: &mut Vec<Region, PIECES>, region: Region| {
            if region.start < region.end {
                pieces.push(region).map_err(|_| Trouble::TooMany)
            } else {
                Ok(())
            }
        };
        for (_, region) in entries.clone().filter(|entry| entry.0) {
            push(&mut pieces, region)?;
        }
        pieces.sort_unstable();
        let mut joined: Vec<Region, PIECES> = Vec::new();
        for region in pieces {
            match joined.last_mut() {
                Some(last) if region.start <= last.end => last.end = last.end.max(region.end),
                _ => push(&mut joined, region)?,
            }
        }
        for (_, taken) in entries.filter(|entry| !entry.0) {
            let mut rest = Vec::new();
            for region in joined {
                if !region.meets(taken) {
                    push(&mut rest, region)?;
                    continue;
                }
                let (before, behind) = (region.end.min(taken.start), region.start.max(taken.end));
                push(
                    &mut rest,
                    Region {
                        end: before,
                        ..region
                    },
                )?;
                push(
                    &mut rest,
                    Region {
                        start: behind,
                        ..region
                    },
                )?;
            }
            joined = rest;
        }
        Ok(Self { pieces: joined })
    }

    /// Returns whether all of this is usable.
    #[must_use]
    pub fn holds(&self, region: Region) -> bool {
        self.pieces.iter().any(|piece| piece.holds(region))
    }

    /// Returns the last whole page below 640 KiB, but never the first, which has the
    /// firmware's variables.
    ///
    /// # Errors
    /// If there is none.
    pub fn low_page(&self) -> Result<u64, Trouble> {
        let low = self.pieces.iter().map(|piece| {
            let end = piece.end.min(LOW_END);
            Region { end, ..*piece }.pages()
        });
        let mut low = low.filter(|piece| piece.end > piece.start.max(PAGE));
        let last = low.next_back();
        last.map(|piece| piece.end - PAGE).ok_or(Trouble::NoLowPage)
    }

    /// Returns the memory from 1 MiB on, in whole pages and in order: the largest pieces,
    /// as many as the kernel takes.
    #[must_use]
    pub fn for_kernel(&self) -> Vec<Region, REGIONS> {
        let mut largest: Vec<Region, REGIONS> = Vec::new();
        for piece in &self.pieces {
            let start = piece.start.max(HIGH);
            let piece = Region { start, ..*piece }.pages();
            if piece.start >= piece.end {
                continue;
            }
            if largest.is_full() {
                let smallest = (0..largest.len()).min_by_key(|at| largest[*at].size());
                match smallest {
                    Some(at) if largest[at].size() < piece.size() => {
                        largest.remove(at);
                    }
                    _ => continue,
                }
            }
            // There is room.
            let _ = largest.push(piece);
        }
        largest
    }
}

/// Checks that the kernel's own memory, init's file and what is made of it fit: the kernel
/// itself looks at none of that. `module` is init's file, of which `memory` bytes are made
/// behind it, and copied from there to the first room behind the kernel.
///
/// # Errors
/// Says what does not fit.
pub fn check(
    regions: &[Region],
    kernel: Region,
    module: Region,
    memory: u64,
) -> Result<(), Trouble> {
    let within = |region: Region| regions.iter().any(|piece| piece.holds(region));
    if !within(kernel) {
        return Err(Trouble::Taken(kernel));
    }
    let behind = module.end.saturating_add(PAGE - 1) & !(PAGE - 1);
    let loaded = Region {
        start: module.start,
        // The kernel wants a byte more.
        end: behind.saturating_add(memory).saturating_add(1),
    };
    if !within(loaded) {
        return Err(Trouble::Taken(loaded));
    }
    let room = regions.iter().any(|piece| {
        let start = piece.start.max(kernel.end);
        piece.end.saturating_sub(start) >= memory && start.saturating_add(memory) <= module.start
    });
    if room {
        Ok(())
    } else {
        Err(Trouble::NoRoom(memory, kernel.end))
    }
}
