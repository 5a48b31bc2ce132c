//! Attacks by interrupt messages: vectors and addresses that are not the guest's to choose, and too many of them.

use probe::check::{Verdict, expect};
use probe::target::{ADDRESS, ADDRESS_HIGH, CONTROL, DATA, ENABLE};

use crate::attack::{Attack, Group, Hostile};
use crate::machine::{Ended, Machine, Registers};
use crate::nic;

/// First address of interrupt messages, and the first behind them (Intel SDM
/// vol. 3 section 11.11.1).
const MESSAGES: u64 = 0xfee0_0000;
const MESSAGES_END: u64 = 0xfef0_0000;
/// The kit's timer, which comes by itself.
const TIMER: u8 = 0x40;
/// Its handler does not end the interrupt: a message there must be ended here.
const SPURIOUS: u8 = 0xff;
/// Vectors below this one share their gates with exceptions.
const FIRST_INTERRUPT: u8 = 0x20;
/// How often an interrupt that must come is looked for.
const PATIENCE: u32 = 400;

/// Returns the attacks.
pub fn attacks<M: Machine>() -> [Attack<M>; 2] {
    let attack = |name, run| Attack {
        name,
        group: Group::Common,
        run,
    };
    [attack("messages", messages), attack("storm", storm)]
}

fn set<M: Machine>(h: &mut Hostile<M>, entry: u32, address: u64, data: u32) -> Verdict {
    let fields = [
        (CONTROL, 1),
        (ADDRESS, address & 0xffff_ffff),
        (ADDRESS_HIGH, address >> 32),
        (DATA, data.into()),
        (CONTROL, 0),
    ];
    for (field, value) in fields {
        h.target.set_entry(entry, field, 4, value)?;
    }
    Ok(())
}

fn counts<M: Machine>(h: &mut Hostile<M>) -> [u64; 256] {
    let machine = h.machine();
    core::array::from_fn(|vector| machine.taken(vector as u8))
}

/// Waits for interrupts: how often `vector` came. Vectors that belong to
/// exceptions are waited for by code that is left when one comes.
fn arrivals<M: Machine>(h: &mut Hostile<M>, vector: u8) -> u64 {
    let before = h.machine().taken(vector);
    if vector >= FIRST_INTERRUPT {
        h.machine().window();
        h.machine().window();
        if h.machine().taken(vector) == before {
            h.machine().rest();
        }
        if vector == SPURIOUS {
            h.machine().end_of_interrupt();
        }
        return h.machine().taken(vector) - before;
    }
    let mut came = 0;
    for _ in 0..16 {
        // sti; nop; nop; cli
        let code = [0xfb, 0x90, 0x90, 0xfa];
        if h.machine().run(&code, &mut Registers::default()) == Ended::Exception(vector) {
            came += 1;
            h.machine().end_of_interrupt();
        }
    }
    came
}

/// Writes messages of every kind: a legal one arrives at the vector that the guest
/// wrote, and at no other; the others do not arrive (M17).
fn messages<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    nic::start(h)?;
    h.target.set_control(ENABLE)?;
    let entries = nic::ENTRIES;
    let mut owed = [true; nic::ENTRIES as usize];
    for round in 0..h.times(300) {
        let entry = (round % u64::from(entries)) as u32;
        let vector = h.random.pick(&[
            0x15, 0xa0, 0xff, 0x00, 0x0f, 0x10, 0x1f, 0x20, 0x30, 0x31, 0x9b, 0x9e, 0xfe, 0x51,
        ]);
        let upper = h.random.pick(&[
            0, 0, 0, 0x100, 0x200, 0x300, 0x400, 0x500, 0x700, 0x8000, 0xc000,
        ]);
        let data = upper | u32::from(vector);
        let inside = MESSAGES | h.random.below(0x10_0000) & !3;
        let outside = h.random.word() & !3;
        let address = h.random.pick(&[
            MESSAGES,
            MESSAGES,
            MESSAGES,
            MESSAGES | 0x10,
            inside,
            outside,
            MESSAGES_END,
            MESSAGES - 4,
            MESSAGES | 1 << 32,
            0,
        ]);
        set(h, entry, address, data)?;
        let before = counts(h);
        // An event stays pending while the entry holds no valid message.
        if owed[entry as usize] {
            arrivals(h, vector);
        }
        // Longer than the 128 us that the device leaves between two interrupts: what QEMU's
        // puts off, it sends once more with the next one.
        h.machine().rest();
        nic::raise(h, entry)?;
        let came = arrivals(h, vector);
        owed[entry as usize] = came == 0;
        let fixed = matches!(data >> 8 & 7, 0 | 1);
        let legal = (MESSAGES..MESSAGES_END).contains(&address) && fixed && vector >= 0x10;
        let place = u64::from(data) << 32 | address & 0xffff_ffff;
        if !legal {
            expect("arrivals of a message that is none", place, 0u8, came)?;
        } else if address == MESSAGES {
            expect("arrivals of a message", place, 1u8, came)?;
        } else {
            // To another CPU, of which there is none, or to this one.
            expect(
                "more than one arrival of a message",
                place,
                0u8,
                came.saturating_sub(1),
            )?;
        }
        let after = counts(h);
        for other in (0..=u8::MAX).filter(|other| ![vector, TIMER].contains(other)) {
            let more = after[usize::from(other)] - before[usize::from(other)];
            expect("arrivals at a vector of nobody", other, 0u8, more)?;
        }
    }
    nic::stop(h);
    h.target.set_control(0)
}

/// Raises interrupts as fast as the device can: the source is throttled (M23), and
/// delivers again afterwards.
fn storm<M: Machine>(h: &mut Hostile<M>) -> Verdict {
    const VECTOR: u8 = 0x61;
    nic::start(h)?;
    set(h, 1, MESSAGES, VECTOR.into())?;
    h.target.set_control(ENABLE)?;
    for round in 0..h.times(100_000) {
        nic::raise(h, 1)?;
        if round % 16 == 0 {
            h.machine().window();
        }
    }
    // Messages on their way come first, then the end of throttling.
    let mut delivers = false;
    for _ in 0..PATIENCE {
        let before = h.machine().taken(VECTOR);
        nic::raise(h, 1)?;
        h.machine().window();
        h.machine().rest();
        if h.machine().taken(VECTOR) > before {
            delivers = true;
            break;
        }
    }
    expect("delivery after a storm", VECTOR, true, delivers)?;
    nic::stop(h);
    h.target.set_control(0)
}
