//! Runs a trace with the vmm's decoding of addresses, and compares.

use std::cell::RefCell;
use std::fmt;

use channel::pci_config::{Effect, PciConfig};
use channel::{Caller, Local, Message, irq_router, msix as msix_channel};
use models::Device;
use msix::Msix;
use msix_channel::FunctionBar;
use msix_channel::table::MsixTable;
use pci::{Bdf, FUNCTION_BARS, FunctionInfo, PAGE_SIZE, Width};
use pci_config::{Functions, RESET_MS};
use serde::Serialize;
use shm::{Keep, Kept};
use vmm::BarMap;

use crate::device::{self, Router};
use crate::trace::{Bar, Event, Operation, Step, Trace};

/// Badges of the replay: who calls whom does not matter to a trace.
const VMM: Caller = Caller(1);
const PCI_CONFIG: Caller = Caller(2);
const MSIX: Caller = Caller(3);

/// Something that was not as the trace expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Line of the trace, from 1.
    pub line: usize,
    /// The compared part: `value`, `events` or `msix_present`.
    pub what: &'static str,
    /// The trace's value.
    pub expected: String,
    /// What happened.
    pub got: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            what,
            expected,
            got,
        } = self;
        write!(f, "line {line}: {what}: expected {expected}, got {got}")
    }
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Line of the trace, from 1.
    pub line: usize,
    /// The value that was read, if it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// The router's calls, in order.
    pub events: Vec<Event>,
}

/// The outcome of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What each operation did, in order.
    pub outcomes: Vec<Outcome>,
    /// Where the components differ from the trace, in order.
    pub mismatches: Vec<Mismatch>,
}

impl Report {
    /// Returns whether everything was as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.mismatches.is_empty()
    }

    /// Records the outcome of an operation, and compares it with the expected one.
    fn record(&mut self, step: &Step, value: Option<u64>, events: Vec<Event>) {
        if let (Some(expected), Some(got)) = (step.value, value) {
            let (expected, got) = (format!("{expected:#x}"), format!("{got:#x}"));
            self.compare(step.line, "value", expected, got);
        }
        if let Some(expected) = &step.events {
            self.compare(step.line, "events", list(expected), list(&events));
        }
        self.outcomes.push(Outcome {
            line: step.line,
            value,
            events,
        });
    }

    fn compare(&mut self, line: usize, what: &'static str, expected: String, got: String) {
        if expected != got {
            self.mismatches.push(Mismatch {
                line,
                what,
                expected,
                got,
            });
        }
    }
}

type Link<'a> = Local<Box<dyn FnMut(Message) -> Message + 'a>>;
type Msi<'e> = Msix<'e, Device, Link<'static>, 1>;

/// A vmm's calls to the two components, for one function.
struct Machine<'m, 'e> {
    config: Functions<'m, Device, Link<'m>, 1>,
    msix: &'m RefCell<Msi<'e>>,
    info: &'m FunctionInfo,
    bars: [Bar; FUNCTION_BARS],
    /// The vmm's decoding of memory accesses.
    decoded: BarMap<'m>,
}

/// Plays `trace` against the components.
#[must_use]
pub fn run(trace: &Trace) -> Report {
    let plan = &trace.device;
    let mut report = Report::default();
    let device = device::device(plan);
    let router = Router::new(plan.check_address);
    let found = pci::discover(&mut device.clone(), plan.bdf, plan.bdf, plan.privileged);
    let present = found.is_ok_and(|info| info.msix.entries != 0);
    if let Some(expected) = trace.msix_present {
        let (expected, got) = (expected.to_string(), present.to_string());
        report.compare(1, "msix_present", expected, got);
    }
    let Ok(mut info) = found else {
        play_nothing(trace, &mut report);
        return report;
    };
    for (info, bar) in info.bars.iter_mut().zip(&plan.bars) {
        info.guest = bar.guest;
    }
    let mut binds = router.clone();
    let to_router: Link<'static> = Local(Box::new(move |request| {
        irq_router::dispatch(&mut binds, MSIX, request)
    }));
    let to_router = irq_router::Client(to_router);
    let functions = [(info, VMM)];
    let kept = Kept::<{ msix::kept_words(1, 2048) }>::new();
    let mut msix = Msix::new(device.clone(), to_router, &kept);
    msix.take_over(2048, functions);
    if !plan.check_address {
        msix.any_message = true;
    }
    let msix = RefCell::new(msix);
    let kept = Kept::<{ pci_config::kept_words(1) }>::new();
    let world = (&device, &router);
    play(trace, world, &info, &msix, &kept, &mut report);
    report
}

fn play<'m>(
    trace: &Trace,
    (device, router): (&Device, &Router),
    info: &'m FunctionInfo,
    msix: &'m RefCell<Msi<'_>>,
    kept: &'m dyn Keep,
    report: &mut Report,
) {
    let to_msix: Link<'m> = Local(Box::new(move |request| {
        msix_channel::control::dispatch(&mut *msix.borrow_mut(), PCI_CONFIG, request)
    }));
    let client = msix_channel::control::Client(to_msix);
    let mut messages = router.clone();
    let to_router: Link<'m> = Local(Box::new(move |request| {
        irq_router::msi::dispatch(&mut messages, PCI_CONFIG, request)
    }));
    let messages = irq_router::msi::Client(to_router);
    let bars = trace.device.bars;
    let mut decoded = BarMap::new(std::slice::from_ref(info));
    decoded.addresses[0] = bars.map(|bar| Some(bar.guest));
    let mut config = Functions::new(client, messages);
    config.take_over([(*info, VMM, device.clone())], kept);
    let mut machine = Machine {
        config,
        msix,
        info,
        bars,
        decoded,
    };
    router.0.borrow_mut().events.clear();
    for step in &trace.steps {
        if !finds_nothing(step) {
            // A trace has no times.
            device.change().now_ms += RESET_MS;
        }
        let value = machine.play(step, device, router);
        let events = std::mem::take(&mut router.0.borrow_mut().events);
        report.record(step, value, events);
    }
}

/// Replays on a machine without the function (C3): a bridge, or the
/// virtual function that reads all ones as its ids, is none.
fn play_nothing(trace: &Trace, report: &mut Report) {
    for step in &trace.steps {
        let value = match step.operation {
            Operation::ConfigRead { len, .. } | Operation::MemoryRead { len, .. } => {
                Some(ones(len))
            }
            _ => None,
        };
        report.record(step, value, Vec::new());
    }
}

/// Returns whether the function answered nothing here, as one that is being
/// reset does.
fn finds_nothing(step: &Step) -> bool {
    match step.operation {
        Operation::ConfigRead { len, .. } => step.value == Some(ones(len)),
        _ => false,
    }
}

fn list(events: &[Event]) -> String {
    let events: Vec<String> = events.iter().map(ToString::to_string).collect();
    format!("[{}]", events.join(", "))
}

/// Returns all bits of `len` bytes, at most 8.
fn ones(len: u64) -> u64 {
    match len {
        0 => 0,
        1..8 => (1 << (8 * len)) - 1,
        _ => u64::MAX,
    }
}

impl Machine<'_, '_> {
    /// Replays one operation. Returns the value if it reads.
    fn play(&mut self, step: &Step, device: &Device, router: &Router) -> Option<u64> {
        match step.operation {
            Operation::ConfigRead { reg, len } => return Some(self.read_config(reg, len)),
            Operation::ConfigWrite { reg, len, value } => self.write_config(reg, len, value),
            Operation::MemoryRead { addr, len } => {
                let read = Width::from_bytes(len).and_then(|width| {
                    if let Some((place, offset)) = self.decoded.claimed(addr, width) {
                        let mut msix = self.msix.borrow_mut();
                        return msix.read(VMM, place, offset, width).ok();
                    }
                    let (place, offset) = self.mapped(addr, width, device)?;
                    Some(device.state().pages.read(place.bar, offset, width))
                });
                return Some(read.unwrap_or(ones(len)));
            }
            Operation::MemoryWrite { addr, len, value } => {
                let width = Width::from_bytes(len)?;
                if let Some((place, offset)) = self.decoded.claimed(addr, width) {
                    let mut msix = self.msix.borrow_mut();
                    // A refused write is dropped, as the vmm drops it.
                    let _ = msix.write(VMM, place, offset, width, value);
                } else if let Some((place, offset)) = self.mapped(addr, width, device) {
                    let pages = &mut device.change().pages;
                    pages.write(place.bar, offset, width, value);
                }
            }
            Operation::BarState {
                index,
                enabled,
                address,
            } => {
                let guest = &mut self.bars[index].guest;
                *guest = address.unwrap_or(*guest);
                self.decoded.addresses[0][index] = enabled.then_some(*guest);
            }
            Operation::Fail { hook, entry, fail } => router.set_failing(hook, entry, fail),
        }
        None
    }

    fn bdf(&self) -> Bdf {
        self.info.guest()
    }

    fn read_config(&mut self, reg: u16, len: u64) -> u64 {
        // An 8-byte access through ECAM is two dwords (C1).
        if len == 8 && reg.is_multiple_of(8) {
            return self.read_config(reg, 4) | self.read_config(reg + 4, 4) << 32;
        }
        let bdf = self.bdf();
        Width::from_bytes(len)
            .and_then(|width| self.config.read(VMM, bdf, reg, width).ok())
            .map_or(ones(len), u64::from)
    }

    fn write_config(&mut self, reg: u16, len: u64, value: u64) {
        if len == 8 && reg.is_multiple_of(8) {
            self.write_config(reg, 4, value & 0xffff_ffff);
            self.write_config(reg + 4, 4, value >> 32);
            return;
        }
        let bdf = self.bdf();
        let effect = Width::from_bytes(len)
            .and_then(|width| self.config.write(VMM, bdf, reg, width, value as u32).ok());
        if effect.is_some_and(|effect| effect.contains(Effect::DECODE)) {
            for index in 0..FUNCTION_BARS {
                self.decoded.addresses[0][index] = self.ask_bar(index);
            }
        }
    }

    /// Returns where a BAR is decoded now.
    fn ask_bar(&mut self, index: usize) -> Option<u64> {
        let at = self.config.bar(VMM, self.info.index, index as u8).ok()?;
        (at != u64::MAX).then_some(at)
    }

    /// Returns the place of an access to a page that the guest has mapped, of a BAR
    /// whose contents the trace gives: without them nothing is known of the device.
    fn mapped(&self, addr: u64, width: Width, device: &Device) -> Option<(FunctionBar, u32)> {
        let (place, offset) = self.decoded.place(addr, width)?;
        let page = self
            .info
            .msix
            .page_index(place.bar.into(), offset / PAGE_SIZE);
        (page.is_none() && device.state().pages.has(place.bar))
            .then(|| Some((place, u32::try_from(offset).ok()?)))
            .flatten()
    }
}
