//! Functions as engines that move bytes by DMA on order, to measure what confines them.
//!
//! Responsible for: having a function write at any bus address, read from any, and write an
//! interrupt's message, each by the least that its kind can be told to do. An Intel 82574L
//! ([`Engine`]), an [NVMe controller](nvme) and a [virtio function](virtio).
//! Must never: wait without a bound, raise an interrupt of the device's own, have anything
//! leave the machine, or leave a function able to write after [`Probe::quiesce`].
//! May call: the device's registers and the memory that it is given; bus mastering
//! is the caller's to switch on, between the reset and the first order.
//! Invariants: each order starts the function's queues anew, so one that got stuck leaves
//! nothing behind for the next.
//!
//! A unit that blocks an access may answer it with any value instead of dropping it: the
//! caller has to look at memory, the call's result alone proves nothing. What a function
//! *read* shows only by what it does with it ([`Probe::bait`]).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fake"))]
pub mod bus;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod nvme;
mod registers;
#[cfg(test)]
mod tests;
pub mod virtio;

use registers::*;

/// PCI vendor identifier of the device.
pub const VENDOR: u16 = 0x8086;
/// PCI device identifier of the device.
pub const DEVICE: u16 = 0x10d3;
/// BAR of the registers.
pub const REGISTER_BAR: usize = 0;

/// Bytes of [`Memory`] that the engine needs. They begin at a multiple of 128.
pub const MEMORY_SIZE: usize = 4096;
/// Fewest bytes that can be moved at once: a frame without its check sequence.
pub const SHORTEST: usize = 60;
/// Bytes to move where it matters that no frame of the network is taken for ours, which
/// is told by its length: most short ones, such as those of ARP, have [`SHORTEST`].
pub const UNUSUAL: usize = 68;
/// Most bytes that can be moved at once.
pub const LONGEST: usize = 1500;

/// Rings of 8 descriptors, the shortest there are; one of them is used.
const RING_BYTES: u32 = 128;
const SEND_RING: usize = 0;
const RECEIVE_RING: usize = RING_BYTES as usize;
const OUTGOING: usize = 512;
/// The receiver's buffers have 2048 bytes (RCTL.BSIZE = 0).
const INCOMING: usize = 2048;

/// Bound on the reads that wait for the end of a reset, which takes about a
/// microsecond (10.2.2) and so a few reads.
const RESET_READS: u32 = 100_000;
/// Bound on the reads that wait until requests on the bus have ended: 80 ms, as
/// the drivers of Linux and FreeBSD wait, at four reads a microsecond.
const DRAIN_READS: u32 = 320_000;
/// Bound on the reads that wait until the NVM is read after a reset: 100 ms, more
/// than those drivers wait.
const NVM_READS: u32 = 400_000;
/// Bound on the reads that wait for a frame: at 1 Gbit/s the longest takes 12
/// microseconds, and a read of a register a good part of one.
const FRAME_READS: u32 = 1_000;
/// How often a frame that is not ours is followed by another try. As many may wait: a
/// network that sent since power-on fills the queue of a virtual machine's socket, and
/// each time that the receiver is switched on the next of them comes in first.
const TRIES: u32 = 4_096;

/// 32-bit registers of the device, by byte offset.
pub trait Registers {
    /// Reads the register at `offset`.
    fn read(&mut self, offset: u32) -> u32;
    /// Writes the register at `offset`. The device's reaction sees every earlier
    /// write to [`Memory`].
    fn write(&mut self, offset: u32, value: u32);
}

/// At least [`MEMORY_SIZE`] bytes that the device may reach.
pub trait Memory {
    /// Copies out of the memory. Sees the device's writes.
    fn read(&mut self, offset: usize, bytes: &mut [u8]);
    /// Copies into the memory.
    fn write(&mut self, offset: usize, bytes: &[u8]);
}

/// Why bytes were not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The device's reset does not end, or not its reading of the NVM after it.
    Reset,
    /// The device does not finish the transmit descriptor.
    Send,
    /// The frame does not come back: its bytes could not be read, or the device
    /// could not write them, or the device took them for a broken frame.
    Receive,
    /// Fewer than [`SHORTEST`] or more than [`LONGEST`] bytes were asked for.
    Length,
    /// Its registers read all ones: it is not there, or does not decode.
    Absent,
    /// It does not become ready.
    Start,
    /// It does not do what it is told: nothing of it is seen in memory.
    Order,
    /// It lacks what the order needs.
    Unsupported,
}

/// Why nothing was measured, in words.
impl core::fmt::Display for Stuck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Reset => "its reset does not end",
            Self::Send => "it does not send",
            Self::Receive => "what it sends in a loop does not come back",
            Self::Length => "it moves frames of another length only",
            Self::Absent => "its registers read all ones",
            Self::Start => "it does not become ready",
            Self::Order => "it does nothing of what it is told, in memory that it may reach",
            Self::Unsupported => "it lacks what the measurement needs",
        })
    }
}

/// Bytes at the start of a page at which the caller looks for what a function wrote.
pub const WATCHED: usize = UNUSUAL;
/// What each of those bytes holds before: no function writes all of that.
pub const BEFORE: u8 = 0x5a;
/// Where a message for the first CPU goes to.
const FIRST_CPU: u64 = 0xfee0_0000;

/// A function that moves bytes by DMA on order.
pub trait Probe {
    /// Bytes of [`Memory`] that it needs, whole pages, at a multiple of 64 KiB.
    const MEMORY: usize;

    /// Resets the function and leaves it silent: it knows nothing that it was told.
    ///
    /// # Errors
    /// [`Stuck`].
    fn quiesce(&mut self) -> Result<(), Stuck>;

    /// Returns what memory has to hold at a place, so that [`Probe::reads`] shows.
    fn bait(&self) -> [u8; WATCHED];

    /// Has the function write at `to`, the start of a page: at least one of [`WATCHED`] bytes
    /// there is another than [`BEFORE`] then.
    ///
    /// # Errors
    /// [`Stuck`]. `Ok` says that the function is done, not that the bytes are there.
    fn write(&mut self, to: u64) -> Result<(), Stuck>;

    /// Has the function read at `from`, the start of a page. Returns whether it got the bait.
    ///
    /// # Errors
    /// [`Stuck`].
    fn reads(&mut self, from: u64) -> Result<bool, Stuck>;

    /// Has the function write the message `data` for the first CPU, and nothing else that a CPU
    /// takes for one: not all of them take a vector below 16 for none.
    ///
    /// # Errors
    /// [`Stuck`]: it cannot be told to, or whether it did is not known.
    fn forge(&mut self, data: u32) -> Result<(), Stuck>;
}

/// Returns whether `event` comes, within so many reads of a register for the time that they
/// take.
fn within(reads: u32, mut event: impl FnMut() -> bool) -> bool {
    (0..reads).any(|_| event())
}

/// An Intel 82574L ("e1000e") as a copy engine: a frame looped back is read at one bus address
/// and written at another. With MAC loopback a frame's
/// bytes are read from the transmit descriptor's address and written to the
/// receive descriptor's; nothing leaves the machine. The receiver is never left on between two
/// calls, when a frame from the network could land where the last call pointed.
///
/// What arrives is what was sent: the device adds a frame check sequence on the
/// wire and takes it off again (SECRC), and frames have 60 bytes at least, so
/// there is no padding. QEMU's
/// model drops a frame that claims to be IP or VLAN-tagged (bytes 12 and 13 are
/// 08 00, 86 dd, 81 00 or 88 a8) and is not.
#[derive(Debug)]
pub struct Engine<R, M> {
    registers: R,
    memory: M,
    bus_address: u64,
}

impl<R: Registers, M: Memory> Engine<R, M> {
    /// Resets the device. `memory` is at `bus_address` for it. Memory decode is on;
    /// bus mastering should stay off until then, because the device may still hold
    /// an earlier owner's setup. [`set_up`](Self::set_up) comes next.
    ///
    /// # Errors
    /// [`Stuck::Reset`].
    pub fn new(registers: R, memory: M, bus_address: u64) -> Result<Self, Stuck> {
        let mut engine = Self::unknown(registers, memory, bus_address);
        engine.quiesce()?;
        Ok(engine)
    }

    /// Returns a device that holds what an earlier owner told it:
    /// [`quiesce`](Self::quiesce) comes next.
    pub const fn unknown(registers: R, memory: M, bus_address: u64) -> Self {
        Self {
            registers,
            memory,
            bus_address,
        }
    }

    /// Resets the device and sets it up: for one that was used otherwise meanwhile.
    ///
    /// # Errors
    /// [`Stuck::Reset`].
    pub fn start(&mut self) -> Result<(), Stuck> {
        self.quiesce()?;
        self.set_up();
        Ok(())
    }

    /// Sets up a device that was reset. Bus mastering is on by then.
    pub fn set_up(&mut self) {
        let ring = |offset: usize| self.bus_address + offset as u64;
        let (send, receive) = (ring(SEND_RING), ring(RECEIVE_RING));
        let control = self.registers.read(CTRL) & !CTRL_GIO_MASTER_DISABLE;
        for (register, value) in [
            (CTRL, control | CTRL_SLU | CTRL_FD),
            (RDBAL, receive as u32),
            (RDBAH, (receive >> 32) as u32),
            (RDLEN, RING_BYTES),
            (RXDCTL, WRITE_BACK_EACH),
            (TDBAL, send as u32),
            (TDBAH, (send >> 32) as u32),
            (TDLEN, RING_BYTES),
            (TIPG, TIPG_VALUE),
            (TXDCTL, WRITE_BACK_EACH | TXDCTL_COUNT_DESC),
        ] {
            self.registers.write(register, value);
        }
    }

    /// Resets the device and leaves it silent: no ring, no interrupt, no link.
    /// New bus requests are stopped and outstanding ones end before the reset,
    /// which could otherwise leave the bus waiting.
    ///
    /// # Errors
    /// [`Stuck::Reset`].
    pub fn quiesce(&mut self) -> Result<(), Stuck> {
        let registers = &mut self.registers;
        registers.write(IMC, u32::MAX);
        registers.write(RCTL, 0);
        registers.write(TCTL, 0);
        let control = registers.read(CTRL) & !CTRL_RST;
        registers.write(CTRL, control | CTRL_GIO_MASTER_DISABLE);
        // The reset is the last resort for requests that do not end, too.
        let _ = (0..DRAIN_READS).any(|_| registers.read(STATUS) & STATUS_GIO_MASTER_EN == 0);
        registers.write(CTRL, control | CTRL_GIO_MASTER_DISABLE | CTRL_RST);
        if !(0..RESET_READS).any(|_| registers.read(CTRL) & CTRL_RST == 0) {
            return Err(Stuck::Reset);
        }
        // The NVM's values overwrite registers that were set before it was read.
        if !(0..NVM_READS).any(|_| registers.read(EECD) & EECD_AUTO_RD != 0) {
            return Err(Stuck::Reset);
        }
        // The reset restores the power-up state, in which interrupts may be on.
        registers.write(IMC, u32::MAX);
        registers.write(ICR, u32::MAX);
        Ok(())
    }

    /// Writes `bytes` to bus address `to`.
    ///
    /// # Errors
    /// [`Stuck`]. `Ok` says that the device was done, not that the bytes are
    /// there.
    pub fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), Stuck> {
        if !(SHORTEST..=LONGEST).contains(&bytes.len()) {
            return Err(Stuck::Length);
        }
        self.memory.write(OUTGOING, bytes);
        self.copy(self.bus_address + OUTGOING as u64, to, bytes.len())
    }

    /// Reads from bus address `from` into `bytes`, which are left alone if it
    /// fails.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), Stuck> {
        if !(SHORTEST..=LONGEST).contains(&bytes.len()) {
            return Err(Stuck::Length);
        }
        self.copy(from, self.bus_address + INCOMING as u64, bytes.len())?;
        self.memory.read(INCOMING, bytes);
        Ok(())
    }

    /// Writes the dword `data` at `address`, which makes it a message-signalled
    /// interrupt if the address is one of those (0xFEE00000 to 0xFEEFFFFF). The
    /// 64 bytes below it are written as zeros: below 0xFEE00000 there is nothing,
    /// above it zeros are messages too, of a vector that no CPU takes.
    ///
    /// # Errors
    /// [`Stuck`], as [`write`](Self::write).
    pub fn forge_interrupt(&mut self, address: u64, data: u32) -> Result<(), Stuck> {
        let mut frame = [0; UNUSUAL];
        frame[UNUSUAL - 4..].copy_from_slice(&data.to_le_bytes());
        self.write(address.wrapping_sub(UNUSUAL as u64 - 4), &frame)
    }

    /// Copies one frame of `length` bytes from bus address `from` to `to`.
    fn copy(&mut self, from: u64, to: u64, length: usize) -> Result<(), Stuck> {
        for _ in 0..TRIES {
            let received = self.exchange(from, to, length);
            self.registers.write(RCTL, 0);
            self.registers.write(TCTL, 0);
            // A frame of another length came from the network.
            if received? == length {
                return Ok(());
            }
        }
        Err(Stuck::Receive)
    }

    /// Sends a frame. Returns the length of the received one.
    fn exchange(&mut self, from: u64, to: u64, length: usize) -> Result<usize, Stuck> {
        let send = length as u64 | SEND_END | SEND_FCS | SEND_REPORT;
        self.set_descriptor(RECEIVE_RING, to, 0);
        self.set_descriptor(SEND_RING, from, send);
        let receive = RCTL_EN | RCTL_UPE | RCTL_MPE | RCTL_BAM | RCTL_LBM_MAC | RCTL_SECRC;
        for (register, value) in [
            (RDH, 0),
            (RDT, 0),
            (TDH, 0),
            (TDT, 0),
            (RCTL, receive),
            (RDT, 1),
            (TCTL, TCTL_EN | TCTL_COLLISIONS),
            (TDT, 1),
        ] {
            self.registers.write(register, value);
        }
        self.done(SEND_RING).ok_or(Stuck::Send)?;
        let fields = self.done(RECEIVE_RING).ok_or(Stuck::Receive)?;
        Ok(usize::from(fields as u16))
    }

    fn set_descriptor(&mut self, ring: usize, address: u64, fields: u64) {
        self.memory.write(ring, &address.to_le_bytes());
        self.memory.write(ring + 8, &fields.to_le_bytes());
    }

    /// Waits for a ring's first descriptor. Returns its fields.
    fn done(&mut self, ring: usize) -> Option<u64> {
        (0..FRAME_READS).find_map(|_| {
            let mut fields = [0; 8];
            self.memory.read(ring + 8, &mut fields);
            let fields = u64::from_le_bytes(fields);
            if fields & DONE != 0 {
                return Some(fields);
            }
            // For the time that it takes.
            self.registers.read(STATUS);
            None
        })
    }
}

impl<R: Registers, M: Memory> Probe for Engine<R, M> {
    const MEMORY: usize = MEMORY_SIZE;

    fn quiesce(&mut self) -> Result<(), Stuck> {
        Self::quiesce(self)
    }

    fn bait(&self) -> [u8; WATCHED] {
        [BEFORE; WATCHED]
    }

    fn write(&mut self, to: u64) -> Result<(), Stuck> {
        self.set_up();
        Self::write(self, to, &[!BEFORE; WATCHED])
    }

    fn reads(&mut self, from: u64) -> Result<bool, Stuck> {
        self.set_up();
        let mut found = [!BEFORE; WATCHED];
        Self::read(self, from, &mut found)?;
        Ok(found == [BEFORE; WATCHED])
    }

    fn forge(&mut self, data: u32) -> Result<(), Stuck> {
        self.set_up();
        // Whether it says that it is done proves nothing: a frame that cannot be written
        // does not come back.
        let _ = self.forge_interrupt(FIRST_CPU, data);
        Ok(())
    }
}
