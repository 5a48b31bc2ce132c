//! Guest addresses of BARs: the BAR that decodes an access, and whether the access is
//! emulated (M13).

use channel::msix::FunctionBar;
use pci::{FUNCTION_BARS, FunctionInfo, PAGE_SIZE, Width};
use spec::{FUNCTIONS, FunctionId};

/// Where each BAR of each function is decoded; `None` where it is not.
pub type Addresses = [[Option<u64>; FUNCTION_BARS]; FUNCTIONS];

/// The functions' BARs, at the guest addresses at which they are decoded.
#[derive(Debug)]
pub struct BarMap<'a> {
    functions: &'a [FunctionInfo],
    /// The addresses.
    pub addresses: Addresses,
}

impl<'a> BarMap<'a> {
    /// Creates the map with no BAR decoded. Functions past [`FUNCTIONS`] are left
    /// out.
    #[must_use]
    pub fn new(functions: &'a [FunctionInfo]) -> Self {
        Self {
            functions: &functions[..functions.len().min(FUNCTIONS)],
            addresses: [[None; FUNCTION_BARS]; FUNCTIONS],
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
        self.functions.iter().find_map(|info| {
            let bars = info.bars.iter().zip(self.addresses[info.index.index()]);
            (0..).zip(bars).find_map(|(bar, (bar_info, base))| {
                let offset = address.checked_sub(base?)?;
                let place = FunctionBar {
                    function: info.index,
                    bar,
                };
                let inside = offset < bar_info.size && bar_info.size - offset >= width.bytes();
                inside.then_some((place, offset))
            })
        })
    }

    /// Returns the place of an access on a page that holds MSI-X table or PBA (M13).
    /// An access that runs from one page into the next has none.
    #[must_use]
    pub fn claimed(&self, address: u64, width: Width) -> Option<(FunctionBar, u32)> {
        let (place, offset) = self.place(address, width)?;
        let info = self.function(place.function)?;
        info.msix
            .page_index(u32::from(place.bar), offset / PAGE_SIZE)?;
        (offset % PAGE_SIZE + width.bytes() <= PAGE_SIZE)
            .then(|| u32::try_from(offset).ok())
            .flatten()
            .map(|offset| (place, offset))
    }
}
