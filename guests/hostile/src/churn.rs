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

/// The mode.
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

/// Interrupts taken on all vectors that entries move among.
fn taken<M: Machine>(h: &mut Hostile<M>) -> u64 {
    let machine = h.machine();
    (0..VECTORS)
        .map(|n| machine.taken(FIRST_VECTOR + n as u8))
        .sum()
}

fn entry<M: Machine>(h: &mut Hostile<M>, entry: u32, field: u64, value: u64) -> Verdict {
    h.target.set_entry(entry, field, 4, value)
}

/// Does `rounds` rounds: an entry is moved to another vector, under one of the
/// masks there are or with MSI-X off, and raised; the interrupt comes once, at
/// the new vector.
///
/// # Errors
/// If one was lost or came where it should not.
pub fn churn<M: Machine>(h: &mut Hostile<M>, rounds: u64) -> Verdict {
    nic::start(h)?;
    h.target.set_control(ENABLE)?;
    let (mut lost, mut wrong) = (0u64, 0u64);
    for round in 1..=rounds {
        let which = (round % u64::from(nic::ENTRIES)) as u32;
        let vector = FIRST_VECTOR + h.random.below(VECTORS) as u8;
        entry(h, which, CONTROL, 1)?;
        entry(h, which, ADDRESS, MESSAGES)?;
        entry(h, which, ADDRESS_HIGH, 0)?;
        entry(h, which, DATA, vector.into())?;
        let way = h.random.below(4);
        match way {
            0 => h.target.set_control(ENABLE | FUNCTION_MASK)?,
            1 => h.target.set_control(0)?,
            _ => {}
        }
        entry(h, which, CONTROL, 0)?;
        let (before, all) = (h.machine().taken(vector), taken(h));
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
        wrong += (taken(h) - all).saturating_sub(u64::from(came > 0));
        if round % REPORT == 0 || round == rounds {
            h.machine().line(format_args!(
                "churn: {round} rounds, {lost} lost, {wrong} wrong"
            ));
        }
    }
    h.target.set_control(0)?;
    expect("interrupts lost", rounds, 0u8, lost)?;
    expect(
        "interrupts at the wrong vector or twice",
        rounds,
        0u8,
        wrong,
    )
}
