//! The reset that every virtio function has, by its device status: in clouds and on a root
//! bus of QEMU they have no other.
//!
//! Offsets are of the common registers (VIRTIO 1.1 section 4.1.4.3), of which init maps the page
//! here. Each register is accessed by its own width (section 4.1.3.1).

use pci::Width::{Byte, Word};

use crate::Hardware;

/// How long nothing looks at the device status after its reset began, in ms.
pub const RESET_MS: u64 = 1;
/// How long the device status may go on to read other than 0, in ms. The specification has no
/// bound, and Linux waits for ever; a second is far more than a network card with virtio in
/// hardware takes, and ten leave room for a busy host.
pub const PATIENCE_MS: u64 = 10_000;

const NUM_QUEUES: u32 = 0x12;
const DEVICE_STATUS: u32 = 0x14;
const QUEUE_SELECT: u32 = 0x16;
const QUEUE_ENABLE: u32 = 0x1c;

/// Queues that are looked at, at most: the number is the device's own word.
const QUEUES: u32 = 64;

/// Begins the reset of the function whose common registers are at `at`.
pub fn start(hardware: &mut impl Hardware, at: u32) {
    hardware.write_register(at + DEVICE_STATUS, Byte, 0);
}

/// Returns whether the device says that the reset is over (section 4.1.4.3.1).
pub fn is_over(hardware: &mut impl Hardware, at: u32) -> bool {
    hardware.read_register(at + DEVICE_STATUS, Byte) == 0
}

/// Returns whether no queue is enabled, so that the device knows of no memory any more.
pub fn was_reset(hardware: &mut impl Hardware, at: u32) -> bool {
    let queues = hardware.read_register(at + NUM_QUEUES, Word);
    let mut forgotten = true;
    for queue in 0..queues.min(QUEUES) {
        hardware.write_register(at + QUEUE_SELECT, Word, queue);
        forgotten &= hardware.read_register(at + QUEUE_ENABLE, Word) == 0;
    }
    hardware.write_register(at + QUEUE_SELECT, Word, 0);
    forgotten
}
