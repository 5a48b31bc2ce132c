//! Before any guest runs: measures and reports what each function reaches, and refuses
//! functions that nothing confines.

use core::fmt::Write as _;

use dma_probe::nvme::Nvme;
use dma_probe::{Engine, Probe, Stuck, WATCHED};
use init::{
    Holder, Kind, PROBE_PAGES, Surroundings, Verdict, Window, holder, is_measured, measure,
};
use pci::{Bdf, ConfigSpace as _, FunctionInfo, PAGE_SIZE, Width, regs};
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
use super::ports::Com1;

/// Where the device's registers, and the guest's first large page, lie while a
/// function is measured.
const REGISTERS: usize = 0x2_1000_0000;
const RAM: usize = 0x2_2000_0000;
/// The user vector that a forged interrupt would have: it is still unused.
const VECTOR: u8 = 0;
/// The wait for a forged interrupt, in microseconds: a hundred times a message's way.
const DELAY: u64 = 200;

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
    bell: &'a Bell,
    /// Ticks of [`DELAY`].
    delay: u64,
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
        let end = runtime::tsc().saturating_add(self.delay);
        while runtime::tsc() < end {
            core::hint::spin_loop();
        }
        self.bell.notification().poll() != 0
    }
    fn vector(&self) -> u8 {
        VECTOR
    }
}

/// Pages that are mapped for one measurement.
struct Mapped {
    registers: heapless::Vec<Granule, PROBE_PAGES>,
    ram: LargePage,
    canary: Granule,
}

impl Mapped {
    /// Maps the pages; those of registers at [`REGISTERS`], one after the other.
    fn new(
        builder: &mut Builder<'_>,
        function: &Function,
        info: &FunctionInfo,
        window: Window,
    ) -> Self {
        let name = function.name.as_str();
        let all = CapRights::read_write();
        let mut registers = heapless::Vec::new();
        for page in 0..window.pages {
            // `is_measured` has looked at each.
            let from = match holder(info, window.bar, page) {
                Some(Holder::Vmm(slot)) => builder.place(function.bar_cnode, slot),
                Some(Holder::Msix(index)) => {
                    builder.place(function.msix_cnode, function.msix_slot + index)
                }
                None => break,
            };
            let slot = builder.copy_from(&from, CapRights::all(), name);
            let frame = Granule::from_bits(slot as u64);
            let address = REGISTERS + (page * PAGE_SIZE) as usize;
            builder.map(
                frame,
                slot::VSPACE.cap(),
                address,
                all,
                VmAttributes::UNCACHEABLE,
                name,
            );
            // As many as there is room for.
            let _ = registers.push(frame);
        }
        let ram: LargePage = builder.cap(function.ram, 0);
        let default = VmAttributes::DEFAULT;
        builder.map(ram, slot::VSPACE.cap(), RAM, all, default, name);
        let canary = builder.retype("the self-check", &ObjectBlueprint::_4k, 1, None);
        let canary = Granule::from_bits(canary as u64);
        builder.map(canary, slot::VSPACE.cap(), SCRATCH, all, default, name);
        Self {
            registers,
            ram,
            canary,
        }
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

/// Measures one function; `tsc_khz` is the rate of the time stamp counter. The verdict is
/// unknown if it cannot be measured.
fn verdict(
    builder: &mut Builder<'_>,
    function: &Function,
    (bdf, info): &(Bdf, FunctionInfo),
    bell: &Bell,
    tsc_khz: u64,
) -> Verdict {
    let name = function.name.as_str();
    let Some(kind) = Kind::of(info).filter(|_| is_measured(info)) else {
        return Verdict::UNKNOWN;
    };
    let window = kind.window();
    let mapped_now = Mapped::new(builder, function, info, window);
    let Ok(canary_address) = mapped_now.canary.frame_get_address() else {
        fatal!("{name}: the canary has no address");
    };
    let ram_address = function.dma_address;
    let mut space = functions::space(*bdf);
    let command = space.read32(regs::COMMAND) as u16 & !regs::COMMAND_BUS_MASTER;
    // Firmware may have left queues set up: the function is reset before it may reach
    // memory.
    space.write16(regs::COMMAND, command | regs::COMMAND_MEMORY);
    let page = PAGE_SIZE as usize;
    let mut around = Around {
        space,
        allowed: Ram(mapped(RAM, page)),
        allowed_address: ram_address,
        canary: Ram(mapped(SCRATCH, page)),
        canary_address: canary_address as u64,
        bell,
        delay: DELAY * tsc_khz / 1000,
    };
    let registers = Registers(mapped(REGISTERS, window.pages as usize * page));
    // As much as any probe needs: a large page is mapped.
    let memory = Ram(mapped(RAM, 1 << 20));
    let found = match kind {
        Kind::E1000e => run(Engine::unknown(registers, memory, ram_address), &mut around),
        Kind::Nvme => run(Nvme::new(registers, memory, ram_address), &mut around),
    };
    around.space.write16(regs::COMMAND, command);
    mapped_now.end();
    found.unwrap_or_else(|stuck| {
        let _ = write!(
            Com1,
            "init: {name} at {bdf} cannot be measured: {stuck}\r\n"
        );
        Verdict::UNKNOWN
    })
}

/// Measures every function and reports what it reaches. One that is not confined
/// needs `dma = "trusted"`.
pub fn all(builder: &mut Builder<'_>, found: &[(Bdf, FunctionInfo)], bell: Bell, tsc_khz: u64) {
    if !found.is_empty() {
        let _ = Com1.write_str(
            "init: measuring what each function reaches; what is refused now, it tried\r\n",
        );
    }
    for (function, found) in builder.system.functions.iter().zip(found) {
        let verdict = verdict(builder, function, found, &bell, tsc_khz);
        let (name, (bdf, info)) = (function.name.as_str(), found);
        let trusted = function.trusted == 1;
        let word = if trusted && !verdict.confined() {
            "; assigned, since it is trusted"
        } else {
            ""
        };
        let _ = write!(Com1, "init: {name} at {bdf}: {verdict}{word}\r\n");
        if pci::is_virtio(info) && !verdict.confined() {
            let _ = Com1.write_str(
                "init: a virtio function passes the IOMMU by unless its machine puts it behind \
                 (QEMU: iommu_platform=on); if it does not, [board] needs `iommu = \"none\"`, or \
                 the guest's addresses are other memory of the machine\r\n",
            );
        }
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
    bell.end();
}
