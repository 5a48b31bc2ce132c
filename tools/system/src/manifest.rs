//! What a program needs and does: `components/NAME/component.toml`, beside its
//! crate. The tool knows programs by these files alone.

use std::cell::RefCell;
use std::path::Path;

use toml::de::DeTable;

use crate::diagnostic::{Report, Source};
use crate::files::{folders, read_text};
use crate::reader::{Context, Located, Section, find, indices};

/// Slots of a CNode as a power of two, unless the manifest asks for more.
const CNODE_BITS: u64 = 9;

/// Something that a component may do beyond its own memory and channels. Each
/// authority belongs to one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// IRQControl and the guests' slots.
    IrqControl,
    /// The pages that hold MSI-X tables and PBAs.
    MsixTables,
    /// The configuration pages of the assigned functions.
    ConfigurationSpace,
    /// The IOMMU's registers, and all guest memory to map for devices.
    Iommu,
}

impl Authority {
    /// Every authority.
    pub const ALL: [Self; 4] = [
        Self::IrqControl,
        Self::MsixTables,
        Self::ConfigurationSpace,
        Self::Iommu,
    ];

    /// The authorities without which no function can be assigned.
    pub const NEEDED: [Self; 3] = [Self::IrqControl, Self::MsixTables, Self::ConfigurationSpace];

    /// Returns its name in system.toml.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IrqControl => "irq-control",
            Self::MsixTables => "msix-tables",
            Self::ConfigurationSpace => "configuration-space",
            Self::Iommu => "iommu",
        }
    }
}

/// A program that components can run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its name, that of its folder in components/.
    pub name: String,
    /// Interfaces that it serves.
    pub serves: Vec<String>,
    /// Interfaces whose clients it signals.
    pub signals: Vec<String>,
    /// Interfaces that it cannot do without.
    pub calls: Vec<String>,
    /// Interfaces that it calls where a component serves them.
    pub optional_calls: Vec<String>,
    /// Board devices without which it does not start, or without one of several.
    pub devices: Vec<DeviceNeed>,
    /// The authorities that it makes use of.
    pub authority: Vec<Authority>,
    /// It goes on where it was after a restart.
    pub restartable: bool,
    /// It runs before every other component.
    pub starts_first: bool,
    /// It runs a guest.
    pub runs_guest: bool,
    /// It shows every component's log and counters, and what guests print.
    pub reads_logs: bool,
    /// Memory that a restart leaves as it is, in words of 64 bits.
    pub kept_words: u64,
    /// Slots of its CNode, as a power of two.
    pub cnode_bits: u32,
}

/// What a program needs of a board device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNeed {
    /// The device's name on every board.
    pub name: String,
    /// So many I/O ports.
    pub ports: u64,
    /// Its registers.
    pub memory: bool,
    /// Its interrupt.
    pub irq: bool,
    /// The interface that the program calls where there is no interrupt.
    pub without_irq: Option<String>,
    /// The word that it shares with devices of which one will do.
    pub one_of: Option<String>,
}

impl DeviceNeed {
    /// Returns whether one of these devices will do, of which `other` may be the same.
    #[must_use]
    pub fn is_instead_of(&self, other: &Self) -> bool {
        self.name == other.name || self.one_of.is_some() && self.one_of == other.one_of
    }
}

impl Manifest {
    /// Returns whether it calls over an interface.
    #[must_use]
    pub fn may_call(&self, interface: &str) -> bool {
        let mut calls = self.calls.iter().chain(&self.optional_calls);
        calls.any(|call| call == interface)
    }
}

/// Returns the names of the programs for which `holds` is true, joined by `between`.
pub fn names(programs: &[Manifest], between: &str, holds: impl Fn(&Manifest) -> bool) -> String {
    let names = programs.iter().filter(|program| holds(program));
    let names: Vec<&str> = names.map(|program| program.name.as_str()).collect();
    names.join(between)
}

/// Reads the manifests in `root`/components, in the order of their names. One that
/// has errors is there as far as it could be read.
pub fn read(root: &Path, report: &mut Report) -> Vec<Manifest> {
    let mut source = Source::default();
    let mut names = Vec::new();
    for name in folders(&root.join("components")) {
        let file = format!("components/{name}/component.toml");
        let path = root.join(&file);
        match read_text(&path) {
            Ok(text) => {
                source.add(file, path, &text);
                names.push(name);
            }
            // Init, or another folder that no component can run.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => report.file_error(&path, &error, "a manifest is a text file"),
        }
    }
    let report = RefCell::new(report);
    let context = Context {
        source: &source,
        report: &report,
        root: &DeTable::new(),
    };
    let mut calls = Vec::new();
    let files = names.into_iter().zip(&source.files);
    let programs: Vec<_> = files
        .map(|(name, file)| {
            let table = context.parse(&file.text);
            let title = format!("the manifest of {name}");
            let section = Section::new(&context, &table, title, 0..0);
            program(name, &section, &mut calls)
        })
        .collect();
    let served = programs.iter().flat_map(|program| &program.serves);
    for call in calls {
        find(
            &context,
            "interface",
            &call,
            served.clone().map(String::as_str),
        );
    }
    programs
}

/// Reads one program's manifest; the interfaces that it calls go into `calls` too.
fn program(name: String, section: &Section<'_, '_>, calls: &mut Vec<Located<String>>) -> Manifest {
    let context = section.context;
    let texts = |located: &[Located<String>]| -> Vec<String> {
        located.iter().map(|text| text.value.clone()).collect()
    };
    let serves = section.texts("serves");
    let signals = section.strings("signals");
    for interface in &signals {
        find(
            context,
            "served interface",
            interface,
            serves.iter().map(String::as_str),
        );
    }
    let needed = section.strings("calls");
    let optional = section.strings("optional-calls");
    let devices = section.named("device");
    let devices = devices.iter().map(|(name, section)| {
        let without_irq = section.string("without-irq");
        calls.extend(without_irq.clone());
        let need = DeviceNeed {
            name: name.value.clone(),
            ports: section.number("ports", 1..0x1_0000).map_or(0, |n| n.value),
            memory: section.boolean("memory").unwrap_or(false),
            irq: section.boolean("irq").unwrap_or(false),
            without_irq: without_irq.map(|interface| interface.value),
            one_of: section.string("one-of").map(|word| word.value),
        };
        section.finish();
        need
    });
    let manifest = Manifest {
        name,
        signals: texts(&signals),
        calls: texts(&needed),
        optional_calls: texts(&optional),
        devices: devices.collect(),
        authority: authorities(section),
        restartable: section.boolean("restartable").unwrap_or(false),
        starts_first: section.boolean("starts-first").unwrap_or(false),
        runs_guest: section.boolean("runs-guest").unwrap_or(false),
        reads_logs: section.boolean("reads-logs").unwrap_or(false),
        kept_words: section
            .number("kept-words", 1..1 << 20)
            .map_or(0, |n| n.value),
        cnode_bits: section
            .number("cnode-bits", CNODE_BITS..17)
            .map_or(CNODE_BITS, |bits| bits.value) as u32,
        serves,
    };
    calls.extend(needed.into_iter().chain(optional));
    section.finish();
    manifest
}

/// Reads the key `authority`.
pub fn authorities(section: &Section<'_, '_>) -> Vec<Authority> {
    let known = Authority::ALL.iter().map(|authority| authority.name());
    let indices = indices(section, "authority", "authority", known).into_iter();
    indices.map(|index| Authority::ALL[index.value]).collect()
}
