//! RAM that a guest and its devices write at any time.

use core::ops::Range;

use spec::names;

use crate::Context;

/// A guest's RAM, as mapped in this component. There is never a reference into it:
/// concurrent writes of the guest or a device may be seen or not.
#[derive(Debug)]
pub struct GuestRam {
    /// Guest addresses.
    range: Range<u64>,
    /// The guest-virtual addresses at which it is a second time; empty if it is not.
    second: Range<u64>,
    /// Where it lies here.
    here: usize,
}

impl GuestRam {
    /// Returns the RAM of the component's guest.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let region = context.get(names::GUEST_RAM);
        let address = context.get(names::GUEST_ADDRESS);
        let second = context.get(names::GUEST_SECOND_ADDRESS);
        let second_end = if second == 0 {
            0
        } else {
            second + region.length
        };
        Self {
            range: address..address + region.length,
            second: second..second_end,
            here: region.address as usize,
        }
    }

    /// Returns the guest addresses.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Returns the guest-physical address of a guest-virtual one.
    #[must_use]
    pub fn physical(&self, address: u64) -> u64 {
        if self.second.contains(&address) {
            address - self.second.start + self.range.start
        } else {
            address
        }
    }

    /// Zeroes all of it: a guest that starts again finds nothing of the last.
    pub fn clear(&mut self) {
        let length = (self.range.end - self.range.start) as usize;
        let here = core::ptr::with_exposed_provenance_mut::<u8>(self.here);
        // SAFETY: init mapped all of the RAM here, and nothing unmaps it. The guest does
        // not run now; bytes that a device writes meanwhile are cleared or not.
        unsafe { core::ptr::write_bytes(here, 0, length) };
    }

    /// Returns where `length` bytes at a guest address lie here, if all are
    /// RAM.
    fn at(&self, address: u64, length: usize) -> Option<*mut u8> {
        let address = self.physical(address);
        let end = address.checked_add(length as u64)?;
        let inside = address >= self.range.start && end <= self.range.end;
        inside.then(|| {
            let offset = (address - self.range.start) as usize;
            core::ptr::with_exposed_provenance_mut(self.here + offset)
        })
    }

    /// Copies out of RAM; `false`, and nothing copied, unless all of it is RAM.
    #[must_use]
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let Some(here) = self.at(address, bytes.len()) else {
            return false;
        };
        // SAFETY: init mapped all of the RAM here, nothing unmaps it, and the range was
        // checked. The guest does not run now; a device may write at the same
        // time, and then the bytes are old or new.
        unsafe { core::ptr::copy_nonoverlapping(here, bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Copies into RAM; `false`, and nothing copied, unless all of it is RAM.
    #[must_use]
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some(here) = self.at(address, bytes.len()) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), here, bytes.len()) };
        true
    }
}
