//! The machine around a model: memory with a cache before it, and probes that
//! are tried after every write of the driver.

use std::boxed::Box;
use std::cell::RefCell;
use std::panic;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::amd_model::AmdModel;
use super::intel_model::IntelModel;
use crate::*;

/// Machine address of the tables.
pub const BASE: u64 = 0x1_0020_0000;
/// Bytes of them.
pub const SIZE: usize = 4 << 20;
/// Requester ids of the functions. Two share a bus.
pub const IDS: [u16; 3] = [0x0010, 0x0118, 0x0120];
/// Requester ids without a function.
pub const STRANGERS: [u16; 5] = [0x0000, 0x00a0, 0x0119, 0x8000, 0xffff];
pub const IOAPIC: u16 = 0x00a0;
/// Where guests have their RAM.
pub const RAM: Ram = Ram {
    address: 0x20_0000,
    frames: 4,
};

/// Returns functions behind the first unit.
pub fn requesters(ids: &[u16]) -> Vec<Requester> {
    ids.iter().map(|&id| Requester { id, unit: 0 }).collect()
}

/// Memory as the unit sees it, and as the CPU does.
pub struct Dram {
    pub seen: Vec<u64>,
    cpu: Vec<u64>,
    kept_back: KeptBack,
}

/// Where writes of the CPU may be kept back from the unit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeptBack {
    Nowhere,
    /// In the CPU's cache, until a line is flushed.
    InCache,
    /// In the unit's write buffer, until that is flushed.
    InBuffer,
}

impl Dram {
    fn index(address: u64) -> usize {
        let offset = address.checked_sub(BASE).expect("below the tables");
        assert!(offset.is_multiple_of(8) && (offset as usize) < SIZE);
        offset as usize / 8
    }

    /// Returns the word that the unit reads at a machine address.
    pub fn read(&self, address: u64) -> u64 {
        self.seen[Self::index(address)]
    }

    /// Writes past the unit's write buffer.
    pub fn latest(&self, address: u64) -> u64 {
        let index = Self::index(address);
        match self.kept_back {
            KeptBack::InBuffer => self.cpu[index],
            _ => self.seen[index],
        }
    }

    /// Flushes the unit's write buffer.
    pub fn drain(&mut self) {
        self.seen.copy_from_slice(&self.cpu);
    }

    /// Writes as the unit does, which the CPU's cache sees.
    pub fn write(&mut self, address: u64, value: u64) {
        let index = Self::index(address);
        self.seen[index] = value;
        self.cpu[index] = value;
    }
}

/// A unit in hardware.
pub trait Model {
    fn read(&mut self, offset: usize) -> u64;
    fn write(&mut self, ram: &mut Dram, offset: usize, value: u64);
    /// Returns where a device's access goes, if it is let through.
    fn dma(&mut self, ram: &mut Dram, id: u16, address: u64, write: bool) -> Option<u64>;
    /// Returns the CPU vector that a device's message raises.
    fn interrupt(&mut self, ram: &mut Dram, id: u16, address: u64, data: u32) -> Option<u8>;
    /// Returns whether translation and remapping are on.
    fn on(&self) -> bool;
    /// Makes it run no command at once any more, but one in each step.
    fn lag(&mut self);
    /// Runs a command, if there is one.
    fn step(&mut self, ram: &mut Dram) -> bool;
    /// Makes it ignore all further requests.
    /// Refuses the next invalidations, with these bits in the fault status (VT-d) or this
    /// event (AMD-Vi).
    fn refuse(&mut self, count: usize, error: u32);
    fn hang(&mut self);
}

/// An access, and its right outcome while the unit is on.
pub type Probe = (u16, u64, Option<u64>);

pub struct Board {
    pub ram: Dram,
    pub model: Box<dyn Model>,
    /// A second unit on the same memory.
    pub second: Option<Box<dyn Model>>,
    pub probes: Vec<Probe>,
    /// What devices do between the driver's writes.
    pub meanwhile: Option<fn(&mut dyn Model, &mut Dram)>,
    /// Writes until the component dies.
    pub dies_in: Option<usize>,
}

impl Board {
    /// Returns a unit, and the memory.
    pub fn unit(&mut self, unit: usize) -> (&mut dyn Model, &mut Dram) {
        let model = match unit {
            0 => &mut self.model,
            _ => self.second.as_mut().expect("a second unit"),
        };
        (&mut **model, &mut self.ram)
    }

    fn wrote(&mut self) {
        if self.model.on() {
            for (id, address, expected) in self.probes.clone() {
                let reached = self.model.dma(&mut self.ram, id, address, true);
                assert_eq!(reached, expected, "{id:#x} at {address:#x}");
            }
        }
        if let Some(meanwhile) = self.meanwhile {
            meanwhile(&mut *self.model, &mut self.ram);
        }
        match &mut self.dies_in {
            Some(0) => panic::resume_unwind(Box::new(())),
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

/// The board, and a unit of it.
#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<Board>>, pub usize);

impl Registers for Shared {
    fn read32(&mut self, offset: usize) -> u32 {
        let word = self.0.borrow_mut().unit(self.1).0.read(offset / 8 * 8);
        (word >> (offset % 8 * 8)) as u32
    }
    /// Models tell a 32-bit register in the upper half by its offset.
    fn write32(&mut self, offset: usize, value: u32) {
        self.write64(offset, value.into());
    }
    fn read64(&mut self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8));
        let board = &mut *self.0.borrow_mut();
        let (model, ram) = board.unit(self.1);
        let value = model.read(offset);
        model.step(ram);
        value
    }
    fn write64(&mut self, offset: usize, value: u64) {
        let board = &mut *self.0.borrow_mut();
        let (model, ram) = board.unit(self.1);
        model.write(ram, offset, value);
        board.wrote();
    }
}

impl Tables for Shared {
    fn read(&self, offset: usize) -> u64 {
        let board = &mut *self.0.borrow_mut();
        let value = board.ram.cpu[offset / 8];
        board.model.step(&mut board.ram);
        if let Some(second) = &mut board.second {
            second.step(&mut board.ram);
        }
        value
    }
    fn write(&mut self, offset: usize, value: u64) {
        let board = &mut *self.0.borrow_mut();
        board.ram.cpu[offset / 8] = value;
        if board.ram.kept_back == KeptBack::Nowhere {
            board.ram.seen[offset / 8] = value;
        }
        board.wrote();
    }
    fn fill(&mut self, offset: usize, words: [u64; 4], count: usize) {
        for index in 0..count * words.len() {
            self.write(offset + index * 8, words[index % words.len()]);
        }
    }
    fn flush(&mut self, offset: usize) {
        let board = &mut *self.0.borrow_mut();
        let line = offset / 64 * 8;
        assert!(board.ram.kept_back == KeptBack::InCache, "no need");
        let (seen, cpu) = (&mut board.ram.seen, &board.ram.cpu);
        if seen[line..line + 8] != cpu[line..line + 8] {
            seen[line..line + 8].copy_from_slice(&cpu[line..line + 8]);
            board.wrote();
        }
    }
}

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Amd,
    /// Without the command that invalidates everything.
    OldAmd,
    /// Three levels, large pages, no look into caches, as QEMU has it.
    Intel,
    /// Four levels, small pages, caching mode, a write buffer.
    OddIntel,
}

pub const KINDS: [Kind; 4] = [Kind::Amd, Kind::OldAmd, Kind::Intel, Kind::OddIntel];

impl Kind {
    pub fn model(self) -> Box<dyn Model> {
        match self {
            Self::Amd => Box::new(AmdModel::new(true)),
            Self::OldAmd => Box::new(AmdModel::new(false)),
            Self::Intel => Box::new(IntelModel::qemu()),
            Self::OddIntel => Box::new(IntelModel::odd()),
        }
    }

    pub fn board(self) -> Shared {
        let (kept_back, below) = match self {
            Self::Amd | Self::OldAmd => (KeptBack::Nowhere, 0),
            // The zeros of boot lie in the cache.
            Self::Intel => (KeptBack::InCache, u64::MAX),
            Self::OddIntel => (KeptBack::InBuffer, 0),
        };
        let seen = vec![below; SIZE / 8];
        let board = Board {
            ram: Dram {
                seen,
                cpu: vec![0; SIZE / 8],
                kept_back,
            },
            model: self.model(),
            second: None,
            probes: Vec::new(),
            meanwhile: None,
            dies_in: None,
        };
        Shared(Rc::new(RefCell::new(board)), 0)
    }

    pub fn start(self, board: &Shared, start: Start) -> Result<Box<dyn Unit>, SetupError> {
        let memory = Memory {
            tables: board.clone(),
            base: BASE,
            size: SIZE,
            requesters: &requesters(&IDS),
            firmware: &[],
            ioapic: IOAPIC,
        };
        self.start_with(board, memory, start)
    }

    pub fn start_with(
        self,
        board: &Shared,
        memory: Memory<'_, Shared>,
        start: Start,
    ) -> Result<Box<dyn Unit>, SetupError> {
        let started = self.start_all([board.clone()], memory, start);
        started.map_err(|failed| failed.error)
    }

    pub fn start_all(
        self,
        units: impl IntoIterator<Item = Shared>,
        memory: Memory<'_, Shared>,
        start: Start,
    ) -> Result<Box<dyn Unit>, Failed> {
        Ok(match self {
            Self::Amd | Self::OldAmd => Box::new(Amd::new(units, memory, start)?),
            Self::Intel | Self::OddIntel => Box::new(Intel::new(units, memory, start)?),
        })
    }

    pub fn is_intel(self) -> bool {
        matches!(self, Self::Intel | Self::OddIntel)
    }

    /// Returns a board whose unit is on.
    pub fn fresh(self) -> (Shared, Box<dyn Unit>) {
        let board = self.board();
        let unit = self.start(&board, Start::Fresh).expect("set up");
        (board, unit)
    }
}

impl Shared {
    pub fn dma(&self, id: u16, address: u64, write: bool) -> Option<u64> {
        let board = &mut *self.0.borrow_mut();
        let (model, ram) = board.unit(self.1);
        model.dma(ram, id, address, write)
    }

    pub fn interrupt(&self, id: u16, address: u64, data: u32) -> Option<u8> {
        let board = &mut *self.0.borrow_mut();
        let (model, ram) = board.unit(self.1);
        model.interrupt(ram, id, address, data)
    }

    /// Returns a message of one of several that a function has.
    pub fn message(&self, id: u16, message: (u64, u32), number: u32) -> Option<u8> {
        self.interrupt(id, message.0, message.1 | number)
    }
}

/// Frames of each function: in descending order, so that no two are neighbours
/// by chance.
pub struct Backwards;

/// Returns the machine address of a guest address of [`RAM`].
pub fn machine(function: usize, guest: u64) -> u64 {
    let index = (guest - RAM.address) / FRAME;
    0x2_0000_0000 + (function as u64 + 1) * 0x1000_0000 - index * FRAME + guest % FRAME
}

impl Frames for Backwards {
    fn machine(&mut self, function: usize, index: u64) -> Option<u64> {
        let there = index < 1 << 10;
        there.then(|| machine(function, RAM.address) - index * FRAME)
    }
}
