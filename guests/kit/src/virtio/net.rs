//! A virtio network: one receive and one transmit queue, MSI-X.

use core::sync::atomic::{AtomicBool, Ordering, fence};

use virtio_drivers::Error;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::Memory;
use super::transport::{Entries, Messages};
use super::{InitError, Stopped};
use crate::mmio::{SharedBytes, WindowRegisters};
use crate::network::{
    BUFFER, Driver, Link, MAX_FRAME, MIN_FRAME, OTHER_ENTRY, RECEIVE_ENTRY, Statistics,
    TRANSMIT_ENTRY, TransmitError,
};

/// Descriptors of each queue, and buffers.
const RING: usize = 64;
/// Transmit buffers that only answers to received frames may take.
const ANSWERS: u32 = 16;
/// Bytes in front of a frame (VIRTIO 1.1 section 5.1.6), all 0 of one that is sent: nothing is
/// left for the function to do.
const HEADER: usize = 12;
/// Feature: the function tells of its link.
const HAS_STATUS: u64 = 1 << 16;
/// That register, and its bit for a link that is up (section 5.1.4).
const STATUS: u32 = 6;
const LINK_UP: u16 = 1 << 0;

/// The MSI-X entries, in the order of the queues.
const ENTRIES: Entries = Entries {
    config: OTHER_ENTRY as u16,
    queues: &[RECEIVE_ENTRY as u16, TRANSMIT_ENTRY as u16],
};

type Buffer = SharedBytes<BUFFER>;

/// The buffers of one network.
pub struct NetMemory {
    receive: [Buffer; RING],
    transmit: [Buffer; RING],
    in_use: AtomicBool,
}

impl NetMemory {
    /// Creates zeroed memory, for a `static`.
    #[expect(
        clippy::new_without_default,
        reason = "it is a place for a static, not a value"
    )]
    pub const fn new() -> Self {
        Self {
            receive: [const { Buffer::new() }; RING],
            transmit: [const { Buffer::new() }; RING],
            in_use: AtomicBool::new(false),
        }
    }
}

/// The driver. Frames are copied between its caller and the buffers.
pub struct Network<T: Transport = Messages<PciTransport, WindowRegisters>> {
    raw: VirtIONetRaw<Memory, T, RING>,
    memory: &'static NetMemory,
    /// The structure with the state of the link, if the function tells of it.
    status: Option<WindowRegisters>,
    /// The buffer of each receive token, and of each transmit token with the bytes in it.
    received: [u8; RING],
    sent: [(u8, u16); RING],
    /// Transmit buffers that the function does not have, by bits.
    free: u64,
    statistics: Statistics,
}

impl Stopped {
    /// Starts the function as a network. Bus mastering and MSI-X are on by then.
    ///
    /// # Errors
    /// [`InitError`] says what the function refused.
    pub fn start_network(mut self, memory: &'static NetMemory) -> Result<Network, InitError> {
        let has_status = self.transport.read_device_features() & HAS_STATUS != 0;
        let status = self.device.take().filter(|_| has_status);
        Network::start(self.messages(ENTRIES), memory, status)
    }
}

impl<T: Transport> Network<T> {
    /// Starts the function behind `transport`.
    pub(super) fn start(
        transport: T,
        memory: &'static NetMemory,
        status: Option<WindowRegisters>,
    ) -> Result<Self, InitError> {
        if memory.in_use.swap(true, Ordering::Acquire) {
            return Err(InitError::MemoryInUse);
        }
        let raw = VirtIONetRaw::new(transport).map_err(|_| InitError::Refused)?;
        let mut network = Self {
            raw,
            memory,
            status,
            received: [0; RING],
            sent: [(0, 0); RING],
            free: u64::MAX,
            statistics: Statistics::default(),
        };
        (0..RING).for_each(|buffer| network.post(buffer));
        Ok(network)
    }

    /// Gives a receive buffer to the function.
    fn post(&mut self, buffer: usize) {
        let bytes = self.memory.receive[buffer].as_ptr();
        // SAFETY: the buffer is this driver's alone (`in_use`), not the function's, and after
        // this call only its address is kept until the completion with the same token.
        let begun = unsafe { self.raw.receive_begin(&mut *bytes) };
        // There are as many descriptors as buffers.
        if let Some(place) = begun
            .ok()
            .and_then(|token| self.received.get_mut(usize::from(token)))
        {
            *place = buffer as u8;
        }
    }

    /// Takes back the transmit buffers that the function is done with.
    fn reclaim(&mut self) {
        while let Some(token) = self.raw.poll_transmit() {
            let Some(&(buffer, length)) = self.sent.get(usize::from(token)) else {
                return;
            };
            let bytes = self.memory.transmit[usize::from(buffer)].as_ptr();
            // SAFETY: these are the bytes that `transmit` gave with this token.
            let completed = unsafe {
                self.raw
                    .transmit_complete(token, &(&*bytes)[..usize::from(length)])
            };
            if completed.is_err() {
                return;
            }
            self.free |= 1 << buffer;
        }
    }

    fn has_room(&mut self, wanted: u32) -> bool {
        if self.free.count_ones() < wanted {
            self.reclaim();
        }
        self.free.count_ones() >= wanted
    }
}

impl<T: Transport> Driver for Network<T> {
    fn address(&self) -> [u8; 6] {
        self.raw.mac_address()
    }

    fn link(&self) -> Link {
        let status = self.status.as_ref();
        Link {
            up: status.is_none_or(|device| device.read16(STATUS) & LINK_UP != 0),
            speed: 0,
            full_duplex: true,
        }
    }

    fn statistics(&mut self) -> Statistics {
        self.statistics
    }

    /// By MSI-X each change interrupts, and nothing is latched.
    fn acknowledge_other(&mut self) {}

    fn quiet(&mut self) {
        self.raw.disable_interrupts();
    }

    fn listen(&mut self) -> bool {
        let full = !self.can_begin();
        self.raw.enable_interrupts();
        // The function sees the flag before it is looked at what it did until then.
        fence(Ordering::SeqCst);
        let busy = self.can_receive() || full && self.can_begin();
        if busy {
            self.raw.disable_interrupts();
        }
        !busy
    }

    fn can_receive(&mut self) -> bool {
        self.raw.poll_receive().is_some()
    }

    fn receive(&mut self, frame: &mut [u8; BUFFER]) -> Option<usize> {
        // One round at most: the function could refill as fast as bad ones are skipped.
        for _ in 0..RING {
            let token = self.raw.poll_receive()?;
            let buffer = usize::from(*self.received.get(usize::from(token))?);
            let shared = &self.memory.receive[buffer];
            let bytes = shared.as_ptr();
            // SAFETY: it is the buffer that `post` gave with this token.
            let completed = unsafe { self.raw.receive_complete(token, &mut *bytes) };
            let good = match completed {
                Ok((header, length)) if (MIN_FRAME..=MAX_FRAME).contains(&length) => {
                    shared.copy_out(header, &mut frame[..length]);
                    Some(length)
                }
                // Too long, or shorter than its header.
                Ok(_) | Err(Error::IoError) => None,
                // It is still the function's.
                Err(_) => return None,
            };
            self.post(buffer);
            if let Some(length) = good {
                self.statistics.received_packets += 1;
                self.statistics.received_bytes += length as u64;
                return good;
            }
            self.statistics.receive_errors += 1;
        }
        None
    }

    fn can_transmit(&mut self) -> bool {
        self.has_room(1)
    }

    fn can_begin(&mut self) -> bool {
        self.has_room(1 + ANSWERS)
    }

    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
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
        let buffer = self.free.trailing_zeros() as usize;
        let shared = &self.memory.transmit[buffer];
        // The header is 0 from the start.
        shared.copy_in(HEADER, frame);
        let length = HEADER + frame.len();
        let bytes = shared.as_ptr();
        // SAFETY: the buffer is this driver's alone (`in_use`), not the function's (`free`), and
        // after this call only its address is kept until the completion with the same token.
        let begun = unsafe { self.raw.transmit_begin(&(&*bytes)[..length]) };
        let place = begun
            .ok()
            .and_then(|token| self.sent.get_mut(usize::from(token)));
        let Some(place) = place else {
            self.statistics.send_drops += 1;
            return Err(TransmitError::Full);
        };
        *place = (buffer as u8, length as u16);
        self.free &= !(1 << buffer);
        self.statistics.sent_packets += 1;
        self.statistics.sent_bytes += frame.len() as u64;
        Ok(())
    }

    /// The crate tells of each buffer at once.
    fn flush(&mut self) {}

    /// The function is a host's software, whose queues either move or are gone.
    fn watch(&mut self, _: u64) -> Result<Option<u64>, &'static str> {
        Ok(None)
    }
}
