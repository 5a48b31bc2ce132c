//! The rules M1 to M15, M18, M23 and M24, as plain as they can be said.

use std::collections::BTreeMap;

use pci::Width;

use super::layout::{Layout, Place};
use super::world::{Access, Event, initial_byte};

/// A table entry.
#[derive(Clone, Debug)]
pub struct Entry {
    pub address: u64,
    pub data: u32,
    pub masked: bool,
    pub updated: bool,
    pub bound: bool,
    /// The router kept it bound through a reset, when an unbind failed.
    pub left_over: bool,
    /// Over its budget (M23).
    pub throttled: bool,
    pub device_masked: bool,
}

impl Entry {
    fn start(left_over: bool) -> Self {
        Self {
            address: 0,
            data: 0,
            masked: true,
            updated: false,
            bound: false,
            left_over,
            throttled: false,
            device_masked: true,
        }
    }

    /// Returns whether rule M17 allows the message.
    fn deliverable(&self) -> bool {
        let mode = self.data >> 8 & 7;
        (0xfee0_0000..=0xfeef_ffff).contains(&self.address)
            && mode != 3
            && mode != 6
            && self.data & 0xff >= 0x10
    }

    fn dword(&self, index: u64) -> u32 {
        match index {
            0 => self.address as u32,
            1 => (self.address >> 32) as u32,
            2 => self.data,
            _ => u32::from(self.masked),
        }
    }
}

/// A function by the rules.
pub struct Model {
    pub layout: Layout,
    pub enabled: bool,
    pub function_mask: bool,
    pub entries: Vec<Entry>,
    pub fail_bind: Vec<u16>,
    pub fail_unbind: Vec<u16>,
    pub dropped: u64,
    pub bind_failures: u64,
    pub unbind_failures: u64,
    /// Bytes beside the table that were written.
    bytes: BTreeMap<(u8, u64), u8>,
    /// What the current step asks the router for.
    pub events: Vec<Event>,
    /// The device's registers, beside the table, that it touches.
    pub accesses: Vec<Access>,
}

impl Model {
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            enabled: false,
            function_mask: false,
            entries: vec![Entry::start(false); layout.entries as usize],
            fail_bind: Vec::new(),
            fail_unbind: Vec::new(),
            dropped: 0,
            bind_failures: 0,
            unbind_failures: 0,
            bytes: BTreeMap::new(),
            events: Vec::new(),
            accesses: Vec::new(),
        }
    }

    /// Returns message control (M1).
    pub fn control(&self) -> u16 {
        (self.layout.entries - 1) as u16
            | u16::from(self.enabled) << 15
            | u16::from(self.function_mask) << 14
    }

    /// Writes message control (M2, M3, M4, M6).
    pub fn write_control(&mut self, value: u16) -> Option<u16> {
        let (enable, mask) = (value >> 15 & 1 == 1, value >> 14 & 1 == 1);
        let (was_enabled, was_masked) = (self.enabled, self.function_mask);
        if enable == was_enabled && mask == was_masked {
            return None;
        }
        if was_enabled && !enable {
            for index in 0..self.entries.len() {
                if !self.entries[index].bound {
                    continue;
                }
                if !self.unbind(index) {
                    return None;
                }
                self.entries[index].updated = true;
            }
        }
        self.enabled = enable;
        self.function_mask = mask;
        if enable && !mask {
            // After eight binds in vain the router is not asked any more (M5).
            let mut in_vain = 0;
            for index in 0..self.entries.len() {
                if self.entries[index].masked || !self.entries[index].updated {
                    continue;
                }
                let asks = !self.entries[index].bound && self.entries[index].deliverable();
                if asks && in_vain == 8 {
                    self.bind_failures += 1;
                    continue;
                }
                self.update(index);
                in_vain += u32::from(asks && !self.entries[index].bound);
            }
        }
        Some(self.control())
    }

    /// Resets (M24). Returns whether all could be unbound.
    pub fn reset(&mut self) -> bool {
        let mut all = true;
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let held = entry.bound || entry.left_over;
            let kept = held && self.fail_unbind.contains(&(index as u16));
            all &= !kept;
            self.entries[index] = Entry::start(kept);
        }
        self.enabled = false;
        self.function_mask = false;
        self.events.push(Event::UnbindFunction);
        self.unbind_failures += u64::from(!all);
        all
    }

    /// Throttles the device's entry, which the guest does not see (M23).
    pub fn throttle(&mut self, index: u16, throttled: bool) {
        let entry = &mut self.entries[usize::from(index)];
        entry.throttled = throttled;
        if entry.bound {
            entry.device_masked = entry.masked || throttled;
        }
    }

    /// Carries out *update* (M5).
    fn update(&mut self, index: usize) {
        if self.entries[index].bound && !self.unbind(index) {
            return;
        }
        let refused = self.fail_bind.contains(&(index as u16));
        let entry = &mut self.entries[index];
        let (number, address, data) = (index as u16, entry.address, entry.data);
        if !entry.deliverable() {
            // The router is not asked (M17).
            self.bind_failures += 1;
            return;
        }
        if refused {
            self.bind_failures += 1;
            self.events.push(Event::BindFailed {
                entry: number,
                address,
                data,
            });
            return;
        }
        entry.bound = true;
        entry.left_over = false;
        entry.updated = false;
        entry.device_masked = entry.throttled;
        self.events.push(Event::Bind {
            entry: number,
            address,
            data,
        });
    }

    fn unbind(&mut self, index: usize) -> bool {
        if self.fail_unbind.contains(&(index as u16)) {
            self.unbind_failures += 1;
            self.events.push(Event::UnbindFailed(index as u16));
            return false;
        }
        self.entries[index].bound = false;
        self.entries[index].device_masked = true;
        self.events.push(Event::Unbind(index as u16));
        true
    }

    /// Returns whether table or PBA take the access (M12, M15).
    fn regular(offset: u64, width: Width) -> bool {
        let bytes = width.bytes();
        bytes >= 4 && offset.is_multiple_of(bytes)
    }

    fn adjacent(&self, bar: u8, offset: u64, width: Width) -> bool {
        (offset..offset + width.bytes()).all(|at| self.layout.place(bar, at) == Place::Adjacent)
    }

    /// Returns how many bytes come before the PBA, of an access that starts
    /// beside it and ends in it (M14).
    fn before_pba(&self, bar: u8, offset: u64, width: Width) -> Option<u64> {
        let end = offset + width.bytes();
        let places: Vec<Place> = (offset..end).map(|at| self.layout.place(bar, at)).collect();
        let before = places.iter().take_while(|p| **p == Place::Adjacent).count();
        let rest = &places[before..];
        let into = !rest.is_empty() && rest.iter().all(|place| *place == Place::Pba);
        into.then_some(before as u64)
    }

    /// Returns the accesses that reach the device (M14): one if aligned, else
    /// bytes.
    fn parts(offset: u64, width: Width) -> Vec<(u64, Width)> {
        if offset.is_multiple_of(width.bytes()) {
            return vec![(offset, width)];
        }
        (offset..offset + width.bytes())
            .map(|at| (at, Width::Byte))
            .collect()
    }

    fn device_read(&mut self, bar: u8, offset: u64, width: Width) -> u64 {
        for (offset, width) in Self::parts(offset, width) {
            self.accesses.push(Access {
                bar,
                offset,
                width,
                written: None,
            });
        }
        (0..width.bytes()).fold(0, |value, byte| {
            let key = (bar, offset + byte);
            let stored = self.bytes.get(&key).copied();
            value | u64::from(stored.unwrap_or(initial_byte(bar, key.1))) << (8 * byte)
        })
    }

    fn device_write(&mut self, bar: u8, offset: u64, width: Width, value: u64) {
        for (at, width) in Self::parts(offset, width) {
            let part = value >> (8 * (at - offset)) & width.all_ones();
            self.accesses.push(Access {
                bar,
                offset: at,
                width,
                written: Some(part),
            });
        }
        for byte in 0..width.bytes() {
            let stored = (value >> (8 * byte)) as u8;
            self.bytes.insert((bar, offset + byte), stored);
        }
    }

    /// Returns the value, or none where nothing is claimed (M11 to M15).
    pub fn read(&mut self, bar: u8, offset: u64, width: Width) -> Option<u64> {
        let value = match self.layout.place(bar, offset) {
            Place::Unclaimed => return None,
            Place::Table if Self::regular(offset, width) => {
                let at = offset - u64::from(self.layout.table.1);
                let entry = &self.entries[(at / 16) as usize];
                let low = entry.dword(at % 16 / 4).into();
                match width {
                    Width::Qword => low | u64::from(entry.dword(at % 16 / 4 + 1)) << 32,
                    _ => low,
                }
            }
            Place::Pba if Self::regular(offset, width) => self.device_read(bar, offset, width),
            Place::Adjacent if self.adjacent(bar, offset, width) => {
                self.device_read(bar, offset, width)
            }
            Place::Adjacent if self.before_pba(bar, offset, width).is_some() => {
                let before = self.before_pba(bar, offset, width).unwrap_or(0);
                let ones = width.all_ones() & u64::MAX << (8 * before);
                (0..before).fold(ones, |value, byte| {
                    value | self.device_read(bar, offset + byte, Width::Byte) << (8 * byte)
                })
            }
            _ => {
                self.dropped += 1;
                width.all_ones()
            }
        };
        Some(value)
    }

    /// Writes. Returns `None` where nothing is claimed.
    pub fn write(&mut self, bar: u8, offset: u64, width: Width, value: u64) -> Option<()> {
        match self.layout.place(bar, offset) {
            Place::Unclaimed => return None,
            Place::Table if Self::regular(offset, width) => {
                let at = offset - u64::from(self.layout.table.1);
                let (index, dword) = ((at / 16) as usize, at % 16 / 4);
                self.write_dword(index, dword, value as u32);
                if width == Width::Qword {
                    self.write_dword(index, dword + 1, (value >> 32) as u32);
                }
            }
            Place::Pba if Self::regular(offset, width) && self.layout.permissive => {
                self.device_write(bar, offset, width, value);
            }
            Place::Adjacent if self.adjacent(bar, offset, width) => {
                self.device_write(bar, offset, width, value);
            }
            Place::Adjacent if self.before_pba(bar, offset, width).is_some() => {
                for byte in 0..self.before_pba(bar, offset, width).unwrap_or(0) {
                    let value = value >> (8 * byte) & 0xff;
                    self.device_write(bar, offset + byte, Width::Byte, value);
                }
            }
            _ => self.dropped += 1,
        }
        Some(())
    }

    /// Writes a dword of an entry (M7, M8, M9).
    fn write_dword(&mut self, index: usize, dword: u64, value: u32) {
        let live = self.enabled && !self.function_mask;
        let entry = &mut self.entries[index];
        let low = entry.address & 0xffff_ffff;
        match dword {
            0 => entry.address = entry.address - low + u64::from(value),
            1 => entry.address = low + (u64::from(value) << 32),
            2 => entry.data = value,
            _ => {
                let masked = value & 1 == 1;
                if masked == entry.masked {
                    return;
                }
                entry.masked = masked;
                if !masked && live && entry.updated {
                    self.update(index);
                } else if entry.bound {
                    entry.device_masked = masked || entry.throttled;
                    self.events.push(Event::Mask(index as u16, masked));
                }
                return;
            }
        }
        entry.updated = true;
    }
}
