//! Decides which registers a function has for its guest.

use heapless::Vec;
use pci::regs::{self, CAP_AF, CAP_MSI, CAP_MSIX, CAP_PCIE, CAP_PM};
use pci::{BarKind, Capability, CapabilityList, FunctionInfo, Virtio, Width};

use crate::Hardware;
use crate::function::Space;
use crate::msi::Msi;
use crate::registers::{Action, Masks, MsiField, Register, RegisterTable};
use Action::{Constant, Hardware as Device};
use Width::{Byte, Dword, Word};

/// End of the space that PCI 2.x defines; PCI Express extends it to 4096.
pub const CONVENTIONAL: u16 = 256;

/// Status register: error bits 15:11 and 8, cleared by writing 1; bits 2:1 are
/// reserved-zero (PCIe 6.0 section 7.5.1.1.4).
const STATUS: Masks = Masks {
    readable: 0xffff,
    writable: 0,
    clear: 0xf900,
    zero: 0x0006,
};
/// Cache line size: a scratch byte that PCI Express devices ignore.
const CACHE_LINE: Masks = Masks {
    readable: 0xff,
    writable: 0xff,
    clear: 0,
    zero: 0,
};
/// Power management capabilities: version and device-specific initialisation.
/// No D1, no D2, no power management events.
const PM_CAPABILITIES: Masks = Masks {
    readable: 0x0027,
    ..Masks::READ_ONLY
};
/// Power management control: only "no soft reset" shows; the state reads D0,
/// and cannot be left, for a function in D3 forgets its BARs.
const PM_CONTROL: Masks = Masks {
    readable: 0x0008,
    ..Masks::READ_ONLY
};
/// Device status: four error bits cleared by writing 1, 15:7 reserved-zero
/// (PCIe 6.0 section 7.5.3.5).
const DEVICE_STATUS: Masks = Masks {
    readable: 0x003f,
    writable: 0,
    clear: 0x000f,
    zero: 0xff80,
};

/// The data register of virtio's window to BARs, from the start of the capability (VIRTIO 1.1
/// section 4.1.4.7): an access goes on to a BAR, at an offset that the guest chose.
const WINDOW_DATA: u16 = 16;

/// What [`build`] needs to know beyond the device itself.
pub struct Policy {
    /// Unknown capabilities are shown, and gaps pass.
    pub permissive: bool,
    /// Offset of the MSI-X capability if the msix component emulates it.
    pub msix: Option<u16>,
    /// The MSI capability that is emulated.
    pub msi: Option<Msi>,
    /// The guest has another function at the same device number.
    pub multi_function: bool,
    /// Bits of link control that the firmware had set for the link's active state
    /// power management: the guest may clear and set them again.
    pub aspm: u16,
}

/// Makes the table. The capability pointers in `list` are the last word: the
/// device's are not read again (C6).
pub fn build(
    hardware: &mut impl Hardware,
    info: &FunctionInfo,
    list: &CapabilityList,
    policy: &Policy,
) -> RegisterTable {
    let mut table = RegisterTable::default();
    let shown = add_capabilities(&mut table, hardware, info, list, policy);
    let status = Masks {
        readable: if shown == 0 {
            STATUS.readable & !u32::from(regs::STATUS_CAPABILITIES)
        } else {
            STATUS.readable
        },
        ..STATUS
    };
    // A function without a pin has no INTx, so that the guest looks for none.
    let interrupt_pin = match info.intx {
        0 => Constant(0),
        _ => Device(Masks::READ_ONLY),
    };
    let header = [
        // Vendor and device: what looks for functions reads both at once.
        Register::new(regs::VENDOR, Dword, Device(Masks::READ_ONLY)),
        Register::new(regs::COMMAND, Word, Action::Command),
        Register::new(regs::STATUS, Word, Device(status)),
        Register::new(regs::REVISION, Dword, Device(Masks::READ_ONLY)),
        Register::new(0x0c, Byte, Device(CACHE_LINE)),
        Register::new(0x0d, Byte, Device(Masks::READ_ONLY)),
        Register::new(
            regs::HEADER_TYPE,
            Byte,
            Constant(u32::from(policy.multi_function) << 7),
        ),
        // Built-in self test and the CardBus pointer are not emulated.
        Register::new(0x0f, Byte, Constant(0)),
        Register::new(0x28, Dword, Constant(0)),
        // Subsystem vendor and device.
        Register::new(0x2c, Dword, Device(Masks::READ_ONLY)),
        // The expansion ROM is hidden: it could be laid over the host's memory.
        Register::new(regs::ROM, Dword, Constant(0)),
        Register::new(regs::CAPABILITIES, Byte, Constant(shown)),
        Register::new(regs::INTERRUPT_LINE, Byte, Action::InterruptLine),
        Register::new(regs::INTERRUPT_PIN, Byte, interrupt_pin),
        // No extended capabilities (C7).
        Register::new(CONVENTIONAL, Dword, Constant(0)),
    ];
    table.add(&header, CONVENTIONAL + 4);
    for register in bar_registers(info) {
        table.add(&[register], 0x28);
    }
    table
}

/// Returns the six BAR registers. I/O BARs to which the firmware gave no ports read 0, as
/// those that do not exist.
fn bar_registers(info: &FunctionInfo) -> impl Iterator<Item = Register> {
    (0..info.bars.len()).map(|index| {
        let upper_half = index > 0 && matches!(info.bars[index - 1].kind, BarKind::Memory64);
        let action = if upper_half {
            Action::BarHigh(index as u8 - 1)
        } else if info.bars[index].is_memory() || info.bars[index].has_ports() {
            Action::Bar(index as u8)
        } else {
            Constant(0)
        };
        Register::new(regs::BAR0 + 4 * index as u16, Dword, action)
    })
}

/// Adds the capabilities that are shown, linked in their order. Returns the
/// offset of the first, or 0.
fn add_capabilities(
    table: &mut RegisterTable,
    hardware: &mut impl Hardware,
    info: &FunctionInfo,
    list: &CapabilityList,
    policy: &Policy,
) -> u32 {
    let is_shown = |hardware: &mut _, capability| match virtio(hardware, info, capability) {
        Some((_, is_safe)) => is_safe,
        None => is_shown(capability, policy),
    };
    // Neither read nor written under any policy, and whatever lies over it is hidden: the
    // register reaches BARs past the pages that trap. Offsets are multiples of 4, so that
    // none of these overlap.
    for capability in list.as_slice() {
        if let Some((Virtio::Window, _)) = virtio(hardware, info, *capability) {
            let data = Register::new(capability.offset + WINDOW_DATA, Dword, Constant(0));
            table.add(&[data], CONVENTIONAL);
        }
    }
    // Read-only registers come first: a capability that overlaps what is
    // in the table already is hidden.
    for capability in list.as_slice() {
        if policy.permissive && !is_shown(hardware, *capability) {
            protect(table, hardware, *capability);
        }
    }
    let mut next = 0;
    // From the back, where the link of each is known.
    for capability in list.as_slice().iter().rev() {
        if !is_shown(hardware, *capability) {
            continue;
        }
        let added = match virtio(hardware, info, *capability) {
            Some((structure, _)) => add_virtio(table, structure, *capability, next),
            None => add_capability(table, hardware, *capability, policy, next),
        };
        if added {
            next = u32::from(capability.offset);
        } else if policy.permissive {
            protect(table, hardware, *capability);
        }
    }
    next
}

/// Returns what a capability tells of a virtio function, and whether a guest may read it.
fn virtio(
    hardware: &mut impl Hardware,
    info: &FunctionInfo,
    capability: Capability,
) -> Option<(Virtio, bool)> {
    let mut space = Space(hardware);
    let structure = Virtio::of(&mut space, info, capability)?;
    let is_safe = structure.points_inside(&mut space, info, capability.offset);
    Some((structure, is_safe))
}

/// Adds a structure of a virtio function; all of it is read-only.
fn add_virtio(
    table: &mut RegisterTable,
    structure: Virtio,
    capability: Capability,
    next: u32,
) -> bool {
    let at = capability.offset;
    let read_only = |offset, width| Register::new(at + offset, width, Device(Masks::READ_ONLY));
    // 24 bytes at most: two of them here, length and type, and the others by fours.
    let mut registers: Vec<_, 8> = Vec::from_iter([
        Register::new(at, Byte, Constant(capability.id.into())),
        Register::new(at + 1, Byte, Constant(next)),
        read_only(2, Word),
    ]);
    let dwords = (4..structure.bytes()).step_by(4);
    registers.extend(dwords.map(|offset| read_only(offset, Dword)));
    table.add(&registers, CONVENTIONAL)
}

fn is_shown(capability: Capability, policy: &Policy) -> bool {
    match capability.id {
        CAP_PM | CAP_PCIE => true,
        CAP_AF => false,
        CAP_MSIX => policy.msix == Some(capability.offset),
        CAP_MSI => policy.msi.is_some_and(|msi| msi.at == capability.offset),
        _ => policy.permissive,
    }
}

/// Makes a hidden capability read-only, byte by byte: under the
/// permissive policy its registers would be a gap, and gaps pass.
fn protect(table: &mut RegisterTable, hardware: &mut impl Hardware, capability: Capability) {
    let control = hardware.read(capability.offset + 2, Word);
    let size = match capability.id {
        CAP_MSIX => 12,
        // A function-level reset that pci-config does not know of would lose the BARs.
        CAP_AF => 6,
        // Per-vector masking adds mask and pending, 64 bits the upper half
        // (PCIe 6.0 section 7.7.1).
        _ => 12 + 8 * (control >> 8 & 1) as u16 + 4 * (control >> 7 & 1) as u16,
    };
    for offset in capability.offset..capability.offset + size {
        table.add(
            &[Register::new(offset, Byte, Device(Masks::READ_ONLY))],
            CONVENTIONAL,
        );
    }
}

/// Adds one capability and its link; false if it cannot be shown.
fn add_capability(
    table: &mut RegisterTable,
    hardware: &mut impl Hardware,
    capability: Capability,
    policy: &Policy,
    next: u32,
) -> bool {
    let at = capability.offset;
    let id = Register::new(at, Byte, Constant(capability.id.into()));
    let link = Register::new(at + 1, Byte, Constant(next));
    let read_only = |offset, width| Register::new(at + offset, width, Device(Masks::READ_ONLY));
    match capability.id {
        CAP_PM => table.add(
            &[
                id,
                link,
                Register::new(at + 2, Word, Device(PM_CAPABILITIES)),
                Register::new(at + 4, Word, Device(PM_CONTROL)),
                Register::new(at + 6, Word, Constant(0)),
            ],
            CONVENTIONAL,
        ),
        CAP_MSIX => table.add(
            &[
                id,
                link,
                Register::new(at + regs::MSIX_CONTROL, Word, Action::MsixControl),
                read_only(regs::MSIX_TABLE, Dword),
                read_only(regs::MSIX_PBA, Dword),
            ],
            CONVENTIONAL,
        ),
        CAP_MSI => policy.msi.is_some_and(|msi| {
            let mut registers: Vec<_, 9> = Vec::from_iter([id, link]);
            registers.extend(msi_registers(&msi));
            table.add(&registers, CONVENTIONAL)
        }),
        CAP_PCIE => {
            let link_control = Masks {
                writable: policy.aspm.into(),
                ..Masks::READ_ONLY
            };
            let registers = [
                id,
                link,
                // Capabilities, and device, link (PCIe 6.0 section 7.5.3).
                read_only(0x02, Word),
                read_only(0x04, Dword),
                Register::new(at + regs::PCIE_DEVICE_CONTROL, Word, Action::DeviceControl),
                Register::new(at + regs::PCIE_DEVICE_STATUS, Word, Device(DEVICE_STATUS)),
                read_only(0x0c, Dword),
                Register::new(at + regs::PCIE_LINK_CONTROL, Word, Device(link_control)),
                read_only(0x12, Word),
                // The second device and link registers, from version 2 on.
                read_only(0x24, Dword),
                read_only(0x28, Word),
                read_only(0x2a, Word),
                read_only(0x2c, Dword),
                read_only(0x30, Word),
                read_only(0x32, Word),
            ];
            let version = hardware.read(at + 2, Word) & 15;
            let count = if version >= 2 { registers.len() } else { 9 };
            table.add(&registers[..count], CONVENTIONAL)
        }
        _ => table.add(&[id, link], CONVENTIONAL),
    }
}

/// Returns the registers of an MSI capability behind id and link (P2). Pending
/// bits are the device's.
fn msi_registers(msi: &Msi) -> Vec<Register, 7> {
    let field = |offset, width, field| Register::new(offset, width, Action::Msi(field));
    let address_at = msi.at + regs::MSI_ADDRESS;
    let mut registers = Vec::new();
    // There is room for all of them.
    registers.extend([
        field(msi.at + regs::MSI_CONTROL, Word, MsiField::Control),
        field(address_at, Dword, MsiField::Address),
        field(msi.data_at(), Word, MsiField::Data),
        Register::new(msi.data_at() + 2, Word, Constant(0)),
    ]);
    if msi.wide {
        registers.extend([field(address_at + 4, Dword, MsiField::AddressHigh)]);
    }
    if msi.maskable {
        registers.extend([
            field(msi.mask_at(), Dword, MsiField::Mask),
            Register::new(msi.mask_at() + 4, Dword, Device(Masks::READ_ONLY)),
        ]);
    }
    registers
}
