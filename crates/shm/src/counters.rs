//! A page of named counters: one writer, any number of readers.
//!
//! A component declares its counters by [`counters!`](crate::counters!) and gives each a
//! place on the page when it starts. From then on each change is on the page at once, so
//! that the receive loop has nothing to publish.

use core::ops::{AddAssign, SubAssign};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Counters on a page.
pub const COUNTERS: usize = 64;
const NAME_BYTES: usize = 40;

/// The counter that each page begins with: how often its writer was started again.
pub const RESTARTS: &str = "restarts";

#[repr(C)]
struct Place {
    name: [AtomicU8; NAME_BYTES],
    value: AtomicU64,
}

/// The page as it lies in shared memory; all zeroes is one without counters.
#[repr(C)]
pub struct CounterPage {
    places: [Place; COUNTERS],
}

impl CounterPage {
    /// Creates a page without counters.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            places: [const {
                Place {
                    name: [const { AtomicU8::new(0) }; NAME_BYTES],
                    value: AtomicU64::new(0),
                }
            }; COUNTERS],
        }
    }

    /// Begins a life of the page's writer: counts its restarts in the first place, and
    /// returns the others. Each life takes the same ones again.
    pub fn places(&'static self) -> Places {
        let before = self.read(0, &mut [0; NAME_BYTES]).map(|(_, value)| value);
        let mut places = Places(self.places.as_slice());
        let mut restarts = Counter::default();
        restarts.show(&mut places, RESTARTS);
        restarts.set(before.map_or(0, |before| before.wrapping_add(1)));
        places
    }

    /// Reads counter `index`: returns its name, written into `name`, and
    /// its value; `None` past the last one. Bytes that are not printable ASCII
    /// become `?`.
    pub fn read<'a>(&self, index: usize, name: &'a mut [u8; 40]) -> Option<(&'a str, u64)> {
        let counter = self.places.get(index)?;
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

/// The places of a page that have no counter yet.
pub struct Places(&'static [Place]);

impl Places {
    /// Names the next place and returns where its value lies; `None` past the page's end.
    /// A name is cut after 40 bytes.
    fn take(&mut self, name: &str) -> Option<&'static AtomicU64> {
        let (place, rest) = self.0.split_first()?;
        self.0 = rest;
        let bytes = name.bytes().chain(core::iter::repeat(0));
        for (at, byte) in place.name.iter().zip(bytes) {
            at.store(byte, Ordering::Relaxed);
        }
        Some(&place.value)
    }
}

/// A number that others see on the component's page, once it has a place there.
#[derive(Debug, Default)]
pub struct Counter {
    value: u64,
    shown: Option<&'static AtomicU64>,
}

impl Counter {
    /// Takes the next place of the page. Where there is none left, the counter counts
    /// unseen.
    pub fn show(&mut self, places: &mut Places, name: &str) {
        self.shown = places.take(name);
        self.set(self.value);
    }

    /// Returns the value.
    #[must_use]
    pub const fn get(&self) -> u64 {
        self.value
    }

    /// Sets the value.
    pub fn set(&mut self, value: u64) {
        self.value = value;
        if let Some(shown) = self.shown {
            shown.store(value, Ordering::Relaxed);
        }
    }
}

impl AddAssign<u64> for Counter {
    fn add_assign(&mut self, more: u64) {
        self.set(self.value.wrapping_add(more));
    }
}

impl SubAssign<u64> for Counter {
    fn sub_assign(&mut self, less: u64) {
        self.set(self.value.saturating_sub(less));
    }
}

impl PartialEq<u64> for Counter {
    fn eq(&self, value: &u64) -> bool {
        self.value == *value
    }
}

/// Declares a structure of counters, each a [`Counter`] that is shown under the name of
/// its field. The fields' documentation is kept with the names, in `MEANINGS`.
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[doc = $meaning:literal])+ $counter:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[doc = $meaning])+ pub $counter: $crate::Counter,)*
        }

        impl $name {
            /// The name of each, and what it counts.
            pub const MEANINGS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($counter), concat!($($meaning),+))),*];

            /// Gives each its place on the component's page, in their order.
            pub fn show(&mut self, places: &mut $crate::Places) {
                $(self.$counter.show(places, stringify!($counter));)*
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

    counters! {
        /// Counters of a test.
        pub struct Counters {
            /// The first.
            calls,
            /// The second.
            errors,
        }
    }

    fn page() -> &'static CounterPage {
        Box::leak(Box::new(CounterPage::new()))
    }

    #[test]
    fn each_change_is_on_the_page_under_the_name_of_its_field() {
        let page = page();
        let mut name = [0; 40];
        assert_eq!(page.read(0, &mut name), None);
        assert_eq!(Counters::MEANINGS[1], ("errors", " The second."));
        let mut counters = Counters::default();
        counters.calls += 3;
        let mut places = page.places();
        counters.show(&mut places);
        let mut used = Counter::default();
        used.show(&mut places, "used");
        counters.errors += 2;
        used.set(7);
        used -= 4;
        for (index, expected) in [("restarts", 0), ("calls", 3), ("errors", 2), ("used", 3)]
            .into_iter()
            .enumerate()
        {
            assert_eq!(page.read(index, &mut name), Some(expected));
        }
        assert_eq!(page.read(4, &mut name), None);
        assert_eq!(page.read(COUNTERS, &mut name), None);
        assert!(counters.errors == 2 && used.get() == 3);
        // A new life has the same places, and begins anew.
        Counters::default().show(&mut page.places());
        assert_eq!(page.read(0, &mut name), Some(("restarts", 1)));
        assert_eq!(page.read(1, &mut name), Some(("calls", 0)));
        assert_eq!(page.read(3, &mut name), Some(("used", 3)));
        Counters::default().show(&mut page.places());
        assert_eq!(page.read(0, &mut name), Some(("restarts", 2)));
    }

    #[test]
    fn what_a_former_life_left_of_a_name_is_gone() {
        let (page, mut name) = (page(), [0; 40]);
        Counter::default().show(&mut page.places(), "a\x1b[2J\u{e9}");
        assert_eq!(page.read(1, &mut name), Some(("a?[2J??", 0)));
        Counter::default().show(&mut page.places(), "b");
        assert_eq!(page.read(1, &mut name), Some(("b", 0)));
    }

    #[test]
    fn past_the_page_a_counter_counts_unseen() {
        let mut places = page().places();
        for _ in 1..COUNTERS {
            assert!(places.take("a").is_some());
        }
        let mut counter = Counter::default();
        counter.show(&mut places, "b");
        counter += 1;
        assert_eq!(counter.get(), 1);
        counter -= 2;
        assert_eq!(counter.get(), 0);
    }

    #[test]
    fn fits_a_page() {
        assert!(size_of::<CounterPage>() <= 4096);
    }
}
