//! Attacks by exceptions: every kind that ring 3 can cause, where the monitor has to look at the guest's registers and code.

use probe::check::Verdict;

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::machine::{Machine, Registers};

const RETURNED: u64 = 0x100;
/// No canonical address.
const NOWHERE: u64 = 1 << 63;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 5] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [
        attack("exceptions", exceptions),
        attack("interrupt-instructions", interrupts),
        attack("flags", flags),
        attack("changing-code", changing_code),
        attack("end-of-ram", end_of_ram),
    ]
}

/// Code with RAX and RDI, and how it may end.
type Case = (&'static str, &'static [u8], u64, u64, &'static [u64]);

const CASES: &[Case] = &[
    // xor edx, edx; xor ecx, ecx; div ecx
    (
        "divide error",
        &[0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1],
        1,
        0,
        &[0],
    ),
    ("int3", &[0xcc], 0, 0, &[3]),
    ("ud2", &[0x0f, 0x0b], 0, 0, &[6]),
    // into: none in 64-bit mode
    ("into", &[0xce], 0, 0, &[6]),
    // mov rax, [rdi]; mov [rdi], rax
    (
        "load from no canonical address",
        &[0x48, 0x8b, 0x07],
        0,
        NOWHERE,
        &[13],
    ),
    (
        "store to no canonical address",
        &[0x48, 0x89, 0x07],
        0,
        NOWHERE,
        &[13],
    ),
    ("load above 4 GiB", &[0x48, 0x8b, 0x07], 0, 1 << 40, &[14]),
    (
        "store above 4 GiB",
        &[0x48, 0x89, 0x07],
        0,
        0x1_fee0_0000,
        &[14],
    ),
    (
        "load from the kernel",
        &[0x48, 0x8b, 0x07],
        0,
        0xffff_ffff_8010_0000,
        &[14],
    ),
    (
        "store to the kernel",
        &[0x48, 0x89, 0x07],
        0,
        0xffff_ff80_0010_0000,
        &[14],
    ),
    // jmp rax
    (
        "jump to no canonical address",
        &[0xff, 0xe0],
        NOWHERE,
        0,
        &[13],
    ),
    (
        "jump to the kernel",
        &[0xff, 0xe0],
        0xffff_ffff_8010_0000,
        0,
        &[14],
    ),
    ("jump above 4 GiB", &[0xff, 0xe0], 1 << 40, 0, &[14]),
    ("jump to 0", &[0xff, 0xe0], 0, 0, &[14]),
    (
        "jump to the local APIC",
        &[0xff, 0xe0],
        0xfee0_0000,
        0,
        &[14],
    ),
    // sysenter, sysexit, sysret, sysretq
    ("sysenter", &[0x0f, 0x34], 0, 0, &[13, 6]),
    ("sysexit", &[0x0f, 0x35], 0, 0, &[13, 6]),
    ("sysret", &[0x0f, 0x07], 0, 0, &[13, 6]),
    ("sysretq", &[0x48, 0x0f, 0x07], 0, 0, &[13, 6]),
    // fninit; push 0; fldcw [rsp]; pop rax; fld1; fldz; fdivp; fwait
    (
        "x87 divide",
        &[
            0xdb, 0xe3, 0x6a, 0, 0xd9, 0x2c, 0x24, 0x58, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b,
        ],
        0,
        0,
        &[16],
    ),
    // push 0; ldmxcsr [rsp]; pop rax; xorps xmm0, xmm0; divps xmm0, xmm0. (QEMU
    // without KVM raises no SSE exceptions.)
    (
        "SSE divide",
        &[
            0x6a, 0, 0x0f, 0xae, 0x14, 0x24, 0x58, 0x0f, 0x57, 0xc0, 0x0f, 0x5e, 0xc0,
        ],
        0,
        0,
        &[19, RETURNED],
    ),
    // push -1; ldmxcsr [rsp]; pop rax: reserved bits
    (
        "odd MXCSR",
        &[0x6a, 0xff, 0x0f, 0xae, 0x14, 0x24, 0x58],
        0,
        0,
        &[13, RETURNED],
    ),
    // movaps xmm0, [rdi]; fxrstor [rdi]: unaligned
    (
        "unaligned movaps",
        &[0x0f, 0x28, 0x07],
        0,
        0x1001,
        &[13, 14],
    ),
    (
        "unaligned fxrstor",
        &[0x0f, 0xae, 0x0f],
        0,
        0x1001,
        &[13, 14],
    ),
    // vzeroupper: no AVX
    ("AVX", &[0xc5, 0xf8, 0x77], 0, 0, &[6, RETURNED]),
    // lgdt [rdi]; lldt ax; ltr ax; invlpg [rdi]; wbinvd; swapgs
    ("lgdt", &[0x0f, 0x01, 0x17], 0, 0xdead_0000, &[RETURNED, 13]),
    ("lldt", &[0x0f, 0x00, 0xd0], 0x28, 0, &[RETURNED, 13]),
    ("ltr", &[0x0f, 0x00, 0xd8], 0x28, 0, &[RETURNED, 13]),
    ("invlpg", &[0x0f, 0x01, 0x3f], 0, NOWHERE, &[RETURNED, 13]),
    ("wbinvd", &[0x0f, 0x09], 0, 0, &[RETURNED, 13]),
    ("swapgs", &[0x0f, 0x01, 0xf8], 0, 0, &[RETURNED, 13, 6]),
    // rdpmc; xsetbv; rsm; vmcall; vmmcall; vmlaunch; clgi; monitor; mwait
    ("rdpmc", &[0x0f, 0x33], 0, 0, &[13]),
    ("xsetbv", &[0x0f, 0x01, 0xd1], 0, 0, &[RETURNED, 13, 6]),
    ("rsm", &[0x0f, 0xaa], 0, 0, &[6]),
    ("vmcall", &[0x0f, 0x01, 0xc1], 0, 0, &[6, 13]),
    ("vmmcall", &[0x0f, 0x01, 0xd9], 0, 0, &[6, 13]),
    ("vmlaunch", &[0x0f, 0x01, 0xc2], 0, 0, &[6, 13]),
    ("clgi", &[0x0f, 0x01, 0xdd], 0, 0, &[6, 13]),
    ("monitor", &[0x0f, 0x01, 0xc8], 0, 0, &[6, 13, RETURNED]),
    ("mwait", &[0x0f, 0x01, 0xc9], 0, 0, &[6, 13, RETURNED]),
    // mov cr1, rax; mov rax, cr15; mov dr7, rax; mov rax, dr0; clts
    ("mov to CR1", &[0x0f, 0x22, 0xc8], 0, 0, &[6, 13]),
    ("mov from CR15", &[0x44, 0x0f, 0x20, 0xf8], 0, 0, &[6, 13]),
    (
        "mov to DR7",
        &[0x0f, 0x23, 0xf8],
        u64::MAX,
        0,
        &[RETURNED, 6, 13, 1],
    ),
    (
        "mov from DR0",
        &[0x0f, 0x21, 0xc0],
        0,
        0,
        &[RETURNED, 6, 13],
    ),
    ("clts", &[0x0f, 0x06], 0, 0, &[RETURNED, 13]),
    // fifteen prefixes and hlt: too long for an instruction
    (
        "long instruction",
        &[
            0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
            0x66, 0xf4,
        ],
        0,
        0,
        &[13, 6],
    ),
    // lock in al, dx; lock mov [rdi], eax (QEMU's translator lets the prefix pass)
    ("lock in", &[0xf0, 0xec], 0, 0, &[6, 13]),
    ("lock mov", &[0xf0, 0x89, 0x07], 0, 0xfee0_0080, &[6, 14]),
    // movups xmm0, [rdi]; rep movsq; cmpxchg16b [rdi]: no access that is emulated
    (
        "movups from the local APIC",
        &[0x0f, 0x10, 0x07],
        0,
        0xfee0_0080,
        &[14],
    ),
    (
        "rep movsq from the local APIC",
        &[0x48, 0x89, 0xfe, 0xf3, 0x48, 0xa5],
        0,
        0xfee0_0080,
        &[14, RETURNED],
    ),
    (
        "cmpxchg16b on the local APIC",
        &[0x48, 0x0f, 0xc7, 0x0f],
        0,
        0xfee0_0080,
        &[14, 13],
    ),
    // mov eax, fs:[0xfee00080]; mov gs:[0xfee00080], eax
    (
        "load by fs",
        &[0x64, 0x8b, 0x07],
        0,
        0xfee0_0080,
        &[RETURNED],
    ),
    (
        "store by gs",
        &[0x65, 0x89, 0x07],
        0,
        0xfee0_0080,
        &[RETURNED],
    ),
];

fn exceptions<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for round in 0..h.times(3) {
        for &(what, code, rax, rdi, allowed) in CASES {
            let ended = h.run(code, rax, rdi);
            expect_end(what, round, allowed, ended)?;
            h.still_there()?;
        }
    }
    Ok(())
}

/// Executes int n for every n: it arrives as vector n, or is refused. Above 31 the
/// kit's handler returns.
fn interrupts<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for vector in 0..=u8::MAX {
        let ended = h.run(&[0xcd, vector], 0, 0);
        let refused = [vector.into(), 13, 6];
        let handled = [RETURNED, 13, 6];
        let allowed = if vector < 32 { refused } else { handled };
        expect_end("int", vector.into(), &allowed, ended)?;
        h.still_there()?;
    }
    Ok(())
}

/// Executes popf with all flags, and with each of them: TF traps, AC may, none stays.
fn flags<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    const TRAP: u64 = 1 << 8;
    let scratch = h.machine().scratch();
    for round in 0..h.times(200) {
        let flags = if round < 22 {
            1 << round
        } else {
            h.random.word() & 0x3f_ffff
        };
        // push rax; popfq; mov eax, [rdi]; nop; cli
        let code = [0x50, 0x9d, 0x8b, 0x07, 0x90, 0xfa];
        let ended = h.run(&code, flags, scratch + 1);
        let allowed: &[u64] = if flags & TRAP != 0 {
            &[1, 17]
        } else {
            &[RETURNED, 17]
        };
        expect_end("flags", flags, allowed, ended)?;
        h.still_there()?;
    }
    Ok(())
}

/// Executes code that changes while the monitor decodes it: an instruction that writes over
/// itself, and one that the exception's own frame overwrites.
fn changing_code<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let scratch = h.machine().scratch();
    for round in 0..h.times(64) {
        // mov byte ptr [rdi], 0x90; then hlt at rdi, a nop by then; ret
        let at = scratch + 0x200 + round % 64;
        h.reach().place(at, &[0xc6, 0x07, 0x90, 0xf4, 0xc3]);
        let ended = h.run(&[0xff, 0xe0], at, at + 3);
        expect_end("code that changes itself", round, &[RETURNED], ended)?;
        // mov rsp, rdi; jmp rax: the frame of what traps there lies on it
        for code in [
            &[0x0f, 0x0b][..],
            &[0xcd, 0x06],
            &[0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0xa0],
        ] {
            h.reach().place(at, code);
            let ended = h.run(&[0x48, 0x89, 0xfc, 0xff, 0xe0], at, (at & !15) + 16 + 128);
            expect_end("code under its own frame", round, &[6, 13, 14], ended)?;
        }
    }
    h.still_there()
}

/// Executes instructions that end at the end of RAM, or would end behind it.
fn end_of_ram<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let end = h.machine().ram().end;
    // cli; in al, imm8; out dx, eax; a prefix; lidt [rdi]; mov eax, [rdi]; hlt's
    // prefix; rdmsr; ud2
    let pieces: [&[u8]; 9] = [
        &[0xfa],
        &[0xe4],
        &[0xef],
        &[0x66],
        &[0x0f, 0x01],
        &[0x8b],
        &[0x48],
        &[0x0f],
        &[0x0f, 0x32],
    ];
    for (index, piece) in pieces.into_iter().enumerate() {
        let at = end - piece.len() as u64;
        h.reach().place(at, piece);
        let mut registers = Registers {
            rax: at,
            rcx: 0x1b,
            rdi: 0xfee0_0080,
            rdx: 0x80,
            ..Registers::default()
        };
        let ended = h.machine().run(&[0xff, 0xe0], &mut registers);
        expect_end("instruction at the end of RAM", index as u64, &[14], ended)?;
        h.still_there()?;
        // The last bytes of RAM as a stack, and as data that ends behind it.
        let ended = h.run(&[0x48, 0x8b, 0x07], 0, end - 4);
        expect_end(
            "load over the end of RAM",
            index as u64,
            &[14, RETURNED],
            ended,
        )?;
        let ended = h.run(&[0x48, 0x89, 0x07], 0, end - 4);
        expect_end(
            "store over the end of RAM",
            index as u64,
            &[14, RETURNED],
            ended,
        )?;
    }
    h.still_there()
}
