//! The vendor-specific capabilities of virtio functions (VIRTIO 1.1 section 4.1.4): each
//! says where in a BAR some of the function's registers lie.

use crate::{BarKind, Capability, ConfigSpace, FunctionInfo, regs};

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
        let bytes = u32::from(self.bytes());
        let length = space.read32(offset) >> 16 & 0xff;
        if self == Self::Window || length < bytes || u32::from(offset) + bytes > SPACE {
            return false;
        }
        let bar = space.read32(offset + 4) & 0xff;
        let mut wide = |at| {
            let high = match self {
                Self::SharedMemory => space.read32(offset + at + 8),
                _ => 0,
            };
            u64::from(high) << 32 | u64::from(space.read32(offset + at))
        };
        let end = wide(8).checked_add(wide(12));
        info.bars
            .get(bar as usize)
            .is_some_and(|bar| bar.kind != BarKind::None && end.is_some_and(|end| end <= bar.size))
    }
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
}
