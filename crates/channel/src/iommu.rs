//! The interfaces of the iommu component: [`remap`] for irq-router, [`dma`] for
//! the vmms and [`dump`] for the console. One endpoint, told apart by badge.

use crate::{MESSAGE_WORDS, Word, Words};
use spec::{FunctionId, IommuKind};

/// Interrupts of one function that follow each other: those of an MSI block, or of
/// MSI-X entries that are bound or unbound together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// The function.
    pub function: FunctionId,
    /// The first user vector of seL4, 0 to 107.
    pub first: u8,
    /// How many there are, at least one.
    pub count: u8,
}

impl Word for Vectors {
    fn to_word(self) -> u64 {
        u64::from(self.function.0) << 16 | u64::from(self.first) << 8 | u64::from(self.count)
    }
    fn from_word(word: u64) -> Option<Self> {
        let word = u32::try_from(word).ok().filter(|word| word >> 24 == 0)?;
        Some(Self {
            function: FunctionId((word >> 16) as u8),
            first: (word >> 8) as u8,
            count: word as u8,
        })
    }
}

/// `InterruptRemap`: irq-router to iommu.
pub mod remap {
    use super::Vectors;

    interface! {
        /// Remapping entries: the interrupts that a function may raise. Both
        /// operations may be repeated without harm.
        pub trait InterruptRemap {
            /// Lets the function raise these vectors; the unit is waited for once.
            /// The reply is the message (address, data) of the first; each further
            /// vector has the same address and one more in the data, as a device
            /// with an MSI block sends it (PCIe 6.0 section 7.7.1.5). Without
            /// remapping in force it is the plain message.
            ///
            /// Errors: [`NotFound`](crate::Error::NotFound) for a function that
            /// is not there, [`Refused`](crate::Error::Refused) for vectors
            /// that do not exist, or none.
            1 => #[idempotent] fn allow(vectors: Vectors) -> (u64, u32);
            /// Takes that permission away. When it returns, the function cannot
            /// raise them.
            2 => #[idempotent] fn forbid(vectors: Vectors) -> ();
        }
    }
}

/// `DmaControl`: vmm to iommu. A function reaches the memory of its guest or
/// nothing; which memory that is, the iommu component knows from its own
/// capabilities.
pub mod dma {
    use spec::FunctionId;

    interface! {
        /// The memory that the calling guest's functions reach. Both operations may be
        /// repeated without harm.
        pub trait DmaControl {
            /// Lets the function reach its guest's memory.
            1 => #[idempotent] fn attach(function: FunctionId) -> ();
            /// Takes the memory away. When it returns, the function reaches nothing.
            2 => #[idempotent] fn detach(function: FunctionId) -> ();
        }
    }
}

/// A function's state, as a dump shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionState {
    /// The unit that confines it.
    pub unit: IommuKind,
    /// It reaches its guest's memory; else nothing.
    pub attached: bool,
    /// Vectors that it may raise.
    pub vectors: u8,
    /// 4 KiB pages that it reaches when it is attached.
    pub pages: u32,
    /// Faults that the unit recorded for it.
    pub faults: u64,
}

impl Words for FunctionState {
    const LENGTH: usize = 3;
    fn put(self, words: &mut [u64; MESSAGE_WORDS]) {
        words[0] = self.unit as u64 | u64::from(self.attached) << 8 | u64::from(self.vectors) << 16;
        words[1] = self.pages.into();
        words[2] = self.faults;
    }
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        Some(Self {
            unit: IommuKind::ALL
                .into_iter()
                .find(|&kind| kind as u8 == words[0] as u8)?,
            attached: words[0] >> 8 & 1 == 1,
            vectors: (words[0] >> 16) as u8,
            pages: u32::try_from(words[1]).ok()?,
            faults: words[2],
        })
    }
}

/// An access or interrupt that the unit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// Counts all faults, from 0.
    pub number: u64,
    /// Requester id.
    pub requester: u16,
    /// It was a write (or an interrupt).
    pub write: bool,
    /// It was an interrupt request.
    pub interrupt: bool,
    /// The unit's own reason code.
    pub reason: u8,
    /// The address, or the entry's index for an interrupt.
    pub address: u64,
}

impl Words for FaultRecord {
    const LENGTH: usize = 3;
    fn put(self, words: &mut [u64; MESSAGE_WORDS]) {
        words[0] = self.number;
        words[1] = u64::from(self.requester)
            | u64::from(self.write) << 16
            | u64::from(self.interrupt) << 17
            | u64::from(self.reason) << 24;
        words[2] = self.address;
    }
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        Some(Self {
            number: words[0],
            requester: words[1] as u16,
            write: words[1] >> 16 & 1 == 1,
            interrupt: words[1] >> 17 & 1 == 1,
            reason: (words[1] >> 24) as u8,
            address: words[2],
        })
    }
}

/// `IommuDump`: console to iommu. Changes nothing.
pub mod dump {
    use super::{FaultRecord, FunctionState};
    use spec::FunctionId;

    interface! {
        /// State of each function, and the last faults.
        pub trait IommuDump {
            /// A function's state; [`NotFound`](crate::Error::NotFound) if it is
            /// not there.
            1 => #[idempotent] fn function(function: FunctionId) -> FunctionState;
            /// The first kept fault whose number is at or after `from`;
            /// [`NotFound`](crate::Error::NotFound) if there is none.
            2 => #[idempotent] fn next_fault(from: u64) -> FaultRecord;
        }
    }
}
