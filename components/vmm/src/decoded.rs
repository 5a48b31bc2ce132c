//! Guest addresses of BARs: the BAR that decodes an access, and whether the access is
//! emulated (M13).

use channel::msix::FunctionBar;
use pci::{FUNCTION_BARS, FunctionInfo, PAGE_SIZE, Width};
use spec::FUNCTIONS;

/// Where each BAR of each function is decoded; `None` where it is not.
pub type Addresses = [[Option<u64>; FUNCTION_BARS]; FUNCTIONS];

/// The functions' BARs, at the guest addresses at which they are decoded.
#[derive(Debug)]
pub struct DecodedBars<'a> {
    functions: &'a [FunctionInfo],
    /// The addresses.
    pub addresses: Addresses,
}

impl<'a> DecodedBars<'a> {
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

    /// Returns the BAR that decodes all of `width` bytes at `address`, and the offset
    /// in it.
    #[must_use]
    pub fn place(&self, address: u64, width: Width) -> Option<(FunctionBar, u64)> {
        for (function, info) in self.functions.iter().enumerate() {
            for (bar, bar_info) in info.bars.iter().enumerate() {
                let Some(base) = self.addresses[function][bar] else {
                    continue;
                };
                let Some(offset) = address.checked_sub(base) else {
                    continue;
                };
                if offset < bar_info.size && bar_info.size - offset >= width.bytes() {
                    let place = FunctionBar {
                        function: function as u8,
                        bar: bar as u8,
                    };
                    return Some((place, offset));
                }
            }
        }
        None
    }

    /// Returns the place of an access on a page that holds MSI-X table or PBA (M13).
    /// An access that runs from one page into the next has none.
    #[must_use]
    pub fn claimed(&self, address: u64, width: Width) -> Option<(FunctionBar, u32)> {
        let (place, offset) = self.place(address, width)?;
        let info = self.functions.get(usize::from(place.function))?;
        info.msix
            .page_index(u32::from(place.bar), offset / PAGE_SIZE)?;
        (offset % PAGE_SIZE + width.bytes() <= PAGE_SIZE)
            .then(|| u32::try_from(offset).ok())
            .flatten()
            .map(|offset| (place, offset))
    }
}
