//! Cuts the byte stream of the log port into frames.

use console::FRAME_START;
use shm::RING_RECORD_MAX;

/// Bytes before a frame's payload: start, writer, length.
const HEADER: usize = 4;

/// One frame: who wrote it, and defmt's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The writer's id.
    pub writer: u8,
    /// The bytes that it wrote.
    pub payload: Vec<u8>,
}

/// The part of the stream that has not been used yet.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Bytes that belong to no frame.
    pub skipped: u64,
}

impl Frames {
    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next whole frame. Bytes that cannot start one are skipped.
    pub fn pop(&mut self) -> Option<Frame> {
        loop {
            let start = self
                .bytes
                .iter()
                .position(|&byte| byte == FRAME_START)
                .unwrap_or(self.bytes.len());
            self.bytes.drain(..start);
            self.skipped += start as u64;
            let &[_, writer, low, high, ref rest @ ..] = &self.bytes[..] else {
                return None;
            };
            let length = usize::from(u16::from_le_bytes([low, high]));
            if length > RING_RECORD_MAX {
                // No writer sends that: the byte was not a start.
                self.bytes.remove(0);
                self.skipped += 1;
                continue;
            }
            let payload = rest.get(..length)?.to_vec();
            self.bytes.drain(..HEADER + length);
            return Some(Frame { writer, payload });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(writer: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![FRAME_START, writer];
        bytes.extend((payload.len() as u16).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_come_out_however_the_bytes_are_cut() {
        let mut stream = frame(1, b"abc");
        stream.extend(frame(2, b""));
        stream.extend(frame(3, &[FRAME_START; 5]));
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                frames.push(piece);
                while let Some(frame) = frames.pop() {
                    found.push((frame.writer, frame.payload));
                }
            }
            let expected = [
                (1, b"abc".to_vec()),
                (2, Vec::new()),
                (3, vec![FRAME_START; 5]),
            ];
            assert_eq!(found, expected, "pieces of {size}");
            assert_eq!(frames.skipped, 0);
        }
    }

    #[test]
    fn noise_and_impossible_lengths_are_skipped_and_counted() {
        let mut frames = Frames::default();
        frames.push(b"noise");
        frames.push(&[FRAME_START, 0, 0xff, 0xff]);
        frames.push(&frame(4, b"x"));
        let found = frames.pop().unwrap();
        assert_eq!((found.writer, &found.payload[..]), (4, &b"x"[..]));
        assert_eq!(frames.pop(), None);
        assert_eq!(frames.skipped, 9);
    }
}
