//! Finds the PCI functions that the image names and gives their pages out.

use pci::{Bdf, ConfigSpace, FunctionInfo, MsixPage, PAGE_SIZE, discover, regs};
use sel4::cap::Granule;
use sel4::init_thread::slot;
use sel4::{CapRights, VmAttributes};
use spec::{FUNCTIONS, Function, Selector};
use zerocopy::IntoBytes as _;

use super::builder::Builder;
use super::fatal::fatal;

/// Configuration mechanism #1 (PCI Local Bus 3.0 section 3.2.2.3.2): init uses
/// it to look at every function; the ones that are assigned are then reached
/// by their own page of the ECAM window.
pub struct Mechanism1(pub Bdf);

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;
/// Header type 1 is a PCI-to-PCI bridge; its secondary bus number is here.
const SECONDARY_BUS: u16 = 0x19;

impl Mechanism1 {
    fn select(&self, offset: u16) {
        let address =
            CONFIG_ENABLE | u32::from(self.0.requester_id()) << 8 | u32::from(offset & 0xfc);
        // The capability covers all ports at this time.
        let _ = slot::IO_PORT_CONTROL
            .cap()
            .ioport_out32(CONFIG_ADDRESS, address);
    }
}

impl ConfigSpace for Mechanism1 {
    fn read32(&mut self, offset: u16) -> u32 {
        self.select(offset);
        slot::IO_PORT_CONTROL
            .cap()
            .ioport_in32(CONFIG_DATA)
            .unwrap_or(u32::MAX)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.select(offset);
        let _ = slot::IO_PORT_CONTROL.cap().ioport_out32(CONFIG_DATA, value);
    }
    fn write16(&mut self, offset: u16, value: u16) {
        self.select(offset);
        let _ = slot::IO_PORT_CONTROL
            .cap()
            .ioport_out16(CONFIG_DATA + (offset & 2), value);
    }
}

fn read8(bdf: Bdf, offset: u16) -> u8 {
    (Mechanism1(bdf).read32(offset & !3) >> (8 * (offset & 3))) as u8
}

/// Calls `visit` for every function that is there, bus by bus, until it says
/// `true`. Buses behind bridges come in the order in which their bridges do.
fn each_function(mut visit: impl FnMut(Bdf) -> bool) {
    let mut buses = [false; 256];
    buses[0] = true;
    for bus in 0..=255u8 {
        if !buses[usize::from(bus)] {
            continue;
        }
        for device in 0..32 {
            for function in 0..8 {
                let Some(bdf) = Bdf::new(bus, device, function) else {
                    continue;
                };
                let here = Mechanism1(bdf).read32(regs::VENDOR) as u16 != 0xffff;
                if here {
                    if visit(bdf) {
                        return;
                    }
                    if read8(bdf, regs::HEADER_TYPE) & 0x7f == 1 {
                        // A bridge's secondary bus has a higher number.
                        let secondary = read8(bdf, SECONDARY_BUS);
                        buses[usize::from(secondary)] |= secondary > bus;
                    }
                }
                let multi = read8(bdf, regs::HEADER_TYPE) & 0x80 != 0;
                if function == 0 && !(here && multi) {
                    break;
                }
            }
        }
    }
}

fn matches(function: &Function, bdf: Bdf) -> bool {
    let mut space = Mechanism1(bdf);
    let value = function.value;
    if function.selector == Selector::Address as u32 {
        u32::from(bdf.requester_id()) == value
    } else if function.selector == Selector::VendorDevice as u32 {
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
    let _ = if function.selector == Selector::Address as u32 {
        write!(text, "at {}", Bdf::from_requester_id(value as u16))
    } else if function.selector == Selector::VendorDevice as u32 {
        write!(text, "{:04x}:{:04x}", value >> 16, value & 0xffff)
    } else {
        write!(text, "of class {value:06x}")
    };
    text
}

/// What was found, in the order of the image's records.
pub type Found = heapless::Vec<(Bdf, FunctionInfo), FUNCTIONS>;

/// Finds every function and gives its pages out.
pub fn assign(builder: &mut Builder<'_>) -> Found {
    let functions = builder.system.functions;
    let mut assigned = Found::new();
    for function in functions {
        let mut found = None;
        each_function(|bdf| {
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
        let info = assign_one(builder, function, bdf);
        if assigned.push((bdf, info)).is_err() {
            fatal!("more than {FUNCTIONS} devices");
        }
    }
    assigned
}

fn assign_one(builder: &mut Builder<'_>, function: &Function, bdf: Bdf) -> FunctionInfo {
    let name = function.name.as_str();
    let guest = Bdf::from_requester_id(function.guest_bdf as u16);
    let permissive = function.permissive == 1;
    let Some(mut info) = discover(&mut Mechanism1(bdf), bdf, guest, permissive) else {
        fatal!("device {name} at {bdf} is no endpoint: a bridge cannot be assigned");
    };
    info.intx = function.intx;
    if u64::from(bdf.bus()) >= builder.system.header.buses {
        fatal!("device {name} at {bdf} is outside the board's ECAM window");
    }
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
    give_bars(builder, function, &mut info);
    builder.write(function.info, info.as_bytes());
    defmt::info!(
        "device {=str}: {=u16:04x}:{=u16:04x} at {=str}, {=u32} MSI-X entries",
        name,
        info.vendor,
        info.device,
        text(bdf).as_str(),
        info.msix.entries
    );
    info
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

/// The pages with MSI-X table and PBA go to msix, all the others to the vmm.
fn give_bars(builder: &mut Builder<'_>, function: &Function, info: &mut FunctionInfo) {
    let name = function.name.as_str();
    let mut next_slot = function.bar_slot;
    let end = function.bar_slot + function.bar_slots;
    for bar in 0..info.bars.len() {
        let bar_info = info.bars[bar];
        if !bar_info.is_memory() {
            continue;
        }
        if bar_info.size < PAGE_SIZE {
            defmt::warn!(
                "device {=str}: BAR {=usize} of {=u64} bytes stays unmapped: the rest of its page may be another function's",
                name,
                bar,
                bar_info.size
            );
            continue;
        }
        if bar_info.address == 0 {
            fatal!("device {name}: the firmware gave BAR {bar} no address");
        }
        let pages = bar_info.size / PAGE_SIZE;
        if pages > u64::from(end - next_slot) {
            fatal!(
                "device {name}: BAR {bar} has {pages} pages, and {} capability slots are left",
                end - next_slot
            );
        }
        info.bars[bar].first_slot = u64::from(next_slot);
        for page in 0..pages {
            let frame = builder.device_page(name, bar_info.address + page * PAGE_SIZE);
            let claimed = MsixPage {
                bar: bar as u32,
                page: page as u32,
            };
            match info.msix.pages().iter().position(|p| *p == claimed) {
                Some(index) => {
                    let address = function.msix_address + index as u64 * PAGE_SIZE;
                    map_device(builder, frame, function.msix_vspace, address, name);
                    let slot = function.msix_slot + index as u32;
                    builder.give(frame, function.msix_cnode, slot, name);
                }
                None => builder.give(frame, function.bar_cnode, next_slot + page as u32, name),
            }
        }
        next_slot += pages as u32;
    }
}
