//! ACPI tables: `acpidump`'s text, and memory in which the firmware's would be.

use acpi_tables::PhysicalMemory;

use crate::dump::ParseError;

/// Bytes of the head that every table has (ACPI 6.5 section 5.2.6).
const HEAD: usize = 36;
/// Tables that are looked for.
const WANTED: [&[u8; 4]; 3] = [b"DMAR", b"IVRS", b"MCFG"];
/// Where the tables lie in the memory that is made of them.
const BASE: u64 = 0x7f00_0000;

fn length_of(table: &[u8]) -> Option<usize> {
    let bytes = table.get(4..8)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// Returns the file if it is a table by itself.
pub fn binary(bytes: &[u8]) -> Result<Option<Vec<u8>>, ParseError> {
    let wanted = WANTED.iter().any(|name| bytes.starts_with(*name));
    // Text goes on with ` @ 0x`: no table is that long.
    let Some(length) = length_of(bytes).filter(|_| wanted && !bytes[4..].starts_with(b" @ "))
    else {
        return Ok(None);
    };
    if length < HEAD || length != bytes.len() {
        let message = format!(
            "the table says {length} bytes, and {} are there",
            bytes.len()
        );
        return Err(ParseError::new(0, message));
    }
    Ok(Some(bytes.to_vec()))
}

/// Reads the tables of `acpidump`'s text; those that nobody asks about are left out.
pub fn parse(text: &str) -> Result<Vec<Vec<u8>>, ParseError> {
    let mut tables: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if let Some((name, _)) = line.split_once(" @ 0x") {
            inside = WANTED.iter().any(|wanted| wanted[..] == *name.as_bytes());
            if inside {
                tables.push((number, Vec::new()));
            }
        } else if inside && let Some((_, table)) = tables.last_mut() {
            if line.trim().is_empty() {
                inside = false;
                continue;
            }
            let (offset, bytes) =
                row(line).ok_or_else(|| ParseError::new(number, "no row of a table"))?;
            if offset != table.len() {
                let message = format!("offset {offset:#x}, where {:#x} comes", table.len());
                return Err(ParseError::new(number, message));
            }
            table.extend(bytes);
        }
    }
    for (line, table) in &tables {
        let length = length_of(table).unwrap_or(0);
        if table.len() < HEAD || length != table.len() {
            let message = format!(
                "the table says {length} bytes, and {} are there",
                table.len()
            );
            return Err(ParseError::new(*line, message));
        }
    }
    Ok(tables.into_iter().map(|(_, table)| table).collect())
}

/// Returns whether one of the tables has one of these names.
pub fn has(tables: &[Vec<u8>], names: &[&[u8; 4]]) -> bool {
    let named = |table: &&Vec<u8>| names.iter().any(|name| table.starts_with(*name));
    tables.iter().find(named).is_some()
}

/// Reads `0010: 41 42 ...  AB...`: the offset and the bytes.
fn row(line: &str) -> Option<(usize, Vec<u8>)> {
    let (offset, rest) = line.trim_start().split_once(": ")?;
    let offset = usize::from_str_radix(offset, 16).ok()?;
    // Two spaces lead to the same in letters.
    let digits = rest.split("  ").next()?;
    let bytes = digits.split(' ').take(16).map(hex_byte);
    Some((offset, bytes.collect::<Option<_>>()?))
}

/// Returns the byte that two hexadecimal digits stand for.
pub fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// Memory with the tables, and the table of tables before them.
pub struct Memory(Vec<u8>);

impl Memory {
    pub fn new(tables: &[Vec<u8>]) -> Self {
        let mut root = vec![0; HEAD];
        root[..4].copy_from_slice(b"XSDT");
        let mut at = BASE + (HEAD + 8 * tables.len()) as u64;
        for table in tables {
            root.extend(at.to_le_bytes());
            at += table.len() as u64;
        }
        let length = (root.len() as u32).to_le_bytes();
        root[4..8].copy_from_slice(&length);
        root[9] = complement(&root);
        root.extend(tables.iter().flatten());
        Self(root)
    }

    /// Returns the root pointer of revision 2 that leads there.
    pub fn pointer() -> [u8; 36] {
        let mut pointer = [0; 36];
        pointer[..8].copy_from_slice(b"RSD PTR ");
        pointer[15] = 2;
        pointer[20..24].copy_from_slice(&36u32.to_le_bytes());
        pointer[24..32].copy_from_slice(&BASE.to_le_bytes());
        pointer[8] = complement(&pointer[..20]);
        pointer[32] = complement(&pointer);
        pointer
    }
}

/// Returns the byte that makes the sum of all 0.
fn complement(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

impl PhysicalMemory for Memory {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let range = || {
            let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
            self.0.get(start..start.checked_add(bytes.len())?)
        };
        let Some(found) = range() else {
            return false;
        };
        bytes.copy_from_slice(found);
        true
    }
}
