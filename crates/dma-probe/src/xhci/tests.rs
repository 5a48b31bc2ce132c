//! The probe on a controller made of its registers' meaning.

extern crate std;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use super::*;
use crate::BEFORE;
use crate::bus::Shared;

const OWN: u64 = 0x4000_0000;
const ELSEWHERE: u64 = 0x8000_0000;
const OPERATIONAL: u32 = 0x40;
const RUNTIME: u32 = 0x1000;
const DOORBELLS: u32 = 0x2000;
const CAPABILITY: u32 = 0x500;

#[derive(Debug)]
struct Fake {
    registers: BTreeMap<u32, u32>,
    bus: Shared,
    /// Reads of the status until it is as it should be.
    slow: u32,
    left: u32,
    /// Bits of the status that stay.
    stays: u32,
    /// Its reset does not end.
    resetting: bool,
    /// Every register reads all ones.
    absent: bool,
    /// Firmware never lets go.
    held: bool,
    /// Ports with a device, each of which is an event before the command's.
    ports: u32,
    reads: u32,
    resets: u32,
    pauses: Rc<Cell<u32>>,
}

impl Fake {
    fn new(bus: &Shared) -> Self {
        Self {
            registers: BTreeMap::from([
                (CAPLENGTH, 0x0100_0000 | OPERATIONAL),
                (HCCPARAMS1, AC64),
                (RTSOFF, RUNTIME),
                (DBOFF, DOORBELLS),
                (OPERATIONAL + PAGESIZE, PAGES_OF_4K),
                (OPERATIONAL + USBSTS, HALTED),
            ]),
            bus: bus.clone(),
            slow: 3,
            left: 0,
            stays: 0,
            resetting: false,
            absent: false,
            held: false,
            ports: 0,
            reads: 0,
            resets: 0,
            pauses: Rc::default(),
        }
    }

    fn get(&self, register: u32) -> u32 {
        self.registers.get(&register).copied().unwrap_or(0)
    }

    fn wide(&self, register: u32) -> u64 {
        u64::from(self.get(register + 4)) << 32 | u64::from(self.get(register))
    }

    fn status(&mut self, bits: u32) {
        *self.registers.entry(OPERATIONAL + USBSTS).or_default() |= bits;
    }

    /// Does one command. `None`: a request of its own failed.
    fn command(&mut self) -> Option<()> {
        let commands = self.wide(OPERATIONAL + CRCR) & !0x3f;
        let table = self.wide(RUNTIME + ERSTBA);
        let mut bus = self.bus.bus();
        let contexts = self.wide(OPERATIONAL + DCBAAP);
        let parameters = self.get(HCSPARAMS2);
        if parameters != 0 {
            let list = bus.number(contexts, 8)?;
            for index in 0..u64::from(parameters >> 27) {
                let page = bus.number(list + index * 8, 8)?;
                assert_eq!(bus.load(page, 4096), [0; 4096]);
                // It keeps something there.
                bus.put(page, &[0xee; 4096]);
            }
        }
        let (ring, size) = (bus.number(table, 8)?, bus.number(table + 8, 4)?);
        assert!((16..=4096).contains(&size));
        assert_eq!(self.wide(RUNTIME + ERDP), ring);
        let control = bus.number(commands + 12, 4)? as u32;
        let mut events = Vec::new();
        for port in 0..self.ports {
            events.push((u64::from(port) << 24, SUCCESS << 24, 34u32 << 10));
        }
        if control & CYCLE != 0 {
            let code = if control >> 10 & 0x3f == NO_OP {
                SUCCESS
            } else {
                5
            };
            events.push((commands, code << 24, COMPLETED << 10));
        }
        for (index, (what, code, control)) in (0..size).zip(&events) {
            let mut event = what.to_le_bytes().to_vec();
            event.extend(code.to_le_bytes());
            event.extend((control | CYCLE).to_le_bytes());
            bus.put(ring + index * 16, &event);
        }
        drop(bus);
        if !events.is_empty() {
            self.status(EVENT);
        }
        Some(())
    }
}

impl Registers for &mut Fake {
    fn read(&mut self, offset: u32) -> u32 {
        self.reads += 1;
        if self.absent {
            return u32::MAX;
        }
        assert!(offset < REGISTER_BYTES, "{offset:#x}");
        if offset == OPERATIONAL + USBSTS {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                let halted = !self.get(OPERATIONAL + USBCMD) & RUN;
                let others = self.get(offset) & !(HALTED | NOT_READY);
                self.registers.insert(offset, others | halted | self.stays);
            }
        }
        self.get(offset)
    }
    fn write(&mut self, offset: u32, value: u32) {
        assert!(offset < REGISTER_BYTES, "{offset:#x}");
        let running = self.get(OPERATIONAL + USBCMD) & RUN != 0;
        match offset {
            _ if offset == OPERATIONAL + USBCMD && value & RESET != 0 => {
                assert!(!running, "reset while it runs");
                self.resets += 1;
                self.registers.retain(|register, _| {
                    *register < OPERATIONAL
                        || *register == OPERATIONAL + PAGESIZE
                        || (CAPABILITY..CAPABILITY + 0x80).contains(register)
                });
                self.status(HALTED | NOT_READY);
                if self.resetting {
                    self.registers.insert(offset, RESET);
                }
                self.left = self.slow;
            }
            _ if offset == OPERATIONAL + USBCMD => {
                self.registers.insert(offset, value);
                self.left = self.slow;
            }
            DOORBELLS if running && value == 0 => {
                if self.command().is_none() {
                    self.status(HOST_ERROR);
                }
            }
            CAPABILITY if !self.held && value & SYSTEM_OWNS != 0 => {
                self.registers.insert(offset, value & !FIRMWARE_OWNS);
            }
            _ => {
                self.registers.insert(offset, value);
            }
        }
    }
}

fn probe(fake: &mut Fake) -> impl Probe {
    let (memory, pauses) = (fake.bus.clone(), Rc::clone(&fake.pauses));
    Xhci::new(fake, memory, OWN, move || pauses.set(pauses.get() + 1))
}

fn quiesce(fake: &mut Fake) -> Result<(), Stuck> {
    probe(fake).quiesce()
}

fn write(fake: &mut Fake) -> Result<(), Stuck> {
    probe(fake).write(ELSEWHERE)
}

fn reads(fake: &mut Fake) -> Result<bool, Stuck> {
    probe(fake).reads(ELSEWHERE)
}

fn lay_bait(fake: &mut Fake) {
    let bait = probe(fake).bait();
    fake.bus.bus().store(ELSEWHERE, &bait);
}

#[test]
fn it_writes_where_it_is_told() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    bus.bus().store(ELSEWHERE, &[BEFORE; WATCHED]);
    assert_eq!(write(&mut fake), Ok(()));
    assert_ne!(bus.bus().load(ELSEWHERE, WATCHED), [BEFORE; WATCHED]);
    bus.bus().unwritable.push(ELSEWHERE..ELSEWHERE + 0x1000);
    bus.bus().store(ELSEWHERE, &[BEFORE; WATCHED]);
    assert_eq!(write(&mut fake), Ok(()));
    assert_eq!(bus.bus().load(ELSEWHERE, WATCHED), [BEFORE; WATCHED]);
    // Some are not to be looked at for a while once they are reset.
    assert_eq!((fake.resets, fake.pauses.get()), (2, 2));
}

#[test]
fn what_it_reads_shows_in_what_it_does() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    lay_bait(&mut fake);
    assert_eq!(reads(&mut fake), Ok(true));
    // Events of ports come before the command's, up to a ring of them.
    fake.ports = 20;
    assert_eq!(reads(&mut fake), Ok(true));
    fake.ports = EVENTS as u32;
    assert_eq!(reads(&mut fake), Ok(false));
    fake.ports = 0;
    bus.bus().unreadable.push(ELSEWHERE..ELSEWHERE + 0x1000);
    for answer in [None, Some(0), Some(0xff)] {
        bus.bus().answer = answer;
        fake.reads = 0;
        assert_eq!(reads(&mut fake), Ok(false), "{answer:?}");
        assert!(fake.reads < 2 * EVENT_READS);
    }
    // One that failed for good serves again after its reset.
    bus.bus().unreadable.clear();
    assert_eq!(reads(&mut fake), Ok(true));
}

#[test]
fn it_has_the_pages_that_it_asks_for_and_no_more() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    lay_bait(&mut fake);
    fake.registers.insert(HCSPARAMS2, 31 << 27);
    assert_eq!(reads(&mut fake), Ok(true));
    let last = OWN + (SCRATCHPAD + 30 * PAGE) as u64;
    assert_eq!(bus.bus().load(last, 8), [0xee; 8]);
    assert_eq!(bus.bus().load(last + PAGE as u64, 8), [0; 8]);
    // They are clear again for the next start.
    assert_eq!(reads(&mut fake), Ok(true));
    // 64 and 65 of them, by both fields.
    fake.registers.insert(HCSPARAMS2, 2 << 21);
    assert_eq!(reads(&mut fake), Ok(true));
    fake.registers.insert(HCSPARAMS2, 2 << 21 | 1 << 27);
    assert_eq!(reads(&mut fake), Err(Stuck::Scratchpads));
    fake.registers.insert(HCSPARAMS2, u32::MAX);
    assert_eq!(write(&mut fake), Err(Stuck::Scratchpads));
}

#[test]
fn firmware_lets_go_first() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    let chain = CAPABILITY >> 2 << 16;
    fake.registers.insert(HCCPARAMS1, AC64 | chain);
    let enabled = SMI_ENABLES | 1 << 8;
    fake.registers.insert(CAPABILITY, LEGACY | FIRMWARE_OWNS);
    fake.registers.insert(CAPABILITY + 4, enabled);
    assert_eq!(quiesce(&mut fake), Ok(()));
    assert_eq!(fake.get(CAPABILITY), LEGACY | SYSTEM_OWNS);
    assert_eq!(fake.get(CAPABILITY + 4), SMI_EVENTS | 1 << 8);
    // It is not reset while firmware drives it.
    let resets = fake.resets;
    fake.registers.insert(CAPABILITY, LEGACY | FIRMWARE_OWNS);
    fake.held = true;
    assert_eq!(quiesce(&mut fake), Err(Stuck::Firmware));
    assert_eq!(fake.resets, resets);
}

#[test]
fn a_chain_of_capabilities_ends() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    for offset in (CAPABILITY..REGISTER_BYTES).step_by(4) {
        fake.registers.insert(offset, 1 << 8 | 2);
    }
    fake.registers.insert(HCCPARAMS1, CAPABILITY >> 2 << 16);
    assert_eq!(quiesce(&mut fake), Ok(()));
    assert!(fake.reads < 200);
    // Beyond the registers, and at their end.
    for at in [REGISTER_BYTES - 4, REGISTER_BYTES, 0x3fffc] {
        fake.registers.insert(HCCPARAMS1, at >> 2 << 16);
        assert_eq!(quiesce(&mut fake), Ok(()), "{at:#x}");
    }
}

#[test]
fn a_controller_that_does_nothing_is_stuck_within_a_bound() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    fake.stays = HALTED;
    assert_eq!(write(&mut fake), Err(Stuck::Start));
    fake.stays = NOT_READY;
    assert_eq!(quiesce(&mut fake), Err(Stuck::Reset));
    fake.stays = 0;
    fake.registers.remove(&(OPERATIONAL + USBSTS));
    fake.left = u32::MAX;
    fake.slow = u32::MAX;
    assert_eq!(quiesce(&mut fake), Err(Stuck::Reset), "it does not halt");
    let mut fake = Fake::new(&bus);
    fake.resetting = true;
    assert_eq!(quiesce(&mut fake), Err(Stuck::Reset));
    assert!(fake.reads < 2 * RESET_READS);
    let mut fake = Fake::new(&bus);
    bus.bus().unreadable.push(OWN..OWN + 0x100_0000);
    assert_eq!(write(&mut fake), Err(Stuck::Order));
    fake.absent = true;
    fake.reads = 0;
    assert_eq!(quiesce(&mut fake), Err(Stuck::Absent));
    assert!(fake.reads < 10);
}

#[test]
fn what_the_probe_cannot_use_is_left_alone() {
    let bus = Shared::new(OWN);
    for (register, value) in [
        (RTSOFF, REGISTER_BYTES),
        (RTSOFF, u32::MAX),
        (DBOFF, REGISTER_BYTES),
        (DBOFF, u32::MAX),
        (HCCPARAMS1, 0),
        (OPERATIONAL + PAGESIZE, 2),
    ] {
        let mut fake = Fake::new(&bus);
        fake.registers.insert(register, value);
        let found = write(&mut fake);
        assert_eq!(found, Err(Stuck::Unsupported), "{register:#x} {value:#x}");
        assert_eq!(fake.get(OPERATIONAL + USBCMD), 0);
    }
}

#[test]
fn it_is_as_after_a_reset_afterwards() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    assert_eq!(quiesce(&mut fake), Ok(()));
    let before = fake.registers.clone();
    assert_eq!(write(&mut fake), Ok(()));
    assert_ne!(fake.registers, before);
    assert_eq!(quiesce(&mut fake), Ok(()));
    fake.registers.retain(|_, value| *value != 0);
    let before: BTreeMap<_, _> = before.into_iter().filter(|(_, v)| *v != 0).collect();
    assert_eq!(fake.registers, before);
}

#[test]
fn messages_are_not_tried() {
    let bus = Shared::new(OWN);
    let mut fake = Fake::new(&bus);
    assert_eq!(probe(&mut fake).forge(0x33), Err(Stuck::Unsupported));
}
