//! A component's resources, by the names that the build tool gave them.

use channel::Caller;
use channel::events::EventPage;
use channel::routes::RoutePage;
use pci::FunctionInfo;
use sel4::cap::Endpoint;
use sel4::{Cap, cap_type};
use shm::{CounterPage, Kept, Places, Ring};
use spec::names::{self, Key, Region, Slot, Value};
use spec::{IommuInfo, MachineInfo, RESOURCES_ADDRESS, Resources};

/// Memory that another component, or this one's former life, may have written
/// at any time: only atomics, valid for every bit pattern.
///
/// # Safety
/// The implementor must consist of atomics only.
pub unsafe trait Shared: Sync + 'static {}

// SAFETY: atomics only, as its documentation says.
unsafe impl Shared for Ring {}
// SAFETY: atomics only, as its documentation says.
unsafe impl Shared for CounterPage {}
// SAFETY: atomics only, as its documentation says.
unsafe impl Shared for RoutePage {}
// SAFETY: atomics only, as its documentation says.
unsafe impl Shared for EventPage {}
// SAFETY: atomics only, as its documentation says.
unsafe impl<const WORDS: usize> Shared for Kept<WORDS> {}

/// A component's resources and generation.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The whole table.
    pub resources: Resources<'static>,
    /// How often the component was started again: 0 at boot.
    pub generation: u64,
}

impl Context {
    pub(crate) fn new(generation: u64) -> Self {
        let start = core::ptr::with_exposed_provenance::<u8>(RESOURCES_ADDRESS as usize);
        // SAFETY: init mapped at least one page there, read-only and never
        // changed; the table's first word is on it.
        let count = unsafe { start.cast::<u64>().read() };
        let length = 8 + size_of::<spec::Resource>() * count as usize;
        // SAFETY: the build tool made the table that long, and init mapped it.
        let bytes = unsafe { core::slice::from_raw_parts(start, length) };
        Self {
            resources: Resources::parse(bytes),
            generation,
        }
    }

    /// Returns the resource of a key.
    ///
    /// # Panics
    /// If the component was not given it: a mistake of the build tool.
    #[must_use]
    pub fn get<V: Value>(&self, key: Key<'_, V>) -> V {
        match self.resources.find(key) {
            Some(value) => value,
            None => panic!("no {:?} called {key} for this component", V::KIND),
        }
    }

    /// Returns the capability of a key.
    #[must_use]
    pub fn capability<T: sel4::cap::CapType>(&self, key: Key<'_, Slot>) -> Cap<T> {
        Cap::from_bits(self.get(key).0)
    }

    /// Returns memory shared with another component.
    #[must_use]
    pub fn shared<T: Shared>(&self, key: Key<'_, Region>) -> &'static T {
        let Region { address, length } = self.get(key);
        assert!(length as usize >= size_of::<T>(), "{key} is too small");
        // SAFETY: init mapped the region and nothing unmaps it, the tool made it
        // large enough, and T is valid whatever the other side writes.
        unsafe { &*core::ptr::with_exposed_provenance::<T>(address as usize) }
    }

    /// Returns bytes that never change while the component runs.
    #[must_use]
    pub fn bytes(&self, key: Key<'_, Region>) -> &'static [u8] {
        let Region { address, length } = self.get(key);
        let start = core::ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: init mapped and filled the region before it started anything,
        // and gave it to everybody read-only.
        unsafe { core::slice::from_raw_parts(start, length as usize) }
    }

    /// Returns device registers.
    #[must_use]
    pub fn registers(&self, key: Key<'_, Region>) -> crate::Mmio {
        let Region { address, length } = self.get(key);
        // SAFETY: init mapped the device there for this component alone, and
        // nothing in the component makes references to it.
        unsafe { crate::Mmio::new(address as usize, length as usize) }
    }

    /// Returns the badge with which the vmm of the function's guest calls here.
    #[must_use]
    pub fn owner(&self, device: &str) -> Caller {
        Caller(self.get(names::OWNER.of(device)))
    }

    /// Returns the position of the guest that owns a function.
    #[must_use]
    pub fn guest_index(&self, device: &str) -> u64 {
        self.get(names::ASSIGNED.of(device)).guest
    }

    /// Returns the name of the guest that owns a function.
    #[must_use]
    pub fn guest_of(&self, device: &str) -> &'static str {
        let guest = self.guest_index(device);
        let mut guests = self.resources.each(names::GUEST);
        guests
            .find(|&(_, index)| index == guest)
            .map_or("?", |(name, _)| name)
    }

    /// Returns init's description of the machine.
    #[must_use]
    pub fn machine(&self) -> MachineInfo {
        zerocopy::TryFromBytes::try_read_from_prefix(self.bytes(names::MACHINE))
            .map_or(MachineInfo::default(), |(info, _)| info)
    }

    /// Returns init's description of the IOMMU.
    #[must_use]
    pub fn iommu(&self) -> IommuInfo {
        zerocopy::TryFromBytes::try_read_from_prefix(self.bytes(names::IOMMU_INFO))
            .map_or(IommuInfo::default(), |(info, _)| info)
    }

    /// Returns init's description of a function.
    #[must_use]
    pub fn function(&self, device: &str) -> FunctionInfo {
        zerocopy::TryFromBytes::try_read_from_prefix(self.bytes(names::FUNCTION.of(device)))
            .map_or(FunctionInfo::default(), |(info, _)| info)
    }

    /// Returns the names of the functions that this component works on, in their
    /// order.
    pub fn functions(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.resources.each(names::FUNCTION).map(|(name, _)| name)
    }

    /// Returns the endpoint on which the component receives.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Cap::<cap_type::Endpoint>::from_bits(spec::ENDPOINT_SLOT)
    }

    /// Returns the places for the component's counters, on the page that shows them.
    #[must_use]
    pub fn counters(&self) -> Places {
        self.shared::<CounterPage>(names::COUNTERS).places()
    }

    /// Returns a channel to the server of an interface.
    #[must_use]
    pub fn channel(&self, interface: &'static str) -> crate::Channel {
        match self.find_channel(interface) {
            Some(channel) => channel,
            None => panic!("no channel {interface}"),
        }
    }

    /// Returns the same for an interface that the component can do without.
    #[must_use]
    pub fn find_channel(&self, interface: &'static str) -> Option<crate::Channel> {
        let Slot(slot) = self.resources.find(names::CHANNEL.of(interface))?;
        Some(crate::Channel {
            endpoint: Cap::from_bits(slot),
            interface,
        })
    }
}
