//! Attacks on the kernel's own edges: every state of the CPU that ring 3 can make, taken through every way into the kernel.
//!
//! The kernel runs with any state that it neither clears nor saves on entry:
//! flags that SYSCALL does not mask, selectors, FS and GS bases, SSE and x87 state.
//! An attack only reports its effect on the guest. Whether the machine and the
//! other guests still run is checked from outside.

use probe::check::Verdict;

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::machine::{CODE, Ended, Machine, Registers};

/// Flags that ring 3 sets by POPF or is refused: CF, PF, AF, ZF, SF, TF, IF, DF, OF,
/// IOPL, NT, RF, VM, AC, VIF, VIP, ID, and those that are reserved.
const FLAGS: u64 = 0x3f_ffff;
const TRAP: u64 = 1 << 8;
/// Flags that survive a kernel entry unless they are cleared: DF, IOPL, NT, RF, AC,
/// VIF, VIP, ID.
const STAYING: [u64; 9] = [
    1 << 10,
    3 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 19,
    1 << 20,
    1 << 21,
    0x7d_7400,
];

/// System calls of a kernel without printing and debug calls.
const CALLS: u64 = 8;
/// Rounds that cross each flag that stays with each of them, and each of those and TF
/// with each other way.
const CROSSED_CALLS: u64 = STAYING.len() as u64 * CALLS;
const CROSSED: u64 = CROSSED_CALLS + (STAYING.len() as u64 + 1) * WAYS.len() as u64;

/// [`Ended::Returned`] as a number.
const RETURNED: u64 = 0x100;

/// How code ended, by vector and 32 for none.
const ENDS: usize = 33;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 4] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [
        attack("kernel-flags", kernel_flags),
        attack("nested-task-calls", nested_task_calls),
        attack("top-of-canonical", top_of_canonical),
        Attack {
            name: "single-step-call",
            group: Group::End,
            run: single_step_call,
        },
    ]
}

/// Code that is put together.
struct Code {
    bytes: [u8; CODE],
    length: usize,
}

impl Code {
    const fn new() -> Self {
        Self {
            bytes: [0; CODE],
            length: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }
}

/// Code that prepares the CPU before the flags are set. R9 and R8 hold the values to
/// load.
const STATES: &[&[u8]] = &[
    &[],
    // mov ds, r8d; mov es, r8d; mov fs, r8d; mov gs, r8d
    &[0x41, 0x8e, 0xd8],
    &[0x41, 0x8e, 0xc0],
    &[0x41, 0x8e, 0xe0],
    &[0x41, 0x8e, 0xe8],
    // wrfsbase r9; wrgsbase r9
    &[0xf3, 0x49, 0x0f, 0xae, 0xd1],
    &[0xf3, 0x49, 0x0f, 0xae, 0xd9],
    // push 0; ldmxcsr [rsp]; pop r11: every SSE exception unmasked
    &[0x6a, 0, 0x0f, 0xae, 0x14, 0x24, 0x41, 0x5b],
    // push 0x3f; ldmxcsr [rsp]; pop r11: each of them raised as well
    &[0x6a, 0x3f, 0x0f, 0xae, 0x14, 0x24, 0x41, 0x5b],
    // fninit; push 0; fldcw [rsp]; pop r11; fld1; fldz; fdivp: one is pending
    &[
        0xdb, 0xe3, 0x6a, 0, 0xd9, 0x2c, 0x24, 0x41, 0x5b, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9,
    ],
    // eight values on the x87 stack, MMX state: fld1 eight times; movq mm0, mm1
    &[
        0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9,
        0xe8, 0xd9, 0xe8, 0x0f, 0x6f, 0xc1,
    ],
    // push r10; popfq; int3's own vector is a fault: only CR2 and DR6 of the previous
    // trap remain
    &[0x41, 0x52, 0x9d],
];

/// Selectors of every descriptor that the kernel has (seL4 5.0.0,
/// arch/x86/arch/64/mode/machine.h), of some that it has not, and of an LDT.
const SELECTORS: &[u64] = &[
    0, 1, 2, 3, 0x08, 0x0b, 0x10, 0x13, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x33, 0x38, 0x3b,
    0x40, 0x43, 0x48, 0x4b, 0x50, 0x53, 0x04, 0x07, 0x0f, 0x17, 0xfffb, 0xffff,
];

/// Bases: unused addresses, the kernel's, the last canonical ones and the first that
/// are not.
const BASES: &[u64] = &[
    0,
    0x1000,
    0x7fff_ffff_f000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0xffff_ffff_8010_0000,
    0xffff_ffff_ffff_ffff,
    1 << 63,
];

/// push r10; popfq.
const SET_FLAGS: &[u8] = &[0x41, 0x52, 0x9d];
/// syscall; mov rsp, rbx: the kernel keeps no stack pointer over a system call.
const SYSCALL: &[u8] = &[0x0f, 0x05, 0x48, 0x89, 0xdc];

/// Other ways in.
const WAYS: &[&[u8]] = &[
    // sysenter; int3; ud2; mov rax, [rdi]; hlt would wait: clts; mov dr7, rax
    &[0x0f, 0x34],
    &[0xcc],
    &[0x0f, 0x0b],
    &[0x48, 0x8b, 0x07],
    &[0x0f, 0x06],
    &[0x0f, 0x23, 0xf8],
    &[0x0f, 0x21, 0xf0],
    // into, and int1: none in 64-bit mode, and #DB
    &[0xce],
    &[0xf1],
    // cli; mov cr2, rax; in al, 0x80; rdmsr
    &[0xfa],
    &[0x0f, 0x22, 0xd0],
    &[0xe4, 0x80],
    &[0x0f, 0x32],
    // xor edx, edx; xor ecx, ecx; div ecx
    &[0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1],
    // fwait; fld1; divps xmm0, xmm0
    &[0x9b, 0xd9, 0xe8],
    &[0x0f, 0x57, 0xc0, 0x0f, 0x5e, 0xc0],
    // nops, under a trap flag
    &[0x90, 0x90, 0x90],
    // popfq of a word more, under a trap flag: push r10; popfq; nop
    &[0x41, 0x52, 0x9d, 0x90],
    // mov eax, ss; mov ss, eax; ud2, int3 or int 0x80 in its shadow
    &[0x8c, 0xd0, 0x8e, 0xd0, 0x0f, 0x0b],
    &[0x8c, 0xd0, 0x8e, 0xd0, 0xcc],
    &[0x8c, 0xd0, 0x8e, 0xd0, 0xcd, 0x80],
    // the same; sysenter
    &[0x8c, 0xd0, 0x8e, 0xd0, 0x0f, 0x34],
    // push r8; push 0; ljmp, or lcall, [rsp]: to any selector
    &[0x41, 0x50, 0x6a, 0, 0x48, 0xff, 0x2c, 0x24],
    &[0x41, 0x50, 0x6a, 0, 0x48, 0xff, 0x1c, 0x24],
    // push 0x33; push rbx; push r10; push 0x2b; push r9; iretq: to any address, with the
    // flags of this round
    &[
        0x6a, 0x33, 0x53, 0x41, 0x52, 0x6a, 0x2b, 0x41, 0x51, 0x48, 0xcf,
    ],
    // sysexit; sysretq; vmcall; vmmcall
    &[0x0f, 0x35],
    &[0x48, 0x0f, 0x07],
    &[0x0f, 0x01, 0xc1],
    &[0x0f, 0x01, 0xd9],
    // lea rax, [rip + 10]; push 0x33; push rbx; push 2; push 0x2b; push rax; iretq:
    // to what follows it
    &[
        0x48, 0x8d, 0x05, 10, 0, 0, 0, 0x6a, 0x33, 0x53, 0x6a, 0x02, 0x6a, 0x2b, 0x50, 0x48, 0xcf,
    ],
];

/// rdtsc; mov esi, eax; 1: rdtsc; sub eax, esi; cmp eax, 0x800000; jb 1b: for some
/// milliseconds, in which the kernel's own timer comes.
const LINGER: &[u8] = &[
    0x0f, 0x31, 0x89, 0xc6, 0x0f, 0x31, 0x29, 0xf0, 0x3d, 0, 0, 0x80, 0, 0x72, 0xf5,
];

/// Flags as a round has them: one that stays, any of them, or all.
fn flags<M: Machine>(h: &mut Hostile<M>) -> u64 {
    let random = &mut h.random;
    match random.below(4) {
        0 => random.pick(&STAYING),
        1 => random.pick(&STAYING) | random.pick(&STAYING),
        2 => 1 << random.below(22),
        _ => random.word() & FLAGS,
    }
}

/// Crosses states, flags and ways into the kernel: systematically, then at random.
fn kernel_flags<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let scratch = h.machine().scratch();
    let mut ends = [0u64; ENDS];
    h.machine().tolerate(true);
    for round in 0..h.times(4_000) {
        let crossed = round < CROSSED;
        let call = match round {
            0..CROSSED_CALLS => true,
            CROSSED_CALLS..CROSSED => false,
            _ => h.random.below(3) == 0,
        };
        let turn = round.saturating_sub(CROSSED_CALLS);
        let mut flags = match round {
            0..CROSSED_CALLS => STAYING[(round / CALLS) as usize],
            CROSSED_CALLS..CROSSED => {
                let flag = STAYING.get((turn / WAYS.len() as u64) as usize);
                *flag.unwrap_or(&TRAP)
            }
            _ => flags(h),
        };
        let number = match round {
            0..CROSSED_CALLS => -1 - (round % CALLS) as i64,
            _ => -1 - h.random.below(12) as i64,
        };
        let selector = h.random.pick(SELECTORS);
        let base = h.random.pick(BASES);
        let state = h.random.pick(STATES);
        let way = match round {
            CROSSED_CALLS..CROSSED => (turn % WAYS.len() as u64) as usize,
            _ => h.random.below(WAYS.len() as u64 + 8) as usize,
        };
        let vector = h.random.below(256) as u8;
        let linger = h.random.below(64) == 0;
        let address = h
            .random
            .pick(&[scratch + 1, 1 << 40, 1 << 63, 0xffff_ffff_8010_0000]);

        let mut code = Code::new();
        code.push(&[0xfa]);
        if !crossed {
            code.push(state);
        }
        if call {
            // A step right behind a call finds no stack: see single-step-call.
            flags &= !TRAP;
        }
        code.push(SET_FLAGS);
        if linger && flags & TRAP == 0 {
            code.push(LINGER);
        }
        if call {
            code.push(SYSCALL);
        } else if let Some(way) = WAYS.get(way) {
            code.push(way);
        } else {
            code.push(&[0xcd, vector]);
        }
        let mut registers = Registers {
            rdx: number.cast_unsigned(),
            rdi: if call { 0 } else { address },
            r8: selector,
            r9: base,
            r10: flags,
            ..Registers::default()
        };
        let bytes = &code.bytes[..code.length];
        let ended = h.machine().run(bytes, &mut registers);
        ends[match ended {
            Ended::Exception(vector) => usize::from(vector).min(ENDS - 1),
            Ended::Returned => ENDS - 1,
        }] += 1;
        if round % 16 == 0 {
            h.still_there()?;
        }
    }
    // Bases and selectors are free to change: the kit uses none.
    for code in [
        &[0xf3u8, 0x49, 0x0f, 0xae, 0xd1][..],
        &[0xf3, 0x49, 0x0f, 0xae, 0xd9],
    ] {
        let mut registers = Registers::default();
        h.machine().run(code, &mut registers);
    }
    h.machine().tolerate(false);
    let returned = ends[ENDS - 1];
    h.machine()
        .line(format_args!("# kernel-flags: {returned} rounds came back"));
    for (vector, count) in ends.iter().enumerate().take(ENDS - 1) {
        if *count > 0 {
            h.machine()
                .line(format_args!("# kernel-flags: exception {vector}: {count}"));
        }
    }
    h.still_there()
}

/// Keeps NT, which makes an IRETQ a task return, set over many Yields: the loop is run
/// as a whole, so that nothing clears the flag between two calls.
fn nested_task_calls<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // 1: cli; push 0x4002; popfq; mov rdx, -7; syscall; mov rsp, rbx; dec r15; jnz 1b
    let code = [
        0xfa, 0x68, 0x02, 0x40, 0, 0, 0x9d, 0x48, 0xc7, 0xc2, 0xf9, 0xff, 0xff, 0xff, 0x0f, 0x05,
        0x48, 0x89, 0xdc, 0x49, 0xff, 0xcf, 0x75, 0xe8,
    ];
    h.machine().tolerate(true);
    let mut registers = Registers {
        r15: h.times(20_000),
        ..Registers::default()
    };
    let ended = h.machine().run(&code, &mut registers);
    h.machine().tolerate(false);
    let left = registers.r15;
    h.machine()
        .line(format_args!("# nested-task-calls: {left} rounds left"));
    expect_end("system call with NT", left, &[RETURNED], ended)?;
    h.still_there()
}

/// Jumps to a system call in the last canonical bytes. Its return address would not
/// be canonical, and SYSRET faults on such an address in ring 0 on some processors.
/// The page is never mapped, so the jump itself must fault.
fn top_of_canonical<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    const END: u64 = 1 << 47;
    h.machine().tolerate(true);
    for round in 0..h.times(64) {
        for below in [1, 2, 3, 4, 0x1000, 0x1_0000, 0x20_0000] {
            let address = END - below;
            // jmp rax; mov eax, [rdi]; mov word ptr [rdi], 0x050f
            let jump: &[u8] = &[0xfa, 0xff, 0xe0];
            let load: &[u8] = &[0x8b, 0x07];
            let store: &[u8] = &[0x66, 0xc7, 0x07, 0x0f, 0x05];
            for code in [jump, load, store] {
                let ended = h.run(code, address, address);
                expect_end("last bytes that are canonical", below, &[14, 13], ended)?;
            }
        }
        for address in [END, END + 1, (1 << 63) - 1] {
            let ended = h.run(&[0xfa, 0xff, 0xe0], address, address);
            expect_end("first bytes that are not", round, &[13], ended)?;
        }
    }
    h.machine().tolerate(false);
    h.still_there()
}

/// Single-steps right behind a system call, which leaves no stack pointer: the
/// exception has no room for its frame, and the guest ends.
fn single_step_call<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let mut code = Code::new();
    code.push(&[0xfa]);
    code.push(SET_FLAGS);
    code.push(SYSCALL);
    let mut registers = Registers {
        rdx: (-7i64).cast_unsigned(),
        r10: TRAP,
        ..Registers::default()
    };
    let ended = h.machine().run(&code.bytes[..code.length], &mut registers);
    // Where the trap comes all the same, it is the architectural one.
    expect_end("step behind a call", 0, &[1], ended)
}
