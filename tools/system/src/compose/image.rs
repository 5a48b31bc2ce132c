//! What goes into composing, and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use spec::{Capability, Function, IommuPlace, KernelLabel, Mapping, Object, Thread};

use crate::program::Program;

pub const PAGE: u64 = 4096;
/// Bytes of a ring that carries a log or a guest's output.
pub const RING_SIZE: u64 = size_of::<shm::Ring>() as u64;

/// Programs by name, and guest images by the guest's name.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Component programs.
    pub components: BTreeMap<String, Program>,
    /// Guest ELF files.
    pub guests: BTreeMap<String, Vec<u8>>,
    /// Virtual address at which a guest's RAM is a second time, of those with an image
    /// that is linked there.
    pub second_addresses: BTreeMap<String, u64>,
    /// Addresses that a guest must not write, of those whose image is to be protected from
    /// them: they have no page at address 0 either.
    pub read_only: BTreeMap<String, Vec<Range<u64>>>,
    /// Guests whose file has a shim, which gets the command line in another way.
    /// With whether its image calls it while it runs.
    pub shims: BTreeMap<String, bool>,
    /// Guests of whose files instructions were rewritten ([`spec::rewrite`]).
    pub rewritten: BTreeSet<String>,
}

/// What the command decides, and no file.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The console may crash components: for tests.
    pub inject_faults: bool,
    /// Init compares every CSpace with the table and ends.
    pub audit: bool,
    /// Init prints what the machine has and ends.
    pub probe: bool,
    /// Components log every access of the guests.
    pub trace: bool,
    /// The kernel that the image is for.
    pub kernel: KernelLabel,
    /// Bits that its badges have.
    pub badge_bits: u32,
}

/// No tests and traces, on a kernel that sets no limit.
impl Default for Options {
    fn default() -> Self {
        Self {
            inject_faults: false,
            audit: false,
            probe: false,
            trace: false,
            kernel: KernelLabel::default(),
            badge_bits: u64::BITS,
        }
    }
}

/// A composed image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Objects to be made.
    pub objects: Vec<Object>,
    /// Capabilities to be handed out.
    pub capabilities: Vec<Capability>,
    /// Mappings.
    pub mappings: Vec<Mapping>,
    /// PCI functions.
    pub functions: Vec<Function>,
    /// Threads.
    pub threads: Vec<Thread>,
    /// Where the IOMMU goes.
    pub iommu: IommuPlace,
    /// The image as init reads it.
    pub bytes: Vec<u8>,
    /// Who writes which log, in the order of the ids on the log port.
    pub log_writers: Vec<String>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            capabilities: Vec::new(),
            mappings: Vec::new(),
            functions: Vec::new(),
            threads: Vec::new(),
            iommu: IommuPlace::NONE,
            bytes: Vec::new(),
            log_writers: Vec::new(),
        }
    }
}

/// Why a system cannot be composed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposeError(pub(super) String);

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ComposeError {}
