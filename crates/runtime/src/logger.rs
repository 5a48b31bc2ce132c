//! The defmt logger: frames become records of the component's ring.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use sel4::cap::Notification;
use shm::RING_RECORD_MAX;

use crate::log::{DOORBELL, RING};

/// A frame being put together.
struct Frame {
    bytes: [u8; RING_RECORD_MAX],
    length: usize,
    encoder: defmt::Encoder,
}

struct OneThread(UnsafeCell<Frame>);

// SAFETY: a component has one thread, and nothing interrupts it within itself.
unsafe impl Sync for OneThread {}

static FRAME: OneThread = OneThread(UnsafeCell::new(Frame {
    bytes: [0; RING_RECORD_MAX],
    length: 0,
    encoder: defmt::Encoder::new(),
}));

impl Frame {
    fn with(f: impl FnOnce(&mut defmt::Encoder, &mut dyn FnMut(&[u8]))) {
        // SAFETY: one thread, and defmt does not call the logger from within
        // its own write callback.
        let frame = unsafe { &mut *FRAME.0.get() };
        let Self {
            bytes,
            length,
            encoder,
        } = frame;
        f(encoder, &mut |piece| {
            // A record that is too long is cut; the decoder drops it.
            let room = &mut bytes[*length..];
            let fits = piece.len().min(room.len());
            room[..fits].copy_from_slice(&piece[..fits]);
            *length += fits;
        });
    }
}

fn push(record: &[u8]) {
    let ring = RING.load(Ordering::Relaxed);
    if ring.is_null() {
        return;
    }
    // SAFETY: `start` stored a reference that lives forever.
    let ring = unsafe { &*ring };
    ring.push(record);
    Notification::from_bits(DOORBELL.load(Ordering::Relaxed)).signal();
}

#[defmt::global_logger]
struct Logger;

// SAFETY: acquire and release cannot be interleaved, since a component has one
// thread; every frame is written between the two.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        Frame::with(|encoder, write| encoder.start_frame(write));
    }

    unsafe fn flush() {}

    unsafe fn release() {
        Frame::with(|encoder, write| encoder.end_frame(write));
        // SAFETY: as in `Frame::with`, whose borrow has ended.
        let frame = unsafe { &mut *FRAME.0.get() };
        push(&frame.bytes[..frame.length]);
        frame.length = 0;
    }

    unsafe fn write(bytes: &[u8]) {
        Frame::with(|encoder, write| encoder.write(bytes, write));
    }
}

defmt::timestamp!("{=u64}", crate::tsc());
