//! The application manifest of an image: which devices it wants, by name (mft_abi.h).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the structure.
pub const VERSION: u32 = 1;
/// Most entries, one a bit of a set of handles.
pub const ENTRIES: usize = 64;
/// Bytes before the first entry: version and number of entries.
const HEAD: usize = 8;
/// Type of the first entry, which is no device.
const RESERVED: u32 = 1 << 30;
const BLOCK: u32 = 1;
const NET: u32 = 2;

/// An entry as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Entry {
    name: [u8; 68],
    kind: u32,
    /// Of a disk: bytes, and bytes of a block; of a network: its address and its MTU.
    properties: [u8; 16],
    /// The monitor's own.
    backing: u64,
    attached: u8,
    reserved: [u8; 7],
}

/// Bytes of an entry.
pub const ENTRY_SIZE: usize = size_of::<Entry>();
const _: () = assert!(ENTRY_SIZE == 104, "as a C compiler lays it out");

/// Kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A disk (`MFT_DEV_BLOCK_BASIC`).
    Block,
    /// A network (`MFT_DEV_NET_BASIC`).
    Net,
}

/// Why a manifest cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadManifest {
    /// Another version than 1, which is in it.
    Version(u32),
    /// No entry, or more than 64: so many.
    Entries(u32),
    /// So many bytes, which are not those of its entries.
    Size(usize),
    /// The first entry is not the reserved one.
    First,
    /// The name of this entry has no end, or is not text.
    Name(usize),
    /// This entry is attached already.
    Attached(usize),
    /// This entry is of another kind, which is the second number.
    Kind(usize, u32),
}

/// A manifest that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a>(&'a [u8]);

impl<'a> Manifest<'a> {
    /// Checks the bytes of a manifest, which are the image's and can be anything.
    ///
    /// # Errors
    /// [`BadManifest`] names what is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadManifest> {
        let word = |at: usize| {
            let word = bytes.get(at..at + 4);
            word.map_or(0, |word| {
                u32::from_le_bytes([word[0], word[1], word[2], word[3]])
            })
        };
        let (version, count) = (word(0), word(4));
        if bytes.len() < HEAD {
            return Err(BadManifest::Size(bytes.len()));
        }
        if version != VERSION {
            return Err(BadManifest::Version(version));
        }
        if !(1..=ENTRIES as u32).contains(&count) {
            return Err(BadManifest::Entries(count));
        }
        if bytes.len() != HEAD + count as usize * ENTRY_SIZE {
            return Err(BadManifest::Size(bytes.len()));
        }
        let manifest = Self(bytes);
        for (index, entry) in manifest.entries().enumerate() {
            if entry.name().is_none() {
                return Err(BadManifest::Name(index));
            }
            if entry.attached != 0 {
                return Err(BadManifest::Attached(index));
            }
            match (index, entry.kind) {
                (0, RESERVED) if entry.name[0] == 0 => {}
                (0, _) => return Err(BadManifest::First),
                (_, BLOCK | NET) => {}
                (_, other) => return Err(BadManifest::Kind(index, other)),
            }
        }
        Ok(manifest)
    }

    /// Returns all entries; the first is no device.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        let entries = self.0[HEAD..].chunks_exact(ENTRY_SIZE);
        entries.filter_map(|bytes| Entry::read_from_bytes(bytes).ok())
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl Entry {
    /// Creates an entry for a device.
    ///
    /// # Panics
    /// If the name has more than 67 bytes.
    pub const fn new(name: &str, kind: Kind) -> Self {
        let mut entry = Self::reserved();
        entry.kind = match kind {
            Kind::Block => BLOCK,
            Kind::Net => NET,
        };
        let name = name.as_bytes();
        assert!(name.len() < entry.name.len(), "a name of 67 bytes at most");
        let mut at = 0;
        while at < name.len() {
            entry.name[at] = name[at];
            at += 1;
        }
        entry
    }

    /// Creates the first entry, which is no device.
    pub const fn reserved() -> Self {
        Self {
            name: [0; 68],
            kind: RESERVED,
            properties: [0; 16],
            backing: 0,
            attached: 0,
            reserved: [0; 7],
        }
    }

    /// Returns its name; `None` if that has no end or is not text.
    pub fn name(&self) -> Option<&str> {
        let end = self.name.iter().position(|&byte| byte == 0)?;
        core::str::from_utf8(&self.name[..end]).ok()
    }

    /// Returns its kind; `None` for what is no device.
    pub fn kind(&self) -> Option<Kind> {
        match self.kind {
            BLOCK => Some(Kind::Block),
            NET => Some(Kind::Net),
            _ => None,
        }
    }

    /// Fills in a disk's bytes and its bytes of a block.
    pub fn attach_disk(&mut self, capacity: u64, block_size: u16) {
        self.properties[..8].copy_from_slice(&capacity.to_le_bytes());
        self.properties[8..10].copy_from_slice(&block_size.to_le_bytes());
        self.attached = 1;
    }

    /// Fills in a network's address and its longest payload in bytes.
    pub fn attach_network(&mut self, address: [u8; 6], mtu: u16) {
        self.properties[..6].copy_from_slice(&address);
        self.properties[6..8].copy_from_slice(&mtu.to_le_bytes());
        self.attached = 1;
    }

    /// Returns a disk's bytes and its bytes of a block; 0 before it is attached.
    pub fn disk(&self) -> (u64, u16) {
        let [a, b, c, d, e, f, g, h, low, high, ..] = self.properties;
        let capacity = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        (capacity, u16::from_le_bytes([low, high]))
    }

    /// Returns a network's address and its longest payload.
    pub fn network(&self) -> ([u8; 6], u16) {
        let [a, b, c, d, e, f, low, high, ..] = self.properties;
        ([a, b, c, d, e, f], u16::from_le_bytes([low, high]))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn bytes(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0];
        bytes.extend((entries.len() as u32).to_le_bytes());
        entries
            .iter()
            .for_each(|entry| bytes.extend(entry.as_bytes()));
        bytes
    }

    fn good() -> Vec<u8> {
        let devices = [
            Entry::new("service", Kind::Net),
            Entry::new("disk", Kind::Block),
        ];
        bytes(&[&[Entry::reserved()], &devices[..]].concat())
    }

    #[test]
    fn a_good_manifest_is_read() {
        let bytes = good();
        let manifest = Manifest::parse(&bytes).unwrap();
        let devices: Vec<_> = manifest
            .entries()
            .map(|entry| {
                (
                    std::string::String::from(entry.name().unwrap()),
                    entry.kind(),
                )
            })
            .collect();
        let expected = [
            ("", None),
            ("service", Some(Kind::Net)),
            ("disk", Some(Kind::Block)),
        ];
        assert_eq!(devices, expected.map(|(name, kind)| (name.into(), kind)));
    }

    #[test]
    fn properties_lie_where_the_header_has_them() {
        let mut disk = Entry::new("d", Kind::Block);
        disk.attach_disk(0x1122_3344_5566_7788, 512);
        let bytes = disk.as_bytes();
        assert_eq!(bytes[72..80], 0x1122_3344_5566_7788_u64.to_le_bytes());
        assert_eq!(bytes[80..82], [0, 2]);
        assert_eq!((bytes[68], bytes[96]), (1, 1));
        assert_eq!(disk.disk(), (0x1122_3344_5566_7788, 512));
        let mut net = Entry::new("n", Kind::Net);
        net.attach_network([1, 2, 3, 4, 5, 6], 1500);
        assert_eq!(net.as_bytes()[72..80], [1, 2, 3, 4, 5, 6, 0xdc, 0x05]);
        assert_eq!(net.network(), ([1, 2, 3, 4, 5, 6], 1500));
    }

    #[test]
    fn each_flaw_is_named() {
        let bad = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good();
            change(&mut bytes);
            Manifest::parse(&bytes).unwrap_err()
        };
        assert_eq!(bad(&|b| b[0] = 2), BadManifest::Version(2));
        assert_eq!(bad(&|b| b[4] = 0), BadManifest::Entries(0));
        assert_eq!(bad(&|b| b[4..8].fill(0xff)), BadManifest::Entries(u32::MAX));
        assert_eq!(bad(&|b| b[4] = 4), BadManifest::Size(8 + 3 * 104));
        assert_eq!(bad(&|b| b.push(0)), BadManifest::Size(9 + 3 * 104));
        assert_eq!(bad(&|b| b.truncate(7)), BadManifest::Size(7));
        assert_eq!(bad(&|b| b[8] = b'x'), BadManifest::First);
        assert_eq!(bad(&|b| b[8 + 68] = 1), BadManifest::First);
        assert_eq!(bad(&|b| b[112..180].fill(b'x')), BadManifest::Name(1));
        assert_eq!(bad(&|b| b[112] = 0xff), BadManifest::Name(1));
        assert_eq!(bad(&|b| b[216 + 96] = 1), BadManifest::Attached(2));
        assert_eq!(bad(&|b| b[112 + 68] = 3), BadManifest::Kind(1, 3));
        assert_eq!(
            bad(&|b| b[112 + 71] = 0x40),
            BadManifest::Kind(1, RESERVED | 2)
        );
        let most = vec![Entry::new("n", Kind::Net); ENTRIES];
        let all = |more: usize| bytes(&[&[Entry::reserved()], &most[more..]].concat());
        assert!(Manifest::parse(&all(1)).is_ok());
        assert_eq!(
            Manifest::parse(&all(0)).unwrap_err(),
            BadManifest::Entries(65)
        );
    }
}
