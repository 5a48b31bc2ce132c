//! The records of the image. Every index names an object by its position.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, TryFromBytes};

/// The index that names no object.
pub const NONE: u32 = u32::MAX;

/// Stands for a pin that the machine says at boot: no I/O APIC has as many.
pub const PIN_BY_MACHINE: u16 = u16::MAX;

/// A short name, NUL-padded UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Name(pub [u8; 40]);

impl Name {
    /// Returns the name as text, cut at 40 bytes (at a character's boundary).
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(40);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; 40];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(bytes)
    }

    /// Returns the text; `?` if it is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(40);
        core::str::from_utf8(&self.0[..end]).unwrap_or("?")
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(u32)]
pub enum ObjectKind {
    /// Thread control block.
    Tcb = 1,
    /// Endpoint.
    Endpoint = 2,
    /// Notification.
    Notification = 3,
    /// CNode of 2^`size_bits` slots.
    CNode = 4,
    /// Top page table of an address space.
    VSpace = 5,
    /// `pages` pages of 2^`size_bits` bytes of RAM (12 or 21), zeroed; at
    /// physical address `address`, or anywhere if that is `u64::MAX`.
    Memory = 6,
    /// `pages` pages of 2^`size_bits` bytes of a device at `address`.
    Device = 7,
    /// I/O ports `first_port` to `last_port`.
    IoPorts = 8,
    /// IRQ handler of the I/O APIC's pin `pin`, user vector `vector`.
    IoApicIrq = 9,
    /// The IRQControl capability: exactly one holder, since it is moved.
    IrqControl = 10,
    /// Untyped memory of 2^`size_bits` bytes.
    Untyped = 11,
    /// IRQ handler of a message, user vector `vector`.
    MessageIrq = 12,
}

/// What a machine must have for an object to be made, its capabilities handed out and its
/// mappings made. Of things that stand in for each other, init decides which it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(u64)]
pub enum Requires {
    /// Nothing in particular.
    Nothing = 0,
    /// The HPET as the timer's clock.
    Hpet = 1,
    /// The 8254 as the timer's clock.
    Pit = 2,
    /// No window for configuration space: that is reached by ports.
    ConfigPorts = 3,
}

/// A kernel object to be made; [`Object::new`] sets what its kind does not use.
#[derive(Clone, Copy, Debug, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Object {
    /// For messages.
    pub name: Name,
    /// Its kind.
    pub kind: ObjectKind,
    /// Size, where the kind has one.
    pub size_bits: u32,
    /// Pages of memory or of a device.
    pub pages: u64,
    /// Physical address of memory or of a device; `u64::MAX`: none is given.
    pub address: u64,
    /// User vector of an IRQ handler.
    pub vector: u64,
    /// What has to be there for it.
    pub requires: Requires,
    /// Pin of the I/O APIC that an IRQ handler's device raises, or [`PIN_BY_MACHINE`].
    pub pin: u16,
    /// First of the I/O ports.
    pub first_port: u16,
    /// Last of the I/O ports.
    pub last_port: u16,
    /// The pin is level-triggered.
    pub level: bool,
    /// The memory is filled anew when its program is started again.
    pub renewed: bool,
}

impl Object {
    /// Creates an object without address, ports or interrupt.
    #[must_use]
    pub fn new(name: &str, kind: ObjectKind, size_bits: u32, pages: u64) -> Self {
        Self {
            name: Name::new(name),
            kind,
            size_bits,
            pages,
            address: u64::MAX,
            vector: 0,
            requires: Requires::Nothing,
            pin: 0,
            first_port: 0,
            last_port: 0,
            level: false,
            renewed: false,
        }
    }

    /// Returns how many capabilities init makes for it: one for each page, or one.
    #[must_use]
    pub const fn capabilities(&self) -> u64 {
        match self.kind {
            ObjectKind::Memory | ObjectKind::Device => self.pages,
            _ => 1,
        }
    }
}

/// Rights of a capability: read or receive, write or send, grant a reply. None has the
/// right to pass other capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Rights(pub u32);

impl Rights {
    /// Read, or receive.
    pub const READ: Self = Self(1);
    /// Write, or send.
    pub const WRITE: Self = Self(2);
    /// Grant a reply: a call carries a reply capability.
    pub const GRANT_REPLY: Self = Self(4);
    /// Read and write.
    pub const READ_WRITE: Self = Self(3);
    /// Write and grant a reply, which a fault endpoint needs (the kernel sends the
    /// fault with a reply capability).
    pub const FAULT: Self = Self(6);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// Returns whether every right of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A capability to be put into a component's CNode; for memory and devices one
/// for each page, in consecutive slots.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Capability {
    /// The CNode.
    pub cnode: u32,
    /// Slot in it.
    pub slot: u32,
    /// The object.
    pub object: u32,
    /// Rights.
    pub rights: Rights,
    /// Badge, 0 for none; for a CNode object: its guard size (guard 0).
    pub badge: u64,
}

/// How a mapping is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(u32)]
pub enum Cache {
    /// Write-back: RAM.
    WriteBack = 0,
    /// Uncached: device registers.
    Uncached = 3,
}

/// Memory or a device to be mapped, every page of it, from `address` on.
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Mapping {
    /// The address space.
    pub vspace: u32,
    /// The object.
    pub object: u32,
    /// First virtual address, page-aligned.
    pub address: u64,
    /// Read or read-write.
    pub rights: Rights,
    /// How it is cached.
    pub cache: Cache,
    /// CNode that holds the mapped page capabilities, or [`NONE`]: init.
    pub holder: u32,
    /// First slot there.
    pub holder_slot: u32,
}

/// Bytes of the image to be copied into memory before anything starts.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Fill {
    /// The memory object.
    pub object: u32,
    /// Keeps the layout free of implicit padding.
    pub reserved: u32,
    /// Byte offset in the object.
    pub offset: u64,
    /// Byte offset in the image.
    pub source: u64,
    /// Bytes.
    pub length: u64,
}

/// The monitor's policy for a thread's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(u64)]
pub enum OnFault {
    /// Ends the system.
    Stop = 0,
    /// Starts the thread again with its program's memory as at boot.
    Restart = 1,
    /// Stops the guest that it runs; the others go on.
    StopGuest = 2,
}

/// A vmm's policy for its guest's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum OnExit {
    /// Ends the system.
    Stop = 0,
    /// Leaves the guest as it is, its functions quiesced.
    Halt = 1,
    /// Starts it again from its image.
    Restart = 2,
}

/// Who starts a thread, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(u32)]
pub enum Start {
    /// Its vmm: it is a guest.
    Guest = 0,
    /// Init, at boot.
    Boot = 1,
    /// Init, before the others, which wait until it has said that it is ready.
    First = 2,
}

/// A thread to be configured.
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Thread {
    /// Component or guest.
    pub name: Name,
    /// Its TCB.
    pub tcb: u32,
    /// Root of its CSpace.
    pub cnode: u32,
    /// Its address space.
    pub vspace: u32,
    /// Memory object of one page with its IPC buffer, or [`NONE`].
    pub ipc_buffer: u32,
    /// Notification bound to it, or [`NONE`].
    pub notification: u32,
    /// Priority, 0 to 255 (255 is most urgent).
    pub priority: u32,
    /// The highest priority that it may give to a thread (the kernel's MCP).
    pub max_priority: u32,
    /// 1 if the monitor ends the system when it asks for that.
    pub may_stop: u32,
    /// Memory object of its stack, or [`NONE`]: for backtraces.
    pub stack: u32,
    /// Who starts it, and when.
    pub start: Start,
    /// Virtual address of the IPC buffer, 0 without one.
    pub ipc_address: u64,
    /// First instruction.
    pub entry: u64,
    /// Initial stack pointer.
    pub stack_top: u64,
    /// Slot in its own CSpace of the endpoint that hears its faults.
    pub fault_slot: u64,
    /// The monitor's policy for its fault.
    pub on_fault: OnFault,
    /// Position of the guest that it runs or is, `u64::MAX` for none.
    pub guest: u64,
}

/// What becomes of memory of the firmware that a function should reach by its tables (RMRR,
/// IVMD).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros, IntoBytes, KnownLayout, Immutable,
)]
#[repr(u16)]
pub enum FirmwareMemory {
    /// The system does not start.
    #[default]
    Refuse = 0,
    /// The function reaches it, beside its guest's memory.
    Map = 1,
    /// The function does not reach it.
    Withhold = 2,
}

/// How a function is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(u32)]
pub enum Selector {
    /// `value` is the requester id.
    Address = 0,
    /// `value` is vendor << 16 | device; the first match in bus order that no
    /// earlier record took.
    VendorDevice = 1,
    /// `value` is the class code, 24 bits; the first match in bus order.
    Class = 2,
}

/// A PCI function to be found at boot and given out.
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Function {
    /// Name in system.toml.
    pub name: Name,
    /// How it is chosen.
    pub selector: Selector,
    /// Kind of the selector.
    pub value: u32,
    /// Requester id that the guest sees.
    pub guest_bdf: u32,
    /// 1: policy `permissive`.
    pub permissive: u32,
    /// I/O APIC pin of its INTx pin, 0 if that is not offered (C9).
    pub intx: u32,
    /// 1: assigned even if nothing confines it.
    pub trusted: u32,
    /// Memory object (one page) into which init writes the `FunctionInfo`.
    pub info: u32,
    /// pci-config's address space, in which the function's configuration page
    /// is mapped.
    pub config_vspace: u32,
    /// pci-config's CNode, which holds that page.
    pub config_cnode: u32,
    /// Slot there.
    pub config_slot: u32,
    /// Address there.
    pub config_address: u64,
    /// msix's address space, in which the pages with table and PBA are mapped.
    pub msix_vspace: u32,
    /// msix's CNode, which holds them.
    pub msix_cnode: u32,
    /// First slot there.
    pub msix_slot: u32,
    /// The vmm's CNode, which gets the other BAR pages.
    pub bar_cnode: u32,
    /// First address there.
    pub msix_address: u64,
    /// Address in pci-config's address space for the pages with the registers by
    /// which a known model is reset (M24).
    pub registers_address: u64,
    /// First slot of pci-config's CNode that holds them.
    pub registers_slot: u32,
    /// 1: its guest may start again although nothing resets it (M24).
    pub reset_optional: u32,
    /// First slot there.
    pub bar_slot: u32,
    /// Slots reserved there: how many BAR pages the functions of its guest can have.
    pub bar_slots: u32,
    /// Memory object with the RAM of its guest.
    pub ram: u32,
    /// 1: functions of its group may go to other guests.
    pub shares_group: u16,
    /// What becomes of memory that the firmware wants it to reach.
    pub firmware_memory: FirmwareMemory,
    /// First bus address of that RAM for the function: the guest's own.
    pub dma_address: u64,
    /// First address of all RAM of its guest, of which `ram` is the end.
    pub guest_address: u64,
}

/// Where the IOMMU goes that init finds. Every index is [`NONE`] in a system
/// without an iommu component.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IommuPlace {
    /// Memory object (one page) into which init writes the `IommuInfo`.
    pub info: u32,
    /// Memory object (large pages, in one piece) for the unit's tables.
    pub tables: u32,
    /// The component's address space, in which the registers are mapped.
    pub vspace: u32,
    /// Its CNode, which holds them.
    pub cnode: u32,
    /// First slot there.
    pub slot: u32,
    /// How many pages of registers there is room for.
    pub pages: u32,
    /// First address there.
    pub address: u64,
}

impl IommuPlace {
    /// There is no iommu component.
    pub const NONE: Self = Self {
        info: NONE,
        tables: NONE,
        vspace: NONE,
        cnode: NONE,
        slot: 0,
        pages: 0,
        address: 0,
    };
}
