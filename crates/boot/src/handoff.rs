//! What the build tool tells this program: where the kernel and init are in its file.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The variable of the program that the tool fills.
pub const SYMBOL: &str = "VECTIS_BOOT";
/// Segments that a kernel may have: there are three.
pub const SEGMENTS: usize = 8;
/// Bytes of the kernel's command line, with a zero at its end.
pub const COMMAND_LINE: usize = 128;
/// Bytes of the kernel's name, with zeros behind it.
pub const LABEL: usize = 128;

/// A piece of the kernel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Segment {
    /// Where the loader has put its bytes.
    pub from: u64,
    /// How many there are.
    pub bytes: u64,
    /// Where the kernel wants them.
    pub to: u64,
    /// Bytes that it takes there, zeros behind those of the file.
    pub size: u64,
}

/// The form of the information that the kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Multiboot 1: seL4 5.0.0. ACPI's root pointer is where the kernel looks for it.
    One,
    /// Multiboot 2, with the root pointer in it: seL4 13.0.0 and newer.
    Two,
}

/// What the tool writes into [`SYMBOL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Handoff {
    /// The first of the serial port's registers; 0 for none. It comes first: the entry code
    /// reads it too.
    pub com1: u64,
    /// The kernel's entry, in 32-bit mode; 0 while nothing is attached.
    pub entry: u64,
    /// The kernel's segments; those without a size are not there.
    pub segments: [Segment; SEGMENTS],
    /// Where init's file is.
    pub module: u64,
    /// Bytes of it.
    pub module_bytes: u64,
    /// Bytes of memory that init takes when it is loaded.
    pub module_memory: u64,
    /// Where init's variable [`screen::SYMBOL`] is in its file, which tells it of the screen.
    pub screen: u64,
    /// 1 or 2: which information the kernel reads.
    pub protocol: u64,
    /// Bits of what the CPU must have, by their positions in [`crate::cpu::FEATURES`].
    pub features: u64,
    /// The kernel's command line.
    pub command_line: [u8; COMMAND_LINE],
    /// The kernel's name.
    pub label: [u8; LABEL],
}

impl Handoff {
    /// Returns what a program has to which nothing is attached.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            com1: 0,
            entry: 0,
            segments: [Segment {
                from: 0,
                bytes: 0,
                to: 0,
                size: 0,
            }; SEGMENTS],
            module: 0,
            module_bytes: 0,
            module_memory: 0,
            screen: 0,
            protocol: 0,
            features: 0,
            command_line: [0; COMMAND_LINE],
            label: [0; LABEL],
        }
    }

    /// Returns which information the kernel reads.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self.protocol {
            2 => Protocol::Two,
            _ => Protocol::One,
        }
    }

    /// Returns the segments that are there.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.size > 0)
    }

    /// Returns where the kernel begins and ends.
    #[must_use]
    pub fn kernel(&self) -> (u64, u64) {
        let ends = self.segments().map(|s| s.to.saturating_add(s.size));
        let starts = self.segments().map(|s| s.to);
        (starts.min().unwrap_or(0), ends.max().unwrap_or(0))
    }
}

/// Returns the text before the first zero.
#[must_use]
pub fn text(bytes: &[u8]) -> &str {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    core::str::from_utf8(text).unwrap_or("?")
}
