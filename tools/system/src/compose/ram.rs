//! A guest's RAM as pages: large ones, but small ones where the guest may not reach all
//! of a large one alike.

use std::ops::Range;

use spec::Rights;

use super::image::PAGE;

/// Bits of a large page's size.
pub const LARGE_PAGE_BITS: u32 = 21;
const SMALL_PAGE_BITS: u32 = 12;
const LARGE_PAGE: u64 = 1 << LARGE_PAGE_BITS;
/// Large pages that are replaced by small ones at most: each costs 512 capabilities of the
/// vmm's, twice, and of the IOMMU's. An image takes three: for page 0, and where its
/// read-only part begins and ends.
const SPLIT_MAX: usize = 3;

/// None is beyond this: the IOMMU is told which by the bits of a word.
const SPLIT_END: u64 = 64 << LARGE_PAGE_BITS;

/// Pages of RAM that follow each other and that the guest may reach alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes from the start of RAM to the first.
    pub offset: u64,
    /// Size of each, as a power of two.
    pub size_bits: u32,
    /// How many.
    pub pages: u64,
    /// The guest's rights there; `None`: it has no such page.
    pub rights: Option<Rights>,
}

/// Divides `memory` bytes of RAM. The guest has no first page if `no_first`, and must not
/// write the parts `read_only` (bytes from the start of RAM). The last large page is one
/// piece that is writable.
pub fn pieces(memory: u64, no_first: bool, read_only: &[Range<u64>]) -> Vec<Piece> {
    let rights = |offset: u64| {
        if no_first && offset < PAGE {
            return None;
        }
        // A page that is read-only in part is writable.
        let page = offset..offset + PAGE;
        let inside = |part: &Range<u64>| part.start <= page.start && page.end <= part.end;
        Some(match read_only.iter().any(inside) {
            true => Rights::READ,
            false => Rights::READ_WRITE,
        })
    };
    let mut pieces: Vec<Piece> = Vec::new();
    let mut split = 0;
    for start in (0..memory).step_by(LARGE_PAGE as usize) {
        let pages = (start..start + LARGE_PAGE).step_by(PAGE as usize);
        let uniform = pages.clone().all(|page| rights(page) == rights(start));
        let last = start + LARGE_PAGE == memory;
        if uniform && !last {
            add(&mut pieces, start, LARGE_PAGE_BITS, rights(start));
        } else if uniform || last || split == SPLIT_MAX || start >= SPLIT_END {
            add(
                &mut pieces,
                start,
                LARGE_PAGE_BITS,
                Some(Rights::READ_WRITE),
            );
        } else {
            split += 1;
            for page in pages {
                add(&mut pieces, page, SMALL_PAGE_BITS, rights(page));
            }
        }
    }
    pieces
}

fn add(pieces: &mut Vec<Piece>, offset: u64, size_bits: u32, rights: Option<Rights>) {
    match pieces.last_mut() {
        Some(last) if (last.size_bits, last.rights) == (size_bits, rights) => last.pages += 1,
        _ => pieces.push(Piece {
            offset,
            size_bits,
            pages: 1,
            rights,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Option<Rights> = None;
    const READ: Option<Rights> = Some(Rights::READ);
    const WRITE: Option<Rights> = Some(Rights::READ_WRITE);

    fn divided(
        memory: u64,
        no_first: bool,
        read_only: &[Range<u64>],
    ) -> Vec<(u32, u64, Option<Rights>)> {
        let pieces = pieces(memory, no_first, read_only);
        // They follow each other and are all of it.
        let end = pieces.iter().fold(0, |at, piece| {
            assert_eq!(piece.offset, at);
            at + (piece.pages << piece.size_bits)
        });
        assert_eq!(end, memory);
        let parts = |piece: Piece| (piece.size_bits, piece.pages, piece.rights);
        pieces.into_iter().map(parts).collect()
    }

    #[test]
    fn memory_that_is_all_alike_has_large_pages() {
        assert_eq!(divided(8 << 20, false, &[]), [(21, 4, WRITE)]);
    }

    #[test]
    fn only_the_large_pages_at_the_edges_are_split() {
        // Read-only from 1 MiB to 5 MiB and 4 KiB.
        let text = 0x10_0000..0x50_1000;
        assert_eq!(
            divided(16 << 20, true, std::slice::from_ref(&text)),
            [
                (12, 1, NONE),
                (12, 255, WRITE),
                (12, 256, READ),
                (21, 1, READ),
                (12, 257, READ),
                (12, 255, WRITE),
                (21, 5, WRITE),
            ]
        );
    }

    #[test]
    fn a_page_that_is_shared_is_writable() {
        let text = 0x1800..0x3800;
        let all = divided(4 << 20, false, std::slice::from_ref(&text));
        assert_eq!(
            all,
            [
                (12, 2, WRITE),
                (12, 1, READ),
                (12, 509, WRITE),
                (21, 1, WRITE)
            ]
        );
    }

    #[test]
    fn the_number_of_split_pages_is_bounded_and_the_last_is_whole() {
        let many: Vec<_> = (0..8)
            .map(|n| n * LARGE_PAGE..n * LARGE_PAGE + PAGE)
            .collect();
        let all = divided(16 << 20, false, &many);
        let small: u64 = all.iter().filter(|p| p.0 == 12).map(|p| p.1).sum();
        assert_eq!(small, 3 * LARGE_PAGE / PAGE);
        assert_eq!(divided(2 << 20, true, &[]), [(21, 1, WRITE)]);
        // Beyond 128 MiB the IOMMU could not be told of it.
        let far = SPLIT_END..SPLIT_END + PAGE;
        let all = divided(SPLIT_END + (4 << 20), false, std::slice::from_ref(&far));
        assert_eq!(all, [(21, 66, WRITE)]);
        let near = SPLIT_END - LARGE_PAGE..SPLIT_END - LARGE_PAGE + PAGE;
        let all = divided(SPLIT_END + (4 << 20), false, std::slice::from_ref(&near));
        assert_eq!(all[1..], [(12, 1, READ), (12, 511, WRITE), (21, 2, WRITE)]);
        let all = 0..2 << 20;
        assert_eq!(
            divided(2 << 20, false, std::slice::from_ref(&all)),
            [(21, 1, WRITE)]
        );
    }
}
