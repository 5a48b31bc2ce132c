//! The engine on a device made of its registers' meaning and nothing else.

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use super::*;

/// Where the engine's memory is.
const OWN: u64 = 0x7_0000_0000;

/// A device, and the bus that it is on.
#[derive(Default)]
struct Device {
    registers: BTreeMap<u32, u32>,
    bus: BTreeMap<u64, u8>,
    /// Addresses from here on cannot be read: the frame is dropped.
    unreadable: Option<u64>,
    /// The reset never ends.
    broken: bool,
    /// Lengths of frames that the network puts before ours.
    strangers: Vec<u16>,
    reads: u32,
}

impl Device {
    fn register(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn load(&self, address: u64, length: u64) -> Vec<u8> {
        (address..address + length)
            .map(|at| self.bus.get(&at).copied().unwrap_or(0))
            .collect()
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        self.bus.extend((address..).zip(bytes.iter().copied()));
    }

    fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.load(address, 8).try_into().unwrap())
    }

    fn wide(&self, low: u32) -> u64 {
        u64::from(self.register(low + 4)) << 32 | u64::from(self.register(low))
    }

    fn receive(&mut self, bytes: &[u8]) {
        let control = self.register(RCTL);
        let wanted = RCTL_EN | RCTL_LBM_MAC | RCTL_SECRC | RCTL_UPE | RCTL_MPE | RCTL_BAM;
        let head = self.register(RDH);
        if control & wanted != wanted || head == self.register(RDT) {
            return;
        }
        let descriptor = self.wide(RDBAL) + u64::from(head) * 16;
        self.store(self.word(descriptor), bytes);
        let fields = bytes.len() as u64 | DONE;
        self.store(descriptor + 8, &fields.to_le_bytes());
        self.registers.insert(RDH, head + 1);
    }

    fn send(&mut self) {
        while self.register(TCTL) & TCTL_EN != 0 && self.register(TDH) != self.register(TDT) {
            let head = self.register(TDH);
            let descriptor = self.wide(TDBAL) + u64::from(head) * 16;
            let (address, fields) = (self.word(descriptor), self.word(descriptor + 8));
            assert_ne!(fields & SEND_END, 0);
            let length = u64::from(fields as u16);
            if let Some(stranger) = self.strangers.pop() {
                self.receive(&std::vec![0xee; usize::from(stranger)]);
            } else if self.unreadable.is_none_or(|from| address < from) {
                let bytes = self.load(address, length);
                self.receive(&bytes);
            }
            self.store(descriptor + 8, &(fields | DONE).to_le_bytes());
            self.registers.insert(TDH, head + 1);
        }
    }
}

/// Both sides of the engine.
#[derive(Clone)]
struct Side(Rc<RefCell<Device>>);

impl Registers for Side {
    fn read(&mut self, offset: u32) -> u32 {
        let mut device = self.0.borrow_mut();
        device.reads += 1;
        device.register(offset)
    }

    fn write(&mut self, offset: u32, value: u32) {
        let mut device = self.0.borrow_mut();
        if offset == CTRL && value & CTRL_RST != 0 {
            // A reset forgets the rings, and interrupts are as they come.
            device.registers.clear();
            let stays = if device.broken { CTRL_RST } else { 0 };
            device.registers.insert(CTRL, stays);
            return;
        }
        device.registers.insert(offset, value);
        device.send();
    }
}

impl Memory for Side {
    fn read(&mut self, offset: usize, bytes: &mut [u8]) {
        let from = self
            .0
            .borrow()
            .load(OWN + offset as u64, bytes.len() as u64);
        bytes.copy_from_slice(&from);
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= MEMORY_SIZE);
        self.0.borrow_mut().store(OWN + offset as u64, bytes);
    }
}

fn engine() -> (Engine<Side, Side>, Side) {
    let side = Side(Rc::default());
    let engine = Engine::new(side.clone(), side.clone(), OWN).unwrap();
    (engine, side)
}

#[test]
fn bytes_go_where_they_are_sent_and_no_further() {
    let (mut engine, side) = engine();
    for length in [SHORTEST, 61, LONGEST] {
        let bytes: Vec<u8> = (0..length).map(|n| n as u8 | 1).collect();
        let to = 0x10_0000;
        assert_eq!(engine.write(to, &bytes), Ok(()));
        let device = side.0.borrow();
        assert_eq!(device.load(to, length as u64), bytes);
        assert_eq!(device.load(to - 1, 1), [0]);
        assert_eq!(device.load(to + length as u64, 4), [0; 4]);
    }
}

#[test]
fn bytes_come_from_where_they_are_read() {
    let (mut engine, side) = engine();
    let there: Vec<u8> = (0..100).collect();
    side.0.borrow_mut().store(0xfe00_0123, &there);
    let mut bytes = [0; 100];
    assert_eq!(engine.read(0xfe00_0123, &mut bytes), Ok(()));
    assert_eq!(bytes[..], there);
}

#[test]
fn a_frame_that_does_not_come_back_ends_the_wait_and_nothing_else() {
    let (mut engine, side) = engine();
    side.0.borrow_mut().unreadable = Some(OWN + MEMORY_SIZE as u64);
    let mut bytes = [0x55; 64];
    let beyond = OWN + MEMORY_SIZE as u64;
    assert_eq!(engine.read(beyond, &mut bytes), Err(Stuck::Receive));
    assert_eq!(bytes, [0x55; 64]);
    assert!(side.0.borrow().reads < 3 * FRAME_READS);
    // The receiver is off: nothing more can land there.
    assert_eq!(side.0.borrow().register(RCTL), 0);
    assert_eq!(engine.write(0x1000, &[7; 64]), Ok(()));
    assert_eq!(side.0.borrow().load(0x1000, 64), [7; 64]);
}

#[test]
fn a_frame_from_the_network_is_not_taken_for_ours() {
    let (mut engine, side) = engine();
    side.0.borrow_mut().strangers = std::vec![342, 90];
    assert_eq!(engine.write(0x1000, &[7; 64]), Ok(()));
    assert_eq!(side.0.borrow().load(0x1000, 64), [7; 64]);
    side.0.borrow_mut().strangers = std::vec![90; 9];
    assert_eq!(engine.write(0x1000, &[7; 64]), Err(Stuck::Receive));
}

#[test]
fn a_forged_interrupt_is_one_dword_in_the_range() {
    let (mut engine, side) = engine();
    assert_eq!(engine.forge_interrupt(0xfee0_0000, 0x1234_5678), Ok(()));
    let device = side.0.borrow();
    assert_eq!(device.load(0xfee0_0000, 4), [0x78, 0x56, 0x34, 0x12]);
    assert!(!device.bus.contains_key(&0xfee0_0004));
    assert_eq!(device.load(0xfedf_ffc8, 56), [0; 56]);
    assert!(!device.bus.contains_key(&0xfedf_ffc7));
}

#[test]
fn lengths_that_are_no_frames_are_refused() {
    let (mut engine, _) = engine();
    assert_eq!(engine.write(0, &[0; SHORTEST - 1]), Err(Stuck::Length));
    assert_eq!(engine.write(0, &[0; LONGEST + 1]), Err(Stuck::Length));
    assert_eq!(engine.read(0, &mut []), Err(Stuck::Length));
}

#[test]
fn a_reset_that_does_not_end_is_given_up() {
    let side = Side(Rc::default());
    side.0.borrow_mut().broken = true;
    let stuck = Engine::new(side.clone(), side.clone(), OWN).err();
    assert_eq!(stuck, Some(Stuck::Reset));
    assert!(side.0.borrow().reads <= RESET_READS);
}

#[test]
fn quiesce_leaves_no_ring_and_no_interrupt() {
    let (mut engine, side) = engine();
    engine.write(0x1000, &[7; 64]).unwrap();
    engine.quiesce().unwrap();
    let device = side.0.borrow();
    for register in [RCTL, TCTL, RDBAL, TDBAL, RDLEN, TDLEN] {
        assert_eq!(device.register(register), 0, "{register:#x}");
    }
    assert_eq!(device.register(IMC), u32::MAX);
    drop(device);
    engine.start().unwrap();
    assert_eq!(engine.write(0x2000, &[7; 64]), Ok(()));
    assert_eq!(side.0.borrow().load(0x2000, 64), [7; 64]);
}
