//! Asks the components' logic about each function.

use std::ops::Range;

use acpi_tables::{Found, Reserved, Unusable};
use channel::pci_config::PciConfig;
use channel::{Caller, Local, Message, irq_router, msix as msix_channel};
use init::{Extent, Fate, GivenBehind, Places, Stated, Stop, Told, settle};
use pci::{
    Bdf, CapabilityList, ConfigSpace, FunctionInfo, GUEST_BAR_SLOTS, Given, NoFunction, NoMsix,
    PAGE_SIZE, Virtio, Width, claim_small_bars, find_msix, give_addresses, place_bars, regs,
};
use pci_config::{Functions, Method};
use serde::Serialize;
use shm::Kept;
use spec::{BY_TABLES, FunctionId};

use crate::acpi::{self, Memory};
use crate::dump::Dump;
use crate::group::Groups;
use crate::machine::Device;

/// Longest ACPI table that init reads.
const TABLE: usize = 4096;
/// Buses of a segment, on which functions are where no table says how far the window goes.
const BUSES: u64 = 256;
/// The vmm's badge, and the first of a vmm's slots for BAR pages: any but 0.
const VMM: Caller = Caller(1);
const FIRST_SLOT: u32 = 1;

/// Whether a system with the function starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The dump does not tell.
    Unknown,
    /// It is a bridge, which nobody assigns.
    Bridge,
}

/// A BAR.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// Its position.
    pub index: usize,
    /// `io`, `mem32` or `mem64`.
    pub kind: &'static str,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
    /// Where the machine has it.
    pub address: u64,
    /// Its size; a guess if `size_known` is false.
    pub size: u64,
    /// Whether the dump tells the size.
    pub size_known: bool,
    /// Whether a guest reaches it.
    pub works: bool,
    /// What becomes of it.
    pub reason: String,
}

/// Table or PBA: a BAR and an offset in it.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The BAR.
    pub bar: u32,
    /// Byte offset.
    pub offset: u32,
}

/// The function's MSI-X.
#[derive(Clone, Debug, Serialize)]
pub struct MsixAnswer {
    /// Entries; 0 if it is not offered.
    pub vectors: u32,
    /// The table.
    pub table: Option<Place>,
    /// The pending bits.
    pub pba: Option<Place>,
    /// Why it is not offered.
    pub reason: Option<&'static str>,
}

/// A page of a BAR on which each access of the guest traps.
#[derive(Clone, Debug, Serialize)]
pub struct TrappedPage {
    /// The BAR.
    pub bar: u32,
    /// Byte offset of the page in the BAR.
    pub offset: u64,
    /// Other registers on the page: byte offsets in the BAR.
    pub shared: Vec<Range<u32>>,
}

/// A capability.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Offset in configuration space.
    pub offset: u16,
    /// Its id.
    pub id: u8,
    /// Its name.
    pub name: &'static str,
    /// Whether the guest sees it.
    pub shown: bool,
}

/// All that is said of a function.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// PCI segment.
    pub segment: u32,
    /// Address on it.
    pub address: String,
    /// What `lspci` calls it.
    pub title: String,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Whether a system with it starts.
    pub starts: Start,
    /// Why not, or what is not known.
    pub reason: Option<String>,
    /// Keys of system.toml that it needs, each with its cause.
    pub needs: Vec<String>,
    /// What `reset` of its guest does, in the order in which it is tried.
    pub reset: Vec<String>,
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// Its MSI-X capability.
    pub msix: Option<MsixAnswer>,
    /// Messages of plain MSI that the guest is offered; 0 without.
    pub msi: u32,
    /// Pages that trap.
    pub trapped: Vec<TrappedPage>,
    /// Its capabilities, in list order.
    pub capabilities: Vec<Shown>,
    /// Whether it has extended capabilities, none of which a guest sees.
    pub extended: bool,
    /// Where the machine's configuration window is, by MCFG.
    pub window: Option<String>,
    /// The IOMMU unit, or why it cannot be used; nothing without its ACPI table.
    pub iommu: Option<String>,
    /// Other functions that reach it, or that it reaches, without the unit: they go to one
    /// guest.
    pub group: Vec<String>,
    /// Why they do.
    pub group_reason: Option<String>,
}

/// Inspects the functions of one machine, each as the only one of a guest. `tables` are
/// its ACPI tables, as far as they are known.
#[must_use]
pub fn inspect(functions: &[Dump], tables: &[Vec<u8>]) -> Vec<Verdict> {
    let groups = Groups::new(functions);
    let window = acpi::has(tables, &[b"MCFG"]).then(|| window(tables));
    functions
        .iter()
        .map(|dump| {
            let mut inspection = Inspection::of(functions, dump, tables);
            let buses = inspection.tell_window(window.as_ref());
            let mut verdict = inspection.run(buses);
            if let Some(group) = groups.of(dump) {
                verdict.group = group.others.iter().map(Bdf::to_string).collect();
                verdict.group_reason = Some(group.why);
            }
            if let (Some(iommu), Some(carried)) = (&mut verdict.iommu, groups.carried(dump)) {
                *iommu += &format!(
                    "; its requests carry the id {carried} of a conventional bridge, and reach \
                     nothing where a unit is in force"
                );
            }
            verdict
        })
        .collect()
}

struct Inspection<'a> {
    machine: &'a [Dump],
    dump: &'a Dump,
    device: Device,
    /// Memory that firmware wants it to reach.
    reserved: Vec<Reserved>,
    verdict: Verdict,
}

impl<'a> Inspection<'a> {
    fn of(machine: &'a [Dump], dump: &'a Dump, tables: &[Vec<u8>]) -> Self {
        let mut device = Device::new(dump);
        let id = device.read32(regs::VENDOR);
        let known = acpi::has(tables, &[b"DMAR", b"IVRS"]);
        let unit = known.then(|| unit(tables, machine, dump.bdf));
        let reserved = match &unit {
            Some(Ok(found)) => found.reserved(dump.bdf.requester_id()).copied().collect(),
            Some(Err(_)) | None => Vec::new(),
        };
        let verdict = Verdict {
            segment: dump.segment,
            address: dump.bdf.to_string(),
            title: dump.title.clone(),
            vendor: id as u16,
            device: (id >> 16) as u16,
            starts: Start::Yes,
            reason: None,
            needs: Vec::new(),
            reset: Vec::new(),
            bars: Vec::new(),
            msix: None,
            msi: 0,
            trapped: Vec::new(),
            capabilities: Vec::new(),
            extended: false,
            window: None,
            iommu: unit.as_ref().map(|unit| match unit {
                Ok(found) => found.to_string(),
                Err(unusable) => format!("cannot be used: {unusable}"),
            }),
            group: Vec::new(),
            group_reason: None,
        };
        Self {
            machine,
            dump,
            device,
            reserved,
            verdict,
        }
    }

    /// Records why the system does not start, or why that is not known; the first
    /// reason is the one at which the boot stops.
    fn conclude(&mut self, starts: Start, reason: impl ToString) {
        if self.verdict.starts == Start::Yes {
            self.verdict.starts = starts;
            self.verdict.reason = Some(reason.to_string());
        }
    }

    /// Tells of the configuration window, if a table does. Returns its buses.
    fn tell_window(&mut self, window: Option<&Result<Places, String>>) -> u64 {
        match window {
            None => BUSES,
            Some(Ok(places)) => {
                let last = places.buses - 1;
                let window = match places.ecam {
                    0 => "none (MCFG): configuration space is reached by ports".to_owned(),
                    base => format!("{base:#x}, buses 0 to {last} (MCFG)"),
                };
                self.verdict.window = Some(window);
                places.buses
            }
            Some(Err(unfit)) => {
                self.conclude(Start::No, unfit);
                BUSES
            }
        }
    }

    fn run(mut self, buses: u64) -> Verdict {
        let bdf = self.dump.bdf;
        let guest = Bdf::from_requester_id(0x08);
        if self.dump.segment != 0 {
            let reason = "it is on another PCI segment than 0, which nobody here looks at";
            self.conclude(Start::No, reason);
        }
        let machine = self.machine;
        let open = |bdf| Other::new(machine, bdf);
        let (mut info, given) =
            match init::look_at(&mut self.device, bdf, guest, false, buses, open) {
                Ok(found) => found,
                Err(stop @ Stop::NoFunction(none)) => {
                    let starts = match none {
                        NoFunction::Header(1 | 2) => Start::Bridge,
                        _ => Start::No,
                    };
                    self.conclude(starts, stop);
                    return self.verdict;
                }
                Err(stop) => {
                    self.conclude(Start::No, stop);
                    // The rest is told all the same.
                    match pci::discover(&mut self.device, bdf, guest, false) {
                        Ok(mut info) => {
                            let given = give_addresses(&mut self.device, &mut info, open);
                            (info, given)
                        }
                        Err(_) => return self.verdict,
                    }
                }
            };
        let before = info.msix;
        place_bars(core::slice::from_mut(&mut info));
        let mut why = None;
        if before.entries != 0 && info.msix.entries == 0 {
            why = Some(NoMsix::Unreachable);
        }
        let read = |bdf, offset| read_of(machine, bdf, offset);
        if !claim_small_bars(&mut info, read) {
            why = Some(NoMsix::Shared);
        }
        init::share_out(&mut info, FIRST_SLOT..FIRST_SLOT + GUEST_BAR_SLOTS);
        self.tell_bars(&info, &given);
        let list = CapabilityList::read(&mut self.device);
        let cut = list
            .as_slice()
            .iter()
            .any(|at| usize::from(at.offset) >= self.dump.config.len());
        if cut {
            let reason = "the dump ends before its capabilities: run lspci -vvxxxx as root";
            self.conclude(Start::Unknown, reason);
            return self.verdict;
        }
        self.tell_msix(&info, why);
        self.tell_trapped(&info);
        self.tell_guest(&info, &list);
        self.verdict.extended =
            self.dump.config.len() > 256 && !matches!(self.device.read32(0x100), 0 | u32::MAX);
        if self.verdict.reset.is_empty() {
            let need = "reset = \"optional\": nothing resets it, and without the key its guest \
                        does not start again";
            self.verdict.needs.push(need.to_owned());
        }
        let need = match init::extent(&info) {
            Extent::All => "only if the measurement at boot finds that it is not confined",
            Extent::Memory => "the measurement at boot is of memory only",
            Extent::Nothing if pci::is_virtio(&info) => {
                "a virtio function passes an IOMMU by unless its machine puts it behind, which is \
                 measured at boot of memory only"
            }
            Extent::Nothing => "what it reaches is not measured",
        };
        self.verdict
            .needs
            .push(format!("dma = \"trusted\": {need}"));
        for reserved in &self.reserved {
            self.verdict.needs.push(format!(
                "firmware-memory = \"withhold\" or \"map\": firmware wants it to reach {reserved}"
            ));
        }
        self.verdict
    }

    fn tell_bars(&mut self, info: &FunctionInfo, given: &Given) {
        for (index, bar) in info.bars.iter().enumerate() {
            let fate = Fate::of(info, index);
            if fate == Fate::None {
                continue;
            }
            let told = Told(info, index);
            let reason = match given[index] {
                Some(Err(why)) => Stop::NoAddress(index, why).to_string(),
                Some(Ok(bridge)) => format!("{}; {told}", GivenBehind(bridge)),
                None => told.to_string(),
            };
            self.verdict.bars.push(Bar {
                index,
                kind: match bar.kind {
                    pci::BarKind::None => "none",
                    pci::BarKind::Io => "io",
                    pci::BarKind::Memory32 => "mem32",
                    pci::BarKind::Memory64 => "mem64",
                },
                prefetchable: bar.prefetchable != 0,
                address: bar.address,
                size: bar.size,
                size_known: self.device.sized[index],
                works: fate.works() && !matches!(given[index], Some(Err(_))),
                reason,
            });
        }
    }

    fn tell_msix(&mut self, info: &FunctionInfo, why: Option<NoMsix>) {
        let at = info.msix.capability;
        if at == 0 {
            return;
        }
        let found = find_msix(&mut self.device, at as u16, &info.bars);
        let why = why.or(found.err());
        let place = |bar, offset| Some(Place { bar, offset });
        let (table, pba) = match found {
            Ok(msix) => (
                place(msix.table_bar, msix.table_offset),
                place(msix.pba_bar, msix.pba_offset),
            ),
            Err(_) => (None, None),
        };
        self.verdict.msix = Some(MsixAnswer {
            vectors: info.msix.entries,
            table,
            pba,
            reason: why.map(NoMsix::reason),
        });
    }

    fn tell_trapped(&mut self, info: &FunctionInfo) {
        for page in info.msix.pages() {
            let offset = u64::from(page.page) * PAGE_SIZE;
            self.verdict.trapped.push(TrappedPage {
                bar: page.bar,
                offset,
                shared: beside(info, page.bar as u8, offset),
            });
        }
    }

    /// Starts pci-config with the function, and looks at it as the guest does.
    fn tell_guest(&mut self, info: &FunctionInfo, list: &CapabilityList) {
        // msix and irq-router agree to everything.
        let agree = || Local(|_: Message| Message::default());
        let msix = msix_channel::control::Client(agree());
        let router = irq_router::msi::Client(agree());
        let kept = Kept::<{ pci_config::kept_words(1) }>::new();
        let mut hardware = self.device.clone();
        hardware.has_registers = info.reset_registers().is_some();
        let mut config: Functions<'_, _, _, 1> = Functions::new(msix, router);
        config.take_over([(*info, VMM, hardware)], &kept);
        let methods = config.reset_methods(FunctionId(0));
        self.verdict.reset = methods.map(|way: Method| way.to_string()).collect();
        let mut guest = Guest(|offset| {
            let value = config.read(VMM, info.guest(), offset, Width::Dword);
            value.unwrap_or(u32::MAX)
        });
        let seen = CapabilityList::read(&mut guest);
        for capability in list.as_slice() {
            let structure = Virtio::of(&mut self.device, info, *capability);
            self.verdict.capabilities.push(Shown {
                offset: capability.offset,
                id: capability.id,
                name: structure.map_or(name_of(capability.id), Virtio::name),
                shown: seen.as_slice().contains(capability),
            });
        }
        if let Some(at) = seen.find(regs::CAP_MSI) {
            // Bits 3:1 of message control: log2 of the messages (PCIe 6.0 7.7.1.2).
            self.verdict.msi = 1 << (guest.read32(at) >> 17 & 7);
        }
    }
}

/// Another function of the machine, if the dump has it.
struct Other(Option<Device>);

impl Other {
    fn new(machine: &[Dump], bdf: Bdf) -> Self {
        let mut all = machine.iter();
        let there = all.find(|dump| dump.segment == 0 && dump.bdf == bdf);
        Self(there.map(Device::new))
    }
}

impl ConfigSpace for Other {
    fn read32(&mut self, offset: u16) -> u32 {
        self.0
            .as_mut()
            .map_or(u32::MAX, |device| device.read32(offset))
    }
    fn write32(&mut self, offset: u16, value: u32) {
        if let Some(device) = &mut self.0 {
            device.write32(offset, value);
        }
    }
    fn write16(&mut self, offset: u16, value: u16) {
        if let Some(device) = &mut self.0 {
            device.write16(offset, value);
        }
    }
}

/// Configuration space that is only read.
struct Guest<F>(F);

impl<F: FnMut(u16) -> u32> ConfigSpace for Guest<F> {
    fn read32(&mut self, offset: u16) -> u32 {
        (self.0)(offset)
    }
    fn write32(&mut self, _: u16, _: u32) {}
    fn write16(&mut self, _: u16, _: u16) {}
}

/// Returns the ranges of registers beside table and PBA on a page.
fn beside(info: &FunctionInfo, bar: u8, page: u64) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let bytes = (page..page + PAGE_SIZE).filter_map(|offset| u32::try_from(offset).ok());
    for offset in bytes.filter(|offset| msix::is_adjacent(info, bar, *offset)) {
        match ranges.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => ranges.push(offset..offset + 1),
        }
    }
    ranges
}

/// Reads a dword of any function of the machine.
fn read_of(machine: &[Dump], bdf: Bdf, offset: u16) -> u32 {
    let there = machine
        .iter()
        .find(|dump| dump.segment == 0 && dump.bdf == bdf);
    there
        .and_then(|dump| dword(dump, offset))
        .unwrap_or(u32::MAX)
}

/// Returns a dword of a function, if the dump has it.
pub fn dword(dump: &Dump, offset: u16) -> Option<u32> {
    let bytes = dump.config.get(usize::from(offset)..)?.first_chunk();
    bytes.map(|bytes| u32::from_le_bytes(*bytes))
}

/// Returns where the machine's configuration window is for a board that leaves that to the
/// tables, or why such a board does not start.
fn window(tables: &[Vec<u8>]) -> Result<Places, String> {
    let (pointer, buffer) = (Memory::pointer(), &mut [0; TABLE]);
    let said = acpi_tables::describe(&mut Memory::new(tables), Some(&pointer), buffer);
    let stated = Stated {
        ecam: Some((BY_TABLES, BUSES)),
        hpet: 0,
        hpet_pin: None,
        pit: None,
        serial: [0; 2],
        open_console: false,
    };
    settle(&stated, said.ok().flatten().as_ref()).map_err(|unfit| unfit.to_string())
}

/// Returns what the machine's tables say of the unit for a function.
fn unit(tables: &[Vec<u8>], machine: &[Dump], bdf: Bdf) -> Result<Found, Unusable> {
    let mut memory = Memory::new(tables);
    let pointer = Memory::pointer();
    let assigned = [bdf.requester_id()];
    let mut buses = |id| {
        let read = |bdf, offset| read_of(machine, bdf, offset);
        pci::buses_behind(Bdf::from_requester_id(id), read)
    };
    let buffer = &mut [0; TABLE];
    acpi_tables::find(&mut memory, Some(&pointer), buffer, &assigned, &mut buses)
}

/// Returns the name of a capability (PCI Code and ID Assignment Specification 1.11,
/// section 2).
const fn name_of(id: u8) -> &'static str {
    match id {
        0x01 => "power management",
        0x02 => "AGP",
        0x03 => "vital product data",
        0x04 => "slot identification",
        0x05 => "MSI",
        0x06 => "CompactPCI hot swap",
        0x07 => "PCI-X",
        0x08 => "HyperTransport",
        0x09 => "vendor specific",
        0x0a => "debug port",
        0x0b => "CompactPCI resource control",
        0x0c => "hot plug",
        0x0d => "bridge subsystem",
        0x0e => "AGP 8x",
        0x0f => "secure device",
        0x10 => "PCI Express",
        0x11 => "MSI-X",
        0x12 => "SATA",
        0x13 => "Advanced Features",
        0x14 => "Enhanced Allocation",
        0x15 => "flattening portal bridge",
        _ => "unknown",
    }
}
