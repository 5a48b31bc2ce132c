//! Calls that become direct, and what is left.

use super::*;
use crate::fixture;

const OWN: Range<u64> = 0x180_0000..0x200_0000;
const HANDLER_AT: u64 = 0x190_1234;
const STUBS: u64 = OWN.start + STUBS_OFFSET;
/// Where the images of these tests have their code.
const CODE: u64 = 0x10_0000;

/// Returns a shim with nothing but that symbol.
fn shim(name: &str) -> Vec<u8> {
    fixture::object(&[0xc3], &[], &[(name, HANDLER_AT)])
}

/// An image with this code, loaded `above` where it is linked.
fn image(code: &[u8], above: u64) -> Vec<u8> {
    let mut file = system::elf_file(
        CODE,
        &[Segment {
            address: CODE,
            size: code.len() as u64,
            bytes: code.to_vec(),
            writable: false,
            executable: true,
        }],
    );
    if above > 0 {
        let physical = 64 + 24;
        file[physical..physical + 8].copy_from_slice(&(CODE + above).to_le_bytes());
    }
    file
}

/// Returns the code after the calls were made direct, and the stubs.
fn made(code: &[u8], above: u64) -> (Vec<u8>, Option<Segment>) {
    let mut file = image(code, above);
    let stubs = direct(&mut file, &shim("image_call"), &OWN).unwrap();
    let pieces = pieces::<elf::FileHeader64<Endianness>>(&file).unwrap();
    (file[pieces[0].range.clone()].to_vec(), stubs)
}

/// `mov edx, port; out dx, eax`.
fn call(port: u32) -> Vec<u8> {
    [&[MOV_EDX][..], &port.to_le_bytes(), &[OUT]].concat()
}

/// Returns a jump at `from` to `to`.
fn jump_bytes(from: u64, to: u64) -> Vec<u8> {
    let distance = (to as i64 - from as i64 - 5) as i32;
    [&[0xe9][..], &distance.to_le_bytes()].concat()
}

#[test]
fn a_call_leads_to_a_stub_that_does_as_the_vmm_does() {
    // xor eax, eax; the call; ret; the call of another; ret
    let code = [
        &[0x31, 0xc0][..],
        &call(0x501),
        &[0xc3],
        &call(0x508),
        &[0xc3],
    ]
    .concat();
    let (code, stubs) = made(&code, 0);
    let stubs = stubs.unwrap();
    assert_eq!((stubs.address, stubs.size), (STUBS, 2 * STUB as u64));
    assert!(stubs.executable && !stubs.writable);
    let second = STUBS + STUB as u64;
    // The outputs are still there, for code that jumps to them.
    let first = jump_bytes(CODE + 2, STUBS);
    let other = jump_bytes(CODE + 9, second);
    let expected = [
        &[0x31, 0xc0][..],
        &first,
        &[OUT, 0xc3],
        &other,
        &[OUT, 0xc3],
    ];
    assert_eq!(code, expected.concat());
    // mov edx, port; lea rsp, [rsp - 136]; mov qword ptr [rsp], back; jmp image_call
    let stub = |at: u64, port: u8, back: u8| {
        let words = [
            &[0xba, port, 5, 0, 0][..],
            &[0x48, 0x8d, 0xa4, 0x24, 0x78, 0xff, 0xff, 0xff],
            &[0x48, 0xc7, 0x04, 0x24, back, 0, 0x10, 0],
            &jump_bytes(at + 21, HANDLER_AT),
        ];
        words.concat()
    };
    let expected = [stub(STUBS, 1, 8), stub(second, 8, 15)].concat();
    assert_eq!(stubs.bytes, expected);
}

#[test]
fn other_outputs_are_left() {
    for code in [
        call(0x500),
        call(0x509),
        call(0x1_0501),
        // mov ecx, 0x501; out dx, eax
        [&[0xb9][..], &0x501_u32.to_le_bytes(), &[OUT]].concat(),
        // mov edx, 0x501; nop; out dx, eax
        [&call(0x501)[..5], &[0x90, OUT]].concat(),
        // mov edx, 0x501, and nothing after it
        call(0x501)[..5].to_vec(),
    ] {
        assert_eq!(made(&code, 0), (code.clone(), None), "{code:x?}");
    }
}

#[test]
fn what_may_be_data_or_lies_elsewhere_is_left() {
    // A byte that is no instruction.
    let code = [&[0x06][..], &call(0x501)].concat();
    assert_eq!(made(&code, 0), (code.clone(), None));
    let code = call(0x501);
    assert_eq!(made(&code, 0x1000), (code.clone(), None));
    let mut text = b"no ELF file".to_vec();
    assert_eq!(direct(&mut text, &[], &OWN), Ok(None));
}

#[test]
fn calls_beyond_the_room_for_stubs_are_left() {
    let most = STUBS_SIZE / STUB;
    let code = call(0x502).repeat(most + 3);
    let (code, stubs) = made(&code, 0);
    assert_eq!(stubs.unwrap().size, (most * STUB) as u64);
    assert_eq!(code[6 * most..], call(0x502).repeat(3));
}

#[test]
fn a_shim_without_code_for_calls_is_refused() {
    let mut file = image(&call(0x501), 0);
    let error = direct(&mut file, &shim("other"), &OWN).unwrap_err();
    assert!(error.cause.contains("image_call"), "{error:?}");
    let mut file = image(&[0xc3], 0);
    assert_eq!(direct(&mut file, &shim("other"), &OWN), Ok(None));
}
