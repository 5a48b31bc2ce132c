//! This CPU as a thing that runs any code: the only place here that can do harm to the guest itself.

use core::arch::global_asm;

use kit::interrupts::{EXCEPTIONS, Interrupts};

use hostile::machine::{CODE, Ended, Registers, SCRATCH};

global_asm!(include_str!("trap.s"));

unsafe extern "C" {
    fn hostile_run(code: *const u8, registers: *mut Registers) -> u32;
    static hostile_stubs: [[u8; STUB_SIZE]; EXCEPTIONS];
}

/// Distance of the stubs in `trap.s`, in bytes.
const STUB_SIZE: usize = 32;
/// ret
const RETURN: u8 = 0xc3;
/// Pieces of code that stay written: a page each, since a machine that
/// translates code does so again for a page that was written.
const PIECES: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Piece {
    code: [u8; CODE],
    length: usize,
}

static mut CODES: [Piece; PIECES] = [Piece {
    code: [0; CODE],
    length: 0,
}; PIECES];

#[repr(C, align(4096))]
struct Scratch([u8; SCRATCH as usize]);

static mut SCRATCH_MEMORY: Scratch = Scratch([0; SCRATCH as usize]);

/// Returns the address of the scratch memory, which only code that is run looks
/// at.
pub fn scratch() -> u64 {
    &raw const SCRATCH_MEMORY as u64
}

/// Installs our stubs for the exceptions.
pub fn install(interrupts: &mut Interrupts) {
    let first = &raw const hostile_stubs as u64;
    let stubs = core::array::from_fn(|vector| first + (vector * STUB_SIZE) as u64);
    // SAFETY: `trap.s` has a stub for each, which ends what `run` runs.
    unsafe { interrupts.handle_exceptions(stubs) };
}

/// Runs code, of which at most [`CODE`] - 1 bytes count.
pub fn run(code: &[u8], registers: &mut Registers) -> Ended {
    let code = &code[..code.len().min(CODE - 1)];
    let sum = code.iter().fold(0usize, |sum, byte| {
        sum.wrapping_mul(31) + usize::from(*byte)
    });
    let pieces = &raw mut CODES;
    // SAFETY: one CPU, and no handler comes here: this is the only reference
    // while it lives, and nothing else is on these pages.
    let piece = unsafe { &mut (*pieces)[sum % PIECES] };
    if piece.length != code.len() || piece.code[..code.len()] != *code {
        piece.code[..code.len()].copy_from_slice(code);
        piece.code[code.len()] = RETURN;
        piece.length = code.len();
    }
    let entry = piece.code.as_ptr();
    // SAFETY: the code is the attack: it may do anything to the machine around the
    // guest. `trap.s` preserves the state that the compiler relies on, and the
    // library's code writes only to the scratch pages and the unused end of RAM.
    let vector = unsafe { hostile_run(entry, registers) };
    match u8::try_from(vector) {
        Ok(vector) => Ended::Exception(vector),
        Err(_) => Ended::Returned,
    }
}
