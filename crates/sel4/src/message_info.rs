//! The header of a message.

use sel4_sys::{MSG_MAX_EXTRA_CAPS, MSG_MAX_LENGTH};

/// A message's label, its length in words and its capabilities, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageInfo(sel4_sys::MessageInfo);

impl MessageInfo {
    /// Creates a header. `label` has 20 bits at least (52 in newer kernels),
    /// `caps_unwrapped` 3; at most 3 capabilities and 120 words. A debug build refuses more, a release build
    /// cuts it off.
    pub const fn new(label: u64, caps_unwrapped: usize, extra_caps: usize, length: usize) -> Self {
        debug_assert!(extra_caps <= MSG_MAX_EXTRA_CAPS && length <= MSG_MAX_LENGTH);
        MessageInfo(sel4_sys::MessageInfo::new(
            label,
            caps_unwrapped as u64,
            extra_caps as u64,
            length as u64,
        ))
    }

    /// Returns the header that a register holds.
    pub const fn from_word(word: u64) -> Self {
        MessageInfo(sel4_sys::MessageInfo { words: [word] })
    }

    /// Returns the header as a register holds it.
    pub const fn to_word(self) -> u64 {
        self.0.words[0]
    }

    /// Returns the label: the operation, the fault or the error.
    pub const fn label(self) -> u64 {
        self.0.label()
    }

    /// Returns which received capabilities arrived as badges, a bit each.
    pub const fn caps_unwrapped(self) -> usize {
        self.0.caps_unwrapped() as usize
    }

    /// Capabilities besides the message's words.
    pub const fn extra_caps(self) -> usize {
        self.0.extra_caps() as usize
    }

    /// Returns the words of the message. A sender can claim up to 127; never
    /// more than 120 of them are there.
    pub const fn length(self) -> usize {
        self.0.length() as usize
    }

    pub(crate) const fn inner(self) -> sel4_sys::MessageInfo {
        self.0
    }

    pub(crate) const fn from_inner(inner: sel4_sys::MessageInfo) -> Self {
        MessageInfo(inner)
    }
}

/// Builds a [`MessageInfo`] field by field; all start at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageInfoBuilder {
    label: u64,
    caps_unwrapped: usize,
    extra_caps: usize,
    length: usize,
}

impl MessageInfoBuilder {
    /// Sets the label, 20 bits at least.
    pub const fn label(mut self, label: u64) -> Self {
        self.label = label;
        self
    }

    /// Sets the bits of unwrapped capabilities.
    pub const fn caps_unwrapped(mut self, bits: usize) -> Self {
        self.caps_unwrapped = bits;
        self
    }

    /// Sets the number of capabilities, up to 3.
    pub const fn extra_caps(mut self, count: usize) -> Self {
        self.extra_caps = count;
        self
    }

    /// Sets the number of words, up to 120.
    pub const fn length(mut self, words: usize) -> Self {
        self.length = words;
        self
    }

    /// Returns the header.
    pub const fn build(self) -> MessageInfo {
        MessageInfo::new(
            self.label,
            self.caps_unwrapped,
            self.extra_caps,
            self.length,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_kernel_wants_them() {
        let info = MessageInfoBuilder::default()
            .label(0xf_1234)
            .caps_unwrapped(5)
            .extra_caps(3)
            .length(120)
            .build();
        assert_eq!(info.to_word(), 0xf_1234 << 12 | 5 << 9 | 3 << 7 | 120);
        assert_eq!(
            (
                info.label(),
                info.caps_unwrapped(),
                info.extra_caps(),
                info.length()
            ),
            (0xf_1234, 5, 3, 120)
        );
        assert_eq!(MessageInfo::from_word(info.to_word()), info);
    }

    #[test]
    #[should_panic]
    fn too_long_a_message_is_refused() {
        MessageInfo::new(0, 0, 0, 121);
    }
}
