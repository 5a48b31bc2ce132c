//! The state that outlives a crash: a word for each slot, written when its binding
//! is complete and before the client has its reply.
//!
//! The words describe the state between two requests. If the router dies in a
//! request, a new one brings the kernel back to that state, and the client makes the
//! request again.

use channel::GuestMessage;
use channel::irq_router::Source;
use spec::{SLOTS, VECTORS, bit};

use super::{Binding, IrqControl, Router, Slot, SlotState};

/// Words that a router keeps for each slot: the slot's state, and when it was
/// given back.
const PER_SLOT: usize = 2;

/// Returns the words that a router of so many guests keeps.
#[must_use]
pub const fn kept_words(guests: usize) -> usize {
    1 + guests * SLOTS * PER_SLOT
}

/// The first word: a router was here. Its low bits are the function masks.
const STARTED: u64 = 1 << 63;
/// A slot's word: a source has it.
const BOUND: u64 = 1 << 63;
/// A source has it or had it last: its word is in bits 57:32, the vector in
/// 30:24.
const OWNED: u64 = 1 << 62;
/// The message is one that a local APIC takes, in bits 20:0.
const MESSAGE: u64 = 1 << 61;
/// Events are held.
const MASKED: u64 = 1 << 60;
/// Bits of a source's word.
const SOURCE_MASK: u64 = 0x03ff_ffff;

impl SlotState {
    fn to_word(self) -> u64 {
        let Some((source, vector)) = self.owner else {
            return 0;
        };
        use channel::Word as _;
        let binding = self.binding.map_or(0, |binding| {
            let message = binding
                .message
                .map_or(0, |message| MESSAGE | message.to_bits());
            BOUND | message | bit(binding.masked, MASKED)
        });
        OWNED | source.to_word() << 32 | u64::from(vector) << 24 | binding
    }

    /// Decodes a word; an invalid one is a free slot.
    fn from_words(word: u64, freed: u64) -> Self {
        use channel::Word as _;
        let has = |mask: u64| word & mask != 0;
        let vector = (word >> 24 & 0x7f) as u8;
        let source = Source::from_word(word >> 32 & SOURCE_MASK);
        let owner = source
            .zip(Some(vector))
            .filter(|_| has(OWNED) && vector < VECTORS);
        let message = has(MESSAGE).then_some(GuestMessage::from_bits(word));
        let binding = owner.filter(|_| has(BOUND)).map(|_| Binding {
            message,
            masked: has(MASKED),
        });
        Self {
            binding,
            owner,
            freed,
            parked: false,
        }
    }
}

impl<C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize> Router<'_, C, GUESTS, FUNCTIONS> {
    const MASKS_FIT: () = assert!(FUNCTIONS < 63, "a function mask for each bit");

    fn word_of(guest: usize, index: usize) -> usize {
        1 + (guest * SLOTS + index) * PER_SLOT
    }

    /// Keeps a slot's state.
    pub(super) fn keep(&self, guest: usize, index: usize) {
        let state = &self.slots[guest][index];
        let at = Self::word_of(guest, index);
        self.kept.set(at + 1, state.freed);
        self.kept.set(at, state.to_word());
    }

    /// Keeps the function masks.
    pub(super) fn keep_masks(&self) {
        let () = Self::MASKS_FIT;
        let masks = self.function_masked.iter().enumerate();
        let word = masks.fold(STARTED, |word, (function, &masked)| {
            word | u64::from(masked) << function
        });
        self.kept.set(0, word);
    }

    /// Takes over an earlier router's state, if there was one: slots,
    /// vectors and masks are as it kept them, and the kernel's side is made the
    /// same. What is bound never stops being delivered.
    pub(super) fn adopt(&mut self) {
        let word = self.kept.get(0);
        if word & STARTED != 0 {
            for (function, masked) in self.function_masked.iter_mut().enumerate() {
                *masked = word >> function & 1 == 1;
            }
            for guest in 0..GUESTS {
                for index in 0..self.counts[guest] {
                    self.adopt_slot(guest, index);
                }
            }
            let freed_last = self.slots.iter().flatten().max_by_key(|slot| slot.freed);
            if let Some((_, vector)) = freed_last.and_then(|slot| slot.owner) {
                self.vectors.start_after(vector);
            }
            self.clear();
            self.repair();
            let bound = |slot: &&SlotState| slot.binding.is_some();
            let bound = self.slots.iter().flatten().filter(bound).count();
            self.counters.slots_used.set(bound as u64);
            self.count_vectors();
        }
        for guest in 0..GUESTS {
            for index in 0..self.counts[guest] {
                self.publish(guest, index);
            }
        }
        self.keep_masks();
    }

    fn adopt_slot(&mut self, guest: usize, index: usize) {
        let at = Self::word_of(guest, index);
        let mut state = SlotState::from_words(self.kept.get(at), self.kept.get(at + 1));
        if state.binding.is_some() {
            // We wrote this memory, but we also crashed: it is checked like input.
            let sensible = state.owner.is_some_and(|(source, vector)| {
                let owner = self.owners.get(source.function.index());
                owner.is_some_and(|&owner| usize::from(owner) == guest)
                    && self.slot_of(guest, source).is_none()
                    && self.vectors.claim(vector)
            });
            if !sensible {
                state = SlotState::FREE;
            }
        }
        self.releases = self.releases.max(state.freed);
        self.slots[guest][index] = state;
    }

    /// Deletes capabilities where nothing is bound: the first half of a bind that was
    /// interrupted.
    fn clear(&mut self) {
        for guest in 0..GUESTS {
            for index in 0..self.counts[guest] {
                let slot = Slot {
                    guest: guest as u8,
                    index: index as u8,
                };
                let free = self.slots[guest][index].binding.is_none();
                if free && self.control.clear_slot(slot).is_err() {
                    self.counters.failed += 1;
                }
            }
        }
        for vector in 0..VECTORS {
            if self.vectors.is_free(vector, 1) && self.control.clear_vector(vector).is_err() {
                self.counters.failed += 1;
            }
        }
    }

    /// Makes the missing parts of bindings: an unbind that was interrupted, and
    /// that the client will repeat, had deleted them.
    fn repair(&mut self) {
        for guest in 0..GUESTS {
            for index in 0..self.counts[guest] {
                let state = self.slots[guest][index];
                let Some((source, vector)) = state.owner.filter(|_| state.binding.is_some()) else {
                    continue;
                };
                let slot = Slot {
                    guest: guest as u8,
                    index: index as u8,
                };
                // A bind is complete before its device may raise the vector.
                let made = self
                    .acquire(slot, source, vector)
                    .and_then(|()| self.allow(source, vector));
                if made.is_ok() {
                    continue;
                }
                self.counters.failed += 1;
                // Half a binding is worse than none, and this one's source is
                // told by its absence. While its device may still raise the
                // vector, which has no other owner.
                self.slots[guest][index].binding = None;
                let forbidden = self.forbid(source, vector);
                let _ = self.control.release(slot, vector);
                if forbidden.is_ok() {
                    self.vectors.give_back(vector);
                }
            }
        }
    }
}
