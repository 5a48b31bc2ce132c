//! Measures what a function can reach, by trying it; which functions there are probes for.

use core::fmt;

use dma_probe::{BEFORE, Probe, Stuck, WATCHED};
use pci::NoVirtio;
use spec::host_message;

/// Why what a function reaches is not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmeasured {
    /// There is no probe for its kind.
    NoProbe,
    /// Its registers are no pages of their own, or nobody's.
    NotAtHand,
    /// It is virtio, and its registers are not known.
    Registers(NoVirtio),
    /// It is virtio, and says that its accesses pass the IOMMU by, which is in use.
    PastTheUnit,
    /// It does not do what the measurement needs.
    Stuck(Stuck),
}

impl From<Stuck> for Unmeasured {
    fn from(stuck: Stuck) -> Self {
        Self::Stuck(stuck)
    }
}

impl fmt::Display for Unmeasured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProbe => f.write_str("there is no probe for functions of its kind"),
            Self::NotAtHand => f.write_str("the probe's registers are in no pages of their own"),
            Self::Registers(none) => none.fmt(f),
            Self::PastTheUnit => f.write_str(
                "it does not offer VIRTIO_F_ACCESS_PLATFORM, so its accesses pass the IOMMU by: \
                 put it behind (QEMU: iommu_platform=on); or have `iommu = \"none\"` in [board], \
                 for without that its guest's addresses are other memory of the machine",
            ),
            Self::Stuck(stuck) => stuck.fmt(f),
        }
    }
}

/// Result of one attempt to reach something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was tried, and did not happen.
    Confined,
    /// It was tried, and happened.
    Open,
    /// It could not be tried.
    Unknown,
}

/// What a function reaches beyond its guest's memory and its own vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Memory, by DMA.
    pub memory: Answer,
    /// The CPU, by interrupts that were not bound for it.
    pub interrupts: Answer,
}

impl Verdict {
    /// Nothing was tried.
    pub const UNKNOWN: Self = Self {
        memory: Answer::Unknown,
        interrupts: Answer::Unknown,
    };

    /// Returns whether a guest may have the function without its owner's word.
    #[must_use]
    pub fn confined(&self) -> bool {
        (self.memory, self.interrupts) == (Answer::Confined, Answer::Confined)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.memory {
            Answer::Confined => "reaches its guest's memory only",
            Answer::Open => "reaches all memory",
            Answer::Unknown => "may reach all memory",
        })?;
        let known = |answer| answer != Answer::Unknown;
        if known(self.memory) && !known(self.interrupts) {
            f.write_str(" (measured)")?;
        }
        f.write_str(match self.interrupts {
            Answer::Confined => ", raises its own interrupts only",
            Answer::Open => ", raises any interrupt",
            Answer::Unknown => ", may raise any interrupt",
        })?;
        f.write_str(match known(self.interrupts) {
            true => " (measured)",
            false => " (not measured)",
        })
    }
}

/// The measurement's needs besides the function.
pub trait Surroundings {
    /// Switches the function's bus mastering on, which is off so far. The reset has
    /// cleared any earlier owner's setup.
    fn let_it_master(&mut self);
    /// Returns where the function would find a page that is not the guest's.
    fn canary(&self) -> u64;
    /// Reads from its start.
    fn read_canary(&mut self, bytes: &mut [u8; WATCHED]);
    /// Writes there.
    fn write_canary(&mut self, bytes: &[u8; WATCHED]);
    /// Returns where it finds a page of the guest's that the probe does not use itself.
    fn allowed(&self) -> u64;
    /// Reads from its start.
    fn read_allowed(&mut self, bytes: &mut [u8; WATCHED]);
    /// Writes there.
    fn write_allowed(&mut self, bytes: &[u8; WATCHED]);
    /// Returns whether the interrupt of user vector [`Surroundings::vector`]
    /// has come since this was last asked.
    fn interrupted(&mut self) -> bool;
    /// Returns an unused user vector.
    fn vector(&self) -> u8;
}

/// Measures what the function reaches, and leaves it silent.
///
/// # Errors
/// [`Stuck`] if the function does not even do what it is told where it may, or cannot be reset:
/// then a missing effect proves nothing.
pub fn measure(probe: &mut impl Probe, around: &mut impl Surroundings) -> Result<Verdict, Stuck> {
    probe.quiesce()?;
    around.let_it_master();
    let verdict = attempts(probe, around);
    probe.quiesce()?;
    verdict
}

fn attempts(probe: &mut impl Probe, around: &mut impl Surroundings) -> Result<Verdict, Stuck> {
    let mut found = [0; WATCHED];
    around.write_allowed(&[BEFORE; WATCHED]);
    probe.write(around.allowed())?;
    around.read_allowed(&mut found);
    if found == [BEFORE; WATCHED] {
        return Err(Stuck::Order);
    }
    let bait = probe.bait();
    around.write_allowed(&bait);
    if !probe.reads(around.allowed())? {
        return Err(Stuck::Order);
    }
    around.write_canary(&[BEFORE; WATCHED]);
    // Whether the device says that it is done proves nothing: the bytes do.
    let _ = probe.write(around.canary());
    around.read_canary(&mut found);
    let written = found != [BEFORE; WATCHED];
    around.write_canary(&bait);
    let read = probe.reads(around.canary()) == Ok(true);
    // Drain interrupts raised before the measurement.
    around.interrupted();
    // Not in the format that an IOMMU remaps.
    let (_, data) = host_message(around.vector());
    let forged = probe.forge(data).map(|()| around.interrupted());
    let answer = |open| if open { Answer::Open } else { Answer::Confined };
    Ok(Verdict {
        memory: answer(written || read),
        interrupts: forged.map_or(Answer::Unknown, answer),
    })
}

#[cfg(test)]
mod tests;
