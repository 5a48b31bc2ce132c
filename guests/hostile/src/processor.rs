//! This CPU as a thing that runs any code: the only place here that can do harm to the guest itself.

use core::arch::{asm, global_asm};

use hostile::machine::{CODE, Ended, Registers, SCRATCH};

global_asm!(include_str!("trap.s"));

unsafe extern "C" {
    fn hostile_run(code: *const u8, registers: *mut Registers) -> u32;
    static hostile_stubs: [[u8; STUB_SIZE]; EXCEPTIONS];
    static interrupt_stubs: [[u8; KIT_STUB_SIZE]; 256];
}

/// Distance of the stubs in bytes: ours in `trap.s`, and the kit's.
const STUB_SIZE: usize = 32;
const KIT_STUB_SIZE: usize = 16;
/// Vectors that are exceptions.
const EXCEPTIONS: usize = 32;
/// Code selector of the Linux boot protocol.
const CODE_SELECTOR: u64 = 0x10;
/// ret
const RETURN: u8 = 0xc3;
/// Pieces of code that stay written: a page each, since a machine that
/// translates code does so again for a page that was written.
const PIECES: usize = 64;

/// Gates of 16 bytes (Intel SDM vol. 3, 6.14.1).
static mut TABLE: [[u64; 2]; 256] = [[0; 2]; 256];

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

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

/// Address of the scratch memory, which only code that is run looks at.
pub fn scratch() -> u64 {
    &raw const SCRATCH_MEMORY as u64
}

/// Loads an interrupt table with our stubs for exceptions and the kit's for
/// interrupts.
pub fn install() {
    let table = &raw mut TABLE;
    let ours = &raw const hostile_stubs as u64;
    let kits = &raw const interrupt_stubs as u64;
    // SAFETY: the CPU reads the table from the `lidt` below on; until then this
    // is the only reference to it.
    for (vector, gate) in unsafe { &mut *table }.iter_mut().enumerate() {
        let stub = if vector < EXCEPTIONS {
            ours + (vector * STUB_SIZE) as u64
        } else {
            kits + (vector * KIT_STUB_SIZE) as u64
        };
        // Interrupt gate (type 0xE, interrupts stay off), present, IST 0.
        *gate = [
            stub & 0xffff | CODE_SELECTOR << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48,
            stub >> 32,
        ];
    }
    let pointer = TablePointer {
        limit: 256 * 16 - 1,
        base: table as u64,
    };
    // SAFETY: the table lives forever and every gate leads to a stub.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
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
    // SAFETY: the code is the attack: it may do anything to the machine that is
    // around the guest. `trap.s` keeps what the compiler relies on, and the
    // library runs nothing that writes to the program's own memory but for the
    // scratch pages, and the unused end of RAM.
    let vector = unsafe { hostile_run(entry, registers) };
    match u8::try_from(vector) {
        Ok(vector) => Ended::Exception(vector),
        Err(_) => Ended::Returned,
    }
}
