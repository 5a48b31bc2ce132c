//! Before any guest runs: measures and reports what each function reaches, and refuses
//! functions that nothing confines.

use core::fmt::Write as _;

use dma_probe::nvme::Nvme;
use dma_probe::xhci::Xhci;
use dma_probe::{Engine, Probe, Stuck, WATCHED, virtio};
use init::{Holder, Kind, PROBE_PAGES, Surroundings, Unmeasured, Verdict, holder, measure};
use pci::{
    Bdf, ConfigSpace as _, FunctionInfo, NoVirtio, PAGE_SIZE, Virtio, Width, regs, virtio_registers,
};
use runtime::Mmio;
use sel4::cap::{Granule, IrqHandler, LargePage, Notification};
use sel4::init_thread::slot;
use sel4::{CapRights, ObjectBlueprint, VmAttributes};
use spec::Function;

use super::builder::Builder;
use super::fatal::fatal;
use super::functions::{self, Space};
use super::memory::SCRATCH;
use super::own_slot;
use super::ports::Serial;

/// Where the device's registers, and the guest's first large page, lie while a
/// function is measured.
const REGISTERS: usize = 0x2_1000_0000;
const RAM: usize = 0x2_2000_0000;
/// The user vector that a forged interrupt would have: it is still unused.
const VECTOR: u8 = 0;
/// As much memory as any probe needs: less than a large page.
const PROBE_MEMORY: usize = 1 << 19;
/// The wait for a forged interrupt, in microseconds: a hundred times a message's way.
const DELAY: u64 = 200;
/// The probe's pauses of a millisecond, in such waits.
const PAUSE: u64 = 5;

/// Hears the interrupt that a device may forge.
pub struct Bell {
    handler: usize,
    notification: usize,
}

impl Bell {
    /// Makes it, while init has IRQControl.
    pub fn new(builder: &mut Builder<'_>) -> Self {
        let handler = builder.slot();
        builder.message_irq("the self-check", VECTOR.into(), handler);
        let blueprint = ObjectBlueprint::Notification;
        let notification = builder.retype("the self-check", &blueprint, 1, None);
        let bell = Self {
            handler,
            notification,
        };
        // Without a badge its word would always be 0.
        let badged = builder.slot();
        let irq = IrqHandler::from_bits(handler as u64);
        let rung = own_slot(badged)
            .mint(&own_slot(notification), CapRights::write_only(), 1)
            .and_then(|()| irq.irq_handler_set_notification(Notification::from_bits(badged as u64)))
            .and_then(|()| own_slot(badged).delete());
        if let Err(error) = rung {
            fatal!("the self-check's interrupt: {error:?}");
        }
        bell
    }

    fn notification(&self) -> Notification {
        Notification::from_bits(self.notification as u64)
    }

    /// Releases the vector.
    fn end(self) {
        for slot in [self.handler, self.notification] {
            // Both are there.
            let _ = own_slot(slot).delete();
        }
    }
}

/// The device's registers and the engine's memory, as init has them mapped.
struct Registers(Mmio);

impl dma_probe::Registers for Registers {
    fn read(&mut self, offset: u32) -> u32 {
        self.0.read(offset as usize, Width::Dword) as u32
    }
    fn write(&mut self, offset: u32, value: u32) {
        self.0.write(offset as usize, Width::Dword, value.into());
    }
}

impl virtio::Narrow for Registers {
    fn read8(&mut self, offset: u32) -> u8 {
        self.0.read(offset as usize, Width::Byte) as u8
    }
    fn write8(&mut self, offset: u32, value: u8) {
        self.0.write(offset as usize, Width::Byte, value.into());
    }
    fn read16(&mut self, offset: u32) -> u16 {
        self.0.read(offset as usize, Width::Word) as u16
    }
    fn write16(&mut self, offset: u32, value: u16) {
        self.0.write(offset as usize, Width::Word, value.into());
    }
}

struct Ram(Mmio);

impl Ram {
    fn load(&self, offset: usize, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = self.0.read(offset + index, Width::Byte) as u8;
        }
    }
    fn store(&mut self, offset: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.0.write(offset + index, Width::Byte, (*byte).into());
        }
    }
}

impl dma_probe::Memory for Ram {
    fn read(&mut self, offset: usize, bytes: &mut [u8]) {
        self.load(offset, bytes);
    }
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.store(offset, bytes);
    }
}

/// Returns the memory at an address at which it was just mapped for init.
fn mapped(address: usize, size: usize) -> Mmio {
    // SAFETY: the callers have mapped that much there, for this thread alone,
    // and make no reference to it.
    unsafe { Mmio::new(address, size) }
}

struct Around<'a> {
    space: Space,
    /// The guest's memory from the page on that the probe does not use.
    allowed: Ram,
    allowed_address: u64,
    canary: Ram,
    canary_address: u64,
    setting: &'a Setting,
}

impl Surroundings for Around<'_> {
    fn let_it_master(&mut self) {
        let command = self.space.read32(regs::COMMAND) as u16;
        self.space
            .write16(regs::COMMAND, command | regs::COMMAND_BUS_MASTER);
    }
    fn read_canary(&mut self, bytes: &mut [u8; WATCHED]) {
        self.canary.load(0, bytes);
    }
    fn write_canary(&mut self, bytes: &[u8; WATCHED]) {
        self.canary.store(0, bytes);
    }
    fn canary(&self) -> u64 {
        self.canary_address
    }
    fn allowed(&self) -> u64 {
        self.allowed_address
    }
    fn read_allowed(&mut self, bytes: &mut [u8; WATCHED]) {
        self.allowed.load(0, bytes);
    }
    fn write_allowed(&mut self, bytes: &[u8; WATCHED]) {
        self.allowed.store(0, bytes);
    }
    fn interrupted(&mut self) -> bool {
        // The kernel takes the interrupt while this waits, without a system call.
        wait(self.setting.delay);
        self.setting.bell.notification().poll() != 0
    }
    fn vector(&self) -> u8 {
        VECTOR
    }
}

/// Waits for so many ticks.
fn wait(ticks: u64) {
    let end = runtime::tsc().saturating_add(ticks);
    while runtime::tsc() < end {
        core::hint::spin_loop();
    }
}

/// Pages that are mapped for one measurement.
struct Mapped {
    registers: heapless::Vec<Granule, PROBE_PAGES>,
    ram: LargePage,
    canary: Granule,
}

impl Mapped {
    fn new(builder: &mut Builder<'_>, function: &Function) -> Self {
        let name = function.name.as_str();
        let all = CapRights::read_write();
        let ram: LargePage = builder.cap(function.ram, 0);
        let default = VmAttributes::DEFAULT;
        builder.map(ram, slot::VSPACE.cap(), RAM, all, default, name);
        let canary = builder.retype("the self-check", &ObjectBlueprint::_4k, 1, None);
        let canary = Granule::from_bits(canary as u64);
        builder.map(canary, slot::VSPACE.cap(), SCRATCH, all, default, name);
        Self {
            registers: heapless::Vec::new(),
            ram,
            canary,
        }
    }

    /// Maps a page of registers behind those that are mapped. Returns where.
    fn add(
        &mut self,
        builder: &mut Builder<'_>,
        function: &Function,
        info: &FunctionInfo,
        (bar, page): (usize, u64),
    ) -> Result<usize, Unmeasured> {
        let from = match holder(info, bar, page).ok_or(Unmeasured::NotAtHand)? {
            Holder::Vmm(slot) => builder.place(function.bar_cnode, slot),
            Holder::Msix(index) => builder.place(function.msix_cnode, function.msix_slot + index),
        };
        let name = function.name.as_str();
        let address = REGISTERS + self.registers.len() * PAGE_SIZE as usize;
        let slot = builder.copy_from(&from, CapRights::all(), name);
        let frame = Granule::from_bits(slot as u64);
        builder.map(
            frame,
            slot::VSPACE.cap(),
            address,
            CapRights::read_write(),
            VmAttributes::UNCACHEABLE,
            name,
        );
        // No probe has more pages than there is room for.
        let _ = self.registers.push(frame);
        Ok(address)
    }

    fn end(self) {
        // Each is mapped, so that none of this can fail.
        for frame in self.registers {
            let _ = frame.frame_unmap();
            let _ = own_slot(frame.bits() as usize).delete();
        }
        let _ = self.ram.frame_unmap();
        let _ = self.canary.frame_unmap();
        let _ = own_slot(self.canary.bits() as usize).delete();
    }
}

/// Runs a probe, which has its memory at the start of the guest's.
fn run<P: Probe>(mut probe: P, around: &mut Around<'_>) -> Result<Verdict, Stuck> {
    around.allowed = Ram(mapped(RAM + P::MEMORY, PAGE_SIZE as usize));
    around.allowed_address += P::MEMORY as u64;
    let found = measure(&mut probe, around);
    // The guest's memory is zero when it starts.
    let size = P::MEMORY + PAGE_SIZE as usize;
    let mut ram = mapped(RAM, size);
    for offset in (0..size).step_by(8) {
        ram.write(offset, Width::Qword, 0);
    }
    found
}

/// What the measurements have in common.
struct Setting {
    bell: Bell,
    /// Ticks of [`DELAY`].
    delay: u64,
    /// An IOMMU is in use.
    iommu: bool,
}

/// Measures one function.
fn verdict(
    builder: &mut Builder<'_>,
    function: &Function,
    (bdf, info): &(Bdf, FunctionInfo),
    setting: &Setting,
) -> Result<Verdict, Unmeasured> {
    if Kind::of(info).is_none() && !pci::is_virtio(info) {
        return Err(Unmeasured::NoProbe);
    }
    let mut pages = Mapped::new(builder, function);
    let Ok(canary_address) = pages.canary.frame_get_address() else {
        fatal!("{}: the canary has no address", function.name.as_str());
    };
    let mut space = functions::space(*bdf);
    let command = space.read32(regs::COMMAND) as u16 & !regs::COMMAND_BUS_MASTER;
    // Firmware may have left queues set up: the function is reset before it may reach
    // memory.
    space.write16(regs::COMMAND, command | regs::COMMAND_MEMORY);
    let page = PAGE_SIZE as usize;
    let mut around = Around {
        space,
        allowed: Ram(mapped(RAM, page)),
        allowed_address: function.dma_address,
        canary: Ram(mapped(SCRATCH, page)),
        canary_address: canary_address as u64,
        setting,
    };
    let found = match Kind::of(info) {
        Some(kind) => known(builder, function, info, kind, &mut pages, &mut around),
        None => virtio(builder, function, info, &mut pages, &mut around),
    };
    around.space.write16(regs::COMMAND, command);
    pages.end();
    found
}

/// Measures a function whose registers are on the first pages of a BAR.
fn known(
    builder: &mut Builder<'_>,
    function: &Function,
    info: &FunctionInfo,
    kind: Kind,
    pages: &mut Mapped,
    around: &mut Around<'_>,
) -> Result<Verdict, Unmeasured> {
    let window = kind.window(info);
    for page in 0..window.pages {
        pages.add(builder, function, info, (window.bar, page))?;
    }
    let registers = Registers(mapped(REGISTERS, (window.pages * PAGE_SIZE) as usize));
    let (memory, address) = (Ram(mapped(RAM, PROBE_MEMORY)), function.dma_address);
    let found = match kind {
        Kind::E1000e => run(Engine::unknown(registers, memory, address), around),
        Kind::Nvme => run(Nvme::new(registers, memory, address), around),
        Kind::Xhci => {
            let ticks = PAUSE * around.setting.delay;
            let pause = || wait(ticks);
            run(Xhci::new(registers, memory, address, pause), around)
        }
    };
    Ok(found?)
}

/// Measures a virtio function, if its accesses are such as this machine expects.
fn virtio(
    builder: &mut Builder<'_>,
    function: &Function,
    info: &FunctionInfo,
    pages: &mut Mapped,
    around: &mut Around<'_>,
) -> Result<Verdict, Unmeasured> {
    let places = virtio_registers(&mut around.space, info).map_err(Unmeasured::Registers)?;
    let split = |at: u64| (at / PAGE_SIZE, (at % PAGE_SIZE) as usize);
    let (page, offset) = split(places.common.offset);
    let address = pages.add(builder, function, info, (places.common.bar, page))?;
    // What lies beyond the page reads all ones.
    let mut common = Registers(mapped(address + offset, PAGE_SIZE as usize - offset));
    let kind = virtio::Kind::of(info.device);
    let offer = virtio::look(&mut common, kind)?;
    if around.setting.iommu && !offer.behind_iommu {
        return Err(Unmeasured::PastTheUnit);
    }
    let kind = kind.ok_or(Unmeasured::NoProbe)?;
    let ahead = u64::from(offer.notification) * u64::from(places.multiplier);
    if ahead + 2 > places.notify.length {
        let outside = NoVirtio::Outside(Virtio::Notify);
        return Err(Unmeasured::Registers(outside));
    }
    let (page, offset) = split(places.notify.offset + ahead);
    let address = pages.add(builder, function, info, (places.notify.bar, page))?;
    let mut doorbell = mapped(address + offset, 2);
    let notify = |queue: u16| doorbell.write(0, Width::Word, queue.into());
    let (memory, address) = (Ram(mapped(RAM, PROBE_MEMORY)), function.dma_address);
    let probe = virtio::Virtio::new(common, notify, memory, address, kind);
    Ok(run(probe, around)?)
}

/// Measures every function and reports what it reaches. One that is not confined
/// needs `dma = "trusted"`. `tsc_khz` is the rate of the time stamp counter; `iommu`: a unit
/// is in use.
pub fn all(
    builder: &mut Builder<'_>,
    found: &[(Bdf, FunctionInfo)],
    bell: Bell,
    tsc_khz: u64,
    iommu: bool,
) {
    if !found.is_empty() {
        let _ = Serial.write_str(
            "init: measuring what each function reaches; what is refused now, it tried\r\n",
        );
    }
    let delay = DELAY * tsc_khz / 1000;
    let setting = Setting { bell, delay, iommu };
    for (function, found) in builder.system.functions.iter().zip(found) {
        let (name, (bdf, info)) = (function.name.as_str(), found);
        let measured = verdict(builder, function, found, &setting);
        let verdict = measured.unwrap_or_else(|why| {
            let _ = write!(Serial, "init: {name} at {bdf} is not measured: {why}\r\n");
            Verdict::UNKNOWN
        });
        let trusted = function.trusted == 1;
        let word = if trusted && !verdict.confined() {
            "; assigned, since it is trusted"
        } else {
            ""
        };
        let _ = write!(Serial, "init: {name} at {bdf}: {verdict}{word}\r\n");
        if !verdict.confined() && !trusted {
            fatal!(
                "device {name} ({:04x}:{:04x}) is not assigned, for it {verdict}. Choose: a \
                 machine whose IOMMU confines it (vectis run --iommu amd); or \
                 `dma = \"trusted\"` in [device.{name}], if the guest may have the whole \
                 machine; or a system without the device",
                info.vendor,
                info.device
            );
        }
    }
    setting.bell.end();
}
