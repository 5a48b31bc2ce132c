//! Little-endian numbers and records out of bytes that may be too few.

/// Returns the bytes from `offset` on, `N` of them.
pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    let end = offset.checked_add(N)?;
    bytes.get(offset..end)?.try_into().ok()
}

/// Returns the byte at `offset`.
pub fn u8(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// Returns the 16-bit value at `offset`.
pub fn u16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

/// Returns the 32-bit value at `offset`.
pub fn u32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

/// Returns the 64-bit value at `offset`.
pub fn u64(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

/// Iterates over consecutive records. A record that is shorter than its own head
/// or longer than the remaining bytes yields `None` and ends the iteration.
pub struct Records<'a> {
    rest: &'a [u8],
    /// The length of the first record, and the least that it can be.
    length: fn(&[u8]) -> Option<usize>,
    least: usize,
}

impl<'a> Records<'a> {
    /// Records of at least `least` bytes (1 at the least), whose length
    /// `length` finds out.
    pub fn new(bytes: &'a [u8], least: usize, length: fn(&[u8]) -> Option<usize>) -> Self {
        Self {
            rest: bytes,
            length,
            least: least.max(1),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = core::mem::take(&mut self.rest);
        let record = (self.length)(rest)
            .filter(|length| *length >= self.least)
            .and_then(|length| rest.split_at_checked(length));
        Some(record.map(|(record, rest)| {
            self.rest = rest;
            record
        }))
    }
}
