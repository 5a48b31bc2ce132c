//! What the image needs from a program's ELF file.

use std::fmt;

use object::elf::{PF_R, PF_W, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, elf};

use crate::stack;

/// A loadable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Virtual address.
    pub address: u64,
    /// Bytes in memory.
    pub size: u64,
    /// Bytes from the file.
    pub bytes: Vec<u8>,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it holds instructions.
    pub executable: bool,
}

impl Segment {
    /// Returns `p_flags` of its program header.
    pub(crate) fn flags(&self) -> u32 {
        let mut flags = PF_R.0;
        if self.writable {
            flags |= PF_W.0;
        }
        if self.executable {
            flags |= PF_X.0;
        }
        flags
    }
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// First instruction.
    pub entry: u64,
    /// Its segments, in address order, on pages of their own.
    pub segments: Vec<Segment>,
    /// Bytes of stack that it takes at least: the deepest chain of its calls.
    pub stack: u64,
}

/// Why a file cannot be a component's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramError(String);

impl ProgramError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProgramError {}

impl Program {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// If it is not a static x86-64 executable whose segments are page-apart.
    pub fn parse(file: &[u8]) -> Result<Self, ProgramError> {
        let broken = |error: object::Error| ProgramError(format!("not a usable ELF file: {error}"));
        let header = elf::FileHeader64::<LittleEndian>::parse(file).map_err(broken)?;
        let endian = header.endian().map_err(broken)?;
        if header.e_machine(endian) != elf::EM_X86_64 || header.e_type(endian) != elf::ET_EXEC {
            return Err(ProgramError(
                "not a static x86-64 executable: build it with relocation-model=static".to_owned(),
            ));
        }
        let mut segments = Vec::new();
        for segment in header.program_headers(endian, file).map_err(broken)? {
            let size = segment.p_memsz(endian);
            if segment.p_type(endian) != PT_LOAD || size == 0 {
                continue;
            }
            let bytes = segment.data(endian, file).map_err(|()| {
                ProgramError("a segment reaches past the end of the file".to_owned())
            })?;
            segments.push(Segment {
                address: segment.p_vaddr(endian),
                size,
                bytes: bytes.to_vec(),
                writable: segment.p_flags(endian).0 & PF_W.0 != 0,
                executable: segment.p_flags(endian).0 & PF_X.0 != 0,
            });
        }
        segments.sort_by_key(|segment| segment.address);
        for pair in segments.windows(2) {
            if (pair[0].address + pair[0].size).div_ceil(4096) > pair[1].address / 4096 {
                return Err(ProgramError(format!(
                    "segments at {:#x} and {:#x} share a page: link with max-page-size=4096",
                    pair[0].address, pair[1].address
                )));
            }
        }
        let entry = header.e_entry(endian);
        let code = segments.iter().filter(|segment| segment.executable);
        let code: Vec<_> = code.map(|s| (s.address, s.bytes.as_slice())).collect();
        Ok(Self {
            entry,
            stack: stack::deepest(file, entry, &code).map_err(broken)?,
            segments,
        })
    }
}
