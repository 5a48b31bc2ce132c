//! The vendor-specific capabilities of virtio functions (VIRTIO 1.1 section 4.1.4): each
//! says where in a BAR some of the function's registers lie.

use crate::{
    BarKind, Capability, CapabilityList, CommonRegisters, ConfigSpace, FunctionInfo, regs,
};

/// Vendor of virtio functions, and their device ids (VIRTIO 1.1 section 4.1.2).
const VENDOR: u16 = 0x1af4;
const DEVICES: core::ops::RangeInclusive<u16> = 0x1000..=0x107f;
/// End of the space that capabilities are in.
const SPACE: u32 = 256;

/// Returns whether a function is virtio: its machine's software, which may keep its accesses
/// out of the IOMMU.
#[must_use]
pub fn is_virtio(info: &FunctionInfo) -> bool {
    info.vendor == VENDOR && DEVICES.contains(&info.device)
}

/// What a vendor-specific capability of a virtio function tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtio {
    /// The registers that all kinds of functions have.
    Common,
    /// Notifications of queues.
    Notify,
    /// The status of the interrupt pin.
    Isr,
    /// The registers of this kind of function.
    Device,
    /// Memory that is shared with the guest.
    SharedMemory,
    /// A window in configuration space by which any register of any BAR is read and written.
    Window,
}

impl Virtio {
    /// Returns what `capability` is; `None` if the function is not virtio, or the capability
    /// of another kind.
    pub fn of(
        space: &mut impl ConfigSpace,
        info: &FunctionInfo,
        capability: Capability,
    ) -> Option<Self> {
        if !is_virtio(info) || capability.id != regs::CAP_VENDOR {
            return None;
        }
        Some(match space.read32(capability.offset) >> 24 {
            1 => Self::Common,
            2 => Self::Notify,
            3 => Self::Isr,
            4 => Self::Device,
            5 => Self::Window,
            8 => Self::SharedMemory,
            _ => return None,
        })
    }

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Common => "virtio common registers",
            Self::Notify => "virtio notifications",
            Self::Isr => "virtio interrupt status",
            Self::Device => "virtio device registers",
            Self::SharedMemory => "virtio shared memory",
            Self::Window => "virtio window to BARs",
        }
    }

    /// Returns the bytes of the capability.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Common | Self::Isr | Self::Device => 16,
            // A multiplier, or the data register.
            Self::Notify | Self::Window => 20,
            // The upper halves of offset and length.
            Self::SharedMemory => 24,
        }
    }

    /// Returns whether the capability at `offset` only points at registers inside one of the
    /// function's own BARs, so that a guest may read it.
    pub fn points_inside(
        self,
        space: &mut impl ConfigSpace,
        info: &FunctionInfo,
        offset: u16,
    ) -> bool {
        self.place(space, info, offset).is_some()
    }

    /// Returns where the capability at `offset` points to, if that is inside one of the
    /// function's own BARs.
    pub fn place(
        self,
        space: &mut impl ConfigSpace,
        info: &FunctionInfo,
        offset: u16,
    ) -> Option<VirtioPlace> {
        let bytes = u32::from(self.bytes());
        let length = space.read32(offset) >> 16 & 0xff;
        if self == Self::Window || length < bytes || u32::from(offset) + bytes > SPACE {
            return None;
        }
        let bar = (space.read32(offset + 4) & 0xff) as usize;
        let mut wide = |at| {
            let high = match self {
                Self::SharedMemory => space.read32(offset + at + 8),
                _ => 0,
            };
            u64::from(high) << 32 | u64::from(space.read32(offset + at))
        };
        let place = VirtioPlace {
            bar,
            offset: wide(8),
            length: wide(12),
        };
        let there = info.bars.get(bar)?;
        let end = place.offset.checked_add(place.length)?;
        (there.kind != BarKind::None && end <= there.size).then_some(place)
    }
}

/// A part of a BAR that holds registers of a virtio function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioPlace {
    /// The BAR.
    pub bar: usize,
    /// First byte there.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl VirtioPlace {
    /// Returns whether registers of so many bytes begin there, aligned to 4, in memory.
    fn holds(&self, info: &FunctionInfo, bytes: u64) -> bool {
        self.length >= bytes && self.offset.is_multiple_of(4) && info.bars[self.bar].is_memory()
    }
}

/// The registers by which any modern virtio function is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioRegisters {
    /// Those that all kinds have (VIRTIO 1.1 section 4.1.4.3).
    pub common: VirtioPlace,
    /// Notifications of queues (section 4.1.4.4).
    pub notify: VirtioPlace,
    /// Bytes from one queue's notification to the next.
    pub multiplier: u32,
}

/// Why the registers of a virtio function are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoVirtio {
    /// It has none of the modern kind.
    Legacy,
    /// A capability points outside of the BARs, or at too few bytes.
    Outside(Virtio),
}

impl core::fmt::Display for NoVirtio {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Legacy => f.write_str(
                "it is a legacy virtio function, without modern registers (QEMU: \
                 disable-legacy=on)",
            ),
            Self::Outside(which) => write!(
                f,
                "its capability for {} points at registers that are not in its memory BARs",
                which.name()
            ),
        }
    }
}

/// Bytes of the common registers that every function has.
pub(crate) const COMMON_BYTES: u64 = 56;
/// Bytes of one notification.
const NOTIFY_BYTES: u64 = 2;

/// Returns the registers of a virtio function: those that its first capability of each kind
/// points at.
///
/// # Errors
/// See [`NoVirtio`].
pub fn virtio_registers(
    space: &mut impl ConfigSpace,
    info: &FunctionInfo,
) -> Result<VirtioRegisters, NoVirtio> {
    let list = CapabilityList::read(space);
    let (_, common) = find(space, info, &list, Virtio::Common, COMMON_BYTES)?;
    let (at, notify) = find(space, info, &list, Virtio::Notify, NOTIFY_BYTES)?;
    Ok(VirtioRegisters {
        common,
        notify,
        multiplier: space.read32(at + Virtio::Common.bytes()),
    })
}

/// Returns the offset of a function's first capability of this kind, and the registers that it
/// points at.
fn find(
    space: &mut impl ConfigSpace,
    info: &FunctionInfo,
    list: &CapabilityList,
    which: Virtio,
    bytes: u64,
) -> Result<(u16, VirtioPlace), NoVirtio> {
    let at = list
        .as_slice()
        .iter()
        .find(|&&capability| Virtio::of(space, info, capability) == Some(which))
        .map(|capability| capability.offset)
        .ok_or(NoVirtio::Legacy)?;
    which
        .place(space, info, at)
        .filter(|place| place.holds(info, bytes))
        .map(|place| (at, place))
        .ok_or(NoVirtio::Outside(which))
}

/// Returns where a function has the registers that all kinds of virtio functions have: nowhere
/// if it is not virtio, or does not say so soundly.
pub(crate) fn common_registers(
    space: &mut impl ConfigSpace,
    info: &FunctionInfo,
    list: &CapabilityList,
) -> CommonRegisters {
    let place = find(space, info, list, Virtio::Common, COMMON_BYTES);
    place.map_or_else(
        |_| CommonRegisters::default(),
        |(_, place)| CommonRegisters {
            there: 1,
            bar: place.bar as u32,
            offset: place.offset,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BarInfo;

    struct Space([u32; 64]);

    impl ConfigSpace for Space {
        fn read32(&mut self, offset: u16) -> u32 {
            self.0[usize::from(offset / 4)]
        }
        fn write32(&mut self, offset: u16, _: u32) {
            panic!("written at {offset:#x}");
        }
        fn write16(&mut self, offset: u16, _: u16) {
            panic!("written at {offset:#x}");
        }
    }

    fn info() -> FunctionInfo {
        let mut info = FunctionInfo {
            vendor: VENDOR,
            device: 0x1041,
            ..FunctionInfo::default()
        };
        info.bars[4] = BarInfo {
            kind: BarKind::Memory64,
            size: 0x4000,
            ..BarInfo::default()
        };
        info
    }

    /// Puts dwords at `at`, and asks what is there.
    fn ask(info: &FunctionInfo, at: u16, dwords: &[u32]) -> (Option<Virtio>, bool) {
        let mut space = Space([0; 64]);
        for (dword, value) in space.0[usize::from(at / 4)..].iter_mut().zip(dwords) {
            *dword = *value;
        }
        let capability = Capability {
            id: dwords[0] as u8,
            offset: at,
        };
        let what = Virtio::of(&mut space, info, capability);
        let inside = what.is_some_and(|what| what.points_inside(&mut space, info, at));
        (what, inside)
    }

    #[test]
    fn c6_structures_that_point_into_a_bar() {
        let info = info();
        for (dwords, what) in [
            (&[0x0110_0009, 4, 0, 0x1000][..], Virtio::Common),
            (&[0x0214_0009, 4, 0x3000, 0x1000, 4], Virtio::Notify),
            (&[0x0310_0009, 4, 0x1000, 0x1000], Virtio::Isr),
            (&[0x0410_0009, 4, 0x3fff, 1], Virtio::Device),
            (&[0x0818_0009, 4, 0, 0x4000, 0, 0], Virtio::SharedMemory),
        ] {
            assert_eq!(ask(&info, 0x40, dwords), (Some(what), true), "{what:?}");
        }
    }

    #[test]
    fn c6_what_points_elsewhere_is_not_for_a_guest() {
        let info = info();
        for dwords in [
            // Past the end of the BAR, a BAR that is not there, no BAR at all.
            &[0x0110_0009, 4, 1, 0x4000][..],
            &[0x0110_0009, 4, u32::MAX, u32::MAX],
            &[0x0110_0009, 0, 0, 0x1000],
            &[0x0110_0009, 6, 0, 0x1000],
            &[0x0110_0009, 0xff, 0, 0x1000],
            // Shorter than the structure that it is.
            &[0x010f_0009, 4, 0, 0x1000],
            &[0x0210_0009, 4, 0, 0x1000, 4],
            // The upper halves count.
            &[0x0818_0009, 4, 0, 0x1000, 1, 0],
            &[0x0818_0009, 4, 0, 0x1000, 0, 1],
            &[0x0818_0009, 4, u32::MAX, u32::MAX, u32::MAX, u32::MAX],
            // The window points nowhere until it is told to.
            &[0x0514_0009, 4, 0, 4, 0],
        ] {
            let (what, inside) = ask(&info, 0x40, dwords);
            assert!(what.is_some() && !inside, "{dwords:x?}");
        }
        // It runs out of the space.
        let (what, inside) = ask(&info, 0xf4, &[0x0110_0009, 4, 0]);
        assert!(what.is_some() && !inside);
    }

    #[test]
    fn c6_only_virtio_has_them() {
        let common = [0x0110_0009, 4, 0, 0x1000];
        for (vendor, device) in [(0x8086, 0x1041), (VENDOR, 0x0fff), (VENDOR, 0x1110)] {
            let other = FunctionInfo {
                vendor,
                device,
                ..info()
            };
            assert_eq!(ask(&other, 0x40, &common), (None, false));
        }
        let info = info();
        for first in [0x0110_000a, 0x0010_0009, 0x0910_0009, 0xff10_0009] {
            let what = ask(&info, 0x40, &[first, 4, 0, 0x1000]);
            assert_eq!(what, (None, false), "{first:#x}");
        }
    }

    /// Asks where the registers are of a function with these capabilities, at 0x40 and 0x60.
    fn registers(common: &[u32], notify: &[u32]) -> Result<VirtioRegisters, NoVirtio> {
        let mut space = Space([0; 64]);
        space.0[usize::from(regs::COMMAND / 4)] = u32::from(regs::STATUS_CAPABILITIES) << 16;
        space.0[usize::from(regs::CAPABILITIES / 4)] = 0x40;
        space.0[0x40 / 4..][..common.len()].copy_from_slice(common);
        space.0[0x60 / 4..][..notify.len()].copy_from_slice(notify);
        virtio_registers(&mut space, &info())
    }

    #[test]
    fn the_registers_of_a_function_lie_in_its_bars() {
        let common = [0x0110_6009, 4, 0, 0x1000];
        let notify = [0x0214_0009, 4, 0x3000, 0x1000, 4];
        let place = |offset| VirtioPlace {
            bar: 4,
            offset,
            length: 0x1000,
        };
        let found = VirtioRegisters {
            common: place(0),
            notify: place(0x3000),
            multiplier: 4,
        };
        assert_eq!(registers(&common, &notify), Ok(found));
        // None, one of the two, in no BAR, past its end, not aligned, too few.
        for (common, notify, none) in [
            (&[0, 0, 0, 0], &notify, NoVirtio::Legacy),
            (&common, &[0, 0, 0, 0, 0], NoVirtio::Legacy),
            (
                &[0x0110_6009, 5, 0, 0x1000],
                &notify,
                NoVirtio::Outside(Virtio::Common),
            ),
            (
                &[0x0110_6009, 4, u32::MAX, u32::MAX],
                &notify,
                NoVirtio::Outside(Virtio::Common),
            ),
            (
                &[0x0110_6009, 4, 2, 0x1000],
                &notify,
                NoVirtio::Outside(Virtio::Common),
            ),
            (
                &[0x0110_6009, 4, 0, 55],
                &notify,
                NoVirtio::Outside(Virtio::Common),
            ),
            (
                &common,
                &[0x0214_0009, 4, 0x3ffd, 4, 4],
                NoVirtio::Outside(Virtio::Notify),
            ),
        ] {
            assert_eq!(
                registers(common, notify),
                Err(none),
                "{common:x?} {notify:x?}"
            );
        }
    }

    #[test]
    fn m24_common_registers_are_those_of_a_sound_capability() {
        let at = |info: &FunctionInfo, common: &[u32]| {
            let mut space = Space([0; 64]);
            space.0[usize::from(regs::COMMAND / 4)] = u32::from(regs::STATUS_CAPABILITIES) << 16;
            space.0[usize::from(regs::CAPABILITIES / 4)] = 0x40;
            space.0[0x40 / 4..][..common.len()].copy_from_slice(common);
            let list = CapabilityList::read(&mut space);
            common_registers(&mut space, info, &list)
        };
        let found = CommonRegisters {
            there: 1,
            bar: 4,
            offset: 0x1004,
        };
        assert_eq!(at(&info(), &[0x0110_0009, 4, 0x1004, 56]), found);
        let none = CommonRegisters::default();
        // No capability, no such BAR, outside of it, not aligned, too short.
        for common in [
            [0, 0, 0, 0],
            [0x0110_0009, 5, 0, 56],
            [0x0110_0009, 0xff, 0, 56],
            [0x0110_0009, 4, 0x3fd0, 56],
            [0x0110_0009, 4, u32::MAX, u32::MAX],
            [0x0110_0009, 4, 0x1002, 56],
            [0x0110_0009, 4, 0x1004, 55],
        ] {
            assert_eq!(at(&info(), &common), none, "{common:x?}");
        }
        let mut other = info();
        other.vendor = 0x8086;
        assert_eq!(at(&other, &[0x0110_0009, 4, 0x1004, 56]), none);
        let mut ports = info();
        ports.bars[4].kind = BarKind::Io;
        assert_eq!(at(&ports, &[0x0110_0009, 4, 0x1004, 56]), none);
    }
}
