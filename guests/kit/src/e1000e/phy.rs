//! The driver as a smoltcp network device.
#![forbid(unsafe_code)]

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::E1000e;
use super::dma::BUFFER;
use crate::mmio::Registers;

/// Largest frame that the network stack sends: 1500 bytes and an Ethernet header.
const MAX_TRANSMISSION_UNIT: usize = 1514;

/// A driver with the two frame buffers that the network stack works in.
pub struct Nic<'m, R> {
    /// The driver.
    pub driver: E1000e<'m, R>,
    received: [u8; BUFFER],
    sending: [u8; BUFFER],
}

impl<'m, R: Registers> Nic<'m, R> {
    /// Wraps a driver.
    pub fn new(driver: E1000e<'m, R>) -> Self {
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
pub struct Sending<'a, 'm, R> {
    driver: &'a mut E1000e<'m, R>,
    frame: &'a mut [u8; BUFFER],
}

impl<R: Registers> TxToken for Sending<'_, '_, R> {
    fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, length: usize, f: F) -> T {
        let frame = &mut self.frame[..length];
        let result = f(frame);
        // A frame that is refused is lost, as on any Ethernet; the driver has
        // counted it.
        let _ = self.driver.transmit(frame);
        result
    }
}

impl<'m, R: Registers> Device for Nic<'m, R> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Sending<'a, 'm, R>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_, 'm, R>)> {
        // Frames are received even without room for an answer: the waiting frame may
        // be the acknowledgement that frees the room, and a guest with a hung
        // transmitter must still receive. An answer without room is lost.
        let length = self.driver.receive(&mut self.received)?;
        let sending = Sending {
            driver: &mut self.driver,
            frame: &mut self.sending,
        };
        Some((Received(&self.received[..length]), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_, 'm, R>> {
        self.driver.can_begin().then_some(Sending {
            driver: &mut self.driver,
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
