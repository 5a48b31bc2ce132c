//! What init learns about the machine at boot.

use crate::{FUNCTIONS, RESERVED, UNITS};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

/// What interrupts at the deadlines of the timer's clients.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(u32)]
pub enum Clock {
    /// The HPET's timer 0.
    #[default]
    Hpet = 0,
    /// Counter 0 of the 8254.
    Pit = 1,
}

/// How configuration space is reached.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(u16)]
pub enum Configuration {
    /// As memory, 4 KiB of each function (PCIe 6.0 section 7.2.2).
    #[default]
    Window = 0,
    /// By I/O ports, 256 bytes of each function (PCI Local Bus 3.0 section 3.2.2.3.2).
    Ports = 1,
}

/// Which of the board's serial ports has the text for people; the other has the logs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(u64)]
pub enum Console {
    /// The device `com1`.
    #[default]
    Com1 = 0,
    /// The device `com2`.
    Com2 = 1,
}

/// Facts for every component, on a page shared read-only.
#[derive(Clone, Copy, Debug, Default, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MachineInfo {
    /// Frequency of the time stamp counter in kHz, as the kernel measured it.
    pub tsc_khz: u64,
    /// Time stamp counter when the kernel handed over to init.
    pub handover_tsc: u64,
    /// How many functions were found and assigned.
    pub functions: u64,
    /// Unix time at handover in seconds, by the machine's clock chip; 0 if it has none.
    pub handover_time: u64,
    /// The kernel, as the image says it.
    pub kernel: KernelLabel,
    /// The clock that the timer has.
    pub clock: Clock,
    /// The I/O APIC's pin that it raises, where it sends no messages.
    pub clock_pin: u16,
    /// How configuration space is reached.
    pub configuration: Configuration,
    /// Where the text for people is.
    pub console: Console,
}

/// The word of a kernel's label that says that a guest may halt it by its flags.
pub const FLAGS_OPEN: &str = "flags-open";

/// Which kernel an image is for: words of ASCII with commas between them, such as
/// `5.0.0,bundled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct KernelLabel([u8; Self::SIZE]);

impl KernelLabel {
    const SIZE: usize = 128;
    /// The label without words.
    pub const EMPTY: Self = Self([0; Self::SIZE]);

    /// Creates a label of `text`, of which 128 bytes have room.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut label = Self::EMPTY;
        for (byte, of) in label.0.iter_mut().zip(text.bytes()) {
            *byte = of;
        }
        label
    }

    /// Returns whether a guest may halt the kernel by its flags.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.as_str().split(',').any(|word| word == FLAGS_OPEN)
    }

    /// Returns the text; an empty one if there is none that can be read.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }
}

impl Default for KernelLabel {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl MachineInfo {
    /// Returns the Unix time in nanoseconds at which the time stamp counter would have
    /// been 0, had it always run at its rate. `None` if the time is not known.
    #[must_use]
    pub fn tsc_epoch_ns(&self) -> Option<u64> {
        let handover = self.handover_time.checked_mul(1_000_000_000);
        let running = u128::from(self.handover_tsc) * 1_000_000;
        let running = running.checked_div(self.tsc_khz.into())?;
        let running = u64::try_from(running).ok()?;
        handover.filter(|&ns| ns > 0)?.checked_sub(running)
    }
}

/// Kind of an IOMMU: what confines DMA and interrupts of devices.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    TryFromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(u32)]
pub enum IommuKind {
    /// None that can be used: nothing is confined.
    #[default]
    None = 0,
    /// AMD I/O Virtualization Technology.
    Amd = 1,
    /// Intel Virtualization Technology for Directed I/O.
    Intel = 2,
}

impl IommuKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Amd, Self::Intel];

    /// Returns the name in a board's file and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Amd => "amd",
            Self::Intel => "intel",
        }
    }

    /// Returns the maker's name for it.
    #[must_use]
    pub const fn product(self) -> &'static str {
        match self {
            Self::None => "no IOMMU",
            Self::Amd => "AMD-Vi",
            Self::Intel => "VT-d",
        }
    }
}

/// The CPUs that the bundled kernel is built for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuKind {
    /// Those with pages of 1 GiB and instructions for the FS and GS base, as most are.
    #[default]
    HugePages,
    /// Any with a 64-bit mode: the kernel maps memory by pages of 2 MiB, and sets the bases by
    /// their MSRs.
    Baseline,
}

impl CpuKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::HugePages, Self::Baseline];

    /// Returns the name in a board's file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HugePages => "huge-pages",
            Self::Baseline => "baseline",
        }
    }
}

/// A unit of the IOMMU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct UnitInfo {
    /// Machine address of its registers.
    pub registers: u64,
    /// Bytes of registers that are mapped, behind those of the unit before it.
    pub size: u64,
}

/// Which unit a function is behind.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct BehindUnit {
    /// The function's requester id.
    pub requester: u16,
    /// The unit's position.
    pub unit: u16,
}

/// Memory of the firmware that a function is to reach.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ReservedInfo {
    /// Machine address of the first page, and the function's address for it.
    pub start: u64,
    /// Address after the last page.
    pub end: u64,
    /// The function's requester id.
    pub requester: u16,
    /// The position of its unit.
    pub unit: u16,
    /// 1: it may be read.
    pub read: u16,
    /// 1: it may be written.
    pub write: u16,
}

/// The IOMMU that init found by ACPI, on a page for the iommu component.
#[derive(Clone, Copy, Debug, Default, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IommuInfo {
    /// Which one it is.
    pub kind: IommuKind,
    /// Requester id of the I/O APIC, as the firmware tells it.
    pub ioapic: u32,
    /// Machine address of the memory for the units' tables, which is in one
    /// piece, and starts at a multiple of 2 MiB.
    pub tables: u64,
    /// Bytes of it.
    pub tables_size: u64,
    /// How many units there are.
    pub unit_count: u32,
    /// How many functions are assigned.
    pub function_count: u32,
    /// The units.
    pub units: [UnitInfo; UNITS],
    /// Which unit each assigned function is behind.
    pub functions: [BehindUnit; FUNCTIONS],
    /// How many pieces of the firmware's memory there are.
    pub reserved_count: u64,
    /// Those pieces, of assigned functions and of others.
    pub reserved: [ReservedInfo; RESERVED],
}

impl IommuInfo {
    /// Returns the units.
    #[must_use]
    pub fn units(&self) -> &[UnitInfo] {
        &self.units[..UNITS.min(self.unit_count as usize)]
    }

    /// Returns the pieces of the firmware's memory.
    pub fn reserved(&self) -> impl Iterator<Item = &ReservedInfo> {
        let count = usize::try_from(self.reserved_count).unwrap_or(RESERVED);
        self.reserved.iter().take(count)
    }

    /// Returns the position of the unit that a function is behind, if one has it.
    #[must_use]
    pub fn unit_of(&self, requester: u16) -> Option<u16> {
        let mut known = self.functions.iter().take(self.function_count as usize);
        let function = known.find(|function| function.requester == requester)?;
        Some(function.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::{KernelLabel, MachineInfo};

    #[test]
    fn a_label_is_the_text_that_it_was_made_of() {
        for text in ["", "5.0.0,bundled", &"x".repeat(KernelLabel::SIZE)] {
            assert_eq!(KernelLabel::new(text).as_str(), text);
        }
        let long = KernelLabel::new(&"x".repeat(KernelLabel::SIZE + 1));
        assert_eq!(long.as_str().len(), KernelLabel::SIZE);
        assert!(KernelLabel::new("installed,flags-open").is_open());
        assert!(!KernelLabel::new("installed,flags-opened").is_open());
        assert_eq!(KernelLabel([0xff; KernelLabel::SIZE]).as_str(), "");
    }

    #[test]
    fn the_counter_s_epoch_and_its_rate_lead_back_to_the_handover() {
        let machine = MachineInfo {
            tsc_khz: 3_000_000,
            handover_tsc: 9_000_000_000,
            handover_time: 1_795_814_130,
            functions: 0,
            ..MachineInfo::default()
        };
        assert_eq!(machine.tsc_epoch_ns(), Some(1_795_814_127_000_000_000));
        let unknown = MachineInfo {
            handover_time: 0,
            handover_tsc: 0,
            ..machine
        };
        assert_eq!(unknown.tsc_epoch_ns(), None);
        // A counter that ran longer than there is time.
        let old = MachineInfo {
            handover_tsc: u64::MAX,
            tsc_khz: 1,
            ..machine
        };
        assert_eq!(old.tsc_epoch_ns(), None);
    }
}
