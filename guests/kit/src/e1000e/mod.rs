//! Driver of the Intel 82574L ("e1000e"), one receive and one transmit queue, MSI-X.
//!
//! Interrupt scheme: three MSI-X entries (receive, transmit, other). Each cause
//! clears itself as its message is sent (EIAC) and none masks itself, so an
//! interrupt costs no register access at all. The transmit interrupt comes
//! once for [`REPORT_EVERY`] frames, when that part of the ring is free again.
#![forbid(unsafe_code)]

pub mod dma;
pub mod phy;
mod registers;
#[cfg(test)]
mod tests;

use core::sync::atomic::{Ordering, fence};

use crate::mmio::Registers;
use dma::{BUFFER, DmaMemory, RING};
use registers::*;

/// PCI vendor identifier.
pub const VENDOR: u16 = 0x8086;
/// PCI device identifier.
pub const DEVICE: u16 = 0x10d3;
/// BAR of the registers.
pub const REGISTER_BAR: usize = 0;

/// MSI-X entry of the receive queue.
pub const RECEIVE_ENTRY: usize = 0;
/// MSI-X entry of the transmit queue.
pub const TRANSMIT_ENTRY: usize = 1;
/// MSI-X entry of everything else, above all link changes.
pub const OTHER_ENTRY: usize = 2;

/// Shortest and longest frame in bytes, without frame check sequence.
const MIN_FRAME: usize = 14;
/// Longest frame in bytes: 1500 of payload, header, one VLAN tag.
const MAX_FRAME: usize = 1518;

/// The device reports the end of every so many frames; divides [`RING`].
pub const REPORT_EVERY: usize = 16;

/// Bound on the reads that wait for the end of a reset, which takes about a
/// microsecond (82574 datasheet 10.2.2) and so a few reads.
const RESET_READS: u32 = 100_000;

/// Inter-packet gap that the datasheet recommends (10.2.6): 8, 8, 6.
const TIPG_VALUE: u32 = 8 | 8 << 10 | 6 << 20;

/// Why the device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// The reset does not end.
    ResetStuck,
    /// The device has no valid station address.
    NoAddress,
}

/// Why a frame was not accepted for transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitError {
    /// Every descriptor is in use.
    Full,
    /// The frame is shorter than a header or longer than the largest frame.
    Length,
}

/// State of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can be exchanged.
    pub up: bool,
    /// Speed in Mbit/s.
    pub speed: u32,
    /// Whether both sides may send at once.
    pub full_duplex: bool,
}

/// Counts since the driver started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames received and handed on.
    pub received_packets: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// Frames given to the device.
    pub sent_packets: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// Frames that the device lost because no descriptor was free.
    pub missed: u64,
    /// Frames received with an error or an impossible length.
    pub receive_errors: u64,
    /// Frames refused for transmission.
    pub send_drops: u64,
}

/// The driver. Frames are copied between its caller and the rings.
pub struct E1000e<'m, R> {
    registers: R,
    memory: &'m DmaMemory,
    address: [u8; 6],
    /// Next receive descriptor to look at, and whether RDT is behind it.
    receive_next: usize,
    receive_moved: bool,
    /// A frame longer than one buffer is being skipped up to its end.
    skipping: bool,
    /// Next transmit descriptor to fill, oldest one in use, and whether TDT is
    /// behind.
    transmit_next: usize,
    transmit_oldest: usize,
    transmit_moved: bool,
    statistics: Statistics,
}

impl<'m, R: Registers> E1000e<'m, R> {
    /// Resets the device and starts both queues and the interrupts. The
    /// function's MSI-X must be on by then or be switched on afterwards.
    ///
    /// # Errors
    /// [`InitError`] says what the device failed to do.
    pub fn new(mut registers: R, memory: &'m DmaMemory) -> Result<Self, InitError> {
        let r = &mut registers;
        IMC.set(r, u32::MAX);
        CTRL.write(r, Control::RST::SET);
        let done = (0..RESET_READS).any(|_| !CTRL.read(r).is_set(Control::RST));
        if !done {
            return Err(InitError::ResetStuck);
        }
        IMC.set(r, u32::MAX);
        ICR.set(r, u32::MAX);

        let low = RAL0.read(r).get();
        let high = RAH0.read(r);
        if !high.is_set(AddressHigh::AV) {
            return Err(InitError::NoAddress);
        }
        let mut address = [0; 6];
        address[..4].copy_from_slice(&low.to_le_bytes());
        address[4..].copy_from_slice(&(high.read(AddressHigh::HIGH) as u16).to_le_bytes());

        CTRL.write(r, Control::SLU::SET);
        for index in 0..MTA_LEN {
            r.write(MTA + 4 * index, 0);
        }
        start_receive(r, memory);
        start_transmit(r, memory);
        start_interrupts(r);
        Ok(Self {
            registers,
            memory,
            address,
            receive_next: 0,
            receive_moved: false,
            skipping: false,
            transmit_next: 0,
            transmit_oldest: 0,
            transmit_moved: false,
            statistics: Statistics::default(),
        })
    }

    /// Resets the device, which then does nothing by itself, and gives its
    /// registers back.
    pub fn stop(mut self) -> R {
        let r = &mut self.registers;
        IMC.set(r, u32::MAX);
        CTRL.write(r, Control::RST::SET);
        // As when it started; if it is stuck, whoever starts it next will see.
        let _ = (0..RESET_READS).any(|_| !CTRL.read(r).is_set(Control::RST));
        IMC.set(r, u32::MAX);
        self.registers
    }

    /// Station (MAC) address.
    pub fn address(&self) -> [u8; 6] {
        self.address
    }

    /// State of the link; one register read.
    pub fn link(&self) -> Link {
        let status = STATUS.read(&self.registers);
        Link {
            up: status.is_set(Status::LU),
            speed: match status.read_as_enum(Status::SPEED) {
                Some(Status::SPEED::Value::Mbit10) => 10,
                Some(Status::SPEED::Value::Mbit100) => 100,
                // Both other codes mean 1000 Mbit/s.
                None => 1000,
            },
            full_duplex: status.is_set(Status::FD),
        }
    }

    /// Counts so far; reads the device's own counters for what it lost.
    pub fn statistics(&mut self) -> Statistics {
        self.statistics.missed += u64::from(MPC.read(&self.registers).get());
        self.statistics.receive_errors += u64::from(CRCERRS.read(&self.registers).get());
        self.statistics
    }

    /// Clears the causes behind the "other" interrupt, so that the next one is
    /// told; call when that interrupt was taken.
    pub fn acknowledge_other(&mut self) {
        let queues = Cause::RXQ0::SET + Cause::TXQ0::SET;
        ICR.set(&mut self.registers, !queues.value);
    }

    /// Raises the transmit interrupt without a frame: for tests of the way that
    /// it takes.
    pub fn raise_transmit(&mut self) {
        // Without MSI-X a cause stays set, and is told once only.
        ICR.write(&mut self.registers, Cause::TXQ0::SET);
        ICS.write(&mut self.registers, Cause::TXQ0::SET);
    }

    /// Takes back every cause: the level on the interrupt pin ends.
    pub fn lower(&mut self) {
        ICR.set(&mut self.registers, u32::MAX);
    }

    /// Copies the next received frame into `frame` and returns its length. Bad
    /// frames are counted and skipped.
    pub fn receive(&mut self, frame: &mut [u8; BUFFER]) -> Option<usize> {
        // One round at most: the device could refill as fast as we skip.
        for _ in 0..RING {
            let index = self.receive_next;
            let descriptor = self.memory.receive.descriptor(index);
            let fields = descriptor.fields.load(Ordering::Acquire);
            if fields & dma::receive::DONE == 0 {
                return None;
            }
            let length = dma::receive::length(fields);
            let ends = fields & dma::receive::END != 0;
            let good = ends
                && !self.skipping
                && fields & dma::receive::ERRORS == 0
                && (MIN_FRAME..=MAX_FRAME).contains(&length);
            if good {
                self.memory.receive_buffers[index].copy_to(&mut frame[..length]);
            }
            self.skipping = !ends;
            descriptor.fields.store(0, Ordering::Relaxed);
            self.receive_next = (index + 1) % RING;
            self.receive_moved = true;
            if good {
                self.statistics.received_packets += 1;
                self.statistics.received_bytes += length as u64;
                return Some(length);
            }
            if ends {
                self.statistics.receive_errors += 1;
            }
        }
        None
    }

    /// Whether [`transmit`](Self::transmit) has room for a frame.
    pub fn can_transmit(&mut self) -> bool {
        if self.in_use() == RING - 1 {
            self.reclaim();
        }
        self.in_use() < RING - 1
    }

    /// Puts `frame` into the transmit ring; [`flush`](Self::flush) sends it.
    ///
    /// # Errors
    /// [`TransmitError`]; the frame is then counted as dropped.
    pub fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
        let refused = if !(MIN_FRAME..=MAX_FRAME).contains(&frame.len()) {
            Some(TransmitError::Length)
        } else if !self.can_transmit() {
            Some(TransmitError::Full)
        } else {
            None
        };
        if let Some(error) = refused {
            self.statistics.send_drops += 1;
            return Err(error);
        }
        let index = self.transmit_next;
        let buffer = &self.memory.transmit_buffers[index];
        buffer.copy_from(frame);
        let mut fields = frame.len() as u64 | dma::transmit::END | dma::transmit::INSERT_FCS;
        if ends_report(index) {
            fields |= dma::transmit::REPORT;
        }
        let descriptor = self.memory.transmit.descriptor(index);
        descriptor
            .address
            .store(buffer.address(), Ordering::Relaxed);
        descriptor.fields.store(fields, Ordering::Relaxed);
        self.transmit_next = (index + 1) % RING;
        self.transmit_moved = true;
        self.statistics.sent_packets += 1;
        self.statistics.sent_bytes += frame.len() as u64;
        Ok(())
    }

    /// Tells the device about new transmit and free receive descriptors: one
    /// register write for each ring that moved.
    pub fn flush(&mut self) {
        // Descriptors and buffers before the tails.
        fence(Ordering::Release);
        if self.transmit_moved {
            TDT.set(&mut self.registers, self.transmit_next as u32);
            self.transmit_moved = false;
        }
        if self.receive_moved {
            let last = (self.receive_next + RING - 1) % RING;
            RDT.set(&mut self.registers, last as u32);
            self.receive_moved = false;
        }
    }

    /// Transmit descriptors that the device may still use.
    fn in_use(&self) -> usize {
        (self.transmit_next + RING - self.transmit_oldest) % RING
    }

    /// Frees the descriptors of every finished report group. Frames finish in
    /// order, so the done bit of a group's last descriptor speaks for all.
    fn reclaim(&mut self) {
        while self.in_use() >= REPORT_EVERY {
            let last = self.transmit_oldest + REPORT_EVERY - 1;
            let fields = self
                .memory
                .transmit
                .descriptor(last)
                .fields
                .load(Ordering::Acquire);
            if fields & dma::transmit::DONE == 0 {
                break;
            }
            self.transmit_oldest = (last + 1) % RING;
        }
    }
}

/// Whether descriptor `index` is the last of its report group.
fn ends_report(index: usize) -> bool {
    (index + 1).is_multiple_of(REPORT_EVERY)
}

fn start_receive(r: &mut impl Registers, memory: &DmaMemory) {
    for (index, buffer) in memory.receive_buffers.iter().enumerate() {
        let descriptor = memory.receive.descriptor(index);
        descriptor
            .address
            .store(buffer.address(), Ordering::Relaxed);
        descriptor.fields.store(0, Ordering::Relaxed);
    }
    fence(Ordering::Release);
    let ring = memory.receive.address();
    RDBAL.set(r, ring as u32);
    RDBAH.set(r, (ring >> 32) as u32);
    RDLEN.set(r, (RING * size_of::<dma::Descriptor>()) as u32);
    RDH.set(r, 0);
    RDTR.set(r, 0);
    RADV.set(r, 0);
    // Written back one by one: a waiting frame must not wait for a second.
    RXDCTL.write(
        r,
        DescriptorControl::GRAN::SET + DescriptorControl::WTHRESH.val(1),
    );
    // Otherwise every TCP acknowledgement raises the "other" interrupt too.
    RFCTL.write(r, ReceiveFilter::ACKDIS::SET + ReceiveFilter::ACKD_DIS::SET);
    RCTL.write(
        r,
        ReceiveControl::EN::SET
            + ReceiveControl::BAM::SET
            + ReceiveControl::BSIZE::Bytes2048
            + ReceiveControl::SECRC::SET,
    );
    // One descriptor stays ours: head = tail means an empty ring.
    RDT.set(r, RING as u32 - 1);
}

fn start_transmit(r: &mut impl Registers, memory: &DmaMemory) {
    for index in 0..RING {
        memory
            .transmit
            .descriptor(index)
            .fields
            .store(0, Ordering::Relaxed);
    }
    let ring = memory.transmit.address();
    TDBAL.set(r, ring as u32);
    TDBAH.set(r, (ring >> 32) as u32);
    TDLEN.set(r, (RING * size_of::<dma::Descriptor>()) as u32);
    TDH.set(r, 0);
    TDT.set(r, 0);
    TIPG.set(r, TIPG_VALUE);
    TXDCTL.write(
        r,
        DescriptorControl::GRAN::SET
            + DescriptorControl::COUNT_DESC::SET
            + DescriptorControl::WTHRESH.val(1),
    );
    // Collision threshold and distance as the datasheet recommends (10.2.6).
    TCTL.write(
        r,
        TransmitControl::EN::SET
            + TransmitControl::PSP::SET
            + TransmitControl::CT.val(0x0f)
            + TransmitControl::COLD.val(0x3f),
    );
}

fn start_interrupts(r: &mut impl Registers) {
    IVAR.write(
        r,
        Allocation::RXQ0.val(RECEIVE_ENTRY as u32)
            + Allocation::RXQ0_VALID::SET
            + Allocation::TXQ0.val(TRANSMIT_ENTRY as u32)
            + Allocation::TXQ0_VALID::SET
            + Allocation::OTHER.val(OTHER_ENTRY as u32)
            + Allocation::OTHER_VALID::SET,
    );
    ITR.set(r, 0);
    for throttle in EITR {
        throttle.set(r, 0);
    }
    let causes = Cause::RXQ0::SET + Cause::TXQ0::SET + Cause::OTHER::SET;
    // IAME with an empty IAM: no cause masks itself. (Without IAME, QEMU's
    // model masks what EIAC clears.)
    IAM.set(r, 0);
    CTRL_EXT.write(r, ControlExt::IAME::SET + ControlExt::PBA_CLR::SET);
    EIAC.write(r, causes);
    IMS.write(r, causes + Cause::LSC::SET);
}
