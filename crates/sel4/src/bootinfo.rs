//! BootInfo: the kernel's description of the machine for the root task.

use core::fmt;

use sel4_sys::{
    BOOTINFO_FRAME_SIZE, MAX_BOOTINFO_UNTYPEDS, bootinfo_chunk, bootinfo_offset as at,
    untyped_desc_offset,
};

use crate::cap::CapType;
use crate::cap_type;
use crate::init_thread::SlotRegion;

/// The kernel's BootInfo, checked once when made.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo<'a> {
    /// The frame, and the additional chunks after it.
    bytes: &'a [u8],
}

/// The BootInfo that a root task is given.
pub type BootInfoPtr = BootInfo<'static>;

/// Why bytes are not a valid BootInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootInfoError {
    /// Shorter than the frame and its additional chunks.
    TooShort,
    /// A region ends before it starts, or lists more untypeds than fit.
    BadRegion,
}

impl fmt::Display for BootInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BootInfoError::TooShort => "BootInfo is cut short",
            BootInfoError::BadRegion => "BootInfo has a bad slot region",
        })
    }
}

impl core::error::Error for BootInfoError {}

/// An untyped that the root task was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UntypedDesc {
    paddr: u64,
    size_bits: u8,
    is_device: bool,
}

impl UntypedDesc {
    /// Returns its physical address.
    pub const fn paddr(&self) -> usize {
        self.paddr as usize
    }

    /// Returns its size as a power of two, in bytes.
    pub const fn size_bits(&self) -> usize {
        self.size_bits as usize
    }

    /// Returns whether it is memory that the kernel never touches: device
    /// registers, or the firmware's memory. Only pages and smaller untypeds
    /// can be made from it.
    pub const fn is_device(&self) -> bool {
        self.is_device
    }
}

/// An additional chunk of BootInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootInfoExtra<'a> {
    /// Kind of the chunk (`SEL4_BOOTINFO_HEADER_*`).
    pub id: u64,
    /// Its content, without the header.
    pub content: &'a [u8],
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    match bytes.get(offset..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => 0,
    }
}

impl<'a> BootInfo<'a> {
    /// Returns the BootInfo in `bytes`.
    ///
    /// # Errors
    /// If it is too short or inconsistent.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, BootInfoError> {
        if bytes.len() < BOOTINFO_FRAME_SIZE {
            return Err(BootInfoError::TooShort);
        }
        let extra = usize::try_from(word(bytes, at::EXTRA_LEN)).unwrap_or(usize::MAX);
        let length = BOOTINFO_FRAME_SIZE
            .checked_add(extra)
            .ok_or(BootInfoError::TooShort)?;
        let info = BootInfo {
            bytes: bytes.get(..length).ok_or(BootInfoError::TooShort)?,
        };
        let regions = [
            at::EMPTY,
            at::SHARED_FRAMES,
            at::USER_IMAGE_FRAMES,
            at::USER_IMAGE_PAGING,
            at::EXTRA_BI_PAGES,
            at::UNTYPED,
        ];
        let ordered = |&offset: &usize| word(bytes, offset) <= word(bytes, offset + 8);
        if !regions.iter().all(ordered) || info.untyped().len() > MAX_BOOTINFO_UNTYPEDS {
            return Err(BootInfoError::BadRegion);
        }
        Ok(info)
    }

    fn region<T: CapType>(&self, offset: usize) -> SlotRegion<T> {
        SlotRegion::new(
            word(self.bytes, offset) as usize,
            word(self.bytes, offset + 8) as usize,
        )
    }

    /// Returns the address of the root task's IPC buffer.
    pub fn ipc_buffer(&self) -> usize {
        word(self.bytes, at::IPC_BUFFER) as usize
    }

    /// Returns the empty slots.
    pub fn empty(&self) -> SlotRegion {
        self.region(at::EMPTY)
    }

    /// Frames of the root task's image, by ascending address.
    pub fn user_image_frames(&self) -> SlotRegion<cap_type::Granule> {
        self.region(at::USER_IMAGE_FRAMES)
    }

    /// Returns the paging structures of the root task's image.
    pub fn user_image_paging(&self) -> SlotRegion {
        self.region(at::USER_IMAGE_PAGING)
    }

    /// Returns the radix of the root task's CNode.
    pub fn init_cnode_size_bits(&self) -> usize {
        usize::from(self.bytes[at::CNODE_SIZE_BITS])
    }

    /// Returns the TSC's frequency in MHz; 0 if the kernel does not say.
    pub fn tsc_mhz(&self) -> u64 {
        if let Some(offset) = at::TSC_MHZ {
            return word(self.bytes, offset);
        }
        let chunk = bootinfo_chunk::TSC_MHZ.and_then(|id| self.chunk(id));
        let mhz = chunk.and_then(|chunk| chunk.content.first_chunk());
        mhz.map_or(0, |mhz| u32::from_le_bytes(*mhz).into())
    }

    /// Returns ACPI's root pointer as the boot loader gave it (ACPI 6.5 section
    /// 5.2.5.3), if it did and the kernel passes it on.
    pub fn rsdp(&self) -> Option<&'a [u8]> {
        let chunk = bootinfo_chunk::RSDP.and_then(|id| self.chunk(id))?;
        Some(chunk.content)
    }

    /// Returns the first additional chunk of a kind.
    fn chunk(&self, id: u64) -> Option<BootInfoExtra<'a>> {
        self.extra().find(|chunk| chunk.id == id)
    }

    /// Cores that the kernel runs on.
    pub fn num_nodes(&self) -> u64 {
        word(self.bytes, at::NUM_NODES)
    }

    /// Untypeds; [`untyped_list`](Self::untyped_list) describes them.
    pub fn untyped(&self) -> SlotRegion<cap_type::Untyped> {
        self.region(at::UNTYPED)
    }

    /// Returns whether there are as many untypeds as the kernel can describe: others are
    /// lost then.
    pub fn untyped_list_is_full(&self) -> bool {
        self.untyped().len() == MAX_BOOTINFO_UNTYPEDS
    }

    /// Descriptions of the untypeds, in the order of their slots.
    pub fn untyped_list(&self) -> impl ExactSizeIterator<Item = UntypedDesc> + use<'a> {
        let bytes = self.bytes;
        (0..self.untyped().len()).map(move |index| {
            let entry = at::UNTYPED_LIST + index * untyped_desc_offset::LENGTH;
            UntypedDesc {
                paddr: word(bytes, entry + untyped_desc_offset::PADDR),
                size_bits: bytes[entry + untyped_desc_offset::SIZE_BITS],
                is_device: bytes[entry + untyped_desc_offset::IS_DEVICE] != 0,
            }
        })
    }

    /// Returns the additional chunks; ends at one that is malformed.
    pub fn extra(&self) -> impl Iterator<Item = BootInfoExtra<'a>> + use<'a> {
        /// A chunk's header: u64 id, u64 length with the header.
        const HEADER: usize = 16;
        let mut rest = &self.bytes[BOOTINFO_FRAME_SIZE..];
        core::iter::from_fn(move || {
            let (id, length) = (word(rest, 0), usize::try_from(word(rest, 8)).ok()?);
            let content = rest.get(HEADER..length)?;
            rest = &rest[length..];
            Some(BootInfoExtra { id, content })
        })
    }
}

impl BootInfoPtr {
    /// Returns the BootInfo at `address`, which the root task is started with.
    ///
    /// # Safety
    /// `address` must be the one that the kernel passed to the root task, and the
    /// frames there must stay mapped and unchanged.
    ///
    /// # Errors
    /// If the structure is inconsistent.
    pub unsafe fn from_address(address: usize) -> Result<Self, BootInfoError> {
        let start = core::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the kernel maps at least this frame for the root task.
        let frame = unsafe { core::slice::from_raw_parts(start, BOOTINFO_FRAME_SIZE) };
        let extra = usize::try_from(word(frame, at::EXTRA_LEN)).unwrap_or(usize::MAX);
        let length = BOOTINFO_FRAME_SIZE
            .checked_add(extra)
            .ok_or(BootInfoError::TooShort)?;
        // SAFETY: the kernel maps `extra` bytes of chunks behind the frame.
        Self::from_bytes(unsafe { core::slice::from_raw_parts(start, length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the sample's chunks: one of an unknown kind, one with the TSC's frequency
    /// and one with a root pointer, where there are such.
    const CHUNKS: usize = 24 + 20 + 52;
    const LENGTH: usize = BOOTINFO_FRAME_SIZE + CHUNKS;
    /// A kind that no kernel has.
    const UNKNOWN: u64 = 1000;

    /// Returns a BootInfo of two untypeds and three chunks.
    fn sample() -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        for (at, value) in [
            (at::EXTRA_LEN, CHUNKS as u64),
            (at::NUM_NODES, 1),
            (at::IPC_BUFFER, 0x40_0000),
            (at::EMPTY, 300),
            (at::EMPTY + 8, 65536),
            (at::USER_IMAGE_FRAMES, 20),
            (at::USER_IMAGE_FRAMES + 8, 120),
            (at::UNTYPED, 200),
            (at::UNTYPED + 8, 202),
        ] {
            put(at, &value.to_le_bytes());
        }
        put(at::CNODE_SIZE_BITS, &[16]);
        if let Some(offset) = at::TSC_MHZ {
            put(offset, &2900u64.to_le_bytes());
        }
        for (index, (paddr, size_bits, is_device)) in [(0x10_0000u64, 20, 0), (0xfed0_0000, 12, 1)]
            .into_iter()
            .enumerate()
        {
            let entry = at::UNTYPED_LIST + index * untyped_desc_offset::LENGTH;
            put(entry + untyped_desc_offset::PADDR, &paddr.to_le_bytes());
            put(entry + untyped_desc_offset::SIZE_BITS, &[size_bits]);
            put(entry + untyped_desc_offset::IS_DEVICE, &[is_device]);
        }
        let mut chunk = BOOTINFO_FRAME_SIZE;
        for (id, content) in [
            (Some(UNKNOWN), &0x1122u64.to_le_bytes()[..]),
            (bootinfo_chunk::TSC_MHZ, &2900u32.to_le_bytes()[..]),
            (bootinfo_chunk::RSDP, &[7; 36][..]),
        ] {
            put(chunk, &id.unwrap_or(UNKNOWN + 1).to_le_bytes());
            put(chunk + 8, &(16 + content.len() as u64).to_le_bytes());
            put(chunk + 16, content);
            chunk += 16 + content.len();
        }
        bytes
    }

    #[test]
    fn reads_every_part() {
        let bytes = sample();
        let info = BootInfo::from_bytes(&bytes).unwrap();
        assert_eq!(info.ipc_buffer(), 0x40_0000);
        assert_eq!(info.empty().range(), 300..65536);
        assert_eq!(info.user_image_frames().len(), 100);
        assert_eq!(info.user_image_frames().index(99).index(), 119);
        assert_eq!(info.init_cnode_size_bits(), 16);
        assert_eq!(info.tsc_mhz(), 2900);
        let rsdp = bootinfo_chunk::RSDP.map(|_| &[7; 36][..]);
        assert_eq!(info.rsdp(), rsdp);
        assert!(!info.untyped_list_is_full());
        let mut list = info.untyped_list();
        assert_eq!(list.len(), 2);
        let first = list.next().unwrap();
        assert_eq!(
            (first.paddr(), first.size_bits(), first.is_device()),
            (0x10_0000, 20, false)
        );
        let second = list.next().unwrap();
        assert_eq!(
            (second.paddr(), second.size_bits(), second.is_device()),
            (0xfed0_0000, 12, true)
        );
        let mut extra = info.extra();
        let chunk = extra.next().unwrap();
        let content = &0x1122u64.to_le_bytes()[..];
        assert_eq!((chunk.id, chunk.content), (UNKNOWN, content));
        assert_eq!(extra.count(), 2);
    }

    #[test]
    fn refuses_what_is_cut_short_or_inconsistent() {
        let bytes = sample();
        assert_eq!(
            BootInfo::from_bytes(&bytes[..BOOTINFO_FRAME_SIZE - 1]).unwrap_err(),
            BootInfoError::TooShort
        );
        assert_eq!(
            BootInfo::from_bytes(&bytes[..BOOTINFO_FRAME_SIZE + 4]).unwrap_err(),
            BootInfoError::TooShort
        );
        for (at, value) in [(at::EMPTY, 70000u64), (at::UNTYPED + 8, 60000)] {
            let mut odd = sample();
            odd[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert_eq!(
                BootInfo::from_bytes(&odd).unwrap_err(),
                BootInfoError::BadRegion
            );
        }
    }

    #[test]
    fn a_malformed_chunk_ends_the_list() {
        for length in [0u64, 15, CHUNKS as u64 + 1, u64::MAX] {
            let mut bytes = sample();
            let at = BOOTINFO_FRAME_SIZE + 8;
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(BootInfo::from_bytes(&bytes).unwrap().extra().count(), 0);
        }
    }
}
