//! Reads what `lspci` prints: functions, each with text and rows of bytes.

use pci::{Bdf, FUNCTION_BARS, regs};

use crate::acpi::hex_byte;
use crate::dump::{Dump, ParseError, Region};

/// Most functions of a file: as many as a segment has.
const MOST: usize = 1 << 16;
/// Bytes of a whole configuration space with PCI Express.
const EXTENDED: usize = 4096;
/// Bytes of a row.
const ROW: usize = 16;

/// A function while it is read.
struct Reading {
    dump: Dump,
    /// Rows that were read.
    rows: Vec<Option<[u8; ROW]>>,
    /// Line of the last of them.
    last: usize,
    /// Region lines, each with its depth.
    regions: Vec<(usize, usize, Region)>,
    /// The least depth of a line of text.
    depth: usize,
}

/// Reads all functions that have bytes.
pub fn parse(text: &str) -> Result<Vec<Dump>, ParseError> {
    let mut functions = Vec::new();
    let mut reading: Option<Reading> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if let Some((segment, bdf, title)) = head(line) {
            if let Some(done) = reading.take() {
                functions.extend(finish(done)?);
            }
            if functions.len() == MOST {
                return Err(ParseError::new(
                    number,
                    "there are more than 65536 functions",
                ));
            }
            reading = Some(Reading {
                dump: Dump {
                    line: number,
                    segment,
                    bdf,
                    title: title.to_owned(),
                    config: Vec::new(),
                    regions: [None; FUNCTION_BARS],
                },
                rows: vec![None; EXTENDED / ROW],
                last: number,
                regions: Vec::new(),
                depth: usize::MAX,
            });
        } else if let Some(offset) = offset_of(line) {
            let Some(function) = &mut reading else {
                return Err(ParseError::new(number, "bytes before the first function"));
            };
            row(function, number, offset, line)?;
        } else if let Some(function) = &mut reading
            && line.starts_with([' ', '\t'])
        {
            let rest = line.trim_start();
            let depth = line.len() - rest.len();
            function.depth = function.depth.min(depth);
            if let Some((index, region)) = region(rest, number)? {
                function.regions.push((depth, index, region));
            }
        }
    }
    if let Some(done) = reading {
        functions.extend(finish(done)?);
    }
    Ok(functions)
}

/// Reads `0000:00:1f.2 SATA controller: ...`.
fn head(line: &str) -> Option<(u32, Bdf, &str)> {
    let (address, title) = line.split_once(' ').unwrap_or((line, ""));
    let (segment, address) = match address.match_indices(':').count() {
        1 => ("0", address),
        2 => address.split_once(':')?,
        _ => return None,
    };
    let digits = (1..=8).contains(&segment.len()) && segment.bytes().all(|b| b.is_ascii_hexdigit());
    let segment = digits
        .then(|| u32::from_str_radix(segment, 16).ok())
        .flatten()?;
    Some((segment, Bdf::parse(address)?, title))
}

/// Returns the offset with which a row of bytes begins.
fn offset_of(line: &str) -> Option<&str> {
    let (offset, _) = line.split_once(':')?;
    let digits = matches!(offset.len(), 2 | 3) && offset.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then_some(offset)
}

fn row(function: &mut Reading, number: usize, offset: &str, line: &str) -> Result<(), ParseError> {
    let offset = usize::from_str_radix(offset, 16).unwrap_or(EXTENDED);
    let digits = line.split_once(':').map_or("", |(_, rest)| rest);
    let bytes: Option<Vec<u8>> = digits.split_whitespace().map(hex_byte).collect();
    let bytes = bytes.and_then(|bytes| <[u8; ROW]>::try_from(bytes).ok());
    let Some(bytes) = bytes else {
        return Err(ParseError::new(number, "a row does not have 16 bytes"));
    };
    let place = function.rows.get_mut(offset / ROW);
    let Some(place) = place.filter(|_| offset.is_multiple_of(ROW)) else {
        return Err(ParseError::new(
            number,
            format!("no row begins at {offset:#x}"),
        ));
    };
    if place.replace(bytes).is_some() {
        return Err(ParseError::new(
            number,
            format!("a second row at {offset:#x}"),
        ));
    }
    function.last = number;
    Ok(())
}

/// Reads `Region 0: Memory at fe000000 (64-bit, prefetchable) [size=128K]`; a region of
/// Enhanced Allocation is in no BAR.
fn region(text: &str, line: usize) -> Result<Option<(usize, Region)>, ParseError> {
    let Some(rest) = text.strip_prefix("Region ") else {
        return Ok(None);
    };
    let sized = rest
        .split_once("[size=")
        .and_then(|(_, size)| size.split_once(']'));
    let (Some((index, _)), Some((size, _))) = (rest.split_once(':'), sized) else {
        return Ok(None);
    };
    let wrong = || ParseError::new(line, format!("`{text}` is no region"));
    let index: usize = index.parse().map_err(|_| wrong())?;
    let unit = size.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = size[..size.len() - unit.len()]
        .parse()
        .map_err(|_| wrong())?;
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let size = number
        .checked_mul(1 << shift)
        .filter(|size| size.is_power_of_two());
    let size = size.ok_or_else(|| ParseError::new(line, "the size of a BAR is a power of two"))?;
    if rest.contains("[enhanced]") {
        return Ok(None);
    }
    let ports = rest.contains("I/O ports");
    let address = rest
        .split_once(" at ")
        .and_then(|(_, at)| at.split(' ').next());
    let address = address
        .and_then(|at| u64::from_str_radix(at, 16).ok())
        .unwrap_or(0);
    Ok((index < FUNCTION_BARS).then_some((
        index,
        Region {
            size,
            address,
            ports,
            line,
        },
    )))
}

/// Checks that a function is whole. One of which no byte is told is left out.
fn finish(reading: Reading) -> Result<Option<Dump>, ParseError> {
    let mut dump = reading.dump;
    let mut rows = reading.rows.iter();
    dump.config = rows.by_ref().map_while(|row| *row).flatten().collect();
    let length = dump.config.len();
    let gap = rows.any(Option::is_some);
    if length == 0 && !gap {
        return Ok(None);
    }
    let card = dump
        .config
        .get(usize::from(regs::HEADER_TYPE))
        .is_some_and(|kind| kind & 0x7f == 2);
    if gap || !(matches!(length, 64 | 256 | EXTENDED) || length == 128 && card) {
        let message = format!(
            "the bytes of {} {} {length:#x}: 64, 256 or 4096 are whole",
            dump.bdf,
            if gap { "have a gap at" } else { "end at" }
        );
        return Err(ParseError::new(reading.last, message));
    }
    // Deeper ones are those of a capability (SR-IOV).
    for (depth, index, region) in reading.regions {
        if depth == reading.depth {
            dump.regions[index] = Some(region);
        }
    }
    Ok(Some(dump))
}
