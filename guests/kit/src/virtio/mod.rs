//! Drivers of virtio functions by their modern interface (VIRTIO 1.1 section 4.1), on the crate
//! `virtio-drivers`.
//!
//! Responsible for: what the crate leaves to its user, which is the memory (`dma`), MSI-X
//! entries of queues (`transport`), buffers, and waiting.
//! Must never: let the function reach memory before it was reset, or touch a buffer that the
//! function has.
//! May call: the crate; the function's registers.
//! Invariants: a buffer belongs to the function from `..._begin` to the completion with the
//! same token; meanwhile only its address is kept.

pub mod disk;
mod dma;
pub mod net;
mod transport;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::mmio::WindowRegisters;
use crate::pci::{Bdf, Config, ConfigSpace, Function, Way};
use transport::{Entries, Messages};

/// PCI vendor identifier.
pub const VENDOR: u16 = 0x1af4;
/// PCI device identifiers of networks: of modern ones, and of those with the legacy interface
/// besides.
pub const NETWORK: u16 = 0x1041;
/// See [`NETWORK`].
pub const TRANSITIONAL_NETWORK: u16 = 0x1000;
/// PCI device identifiers of disks, likewise.
pub const DISK: u16 = 0x1042;
/// See [`DISK`].
pub const TRANSITIONAL_DISK: u16 = 0x1001;

/// Vendor-specific capabilities, and the types of those that are looked at here.
const VENDOR_SPECIFIC: u8 = 0x09;
const COMMON: u8 = 1;
const DEVICE: u8 = 4;

/// Bound on the reads that wait for the end of a reset: some functions need a while to stop
/// their queues, none that is known a second.
const RESET_READS: u32 = 1_000_000;

/// Why a function cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// Its capabilities name no registers that can be reached.
    NoRegisters,
    /// Its reset does not end.
    Stuck,
    /// The memory is another driver's.
    MemoryInUse,
    /// It refuses its features, MSI-X entries or queues.
    Refused,
}

/// A function after its reset: it is silent and reaches no memory.
pub struct Stopped {
    transport: PciTransport,
    common: WindowRegisters,
    /// Registers of this kind of device.
    device: Option<WindowRegisters>,
}

impl Stopped {
    /// Resets the function. Its bus mastering is off or about to be, because it may still hold
    /// an earlier owner's setup. Its decoding is on. `way` leads to its configuration space.
    ///
    /// # Errors
    /// [`InitError`] says what is missing.
    pub fn reset(way: Way, function: &Function<Config>) -> Result<Self, InitError> {
        let common = structure(function, COMMON).ok_or(InitError::NoRegisters)?;
        let device = structure(function, DEVICE);
        let bdf = function.bdf;
        let place = DeviceFunction {
            bus: bdf.bus,
            device: bdf.device,
            function: bdf.function,
        };
        let mut root = PciRoot::new(Access::new(way, bdf));
        let found = PciTransport::new::<dma::Memory, _>(&mut root, place);
        let mut transport = found.map_err(|_| InitError::NoRegisters)?;
        transport.set_status(DeviceStatus::empty());
        let is_over = (0..RESET_READS).any(|_| transport.get_status().is_empty());
        if !is_over {
            // It waits for the end of a reset when it is dropped, without a bound.
            core::mem::forget(transport);
            return Err(InitError::Stuck);
        }
        Ok(Self {
            transport,
            common,
            device,
        })
    }

    /// Returns the transport for a driver of the crate.
    fn messages(self, entries: Entries) -> Messages<PciTransport, WindowRegisters> {
        Messages::new(self.transport, self.common, entries)
    }
}

/// Configuration space as the crate reads it.
struct Access {
    config: Config,
    way: Way,
    bdf: Bdf,
}

impl Access {
    fn new(way: Way, bdf: Bdf) -> Self {
        Self {
            config: Config::new(way, bdf),
            way,
            bdf,
        }
    }
}

impl ConfigurationAccess for Access {
    fn read_word(&self, _: DeviceFunction, offset: u8) -> u32 {
        self.config.read(offset)
    }

    fn write_word(&mut self, _: DeviceFunction, offset: u8, value: u32) {
        self.config.write(offset, value);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self::new(self.way, self.bdf)
    }
}

/// Returns the registers of the first structure of this type (VIRTIO 1.1 section 4.1.4).
fn structure(function: &Function<impl ConfigSpace>, kind: u8) -> Option<WindowRegisters> {
    let read = |offset| function.config.read(offset);
    let mut all = function.capabilities();
    let (_, at) = all
        .find(|&(id, at)| id == VENDOR_SPECIFIC && at <= 0xf0 && (read(at) >> 24) as u8 == kind)?;
    function.map_shared((read(at + 4) & 0xff) as usize, read(at + 8))
}
