//! The reset that one model has of its own: the Intel 82574L, which has no
//! function-level reset, and whose emulation in QEMU survives the way to D3hot and
//! back with everything as it was.
//!
//! Offsets and bits are of the 82574 datasheet, chapter 10. The registers are those
//! of BAR 0, which init maps here for this model alone.

use pci::Width::Dword;

use crate::Hardware;

/// How long nothing touches the device after its reset, in ms: it reads its
/// non-volatile memory again (10.2.2.1; Linux waits 10 and 25 ms).
pub const RESET_MS: u64 = 35;

/// Device control, and its self-clearing reset bit.
const CTRL: u32 = 0x0000;
const CTRL_RST: u32 = 1 << 26;
/// Device control: no new requests of its own.
const CTRL_GIO_MASTER_DISABLE: u32 = 1 << 2;
/// Interrupt causes, mask set and mask clear.
const ICR: u32 = 0x00c0;
const IMS: u32 = 0x00d0;
const IMC: u32 = 0x00d8;
/// Causes that are cleared by themselves, and which vector each has.
const EIAC: u32 = 0x00dc;
const IVAR: u32 = 0x00e4;
/// Receive and transmit control, each with its enable.
const RCTL: u32 = 0x0100;
const TCTL: u32 = 0x0400;
const ENABLE: u32 = 1 << 1;

/// The rings: base low and high, length, head and tail of two receive and two
/// transmit queues.
const RINGS: [u32; 4] = [0x2800, 0x2900, 0x3800, 0x3900];
const RING_REGISTERS: [u32; 5] = [0x00, 0x04, 0x08, 0x10, 0x18];

/// How long its interrupt timers go on after its interrupts are off, in ms: an
/// interval of EITR is 65,535 times 256 ns at most (10.2.4.2), which is 17, and on a busy
/// host QEMU's thread for timers is late.
pub const STOP_MS: u64 = 60;
/// Looks at a reset that was just begun, at most: it takes a microsecond.
const LOOKS: usize = 64;

/// Stops the device, so that nothing of its own goes on while it is taken back: the
/// timers that hold back its interrupts as little as its rings. (In QEMU 7.2 such a
/// timer that ends while MSI-X is off ends QEMU.)
pub fn stop(hardware: &mut impl Hardware) {
    start(hardware);
    for _ in 0..LOOKS {
        if is_over(hardware) {
            return;
        }
    }
}

/// Stops the device and resets it.
pub fn start(hardware: &mut impl Hardware) {
    hardware.write_register(IMC, Dword, u32::MAX);
    hardware.write_register(RCTL, Dword, 0);
    hardware.write_register(TCTL, Dword, 0);
    hardware.write_register(CTRL, Dword, CTRL_GIO_MASTER_DISABLE);
    hardware.write_register(CTRL, Dword, CTRL_RST);
}

/// Returns whether the reset is over.
pub fn is_over(hardware: &mut impl Hardware) -> bool {
    hardware.read_register(CTRL, Dword) & CTRL_RST == 0
}

/// Returns whether nothing is left of the last driver's settings. QEMU's
/// emulation keeps most registers over the reset bit, so each that could make
/// the device write to memory or interrupt is cleared as well, and read back.
pub fn was_reset(hardware: &mut impl Hardware) -> bool {
    let cleared = [RCTL, TCTL, EIAC, IVAR];
    let rings = RINGS
        .iter()
        .flat_map(|&ring| RING_REGISTERS.iter().map(move |&register| ring + register));
    hardware.write_register(IMC, Dword, u32::MAX);
    hardware.write_register(ICR, Dword, u32::MAX);
    for register in rings.clone().chain(cleared) {
        hardware.write_register(register, Dword, 0);
    }
    let quiet = hardware.read_register(IMS, Dword) == 0;
    let off = [RCTL, TCTL]
        .into_iter()
        .all(|register| hardware.read_register(register, Dword) & ENABLE == 0);
    let mut forgotten = true;
    for register in rings.chain([IVAR]) {
        forgotten &= hardware.read_register(register, Dword) == 0;
    }
    quiet && off && forgotten
}
