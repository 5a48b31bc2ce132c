//! Files with code, and what becomes of it.

use super::*;
use crate::fixture;

/// Returns an object file with this text section, whose functions begin at these offsets,
/// and data that looks like instructions.
fn object_file(code: &[u8], functions: &[u64]) -> Vec<u8> {
    let symbols: Vec<_> = functions.iter().map(|value| ("f", *value)).collect();
    fixture::object(code, &[PUSHF, POPF], &symbols)
}

/// Rewrites code that has instructions at these offsets for sure. Returns it.
fn swept(code: &[u8], starts: &[usize]) -> (Vec<u8>, usize, usize) {
    let mut code = code.to_vec();
    let (sites, left) = sites(&code, starts, is_site);
    for at in &sites {
        code[*at] = 0;
    }
    (code, sites.len(), left)
}

/// nop, so many times.
fn nops(count: usize) -> Vec<u8> {
    vec![0x90; count]
}

/// Returns an ELF file without sections: one segment of code, executable or not.
fn segment_file(code: &[u8], executable: bool) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0]);
    file.extend(1u32.to_le_bytes());
    for word in [0x10_0000u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let flags = if executable { 5u32 } else { 6 };
    file.extend(1u32.to_le_bytes());
    file.extend(flags.to_le_bytes());
    let size = code.len() as u64;
    for word in [120, 0x10_0000, 0x10_0000, size, size, 4096] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(code);
    file
}

#[test]
fn each_instruction_becomes_one_of_its_length() {
    // pushfq; popfq; wrfsbase rax; wrgsbase r15; wrfsbase ecx; ret
    let code = [
        0x9c, 0x9d, 0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xf3, 0x49, 0x0f, 0xae, 0xdf, 0xf3, 0x0f, 0xae,
        0xd1, 0xc3,
    ];
    let expected = [
        0x06, 0x07, 0x66, 0x48, 0x0f, 0xae, 0xd0, 0x66, 0x49, 0x0f, 0xae, 0xdf, 0x66, 0x0f, 0xae,
        0xd1, 0xc3,
    ];
    for mut file in [object_file(&code, &[]), segment_file(&code, true)] {
        let before = file.clone();
        let result = rewrite(&mut file);
        assert_eq!((result.replaced, result.left), (5, 0));
        let changed = file.windows(code.len()).filter(|w| **w == expected).count();
        assert_eq!(changed, 1);
        let differ = file.iter().zip(&before).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 5, "nothing else changes");
        // It is done once.
        assert_eq!(rewrite(&mut file), Rewritten::default());
    }
}

#[test]
fn data_and_other_files_stay_as_they_are() {
    let code = [0x9c, 0x9d];
    let mut files = [
        segment_file(&code, false),
        b"#!/bin/sh \x9c\x9d".to_vec(),
        vec![],
        segment_file(&code, true)[..70].to_vec(),
        object_file(&nops(9), &[]),
    ];
    // For another machine.
    let mut other = segment_file(&code, true);
    other[18] = 183;
    for file in files.iter_mut().chain([&mut other]) {
        let before = file.clone();
        assert_eq!(rewrite(file), Rewritten::default());
        assert_eq!(*file, before);
    }
}

#[test]
fn operands_are_no_instructions() {
    // mov eax, 0x9d9c9d9c; mov al, 0x9c; lea rax, [rax - 0x63]; rdfsbase rax; wrmsr
    let code = [
        0xb8, 0x9c, 0x9d, 0x9c, 0x9d, 0xb0, 0x9c, 0x48, 0x8d, 0x40, 0x9d, 0xf3, 0x48, 0x0f, 0xae,
        0xc0, 0x0f, 0x30,
    ];
    assert_eq!(swept(&code, &[]), (code.to_vec(), 0, 0));
}

#[test]
fn prefixes_leave_no_room() {
    // pushfw; pushfq with REX.W; wrfsbase with a segment prefix first
    let code = [
        0x66, 0x9c, 0x48, 0x9d, 0x2e, 0xf3, 0x48, 0x0f, 0xae, 0xd0, 0x9c,
    ];
    let (_, replaced, left) = swept(&code, &[]);
    assert_eq!((replaced, left), (1, 3));
}

#[test]
fn what_lies_near_bytes_that_are_no_code_is_left() {
    for (distance, sure) in [(0, false), (DOUBT - 1, false), (DOUBT + 1, true)] {
        // A byte that is no instruction, before it and after it.
        let before = [&[0x06][..], &nops(distance), &[0x9c, 0xc3]].concat();
        let after = [&[0x9c][..], &nops(distance), &[0x06]].concat();
        for code in [before, after] {
            let (_, replaced, left) = swept(&code, &[]);
            let expected = if sure { (1, 0) } else { (0, 1) };
            assert_eq!((replaced, left), expected, "{distance}");
        }
    }
    // Bytes that end within an instruction.
    let (_, replaced, left) = swept(&[0x9c, 0xe8, 0, 0], &[]);
    assert_eq!((replaced, left), (0, 1));
}

#[test]
fn symbols_say_where_instructions_begin() {
    // Data, then a function: mov eax, imm32 would take the pushfq in.
    let code = [0xb8, 0x9c, 0x9d, 0xc3];
    assert_eq!(swept(&code, &[]).1, 0);
    let (rewritten, replaced, left) = swept(&code, &[1]);
    assert_eq!((replaced, left), (2, 0));
    assert_eq!(rewritten, [0xb8, 0, 0, 0xc3]);
    // Code, then data that is none.
    let code = [0x9c, 0x9d, 0xc3, 0x06];
    assert_eq!(swept(&code, &[0, 3]).1, 2);
    assert_eq!(swept(&code, &[0]).1, 0);

    let mut file = object_file(&[0xb8, 0x9c, 0x9d, 0xc3], &[1, 1, 0]);
    let result = rewrite(&mut file);
    assert_eq!((result.replaced, result.left), (2, 0));
}

#[test]
fn replacements_are_what_the_cpu_has_no_instruction_for() {
    let decoder = InstDecoder::default();
    for byte in [REWRITTEN_PUSHF, REWRITTEN_POPF] {
        assert!(decoder.decode_slice(&[byte, 0x90, 0x90]).is_err());
    }
}
