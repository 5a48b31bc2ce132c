//! defmt logs into the component's ring.
//!
//! A frame is one record of the ring. The console drains the rings; if it does
//! not keep up, records are dropped and counted, and no component waits.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use sel4::cap::Notification;
use shm::Ring;

pub(crate) static RING: AtomicPtr<Ring> = AtomicPtr::new(core::ptr::null_mut());
pub(crate) static DOORBELL: AtomicU64 = AtomicU64::new(0);

/// Sets where frames go. Frames logged before are lost.
pub fn start(ring: &'static Ring, doorbell: Notification) {
    DOORBELL.store(doorbell.bits(), Ordering::Relaxed);
    RING.store(core::ptr::from_ref(ring).cast_mut(), Ordering::Relaxed);
}
