//! A framebuffer, as UEFI and GRUB set it up: its description, and letters on it.

use embedded_graphics::image::GetPixel as _;
use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::ascii::FONT_8X13;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::{OriginDimensions as _, Point};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{COLUMNS, ROWS};

/// The variable of init that `crates/boot` fills with a [`Framebuffer`].
pub const SYMBOL: &str = "VECTIS_SCREEN";

const FONT: &MonoFont<'_> = &FONT_8X13;
const GLYPH: (u32, u32) = (FONT.character_size.width, FONT.character_size.height);
/// Light grey, of 8 bits.
const GREY: u32 = 0xaa;
/// Longest row in bytes, and the most rows: what is larger is no screen.
const LONGEST: u32 = 1 << 17;
const HIGHEST: u32 = 1 << 14;
/// The largest scale: that of a screen of 8K.
const LARGEST: u32 = 8;

/// The bits of a colour in a point.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Field {
    /// Number of the lowest.
    pub first: u8,
    /// How many there are.
    pub bits: u8,
}

/// What a boot loader says of a framebuffer; nothing is checked.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Framebuffer {
    /// Machine address of the point at the upper left.
    pub address: u64,
    /// Bytes from a row to the next.
    pub pitch: u32,
    /// Points of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits of a point; 0 where there is no framebuffer.
    pub bits: u32,
    /// Red, green and blue.
    pub colours: [Field; 3],
    /// Nothing.
    pub unused: [u8; 2],
}

impl Framebuffer {
    /// Returns what a program has to which nobody told of a framebuffer.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            address: 0,
            pitch: 0,
            width: 0,
            height: 0,
            bits: 0,
            colours: [Field { first: 0, bits: 0 }; 3],
            unused: [0; 2],
        }
    }

    /// Returns where letters go: `None` if it cannot be drawn on, or is too small for
    /// 80 columns and 25 rows.
    #[must_use]
    pub fn canvas(&self) -> Option<Canvas> {
        let bytes = match self.bits {
            // The highest bit of 16 may be nothing.
            15 | 16 => 2,
            24 => 3,
            32 => 4,
            _ => return None,
        };
        if self.pitch > LONGEST || self.height > HIGHEST {
            return None;
        }
        if self.width.checked_mul(bytes)? > self.pitch {
            return None;
        }
        // A point is written at once, where its address is a multiple of its size.
        let aligned = self.address.is_multiple_of(4) && self.pitch.is_multiple_of(bytes);
        if bytes != 3 && !aligned {
            return None;
        }
        let scale = (self.width / (COLUMNS as u32 * GLYPH.0))
            .min(self.height / (ROWS as u32 * GLYPH.1))
            .min(LARGEST);
        if scale == 0 {
            return None;
        }
        let mut ink = 0;
        for Field { first, bits } in self.colours {
            if u32::from(first) + u32::from(bits) > self.bits {
                return None;
            }
            ink |= match bits {
                0 => 0,
                1..8 => (GREY >> (8 - bits)) << first,
                _ => GREY << (first + (bits - 8)),
            };
        }
        if ink == 0 {
            return None;
        }
        let canvas = Canvas {
            address: self.address,
            pitch: self.pitch,
            bytes,
            scale,
            ink,
        };
        self.address.checked_add(canvas.size())?;
        Some(canvas)
    }
}

/// A write of points: so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// A part of a point.
    Byte(u8),
    /// A point.
    Word(u16),
    /// A point.
    Dword(u32),
}

/// The part of a framebuffer in which letters stand, at its upper left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    address: u64,
    pitch: u32,
    /// Of a point.
    bytes: u32,
    /// Points of the screen for one of a letter, in both directions.
    scale: u32,
    ink: u32,
}

impl Canvas {
    /// Returns its machine address.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Returns how many bytes of memory it takes, from its address on.
    #[must_use]
    pub const fn size(&self) -> u64 {
        let rows = ROWS as u64 * (GLYPH.1 * self.scale) as u64;
        // The last row ends with the last letter.
        (rows - 1) * self.pitch as u64 + COLUMNS as u64 * self.cell_bytes()
    }

    /// Returns the bytes of a letter's row.
    const fn cell_bytes(&self) -> u64 {
        (GLYPH.0 * self.scale * self.bytes) as u64
    }

    /// Draws a letter. `put` takes an offset from the address, below [`Canvas::size`], and what
    /// is to be written there.
    pub fn draw(&self, cell: usize, letter: u8, mut put: impl FnMut(u64, Points)) {
        if cell >= COLUMNS * ROWS {
            return;
        }
        let (column, row) = ((cell % COLUMNS) as u64, (cell / COLUMNS) as u64);
        let left = column * self.cell_bytes();
        for y in 0..GLYPH.1 {
            let bits = bits(letter, y);
            for line in 0..self.scale {
                let line = (row * u64::from(GLYPH.1) + u64::from(y)) * u64::from(self.scale)
                    + u64::from(line);
                let mut at = line * u64::from(self.pitch) + left;
                for x in 0..GLYPH.0 {
                    let colour = if bits >> x & 1 == 1 { self.ink } else { 0 };
                    for _ in 0..self.scale {
                        self.point(at, colour, &mut put);
                        at += u64::from(self.bytes);
                    }
                }
            }
        }
    }

    fn point(&self, at: u64, colour: u32, put: &mut impl FnMut(u64, Points)) {
        match self.bytes {
            2 => put(at, Points::Word(colour as u16)),
            3 => {
                let [bytes @ .., _] = colour.to_le_bytes();
                for (at, byte) in (at..).zip(bytes) {
                    put(at, Points::Byte(byte));
                }
            }
            _ => put(at, Points::Dword(colour)),
        }
    }
}

/// Returns which points of a letter's row are set: bit 0 is the left one.
fn bits(letter: u8, row: u32) -> u32 {
    let glyphs = FONT.image.size().width / GLYPH.0;
    let index = FONT.glyph_mapping.index(letter.into()) as u32;
    let (left, top) = (index % glyphs * GLYPH.0, index / glyphs * GLYPH.1);
    (0..GLYPH.0).fold(0, |bits, x| {
        let at = Point::new((left + x) as i32, (top + row) as i32);
        let set = FONT.image.pixel(at) == Some(BinaryColor::On);
        bits | u32::from(set) << x
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const RED: Field = Field { first: 16, bits: 8 };
    const GREEN: Field = Field { first: 8, bits: 8 };
    const BLUE: Field = Field { first: 0, bits: 8 };

    /// As OVMF sets it.
    const USUAL: Framebuffer = Framebuffer {
        address: 0x8000_0000,
        pitch: 5120,
        width: 1280,
        height: 800,
        bits: 32,
        colours: [RED, GREEN, BLUE],
        unused: [0; 2],
    };

    /// The smallest, of points with so many bits.
    fn small(bits: u32, colours: [Field; 3]) -> Framebuffer {
        Framebuffer {
            pitch: 640 * bits.div_ceil(8) + 12,
            width: 640,
            height: 325,
            bits,
            colours,
            ..USUAL
        }
    }

    /// Returns what a letter at a cell writes.
    fn drawn(canvas: &Canvas, cell: usize, letter: u8) -> BTreeMap<u64, Points> {
        let mut points = BTreeMap::new();
        canvas.draw(cell, letter, |at, value| {
            assert!(points.insert(at, value).is_none(), "twice at {at}");
        });
        points
    }

    #[test]
    fn a_letter_is_the_font_s_in_each_form_of_points() {
        let fields =
            |red, green, blue| [red, green, blue].map(|(first, bits)| Field { first, bits });
        for (bits, colours, ink) in [
            (32, [RED, GREEN, BLUE], 0xaa_aaaa),
            (24, [RED, GREEN, BLUE], 0xaa_aaaa),
            (16, fields((11, 5), (5, 6), (0, 5)), 21 << 11 | 42 << 5 | 21),
            (15, fields((10, 5), (5, 5), (0, 5)), 21 << 10 | 21 << 5 | 21),
            (
                32,
                fields((20, 10), (10, 10), (0, 10)),
                0x2a8 << 20 | 0x2a8 << 10 | 0x2a8,
            ),
        ] {
            let frame = small(bits, colours);
            let canvas = frame.canvas().expect("a usual one");
            let points = drawn(&canvas, 80 + 2, b'T');
            let bytes = u64::from(bits.div_ceil(8));
            let row = |y: u64| -> Vec<u32> {
                let first = (13 + y) * u64::from(frame.pitch) + 2 * 8 * bytes;
                let points = (0..8).map(|x| match points[&(first + x * bytes)] {
                    Points::Word(value) => value.into(),
                    Points::Dword(value) => value,
                    Points::Byte(low) => {
                        let byte = |n| match points[&(first + x * bytes + n)] {
                            Points::Byte(byte) => u32::from(byte),
                            other => panic!("{other:?}"),
                        };
                        u32::from(low) | byte(1) << 8 | byte(2) << 16
                    }
                });
                points.collect()
            };
            let shape: Vec<Vec<u32>> = (0..13).map(row).collect();
            let on = |line: &[u32]| line.iter().filter(|&&point| point == ink).count();
            let off = |line: &[u32]| line.iter().filter(|&&point| point == 0).count();
            assert!(
                shape.iter().all(|line| on(line) + off(line) == 8),
                "{shape:x?}"
            );
            // The bar of a T, and its post.
            assert!(shape.iter().any(|line| on(line) == 7), "{shape:x?}");
            assert!(shape.iter().filter(|line| on(line) == 1).count() > 5);
            let blank = drawn(&canvas, 0, b' ');
            let none = [Points::Byte(0), Points::Word(0), Points::Dword(0)];
            assert!(blank.values().all(|point| none.contains(point)));
        }
    }

    #[test]
    fn nothing_is_drawn_outside_and_all_cells_lie_apart() {
        for frame in [USUAL, small(24, [RED, GREEN, BLUE])] {
            let canvas = frame.canvas().expect("a usual one");
            let mut last = 0;
            let mut all = std::collections::BTreeSet::new();
            for cell in 0..COLUMNS * ROWS {
                for (at, points) in drawn(&canvas, cell, b'#') {
                    let bytes = match points {
                        Points::Byte(_) => 1,
                        Points::Word(_) => 2,
                        Points::Dword(_) => 4,
                    };
                    assert!(all.insert(at), "{at} is in two cells");
                    last = last.max(at + bytes);
                }
            }
            assert_eq!(last, canvas.size());
            assert!(canvas.size() <= u64::from(frame.pitch) * u64::from(frame.height));
            for cell in [COLUMNS * ROWS, usize::MAX] {
                assert!(drawn(&canvas, cell, b'#').is_empty());
            }
        }
    }

    #[test]
    fn a_large_screen_has_large_letters() {
        let small = small(32, [RED, GREEN, BLUE]).canvas().expect("one");
        let usual = USUAL.canvas().expect("one");
        assert_eq!(
            drawn(&usual, 0, b'x').len(),
            4 * drawn(&small, 0, b'x').len()
        );
        let huge = Framebuffer {
            pitch: LONGEST,
            width: LONGEST / 4,
            height: HIGHEST,
            ..USUAL
        };
        let huge = huge.canvas().expect("one");
        assert_eq!(
            drawn(&huge, 0, b'x').len(),
            64 * drawn(&small, 0, b'x').len()
        );
    }

    #[test]
    fn what_cannot_be_is_no_canvas() {
        assert!(USUAL.canvas().is_some());
        let wide = Field { first: 25, bits: 8 };
        let ones = Field {
            first: 255,
            bits: 255,
        };
        for (what, frame) in [
            ("nothing", Framebuffer::none()),
            ("all ones", {
                let [a, b] = [u64::MAX, u64::MAX].map(u64::to_ne_bytes);
                let bytes = [a, b, a, b].concat();
                Framebuffer::read_from_bytes(&bytes).expect("its size")
            }),
            ("a palette", Framebuffer { bits: 8, ..USUAL }),
            ("48 bits", Framebuffer { bits: 48, ..USUAL }),
            (
                "rows that overlap",
                Framebuffer {
                    pitch: 5116,
                    ..USUAL
                },
            ),
            (
                "a width that wraps",
                Framebuffer {
                    width: 0x4000_0001,
                    ..USUAL
                },
            ),
            (
                "rows too long",
                Framebuffer {
                    pitch: LONGEST + 4,
                    ..USUAL
                },
            ),
            (
                "too many rows",
                Framebuffer {
                    height: HIGHEST + 1,
                    ..USUAL
                },
            ),
            (
                "too narrow",
                Framebuffer {
                    width: 639,
                    ..USUAL
                },
            ),
            (
                "too low",
                Framebuffer {
                    height: 324,
                    ..USUAL
                },
            ),
            (
                "points between dwords",
                Framebuffer {
                    address: 0x8000_0002,
                    ..USUAL
                },
            ),
            (
                "rows between dwords",
                Framebuffer {
                    pitch: 5122,
                    ..USUAL
                },
            ),
            (
                "past the end",
                Framebuffer {
                    address: u64::MAX - 3,
                    ..USUAL
                },
            ),
            (
                "a colour past its point",
                Framebuffer {
                    colours: [wide, GREEN, BLUE],
                    ..USUAL
                },
            ),
            (
                "colours of ones",
                Framebuffer {
                    colours: [ones; 3],
                    ..USUAL
                },
            ),
            (
                "no colour",
                Framebuffer {
                    colours: [Field::default(); 3],
                    ..USUAL
                },
            ),
        ] {
            assert_eq!(frame.canvas(), None, "{what}");
        }
    }

    #[test]
    fn every_byte_is_a_letter() {
        let canvas = USUAL.canvas().expect("one");
        let unknown = drawn(&canvas, 0, b'?');
        for letter in [0, 7, 0x7f, 0x80, 0xff] {
            assert_eq!(drawn(&canvas, 0, letter), unknown);
        }
        let shapes: Vec<_> = (b'!'..=b'~')
            .map(|letter| drawn(&canvas, 0, letter))
            .collect();
        for (number, shape) in shapes.iter().enumerate() {
            let others = shapes.iter().filter(|other| *other == shape).count();
            assert_eq!(others, 1, "letter {number}");
        }
    }
}
