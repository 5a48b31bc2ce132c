//! A function with random registers, and a device and an msix that hold
//! pci-config to what it promises about the hardware.

use std::cell::RefCell;
use std::rc::Rc;

use channel::msix::control::MsixControl;
use channel::{Caller, Error};
use pci::{BarInfo, BarKind, FunctionInfo, Width, regs};
use pci_config::Hardware;
use proptest::prelude::*;
use spec::FunctionId;

pub const PM: u16 = 0x40;
pub const MSI: u16 = 0x50;
pub const PCIE: u16 = 0x70;
pub const MSIX: u16 = 0xb0;
pub const VENDOR: u16 = 0xc0;
/// Capabilities: where they are, and their ids. None overlaps another.
const CAPABILITIES: [(u16, u8); 5] = [(PM, 1), (MSI, 5), (PCIE, 0x10), (MSIX, 0x11), (VENDOR, 9)];
/// Which memory BARs there are: index, kind, address, size.
pub const BARS: [(usize, BarKind, u64, u64); 4] = [
    (0, BarKind::Memory32, 0xfe80_0000, 0x2_0000),
    (1, BarKind::Memory64, 0x1_fe90_0000, 0x10_0000),
    (3, BarKind::Io, 0xc000, 0x20),
    (5, BarKind::Memory32, 0xfea0_0010, 0x10),
];
const BAR_BYTES: std::ops::Range<usize> = 0x10..0x28;

/// A function before anything touches it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub config: Vec<u8>,
    /// Offsets of its capabilities, in the order of its list.
    pub list: Vec<u16>,
    pub permissive: bool,
    /// msix plays its capability, if it has one.
    pub played: bool,
}

impl Plan {
    pub fn has(&self, capability: u16) -> bool {
        self.list.contains(&capability)
    }

    pub fn plays_msix(&self) -> bool {
        self.played && self.has(MSIX)
    }

    pub fn word(&self, offset: u16) -> u16 {
        let at = usize::from(offset);
        u16::from_le_bytes([self.config[at], self.config[at + 1]])
    }

    pub fn info(&self) -> FunctionInfo {
        let mut info = FunctionInfo {
            guest_bdf: 0x18,
            permissive: self.permissive.into(),
            ..FunctionInfo::default()
        };
        for (index, kind, address, size) in BARS {
            info.bars[index] = BarInfo {
                kind,
                prefetchable: u32::from(kind == BarKind::Memory64),
                address,
                guest: address,
                size,
                first_slot: 0,
            };
        }
        if self.plays_msix() {
            info.msix.entries = 5;
            info.msix.capability = MSIX.into();
        }
        info
    }
}

pub fn plans() -> impl Strategy<Value = Plan> {
    let bytes = prop::collection::vec(any::<u8>(), 256);
    let order = Just(CAPABILITIES.to_vec()).prop_shuffle();
    let flags = any::<(bool, bool, bool)>();
    (bytes, order, 0..=5usize, flags).prop_map(|(config, mut list, count, flags)| {
        let (permissive, played, extended) = flags;
        list.truncate(count);
        let mut plan = Plan {
            config,
            list: list.iter().map(|&(at, _)| at).collect(),
            permissive,
            played,
        };
        let config = &mut plan.config;
        config.resize(if extended { 4096 } else { 256 }, 0);
        // Header type 0, a capability list, and the BARs' registers.
        config[0x0e] &= 0x80;
        config[0x06] = config[0x06] & !0x10 | if count == 0 { 0 } else { 0x10 };
        config[BAR_BYTES].fill(0);
        for (index, kind, address, _) in BARS {
            let flags = match kind {
                BarKind::Io => 1,
                BarKind::Memory64 => 0xc,
                _ => 0,
            };
            let at = 0x10 + 4 * index;
            let bytes = (address | flags).to_le_bytes();
            let length = if kind == BarKind::Memory64 { 8 } else { 4 };
            config[at..at + length].copy_from_slice(&bytes[..length]);
        }
        let ends = list.iter().skip(1).map(|&(at, _)| at).chain([0]);
        config[0x34] = list.first().map_or(0, |&(at, _)| at as u8);
        // A function-level reset bit always reads 0.
        config[usize::from(PCIE) + 9] &= 0x7f;
        for (&(at, id), next) in list.iter().zip(ends) {
            config[usize::from(at)] = id;
            config[usize::from(at) + 1] = next as u8 | at as u8 >> 4 & 3;
        }
        plan
    })
}

pub struct World {
    pub config: Vec<u8>,
    bars: Vec<u8>,
    /// The device is being reset: its BARs may be written.
    resetting: bool,
    /// Goes on with each look at it, by as much as a reset takes.
    now_ms: u64,
    pcie: bool,
    msix: bool,
    pub control: u16,
}

impl World {
    pub fn word(&self, offset: u16) -> u16 {
        let at = usize::from(offset);
        u16::from_le_bytes([self.config[at], self.config[at + 1]])
    }
}

#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<World>>);

impl Shared {
    pub fn new(plan: &Plan) -> Self {
        Self(Rc::new(RefCell::new(World {
            config: plan.config.clone(),
            bars: plan.config[BAR_BYTES].to_vec(),
            resetting: false,
            now_ms: 0,
            pcie: plan.has(PCIE),
            msix: plan.has(MSIX),
            control: 4,
        })))
    }
}

impl Hardware for Shared {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        assert!(width != Width::Qword && width.is_aligned(offset.into()));
        let world = self.0.borrow();
        let at = usize::from(offset);
        let bytes = &world.config[at..at + width.bytes() as usize];
        bytes.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b))
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        assert!(width != Width::Qword && width.is_aligned(offset.into()));
        assert_eq!(value & !(width.all_ones() as u32), 0, "bits past the width");
        let mut world = self.0.borrow_mut();
        for (at, byte) in (usize::from(offset)..)
            .zip(value.to_le_bytes())
            .take(width.bytes() as usize)
        {
            let device_status = usize::from(PCIE) + 0x0a;
            let stored = world.config[at];
            world.config[at] = match at {
                0x04 => {
                    assert!(byte & 2 != 0 || world.resetting, "decode switched off");
                    byte
                }
                // Write 1 to clear; the other bits are read-only.
                0x06 => stored,
                0x07 => stored & !(byte & 0xf9),
                at if world.pcie && at == device_status => stored & !(byte & 0x0f),
                at if world.pcie && at == device_status + 1 => stored,
                at if BAR_BYTES.contains(&at) => {
                    let start = world.bars[at - BAR_BYTES.start];
                    let flags = if at % 4 == 0 { 0x0f } else { 0 };
                    let moved = (byte ^ stored) & !flags != 0;
                    assert!(world.resetting || !moved, "BAR of the host moved");
                    byte & !flags | start & flags
                }
                // Message control: only enable and function mask can be set.
                at if world.msix && at == usize::from(MSIX) + 2 => stored,
                at if world.msix && at == usize::from(MSIX) + 3 => stored & 0x3f | byte & 0xc0,
                at if world.pcie && at == usize::from(PCIE) + 9 => byte & 0x7f,
                _ => byte,
            };
        }
        // The restored command register is the end of a reset.
        world.resetting &= offset != 4;
        let reset = u32::from(regs::PCIE_DEVICE_CONTROL_FLR);
        if world.pcie && offset == PCIE + regs::PCIE_DEVICE_CONTROL && value & reset != 0 {
            world.resetting = true;
            world.config[4..6].fill(0);
            world.config[BAR_BYTES].fill(0);
        }
    }

    fn has_extended_space(&self) -> bool {
        self.0.borrow().config.len() > 256
    }

    fn now_ms(&mut self) -> u64 {
        let mut world = self.0.borrow_mut();
        world.now_ms += 100;
        world.now_ms
    }
}

impl MsixControl for Shared {
    fn read_control(&mut self, _: Caller, _: FunctionId) -> Result<u16, Error> {
        Ok(self.0.borrow().control)
    }

    fn write_control(
        &mut self,
        _: Caller,
        _: FunctionId,
        value: u16,
    ) -> Result<Option<u16>, Error> {
        let mut world = self.0.borrow_mut();
        let before = world.control;
        world.control = value & 0xc000 | 4;
        Ok((before != world.control).then_some(world.control))
    }

    fn reset(&mut self, _: Caller, _: FunctionId) -> Result<(), Error> {
        self.0.borrow_mut().control = 4;
        Ok(())
    }
}
