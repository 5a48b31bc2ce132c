//! A page of named counters: one writer, any number of readers.
//!
//! A component declares its counters by [`counters!`](crate::counters!).

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Counters on a page.
pub const COUNTERS: usize = 64;
const NAME_BYTES: usize = 40;

#[repr(C)]
struct Counter {
    name: [AtomicU8; NAME_BYTES],
    value: AtomicU64,
}

/// The page as it lies in shared memory; all zeroes is one without counters.
#[repr(C)]
pub struct CounterPage {
    counters: [Counter; COUNTERS],
}

impl CounterPage {
    /// Creates a page without counters.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counters: [const {
                Counter {
                    name: [const { AtomicU8::new(0) }; NAME_BYTES],
                    value: AtomicU64::new(0),
                }
            }; COUNTERS],
        }
    }

    /// Publishes the current values, and others behind them; always the same names in
    /// the same order. Counters past the end of the page are left out.
    pub fn publish(&self, counters: &impl Counted, others: &[(&str, u64)]) {
        let first = counters.publish_to(self);
        for (index, &(name, value)) in (first..).zip(others) {
            self.set(index, name, value);
        }
    }

    /// Sets counter `index`. Its name is written the first time only, since a component
    /// publishes with each request.
    pub fn set(&self, index: usize, name: &str, value: u64) {
        let Some(counter) = self.counters.get(index) else {
            return;
        };
        if counter.name[0].load(Ordering::Relaxed) == 0 {
            for (place, byte) in counter.name.iter().zip(name.bytes()) {
                place.store(byte, Ordering::Relaxed);
            }
        }
        counter.value.store(value, Ordering::Relaxed);
    }

    /// Reads counter `index`: returns its name, written into `name`, and
    /// its value; `None` past the last one. Bytes that are not printable ASCII
    /// become `?`.
    pub fn read<'a>(&self, index: usize, name: &'a mut [u8; 40]) -> Option<(&'a str, u64)> {
        let counter = self.counters.get(index)?;
        let mut length = 0;
        for (place, byte) in name.iter_mut().zip(&counter.name) {
            let byte = byte.load(Ordering::Relaxed);
            if byte == 0 {
                break;
            }
            *place = if byte.is_ascii_graphic() { byte } else { b'?' };
            length += 1;
        }
        if length == 0 {
            return None;
        }
        let name = core::str::from_utf8(&name[..length]).unwrap_or("?");
        Some((name, counter.value.load(Ordering::Relaxed)))
    }
}

/// Counters that can be published: see [`counters!`](crate::counters!).
pub trait Counted {
    /// Sets them on the page, from its first place on. Returns how many they are.
    fn publish_to(&self, page: &CounterPage) -> usize;
}

/// No counters, for a component that has only others.
impl Counted for () {
    fn publish_to(&self, _: &CounterPage) -> usize {
        0
    }
}

/// Declares a structure of counters, each a `u64` that is published under the
/// name of its field.
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$counter_meta:meta])* $counter:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$counter_meta])* pub $counter: u64,)*
        }

        impl $crate::Counted for $name {
            fn publish_to(&self, page: &$crate::CounterPage) -> usize {
                let mut count = 0;
                $(
                    page.set(count, stringify!($counter), self.$counter);
                    count += 1;
                )*
                count
            }
        }
    };
}

impl Default for CounterPage {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::boxed::Box;

    #[test]
    fn reads_what_was_published() {
        let page = Box::new(CounterPage::new());
        let mut name = [0; 40];
        assert_eq!(page.read(0, &mut name), None);
        page.publish(&(), &[("calls", 3), ("errors", 0)]);
        page.publish(&(), &[("calls", 4), ("errors", 1)]);
        assert_eq!(page.read(0, &mut name), Some(("calls", 4)));
        assert_eq!(page.read(1, &mut name), Some(("errors", 1)));
        assert_eq!(page.read(2, &mut name), None);
        assert_eq!(page.read(COUNTERS, &mut name), None);
    }

    #[test]
    fn names_from_a_crashed_writer_stay_printable() {
        let page = Box::new(CounterPage::new());
        page.publish(&(), &[("a\x1b[2J\u{e9}", 1)]);
        let mut name = [0; 40];
        assert_eq!(page.read(0, &mut name), Some(("a?[2J??", 1)));
    }

    #[test]
    fn a_counter_is_published_under_the_name_of_its_field() {
        counters! {
            /// Counters of a test.
            pub struct Counters {
                /// The first.
                calls,
                /// The second.
                errors,
            }
        }
        let page = Box::new(CounterPage::new());
        let mut counters = Counters::default();
        counters.errors += 2;
        page.publish(&counters, &[("used", 3)]);
        let mut name = [0; 40];
        for (index, expected) in [("calls", 0), ("errors", 2), ("used", 3)]
            .into_iter()
            .enumerate()
        {
            assert_eq!(page.read(index, &mut name), Some(expected));
        }
    }

    #[test]
    fn fits_a_page() {
        assert!(size_of::<CounterPage>() <= 4096);
    }
}
