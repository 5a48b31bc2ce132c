//! Debug keys, as Xen's serial console has them: one key, one report.

use core::fmt::Write as _;

use heapless::String;
use shm::{CounterPage, Ring};

use crate::Output;

const HELP: &str = "\
keys: h  this help\r\n\
      S  counters of every component, records that logs dropped\r\n";

/// What the keys can show.
pub struct Keys<'a, C, L> {
    /// Counter pages with their component's name.
    pub counters: C,
    /// Log rings with their writer's name.
    pub logs: L,
    _lifetime: core::marker::PhantomData<&'a ()>,
}

impl<'a, C, L> Keys<'a, C, L>
where
    C: Iterator<Item = (&'a str, &'a CounterPage)> + Clone,
    L: Iterator<Item = (&'a str, &'a Ring)> + Clone,
{
    /// Keys that show these pages and rings.
    pub const fn new(counters: C, logs: L) -> Self {
        Self {
            counters,
            logs,
            _lifetime: core::marker::PhantomData,
        }
    }

    /// Answers a key; one that means nothing gets no answer.
    pub fn press(&self, key: u8, output: &mut impl Output) {
        match key {
            b'h' | b'?' => output.text(HELP),
            b'S' => self.statistics(output),
            _ => {}
        }
    }

    /// A line for each counter: `S COMPONENT NAME VALUE`; the last line is
    /// `S end`, for programs that read this.
    fn statistics(&self, output: &mut impl Output) {
        let mut line = |component: &str, name: &str, value: u64| {
            let mut text = String::<128>::new();
            // 24 + 40 bytes of names and 20 of digits always fit.
            let _ = write!(text, "S {component} {name} {value}\r\n");
            output.text(&text);
        };
        for (component, page) in self.counters.clone() {
            let mut name = [0; 40];
            let mut index = 0;
            while let Some((name, value)) = page.read(index, &mut name) {
                line(component, name, value);
                index += 1;
            }
        }
        for (writer, ring) in self.logs.clone() {
            line(writer, "log_records_dropped", ring.dropped());
        }
        output.text("S end\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::boxed::Box;
    use std::string::String as Text;

    struct Sink(Text);

    impl Output for Sink {
        fn put(&mut self, byte: u8) {
            self.0.push(char::from(byte));
        }
    }

    fn press(key: u8) -> Text {
        let page = Box::new(CounterPage::new());
        page.publish(&[("calls", 7)]);
        let ring = Box::new(Ring::new());
        let counters = [("msix", &*page)];
        let logs = [("msix", &*ring)];
        let mut sink = Sink(Text::new());
        Keys::new(counters.into_iter(), logs.into_iter()).press(key, &mut sink);
        sink.0
    }

    #[test]
    fn statistics_list_every_counter() {
        assert_eq!(
            press(b'S'),
            "S msix calls 7\r\nS msix log_records_dropped 0\r\nS end\r\n"
        );
    }

    #[test]
    fn other_keys_are_silent() {
        assert!(press(b'h').starts_with("keys:"));
        assert_eq!(press(b'\r'), "");
    }
}
