//! Programs, assembled from the text beside each, and the registers that they end with.

extern crate std;

use std::string::ToString as _;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::cpu::{CS, EDI, ESI, SS};

/// Where programs begin; memory goes on behind them.
const START: u32 = 0x1000;
const SIZE: usize = 0x1_0000;

/// Memory, and a machine that answers each request in its own way.
struct Fake {
    memory: Vec<u8>,
    written: Vec<(u16, Width, u32)>,
}

impl Fake {
    fn new(program: &[u8]) -> Self {
        let mut memory = vec![0; SIZE];
        memory[START as usize..][..program.len()].copy_from_slice(program);
        Self {
            memory,
            written: Vec::new(),
        }
    }

    fn place(&mut self, address: u32, width: Width) -> Option<&mut [u8]> {
        let start = address as usize;
        self.memory.get_mut(start..start + width as usize)
    }
}

impl Machine for Fake {
    fn read(&mut self, address: u32, width: Width) -> Option<u32> {
        let mut word = [0; 4];
        word[..width as usize].copy_from_slice(self.place(address, width)?);
        Some(u32::from_le_bytes(word))
    }
    fn write(&mut self, address: u32, width: Width, value: u32) -> Option<()> {
        assert!(value <= width.mask());
        let place = self.place(address, width)?;
        place.copy_from_slice(&value.to_le_bytes()[..width as usize]);
        Some(())
    }
    fn port_read(&mut self, port: u16, width: Width) -> u32 {
        u32::from(port) & width.mask()
    }
    fn port_write(&mut self, port: u16, width: Width, value: u32) {
        self.written.push((port, width, value));
    }
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        [leaf, subleaf + 2, 3, 4]
    }
    fn tsc(&mut self) -> u64 {
        0x1_0000_0002
    }
}

/// Runs a program until it does not go on. Returns the registers then and why.
fn end(fake: &mut Fake) -> (Cpu, Result<bool, Trouble>) {
    let mut interpreter = Interpreter::new(Cpu::new(START, 0, 0), false, fake);
    let result = interpreter.run(1000);
    (interpreter.cpu, result)
}

fn trouble(program: &[u8]) -> Trouble {
    end(&mut Fake::new(program)).1.expect_err("it cannot go on")
}

/// A name, the code, and registers with their values at its end.
type Program<'a> = (&'a str, &'a [u8], &'a [(usize, u32)]);

#[test]
fn programs() {
    let programs: &[Program<'_>] = &[
        // mov eax,0xffffffff; mov ebx,2; add eax,ebx; adc ebx,0x10; sub al,3; sbb ebx,0; hlt
        (
            "arithmetic",
            &[
                0xb8, 0xff, 0xff, 0xff, 0xff, 0xbb, 0x02, 0x00, 0x00, 0x00, 0x01, 0xd8, 0x83, 0xd3,
                0x10, 0x2c, 0x03, 0x83, 0xdb, 0x00, 0xf4,
            ],
            &[(EAX, 0xfe), (EBX, 0x12)],
        ),
        // mov eax,100000; mov ecx,100000; mul ecx; mov edi,edx; mov ecx,7; div ecx; mov esi,edx; imul ebx,ecx,-3; hlt
        (
            "multiplication and division",
            &[
                0xb8, 0xa0, 0x86, 0x01, 0x00, 0xb9, 0xa0, 0x86, 0x01, 0x00, 0xf7, 0xe1, 0x89, 0xd7,
                0xb9, 0x07, 0x00, 0x00, 0x00, 0xf7, 0xf1, 0x89, 0xd6, 0x6b, 0xd9, 0xfd, 0xf4,
            ],
            &[(EAX, 1428571428), (ESI, 4), (EDI, 2), (EBX, 0xffffffeb)],
        ),
        // mov eax,-7; cdq; mov ecx,2; idiv ecx; hlt
        (
            "signed division",
            &[
                0xb8, 0xf9, 0xff, 0xff, 0xff, 0x99, 0xb9, 0x02, 0x00, 0x00, 0x00, 0xf7, 0xf9, 0xf4,
            ],
            &[(EAX, 0xfffffffd), (EDX, 0xffffffff)],
        ),
        // mov ax,1000; mov cl,7; div cl; movzx ebx,ah; movzx eax,al; hlt
        (
            "byte division",
            &[
                0x66, 0xb8, 0xe8, 0x03, 0xb1, 0x07, 0xf6, 0xf1, 0x0f, 0xb6, 0xdc, 0x0f, 0xb6, 0xc0,
                0xf4,
            ],
            &[(EAX, 142), (EBX, 6)],
        ),
        // mov esp,0x8000; push 5; call f; pop ecx; hlt; f: mov eax,[esp+4]; inc eax; push eax; pop ebx; ret
        (
            "a call and the stack",
            &[
                0xbc, 0x00, 0x80, 0x00, 0x00, 0x6a, 0x05, 0xe8, 0x02, 0x00, 0x00, 0x00, 0x59, 0xf4,
                0x8b, 0x44, 0x24, 0x04, 0x40, 0x50, 0x5b, 0xc3,
            ],
            &[(EAX, 6), (EBX, 6), (ECX, 5), (ESP, 0x8000)],
        ),
        // xor ecx,ecx; mov eax,-1; cmp eax,1; setl cl; setb ch; mov ebx,9; cmovg edx,ebx; cmovle edi,ebx; jg bad; mov esi,1; hlt; bad: hlt
        (
            "conditions",
            &[
                0x31, 0xc9, 0xb8, 0xff, 0xff, 0xff, 0xff, 0x83, 0xf8, 0x01, 0x0f, 0x9c, 0xc1, 0x0f,
                0x92, 0xc5, 0xbb, 0x09, 0x00, 0x00, 0x00, 0x0f, 0x4f, 0xd3, 0x0f, 0x4e, 0xfb, 0x7f,
                0x06, 0xbe, 0x01, 0x00, 0x00, 0x00, 0xf4, 0xf4,
            ],
            &[(ECX, 1), (EDX, 0), (EDI, 9), (ESI, 1)],
        ),
        // mov ecx,10; xor eax,eax; a: add eax,ecx; loop a; jecxz b; hlt; b: mov ebx,1; hlt
        (
            "loops",
            &[
                0xb9, 0x0a, 0x00, 0x00, 0x00, 0x31, 0xc0, 0x01, 0xc8, 0xe2, 0xfc, 0xe3, 0x01, 0xf4,
                0xbb, 0x01, 0x00, 0x00, 0x00, 0xf4,
            ],
            &[(EAX, 55), (ECX, 0), (EBX, 1)],
        ),
        // cld; mov edi,0x4000; mov al,0x5a; mov ecx,9; rep stosb; mov esi,0x4000; mov edi,0x5000; mov ecx,2; rep movsd; mov edi,0x4000; mov ecx,20; mov al,0; repne scasb; mov eax,ecx; lea ebx,[edi-0x4000]; hlt
        (
            "strings",
            &[
                0xfc, 0xbf, 0x00, 0x40, 0x00, 0x00, 0xb0, 0x5a, 0xb9, 0x09, 0x00, 0x00, 0x00, 0xf3,
                0xaa, 0xbe, 0x00, 0x40, 0x00, 0x00, 0xbf, 0x00, 0x50, 0x00, 0x00, 0xb9, 0x02, 0x00,
                0x00, 0x00, 0xf3, 0xa5, 0xbf, 0x00, 0x40, 0x00, 0x00, 0xb9, 0x14, 0x00, 0x00, 0x00,
                0xb0, 0x00, 0xf2, 0xae, 0x89, 0xc8, 0x8d, 0x9f, 0x00, 0xc0, 0xff, 0xff, 0xf4,
            ],
            &[(EAX, 10), (EBX, 10), (ESI, 0x4008)],
        ),
        // mov dword ptr [0x4000],0x01020304; mov dword ptr [0x5000],0x01990304; mov esi,0x4000; mov edi,0x5000; mov ecx,4; repe cmpsb; mov eax,ecx; hlt
        (
            "comparison of strings",
            &[
                0xc7, 0x05, 0x00, 0x40, 0x00, 0x00, 0x04, 0x03, 0x02, 0x01, 0xc7, 0x05, 0x00, 0x50,
                0x00, 0x00, 0x04, 0x03, 0x99, 0x01, 0xbe, 0x00, 0x40, 0x00, 0x00, 0xbf, 0x00, 0x50,
                0x00, 0x00, 0xb9, 0x04, 0x00, 0x00, 0x00, 0xf3, 0xa6, 0x89, 0xc8, 0xf4,
            ],
            &[(EAX, 1), (ESI, 0x4003)],
        ),
        // std; mov edi,0x4003; mov al,7; mov ecx,4; rep stosb; mov eax,[0x4000]; cld; hlt
        (
            "backwards",
            &[
                0xfd, 0xbf, 0x03, 0x40, 0x00, 0x00, 0xb0, 0x07, 0xb9, 0x04, 0x00, 0x00, 0x00, 0xf3,
                0xaa, 0xa1, 0x00, 0x40, 0x00, 0x00, 0xfc, 0xf4,
            ],
            &[(EAX, 0x07070707), (EDI, 0x3fff)],
        ),
        // mov eax,0x12345678; bswap eax; bt eax,3; setb bl; bts ebx,8; bsf ecx,eax; bsr edx,eax; mov esi,1; shld esi,eax,8; hlt
        (
            "bits",
            &[
                0xb8, 0x78, 0x56, 0x34, 0x12, 0x0f, 0xc8, 0x0f, 0xba, 0xe0, 0x03, 0x0f, 0x92, 0xc3,
                0x0f, 0xba, 0xeb, 0x08, 0x0f, 0xbc, 0xc8, 0x0f, 0xbd, 0xd0, 0xbe, 0x01, 0x00, 0x00,
                0x00, 0x0f, 0xa4, 0xc6, 0x08, 0xf4,
            ],
            &[
                (EAX, 0x78563412),
                (EBX, 0x100),
                (ECX, 1),
                (EDX, 30),
                (ESI, 0x178),
            ],
        ),
        // mov eax,0x11223344; mov ah,0xff; mov bx,ax; movsx ecx,bl; movzx edx,ah; xchg dl,dh; hlt
        (
            "parts of registers",
            &[
                0xb8, 0x44, 0x33, 0x22, 0x11, 0xb4, 0xff, 0x66, 0x89, 0xc3, 0x0f, 0xbe, 0xcb, 0x0f,
                0xb6, 0xd4, 0x86, 0xf2, 0xf4,
            ],
            &[(EAX, 0x1122ff44), (EBX, 0xff44), (ECX, 0x44), (EDX, 0xff00)],
        ),
        // mov esp,0x8000; stc; std; pushfd; clc; cld; popfd; pushfd; pop eax; and eax,0x401; cld; hlt
        (
            "flags by the stack",
            &[
                0xbc, 0x00, 0x80, 0x00, 0x00, 0xf9, 0xfd, 0x9c, 0xf8, 0xfc, 0x9d, 0x9c, 0x58, 0x25,
                0x01, 0x04, 0x00, 0x00, 0xfc, 0xf4,
            ],
            &[(EAX, 0x401), (ESP, 0x8000)],
        ),
        // mov ebx,0x4000; mov ecx,3; mov dword ptr [ebx+ecx*4+0x10],77; mov eax,[0x401c]; lea edx,[ebx+ecx*8-1]; add dword ptr [0x401c],3; mov esi,[0x401c]; hlt
        (
            "addresses",
            &[
                0xbb, 0x00, 0x40, 0x00, 0x00, 0xb9, 0x03, 0x00, 0x00, 0x00, 0xc7, 0x44, 0x8b, 0x10,
                0x4d, 0x00, 0x00, 0x00, 0xa1, 0x1c, 0x40, 0x00, 0x00, 0x8d, 0x54, 0xcb, 0xff, 0x83,
                0x05, 0x1c, 0x40, 0x00, 0x00, 0x03, 0x8b, 0x35, 0x1c, 0x40, 0x00, 0x00, 0xf4,
            ],
            &[(EAX, 77), (EDX, 0x4017), (ESI, 80)],
        ),
        // mov esp,0x8000; pushw 0x1234; pushw 0x5678; pop eax; mov ax,0xffff; inc ax; setz bl; hlt
        (
            "words",
            &[
                0xbc, 0x00, 0x80, 0x00, 0x00, 0x66, 0x68, 0x34, 0x12, 0x66, 0x68, 0x78, 0x56, 0x58,
                0x66, 0xb8, 0xff, 0xff, 0x66, 0x40, 0x0f, 0x94, 0xc3, 0xf4,
            ],
            &[(EAX, 0x12340000), (EBX, 1), (ESP, 0x8000)],
        ),
        // mov dword ptr [0x4000],5; mov eax,7; xadd [0x4000],eax; mov ebx,[0x4000]; mov ecx,99; mov dword ptr [0x5000],5; cmpxchg [0x5000],ecx; mov edx,[0x5000]; hlt
        (
            "exchange and add",
            &[
                0xc7, 0x05, 0x00, 0x40, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0xb8, 0x07, 0x00, 0x00,
                0x00, 0x0f, 0xc1, 0x05, 0x00, 0x40, 0x00, 0x00, 0x8b, 0x1d, 0x00, 0x40, 0x00, 0x00,
                0xb9, 0x63, 0x00, 0x00, 0x00, 0xc7, 0x05, 0x00, 0x50, 0x00, 0x00, 0x05, 0x00, 0x00,
                0x00, 0x0f, 0xb1, 0x0d, 0x00, 0x50, 0x00, 0x00, 0x8b, 0x15, 0x00, 0x50, 0x00, 0x00,
                0xf4,
            ],
            &[(EAX, 5), (EBX, 12), (EDX, 99)],
        ),
        // mov dx,0x3f8; mov al,0x41; out dx,al; in al,0x71; mov ebx,eax; mov eax,1; xor ecx,ecx; cpuid; mov esi,ecx; rdtsc; hlt
        (
            "ports and leaves",
            &[
                0x66, 0xba, 0xf8, 0x03, 0xb0, 0x41, 0xee, 0xe4, 0x71, 0x89, 0xc3, 0xb8, 0x01, 0x00,
                0x00, 0x00, 0x31, 0xc9, 0x0f, 0xa2, 0x89, 0xce, 0x0f, 0x31, 0xf4,
            ],
            &[(EBX, 2), (ESI, 3), (EAX, 2), (EDX, 1)],
        ),
    ];
    for (name, program, expected) in programs {
        let mut fake = Fake::new(program);
        let (cpu, result) = end(&mut fake);
        assert!(
            matches!(result, Err(Trouble::Halt { .. })),
            "{name}: {result:?}"
        );
        for &(register, value) in *expected {
            assert_eq!(cpu.gpr[register], value, "{name}: register {register}");
        }
        if *name == "ports and leaves" {
            assert_eq!(fake.written, [(0x3f8, Width::Byte, 0x41)]);
        }
    }
}

/// A descriptor table, 32-bit and then 64-bit code, page tables at 0x6000.
const TO_LONG_MODE: &[u8] = &[
    0xfc, 0xbc, 0x00, 0x80, 0x00, 0x00, 0x0f, 0x01, 0x15, 0x78, 0x10, 0x00, 0x00, 0x6a, 0x00, 0x66,
    0x6a, 0x10, 0x68, 0x18, 0x10, 0x00, 0x00, 0xcb, 0xb8, 0x18, 0x00, 0x00, 0x00, 0x8e, 0xd8, 0x8e,
    0xd0, 0x31, 0xc0, 0x8e, 0xe0, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, 0xb9, 0x80,
    0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, 0xb8, 0x00, 0x60, 0x00,
    0x00, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0xea,
    0x45, 0x23, 0x00, 0x00, 0x08, 0x00, 0x66, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xaf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, 0x1f, 0x00, 0x58, 0x10, 0x00, 0x00,
];

#[test]
fn into_long_mode() {
    let (cpu, result) = end(&mut Fake::new(TO_LONG_MODE));
    assert_eq!(result, Ok(true));
    assert_eq!(
        (cpu.eip, cpu.selectors[CS], cpu.selectors[SS]),
        (0x2345, 8, 0x18)
    );
    assert_eq!((cpu.cr3, cpu.cr4, cpu.cr0 >> 31), (0x6000, 0x20, 1));
    assert_eq!(cpu.efer, EFER_LME | EFER_LMA);
    assert_eq!(cpu.gdt.limit, 31);
    // One of the pushes was of two bytes, which RETF takes as four.
    assert_eq!(cpu.gpr[ESP], 0x7ffe);
}

/// Each step of the way is needed: without it the far jump is refused, or an earlier step.
#[test]
fn no_step_into_long_mode_can_be_left_out() {
    for (place, length) in [(6, 7), (40, 3), (53, 5), (71, 5)] {
        let mut program = TO_LONG_MODE.to_vec();
        program[place..place + length].fill(0x90);
        let (_, result) = end(&mut Fake::new(&program));
        assert!(
            matches!(result, Err(Trouble::Mode { .. } | Trouble::Selector { .. })),
            "without {place:#x}: {result:?}"
        );
    }
}

#[test]
fn what_cannot_be_interpreted_is_named() {
    for (program, text) in [
        (
            &[0xd9, 0xe8][..],
            "instruction d9 e8 at 0x1000 is not interpreted",
        ),
        (
            &[0x0f, 0x0b],
            "instruction 0f 0b at 0x1000 is not interpreted",
        ),
        (
            &[0xcd, 0x10],
            "instruction cd 10 at 0x1000 is not interpreted",
        ),
        (&[0xf4], "code at 0x1000 halts before long mode"),
        (
            &[0xa1, 0, 0, 0, 0x90],
            "code at 0x1000 reaches 0x90000000, which is not its memory",
        ),
        (&[0xf7, 0xf1], "code at 0x1000 divides by zero or overflows"),
        (
            &[0x8e, 0xd8, 0x66, 0xb8, 0x08, 0, 0x8e, 0xd8],
            "code at 0x1006 loads selector 0x8, which is no flat segment",
        ),
        (
            &[0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0],
            "code at 0x1008 enters a mode that is not long mode, or leaves protected mode",
        ),
    ] {
        assert_eq!(trouble(program).to_string(), text);
    }
}

#[test]
fn what_was_rewritten_is_what_it_stands_for() {
    // stc; pushfd; clc; popfd; setc bl; hlt, with the two between rewritten.
    let program = [0xf9, 0x06, 0xf8, 0x07, 0x0f, 0x92, 0xc3, 0xf4];
    for rewritten in [true, false] {
        let mut fake = Fake::new(&program);
        let mut cpu = Cpu::new(START, 0, 0);
        cpu.gpr[ESP] = 0x8000;
        let mut interpreter = Interpreter::new(cpu, rewritten, &mut fake);
        let _ = interpreter.run(10);
        assert_eq!(interpreter.cpu.gpr[EBX], u32::from(rewritten));
    }
}

#[test]
fn a_loop_without_end_uses_up_its_steps() {
    // jmp to itself
    let (cpu, result) = end(&mut Fake::new(&[0xeb, 0xfe]));
    assert_eq!((cpu.eip, result), (START, Ok(false)));
}

#[test]
fn random_code_never_panics() {
    // xorshift64*, fixed seed: the same run every time.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut steps = 0;
    for _ in 0..100_000 {
        let mut fake = Fake {
            memory: vec![0; 64],
            written: Vec::new(),
        };
        for part in fake.memory.chunks_exact_mut(8) {
            part.copy_from_slice(&next().to_le_bytes());
        }
        let mut cpu = Cpu::new(0, next() as u32, 16);
        for register in [ECX, EDX, ESP, ESI, EDI] {
            cpu.gpr[register] = next() as u32 >> (next() % 32);
        }
        cpu.gdt.limit = next() as u16;
        let mut interpreter = Interpreter::new(cpu, false, &mut fake);
        for _ in 0..16 {
            if interpreter.step().is_err() {
                break;
            }
            steps += 1;
        }
    }
    assert!(steps > 50_000, "{steps}");
}
