//! Which functions there are probes for, and where their registers are at hand.

use dma_probe::{DEVICE, REGISTER_BAR, VENDOR, nvme, xhci};
use pci::{FunctionInfo, PAGE_SIZE};

/// A kind of function whose reach is measured at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An Intel 82574L.
    E1000e,
    /// An NVMe controller.
    Nvme,
    /// An xHCI controller.
    Xhci,
}

/// Most pages of registers that a probe uses.
pub const PROBE_PAGES: usize = 16;

/// The registers that a probe uses: a BAR, and its first pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The BAR.
    pub bar: usize,
    /// How many.
    pub pages: u64,
}

impl Kind {
    /// Returns which kind a function is, if there is a probe for it.
    #[must_use]
    pub fn of(info: &FunctionInfo) -> Option<Self> {
        match (info.vendor, info.device) {
            (VENDOR, DEVICE) => Some(Self::E1000e),
            _ if info.class == nvme::CLASS => Some(Self::Nvme),
            _ if info.class == xhci::CLASS => Some(Self::Xhci),
            _ => None,
        }
    }

    /// Returns the registers that its probe uses of this function.
    #[must_use]
    pub fn window(self, info: &FunctionInfo) -> Window {
        match self {
            // The highest is the transmit descriptor control at 0x3828.
            Self::E1000e => Window {
                bar: REGISTER_BAR,
                pages: 4,
            },
            Self::Nvme => Window {
                bar: nvme::REGISTER_BAR,
                pages: nvme::REGISTER_PAGES,
            },
            // Where in its BAR it has which differs: what a probe misses, it says.
            Self::Xhci => Window {
                bar: xhci::REGISTER_BAR,
                pages: (info.bars[xhci::REGISTER_BAR].size / PAGE_SIZE)
                    .clamp(1, xhci::REGISTER_PAGES),
            },
        }
    }
}

/// Who holds a page of a function's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The vmm, in this slot of its CNode.
    Vmm(u32),
    /// The msix component, at this position from the function's first slot on.
    Msix(u32),
}

/// Returns who holds a page of a BAR; `None` if nobody does, or as part of a large page.
#[must_use]
pub fn holder(info: &FunctionInfo, bar: usize, page: u64) -> Option<Holder> {
    if let Some(index) = info.msix.page_index(bar as u32, page) {
        return Some(Holder::Msix(index as u32));
    }
    let first = info.bars.get(bar)?.first_slot as u32;
    let offset = page * PAGE_SIZE;
    let (position, grain) = (0..)
        .zip(info.grains(bar))
        .take_while(|(_, grain)| grain.offset <= offset)
        .last()?;
    (first != 0 && grain.offset == offset && !grain.large).then_some(Holder::Vmm(first + position))
}

/// How much of what a function reaches is measured at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Memory and interrupts.
    All,
    /// Memory: its probe cannot have it forge an interrupt.
    Memory,
    /// Nothing: there is no probe of [`Kind`] for it, or its registers are not at hand.
    Nothing,
}

/// Returns how much of what a function reaches is measured at boot.
#[must_use]
pub fn extent(info: &FunctionInfo) -> Extent {
    let Some(kind) = Kind::of(info) else {
        return Extent::Nothing;
    };
    let window = kind.window(info);
    match kind {
        _ if (0..window.pages).any(|page| holder(info, window.bar, page).is_none()) => {
            Extent::Nothing
        }
        Kind::E1000e | Kind::Nvme => Extent::All,
        Kind::Xhci => Extent::Memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pci::{BarInfo, BarKind, LARGE_PAGE_SIZE, MsixPage};

    fn nvme_with(size: u64, first_slot: u64) -> FunctionInfo {
        let mut info = FunctionInfo {
            class: nvme::CLASS,
            ..FunctionInfo::default()
        };
        info.bars[0] = BarInfo {
            kind: BarKind::Memory64,
            address: 0xfeb0_0000,
            guest: 0xfeb0_0000,
            size,
            first_slot,
            ..BarInfo::default()
        };
        info
    }

    #[test]
    fn what_is_measured_has_a_probe_and_its_registers_at_hand() {
        assert_eq!(extent(&nvme_with(4 * PAGE_SIZE, 9)), Extent::All);
        assert_eq!(
            extent(&nvme_with(PAGE_SIZE, 9)),
            Extent::Nothing,
            "no doorbells"
        );
        assert_eq!(
            extent(&nvme_with(4 * PAGE_SIZE, 0)),
            Extent::Nothing,
            "no slots"
        );
        assert_eq!(
            extent(&nvme_with(LARGE_PAGE_SIZE, 9)),
            Extent::Nothing,
            "a large page"
        );
        let other = FunctionInfo {
            class: 0x01_06_01,
            ..nvme_with(4 * PAGE_SIZE, 9)
        };
        assert_eq!(Kind::of(&other), None);
        assert_eq!(extent(&other), Extent::Nothing);
        let nic = FunctionInfo {
            vendor: VENDOR,
            device: DEVICE,
            ..other
        };
        assert_eq!(extent(&nic), Extent::All);
    }

    #[test]
    fn of_an_xhci_controller_as_many_pages_are_used_as_there_are() {
        let sized = |pages: u64| FunctionInfo {
            class: xhci::CLASS,
            ..nvme_with(pages * PAGE_SIZE, 9)
        };
        for (has, used) in [(0, 1), (1, 1), (2, 2), (16, 16), (256, 16)] {
            assert_eq!(Kind::Xhci.window(&sized(has)).pages, used, "{has}");
        }
        assert_eq!(extent(&sized(4)), Extent::Memory);
        assert_eq!(extent(&sized(512)), Extent::Nothing, "a large page");
        // No kind has more than there is room for.
        assert!(Kind::Xhci.window(&sized(256)).pages <= PROBE_PAGES as u64);
    }

    #[test]
    fn a_page_of_msix_is_msix_s_and_the_others_move_up() {
        let mut info = nvme_with(4 * PAGE_SIZE, 9);
        info.msix.entries = 1;
        info.msix.page_count = 1;
        info.msix.pages[0] = MsixPage { bar: 0, page: 1 };
        let holders = [0, 1, 2, 3, 4].map(|page| holder(&info, 0, page));
        let vmm = |slot| Some(Holder::Vmm(slot));
        let expected = [vmm(9), Some(Holder::Msix(0)), vmm(10), vmm(11), None];
        assert_eq!(holders, expected);
        assert_eq!(extent(&info), Extent::All);
        assert_eq!(holder(&info, 6, 0), None);
    }
}
