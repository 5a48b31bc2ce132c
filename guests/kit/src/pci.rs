//! PCI configuration space: finding a function, its BARs and its capabilities.
//!
//! PCI Local Bus 3.0 chapter 6 and section 3.2.2.3.2 (configuration mechanism).

use core::fmt;

use ::pci::regs::{CONFIG_ADDRESS, CONFIG_DATA};

use crate::command_line::CommandLine;
use crate::cpu;
use crate::mmio::{Mmio, Registers as _, WindowRegisters};

const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const REVISION: u8 = 0x08;
const HEADER_TYPE: u8 = 0x0c;
const BAR0: u8 = 0x10;
const CAPABILITIES: u8 = 0x34;

/// Command register: decode I/O (bit 0) and memory (1).
const DECODE: u32 = 0x3;
const MEMORY_DECODE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const INTX_DISABLE: u32 = 1 << 10;
/// Status register, in the upper half: the capability list exists.
const CAPABILITY_LIST: u32 = 1 << (16 + 4);
/// The command half of the dword at [`COMMAND`]: zeros written to the status
/// half leave its write-1-to-clear bits alone.
const COMMAND_MASK: u32 = 0xffff;

/// Bytes of a function's configuration space as memory.
const CONFIG_SIZE: u64 = 4096;

/// Bus, device and function number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bdf {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Configuration space of one function, by dword offset.
pub trait ConfigSpace {
    /// Reads the dword at `offset` (a multiple of 4).
    fn read(&self, offset: u8) -> u32;
    /// Writes the dword at `offset` (a multiple of 4).
    fn write(&mut self, offset: u8, value: u32);
}

/// Configuration space through ports 0xCF8 and 0xCFC.
#[derive(Clone, Debug)]
pub struct PortConfig(Bdf);

impl PortConfig {
    /// Takes the configuration space of the function at `bdf`.
    pub const fn new(bdf: Bdf) -> Self {
        Self(bdf)
    }

    fn select(&self, offset: u8) {
        let Bdf {
            bus,
            device,
            function,
        } = self.0;
        cpu::out32(
            CONFIG_ADDRESS,
            1 << 31
                | u32::from(bus) << 16
                | u32::from(device & 31) << 11
                | u32::from(function & 7) << 8
                | u32::from(offset & 0xfc),
        );
    }
}

impl ConfigSpace for PortConfig {
    fn read(&self, offset: u8) -> u32 {
        self.select(offset);
        cpu::in32(CONFIG_DATA)
    }

    fn write(&mut self, offset: u8, value: u32) {
        self.select(offset);
        cpu::out32(CONFIG_DATA, value);
    }
}

/// Configuration space as memory (ECAM): one access, where that through the ports is two.
#[derive(Debug)]
pub struct MemoryConfig(Mmio);

impl MemoryConfig {
    /// Takes the configuration space of the function at `bdf` on bus 00, which that bus has
    /// at `base`.
    fn new(base: u64, bdf: Bdf) -> Self {
        let function = u64::from(bdf.device & 31) << 3 | u64::from(bdf.function & 7);
        // SAFETY: who wrote the command line has configuration space there, 4 KiB for each
        // function. The ports lead to the same registers and share no state with it.
        let registers = unsafe { Mmio::new(base + function * CONFIG_SIZE, CONFIG_SIZE as u32) };
        Self(registers)
    }
}

impl ConfigSpace for MemoryConfig {
    fn read(&self, offset: u8) -> u32 {
        self.0.read(offset.into())
    }

    fn write(&mut self, offset: u8, value: u32) {
        self.0.write(offset.into(), value);
    }
}

/// How the configuration space of bus 00 is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By ports, which every PC has.
    Ports,
    /// As memory from this address on.
    Memory(u64),
}

impl Way {
    /// Returns the shortest way that there is: as memory, where the command line says where.
    pub fn of(line: &CommandLine<'_>) -> Self {
        line.number("ecam").map_or(Self::Ports, Self::Memory)
    }
}

/// Configuration space of one function on bus 00, by the way that there is.
#[derive(Debug)]
pub enum Config {
    /// By ports.
    Ports(PortConfig),
    /// As memory.
    Memory(MemoryConfig),
}

impl Config {
    /// Takes the configuration space of the function at `bdf`, which must be on bus 00.
    pub fn new(way: Way, bdf: Bdf) -> Self {
        match way {
            Way::Ports => Self::Ports(PortConfig(bdf)),
            Way::Memory(base) => Self::Memory(MemoryConfig::new(base, bdf)),
        }
    }
}

impl ConfigSpace for Config {
    fn read(&self, offset: u8) -> u32 {
        match self {
            Self::Ports(config) => config.read(offset),
            Self::Memory(config) => config.read(offset),
        }
    }

    fn write(&mut self, offset: u8, value: u32) {
        match self {
            Self::Ports(config) => config.write(offset, value),
            Self::Memory(config) => config.write(offset, value),
        }
    }
}

/// Kind of address space that a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory with a 32-bit address.
    Memory32,
    /// Memory with a 64-bit address, taking two BAR registers.
    Memory64,
}

/// One base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Kind of address space.
    pub kind: BarKind,
    /// First address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

/// A PCI function, as its configuration space describes it.
#[derive(Debug)]
pub struct Function<C> {
    /// Where it is.
    pub bdf: Bdf,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Class code, 24 bits: base class, subclass, programming interface.
    pub class: u32,
    /// Its BARs; `None` where a register is unused or the upper half of another.
    pub bars: [Option<Bar>; 6],
    /// BARs that [`map`](Function::map) has given out.
    mapped: [bool; 6],
    /// Its configuration space.
    pub config: C,
}

/// Returns where there are functions on bus 0. Guests have no bridges, so there
/// is no other bus to look at.
pub fn present(way: Way) -> impl Iterator<Item = Bdf> {
    (0..32).flat_map(move |device| {
        let id = move |function| {
            let bdf = Bdf {
                bus: 0,
                device,
                function,
            };
            (bdf, Config::new(way, bdf))
        };
        // Function 0 must exist, and says whether there are others (header
        // type bit 7).
        let (_, first) = id(0);
        let count = if first.read(ID) == u32::MAX {
            0
        } else if first.read(HEADER_TYPE) & (1 << 23) == 0 {
            1
        } else {
            8
        };
        (0..count)
            .map(id)
            .filter(|(_, config)| config.read(ID) != u32::MAX)
            .map(|(bdf, _)| bdf)
    })
}

/// Returns vendor and device identifier of the function at `bdf`.
pub fn identity(way: Way, bdf: Bdf) -> (u16, u16) {
    let id = Config::new(way, bdf).read(ID);
    (id as u16, (id >> 16) as u16)
}

/// Finds the first function on bus 0 with this vendor and device identifier.
pub fn find(way: Way, vendor: u16, device: u16) -> Option<Function<Config>> {
    let wanted = u32::from(device) << 16 | u32::from(vendor);
    present(way)
        .find(|&bdf| Config::new(way, bdf).read(ID) == wanted)
        .map(|bdf| Function::at(way, bdf))
}

impl Function<Config> {
    /// Returns the function at `bdf`, which must be there ([`present`]).
    pub fn at(way: Way, bdf: Bdf) -> Self {
        Self::new(bdf, Config::new(way, bdf))
    }
}

impl<C: ConfigSpace> Function<C> {
    /// Reads identity and BARs. Decoding is off meanwhile and is as before
    /// afterwards.
    pub fn new(bdf: Bdf, mut config: C) -> Self {
        let id = config.read(ID);
        let command = config.read(COMMAND) & COMMAND_MASK;
        config.write(COMMAND, command & !DECODE);
        let class = config.read(REVISION) >> 8;
        let bars = read_bars(&mut config);
        config.write(COMMAND, command);
        Self {
            bdf,
            vendor: id as u16,
            device: (id >> 16) as u16,
            class,
            bars,
            mapped: [false; 6],
            config,
        }
    }

    /// Switches memory decoding on, bus mastering and pin interrupts off: the
    /// function can be reset, and an earlier owner's setup has no effect.
    pub fn enable(&mut self) {
        let command = self.config.read(COMMAND) & COMMAND_MASK & !BUS_MASTER;
        self.config
            .write(COMMAND, command | MEMORY_DECODE | INTX_DISABLE);
    }

    /// Switches bus mastering on: from here on the function reaches memory. Its
    /// driver has reset it by now.
    pub fn enable_bus_master(&mut self) {
        let command = self.config.read(COMMAND) & COMMAND_MASK;
        self.config.write(COMMAND, command | BUS_MASTER);
    }

    /// Returns the configuration offset of the first capability with this
    /// identifier.
    pub fn capability(&self, id: u8) -> Option<u8> {
        self.capabilities()
            .find(|found| found.0 == id)
            .map(|found| found.1)
    }

    /// Returns identifier and configuration offset of each capability, in list order.
    pub fn capabilities(&self) -> impl Iterator<Item = (u8, u8)> {
        let listed = self.config.read(COMMAND) & CAPABILITY_LIST != 0;
        let first = if listed {
            self.config.read(CAPABILITIES) as u8 & 0xfc
        } else {
            0
        };
        // 48 capabilities fill the space from 0x40 to 0xff: a longer list is a loop.
        (0..48).scan(first, |next, _| {
            let at = *next;
            let header = (at >= 0x40).then(|| self.config.read(at))?;
            *next = (header >> 8) as u8 & 0xfc;
            Some((header as u8, at))
        })
    }

    /// Returns registers from `offset` on behind memory BAR `index` that share it with others;
    /// `None` for a BAR that is absent, has no address, or is not memory, and past its end.
    pub fn map_shared(&self, index: usize, offset: u32) -> Option<WindowRegisters> {
        let bar = (*self.bars.get(index)?)?;
        let usable = bar.kind != BarKind::Io && bar.address != 0 && u64::from(offset) < bar.size;
        usable.then(|| WindowRegisters::new(bar.address + u64::from(offset)))
    }

    /// Returns the registers behind memory BAR `index`. Each BAR is given out
    /// once; `None` also for one that is absent, has no address, or is not
    /// memory.
    pub fn map(&mut self, index: usize) -> Option<Mmio> {
        let bar = (*self.bars.get(index)?)?;
        if bar.kind == BarKind::Io || bar.address == 0 || self.mapped[index] {
            return None;
        }
        self.mapped[index] = true;
        let size = u32::try_from(bar.size).unwrap_or(u32::MAX);
        // SAFETY: device registers by the device's own word, mapped uncached
        // (boot.s, or the monitor on Vectis), and given out only once.
        Some(unsafe { Mmio::new(bar.address, size) })
    }
}

/// Sizes every BAR by writing ones (PCI 3.0, 6.2.5.1); decoding must be off.
fn read_bars(config: &mut impl ConfigSpace) -> [Option<Bar>; 6] {
    let mut bars = [None; 6];
    let mut index = 0;
    while index < 6 {
        let offset = BAR0 + 4 * index as u8;
        let (value, mask) = probe(config, offset);
        let io = value & 1 != 0;
        let wide = !io && value & 0b110 == 0b100 && index < 5;
        let low_bits = if io { 0x3 } else { 0xf };
        let mut address = u64::from(value & !low_bits);
        let mut size_mask = u64::from(mask & !low_bits) | 0xffff_ffff << 32;
        if io {
            // Upper half of an I/O BAR may read as zeros.
            size_mask |= 0xffff_0000;
        }
        if wide {
            let (high, high_mask) = probe(config, offset + 4);
            address |= u64::from(high) << 32;
            size_mask = size_mask & 0xffff_ffff | u64::from(high_mask) << 32;
        }
        if mask & !low_bits != 0 || wide && size_mask != 0 {
            bars[index] = Some(Bar {
                kind: match (io, wide) {
                    (true, _) => BarKind::Io,
                    (false, false) => BarKind::Memory32,
                    (false, true) => BarKind::Memory64,
                },
                address,
                size: (!size_mask).wrapping_add(1),
            });
        }
        index += if wide { 2 } else { 1 };
    }
    bars
}

/// Returns the value of a BAR register, and its value after all ones were written.
fn probe(config: &mut impl ConfigSpace, offset: u8) -> (u32, u32) {
    let value = config.read(offset);
    config.write(offset, u32::MAX);
    let mask = config.read(offset);
    config.write(offset, value);
    (value, mask)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Configuration space as plain dwords, with BARs that size.
    #[derive(Debug)]
    pub(crate) struct FakeConfig {
        pub(crate) dwords: [u32; 64],
        bar_masks: [u32; 6],
        pub(crate) writes_with_decode_on: u32,
    }

    impl FakeConfig {
        /// Creates an 82574L as QEMU shows it, decode on.
        pub(crate) fn e1000e() -> Self {
            let mut dwords = [0; 64];
            dwords[0] = 0x10d3_8086;
            dwords[1] = 0x0010_0003;
            dwords[4] = 0xfeb8_0000;
            dwords[5] = 0xfeba_0000;
            dwords[6] = 0x0000_c001;
            dwords[7] = 0xfebd_0000;
            dwords[0x34 / 4] = 0xc8;
            dwords[0xc8 / 4] = 0x0000_d001;
            dwords[0xd0 / 4] = 0x0000_e005;
            dwords[0xe0 / 4] = 0x0000_a010;
            dwords[0xa0 / 4] = 0x0004_0011;
            dwords[0xa4 / 4] = 0x0000_0003;
            dwords[0xa8 / 4] = 0x0000_2003;
            Self {
                dwords,
                bar_masks: [0xfffe_0000, 0xfffe_0000, 0xffff_ffe1, 0xffff_c000, 0, 0],
                writes_with_decode_on: 0,
            }
        }
    }

    impl ConfigSpace for FakeConfig {
        fn read(&self, offset: u8) -> u32 {
            self.dwords[usize::from(offset / 4)]
        }

        fn write(&mut self, offset: u8, value: u32) {
            let index = usize::from(offset / 4);
            match index {
                1 => self.dwords[1] = self.dwords[1] & !COMMAND_MASK | value & COMMAND_MASK,
                4..10 => {
                    if self.dwords[1] & DECODE != 0 {
                        self.writes_with_decode_on += 1;
                    }
                    let mask = self.bar_masks[index - 4];
                    let kind = self.dwords[index] & if mask & 1 != 0 { 3 } else { 0xf };
                    self.dwords[index] = value & mask | kind;
                }
                _ => self.dwords[index] = value,
            }
        }
    }

    const BDF: Bdf = Bdf {
        bus: 0,
        device: 2,
        function: 0,
    };

    #[test]
    fn configuration_space_is_memory_where_the_command_line_says_so() {
        let way = |line: &[u8]| Way::of(&CommandLine::new(line));
        assert_eq!(
            way(b"host=vectis ecam=4277141504"),
            Way::Memory(0xfef0_0000)
        );
        assert_eq!(way(b"host=vectis"), Way::Ports);
        let memory = Config::new(Way::Memory(0xfef0_0000), BDF);
        assert!(matches!(memory, Config::Memory(_)));
        assert!(matches!(Config::new(Way::Ports, BDF), Config::Ports(_)));
    }

    #[test]
    fn bars_are_sized_with_decode_off_and_restored() {
        let function = Function::new(BDF, FakeConfig::e1000e());
        let bar = |kind, address, size| {
            Some(Bar {
                kind,
                address,
                size,
            })
        };
        assert_eq!(
            function.bars,
            [
                bar(BarKind::Memory32, 0xfeb8_0000, 0x2_0000),
                bar(BarKind::Memory32, 0xfeba_0000, 0x2_0000),
                bar(BarKind::Io, 0xc000, 32),
                bar(BarKind::Memory32, 0xfebd_0000, 0x4000),
                None,
                None,
            ]
        );
        assert_eq!(function.config.writes_with_decode_on, 0);
        assert_eq!(function.config.dwords[1], 0x0010_0003);
        assert_eq!(function.config.dwords[4], 0xfeb8_0000);
    }

    #[test]
    fn a_64_bit_bar_takes_two_registers() {
        let mut config = FakeConfig::e1000e();
        config.dwords[4] = 0x0000_0004;
        config.dwords[5] = 0x0000_0008;
        config.bar_masks[0] = 0xfff0_0000;
        config.bar_masks[1] = 0xffff_ffff;
        let function = Function::new(BDF, config);
        assert_eq!(
            function.bars[0],
            Some(Bar {
                kind: BarKind::Memory64,
                address: 8 << 32,
                size: 0x10_0000
            })
        );
        assert_eq!(function.bars[1], None);
    }

    #[test]
    fn capability_walk_finds_and_ends() {
        let mut function = Function::new(BDF, FakeConfig::e1000e());
        assert_eq!(function.capability(0x11), Some(0xa0));
        assert_eq!(function.capability(0x05), Some(0xd0));
        assert_eq!(function.capability(0x09), None);
        function.config.dwords[0xa0 / 4] = 0x0000_c811;
        assert_eq!(function.capability(0x09), None, "a loop ends");
        function.config.dwords[1] &= !CAPABILITY_LIST;
        assert_eq!(function.capability(0x11), None, "no list, no capability");
    }

    #[test]
    fn enable_keeps_other_command_bits() {
        let mut function = Function::new(BDF, FakeConfig::e1000e());
        function.config.dwords[1] = 0x0010_0044;
        function.enable();
        assert_eq!(
            function.config.dwords[1], 0x0010_0442,
            "no bus mastering yet"
        );
        function.enable_bus_master();
        assert_eq!(function.config.dwords[1], 0x0010_0446);
    }
}
