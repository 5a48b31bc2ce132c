//! The trace format: a header line that describes the device, then one
//! operation a line.

use std::fmt;

use pci::{BarKind, Bdf, FUNCTION_BARS};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A trace, parsed and checked.
#[derive(Debug)]
pub struct Trace {
    /// The device that it was recorded on.
    pub(crate) device: Device,
    /// Whether the device is expected to offer MSI-X.
    pub(crate) msix_present: Option<bool>,
    pub(crate) steps: Vec<Step>,
}

impl Trace {
    /// Operations after the header.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Returns whether there is nothing but the header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Why a text is not a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1; 0 if the line as a whole is meant.
    pub column: usize,
    /// The mistake.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}

/// The router's calls, in order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// An entry was bound.
    Bind {
        /// Table entry.
        entry: u16,
        /// The guest's message address.
        addr: u64,
        /// The guest's message data.
        data: u32,
        /// Whether it was bound masked.
        masked: bool,
    },
    /// An entry was unbound.
    Unbind {
        /// Table entry.
        entry: u16,
    },
    /// A bound entry was masked.
    Mask {
        /// Table entry.
        entry: u16,
    },
    /// A bound entry was unmasked.
    Unmask {
        /// Table entry.
        entry: u16,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind {
                entry,
                addr,
                data,
                masked,
            } => write!(
                f,
                "bind {entry} addr {addr:#x} data {data:#x} masked {masked}"
            ),
            Self::Unbind { entry } => write!(f, "unbind {entry}"),
            Self::Mask { entry } => write!(f, "mask {entry}"),
            Self::Unmask { entry } => write!(f, "unmask {entry}"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Device {
    pub bdf: Bdf,
    /// 256 or 4096 bytes.
    pub config: Vec<u8>,
    pub bars: [Bar; FUNCTION_BARS],
    pub privileged: bool,
    pub memory: Vec<(u8, u32, Vec<u8>)>,
    pub check_address: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub kind: BarKind,
    /// Where the guest has it at start.
    pub guest: u64,
    /// Where the device has it.
    pub host: u64,
    pub size: u64,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub line: usize,
    pub operation: Operation,
    pub value: Option<u64>,
    pub events: Option<Vec<Event>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    ConfigRead {
        reg: u16,
        len: u64,
    },
    ConfigWrite {
        reg: u16,
        len: u64,
        value: u64,
    },
    MemoryRead {
        addr: u64,
        len: u64,
    },
    MemoryWrite {
        addr: u64,
        len: u64,
        value: u64,
    },
    BarState {
        index: usize,
        enabled: bool,
        address: Option<u64>,
    },
    Fail {
        hook: Hook,
        entry: u16,
        fail: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hook {
    Bind,
    Unbind,
}

#[derive(Deserialize)]
struct RawHeader {
    device: RawDevice,
    #[serde(default)]
    expect: RawHeaderExpect,
}

#[derive(Default, Deserialize)]
struct RawHeaderExpect {
    msix_present: Option<bool>,
}

#[derive(Deserialize)]
struct RawDevice {
    bdf: String,
    config: String,
    bars: Vec<RawBar>,
    privileged: bool,
    #[serde(default)]
    mem: Vec<RawMemory>,
    #[serde(default)]
    arch_check_address: bool,
}

#[derive(Deserialize)]
struct RawBar {
    index: usize,
    kind: RawKind,
    address: u64,
    size: u64,
    host_address: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Mem32,
    Mem64,
    Io,
    None,
}

#[derive(Deserialize)]
struct RawMemory {
    bar: u8,
    offset: u32,
    hex: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawName {
    CfgRead,
    CfgWrite,
    MmioRead,
    MmioWrite,
    BarState,
    ArchFail,
}

#[derive(Deserialize)]
struct RawStep {
    op: RawName,
    reg: Option<u16>,
    addr: Option<u64>,
    len: Option<u64>,
    value: Option<u64>,
    index: Option<usize>,
    enabled: Option<bool>,
    address: Option<u64>,
    hook: Option<Hook>,
    entry: Option<u16>,
    fail: Option<bool>,
    #[serde(default)]
    expect: RawExpect,
}

#[derive(Default, Deserialize)]
struct RawExpect {
    value: Option<u64>,
    events: Option<Vec<Event>>,
}

/// Reads a trace. Empty lines are skipped.
///
/// # Errors
///
/// The first line that is not JSON, lacks a key or holds a value out of range.
pub fn parse(text: &str) -> Result<Trace, ParseError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim().is_empty());
    let (number, line) = lines.next().ok_or_else(|| whole(1, "no header line"))?;
    let header: RawHeader = from_line(number, line)?;
    let device = check_device(header.device).map_err(|message| whole(number, message))?;
    let mut steps = Vec::new();
    for (number, line) in lines {
        let raw: RawStep = from_line(number, line)?;
        let operation = check_operation(&raw).map_err(|message| whole(number, message))?;
        steps.push(Step {
            line: number,
            operation,
            value: raw.expect.value,
            events: raw.expect.events,
        });
    }
    Ok(Trace {
        device,
        msix_present: header.expect.msix_present,
        steps,
    })
}

fn whole(line: usize, message: impl Into<String>) -> ParseError {
    ParseError {
        line,
        column: 0,
        message: message.into(),
    }
}

fn from_line<T: DeserializeOwned>(number: usize, line: &str) -> Result<T, ParseError> {
    serde_json::from_str(line).map_err(|error| {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        ParseError {
            line: number,
            column: error.column(),
            message: message.trim_end_matches(&place).to_owned(),
        }
    })
}

fn check_device(raw: RawDevice) -> Result<Device, String> {
    let bdf = Bdf::parse(&raw.bdf).ok_or_else(|| format!("`{}` is no bdf", raw.bdf))?;
    let mut config = bytes(&raw.config).ok_or("`config` is not hexadecimal")?;
    if !(64..=4096).contains(&config.len()) {
        return Err(format!(
            "`config` has {} bytes, not 64 to 4096",
            config.len()
        ));
    }
    // Registers behind the end of a short dump read 0.
    let size = if config.len() > 256 { 4096 } else { 256 };
    config.resize(size, 0);
    let mut bars = [Bar {
        kind: BarKind::None,
        guest: 0,
        host: 0,
        size: 0,
    }; FUNCTION_BARS];
    for bar in raw.bars {
        let place = bars
            .get_mut(bar.index)
            .ok_or_else(|| format!("there is no BAR {}", bar.index))?;
        *place = check_bar(&bar)?;
    }
    let mut memory = Vec::new();
    for range in raw.mem {
        let content = bytes(&range.hex).ok_or("`mem` is not hexadecimal")?;
        let size = bars.get(usize::from(range.bar)).map_or(0, |bar| bar.size);
        // Offsets have 32 bits everywhere past this point.
        let size = size.min(1 << 32);
        if u64::from(range.offset) + content.len() as u64 > size {
            return Err(format!("`mem` lies outside BAR {}", range.bar));
        }
        memory.push((range.bar, range.offset, content));
    }
    Ok(Device {
        bdf,
        config,
        bars,
        privileged: raw.privileged,
        memory,
        check_address: raw.arch_check_address,
    })
}

fn check_bar(bar: &RawBar) -> Result<Bar, String> {
    let kind = match bar.kind {
        RawKind::None => BarKind::None,
        RawKind::Io => BarKind::Io,
        RawKind::Mem32 => BarKind::Memory32,
        RawKind::Mem64 => BarKind::Memory64,
    };
    let host = bar.host_address.unwrap_or(bar.address);
    let (smallest, largest) = match kind {
        BarKind::None => (0, u64::MAX),
        BarKind::Io => (4, 1 << 16),
        BarKind::Memory32 => (16, 1 << 31),
        BarKind::Memory64 => (16, 1 << 63),
    };
    let exists = kind != BarKind::None;
    let bad_size = !bar.size.is_power_of_two() || bar.size < smallest || bar.size > largest;
    if exists && (bad_size || !host.is_multiple_of(bar.size)) {
        return Err(format!("BAR {} has a bad size or address", bar.index));
    }
    if kind == BarKind::Memory64 && bar.index + 1 == FUNCTION_BARS {
        return Err(format!("BAR {} has no upper half", bar.index));
    }
    Ok(Bar {
        kind,
        guest: bar.address,
        host,
        size: if exists { bar.size } else { 0 },
    })
}

fn check_operation(raw: &RawStep) -> Result<Operation, String> {
    fn need<T>(value: Option<T>, key: &str) -> Result<T, String> {
        value.ok_or_else(|| format!("missing `{key}`"))
    }
    Ok(match raw.op {
        RawName::CfgRead => Operation::ConfigRead {
            reg: need(raw.reg, "reg")?,
            len: need(raw.len, "len")?,
        },
        RawName::CfgWrite => Operation::ConfigWrite {
            reg: need(raw.reg, "reg")?,
            len: need(raw.len, "len")?,
            value: need(raw.value, "value")?,
        },
        RawName::MmioRead => Operation::MemoryRead {
            addr: need(raw.addr, "addr")?,
            len: need(raw.len, "len")?,
        },
        RawName::MmioWrite => Operation::MemoryWrite {
            addr: need(raw.addr, "addr")?,
            len: need(raw.len, "len")?,
            value: need(raw.value, "value")?,
        },
        RawName::BarState => Operation::BarState {
            index: need(raw.index.filter(|&i| i < FUNCTION_BARS), "index (0 to 5)")?,
            enabled: need(raw.enabled, "enabled")?,
            address: raw.address,
        },
        RawName::ArchFail => Operation::Fail {
            hook: need(raw.hook, "hook")?,
            entry: need(raw.entry, "entry")?,
            fail: need(raw.fail, "fail")?,
        },
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}
