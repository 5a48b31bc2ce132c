//! The probe on a function made of its registers' meaning.

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::bus::Shared;

const OWN: u64 = 0x4000_0000;
const ELSEWHERE: u64 = 0x8000_0000;

#[derive(Debug)]
struct State {
    registers: BTreeMap<u32, u64>,
    bus: Shared,
    offered: u64,
    entries: u16,
    kind: Kind,
    /// The reset does not end.
    hangs: bool,
    /// It never answers.
    idle: bool,
    absent: bool,
    reads: u32,
}

#[derive(Clone, Debug)]
struct Fake(Rc<RefCell<State>>);

impl Fake {
    fn new(bus: &Shared, kind: Kind) -> Self {
        Self(Rc::new(RefCell::new(State {
            registers: BTreeMap::new(),
            bus: bus.clone(),
            offered: VERSION_1 | ACCESS_PLATFORM | 1 << 17 | 1 << 5,
            entries: 256,
            kind,
            hangs: false,
            idle: false,
            absent: false,
            reads: 0,
        })))
    }

    fn probe(&self) -> Virtio<Self, impl FnMut(u16) + use<>, Shared> {
        let (bell, state) = (self.clone(), self.0.borrow());
        let notify = move |queue| {
            assert_eq!(queue, bell.0.borrow().kind.queue());
            let _ = bell.0.borrow_mut().serve();
        };
        Virtio::new(self.clone(), notify, state.bus.clone(), OWN, state.kind)
    }
}

impl State {
    fn get(&self, offset: u32) -> u64 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn wide(&self, offset: u32) -> u64 {
        self.get(offset + 4) << 32 | self.get(offset)
    }

    /// Serves the first request; `None` if it gets stuck.
    fn serve(&mut self) -> Option<()> {
        let up = self.get(STATUS) & u64::from(DRIVER_OK) != 0;
        if !up || self.get(QUEUE_ENABLE) != 1 || self.idle {
            return None;
        }
        let (table, used) = (self.wide(QUEUE_TABLE), self.wide(QUEUE_USED));
        let available = self.wide(QUEUE_AVAILABLE);
        let mut bus = self.bus.bus();
        assert_eq!(bus.number(available, 2)?, u64::from(NO_INTERRUPT));
        let mut at = bus.number(available + 4, 2)?;
        let (mut header, mut written) = (Vec::new(), 0);
        for _ in 0..ENTRIES {
            let entry = table + at * 16;
            let address = bus.number(entry, 8)?;
            let length = bus.number(entry + 8, 4)? as usize;
            let flags = bus.number(entry + 12, 2)? as u16;
            if length == 0 || length > 4096 {
                drop(bus);
                let broken = self.get(STATUS) | u64::from(NEEDS_RESET);
                self.registers.insert(STATUS, broken);
                return None;
            }
            if flags & WRITABLE == 0 {
                header.extend(bus.fetch(address, length)?);
            } else {
                bus.put(address, &vec![1; length]);
                written += length as u32;
            }
            at = bus.number(entry + 14, 2)?;
            if flags & NEXT == 0 {
                break;
            }
        }
        assert_eq!(header, self.kind.header());
        bus.put(used + 4, &[0; 4]);
        bus.put(used + 8, &written.to_le_bytes());
        bus.put(used + 2, &[1, 0]);
        Some(())
    }

    fn read(&mut self, offset: u32) -> u64 {
        self.reads += 1;
        match offset {
            _ if self.absent => u64::MAX,
            DEVICE_FEATURE => self.offered >> (32 * self.get(DEVICE_FEATURE_SELECT)),
            QUEUE_SIZE => self.entries.into(),
            QUEUE_NOTIFY_OFF => 7 + self.get(QUEUE_SELECT),
            STATUS if self.hangs => 1,
            _ => self.get(offset),
        }
    }

    fn write(&mut self, offset: u32, value: u64) {
        if offset == STATUS && value == 0 {
            self.registers.clear();
        }
        self.registers.insert(offset, value);
    }
}

impl Registers for Fake {
    fn read(&mut self, offset: u32) -> u32 {
        self.0.borrow_mut().read(offset) as u32
    }
    fn write(&mut self, offset: u32, value: u32) {
        self.0.borrow_mut().write(offset, value.into());
    }
}

impl Narrow for Fake {
    fn read8(&mut self, offset: u32) -> u8 {
        self.0.borrow_mut().read(offset) as u8
    }
    fn write8(&mut self, offset: u32, value: u8) {
        self.0.borrow_mut().write(offset, value.into());
    }
    fn read16(&mut self, offset: u32) -> u16 {
        self.0.borrow_mut().read(offset) as u16
    }
    fn write16(&mut self, offset: u32, value: u16) {
        self.0.borrow_mut().write(offset, value.into());
    }
}

const KINDS: [Kind; 3] = [Kind::Network, Kind::Block, Kind::Entropy];

#[test]
fn it_writes_where_it_is_told() {
    for kind in KINDS {
        let bus = Shared::new(OWN);
        let mut probe = Fake::new(&bus, kind).probe();
        bus.bus().store(ELSEWHERE, &[BEFORE; WATCHED]);
        assert_eq!(probe.write(ELSEWHERE), Ok(()));
        assert_ne!(bus.bus().load(ELSEWHERE, WATCHED), [BEFORE; WATCHED]);
        bus.bus().store(ELSEWHERE, &[BEFORE; WATCHED]);
        bus.bus().unwritable.push(ELSEWHERE..ELSEWHERE + 0x1000);
        assert_eq!(probe.write(ELSEWHERE), Ok(()));
        assert_eq!(bus.bus().load(ELSEWHERE, WATCHED), [BEFORE; WATCHED]);
    }
}

#[test]
fn what_it_reads_shows_in_what_it_does() {
    for kind in KINDS {
        let bus = Shared::new(OWN);
        let mut probe = Fake::new(&bus, kind).probe();
        bus.bus().store(ELSEWHERE, &probe.bait());
        assert_eq!(probe.reads(ELSEWHERE), Ok(true));
        bus.bus().unreadable.push(ELSEWHERE..ELSEWHERE + 0x1000);
        for answer in [None, Some(0), Some(0xff)] {
            bus.bus().answer = answer;
            assert_eq!(probe.reads(ELSEWHERE), Ok(false), "{answer:?}");
        }
    }
}

#[test]
fn what_it_offers() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus, Kind::Network);
    let offer = |behind_iommu, notification| {
        Ok(Offer {
            behind_iommu,
            notification,
        })
    };
    assert_eq!(look(&mut fake, Some(Kind::Network)), offer(true, 9));
    fake.0.borrow_mut().offered = VERSION_1;
    assert_eq!(look(&mut fake, None), offer(false, 0));
    fake.0.borrow_mut().absent = true;
    assert_eq!(look(&mut fake, None), Err(Stuck::Absent));
}

#[test]
fn one_that_does_nothing_is_stuck_within_a_bound() {
    let bus = Shared::new(OWN);
    let fake = Fake::new(&bus, Kind::Network);
    let set = |change: fn(&mut State)| change(&mut fake.0.borrow_mut());
    let mut probe = fake.probe();
    set(|state| state.idle = true);
    assert_eq!(probe.write(ELSEWHERE), Err(Stuck::Order));
    set(|state| state.entries = 2);
    assert_eq!(probe.write(ELSEWHERE), Err(Stuck::Unsupported));
    // No queue for orders.
    set(|state| {
        state.entries = 256;
        state.idle = false;
        state.offered = VERSION_1;
    });
    assert_eq!(probe.write(ELSEWHERE), Err(Stuck::Unsupported));
    set(|state| state.hangs = true);
    assert_eq!(probe.quiesce(), Err(Stuck::Reset));
    assert!(fake.0.borrow().reads < 3 * RESET_READS);
    set(|state| state.absent = true);
    assert_eq!(probe.quiesce(), Err(Stuck::Absent));
}

#[test]
fn it_is_as_after_a_reset_afterwards() {
    let bus = Shared::new(OWN);
    let fake = Fake::new(&bus, Kind::Block);
    let mut probe = fake.probe();
    assert_eq!(probe.write(ELSEWHERE), Ok(()));
    assert_eq!(probe.quiesce(), Ok(()));
    assert!(fake.0.borrow().registers.values().all(|value| *value == 0));
}
