//! Driver of the Intel 82574L ("e1000e"), one receive and one transmit queue, MSI-X.
//!
//! Responsible for: the device from its reset on ([`Stopped`]), its rings, and a
//! transmitter that hangs ([`E1000e::watch`]).
//! Must never: let the device reach memory before it was reset, or wait without a
//! bound.
//! May call: the device's registers, and the memory of its rings.
//! Invariants: the device is idle between its reset and [`Stopped::start`], so bus
//! mastering is switched on between the two.
//!
//! Interrupt scheme: three MSI-X entries (receive, transmit, other). The causes of
//! the queues clear themselves as their message is sent (EIAC) and none masks
//! itself, so an interrupt costs no register access at all. The cause "other" does
//! not clear itself: some devices would then lose the underlying event, and its
//! handler has to read the device anyway ([`E1000e::acknowledge_other`]). Whoever is awake
//! and looks at the queues keeps them quiet ([`E1000e::quiet`]), and listens before it
//! sleeps ([`E1000e::listen`]): a burst of frames interrupts once. The
//! transmit interrupt comes once for [`REPORT_EVERY`] frames, when that part of the
//! ring is free again.
//!
//! Settings beyond the datasheet follow the drivers of Linux (e1000e) and FreeBSD
//! (em) for this device.
#![forbid(unsafe_code)]

pub mod dma;
mod registers;
#[cfg(test)]
mod tests;

use core::sync::atomic::{Ordering, fence};

use tock_registers::fields::FieldValue;

use crate::mmio::Registers;
use crate::network::{
    BUFFER, Driver, Link, MAX_FRAME, MIN_FRAME, OTHER_ENTRY, RECEIVE_ENTRY, Statistics,
    TRANSMIT_ENTRY, TransmitError,
};
use dma::{DmaMemory, RING};
use registers::*;

/// PCI vendor identifier.
pub const VENDOR: u16 = 0x8086;
/// PCI device identifier.
pub const DEVICE: u16 = 0x10d3;
/// BAR of the registers.
pub const REGISTER_BAR: usize = 0;

/// The device reports the end of every so many frames; divides [`RING`].
pub const REPORT_EVERY: usize = 16;

/// Transmit descriptors that only answers to received frames may take, so that a
/// stack which fills the ring can still acknowledge received data.
const ANSWERS: usize = REPORT_EVERY;

/// Reads of a register that take a microsecond at least: one has to cross the bus
/// and come back, which is several hundred nanoseconds on PCI Express.
const READS_PER_MICRO: u32 = 4;
/// Bound on the wait for the end of a reset, in microseconds; it takes about one
/// (82574 datasheet 10.2.2).
const RESET_MICROS: u32 = 25_000;
/// Bound on the wait for outstanding bus requests, in microseconds: as in Linux and
/// FreeBSD.
const DRAIN_MICROS: u32 = 80_000;
/// Bound on the wait for firmware to let go of the PHY, in microseconds: the same.
const OWNERSHIP_MICROS: u32 = 20_000;
/// Bound on the wait until the NVM is read, in microseconds: more than the 20 ms of
/// Linux and FreeBSD.
const NVM_MICROS: u32 = 100_000;
/// Time that the device may need afterwards to apply the NVM's values, in
/// microseconds. Linux and FreeBSD always wait that long, since they go on to the PHY and the
/// NVM. This driver needs the address only, which has a bit to say that it is there.
const ADDRESS_MICROS: u32 = 25_000;

/// How often a transmitter with frames to send is looked at, in microseconds.
pub const WATCH_MICROS: u64 = 500_000;
/// After how long without a frame sent it hangs, in microseconds: a frame of 1518
/// bytes takes 1.3 ms at 10 Mbit/s.
pub const HANG_MICROS: u64 = 2_000_000;

/// Inter-packet gap that the datasheet recommends (10.2.6): 8, 8, 6.
const TIPG_VALUE: u32 = 8 | 8 << 10 | 6 << 20;

/// Why the device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// The reset does not end.
    ResetStuck,
    /// The device does not finish reading its NVM after a reset.
    NvmStuck,
    /// The device has no valid station address.
    NoAddress,
}

impl InitError {
    /// Returns the reason in words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ResetStuck => "its reset does not end",
            Self::NvmStuck => "it does not finish reading its NVM",
            Self::NoAddress => "it has no valid station address",
        }
    }
}

/// A device after its reset: it is silent and reaches no memory.
#[derive(Debug)]
pub struct Stopped<R> {
    registers: R,
    address: [u8; 6],
}

impl<R: Registers> Stopped<R> {
    /// Stops the device in any state, and resets it. Its bus mastering is off or
    /// about to be, because the device may still hold an earlier owner's setup.
    ///
    /// # Errors
    /// [`InitError`] names the step that the device failed.
    pub fn reset(mut registers: R) -> Result<Self, InitError> {
        let address = reset(&mut registers)?;
        Ok(Self { registers, address })
    }

    /// Starts both queues and the interrupts, on rings in `memory`. Bus mastering is
    /// on by then. The function's MSI-X may be switched on before or afterwards.
    pub fn start(mut self, memory: &DmaMemory) -> E1000e<'_, R> {
        start(&mut self.registers, memory);
        E1000e {
            registers: self.registers,
            memory,
            address: self.address,
            receive_next: 0,
            receive_moved: false,
            skipping: false,
            transmit_next: 0,
            transmit_oldest: 0,
            transmit_moved: false,
            watched: Watched::default(),
            statistics: Statistics::default(),
        }
    }

    /// Returns its registers.
    pub fn into_registers(self) -> R {
        self.registers
    }
}

/// Observed state of the transmitter.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// Frames were given to the device that it is not known to have sent.
    unsent: bool,
    /// The device was reset and did not start again.
    failed: bool,
    /// When it is looked at next, at the earliest.
    next: u64,
    /// The device's next descriptor, and since when that is so; `None` if it was
    /// not looked at since a part of the ring came back.
    head: Option<(u32, u64)>,
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
    watched: Watched,
    statistics: Statistics,
}

impl<'m, R: Registers> E1000e<'m, R> {
    /// Resets and starts in one step, on a device that is a test's.
    #[cfg(test)]
    pub(crate) fn new(registers: R, memory: &'m DmaMemory) -> Result<Self, InitError> {
        Ok(Stopped::reset(registers)?.start(memory))
    }

    /// Resets the device, so that it does nothing by itself, releases it to firmware,
    /// and returns its registers.
    pub fn stop(mut self) -> R {
        let r = &mut self.registers;
        // If it is stuck, its next start reports that.
        let _ = reset(r);
        CTRL_EXT.modify(r, ControlExt::DRV_LOAD::CLEAR);
        self.registers
    }

    /// Returns the station (MAC) address.
    pub fn address(&self) -> [u8; 6] {
        self.address
    }

    /// Returns the state of the link; one register read.
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

    /// Returns the counts so far; reads the device's own counters for lost frames.
    pub fn statistics(&mut self) -> Statistics {
        self.statistics.missed += u64::from(MPC.read(&self.registers).get());
        self.statistics.receive_errors += u64::from(CRCERRS.read(&self.registers).get());
        self.statistics
    }

    /// Clears the causes behind the "other" interrupt, so that the next event raises
    /// it again; call when that interrupt was taken.
    pub fn acknowledge_other(&mut self) {
        ICR.set(&mut self.registers, !queues().value);
    }

    /// Keeps the queues from interrupting: who looks at them anyway need not be told.
    pub fn quiet(&mut self) {
        IMC.write(&mut self.registers, queues());
    }

    /// Lets the queues interrupt from now on. Returns `false`, and leaves it as it is, if
    /// there is something to do already: a frame, or room where there was none.
    pub fn listen(&mut self) -> bool {
        let full = !self.can_begin();
        // What was raised until now is done, or is found by these looks; what comes after
        // them interrupts, whether or not it does before the mask is open.
        ICR.write(&mut self.registers, queues());
        if self.can_receive() || full && self.can_begin() {
            return false;
        }
        IMS.write(&mut self.registers, queues());
        true
    }

    /// Raises the transmit interrupt without a frame: for tests of the way that
    /// it takes.
    pub fn raise_transmit(&mut self) {
        // Without MSI-X a cause stays set, and raises an interrupt only once.
        ICR.write(&mut self.registers, Cause::TXQ0::SET);
        ICS.write(&mut self.registers, Cause::TXQ0::SET);
    }

    /// Takes back every cause: the level on the interrupt pin ends.
    pub fn lower(&mut self) {
        ICR.set(&mut self.registers, u32::MAX);
    }

    /// Returns whether a good frame was received that was not taken yet. Bad ones before it
    /// are counted and skipped.
    pub fn can_receive(&mut self) -> bool {
        self.next_frame().is_some()
    }

    /// Copies the next received frame into `frame` and returns its length. Bad
    /// frames are counted and skipped.
    pub fn receive(&mut self, frame: &mut [u8; BUFFER]) -> Option<usize> {
        let length = self.next_frame()?;
        let index = self.receive_next;
        self.memory.receive_buffers[index].copy_to(&mut frame[..length]);
        self.release();
        self.statistics.received_packets += 1;
        self.statistics.received_bytes += length as u64;
        Some(length)
    }

    /// Returns the length of the next good frame, which is at the front of the ring then.
    fn next_frame(&mut self) -> Option<usize> {
        // One round at most: the device could refill as fast as we skip.
        for _ in 0..RING {
            let descriptor = self.memory.receive.descriptor(self.receive_next);
            let fields = descriptor.fields.load(Ordering::Acquire);
            if fields & dma::receive::DONE == 0 {
                return None;
            }
            let length = dma::receive::length(fields);
            let ends = fields & dma::receive::END != 0;
            if ends
                && !self.skipping
                && fields & dma::receive::ERRORS == 0
                && (MIN_FRAME..=MAX_FRAME).contains(&length)
            {
                return Some(length);
            }
            self.skipping = !ends;
            self.release();
            if ends {
                self.statistics.receive_errors += 1;
            }
        }
        None
    }

    /// Hands the descriptor at the front of the receive ring back.
    fn release(&mut self) {
        let descriptor = self.memory.receive.descriptor(self.receive_next);
        descriptor.fields.store(0, Ordering::Relaxed);
        self.receive_next = (self.receive_next + 1) % RING;
        self.receive_moved = true;
    }

    /// Returns whether [`transmit`](Self::transmit) has room for a frame.
    pub fn can_transmit(&mut self) -> bool {
        self.has_room(1)
    }

    /// Returns whether there is room for a frame that does not answer another one,
    /// and for answers besides.
    pub fn can_begin(&mut self) -> bool {
        self.has_room(1 + ANSWERS)
    }

    /// Returns whether `wanted` descriptors are free. If not, the tail register is
    /// written, in case the device has not been told about the latest ones.
    fn has_room(&mut self, wanted: usize) -> bool {
        let free = |driver: &Self| RING - 1 - driver.in_use();
        if free(self) < wanted {
            self.flush();
            self.reclaim();
        }
        free(self) >= wanted
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
            self.watched.unsent = true;
        }
        if self.receive_moved {
            let last = (self.receive_next + RING - 1) % RING;
            RDT.set(&mut self.registers, last as u32);
            self.receive_moved = false;
        }
    }

    /// Looks whether the transmitter still moves, if it has frames to send, and
    /// starts the device again if it does not: the frames in both rings are lost.
    /// `now` is in microseconds. Returns when to look again; `None` once all was
    /// sent, until the next frame.
    ///
    /// # Errors
    /// [`InitError`] if the device hung and cannot be reset; it is tried again.
    pub fn watch(&mut self, now: u64) -> Result<Option<u64>, InitError> {
        if !self.watched.unsent && !self.watched.failed {
            return Ok(None);
        }
        if now < self.watched.next {
            return Ok(Some(self.watched.next));
        }
        self.watched.next = now + WATCH_MICROS;
        if !self.watched.failed {
            if !self.hangs(now) {
                return Ok(self.watched.unsent.then_some(self.watched.next));
            }
            self.statistics.transmit_hangs += 1;
            self.watched.failed = true;
        }
        reset(&mut self.registers)?;
        start(&mut self.registers, self.memory);
        self.receive_next = 0;
        self.receive_moved = false;
        self.skipping = false;
        self.transmit_next = 0;
        self.transmit_oldest = 0;
        self.transmit_moved = false;
        self.watched = Watched::default();
        Ok(None)
    }

    /// Returns whether the transmitter has not moved for too long.
    fn hangs(&mut self, now: u64) -> bool {
        let head = TDH.read(&self.registers).get();
        if head == self.transmit_next as u32 && !self.transmit_moved {
            self.watched.unsent = false;
            self.watched.head = None;
            return false;
        }
        let status = STATUS.read(&self.registers);
        // Neither without a link nor while the other side has paused it is it to
        // send anything.
        let sends = status.is_set(Status::LU) && !status.is_set(Status::TXOFF);
        let since = match self.watched.head {
            Some((before, since)) if before == head && sends => since,
            _ => now,
        };
        self.watched.head = Some((head, since));
        now - since >= HANG_MICROS
    }

    /// Returns the transmit descriptors that the device may still use.
    fn in_use(&self) -> usize {
        (self.transmit_next + RING - self.transmit_oldest) % RING
    }

    /// Frees the descriptors of every finished report group. Frames finish in
    /// order, so the done bit of a group's last descriptor covers the group.
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
            // The head may have gone round to where it was.
            self.watched.head = None;
        }
    }
}

impl<R: Registers> Driver for E1000e<'_, R> {
    fn address(&self) -> [u8; 6] {
        self.address()
    }
    fn link(&self) -> Link {
        self.link()
    }
    fn statistics(&mut self) -> Statistics {
        self.statistics()
    }
    fn acknowledge_other(&mut self) {
        self.acknowledge_other();
    }
    fn quiet(&mut self) {
        self.quiet();
    }
    fn listen(&mut self) -> bool {
        self.listen()
    }
    fn can_receive(&mut self) -> bool {
        self.can_receive()
    }
    fn receive(&mut self, frame: &mut [u8; BUFFER]) -> Option<usize> {
        self.receive(frame)
    }
    fn can_transmit(&mut self) -> bool {
        self.can_transmit()
    }
    fn can_begin(&mut self) -> bool {
        self.can_begin()
    }
    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
        self.transmit(frame)
    }
    fn flush(&mut self) {
        self.flush();
    }
    fn watch(&mut self, now: u64) -> Result<Option<u64>, &'static str> {
        self.watch(now).map_err(InitError::reason)
    }
}

/// Returns the causes of the queues.
fn queues() -> FieldValue<u32, Cause::Register> {
    Cause::RXQ0::SET + Cause::TXQ0::SET
}

/// Returns whether descriptor `index` is the last of its report group.
fn ends_report(index: usize) -> bool {
    (index + 1).is_multiple_of(REPORT_EVERY)
}

/// Waits until `done`, for that long at least.
fn wait<R: Registers>(r: &R, micros: u32, done: impl Fn(&R) -> bool) -> bool {
    (0..micros * READS_PER_MICRO).any(|_| done(r))
}

/// Stops the device, resets it, and waits until it has read its NVM. Returns the
/// station address from there.
fn reset(r: &mut impl Registers) -> Result<[u8; 6], InitError> {
    IMC.set(r, u32::MAX);
    // New bus requests are stopped and outstanding ones end before the reset: a
    // request that is cut off can leave the bus waiting for its completion.
    RCTL.set(r, 0);
    TCTL.modify(r, TransmitControl::EN::CLEAR);
    CTRL.modify(r, Control::GIO_MASTER_DISABLE::SET + Control::RST::CLEAR);
    // The reset is the last resort for requests that do not end, too.
    let _ = wait(r, DRAIN_MICROS, |r| {
        !STATUS.read(r).is_set(Status::GIO_MASTER_EN)
    });
    // The reset also takes the PHY away from firmware that may be talking to it.
    EXTCNF_CTRL.modify(r, ExtendedConfiguration::MDIO_SW_OWNERSHIP::SET);
    let owned = wait(r, OWNERSHIP_MICROS, |r| {
        EXTCNF_CTRL
            .read(r)
            .is_set(ExtendedConfiguration::MDIO_SW_OWNERSHIP)
    });
    CTRL.modify(r, Control::RST::SET);
    if !wait(r, RESET_MICROS, |r| !CTRL.read(r).is_set(Control::RST)) {
        return Err(InitError::ResetStuck);
    }
    if owned {
        EXTCNF_CTRL.modify(r, ExtendedConfiguration::MDIO_SW_OWNERSHIP::CLEAR);
    }
    // The NVM's values overwrite registers that were set before it was read.
    if !wait(r, NVM_MICROS, |r| EECD.read(r).is_set(NvmControl::AUTO_RD)) {
        return Err(InitError::NvmStuck);
    }
    // The reset restores the power-up state, in which interrupts may be on.
    IMC.set(r, u32::MAX);
    ICR.set(r, u32::MAX);
    if !wait(r, ADDRESS_MICROS, |r| RAH0.read(r).is_set(AddressHigh::AV)) {
        return Err(InitError::NoAddress);
    }
    let mut address = [0; 6];
    address[..4].copy_from_slice(&RAL0.read(r).get().to_le_bytes());
    let high = RAH0.read(r).read(AddressHigh::HIGH) as u16;
    address[4..].copy_from_slice(&high.to_le_bytes());
    Ok(address)
}

/// Sets up a device that was reset.
fn start(r: &mut impl Registers, memory: &DmaMemory) {
    set_hardware_bits(r);
    CTRL.modify(
        r,
        Control::SLU::SET
            + Control::FRCSPD::CLEAR
            + Control::FRCDPX::CLEAR
            + Control::GIO_MASTER_DISABLE::CLEAR
            + Control::RESERVED_29::CLEAR,
    );
    for index in 0..MTA_LEN {
        r.write(MTA + 4 * index, 0);
    }
    start_receive(r, memory);
    start_transmit(r, memory);
    start_interrupts(r);
}

/// Sets bits that are reserved in the datasheet, or about unused queues, and
/// that the drivers of Linux and FreeBSD set on this device all the same.
fn set_hardware_bits(r: &mut impl Registers) {
    TXDCTL1.modify(r, DescriptorControl::COUNT_DESC::SET);
    TARC0.modify(
        r,
        Arbitration::RESERVED_26::SET + Arbitration::RESERVED_27::CLEAR,
    );
    GCR.modify(r, BusControl::RESERVED_22::SET);
    GCR2.modify(r, BusControl2::RESERVED_0::SET);
    CTRL_EXT.modify(
        r,
        ControlExt::RESERVED_22::SET + ControlExt::RESERVED_23::CLEAR + ControlExt::DRV_LOAD::SET,
    );
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
    // IAME with an empty IAM: no cause masks itself. (Without IAME, QEMU's
    // model masks what EIAC clears.)
    IAM.set(r, 0);
    CTRL_EXT.modify(r, ControlExt::IAME::SET + ControlExt::PBA_CLR::SET);
    EIAC.write(r, queues());
    IMS.write(r, queues() + Cause::OTHER::SET + Cause::LSC::SET);
}
