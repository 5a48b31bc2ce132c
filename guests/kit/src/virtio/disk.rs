//! A virtio disk: blocks of 512 bytes, by number, one request at a time, completed by MSI-X.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::Memory;
use super::transport::{Entries, Messages, NO_ENTRY};
use super::{InitError, Stopped};
use crate::mmio::{SharedBytes, WindowRegisters};

/// MSI-X entry of requests.
pub const REQUEST_ENTRY: usize = 0;
const ENTRIES: Entries = Entries {
    config: NO_ENTRY,
    queues: &[REQUEST_ENTRY as u16],
};

/// Bytes that one request moves at most.
const DATA: usize = 4096;

/// What one disk shares with its driver.
pub struct DiskMemory {
    data: SharedBytes<DATA>,
    request: UnsafeCell<MaybeUninit<BlkReq>>,
    response: UnsafeCell<MaybeUninit<BlkResp>>,
    in_use: AtomicBool,
}

// SAFETY: request and response are reached only by the one driver that `in_use` lets in.
unsafe impl Sync for DiskMemory {}

impl DiskMemory {
    /// Creates zeroed memory, for a `static`.
    #[expect(
        clippy::new_without_default,
        reason = "it is a place for a static, not a value"
    )]
    pub const fn new() -> Self {
        Self {
            data: SharedBytes::new(),
            request: UnsafeCell::new(MaybeUninit::uninit()),
            response: UnsafeCell::new(MaybeUninit::uninit()),
            in_use: AtomicBool::new(false),
        }
    }
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The function refused it.
    Refused,
    /// It did not complete in time; nothing more is asked of the function.
    Late,
    /// The request is not of whole blocks, or reaches past the last.
    Range,
}

/// A disk. `wait` is called while a request is under way, until an interrupt; it returns
/// `false` to give up.
pub struct Disk<T: Transport = Messages<PciTransport, WindowRegisters>> {
    raw: VirtIOBlk<Memory, T>,
    memory: &'static DiskMemory,
    failed: bool,
}

impl Stopped {
    /// Starts the function as a disk. Bus mastering and MSI-X are on by then.
    ///
    /// # Errors
    /// [`InitError`] says what the function refused.
    pub fn start_disk(self, memory: &'static DiskMemory) -> Result<Disk, InitError> {
        Disk::start(self.messages(ENTRIES), memory)
    }
}

impl<T: Transport> Disk<T> {
    /// Starts the function behind `transport`.
    pub(super) fn start(transport: T, memory: &'static DiskMemory) -> Result<Self, InitError> {
        if memory.in_use.swap(true, Ordering::Acquire) {
            return Err(InitError::MemoryInUse);
        }
        // SAFETY: nobody else has the memory (`in_use`).
        unsafe {
            (*memory.request.get()).write(BlkReq::default());
            (*memory.response.get()).write(BlkResp::default());
        }
        let raw = VirtIOBlk::new(transport).map_err(|_| InitError::Refused)?;
        Ok(Self {
            raw,
            memory,
            failed: false,
        })
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> u64 {
        // So that no byte offset overflows.
        self.raw.capacity().min(u64::MAX / SECTOR_SIZE as u64)
    }

    /// Returns the bytes of a block.
    pub const fn block_size(&self) -> usize {
        SECTOR_SIZE
    }

    /// Reads the blocks from `first` on.
    ///
    /// # Errors
    /// [`DiskError`]; `data` may then be read in part.
    pub fn read(
        &mut self,
        first: u64,
        data: &mut [u8],
        wait: &mut impl FnMut() -> bool,
    ) -> Result<(), DiskError> {
        self.check(first, data.len())?;
        let mut block = first;
        for part in data.chunks_mut(DATA) {
            self.transfer(block, part.len(), false, wait)?;
            self.memory.data.copy_to(part);
            block += (part.len() / SECTOR_SIZE) as u64;
        }
        Ok(())
    }

    /// Writes the blocks from `first` on.
    ///
    /// # Errors
    /// [`DiskError`]; `data` may then be written in part.
    pub fn write(
        &mut self,
        first: u64,
        data: &[u8],
        wait: &mut impl FnMut() -> bool,
    ) -> Result<(), DiskError> {
        self.check(first, data.len())?;
        let mut block = first;
        for part in data.chunks(DATA) {
            self.idle()?;
            self.memory.data.copy_from(part);
            self.transfer(block, part.len(), true, wait)?;
            block += (part.len() / SECTOR_SIZE) as u64;
        }
        Ok(())
    }

    /// Checks that a request is of whole blocks that are there.
    fn check(&self, first: u64, length: usize) -> Result<(), DiskError> {
        let end = first.checked_add((length / SECTOR_SIZE) as u64);
        let inside = end.is_some_and(|end| end <= self.blocks());
        if !length.is_multiple_of(SECTOR_SIZE) || !inside {
            return Err(DiskError::Range);
        }
        Ok(())
    }

    /// Checks that the function has no request: a late one may still write to the memory.
    fn idle(&self) -> Result<(), DiskError> {
        if self.failed {
            return Err(DiskError::Late);
        }
        Ok(())
    }

    /// Moves `length` bytes, 1 to [`DATA`], between the disk and the data.
    fn transfer(
        &mut self,
        block: u64,
        length: usize,
        write: bool,
        wait: &mut impl FnMut() -> bool,
    ) -> Result<(), DiskError> {
        self.idle()?;
        let memory = self.memory;
        let data = memory.data.as_ptr();
        let block = block as usize;
        // SAFETY: the three are this driver's alone (`in_use`), not the function's (`failed`),
        // and initialised; after the call only their addresses are kept until the completion.
        let begun = unsafe {
            let request = (*memory.request.get()).assume_init_mut();
            let response = (*memory.response.get()).assume_init_mut();
            let data = &mut (&mut *data)[..length];
            if write {
                self.raw.write_blocks_nb(block, request, data, response)
            } else {
                self.raw.read_blocks_nb(block, request, data, response)
            }
        };
        let token = begun.map_err(|_| DiskError::Refused)?;
        while self.raw.peek_used() != Some(token) {
            if !wait() {
                self.failed = true;
                return Err(DiskError::Late);
            }
        }
        // SAFETY: these are what the request began with, and the function is done with them.
        let completed = unsafe {
            let request = (*memory.request.get()).assume_init_ref();
            let response = (*memory.response.get()).assume_init_mut();
            let data = &mut (&mut *data)[..length];
            if write {
                self.raw
                    .complete_write_blocks(token, request, data, response)
            } else {
                self.raw
                    .complete_read_blocks(token, request, data, response)
            }
        };
        completed.map_err(|_| DiskError::Refused)
    }
}
