//! Attacks by port instructions.

use probe::check::{Verdict, expect};
use spec::posted;

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::machine::{Machine, Registers};

/// A write there is how a guest ends itself.
pub const EXIT_PORT: u16 = 0xf4;

/// Data register of COM1.
const CONSOLE: u16 = 0x3f8;

const RETURNED: u64 = 0x100;
const GENERAL_PROTECTION: u64 = 13;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 3] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [
        attack("ports", ports),
        attack("port-strings", strings),
        attack("posted", posted_interrupts),
    ]
}

/// Accesses every port at every width, in and out; with `count`, so many of them.
fn ports<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let step = (0x1_0000 / h.times(0x1_0000).clamp(1, 0x1_0000)) as usize;
    for port in (0..=u16::MAX).step_by(step) {
        // The console gets line ends and no characters.
        let value = match port {
            CONSOLE => u32::from(b'\n'),
            // No block can be there.
            posted::PORT => 1,
            _ => h.random.word() as u32,
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

/// Has interrupts posted where no memory is, and then in its memory, in which it lies about
/// everything: bits of vectors that never came, deadlines of any kind. A halt with a bit set
/// ends, and only the block is written to.
fn posted_interrupts<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    const PATTERN: u64 = 0x5aa5_1234_8765_c33c;
    let (scratch, ram) = (h.machine().scratch(), h.machine().ram());
    let ask = |h: &mut Hostile<M>, address: u64| {
        let ended = h.reach().output(posted::PORT, 4, address as u32);
        expect_end("ask for posted interrupts", address, &[RETURNED], ended)
    };
    for round in 0..h.times(200) {
        let far = h.random.odd() & !(posted::SIZE - 1);
        for address in [scratch + 1, scratch + posted::SIZE / 2, ram.end, far | 1] {
            ask(h, address)?;
        }
        h.reach().store(scratch + posted::SIZE, 8, PATTERN);
        ask(h, scratch)?;
        for word in 0..posted::VECTOR_WORDS as u64 {
            let bits = h.random.odd();
            h.reach().store(scratch + 8 * word, 8, bits | 1);
        }
        let now = h.random.word() >> 32;
        let deadline = h.random.pick(&[0, 1, now, u64::MAX, 1 << 63, far]);
        h.reach().store(scratch + posted::DEADLINE, 8, deadline);
        // sti; hlt
        let ended = h.run(&[0xfb, 0xf4], 0, 0);
        expect_end("halt with a bit set", round, &[RETURNED], ended)?;
        ask(h, 0)?;
        let (_, kept) = h.reach().load(scratch + posted::SIZE, 8);
        expect("memory behind the block", round as u16, PATTERN, kept)?;
        h.still_there()?;
    }
    // cli: as it was.
    h.run(&[0xfa], 0, 0);
    h.still_there()
}
