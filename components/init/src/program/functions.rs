//! Finds the PCI functions that the image names, and hands their pages to components.

use core::fmt::Write as _;

use defmt::Display2Format;
use init::{Fate, GivenBehind, Told, share_out};
use pci::{
    Bdf, ConfigSpace as _, FunctionInfo, Mechanism1, MsixPage, NoMsix, PAGE_SIZE, Width,
    claim_small_bars, find_msix, place_bars, regs,
};
use sel4::cap::Granule;
use sel4::{CapRights, VmAttributes};
use spec::{FUNCTIONS, Function, FunctionId, Selector};
use zerocopy::IntoBytes as _;

use super::builder::Builder;
use super::fatal::fatal;
use super::{ports, screen};

/// The ports of configuration space, until init drops its authority.
pub struct ConfigPorts;

impl pci::ConfigPorts for ConfigPorts {
    fn read(&mut self, port: u16, width: Width) -> u32 {
        // The capability covers the ports at this time.
        ports::config()
            .ioport_read(port, width.bytes())
            .unwrap_or(u32::MAX)
    }
    fn write(&mut self, port: u16, width: Width, value: u32) {
        let _ = ports::config().ioport_write(port, width.bytes(), value);
    }
}

/// A function's configuration space as init looks at every function; the ones that are
/// assigned are then reached by their own page of the window, or by the ports.
pub type Space = Mechanism1<ConfigPorts>;

/// Returns the configuration space of any function.
pub const fn space(bdf: Bdf) -> Space {
    Mechanism1::new(bdf, ConfigPorts)
}

/// Reads a dword of any function.
pub fn read(bdf: Bdf, offset: u16) -> u32 {
    space(bdf).read32(offset)
}

/// Calls `visit` for every function that is there, until it says `true`.
pub fn each_function(buses: u64, visit: impl FnMut(Bdf) -> bool) {
    pci::each_function(buses.min(256) as u16, read, visit);
}

fn matches(function: &Function, bdf: Bdf) -> bool {
    let mut space = space(bdf);
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
    let buses = builder.places.buses;
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
            // A scan passes over what has no vendor: at its address it is named.
            let bdf = Bdf::from_requester_id(function.value as u16);
            let there = || space(bdf).read32(regs::REVISION) != u32::MAX;
            if function.selector == Selector::Address && there() {
                look_at(builder, function, bdf);
            }
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
    for (function, (_, info)) in functions.iter().zip(&assigned) {
        screen::leave(builder, function.name.as_str(), info);
    }
    for (function, (bdf, info)) in functions.iter().zip(&assigned) {
        assign_one(builder, function, *bdf, info);
    }
    assigned
}

/// Discovers a function.
fn look_at(builder: &Builder<'_>, function: &Function, bdf: Bdf) -> FunctionInfo {
    let guest = Bdf::from_requester_id(function.guest_bdf as u16);
    let permissive = function.permissive == 1;
    let buses = builder.places.buses;
    match init::look_at(&mut space(bdf), bdf, guest, permissive, buses, space) {
        Ok((mut info, given)) => {
            for (index, bridge) in (0..).zip(given) {
                if let Some(Ok(bridge)) = bridge {
                    defmt::warn!(
                        "device {=str}: BAR {=usize} at {=u64:#x}: {}",
                        function.name.as_str(),
                        index,
                        info.bars[index].address,
                        Display2Format(&GivenBehind(bridge))
                    );
                }
            }
            info.intx = function.intx;
            info.reset_optional = function.reset_optional as u16;
            tell_msix(function.name.as_str(), bdf, &info);
            info
        }
        Err(stop) => fatal!("device {} at {bdf}: {stop}", function.name.as_str()),
    }
}

/// Reports an MSI-X capability that cannot be offered.
fn tell_msix(name: &str, bdf: Bdf, info: &FunctionInfo) {
    if info.msix.capability == 0 {
        return;
    }
    let at = info.msix.capability as u16;
    if let Err(none) = find_msix(&mut space(bdf), at, &info.bars) {
        no_msix(name, none);
    }
}

fn no_msix(name: &str, why: NoMsix) {
    defmt::warn!("device {=str}: no MSI-X: {=str}", name, why.reason());
}

/// Gives the functions of each guest their addresses and slots for BARs, and reports each
/// BAR that is not as on the machine.
fn place(functions: &[Function], assigned: &mut Found) {
    for (first, guest) in functions.iter().enumerate() {
        let of_guest = |other: &&Function| other.bar_cnode == guest.bar_cnode;
        if functions[..first].iter().any(|other| of_guest(&other)) {
            continue;
        }
        let its = || {
            functions
                .iter()
                .zip(0..)
                .filter(|(other, _)| of_guest(other))
        };
        let mut infos: heapless::Vec<FunctionInfo, FUNCTIONS> =
            its().map(|(_, index)| assigned[index].1).collect();
        place_bars(&mut infos);
        let mut slots = guest.bar_slot..guest.bar_slot + guest.bar_slots;
        for ((function, index), mut placed) in its().zip(infos) {
            let info = &mut assigned[index].1;
            let name = function.name.as_str();
            if info.msix.entries != 0 && placed.msix.entries == 0 {
                no_msix(name, NoMsix::Unreachable);
            }
            if !claim_small_bars(&mut placed, read) {
                no_msix(name, NoMsix::Shared);
            }
            slots = share_out(&mut placed, slots);
            tell_bars(name, &placed);
            *info = placed;
        }
    }
}

/// Reports each BAR that the guest has elsewhere than the machine, or not at all.
fn tell_bars(name: &str, info: &FunctionInfo) {
    for (index, bar) in info.bars.iter().enumerate() {
        let fate = Fate::of(info, index);
        if !matches!(fate, Fate::None | Fate::Kept | Fate::Claimed) {
            defmt::warn!(
                "device {=str}: BAR {=usize} at {=u64:#x}: {}",
                name,
                index,
                bar.address,
                Display2Format(&Told(info, index))
            );
        }
    }
}

fn assign_one(builder: &mut Builder<'_>, function: &Function, bdf: Bdf, info: &FunctionInfo) {
    let name = function.name.as_str();
    if let Some(page) = builder.places.config_page(bdf) {
        let config = builder.device_page(name, page);
        map_device(
            builder,
            config,
            function.config_vspace,
            function.config_address,
            name,
        );
        builder.give(config, function.config_cnode, function.config_slot, name);
    }
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

/// Hands the pages with MSI-X table and PBA to msix, all others and the ports to the vmm. A page
/// with registers by which the function is reset is pci-config's as well.
fn give_bars(builder: &mut Builder<'_>, function: &Function, info: &FunctionInfo) {
    let name = function.name.as_str();
    let machine = |page: &MsixPage| {
        // Discovery names BARs that are there; one that is smaller than a page may begin
        // anywhere on it.
        let first = info.bars[page.bar as usize].address & !(PAGE_SIZE - 1);
        first + u64::from(page.page) * PAGE_SIZE
    };
    let pages = info.msix.pages();
    for (index, page) in (0..).zip(pages) {
        // Small BARs may lie on one page.
        let before = pages
            .iter()
            .position(|other| machine(other) == machine(page));
        let frame = match before.filter(|&before| before < index as usize) {
            Some(before) => {
                let from = builder.place(function.msix_cnode, function.msix_slot + before as u32);
                builder.copy_from(&from, CapRights::read_write(), name)
            }
            None => builder.device_page(name, machine(page)),
        };
        let address = function.msix_address + u64::from(index) * PAGE_SIZE;
        map_device(builder, frame, function.msix_vspace, address, name);
        builder.give(frame, function.msix_cnode, function.msix_slot + index, name);
    }
    let registers = info.reset_registers();
    for (bar, bar_info) in info.bars.iter().enumerate() {
        let first_slot = bar_info.first_slot as u32;
        if bar_info.has_ports() && first_slot != 0 {
            let slot = builder.slot();
            ports::make(name, &bar_info.ports(), slot);
            builder.give(slot, function.bar_cnode, first_slot, name);
        }
        for (number, grain) in (0..).zip(info.grains(bar)) {
            let reset = registers.and_then(|registers| registers.page_of(bar, grain.offset));
            if first_slot == 0 && reset.is_none() {
                continue;
            }
            let address = bar_info.address + grain.offset;
            let frame = builder.device_frame(name, address, grain.large);
            if let Some(page) = reset {
                let copy = builder.copy(frame, CapRights::read_write(), name);
                let address = function.registers_address + page * PAGE_SIZE;
                map_device(builder, copy, function.config_vspace, address, name);
                let slot = function.registers_slot + page as u32;
                builder.give(copy, function.config_cnode, slot, name);
            }
            if first_slot != 0 {
                builder.give(frame, function.bar_cnode, first_slot + number, name);
            }
        }
    }
}
