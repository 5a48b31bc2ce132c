//! The table in which a component finds what it was given, by name.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Name;

/// Kind of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ResourceKind {
    /// A capability: `value` is the slot; `extra` depends on the name.
    Capability = 1,
    /// Memory: `value` is the address, `extra` the length in bytes.
    Memory = 2,
    /// A number.
    Number = 3,
}

/// One resource.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Resource {
    /// Its name, such as `channel:PciConfig` or `memory:routes`.
    pub name: Name,
    /// [`ResourceKind`] as a number.
    pub kind: u64,
    /// Slot, address or number.
    pub value: u64,
    /// Length, or what the name says.
    pub extra: u64,
}

impl Resource {
    /// Makes a resource.
    #[must_use]
    pub fn new(kind: ResourceKind, name: &str, value: u64, extra: u64) -> Self {
        Self {
            name: Name::new(name),
            kind: kind as u64,
            value,
            extra,
        }
    }
}

/// A component's resources, in the order of system.toml.
#[derive(Clone, Copy, Debug)]
pub struct Resources<'a>(&'a [Resource]);

impl<'a> Resources<'a> {
    /// Reads a table: a 64-bit count and the records. What does not fit into
    /// `bytes` is not there.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let Ok((count, rest)) = u64::read_from_prefix(bytes) else {
            return Self(&[]);
        };
        let fits = rest.len() / size_of::<Resource>();
        let count = usize::try_from(count).map_or(0, |count| count.min(fits));
        Self(
            <[Resource]>::ref_from_prefix_with_elems(rest, count)
                .map_or(&[], |(records, _)| records),
        )
    }

    /// The resource of this kind and name.
    #[must_use]
    pub fn find(&self, kind: ResourceKind, name: &str) -> Option<&'a Resource> {
        self.0
            .iter()
            .find(|r| r.kind == kind as u64 && r.name.as_str() == name)
    }

    /// Every resource of this kind whose name is `prefix` and something more,
    /// with that rest of the name.
    pub fn each(
        &self,
        kind: ResourceKind,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Resource)> + Clone + use<'a> {
        self.0
            .iter()
            .filter(move |r| r.kind == kind as u64)
            .filter_map(move |r| Some((r.name.as_str().strip_prefix(prefix)?, r)))
    }

    /// All of them.
    #[must_use]
    pub const fn as_slice(&self) -> &'a [Resource] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn table(count: u64, resources: &[Resource]) -> Vec<u8> {
        let mut bytes = count.to_le_bytes().to_vec();
        bytes.extend_from_slice(resources.as_bytes());
        bytes
    }

    #[test]
    fn finds_by_kind_and_name() {
        let all = [
            Resource::new(ResourceKind::Number, "a", 1, 0),
            Resource::new(ResourceKind::Memory, "log:x", 2, 4096),
            Resource::new(ResourceKind::Memory, "log:y", 3, 4096),
        ];
        let bytes = table(3, &all);
        let resources = Resources::parse(&bytes);
        assert_eq!(
            resources.find(ResourceKind::Number, "a").map(|r| r.value),
            Some(1)
        );
        assert!(resources.find(ResourceKind::Memory, "a").is_none());
        let names: Vec<_> = resources
            .each(ResourceKind::Memory, "log:")
            .map(|(name, r)| (name, r.value))
            .collect();
        assert_eq!(names, [("x", 2), ("y", 3)]);
    }

    #[test]
    fn a_lying_count_is_cut() {
        let all = [Resource::new(ResourceKind::Number, "a", 1, 0)];
        assert_eq!(Resources::parse(&table(u64::MAX, &all)).as_slice().len(), 1);
        assert!(Resources::parse(&[1, 2]).as_slice().is_empty());
    }
}
