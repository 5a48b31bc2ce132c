//! Which parts of an image its guest must not write.

use std::ops::Range;

use object::Endianness;
use object::elf::{FileHeader64, PF_W, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

const PAGE: u64 = 4096;

/// Returns the addresses of the pages that only segments without write permission touch,
/// in order; none if the file is not an ELF64 file.
#[must_use]
pub fn read_only(file: &[u8]) -> Vec<Range<u64>> {
    let Ok(header) = FileHeader64::<Endianness>::parse(file) else {
        return Vec::new();
    };
    let endian = header.endian().unwrap_or_default();
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for segment in header.program_headers(endian, file).unwrap_or_default() {
        let (start, size) = (segment.p_paddr(endian), segment.p_memsz(endian));
        if segment.p_type(endian) != PT_LOAD || size == 0 {
            continue;
        }
        let end = start.saturating_add(size).checked_next_multiple_of(PAGE);
        let pages = start / PAGE * PAGE..end.unwrap_or(u64::MAX);
        if segment.p_flags(endian).0 & PF_W.0 != 0 {
            written.push(pages);
        } else {
            read.push(pages);
        }
    }
    read.sort_by_key(|pages| pages.start);
    written.sort_by_key(|pages| pages.start);
    let mut parts = Vec::new();
    for pages in read {
        let mut start = pages.start;
        for other in &written {
            if start < other.start.min(pages.end) {
                parts.push(start..other.start.min(pages.end));
            }
            start = start.max(other.end);
        }
        if start < pages.end {
            parts.push(start..pages.end);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Load, elf};

    /// Returns an ELF file with segments of these flags, addresses and sizes.
    fn file(segments: &[(u32, u64, u64)]) -> Vec<u8> {
        let load = |&(flags, address, size): &(u32, u64, u64)| Load {
            flags,
            linked: address,
            loaded: address,
            size,
        };
        elf(0, &segments.iter().map(load).collect::<Vec<_>>())
    }

    #[test]
    fn whole_pages_without_a_writable_segment_are_read_only() {
        let parts = read_only(&file(&[
            (5, 0x10_0000, 0x1800),
            (6, 0x10_4000, 0x100),
            (4, 0x10_2000, 0x1000),
        ]));
        assert_eq!(parts, [0x10_0000..0x10_2000, 0x10_2000..0x10_3000]);
    }

    #[test]
    fn a_page_that_a_writable_segment_touches_is_not() {
        let text = (5, 0x10_0000, 0x4000);
        let of = |segments: &[(u32, u64, u64)]| read_only(&file(segments));
        // It begins in text's last page, lies inside of it, is all of it.
        let one = |end| {
            vec![Range {
                start: 0x10_0000,
                end,
            }]
        };
        assert_eq!(of(&[text, (6, 0x10_3ff0, 0x1000)]), one(0x10_3000));
        assert_eq!(
            of(&[text, (6, 0x10_1000, 1)]),
            [0x10_0000..0x10_1000, 0x10_2000..0x10_4000]
        );
        assert_eq!(of(&[text, (6, 0xf_f000, 0x10_0000)]), []);
        assert_eq!(of(&[text, (6, 0x20_0000, 0x1000)]), one(0x10_4000));
    }

    #[test]
    fn other_files_and_empty_segments_have_none() {
        assert_eq!(read_only(b"#!/bin/sh"), []);
        assert_eq!(read_only(&file(&[(4, 0x1000, 0)])), []);
    }
}
