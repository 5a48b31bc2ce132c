//! What the VMM needs from outside, so that its logic runs on any host.

use channel::events::SlotEvents;
use channel::irq_router::Source;
use channel::msix::FunctionBar;
use channel::pci_config::Effect;
use channel::routes::Route;
use pci::{Bdf, Width};

/// The VMM's surroundings: seL4 in the component, plain memory in tests.
pub trait Host {
    /// Copies guest RAM at `address` out; `false`, with nothing promised about
    /// `bytes`, unless all of it is RAM.
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool;
    /// Copies into guest RAM; `false`, with nothing written, unless all of it
    /// is RAM.
    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool;
    /// Time stamp counter.
    fn now(&mut self) -> u64;
    /// Replaces the deadline (time stamp counter) of the timer, or drops it. `true`
    /// if it was put off, since it was asked for too often: it comes later.
    fn set_deadline(&mut self, deadline: Option<u64>) -> bool;
    /// Reads configuration space; all ones where there is nothing.
    fn config_read(&mut self, bdf: Bdf, offset: u16, width: Width) -> u32;
    /// Writes configuration space.
    fn config_write(&mut self, bdf: Bdf, offset: u16, width: Width, value: u32) -> Effect;
    /// Where a BAR is decoded now, as the guest sees it.
    fn bar(&mut self, function: usize, bar: usize) -> Option<u64>;
    /// Maps the BAR's directly accessible pages at `address`, or unmaps them;
    /// while the guests that have their turn go first, if `long`.
    fn map_bar(&mut self, function: usize, bar: usize, address: Option<u64>, long: bool);
    /// Reads a page that holds MSI-X table or PBA.
    fn table_read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64;
    /// Writes such a page.
    fn table_write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64);
    /// The route of a slot.
    fn route(&mut self, slot: usize) -> Option<Route>;
    /// Masks the device's entry of a source that is over its budget, or stops
    /// doing so (M23). `false` if that failed.
    fn set_throttled(&mut self, source: Source, throttled: bool) -> bool;
    /// Says that a source went over its own budget and is silent for a while.
    fn report_storm(&mut self, source: Source);
    /// Shows what came over a slot.
    fn publish_events(&mut self, slot: usize, source: Source, events: &SlotEvents);
    /// Acknowledges the handler of the I/O APIC's `pin` (C9), so that the kernel
    /// delivers its next interrupt; `false` if there is none yet.
    fn acknowledge_pin(&mut self, pin: u8) -> bool;
    /// Whether the guest goes before the others of its priority, or only runs
    /// while they wait ([`Share`](crate::Share)).
    fn set_foreground(&mut self, foreground: bool);
    /// A byte that the guest wrote to its serial port.
    fn console_write(&mut self, byte: u8);
}

/// Why the guest cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It wrote this to the exit port.
    Exit(u32),
    /// HLT with interrupts off: nothing can wake it.
    HaltForever,
    /// An exception with this vector could not be delivered.
    TripleFault(u8),
    /// Its image cannot be loaded.
    Image,
}
