//! A small image, for tests.

extern crate std;

use std::vec::Vec;

use spec::{
    Capability, Function, Header, ImageWriter, IommuPlace, Mapping, NONE, Object, ObjectKind,
    Requires, System,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

pub const CONFIG: u32 = 0;
pub const MSIX: u32 = 1;
pub const VMM: u32 = 2;
pub const IOMMU: u32 = 3;
pub const SPACE: u32 = 4;
pub const MONITOR: u32 = 5;
pub const BELL: u32 = 6;
/// Memory of one page.
pub const PAGE: u32 = 7;
/// Memory of three pages.
pub const PAGES: u32 = 8;
/// Two pages of registers, of the HPET.
pub const REGISTERS: u32 = 9;
/// An object that is not memory but has a count.
pub const PIN: u32 = 10;
/// The 8254's ports.
pub const PORTS: u32 = 11;

pub const KINDS: [(ObjectKind, u64); 12] = [
    (ObjectKind::CNode, 0),
    (ObjectKind::CNode, 0),
    (ObjectKind::CNode, 0),
    (ObjectKind::CNode, 0),
    (ObjectKind::VSpace, 0),
    (ObjectKind::Endpoint, 0),
    (ObjectKind::Notification, 0),
    (ObjectKind::Memory, 1),
    (ObjectKind::Memory, 3),
    (ObjectKind::Device, 2),
    (ObjectKind::IoApicIrq, 2),
    (ObjectKind::IoPorts, 0),
];

pub const ECAM: u64 = 0xb000_0000;

/// What an image says.
#[derive(Default)]
pub struct Image {
    pub capabilities: Vec<Capability>,
    pub mappings: Vec<Mapping>,
    pub functions: Vec<Function>,
    pub iommu: Option<IommuPlace>,
    pub inject_faults: bool,
}

impl Image {
    /// Calls `f` with the image as init has it.
    pub fn system<V>(&self, f: impl FnOnce(&System<'_>) -> V) -> V {
        let mut objects = KINDS.map(|(kind, count)| Object::new("x", kind, 12, count));
        objects[REGISTERS as usize].requires = Requires::Hpet;
        objects[PORTS as usize].requires = Requires::Pit;
        let mut header = Header::new_zeroed();
        header.machine = PAGE.into();
        header.log = PAGE.into();
        header.monitor = MONITOR.into();
        header.doorbell = BELL.into();
        header.iommu = self.iommu.unwrap_or(IommuPlace::NONE);
        header.inject_faults = self.inject_faults.into();
        header.gone = [NONE; 2];
        let writer = ImageWriter {
            header,
            objects: &objects,
            capabilities: &self.capabilities,
            mappings: &self.mappings,
            fills: &[],
            threads: &[],
            functions: &self.functions,
            data: &[],
        };
        let mut bytes = Vec::new();
        writer.write(|piece| bytes.extend_from_slice(piece));
        let aligned: Vec<u64> = bytes
            .chunks(8)
            .map(|word| word.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
            .collect();
        f(&System::parse(aligned.as_bytes()).unwrap())
    }
}
