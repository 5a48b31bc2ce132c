//! Attacks by chance: ports, device memory, model-specific and control registers, in any order.

use probe::check::Verdict;
use probe::target::{BUS_MASTER, MEMORY};

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::machine::{Machine, Registers};
use crate::ports::EXIT_PORT;

/// It returns, or #UD, #GP, #PF.
const ALLOWED: [u64; 4] = [0x100, 6, 13, 14];
/// COM1, which the results go to.
const CONSOLE: core::ops::Range<u16> = 0x3f8..0x400;
/// The local APIC's page, with whose timer the guest waits.
const LAPIC: core::ops::Range<u64> = 0xfee0_0000..0xfee0_1000;
/// mov to CR3: its second byte, and the register's number.
const TO_CR3: u64 = 0x2203;
/// The APIC's base and mode, and its registers as MSRs.
const APIC_BASE: u64 = 0x1b;
const X2APIC: core::ops::Range<u64> = 0x800..0x900;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 2] {
    [
        Attack {
            name: "random",
            group: Group::Common,
            run: random,
        },
        Attack {
            name: "local-apic",
            group: Group::Last,
            run: local_apic,
        },
    ]
}

fn port<M: Machine>(h: &mut Hostile<M>) -> u16 {
    loop {
        let port = match h.random.below(4) {
            0 => 0xcf8 + h.random.below(8) as u16,
            1 => h.random.below(0x100) as u16,
            _ => h.random.word() as u16,
        };
        if port != EXIT_PORT && !CONSOLE.contains(&port) {
            return port;
        }
    }
}

fn address<M: Machine>(h: &mut Hostile<M>) -> u64 {
    loop {
        let bar = h.random.pick(&[0, 1, 3]);
        let base = h.target.bar_address(bar);
        let address = match h.random.below(4) {
            0 => base + h.random.below(0x4000),
            1 => 0xfec0_0000 + h.random.below(0x1000),
            _ => 0xc000_0000 + h.random.below(0x3fff_fff0),
        };
        if !LAPIC.contains(&address) && !LAPIC.contains(&(address + 7)) {
            return address;
        }
    }
}

fn msr<M: Machine>(h: &mut Hostile<M>) -> u64 {
    let register = match h.random.below(4) {
        0 => h.random.pick(&[
            0x10,
            0x277,
            0x6e0,
            0xc000_0080,
            0xc000_0081,
            0xc000_0082,
            0xc000_0100,
            0xc000_0101,
            0xc000_0102,
            0x174,
            0x3a,
        ]),
        1 => h.random.below(0x1000),
        2 => 0xc000_0000 | h.random.below(0x200),
        _ => h.random.word() & 0xffff_ffff,
    };
    if register == APIC_BASE || X2APIC.contains(&register) {
        return 0;
    }
    register
}

fn random<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for round in 0..h.times(1_000_000) {
        let value = h.random.odd();
        let bytes = h.random.pick(&[1, 2, 4, 8]);
        let write = h.random.below(2) == 0;
        let (what, place, ended) = match h.random.below(8) {
            0..=2 => {
                let port = port(h);
                let bytes = if bytes == 8 { 4 } else { bytes };
                let ended = if write {
                    h.reach().output(port, bytes, value as u32)
                } else {
                    h.reach().input(port, bytes).0
                };
                ("port", port.into(), ended)
            }
            3..=5 => {
                let address = address(h);
                let ended = if write {
                    h.reach().store(address, bytes, value)
                } else {
                    h.reach().load(address, bytes).0
                };
                ("memory", address, ended)
            }
            6 => {
                let register = msr(h);
                let mut registers = Registers {
                    rax: value & 0xffff_ffff,
                    rcx: register,
                    rdx: value >> 32,
                    ..Registers::default()
                };
                // wrmsr; rdmsr
                let code = if write { [0x0f, 0x30] } else { [0x0f, 0x32] };
                ("MSR", register, h.machine().run(&code, &mut registers))
            }
            _ => {
                let number = h.random.below(8) as u8;
                let operation = h.random.pick(&[0x20, 0x21, 0x22, 0x23]);
                // mov between RAX and a control or debug register. CR8 is the
                // local APIC's.
                let code = [0x0f, operation, 0xc0 | number << 3];
                let which = u64::from(operation) << 8 | u64::from(number);
                // Another page table than the one that is there ends the guest: that has
                // attacks of its own.
                let value = if which == TO_CR3 { 0 } else { value };
                ("control register", which, h.run(&code, value, 0))
            }
        };
        let allowed = if what == "control register" {
            &[0x100, 6, 13, 14, 1][..]
        } else {
            &ALLOWED
        };
        expect_end(what, place, allowed, ended)?;
        if round % 4096 == 0 {
            h.still_there()?;
            // A random write may have switched the function off.
            h.target.set_command(MEMORY | BUS_MASTER);
        }
    }
    h.still_there()
}

/// Makes random accesses to the local APIC as memory, in its own MSRs, and in both of
/// its modes.
fn local_apic<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let times = h.times(20_000);
    for round in 0..times {
        let value = h.random.odd();
        let bytes = h.random.pick(&[4, 4, 4, 1, 2, 8]);
        let aligned = h.random.below(0x100) * 16;
        let offset = h.random.pick(&[aligned, aligned, aligned + 4, 0x30c]);
        let place = LAPIC.start + offset;
        let write = h.random.below(2) == 0;
        let ended = if round < times / 2 {
            if write {
                h.reach().store(place, bytes, value)
            } else {
                h.reach().load(place, bytes).0
            }
        } else {
            let register = if h.random.below(64) == 0 {
                APIC_BASE
            } else {
                X2APIC.start + h.random.below(0x100)
            };
            let value = if register == APIC_BASE {
                0xfee0_0d00
            } else {
                value
            };
            let mut registers = Registers {
                rax: value & 0xffff_ffff,
                rcx: register,
                rdx: value >> 32,
                ..Registers::default()
            };
            let code = if write { [0x0f, 0x30] } else { [0x0f, 0x32] };
            h.machine().run(&code, &mut registers)
        };
        expect_end("local APIC", place, &ALLOWED, ended)?;
    }
    h.still_there()
}
