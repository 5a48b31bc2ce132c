//! irq-router as msix calls it: it may die in a call, and then the call is made
//! again.

use channel::irq_router::{Client, Source};
use channel::{Error, Transport, retry};

/// The channel to irq-router.
pub struct Router<T>(pub Client<T>);

impl<T: Transport> Router<T> {
    /// Binds an unmasked source.
    pub fn bind(&mut self, source: Source, address: u64, data: u32) -> Result<(u64, u32), Error> {
        retry(|_| self.0.bind(source, address, data))
    }

    /// Unbinds a source. If it is not bound any more, that is done, whatever the
    /// router said.
    pub fn unbind(&mut self, source: Source) -> Result<(), Error> {
        retry(|_| self.0.unbind(source)).or_else(|error| match self.restore(source) {
            Err(Error::NotFound) => Ok(()),
            _ => Err(error),
        })
    }

    /// Lets a bound source raise its vector, and returns its message.
    pub fn restore(&mut self, source: Source) -> Result<(u64, u32), Error> {
        retry(|_| self.0.restore(source))
    }

    /// Holds a source's events in the vmm, or stops that.
    pub fn set_masked(&mut self, source: Source, masked: bool) -> Result<(), Error> {
        retry(|_| self.0.set_masked(source, masked))
    }

    /// The same for all of a function's.
    pub fn set_function_masked(&mut self, function: u8, masked: bool) -> Result<(), Error> {
        retry(|_| self.0.set_function_masked(function, masked))
    }

    /// Unbinds all of a function's.
    pub fn unbind_function(&mut self, function: u8) -> Result<(), Error> {
        retry(|_| self.0.unbind_function(function))
    }
}
