//! A system that passed every check.

use std::fmt;
use std::path::PathBuf;

use pci::Bdf;
use spec::{FirmwareMemory, IommuKind, OnExit, OnFault, Selector};

use crate::board::{Board, BoardDevice};
use crate::manifest::{Authority, Manifest};

/// An isolated component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// The program that it runs.
    pub program: Manifest,
    /// 0 to 255, 255 most urgent.
    pub priority: u8,
    /// Bytes.
    pub stack: u64,
    /// Board devices, as indices into [`Board::devices`].
    pub devices: Vec<usize>,
    /// Its authority beyond its own memory and channels.
    pub authority: Vec<Authority>,
    /// What happens when it faults.
    pub on_fault: OnFault,
}

/// A typed endpoint between two components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The interface's name in crates/channel.
    pub interface: String,
    /// Index of the calling component.
    pub client: usize,
    /// Index of the serving component.
    pub server: usize,
}

/// What happens to accesses that no handler of configuration space takes (C2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Reads return registers that are known to be safe, writes are dropped.
    Strict,
    /// Both pass.
    Permissive,
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// How it is found at boot.
    pub selector: Selector,
    /// The value of that selector: requester id, vendor << 16 | device, or class code.
    pub value: u32,
    /// Address that the guest sees.
    pub guest_address: Bdf,
    /// What its configuration registers without a handler do.
    pub policy: Policy,
    /// I/O APIC pin of its INTx pin, if the guest is offered that (C9).
    pub intx: Option<u8>,
    /// It is assigned even if nothing confines it.
    pub trusted: bool,
    /// The first refused access of the function stops its guest.
    pub stop_on_dma_fault: bool,
    /// The guest may start again although nothing resets the function (M24).
    pub reset_optional: bool,
    /// Functions that it reaches without the IOMMU may go to other guests.
    pub shares_group: bool,
    /// What becomes of memory that firmware wants it to reach.
    pub firmware_memory: FirmwareMemory,
    /// QEMU's `-device` arguments that make the function, and what it needs,
    /// on a QEMU board.
    pub qemu: Vec<String>,
    /// QEMU's `-drive` arguments for the disks that those name.
    pub qemu_drives: Vec<String>,
}

/// Where a guest's image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestImage {
    /// A crate: its folder and the name of its package.
    Crate(PathBuf, String),
    /// An ELF file.
    File(PathBuf),
}

/// How a guest's image is entered, as far as system.toml says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boot {
    /// As the image offers.
    #[default]
    Auto,
    /// By the Linux 64-bit boot protocol.
    Linux,
    /// By Multiboot 1.
    Multiboot,
    /// By its PVH note.
    Pvh,
}

/// Where a key stands: file, line and column, for errors that are found later. It says
/// nothing about the system, so that all are equal.
#[derive(Clone, Debug, Eq)]
pub struct Place(pub String);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Kind of a device in the manifest of a Solo5 image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solo5Kind {
    /// A network, `net` in system.toml.
    Net,
    /// A disk, `block` in system.toml.
    Block,
}

/// The function that stands for a device of an image's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solo5Device {
    /// The device's name in the manifest.
    pub name: String,
    /// Its kind.
    pub kind: Solo5Kind,
    /// Index into [`Model::devices`].
    pub device: usize,
    /// Where the file says so.
    pub place: Place,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: GuestImage,
    /// Index of the component that runs it.
    pub vmm: usize,
    /// RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// First guest address of its RAM.
    pub address: u64,
    /// First address of its RAM in the machine.
    pub machine_address: u64,
    /// 0 to 255.
    pub priority: u8,
    /// Indices into [`Model::devices`].
    pub devices: Vec<usize>,
    /// Its command line.
    pub command_line: String,
    /// The functions of a Solo5 image, by its manifest's names; `None` where the file has
    /// no `solo5`.
    pub solo5: Option<Vec<Solo5Device>>,
    /// It may run on a kernel that its flags can halt.
    pub trusts_kernel: bool,
    /// Where the guest, or its `solo5`, stands.
    pub place: Place,
    /// Interrupts that each of its sources may raise in a second (M23).
    pub interrupt_budget: u64,
    /// Interrupt sources that it must be able to bind at once; `None` where its part of
    /// what there is will do.
    pub slots: Option<u64>,
    /// What happens when it ends.
    pub on_exit: OnExit,
    /// Its part of the CPU's time, relative to the other guests of its priority.
    pub share: u64,
    /// It has the devices of a PC.
    pub pc: bool,
    /// How its image is entered.
    pub boot: Boot,
    /// Files that its image gets as boot modules.
    pub modules: Vec<PathBuf>,
}

/// A system that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its machine.
    pub board: Board,
    /// Every program that a component can run, by name.
    pub programs: Vec<Manifest>,
    /// Components in the file's order.
    pub components: Vec<Component>,
    /// Channels: those of the file, and then those that follow from what the
    /// programs call.
    pub channels: Vec<Channel>,
    /// PCI functions in the file's order: the order in which components number
    /// them.
    pub devices: Vec<Device>,
    /// Guests in the file's order.
    pub guests: Vec<Guest>,
}

impl Model {
    /// Returns the component that holds an authority.
    #[must_use]
    pub fn holder(&self, authority: Authority) -> Option<usize> {
        self.components
            .iter()
            .position(|component| component.authority.contains(&authority))
    }

    /// Returns a component's board device of this name.
    #[must_use]
    pub fn device_of(&self, component: &Component, name: &str) -> Option<&BoardDevice> {
        let own = component.devices.iter();
        let mut own = own.map(|&index| &self.board.devices[index]);
        own.find(|device| device.name == name)
    }

    /// Returns whether a component drives an IOMMU: devices interrupt by remapped
    /// messages then, and the I/O APIC's pins do not work.
    #[must_use]
    pub fn remaps(&self) -> bool {
        self.board.iommu != IommuKind::None && self.holder(Authority::Iommu).is_some()
    }

    /// Returns the component that serves an interface to another.
    #[must_use]
    pub fn server(&self, client: usize, interface: &str) -> Option<usize> {
        let mut channels = self.channels.iter();
        let channel = channels.find(|c| c.client == client && c.interface == interface)?;
        Some(channel.server)
    }

    /// Returns the guest that a component runs.
    #[must_use]
    pub fn guest_of(&self, component: usize) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.vmm == component)
    }

    /// Returns the guest to which a function is assigned.
    #[must_use]
    pub fn owner(&self, device: usize) -> Option<usize> {
        self.guests
            .iter()
            .position(|guest| guest.devices.contains(&device))
    }
}
