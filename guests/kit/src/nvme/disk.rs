//! The first namespace of a controller as a disk: blocks, by number.

use super::dma::{DATA, QUEUE};
use super::{ADMIN, CommandError, IDENTIFY, IO, Nvme};
use crate::mmio::Registers;

/// Admin commands (NVMe 1.4 figure 139).
const CREATE_SUBMISSIONS: u64 = 0x01;
const CREATE_COMPLETIONS: u64 = 0x05;
const SET_FEATURES: u64 = 0x09;
/// Feature: number of queues (section 5.21.1.7), one of each kind.
const NUMBER_OF_QUEUES: u64 = 0x07;
/// Commands of the NVM command set (section 6).
const WRITE: u64 = 0x01;
const READ: u64 = 0x02;
/// The namespace, in the upper half of a command's first word.
const NAMESPACE: u64 = 1 << 32;
/// A queue is contiguous (bit 0 of dword 11); completions interrupt (bit 1).
const CONTIGUOUS: u64 = 1 << 32;
const INTERRUPTS: u64 = 1 << 33;

/// Namespace data structure (section 5.15.2.1): size in blocks, the format in use, and the
/// formats.
const SIZE: usize = 0;
const FORMAT: usize = 26;
const FORMATS: usize = 128;

/// Why a disk cannot be used, or a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The controller refused a command.
    Command(CommandError),
    /// A command did not complete in time; nothing more is asked of the controller.
    Late,
    /// Blocks with metadata, or of other sizes than 512 to 4096 bytes.
    Format,
    /// The request is not of whole blocks, or reaches past the last.
    Range,
}

/// A disk. `wait` is called while a command is under way, until an interrupt; it returns
/// `false` to give up.
pub struct Disk<'m, R> {
    pub(super) nvme: Nvme<'m, R>,
    blocks: u64,
    block_size: usize,
    failed: bool,
}

impl<'m, R: Registers> Disk<'m, R> {
    /// Sets up the queues of a started controller, and reads the namespace's format.
    ///
    /// # Errors
    /// If the controller fails, or the format is none that this driver takes.
    pub fn open(nvme: Nvme<'m, R>, wait: &mut impl FnMut() -> bool) -> Result<Self, DiskError> {
        let mut disk = Self {
            nvme,
            blocks: 0,
            block_size: 0,
            failed: false,
        };
        let memory = disk.nvme.memory;
        disk.run(
            ADMIN,
            [SET_FEATURES, 0, 0, 0, 0, NUMBER_OF_QUEUES, 0, 0],
            wait,
        )?;
        // Its number and its last entry in dword 10; of submissions, the number of the
        // completion queue in the upper half of dword 11.
        let queue = IO as u64 | (QUEUE as u64 - 1) << 16 | CONTIGUOUS;
        let pair = &memory.pairs[IO];
        for (command, address, dwords) in [
            (CREATE_COMPLETIONS, pair.completions(), queue | INTERRUPTS),
            (
                CREATE_SUBMISSIONS,
                pair.submissions(),
                queue | (IO as u64) << 48,
            ),
        ] {
            disk.run(ADMIN, [command, 0, 0, address, 0, dwords, 0, 0], wait)?;
        }
        memory.clear_data();
        let data = memory.data();
        disk.run(ADMIN, [IDENTIFY | NAMESPACE, 0, 0, data, 0, 0, 0, 0], wait)?;
        let word = |at: usize| {
            let mut bytes = [0; 8];
            memory.copy_data(at, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        // Bits of a format: metadata size 15:0, block size as a power of two 23:16.
        let number = (word(FORMAT & !7) >> (8 * (FORMAT % 8)) & 0xf) as usize;
        let formats = word(FORMATS + 4 * (number & !1));
        let format = formats >> (32 * (number % 2));
        let shift = format >> 16 & 0xff;
        if format & 0xffff != 0 || !(9..=12).contains(&shift) {
            return Err(DiskError::Format);
        }
        disk.block_size = 1 << shift;
        // So that no byte offset overflows.
        disk.blocks = word(SIZE).min(u64::MAX >> shift);
        Ok(disk)
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Returns the bytes of a block: a power of two, 512 to 4096.
    pub fn block_size(&self) -> usize {
        self.block_size
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
            self.transfer(READ, block, part.len(), wait)?;
            self.nvme.memory.copy_data(0, part);
            block += (part.len() / self.block_size) as u64;
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
            self.nvme.memory.fill_data(part);
            self.transfer(WRITE, block, part.len(), wait)?;
            block += (part.len() / self.block_size) as u64;
        }
        Ok(())
    }

    /// Checks that a request is of whole blocks that are there.
    fn check(&self, first: u64, length: usize) -> Result<(), DiskError> {
        let end = first.checked_add((length / self.block_size) as u64);
        let inside = end.is_some_and(|end| end <= self.blocks);
        if !length.is_multiple_of(self.block_size) || !inside {
            return Err(DiskError::Range);
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        opcode: u64,
        block: u64,
        length: usize,
        wait: &mut impl FnMut() -> bool,
    ) -> Result<(), DiskError> {
        let data = self.nvme.memory.data();
        let last = (length / self.block_size) as u64 - 1;
        self.run(
            IO,
            [opcode | NAMESPACE, 0, 0, data, 0, block, last, 0],
            wait,
        )
    }

    /// Runs one command to its end.
    fn run(
        &mut self,
        pair: usize,
        command: [u64; 8],
        wait: &mut impl FnMut() -> bool,
    ) -> Result<(), DiskError> {
        // A late command may still write to the data page.
        if self.failed {
            return Err(DiskError::Late);
        }
        self.nvme.submit(pair, command);
        loop {
            if let Some(result) = self.nvme.completed(pair) {
                return result.map_err(DiskError::Command);
            }
            if !wait() {
                self.failed = true;
                return Err(DiskError::Late);
            }
        }
    }
}
