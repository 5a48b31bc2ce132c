//! Leads a Solo5 image's hypercalls to its shim directly, without a trap.
//!
//! A hypercall is `mov edx, PORT; out dx, eax` (Solo5's hvt_abi.h, as every compiler makes
//! it). The first of the two, of 5 bytes, becomes a jump to a stub behind the shim's block,
//! one for each place, which does as the vmm does for an output: the stack pointer is lowered
//! over the red zone, the address behind the output is put there, and the shim's code for
//! calls goes on. The output itself stays, so that code that jumps to it still calls, by a
//! trap. What is no such pair for sure is left, and traps.

use std::ops::Range;

use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSymbol as _, elf};
use spec::shim::{CALL_PORTS, RED_ZONE, STUBS_OFFSET, STUBS_SIZE};
use system::Segment;

use crate::Error;
use crate::rewrite::{pieces, sites};

/// The shim's code for calls (guests/solo5/src/image.s).
const HANDLER: &str = "image_call";
/// `mov edx, imm32`, `jmp rel32`, `out dx, eax`.
const MOV_EDX: u8 = 0xba;
const JMP: u8 = 0xe9;
const OUT: u8 = 0xef;
/// Bytes of the first two.
const LENGTH: usize = 5;
/// Bytes of a stub.
const STUB: usize = 26;

/// Returns the port if `mov`, and what follows it, is a call.
fn port(mov: &[u8], next: &[u8]) -> Option<u32> {
    let [MOV_EDX, port @ ..] = mov else {
        return None;
    };
    let port = u32::from_le_bytes(port.try_into().ok()?);
    let is_call = u16::try_from(port).is_ok_and(|port| CALL_PORTS.contains(&port));
    (is_call && next.first() == Some(&OUT)).then_some(port)
}

/// Returns a relative jump at `from`, whose instruction is of [`LENGTH`] bytes, if `to` is
/// near enough.
fn jump(from: u64, to: u64) -> Option<[u8; LENGTH]> {
    let next = from.checked_add(LENGTH as u64)?;
    let distance = i32::try_from(i128::from(to) - i128::from(next)).ok()?;
    let [a, b, c, d] = distance.to_le_bytes();
    Some([JMP, a, b, c, d])
}

/// Returns the stub at `at` for a call by `port` that returns to `back`, below 2 GiB. No
/// instruction of it changes flags.
fn stub(at: u64, port: u32, back: u64, handler: u64) -> Option<[u8; STUB]> {
    let lower = i32::try_from(RED_ZONE).ok()? + 8;
    let back = i32::try_from(back).ok()?;
    let mut code = Vec::with_capacity(STUB);
    code.push(MOV_EDX);
    code.extend(port.to_le_bytes());
    // lea rsp, [rsp - lower]
    code.extend([0x48, 0x8d, 0xa4, 0x24]);
    code.extend((-lower).to_le_bytes());
    // mov qword ptr [rsp], back
    code.extend([0x48, 0xc7, 0x04, 0x24]);
    code.extend(back.to_le_bytes());
    let here = at + code.len() as u64;
    code.extend(jump(here, handler)?);
    code.try_into().ok()
}

/// Makes the calls of an image in `file` direct. `shim` is the shim's file, built for the
/// memory `own`. Returns the stubs, as a part of the guest's image; `None` without such a call.
///
/// # Errors
/// If the shim has no code for calls: it is another program.
pub fn direct(file: &mut [u8], shim: &[u8], own: &Range<u64>) -> Result<Option<Segment>, Error> {
    let handler = || {
        symbol(shim, HANDLER).ok_or_else(|| {
            Error::new(
                format!("its shim has no symbol `{HANDLER}`"),
                "build the shim from guests/solo5, with its symbols",
            )
        })
    };
    let base = own.start + STUBS_OFFSET;
    let mut stubs = Vec::new();
    let found = if loads_where_it_is_linked(file) {
        pieces::<elf::FileHeader64<Endianness>>(file).unwrap_or_default()
    } else {
        Vec::new()
    };
    for piece in found {
        let Some(code) = file.get_mut(piece.range) else {
            continue;
        };
        let (sites, _) = sites(code, &piece.starts, |_, mov, next| {
            port(mov, next).map(|_| true)
        });
        if sites.is_empty() {
            continue;
        }
        let handler = handler()?;
        for site in sites {
            let from = piece.address + site as u64;
            let at = base + stubs.len() as u64;
            // Behind the output.
            let back = from + LENGTH as u64 + 1;
            let mov = &mut code[site..site + LENGTH];
            let Some(port) = port(mov, &[OUT]) else {
                continue;
            };
            if stubs.len() + STUB > STUBS_SIZE {
                break;
            }
            if let (Some(stub), Some(jump)) = (stub(at, port, back, handler), jump(from, at)) {
                stubs.extend(stub);
                mov.copy_from_slice(&jump);
            }
        }
    }
    Ok((!stubs.is_empty()).then_some(Segment {
        address: base,
        size: stubs.len() as u64,
        bytes: stubs,
        writable: false,
        executable: true,
    }))
}

/// Returns whether every segment of an image lies where it is linked: the addresses of its
/// sections are those in memory.
fn loads_where_it_is_linked(file: &[u8]) -> bool {
    use object::read::elf::ProgramHeader as _;
    let Ok(file) = ElfFile64::<Endianness>::parse(file) else {
        return false;
    };
    let endian = file.endian();
    file.segments().next().is_some()
        && file
            .elf_program_headers()
            .iter()
            .filter(|header| header.p_type(endian) == elf::PT_LOAD)
            .all(|header| header.p_vaddr(endian) == header.p_paddr(endian))
}

/// Returns the address of a symbol.
fn symbol(file: &[u8], name: &str) -> Option<u64> {
    let file = ElfFile64::<Endianness>::parse(file).ok()?;
    let mut symbols = file.symbols();
    let symbol = symbols.find(|symbol| symbol.name() == Ok(name))?;
    Some(symbol.address())
}

#[cfg(test)]
mod tests;
