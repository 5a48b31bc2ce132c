//! Guest addresses of BARs: the BAR that decodes an access, and whether the access is
//! emulated (M13).

use channel::msix::FunctionBar;
use pci::{BarInfo, FUNCTION_BARS, FunctionInfo, GUEST_FUNCTIONS, PAGE_SIZE, Width};
use spec::FunctionId;

/// Where each BAR of each of the guest's functions is decoded; `None` where it is not.
pub type Addresses = [[Option<u64>; FUNCTION_BARS]; GUEST_FUNCTIONS];

/// The functions' BARs, at the guest addresses at which they are decoded.
#[derive(Debug)]
pub struct BarMap<'a> {
    functions: &'a [FunctionInfo],
    /// The addresses.
    pub addresses: Addresses,
}

impl<'a> BarMap<'a> {
    /// Creates the map with no BAR decoded. Functions past [`GUEST_FUNCTIONS`] are left
    /// out.
    #[must_use]
    pub fn new(functions: &'a [FunctionInfo]) -> Self {
        Self {
            functions: &functions[..functions.len().min(GUEST_FUNCTIONS)],
            addresses: [[None; FUNCTION_BARS]; GUEST_FUNCTIONS],
        }
    }

    /// Returns the functions.
    #[must_use]
    pub const fn functions(&self) -> &'a [FunctionInfo] {
        self.functions
    }

    /// Returns one of the functions.
    #[must_use]
    pub fn function(&self, function: FunctionId) -> Option<&'a FunctionInfo> {
        self.functions.iter().find(|info| info.index == function)
    }

    /// Returns the BAR that decodes all of `width` bytes at `address`, and the offset
    /// in it.
    #[must_use]
    pub fn place(&self, address: u64, width: Width) -> Option<(FunctionBar, u64)> {
        let (_, place, offset) = self.find(BarInfo::is_memory, address, width)?;
        Some((place, offset))
    }

    /// Returns the same of an I/O port.
    #[must_use]
    pub fn ports(&self, port: u16, width: Width) -> Option<(FunctionBar, u16)> {
        let (_, place, offset) = self.find(BarInfo::has_ports, port.into(), width)?;
        // A BAR of ports ends at port 0xffff.
        Some((place, offset as u16))
    }

    fn find(
        &self,
        kind: impl Fn(&BarInfo) -> bool,
        address: u64,
        width: Width,
    ) -> Option<(&'a FunctionInfo, FunctionBar, u64)> {
        self.functions
            .iter()
            .zip(&self.addresses)
            .find_map(|(info, addresses)| {
                let bars = info.bars.iter().zip(addresses);
                (0..).zip(bars).find_map(|(bar, (bar_info, base))| {
                    let offset = address.checked_sub((*base)?)?;
                    let place = FunctionBar {
                        function: info.index,
                        bar,
                    };
                    let inside = offset < bar_info.size && bar_info.size - offset >= width.bytes();
                    (inside && kind(bar_info)).then_some((info, place, offset))
                })
            })
    }

    /// Returns the place of an access on a page that holds MSI-X table or PBA (M13).
    /// An access that runs from one page into the next has none.
    #[must_use]
    pub fn claimed(&self, address: u64, width: Width) -> Option<(FunctionBar, u32)> {
        let (info, place, offset) = self.find(BarInfo::is_memory, address, width)?;
        info.msix
            .page_index(u32::from(place.bar), offset / PAGE_SIZE)?;
        (offset % PAGE_SIZE + width.bytes() <= PAGE_SIZE)
            .then(|| u32::try_from(offset).ok())
            .flatten()
            .map(|offset| (place, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pci::{BarKind, MsixPage};

    #[test]
    fn ports_and_addresses_are_apart() {
        let mut info = FunctionInfo::default();
        for (bar, kind) in [(1, BarKind::Io), (3, BarKind::Memory32)] {
            info.bars[bar].kind = kind;
            info.bars[bar].address = 0x2000;
            info.bars[bar].size = 0x20;
        }
        let functions = [info];
        let mut map = BarMap::new(&functions);
        map.addresses[0][1] = Some(0xffe0);
        map.addresses[0][3] = Some(0xffe0);
        let place = |bar| FunctionBar {
            function: FunctionId(0),
            bar,
        };
        assert_eq!(map.ports(0xffe0, Width::Dword), Some((place(1), 0)));
        assert_eq!(map.ports(0xffff, Width::Byte), Some((place(1), 0x1f)));
        assert_eq!(map.ports(0xffff, Width::Word), None);
        assert_eq!(map.ports(0xffdf, Width::Byte), None);
        assert_eq!(map.place(0xfffc, Width::Dword), Some((place(3), 0x1c)));
        assert_eq!(map.place(0x1_0000, Width::Byte), None);
    }

    #[test]
    fn an_access_lies_in_its_bar_and_on_one_page() {
        let mut info = FunctionInfo::default();
        info.bars[2].kind = BarKind::Memory32;
        info.bars[2].size = 3 * PAGE_SIZE;
        info.msix.page_count = 1;
        info.msix.pages[0] = MsixPage { bar: 2, page: 1 };
        let functions = [info];
        let mut map = BarMap::new(&functions);
        let base = 0xfe00_0000;
        assert_eq!(map.place(base, Width::Byte), None);
        map.addresses[0][2] = Some(base);
        let place = FunctionBar {
            function: FunctionId(0),
            bar: 2,
        };
        let end = 3 * PAGE_SIZE;
        for width in [Width::Byte, Width::Word, Width::Dword, Width::Qword] {
            let bytes = width.bytes();
            assert_eq!(map.place(base, width), Some((place, 0)));
            let last = end - bytes;
            assert_eq!(map.place(base + last, width), Some((place, last)));
            assert_eq!(map.place(base + last + 1, width), None);
            assert_eq!(map.place(base - 1, width), None);
            // The table's page, from its first byte to its last.
            let (first, last) = (PAGE_SIZE, 2 * PAGE_SIZE - bytes);
            for offset in [first, last] {
                let claimed = map.claimed(base + offset, width);
                assert_eq!(claimed, Some((place, offset as u32)));
            }
            assert_eq!(map.claimed(base + PAGE_SIZE - 1, width), None);
            assert_eq!(map.claimed(base + last + 1, width), None);
        }
    }
}
