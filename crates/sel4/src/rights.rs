//! Rights of a capability.

/// Access rights of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapRights(sel4_sys::CapRights);

impl CapRights {
    /// Creates rights from single permissions: to pass the capability to reply with a
    /// call, to pass any capabilities, to read or receive, to write or send.
    ///
    /// A kernel without the first (seL4 5.0.0) passes the capability to reply by the
    /// second, which the first then stands for.
    pub const fn new(grant_reply: bool, grant: bool, read: bool, write: bool) -> Self {
        #[cfg(sel4_grant_reply)]
        let rights =
            sel4_sys::CapRights::new(grant_reply as u64, grant as u64, read as u64, write as u64);
        #[cfg(not(sel4_grant_reply))]
        let rights =
            sel4_sys::CapRights::new((grant || grant_reply) as u64, read as u64, write as u64);
        CapRights(rights)
    }

    /// Returns no rights.
    pub const fn none() -> Self {
        Self::new(false, false, false, false)
    }

    /// Returns all rights.
    pub const fn all() -> Self {
        Self::new(true, true, true, true)
    }

    /// Returns the rights to read and write.
    pub const fn read_write() -> Self {
        Self::new(false, false, true, true)
    }

    /// Returns the right to read.
    pub const fn read_only() -> Self {
        Self::new(false, false, true, false)
    }

    /// Returns the right to write.
    pub const fn write_only() -> Self {
        Self::new(false, false, false, true)
    }

    pub(crate) const fn inner(self) -> sel4_sys::CapRights {
        self.0
    }
}

/// Builds [`CapRights`] from nothing, permission by permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapRightsBuilder {
    grant_reply: bool,
    grant: bool,
    read: bool,
    write: bool,
}

impl CapRightsBuilder {
    /// Returns whether the capability to reply may be passed.
    pub const fn grant_reply(mut self, permitted: bool) -> Self {
        self.grant_reply = permitted;
        self
    }

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
        CapRights::new(self.grant_reply, self.grant, self.read, self.write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_kernels() {
        // Grant-reply is bit 3, if there is one, grant bit 2, read bit 1, write bit 0
        // (shared_types.bf of each kernel).
        let bits = |rights: CapRights| rights.inner().words[0];
        let has_reply = cfg!(sel4_grant_reply);
        assert_eq!(bits(CapRights::none()), 0);
        assert_eq!(bits(CapRights::all()), if has_reply { 15 } else { 7 });
        assert_eq!(bits(CapRights::read_write()), 3);
        assert_eq!(bits(CapRights::read_only()), 2);
        assert_eq!(bits(CapRights::write_only()), 1);
        let builder = CapRightsBuilder::default();
        assert_eq!(bits(builder.grant(true).build()), 4);
        let reply = builder.grant_reply(true).build();
        assert_eq!(bits(reply), if has_reply { 8 } else { 4 });
    }
}
