//! Rewrites instructions that do not trap in ring 3 but must.
//!
//! PUSHFQ shows the hardware's interrupt flag there, POPFQ leaves it as it is, and what
//! WRFSBASE and WRGSBASE set lasts until the next entry of the kernel. Each is replaced by
//! an encoding of the same length that raises #UD ([`spec::rewrite`]). It is done here and
//! not when the guest runs, where every page that becomes executable would have to be
//! looked at; code that a guest loads or makes later is not rewritten.
//!
//! A byte is only replaced if it is surely an instruction's: code is disassembled from
//! section to section and from symbol to symbol, and where that comes upon bytes that are
//! no instruction, what lies near them may be data as well.

use std::ops::Range;

use object::read::elf::{ElfFile, FileHeader};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _};
use object::{SectionFlags, SegmentFlags, elf};
use spec::rewrite::{
    BASE_PREFIX, POPF, PUSHF, REWRITTEN_BASE_PREFIX, REWRITTEN_POPF, REWRITTEN_PUSHF,
};
use yaxpeax_arch::LengthedInstruction as _;
use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode};

/// What became of an image's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Instructions that were replaced.
    pub replaced: usize,
    /// Those that were left: what looks like them may be data, or has prefixes that leave
    /// no room. If it is executed, the guest sees the hardware's flag or loses a base.
    pub left: usize,
}

/// Bytes beside one that is not an instruction, within which nothing is certain. x86 code
/// that is disassembled from a wrong start falls into step within a few instructions.
const DOUBT: usize = 32;

/// Rewrites the instructions of an ELF file. Of anything else nothing is changed.
pub fn rewrite(file: &mut [u8]) -> Rewritten {
    let pieces = pieces::<elf::FileHeader64<Endianness>>(file)
        .or_else(|| pieces::<elf::FileHeader32<Endianness>>(file));
    let mut result = Rewritten::default();
    for piece in pieces.unwrap_or_default() {
        let Some(code) = file.get_mut(piece.range) else {
            continue;
        };
        let (sites, left) = sites(code, &piece.starts, is_site);
        for at in &sites {
            code[*at] = match code[*at] {
                PUSHF => REWRITTEN_PUSHF,
                POPF => REWRITTEN_POPF,
                _ => REWRITTEN_BASE_PREFIX,
            };
        }
        result.replaced += sites.len();
        result.left += left;
    }
    result
}

/// Code in the file.
pub(crate) struct Piece {
    /// Where it lies in the file.
    pub range: Range<usize>,
    /// Where it is linked.
    pub address: u64,
    /// Offsets from its start at which instructions begin, in order.
    pub starts: Vec<usize>,
}

/// Returns the code of an ELF file with this header, or `None` if it is none, or is not
/// for this machine. (Multiboot loaders want 64-bit code in a 32-bit file.)
pub(crate) fn pieces<H: FileHeader<Endian = Endianness>>(file: &[u8]) -> Option<Vec<Piece>> {
    let file = ElfFile::<H>::parse(file).ok()?;
    let machine = file.elf_header().e_machine(file.endian());
    if ![elf::EM_X86_64, elf::EM_386].contains(&machine) {
        return None;
    }
    let sections = file.sections().filter_map(|section| {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            return None;
        };
        let code = elf::SHF_ALLOC | elf::SHF_EXECINSTR;
        let (start, size) = section.file_range()?;
        sh_flags
            .contains(code)
            .then_some((section.address(), start, size))
    });
    let mut code: Vec<_> = sections.collect();
    if code.is_empty() {
        let segments = file.segments().filter_map(|segment| {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
                return None;
            };
            let (start, size) = segment.file_range();
            p_flags
                .contains(elf::PF_X)
                .then_some((segment.address(), start, size))
        });
        code = segments.collect();
    }
    let symbols: Vec<u64> = file.symbols().map(|symbol| symbol.address()).collect();
    let piece = |(address, start, size): (u64, u64, u64)| {
        let inside = symbols
            .iter()
            .filter_map(|symbol| symbol.checked_sub(address));
        let mut starts: Vec<usize> = inside
            .filter(|offset| *offset < size)
            .map(|offset| offset as usize)
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        Some(Piece {
            range: start..end,
            address,
            starts,
        })
    };
    Some(code.into_iter().filter_map(piece).collect())
}

/// Returns whether this is an instruction to replace, and whether that can be done: if its
/// first byte alone is to change.
fn is_site(instruction: &Instruction, bytes: &[u8], _: &[u8]) -> Option<bool> {
    match instruction.opcode() {
        Opcode::PUSHF | Opcode::POPF => Some(bytes.len() == 1),
        Opcode::WRFSBASE | Opcode::WRGSBASE => Some(matches!(
            *bytes,
            [BASE_PREFIX, 0x0f, 0xae, _] | [BASE_PREFIX, 0x40..=0x4f, 0x0f, 0xae, _]
        )),
        _ => None,
    }
}

/// Returns the offsets of the instructions to replace, and how many are left. `is_site` is
/// told an instruction, its bytes, and those that follow, and says whether it is one of those
/// that are looked for, and can be replaced.
pub(crate) fn sites(
    code: &[u8],
    starts: &[usize],
    is_site: impl Fn(&Instruction, &[u8], &[u8]) -> Option<bool>,
) -> (Vec<usize>, usize) {
    let decoder = InstDecoder::default();
    let mut found = Vec::new();
    let mut left = 0;
    let mut doubts = Vec::new();
    let mut starts_left = starts.iter().copied().peekable();
    let mut at = 0;
    while at < code.len() {
        while starts_left.next_if(|start| *start <= at).is_some() {}
        let end = starts_left.peek().copied().unwrap_or(code.len());
        // An instruction that reaches over a start is none.
        let Ok(instruction) = decoder.decode_slice(&code[at..end]) else {
            doubts.push(at);
            at += 1;
            continue;
        };
        let length = instruction.len().to_const() as usize;
        match is_site(
            &instruction,
            &code[at..at + length],
            &code[at + length..end],
        ) {
            Some(true) => found.push(at),
            Some(false) => left += 1,
            None => {}
        }
        at += length;
    }
    // Whether instructions are known to begin between two places.
    let known = |from: usize, to: usize| {
        let next = starts.partition_point(|start| *start <= from);
        starts.get(next).is_some_and(|start| *start <= to)
    };
    let is_sure = |site: &usize| {
        let next = doubts.partition_point(|doubt| doubt < site);
        let before = next.checked_sub(1).map(|index| doubts[index]);
        let after = doubts.get(next).copied();
        before.is_none_or(|doubt| site - doubt > DOUBT || known(doubt, *site))
            && after.is_none_or(|doubt| doubt - site > DOUBT || known(*site, doubt))
    };
    let all = found.len();
    found.retain(is_sure);
    left += all - found.len();
    (found, left)
}

#[cfg(test)]
mod tests;
