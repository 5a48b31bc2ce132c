//! What is known of a machine, and which kind of dump a file is.

use std::fmt;

use pci::{Bdf, FUNCTION_BARS};

use crate::{acpi, lspci};

/// Why a file is no dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1; 0 if the file as a whole is meant.
    pub line: usize,
    /// The mistake.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// A BAR as the text of `lspci -v` tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its size in bytes, a power of two.
    pub size: u64,
    /// Where the system has it; 0 where it has not.
    pub address: u64,
    /// It has ports, not memory.
    pub ports: bool,
    /// Its line.
    pub line: usize,
}

/// One function, as `lspci` printed it.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Line of its address.
    pub line: usize,
    /// PCI segment, which `lspci` calls domain.
    pub segment: u32,
    /// Address on the segment.
    pub bdf: Bdf,
    /// The rest of the line.
    pub title: String,
    /// 64, 256 or 4096 bytes of configuration space, or 128 of a CardBus bridge.
    pub config: Vec<u8>,
    /// What the text says of each BAR.
    pub regions: [Option<Region>; FUNCTION_BARS],
}

/// All that a file tells.
#[derive(Debug)]
pub enum Input {
    /// Functions, by their addresses.
    Functions(Vec<Dump>),
    /// ACPI tables.
    Tables(Vec<Vec<u8>>),
}

/// Longest file that is looked at: a machine of 256 functions has 4 MiB of text.
const LONGEST: usize = 64 << 20;

/// Reads a file: the output of `lspci -xxx` or `-xxxx`, with `-vv` or without, that of
/// `acpidump`, or a table as `/sys/firmware/acpi/tables` has it.
///
/// # Errors
///
/// The first line that cannot be, or what the file lacks.
pub fn parse(bytes: &[u8]) -> Result<Input, ParseError> {
    if bytes.len() > LONGEST {
        return Err(ParseError::new(0, "it is larger than 64 MiB"));
    }
    if let Some(table) = acpi::binary(bytes)? {
        return Ok(Input::Tables(vec![table]));
    }
    let text = String::from_utf8_lossy(bytes);
    let tables = acpi::parse(&text)?;
    if !tables.is_empty() {
        return Ok(Input::Tables(tables));
    }
    let functions = lspci::parse(&text)?;
    if functions.is_empty() {
        return Err(ParseError::new(
            0,
            "there is neither a function with its bytes nor an ACPI table in it",
        ));
    }
    Ok(Input::Functions(functions))
}
