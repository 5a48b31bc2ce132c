//! Attacks by port instructions.

use probe::check::Verdict;

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::machine::{Machine, Registers};

/// A write there is how a guest ends itself.
pub const EXIT_PORT: u16 = 0xf4;

/// Data register of COM1.
const CONSOLE: u16 = 0x3f8;

const RETURNED: u64 = 0x100;
const GENERAL_PROTECTION: u64 = 13;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 2] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [attack("ports", ports), attack("port-strings", strings)]
}

/// Accesses every port at every width, in and out; with `count`, so many of them.
fn ports<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let step = (0x1_0000 / h.times(0x1_0000).clamp(1, 0x1_0000)) as usize;
    for port in (0..=u16::MAX).step_by(step) {
        // The console gets line ends and no characters.
        let value = if port == CONSOLE {
            u32::from(b'\n')
        } else {
            h.random.word() as u32
        };
        for bytes in [1, 2, 4] {
            let (ended, _) = h.reach().input(port, bytes);
            expect_end("in", port.into(), &[RETURNED], ended)?;
            if port != EXIT_PORT {
                let ended = h.reach().output(port, bytes, value);
                expect_end("out", port.into(), &[RETURNED], ended)?;
            }
        }
    }
    Ok(())
}

/// Executes ins and outs, alone and repeated, with counts that would never end: they
/// are not emulated, so they raise #GP.
fn strings<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let scratch = h.machine().scratch();
    for _ in 0..h.times(200) {
        let last = h.random.pick(&[0x6c, 0x6d, 0x6e, 0x6f]);
        let prefix = h.random.pick(&[0x90, 0xf3, 0xf2, 0x66, 0x48]);
        let pointer = h
            .random
            .pick(&[scratch, 0, u64::MAX, 1 << 47, scratch + 0x3fff]);
        let mut registers = Registers {
            rcx: h.random.odd(),
            rdx: h.random.odd() & 0xffff,
            rsi: pointer,
            rdi: pointer,
            ..Registers::default()
        };
        let port = registers.rdx;
        let code = [prefix, last];
        let ended = h.machine().run(&code, &mut registers);
        // rep with a count of 0 does nothing; a segment's or page's fault may
        // come before the port's.
        let allowed = [GENERAL_PROTECTION, RETURNED, 12, 14];
        let allowed = if registers.rcx == 0 {
            &allowed[..]
        } else {
            &[allowed[0], 12, 14][..]
        };
        expect_end("string I/O", port, allowed, ended)?;
    }
    h.still_there()
}
