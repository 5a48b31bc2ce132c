//! Attacks by segments: unused selectors, and the bases that the kernel keeps for each thread.

use probe::check::Verdict;

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::machine::Machine;

const RETURNED: u64 = 0x100;
/// Exceptions that an odd selector can cause: #TS, #NP, #SS, #GP, #PF, #UD.
const REFUSED: [u64; 7] = [RETURNED, 10, 11, 12, 13, 14, 6];

/// lea rcx, [rip + 4]; push rax; push rcx; retfq: goes on behind itself with
/// RAX as its code selector.
const FAR_RETURN: [u8; 11] = [0x48, 0x8d, 0x0d, 4, 0, 0, 0, 0x50, 0x51, 0x48, 0xcb];

/// mov rdx, rsp; mov ecx, ss; push rcx; push rdx; push 2; push rax; lea rcx,
/// [rip + 3]; push rcx; iretq: as above, by a frame.
const INTERRUPT_RETURN: [u8; 19] = [
    0x48, 0x89, 0xe2, 0x8c, 0xd1, 0x51, 0x52, 0x6a, 0x02, 0x50, 0x48, 0x8d, 0x0d, 3, 0, 0, 0, 0x51,
    0x48,
];

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 3] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [
        attack("far-returns", far_returns),
        attack("segment-registers", segment_registers),
        attack("bases", bases),
    ]
}

/// Returns to every low selector and to random ones.
fn far_returns<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for round in 0..h.times(512) {
        let selector = if round < 256 {
            round
        } else {
            h.random.below(0x1_0000)
        };
        let ended = h.run(&FAR_RETURN, selector, 0);
        expect_end("far return", selector, &REFUSED, ended)?;
        let mut code = [0; INTERRUPT_RETURN.len() + 1];
        code[..INTERRUPT_RETURN.len()].copy_from_slice(&INTERRUPT_RETURN);
        code[INTERRUPT_RETURN.len()] = 0xcf;
        let ended = h.run(&code, selector, 0);
        expect_end("interrupt return", selector, &REFUSED, ended)?;
        // jmp far [rdi]; call far [rdi]
        let scratch = h.machine().scratch();
        let target = scratch + 0xff0;
        h.reach().place(target, &[0x0f, 0x0b]);
        // A far pointer: offset in 32 bits, selector.
        h.reach().store(scratch, 8, selector << 32 | target);
        for code in [&[0xff, 0x2f][..], &[0xff, 0x1f]] {
            let ended = h.run(code, 0, scratch);
            expect_end("far jump", selector, &REFUSED, ended)?;
        }
        h.still_there()?;
    }
    Ok(())
}

/// Loads each segment register with every low selector and with random ones.
fn segment_registers<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for round in 0..h.times(512) {
        let selector = if round < 256 {
            round
        } else {
            h.random.below(0x1_0000)
        };
        // es, ss, ds, fs, gs; cs cannot be loaded so
        for register in [0xc0, 0xd0, 0xd8, 0xe0, 0xe8, 0xc8] {
            let ended = h.run(&[0x8e, register], selector, 0);
            expect_end("segment register", selector, &REFUSED, ended)?;
        }
    }
    h.still_there()
}

/// Sets FS and GS bases to addresses of all components, with a trap after each:
/// a component that used its own bases would now use ours.
fn bases<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let scratch = h.machine().scratch();
    for _ in 0..h.times(1_000) {
        let random = h.random.word();
        let base = h.random.pick(&[
            0,
            scratch,
            0xfee0_0000,
            0x40_0000,
            0x7fff_ffff_f000,
            0xffff_ffff_8000_0000,
            random & 0x7fff_ffff_ffff,
            random,
        ]);
        let canonical = (base as i64) >> 47 == 0 || (base as i64) >> 47 == -1;
        // wrfsbase rax; wrgsbase rax; cli
        for code in [
            &[0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xfa][..],
            &[0xf3, 0x48, 0x0f, 0xae, 0xd8, 0xfa],
        ] {
            let ended = h.run(code, base, 0);
            let allowed: &[u64] = if canonical {
                &[RETURNED]
            } else {
                &[13, RETURNED]
            };
            expect_end("base", base, allowed, ended)?;
        }
        h.still_there()?;
    }
    Ok(())
}
