//! Debug keys, as Xen's serial console has them: one key, one report.

use core::fmt::Write as _;

use heapless::String;
use shm::{CounterPage, Ring};

use crate::Output;
use crate::dump::{self, State};

const HELP: &str = "\
keys: h  this help\r\n\
      M  MSI and MSI-X of every function: entries in use; again: all entries\r\n\
         mask: G by guest, F by function, S by storm\r\n\
      R  routes: from slot to guest vector\r\n\
      I  IOMMU: what each function reaches and raises, and what was refused\r\n\
      S  counters of every component, records that logs dropped\r\n\
h end\r\n";

/// The keys that report something. Each report ends with a line `KEY end`.
pub const REPORTS: [u8; 5] = *b"hMRIS";

/// Returns the position that a key stands for: 1 to 9, and a to z for 10 to 35.
#[must_use]
pub fn position(key: u8) -> Option<u8> {
    match key {
        b'1'..=b'9' => Some(key - b'0'),
        b'a'..=b'z' => Some(key - b'a' + 10),
        _ => None,
    }
}

/// The data that the keys report.
pub struct Keys<C, L, D> {
    /// Counter pages with their component's name.
    counters: C,
    /// Log rings with their writer's name.
    logs: L,
    /// State of the functions' interrupts.
    state: D,
    /// The last key, for those that mean more when they come twice.
    last: u8,
}

impl<'a, C, L, D> Keys<C, L, D>
where
    C: Iterator<Item = (&'a str, &'a CounterPage)> + Clone,
    L: Iterator<Item = (&'a str, &'a Ring)> + Clone,
    D: State,
{
    /// Keys that show these pages, rings and state.
    pub const fn new(counters: C, logs: L, state: D) -> Self {
        Self {
            counters,
            logs,
            state,
            last: 0,
        }
    }

    /// Answers a key; one that means nothing gets no answer. Each answer ends
    /// with a line `KEY end`, for programs that read it.
    pub fn press(&mut self, key: u8, output: &mut impl Output) {
        match key {
            b'h' | b'?' => output.text(HELP),
            b'M' => dump::functions(&mut self.state, self.last == b'M', output),
            b'R' => dump::routes(&mut self.state, output),
            b'I' => dump::iommu(&mut self.state, output),
            b'S' => self.statistics(output),
            // Other input of a terminal does not count as a key in between.
            _ => return,
        }
        self.last = key;
    }

    /// Reports each counter by a line `S COMPONENT NAME VALUE`.
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
    use crate::dump::Function;
    use channel::events::SlotEvents;
    use channel::iommu::{FaultRecord, FunctionState};
    use channel::irq_router::Source;
    use channel::irq_router::dump::BoundSlot;
    use channel::msix::EntryState;
    use channel::routes::Route;
    use channel::{Error, GuestMessage};
    use pci::Bdf;
    use shm::Counter;
    use spec::{FunctionId, IommuKind};

    extern crate std;
    use std::boxed::Box;
    use std::string::String as Text;

    struct Sink(Text);

    impl Output for Sink {
        fn put(&mut self, byte: u8) {
            self.0.push(char::from(byte));
        }
    }

    /// A function with 2048 entries, of which 3 is bound and 7 failed to bind,
    /// and one with a message of plain MSI.
    struct Fake;

    const MSIX: Source = Source::msix(FunctionId(0), 3);
    const MSI: Source = Source::msi(FunctionId(1), 0);

    fn slot(slot: u8, source: Source) -> BoundSlot {
        BoundSlot {
            guest: 0,
            slot,
            vector: 2,
            route: Route {
                message: GuestMessage {
                    vector: 0x51,
                    ..GuestMessage::default()
                },
                masked: false,
                source,
            },
        }
    }

    impl State for Fake {
        fn function(&self, function: FunctionId) -> Option<Function> {
            Some(Function {
                name: ["nic0", "disk0"].get(function.index())?,
                guest: "web",
                bdf: Bdf::new(0, function.0 + 1, 0)?,
            })
        }
        fn guest(&self, guest: u8) -> Option<&'static str> {
            (guest == 0).then_some("web")
        }
        fn control(&mut self, function: FunctionId) -> Option<u16> {
            (function == FunctionId(0)).then_some(0xc7ff)
        }
        fn next_entry(&mut self, _: FunctionId, from: u16, all: bool) -> Option<EntryState> {
            let used = [3, 7].into_iter().find(|&entry| entry >= from);
            let entry = if all { Some(from) } else { used }.filter(|&e| e < 2048)?;
            Some(EntryState {
                entry,
                address: 0xfee0_1004,
                data: 0x51,
                masked: entry == 7,
                throttled: false,
                updated: entry == 7,
                bound: entry == 3,
                pending: false,
                error: (entry == 7).then_some(Error::Exhausted),
            })
        }
        fn slot_of(&mut self, source: Source) -> Option<BoundSlot> {
            (source == MSIX).then_some(slot(5, MSIX))
        }
        fn next_slot(&mut self, _: u8, from: u8) -> Option<BoundSlot> {
            [slot(5, MSIX), slot(6, MSI)]
                .into_iter()
                .find(|slot| slot.slot >= from)
        }
        fn confinement(&mut self, function: FunctionId) -> Option<FunctionState> {
            (function == FunctionId(0)).then_some(FunctionState {
                unit: IommuKind::Amd,
                attached: true,
                vectors: 3,
                pages: 8192,
                faults: 2,
            })
        }
        fn next_fault(&mut self, from: u64) -> Option<FaultRecord> {
            (from <= 1).then_some(FaultRecord {
                number: 1,
                requester: 0x0010,
                write: true,
                interrupt: false,
                reason: 5,
                address: 0x10_0000,
            })
        }
        fn events(&self, _: u8, _: u8, _: Source) -> SlotEvents {
            SlotEvents {
                delivered: 123,
                held: 4,
                lost: 5,
                storms: 6,
                waiting: true,
            }
        }
    }

    fn press(keys: &[u8]) -> Text {
        let page: &'static CounterPage = Box::leak(Box::new(CounterPage::new()));
        let mut calls = Counter::default();
        calls.show(&mut page.places(), "calls");
        calls += 7;
        let ring = Box::new(Ring::new());
        let counters = [("msix", page)];
        let logs = [("msix", &*ring)];
        let mut pressed = Keys::new(counters.into_iter(), logs.into_iter(), Fake);
        let mut sink = Sink(Text::new());
        for &key in keys {
            pressed.press(key, &mut sink);
        }
        sink.0
    }

    #[test]
    fn positions_are_digits_and_then_letters() {
        for (key, expected) in [
            (b'1', Some(1)),
            (b'9', Some(9)),
            (b'a', Some(10)),
            (b'z', Some(35)),
            (b'0', None),
            (b'F', None),
            (b'{', None),
        ] {
            assert_eq!(position(key), expected);
        }
    }

    #[test]
    fn statistics_list_every_counter() {
        assert_eq!(
            press(b"S"),
            "S msix restarts 0\r\nS msix calls 7\r\nS msix log_records_dropped 0\r\nS end\r\n"
        );
    }

    #[test]
    fn other_keys_are_silent() {
        assert!(press(b"h").starts_with("keys:"));
        assert_eq!(press(b"\r\n x"), "");
    }

    #[test]
    fn every_report_ends_with_its_key_and_no_other_key_has_one() {
        for key in 0..=255 {
            let end = std::format!("{} end\r\n", char::from(key));
            let reports = press(&[key]).ends_with(&end);
            assert_eq!(reports, REPORTS.contains(&key), "{key:#x}");
        }
    }

    #[test]
    fn m_shows_entries_in_use() {
        assert_eq!(
            press(b"M"),
            "M nic0 00:01.0 (web): MSI-X 2048 entries, enabled, function-masked\r\n\
             M      3 vec=51 fixed edge dest=01 log mask=-F- upd=0 pend=1 slot=5 host=32 \
             delivered=123 held=4 lost=5 storms=6\r\n\
             M      7 vec=51 fixed edge dest=01 log mask=GF- upd=1 pend=0 slot=- host=- \
             delivered=0 held=0 lost=0 storms=0 failed: no vector or slot left\r\n\
             M disk0 00:02.0 (web): no MSI-X\r\n\
             M   msi 0 vec=51 fixed edge dest=00 phys mask=--- slot=6 host=32 delivered=123 held=4 lost=5 storms=6\r\n\
             M end\r\n"
        );
    }

    #[test]
    fn m_twice_shows_all_entries() {
        let once = press(b"M").lines().count();
        // Two functions, one message, the end: and 2048 entries for two.
        assert_eq!(press(b"M\nM").lines().count(), once + once - 2 + 2048);
        assert_eq!(press(b"MSM").lines().count(), 2 * once + 4);
    }

    #[test]
    fn i_shows_what_is_confined_and_refused() {
        assert_eq!(
            press(b"I"),
            "I nic0 (web): AMD-Vi, attached, 8192 pages, 3 vectors, 2 refused\r\n\
             I disk0 (web): no IOMMU\r\n\
             I refused 1: 00:02.0 write at 0x100000, reason 0x05\r\n\
             I end\r\n"
        );
    }

    #[test]
    fn r_shows_routes() {
        assert_eq!(
            press(b"R"),
            "R web slot  5 <- nic0 msix 3 host=32 -> vec=51 fixed edge dest=00 phys\r\n\
             R web slot  6 <- disk0 msi 0 host=32 -> vec=51 fixed edge dest=00 phys\r\n\
             R end\r\n"
        );
    }
}
