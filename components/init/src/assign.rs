//! What becomes of a function and its BARs: decided here, carried out by the program.

use core::fmt;
use core::ops::Range;

use pci::{
    BAR_WINDOW, BarKind, Bdf, ConfigSpace, FUNCTION_BARS, FunctionInfo, GUEST_BAR_SLOTS, Given,
    HIGH_BAR_WINDOW, MsixPage, NoAddress, NoFunction, PAGE_SIZE, discover, give_addresses,
};

/// Why the system does not start with a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It cannot be assigned.
    NoFunction(NoFunction),
    /// Its bus is outside the board's ECAM window.
    OutsideEcam,
    /// The firmware gave this BAR no address, and neither does [`give_addresses`].
    NoAddress(usize, NoAddress),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoFunction(none) => f.write_str(none.reason()),
            Self::OutsideEcam => f.write_str("it is outside the board's ECAM window"),
            Self::NoAddress(bar, why) => {
                write!(f, "the firmware gave BAR {bar} no address, and {why}")
            }
        }
    }
}

/// Discovers a function on a board whose ECAM window has so many `buses`, and gives addresses
/// to its BARs that have none. `open` opens the space of any other function.
///
/// # Errors
///
/// See [`Stop`].
pub fn look_at<S: ConfigSpace>(
    space: &mut impl ConfigSpace,
    host: Bdf,
    guest: Bdf,
    permissive: bool,
    buses: u64,
    open: impl FnMut(Bdf) -> S,
) -> Result<(FunctionInfo, Given), Stop> {
    let mut info = discover(space, host, guest, permissive).map_err(Stop::NoFunction)?;
    if u64::from(host.bus()) >= buses {
        return Err(Stop::OutsideEcam);
    }
    let given = give_addresses(space, &mut info, open);
    for (bar, (given, bar_info)) in given.iter().zip(&info.bars).enumerate() {
        match given {
            Some(Err(why)) if bar_info.size >= PAGE_SIZE => return Err(Stop::NoAddress(bar, *why)),
            _ => {}
        }
    }
    Ok((info, given))
}

/// In words, that a BAR has its address by [`give_addresses`].
pub struct GivenBehind(pub Bdf);

impl fmt::Display for GivenBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the firmware gave it no address, it has one in a window of the bridge {}",
            self.0
        )
    }
}

/// Gives each BAR its slots of those in `slots` ([`FunctionInfo::slot_count`]); those that
/// need few come first. A BAR for which there are
/// too few gets none. Returns the slots that are left.
pub fn share_out(info: &mut FunctionInfo, slots: Range<u32>) -> Range<u32> {
    let mut order: [usize; FUNCTION_BARS] = core::array::from_fn(|bar| bar);
    order.sort_unstable_by_key(|&bar| (info.slot_count(bar), bar));
    let mut left = slots;
    for bar in order {
        let count = info.slot_count(bar);
        if count != 0 && count <= left.len() as u64 {
            info.bars[bar].first_slot = left.start.into();
            left.start += count as u32;
        }
    }
    left
}

/// What becomes of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// There is none.
    None,
    /// The guest has it at the machine's address.
    Kept,
    /// The guest has it at another address, in the window.
    Moved,
    /// It is smaller than a page, which msix has: the guest reaches the BAR by traps.
    Claimed,
    /// It is smaller than a page, on which another function's BAR lies.
    Small,
    /// The windows have no room for it.
    Lost,
    /// It needs more slots than are left.
    NoSlots,
    /// The firmware gave it no ports.
    NoPorts,
}

impl Fate {
    /// Returns the fate of a BAR of a function whose BARs are placed and have their slots.
    #[must_use]
    pub fn of(info: &FunctionInfo, bar: usize) -> Self {
        let bar_info = &info.bars[bar];
        let first = MsixPage {
            bar: bar as u32,
            page: 0,
        };
        match bar_info.kind {
            BarKind::None => Self::None,
            BarKind::Io if !bar_info.has_ports() => Self::NoPorts,
            BarKind::Io if bar_info.first_slot == 0 => Self::NoSlots,
            BarKind::Io => Self::Kept,
            _ if bar_info.size < PAGE_SIZE && info.msix.pages().contains(&first) => Self::Claimed,
            _ if bar_info.size < PAGE_SIZE => Self::Small,
            _ if !bar_info.is_reachable() => Self::Lost,
            _ if bar_info.first_slot == 0 && info.grain_count(bar) != 0 => Self::NoSlots,
            _ if bar_info.guest != bar_info.address => Self::Moved,
            _ => Self::Kept,
        }
    }

    /// Returns whether the guest reaches all of the BAR.
    #[must_use]
    pub const fn works(self) -> bool {
        matches!(self, Self::Kept | Self::Moved | Self::Claimed)
    }
}

/// What becomes of one of a function's BARs, in words.
pub struct Told<'a>(pub &'a FunctionInfo, pub usize);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(info, index) = *self;
        let bar = &info.bars[index];
        match Fate::of(info, index) {
            Fate::None => f.write_str("there is none"),
            Fate::Kept => f.write_str("the guest has it there"),
            Fate::Moved => write!(
                f,
                "it is outside the window for BARs: the guest has it at {:#x}",
                bar.guest
            ),
            Fate::Claimed => f.write_str("it is smaller than a page: each access traps"),
            Fate::Small => write!(
                f,
                "of {} bytes, stays unmapped: another function's BAR lies on its page",
                bar.size
            ),
            Fate::Lost => {
                write!(
                    f,
                    "decodes nothing: the guest has no room for its {} MiB between {:#x} and {:#x}",
                    bar.size >> 20,
                    BAR_WINDOW.start,
                    BAR_WINDOW.end
                )?;
                match bar.kind {
                    BarKind::Memory64 => write!(
                        f,
                        ", nor between {:#x} and {:#x}",
                        HIGH_BAR_WINDOW.start, HIGH_BAR_WINDOW.end
                    ),
                    _ => Ok(()),
                }
            }
            Fate::NoSlots => write!(
                f,
                "decodes nothing: it needs {} capabilities, more than are left of the \
                 {GUEST_BAR_SLOTS} that the functions of a guest share",
                info.slot_count(index)
            ),
            Fate::NoPorts => f.write_str("reads 0: the firmware gave it no ports"),
        }
    }
}

/// Returns whether one of a function's memory BARs has a byte of these.
#[must_use]
pub fn has_memory(info: &FunctionInfo, address: u64, size: u64) -> bool {
    info.bars.iter().filter(|bar| bar.is_memory()).any(|bar| {
        let end = |start: u64, size| start.saturating_add(size);
        bar.address < end(address, size) && address < end(bar.address, bar.size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pci::BarInfo;
    extern crate std;
    use std::string::ToString as _;

    fn bar(kind: BarKind, address: u64, size: u64) -> BarInfo {
        BarInfo {
            kind,
            address,
            guest: address,
            size,
            ..BarInfo::default()
        }
    }

    fn function(bars: &[BarInfo]) -> FunctionInfo {
        let mut info = FunctionInfo::default();
        info.bars[..bars.len()].copy_from_slice(bars);
        info
    }

    #[test]
    fn memory_is_a_function_s_if_a_bar_has_a_byte_of_it() {
        let info = function(&[
            bar(BarKind::Memory32, 0xc000_0000, 16 << 20),
            bar(BarKind::Io, 0xd000, 32),
            bar(BarKind::Memory64, 0x38_0000_0000, 1 << 32),
        ]);
        for (address, size, has) in [
            (0xc000_0000, 2 << 20, true),
            (0xc0ff_ffff, 1, true),
            (0xc100_0000, 2 << 20, false),
            (0xbfe0_0000, 2 << 20, false),
            (0xbfe0_0000, (2 << 20) + 1, true),
            (0xd000, 4, false),
            (0x38_8000_0000, 8, true),
            (0, u64::MAX, true),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(
                has_memory(&info, address, size),
                has,
                "{address:#x} {size:#x}"
            );
        }
    }

    /// A device header with this first BAR of 4 KiB.
    struct Fake {
        id: u32,
        bar: u32,
    }

    impl ConfigSpace for Fake {
        fn read32(&mut self, offset: u16) -> u32 {
            match offset {
                0 => self.id,
                0x10 => self.bar,
                _ => 0,
            }
        }
        fn write32(&mut self, offset: u16, value: u32) {
            if offset == 0x10 {
                self.bar = value & 0xffff_f000;
            }
        }
        fn write16(&mut self, _: u16, _: u16) {}
    }

    fn look(id: u32, bar: u32, bus: u8) -> Result<FunctionInfo, Stop> {
        let host = Bdf::new(bus, 0, 0).expect("an address");
        let open = |_| Fake {
            id: u32::MAX,
            bar: 0,
        };
        look_at(&mut Fake { id, bar }, host, host, false, 0x40, open).map(|(info, _)| info)
    }

    #[test]
    fn each_reason_to_stop_is_named() {
        assert!(look(0x0010_1b36, 0xfeb0_0000, 0x3f).is_ok());
        for (id, bar, bus, stop) in [
            (u32::MAX, 0, 0, Stop::NoFunction(NoFunction::Virtual)),
            (0x0010_1b36, 0xfeb0_0000, 0x40, Stop::OutsideEcam),
            (0x0010_1b36, 0, 0, Stop::NoAddress(0, NoAddress::RootBus)),
        ] {
            assert_eq!(look(id, bar, bus).err(), Some(stop));
        }
    }

    #[test]
    fn slots_are_one_a_page_and_end() {
        let bars = [
            bar(BarKind::Memory32, 0xfeb0_0000, 0x3000),
            bar(BarKind::Memory32, 0xfeb1_0000, 0x800),
            bar(BarKind::Io, 0xc000, 0x100),
            bar(BarKind::Memory32, 0xfeb2_0000, 0x2000),
            bar(BarKind::Memory64, 0xe000_0000, 0x1000_0000),
        ];
        for (end, slots, left) in [
            (200, [13, 0, 10, 11, 16, 0], 56),
            (144, [13, 0, 10, 11, 16, 0], 0),
            // What has many pages does without.
            (143, [13, 0, 10, 11, 0, 0], 127),
            (15, [0, 0, 10, 11, 0, 0], 2),
            (11, [0, 0, 10, 0, 0, 0], 0),
            (10, [0; 6], 0),
        ] {
            let mut info = function(&bars);
            assert_eq!(share_out(&mut info, 10..end).len(), left, "{end}");
            assert_eq!(info.bars.map(|bar| bar.first_slot), slots, "{end}");
        }
        let mut info = function(&bars);
        share_out(&mut info, 10..142);
        assert_eq!(Fate::of(&info, 4), Fate::NoSlots);
        let told = "it needs 128 capabilities, more than are left of the 4096";
        let text = Told(&info, 4).to_string();
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn each_bar_has_the_fate_of_its_kind() {
        let mut lost = bar(BarKind::Memory32, 0x8000_0000, 0x4000_0000);
        let mut moved = bar(BarKind::Memory64, 0x40_0000_0000, 0x1000);
        moved.guest = 0xfebf_f000;
        for (bar, fate) in [
            (bar(BarKind::None, 0, 0), Fate::None),
            (bar(BarKind::Io, 0xc000, 0x20), Fate::Kept),
            (bar(BarKind::Io, 0, 0x20), Fate::NoPorts),
            (bar(BarKind::Memory32, 0xfeb0_0000, 0x800), Fate::Small),
            (bar(BarKind::Memory32, 0xfeb0_0000, 0x1000), Fate::Kept),
            (moved, Fate::Moved),
            (lost, Fate::Lost),
        ] {
            let mut info = function(&[bar]);
            share_out(&mut info, 1..100);
            assert_eq!(Fate::of(&info, 0), fate);
        }
        lost.size = 0x800;
        let mut info = function(&[lost]);
        info.msix.page_count = 1;
        assert_eq!(Fate::of(&info, 0), Fate::Claimed);
        // All of its pages are msix's.
        info.bars[0] = bar(BarKind::Memory32, 0xfeb0_0000, 0x1000);
        assert_eq!(Fate::of(&info, 0), Fate::Kept);
    }
}
