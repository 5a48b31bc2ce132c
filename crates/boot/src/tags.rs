//! The loader's information (Multiboot2 specification 2.0, section 3.6).

use screen::{Field, Framebuffer, vga};

use crate::Region;
use crate::memory::{Map, Trouble};

/// What a Multiboot 2 loader leaves in EAX.
pub const MAGIC: u32 = 0x36d7_6289;

const END: u32 = 0;
const MEMORY: u32 = 6;
const FRAMEBUFFER: u32 = 8;
const OLD_ROOT: u32 = 14;
const NEW_ROOT: u32 = 15;
/// A framebuffer's types: points whose bits are colours, and text of an EGA.
const POINTS: u8 = 1;
const TEXT: u8 = 2;
/// Memory's type: RAM that may be used.
const USABLE: u32 = 1;

/// What the machine shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Text of a VGA: 80 columns and 25 rows or more at [`vga::TEXT_MEMORY`].
    Text,
    /// Points, on which text can be drawn.
    Points(Framebuffer),
}

/// The loader's information, without its head of 8 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Information<'a>(&'a [u8]);

fn dword(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn qword(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

impl<'a> Information<'a> {
    /// Takes the bytes behind the head.
    #[must_use]
    pub const fn new(tags: &'a [u8]) -> Self {
        Self(tags)
    }

    /// Iterates over the tags: type, and the bytes behind its head of 8. A length that
    /// cannot be ends the list.
    fn tags(self) -> impl Iterator<Item = (u32, &'a [u8])> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (kind, size) = (dword(rest, 0)?, dword(rest, 4)? as usize);
            let body = rest.get(8..size)?;
            // Tags begin at multiples of 8.
            rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
            (kind != END).then_some((kind, body))
        })
    }

    fn tag(self, kind: u32) -> Option<&'a [u8]> {
        self.tags().find(|tag| tag.0 == kind).map(|tag| tag.1)
    }

    /// Returns ACPI's root pointer: the newer one if there are two.
    #[must_use]
    pub fn root_pointer(self) -> Option<&'a [u8]> {
        self.tag(NEW_ROOT).or_else(|| self.tag(OLD_ROOT))
    }

    /// Returns the screen, if text can be shown on it and it is not in memory.
    #[must_use]
    pub fn screen(self) -> Option<Screen> {
        let tag = self.tag(FRAMEBUFFER)?;
        let (address, width, height) = (qword(tag, 0)?, dword(tag, 12)?, dword(tag, 16)?);
        let (bits, kind) = (u32::from(*tag.get(20)?), *tag.get(21)?);
        if kind == TEXT {
            let usual = address == vga::TEXT_MEMORY && width as usize == screen::COLUMNS;
            return (usual && height as usize >= screen::ROWS).then_some(Screen::Text);
        }
        if kind != POINTS {
            return None;
        }
        let colours: &[u8; 6] = tag.get(24..)?.first_chunk()?;
        let field = |at: usize| Field {
            first: colours[at],
            bits: colours[at + 1],
        };
        let points = Framebuffer {
            address,
            pitch: dword(tag, 8)?,
            width,
            height,
            bits,
            colours: [field(0), field(2), field(4)],
            unused: [0; 2],
        };
        let canvas = points.canvas()?;
        let region = Region {
            start: address,
            end: address + canvas.size(),
        };
        let in_memory = self
            .pieces()
            .is_some_and(|mut pieces| pieces.any(|(usable, piece)| usable && piece.meets(region)));
        (!in_memory).then_some(Screen::Points(points))
    }

    /// Returns the machine's memory.
    ///
    /// # Errors
    /// If there is no list of it, or it has too many pieces.
    pub fn memory(self) -> Result<Map, Trouble> {
        Map::new(self.pieces().ok_or(Trouble::Unknown)?)
    }

    /// Iterates over the pieces of memory, and whether each may be used.
    fn pieces(self) -> Option<impl Iterator<Item = (bool, Region)> + Clone> {
        let tag = self.tag(MEMORY)?;
        let size = dword(tag, 0)? as usize;
        // A later version may make entries longer, never shorter.
        if size < 20 {
            return None;
        }
        let entries = tag.get(8..).unwrap_or_default().chunks_exact(size);
        Some(entries.filter_map(|entry| {
            let start = qword(entry, 0)?;
            let end = start.checked_add(qword(entry, 8)?)?;
            Some((dword(entry, 16)? == USABLE, Region { start, end }))
        }))
    }
}
