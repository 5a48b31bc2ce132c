//! ELF files for tests.

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
