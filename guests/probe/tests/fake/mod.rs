//! A function as the rules want it, with one flaw if asked for: written from
//! the rules alone, so that checks and emulation do not share a mistake.

mod flaw;
mod message;

use std::cell::RefCell;
use std::rc::Rc;

pub use flaw::Flaw;
use kit::pci::Bdf;
use message::{MSI, Message, SIZE};
use probe::machine::{Cpu, Machine, Source};

pub const BDF: Bdf = Bdf {
    bus: 0,
    device: 1,
    function: 0,
};

const ENTRIES: usize = 5;
const PM: usize = 0xc8;
const EXPRESS: usize = 0xe0;
const MSIX: usize = 0xa0;
/// MSI registers behind identifier and link.
const MESSAGE: std::ops::Range<usize> = MSI + 2..MSI + SIZE;
const TABLE_BAR: usize = 3;
const TABLE_SIZE: u64 = 0x4000;
const PBA: u64 = 0x2000;
/// Address bits and flags of each BAR register.
const BARS: [(u32, u32); 6] = [
    (0xfffe_0000, 0),
    (0xfff0_0000, 0xc),
    (0xffff_ffff, 0),
    (0xffff_c000, 0),
    (0xffff_ffe0, 1),
    (0, 0),
];
/// Of these BARs the one with ports, and how many it has.
const PORTS_BAR: usize = 4;
const PORTS: u16 = 0x20;
/// The value of its first four ports.
const ID: u32 = 0x0bad_cafe;
/// Bytes of its 64-bit BAR.
const WIDE_SIZE: u64 = 0x10_0000;
const BARS_AT_START: [u32; 6] = [0xfeb8_0000, 0xfea0_000c, 0, 0xfebd_0000, 0xc001, 0];

#[derive(Clone, Copy)]
struct Entry {
    fields: [u32; 4],
    updated: bool,
    bound: Option<u8>,
    pending: bool,
}

const RESET_ENTRY: Entry = Entry {
    fields: [0, 0, 0, 1],
    updated: false,
    bound: None,
    pending: false,
};

struct State {
    flaw: Flaw,
    address: u32,
    space: [u8; 256],
    command: u16,
    bars: [u32; 6],
    control: u16,
    entries: [Entry; ENTRIES],
    pba: u64,
    message: Message,
    taken: [u64; 256],
}

/// The function, its CPU and its device in one.
#[derive(Clone)]
pub struct Fake(Rc<RefCell<State>>);

impl Fake {
    pub fn new(flaw: Flaw) -> Self {
        let mut space = [0; 256];
        space[0x00..0x04].copy_from_slice(&[0x86, 0x80, 0xd3, 0x10]);
        space[0x06] = if flaw == Flaw::ListBitClear { 0 } else { 0x10 };
        space[0x0b] = 0x02;
        space[0x2c..0x30].copy_from_slice(&[0x34, 0x12, 0x78, 0x56]);
        space[0x34] = PM as u8;
        space[PM..PM + 3].copy_from_slice(&[0x01, MSI as u8, 0x03]);
        space[MSI..MSI + 2].copy_from_slice(&[0x05, EXPRESS as u8]);
        space[EXPRESS..EXPRESS + 4].copy_from_slice(&[0x10, MSIX as u8, 0x01, 0x00]);
        space[EXPRESS + 7] = 0x10;
        space[MSIX] = 0x11;
        space[MSIX + 4] = TABLE_BAR as u8;
        space[MSIX + 8..MSIX + 10].copy_from_slice(&[TABLE_BAR as u8, (PBA >> 8) as u8]);
        match flaw {
            Flaw::ListLoops => space[MSIX + 1] = PM as u8,
            Flaw::UnsafeCapability => {
                space[MSIX + 1] = 0x60;
                space[0x60] = 0x09;
            }
            _ => {}
        }
        let mut entries = [RESET_ENTRY; ENTRIES];
        if flaw == Flaw::StartsUnmasked {
            entries[4].fields[3] = 0;
        }
        Self(Rc::new(RefCell::new(State {
            flaw,
            address: 0,
            space,
            command: 3,
            bars: BARS_AT_START,
            control: if flaw == Flaw::StartsEnabled {
                0x8000
            } else {
                0
            },
            entries,
            pba: 0,
            message: Message::new(flaw),
            taken: [0; 256],
        })))
    }
}

impl State {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn decoded(&self) -> bool {
        self.command & 2 != 0
    }

    fn live(&self) -> bool {
        let masked = self.control & 0x4000 != 0 && !self.is(Flaw::FunctionMaskIgnored);
        self.control & 0x8000 != 0 && !masked
    }

    /// Makes the binds that are due and sends the messages that wait.
    fn settle(&mut self) {
        if !self.live() {
            return;
        }
        let flaw = self.flaw;
        for entry in &mut self.entries {
            if entry.fields[3] & 1 != 0 && flaw != Flaw::MaskIgnored {
                continue;
            }
            let before = entry.bound;
            let stays = flaw == Flaw::StaysOnOldVector && before.is_some();
            if entry.updated && !stays {
                entry.bound = Some(entry.fields[2] as u8);
                entry.updated = false;
                if flaw == Flaw::HostMessageShows {
                    entry.fields[2] += 1;
                }
            }
            let to_old = flaw == Flaw::PendingToOldVector;
            let target = if to_old {
                before.or(entry.bound)
            } else {
                entry.bound
            };
            if let Some(vector) = target.filter(|_| entry.pending) {
                self.taken[usize::from(vector)] += 1;
                entry.pending = false;
            }
        }
    }

    fn selected(&self) -> bool {
        let bus = if self.is(Flaw::EveryBus) {
            0
        } else {
            self.address >> 16 & 0xff
        };
        let enabled = self.address >> 31 == 1 || self.is(Flaw::EnableIgnored);
        enabled && bus == 0 && self.address >> 8 & 0xff == 1 << 3
    }

    fn config_byte(&self, at: usize) -> u8 {
        match at {
            4 | 5 => (self.command >> (8 * (at - 4))) as u8,
            0x10..0x28 => (self.bars[(at - 0x10) / 4] >> (8 * (at % 4))) as u8,
            _ if MESSAGE.contains(&at) => self.message.byte(at - MSI),
            _ if at == MSIX + 2 => (ENTRIES - 1) as u8,
            _ if at == MSIX + 3 => (self.control >> 8) as u8,
            _ => self.space[at],
        }
    }

    fn set_config_byte(&mut self, at: usize, value: u8) {
        match at {
            4 | 5 => self.set_command_byte(at - 4, value),
            0x10..0x28 => self.set_bar_byte((at - 0x10) / 4, at % 4, value),
            0x2c..0x30 if self.is(Flaw::SubsystemWritable) => self.space[at] = value,
            0x30..0x34 if self.is(Flaw::RomShown) => self.space[at] = value,
            0x3c => self.space[at] = value,
            0x80 if self.is(Flaw::GapWritable) => self.space[at] = value,
            _ if MESSAGE.contains(&at) => {
                let msix = self.control & 0x8000 != 0;
                self.message.set_byte(at - MSI, value, msix, self.flaw);
            }
            _ if at == MSIX + 1 && self.is(Flaw::LinkWritable) => self.space[at] = value,
            _ if at == MSIX + 2 && self.is(Flaw::ControlFromBytes) => self.control = 0,
            _ if at == MSIX + 3 && self.is(Flaw::ControlNeedsDecode) && !self.decoded() => {}
            _ if at == MSIX + 3 => self.set_control(value),
            _ if at == MSIX + 4 && self.is(Flaw::PlacesWritable) => self.space[at] = value,
            _ if at == PM + 4 && self.is(Flaw::LeavesD0) => self.space[at] = value & 3,
            _ if at == EXPRESS + 9 && value >> 7 == 1 && !self.is(Flaw::NoReset) => {
                self.command = 3;
                self.bars = BARS_AT_START;
                self.control = 0;
                self.entries = [RESET_ENTRY; ENTRIES];
            }
            _ => {}
        }
    }

    fn set_command_byte(&mut self, byte: usize, value: u8) {
        let known = if self.is(Flaw::CommandTakesAll) {
            0x0547
        } else {
            0x0407
        };
        let shift = 8 * byte;
        let was = self.decoded();
        self.command = self.command & !(0xff << shift) | (u16::from(value) << shift) & known;
        if was && !self.decoded() && self.is(Flaw::DecodeForgets) {
            self.entries = [RESET_ENTRY; ENTRIES];
        }
    }

    fn set_bar_byte(&mut self, index: usize, byte: usize, value: u8) {
        let (mut mask, flags) = BARS[index];
        if self.decoded() && self.is(Flaw::DecodedBarStays)
            || index == TABLE_BAR && self.is(Flaw::BarIgnored)
        {
            return;
        }
        if self.is(Flaw::BarSizeHasHoles) {
            mask &= !0x0100_0000;
        }
        let shift = 8 * byte;
        let bar = self.bars[index] & !(0xff << shift) | u32::from(value) << shift;
        self.bars[index] = bar & mask | flags;
    }

    fn set_control(&mut self, value: u8) {
        let known = if self.is(Flaw::ControlTakesAll) {
            0xf8
        } else {
            0xc0
        };
        let before = self.control;
        self.control = u16::from(value & known) << 8;
        if self.message.enabled() && !self.is(Flaw::MsixWithMessage) {
            self.control &= !0x8000;
        }
        if before & 0x8000 != 0 && self.control & 0x8000 == 0 {
            let updated = !self.is(Flaw::EnableForgetsBinding);
            for entry in &mut self.entries {
                if entry.bound.take().is_some() {
                    entry.updated = updated;
                }
            }
            if self.is(Flaw::DisableForgets) {
                self.entries = [RESET_ENTRY; ENTRIES];
            }
        }
        self.settle();
    }

    /// Returns the offset in the BAR of table and PBA.
    fn place(&self, address: u64) -> Option<u64> {
        let base = u64::from(self.bars[TABLE_BAR]);
        let decoded = self.decoded() || self.is(Flaw::DecodeIgnored);
        address
            .checked_sub(base)
            .filter(|offset| decoded && *offset < TABLE_SIZE)
    }

    fn table_index(&self, offset: u64) -> Option<(usize, usize)> {
        let length = if self.is(Flaw::TableTooLong) {
            ENTRIES + 1
        } else {
            ENTRIES
        };
        let entry = usize::try_from(offset / 16).ok().filter(|e| *e < length)?;
        // One entry too many is the last one again.
        let entry = if self.is(Flaw::EntriesAlias) && entry == 3 {
            2
        } else {
            entry
        };
        Some((entry.min(ENTRIES - 1), (offset % 16 / 4) as usize))
    }

    fn pending_bits(&self) -> u64 {
        let bits = self.entries.iter().enumerate();
        bits.fold(self.pba, |all, (at, entry)| {
            all | u64::from(entry.pending) << at
        })
    }

    fn read(&self, address: u64, bytes: u8) -> u64 {
        let ones = u64::MAX >> (64 - 8 * u32::from(bytes));
        if self.is(Flaw::OtherBarStaysDecoded) && address == u64::from(BARS_AT_START[0]) {
            return 0;
        }
        let wide = u64::from(self.bars[1] & !15) | u64::from(self.bars[2]) << 32;
        let too_high = wide >> 32 != 0 && self.is(Flaw::NothingAbove4Gib);
        if self.decoded() && [wide, wide + WIDE_SIZE - 4].contains(&address) && !too_high {
            return 0x600d_600d & ones;
        }
        let Some(offset) = self.place(address) else {
            return ones;
        };
        let regular = matches!(bytes, 4 | 8) && offset.is_multiple_of(bytes.into());
        if let Some((entry, field)) = self.table_index(offset) {
            if !regular && !self.is(Flaw::NarrowReads) {
                return ones;
            }
            let fields = &self.entries[entry].fields;
            let low = u64::from(fields[field]);
            let high = fields.get(field + 1).copied().unwrap_or(0);
            return (low | u64::from(high) << 32) & ones;
        }
        if (PBA..PBA + 8).contains(&offset) {
            if !regular && !self.is(Flaw::PbaNarrow) {
                return ones;
            }
            return self.pending_bits() >> (8 * (offset - PBA)) & ones;
        }
        0
    }

    fn write(&mut self, address: u64, bytes: u8, value: u64) {
        let Some(offset) = self.place(address) else {
            return;
        };
        if (PBA..PBA + 8).contains(&offset) && self.is(Flaw::PbaWritable) {
            self.pba = value;
        }
        let Some((entry, field)) = self.table_index(offset) else {
            return;
        };
        let regular = matches!(bytes, 4 | 8) && offset.is_multiple_of(bytes.into());
        if !regular && !self.is(Flaw::NarrowWrites) {
            return;
        }
        self.write_field(entry, field, value as u32);
        if bytes == 8 && field < 3 && !self.is(Flaw::QwordHalf) {
            self.write_field(entry, field + 1, (value >> 32) as u32);
        }
    }

    fn write_field(&mut self, entry: usize, field: usize, value: u32) {
        let flaw = self.flaw;
        let live = self.live();
        let state = &mut self.entries[entry];
        if field < 3 {
            state.fields[field] = value;
            let lost = flaw == Flaw::LateMessageLost && live && state.fields[3] == 0;
            state.updated |= !lost;
            if field == 0 && flaw == Flaw::LowClearsHigh {
                state.fields[1] = 0;
            }
            return;
        }
        let wide = flaw == Flaw::WideVectorControl;
        state.fields[3] = if wide { value } else { value & 1 };
        self.settle();
    }
}

impl Machine for Fake {
    fn port_read(&mut self, port: u16, bytes: u8) -> u32 {
        let state = self.0.borrow();
        let ones = u32::MAX >> (32 - 8 * u32::from(bytes));
        let start = port.wrapping_sub(0xcfc);
        match port {
            0xcf8 if bytes == 4 => state.address,
            0xcfc..=0xcff => {
                let aligned = start.is_multiple_of(bytes.into()) || state.is(Flaw::MisalignedData);
                if !state.selected() || !aligned {
                    return ones;
                }
                let shift = usize::from(state.is(Flaw::ByteReadsShift) && bytes == 1);
                let first = (state.address & 0xfc) as usize + usize::from(start ^ shift as u16);
                (0..usize::from(bytes)).fold(0, |value, byte| {
                    value | u32::from(state.config_byte((first + byte) & 0xff)) << (8 * byte)
                })
            }
            _ if state.command & 1 != 0 => {
                let moved = state.bars[PORTS_BAR] & !3;
                let base = if state.is(Flaw::PortsStay) {
                    BARS_AT_START[PORTS_BAR] & !3
                } else {
                    moved
                };
                match port.checked_sub(base as u16) {
                    Some(at) if at + u16::from(bytes) <= PORTS => ID >> (8 * (at & 3)) & ones,
                    _ => ones,
                }
            }
            _ => ones,
        }
    }

    fn port_write(&mut self, port: u16, bytes: u8, value: u32) {
        let mut state = self.0.borrow_mut();
        let start = port.wrapping_sub(0xcfc);
        match port {
            0xcf8 if bytes == 4 || state.is(Flaw::NarrowAddress) => state.address = value,
            0xcfc..=0xcff => {
                if !state.selected() || !start.is_multiple_of(bytes.into()) {
                    return;
                }
                let first = (state.address & 0xfc) as usize + usize::from(start);
                for byte in 0..usize::from(bytes) {
                    state.set_config_byte(first + byte, (value >> (8 * byte)) as u8);
                }
            }
            _ => {}
        }
    }

    fn memory_read(&mut self, address: u64, bytes: u8) -> Option<u64> {
        Some(self.0.borrow().read(address, bytes))
    }

    fn memory_write(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        self.0.borrow_mut().write(address, bytes, value);
        true
    }
}

impl Cpu for Fake {
    fn taken(&self, vector: u8) -> u64 {
        self.0.borrow().taken[usize::from(vector)]
    }

    fn rest(&mut self) {}

    fn destination(&self) -> u8 {
        0
    }
}

impl Source for Fake {
    fn entry(&self) -> u32 {
        1
    }

    fn lower(&mut self) {}

    fn raise(&mut self) {
        let mut state = self.0.borrow_mut();
        let flaw = state.flaw;
        if state.message.enabled() {
            let vector = state.message.vector(flaw);
            state.taken[vector] += 1;
            return;
        }
        let closed = !state.live() || state.entries[1].fields[3] & 1 != 0;
        let lost = flaw == Flaw::NothingDelivered || flaw == Flaw::PendingLost && closed;
        state.entries[1].pending = !lost;
        state.settle();
        if flaw == Flaw::DeliveredTwice {
            state.entries[1].pending = true;
            state.settle();
        }
    }
}
