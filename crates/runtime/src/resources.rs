//! A component's resources, by the names that the build tool gave them.

use channel::events::EventPage;
use channel::routes::RoutePage;
use pci::FunctionInfo;
use sel4::cap::{Endpoint, Notification};
use sel4::{Cap, cap_type};
use shm::{CounterPage, Kept, Ring};
use spec::{IommuInfo, MachineInfo, RESOURCES_ADDRESS, ResourceKind, Resources};

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

/// What a component was given.
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

    fn find(&self, kind: ResourceKind, name: &str) -> &'static spec::Resource {
        match self.resources.find(kind, name) {
            Some(resource) => resource,
            None => panic!("no {kind:?} called {name} in system.toml for this component"),
        }
    }

    /// The capability of this name.
    #[must_use]
    pub fn capability<T: sel4::cap::CapType>(&self, name: &str) -> Cap<T> {
        Cap::from_bits(self.find(ResourceKind::Capability, name).value)
    }

    /// The number of this name, and what comes with it.
    #[must_use]
    pub fn number(&self, name: &str) -> (u64, u64) {
        let resource = self.find(ResourceKind::Number, name);
        (resource.value, resource.extra)
    }

    /// What comes with the capability of this name.
    #[must_use]
    pub fn extra(&self, name: &str) -> u64 {
        self.find(ResourceKind::Capability, name).extra
    }

    /// Address and length of the memory of this name, in bytes.
    #[must_use]
    pub fn memory(&self, name: &str) -> (usize, usize) {
        let resource = self.find(ResourceKind::Memory, name);
        (resource.value as usize, resource.extra as usize)
    }

    /// Memory shared with another component.
    #[must_use]
    pub fn shared<T: Shared>(&self, name: &str) -> &'static T {
        self.shared_at(self.find(ResourceKind::Memory, name))
    }

    /// As [`Context::shared`], for a resource that is at hand.
    #[must_use]
    pub fn shared_at<T: Shared>(&self, resource: &spec::Resource) -> &'static T {
        assert!(
            resource.kind == ResourceKind::Memory as u64
                && resource.extra as usize >= size_of::<T>(),
            "{} is too small",
            resource.name.as_str()
        );
        // SAFETY: init mapped the region for good, the tool made it large
        // enough, and T is valid whatever the other side writes.
        unsafe { &*core::ptr::with_exposed_provenance::<T>(resource.value as usize) }
    }

    /// Bytes that nobody changes while the component runs.
    #[must_use]
    pub fn bytes(&self, name: &str) -> &'static [u8] {
        let (address, length) = self.memory(name);
        let start = core::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: init mapped and filled the region before it started anything,
        // and gave it to everybody read-only.
        unsafe { core::slice::from_raw_parts(start, length) }
    }

    /// Device registers of this name.
    #[must_use]
    pub fn registers(&self, name: &str) -> crate::Mmio {
        let (address, size) = self.memory(name);
        // SAFETY: init mapped the device there for this component alone, and
        // nothing in the component makes references to it.
        unsafe { crate::Mmio::new(address, size) }
    }

    /// The badge with which the vmm of the function's guest calls here, or the
    /// guest's index: whatever names the owner in this component.
    #[must_use]
    pub fn owner(&self, device: &str) -> u64 {
        self.resources
            .each(ResourceKind::Number, "owner:")
            .find(|(name, _)| *name == device)
            .map_or(0, |(_, resource)| resource.value)
    }

    /// Position of the guest that owns a function.
    #[must_use]
    pub fn guest_index(&self, device: &str) -> u64 {
        let mut devices = self.resources.each(ResourceKind::Number, "guest-of:");
        devices
            .find(|(name, _)| *name == device)
            .map_or(u64::MAX, |(_, resource)| resource.value)
    }

    /// Name of the guest that owns a function.
    #[must_use]
    pub fn guest_of(&self, device: &str) -> &'static str {
        let guest = self.guest_index(device);
        self.resources
            .each(ResourceKind::Number, "guest:")
            .find(|(_, resource)| resource.value == guest)
            .map_or("?", |(name, _)| name)
    }

    /// What init found out about the machine.
    #[must_use]
    pub fn machine(&self) -> MachineInfo {
        zerocopy::FromBytes::read_from_prefix(self.bytes("machine"))
            .map_or(MachineInfo::default(), |(info, _)| info)
    }

    /// What init found out about the IOMMU.
    #[must_use]
    pub fn iommu(&self) -> IommuInfo {
        zerocopy::TryFromBytes::try_read_from_prefix(self.bytes("iommu-info"))
            .map_or(IommuInfo::default(), |(info, _)| info)
    }

    /// What init found out about a function.
    #[must_use]
    pub fn function(&self, device: &str) -> FunctionInfo {
        let resource = self
            .resources
            .each(ResourceKind::Memory, "function:")
            .find(|(name, _)| *name == device);
        let Some((_, resource)) = resource else {
            panic!("no function {device}");
        };
        let start = core::ptr::with_exposed_provenance::<FunctionInfo>(resource.value as usize);
        // SAFETY: init mapped the page and wrote it before it started anything;
        // the type is plain data, valid for every bit pattern.
        unsafe { start.read() }
    }

    /// Names of the functions that this component works on, in their order.
    pub fn functions(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.resources
            .each(ResourceKind::Memory, "function:")
            .map(|(name, _)| name)
    }

    /// The endpoint on which the component receives.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Cap::<cap_type::Endpoint>::from_bits(spec::ENDPOINT_SLOT)
    }

    /// The page on which the component publishes its counters.
    #[must_use]
    pub fn counters(&self) -> &'static CounterPage {
        self.shared("counters")
    }

    /// A channel to the server of an interface.
    #[must_use]
    pub fn channel(&self, interface: &str) -> crate::Channel {
        match self.find_channel(interface) {
            Some(channel) => channel,
            None => panic!("no channel {interface}"),
        }
    }

    /// The same for an interface that the component can do without.
    #[must_use]
    pub fn find_channel(&self, interface: &str) -> Option<crate::Channel> {
        self.resources
            .each(ResourceKind::Capability, "channel:")
            .find(|(name, _)| *name == interface)
            .map(|(interface, resource)| crate::Channel {
                endpoint: Cap::from_bits(resource.value),
                interface,
            })
    }

    /// The notification on which something arrives for somebody else.
    #[must_use]
    pub fn notification(&self, name: &str) -> Notification {
        self.capability(name)
    }
}
