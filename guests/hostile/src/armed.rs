//! A life that leaves its device writing into the next one: the receive ring lies
//! in the image, which is loaded again at the same place.

use core::sync::atomic::{AtomicU64, Ordering};

use kit::mmio::{Mmio, Registers};
use kit::pci::{Config, Function};
use kit::println;

/// Words of the image that the device is set up to overwrite, by their contents.
const PATTERN: u64 = 0x5a5a_5a5a_5a5a_5a5a;
const WORDS: usize = 128;

/// A ring begins at a multiple of 16.
#[repr(C, align(128))]
struct Target([AtomicU64; WORDS]);

static TARGET: Target = Target([const { AtomicU64::new(PATTERN) }; WORDS]);

/// Registers of the 82574 (datasheet chapter 10): device control with its link
/// bit, receive control with its enable, the ring.
const CTRL: u32 = 0x0000;
const CTRL_SET_LINK_UP: u32 = 1 << 6;
const RCTL: u32 = 0x0100;
const RCTL_ENABLE: u32 = 1 << 1;
/// On, everything is accepted, and frames are stripped of their check sequence.
const RCTL_ARMED: u32 = 0x0400_801a;
const RDBAL: u32 = 0x2800;
const RDBAH: u32 = 0x2804;
const RDLEN: u32 = 0x2808;
const RDH: u32 = 0x2810;
const RDT: u32 = 0x2818;

/// Rests in which frames come that the last life could have been waiting for.
const RESTS: u32 = 100;

/// Counts the damage that the last life's device did to this one, and arms it for
/// the next. Bus mastering goes on before anything else, as in a driver that
/// trusts its device to be silent.
pub fn live(
    function: &mut Function<Config>,
    mut registers: Mmio,
    lives: u64,
    mut rest: impl FnMut(),
) -> ! {
    function.enable();
    let receives = registers.read(RCTL) & RCTL_ENABLE != 0;
    println!("# armed: life {lives} waits");
    for _ in 0..RESTS {
        rest();
    }
    let written = TARGET
        .0
        .iter()
        .filter(|word| word.load(Ordering::Acquire) != PATTERN)
        .count();
    let state = if receives { "on" } else { "off" };
    println!("# armed: life {lives} words={written} receiver={state}");
    let ring = TARGET.0.as_ptr().addr() as u64;
    for (register, value) in [
        (CTRL, CTRL_SET_LINK_UP),
        (RCTL, 0),
        (RDBAL, ring as u32),
        (RDBAH, (ring >> 32) as u32),
        (RDLEN, WORDS as u32 * 8),
        (RDH, 0),
        (RDT, 40),
        (RCTL, RCTL_ARMED),
    ] {
        registers.write(register, value);
    }
    kit::exit(kit::EXIT_SUCCESS)
}
