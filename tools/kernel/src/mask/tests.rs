//! Kernels of a few instructions, made by hand.

use super::*;

const BASE: u64 = 0xffff_ffff_8010_0000;
/// mov eax, 0x300; mov ecx, 0xc0000084; xor edx, edx; wrmsr
pub(crate) const SETS: &[u8] = &[
    0xb8, 0, 3, 0, 0, 0xb9, 0x84, 0, 0, 0xc0, 0x31, 0xd2, 0x0f, 0x30,
];
/// xor eax, eax; ret
pub(crate) const ENDS: &[u8] = &[0x31, 0xc0, 0xc3];
/// The mask, before and after.
const OLD: [u8; 4] = [0, 3, 0, 0];
const NEW: [u8; 4] = [0, 0x47, 4, 0];

/// Returns an ELF file whose one segment has this code, and no sections.
pub(crate) fn kernel(code: &[&[u8]]) -> Vec<u8> {
    let code = code.concat();
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    // Entry, program headers, section headers.
    for word in [0u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(PT_LOAD.0.to_le_bytes());
    file.extend((PF_X.0 | 4).to_le_bytes());
    let length = code.len() as u64;
    for word in [120, BASE, BASE & 0xffff_ffff, length, length, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(&code);
    file
}

fn sites_of(code: &[&[u8]]) -> Result<Vec<Site>, String> {
    sites(&kernel(code))
}

/// Returns what differs in the completed file: where in the code, and what it is there.
fn changes(code: &[&[u8]]) -> Result<Vec<(usize, u8)>, String> {
    let file = kernel(code);
    let (after, _) = complete(&file, &sites(&file)?)?;
    assert_eq!(after.len(), file.len());
    let bytes = file.iter().zip(&after).enumerate();
    let differing = bytes.filter(|(_, (old, new))| old != new);
    Ok(differing.map(|(at, (_, new))| (at - 120, *new)).collect())
}

#[test]
fn the_mask_is_found_and_completed_and_nothing_else_changes() {
    let found = sites_of(&[SETS, ENDS]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].address, found[0].value), (BASE + 12, 0x300));
    assert!(!found[0].is_masked());
    assert_eq!(u32::from_le_bytes(NEW), NEEDED);
    assert_eq!(changes(&[SETS, ENDS]), Ok(vec![(2, 0x47), (3, 4)]));
    let file = kernel(&[SETS, ENDS]);
    let (after, changed) = complete(&file, &sites(&file).unwrap()).unwrap();
    assert_eq!(after[121..125], NEW);
    assert_eq!(file[121..125], OLD);
    assert_eq!(changed.len(), 1);
    assert!(sites(&after).unwrap()[0].is_masked());
}

#[test]
fn a_kernel_that_sets_it_twice_is_changed_twice() {
    let found = sites_of(&[SETS, ENDS, SETS, ENDS]).unwrap();
    assert_eq!(
        found.iter().map(|s| s.address - BASE).collect::<Vec<_>>(),
        [12, 29]
    );
    let changes = changes(&[SETS, ENDS, SETS, ENDS]).unwrap();
    assert_eq!(changes.len(), 4);
    // One of them whole already: only the other.
    let mut whole = SETS.to_vec();
    whole[1..5].copy_from_slice(&NEW);
    let file = kernel(&[&whole, ENDS, SETS, ENDS]);
    let (_, changed) = complete(&file, &sites(&file).unwrap()).unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].address - BASE, 29);
}

#[test]
fn a_mask_that_is_whole_stays() {
    for mask in [NEEDED, 0xffff_ffff] {
        let mut whole = SETS.to_vec();
        whole[1..5].copy_from_slice(&mask.to_le_bytes());
        assert!(sites_of(&[&whole, ENDS]).unwrap()[0].is_masked());
        assert_eq!(changes(&[&whole, ENDS]), Ok(Vec::new()));
    }
    // Other flags that a kernel masks stay masked.
    let mut more = SETS.to_vec();
    more[1..5].copy_from_slice(&0x1300u32.to_le_bytes());
    assert_eq!(changes(&[&more, ENDS]), Ok(vec![(2, 0x57), (3, 4)]));
}

#[test]
fn other_registers_are_none_of_it() {
    // mov ecx, 0xc0000081; wrmsr
    let other: &[u8] = &[0xb9, 0x81, 0, 0, 0xc0, 0x0f, 0x30];
    assert_eq!(sites_of(&[SETS, other, ENDS]).unwrap().len(), 1);
    let error = sites_of(&[other, ENDS]).unwrap_err();
    assert!(error.contains("no wrmsr of IA32_FMASK"), "{error}");
}

/// Bytes that look like a WRMSR inside of another instruction are none, and a jump into
/// code is followed.
#[test]
fn instructions_are_followed_not_bytes() {
    // mov eax, 0x300f0000 has the bytes of a wrmsr
    let looks: &[u8] = &[0xb8, 0, 0, 0x0f, 0x30];
    assert_eq!(sites_of(&[looks, SETS, ENDS]).unwrap().len(), 1);
}

/// The value goes through copies, as compilers make them.
#[test]
fn a_mask_that_was_copied_is_known_but_not_changed() {
    // mov esi, 0x300; mov eax, esi; mov ecx, 0xc0000084; wrmsr
    let copied: &[u8] = &[
        0xbe, 0, 3, 0, 0, 0x89, 0xf0, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30,
    ];
    assert_eq!(sites_of(&[copied, ENDS]).unwrap()[0].value, 0x300);
    let error = changes(&[copied, ENDS]).unwrap_err();
    assert!(
        error.contains("mask 0x300 of the wrmsr at 0xffffffff8010000c"),
        "{error}"
    );
}

#[test]
fn a_mask_that_is_used_elsewhere_too_is_not_changed() {
    let mut used = SETS.to_vec();
    // mov ebx, eax between; after it; a jump or a return before it is overwritten
    used.splice(5..5, [0x89, 0xc3]);
    let after: &[u8] = &[0x89, 0xc3];
    let partly: &[u8] = &[0xb0, 0];
    let jumps: &[u8] = &[0xeb, 0];
    for code in [
        &[&used[..], ENDS][..],
        &[SETS, after, ENDS],
        &[SETS, jumps, ENDS],
        &[SETS, &[0xc3]],
        &[SETS, partly, after, ENDS],
        &[SETS],
    ] {
        assert_eq!(sites_of(code).unwrap()[0].value, 0x300);
        assert!(changes(code).unwrap_err().contains("by itself"));
    }
}

#[test]
fn what_cannot_be_told_is_an_error() {
    // The mask from memory, by arithmetic, from a caller, after a call.
    let from_memory: &[u8] = &[0x8b, 0x07, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30];
    let computed: &[u8] = &[
        0xb8, 0, 3, 0, 0, 0x0c, 1, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30,
    ];
    let callers: &[u8] = &[0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30];
    let called: &[u8] = &[
        0xb8, 0, 3, 0, 0, 0xe8, 0, 1, 0, 0, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30,
    ];
    // Part of the register; a read of another MSR over it.
    let partly: &[u8] = &[
        0xb8, 0, 3, 0, 0, 0xb4, 1, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x30,
    ];
    let read_over: &[u8] = &[
        0xb8, 0, 3, 0, 0, 0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x32, 0x0f, 0x30,
    ];
    for code in [from_memory, computed, callers, called, partly, read_over] {
        let error = sites_of(&[code, ENDS]).unwrap_err();
        assert!(error.contains("the mask that the wrmsr at"), "{error}");
    }
    // Which register it is.
    let error = sites_of(&[SETS, &[0x0f, 0x30], ENDS]);
    assert!(error.is_ok(), "it is the same as before: {error:?}");
    let any: &[u8] = &[0x89, 0xf1, 0x0f, 0x30];
    let error = sites_of(&[SETS, any, ENDS]).unwrap_err();
    assert!(error.contains("which register the wrmsr at"), "{error}");
}

/// Another way may lead to the WRMSR with another mask.
#[test]
fn a_branch_into_the_middle_is_an_error() {
    // jne +5 skips the mask
    let skips: &[u8] = &[0x75, 5];
    let error = sites_of(&[skips, SETS, ENDS]).unwrap_err();
    assert!(error.contains("the mask that the wrmsr at"), "{error}");
    // One past all of it is harmless.
    let past: &[u8] = &[0x75, SETS.len() as u8];
    assert_eq!(sites_of(&[past, SETS, ENDS]).unwrap().len(), 1);
    // The table of a switch, behind the code: the address of its second instruction.
    let to = |address: u64| kernel(&[SETS, ENDS, &[0xcc; 7], &address.to_le_bytes()]);
    assert!(sites(&to(BASE + 5)).is_err());
    assert!(sites(&to(BASE + 1000)).is_ok());
}

#[test]
fn each_place_that_names_the_register_is_accounted_for() {
    // mov ecx, 0xc0000084; rdmsr: and whoever writes it later
    let names: &[u8] = &[0xb9, 0x84, 0, 0, 0xc0, 0x0f, 0x32];
    let error = sites_of(&[SETS, names, ENDS]).unwrap_err();
    assert!(
        error.contains("what names IA32_FMASK at 0xffffffff8010000f"),
        "{error}"
    );
}

#[test]
fn what_is_no_kernel_is_an_error() {
    assert!(sites(b"").is_err());
    assert!(sites(b"\x7fELF").is_err());
    let mut short = kernel(&[SETS, ENDS]);
    short.pop();
    assert!(sites(&short).unwrap_err().contains("beyond the file"));
}

/// A site that is not where it was said is not written over.
#[test]
fn only_what_was_found_is_changed() {
    let file = kernel(&[SETS, ENDS]);
    let mut sites = sites(&file).unwrap();
    sites[0].value = 0x200;
    assert!(complete(&file, &sites).is_err());
    sites[0].value = 0x300;
    sites[0].offset = Some(file.len());
    assert!(complete(&file, &sites).is_err());
}
