//! Interrupts that move all the time, each of which must arrive: work for components to be crashed under.

use probe::check::{Verdict, expect};
use probe::target::{ADDRESS, ADDRESS_HIGH, CONTROL, DATA, ENABLE, FUNCTION_MASK};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::Machine;
use crate::nic;

/// First address of interrupt messages.
const MESSAGES: u64 = 0xfee0_0000;
/// Vectors that entries move among: above the timer's, below the spurious one.
const FIRST_VECTOR: u8 = 0x50;
const VECTORS: u64 = 0xa0;
/// Rests until an interrupt is given up: a second, some milliseconds each.
const PATIENCE: u32 = 200;
/// Rounds between two lines about them.
const REPORT: u64 = 1_000;

/// Returns the mode.
pub fn attacks<M: Machine>() -> [Attack<M>; 1] {
    [Attack {
        name: "churn",
        group: Group::Mode,
        run: |h| {
            let rounds = h.times(10_000);
            churn(h, rounds)
        },
    }]
}

/// Returns the interrupts taken on all vectors that entries move among, but for
/// those where entries are now.
fn strangers<M: Machine>(h: &mut Hostile<M>, current: &[u8]) -> u64 {
    let machine = h.machine();
    (0..VECTORS)
        .map(|n| FIRST_VECTOR + n as u8)
        .filter(|vector| !current.contains(vector))
        .map(|vector| machine.taken(vector))
        .sum()
}

fn entry<M: Machine>(h: &mut Hostile<M>, entry: u32, field: u64, value: u64) -> Verdict {
    h.target.set_entry(entry, field, 4, value)
}

/// Does `rounds` rounds: an entry is moved to another vector, under one of the
/// masks there are or with MSI-X off, and raised; the interrupt comes at the new
/// vector, and none comes where no entry is. (QEMU's model sends an interrupt
/// that it held back twice: one more at an entry's own vector is the device's.)
///
/// # Errors
/// If one was lost or came where it should not.
pub fn churn<M: Machine>(h: &mut Hostile<M>, rounds: u64) -> Verdict {
    nic::start(h)?;
    h.target.set_control(ENABLE)?;
    let (mut lost, mut wrong) = (0u64, 0u64);
    let mut current = [0; nic::ENTRIES as usize];
    for round in 1..=rounds {
        let which = (round % u64::from(nic::ENTRIES)) as u32;
        let vector = loop {
            let vector = FIRST_VECTOR + h.random.below(VECTORS) as u8;
            if !current.contains(&vector) {
                break vector;
            }
        };
        current[which as usize] = vector;
        entry(h, which, CONTROL, 1)?;
        // What the local APIC has still arrives at the old vector: one interrupt
        // in a window.
        for _ in 0..=nic::ENTRIES {
            h.machine().window();
        }
        entry(h, which, ADDRESS, MESSAGES)?;
        entry(h, which, ADDRESS_HIGH, 0)?;
        entry(h, which, DATA, vector.into())?;
        let way = h.random.below(4);
        match way {
            0 => h.target.set_control(ENABLE | FUNCTION_MASK)?,
            1 => {
                nic::settle(h);
                h.target.set_control(0)?;
            }
            _ => {}
        }
        entry(h, which, CONTROL, 0)?;
        let before = h.machine().taken(vector);
        let elsewhere = strangers(h, &current);
        // Way 0 and 3: raised while masked, and pending until it is not.
        if way == 0 {
            nic::raise(h, which)?;
        }
        if way == 3 {
            entry(h, which, CONTROL, 1)?;
            nic::raise(h, which)?;
            entry(h, which, CONTROL, 0)?;
        }
        if way < 2 {
            h.target.set_control(ENABLE)?;
        }
        if matches!(way, 1 | 2) {
            nic::raise(h, which)?;
        }
        h.machine().window();
        for _ in 0..PATIENCE {
            if h.machine().taken(vector) > before {
                break;
            }
            h.machine().rest();
        }
        let came = h.machine().taken(vector) - before;
        lost += u64::from(came == 0);
        wrong += strangers(h, &current) - elsewhere;
        if round % REPORT == 0 || round == rounds {
            h.machine().line(format_args!(
                "churn: {round} rounds, {lost} lost, {wrong} wrong"
            ));
        }
    }
    nic::stop(h);
    h.target.set_control(0)?;
    expect("interrupts lost", rounds, 0u8, lost)?;
    expect("interrupts at the wrong vector", rounds, 0u8, wrong)
}
