//! The probe on a controller made of its registers' meaning.

extern crate std;

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::bus::Shared;

const OWN: u64 = 0x4000_0000;
const ELSEWHERE: u64 = 0x8000_0000;

#[derive(Debug)]
struct Fake {
    registers: BTreeMap<u32, u32>,
    bus: Shared,
    /// Reads of the status until it is as it should be.
    slow: u32,
    left: u32,
    /// It never becomes ready, or never stops.
    stays: Option<u32>,
    /// Every register reads all ones.
    absent: bool,
    reads: u32,
    /// It has a timestamp, which is this.
    keeps_time: bool,
    timestamp: Vec<u8>,
}

impl Fake {
    fn new(bus: &Shared) -> Self {
        Self {
            registers: BTreeMap::from([(CAP, 0x3f)]),
            bus: bus.clone(),
            slow: 3,
            left: 0,
            stays: None,
            absent: false,
            reads: 0,
            keeps_time: true,
            timestamp: Vec::new(),
        }
    }

    fn get(&self, register: u32) -> u32 {
        self.registers.get(&register).copied().unwrap_or(0)
    }

    fn wide(&self, register: u32) -> u64 {
        u64::from(self.get(register + 4)) << 32 | u64::from(self.get(register))
    }

    fn command(&mut self, number: u64) -> Option<()> {
        let (queue, completions) = (self.wide(ASQ) + number * 64, self.wide(ACQ) + number * 16);
        let mut bus = self.bus.bus();
        let Some(command) = bus.fetch(queue, 64) else {
            drop(bus);
            self.registers.insert(CSTS, CSTS_READY | CSTS_FATAL);
            return None;
        };
        let (first, second) = (bus.number(queue + 24, 8)?, bus.number(queue + 32, 8)?);
        let good = match (command[0], command[40]) {
            (6, 1) => {
                let data: Vec<u8> = (0..4096u32).map(|byte| byte as u8).collect();
                bus.put(first, &data);
                true
            }
            (9, 14) if self.keeps_time => {
                self.timestamp = bus.fetch(first, 8)?;
                true
            }
            (10, 14) if self.keeps_time => {
                let (low, high) = self.timestamp.split_at(4);
                bus.put(first, low);
                bus.put(second, high);
                true
            }
            _ => false,
        };
        let mut completion = [0; 16];
        completion[14] = if good { 1 } else { 3 };
        bus.put(completions, &completion);
        Some(())
    }
}

impl Registers for &mut Fake {
    fn read(&mut self, offset: u32) -> u32 {
        self.reads += 1;
        if self.absent {
            return u32::MAX;
        }
        if offset == CSTS {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                let ready = self.stays.unwrap_or(self.get(CC) & 1);
                let fatal = self.get(CSTS) & CSTS_FATAL;
                self.registers.insert(CSTS, ready | (fatal * ready));
            }
        }
        self.get(offset)
    }
    fn write(&mut self, offset: u32, value: u32) {
        if offset == CC && (value ^ self.get(CC)) & 1 != 0 {
            self.left = self.slow;
        }
        self.registers.insert(offset, value);
        if offset == TAIL && self.get(CSTS) & CSTS_READY != 0 {
            let _ = self.command(u64::from(value) - 1);
        }
    }
}

fn probe(fake: &mut Fake) -> Nvme<&mut Fake, Shared> {
    let memory = fake.bus.clone();
    Nvme::new(fake, memory, OWN)
}

#[test]
fn it_writes_where_it_is_told() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    bus.bus().store(ELSEWHERE, &[BEFORE; WATCHED]);
    assert_eq!(probe(&mut fake).write(ELSEWHERE), Ok(()));
    assert_ne!(bus.bus().load(ELSEWHERE, WATCHED), [BEFORE; WATCHED]);
    bus.bus().unwritable.push(ELSEWHERE..ELSEWHERE + 0x1000);
    bus.bus().store(ELSEWHERE, &[BEFORE; WATCHED]);
    assert_eq!(probe(&mut fake).write(ELSEWHERE), Ok(()));
    assert_eq!(bus.bus().load(ELSEWHERE, WATCHED), [BEFORE; WATCHED]);
}

#[test]
fn what_it_reads_shows_in_what_it_does() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    let bait = probe(&mut fake).bait();
    bus.bus().store(ELSEWHERE, &bait);
    assert_eq!(probe(&mut fake).reads(ELSEWHERE), Ok(true));
    bus.bus().unreadable.push(ELSEWHERE..ELSEWHERE + 0x1000);
    for answer in [None, Some(0), Some(0xff)] {
        bus.bus().answer = answer;
        assert_eq!(probe(&mut fake).reads(ELSEWHERE), Ok(false), "{answer:?}");
    }
    // One that failed for good serves again after its reset.
    bus.bus().unreadable.clear();
    assert_eq!(probe(&mut fake).reads(ELSEWHERE), Ok(true));
}

#[test]
fn its_timestamp_is_the_message() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    assert_eq!(probe(&mut fake).forge(0x33), Ok(()));
    assert_eq!(bus.bus().load(FIRST_CPU, 8), [0x33, 0, 0, 0, 0, 0, 0, 0]);
    fake.keeps_time = false;
    assert_eq!(probe(&mut fake).forge(0x33), Err(Stuck::Unsupported));
}

#[test]
fn a_controller_that_does_nothing_is_stuck_within_a_bound() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    fake.stays = Some(0);
    assert_eq!(probe(&mut fake).write(ELSEWHERE), Err(Stuck::Start));
    fake.stays = Some(1);
    fake.registers.insert(CSTS, CSTS_READY);
    assert_eq!(probe(&mut fake).quiesce(), Err(Stuck::Reset));
    assert!(fake.reads < 6 * HALF_SECOND_READS);
    fake.stays = None;
    bus.bus().unwritable.push(OWN..OWN + 0x3000);
    assert_eq!(probe(&mut fake).write(ELSEWHERE), Err(Stuck::Order));
    assert_eq!(probe(&mut fake).forge(0x33), Err(Stuck::Order));
    fake.absent = true;
    fake.reads = 0;
    assert_eq!(probe(&mut fake).quiesce(), Err(Stuck::Absent));
    assert!(fake.reads < 10);
}

#[test]
fn it_is_as_after_a_reset_afterwards() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    assert_eq!(probe(&mut fake).write(ELSEWHERE), Ok(()));
    assert_eq!(probe(&mut fake).quiesce(), Ok(()));
    for register in [CC, CSTS, AQA, ASQ, ASQ + 4, ACQ, ACQ + 4] {
        assert_eq!(fake.get(register), 0, "{register:#x}");
    }
}

#[test]
fn pages_that_are_larger_are_not_supported() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    fake.registers.insert(CAP_HIGH, 1 << 16);
    assert_eq!(probe(&mut fake).write(ELSEWHERE), Err(Stuck::Unsupported));
}
