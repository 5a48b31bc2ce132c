//! A VT-d unit in legacy mode (Intel Virtualization Technology for Directed I/O
//! Architecture Specification).

use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use super::board::{Dram, IDS, Model};

/// Bits of the global command that stay, and those that are done once.
const LASTING: [u32; 4] = [31, 26, 25, 23];
const ONCE: [u32; 3] = [30, 27, 24];
/// Where the fault records are.
const FAULTS: usize = 0x220;

pub struct IntelModel {
    capability: u64,
    extended: u64,
    status: u32,
    root: u64,
    root_taken: u64,
    interrupts: u64,
    interrupts_taken: u64,
    queue: u64,
    head: u64,
    tail: u64,
    protected: u32,
    overflow: bool,
    faults: Vec<[u64; 2]>,
    /// A bit of the global command that never shows in the status.
    pub deaf_to: u32,
    /// Descriptors that it still refuses, and the bits of the fault status that it does so
    /// with.
    refuses: (usize, u32),
    errors: u32,
    /// The descriptor at the head, after the queue's own error.
    refused: Option<[u64; 2]>,
    hung: bool,
    lagging: bool,
    contexts: HashMap<u16, [u64; 2]>,
    pages: HashMap<(u64, u64), u64>,
    remaps: HashMap<u64, [u64; 2]>,
}

impl IntelModel {
    fn new(capability: u64, extended: u64, faults: usize) -> Self {
        Self {
            capability,
            extended,
            // As firmware may leave it: remapping on, old messages pass.
            status: 1 << 26 | 1 << 25 | 1 << 23,
            root: 0,
            root_taken: 0,
            interrupts: 0,
            interrupts_taken: 0,
            queue: 0,
            head: 0,
            tail: 0,
            protected: 1 << 31 | 1,
            overflow: true,
            faults: vec![[0x1234_5000, 1 << 63 | 5 << 32]; faults],
            deaf_to: 0,
            refuses: (0, 0),
            errors: 0,
            refused: None,
            hung: false,
            lagging: false,
            contexts: HashMap::from([(IDS[0], [1, 1 | 9 << 8])]),
            pages: HashMap::from([((1, 0x200), 0)]),
            remaps: HashMap::from([(9, [1 | 0x80 << 16, 1 << 18 | u64::from(IDS[0])])]),
        }
    }

    pub fn qemu() -> Self {
        Self::new(0x00d2_008c_2226_0206, 0x00f0_0f4a, 1)
    }

    pub fn odd() -> Self {
        // Four levels, 48 bits, write buffer, protected memory, caching mode,
        // four records.
        let capability = 2 | 0xf << 4 | 1 << 10 | 47 << 16 | 0x22 << 24 | 3 << 40;
        Self::new(capability, 0x00f0_0f4b, 4)
    }

    pub fn with(capability: u64, extended: u64) -> Self {
        Self::new(capability, extended, 1)
    }

    fn command(&mut self, ram: &mut Dram, value: u32) {
        let lasting: u32 = LASTING.iter().map(|bit| 1 << bit).sum();
        let once: u32 = ONCE.iter().map(|bit| 1 << bit).sum();
        assert_eq!(value & !(lasting | once), 0, "unknown command {value:#x}");
        let changed = (value ^ self.status) & lasting | value & once;
        assert!(changed.count_ones() <= 1, "several at once: {changed:#x}");
        if self.hung {
            return;
        }
        if changed == 1 << 26 && value & changed == 0 {
            assert_eq!(self.status & (1 << 31 | 1 << 25), 0, "needs the queue");
        }
        if changed == 1 << 30 {
            self.root_taken = self.root;
        }
        if changed == 1 << 24 {
            self.interrupts_taken = self.interrupts;
        }
        if changed == 1 << 27 {
            assert!(self.capability >> 4 & 1 == 1, "it has no write buffer");
            ram.drain();
        }
        let heard = changed & !self.deaf_to & !(1 << 27);
        let on = value & heard;
        self.status = self.status & !heard | on;
    }

    fn fault(&mut self, id: u16, lower: u64, read: bool, reason: u64) {
        let upper = 1 << 63 | u64::from(read) << 62 | reason << 32 | u64::from(id);
        match self.faults.iter_mut().find(|fault| fault[1] >> 63 == 0) {
            Some(free) => *free = [lower, upper],
            None => self.overflow = true,
        }
    }

    fn context(&mut self, ram: &Dram, id: u16) -> Result<[u64; 2], u64> {
        if let Some(context) = self.contexts.get(&id) {
            return Ok(*context);
        }
        let root = ram.read(self.root_taken + u64::from(id >> 8) * 16);
        if root & 1 == 0 {
            return Err(1);
        }
        let at = (root & !0xfff) + u64::from(id & 0xff) * 16;
        let context = [ram.read(at), ram.read(at + 8)];
        let caching = self.capability >> 7 & 1 == 1;
        if context[0] & 1 == 1 || caching {
            self.contexts.insert(id, context);
        }
        Ok(context)
    }

    fn walk(&self, ram: &Dram, context: [u64; 2], address: u64, write: bool) -> Result<u64, u64> {
        assert_eq!(context[0] & 0xffe, 0, "second-level translation");
        let levels = (context[1] & 7) + 2;
        assert!(self.capability >> (6 + levels) & 1 == 1, "no such walk");
        if address >> (12 + 9 * levels) != 0 || address >> ((self.capability >> 16 & 0x3f) + 1) != 0
        {
            return Err(4);
        }
        let (needed, reason) = if write { (2, 5) } else { (1, 6) };
        let mut table = context[0] & !0xfff;
        for level in (1..=levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let entry = ram.read(table + (address >> shift & 0x1ff) * 8);
            if entry & needed == 0 {
                return Err(reason);
            }
            table = entry & 0x000f_ffff_ffff_f000;
            let large = entry >> 7 & 1 == 1;
            if large || level == 1 {
                assert!(!large || level == 2 && self.capability >> 34 & 1 == 1);
                assert_eq!(table % (1 << shift), 0, "not aligned");
                return Ok(table | (address % (1 << shift)));
            }
        }
        unreachable!()
    }
}

impl Model for IntelModel {
    fn read(&mut self, offset: usize) -> u64 {
        match offset {
            0x08 => self.capability,
            0x10 => self.extended,
            0x18 => u64::from(self.status) << 32,
            0x20 => self.root,
            0x30 => {
                let used = self.faults.iter().position(|fault| fault[1] >> 63 == 1);
                let status = u64::from(self.overflow)
                    | u64::from(self.errors)
                    | u64::from(used.is_some()) << 1
                    | (used.unwrap_or(0) as u64) << 8;
                status << 32
            }
            0x60 => u64::from(self.protected) << 32,
            0x80 => self.head,
            0x88 => self.tail,
            0x90 => self.queue,
            0xb8 => self.interrupts,
            _ => {
                let place = offset.checked_sub(FAULTS).expect("no such register");
                self.faults[place / 16][place % 16 / 8]
            }
        }
    }

    fn write(&mut self, ram: &mut Dram, offset: usize, value: u64) {
        match offset {
            0x18 => self.command(ram, value as u32),
            0x20 => self.root = value,
            0x34 => {
                self.overflow &= value & 1 == 0;
                self.errors &= !(value as u32);
            }
            0x64 => self.protected = value as u32 & 1 << 31,
            0x88 => self.tail = value,
            0x90 => {
                assert_eq!(self.status >> 26 & 1, 0, "the queue is on");
                (self.queue, self.head) = (value, 0);
            }
            0xb8 => self.interrupts = value,
            _ => {
                let place = offset.checked_sub(FAULTS + 12).expect("no such register");
                assert_eq!((place % 16, value), (0, 1 << 31));
                self.faults[place / 16] = [0; 2];
            }
        }
        while !self.lagging && self.step(ram) {}
    }

    fn dma(&mut self, ram: &mut Dram, id: u16, address: u64, write: bool) -> Option<u64> {
        if self.capability & 0x60 != 0 && self.protected & 1 == 1 {
            return None;
        }
        if self.status >> 31 == 0 {
            return Some(address);
        }
        let result = self.context(ram, id).and_then(|context| {
            if context[0] & 1 == 0 {
                return Err(2);
            }
            let domain = context[1] >> 8 & 0xffff;
            if let Some(page) = self.pages.get(&(domain, address >> 12)) {
                return Ok(page | address & 0xfff);
            }
            let machine = self.walk(ram, context, address, write)?;
            self.pages.insert((domain, address >> 12), machine & !0xfff);
            Ok(machine)
        });
        result
            .inspect_err(|reason| self.fault(id, address & !0xfff, !write, *reason))
            .ok()
    }

    fn interrupt(&mut self, ram: &mut Dram, id: u16, address: u64, data: u32) -> Option<u8> {
        assert_eq!(address >> 20, 0xfee);
        if self.status >> 25 & 1 == 0 {
            return Some(data as u8);
        }
        if address >> 4 & 1 == 0 {
            if self.status >> 23 & 1 == 1 {
                return Some(data as u8);
            }
            self.fault(id, 0, false, 0x25);
            return None;
        }
        let handle = address >> 5 & 0x7fff | (address >> 2 & 1) << 15;
        let index = if address >> 3 & 1 == 1 {
            handle + u64::from(data & 0xffff)
        } else {
            handle
        };
        if index >= 2 << (self.interrupts_taken & 0xf) {
            self.fault(id, index << 48, false, 0x21);
            return None;
        }
        let entry = self.remaps.get(&index).copied().unwrap_or_else(|| {
            let at = (self.interrupts_taken & !0xfff) + index * 16;
            [ram.read(at), ram.read(at + 8)]
        });
        if entry[0] & 1 == 0 {
            self.fault(id, index << 48, false, 0x22);
            return None;
        }
        self.remaps.insert(index, entry);
        assert_eq!(entry[0] & !0xff_0001, 0, "fixed, physical, local APIC 0");
        assert_eq!(entry[1] >> 16, 4, "usable by all 16 bits of one id");
        if entry[1] != 1 << 18 | u64::from(id) {
            self.fault(id, index << 48, false, 0x26);
            return None;
        }
        Some((entry[0] >> 16) as u8)
    }

    fn on(&self) -> bool {
        self.status >> 31 == 1 && self.status >> 25 & 1 == 1
    }

    fn lag(&mut self) {
        self.lagging = true;
    }

    fn step(&mut self, ram: &mut Dram) -> bool {
        let stands = self.errors != 0 || self.head == self.tail;
        if self.status >> 26 & 1 == 0 || self.hung || stands {
            return false;
        }
        assert_eq!(self.queue & 0xfff, 0, "256 descriptors of 16 bytes");
        let [lower, upper] = [0, 8].map(|word| ram.latest(self.queue + self.head + word));
        // A wait that does nothing is what it is given in place of what it refused.
        if self.refused.take() == Some([lower, upper]) {
            (self.errors, self.refused) = (1 << 4, Some([lower, upper]));
            return false;
        }
        if self.refuses.0 != 0 && (lower, upper) != (5, 0) {
            self.refuses.0 -= 1;
            self.errors = self.refuses.1;
            // Only an error of the queue itself leaves the head where it is.
            if self.errors & 1 << 4 == 0 {
                self.head = (self.head + 16) % 4096;
            } else {
                self.refused = Some([lower, upper]);
            }
            return false;
        }
        match lower & 0xf {
            1 => {
                assert_eq!((lower, upper), (0x11, 0));
                self.contexts.clear();
            }
            2 => {
                assert_eq!((lower, upper), (0xd2, 0));
                self.pages.clear();
            }
            4 => {
                assert_eq!((lower, upper), (4, 0));
                self.remaps.clear();
            }
            5 if (lower, upper) == (5, 0) => {}
            5 => {
                assert_eq!(lower as u32, 0x25);
                ram.write(upper, lower >> 32);
            }
            other => panic!("descriptor {other}"),
        }
        self.head = (self.head + 16) % 4096;
        true
    }

    fn refuse(&mut self, count: usize, errors: u32) {
        self.refuses = (count, errors);
    }

    fn hang(&mut self) {
        self.hung = true;
    }
}
