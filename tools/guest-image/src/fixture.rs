//! ELF files for tests.

use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

/// Returns an object file for x86-64 with these sections of code and data, and symbols of
/// the code: names and values.
pub fn object(code: &[u8], data: &[u8], symbols: &[(&str, u64)]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.add_section(vec![], b".text".to_vec(), SectionKind::Text);
    object.append_section_data(text, code, 1);
    let section = object.add_section(vec![], b".data".to_vec(), SectionKind::Data);
    object.append_section_data(section, data, 1);
    for (name, value) in symbols {
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: *value,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
    }
    // It has no relocations, which are what cannot be written.
    object.write().unwrap()
}

/// A segment that is loaded, without contents.
pub struct Load {
    /// Its permissions, as in `p_flags`.
    pub flags: u32,
    /// Its virtual address.
    pub linked: u64,
    /// Its physical address.
    pub loaded: u64,
    /// Its bytes in memory.
    pub size: u64,
}

/// Returns a static ELF64 file for x86-64 with this entry point and these segments.
pub fn elf(entry: u64, segments: &[Load]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [entry, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [64, 56, segments.len() as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for segment in segments {
        file.extend(1_u32.to_le_bytes());
        file.extend(segment.flags.to_le_bytes());
        for word in [64, segment.linked, segment.loaded, 0, segment.size, 4096] {
            file.extend(word.to_le_bytes());
        }
    }
    file
}
