//! The routing page: written by irq-router, read by the vmm for each interrupt.
//!
//! A route is one word, so that a reader on another core sees it whole.

use core::sync::atomic::{AtomicU64, Ordering};
use spec::{FunctionId, SLOTS};

use crate::GuestMessage;
use crate::irq_router::{Source, SourceKind};

/// Where a slot's events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The guest's message. Level-triggered: an EOI acknowledges the IRQ handler
    /// capability.
    pub message: GuestMessage,
    /// Events are held, not injected (M20).
    pub masked: bool,
    /// The source bound to the slot.
    pub source: Source,
}

const VALID: u64 = 1 << 63;

impl Route {
    /// Returns the word on the page.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        VALID
            | self.message.to_bits()
            | (self.masked as u64) << 21
            | (self.source.entry as u64) << 32
            | (self.source.function.0 as u64) << 48
            | (self.source.kind as u64) << 56
    }

    /// Returns the route of a word; `None` for an empty slot.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        let kind = SourceKind::from_number((word >> 56 & 3) as u8);
        let (true, Some(kind)) = (word & VALID != 0, kind) else {
            return None;
        };
        Some(Self {
            message: GuestMessage::from_bits(word),
            masked: word >> 21 & 1 == 1,
            source: Source {
                function: FunctionId((word >> 48) as u8),
                kind,
                entry: (word >> 32) as u16,
            },
        })
    }
}

/// One guest's routes, as they lie in shared memory.
#[repr(C)]
pub struct RoutePage {
    routes: [AtomicU64; SLOTS],
}

impl RoutePage {
    /// Creates a page without routes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            routes: [const { AtomicU64::new(0) }; SLOTS],
        }
    }

    /// Returns the route of a slot; `None` if it is empty or there is no such
    /// slot.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<Route> {
        Route::from_word(self.routes.get(slot)?.load(Ordering::Acquire))
    }

    /// Sets or clears a slot; one that does not exist is ignored.
    pub fn set(&self, slot: usize, route: Option<Route>) {
        if let Some(word) = self.routes.get(slot) {
            word.store(route.map_or(0, Route::to_word), Ordering::Release);
        }
    }
}

impl Default for RoutePage {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_survives_its_word() {
        let route = Route {
            message: GuestMessage {
                vector: 0xfe,
                destination: 0xff,
                delivery_mode: 7,
                level: true,
                logical: true,
            },
            masked: true,
            source: Source::pin(FunctionId(0xff), 23),
        };
        assert_eq!(Route::from_word(route.to_word()), Some(route));
        let plain = Route {
            message: GuestMessage {
                vector: 0x10,
                ..GuestMessage::default()
            },
            masked: false,
            source: Source::msix(FunctionId(0), 2047),
        };
        assert_eq!(Route::from_word(plain.to_word()), Some(plain));
        assert_eq!(Route::from_word(0), None);
    }

    #[test]
    fn slots_past_the_page_are_empty() {
        let page = RoutePage::new();
        page.set(SLOTS, None);
        assert_eq!(page.get(SLOTS), None);
    }
}
