//! The crate's transport with what it leaves out: MSI-X entries for the queues, the memory of
//! an IOMMU, and whether the function took the features.
#![forbid(unsafe_code)]

use virtio_drivers::Result;
use virtio_drivers::device::common::Feature;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::mmio::WindowRegisters;

/// Registers of the common structure (VIRTIO 1.1 section 4.1.4.3) that the crate leaves alone
/// or keeps to itself.
const MSIX_CONFIG: u32 = 16;
const QUEUE_SELECT: u32 = 22;
const QUEUE_MSIX_VECTOR: u32 = 26;
/// No MSI-X entry. A function that cannot give the one asked for reads so as well.
pub const NO_ENTRY: u16 = 0xffff;

/// The function's 16-bit registers.
pub trait Words {
    /// Reads the register at `offset`, a multiple of 2.
    fn read(&self, offset: u32) -> u16;
    /// Writes it.
    fn write(&mut self, offset: u32, value: u16);
}

impl Words for WindowRegisters {
    fn read(&self, offset: u32) -> u16 {
        self.read16(offset)
    }
    fn write(&mut self, offset: u32, value: u16) {
        self.write16(offset, value);
    }
}

/// The MSI-X entries of a function: of changes of its configuration, and of its queues.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    /// Of configuration changes.
    pub config: u16,
    /// Of the queues, from 0 on.
    pub queues: &'static [u16],
}

/// The transport.
pub struct Messages<T, W> {
    inner: T,
    common: W,
    entries: Entries,
    offered: u64,
    /// The function took features and entries.
    usable: bool,
}

impl<T: Transport, W: Words> Messages<T, W> {
    /// Wraps the crate's transport of a function whose common structure is `common`.
    pub fn new(inner: T, common: W, entries: Entries) -> Self {
        Self {
            inner,
            common,
            entries,
            offered: 0,
            usable: false,
        }
    }

    /// Gives queues and configuration changes their entries. Returns whether the function
    /// took them.
    fn route(&mut self) -> bool {
        let Entries { config, queues } = self.entries;
        self.common.write(MSIX_CONFIG, config);
        let mut taken = self.common.read(MSIX_CONFIG) == config;
        for (queue, &entry) in (0..).zip(queues) {
            self.common.write(QUEUE_SELECT, queue);
            self.common.write(QUEUE_MSIX_VECTOR, entry);
            taken &= self.common.read(QUEUE_MSIX_VECTOR) == entry;
        }
        taken
    }
}

impl<T: Transport, W: Words> Transport for Messages<T, W> {
    fn device_type(&self) -> DeviceType {
        self.inner.device_type()
    }

    /// Returns the features without those that are not used here: the crate compares event
    /// indexes without their wrap, so that a notification could be left out.
    fn read_device_features(&mut self) -> u64 {
        self.offered = self.inner.read_device_features();
        self.offered & !Feature::RING_EVENT_IDX.bits()
    }

    /// Writes the features, and that addresses are those of the platform, if the function
    /// asks: it is behind an IOMMU then (VIRTIO 1.1 section 6.1), where a guest's addresses
    /// hold as they stand.
    fn write_driver_features(&mut self, features: u64) {
        let platform = self.offered & Feature::ACCESS_PLATFORM.bits();
        self.inner.write_driver_features(features | platform);
    }

    /// Returns 0, with which the crate makes no queue, if the function refused its features or
    /// MSI-X entries.
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        if self.usable {
            self.inner.max_queue_size(queue)
        } else {
            0
        }
    }

    fn notify(&mut self, queue: u16) {
        self.inner.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.inner.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.inner.set_status(status);
        // The step between features and queues (section 3.1.1).
        if status.contains(DeviceStatus::FEATURES_OK) && !status.contains(DeviceStatus::DRIVER_OK) {
            let modern = self.offered & Feature::VERSION_1.bits() != 0;
            let agreed = self.get_status().contains(DeviceStatus::FEATURES_OK);
            self.usable = modern && agreed && self.route();
        }
    }

    fn set_guest_page_size(&mut self, size: u32) {
        self.inner.set_guest_page_size(size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.inner.requires_legacy_layout()
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: u64, driver: u64, device: u64) {
        self.inner
            .queue_set(queue, size, descriptors, driver, device);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.inner.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.inner.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.inner.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.inner.read_config_generation()
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        self.inner.read_config_space(offset)
    }

    fn write_config_space<V: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: V,
    ) -> Result<()> {
        self.inner.write_config_space(offset, value)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec::Vec;

    use super::*;

    /// A function: its features and status, and its MSI-X entries by register and queue.
    #[derive(Default)]
    struct State {
        offered: u64,
        written: u64,
        status: u32,
        refuses: bool,
        selected: u16,
        config: u16,
        queues: [u16; 2],
        table: u16,
        order: Vec<&'static str>,
    }

    #[derive(Clone, Default)]
    struct Fake(Rc<RefCell<State>>);

    impl Words for Fake {
        fn read(&self, offset: u32) -> u16 {
            let state = self.0.borrow();
            match offset {
                MSIX_CONFIG => state.config,
                QUEUE_MSIX_VECTOR => state.queues[usize::from(state.selected)],
                _ => panic!("read at {offset}"),
            }
        }
        fn write(&mut self, offset: u32, value: u16) {
            let state = &mut *self.0.borrow_mut();
            let entry = if value < state.table { value } else { NO_ENTRY };
            match offset {
                MSIX_CONFIG => state.config = entry,
                QUEUE_SELECT => state.selected = value,
                QUEUE_MSIX_VECTOR => {
                    state.queues[usize::from(state.selected)] = entry;
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
        fn queue_set(&mut self, _: u16, _: u32, _: u64, _: u64, _: u64) {
            self.0.borrow_mut().order.push("queue");
        }
        fn queue_unset(&mut self, _: u16) {}
        fn queue_used(&mut self, _: u16) -> bool {
            false
        }
        fn ack_interrupt(&mut self) -> InterruptStatus {
            InterruptStatus::empty()
        }
        fn read_config_generation(&self) -> u32 {
            0
        }
        fn read_config_space<V: FromBytes + IntoBytes>(&self, _: usize) -> Result<V> {
            Ok(V::new_zeroed())
        }
        fn write_config_space<V: IntoBytes + Immutable>(&mut self, _: usize, _: V) -> Result<()> {
            Ok(())
        }
    }

    const ENTRIES: Entries = Entries {
        config: 2,
        queues: &[0, 1],
    };

    type Raw = virtio_drivers::device::net::VirtIONetRaw<
        crate::virtio::dma::Memory,
        Messages<Fake, Fake>,
        16,
    >;

    /// Starts the crate's driver.
    fn start(change: impl FnOnce(&mut State)) -> (bool, Fake) {
        let fake = Fake::default();
        {
            let mut state = fake.0.borrow_mut();
            state.offered = (Feature::VERSION_1 | Feature::RING_EVENT_IDX).bits();
            state.table = 3;
            change(&mut state);
        }
        let raw = Raw::new(Messages::new(fake.clone(), fake.clone(), ENTRIES));
        (raw.is_ok(), fake)
    }

    #[test]
    fn queues_have_their_entries_before_they_are_set_up() {
        let (started, fake) = start(|_| {});
        let state = fake.0.borrow();
        assert!(started);
        assert_eq!((state.config, state.queues), (2, [0, 1]));
        assert_eq!(state.order, ["entry", "entry", "queue", "queue"]);
    }

    #[test]
    fn a_function_that_refuses_gets_no_queue() {
        for change in [
            (|state: &mut State| state.refuses = true) as fn(&mut State),
            |state| state.table = 2,
            |state| state.table = 1,
            |state| state.offered = 0,
        ] {
            let (started, fake) = start(change);
            assert!(!started);
            assert!(!fake.0.borrow().order.contains(&"queue"));
        }
    }

    #[test]
    fn features_are_the_platforms_addresses_and_no_event_indexes() {
        let platform = Feature::ACCESS_PLATFORM.bits();
        for offered in [0, platform] {
            let (_, fake) = start(|state| state.offered |= offered);
            let written = fake.0.borrow().written;
            assert_eq!(written, Feature::VERSION_1.bits() | offered);
        }
    }
}
