//! A virtio function for tests: its registers, and a device that works on the driver's queues.

extern crate std;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::transport::{MSIX_CONFIG, NO_ENTRY, QUEUE_MSIX_VECTOR, QUEUE_SELECT, Words};

/// Descriptor flags (VIRTIO 1.1 section 2.6.5): another follows; the device writes.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A queue, as the driver set it up and how far the device is.
#[derive(Clone, Copy, Default)]
struct Queue {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    seen: u16,
    done: u16,
}

/// Features, status, configuration, MSI-X entries and queues.
#[derive(Default)]
pub struct State {
    pub offered: u64,
    pub written: u64,
    status: u32,
    pub refuses: bool,
    selected: u16,
    pub config_entry: u16,
    pub entries: [u16; 2],
    /// Size of the MSI-X table.
    pub table: u16,
    /// Configuration registers of this kind of device.
    pub config: Vec<u8>,
    queues: [Queue; 2],
    /// What was set up, in order.
    pub order: Vec<&'static str>,
}

/// The function; clones are the same.
#[derive(Clone, Default)]
pub struct Fake(pub Rc<RefCell<State>>);

/// A request: its first descriptor, bytes that the device reads, places that it writes.
pub struct Request {
    pub head: u32,
    pub read: Vec<u8>,
    pub write: Vec<(u64, usize)>,
}

fn load<T: Copy>(address: u64) -> T {
    // SAFETY: addresses are those that the driver gave, of memory that is static or the test's;
    // a device reads it at any time.
    unsafe { (address as *const T).read_unaligned() }
}

fn store<T: Copy>(address: u64, value: T) {
    // SAFETY: as in `load`.
    unsafe { (address as *mut T).write_unaligned(value) };
}

impl Fake {
    /// Takes the next request of a queue.
    pub fn take(&self, queue: usize) -> Option<Request> {
        let queue = &mut self.0.borrow_mut().queues[queue];
        let available: u16 = load(queue.available + 2);
        if queue.size == 0 || available == queue.seen {
            return None;
        }
        let slot = u64::from(queue.seen % queue.size);
        let head: u16 = load(queue.available + 4 + 2 * slot);
        queue.seen = queue.seen.wrapping_add(1);
        let mut request = Request {
            head: head.into(),
            read: Vec::new(),
            write: Vec::new(),
        };
        let mut next = Some(head);
        while let Some(index) = next {
            let at = queue.descriptors + 16 * u64::from(index);
            let (address, length): (u64, u32) = (load(at), load(at + 8));
            let flags: u16 = load(at + 12);
            if flags & WRITE != 0 {
                request.write.push((address, length as usize));
            } else {
                let bytes = (0..u64::from(length)).map(|byte| load::<u8>(address + byte));
                request.read.extend(bytes);
            }
            next = (flags & NEXT != 0).then(|| load(at + 14));
        }
        Some(request)
    }

    /// Returns whether the driver wants to be interrupted for a queue.
    pub fn listens(&self, queue: usize) -> bool {
        load::<u16>(self.0.borrow().queues[queue].available) & 1 == 0
    }

    /// Completes a request by its first descriptor, with so many bytes written.
    pub fn complete(&self, queue: usize, head: u32, written: u32) {
        let queue = &mut self.0.borrow_mut().queues[queue];
        let at = queue.used + 4 + 8 * u64::from(queue.done % queue.size);
        store(at, head);
        store(at + 4, written);
        queue.done = queue.done.wrapping_add(1);
        store(queue.used + 2, queue.done);
    }

    /// Writes bytes to a place of a request.
    pub fn fill(place: (u64, usize), bytes: &[u8]) {
        for (at, byte) in (place.0..).zip(&bytes[..bytes.len().min(place.1)]) {
            store(at, *byte);
        }
    }
}

impl Words for Fake {
    fn read(&self, offset: u32) -> u16 {
        let state = self.0.borrow();
        match offset {
            MSIX_CONFIG => state.config_entry,
            QUEUE_MSIX_VECTOR => state.entries[usize::from(state.selected)],
            _ => panic!("read at {offset}"),
        }
    }

    fn write(&mut self, offset: u32, value: u16) {
        let state = &mut *self.0.borrow_mut();
        let entry = if value < state.table { value } else { NO_ENTRY };
        match offset {
            MSIX_CONFIG => state.config_entry = entry,
            QUEUE_SELECT => state.selected = value,
            QUEUE_MSIX_VECTOR => {
                state.entries[usize::from(state.selected)] = entry;
                state.order.push("entry");
            }
            _ => panic!("written at {offset}"),
        }
    }
}

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }
    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().offered
    }
    fn write_driver_features(&mut self, features: u64) {
        self.0.borrow_mut().written = features;
    }
    fn max_queue_size(&mut self, _: u16) -> u32 {
        256
    }
    fn notify(&mut self, _: u16) {}
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.0.borrow().status)
    }
    fn set_status(&mut self, status: DeviceStatus) {
        let mut state = self.0.borrow_mut();
        let refused = if state.refuses {
            DeviceStatus::FEATURES_OK.bits()
        } else {
            0
        };
        state.status = status.bits() & !refused;
    }
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, queue: u16, size: u32, descriptors: u64, available: u64, used: u64) {
        let mut state = self.0.borrow_mut();
        state.order.push("queue");
        state.queues[usize::from(queue)] = Queue {
            size: size as u16,
            descriptors,
            available,
            used,
            ..Queue::default()
        };
    }
    fn queue_unset(&mut self, queue: u16) {
        self.0.borrow_mut().queues[usize::from(queue)].size = 0;
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.borrow().queues[usize::from(queue)].size != 0
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        let state = self.0.borrow();
        let bytes = state.config.get(offset..offset + size_of::<V>());
        let bytes = bytes.ok_or(Error::ConfigSpaceTooSmall)?;
        V::read_from_bytes(bytes).map_err(|_| Error::ConfigSpaceTooSmall)
    }
    fn write_config_space<V: IntoBytes + Immutable>(&mut self, _: usize, _: V) -> Result<()> {
        Ok(())
    }
}
