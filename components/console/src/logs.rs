//! Log frames: from the rings to the log port, each with its writer's id.

use shm::{RING_RECORD_MAX, Ring};

use crate::Output;

/// First byte of a frame on the log port. Then: the writer's id (8 bits), the
/// length of the payload (16 bits, little-endian), the payload.
pub const FRAME_START: u8 = 0x5a;

/// Records taken from one ring before the others have their turn.
const TURN: usize = 64;

/// Sends the records in the ring of writer `id`. Returns `true` if there may be more.
pub fn send_frames(id: u8, ring: &Ring, output: &mut impl Output) -> bool {
    let mut record = [0; RING_RECORD_MAX];
    for _ in 0..TURN {
        let Some(length) = ring.pop(&mut record) else {
            return false;
        };
        let [low, high, ..] = length.to_le_bytes();
        for byte in [FRAME_START, id, low, high] {
            output.put(byte);
        }
        for &byte in &record[..length] {
            output.put(byte);
        }
    }
    !ring.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::boxed::Box;
    use std::vec::Vec;

    struct Bytes(Vec<u8>);

    impl Output for Bytes {
        fn put(&mut self, byte: u8) {
            self.0.push(byte);
        }
    }

    #[test]
    fn frames_carry_id_and_length() {
        let ring = Box::new(Ring::new());
        ring.push(&[1, 2, 3]);
        let mut bytes = Bytes(Vec::new());
        assert!(!send_frames(7, &ring, &mut bytes));
        assert_eq!(bytes.0, [FRAME_START, 7, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn a_flood_gets_one_turn() {
        let ring = Box::new(Ring::new());
        for _ in 0..=TURN {
            ring.push(&[0]);
        }
        let mut bytes = Bytes(Vec::new());
        assert!(send_frames(0, &ring, &mut bytes));
        assert!(!send_frames(0, &ring, &mut bytes));
        assert_eq!(bytes.0.len(), (TURN + 1) * 5);
    }
}
