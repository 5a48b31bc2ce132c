//! The table in which a component finds its resources, by name.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::Name;
use crate::names::{Family, Key, Value};

/// Kind of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(u64)]
pub enum ResourceKind {
    /// A capability.
    Capability = 1,
    /// Memory.
    Memory = 2,
    /// A number.
    Number = 3,
}

/// One resource.
#[derive(Clone, Copy, Debug, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Resource {
    /// Its name; see [`names`](crate::names).
    name: Name,
    /// Its kind.
    kind: ResourceKind,
    /// The words of its [`Value`].
    words: [u64; 2],
}

impl Resource {
    /// Creates the resource of a name.
    #[must_use]
    pub fn new<V: Value>(name: &str, value: V) -> Self {
        Self {
            name: Name::new(name),
            kind: V::KIND,
            words: value.to_words().into(),
        }
    }

    /// Returns what follows `prefix` in its name, and the value; `None` if it is
    /// another resource.
    fn after<V: Value>(&self, prefix: &str) -> Option<(&str, V)> {
        // Most are another's: that shows before the name is made text of.
        if self.kind != V::KIND || !self.name.0.starts_with(prefix.as_bytes()) {
            return None;
        }
        let name = self.name.as_str().strip_prefix(prefix)?;
        let [first, second] = self.words;
        Some((name, V::from_words(first, second)))
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
            <[Resource]>::try_ref_from_prefix_with_elems(rest, count)
                .map_or(&[], |(records, _)| records),
        )
    }

    /// Returns the resource of a key.
    #[must_use]
    pub fn find<V: Value>(&self, key: Key<'_, V>) -> Option<V> {
        let mut after = self.0.iter().filter_map(|r| r.after(key.prefix));
        after
            .find(|&(name, _)| name == key.name)
            .map(|(_, value)| value)
    }

    /// Returns the resources of a family, each with the name of whose it is.
    pub fn each<V: Value>(
        &self,
        family: Family<V>,
    ) -> impl Iterator<Item = (&'a str, V)> + Clone + use<'a, V> {
        self.0
            .iter()
            .filter_map(move |r| r.after(family.prefix))
            .filter(|(name, _)| !name.is_empty())
    }

    /// Returns all of them.
    #[must_use]
    pub const fn as_slice(&self) -> &'a [Resource] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{self, Region};
    extern crate std;
    use std::vec::Vec;

    fn table(count: u64, resources: &[Resource]) -> Vec<u8> {
        let mut bytes = count.to_le_bytes().to_vec();
        bytes.extend_from_slice(resources.as_bytes());
        bytes
    }

    #[test]
    fn finds_by_kind_and_name() {
        let region = |address| Region {
            address,
            length: 4096,
        };
        let all = [
            Resource::new("guest-ram", 1),
            Resource::new("log:x", region(2)),
            Resource::new("log:y", region(3)),
            Resource::new("log:y", 4),
        ];
        let bytes = table(4, &all);
        let resources = Resources::parse(&bytes);
        assert_eq!(resources.find(names::GUEST_RAM), None, "a number");
        assert_eq!(resources.find(names::LOG_OF.of("y")), Some(region(3)));
        assert_eq!(resources.find(names::LOG_OF.of("z")), None);
        let logs: Vec<_> = resources.each(names::LOG_OF).collect();
        assert_eq!(logs, [("x", region(2)), ("y", region(3))]);
    }

    #[test]
    fn a_lying_count_is_cut() {
        let all = [Resource::new("a", 1)];
        assert_eq!(Resources::parse(&table(u64::MAX, &all)).as_slice().len(), 1);
        assert!(Resources::parse(&[1, 2]).as_slice().is_empty());
    }

    #[test]
    fn a_kind_that_is_none_is_no_table() {
        let mut bytes = table(1, &[Resource::new("a", 1)]);
        bytes[8 + size_of::<Name>()] = 9;
        assert!(Resources::parse(&bytes).as_slice().is_empty());
    }
}
