//! The board file: what a machine has, and how QEMU makes one.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use spec::{BY_TABLES, CpuKind, IommuKind, PIN_BY_MACHINE};

use crate::diagnostic::Report;
use crate::inherit;
use crate::reader::{Context, Located, Section, choice};

/// Large pages hold guest RAM.
pub const GUEST_PAGE: u64 = 2 << 20;

/// How an I/O APIC pin is triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Rising edge.
    Edge,
    /// Level, active high.
    Level,
}

/// A device of the board that a component can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardDevice {
    /// Its name.
    pub name: String,
    /// I/O ports, first and last.
    pub ports: Option<(u16, u16)>,
    /// Register pages: machine address, which may be [`BY_TABLES`], and size in bytes.
    pub memory: Option<(u64, u64)>,
    /// I/O APIC pin, which may be [`PIN_BY_MACHINE`].
    pub irq: Option<(u16, Trigger)>,
    /// It can interrupt by a message of its own instead of the pin.
    pub message: bool,
}

impl BoardDevice {
    /// Returns whether a machine that is this board has it: not where its tables say at boot.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.memory.is_none_or(|(base, _)| base != BY_TABLES)
    }
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Its name, that of its folder if it is in board/.
    pub name: String,
    /// Its file, from the project's root.
    pub file: String,
    /// RAM in bytes.
    pub memory: u64,
    /// Where guest RAM may lie: first address and size in bytes.
    pub guest_memory: (u64, u64),
    /// ECAM window: address, which may be [`BY_TABLES`] or 0 for none, and number of buses.
    pub ecam: (u64, u64),
    /// Whether the machine's tables say which of `com1` and `com2` has the text for people; else
    /// `com1` has it.
    pub console_by_tables: bool,
    /// Port that ends the machine with a status, or 0.
    pub exit_port: u16,
    /// What confines DMA and interrupts.
    pub iommu: IommuKind,
    /// Folder of the installed seL4 that the board takes; `None` for the bundled one.
    pub kernel: Option<PathBuf>,
    /// The CPUs that the bundled one is built for.
    pub cpu: CpuKind,
    /// Devices.
    pub devices: Vec<BoardDevice>,
    /// How QEMU makes one; `None` for a board that is a real machine.
    pub qemu: Option<Qemu>,
}

/// How QEMU makes a board's machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qemu {
    /// Its `-machine`.
    pub machine: String,
    /// Its `-cpu`.
    pub cpu: String,
    /// More of its arguments.
    pub args: Vec<String>,
    /// The arguments that make each IOMMU, of those that it can make.
    pub iommu: Vec<(IommuKind, Vec<String>)>,
}

impl Qemu {
    /// Returns the arguments that give the machine its IOMMU; `None` if the board's
    /// file does not say how.
    #[must_use]
    pub fn iommu_arguments(&self, iommu: IommuKind) -> Option<&[String]> {
        if iommu == IommuKind::None {
            return Some(&[]);
        }
        let mut known = self.iommu.iter();
        let (_, arguments) = known.find(|(known, _)| *known == iommu)?;
        Some(arguments)
    }
}

/// The word for what the machine itself says at boot.
const OPEN: &str = "auto";
/// The word for a window that there is not.
const NONE: &str = "none";
/// The device whose registers the tables name, and how many bytes those have.
pub const HPET: &str = "hpet";
/// The other whose pin can be left to the machine: the 8254.
pub const PIT: &str = "pit";
const HPET_SIZE: u64 = 4096;
/// The most buses that there are.
const BUSES: u64 = 256;

/// Returns whether a key is this word.
fn is(word: &str, section: &Section<'_, '_>, key: &'static str) -> bool {
    let value = section.get(key);
    value.and_then(|value| value.get_ref().as_str()) == Some(word)
}

/// Returns whether a key is left to the machine.
fn is_open(section: &Section<'_, '_>, key: &'static str) -> bool {
    is(OPEN, section, key)
}

fn device(name: &str, section: &Section<'_, '_>) -> BoardDevice {
    let ports = section.section("ports").and_then(|ports| {
        let first = ports.required_number("first", 0..0x1_0000, "0x3f8");
        let count = ports.required_number("count", 1..0x1_0000, "8");
        ports.finish();
        let (first, count) = (first?.value, count?);
        let last = first + count.value - 1;
        if last > 0xffff {
            section.context.error(
                &count.span,
                format!("ports {first:#x} to {last:#x} reach past 0xffff"),
                "give fewer ports",
            );
        }
        Some((first as u16, u16::try_from(last).ok()?))
    });
    let open = is_open(section, "memory").then_some((BY_TABLES, HPET_SIZE));
    if open.is_some() && name != HPET {
        section.context.error(
            &section.span,
            format!("`memory` in {} cannot be left to the machine", section.name),
            format!("only where `{HPET}` is, its tables say: give `{{ base, size }}`"),
        );
    }
    let closed = || section.section("memory");
    let memory = open.is_none().then(closed).flatten().and_then(|memory| {
        let base = memory.required_number("base", 0..1 << 48, "0xfed0_0000");
        let size = memory.required_size("size", "\"4K\"");
        memory.finish();
        let base = base?;
        if !base.value.is_multiple_of(4096) {
            section.context.error(
                &base.span,
                format!("{:#x} is not the start of a page", base.value),
                "give a multiple of 0x1000",
            );
        }
        Some((base.value, size?.value))
    });
    let open_irq = match name {
        _ if !is_open(section, "irq") => None,
        HPET => Some((PIN_BY_MACHINE, Trigger::Level)),
        _ => Some((PIN_BY_MACHINE, Trigger::Edge)),
    };
    if open_irq.is_some() && ![HPET, PIT].contains(&name) {
        section.context.error(
            &section.span,
            format!("`irq` in {} cannot be left to the machine", section.name),
            format!("only the pins of `{HPET}` and `{PIT}` can: give `{{ pin, trigger }}`"),
        );
    }
    let closed = || section.section("irq");
    let irq = open_irq.is_none().then(closed).flatten().and_then(|irq| {
        let pin = irq.required_number("pin", 0..24, "4");
        irq.require("trigger", "\"edge\"");
        let modes = [("edge", Trigger::Edge), ("level", Trigger::Level)];
        let trigger = choice(&irq, "trigger", "trigger mode", &modes);
        irq.finish();
        Some((pin?.value as u16, trigger))
    });
    let irq = open_irq.or(irq);
    let memory = open.or(memory);
    let message = section.boolean("message").unwrap_or(false);
    section.finish();
    BoardDevice {
        name: name.to_owned(),
        ports,
        memory,
        irq,
        message,
    }
}

/// Checks that no two devices share a port, a page or a pin.
fn overlaps(context: &Context<'_>, devices: &[(std::ops::Range<usize>, BoardDevice)]) {
    for (index, (span, device)) in devices.iter().enumerate() {
        for (first, other) in &devices[..index] {
            let ports = device.ports.zip(other.ports).and_then(|(a, b)| {
                let shared = a.0.max(b.0);
                (shared <= a.1.min(b.1)).then(|| format!("port {shared:#x}"))
            });
            let memory = device.memory.zip(other.memory).and_then(|(a, b)| {
                let shared = a.0.max(b.0);
                (shared < (a.0 + a.1).min(b.0 + b.1)).then(|| format!("the page at {shared:#x}"))
            });
            let irq = device
                .irq
                .zip(other.irq)
                .and_then(|(a, b)| (a.0 == b.0).then_some(a.0))
                .filter(|pin| *pin != PIN_BY_MACHINE)
                .map(|pin| format!("I/O APIC pin {pin}"));
            for shared in [ports, memory, irq].into_iter().flatten() {
                let names = format!("`{}` and `{}`", other.name, device.name);
                context.conflict(
                    span,
                    first,
                    format!("devices {names} both have {shared}"),
                    "each port, page and pin belongs to one device",
                );
            }
        }
    }
}

/// Reads `root`/`file`, the board in the folder `folder` of board/ or one that is
/// elsewhere; `None` if it has errors, since what follows from half a board would
/// only bring more of them.
pub fn parse(root: &Path, file: &str, folder: Option<&str>, report: &mut Report) -> Option<Board> {
    let help = "every board has a folder in board/";
    let source = inherit::read(root, &root.join(file), "board", help, report)?;
    let table = inherit::merged(&source, root);
    let errors_before = report.diagnostics.len();
    let report = RefCell::new(report);
    let context = Context {
        source: &source,
        report: &report,
        root: &table,
    };
    let top = Section::new(&context, &table, "the board file", 0..0);
    let mut board = Board {
        file: file.to_owned(),
        ..Board::default()
    };
    if let Some(section) = top.required_section("board", "{ ... }") {
        machine(&section, folder, &mut board);
    }
    let devices: Vec<_> = top
        .named("device")
        .iter()
        .map(|(name, section)| (name.span.clone(), device(&name.value, section)))
        .collect();
    overlaps(&context, &devices);
    board.devices = devices.into_iter().map(|(_, device)| device).collect();
    if let Some(section) = top.section("kernel") {
        let prefix = section.string("prefix");
        board.kernel = prefix.map(|prefix| root.join(prefix.value));
        let kinds = CpuKind::ALL.map(|cpu| (cpu.name(), cpu));
        board.cpu = choice(&section, "cpu", "kind of CPU", &kinds);
        section.finish();
    }
    board.qemu = top.section("qemu").map(|section| qemu(&section));
    top.finish();
    let good = report.borrow().diagnostics.len() == errors_before;
    good.then_some(board)
}

/// Reads the table `board`, which has to have the name of the board's folder.
fn machine(section: &Section<'_, '_>, folder: Option<&str>, board: &mut Board) {
    section.get("inherit");
    let example = format!("\"{}\"", folder.unwrap_or("pc"));
    if let Some(stated) = section.required_string("name", &example) {
        if let Some(folder) = folder.filter(|folder| *folder != stated.value) {
            section.context.error(
                &stated.span,
                format!(
                    "this board is called `{}`, its folder `{folder}`",
                    stated.value
                ),
                "give both the same name",
            );
        }
        board.name = stated.value;
    }
    board.memory = section
        .required_size("memory", "\"512M\"")
        .map_or(0, |size| size.value);
    if let Some(range) = section.required_section("guest-memory", "{ base, size }") {
        let base = range.required_number("base", 0..1 << 39, "0x1000_0000");
        let size = range.required_size("size", "\"64M\"");
        range.finish();
        if let Some(base) = base
            .as_ref()
            .filter(|b| !b.value.is_multiple_of(GUEST_PAGE))
        {
            section.context.error(
                &base.span,
                format!("{:#x} is not the start of a large page", base.value),
                "give a multiple of 0x20_0000: large pages hold guest RAM",
            );
        }
        board.guest_memory = (base.map_or(0, |b| b.value), size.map_or(0, |s| s.value));
    }
    if is_open(section, "ecam") {
        board.ecam = (BY_TABLES, BUSES);
    } else if is(NONE, section, "ecam") {
        board.ecam = (0, BUSES);
    } else if let Some(ecam) = section.required_section("ecam", "{ base, buses }") {
        let base = ecam.required_number("base", 0..1 << 48, "0xb000_0000");
        let buses = ecam.required_number("buses", 1..BUSES + 1, "256");
        ecam.finish();
        board.ecam = (base.map_or(0, |b| b.value), buses.map_or(0, |b| b.value));
    }
    let consoles = [("com1", false), (OPEN, true)];
    board.console_by_tables = choice(section, "console", "console", &consoles);
    board.exit_port = section
        .number("exit-port", 0..0x1_0000)
        .map_or(0, |port| port.value as u16);
    section.require("iommu", "\"none\"");
    let kinds = IommuKind::ALL.map(|kind| (kind.name(), kind));
    board.iommu = choice(section, "iommu", "IOMMU that is supported", &kinds);
    section.finish();
}

/// Reads the table `qemu`.
fn qemu(section: &Section<'_, '_>) -> Qemu {
    let text = |value: Option<Located<String>>| value.map_or_else(String::new, |value| value.value);
    let mut qemu = Qemu {
        machine: text(section.required_string("machine", "\"q35\"")),
        cpu: text(section.required_string("cpu", "\"max\"")),
        args: section.texts("args"),
        iommu: Vec::new(),
    };
    if let Some(kinds) = section.section("iommu") {
        for iommu in [IommuKind::Amd, IommuKind::Intel] {
            let arguments = kinds.texts(iommu.name());
            if !arguments.is_empty() {
                qemu.iommu.push((iommu, arguments));
            }
        }
        kinds.finish();
    }
    section.finish();
    qemu
}
