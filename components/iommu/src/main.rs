//! Binds the iommu component to seL4: the units' registers, the memory for their
//! tables, the frames of each function's guest, one endpoint for irq-router, the
//! vmms and the console, told apart by badge, and a channel to the timer.

#![no_std]
#![no_main]

use channel::iommu::{FaultRecord, dma, dump, remap};
use channel::timer;
use heapless::Vec;
use iommu::{
    Access, Amd, Failed, Fixed, Frames, Function, Intel, Iommu, Layout, Memory, NO_DEVICE, Ram,
    Registers, Requester, SetupError, Start, Tables, Unit, join,
};
use pci::Width;
use runtime::{Channel, Context, DeviceTables, Event, Mmio, RateLimit, Server};
use sel4::MessageInfo;
use sel4::cap::{Endpoint, Granule};
use spec::names;
use spec::{
    BADGE_GUEST_GONE, BADGE_TIMER, FUNCTIONS, GUEST_STOP_LABEL, GUESTS, IommuInfo, IommuKind,
    READY_LABEL, RESERVED,
};

runtime::component!(main);

/// Milliseconds between two looks at the unit's record of faults.
const POLL_MS: u64 = 100;

/// A unit's registers: they begin there among those of all.
struct Pages(Mmio, usize);

impl Registers for Pages {
    fn read32(&mut self, offset: usize) -> u32 {
        self.0.read(self.1 + offset, Width::Dword) as u32
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.0.write(self.1 + offset, Width::Dword, value.into());
    }
    fn read64(&mut self, offset: usize) -> u64 {
        self.0.read(self.1 + offset, Width::Qword)
    }
    fn write64(&mut self, offset: usize, value: u64) {
        self.0.write(self.1 + offset, Width::Qword, value);
    }
}

struct Shared(DeviceTables);

impl Tables for Shared {
    fn read(&self, offset: usize) -> u64 {
        self.0.read(offset)
    }
    fn write(&mut self, offset: usize, value: u64) {
        self.0.write(offset, value);
    }
    fn fill(&mut self, offset: usize, words: [u64; 4], count: usize) {
        self.0.fill(offset, words, count);
    }
    fn flush(&mut self, offset: usize) {
        self.0.flush(offset);
    }
}

/// The first slot of the frame capabilities of each function's guest, and their sizes.
struct Capabilities(Vec<(u64, Layout), FUNCTIONS>);

impl Frames for Capabilities {
    fn machine(&mut self, function: usize, index: u64) -> Option<u64> {
        let (first, layout) = self.0.get(function)?;
        layout.machine(index, |page| {
            let frame = Granule::from_bits(first + page);
            frame.frame_get_address().ok().map(|address| address as u64)
        })
    }
}

/// A function's settings that the service does not need.
struct Policy {
    name: &'static str,
    guest: u64,
    /// Its first fault stops the guest.
    stops: bool,
}

/// Sends a word to the monitor and waits for its answer.
fn tell_monitor(label: u64, word: u64) {
    Endpoint::from_bits(spec::FAULT_SLOT)
        .call_with_mrs(MessageInfo::new(label, 0, 0, 1), [word, 0, 0, 0]);
}

/// Arms the timer to wake the component in a while. A timer that was started again
/// wakes its clients by itself.
fn arm(timer: &mut Option<timer::Client<Channel>>, tsc_khz: u64) {
    if let Some(timer) = timer
        && let Err(error) = timer.arm(runtime::tsc() + POLL_MS * tsc_khz)
    {
        defmt::warn!("no deadline: {=str}", error.reason());
    }
}

/// Logs accesses that the unit refused.
fn warn(limit: &mut RateLimit, fault: &FaultRecord, function: Option<&Policy>, why: &str) {
    let Some(suppressed) = limit.allow(runtime::tsc(), 1) else {
        return;
    };
    if fault.requester == NO_DEVICE {
        defmt::warn!(
            "the unit itself: {=str} (reason {=u8:#x}, at {=u64:#x}); {=u64} warnings suppressed",
            why,
            fault.reason,
            fault.address,
            suppressed
        );
        return;
    }
    let name = function.map_or("?", |function| function.name);
    let what = match (fault.interrupt, fault.write) {
        (true, _) => "interrupt",
        (false, true) => "write",
        (false, false) => "read",
    };
    defmt::warn!(
        "{=str} ({=u16:#06x}): {=str} of {=u64:#x} refused: {=str} (reason {=u8:#x}); \
         {=u64} warnings suppressed",
        name,
        fault.requester,
        what,
        fault.address,
        why,
        fault.reason,
        suppressed
    );
}

/// Takes new faults: says so, and stops a guest whose system wants that.
fn poll(iommu: &mut Iommu<'_, Capabilities>, policies: &mut [Policy], limit: &mut RateLimit) {
    iommu.poll_faults(|fault, function, why| {
        let policy = function.and_then(|function| policies.get_mut(function));
        warn(limit, &fault, policy.as_deref(), why);
        if let Some(policy) = policy
            && policy.stops
        {
            policy.stops = false;
            defmt::error!("{=str}: stops its guest for this", policy.name);
            tell_monitor(GUEST_STOP_LABEL, policy.guest);
        }
    });
}

/// Sets the units up, or takes them over, and runs `serve` with them.
fn with_units(
    context: &Context,
    info: &IommuInfo,
    (requesters, firmware): (&[Requester], &[Requester]),
    serve: impl FnOnce(Result<&mut dyn Unit, Failed>),
) {
    let start = if context.generation == 0 {
        Start::Fresh
    } else {
        Start::Adopt
    };
    let memory = || {
        let tables = Shared(DeviceTables::new(context));
        Memory {
            size: tables.0.size().min(info.tables_size as usize),
            tables,
            base: info.tables,
            requesters,
            firmware,
            ioapic: info.ioapic as u16,
        }
    };
    let units = info.units().iter().scan(0, |next, unit| {
        let first = *next;
        *next += unit.size as usize;
        Some(Pages(context.registers(names::IOMMU_REGISTERS), first))
    });
    match info.kind {
        IommuKind::Amd => match Amd::new(units, memory(), start) {
            Ok(mut unit) => serve(Ok(&mut unit)),
            Err(failed) => serve(Err(failed)),
        },
        IommuKind::Intel => match Intel::new(units, memory(), start) {
            Ok(mut unit) => serve(Ok(&mut unit)),
            Err(failed) => serve(Err(failed)),
        },
        IommuKind::None => serve(Err(Failed {
            unit: 0,
            error: SetupError::Absent,
        })),
    }
}

/// Tells what became of the units.
fn tell(info: &IommuInfo, unit: &Result<&mut dyn Unit, Failed>) {
    match unit {
        Ok(unit) => {
            for own in info.units() {
                defmt::info!(
                    "{=str} at {=u64:#x}: nothing passes but what is asked for",
                    unit.kind().product(),
                    own.registers
                );
            }
        }
        Err(_) if info.kind == IommuKind::None => {
            defmt::warn!("no IOMMU: devices reach all memory")
        }
        Err(failed) => defmt::error!(
            "the IOMMU at {=u64:#x} cannot be used: {=str}",
            (info.units().get(failed.unit)).map_or(0, |unit| unit.registers),
            failed.error.reason()
        ),
    }
}

/// Returns the firmware's memory of the functions that `of` tells, in the order of its
/// addresses.
fn pieces(info: &IommuInfo, of: impl Fn(u16) -> bool) -> Vec<Fixed, RESERVED> {
    let mut all: Vec<Fixed, RESERVED> = info
        .reserved()
        .filter(|piece| of(piece.requester))
        .map(|piece| Fixed {
            start: piece.start,
            end: piece.end,
            access: Access {
                read: piece.read == 1,
                write: piece.write == 1,
            },
        })
        .collect();
    join(&mut all);
    all
}

fn main(context: Context) -> ! {
    let mut functions: Vec<Function, FUNCTIONS> = Vec::new();
    let mut policies: Vec<Policy, FUNCTIONS> = Vec::new();
    let mut frames = Capabilities(Vec::new());
    for name in context.functions() {
        let slots = context.get(names::DMA.of(name));
        let layout = Layout {
            pages: slots.count,
            split: context.get(names::DMA_SPLIT.of(name)),
        };
        let guest = context.guest_index(name);
        let function = Function {
            requester: context.function(name).host_bdf,
            owner: context.owner(name),
            guest: guest as u8,
            ram: Ram {
                address: context.get(names::DMA_ADDRESS.of(name)),
                frames: layout.frames(),
            },
        };
        let policy = Policy {
            name,
            guest,
            stops: context.get(names::STOP_ON_DMA_FAULT.of(name)),
        };
        if functions.push(function).is_err()
            || policies.push(policy).is_err()
            || frames.0.push((slots.first, layout)).is_err()
        {
            panic!("more than {FUNCTIONS} functions");
        }
    }
    let info = context.iommu();
    let requesters: Vec<Requester, FUNCTIONS> = (functions.iter())
        .map(|function| Requester {
            id: function.requester,
            // One that no unit has is refused.
            unit: (info.unit_of(function.requester)).map_or(u8::MAX, |unit| unit as u8),
        })
        .collect();
    let of = |requester: u16| requesters.iter().position(|own| own.id == requester);
    let mut firmware: Vec<Requester, RESERVED> = Vec::new();
    for reserved in info
        .reserved()
        .filter(|piece| of(piece.requester).is_none())
    {
        let requester = Requester {
            id: reserved.requester,
            unit: reserved.unit as u8,
        };
        if !firmware.contains(&requester) {
            // There are as many at most.
            let _ = firmware.push(requester);
        }
    }
    with_units(&context, &info, (&requesters, &firmware), |unit| {
        tell(&info, &unit);
        let unit = unit.map_err(|failed| failed.error);
        let mut iommu = Iommu::new(unit, frames, functions);
        for (function, requester) in requesters.iter().enumerate() {
            iommu.reserve(function, &pieces(&info, |id| id == requester.id));
        }
        if context.generation == 0 {
            // What it leads to stays, as what it leads from: nobody attaches these.
            if let Err(error) = iommu.keep(&pieces(&info, |id| of(id).is_none())) {
                defmt::warn!(
                    "functions that firmware uses do not reach its memory: {=str}",
                    error.reason()
                );
            }
            // init measures what holds while a function is attached.
            if let Some(position) = iommu.attach_all() {
                defmt::error!("{=str}: not attached", policies[position].name);
            }
            tell_monitor(READY_LABEL, 0);
            // The answer came after the measurement: what it provoked is no
            // guest's doing. It stays on record.
            iommu.poll_faults(|_, _, _| {});
        }
        serve(&context, iommu, &mut policies);
    });
    unreachable!("the receive loop has no end")
}

fn serve(context: &Context, mut iommu: Iommu<'_, Capabilities>, policies: &mut [Policy]) -> ! {
    let tsc_khz = context.machine().tsc_khz;
    let mut limit = RateLimit::per_second(tsc_khz);
    let mut timer = context.find_channel(timer::NAME).map(timer::Client);
    arm(&mut timer, tsc_khz);
    let interfaces = [remap::interface(), dma::interface(), dump::interface()];
    let mut places = context.counters();
    iommu.counters.show(&mut places);
    let mut server = Server::new(context, &interfaces, &mut places);
    loop {
        match server.wait() {
            Event::Request(caller, request) => {
                server.answer(&mut iommu, caller, request);
            }
            Event::Notification(bits) => {
                for guest in 0..GUESTS as u8 {
                    if bits & BADGE_GUEST_GONE << guest != 0 {
                        let failed = iommu.guest_gone(guest);
                        if failed > 0 {
                            defmt::error!(
                                "guest {=u8} is gone, and {=usize} of its functions may still \
                                 reach its memory",
                                guest,
                                failed
                            );
                        }
                    }
                }
                if bits & BADGE_TIMER != 0 {
                    poll(&mut iommu, policies, &mut limit);
                    arm(&mut timer, tsc_khz);
                }
            }
        }
    }
}
