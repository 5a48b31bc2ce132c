//! A virtio function by its modern registers: one request in one queue, whose answer it writes.
//!
//! What it reads: the descriptors of a request, which say where the answer goes. The requests
//! change nothing and go nowhere: a network function is given an order that
//! there is none of, a disk is asked for its name, a source of entropy for some. Sections are
//! those of VIRTIO 1.1.
//!
//! Messages are not tried. A single dword of a chosen value would have to come from the used
//! ring, whose entry is two dwords. A measurement by it was tried on QEMU 7.2: it called functions
//! confined that no IOMMU confines.

use crate::{BEFORE, Memory, Probe, Registers, Stuck, WATCHED, within};

/// Registers that have to be accessed by their own width (4.1.3.1).
pub trait Narrow: Registers {
    /// Reads 8 bits.
    fn read8(&mut self, offset: u32) -> u8;
    /// Writes 8 bits, as [`Registers::write`].
    fn write8(&mut self, offset: u32, value: u8);
    /// Reads 16 bits.
    fn read16(&mut self, offset: u32) -> u16;
    /// Writes 16 bits, as [`Registers::write`].
    fn write16(&mut self, offset: u32, value: u16);
}

/// Common registers (4.1.4.3).
const DEVICE_FEATURE_SELECT: u32 = 0;
const DEVICE_FEATURE: u32 = 4;
const DRIVER_FEATURE_SELECT: u32 = 8;
const DRIVER_FEATURE: u32 = 12;
const STATUS: u32 = 20;
const QUEUE_SELECT: u32 = 22;
const QUEUE_SIZE: u32 = 24;
const QUEUE_ENABLE: u32 = 28;
const QUEUE_NOTIFY_OFF: u32 = 30;
/// Addresses of the queue: descriptors, available ring, used ring.
const QUEUE_TABLE: u32 = 32;
const QUEUE_AVAILABLE: u32 = 40;
const QUEUE_USED: u32 = 48;

/// Status (2.1): noticed, driven, features agreed on, in use; it needs a reset.
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 64;

/// Features (6): of this version; its accesses are translated as the platform says.
const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;

/// Bound on the reads that wait for the end of a reset: a tenth of a second.
const RESET_READS: u32 = 100_000;
/// Bound on the reads that wait for an answer: a tenth of a second.
const ANSWER_READS: u32 = 100_000;
/// Entries of the queue.
const ENTRIES: u16 = 4;
/// Places in [`Memory`]: descriptors, both rings, what the request holds, an answer.
const TABLE: usize = 0x000;
const AVAILABLE: usize = 0x100;
const USED: usize = 0x200;
const HEADER: usize = 0x300;
const ANSWER: usize = 0x400;
/// Descriptor (2.6.5): there is another, the device writes.
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;
/// Available ring: no interrupts.
const NO_INTERRUPT: u16 = 1;

/// A kind of function that there is a request for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network.
    Network,
    /// A disk.
    Block,
    /// A source of entropy.
    Entropy,
}

impl Kind {
    /// Returns the kind of a function by its PCI device id (4.1.2.1).
    #[must_use]
    pub const fn of(device: u16) -> Option<Self> {
        Some(match device {
            0x1000 | 0x1041 => Self::Network,
            0x1001 | 0x1042 => Self::Block,
            0x1005 | 0x1044 => Self::Entropy,
            _ => return None,
        })
    }

    /// Returns the queue that takes the request.
    const fn queue(self) -> u16 {
        match self {
            // That of orders, if there is one pair of others (5.1.2).
            Self::Network => 2,
            Self::Block | Self::Entropy => 0,
        }
    }

    /// Returns the features without which there is no such queue.
    const fn features(self) -> u64 {
        match self {
            // A queue for orders (5.1.3).
            Self::Network => 1 << 17,
            Self::Block | Self::Entropy => 0,
        }
    }

    /// Returns what the request holds.
    const fn header(self) -> &'static [u8] {
        match self {
            // A class of orders that is not there.
            Self::Network => &[0xff, 0xff],
            // Type 8, the disk's name (5.2.6).
            Self::Block => &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Self::Entropy => &[],
        }
    }

    /// Returns the lengths of the answer's parts, at most [`WATCHED`] in all.
    const fn answer(self) -> [u32; 2] {
        match self {
            Self::Network => [0, 1],
            // The last byte is the status.
            Self::Block => [20, 1],
            Self::Entropy => [0, 32],
        }
    }
}

/// What a function says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its accesses are translated as the platform says: they go through the IOMMU, where there
    /// is one. Else it uses addresses of the machine's memory, whatever stands in between.
    pub behind_iommu: bool,
    /// Which notification is that of the queue that takes [`Kind`]'s request; 0 without a kind.
    pub notification: u16,
}

/// Reads all features.
fn features(common: &mut impl Narrow) -> u64 {
    let mut half = |select| {
        common.write(DEVICE_FEATURE_SELECT, select);
        u64::from(common.read(DEVICE_FEATURE))
    };
    half(0) | half(1) << 32
}

/// Resets a function, and asks what it offers. `common` are its common registers.
///
/// # Errors
/// [`Stuck`].
pub fn look(common: &mut impl Narrow, kind: Option<Kind>) -> Result<Offer, Stuck> {
    reset(common)?;
    let offered = features(common);
    let notification = kind.map_or(0, |kind| {
        common.write16(QUEUE_SELECT, kind.queue());
        common.read16(QUEUE_NOTIFY_OFF)
    });
    Ok(Offer {
        behind_iommu: offered & ACCESS_PLATFORM != 0,
        notification,
    })
}

/// Resets a function (2.4).
fn reset(common: &mut impl Narrow) -> Result<(), Stuck> {
    common.write8(STATUS, 0);
    let mut status = 0;
    let over = within(RESET_READS, || {
        status = common.read8(STATUS);
        status == 0 || status == u8::MAX
    });
    match (over, status) {
        (true, 0) => Ok(()),
        (true, _) => Err(Stuck::Absent),
        _ => Err(Stuck::Reset),
    }
}

/// A function under the probe's control.
#[derive(Debug)]
pub struct Virtio<R, N, M> {
    common: R,
    notify: N,
    memory: M,
    bus_address: u64,
    kind: Kind,
}

impl<R: Narrow, N: FnMut(u16), M: Memory> Virtio<R, N, M> {
    /// Returns a function that holds what an earlier owner told it: its
    /// [`quiesce`](Probe::quiesce) comes next. `notify` notifies it of a queue, and `memory`
    /// is at `bus_address` for it.
    pub const fn new(common: R, notify: N, memory: M, bus_address: u64, kind: Kind) -> Self {
        Self {
            common,
            notify,
            memory,
            bus_address,
            kind,
        }
    }

    fn own(&self, place: usize) -> u64 {
        self.bus_address + place as u64
    }

    /// Returns the descriptors of the request, whose answer goes to `answer`.
    fn table(&self, answer: u64) -> [u8; 3 * 16] {
        let header = self.kind.header().len() as u32;
        let [first, last] = self.kind.answer();
        let parts = [
            (self.own(HEADER), header, 0),
            (answer, first, WRITABLE),
            (answer + u64::from(first), last, WRITABLE),
        ];
        let mut table = [0; 3 * 16];
        let used = parts.iter().filter(|(_, length, _)| *length != 0);
        let count = used.clone().count();
        for (index, (address, length, flags)) in (0u16..).zip(used) {
            let more = usize::from(index) + 1 < count;
            let next = if more { (NEXT, index + 1) } else { (0, 0) };
            let entry = &mut table[usize::from(index) * 16..][..16];
            entry[..8].copy_from_slice(&address.to_le_bytes());
            entry[8..12].copy_from_slice(&length.to_le_bytes());
            entry[12..14].copy_from_slice(&(flags | next.0).to_le_bytes());
            entry[14..].copy_from_slice(&next.1.to_le_bytes());
        }
        table
    }

    /// Sets the function up with its descriptors at this address, and notifies it of one request.
    fn start(&mut self, table: u64) -> Result<(), Stuck> {
        reset(&mut self.common)?;
        self.memory.write(ANSWER, &[BEFORE; WATCHED]);
        self.memory.write(HEADER, self.kind.header());
        self.memory.write(USED, &[0; 16]);
        // Flags, one request, which is the first descriptor.
        let [quiet, _] = NO_INTERRUPT.to_le_bytes();
        self.memory.write(AVAILABLE, &[quiet, 0, 1, 0, 0, 0, 0, 0]);
        let (queue, needed) = (self.kind.queue(), VERSION_1 | self.kind.features());
        let (available, used) = (self.own(AVAILABLE), self.own(USED));
        let common = &mut self.common;
        common.write8(STATUS, ACKNOWLEDGE);
        common.write8(STATUS, ACKNOWLEDGE | DRIVER);
        let offered = features(common);
        if offered & needed != needed {
            return Err(Stuck::Unsupported);
        }
        let accepted = needed | offered & ACCESS_PLATFORM;
        for half in 0..2 {
            common.write(DRIVER_FEATURE_SELECT, half);
            common.write(DRIVER_FEATURE, (accepted >> (32 * half)) as u32);
        }
        let agreed = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        common.write8(STATUS, agreed);
        if common.read8(STATUS) & FEATURES_OK == 0 {
            return Err(Stuck::Start);
        }
        common.write16(QUEUE_SELECT, queue);
        if common.read16(QUEUE_SIZE) < ENTRIES {
            return Err(Stuck::Unsupported);
        }
        common.write16(QUEUE_SIZE, ENTRIES);
        for (register, address) in [
            (QUEUE_TABLE, table),
            (QUEUE_AVAILABLE, available),
            (QUEUE_USED, used),
        ] {
            common.write(register, address as u32);
            common.write(register + 4, (address >> 32) as u32);
        }
        common.write16(QUEUE_ENABLE, 1);
        common.write8(STATUS, agreed | DRIVER_OK);
        (self.notify)(queue);
        Ok(())
    }

    /// Waits until the request is in the used ring, or the function says that it is stuck.
    /// Returns which.
    fn is_used(&mut self) -> bool {
        let (common, memory) = (&mut self.common, &mut self.memory);
        let mut used = [0; 2];
        within(ANSWER_READS, || {
            let broken = common.read8(STATUS) & NEEDS_RESET != 0;
            memory.read(USED + 2, &mut used);
            used != [0; 2] || broken
        });
        used != [0; 2]
    }
}

impl<R: Narrow, N: FnMut(u16), M: Memory> Probe for Virtio<R, N, M> {
    const MEMORY: usize = 0x1000;

    fn quiesce(&mut self) -> Result<(), Stuck> {
        reset(&mut self.common)
    }

    fn bait(&self) -> [u8; WATCHED] {
        let mut bait = [0; WATCHED];
        let table = self.table(self.own(ANSWER));
        bait[..table.len()].copy_from_slice(&table);
        bait
    }

    fn write(&mut self, to: u64) -> Result<(), Stuck> {
        let table = self.table(to);
        self.memory.write(TABLE, &table);
        self.start(self.own(TABLE))?;
        match self.is_used() {
            true => Ok(()),
            false => Err(Stuck::Order),
        }
    }

    fn reads(&mut self, from: u64) -> Result<bool, Stuck> {
        self.start(from)?;
        // Descriptors that are none may be used up as well: only the bait tells where to.
        self.is_used();
        let mut answer = [0; WATCHED];
        self.memory.read(ANSWER, &mut answer);
        Ok(answer != [BEFORE; WATCHED])
    }

    fn forge(&mut self, _data: u32) -> Result<(), Stuck> {
        Err(Stuck::Unsupported)
    }
}

#[cfg(test)]
mod tests;
