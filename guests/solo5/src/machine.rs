//! The machine behind the hypercalls: kit's drivers, clock and interrupts.

use core::fmt;

use kit::clock::Clock;
use kit::e1000e::dma::DmaMemory;
use kit::e1000e::{self, E1000e};
use kit::interrupts::Interrupts;
use kit::lapic::{self, Lapic};
use kit::mmio::Mmio;
use kit::msix::{Capability, Msix};
use kit::network::{
    self, BUFFER, Driver, OTHER_ENTRY, RECEIVE_ENTRY, TRANSMIT_ENTRY, TransmitError,
};
use kit::nvme::dma::NvmeMemory;
use kit::nvme::{self, ADMIN_ENTRY};
use kit::pci::{self, Bdf, Config, Function, Way};
use kit::virtio::disk::{DiskMemory, REQUEST_ENTRY};
use kit::virtio::net::NetMemory;
use kit::{console, cpu, println, virtio};
use solo5::manifest::{Entry, Kind};
use solo5::{DISKS, NETWORKS, calls};

static NETWORK_MEMORY: [DmaMemory; NETWORKS] = [const { DmaMemory::new() }; NETWORKS];
static DISK_MEMORY: [NvmeMemory; DISKS] = [const { NvmeMemory::new() }; DISKS];
static VIRTIO_NETWORKS: [NetMemory; NETWORKS] = [const { NetMemory::new() }; NETWORKS];
static VIRTIO_DISKS: [DiskMemory; DISKS] = [const { DiskMemory::new() }; DISKS];

/// First vector of networks, three for each, and of disks, one for each.
const NETWORK_VECTORS: u8 = 0x51;
const DISK_VECTORS: u8 = 0x71;

/// MTU of Ethernet in bytes.
const MTU: u16 = 1500;
/// Longest wait for a disk's command, in microseconds: more than a drive takes for its own
/// recovery from an error.
const DISK_MICROS: u64 = 30_000_000;
/// Longest wait for room in a transmit ring, in microseconds: the ring drains in less at
/// 10 Mbit/s. One that does not is that of a link which is down, and frames are lost.
const FULL_MICROS: u64 = 100_000;
/// Least time between two reports of refused calls, in microseconds.
const REPORT_MICROS: u64 = 1_000_000;

/// Why a function cannot stand for a device.
#[derive(Clone, Copy, Debug)]
pub enum AttachError {
    /// There is no function at its address.
    Absent(Bdf),
    /// It is another device: where, vendor, device and class code.
    Other(Bdf, [u16; 2], u32, Kind),
    /// It does not start; what failed.
    Failed(Bdf, &'static str),
    /// There is no memory for so many.
    TooMany(usize),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(bdf) => write!(f, "there is no function {bdf}"),
            Self::Other(bdf, [vendor, device], class, kind) => {
                let wanted = match kind {
                    Kind::Net => "an 82574L (8086:10d3) or virtio-net (1af4:1041)",
                    Kind::Block => "an NVMe controller (class 010802) or virtio-blk (1af4:1042)",
                };
                write!(
                    f,
                    "function {bdf} is {vendor:04x}:{device:04x} of class {class:06x}, not {wanted}: \
                     name another device under `solo5`"
                )
            }
            Self::Failed(bdf, what) => write!(f, "function {bdf}: {what}"),
            Self::TooMany(room) => write!(f, "there is room for {room} of its kind"),
        }
    }
}

/// A driver of a network.
#[expect(clippy::large_enum_variant, reason = "there is no heap")]
enum Card {
    Intel(E1000e<'static, Mmio>),
    Virtio(virtio::net::Network),
}

impl Card {
    fn driver(&mut self) -> &mut dyn Driver {
        match self {
            Self::Intel(driver) => driver,
            Self::Virtio(driver) => driver,
        }
    }
}

/// A driver of a disk.
#[expect(clippy::large_enum_variant, reason = "there is no heap")]
enum Drive {
    Nvme(nvme::Disk<'static, Mmio>),
    Virtio(virtio::disk::Disk),
}

impl Drive {
    fn blocks(&self) -> u64 {
        match self {
            Self::Nvme(disk) => disk.blocks(),
            Self::Virtio(disk) => disk.blocks(),
        }
    }

    fn block_size(&self) -> usize {
        match self {
            Self::Nvme(disk) => disk.block_size(),
            Self::Virtio(disk) => disk.block_size(),
        }
    }

    fn read(&mut self, block: u64, data: &mut [u8], wait: &mut impl FnMut() -> bool) -> bool {
        match self {
            Self::Nvme(disk) => disk.read(block, data, wait).is_ok(),
            Self::Virtio(disk) => disk.read(block, data, wait).is_ok(),
        }
    }

    fn write(&mut self, block: u64, data: &[u8], wait: &mut impl FnMut() -> bool) -> bool {
        match self {
            Self::Nvme(disk) => disk.write(block, data, wait).is_ok(),
            Self::Virtio(disk) => disk.write(block, data, wait).is_ok(),
        }
    }
}

/// What drives a function.
#[derive(Clone, Copy)]
enum Model {
    Network(network::Model),
    Nvme,
    VirtioDisk,
}

impl Model {
    fn of(function: &Function<Config>) -> Option<Self> {
        let (vendor, device) = (function.vendor, function.device);
        if let Some(model) = network::Model::of(vendor, device) {
            return Some(Self::Network(model));
        }
        match (vendor, device) {
            (virtio::VENDOR, virtio::DISK | virtio::TRANSITIONAL_DISK) => Some(Self::VirtioDisk),
            _ if function.class == nvme::CLASS => Some(Self::Nvme),
            _ => None,
        }
    }
}

/// A network of the image.
struct Network {
    handle: usize,
    card: Card,
    /// Vector of the interrupt for everything but frames, and how many were handled.
    other_vector: u8,
    others: u64,
}

/// A disk of the image.
struct Storage {
    handle: usize,
    drive: Drive,
}

/// Time, and sleeping until something happens.
struct Sleeper {
    clock: Clock,
    interrupts: Interrupts,
    lapic: Lapic,
    /// When the timer interrupts, and how often it had when it was set.
    armed: Option<(u64, u64)>,
}

impl Sleeper {
    /// Sleeps until an interrupt, at the latest until `until`, in microseconds.
    fn sleep(&mut self, until: u64) {
        let now = self.clock.micros();
        let timers = self.interrupts.count(lapic::TIMER_VECTOR);
        // Setting the timer costs a trap. One that is set earlier is left alone: it wakes
        // us once, to set it anew.
        let set = self
            .armed
            .is_some_and(|(at, before)| before == timers && at > now && at <= until);
        if !set {
            self.lapic.arm(until.saturating_sub(now));
            self.armed = Some((until, timers));
        }
        self.interrupts.wait();
    }

    /// Sleeps until an interrupt. Returns `false` once it is `until`.
    fn sleep_before(&mut self, until: u64) -> bool {
        let early = self.clock.micros() < until;
        if early {
            self.sleep(until);
        }
        early
    }
}

/// The machine.
pub struct Machine {
    sleeper: Sleeper,
    /// How configuration space is reached.
    way: Way,
    networks: [Option<Network>; NETWORKS],
    disks: [Option<Storage>; DISKS],
    reported: Option<u64>,
}

impl Machine {
    /// Creates the machine without devices.
    pub fn new(clock: Clock, interrupts: Interrupts, lapic: Lapic, way: Way) -> Self {
        Self {
            sleeper: Sleeper {
                clock,
                interrupts,
                lapic,
                armed: None,
            },
            way,
            networks: [const { None }; NETWORKS],
            disks: [const { None }; DISKS],
            reported: None,
        }
    }

    /// Starts the function that stands for an entry of the manifest, and fills the entry
    /// in.
    pub fn attach(
        &mut self,
        handle: usize,
        entry: &mut Entry,
        function: u16,
    ) -> Result<(), AttachError> {
        let bdf = Bdf {
            bus: (function >> 8) as u8,
            device: (function >> 3 & 31) as u8,
            function: (function & 7) as u8,
        };
        if !pci::present(self.way).any(|present| present == bdf) {
            return Err(AttachError::Absent(bdf));
        }
        let function = Function::at(self.way, bdf);
        match (entry.kind(), Model::of(&function)) {
            (Some(Kind::Net), Some(Model::Network(model))) => {
                self.attach_network(handle, entry, function, model)
            }
            (Some(Kind::Block), Some(Model::Nvme)) => self.attach_nvme(handle, entry, function),
            (Some(Kind::Block), Some(Model::VirtioDisk)) => {
                self.attach_virtio_disk(handle, entry, function)
            }
            (wanted, _) => Err(AttachError::Other(
                bdf,
                [function.vendor, function.device],
                function.class,
                wanted.unwrap_or(Kind::Net),
            )),
        }
    }

    fn attach_network(
        &mut self,
        handle: usize,
        entry: &mut Entry,
        mut function: Function<Config>,
        model: network::Model,
    ) -> Result<(), AttachError> {
        let free = self.networks.iter().position(Option::is_none);
        let index = free.ok_or(AttachError::TooMany(NETWORKS))?;
        let first = NETWORK_VECTORS + 3 * index as u8;
        let entries = [RECEIVE_ENTRY, TRANSMIT_ENTRY, OTHER_ENTRY];
        let vectors = [first, first + 1, first + 2];
        let failed = |what| AttachError::Failed(function.bdf, what);
        let (absent, stuck) = (failed("it has no registers"), failed("it does not start"));
        self.route(&mut function, &entries, &vectors)?;
        // A reset clears any earlier setup, so that the function may reach memory.
        let mut card = match model {
            network::Model::E1000e => {
                let registers = function.map(e1000e::REGISTER_BAR).ok_or(absent)?;
                let stopped = e1000e::Stopped::reset(registers).map_err(|_| stuck)?;
                function.enable_bus_master();
                Card::Intel(stopped.start(&NETWORK_MEMORY[index]))
            }
            network::Model::Virtio => {
                let stopped = virtio::Stopped::reset(self.way, &function).map_err(|_| stuck)?;
                function.enable_bus_master();
                let started = stopped.start_network(&VIRTIO_NETWORKS[index]);
                Card::Virtio(started.map_err(|_| stuck)?)
            }
        };
        entry.attach_network(card.driver().address(), MTU);
        self.networks[index] = Some(Network {
            handle,
            card,
            other_vector: vectors[2],
            others: 0,
        });
        Ok(())
    }

    fn attach_nvme(
        &mut self,
        handle: usize,
        entry: &mut Entry,
        mut function: Function<Config>,
    ) -> Result<(), AttachError> {
        let free = self.disks.iter().position(Option::is_none);
        let index = free.ok_or(AttachError::TooMany(DISKS))?;
        let failed = |what| AttachError::Failed(function.bdf, what);
        let (absent, stuck, format) = (
            failed("it has no registers"),
            failed("it does not start"),
            failed("its first namespace has metadata, or blocks of other sizes than 512 to 4096"),
        );
        self.route(
            &mut function,
            &[ADMIN_ENTRY as usize],
            &[DISK_VECTORS + index as u8],
        )?;
        let shared = function.map(nvme::REGISTER_BAR);
        let stopped = nvme::Stopped::reset(shared.ok_or(absent)?).map_err(|_| stuck)?;
        function.enable_bus_master();
        let started = stopped.start(&DISK_MEMORY[index]).map_err(|_| stuck)?;
        let opened = nvme::Disk::open(started, &mut self.sleeper.patience());
        let disk = opened.map_err(|error| match error {
            nvme::DiskError::Format => format,
            _ => stuck,
        })?;
        self.add(index, handle, entry, Drive::Nvme(disk));
        Ok(())
    }

    fn attach_virtio_disk(
        &mut self,
        handle: usize,
        entry: &mut Entry,
        mut function: Function<Config>,
    ) -> Result<(), AttachError> {
        let free = self.disks.iter().position(Option::is_none);
        let index = free.ok_or(AttachError::TooMany(DISKS))?;
        let stuck = AttachError::Failed(function.bdf, "it does not start");
        self.route(
            &mut function,
            &[REQUEST_ENTRY],
            &[DISK_VECTORS + index as u8],
        )?;
        let stopped = virtio::Stopped::reset(self.way, &function).map_err(|_| stuck)?;
        function.enable_bus_master();
        let started = stopped.start_disk(&VIRTIO_DISKS[index]);
        let disk = started.map_err(|_| stuck)?;
        self.add(index, handle, entry, Drive::Virtio(disk));
        Ok(())
    }

    /// Fills in the entry of a disk that has started.
    fn add(&mut self, index: usize, handle: usize, entry: &mut Entry, drive: Drive) {
        let size = drive.block_size();
        entry.attach_disk(drive.blocks() * size as u64, size as u16);
        self.disks[index] = Some(Storage { handle, drive });
    }

    /// Switches the function's decoding on and its MSI-X, with entries of the table routed
    /// to these vectors.
    fn route(
        &self,
        function: &mut Function<Config>,
        entries: &[usize],
        vectors: &[u8],
    ) -> Result<(), AttachError> {
        function.enable();
        let bdf = function.bdf;
        let failed = |what| AttachError::Failed(bdf, what);
        let capability =
            Capability::read(function).map_err(|_| failed("it has no usable MSI-X"))?;
        let table = function.map_shared(capability.table_bar, 0);
        let table = table.ok_or(failed("its MSI-X table cannot be mapped"))?;
        let mut msix = Msix::new(capability, table, function);
        for (&entry, &vector) in entries.iter().zip(vectors) {
            msix.route(entry, vector, self.sleeper.lapic.id())
                .map_err(|_| failed("its MSI-X table is too small"))?;
        }
        msix.enable(function);
        Ok(())
    }

    fn network(&mut self, handle: usize) -> Option<(&mut Network, &mut Sleeper)> {
        let mut networks = self.networks.iter_mut().flatten();
        let network = networks.find(|network| network.handle == handle)?;
        Some((network, &mut self.sleeper))
    }

    fn disk(&mut self, handle: usize) -> Option<(&mut Storage, &mut Sleeper)> {
        let mut disks = self.disks.iter_mut().flatten();
        let disk = disks.find(|disk| disk.handle == handle)?;
        Some((disk, &mut self.sleeper))
    }

    /// Looks after the networks: frames that are to go out, events other than frames, a
    /// transmitter that hangs. Returns a bit for each handle with a frame, and when to look
    /// again.
    fn look(&mut self, mut until: u64) -> (u64, u64) {
        let now = self.sleeper.clock.micros();
        let mut ready = 0;
        for network in self.networks.iter_mut().flatten() {
            let driver = network.card.driver();
            driver.flush();
            let others = self.sleeper.interrupts.count(network.other_vector);
            if others != network.others {
                network.others = others;
                driver.acknowledge_other();
            }
            match driver.watch(now) {
                Ok(Some(at)) => until = until.min(at),
                Ok(None) => {}
                // It is tried again when the image polls again.
                Err(_) => until = until.min(now.saturating_add(FULL_MICROS)),
            }
            if driver.can_receive() {
                ready |= 1 << network.handle;
            }
        }
        (ready, until)
    }
}

impl Sleeper {
    /// Returns what a disk's driver does while a command is under way.
    fn patience(&mut self) -> impl FnMut() -> bool + use<'_> {
        let until = self.clock.micros().saturating_add(DISK_MICROS);
        move || self.sleep_before(until)
    }
}

impl calls::Machine for Machine {
    fn wall_clock(&mut self) -> u64 {
        let tsc = cpu::tsc();
        self.sleeper.clock.unix_ns_at(tsc).unwrap_or(0)
    }

    fn print(&mut self, text: &[u8]) {
        console::write(text);
    }

    fn poll(&mut self, timeout_nsecs: u64) -> u64 {
        let start = self.sleeper.clock.micros();
        // One more than asked for: the present one has begun already.
        let micros = timeout_nsecs.div_ceil(1000);
        let end = start.saturating_add(micros + u64::from(micros > 0));
        loop {
            let (ready, until) = self.look(end);
            if ready != 0 || !self.sleeper.sleep_before(until) && until == end {
                return ready;
            }
        }
    }

    fn send(&mut self, handle: usize, frame: &[u8]) -> bool {
        let Some((network, sleeper)) = self.network(handle) else {
            return false;
        };
        let driver = network.card.driver();
        let until = sleeper.clock.micros().saturating_add(FULL_MICROS);
        while !driver.can_transmit() && sleeper.sleep_before(until) {}
        let sent = driver.transmit(frame);
        driver.flush();
        sent != Err(TransmitError::Length)
    }

    fn receive(&mut self, handle: usize, frame: &mut [u8]) -> Option<usize> {
        let (network, _) = self.network(handle)?;
        let driver = network.card.driver();
        let mut buffer = [0; BUFFER];
        let Some(length) = driver.receive(&mut buffer) else {
            driver.flush();
            return None;
        };
        let room = length.min(frame.len());
        frame[..room].copy_from_slice(&buffer[..room]);
        Some(length)
    }

    fn read(&mut self, handle: usize, block: u64, data: &mut [u8]) -> bool {
        self.disk(handle).is_some_and(|(storage, sleeper)| {
            storage.drive.read(block, data, &mut sleeper.patience())
        })
    }

    fn write(&mut self, handle: usize, block: u64, data: &[u8]) -> bool {
        self.disk(handle).is_some_and(|(storage, sleeper)| {
            storage.drive.write(block, data, &mut sleeper.patience())
        })
    }

    fn refused(&mut self, call: u32, address: u64) {
        let now = self.sleeper.clock.micros();
        if self.reported.is_none_or(|last| now - last >= REPORT_MICROS) {
            self.reported = Some(now);
            println!(
                "solo5: hypercall {call} with its argument at {address:#x}, or what that names, out \
                 of the image's memory: refused"
            );
        }
    }
}
