//! The composed system, written by the build tool and read by init, and the facts
//! in which programs must agree.
//!
//! Responsible for: the flat, pointer-free format of the system image: which
//! kernel objects exist, which capability lies in which slot, what is mapped
//! where, which thread starts with what; the resource table that each component
//! finds in its own address space; and each number that more than one crate needs
//! and none owns: vectors, messages, badges, limits, waits. Must never: decide
//! anything; the tool decides, init carries out. May call: nothing.
//! Invariants: reading never panics and never reads outside the image; every
//! index in a record is checked by [`System::parse`] before it is used.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

pub mod acpi;
mod backoff;
mod badges;
mod ending;
mod guest;
mod image;
mod interrupts;
mod machine;
pub mod names;
pub mod posted;
mod records;
mod resources;
pub mod rewrite;
pub mod shim;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use backoff::Backoff;
pub use badges::{
    BADGE_CALL, BADGE_DOORBELL, BADGE_FIRST_IRQ, BADGE_GUEST_GONE, BADGE_TIMER, SLOTS, call_badge,
    slot_badge, slots, slots_of,
};
pub use ending::Ending;
pub use guest::{COM1, CONFIG_WINDOW, EXIT_PORT, EXIT_RESET, EXIT_SUCCESS};
pub use image::{BY_TABLES, HEADER_SIZE, Header, ImageWriter, ParseError, System, Table};
pub use interrupts::{MESSAGES, VECTORS, cpu_vector, host_message, vector_bits};
pub use machine::{
    BehindUnit, Clock, Configuration, Console, CpuKind, FLAGS_OPEN, IommuInfo, IommuKind,
    KernelLabel, MachineInfo, ReservedInfo, UnitInfo,
};
pub use records::{
    Cache, Capability, Fill, FirmwareMemory, Function, IommuPlace, Mapping, NONE, Name, Object,
    ObjectKind, OnExit, OnFault, PIN_BY_MACHINE, Requires, Rights, Selector, Start, Thread,
};
pub use resources::{Resource, ResourceKind, Resources};

/// Returns the bits of `mask` if they are set, else none.
pub fn bit<T: Default>(set: bool, mask: T) -> T {
    if set { mask } else { T::default() }
}

/// Returns the positions of the bits that are set in `word`, in ascending order.
#[expect(clippy::cast_possible_truncation, reason = "a position is below 64")]
pub fn bits(mut word: u64) -> impl Iterator<Item = u16> + Clone {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros() as u16;
        word &= word.checked_sub(1)?;
        Some(bit)
    })
}

/// A PCI function of the system: its position in system.toml, from 0.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(transparent)]
pub struct FunctionId(pub u8);

impl FunctionId {
    /// Returns the function at a position, which is below [`FUNCTIONS`].
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "FUNCTIONS is a few")]
    pub const fn at(position: usize) -> Self {
        Self(position as u8)
    }

    /// Returns the position.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Guests in one system, at most: each has a bit in a notification word
/// ([`BADGE_GUEST_GONE`]), and each component room for so many.
pub const GUESTS: usize = 16;
/// PCI functions in one system, at most.
pub const FUNCTIONS: usize = 32;
/// Units of an IOMMU in one machine, at most: a machine with one socket has up to five.
pub const UNITS: usize = 8;
/// Pieces of memory that firmware wants functions to reach, at most: one for each function of
/// each.
pub const RESERVED: usize = 32;
/// The period, in microseconds, in which each guest has its turn.
pub const PERIOD_US: u64 = 10_000;
/// Where every component finds its resource table ([`Resources`]).
pub const RESOURCES_ADDRESS: u64 = 0x10_0000;
/// Where every component has its IPC buffer. The page before and the page
/// after stay unmapped. In seL4 5.0.0 it is the GS base too, which the kernel caches from
/// thread to thread, so a guest never has this address.
pub const IPC_BUFFER_ADDRESS: u64 = 0x20_0000;
/// End of every component's stack; it grows down to a guard page.
pub const STACK_TOP: u64 = 0x30_0000;
/// Where a component's program is linked.
pub const PROGRAM_ADDRESS: u64 = 0x40_0000;
/// Where the tool starts to place a component's memory regions.
pub const REGIONS_ADDRESS: u64 = 0x1_0000_0000;
/// Slot of a component's own CNode that holds its fault endpoint.
pub const FAULT_SLOT: u64 = 1;
/// Slot with the endpoint on which a component receives.
pub const ENDPOINT_SLOT: u64 = 2;
/// Label of the message on the fault endpoint by which a component asks the
/// monitor to end the system; no fault has it.
pub const STOP_LABEL: u64 = 64;
/// Label of the message by which the console asks the monitor to crash the
/// component whose position, from 1, is the first word. Only a system that was
/// composed for it does that.
pub const INJECT_LABEL: u64 = 65;
/// Address at which a crashed component or guest goes on: the last page but one of the
/// lower half, where nothing is mapped for either. Lower ones would not do: a guest may
/// have memory at 0, and would run what lies there.
pub const NOWHERE: u64 = 0x7fff_ffff_e000;
/// Label of the message by which the iommu component reports at boot that the unit is
/// set up. Before the answer, no guest runs.
pub const READY_LABEL: u64 = 66;
/// Label of the message by which the iommu component asks the monitor to stop one
/// guest and no other: the first word is the guest's position. From any other
/// sender it is answered and does nothing.
pub const GUEST_STOP_LABEL: u64 = 67;
/// Label of the message by which a component that panics tells the monitor why, in
/// [`PANIC_WORDS`] words of text with zeros behind it. It is the component's end, as a fault
/// is: no answer comes.
pub const PANIC_LABEL: u64 = 68;
/// Words of a panic's text.
pub const PANIC_WORDS: usize = 48;
