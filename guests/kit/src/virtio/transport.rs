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
pub(super) const MSIX_CONFIG: u32 = 16;
pub(super) const QUEUE_SELECT: u32 = 22;
pub(super) const QUEUE_MSIX_VECTOR: u32 = 26;
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
