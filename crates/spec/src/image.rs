//! The image: a header, tables of records, and the bytes that fills copy from.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::machine::KernelLabel;
use crate::records::{
    Capability, Fill, Function, IommuPlace, Mapping, NONE, Object, ObjectKind, Thread,
};

/// Marks an image and its format's version.
const MAGIC: u64 = u64::from_le_bytes(*b"VECTIS\0\x01");

/// Stands for an address that the machine's own ACPI tables say at boot: no machine has one so
/// high.
pub const BY_TABLES: u64 = 1 << 63;

/// A table of records in the image.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Table {
    /// Byte offset from the image's start, a multiple of 8.
    pub offset: u64,
    /// Records.
    pub count: u64,
}

/// Start of the image.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    magic: u64,
    /// Bytes of the whole image.
    pub length: u64,
    /// Physical address of the ECAM window (PCIe 6.0 section 7.2.2), or [`BY_TABLES`], or 0:
    /// configuration space is reached by ports.
    pub ecam: u64,
    /// Buses that are looked at.
    pub buses: u64,
    /// First I/O port of COM1.
    pub com1: u64,
    /// First I/O port of COM2, or 0.
    pub com2: u64,
    /// 1: text for people is at the one of the two where the machine's ACPI tables say that the
    /// firmware's console is; else at COM1.
    pub console_by_tables: u64,
    /// Physical address of the HPET that a component has, [`BY_TABLES`], or 0.
    pub hpet: u64,
    /// I/O port that ends the machine with a status (isa-debug-exit), or 0.
    pub exit_port: u64,
    /// Memory object of one page that gets the `MachineInfo`.
    pub machine: u64,
    /// Memory object with init's own log ring.
    pub log: u64,
    /// Endpoint on which init, as monitor, hears faults.
    pub monitor: u64,
    /// Notification that tells the console of new log records (badge bit 0).
    pub doorbell: u64,
    /// 1: the console may ask the monitor to crash a component, for tests.
    pub inject_faults: u64,
    /// 1: init compares every CSpace with the table and ends the machine, for
    /// `vectis caps --live`.
    pub audit: u64,
    /// 1: init prints what the machine has and ends it, for `vectis probe`.
    pub probe: u64,
    /// The kernel that the image is for.
    pub kernel: KernelLabel,
    /// The IOMMU.
    pub iommu: IommuPlace,
    /// Notifications that hear when a guest is gone (`BADGE_GUEST_GONE`):
    /// pci-config's and iommu's, or [`NONE`].
    pub gone: [u32; 2],
    objects: Table,
    capabilities: Table,
    mappings: Table,
    fills: Table,
    threads: Table,
    functions: Table,
}

/// Bytes of [`Header`].
pub const HEADER_SIZE: usize = size_of::<Header>();

/// Why an image cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Too short, or another magic number or version.
    NotAnImage,
    /// A table reaches past the end, is not aligned, or has a record with a number
    /// that means nothing.
    Table(&'static str),
    /// A record names an object that is not there or is of the wrong kind.
    Record(&'static str, usize),
}

/// A checked image.
#[derive(Clone, Copy, Debug)]
pub struct System<'a> {
    /// The header.
    pub header: &'a Header,
    /// Objects to be made.
    pub objects: &'a [Object],
    /// Capabilities to be handed out.
    pub capabilities: &'a [Capability],
    /// The mappings.
    pub mappings: &'a [Mapping],
    /// The copies into memory.
    pub fills: &'a [Fill],
    /// What runs.
    pub threads: &'a [Thread],
    /// PCI functions.
    pub functions: &'a [Function],
    bytes: &'a [u8],
}

fn records<'a, T: TryFromBytes + KnownLayout + Immutable>(
    bytes: &'a [u8],
    table: Table,
    name: &'static str,
) -> Result<&'a [T], ParseError> {
    let error = ParseError::Table(name);
    let offset = usize::try_from(table.offset).map_err(|_| error)?;
    let count = usize::try_from(table.count).map_err(|_| error)?;
    let rest = bytes.get(offset..).ok_or(error)?;
    <[T]>::try_ref_from_prefix_with_elems(rest, count)
        .map(|(records, _)| records)
        .map_err(|_| error)
}

fn all(table: &'static str, mut good: impl Iterator<Item = bool>) -> Result<(), ParseError> {
    good.position(|good| !good)
        .map_or(Ok(()), |at| Err(ParseError::Record(table, at)))
}

impl<'a> System<'a> {
    /// Reads and checks an image. `bytes` must be aligned to 8.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| ParseError::NotAnImage)?;
        if header.magic != MAGIC {
            return Err(ParseError::NotAnImage);
        }
        let bytes = usize::try_from(header.length)
            .ok()
            .and_then(|length| bytes.get(..length))
            .ok_or(ParseError::NotAnImage)?;
        let system = Self {
            header,
            objects: records(bytes, header.objects, "objects")?,
            capabilities: records(bytes, header.capabilities, "capabilities")?,
            mappings: records(bytes, header.mappings, "mappings")?,
            fills: records(bytes, header.fills, "fills")?,
            threads: records(bytes, header.threads, "threads")?,
            functions: records(bytes, header.functions, "functions")?,
            bytes,
        };
        system.check()?;
        Ok(system)
    }

    /// Returns the bytes that a fill copies; empty if they are not in the
    /// image.
    #[must_use]
    pub fn source(&self, fill: &Fill) -> &'a [u8] {
        let range = usize::try_from(fill.source)
            .ok()
            .zip(usize::try_from(fill.length).ok())
            .and_then(|(start, length)| Some(start..start.checked_add(length)?));
        range.and_then(|range| self.bytes.get(range)).unwrap_or(&[])
    }

    fn is(&self, index: u32, kinds: &[ObjectKind]) -> bool {
        self.objects
            .get(index as usize)
            .is_some_and(|object| kinds.contains(&object.kind))
    }

    fn check(&self) -> Result<(), ParseError> {
        use ObjectKind::{CNode, Device, Endpoint, Memory, Notification, Tcb, VSpace};
        let optional = |index: u32, kind| index == NONE || self.is(index, &[kind]);
        all(
            "capabilities",
            &mut self
                .capabilities
                .iter()
                .map(|c| self.is(c.cnode, &[CNode]) && (c.object as usize) < self.objects.len()),
        )?;
        all(
            "mappings",
            self.mappings.iter().map(|m| {
                self.is(m.vspace, &[VSpace])
                    && self.is(m.object, &[Memory, Device])
                    && optional(m.holder, CNode)
            }),
        )?;
        all(
            "fills",
            self.fills.iter().map(|f| {
                self.is(f.object, &[Memory])
                    && self.source(f).len() as u64 == f.length
                    && self.objects.get(f.object as usize).is_some_and(|o| {
                        f.offset
                            .checked_add(f.length)
                            .is_some_and(|end| end <= o.pages << o.size_bits.min(30))
                    })
            }),
        )?;
        all(
            "threads",
            self.threads.iter().map(|t| {
                self.is(t.tcb, &[Tcb])
                    && self.is(t.cnode, &[CNode])
                    && self.is(t.vspace, &[VSpace])
                    && optional(t.ipc_buffer, Memory)
                    && optional(t.stack, Memory)
                    && optional(t.notification, Notification)
                    && t.priority <= 255
                    && t.max_priority <= 255
            }),
        )?;
        all(
            "functions",
            self.functions.iter().map(|f| {
                self.is(f.info, &[Memory])
                    && self.is(f.config_vspace, &[VSpace])
                    && self.is(f.config_cnode, &[CNode])
                    && self.is(f.msix_vspace, &[VSpace])
                    && self.is(f.msix_cnode, &[CNode])
                    && self.is(f.bar_cnode, &[CNode])
                    && self.is(f.ram, &[Memory])
            }),
        )?;
        let iommu = &self.header.iommu;
        all(
            "iommu",
            [
                optional(iommu.info, Memory),
                optional(iommu.tables, Memory),
                optional(iommu.vspace, VSpace),
                optional(iommu.cnode, CNode),
                optional(self.header.gone[0], Notification),
                optional(self.header.gone[1], Notification),
            ]
            .into_iter(),
        )?;
        let header = [
            (self.header.machine, Memory),
            (self.header.log, Memory),
            (self.header.monitor, Endpoint),
            (self.header.doorbell, Notification),
        ];
        all(
            "header",
            header
                .iter()
                .map(|&(index, kind)| self.is(u32::try_from(index).unwrap_or(NONE), &[kind])),
        )
    }
}

/// Writes an image; the caller brings the storage, so that this crate needs no
/// allocator.
#[derive(Clone, Copy, Debug)]
pub struct ImageWriter<'a> {
    /// The header; its tables are filled in.
    pub header: Header,
    /// Objects.
    pub objects: &'a [Object],
    /// Capabilities.
    pub capabilities: &'a [Capability],
    /// Mappings.
    pub mappings: &'a [Mapping],
    /// Fills, whose sources count from the start of `data`.
    pub fills: &'a [Fill],
    /// Threads.
    pub threads: &'a [Thread],
    /// Functions.
    pub functions: &'a [Function],
    /// The bytes that the fills copy.
    pub data: &'a [u8],
}

impl ImageWriter<'_> {
    /// Hands the image, piece by piece in order, to `write`.
    pub fn write(&self, mut write: impl FnMut(&[u8])) {
        let mut header = self.header;
        let mut end = HEADER_SIZE as u64;
        let mut place = |bytes: usize, count: usize| {
            let table = Table {
                offset: end,
                count: count as u64,
            };
            end += bytes as u64;
            table
        };
        header.magic = MAGIC;
        header.objects = place(size_of_val(self.objects), self.objects.len());
        header.capabilities = place(size_of_val(self.capabilities), self.capabilities.len());
        header.mappings = place(size_of_val(self.mappings), self.mappings.len());
        header.fills = place(size_of_val(self.fills), self.fills.len());
        header.threads = place(size_of_val(self.threads), self.threads.len());
        header.functions = place(size_of_val(self.functions), self.functions.len());
        let data = end;
        header.length = data + self.data.len() as u64;
        write(header.as_bytes());
        write(self.objects.as_bytes());
        write(self.capabilities.as_bytes());
        write(self.mappings.as_bytes());
        for fill in self.fills {
            let mut moved = Fill::new_zeroed();
            moved.clone_from(fill);
            moved.source += data;
            write(moved.as_bytes());
        }
        write(self.threads.as_bytes());
        write(self.functions.as_bytes());
        write(self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rights;
    extern crate std;
    use std::vec::Vec;

    fn object(kind: ObjectKind) -> Object {
        Object::new("x", kind, 12, 1)
    }

    fn write(writer: &ImageWriter<'_>) -> Vec<u64> {
        let mut bytes = Vec::new();
        writer.write(|piece| bytes.extend_from_slice(piece));
        while !bytes.len().is_multiple_of(8) {
            bytes.push(0);
        }
        bytes
            .chunks_exact(8)
            .map(|c| u64::from_le_bytes(c.try_into().unwrap()))
            .collect()
    }

    const EMPTY: ImageWriter<'static> = ImageWriter {
        header: Header {
            magic: 0,
            length: 0,
            ecam: 0,
            buses: 0,
            com1: 0,
            com2: 0,
            console_by_tables: 0,
            hpet: 0,
            exit_port: 0,
            machine: 0,
            log: 0,
            monitor: 2,
            doorbell: 3,
            inject_faults: 0,
            audit: 0,
            probe: 0,
            kernel: KernelLabel::EMPTY,
            iommu: IommuPlace::NONE,
            gone: [NONE; 2],
            objects: Table {
                offset: 0,
                count: 0,
            },
            capabilities: Table {
                offset: 0,
                count: 0,
            },
            mappings: Table {
                offset: 0,
                count: 0,
            },
            fills: Table {
                offset: 0,
                count: 0,
            },
            threads: Table {
                offset: 0,
                count: 0,
            },
            functions: Table {
                offset: 0,
                count: 0,
            },
        },
        objects: &[],
        capabilities: &[],
        mappings: &[],
        fills: &[],
        threads: &[],
        functions: &[],
        data: &[],
    };

    /// Object 0 is memory, 1 a CNode; the objects that the header names exist.
    const OBJECTS: [ObjectKind; 4] = [
        ObjectKind::Memory,
        ObjectKind::CNode,
        ObjectKind::Endpoint,
        ObjectKind::Notification,
    ];

    #[test]
    fn reads_what_it_writes() {
        let objects = OBJECTS.map(object);
        let fill = Fill {
            object: 0,
            reserved: 0,
            offset: 1,
            source: 1,
            length: 2,
        };
        let capability = Capability {
            cnode: 1,
            slot: 3,
            object: 0,
            rights: Rights::READ,
            badge: 9,
        };
        let image = write(&ImageWriter {
            objects: &objects,
            fills: &[fill],
            capabilities: &[capability],
            data: b"abc",
            ..EMPTY
        });
        let system = System::parse(image.as_bytes()).unwrap();
        assert_eq!(system.objects.len(), 4);
        assert_eq!(system.capabilities[0].badge, 9);
        assert_eq!(system.source(&system.fills[0]), b"bc");
    }

    #[test]
    fn refuses_records_that_name_nothing() {
        let objects = OBJECTS.map(object);
        let capability = Capability {
            cnode: 0,
            slot: 0,
            object: 0,
            rights: Rights::ALL,
            badge: 0,
        };
        let image = write(&ImageWriter {
            objects: &objects,
            capabilities: &[capability],
            ..EMPTY
        });
        assert_eq!(
            System::parse(image.as_bytes()).err(),
            Some(ParseError::Record("capabilities", 0))
        );
        let past_the_page = Fill {
            object: 0,
            reserved: 0,
            offset: 4095,
            source: 0,
            length: 2,
        };
        let image = write(&ImageWriter {
            objects: &objects,
            fills: &[past_the_page],
            data: b"ab",
            ..EMPTY
        });
        assert_eq!(
            System::parse(image.as_bytes()).err(),
            Some(ParseError::Record("fills", 0))
        );
    }

    #[test]
    fn refuses_what_is_cut_short() {
        let objects = OBJECTS.map(object);
        let image = write(&ImageWriter {
            objects: &objects,
            ..EMPTY
        });
        let bytes = image.as_bytes();
        assert!(System::parse(bytes).is_ok());
        for end in 0..bytes.len() {
            assert!(System::parse(&bytes[..end]).is_err(), "{end}");
        }
    }
}
