//! The plain data of a function: what its guest sees, and how far it is from its
//! state at start.

use core::fmt;

use pci::FUNCTION_BARS;

use crate::bar::Bar;
use crate::msi::Msi;

/// A guest's view of its function, as changed by its writes. All of it outlives a
/// crash.
pub struct View {
    pub bars: [Bar; FUNCTION_BARS],
    /// The guest's command register.
    pub command: u16,
    /// The guest's value of the interrupt line register.
    pub interrupt_line: u8,
    /// The MSI-X capability that msix emulates.
    pub msix: Option<u16>,
    /// The guest has not touched command or messages since start or reset: the
    /// device's command register is as a reset leaves it.
    pub quiet: bool,
    /// MSI-X is on in the device.
    pub msix_enabled: bool,
    /// The first MSI capability.
    pub msi: Option<Msi>,
}

/// What resets a function, in the order in which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Function-level reset of the PCI Express capability here.
    Flr(u16),
    /// Function-level reset of the Advanced Features capability here.
    AdvancedFeatures(u16),
    /// From D0 to D3hot and back, by the power management capability here.
    Power(u16),
    /// The quirk of the device's model, if it has one.
    Model,
    /// A virtio function's device status, among the common registers that begin here.
    Status(u32),
}

impl Method {
    /// Returns its place in the order.
    pub(crate) const fn position(self) -> usize {
        match self {
            Self::Flr(_) => 0,
            Self::AdvancedFeatures(_) => 1,
            Self::Power(_) => 2,
            // No function has both.
            Self::Model | Self::Status(_) => 3,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flr(_) => "function-level reset",
            Self::AdvancedFeatures(_) => "function-level reset (Advanced Features)",
            Self::Power(_) => "D3hot and back to D0",
            Self::Model => "the reset of its model",
            Self::Status(_) => "its device status (virtio)",
        })
    }
}

/// Where a reset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A model's interrupts are off, and its interrupt timers run out.
    Stopping,
    /// The function's own requests are on their way.
    Drain(Method),
    /// In D3hot.
    Asleep(u16),
    /// Nothing may touch the function for so many ms; then it may not answer yet.
    Settle(Method, u64),
    /// The last pci-config died meanwhile: where the reset was is not known.
    Unknown,
}

/// How far a function is from its state at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It is in use.
    Used,
    /// It was reset, and is untouched since.
    Clean,
    /// Nothing resets it; it is quiet, and untouched since.
    Unclean,
    /// It is being reset: only the registers of the current step are read or written.
    UnderWay(Progress),
    /// It did not come back from a reset: it reads all ones from now on.
    Gone,
}

/// A reset that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub step: Step,
    /// When the step began, in ms.
    pub since: u64,
}

/// A reset's outcome that is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The function did not answer within a minute.
    Gone,
    /// Nothing that was tried resets it.
    Unclean,
}

/// Registers that the firmware had set up and a reset clears, besides BARs
/// and command register. Registers that the device lacks are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub device_control: u16,
    pub device_control_2: u16,
    pub link_control: u16,
    pub cache_line: u8,
    pub interrupt_line: u8,
}
