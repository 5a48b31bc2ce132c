//! Attacks that repeat one action without a pause; their cost to other guests is compared with that of a spinning guest.
//!
//! Each is a tight loop of instructions, so that hardly anything else happens
//! between two rounds. A count is in thousands of rounds.

use probe::check::{Stop, Verdict, expect};
use probe::target::{
    ADDRESS, ADDRESS_HIGH, BAR0, BUS_MASTER, CONTROL, DATA, ENABLE, FUNCTION_MASK, INTX_DISABLE,
    MEMORY, MSI_ENABLE,
};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Ended, Machine, Registers};
use crate::nic;

/// Rounds of a loop that is run once.
const ROUNDS: u64 = 1_000;
/// Rounds of those loops where each waits for a timer.
const WAITS: u64 = 100;
/// First address of interrupt messages, and one that is none (M17).
const MESSAGES: u64 = 0xfee0_0000;
const NO_MESSAGE: u64 = 0x1000;

/// The local APIC's registers (Intel SDM vol. 3, table 11-1).
const ICR_LOW: u64 = 0xfee0_0300;
const LVT_TIMER: u64 = 0xfee0_0320;
const TIMER_INITIAL: u64 = 0xfee0_0380;
const TIMER_DIVIDE: u64 = 0xfee0_03e0;
/// Timer modes in the LVT: one-shot is 0.
const PERIODIC: u64 = 1 << 17;
const DEADLINE: u64 = 2 << 17;
/// Divide by 1, and by 16 as the kit has it.
const DIVIDE_BY_1: u64 = 0b1011;
const DIVIDE_BY_16: u64 = 0b0011;
/// The local APIC's pin of the 8259s, and the delivery mode for them.
const LVT_LINT0: u64 = 0xfee0_0350;
const EXTERNAL: u64 = 0x700;
/// The kit's vector of the timer, and one that has no user.
const TIMER_VECTOR: u64 = 0x40;
const VECTOR: u64 = 0x62;
/// Interrupt command: to this CPU, fixed.
const TO_SELF: u64 = 1 << 18;
/// IA32_TSC_DEADLINE.
const DEADLINE_MSR: u64 = 0x6e0;
/// Where firmware says which pin of the I/O APIC a function's INTx is (PCI 3.0,
/// 6.2.4), the pins there are, and its registers (82093AA datasheet, section 3).
const INTERRUPT_LINE: u8 = 0x3c;
const PINS: u64 = 24;
const IO_APIC: u64 = 0xfec0_0000;
const IO_APIC_WINDOW: u64 = 0xfec0_0010;
const REDIRECTION: u64 = 0x10;
const PIN_LEVEL: u64 = 1 << 15;
const PIN_MASKED: u64 = 1 << 16;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 14] {
    let attack = |name, run| Attack {
        name,
        group: Group::Mode,
        run,
    };
    [
        attack("spin", spin),
        attack("cli-loop", cli_loop),
        attack("decode-toggles", decode_toggles),
        attack("mask-toggles", mask_toggles),
        attack("bar-flood", bar_flood),
        attack("console-flood", console_flood),
        attack("timer-flood", timer_flood),
        attack("pit-flood", pit_flood),
        attack("one-shot-flood", one_shot_flood),
        attack("deadline-past", deadline_past),
        attack("self-ipi", self_ipi),
        attack("msix-flood", msix_flood),
        attack("msi-flood", msi_flood),
        attack("intx-flood", intx_flood),
    ]
}

/// Runs a loop that counts R15 down from `rounds` to 0, as often as requested. It
/// must come to its end each time.
fn again<M: Machine>(
    h: &mut Hostile<M>,
    what: &'static str,
    code: &[u8],
    rounds: u64,
    registers: Registers,
) -> Verdict {
    for round in 0..h.times(20) * ROUNDS / rounds {
        let mut registers = Registers {
            r15: rounds,
            ..registers
        };
        let ended = h.machine().run(code, &mut registers);
        expect(what, round, Ended::Returned.number(), ended.number())?;
    }
    Ok(())
}

/// Spins: the baseline of the others.
fn spin<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // 1: dec r15; jnz 1b
    let code = [0x49, 0xff, 0xcf, 0x75, 0xfb];
    again(h, "spin", &code, ROUNDS, Registers::default())
}

/// Executes the shortest instruction that traps.
fn cli_loop<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // 1: cli; dec r15; jnz 1b
    let code = [0xfa, 0x49, 0xff, 0xcf, 0x75, 0xfa];
    again(h, "cli", &code, ROUNDS, Registers::default())
}

/// Toggles the command register's memory bit: BARs are mapped and unmapped.
fn decode_toggles<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    for _ in 0..h.times(20) * ROUNDS / 2 {
        h.target.set_command(0);
        h.target.set_command(MEMORY);
    }
    Ok(())
}

/// Toggles the function mask with all entries unmasked and none of them a valid
/// message: each toggle has every bind refused anew.
fn mask_toggles<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let entries = h.target.msix()?.entries;
    h.target.set_command(MEMORY);
    for entry in 0..entries {
        for (field, value) in [
            (ADDRESS, NO_MESSAGE),
            (ADDRESS_HIGH, 0),
            (DATA, VECTOR),
            (CONTROL, 0),
        ] {
            h.target.set_entry(entry, field, 4, value)?;
        }
    }
    h.machine().line(format_args!("# mask-toggles: {entries}"));
    for _ in 0..h.times(20) * ROUNDS / 2 {
        h.target.set_control(ENABLE | FUNCTION_MASK)?;
        h.target.set_control(ENABLE)?;
    }
    h.target.set_control(0)
}

/// Moves a BAR all the time, decoded at each of its places.
fn bar_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let rounds = h.times(4) * ROUNDS / 4;
    move_bar(h, rounds);
    Ok(())
}

/// Moves BAR 0 to another place and back so often.
pub fn move_bar<M: Machine>(h: &mut Hostile<M>, rounds: u64) {
    let here = h.target.bar_address(0);
    for round in 0..rounds {
        h.target.set_command(0);
        let place = if round % 2 == 0 { 0xc000_0000 } else { here };
        h.target.set_dword(BAR0, place as u32);
        h.target.set_command(MEMORY);
    }
    h.target.restore();
}

/// Prints lines of 64 characters without end.
fn console_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // 1: mov eax, r15d; and eax, 63; mov ecx, 10; mov esi, 'x'; test eax, eax;
    // cmovz esi, ecx; mov eax, esi; out dx, al; dec r15; jnz 1b
    let code = [
        0x44, 0x89, 0xf8, 0x83, 0xe0, 63, 0xb9, 10, 0, 0, 0, 0xbe, b'x', 0, 0, 0, 0x85, 0xc0, 0x0f,
        0x44, 0xf1, 0x89, 0xf0, 0xee, 0x49, 0xff, 0xcf, 0x75, 0xe3,
    ];
    let com1 = Registers {
        rdx: 0x3f8,
        ..Registers::default()
    };
    let verdict = again(h, "console output", &code, ROUNDS, com1);
    // The next output begins a line.
    h.reach().output(0x3f8, 1, 10);
    verdict
}

/// Sets up the timer in a mode; its interrupts come at the kit's own vector.
fn timer<M: Machine>(h: &mut Hostile<M>, mode: u64) {
    let reach = h.reach();
    reach.store(TIMER_INITIAL, 4, 0);
    reach.store(LVT_TIMER, 4, mode | TIMER_VECTOR);
    reach.store(TIMER_DIVIDE, 4, DIVIDE_BY_1);
}

/// Restores the timer as the kit had set it.
fn timer_back<M: Machine>(h: &mut Hostile<M>) {
    let reach = h.reach();
    reach.store(TIMER_INITIAL, 4, 0);
    reach.store(LVT_TIMER, 4, TIMER_VECTOR);
    reach.store(TIMER_DIVIDE, 4, DIVIDE_BY_16);
}

/// Sleeps, woken by a periodic timer as often as possible.
fn timer_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    timer(h, PERIODIC);
    h.reach().store(TIMER_INITIAL, 4, 1);
    // 1: sti; hlt; dec r15; jnz 1b
    let code = [0xfb, 0xf4, 0x49, 0xff, 0xcf, 0x75, 0xf9];
    let verdict = again(h, "periodic timer", &code, WAITS, Registers::default());
    timer_back(h);
    verdict
}

/// Sleeps, woken by a PC's 8254 as often as possible: input 0 of an 8259 that ends its
/// interrupts by itself, at the vector of the kit's timer.
fn pit_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // The kit has masked the pin.
    h.reach().store(LVT_LINT0, 4, EXTERNAL);
    let first = TIMER_VECTOR as u32;
    for (port, value) in [
        (0x20, 0x11),
        (0x21, first),
        (0x21, 4),
        (0x21, 3),
        (0x21, 0xfe),
        (0x43, 0x34),
        (0x40, 2),
        (0x40, 0),
    ] {
        h.reach().output(port, 1, value);
    }
    // 1: sti; hlt; dec r15; jnz 1b
    let code = [0xfb, 0xf4, 0x49, 0xff, 0xcf, 0x75, 0xf9];
    let verdict = again(h, "8254", &code, WAITS, Registers::default());
    for (port, value) in [(0x21, 0xff), (0x43, 0x30)] {
        h.reach().output(port, 1, value);
    }
    verdict
}

/// Sleeps, woken by single shots of the timer as often as possible.
fn one_shot_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    timer(h, 0);
    // 1: mov dword ptr [rdi], 1; sti; hlt; dec r15; jnz 1b
    let code = [
        0xc7, 0x07, 1, 0, 0, 0, 0xfb, 0xf4, 0x49, 0xff, 0xcf, 0x75, 0xf3,
    ];
    let initial = Registers {
        rdi: TIMER_INITIAL,
        ..Registers::default()
    };
    let verdict = again(h, "one-shot timer", &code, WAITS, initial);
    timer_back(h);
    verdict
}

/// Sets a deadline in the past, again as soon as its interrupt arrives.
fn deadline_past<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    timer(h, DEADLINE);
    // 1: wrmsr; sti; hlt; dec r15; jnz 1b
    let code = [0x0f, 0x30, 0xfb, 0xf4, 0x49, 0xff, 0xcf, 0x75, 0xf7];
    let past = Registers {
        rax: 1,
        rcx: DEADLINE_MSR,
        ..Registers::default()
    };
    let verdict = again(h, "deadline", &code, WAITS, past);
    timer_back(h);
    verdict
}

/// Sends interrupts to itself.
fn self_ipi<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    // 1: mov [rdi], eax; sti; nop; dec r15; jnz 1b
    let code = [0x89, 0x07, 0xfb, 0x90, 0x49, 0xff, 0xcf, 0x75, 0xf7];
    let command = Registers {
        rax: TO_SELF | VECTOR,
        rdi: ICR_LOW,
        ..Registers::default()
    };
    again(h, "interrupt to itself", &code, ROUNDS, command)
}

/// Raises the function's interrupt, again and again, with interrupts open at times.
fn raise<M: Machine>(h: &mut Hostile<M>, what: &'static str) -> Verdict {
    // 1: mov [rdi], eax; mov [rdi + 8], eax; test r15d, 15; jnz 2f; sti; nop;
    // 2: dec r15; jnz 1b: cause read and cause set
    let code = [
        0x89, 0x07, 0x89, 0x47, 0x08, 0x41, 0xf7, 0xc7, 15, 0, 0, 0, 0x75, 0x02, 0xfb, 0x90, 0x49,
        0xff, 0xcf, 0x75, 0xeb,
    ];
    let cause = Registers {
        rax: nic::CAUSES[0],
        rdi: h.target.bar_address(0) + nic::ICR,
        ..Registers::default()
    };
    again(h, what, &code, ROUNDS, cause)
}

/// Raises MSI-X messages, by a device register that is not trapped.
fn msix_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    nic::start(h)?;
    for (field, value) in [
        (ADDRESS, MESSAGES),
        (ADDRESS_HIGH, 0),
        (DATA, VECTOR),
        (CONTROL, 0),
    ] {
        h.target.set_entry(0, field, 4, value)?;
    }
    h.target.set_control(ENABLE)?;
    let verdict = raise(h, "MSI-X flood");
    nic::stop(h);
    h.target.set_control(0)?;
    verdict
}

/// Raises plain MSI messages.
fn msi_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let msi = h.target.msi()?;
    nic::start(h)?;
    h.target.set_dword(msi.address(), MESSAGES as u32);
    h.target.set_dword(msi.address() + 4, 0);
    h.target.set_word(msi.data(), VECTOR as u16);
    h.target.set_word(msi.capability + 2, MSI_ENABLE);
    let verdict = raise(h, "MSI flood");
    nic::stop(h);
    h.target.set_word(msi.capability + 2, 0);
    verdict
}

/// Raises the function's pin, where the guest has it (`intx`).
fn intx_flood<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    let pin = u64::from(h.target.config(INTERRUPT_LINE, 1) & 0xff);
    if pin >= PINS {
        return Err(Stop::Skip("the function has no pin"));
    }
    nic::start(h)?;
    h.target.set_command(MEMORY | BUS_MASTER);
    for (register, value) in [(2 * pin + 1, 0), (2 * pin, PIN_LEVEL | VECTOR)] {
        h.reach().store(IO_APIC, 4, REDIRECTION + register);
        h.reach().store(IO_APIC_WINDOW, 4, value);
    }
    let verdict = raise(h, "INTx flood");
    nic::stop(h);
    h.reach().store(IO_APIC, 4, REDIRECTION + 2 * pin);
    h.reach().store(IO_APIC_WINDOW, 4, PIN_MASKED);
    h.target.set_command(MEMORY | BUS_MASTER | INTX_DISABLE);
    verdict
}
