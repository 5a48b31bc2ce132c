//! Rights of a capability.

/// Access rights of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapRights(sel4_sys::CapRights);

impl CapRights {
    /// Creates rights from single permissions: to pass capabilities, to
    /// read or receive, to write or send.
    pub const fn new(grant: bool, read: bool, write: bool) -> Self {
        CapRights(sel4_sys::CapRights::new(
            grant as u64,
            read as u64,
            write as u64,
        ))
    }

    /// Returns no rights.
    pub const fn none() -> Self {
        Self::new(false, false, false)
    }

    /// Returns all rights.
    pub const fn all() -> Self {
        Self::new(true, true, true)
    }

    /// Returns the rights to read and write.
    pub const fn read_write() -> Self {
        Self::new(false, true, true)
    }

    /// Returns the right to read.
    pub const fn read_only() -> Self {
        Self::new(false, true, false)
    }

    /// Returns the right to write.
    pub const fn write_only() -> Self {
        Self::new(false, false, true)
    }

    pub(crate) const fn inner(self) -> sel4_sys::CapRights {
        self.0
    }
}

/// Builds [`CapRights`] from nothing, permission by permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapRightsBuilder {
    grant: bool,
    read: bool,
    write: bool,
}

impl CapRightsBuilder {
    /// Returns whether capabilities may be passed.
    pub const fn grant(mut self, permitted: bool) -> Self {
        self.grant = permitted;
        self
    }

    /// Returns whether reading or receiving is permitted.
    pub const fn read(mut self, permitted: bool) -> Self {
        self.read = permitted;
        self
    }

    /// Returns whether writing or sending is permitted.
    pub const fn write(mut self, permitted: bool) -> Self {
        self.write = permitted;
        self
    }

    /// Returns the rights.
    pub const fn build(self) -> CapRights {
        CapRights::new(self.grant, self.read, self.write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_kernels() {
        // Grant is bit 2, read bit 1, write bit 0 (shared_types_64.bf).
        let bits = |rights: CapRights| rights.inner().words[0];
        assert_eq!(bits(CapRights::none()), 0);
        assert_eq!(bits(CapRights::all()), 7);
        assert_eq!(bits(CapRights::read_write()), 3);
        assert_eq!(bits(CapRights::read_only()), 2);
        assert_eq!(bits(CapRights::write_only()), 1);
        assert_eq!(bits(CapRightsBuilder::default().grant(true).build()), 4);
    }
}
