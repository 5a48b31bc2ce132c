//! The state of every function's interrupts, in text: key M as in Xen, and R.
//!
//! One entry or slot is asked for at a time, from a component of low priority,
//! so that no dump holds an interrupt up.

use core::fmt::Write as _;

use channel::GuestMessage;
use channel::events::SlotEvents;
use channel::iommu::{FaultRecord, FunctionState};
use channel::irq_router::dump::BoundSlot;
use channel::irq_router::{Source, SourceKind};
use channel::msix::EntryState;
use heapless::String;
use pci::{Bdf, regs};
use spec::{FunctionId, IommuKind, cpu_vector};

use crate::Output;

/// Longest line, in bytes; a longer one is cut.
const LINE: usize = 240;

/// Refused accesses that are shown at most: more than are kept.
const FAULTS: usize = 64;

/// A function, for its line.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its name in system.toml.
    pub name: &'static str,
    /// Its guest's name.
    pub guest: &'static str,
    /// Where the guest sees it.
    pub bdf: Bdf,
}

/// Where the state comes from.
pub trait State {
    /// Returns the function at this position among all.
    fn function(&self, function: FunctionId) -> Option<Function>;
    /// Returns the guest at this position among all.
    fn guest(&self, guest: u8) -> Option<&'static str>;
    /// Returns a function's message control as the guest sees it; `None`
    /// without MSI-X.
    fn control(&mut self, function: FunctionId) -> Option<u16>;
    /// Returns a function's first entry at or after `from` that is in use, or
    /// any if `all`.
    fn next_entry(&mut self, function: FunctionId, from: u16, all: bool) -> Option<EntryState>;
    /// Returns the slot of a source.
    fn slot_of(&mut self, source: Source) -> Option<BoundSlot>;
    /// Returns a guest's first slot in use at or after `from`.
    fn next_slot(&mut self, guest: u8, from: u8) -> Option<BoundSlot>;
    /// Returns a function's state in iommu; `None` if there is no such component.
    fn confinement(&mut self, function: FunctionId) -> Option<FunctionState>;
    /// Returns the first refused access that is kept, at or after this number.
    fn next_fault(&mut self, from: u64) -> Option<FaultRecord>;
    /// Returns the events of a slot.
    fn events(&self, guest: u8, slot: u8, source: Source) -> SlotEvents;
}

fn line(output: &mut impl Output, text: core::fmt::Arguments<'_>) {
    let mut buffer = String::<LINE>::new();
    // Text that does not fit is cut.
    let _ = buffer.write_fmt(text);
    output.text(&buffer);
    output.text("\r\n");
}

const fn flag(set: bool, letter: char) -> char {
    if set { letter } else { '-' }
}

/// Delivery modes of a message (SDM vol. 3 section 11.11.2).
const MODES: [&str; 8] = [
    "fixed", "lowest", "smi", "res3", "nmi", "init", "res6", "extint",
];

/// A message in words: vector, delivery mode, trigger, destination and its mode.
struct Text(GuestMessage);

impl core::fmt::Display for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let message = &self.0;
        write!(
            f,
            "vec={:02x} {} {} dest={:02x} {}",
            message.vector,
            MODES[usize::from(message.delivery_mode & 7)],
            if message.level { "level" } else { "edge" },
            message.destination,
            if message.logical { "log" } else { "phys" },
        )
    }
}

/// A source's binding and events: slot, the machine's vector, counts.
struct Bound(Option<(BoundSlot, SlotEvents)>);

impl core::fmt::Display for Bound {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0 {
            None => f.write_str("slot=- host=- delivered=0 held=0 lost=0 storms=0"),
            Some((slot, events)) => write!(
                f,
                "slot={} host={:02x} delivered={} held={} lost={} storms={}",
                slot.slot,
                cpu_vector(slot.vector),
                events.delivered,
                events.held,
                events.lost,
                events.storms
            ),
        }
    }
}

fn bound(state: &mut impl State, source: Source) -> Option<(BoundSlot, SlotEvents)> {
    let slot = state.slot_of(source)?;
    let events = state.events(slot.guest, slot.slot, source);
    Some((slot, events))
}

/// Reports key M: MSI and MSI-X of every function, entries in use or `all` of them. The
/// last line is `M end`.
pub fn functions(state: &mut impl State, all: bool, output: &mut impl Output) {
    for function in (0..=u8::MAX).map(FunctionId) {
        let Some(Function { name, guest, bdf }) = state.function(function) else {
            break;
        };
        match state.control(function) {
            None => line(output, format_args!("M {name} {bdf} ({guest}): no MSI-X")),
            Some(control) => {
                let on = if control & regs::MSIX_CONTROL_ENABLE != 0 {
                    "enabled"
                } else {
                    "disabled"
                };
                let masked = if control & regs::MSIX_CONTROL_FUNCTION_MASK != 0 {
                    "function-masked"
                } else {
                    "not function-masked"
                };
                let entries = (control & 0x7ff) + 1;
                line(
                    output,
                    format_args!(
                        "M {name} {bdf} ({guest}): MSI-X {entries} entries, {on}, {masked}"
                    ),
                );
                let function_mask = control & regs::MSIX_CONTROL_FUNCTION_MASK != 0;
                msix_entries(state, function, function_mask, all, output);
            }
        }
        other_sources(state, function, output);
    }
    output.text("M end\r\n");
}

fn msix_entries(
    state: &mut impl State,
    function: FunctionId,
    function_mask: bool,
    all: bool,
    output: &mut impl Output,
) {
    let mut from = 0;
    while let Some(entry) = state.next_entry(function, from, all) {
        let found = bound(state, Source::msix(function, entry.entry));
        let waiting = found.is_some_and(|(_, events)| events.waiting);
        let message = Text(GuestMessage::split(entry.address, entry.data));
        line(
            output,
            format_args!(
                "M   {:4} {message} mask={}{}{} upd={} pend={} {}{}{}",
                entry.entry,
                flag(entry.masked, 'G'),
                flag(function_mask, 'F'),
                flag(entry.throttled, 'S'),
                u8::from(entry.updated),
                u8::from(entry.pending || waiting),
                Bound(found),
                if entry.error.is_some() {
                    " failed: "
                } else {
                    ""
                },
                entry.error.map_or("", channel::Error::reason),
            ),
        );
        // A server that answers with an entry before `from` is not followed.
        match entry.entry.checked_add(1) {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
}

/// Reports bound MSI messages and pins.
fn other_sources(state: &mut impl State, function: FunctionId, output: &mut impl Output) {
    let mut guest = 0;
    while state.guest(guest).is_some() {
        each_slot(state, guest, |state, slot| {
            let source = slot.route.source;
            let kind = match source.kind {
                SourceKind::Msix => return,
                SourceKind::Msi => "msi",
                SourceKind::Pin => "pin",
            };
            if source.function == function {
                let events = state.events(guest, slot.slot, source);
                line(
                    output,
                    format_args!(
                        "M   {kind} {} {} mask={}-- {}",
                        source.entry,
                        Text(slot.route.message),
                        flag(slot.route.masked, 'G'),
                        Bound(Some((slot, events)))
                    ),
                );
            }
        });
        guest += 1;
    }
}

fn each_slot<S: State>(state: &mut S, guest: u8, mut show: impl FnMut(&mut S, BoundSlot)) {
    let mut from = 0;
    while let Some(slot) = state.next_slot(guest, from) {
        show(state, slot);
        match slot.slot.checked_add(1) {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
}

/// Reports key I: the confinement of each function, then the last accesses that were
/// refused. The last line is `I end`.
pub fn iommu(state: &mut impl State, output: &mut impl Output) {
    for index in (0..=u8::MAX).map(FunctionId) {
        let Some(Function { name, guest, .. }) = state.function(index) else {
            break;
        };
        let found = state.confinement(index);
        let Some(found) = found.filter(|found| found.unit != IommuKind::None) else {
            line(output, format_args!("I {name} ({guest}): no IOMMU"));
            continue;
        };
        let attached = if found.attached {
            "attached"
        } else {
            "detached"
        };
        line(
            output,
            format_args!(
                "I {name} ({guest}): {}, {attached}, {} pages, {} vectors, {} refused",
                found.unit.product(),
                found.pages,
                found.vectors,
                found.faults
            ),
        );
    }
    let mut from = 0;
    for _ in 0..FAULTS {
        let Some(fault) = state.next_fault(from) else {
            break;
        };
        let access = match (fault.interrupt, fault.write) {
            (true, _) => "interrupt",
            (false, true) => "write",
            (false, false) => "read",
        };
        line(
            output,
            format_args!(
                "I refused {}: {} {access} at {:#x}, reason {:#04x}",
                fault.number,
                Bdf::from_requester_id(fault.requester),
                fault.address,
                fault.reason,
            ),
        );
        // A server that answers with a fault before `from` is not followed.
        match fault.number.checked_add(1) {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    output.text("I end\r\n");
}

/// Reports key R: each guest's routes, slot by slot. The last line is `R end`.
pub fn routes(state: &mut impl State, output: &mut impl Output) {
    let mut guest = 0;
    while let Some(name) = state.guest(guest) {
        each_slot(state, guest, |state, slot| {
            let route = slot.route;
            let function = state.function(route.source.function);
            let kind = match route.source.kind {
                SourceKind::Msix => "msix",
                SourceKind::Msi => "msi",
                SourceKind::Pin => "pin",
            };
            line(
                output,
                format_args!(
                    "R {name} slot {:2} <- {} {kind} {} host={:02x} -> {}{}",
                    slot.slot,
                    function.map_or("?", |function| function.name),
                    route.source.entry,
                    cpu_vector(slot.vector),
                    Text(route.message),
                    if route.masked { " masked" } else { "" },
                ),
            );
        });
        guest += 1;
    }
    output.text("R end\r\n");
}
