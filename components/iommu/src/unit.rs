//! What an IOMMU does, whoever made it.

use channel::Error;
use channel::iommu::FaultRecord;
use heapless::Vec;
use spec::{FUNCTIONS, IommuKind};

use crate::hardware::{PAGE, Stuck, Tables};
use crate::pages::{Frames, Ram};

/// Destination of every interrupt: the local APIC of the boot CPU, the only one
/// that the kernel runs on.
pub(crate) const DESTINATION: u8 = 0;

/// Why the unit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// Its registers read all ones, or all zeroes: nothing is there.
    Absent,
    /// It cannot remap interrupts, without which DMA raises any vector.
    NoRemapping,
    /// It has no command queue.
    NoQueue,
    /// It has no page tables of three or four levels.
    NoWalk,
    /// It has too few domains.
    NoDomains,
    /// Its tables' memory is too small or starts at no multiple of 2 MiB.
    Tables,
    /// Too many functions.
    Functions,
    /// A function has the I/O APIC's requester id.
    SharedId,
    /// After a restart: it was not in force before.
    Off,
    /// After a restart: it is on, but not as this component left it.
    NotOurs,
    /// After a restart: it is on and does not answer.
    Lost(&'static str),
    /// It did not do something in time.
    Stuck(&'static str),
}

impl SetupError {
    /// Returns the reason in words, for the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Absent => "nothing answers at its address",
            Self::NoRemapping => "it cannot remap interrupts",
            Self::NoQueue => "it has no invalidation queue",
            Self::NoWalk => "it has no page tables of three or four levels",
            Self::NoDomains => "it has too few domains",
            Self::Tables => "the memory for its tables is too small or not aligned",
            Self::Functions => "there are too many functions",
            Self::SharedId => "a function has the I/O APIC's id",
            Self::Off => "it was not in force before",
            Self::NotOurs => "it is not as it was left",
            Self::Lost(what) | Self::Stuck(what) => what,
        }
    }

    /// Returns whether the unit may be on although it does not obey us. Then no
    /// client may hear that a function reaches nothing.
    #[must_use]
    pub const fn lost(self) -> bool {
        matches!(self, Self::NotOurs | Self::Lost(_))
    }
}

impl From<Stuck> for SetupError {
    fn from(stuck: Stuck) -> Self {
        Self::Stuck(stuck.0)
    }
}

/// Whether a unit is set up or found set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At boot: everything is off and the tables are zero.
    Fresh,
    /// After a restart of this component: the unit works, and goes on working.
    Adopt,
}

/// The memory for a unit's tables, and the functions it is for.
#[derive(Debug)]
pub struct Memory<'a, T> {
    /// The memory.
    pub tables: T,
    /// Its machine address.
    pub base: u64,
    /// Bytes of it.
    pub size: usize,
    /// Requester ids of the functions, by position.
    pub requesters: &'a [u16],
    /// Requester id of the I/O APIC.
    pub ioapic: u16,
}

/// Requester ids by function.
pub(crate) type Requesters = Vec<u16, FUNCTIONS>;

/// Alignment of the tables' machine address.
const TABLES_ALIGNMENT: u64 = 2 << 20;

impl<T: Tables> Memory<'_, T> {
    /// Checks the rules of every unit. `fixed` is the memory that its own tables take.
    pub(crate) fn check(&self, fixed: usize) -> Result<Requesters, SetupError> {
        let requesters =
            Requesters::from_slice(self.requesters).map_err(|_| SetupError::Functions)?;
        if requesters.contains(&self.ioapic) {
            return Err(SetupError::SharedId);
        }
        let end = self.base.checked_add(self.size as u64);
        if !self.base.is_multiple_of(TABLES_ALIGNMENT)
            || end.is_none_or(|end| end > 1 << 52)
            || self.size < fixed + FUNCTIONS * 4 * PAGE
        {
            return Err(SetupError::Tables);
        }
        Ok(requesters)
    }
}

/// An IOMMU in force. Functions are positions in the list that it was set up
/// with; any other is [`Error::NotFound`].
pub trait Unit {
    /// Returns the requester.
    fn kind(&self) -> IommuKind;

    /// Makes the function's page tables, which are not in use yet. To make them
    /// again from the same frames changes nothing, even while they are in use.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for memory that no function may have,
    /// [`Error::Exhausted`] if the tables have no room, [`Error::Failed`] for a
    /// frame that is not there.
    fn build(&mut self, function: usize, ram: Ram, frames: &mut dyn Frames) -> Result<(), Error>;

    /// Returns whether the function reaches what its page tables say; else
    /// nothing.
    fn attached(&self, function: usize) -> bool;

    /// Lets the function reach what its page tables say.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the unit does not answer; the function is then not
    /// attached.
    fn attach(&mut self, function: usize) -> Result<(), Error>;

    /// Takes all memory away from the function. When it returns, the function
    /// reaches nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the unit does not answer: what it remembers may
    /// still be in force.
    fn detach(&mut self, function: usize) -> Result<(), Error>;

    /// Returns whether the function may raise a vector, below
    /// [`spec::VECTORS`].
    fn allowed(&self, function: usize, vector: u8) -> bool;

    /// Lets the function raise `count` vectors from `first` on, all
    /// below [`spec::VECTORS`]. Returns the message of the first.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the unit does not answer.
    fn allow(&mut self, function: usize, first: u8, count: u8) -> Result<(u64, u32), Error>;

    /// Takes the permission to raise these vectors away. When it returns, the
    /// function cannot raise them.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the unit does not answer: what it remembers may
    /// still be in force.
    fn forbid(&mut self, function: usize, first: u8, count: u8) -> Result<(), Error>;

    /// Pops the next recorded fault. Its number is not set; the service assigns it.
    fn next_fault(&mut self) -> Option<FaultRecord>;

    /// Makes room for faults again if some were lost for want of it; tells
    /// whether they were.
    fn overflowed(&mut self) -> bool;

    /// Returns a reason code in words.
    fn explain(&self, reason: u8) -> &'static str;
}
