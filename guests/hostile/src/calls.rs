//! Attacks by seL4's own system calls: the guest is a thread of the kernel, and holds one capability, to the endpoint over which its faults go.

use probe::check::Verdict;

use crate::attack::{Attack, Group, Hostile, expect_end};
use crate::machine::{Ended, Machine, Registers};

/// cli; syscall; mov rsp, rbx. The kernel keeps no stack pointer over a system
/// call: the one that it has is from the previous trap, which is the cli's.
const CALL: [u8; 6] = [0xfa, 0x0f, 0x05, 0x48, 0x89, 0xdc];

const RETURNED: u64 = 0x100;
const INVALID_OPCODE: u64 = 6;

/// The calls' numbers (seL4 5.0.0, libsel4 syscall.xml): Call, ReplyRecv, Send,
/// NBSend, Recv, Reply, Yield, NBRecv. Debug calls follow.
const FIRST_CALL: i64 = -1;
const LAST_CALL: i64 = -8;
const SYS_CALL: i64 = -1;
const SYS_SEND: i64 = -3;
const SYS_NB_SEND: i64 = -4;

/// The guest's only capability.
const ENDPOINT: u64 = 1;

/// Label of the fault message about an exception (seL4 5.0.0, `seL4_FaultType`).
const USER_EXCEPTION: u64 = 3;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 3] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [
        attack("system-calls", system_calls),
        attack("debug-calls", debug_calls),
        attack("forged-faults", forged_faults),
    ]
}

fn call<M: Machine>(
    h: &mut Hostile<M>,
    number: i64,
    pointer: u64,
    info: u64,
    words: [u64; 4],
) -> Ended {
    let [r10, r8, r9, r15] = words;
    let mut registers = Registers {
        rax: h.random.word(),
        rcx: 0,
        rdx: number.cast_unsigned(),
        rdi: pointer,
        rsi: info,
        r8,
        r9,
        r10,
        r15,
    };
    h.machine().run(&CALL, &mut registers)
}

fn words<M: Machine>(h: &mut Hostile<M>) -> [u64; 4] {
    core::array::from_fn(|_| h.random.odd())
}

/// Makes every call, with capabilities that do not exist: it returns, or is #UD as on
/// a CPU without system calls.
fn system_calls<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for round in 0..h.times(4_000) {
        let number = FIRST_CALL - h.random.below((FIRST_CALL - LAST_CALL + 1) as u64) as i64;
        // The endpoint's turn comes with the forged faults.
        let pointer = match h.random.below(1 << 20) {
            ENDPOINT => 0,
            pointer => pointer,
        };
        let info = h.random.odd();
        let words = words(h);
        let ended = call(h, number, pointer, info, words);
        expect_end(
            "system call",
            number.unsigned_abs(),
            &[RETURNED, INVALID_OPCODE],
            ended,
        )?;
        if round % 64 == 0 {
            h.still_there()?;
        }
    }
    h.still_there()
}

/// Makes calls that only a debug kernel has, and ones that no kernel has.
fn debug_calls<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for round in 0..h.times(400) {
        let number = if round < 64 {
            LAST_CALL - 1 - round as i64
        } else if round < 128 {
            round as i64 - 64
        } else {
            h.random.odd().cast_signed()
        };
        if (LAST_CALL..=FIRST_CALL).contains(&number) {
            continue;
        }
        let info = h.random.odd();
        let words = words(h);
        let ended = call(h, number, 0, info, words);
        expect_end(
            "debug call",
            number.cast_unsigned(),
            &[RETURNED, INVALID_OPCODE],
            ended,
        )?;
    }
    h.still_there()
}

/// Sends messages to its own fault endpoint, of every label and length. The
/// monitor cannot tell them from faults, so it must rely on the guest's registers
/// only. They may harm this guest, and it goes on.
fn forged_faults<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for round in 0..h.times(1_500) {
        let number = h.random.pick(&[SYS_CALL, SYS_SEND, SYS_NB_SEND]);
        let label = if round < 256 {
            round % 32
        } else {
            h.random.odd() >> 12
        };
        let length = if round < 128 {
            round
        } else {
            h.random.below(128)
        };
        // Extra capabilities are the kernel's to refuse.
        let extra = h.random.below(4);
        let mut words = words(h);
        if label == USER_EXCEPTION && h.random.below(2) == 0 {
            // #GP, so that the monitor looks at the code behind the call.
            words[3] = 13;
        }
        let info = label << 12 | extra << 7 | length;
        // However it ends: that it ends, and that the next one works, is all.
        call(h, number, ENDPOINT, info, words);
        if round % 16 == 0 {
            h.still_there()?;
        }
    }
    h.still_there()
}
