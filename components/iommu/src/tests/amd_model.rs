//! An AMD-Vi unit (AMD I/O Virtualization Technology (IOMMU) Specification).

use std::collections::HashMap;

use super::board::{Dram, Model};

pub struct AmdModel {
    device_table: u64,
    commands: u64,
    events: u64,
    control: u64,
    exclusion: u64,
    features: u64,
    head: u64,
    tail: u64,
    event_head: u64,
    event_tail: u64,
    overflow: bool,
    /// Commands that it still refuses, with this event.
    refuses: (usize, u32),
    stopped: bool,
    hung: bool,
    lagging: bool,
    entries: HashMap<u16, [u64; 4]>,
    /// By device and page, with the domain: found without a look at the entry.
    pages: HashMap<(u16, u64), (u64, u64)>,
    remaps: HashMap<(u16, u32), u32>,
}

impl AmdModel {
    /// Devices whose entries it remembers from before, as ones that pass.
    pub const REMEMBERED: [u16; 3] = [super::board::IDS[0], 0, 0xffff];

    /// Creates a unit as firmware may leave it: on, with a range that everything reaches.
    pub fn new(invalidate_all: bool) -> Self {
        Self {
            device_table: 0,
            commands: 0,
            events: 0,
            control: 1 | 1 << 12 | 1 << 28 | 1 << 8,
            exclusion: 1,
            features: u64::from(invalidate_all) << 6,
            head: 0x40,
            tail: 0x40,
            event_head: 0,
            event_tail: 0,
            overflow: false,
            refuses: (0, 0),
            stopped: false,
            hung: false,
            lagging: false,
            entries: Self::REMEMBERED.map(|id| (id, [0; 4])).into(),
            pages: HashMap::from([((super::board::IDS[0], 0x200), (0, 0))]),
            remaps: HashMap::from([((super::board::IDS[0], 9), 1 | 0x80 << 16)]),
        }
    }

    fn execute(&mut self, ram: &mut Dram, [first, second]: [u64; 2]) {
        let id = first as u16;
        match first >> 60 {
            1 => {
                assert_eq!(first & 7, 1);
                ram.write(first & 0x000f_ffff_ffff_fff8, second);
            }
            2 => {
                assert!(first << 4 >> 20 == 0 && second == 0);
                self.entries.remove(&id);
            }
            3 => {
                assert_eq!(second, 0x7fff_ffff_ffff_f003);
                assert_eq!(first & 0x0fff_0000_fff0_ffff, 0);
                let domain = first >> 32 & 0xffff;
                self.pages.retain(|_, (of, _)| *of != domain);
            }
            5 => {
                assert!(first << 4 >> 20 == 0 && second == 0);
                self.remaps.retain(|(of, _), _| *of != id);
            }
            8 => {
                assert!(self.features >> 6 & 1 == 1, "unknown to this unit");
                assert!(first << 4 == 0 && second == 0);
                self.entries.clear();
                self.pages.clear();
                self.remaps.clear();
            }
            other => panic!("command {other}"),
        }
    }

    fn entry(&mut self, ram: &Dram, id: u16) -> Option<[u64; 4]> {
        if let Some(entry) = self.entries.get(&id) {
            return Some(*entry);
        }
        let bytes = ((self.device_table & 0x1ff) + 1) * 4096;
        let offset = u64::from(id) * 32;
        if offset >= bytes {
            return None;
        }
        let at = (self.device_table & 0x000f_ffff_ffff_f000) + offset;
        let entry = [0, 8, 16, 24].map(|word| ram.read(at + word));
        assert_eq!(entry[0] & 0x8030_0000_0000_00fc, 0, "reserved");
        assert_eq!(entry[1] & 0x100, 0, "reserved in QEMU");
        assert_eq!(entry[2] & 0x08f0_0000_0000_0000, 0, "reserved");
        assert_eq!(entry[3], 0);
        self.entries.insert(id, entry);
        Some(entry)
    }

    fn log(&mut self, ram: &mut Dram, event: [u64; 2]) {
        if self.control >> 2 & 1 == 0 || self.overflow {
            return;
        }
        let next = (self.event_tail + 16) % 4096;
        if next == self.event_head {
            self.overflow = true;
            return;
        }
        let at = (self.events & 0x000f_ffff_ffff_f000) + self.event_tail;
        ram.write(at + 8, event[1]);
        ram.write(at, event[0]);
        self.event_tail = next;
    }

    fn walk(&self, ram: &Dram, entry: [u64; 4], address: u64, write: bool) -> Option<u64> {
        let needed = if write { 1 << 62 } else { 1 << 61 };
        let mut word = entry[0];
        let mut level = word >> 9 & 7;
        assert!(level < 7);
        if address >> (12 + 9 * level) != 0 {
            return None;
        }
        loop {
            if word & 1 == 0 || word & needed == 0 {
                return None;
            }
            let table = word & 0x000f_ffff_ffff_f000;
            let shift = 12 + 9 * (level - 1);
            word = ram.read(table + (address >> shift & 0x1ff) * 8);
            let next = word >> 9 & 7;
            if next == 0 {
                let page = word & 0x000f_ffff_ffff_f000;
                assert_eq!(page % (1 << shift), 0, "not aligned");
                let allowed = word & 1 == 1 && word & needed != 0;
                return allowed.then_some(page | (address % (1 << shift)));
            }
            assert!(next < level);
            level = next;
        }
    }
}

impl Model for AmdModel {
    fn read(&mut self, offset: usize) -> u64 {
        match offset {
            0x0000 => self.device_table,
            0x0008 => self.commands,
            0x0010 => self.events,
            0x0018 => self.control,
            0x0020 => self.exclusion,
            0x0030 => self.features,
            0x2000 => self.head,
            0x2008 => self.tail,
            0x2010 => self.event_head,
            0x2018 => self.event_tail,
            0x2020 => {
                let running = self.control & 1 == 1;
                u64::from(self.overflow)
                    | u64::from(running && self.control >> 2 & 1 == 1) << 3
                    | u64::from(running && self.control >> 12 & 1 == 1 && !self.stopped) << 4
            }
            other => panic!("read of {other:#x}"),
        }
    }

    fn write(&mut self, ram: &mut Dram, offset: usize, value: u64) {
        let off = self.control & 1 == 0;
        match offset {
            0x0000 | 0x0008 | 0x0010 | 0x0020 | 0x2000 | 0x2018 => {
                // The head may be written while no commands are read.
                let off = off || offset == 0x2000 && self.control >> 12 & 1 == 0;
                assert!(off, "write of {offset:#x} while the unit is on");
                *match offset {
                    0x0000 => &mut self.device_table,
                    0x0008 => &mut self.commands,
                    0x0010 => &mut self.events,
                    0x0020 => &mut self.exclusion,
                    0x2000 => &mut self.head,
                    _ => &mut self.event_tail,
                } = value;
            }
            0x0018 => {
                assert_eq!(value & 1 << 28, 0, "interrupt entries have 4 bytes");
                self.control = value;
                self.stopped &= value >> 12 & 1 == 1;
            }
            0x2008 => self.tail = value,
            0x2010 => self.event_head = value,
            0x2020 => {
                assert!(value & 1 == 0 || self.control >> 2 & 1 == 0);
                self.overflow &= value & 1 == 0;
            }
            other => panic!("write of {other:#x}"),
        }
        while !self.lagging && self.step(ram) {}
    }

    fn dma(&mut self, ram: &mut Dram, id: u16, address: u64, write: bool) -> Option<u64> {
        if !self.on() || self.exclusion & 1 == 1 {
            return Some(address);
        }
        if let Some((_, page)) = self.pages.get(&(id, address >> 12)) {
            return Some(page | address & 0xfff);
        }
        let Some(entry) = self.entry(ram, id) else {
            return Some(address);
        };
        if entry[0] & 1 == 0 {
            return Some(address);
        }
        let domain = entry[1] & 0xffff;
        let reached = if entry[0] & 2 == 0 || entry[0] >> 9 & 7 == 0 {
            (entry[0] >> if write { 62 } else { 61 } & 1 == 1).then_some(address)
        } else {
            assert_ne!(domain, 0, "that of the devices on abort");
            self.walk(ram, entry, address, write)
        };
        match reached {
            Some(machine) => {
                let page = (domain, machine & !0xfff);
                self.pages.insert((id, address >> 12), page);
            }
            None => {
                let first = 2 << 60 | u64::from(write) << 53 | domain << 32 | u64::from(id);
                self.log(ram, [first, address]);
            }
        }
        reached
    }

    fn interrupt(&mut self, ram: &mut Dram, id: u16, address: u64, data: u32) -> Option<u8> {
        assert_eq!(address >> 20, 0xfee);
        if !self.on() {
            return Some(data as u8);
        }
        let Some(entry) = self.entry(ram, id) else {
            return Some(data as u8);
        };
        if entry[2] & 1 == 0 {
            return Some(data as u8);
        }
        match entry[2] >> 60 & 3 {
            0 => return None,
            1 => return Some(data as u8),
            2 => {}
            other => panic!("interrupt control {other}"),
        }
        if address != 0xfee0_0000 {
            return None;
        }
        // Units need not look at the length, and read on.
        let index = data & 0x7ff;
        let remap = self.remaps.get(&(id, index)).copied().unwrap_or_else(|| {
            let table = entry[2] & 0x000f_ffff_ffff_ffc0;
            let at = table + u64::from(index) * 4;
            (ram.read(at & !7) >> (at % 8 * 8)) as u32
        });
        if remap & 1 == 0 {
            let first = 2 << 60 | 1 << 51 | u64::from(id);
            self.log(ram, [first, address]);
            return None;
        }
        self.remaps.insert((id, index), remap);
        assert_eq!(remap & 0xff00_ffde, 0, "fixed, physical, local APIC 0");
        Some((remap >> 16) as u8)
    }

    fn on(&self) -> bool {
        self.control & 1 == 1
    }

    fn lag(&mut self) {
        self.lagging = true;
    }

    fn step(&mut self, ram: &mut Dram) -> bool {
        let runs = self.on() && self.control >> 12 & 1 == 1 && !self.hung && !self.stopped;
        if !runs || self.head == self.tail {
            return false;
        }
        let at = (self.commands & 0x000f_ffff_ffff_f000) + self.head;
        let command = [ram.read(at), ram.read(at + 8)];
        if self.refuses.0 != 0 {
            self.refuses.0 -= 1;
            self.stopped = true;
            self.log(ram, [u64::from(self.refuses.1) << 60, at]);
            return false;
        }
        self.execute(ram, command);
        self.head = (self.head + 16) % 4096;
        true
    }

    fn refuse(&mut self, count: usize, event: u32) {
        self.refuses = (count, event);
    }

    fn hang(&mut self) {
        self.hung = true;
    }
}
