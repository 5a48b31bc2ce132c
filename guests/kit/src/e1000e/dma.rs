//! The memory that driver and device share: descriptor rings and frame buffers.
//!
//! Legacy descriptors, 82574 datasheet sections 7.1 (receive) and 7.2
//! (transmit). Every word of a descriptor is an atomic, because the device writes
//! it at any time. A frame is copied out in one piece before anything looks at it.
#![forbid(unsafe_code)]

use core::sync::atomic::AtomicU64;

use crate::mmio::SharedBytes;
use crate::network::BUFFER;

/// Descriptors in each ring. Rings are a multiple of 128 bytes, so 8 descriptors.
pub const RING: usize = 64;

/// A descriptor: buffer address, then length, command and status.
#[repr(C, align(16))]
pub struct Descriptor {
    /// Bus address of the buffer.
    pub address: AtomicU64,
    /// The other fields; see [`receive`] and [`transmit`].
    pub fields: AtomicU64,
}

impl Descriptor {
    const fn new() -> Self {
        Self {
            address: AtomicU64::new(0),
            fields: AtomicU64::new(0),
        }
    }
}

/// Fields of a receive descriptor after the device has filled it.
pub mod receive {
    /// Descriptor done.
    pub const DONE: u64 = 1 << 32;
    /// The frame ends in this descriptor.
    pub const END: u64 = 1 << 33;
    /// Error bits: CRC, symbol, sequence, carrier extension, receive data. The
    /// checksum error bits (TCPE, IPE) are left to the network stack.
    pub const ERRORS: u64 = 0b1001_0111 << 40;

    /// Returns the frame length in bytes.
    pub fn length(fields: u64) -> usize {
        usize::from(fields as u16)
    }
}

/// Fields of a transmit descriptor.
pub mod transmit {
    /// Command: the frame ends in this descriptor.
    pub const END: u64 = 1 << 24;
    /// Command: insert the frame check sequence.
    pub const INSERT_FCS: u64 = 1 << 25;
    /// Command: report status.
    pub const REPORT: u64 = 1 << 27;
    /// Status: descriptor done.
    pub const DONE: u64 = 1 << 32;
}

/// One frame buffer, of the size that RCTL.BSIZE says.
pub type Buffer = SharedBytes<BUFFER>;

/// A descriptor ring.
#[repr(C, align(128))]
pub struct Ring([Descriptor; RING]);

impl Ring {
    const fn new() -> Self {
        Self([const { Descriptor::new() }; RING])
    }

    /// Bus address of the ring.
    pub fn address(&self) -> u64 {
        self.0.as_ptr().addr() as u64
    }

    /// Returns the descriptor `index`, below [`RING`].
    pub fn descriptor(&self, index: usize) -> &Descriptor {
        &self.0[index]
    }
}

/// All memory that the device may reach.
#[repr(C)]
pub struct DmaMemory {
    /// Receive ring.
    pub receive: Ring,
    /// Transmit ring.
    pub transmit: Ring,
    /// Receive buffers, one for each descriptor.
    pub receive_buffers: [Buffer; RING],
    /// Transmit buffers, one for each descriptor.
    pub transmit_buffers: [Buffer; RING],
}

impl DmaMemory {
    /// Creates zeroed memory, for a `static`.
    pub const fn new() -> Self {
        Self {
            receive: Ring::new(),
            transmit: Ring::new(),
            receive_buffers: [const { Buffer::new() }; RING],
            transmit_buffers: [const { Buffer::new() }; RING],
        }
    }
}

impl Default for DmaMemory {
    fn default() -> Self {
        Self::new()
    }
}
