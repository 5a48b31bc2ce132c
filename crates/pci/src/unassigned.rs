//! Gives an address to each memory BAR that the firmware left without one.
//!
//! Only behind a bridge: what its windows do not have, it does not pass on (PCI-to-PCI Bridge
//! Architecture Specification 1.2, section 3.2.5), so what its bus has is known in full. On a
//! root bus a chipset answers at addresses of which no BAR tells.

use core::cell::RefCell;
use core::cmp::Reverse;
use core::fmt;
use core::ops::Range;

use crate::discover::{size_bars, size_rom};
use crate::place::free;
use crate::{
    BarInfo, BarKind, Bdf, ConfigSpace, FUNCTION_BARS, FunctionInfo, bridge_above, each_function,
    regs,
};

/// A bridge's memory window, base and limit of 16 bits each.
const MEMORY_WINDOW: u16 = 0x20;
/// The same of its prefetchable window; bits 3:0 are 1 if it has upper halves.
const PREFETCHABLE_WINDOW: u16 = 0x24;
/// Upper half of the prefetchable window's base; that of its limit is behind it.
const PREFETCHABLE_HIGH: u16 = 0x28;
/// Expansion ROM of a bridge.
const BRIDGE_ROM: u16 = 0x38;
/// BARs of a bridge.
const BRIDGE_BARS: usize = 2;
const FOUR_GIB: u64 = 1 << 32;

/// Ranges of a bridge's windows that are in use, at most: a device of eight functions has 56.
const MOST_TAKEN: usize = 128;

/// Why a BAR gets no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// Its function is on a root bus.
    RootBus,
    /// This bridge above it, or one further up, passes nothing of its kind on.
    Closed(Bdf),
    /// The windows of this bridge have no room.
    Full(Bdf),
    /// Not all is known of what is on the bus behind this bridge.
    Unknown(Bdf),
    /// The BAR does not keep what is written.
    Lost,
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootBus => f.write_str("no bridge is above it in whose windows there is room"),
            Self::Closed(bridge) => {
                write!(f, "the bridge {bridge} above it has no open window for it")
            }
            Self::Full(bridge) => write!(
                f,
                "the windows of the bridge {bridge} above it have no room for it"
            ),
            Self::Unknown(bridge) => write!(
                f,
                "what else is behind the bridge {bridge} above it is not known in full"
            ),
            Self::Lost => f.write_str("it does not keep one that is written"),
        }
    }
}

/// For each BAR to which the firmware gave no address: the bridge in whose windows it has one
/// now, or why it has none.
pub type Given = [Option<Result<Bdf, NoAddress>>; FUNCTION_BARS];

/// Gives an address to each memory BAR of a function that has none: in a window of the bridge
/// right above that all bridges further up pass on, aligned to its size, apart from whatever
/// else is on the bus. A prefetchable BAR may be in either window, another in the one that is
/// not prefetchable.
///
/// `space` is the function's own, `open` opens that of any other; no function of its bus may
/// be in use, for their BARs are sized.
pub fn give_addresses<S: ConfigSpace>(
    space: &mut impl ConfigSpace,
    info: &mut FunctionInfo,
    mut open: impl FnMut(Bdf) -> S,
) -> Given {
    let mut given = [None; FUNCTION_BARS];
    let mut order: [usize; FUNCTION_BARS] = core::array::from_fn(|bar| bar);
    // Those that may be in one window only come first, then the largest.
    order.sort_unstable_by_key(|&bar| {
        let bar = &info.bars[bar];
        let narrow = (bar.prefetchable == 0, bar.kind == BarKind::Memory32);
        Reverse((narrow, bar.size))
    });
    let lacks = |bar: &BarInfo| bar.is_memory() && bar.address == 0;
    if !info.bars.iter().any(lacks) {
        return given;
    }
    let mut room = Room::of(space, info, &mut open);
    for index in order {
        let bar = &mut info.bars[index];
        if !lacks(bar) {
            continue;
        }
        let place = match &mut room {
            Ok(room) => room.take(bar).map(|address| (room.bridge, address)),
            Err(none) => Err(*none),
        };
        given[index] = Some(place.and_then(|(bridge, address)| {
            if !set(space, index, bar.kind, address) {
                return Err(NoAddress::Lost);
            }
            bar.address = address;
            bar.guest = address;
            Ok(bridge)
        }));
    }
    given
}

/// Writes an address to a BAR with decoding off; false if the BAR does not keep it, which
/// then has none as before.
fn set(space: &mut impl ConfigSpace, index: usize, kind: BarKind, address: u64) -> bool {
    let at = regs::BAR0 + 4 * index as u16;
    let wide = kind == BarKind::Memory64;
    // As a word: a write would clear bits of the status register.
    let command = space.read32(regs::COMMAND) as u16;
    space.write16(regs::COMMAND, command & !regs::COMMAND_MEMORY);
    let mut write = |address: u64| {
        space.write32(at, address as u32);
        let low = u64::from(space.read32(at) & !15);
        if !wide {
            return low;
        }
        space.write32(at + 4, (address >> 32) as u32);
        low | u64::from(space.read32(at + 4)) << 32
    };
    let kept = write(address) == address;
    if !kept {
        write(0);
    }
    space.write16(regs::COMMAND, command);
    kept
}

/// The windows of a bridge: memory, and prefetchable memory.
type Windows = [Option<Range<u64>>; 2];

/// Returns a bridge's windows; `None` for one that is closed.
fn windows(space: &mut impl ConfigSpace) -> Windows {
    let memory = space.read32(MEMORY_WINDOW);
    let prefetchable = space.read32(PREFETCHABLE_WINDOW);
    let [mut base, mut limit] = [0; 2];
    if prefetchable & 15 == 1 {
        base = space.read32(PREFETCHABLE_HIGH);
        limit = space.read32(PREFETCHABLE_HIGH + 4);
    }
    [window(memory, 0, 0), window(prefetchable, base, limit)]
}

fn window(register: u32, base_high: u32, limit_high: u32) -> Option<Range<u64>> {
    let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let base = join(base_high, register << 16 & 0xfff0_0000);
    let limit = join(limit_high, register | 0xf_ffff);
    // RAM is at 0: these are registers that nobody has set, or that are not there.
    (base != 0 && base < limit).then_some(base..limit.checked_add(1)?)
}

/// Returns the windows of a bridge that passes memory requests on.
fn open_windows(space: &mut impl ConfigSpace) -> Windows {
    if space.read32(regs::COMMAND) as u16 & regs::COMMAND_MEMORY == 0 {
        return [None, None];
    }
    windows(space)
}

/// Where there is room behind a bridge.
struct Room {
    bridge: Bdf,
    windows: Windows,
    taken: heapless::Vec<Range<u64>, MOST_TAKEN>,
}

impl Room {
    fn of<S: ConfigSpace>(
        space: &mut impl ConfigSpace,
        info: &FunctionInfo,
        open: &mut impl FnMut(Bdf) -> S,
    ) -> Result<Self, NoAddress> {
        let open = RefCell::new(open);
        let open = |bdf| (open.borrow_mut())(bdf);
        let read = |bdf, offset| open(bdf).read32(offset);
        let own = info.host();
        let bridge = bridge_above(own.bus(), read).ok_or(NoAddress::RootBus)?;
        let mut room = Self {
            bridge,
            windows: open_windows(&mut open(bridge)),
            taken: heapless::Vec::new(),
        };
        let mut at = bridge;
        // Each turn comes to a lower bus.
        while let Some(above) = bridge_above(at.bus(), read) {
            let outer = open_windows(&mut open(above));
            let passes = |outer: &Option<Range<u64>>, range: &Range<u64>| {
                (outer.as_ref()).is_some_and(|o| o.start <= range.start && range.end <= o.end)
            };
            let [memory, prefetchable] = room.windows;
            room.windows = [
                memory.filter(|range| passes(&outer[0], range)),
                prefetchable.filter(|range| outer.iter().any(|outer| passes(outer, range))),
            ];
            at = above;
        }
        let mut known = info.bars.iter().all(|bar| room.keep_off(bar));
        known &= room.keep_off(&size_rom(space, regs::ROM));
        each_function(256, read, |bdf| {
            if bdf.bus() == own.bus() && bdf != own {
                known &= room.keep_off_function(&mut open(bdf));
            }
            !known
        });
        known.then_some(room).ok_or(NoAddress::Unknown(bridge))
    }

    /// Keeps off what a function of the bus answers to; false if that is not known.
    fn keep_off_function(&mut self, space: &mut impl ConfigSpace) -> bool {
        let (bars, rom) = match space.read32(regs::HEADER_TYPE & !3) >> 16 & 0x7f {
            0 => (FUNCTION_BARS, regs::ROM),
            1 => (BRIDGE_BARS, BRIDGE_ROM),
            _ => return false,
        };
        if bars == BRIDGE_BARS {
            for window in windows(space).into_iter().flatten() {
                if !self.keep_off_range(window) {
                    return false;
                }
            }
        }
        let rom = size_rom(space, rom);
        self.keep_off(&rom) && size_bars(space, bars).iter().all(|bar| self.keep_off(bar))
    }

    fn keep_off(&mut self, bar: &BarInfo) -> bool {
        let there = bar.is_memory() && bar.address != 0;
        !there || self.keep_off_range(bar.address..bar.address.saturating_add(bar.size))
    }

    fn keep_off_range(&mut self, range: Range<u64>) -> bool {
        let mut windows = self.windows.iter().flatten();
        let inside = windows.any(|w| w.start < range.end && range.start < w.end);
        !inside || self.taken.push(range).is_ok()
    }

    /// Takes an address for a BAR.
    fn take(&mut self, bar: &BarInfo) -> Result<u64, NoAddress> {
        let [memory, prefetchable] = self.windows.clone();
        let prefetchable = prefetchable.filter(|_| bar.prefetchable != 0);
        let fits = |window: &Range<u64>| bar.kind == BarKind::Memory64 || window.end <= FOUR_GIB;
        let mut none = NoAddress::Closed(self.bridge);
        for window in [prefetchable, memory].into_iter().flatten().filter(fits) {
            if let Some(range) = free(&self.taken, window, bar.size) {
                let address = range.start;
                let kept = self.taken.push(range);
                return kept.map_or(Err(NoAddress::Unknown(self.bridge)), |()| Ok(address));
            }
            none = NoAddress::Full(self.bridge);
        }
        Err(none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover;
    extern crate std;
    use std::collections::BTreeMap;
    use std::rc::Rc;
    use std::string::ToString as _;
    use std::vec::Vec;

    const MIB: u32 = 1 << 20;

    /// A function's registers, and which bits of each can be written.
    struct Registers {
        dwords: [u32; 64],
        masks: [u32; 64],
    }

    #[derive(Clone)]
    struct Function(Option<Rc<RefCell<Registers>>>);

    impl Function {
        fn new(header: u32) -> Self {
            let mut all = Registers {
                dwords: [0; 64],
                masks: [0; 64],
            };
            all.dwords[0] = 0x10fb_8086;
            (all.dwords[1], all.masks[1]) = (7, 7);
            all.dwords[3] = header << 16;
            Self(Some(Rc::new(RefCell::new(all))))
        }

        /// Sets a register.
        fn with(self, offset: usize, value: u32) -> Self {
            if let Some(all) = &self.0 {
                all.borrow_mut().dwords[offset / 4] = value;
            }
            self
        }

        /// Sets a register of an address of so many bytes.
        fn bar(self, offset: usize, value: u32, size: u32) -> Self {
            if let Some(all) = &self.0 {
                all.borrow_mut().masks[offset / 4] = !(size.max(1) - 1);
            }
            self.with(offset, value)
        }

        fn dword(&self, offset: usize) -> u32 {
            let all = self.0.as_ref();
            all.map_or(u32::MAX, |all| all.borrow().dwords[offset / 4])
        }
    }

    impl ConfigSpace for Function {
        fn read32(&mut self, offset: u16) -> u32 {
            self.dword(offset.into())
        }
        fn write32(&mut self, offset: u16, value: u32) {
            let Some(all) = &self.0 else { return };
            let mut all = all.borrow_mut();
            let at = usize::from(offset / 4);
            let bar = at < 6 || all.dwords[3] >> 16 & 0x7f == 0 && at < 10;
            assert!(at >= 4 && (bar || at == 0x30 / 4 || at == 0x38 / 4));
            assert!(!bar || all.dwords[1] & 2 == 0, "it decodes: {offset:#x}");
            all.dwords[at] = all.dwords[at] & !all.masks[at] | value & all.masks[at];
        }
        fn write16(&mut self, offset: u16, value: u16) {
            assert_eq!(offset, regs::COMMAND);
            if let Some(all) = &self.0 {
                all.borrow_mut().dwords[1] = value.into();
            }
        }
    }

    struct Machine(BTreeMap<u16, Function>);

    impl Machine {
        fn new(functions: Vec<(&str, Function)>) -> Self {
            let bdf = |text| Bdf::parse(text).expect("an address").requester_id();
            Self(
                (functions.into_iter())
                    .map(|(at, of)| (bdf(at), of))
                    .collect(),
            )
        }

        /// Gives a function its addresses; returns them and what is said of each BAR.
        fn give(&self, at: &str) -> ([u64; FUNCTION_BARS], Given) {
            let bdf = Bdf::parse(at).expect("an address");
            let open = |bdf: Bdf| {
                let found = self.0.get(&bdf.requester_id());
                found.cloned().unwrap_or(Function(None))
            };
            let mut info =
                discover(&mut open(bdf), bdf, bdf, false).expect("the function is there");
            let before = open(bdf).dword(4);
            let given = give_addresses(&mut open(bdf), &mut info, open);
            assert_eq!(
                open(bdf).dword(4),
                before,
                "the command register is as it was"
            );
            let again = discover(&mut open(bdf), bdf, bdf, false).expect("it is there");
            let registers = again.bars.map(|bar| bar.address);
            assert_eq!(registers, info.bars.map(|bar| bar.address));
            assert_eq!(registers, info.bars.map(|bar| bar.guest));
            (registers, given)
        }
    }

    /// A port of these buses with a memory window of whole MiB, closed if `last` is below
    /// `first`.
    fn port(primary: u32, buses: [u32; 2], first: u32, last: u32) -> Function {
        let window = (first / MIB) << 4 | (last / MIB) << 20;
        let numbers = buses[1] << 16 | buses[0] << 8 | primary;
        Function::new(1).with(0x18, numbers).with(0x20, window)
    }

    /// A function with one BAR of this kind and size without an address.
    fn lacking(flags: u32, size: u32) -> Function {
        let nic = Function::new(0).bar(0x10, flags, size);
        // All bits of an upper half can be set.
        if flags & 4 == 0 {
            nic
        } else {
            nic.bar(0x14, 0, 1)
        }
    }

    fn root() -> Bdf {
        Bdf::new(0, 0x1c, 0).expect("an address")
    }

    /// The first BAR's place behind one port.
    fn place(port: Function, nic: Function) -> Result<u64, NoAddress> {
        let machine = Machine::new(std::vec![("00:1c.0", port), ("01:00.0", nic)]);
        let (addresses, given) = machine.give("01:00.0");
        let by = given[0].expect("it had none");
        by.map(|by| {
            assert_eq!(by, root());
            addresses[0]
        })
    }

    #[test]
    fn a_bar_is_placed_at_the_top_of_its_window_aligned() {
        let window = || port(0, [1, 1], 0xfe80_0000, 0xfe9f_ffff);
        for (size, at) in [
            (0x2_0000, 0xfe9e_0000),
            (MIB, 0xfe90_0000),
            (2 * MIB, 0xfe80_0000),
            // Smaller than a page: it has one.
            (0x100, 0xfe9f_f000),
        ] {
            assert_eq!(place(window(), lacking(0, size)), Ok(at), "{size:#x}");
        }
        let full = Err(NoAddress::Full(root()));
        assert_eq!(place(window(), lacking(0, 4 * MIB)), full);
        // Two MiB that no multiple of two is in.
        let odd = port(0, [1, 1], 0xfe90_0000, 0xfeaf_ffff);
        assert_eq!(place(odd, lacking(0, 2 * MIB)), full);
    }

    #[test]
    fn a_closed_window_has_no_room() {
        let closed = Err(NoAddress::Closed(root()));
        for port in [
            port(0, [1, 1], 0xfff0_0000, 0),
            // What nobody has set.
            port(0, [1, 1], 0, 0),
            port(0, [1, 1], 0xfe80_0000, 0xfe9f_ffff).with(4, 5),
        ] {
            assert_eq!(place(port, lacking(0, 0x4000)), closed);
        }
    }

    #[test]
    fn a_root_bus_has_no_windows() {
        let machine = Machine::new(std::vec![("00:03.0", lacking(0, 0x4000))]);
        let (addresses, given) = machine.give("00:03.0");
        assert_eq!((addresses[0], given[0]), (0, Some(Err(NoAddress::RootBus))));
    }

    #[test]
    fn each_kind_goes_to_the_window_of_its_kind() {
        // Prefetchable from 0x38_0000_0000 to 0x38_003f_ffff, or below 4 GiB.
        let both = |base: u32, limit: u32, high: u32, kind: u32| {
            let window = (base / MIB) << 4 | (limit / MIB) << 20;
            port(0, [1, 1], 0xfe80_0000, 0xfe8f_ffff)
                .with(0x24, window | kind << 16 | kind)
                .with(0x28, high)
                .with(0x2c, high)
        };
        let wide = || both(0, 0x3f_ffff, 0x38, 1);
        let low = || both(0xd000_0000, 0xd03f_ffff, 0x38, 0);
        for (port, flags, at) in [
            (wide(), 0xc, 0x38_003f_c000),
            (wide(), 0x4, 0xfe8f_c000),
            (wide(), 0x8, 0xfe8f_c000),
            (wide(), 0x0, 0xfe8f_c000),
            // Upper halves that are not there do not count.
            (low(), 0xc, 0xd03f_c000),
            (low(), 0x8, 0xd03f_c000),
            (low(), 0x4, 0xfe8f_c000),
        ] {
            assert_eq!(place(port, lacking(flags, 0x4000)), Ok(at), "{flags:#x}");
        }
        // There is no room in the one, or it is closed.
        assert_eq!(
            place(wide(), lacking(0xc, 8 * MIB)),
            Err(NoAddress::Full(root()))
        );
        let shut = both(0xfff0_0000, 0, 0, 1);
        assert_eq!(place(shut, lacking(0xc, 0x4000)), Ok(0xfe8f_c000));
        let last = both(0xfff0_0000, 0xffff_ffff, u32::MAX, 1);
        assert_eq!(place(last, lacking(0xc, 0x4000)), Ok(0xfe8f_c000));
    }

    #[test]
    fn several_are_placed_apart_and_from_what_is_there() {
        // An 82599 of two functions after a hot reset: 512 KiB and 16 KiB each, ports, and
        // a ROM of the first.
        let part = || {
            Function::new(0x80)
                .bar(0x10, 0xc, 0x8_0000)
                .bar(0x14, 0, 1)
                .bar(0x18, 1, 0x20)
                .bar(0x20, 0xc, 0x4000)
                .bar(0x24, 0, 1)
        };
        let machine = Machine::new(std::vec![
            ("00:1c.0", port(0, [1, 3], 0xfe80_0000, 0xfeaf_ffff)),
            ("01:00.0", part().bar(0x30, 0xfea8_0001, 0x8_0000)),
            ("01:00.1", part()),
            // One that is programmed, at the top; a bridge with a BAR and a window.
            ("01:00.2", Function::new(0).bar(0x14, 0xfea7_0000, 0x1_0000)),
            (
                "01:00.3",
                port(1, [2, 2], 0xfe90_0000, 0xfe9f_ffff).bar(0x10, 0xfea6_0000, 0x1_0000)
            ),
        ]);
        let (first, given) = machine.give("01:00.0");
        assert_eq!(first, [0xfe88_0000, 0, 0, 0, 0xfea5_c000, 0]);
        assert_eq!(given[0], Some(Ok(root())));
        assert_eq!(given[2], None, "ports are left alone");
        assert_eq!(machine.give("01:00.1").0[0], 0xfe80_0000);
        // What has its addresses keeps them.
        assert_eq!(machine.give("01:00.0"), (first, [None; FUNCTION_BARS]));
        for (at, register, value) in [
            (0x100, 0x30, 0xfea8_0001),
            (0x102, 0x14, 0xfea7_0000),
            (0x103, 0x10, 0xfea6_0000),
        ] {
            assert_eq!(machine.0[&at].dword(register), value);
            assert_eq!(machine.0[&at].dword(4), 7);
        }
    }

    #[test]
    fn all_bridges_above_have_to_pass_it_on() {
        let place = |root: Function, upstream: Function| {
            let machine = Machine::new(std::vec![
                ("00:1c.0", root),
                ("01:00.0", upstream),
                ("02:00.0", port(2, [3, 3], 0xfe80_0000, 0xfe8f_ffff)),
                ("03:00.0", lacking(0, 0x4000)),
            ]);
            machine.give("03:00.0").1[0].expect("it had none").is_ok()
        };
        let root = || port(0, [1, 3], 0xfe80_0000, 0xfe9f_ffff);
        let upstream = || port(1, [2, 3], 0xfe80_0000, 0xfe8f_ffff);
        assert!(place(root(), upstream()));
        let shifted = port(0, [1, 3], 0xfe90_0000, 0xfe9f_ffff);
        assert!(!place(shifted, upstream()));
        assert!(!place(root(), port(1, [2, 3], 0xfff0_0000, 0)));
        assert!(!place(root(), upstream().with(4, 0)));
    }

    #[test]
    fn a_bar_that_does_not_keep_its_address_has_none() {
        let window = || port(0, [1, 1], 0xfe80_0000, 0xfe9f_ffff);
        // Its upper bits are not there.
        let nic = lacking(0, 0x4000);
        if let Some(all) = &nic.0 {
            all.borrow_mut().masks[4] = 0x00ff_c000;
        }
        assert_eq!(place(window(), nic.clone()), Err(NoAddress::Lost));
        assert_eq!(nic.dword(0x10), 0);
    }

    #[test]
    fn what_is_not_known_is_not_laid_over() {
        let window = || port(0, [1, 1], 0xfe80_0000, 0xfe9f_ffff);
        let unknown = Some(Err(NoAddress::Unknown(root())));
        let card = Machine::new(std::vec![
            ("00:1c.0", window()),
            ("01:00.0", lacking(0, 0x4000)),
            ("01:01.0", Function::new(2)),
        ]);
        assert_eq!(card.give("01:00.0").1[0], unknown);
        // More BARs than are kept in mind, all of one page: hostile configuration space.
        let mut many = std::vec![("00:1c.0", window()), ("01:00.0", lacking(0, 0x4000))];
        let names: Vec<_> = (1..32).map(|n| std::format!("01:{n:02x}.0")).collect();
        for name in &names {
            let full = (0..6).fold(Function::new(0), |function, bar| {
                function.bar(0x10 + 4 * bar, 0xfe80_0000, 0x1000)
            });
            many.push((name, full));
        }
        assert_eq!(Machine::new(many).give("01:00.0").1[0], unknown);
    }

    #[test]
    fn each_reason_is_told_with_its_bridge() {
        for reason in [
            NoAddress::Closed(root()),
            NoAddress::Full(root()),
            NoAddress::Unknown(root()),
        ] {
            let text = reason.to_string();
            assert!(text.contains("the bridge 00:1c.0 above it"), "{text}");
        }
    }
}
