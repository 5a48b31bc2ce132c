//! A network function, whatever its model, and one as a smoltcp network device.
#![forbid(unsafe_code)]

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::pci::{self, Config, Function, Way};
use crate::{e1000e, virtio};

/// MSI-X entry of the receive queue.
pub const RECEIVE_ENTRY: usize = 0;
/// MSI-X entry of the transmit queue.
pub const TRANSMIT_ENTRY: usize = 1;
/// MSI-X entry of everything else, above all link changes.
pub const OTHER_ENTRY: usize = 2;

/// Bytes of one frame buffer.
pub const BUFFER: usize = 2048;
/// Shortest frame in bytes: a header.
pub const MIN_FRAME: usize = 14;
/// Longest frame in bytes, without frame check sequence: 1500 of payload, header, one VLAN tag.
pub const MAX_FRAME: usize = 1518;
/// Largest frame that the network stack sends: 1500 bytes and an Ethernet header.
const MAX_TRANSMISSION_UNIT: usize = 1514;

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
    /// Speed in Mbit/s; 0 if the function does not tell.
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
    /// How often the transmitter hung, and the device was started again.
    pub transmit_hangs: u64,
}

/// A model of network functions that kit drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Intel 82574L.
    E1000e,
    /// virtio-net by its modern interface (VIRTIO 1.1).
    Virtio,
}

impl Model {
    /// Returns the model with these identifiers.
    pub fn of(vendor: u16, device: u16) -> Option<Self> {
        match (vendor, device) {
            (e1000e::VENDOR, e1000e::DEVICE) => Some(Self::E1000e),
            (virtio::VENDOR, virtio::NETWORK | virtio::TRANSITIONAL_NETWORK) => Some(Self::Virtio),
            _ => None,
        }
    }

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::E1000e => "Intel 82574L",
            Self::Virtio => "virtio network",
        }
    }
}

/// Finds the first network function on bus 0 that kit drives.
pub fn find(way: Way) -> Option<(Function<Config>, Model)> {
    pci::present(way).find_map(|bdf| {
        let (vendor, device) = pci::identity(way, bdf);
        Some((Function::at(way, bdf), Model::of(vendor, device)?))
    })
}

/// What each driver of a network function does.
pub trait Driver {
    /// Returns the station (MAC) address.
    fn address(&self) -> [u8; 6];
    /// Returns the state of the link.
    fn link(&self) -> Link;
    /// Returns the counts so far.
    fn statistics(&mut self) -> Statistics;
    /// Makes the next event that is no frame interrupt; call when that interrupt was taken.
    fn acknowledge_other(&mut self);
    /// Keeps frames from interrupting, for one who looks for them anyway.
    fn quiet(&mut self);
    /// Lets frames, and room for them, interrupt from now on, as they do at first: before a
    /// sleep. Returns `false`, and changes nothing, if there is something to do already.
    fn listen(&mut self) -> bool;
    /// Returns whether a good frame was received that was not taken yet.
    fn can_receive(&mut self) -> bool;
    /// Copies the next received frame into `frame` and returns its length. Bad frames are
    /// counted and skipped.
    fn receive(&mut self, frame: &mut [u8; BUFFER]) -> Option<usize>;
    /// Returns whether [`transmit`](Self::transmit) has room for a frame.
    fn can_transmit(&mut self) -> bool;
    /// Returns whether there is room for a frame that does not answer another one, and for
    /// answers besides.
    fn can_begin(&mut self) -> bool;
    /// Gives `frame` to the device, by the next [`flush`](Self::flush) at the latest.
    ///
    /// # Errors
    /// [`TransmitError`]; the frame is then counted as dropped.
    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError>;
    /// Tells the device about new frames and free buffers.
    fn flush(&mut self);
    /// Looks whether the transmitter still moves, and starts the device again if it does not.
    /// `now` is in microseconds. Returns when to look again; `None` if that is not needed
    /// before the next frame.
    ///
    /// # Errors
    /// The reason why the device cannot be started again; it is tried again.
    fn watch(&mut self, now: u64) -> Result<Option<u64>, &'static str>;
}

/// A driver with the two frame buffers that the network stack works in.
pub struct Nic<'d, D: Driver + ?Sized = dyn Driver> {
    /// The driver.
    pub driver: &'d mut D,
    received: [u8; BUFFER],
    sending: [u8; BUFFER],
}

impl<'d, D: Driver + ?Sized> Nic<'d, D> {
    /// Wraps a driver.
    pub fn new(driver: &'d mut D) -> Self {
        Self {
            driver,
            received: [0; BUFFER],
            sending: [0; BUFFER],
        }
    }
}

/// A received frame.
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<T, F: FnOnce(&[u8]) -> T>(self, f: F) -> T {
        f(self.0)
    }
}

/// Room for one frame to send.
pub struct Sending<'a, D: Driver + ?Sized> {
    driver: &'a mut D,
    frame: &'a mut [u8; BUFFER],
}

impl<D: Driver + ?Sized> TxToken for Sending<'_, D> {
    fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, length: usize, f: F) -> T {
        let frame = &mut self.frame[..length];
        let result = f(frame);
        // A frame that is refused is lost, as on any Ethernet; the driver has
        // counted it.
        let _ = self.driver.transmit(frame);
        result
    }
}

impl<D: Driver + ?Sized> Device for Nic<'_, D> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Sending<'a, D>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_, D>)> {
        // Frames are received even without room for an answer: the waiting frame may
        // be the acknowledgement that frees the room, and a guest with a hung
        // transmitter must still receive. An answer without room is lost.
        let length = self.driver.receive(&mut self.received)?;
        let sending = Sending {
            driver: self.driver,
            frame: &mut self.sending,
        };
        Some((Received(&self.received[..length]), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_, D>> {
        self.driver.can_begin().then_some(Sending {
            driver: self.driver,
            frame: &mut self.sending,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_TRANSMISSION_UNIT;
        capabilities
    }
}
