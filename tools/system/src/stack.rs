//! How much stack a program's calls take, from its instructions.
//!
//! A stack that is smaller than the deepest chain of calls from the entry is too
//! small. A larger one need not be large enough: calls by pointer cannot be
//! followed, and a function that is called again by those that it calls counts once.
//! The guard page below each stack is there for the rest.

use std::collections::BTreeMap;

use object::LittleEndian;
use object::elf::{FileHeader64, SHT_SYMTAB, STT_FUNC};
use object::read::elf::{FileHeader, Sym};
use yaxpeax_arch::LengthedInstruction as _;
use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode, Operand, RegSpec};

/// The stack is probed in steps of this size where a frame is larger.
const PAGE: i64 = 4096;

#[derive(Default)]
struct Function {
    /// Bytes of its own.
    frame: u64,
    calls: Vec<u64>,
    /// Targets of jumps. By a jump to another function its own frame is gone.
    jumps: Vec<u64>,
}

/// Returns the bytes of stack that the deepest chain of calls from `entry` takes.
/// `file` is the program's ELF file, whose symbols say where functions start; `code`
/// has the segments with instructions and their addresses.
pub fn deepest(file: &[u8], entry: u64, code: &[(u64, &[u8])]) -> object::Result<u64> {
    let header = FileHeader64::<LittleEndian>::parse(file)?;
    let endian = header.endian()?;
    let symbols = header
        .sections(endian, file)?
        .symbols(endian, file, SHT_SYMTAB)?;
    let functions = symbols.iter().filter(|symbol| symbol.st_type() == STT_FUNC);
    let mut starts: Vec<u64> = functions.map(|symbol| symbol.st_value(endian)).collect();
    starts.push(entry);
    starts.sort_unstable();
    let mut functions = BTreeMap::new();
    for (index, &start) in starts.iter().enumerate() {
        for (address, bytes) in code {
            let end = starts[index..].iter().find(|&&next| next > start);
            let end = end.unwrap_or(&u64::MAX).saturating_sub(*address);
            let end = bytes.len().min(end as usize);
            let first = start.wrapping_sub(*address) as usize;
            if let Some(code) = bytes.get(first..end) {
                functions.insert(start, function(code, start));
            }
        }
    }
    Ok(depth(&functions, entry, &mut BTreeMap::new()))
}

/// Returns the depth from one function on. `known` has the depths so far, with 0 for
/// the functions whose depth is being found.
fn depth(functions: &BTreeMap<u64, Function>, at: u64, known: &mut BTreeMap<u64, u64>) -> u64 {
    let Some(function) = functions.get(&at) else {
        return 0;
    };
    if let Some(depth) = known.get(&at) {
        return *depth;
    }
    known.insert(at, 0);
    let mut deepest = function.frame;
    for &call in &function.calls {
        // With the return address.
        deepest = deepest.max(function.frame + 8 + depth(functions, call, known));
    }
    for &jump in &function.jumps {
        deepest = deepest.max(depth(functions, jump, known));
    }
    known.insert(at, deepest);
    deepest
}

/// Reads a function's instructions, which start at `start`.
fn function(code: &[u8], start: u64) -> Function {
    let mut function = Function::default();
    let mut frame = 0;
    let probe = [RegSpec::r11(), RegSpec::rsp()].map(|reg| Operand::Register { reg });
    let mut probes = false;
    let mut at = 0;
    while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
        let Ok(instruction) = InstDecoder::default().decode_slice(rest) else {
            at += 1;
            continue;
        };
        at += instruction.len().to_const() as usize;
        let target = || {
            let relative = immediate(instruction.operand(0))?;
            Some(start.wrapping_add(at as u64).wrapping_add_signed(relative))
        };
        match instruction.opcode() {
            Opcode::PUSH => frame += 8,
            Opcode::POP => frame -= 8,
            Opcode::SUB => {
                frame += subtracted(&instruction, RegSpec::rsp());
                // Where the loop ends that probes a frame of several pages; the loop's
                // own instruction subtracts one of them.
                if probes {
                    frame += (subtracted(&instruction, RegSpec::r11()) - PAGE).max(0);
                }
            }
            Opcode::ADD => frame -= subtracted(&instruction, RegSpec::rsp()),
            Opcode::CALL => function.calls.extend(target()),
            Opcode::RETURN | Opcode::JMP => {
                function.jumps.extend(target());
                // Code after this is reached by a jump from where the frame was whole.
                frame = function.frame as i64;
            }
            _ => function.jumps.extend(target()),
        }
        probes = instruction.opcode() == Opcode::MOV
            && [0, 1].map(|index| instruction.operand(index)) == probe;
        function.frame = function.frame.max(frame.max(0) as u64);
    }
    function
}

/// Returns what an instruction subtracts from a register, or adds to it.
fn subtracted(instruction: &Instruction, from: RegSpec) -> i64 {
    let is_from = instruction.operand(0) == Operand::Register { reg: from };
    let value = immediate(instruction.operand(1)).filter(|_| is_from);
    value.unwrap_or(0)
}

fn immediate(operand: Operand) -> Option<i64> {
    match operand {
        Operand::ImmediateI8 { imm } => Some(imm.into()),
        Operand::ImmediateI32 { imm } => Some(imm.into()),
        Operand::ImmediateI64 { imm } => Some(imm),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the deepest chain from the first of functions of which each has
    /// its code.
    fn deepest(codes: &[(u64, &[u8])]) -> u64 {
        let functions = codes
            .iter()
            .map(|(start, code)| (*start, function(code, *start)));
        depth(&functions.collect(), codes[0].0, &mut BTreeMap::new())
    }

    /// push rbp; sub rsp, 0x20; call +0; add rsp, 0x20; pop rbp; ret
    const CALLS_NEXT: &[u8] = &[
        0x55, 0x48, 0x83, 0xec, 0x20, 0xe8, 6, 0, 0, 0, 0x48, 0x83, 0xc4, 0x20, 0x5d, 0xc3,
    ];

    #[test]
    fn a_chain_is_the_sum_of_its_frames_and_return_addresses() {
        assert_eq!(deepest(&[(0, CALLS_NEXT)]), 0x30);
        let three: [(u64, &[u8]); 3] = [(0, CALLS_NEXT), (16, CALLS_NEXT), (32, CALLS_NEXT)];
        assert_eq!(deepest(&three), 3 * 0x30);
    }

    #[test]
    fn a_function_that_calls_itself_counts_once() {
        // push rax; call -6
        assert_eq!(deepest(&[(0, &[0x50, 0xe8, 0xfa, 0xff, 0xff, 0xff])]), 16);
    }

    #[test]
    fn a_function_that_is_jumped_to_takes_the_place_of_the_first() {
        // push rbp; pop rbp; jmp +0
        let jumps: &[u8] = &[0x55, 0x5d, 0xe9, 0, 0, 0, 0];
        assert_eq!(deepest(&[(0, jumps), (7, CALLS_NEXT)]), 0x30);
    }

    /// Returns an ELF file with nothing but symbols: type and value of each.
    fn symbols(symbols: &[(u8, u64)]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [2u16, 62] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1u32.to_le_bytes());
        // Entry, program headers, section headers.
        for word in [0u64, 0, 64] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 0, 0, 64, 3, 2] {
            file.extend(half.to_le_bytes());
        }
        let size = 24 * (symbols.len() as u64 + 1);
        // None, the symbols, their names: kind, offset, size, link, entry size.
        for (kind, offset, size, link, entry) in [
            (0u32, 0u64, 0u64, 0u32, 0u64),
            (2, 256, size, 2, 24),
            (3, 256 + size, 1, 0, 0),
        ] {
            file.extend(0u32.to_le_bytes());
            file.extend(kind.to_le_bytes());
            for word in [0, 0, offset, size] {
                file.extend(word.to_le_bytes());
            }
            file.extend(link.to_le_bytes());
            file.extend(0u32.to_le_bytes());
            for word in [1, entry] {
                file.extend(word.to_le_bytes());
            }
        }
        file.extend([0; 24]);
        for (kind, value) in symbols {
            file.extend([0, 0, 0, 0, *kind, 0, 1, 0]);
            file.extend(value.to_le_bytes());
            file.extend([0; 8]);
        }
        file.push(0);
        file
    }

    #[test]
    fn functions_end_where_the_next_one_starts() {
        const FUNC: u8 = 2;
        const OBJECT: u8 = 1;
        // The second has two names, and something that is not a function lies in the
        // middle of the first.
        let file = symbols(&[
            (FUNC, 0x1010),
            (OBJECT, 0x1008),
            (FUNC, 0x1010),
            (FUNC, 0x1000),
        ]);
        let code = [CALLS_NEXT, CALLS_NEXT].concat();
        let deepest = |entry| super::deepest(&file, entry, &[(0x1000, &code)]).unwrap();
        assert_eq!(deepest(0x1000), 0x60);
        assert_eq!(deepest(0x1010), 0x30);
        // Entered where no function is known to start.
        assert_eq!(deepest(0x1001), 0x28 + 0x30);
        assert_eq!(deepest(0x5000), 0);
    }

    #[test]
    fn what_is_given_back_is_taken_once() {
        // push rax; pop rax; push rax
        assert_eq!(deepest(&[(0, &[0x50, 0x58, 0x50])]), 8);
        // sub rsp, 0x20; add rsp, 0x20; sub rsp, 0x20
        let again = [
            0x48, 0x83, 0xec, 0x20, 0x48, 0x83, 0xc4, 0x20, 0x48, 0x83, 0xec, 0x20,
        ];
        assert_eq!(deepest(&[(0, &again)]), 0x20);
        // An instruction that ends with the code, and bytes that are none (06) before
        // one.
        assert_eq!(deepest(&[(0, &[0x06, 0x06, 0x50])]), 8);
    }

    #[test]
    fn what_is_given_back_before_a_return_is_there_after_it() {
        // push rbp; pop rbp; ret; push rbx: two exits of one function.
        assert_eq!(deepest(&[(0, &[0x55, 0x5d, 0xc3, 0x53])]), 16);
    }

    #[test]
    fn a_frame_of_many_pages_is_probed_in_a_loop() {
        // mov r11, rsp; sub r11, 0x17000; sub rsp, 0x1000; mov qword [rsp], 0;
        // cmp rsp, r11; jne -0x14; sub rsp, 0x7e8
        let code = [
            0x49, 0x89, 0xe3, 0x49, 0x81, 0xeb, 0, 0x70, 1, 0, 0x48, 0x81, 0xec, 0, 0x10, 0, 0,
            0x48, 0xc7, 4, 0x24, 0, 0, 0, 0, 0x4c, 0x39, 0xdc, 0x75, 0xec, 0x48, 0x81, 0xec, 0xe8,
            7, 0, 0,
        ];
        assert_eq!(deepest(&[(0, &code)]), 0x177e8);
    }
}
