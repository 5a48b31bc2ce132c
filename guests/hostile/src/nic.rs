//! The function as a source of interrupts: causes that are raised by a register.
//!
//! Intel 82574 GbE Controller Family datasheet, section 10.2.

use probe::check::{Verdict, expect};
use probe::target::{BUS_MASTER, INTX_DISABLE, MEMORY};

use crate::attack::Hostile;
use crate::machine::Machine;

const CTRL: u64 = 0x00;
const CTRL_RST: u64 = 1 << 26;
const CTRL_EXT: u64 = 0x18;
/// Cause read; writing 1 clears a cause. The cause set register is 8 bytes behind.
pub const ICR: u64 = 0xc0;
const ITR: u64 = 0xc4;
const ICS: u64 = 0xc8;
const IMS: u64 = 0xd0;
const IMC: u64 = 0xd8;
const EIAC: u64 = 0xdc;
const IAM: u64 = 0xe0;
const IVAR: u64 = 0xe4;
const EITR: [u64; 3] = [0xe8, 0xec, 0xf0];
const RCTL: u64 = 0x100;
/// Low half of the station address: comes back by itself after a reset.
pub const STATION: u64 = 0x5400;

/// Entries that can be raised: receive queue 0, transmit queue 0, other.
pub const ENTRIES: u32 = 3;
/// The cause behind each of them.
pub const CAUSES: [u64; ENTRIES as usize] = [1 << 20, 1 << 22, 1 << 24];
const ALL_CAUSES: u64 = CAUSES[0] | CAUSES[1] | CAUSES[2];
/// Cause n comes over entry n; bit 3 of each field is "valid".
const IVAR_VALUE: u64 = 0x8 | 0x9 << 8 | 0xa << 16;
/// Interrupt acknowledge auto-mask enable, and clearing of pending bits.
const CTRL_EXT_VALUE: u64 = 1 << 27 | 1 << 31;
/// Bound on the reads that wait for the end of a reset.
const RESET_READS: u32 = 100_000;

/// Returns the address of a register.
fn at<M: Machine>(hostile: &Hostile<M>, register: u64) -> u64 {
    hostile.target.bar_address(0) + register
}

/// Resets the function and makes each of its causes raise its own entry, once
/// each time.
///
/// # Errors
/// If it does not answer.
pub fn start<M: Machine>(hostile: &mut Hostile<M>) -> Verdict {
    hostile.target.set_command(MEMORY | INTX_DISABLE);
    let control = at(hostile, CTRL);
    hostile.target.store(control, 4, CTRL_RST)?;
    for _ in 0..RESET_READS {
        if hostile.target.load(control, 4)? & CTRL_RST == 0 {
            break;
        }
    }
    let stuck = hostile.target.load(control, 4)? & CTRL_RST;
    expect("reset", CTRL, 0u8, stuck)?;
    hostile
        .target
        .set_command(MEMORY | BUS_MASTER | INTX_DISABLE);
    // As kit's driver does (guests/kit/src/e1000e/mod.rs says why), but that "other"
    // clears itself too: it is raised as the queues are.
    let settings = [
        (IMC, u64::from(u32::MAX)),
        (ICR, u32::MAX.into()),
        (RCTL, 0),
        (IVAR, IVAR_VALUE),
        (ITR, 0),
        (EITR[0], 0),
        (EITR[1], 0),
        (EITR[2], 0),
        (IAM, 0),
        (CTRL_EXT, CTRL_EXT_VALUE),
        (EIAC, ALL_CAUSES),
        (IMS, ALL_CAUSES),
    ];
    for (register, value) in settings {
        let address = at(hostile, register);
        hostile.target.store(address, 4, value)?;
    }
    Ok(())
}

/// Makes it raise entry `entry`, below [`ENTRIES`].
///
/// # Errors
/// If there is no way to its registers.
pub fn raise<M: Machine>(hostile: &mut Hostile<M>, entry: u32) -> Verdict {
    let cause = CAUSES[entry as usize % CAUSES.len()];
    let address = at(hostile, ICR);
    hostile.target.store(address, 4, cause)?;
    let address = at(hostile, ICS);
    hostile.target.store(address, 4, cause)
}

/// Stops its interrupts, and waits for outstanding work: QEMU's model aborts QEMU
/// if MSI-X is switched off within 128 microseconds of an interrupt.
pub fn stop<M: Machine>(hostile: &mut Hostile<M>) {
    let address = at(hostile, IMC);
    // Where it is not decoded it raises nothing either.
    let _ = hostile.target.store(address, 4, u32::MAX.into());
    settle(hostile);
}

/// Waits until an interrupt just taken is long past.
pub fn settle<M: Machine>(hostile: &mut Hostile<M>) {
    hostile.machine().rest();
    hostile.machine().rest();
}
