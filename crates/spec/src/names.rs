//! The names of resources, each with the type of what it names: the tool writes a
//! component's table by these keys and the component reads it by them, so that a
//! misspelt name does not compile.

use core::fmt;
use core::marker::PhantomData;

use crate::{OnExit, ResourceKind};

/// Value of a resource, as it lies in the two words of its record.
pub trait Value: Copy {
    /// The kind of such a resource.
    const KIND: ResourceKind;
    /// Returns the two words.
    fn to_words(self) -> (u64, u64);
    /// Returns the value of two words.
    fn from_words(first: u64, second: u64) -> Self;
}

/// The name of a resource that is a `V`.
#[derive(Clone, Copy)]
pub struct Key<'a, V> {
    /// The name, or what precedes the last part of it.
    pub prefix: &'static str,
    /// The last part: whose resource it is, or nothing.
    pub name: &'a str,
    value: PhantomData<V>,
}

impl<V> Key<'static, V> {
    const fn new(name: &'static str) -> Self {
        Self {
            prefix: name,
            name: "",
            value: PhantomData,
        }
    }
}

impl<V> fmt::Display for Key<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, self.name)
    }
}

/// The names of resources that are a `V` each, one for each function, guest,
/// component or device: a common prefix, and then that one's name.
#[derive(Clone, Copy)]
pub struct Family<V> {
    /// The common prefix.
    pub prefix: &'static str,
    value: PhantomData<V>,
}

impl<V> Family<V> {
    const fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            value: PhantomData,
        }
    }

    /// Returns the key of the one with this name.
    #[must_use]
    pub const fn of<'a>(&self, name: &'a str) -> Key<'a, V> {
        Key {
            prefix: self.prefix,
            name,
            value: PhantomData,
        }
    }
}

/// Declares values of two words.
macro_rules! values {
    ($(
        $(#[$meta:meta])*
        $kind:ident $name:ident {
            $(#[$first_meta:meta])* $first:ident,
            $(#[$second_meta:meta])* $second:ident $(,)?
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $(#[$first_meta])*
            pub $first: u64,
            $(#[$second_meta])*
            pub $second: u64,
        }

        impl Value for $name {
            const KIND: ResourceKind = ResourceKind::$kind;
            fn to_words(self) -> (u64, u64) {
                (self.$first, self.$second)
            }
            fn from_words($first: u64, $second: u64) -> Self {
                Self { $first, $second }
            }
        }
    )* };
}

values! {
    /// Memory of the component's address space.
    Memory Region {
        /// Address of its first byte.
        address,
        /// Bytes of it.
        length,
    }
    /// A CNode.
    Capability CNode {
        /// Slot of its capability.
        slot,
        /// Its slots, as a power of two.
        bits,
    }
    /// I/O ports.
    Capability Ports {
        /// Slot of their capability.
        slot,
        /// The first port.
        first,
    }
    /// A notification or an IRQ handler.
    Capability Signal {
        /// Slot of its capability.
        slot,
        /// What it stands for: its bit of a notification word, or for a client's
        /// notification the badge of the client's calls.
        badge,
    }
    /// Empty slots of the component's CNode, or slots that init fills.
    Number Slots {
        /// The first.
        first,
        /// How many.
        count,
    }
    /// User vectors.
    Number Vectors {
        /// The first.
        first,
        /// The one after the last.
        end,
    }
    /// The priorities of a vmm and its guest.
    Number Priorities {
        /// Of the component.
        component,
        /// Of the guest, in its turn.
        guest,
    }
    /// A guest's turn in each period.
    Number Turn {
        /// Start in microseconds.
        start,
        /// Length in microseconds.
        length,
    }
    /// Where a function is in the system.
    Number Assigned {
        /// Position of its guest.
        guest,
        /// Requester id that the guest sees.
        bdf,
    }
    /// A function's INTx pin.
    Number IntxPin {
        /// Position of the function.
        function,
        /// The I/O APIC's pin.
        pin,
    }
    /// Room for the IRQ handler of an INTx pin.
    Number IntxHandler {
        /// An empty slot.
        slot,
        /// The I/O APIC's pin.
        pin,
    }
}

/// The slot of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u64);

impl Value for Slot {
    const KIND: ResourceKind = ResourceKind::Capability;
    fn to_words(self) -> (u64, u64) {
        (self.0, 0)
    }
    fn from_words(slot: u64, _: u64) -> Self {
        Self(slot)
    }
}

impl Value for u64 {
    const KIND: ResourceKind = ResourceKind::Number;
    fn to_words(self) -> (u64, u64) {
        (self, 0)
    }
    fn from_words(number: u64, _: u64) -> Self {
        number
    }
}

impl Value for bool {
    const KIND: ResourceKind = ResourceKind::Number;
    fn to_words(self) -> (u64, u64) {
        (self.into(), 0)
    }
    fn from_words(number: u64, _: u64) -> Self {
        number == 1
    }
}

impl Value for OnExit {
    const KIND: ResourceKind = ResourceKind::Number;
    fn to_words(self) -> (u64, u64) {
        (self as u64, 0)
    }
    /// Decodes the policy; an unknown number counts as [`OnExit::Stop`].
    fn from_words(number: u64, _: u64) -> Self {
        let all = [Self::Stop, Self::Halt, Self::Restart];
        all.into_iter()
            .find(|&policy| policy as u64 == number)
            .unwrap_or(Self::Stop)
    }
}

/// Declares keys: the name ends with a colon if it is a family's.
macro_rules! keys {
    ($($(#[$meta:meta])* $key:ident: $kind:ident<$value:ty> = $name:literal;)*) => { $(
        $(#[$meta])*
        pub const $key: keys!(@type $kind $value) = $kind::new($name);
    )* };
    (@type Key $value:ty) => { Key<'static, $value> };
    (@type Family $value:ty) => { Family<$value> };
}

// Of every component.
keys! {
    /// The page with the `MachineInfo`.
    MACHINE: Key<Region> = "machine";
    /// The ring for the component's own log.
    LOG: Key<Region> = "log";
    /// The page for its counters.
    COUNTERS: Key<Region> = "counters";
    /// Memory that outlives a crash.
    KEPT: Key<Region> = "kept";
    /// Whether accesses are logged, for a trace.
    TRACE: Key<bool> = "trace";
    /// The notification that tells the console of new log records.
    DOORBELL: Key<Slot> = "doorbell";
    /// The server of an interface, by the interface.
    CHANNEL: Family<Slot> = "channel:";
    /// The badge of a client, by the interface, a colon, and the client.
    CLIENT: Family<u64> = "client:";
    /// Position of each guest.
    GUEST: Family<u64> = "guest:";
    /// Where each function is assigned, in the order of all functions.
    ASSIGNED: Family<Assigned> = "assigned:";
    /// The page with the `FunctionInfo` of each function that the component works
    /// on.
    FUNCTION: Family<Region> = "function:";
    /// The badge with which the vmm of a function's guest calls.
    OWNER: Family<u64> = "owner:";
}

// Of a component that has a device of the board.
keys! {
    /// A device's I/O ports.
    PORTS: Family<Ports> = "ports:";
    /// A device's registers.
    REGISTERS: Family<Region> = "registers:";
    /// The IRQ handler of a device, and its bit of the notification word.
    IRQ: Family<Signal> = "irq:";
    /// The component's own notification, for that handler.
    IRQ_NOTIFICATION: Family<Slot> = "irq-notification:";
    /// The user vector of a device that interrupts by a message of its own.
    IRQ_VECTOR: Family<u64> = "irq-vector:";
}

// The console's.
keys! {
    /// The log of each component.
    LOG_OF: Family<Region> = "log:";
    /// The counters of each component.
    COUNTERS_OF: Family<Region> = "counters:";
    /// The event page of each guest.
    EVENTS_OF: Family<Region> = "events:";
    /// The output of each guest.
    CONSOLE_OF: Family<Region> = "guest-console:";
}

// The timer's.
keys! {
    /// The notification of each client.
    NOTIFY: Family<Signal> = "notify:";
}

// iommu's.
keys! {
    /// The page with the `IommuInfo`.
    IOMMU_INFO: Key<Region> = "iommu-info";
    /// Memory for the unit's tables.
    IOMMU_TABLES: Key<Region> = "iommu-tables";
    /// The unit's registers.
    IOMMU_REGISTERS: Key<Region> = "iommu-registers";
    /// The pages of RAM of a function's guest, in the order of their addresses: each of
    /// 2 MiB, or 512 of 4 KiB in its place.
    DMA: Family<Slots> = "dma:";
    /// Which 2 MiB of that RAM, of the first 64, are 512 pages: a bit each.
    DMA_SPLIT: Family<u64> = "dma-split:";
    /// Guest address of that RAM.
    DMA_ADDRESS: Family<u64> = "dma-address:";
    /// Whether a function's first fault stops its guest.
    STOP_ON_DMA_FAULT: Family<bool> = "stop-on-dma-fault:";
}

// irq-router's.
keys! {
    /// The right to make IRQ handlers.
    IRQ_CONTROL: Key<Slot> = "irq-control";
    /// The user vectors that no device of the board has.
    VECTORS: Key<Vectors> = "vectors";
    /// A slot for each vector's IRQ handler, and one more.
    HANDLER_SLOTS: Key<Slots> = "handler-slots";
    /// The slot CNode of each guest.
    SLOTS_OF: Family<CNode> = "slots:";
    /// How many slots of that a guest may use.
    SLOT_COUNT_OF: Family<u64> = "slot-count:";
    /// The notification of each guest's vmm, without a badge.
    NOTIFICATION_OF: Family<Slot> = "vmm-notification:";
    /// The routing page of each guest.
    ROUTES_OF: Family<Region> = "routes:";
    /// The INTx pin of a function that is offered one.
    INTX_PIN: Family<IntxPin> = "intx-pin:";
}

// pci-config's and msix's.
keys! {
    /// A function's page of configuration space, where there is a window for that.
    CONFIG: Family<Region> = "config:";
    /// The I/O ports of configuration space, where there is none.
    CONFIG_PORTS: Key<Ports> = "config-ports";
    /// The registers by which a known model is reset.
    RESET_REGISTERS: Family<Region> = "reset-registers:";
    /// The pages with a function's MSI-X table and PBA.
    MSIX: Family<Region> = "msix:";
}

// irq-router's and a vmm's.
keys! {
    /// The component's own CNode.
    CNODE: Key<CNode> = "cnode";
}

// A vmm's.
keys! {
    /// Its own thread.
    OWN_TCB: Key<Slot> = "own-tcb";
    /// Its own notification, to wait for events only.
    EVENT_NOTIFICATION: Key<Slot> = "event-notification";
    /// Priorities of its thread and its guest's.
    PRIORITIES: Key<Priorities> = "priorities";
    /// The guest's turn.
    SHARE: Key<Turn> = "share";
    /// The guest's thread.
    GUEST_TCB: Key<Slot> = "guest-tcb";
    /// The guest's address space.
    GUEST_VSPACE: Key<Slot> = "guest-vspace";
    /// Memory for the page tables of BARs.
    GUEST_UNTYPED: Key<Slot> = "guest-untyped";
    /// Slots for those tables.
    TABLE_SLOTS: Key<Slots> = "table-slots";
    /// The guest's slot CNode.
    SLOTS: Key<CNode> = "slots";
    /// The guest's RAM.
    GUEST_RAM: Key<Region> = "guest-ram";
    /// Guest address of that RAM.
    GUEST_ADDRESS: Key<u64> = "guest-address";
    /// Guest-virtual address at which that RAM is a second time; 0: nowhere.
    GUEST_SECOND_ADDRESS: Key<u64> = "guest-second-address";
    /// The guest's ELF file.
    GUEST_IMAGE: Key<Region> = "guest-image";
    /// What system.toml adds to the guest's command line.
    COMMAND_LINE: Key<Region> = "command-line";
    /// The guest's routing page.
    ROUTES: Key<Region> = "routes";
    /// The guest's event page.
    EVENTS: Key<Region> = "events";
    /// The ring for the guest's output.
    GUEST_CONSOLE: Key<Region> = "guest-console";
    /// Interrupts that one source may raise in a second before it is a storm (M23).
    INTERRUPT_BUDGET: Key<u64> = "interrupt-budget";
    /// Whether a shim serves the guest's image.
    SHIM: Key<bool> = "shim";
    /// What follows the guest's end.
    ON_EXIT: Key<OnExit> = "on-exit";
    /// Whether the guest has the devices of a PC.
    PC: Key<bool> = "pc";
    /// Whether instructions of the guest's image were rewritten: only then the vmm
    /// emulates what stands for them ([`rewrite`](crate::rewrite)). In another image
    /// these bytes are invalid opcodes.
    REWRITTEN: Key<bool> = "rewritten";
    /// Room for the IRQ handler of each function's INTx pin.
    INTX_HANDLER: Family<IntxHandler> = "intx-handler:";
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString as _;

    use super::*;

    /// Checks that a value survives its two words, which are these.
    fn check<V: Value + PartialEq + fmt::Debug>(value: V, words: (u64, u64)) {
        assert_eq!(value.to_words(), words);
        assert_eq!(V::from_words(words.0, words.1), value);
    }

    #[test]
    fn values_survive_their_words() {
        check(Slot(7), (7, 0));
        check(9u64, (9, 0));
        check(true, (1, 0));
        check(false, (0, 0));
        check(OnExit::Stop, (0, 0));
        check(OnExit::Halt, (1, 0));
        check(OnExit::Restart, (2, 0));
        assert_eq!(OnExit::from_words(3, 0), OnExit::Stop);
        let region = Region {
            address: 4096,
            length: 16,
        };
        check(region, (4096, 16));
    }

    #[test]
    fn a_key_is_called_by_its_family_and_its_owner() {
        assert_eq!(MACHINE.to_string(), "machine");
        assert_eq!(FUNCTION.of("nic0").to_string(), "function:nic0");
    }
}
