//! The driver against a fake device that works on the same rings.

extern crate std;
use core::cell::Cell;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use smoltcp::phy::{Device as _, RxToken as _, TxToken as _};
use smoltcp::time::Instant;

use super::*;
use crate::network::Nic;

/// Just enough of an 82574L: reset, rings, and a log of writes.
struct Fake<'m> {
    memory: &'m DmaMemory,
    /// Registers that hold the written value.
    held: BTreeMap<u32, u32>,
    /// Resets that end; all those after them hang.
    good_resets: u32,
    /// Reads until each step of a reset is done: the reset itself, reading the
    /// NVM, the address.
    steps: [u32; 3],
    /// The remaining ones.
    left: Cell<[u32; 3]>,
    /// Requests on the bus end after so many reads of the status.
    drains: Cell<u32>,
    status: u32,
    rx_head: usize,
    rx_tail: usize,
    tx_head: usize,
    tx_tail: usize,
    writes: Vec<(u32, u32)>,
    /// What it does as soon as causes are cleared.
    on_clear: Option<fn(&mut Fake)>,
}

impl Fake<'_> {
    /// Counts one more read, which moves the first unfinished step forward. Returns
    /// which steps are done.
    fn step(&self) -> [bool; 3] {
        let mut left = self.left.get();
        let done = core::array::from_fn(|step| left[..=step].iter().all(|left| *left == 0));
        if let Some(left) = left.iter_mut().find(|left| **left > 0) {
            *left -= 1;
        }
        self.left.set(left);
        done
    }

    fn holds(&self, offset: u32) -> u32 {
        self.held.get(&offset).copied().unwrap_or(0)
    }
}

impl Registers for Fake<'_> {
    fn read(&self, offset: u32) -> u32 {
        let [reset, nvm, address] = self.step();
        match offset {
            _ if offset == CTRL.offset => self.holds(offset) | u32::from(!reset) << 26,
            _ if offset == EECD.offset => 0x100 | u32::from(nvm) << 9,
            _ if offset == RAL0.offset => 0x1200_5452 * u32::from(address),
            _ if offset == RAH0.offset => 0x8000_5634 * u32::from(address),
            _ if offset == STATUS.offset => {
                let left = self.drains.get();
                let disabled = self.holds(CTRL.offset) & 1 << 2 != 0;
                if disabled {
                    self.drains.set(left.saturating_sub(1));
                }
                self.status | u32::from(!disabled || left > 0) << 19
            }
            _ if offset == MPC.offset => 3,
            _ if offset == TDH.offset => self.tx_head as u32,
            _ => self.holds(offset),
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.writes.push((offset, value));
        if offset == CTRL.offset && value & 1 << 26 != 0 {
            let hangs = self.good_resets == 0;
            self.good_resets = self.good_resets.saturating_sub(1);
            self.left.set(self.steps);
            if hangs {
                self.left.set([u32::MAX, 0, 0]);
            }
            (self.rx_head, self.rx_tail, self.tx_head, self.tx_tail) = (0, 0, 0, 0);
            self.held.clear();
            // Bits that the NVM sets.
            self.held.insert(CTRL.offset, 0x2018_0000);
            self.held.insert(CTRL_EXT.offset, 0x0090_0000);
            self.held.insert(TARC0.offset, 0x7800_0403);
            self.held.insert(GCR.offset, 0x0000_0100);
            return;
        }
        if offset == RDT.offset {
            self.rx_tail = value as usize;
        } else if offset == TDT.offset {
            self.tx_tail = value as usize;
        } else if offset == TDH.offset {
            self.tx_head = value as usize;
        }
        self.held.insert(offset, value);
        if offset == ICR.offset
            && let Some(act) = self.on_clear.take()
        {
            act(self);
        }
    }
}

impl Fake<'_> {
    /// Receives a frame of `length` bytes; false if there is no free descriptor.
    fn deliver(&mut self, first: u8, length: usize, flags: u64) -> bool {
        if self.rx_head == self.rx_tail {
            return false;
        }
        let buffer = &self.memory.receive_buffers[self.rx_head];
        let descriptor = self.memory.receive.descriptor(self.rx_head);
        assert_eq!(descriptor.address.load(Ordering::Relaxed), buffer.address());
        assert_eq!(
            descriptor.fields.load(Ordering::Relaxed),
            0,
            "descriptor not recycled"
        );
        let mut frame = vec![first; length.min(BUFFER)];
        if let Some(last) = frame.last_mut() {
            *last = 0xee;
        }
        buffer.copy_from(&frame);
        descriptor
            .fields
            .store(length as u64 | flags, Ordering::Relaxed);
        self.rx_head = (self.rx_head + 1) % RING;
        true
    }

    /// Sends at most `limit` frames and returns them.
    fn send(&mut self, limit: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while self.tx_head != self.tx_tail && sent.len() < limit {
            let descriptor = self.memory.transmit.descriptor(self.tx_head);
            let fields = descriptor.fields.load(Ordering::Relaxed);
            let buffer = &self.memory.transmit_buffers[self.tx_head];
            assert_eq!(descriptor.address.load(Ordering::Relaxed), buffer.address());
            assert_ne!(fields & dma::transmit::END, 0);
            let mut frame = vec![0; usize::from(fields as u16)];
            buffer.copy_to(&mut frame);
            sent.push(frame);
            if fields & dma::transmit::REPORT != 0 {
                descriptor
                    .fields
                    .store(fields | dma::transmit::DONE, Ordering::Relaxed);
            }
            self.tx_head = (self.tx_head + 1) % RING;
        }
        sent
    }
}

const GOOD: u64 = dma::receive::DONE | dma::receive::END;

fn fake() -> Fake<'static> {
    Fake {
        memory: Box::leak(Box::new(DmaMemory::new())),
        held: BTreeMap::new(),
        good_resets: u32::MAX,
        steps: [3, 0, 0],
        left: Cell::new([0; 3]),
        drains: Cell::new(0),
        status: 0x83,
        rx_head: 0,
        rx_tail: 0,
        tx_head: 0,
        tx_tail: 0,
        writes: Vec::new(),
        on_clear: None,
    }
}

fn driver() -> E1000e<'static, Fake<'static>> {
    let fake = fake();
    let memory = fake.memory;
    E1000e::new(fake, memory).unwrap()
}

fn last_write(driver: &E1000e<Fake>, offset: u32) -> Option<u32> {
    driver
        .registers
        .writes
        .iter()
        .rev()
        .find(|write| write.0 == offset)
        .map(|write| write.1)
}

#[test]
fn start_programs_rings_interrupts_and_address() {
    let driver = driver();
    assert_eq!(driver.address(), [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
    assert_eq!(last_write(&driver, RDLEN.offset), Some(1024));
    assert_eq!(last_write(&driver, RDT.offset), Some(63));
    assert_eq!(last_write(&driver, TDT.offset), Some(0));
    assert_eq!(last_write(&driver, IVAR.offset), Some(0x000a_0908));
    assert_eq!(last_write(&driver, EIAC.offset), Some(0x0050_0000));
    assert_eq!(last_write(&driver, IMS.offset), Some(0x0150_0004));
    assert_eq!(
        driver.link(),
        Link {
            up: true,
            speed: 1000,
            full_duplex: true
        }
    );
}

const BOTH: u32 = 1 << 20 | 1 << 22;

#[test]
fn who_is_awake_is_not_interrupted_and_who_sleeps_is() {
    let mut driver = driver();
    driver.quiet();
    assert_eq!(driver.registers.writes.last(), Some(&(IMC.offset, BOTH)));
    assert!(driver.listen());
    let [.., cleared, open] = driver.registers.writes[..] else {
        panic!("nothing was written");
    };
    assert_eq!((cleared, open), ((ICR.offset, BOTH), (IMS.offset, BOTH)));
    // What is there already is said, and stays quiet.
    driver.registers.deliver(1, 60, GOOD);
    assert!(!driver.listen());
    assert_eq!(driver.registers.writes.last(), Some(&(ICR.offset, BOTH)));
    assert_eq!(driver.receive(&mut [0; BUFFER]), Some(60));
    assert!(driver.listen());
}

/// An event whose cause is cleared raises nothing, so that it must be looked for after that.
#[test]
fn nothing_that_comes_before_the_sleep_is_missed() {
    let mut driver = driver();
    driver.quiet();
    driver.registers.on_clear = Some(|device| assert!(device.deliver(1, 60, GOOD)));
    assert!(!driver.listen());
    assert_eq!(driver.receive(&mut [0; BUFFER]), Some(60));
    assert!(driver.listen());

    while driver.can_begin() {
        driver.transmit(&[0; 60]).expect("there is room");
    }
    driver.quiet();
    assert!(driver.listen(), "a full ring is something to wait for");
    driver.registers.on_clear = Some(|device| assert!(!device.send(usize::MAX).is_empty()));
    assert!(!driver.listen());
    assert!(driver.can_begin());
}

/// Returns where in the log a register was written with these bits as in
/// `value`.
fn position(writes: &[(u32, u32)], register: u32, mask: u32, value: u32) -> Option<usize> {
    writes
        .iter()
        .position(|&(offset, written)| offset == register && written & mask == value)
}

#[test]
fn a_broken_device_is_an_error() {
    let broken = |change: fn(&mut Fake)| {
        let mut fake = fake();
        change(&mut fake);
        let memory = fake.memory;
        E1000e::new(fake, memory).err()
    };
    let stuck = broken(|fake| fake.good_resets = 0);
    assert_eq!(stuck, Some(InitError::ResetStuck));
    let unread = broken(|fake| fake.steps = [0, u32::MAX, 0]);
    assert_eq!(unread, Some(InitError::NvmStuck));
    let nameless = broken(|fake| fake.steps = [0, 0, u32::MAX]);
    assert_eq!(nameless, Some(InitError::NoAddress));
}

/// The address comes out of the NVM after the reset, which takes a while, and the
/// bit that says so may come before it (82574 datasheet 10.2.2 and 10.2.5).
#[test]
fn the_address_is_read_when_it_is_there() {
    let micros = |micros: u32| micros * READS_PER_MICRO;
    let longest = [
        micros(RESET_MICROS) - 1,
        micros(NVM_MICROS) - 1,
        micros(ADDRESS_MICROS) - 1,
    ];
    for steps in [[3, 2_000, 0], [3, 0, 2_000], longest] {
        let mut slow = fake();
        slow.steps = steps;
        let memory = slow.memory;
        let driver = E1000e::new(slow, memory).expect("it starts");
        assert_eq!(driver.address(), [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
    }
}

/// Nothing is under way when the device is reset, and it reaches no memory before
/// [`Stopped::start`].
#[test]
fn the_device_is_quiet_before_its_reset_and_until_it_starts() {
    let mut busy = fake();
    busy.held.insert(RCTL.offset, 0x0400_8002);
    busy.held.insert(TCTL.offset, 0x0003_f0fa);
    busy.drains.set(500);
    let memory = busy.memory;
    let stopped = Stopped::reset(busy).expect("it resets");
    let writes = &stopped.registers.writes;
    let reset = position(writes, CTRL.offset, 1 << 26, 1 << 26).expect("a reset");
    let quiet = |register, mask, value| position(&writes[..reset], register, mask, value);
    assert!(quiet(IMC.offset, u32::MAX, u32::MAX).is_some());
    assert!(quiet(RCTL.offset, 1 << 1, 0).is_some());
    // The transmitter's other bits stay.
    assert!(quiet(TCTL.offset, u32::MAX, 0x0003_f0f8).is_some());
    assert!(quiet(CTRL.offset, 1 << 2, 1 << 2).is_some());
    assert_eq!(stopped.registers.drains.get(), 0, "requests have ended");
    assert!(quiet(EXTCNF_CTRL.offset, 1 << 5, 1 << 5).is_some());
    let armed = [RDBAL, RDLEN, RDT, TDBAL, TDLEN, TDT].map(|register| register.offset);
    let armed = |write: &&(u32, u32)| armed.contains(&write.0);
    assert_eq!(writes.iter().find(armed), None);
    assert_eq!(position(writes, RCTL.offset, 1 << 1, 1 << 1), None);
    let driver = stopped.start(memory);
    assert!(last_write(&driver, RCTL.offset).is_some_and(|value| value & 1 << 1 != 0));
}

#[test]
fn requests_that_never_end_do_not_stop_the_reset() {
    let busy = fake();
    busy.drains.set(u32::MAX);
    assert!(Stopped::reset(busy).is_ok());
}

/// Bits of others are kept, and those are set that the drivers of Linux and FreeBSD
/// set on an 82574.
#[test]
fn start_changes_only_its_own_bits() {
    let driver = driver();
    let holds = |offset| driver.registers.holds(offset);
    // Link up; bit 29 clear, what the NVM set (bits 19 and 20) kept.
    assert_eq!(holds(CTRL.offset), 0x0018_0040);
    // IAME, PBA_CLR, DRV_LOAD, bit 22; bit 23 clear, bit 20 kept.
    assert_eq!(holds(CTRL_EXT.offset), 0x9850_0000);
    assert_eq!(holds(TARC0.offset), 0x0400_0403);
    assert_eq!(holds(GCR.offset), 0x0040_0100);
    assert_eq!(holds(GCR2.offset), 1);
    assert_eq!(holds(TXDCTL1.offset), 1 << 22);
    let registers = driver.stop();
    assert_eq!(registers.holds(CTRL_EXT.offset) & 1 << 28, 0, "released");
}

/// Sends a frame that the device does not take, and watches it as long as the
/// driver asks for, at most until `end`. Returns the time of the last look.
fn watch_a_frame(driver: &mut E1000e<Fake>, from: u64, end: u64) -> u64 {
    driver.transmit(&[0; 60]).expect("there is room");
    driver.flush();
    let mut now = from;
    while let Some(next) = driver.watch(now).expect("it starts again") {
        assert!(next > now);
        if next > end {
            break;
        }
        now = next;
    }
    now
}

#[test]
fn a_transmitter_that_hangs_is_started_again() {
    let mut driver = driver();
    assert_eq!(driver.watch(7), Ok(None), "nothing was sent");
    driver.registers.deliver(1, 60, GOOD);
    let end = watch_a_frame(&mut driver, 1_000, u64::MAX);
    assert_eq!(end, 1_000 + HANG_MICROS);
    assert_eq!(driver.statistics().transmit_hangs, 1);
    // Both rings are as new: their frames are lost, later ones are not.
    let mut frame = [0; BUFFER];
    assert_eq!(driver.receive(&mut frame), None);
    assert!(driver.registers.deliver(2, 60, GOOD));
    assert_eq!(driver.receive(&mut frame), Some(60));
    driver.transmit(&[3; 70]).unwrap();
    driver.flush();
    assert_eq!(driver.registers.send(usize::MAX), [vec![3; 70]]);
    assert_eq!(last_write(&driver, IMS.offset), Some(0x0150_0004));
}

#[test]
fn a_transmitter_that_moves_does_not_hang() {
    let mut driver = driver();
    let mut now = 0;
    // The head is where it was at each look: it has gone round meanwhile.
    for _ in 0..100 * HANG_MICROS / WATCH_MICROS {
        for _ in 0..RING {
            assert!(driver.can_transmit());
            driver.transmit(&[0; 60]).unwrap();
            driver.flush();
            driver.registers.send(1);
        }
        driver.transmit(&[0; 60]).unwrap();
        driver.flush();
        now = driver.watch(now).unwrap().expect("a frame waits");
        driver.registers.send(1);
        for _ in 0..RING - 1 {
            driver.transmit(&[0; 60]).unwrap();
            driver.flush();
            driver.registers.send(1);
        }
    }
    assert_eq!(driver.watch(now), Ok(None), "all was sent");
    assert_eq!(driver.statistics().transmit_hangs, 0);
}

#[test]
fn neither_a_lost_link_nor_a_pause_is_a_hang() {
    for status in [0x81, 0x93] {
        let mut driver = driver();
        driver.registers.status = status;
        let end = watch_a_frame(&mut driver, 0, 10 * HANG_MICROS);
        assert_eq!(end, 10 * HANG_MICROS);
        assert_eq!(driver.statistics().transmit_hangs, 0, "{status:#x}");
        // Its time begins when it may send again.
        driver.registers.status = 0x83;
        watch_a_frame(&mut driver, end + WATCH_MICROS, end + HANG_MICROS - 1);
        assert_eq!(driver.statistics().transmit_hangs, 0, "{status:#x}");
    }
}

#[test]
fn a_device_that_hangs_for_good_is_tried_again() {
    let mut driver = driver();
    driver.transmit(&[0; 60]).unwrap();
    driver.flush();
    driver.registers.good_resets = 0;
    driver.watch(0).unwrap();
    assert_eq!(driver.watch(HANG_MICROS), Err(InitError::ResetStuck));
    let next = driver.watch(HANG_MICROS + 1);
    assert_eq!(next, Ok(Some(HANG_MICROS + WATCH_MICROS)), "not at once");
    driver.registers.good_resets = 1;
    assert_eq!(driver.watch(HANG_MICROS + WATCH_MICROS), Ok(None));
    assert_eq!(driver.statistics().transmit_hangs, 1, "it was one");
    driver.transmit(&[3; 70]).unwrap();
    driver.flush();
    assert_eq!(driver.registers.send(usize::MAX), [vec![3; 70]]);
}

#[test]
fn reception_goes_on_while_nothing_can_be_sent() {
    let mut driver = driver();
    let mut nic = Nic::new(&mut driver);
    let now = Instant::from_millis(0);
    while let Some(token) = nic.transmit(now) {
        token.consume(60, |frame| frame.fill(1));
    }
    // Answers have room of their own.
    nic.driver.flush();
    assert_eq!(nic.driver.registers.tx_tail, RING - 1 - REPORT_EVERY);
    for first in 0..2 * RING as u8 {
        assert!(nic.driver.registers.deliver(first, 60, GOOD));
        let (received, answer) = nic.receive(now).expect("it is received");
        received.consume(|frame| assert_eq!(frame[0], first));
        answer.consume(60, |frame| frame.fill(2));
        nic.driver.flush();
    }
    let statistics = nic.driver.statistics();
    assert_eq!(statistics.received_packets, 2 * RING as u64);
    assert_eq!(statistics.sent_packets, RING as u64 - 1);
    assert!(statistics.send_drops > 0);
}

#[test]
fn frames_come_out_in_order_across_the_wrap() {
    let mut driver = driver();
    let mut frame = [0; BUFFER];
    assert_eq!(driver.receive(&mut frame), None);
    for round in 0..3 * RING {
        assert!(driver.registers.deliver(round as u8, 60 + round % 9, GOOD));
        assert_eq!(driver.receive(&mut frame), Some(60 + round % 9));
        assert_eq!((frame[0], frame[59 + round % 9]), (round as u8, 0xee));
        driver.flush();
    }
    assert_eq!(driver.receive(&mut frame), None);
    assert_eq!(driver.statistics().received_packets, 3 * RING as u64);
}

#[test]
fn a_full_receive_ring_drains_and_fills_again() {
    let mut driver = driver();
    let mut frame = [0; BUFFER];
    for _ in 0..2 {
        let mut delivered = 0;
        while driver.registers.deliver(1, 60, GOOD) {
            delivered += 1;
        }
        assert_eq!(delivered, RING - 1);
        let mut received = 0;
        while driver.receive(&mut frame).is_some() {
            received += 1;
        }
        assert_eq!(received, RING - 1);
        assert!(
            !driver.registers.deliver(1, 60, GOOD),
            "nothing is free before the flush"
        );
        driver.flush();
    }
}

#[test]
fn bad_frames_are_skipped_and_counted() {
    let mut driver = driver();
    let mut frame = [0; BUFFER];
    let crc_error = 1 << 40;
    driver.registers.deliver(1, 13, GOOD);
    driver.registers.deliver(2, 1519, GOOD);
    driver.registers.deliver(3, 0xffff, GOOD);
    driver.registers.deliver(4, 60, GOOD | crc_error);
    // Two descriptors without end, then the end: one frame too long.
    driver.registers.deliver(5, 60, dma::receive::DONE);
    driver.registers.deliver(6, 60, dma::receive::DONE);
    driver.registers.deliver(7, 60, GOOD);
    driver.registers.deliver(8, 60, GOOD);
    assert!(driver.can_receive());
    assert_eq!(driver.receive(&mut frame), Some(60));
    assert!(!driver.can_receive());
    assert_eq!(frame[0], 8);
    let statistics = driver.statistics();
    assert_eq!(
        (statistics.receive_errors, statistics.received_packets),
        (5, 1)
    );
    assert_eq!(statistics.missed, 3);
}

#[test]
fn transmit_fills_the_ring_and_resumes_after_reports() {
    let mut driver = driver();
    for index in 0..RING - 1 {
        driver.transmit(&[index as u8; 100]).unwrap();
    }
    assert_eq!(driver.transmit(&[0; 100]), Err(TransmitError::Full));
    driver.flush();
    // 15 frames are done but none was to be reported: still full.
    assert_eq!(
        driver.registers.send(REPORT_EVERY - 1).len(),
        REPORT_EVERY - 1
    );
    assert!(!driver.can_transmit());
    assert_eq!(driver.registers.send(1).len(), 1);
    assert!(driver.can_transmit());
    assert_eq!(driver.statistics().send_drops, 1);
}

#[test]
fn transmit_wraps_and_keeps_order_and_bytes() {
    let mut driver = driver();
    let mut sent = Vec::new();
    for index in 0..5 * RING {
        let length = 14 + index % 200;
        driver.transmit(&vec![index as u8; length]).unwrap();
        driver.flush();
        sent.extend(driver.registers.send(usize::MAX));
    }
    assert_eq!(sent.len(), 5 * RING);
    for (index, frame) in sent.iter().enumerate() {
        assert_eq!(*frame, vec![index as u8; 14 + index % 200]);
    }
}

#[test]
fn impossible_lengths_are_refused() {
    let mut driver = driver();
    assert_eq!(driver.transmit(&[0; 13]), Err(TransmitError::Length));
    assert_eq!(driver.transmit(&[0; 1519]), Err(TransmitError::Length));
    assert_eq!(driver.transmit(&[0; 1518]), Ok(()));
}

#[test]
fn flush_writes_only_what_moved() {
    let mut driver = driver();
    driver.registers.writes.clear();
    driver.flush();
    assert!(driver.registers.writes.is_empty());
    driver.transmit(&[0; 60]).unwrap();
    driver.transmit(&[0; 60]).unwrap();
    driver.flush();
    assert_eq!(driver.registers.writes, [(TDT.offset, 2)]);
}

#[test]
fn acknowledging_leaves_the_queues_alone() {
    let mut driver = driver();
    driver.acknowledge_other();
    let cleared = last_write(&driver, ICR.offset).unwrap();
    assert_eq!(cleared & 0x0150_0004, 0x0100_0004);
}
