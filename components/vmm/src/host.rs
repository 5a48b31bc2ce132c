//! The VMM's surroundings as traits, so that its logic runs on any host. Each of its
//! parts asks for no more than it needs.

use channel::events::SlotEvents;
use channel::irq_router::Source;
use channel::msix::FunctionBar;
use channel::pci_config::Effect;
use channel::routes::Route;
use pci::{Bdf, Width};
use spec::FunctionId;

use crate::paging::BadTable;

/// The guest's RAM, by guest-physical address.
pub trait GuestMemory {
    /// Copies guest RAM at `address` out. Returns `false`, with `bytes` undefined,
    /// unless all of it is RAM.
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool;
    /// Copies into guest RAM. Returns `false`, with nothing written, unless all of it
    /// is RAM.
    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool;
    /// Returns the guest-physical address of a guest-virtual one. It is another only
    /// where RAM has a second place, for an image that is linked there.
    fn physical(&self, address: u64) -> u64 {
        address
    }
    /// Returns eight bytes of RAM as a number, if all are RAM.
    fn read_word(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read_ram(address, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }
}

/// The guest's PCI functions, behind pci-config and msix.
pub trait PciFunctions {
    /// Reads configuration space; all ones where there is no function.
    fn config_read(&mut self, bdf: Bdf, offset: u16, width: Width) -> u32;
    /// Writes configuration space.
    fn config_write(&mut self, bdf: Bdf, offset: u16, width: Width, value: u32) -> Effect;
    /// Returns the guest address at which a BAR is decoded now, if it is.
    fn bar(&mut self, function: FunctionId, bar: usize) -> Option<u64>;
    /// Maps the BAR's directly accessible pages at `address`, or unmaps them; of ports there
    /// are none. If
    /// `long`, guests that have their turn go first meanwhile.
    fn map_bar(&mut self, function: FunctionId, bar: usize, address: Option<u64>, long: bool);
    /// Reads the function's ports from `offset` of an I/O BAR on, all of which are its own.
    fn ports_read(&mut self, place: FunctionBar, offset: u16, width: Width) -> u32;
    /// Writes them.
    fn ports_write(&mut self, place: FunctionBar, offset: u16, width: Width, value: u32);
    /// Reads a page that holds MSI-X table or PBA.
    fn table_read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64;
    /// Writes such a page.
    fn table_write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64);
}

/// Sources of interrupts, and their routes.
pub trait Interrupts {
    /// Returns the route of a slot.
    fn route(&mut self, slot: usize) -> Option<Route>;
    /// Masks the device's entry of a source that is over its budget, or unmasks it
    /// (M23). Returns `false` if that failed.
    fn set_throttled(&mut self, source: Source, throttled: bool) -> bool;
    /// Reports that a source went over its budget and is masked for a while.
    fn report_storm(&mut self, source: Source);
    /// Publishes the counts of a slot's events.
    fn publish_events(&mut self, slot: usize, source: Source, events: &SlotEvents);
    /// Acknowledges the handler of the I/O APIC's `pin` (C9), so that the kernel
    /// delivers its next interrupt. Returns `false` if there is none yet.
    fn acknowledge_pin(&mut self, pin: u8) -> bool;
}

/// The VMM's surroundings: seL4 in the component, plain memory in tests.
pub trait Host: GuestMemory + PciFunctions + Interrupts {
    /// Returns the time stamp counter.
    fn now(&mut self) -> u64;
    /// Replaces the deadline (time stamp counter) of the timer, or drops it. Returns
    /// `true` if there were too many deadlines, and this one comes later.
    fn set_deadline(&mut self, deadline: Option<u64>) -> bool;
    /// Sets whether the guest runs before the others of its priority, or only while
    /// they wait ([`Share`](crate::Share)).
    fn set_foreground(&mut self, foreground: bool);
    /// Does work that is long, while guests that have their turn go first.
    fn in_background<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        work(self)
    }
    /// Reports an access of the guest's current instruction that nothing answered.
    fn report_unclaimed(&mut self, place: Unclaimed);
    /// Takes a byte that the guest wrote to its serial port.
    fn console_write(&mut self, byte: u8);
}

/// Where nothing answered an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// An I/O port.
    Port(u16),
    /// A guest address.
    Memory(u64),
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
    /// It loaded a page table by which it cannot run.
    PageTable(BadTable),
}
