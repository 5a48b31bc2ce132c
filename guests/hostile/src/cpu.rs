//! Attacks by the guest's own CPU: bases, descriptors and page tables that lead nowhere.

use probe::check::{Verdict, expect};

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::ends::survived;
use crate::machine::{Ended, Machine, Registers};

const RETURNED: u64 = 0x100;
const INVALID_OPCODE: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;

/// MSRs that hold an address: LSTAR, CSTAR, and the bases of FS, GS and SWAPGS.
const ADDRESSES: [u64; 5] = [0xc000_0082, 0xc000_0083, FS_BASE, GS_BASE, 0xc000_0102];
const FS_BASE: u64 = 0xc000_0100;
const GS_BASE: u64 = 0xc000_0101;
/// The bases of `guests/cpu` while it watches them.
const WATCHED: u64 = 0x180_0000;
/// Where the kernel's own addresses begin (seL4 5.0.0, PPTR_USER_TOP).
const KERNEL: u64 = 0xffff_ff80_0000_0000;
/// wrmsr, rdmsr, swapgs.
const WRITE: &[u8] = &[0x0f, 0x30];
const READ: &[u8] = &[0x0f, 0x32];
const SWAP: &[u8] = &[0x0f, 0x01, 0xf8];

/// Where no memory of the guest is: device registers, nothing, the kernel, the last
/// canonical addresses.
const NOWHERE: [u64; 5] = [
    0xfee0_0000,
    0xfec0_0000,
    1 << 40,
    0xffff_ffff_8010_0000,
    0xffff_ffff_ffff_fff0,
];

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 13] {
    let attack = |name, group, run| Attack { name, group, run };
    [
        attack("odd-bases", Group::Common, odd_bases),
        attack("invalid-bytes", Group::Common, invalid_bytes),
        attack("base-yields", Group::Mode, base_yields),
        // Afterwards the guest's descriptors are those of scratch RAM.
        attack("descriptor-tables", Group::Last, descriptor_tables),
        attack("stack-in-device", Group::End, |h| {
            fault_on(h, 0x67, 0xfee0_0000)
        }),
        attack("stack-in-kernel", Group::End, |h| {
            fault_on(h, 0x67, 0xffff_ffff_8010_0000)
        }),
        attack("stack-not-canonical", Group::End, |h| {
            fault_on(h, 0x67, 1 << 63)
        }),
        attack("task-too-short", Group::End, |h| fault_on(h, 36, 0)),
        // "guest loaded a page table that is no identity map"
        attack("page-table-outside", Group::End, |h| {
            load_page_table(h, |_, _| 0xfee0_0000)
        }),
        attack("page-table-garbage", Group::End, |h| {
            load_page_table(h, |h, root| {
                for at in (0..0x1000).step_by(8) {
                    let word = h.random.word() | 1;
                    h.reach().store(root + at, 8, word);
                }
                root
            })
        }),
        attack("page-table-recursive", Group::End, |h| {
            load_page_table(h, |h, root| {
                for at in (0..0x1000).step_by(8) {
                    h.reach().store(root + at, 8, root | 3);
                }
                root
            })
        }),
        attack("page-table-endless", Group::End, |h| {
            load_page_table(h, |h, root| {
                // Every entry of three levels leads to one table of nothing.
                for level in 0..3 {
                    for at in (0..0x1000).step_by(8) {
                        let below = root + 0x1000 * (level + 1);
                        h.reach().store(root + 0x1000 * level + at, 8, below | 3);
                    }
                }
                root
            })
        }),
        attack("page-table-alias", Group::End, |h| {
            load_page_table(h, |h, root| {
                // A page of 1 GiB in the upper half.
                h.reach().store(root + 0x800, 8, (root + 0x1000) | 3);
                h.reach().store(root + 0x1000, 8, 0x83);
                root
            })
        }),
    ]
}

fn write_msr<M: Machine>(h: &mut Hostile<M>, msr: u64, value: u64) -> Ended {
    let mut registers = Registers {
        rax: value & 0xffff_ffff,
        rcx: msr,
        rdx: value >> 32,
        ..Registers::default()
    };
    h.machine().run(WRITE, &mut registers)
}

fn read_msr<M: Machine>(h: &mut Hostile<M>, msr: u64) -> u64 {
    let mut registers = Registers {
        rcx: msr,
        ..Registers::default()
    };
    h.machine().run(READ, &mut registers);
    registers.rdx << 32 | registers.rax
}

const fn is_canonical(address: u64) -> bool {
    let top = address.cast_signed() >> 47;
    top == 0 || top == -1
}

/// Sets every base to addresses of all kinds, canonical or not: the others are refused
/// and change nothing. Then memory is reached by them.
fn odd_bases<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for _ in 0..h.times(500) {
        let random = h.random.word();
        let value = h.random.pick(&[
            0,
            0x7fff_ffff_ffff,
            0x8000_0000_0000,
            0xffff_7fff_ffff_ffff,
            0xffff_8000_0000_0000,
            0xffff_ffff_8010_0000,
            0xfee0_0000,
            u64::MAX,
            1 << 63,
            random,
        ]);
        for msr in ADDRESSES {
            let before = read_msr(h, msr);
            let ended = write_msr(h, msr, value);
            let (end, kept) = if is_canonical(value) {
                (RETURNED, value)
            } else {
                (GENERAL_PROTECTION, before)
            };
            expect_end("address in an MSR", msr, &[end], ended)?;
            // The kernel keeps no FS base above what it maps for threads.
            if msr != FS_BASE || value < KERNEL || !is_canonical(value) {
                expect("address in an MSR", msr, kept, read_msr(h, msr))?;
            }
        }
        expect_end("swapgs", 0, &[RETURNED], h.run(SWAP, 0, 0))?;
        // mov eax, fs:[rdi]; mov eax, gs:[rdi]; mov fs:[rdi], eax. Of device registers
        // only the local APIC's task priority is hit, with 0.
        for code in [&[0x64, 0x8b, 0x07][..], &[0x65, 0x8b, 0x07]] {
            let ended = h.run(code, 0, 0x80);
            expect_end("load by a base", value, &[RETURNED, 13, 14, 12], ended)?;
        }
        let ended = h.run(&[0x64, 0x89, 0x07], 0, 0xfee0_0080_u64.wrapping_sub(value));
        expect_end("store by a base", value, &[RETURNED, 13, 14, 12], ended)?;
        h.still_there()?;
    }
    for msr in ADDRESSES {
        write_msr(h, msr, 0);
    }
    h.still_there()
}

/// Sets its bases to [`WATCHED`], which are those of another guest as well, changes them
/// behind the kernel's back, and yields, so that the other guest may be next.
fn base_yields<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // 1: cli; wrfsbase r9; wrgsbase r9; mov rdx, -7; syscall; mov rsp, rbx; dec r15; jnz 1b
    let code = [
        0xfa, 0xf3, 0x49, 0x0f, 0xae, 0xd1, 0xf3, 0x49, 0x0f, 0xae, 0xd9, 0x48, 0xc7, 0xc2, 0xf9,
        0xff, 0xff, 0xff, 0x0f, 0x05, 0x48, 0x89, 0xdc, 0x49, 0xff, 0xcf, 0x75, 0xe4,
    ];
    for msr in [FS_BASE, GS_BASE] {
        expect_end("base", msr, &[RETURNED], write_msr(h, msr, WATCHED))?;
    }
    let mut registers = Registers {
        r9: WATCHED + 0x1000,
        r15: h.times(20_000),
        ..Registers::default()
    };
    let ended = h.machine().run(&code, &mut registers);
    let left = registers.r15;
    expect_end("yield with other bases", left, &[RETURNED], ended)?;
    for msr in [FS_BASE, GS_BASE] {
        write_msr(h, msr, 0);
    }
    h.still_there()
}

/// Executes what stands for rewritten instructions in other images: in this one it is
/// what the CPU says.
fn invalid_bytes<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let cases: [&[u8]; 6] = [
        &[0x06],
        &[0x07],
        &[0x66, 0x06],
        &[0x66, 0x0f, 0xae, 0xd0],
        &[0x66, 0x48, 0x0f, 0xae, 0xd0],
        &[0x66, 0x49, 0x0f, 0xae, 0xdf],
    ];
    for round in 0..h.times(64) {
        for code in cases {
            let value = h.random.odd();
            let ended = h.run(code, value, value);
            expect_end("invalid bytes", round, &[INVALID_OPCODE], ended)?;
        }
        h.still_there()?;
    }
    // xgetbv and xsetbv before they are switched on, and with what they do not take. A
    // kernel that uses XSAVE has the first switched on for everybody: it reads XCR0.
    let (read, write) = ([0x0f, 0x01, 0xd0], [0x0f, 0x01, 0xd1]);
    let ended = h.run(&read, 0, 0);
    expect_end(
        "extended control read",
        0,
        &[INVALID_OPCODE, RETURNED],
        ended,
    )?;
    let ended = h.run(&write, 0, 0);
    expect_end("extended control", 0, &[INVALID_OPCODE], ended)?;
    Ok(())
}

/// Places a GDT (code at 0x10 and data at 0x18, as the boot protocol has them, and a task
/// state segment of this base and limit at 0x20) and loads it.
fn load_gdt<M: Machine>(h: &mut Hostile<M>, base: u64, limit: u64) -> Ended {
    let scratch = h.machine().scratch();
    let gdt = scratch + 0x800;
    let task = limit & 0xffff | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    let descriptors = [
        0,
        0,
        0x00af_9a00_0000_ffff,
        0x00cf_9200_0000_ffff,
        task,
        base >> 32,
    ];
    for (at, word) in (gdt..).step_by(8).zip(descriptors) {
        h.reach().store(at, 8, word);
    }
    load_table(h, gdt, 47)
}

/// Loads a GDT of this base and limit.
fn load_table<M: Machine>(h: &mut Hostile<M>, base: u64, limit: u16) -> Ended {
    let scratch = h.machine().scratch();
    h.reach().place(scratch, &limit.to_le_bytes());
    h.reach().place(scratch + 2, &base.to_le_bytes());
    // lgdt [rdi]
    h.run(&[0x0f, 0x01, 0x17], 0, scratch)
}

/// Loads tables that lie where no memory is, and selectors from them; then task state
/// segments of every type. At last there is a good table.
fn descriptor_tables<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // ltr ax; mov ss, eax; lldt ax, which loads nothing
    let loads: [&[u8]; 3] = [&[0x0f, 0x00, 0xd8], &[0x8e, 0xd0], &[0x0f, 0x00, 0xd0]];
    let end = h.machine().ram().end;
    for base in NOWHERE.into_iter().chain([end - 16, end, u64::MAX]) {
        for limit in [0, 7, 47, u16::MAX] {
            // Exceptions push the selectors that are current, and nothing looks at them.
            expect_end("GDT", base, &[RETURNED], load_table(h, base, limit))?;
            for code in &loads[..2] {
                let ended = h.run(code, 0x20, 0);
                expect_end("selector of no table", base, &[GENERAL_PROTECTION], ended)?;
            }
        }
    }
    for base in [1 << 47, 1 << 63, 0xffff_7fff_ffff_ffff] {
        let ended = load_table(h, base, 0xffff);
        expect_end(
            "GDT that is not canonical",
            base,
            &[GENERAL_PROTECTION],
            ended,
        )?;
    }
    for round in 0..h.times(200) {
        let base = h.random.odd();
        let limit = h.random.odd();
        expect_end("GDT", base, &[RETURNED], load_gdt(h, base, limit))?;
        expect_end("task", base, &[RETURNED], h.run(loads[0], 0x20, 0))?;
        // It is busy.
        expect_end(
            "task",
            base,
            &[GENERAL_PROTECTION],
            h.run(loads[0], 0x20, 0),
        )?;
        let word = h.random.word();
        let gdt = h.machine().scratch() + 0x800;
        h.reach().store(gdt + 0x20, 8, word);
        for code in loads {
            let selector = h.random.below(0x40);
            let ended = h.run(code, selector, 0);
            let allowed = [RETURNED, GENERAL_PROTECTION];
            expect_end("random selector", selector, &allowed, ended)?;
        }
        if round % 16 == 0 {
            h.still_there()?;
        }
    }
    let task = h.machine().scratch() + 0x900;
    expect_end("GDT", 0, &[RETURNED], load_gdt(h, task, 0x67))?;
    h.still_there()
}

/// Takes #UD with a gate whose stack is `stack`, by a task state segment with this limit.
fn fault_on<M: Machine>(h: &mut Hostile<M>, limit: u64, stack: u64) -> Verdict {
    let scratch = h.machine().scratch();
    let task = scratch + 0x900;
    h.reach().store(task + 36, 8, stack);
    load_gdt(h, task, limit);
    // ltr ax
    h.run(&[0x0f, 0x00, 0xd8], 0x20, 0);
    let handler = scratch + 0x100;
    h.reach().place(handler, &[0x0f, 0x0b]);
    // A gate with IST 1.
    let low = handler & 0xffff | 0x10 << 16 | 0x8e01 << 32 | (handler >> 16 & 0xffff) << 48;
    let gate = scratch + 0x1000 + 16 * INVALID_OPCODE;
    h.reach().store(gate, 8, low);
    h.reach().store(gate + 8, 8, handler >> 32);
    h.reach().place(scratch, &0xfff_u16.to_le_bytes());
    h.reach()
        .place(scratch + 2, &(scratch + 0x1000).to_le_bytes());
    // lidt [rdi]; ud2
    let ended = h.run(&[0x0f, 0x01, 0x1f, 0x0f, 0x0b], 0, scratch);
    survived(ended)
}

/// Loads the page table that `build` makes in scratch RAM; the address is what it returns.
fn load_page_table<M: Machine>(
    h: &mut Hostile<M>,
    build: fn(&mut Hostile<M>, u64) -> u64,
) -> Verdict {
    let scratch = h.machine().scratch();
    for at in (0..0x4000).step_by(8) {
        h.reach().store(scratch + at, 8, 0);
    }
    let root = build(h, scratch);
    // mov cr3, rax
    let ended = h.run(&[0x0f, 0x22, 0xd8], root, 0);
    survived(ended)
}
