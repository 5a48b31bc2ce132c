//! Which functions there are probes for, and where their registers are at hand.

use dma_probe::{DEVICE, REGISTER_BAR, VENDOR, nvme};
use pci::{FunctionInfo, PAGE_SIZE};

/// A kind of function whose reach is measured at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An Intel 82574L.
    E1000e,
    /// An NVMe controller.
    Nvme,
}

/// Most pages of registers that a probe uses.
pub const PROBE_PAGES: usize = 4;

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
            _ => None,
        }
    }

    /// Returns the registers that its probe uses.
    #[must_use]
    pub const fn window(self) -> Window {
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

/// Returns whether what a function reaches is measured at boot: there is a probe for it, and
/// its registers are at hand.
#[must_use]
pub fn is_measured(info: &FunctionInfo) -> bool {
    Kind::of(info).is_some_and(|kind| {
        let window = kind.window();
        (0..window.pages).all(|page| holder(info, window.bar, page).is_some())
    })
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
        assert!(is_measured(&nvme_with(4 * PAGE_SIZE, 9)));
        assert!(!is_measured(&nvme_with(PAGE_SIZE, 9)), "no doorbells");
        assert!(!is_measured(&nvme_with(4 * PAGE_SIZE, 0)), "no slots");
        assert!(!is_measured(&nvme_with(LARGE_PAGE_SIZE, 9)), "a large page");
        let other = FunctionInfo {
            class: 0x01_06_01,
            ..nvme_with(4 * PAGE_SIZE, 9)
        };
        assert_eq!(Kind::of(&other), None);
        assert!(!is_measured(&other));
        let nic = FunctionInfo {
            vendor: VENDOR,
            device: DEVICE,
            ..other
        };
        assert!(is_measured(&nic));
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
        assert!(is_measured(&info));
        assert_eq!(holder(&info, 6, 0), None);
    }
}
