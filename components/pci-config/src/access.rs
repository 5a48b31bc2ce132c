//! One access: split over handlers and gaps, and merged again (C1).

use channel::Transport;
use channel::pci_config::Effect;
use pci::regs::{
    COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, PCIE_DEVICE_CONTROL_FLR,
};
use pci::{FUNCTION_BARS, Width};

use crate::bar::Bar;
use crate::function::Function;
use crate::layout::CONVENTIONAL;
use crate::peers::Peers;
use crate::registers::{Action, Masks, MsiField, Register};
use crate::{Counters, Hardware};

/// Command bits that a guest may set, besides I/O decode of a function with ports.
const COMMAND_STRICT: u16 = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
/// The same under the permissive policy: all that are defined.
const COMMAND_PERMISSIVE: u16 = 0x07ff & !COMMAND_IO;

/// Device control: a guest may change relaxed ordering (bit 4), no
/// snoop (11) and the read request size (14:12). The payload size is agreed
/// along the path, and error reports are the host's.
const DEVICE_CONTROL: Masks = Masks {
    readable: 0x7fff,
    writable: 0x7810,
    clear: 0,
    zero: PCIE_DEVICE_CONTROL_FLR as u32,
};

/// A function together with what its handlers need.
pub struct Access<'a, 'k, H, T> {
    pub function: &'a mut Function<'k, H>,
    pub peers: &'a mut Peers<T>,
    pub counters: &'a mut Counters,
}

/// Returns all bits of `bytes` bytes.
const fn ones(bytes: u16) -> u32 {
    (u64::MAX >> (64 - 8 * bytes as u64)) as u32
}

impl<H: Hardware, T: Transport> Access<'_, '_, H, T> {
    /// Reads `bytes` bytes at `offset`.
    pub fn read(&mut self, offset: u16, bytes: u16) -> u32 {
        match self.function.table.at(offset) {
            // Most accesses are to a whole register.
            Ok(register) if (register.offset, register.end()) == (offset, offset + bytes) => {
                self.read_register(register)
            }
            _ => self.read_parts(offset, bytes),
        }
    }

    fn read_parts(&mut self, offset: u16, bytes: u16) -> u32 {
        let end = offset + bytes;
        let mut value = 0;
        let mut at = offset;
        while at < end {
            let (part, part_end) = match self.function.table.at(at) {
                Ok(register) => {
                    let whole = self.read_register(register);
                    (whole >> (8 * (at - register.offset)), register.end())
                }
                Err(gap_end) => self.read_gap(at, gap_end.min(end)),
            };
            let part_end = part_end.min(end);
            value |= (part & ones(part_end - at)) << (8 * (at - offset));
            at = part_end;
        }
        value
    }

    /// Writes `bytes` bytes at `offset`.
    pub fn write(&mut self, offset: u16, bytes: u16, value: u32) -> Effect {
        let end = offset + bytes;
        let mut effect = Effect::NONE;
        let mut at = offset;
        while at < end {
            let rest = value >> (8 * (at - offset));
            at = match self.function.table.at(at) {
                Ok(register) => {
                    let part_end = register.end().min(end);
                    let shift = 8 * (at - register.offset);
                    let written = ones(part_end - at) << shift;
                    effect = effect.and(self.write_register(register, rest << shift, written));
                    part_end
                }
                Err(gap_end) => self.write_gap(at, gap_end.min(end), rest),
            };
        }
        effect
    }

    /// Returns whether what no handler covers is the device's (C2). Extended
    /// space never is: its capabilities are hidden (C7).
    fn gap_passes(&self, at: u16) -> bool {
        self.function.info.permissive != 0 && at < CONVENTIONAL
    }

    /// Reads the start of a gap. Returns the value and where that part ends.
    fn read_gap(&mut self, at: u16, end: u16) -> (u32, u16) {
        if !self.gap_passes(at) {
            return (0, end);
        }
        let width = widest(at, end);
        let value = self.function.hardware.read(at, width);
        (value, at + width.bytes() as u16)
    }

    /// Writes the start of a gap. Returns where that part ends.
    fn write_gap(&mut self, at: u16, end: u16, value: u32) -> u16 {
        if !self.gap_passes(at) {
            self.counters.dropped += 1;
            return end;
        }
        let width = widest(at, end);
        let value = value & width.all_ones() as u32;
        self.function.hardware.write(at, width, value);
        at + width.bytes() as u16
    }

    #[inline(always)]
    fn read_register(&mut self, register: Register) -> u32 {
        match register.action {
            Action::Constant(value) => value,
            Action::Hardware(masks) => self.read_hardware(register, masks),
            Action::DeviceControl => self.read_hardware(register, DEVICE_CONTROL),
            Action::Command => self.function.view.command.into(),
            Action::Bar(index) => self.function.view.bars[usize::from(index)].low(),
            Action::BarHigh(index) => self.function.view.bars[usize::from(index)].high(),
            Action::InterruptLine => self.function.view.interrupt_line.into(),
            Action::Msi(field) => self.function.view.msi.map_or(0, |msi| msi.read(field)),
            Action::MsixControl => match self.peers.msix.read_control(self.function.index) {
                Ok(control) => control.into(),
                Err(_) => {
                    self.counters.failures += 1;
                    register.width.all_ones() as u32
                }
            },
        }
    }

    /// Writes the bits `written` of a register.
    fn write_register(&mut self, register: Register, value: u32, written: u32) -> Effect {
        match register.action {
            Action::Constant(_) => self.counters.dropped += 1,
            Action::Hardware(masks) => self.write_hardware(register, masks, value, written),
            Action::DeviceControl => {
                let flr = value & written & u32::from(PCIE_DEVICE_CONTROL_FLR) != 0;
                match self.function.flr {
                    Some(_) if flr => return self.reset_device(),
                    _ => self.write_hardware(register, DEVICE_CONTROL, value, written),
                }
            }
            Action::Command => return self.write_command(value as u16, written as u16),
            Action::Bar(index) => {
                let bar = self.function.view.bars[usize::from(index)];
                let before = bar.register() as u32;
                return self.write_bar(index, bar.with_low(before & !written | value & written));
            }
            Action::BarHigh(index) => {
                let bar = self.function.view.bars[usize::from(index)];
                let before = (bar.register() >> 32) as u32;
                return self.write_bar(index, bar.with_high(before & !written | value & written));
            }
            Action::InterruptLine => {
                self.function.view.interrupt_line = value as u8;
                self.function.keep();
            }
            Action::Msi(field) => self.write_msi(field, value, written),
            Action::MsixControl => {
                self.write_msix_control(register, value as u16, written as u16);
            }
        }
        Effect::NONE
    }

    fn read_hardware(&mut self, register: Register, masks: Masks) -> u32 {
        let value = self.function.hardware.read(register.offset, register.width);
        value & masks.readable
    }

    fn write_hardware(&mut self, register: Register, masks: Masks, value: u32, written: u32) {
        let writable = masks.writable & written;
        let clear = masks.clear & written;
        if writable | clear == 0 {
            self.counters.dropped += 1;
            return;
        }
        let hardware = &mut self.function.hardware;
        let current = hardware.read(register.offset, register.width);
        // A write-1-to-clear bit that the guest did not write must be 0.
        let kept = current & !(writable | masks.clear | masks.zero);
        let new = kept | value & (writable | clear);
        hardware.write(register.offset, register.width, new);
    }

    /// Returns the command register (C5).
    fn write_command(&mut self, value: u16, written: u16) -> Effect {
        let allowed = if self.function.info.permissive != 0 {
            COMMAND_PERMISSIVE
        } else {
            COMMAND_STRICT
        } | self.function.decode_bits();
        let before = self.function.view.command;
        let command = (before & !written | value & written) & allowed;
        if command == before {
            return Effect::NONE;
        }
        self.function.view.command = command;
        let decode = (command ^ before) & (COMMAND_MEMORY | COMMAND_IO);
        let bars = self.function.view.bars.iter_mut();
        bars.filter(|bar| bar.decode_bit() & decode != 0)
            .for_each(Bar::settle);
        self.function.write_host_command();
        self.function.keep();
        if decode != 0 {
            Effect::DECODE
        } else {
            Effect::NONE
        }
    }

    /// Writes a BAR's register (C4). One that is decoded moves at once: the vmm
    /// maps it anew before the guest goes on.
    fn write_bar(&mut self, index: u8, value: u64) -> Effect {
        let command = self.function.view.command;
        let bar = &mut self.function.view.bars[usize::from(index) % FUNCTION_BARS];
        let decoded = command & bar.decode_bit() != 0;
        if value == bar.register() {
            return Effect::NONE;
        }
        let moved = bar.write(value, decoded) && decoded;
        self.counters.bar_moves += u64::from(moved);
        self.function.keep();
        if moved { Effect::DECODE } else { Effect::NONE }
    }

    /// Writes an MSI register: address and data act immediately (P1). An enable while MSI-X is on is
    /// dropped (P3).
    fn write_msi(&mut self, field: MsiField, value: u32, written: u32) {
        let before = self.function.view.msi.map_or(0, |msi| msi.read(field));
        let value = before & !written | value & written;
        let written = self.function.write_msi(field, value, self.peers);
        self.function.keep();
        self.counters.failures += u64::from(written.is_err());
    }

    /// Writes MSI-X message control as msix decides. An enable while MSI is on is
    /// dropped (P3).
    fn write_msix_control(&mut self, register: Register, value: u16, written: u16) {
        let index = self.function.index;
        let msi_enabled = self.function.msi_enabled();
        let reply = self.peers.msix.read_control(index).and_then(|now| {
            let mut value = now & !written | value & written;
            if msi_enabled {
                value &= !pci::regs::MSIX_CONTROL_ENABLE;
            }
            self.peers.write_control(index, value)
        });
        match reply {
            Ok(Some(control)) => {
                self.function.follow_msix(register.offset, control);
                self.function.keep();
            }
            Ok(None) => {}
            Err(_) => self.counters.failures += 1,
        }
    }

    fn reset_device(&mut self) -> Effect {
        self.counters.resets += 1;
        if self.function.begin_reset(self.peers).is_err() {
            self.counters.failures += 1;
        }
        Effect::DECODE.and(Effect::RESET)
    }
}

/// Returns the widest aligned access that starts at `at` and ends by `end`.
fn widest(at: u16, end: u16) -> Width {
    [Width::Dword, Width::Word]
        .into_iter()
        .find(|width| width.is_aligned(at.into()) && at + width.bytes() as u16 <= end)
        .unwrap_or(Width::Byte)
}
