//! Finds the PCI functions that the image names, and hands their pages to components.

use pci::regs::{CONFIG_ADDRESS, CONFIG_DATA, CONFIG_ENABLE};
use pci::{
    BAR_WINDOW, BarInfo, Bdf, ConfigSpace, FunctionInfo, MODEL_RESET_PAGES, MsixInfo, MsixPage,
    PAGE_SIZE, discover, place_bars, regs,
};
use sel4::cap::Granule;
use sel4::{CapRights, VmAttributes};
use spec::{FUNCTIONS, Function, FunctionId, Selector};
use zerocopy::IntoBytes as _;

use super::builder::Builder;
use super::fatal::fatal;
use super::ports;

/// Configuration mechanism #1 (PCI Local Bus 3.0 section 3.2.2.3.2): init uses
/// it to look at every function; the ones that are assigned are then reached
/// by their own page of the ECAM window.
pub struct Mechanism1(pub Bdf);

impl Mechanism1 {
    fn select(&self, offset: u16) {
        let address =
            CONFIG_ENABLE | u32::from(self.0.requester_id()) << 8 | u32::from(offset & 0xfc);
        // The capability covers the port at this time.
        let _ = ports::config().ioport_out32(CONFIG_ADDRESS, address);
    }
}

impl ConfigSpace for Mechanism1 {
    fn read32(&mut self, offset: u16) -> u32 {
        self.select(offset);
        ports::config().ioport_in32(CONFIG_DATA).unwrap_or(u32::MAX)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.select(offset);
        let _ = ports::config().ioport_out32(CONFIG_DATA, value);
    }
    fn write16(&mut self, offset: u16, value: u16) {
        self.select(offset);
        let _ = ports::config().ioport_out16(CONFIG_DATA + (offset & 2), value);
    }
}

/// Calls `visit` for every function that is there, until it says `true`.
fn each_function(buses: u64, visit: impl FnMut(Bdf) -> bool) {
    let read = |bdf, offset| Mechanism1(bdf).read32(offset);
    pci::each_function(buses.min(256) as u16, read, visit);
}

fn matches(function: &Function, bdf: Bdf) -> bool {
    let mut space = Mechanism1(bdf);
    let value = function.value;
    if function.selector == Selector::Address {
        u32::from(bdf.requester_id()) == value
    } else if function.selector == Selector::VendorDevice {
        space.read32(regs::VENDOR).rotate_right(16) == value
    } else {
        space.read32(regs::REVISION) >> 8 == value
    }
}

fn wanted(function: &Function) -> heapless::String<48> {
    use core::fmt::Write as _;
    let mut text = heapless::String::new();
    let value = function.value;
    // 48 bytes hold each of these.
    let _ = if function.selector == Selector::Address {
        write!(text, "at {}", Bdf::from_requester_id(value as u16))
    } else if function.selector == Selector::VendorDevice {
        write!(text, "{:04x}:{:04x}", value >> 16, value & 0xffff)
    } else {
        write!(text, "of class {value:06x}")
    };
    text
}

/// The functions found, in the order of the image's records.
pub type Found = heapless::Vec<(Bdf, FunctionInfo), FUNCTIONS>;

/// Finds every function, and hands its pages to components.
pub fn assign(builder: &mut Builder<'_>) -> Found {
    let functions = builder.system.functions;
    let buses = builder.system.header.buses;
    let mut assigned = Found::new();
    for (index, function) in (0..).zip(functions) {
        let mut found = None;
        each_function(buses, |bdf| {
            let taken = assigned.iter().any(|(taken, _)| *taken == bdf);
            if !taken && matches(function, bdf) {
                found = Some(bdf);
            }
            found.is_some()
        });
        let name = function.name.as_str();
        let Some(bdf) = found else {
            fatal!(
                "device {name} ({}) is not in this machine: see [device.{name}] in system.toml",
                wanted(function)
            );
        };
        let info = FunctionInfo {
            index: FunctionId(index),
            ..look_at(builder, function, bdf)
        };
        if assigned.push((bdf, info)).is_err() {
            fatal!("more than {FUNCTIONS} devices");
        }
    }
    place(functions, &mut assigned);
    for (function, (bdf, info)) in functions.iter().zip(&mut assigned) {
        assign_one(builder, function, *bdf, info);
    }
    assigned
}

/// Discovers a function.
fn look_at(builder: &Builder<'_>, function: &Function, bdf: Bdf) -> FunctionInfo {
    let name = function.name.as_str();
    let guest = Bdf::from_requester_id(function.guest_bdf as u16);
    let permissive = function.permissive == 1;
    let Some(mut info) = discover(&mut Mechanism1(bdf), bdf, guest, permissive) else {
        fatal!("device {name} at {bdf} is no endpoint: a bridge cannot be assigned");
    };
    info.intx = function.intx;
    info.reset_optional = function.reset_optional as u16;
    if u64::from(bdf.bus()) >= builder.system.header.buses {
        fatal!("device {name} at {bdf} is outside the board's ECAM window");
    }
    for (index, bar) in info.bars.iter().enumerate() {
        if bar.is_memory() && bar.size >= PAGE_SIZE && bar.address == 0 {
            fatal!("device {name}: the firmware gave BAR {index} no address");
        }
    }
    info
}

/// Assigns guest addresses to BARs that lie where no vmm maps them, and reports them.
fn place(functions: &[Function], assigned: &mut Found) {
    let mut infos: heapless::Vec<FunctionInfo, FUNCTIONS> =
        assigned.iter().map(|(_, info)| *info).collect();
    place_bars(&mut infos);
    for ((function, (_, info)), placed) in functions.iter().zip(assigned).zip(infos) {
        let name = function.name.as_str();
        for (index, bar) in placed.bars.iter().enumerate() {
            if !bar.is_memory() || bar.size < PAGE_SIZE {
                continue;
            }
            if !bar.is_reachable() {
                defmt::warn!(
                    "device {=str}: BAR {=usize} at {=u64:#x} decodes nothing: the guest has no room for its {=u64} MiB between {=u64:#x} and {=u64:#x}",
                    name,
                    index,
                    bar.address,
                    bar.size >> 20,
                    BAR_WINDOW.start,
                    BAR_WINDOW.end
                );
            } else if bar.guest != bar.address {
                defmt::warn!(
                    "device {=str}: BAR {=usize} at {=u64:#x} is outside the window for BARs: the guest has it at {=u64:#x}",
                    name,
                    index,
                    bar.address,
                    bar.guest
                );
            }
        }
        *info = placed;
        hide_shared_tables(name, info);
    }
}

/// Hides a table or PBA in a BAR that is smaller than a page, unless nothing
/// else lies on its page, which msix is given (M16).
fn hide_shared_tables(name: &str, info: &mut FunctionInfo) {
    let page = |bar: &BarInfo| bar.address & !(PAGE_SIZE - 1);
    let small = |bar: u32| {
        info.bars
            .get(bar as usize)
            .filter(|bar| bar.size < PAGE_SIZE)
    };
    let bars = [small(info.msix.table_bar), small(info.msix.pba_bar)];
    let shared = bars.into_iter().flatten().any(|bar| {
        let mut others = 0;
        // A look at every function of the machine: only for a BAR of this kind.
        pci::each_function(
            256,
            |bdf, offset| Mechanism1(bdf).read32(offset),
            |bdf| {
                let mut space = Mechanism1(bdf);
                let bridge = space.read32(regs::HEADER_TYPE & !3) >> 16 & 0x7f != 0;
                let registers = if bridge { 2 } else { 6 };
                for index in 0..registers {
                    let low = space.read32(regs::BAR0 + 4 * index);
                    let wide = low & 7 == 4 && index + 1 < registers;
                    let high = if wide {
                        space.read32(regs::BAR0 + 4 * index + 4)
                    } else {
                        0
                    };
                    let address = u64::from(high) << 32 | u64::from(low & !15);
                    let there = low & 1 == 0 && address != 0;
                    others += u32::from(there && address & !(PAGE_SIZE - 1) == page(bar));
                }
                false
            },
        );
        others > 1
    });
    if info.msix.entries != 0 && shared {
        defmt::warn!(
            "device {=str}: no MSI-X: another BAR lies on the page of its table or PBA",
            name
        );
        info.msix = MsixInfo {
            capability: info.msix.capability,
            ..MsixInfo::default()
        };
    }
}

fn assign_one(builder: &mut Builder<'_>, function: &Function, bdf: Bdf, info: &mut FunctionInfo) {
    let name = function.name.as_str();
    let page = builder.system.header.ecam + (u64::from(bdf.requester_id()) << 12);
    let config = builder.device_page(name, page);
    map_device(
        builder,
        config,
        function.config_vspace,
        function.config_address,
        name,
    );
    builder.give(config, function.config_cnode, function.config_slot, name);
    give_bars(builder, function, info);
    builder.write(function.info, info.as_bytes());
    defmt::info!(
        "device {=str}: {=u16:04x}:{=u16:04x} at {=str}, {=u32} MSI-X entries",
        name,
        info.vendor,
        info.device,
        text(bdf).as_str(),
        info.msix.entries
    );
}

fn text(bdf: Bdf) -> heapless::String<8> {
    use core::fmt::Write as _;
    let mut text = heapless::String::new();
    let _ = write!(text, "{bdf}");
    text
}

/// Maps a page of a device into a component.
pub fn map_device(builder: &mut Builder<'_>, page: usize, vspace: u32, address: u64, name: &str) {
    let vspace = builder.cap(vspace, 0);
    builder.map(
        Granule::from_bits(page as u64),
        vspace,
        address as usize,
        CapRights::read_write(),
        VmAttributes::UNCACHEABLE,
        name,
    );
}

/// Hands the pages with MSI-X table and PBA to msix, all others to the vmm. A page
/// with registers by which a model is reset is pci-config's as well.
fn give_bars(builder: &mut Builder<'_>, function: &Function, info: &mut FunctionInfo) {
    let name = function.name.as_str();
    let mut next_slot = function.bar_slot;
    let end = function.bar_slot + function.bar_slots;
    for bar in 0..info.bars.len() {
        let bar_info = info.bars[bar];
        if !bar_info.is_memory() {
            continue;
        }
        let claimed = |page: u64| {
            let claimed = MsixPage {
                bar: bar as u32,
                page: page as u32,
            };
            info.msix.pages().iter().position(|p| *p == claimed)
        };
        let give_claimed = |builder: &mut Builder<'_>, frame, index: usize| {
            let address = function.msix_address + index as u64 * PAGE_SIZE;
            map_device(builder, frame, function.msix_vspace, address, name);
            let slot = function.msix_slot + index as u32;
            builder.give(frame, function.msix_cnode, slot, name);
        };
        if bar_info.size < PAGE_SIZE {
            if let Some(index) = claimed(0) {
                let frame = builder.device_page(name, bar_info.address & !(PAGE_SIZE - 1));
                give_claimed(builder, frame, index);
                continue;
            }
            defmt::warn!(
                "device {=str}: BAR {=usize} of {=u64} bytes stays unmapped: the rest of its page may be another function's",
                name,
                bar,
                bar_info.size
            );
            continue;
        }
        let pages = bar_info.size / PAGE_SIZE;
        if pages > u64::from(end - next_slot) {
            fatal!(
                "device {name}: BAR {bar} has {} KiB, and {} KiB are left: the functions of a guest share 16 MiB for their BARs equally; give the guest fewer devices, or another device",
                bar_info.size >> 10,
                (u64::from(end - next_slot) * PAGE_SIZE) >> 10
            );
        }
        let first_slot = next_slot;
        for page in 0..pages {
            let frame = builder.device_page(name, bar_info.address + page * PAGE_SIZE);
            match claimed(page) {
                Some(index) => give_claimed(builder, frame, index),
                None => {
                    if bar == 0 && page < MODEL_RESET_PAGES && info.has_model_reset() {
                        let vspace = function.config_vspace;
                        let address = function.registers_address + page * PAGE_SIZE;
                        let copy = builder.copy(frame, CapRights::read_write(), name);
                        map_device(builder, copy, vspace, address, name);
                        let slot = function.registers_slot + page as u32;
                        builder.give(copy, function.config_cnode, slot, name);
                    }
                    builder.give(frame, function.bar_cnode, first_slot + page as u32, name);
                }
            }
        }
        info.bars[bar].first_slot = u64::from(first_slot);
        next_slot += pages as u32;
    }
}
