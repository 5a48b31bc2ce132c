//! The driver against a fake device that works on the same rings.

extern crate std;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use super::*;

/// Just enough of an 82574L: reset, rings, and a log of writes.
struct Fake<'m> {
    memory: &'m DmaMemory,
    reset_reads: core::cell::Cell<u32>,
    address_valid: bool,
    rx_head: usize,
    rx_tail: usize,
    tx_head: usize,
    tx_tail: usize,
    writes: Vec<(u32, u32)>,
}

impl Registers for Fake<'_> {
    fn read(&self, offset: u32) -> u32 {
        match offset {
            _ if offset == CTRL.offset => {
                let left = self.reset_reads.get();
                self.reset_reads.set(left.saturating_sub(1));
                if left > 0 { 1 << 26 } else { 0 }
            }
            _ if offset == RAL0.offset => 0x1200_5452,
            _ if offset == RAH0.offset => u32::from(self.address_valid) << 31 | 0x5634,
            _ if offset == STATUS.offset => 0x83,
            _ if offset == MPC.offset => 3,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        if offset == RDT.offset {
            self.rx_tail = value as usize;
        } else if offset == TDT.offset {
            self.tx_tail = value as usize;
        }
        self.writes.push((offset, value));
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
        reset_reads: core::cell::Cell::new(3),
        address_valid: true,
        rx_head: 0,
        rx_tail: 0,
        tx_head: 0,
        tx_tail: 0,
        writes: Vec::new(),
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
    assert_eq!(last_write(&driver, EIAC.offset), Some(0x0150_0000));
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

#[test]
fn a_broken_device_is_an_error() {
    let stuck = fake();
    stuck.reset_reads.set(u32::MAX);
    let memory = stuck.memory;
    assert_eq!(
        E1000e::new(stuck, memory).err(),
        Some(InitError::ResetStuck)
    );
    let mut nameless = fake();
    nameless.address_valid = false;
    let memory = nameless.memory;
    assert_eq!(
        E1000e::new(nameless, memory).err(),
        Some(InitError::NoAddress)
    );
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
    assert_eq!(driver.receive(&mut frame), Some(60));
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
