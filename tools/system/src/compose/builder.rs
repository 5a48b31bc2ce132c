//! What is being put together: the image, and each component's place in it.

use spec::names::{self, CNode, Key, Region, Slots, Value};
use spec::{Cache, Capability, Fill, Mapping, NONE, Object, ObjectKind, Resource, Rights};

use super::image::{Image, PAGE};

/// A component while it is being put together.
pub struct Place {
    pub cnode: u32,
    pub cnode_bits: u32,
    pub vspace: u32,
    pub endpoint: u32,
    pub notification: u32,
    pub next_slot: u32,
    pub next_address: u64,
    pub resources: Vec<Resource>,
}

#[derive(Default)]
pub struct Builder {
    pub image: Image,
    pub fills: Vec<Fill>,
    pub data: Vec<u8>,
}

impl Builder {
    pub fn object(&mut self, name: &str, kind: ObjectKind, size_bits: u32, pages: u64) -> u32 {
        let object = Object::new(name, kind, size_bits, pages);
        self.image.objects.push(object);
        (self.image.objects.len() - 1) as u32
    }

    pub fn memory(&mut self, name: &str, bytes: u64) -> u32 {
        self.object(name, ObjectKind::Memory, 12, bytes.div_ceil(PAGE).max(1))
    }

    pub fn fill(&mut self, object: u32, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.fills.push(Fill {
            object,
            reserved: 0,
            offset,
            source: self.data.len() as u64,
            length: bytes.len() as u64,
        });
        self.data.extend_from_slice(bytes);
        // What follows may be records that want their alignment.
        self.data.resize(self.data.len().next_multiple_of(8), 0);
    }

    pub fn map(&mut self, vspace: u32, object: u32, address: u64, rights: Rights) {
        self.image.mappings.push(Mapping {
            vspace,
            object,
            address,
            rights,
            cache: Cache::WriteBack,
            holder: NONE,
            holder_slot: 0,
        });
    }

    /// Maps memory into a component at the next free address and tells it.
    pub fn share(
        &mut self,
        place: &mut Place,
        key: Key<'_, Region>,
        object: u32,
        rights: Rights,
        length: u64,
    ) {
        let size = self.image.objects[object as usize].pages * PAGE;
        let address = place.reserve(size, PAGE);
        self.map(place.vspace, object, address, rights);
        place.tell(key, Region { address, length });
    }

    /// Gives a component a capability and tells it what `value` makes of the slot.
    pub fn grant<V: Value>(
        &mut self,
        place: &mut Place,
        (key, value): (Key<'_, V>, impl FnOnce(u64) -> V),
        object: u32,
        rights: Rights,
        badge: u64,
    ) {
        let slot = place.slots(1);
        self.capability(place.cnode, slot, object, rights, badge);
        place.tell(key, value(u64::from(slot)));
    }

    /// Gives a component its own CNode.
    pub fn grant_own_cnode(&mut self, place: &mut Place) {
        let (cnode, bits) = (place.cnode, u64::from(place.cnode_bits));
        let key = (names::CNODE, |slot| CNode { slot, bits });
        self.grant(place, key, cnode, Rights::ALL, 0);
    }

    pub fn capability(&mut self, cnode: u32, slot: u32, object: u32, rights: Rights, badge: u64) {
        self.image.capabilities.push(Capability {
            cnode,
            slot,
            object,
            rights,
            badge,
        });
    }
}

impl Place {
    pub fn slots(&mut self, count: u32) -> u32 {
        let first = self.next_slot;
        self.next_slot += count;
        first
    }

    /// Takes slots that the component fills itself.
    pub fn empty_slots(&mut self, count: u32) -> Slots {
        Slots {
            first: self.slots(count).into(),
            count: count.into(),
        }
    }

    /// Takes addresses, with an unmapped page behind them.
    pub fn reserve(&mut self, size: u64, align: u64) -> u64 {
        let address = self.next_address.next_multiple_of(align);
        self.next_address = address + size + PAGE;
        address
    }

    /// Tells the component what it was given.
    pub fn tell<V: Value>(&mut self, key: Key<'_, V>, value: V) {
        let resource = Resource::new(&key.to_string(), value);
        self.resources.push(resource);
    }
}
