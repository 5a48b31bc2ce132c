//! What an IOMMU does, whoever made it.

use channel::Error;
use channel::iommu::FaultRecord;
use heapless::Vec;
use spec::{FUNCTIONS, IommuKind, RESERVED, UNITS};

use crate::hardware::{PAGE, Stuck, Tables};
use crate::pages::{Fixed, Frames, Ram};

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
    /// Too many functions, or one behind no unit.
    Functions,
    /// No unit, or too many.
    Units,
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
            Self::Functions => "there are too many functions, or one is behind none of its units",
            Self::Units => "it has no unit, or too many",
            Self::SharedId => "a function has the I/O APIC's id",
            Self::Off => "it was not in force before",
            Self::NotOurs => "it is not as it was left",
            Self::Lost(what) | Self::Stuck(what) => what,
        }
    }

    /// Returns it as an error that has nothing to do with a certain unit.
    pub(crate) const fn of_none(self) -> Failed {
        Failed {
            unit: 0,
            error: self,
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

/// Which unit cannot be used, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The unit's position.
    pub unit: usize,
    /// The reason.
    pub error: SetupError,
}

/// Where the requests of a function come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The id that they carry.
    pub id: u16,
    /// The unit that they come to.
    pub unit: u8,
}

/// Whether a unit is set up or found set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At boot: everything is off and the tables are zero.
    Fresh,
    /// After a restart of this component: the unit works, and goes on working.
    Adopt,
}

/// The memory for the units' tables, and the functions it is for.
#[derive(Debug)]
pub struct Memory<'a, T> {
    /// The memory.
    pub tables: T,
    /// Its machine address.
    pub base: u64,
    /// Bytes of it.
    pub size: usize,
    /// The functions, by position.
    pub requesters: &'a [Requester],
    /// Functions that nobody has, and that firmware wants to reach memory of its own.
    pub firmware: &'a [Requester],
    /// Requester id of the I/O APIC.
    pub ioapic: u16,
}

/// Requesters by function, and behind them those of the firmware, which have one domain and
/// one set of page tables together.
#[derive(Debug)]
pub(crate) struct Requesters {
    all: Vec<Requester, { FUNCTIONS + RESERVED }>,
    functions: usize,
}

impl Requesters {
    /// Returns the functions.
    pub fn functions(&self) -> &[Requester] {
        &self.all[..self.functions]
    }

    /// Returns all of them.
    pub fn all(&self) -> &[Requester] {
        &self.all
    }

    /// Returns the firmware's.
    pub fn firmware(&self) -> &[Requester] {
        &self.all[self.functions..]
    }

    /// Returns how many sets of page tables there are: one for each function, and then one
    /// for the firmware's.
    pub fn sets(&self) -> usize {
        self.functions + usize::from(!self.firmware().is_empty())
    }
}

/// Alignment of the tables' machine address.
const TABLES_ALIGNMENT: u64 = 2 << 20;

impl<T: Tables> Memory<'_, T> {
    /// Checks the rules of every machine with so many units. `fixed` is the memory that their
    /// own tables take.
    pub(crate) fn check(&self, units: usize, fixed: usize) -> Result<Requesters, SetupError> {
        if units == 0 || units > UNITS {
            return Err(SetupError::Units);
        }
        if self.requesters.len() > FUNCTIONS || self.firmware.len() > RESERVED {
            return Err(SetupError::Functions);
        }
        let all = self.requesters.iter().chain(self.firmware).copied();
        let requesters = Requesters {
            all: all.collect(),
            functions: self.requesters.len(),
        };
        if (requesters.all.iter()).any(|one| usize::from(one.unit) >= units) {
            return Err(SetupError::Functions);
        }
        if (requesters.all.iter()).any(|one| one.id == self.ioapic) {
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

/// Does something with each unit, and stops at the first that fails.
pub(crate) fn each<U, E: Into<SetupError>>(
    units: &mut [U],
    mut act: impl FnMut(&mut U) -> Result<(), E>,
) -> Result<(), Failed> {
    for (position, unit) in units.iter_mut().enumerate() {
        act(unit).map_err(|error| Failed {
            unit: position,
            error: error.into(),
        })?;
    }
    Ok(())
}

/// Takes over each unit. They are off only if all are: one that is on beside one that is off
/// is not as it was left.
pub(crate) fn adopt_each<U>(
    units: &mut [U],
    mut adopt: impl FnMut(&mut U) -> Result<(), SetupError>,
) -> Result<(), Failed> {
    let mut failed: Option<Failed> = None;
    let mut all_off = true;
    for (position, unit) in units.iter_mut().enumerate() {
        let result = adopt(unit);
        all_off &= result == Err(SetupError::Off);
        if let Err(error) = result {
            failed.get_or_insert(Failed {
                unit: position,
                error,
            });
        }
    }
    match failed {
        None => Ok(()),
        Some(failed) if failed.error == SetupError::Off && !all_off => Err(Failed {
            error: SetupError::NotOurs,
            ..failed
        }),
        Some(failed) => Err(failed),
    }
}

/// Takes the next fault of any unit. The one after that which had the last is asked first: a
/// device that makes faults without end hides none of another unit.
pub(crate) fn in_turn<U>(
    units: &mut [U],
    turn: &mut usize,
    mut next: impl FnMut(&mut U) -> Option<FaultRecord>,
) -> Option<FaultRecord> {
    for step in 0..units.len() {
        let place = (*turn + step) % units.len();
        if let Some(fault) = next(&mut units[place]) {
            *turn = place + 1;
            return Some(fault);
        }
    }
    None
}

/// An IOMMU in force: all units of the machine. Functions are positions in the list that it was set up
/// with; any other is [`Error::NotFound`].
pub trait Unit {
    /// Returns which kind it is.
    fn kind(&self) -> IommuKind;

    /// Makes the function's page tables, which are not in use yet: its guest's RAM, and the
    /// firmware's memory, in the order of its addresses. To make them
    /// again from the same frames changes nothing, even while they are in use.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for memory that no function may have, or twice for one address,
    /// [`Error::Exhausted`] if the tables have no room, [`Error::Failed`] for a
    /// frame that is not there.
    fn build(
        &mut self,
        function: usize,
        ram: Ram,
        fixed: &[Fixed],
        frames: &mut dyn Frames,
    ) -> Result<(), Error>;

    /// Lets the firmware's functions reach this memory, in the order of its addresses, and
    /// nothing else.
    ///
    /// # Errors
    ///
    /// As [`Self::build`] and [`Self::attach`]; they then reach nothing.
    fn keep(&mut self, fixed: &[Fixed]) -> Result<(), Error>;

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
