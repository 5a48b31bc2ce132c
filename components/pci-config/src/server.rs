//! Which function an access is for.

use channel::irq_router::msi;
use channel::pci_config::{Effect, PciConfig};
use channel::{Caller, Error, Transport, msix};
use heapless::Vec;
use pci::{Bdf, FUNCTION_BARS, FunctionInfo, Width};
use shm::Keep;
use spec::FunctionId;

use crate::access::Access;
use crate::function::Function;
use crate::kept::Record;
use crate::layout::CONVENTIONAL;
use crate::peers::Peers;
use crate::state::{Method, Reset, Trouble};
use crate::{Counters, Hardware};

/// Bytes of configuration space with PCI Express (PCIe 6.0 section 7.2.2).
const EXTENDED: u16 = 4096;

/// All assigned functions, at most `FUNCTIONS`.
pub struct Functions<'a, H, T, const FUNCTIONS: usize> {
    functions: Vec<Function<'a, H>, FUNCTIONS>,
    peers: Peers<T>,
    /// What happened so far.
    pub counters: Counters,
}

impl<'a, H: Hardware, T: Transport, const FUNCTIONS: usize> Functions<'a, H, T, FUNCTIONS> {
    /// Creates it without functions.
    pub fn new(msix: msix::control::Client<T>, router: msi::Client<T>) -> Self {
        Self {
            functions: Vec::new(),
            peers: Peers { msix, router },
            counters: Counters::default(),
        }
    }

    /// Takes functions over: each as the last pci-config kept it in `kept`,
    /// [`kept_words`](crate::kept_words) words, or, if there was none, quiesced
    /// (M24). Each comes with the badge of the vmm whose guest owns it.
    // A step of its own, so that the functions' state is made in its place: it is too much
    // for two stack frames.
    pub fn take_over(
        &mut self,
        functions: impl IntoIterator<Item = (FunctionInfo, Caller, H)>,
        kept: &'a dyn Keep,
    ) {
        for (index, (info, owner, hardware)) in functions.into_iter().take(FUNCTIONS).enumerate() {
            let index = FunctionId::at(index);
            let record = Record::new(kept, index.index());
            let function = Function::new(hardware, index, owner, info, record);
            // The list has room for as many as were taken.
            let _ = self.functions.push(function);
        }
        for index in 0..self.functions.len() {
            // Functions that share bus, device and owner make one device.
            let device = |f: &Function<'_, H>| (f.info.guest_bdf >> 3, f.owner);
            let own = device(&self.functions[index]);
            let others = self.functions.iter().filter(|f| device(f) == own);
            let multi_function = others.count() > 1;
            self.functions[index].take_over(multi_function, &mut self.peers);
        }
    }

    /// Returns the function that `caller`'s guest sees at `bdf`, if it is not
    /// being reset and the access has a shape that reaches a register.
    #[inline]
    fn access(
        &mut self,
        caller: Caller,
        bdf: Bdf,
        offset: u16,
        width: Width,
    ) -> Option<Access<'_, 'a, H, T>> {
        let function = self
            .functions
            .iter_mut()
            .find(|f| f.owner == caller && f.info.guest() == bdf);
        let Some(function) = function else {
            self.counters.not_found += 1;
            return None;
        };
        if !function.is_ready(&mut self.peers) {
            self.counters.dropped += 1;
            return None;
        }
        function.touch();
        let limit = if function.hardware.has_extended_space() {
            EXTENDED
        } else {
            CONVENTIONAL
        };
        if width == Width::Qword || !width.is_aligned(offset.into()) || offset >= limit {
            self.counters.dropped += 1;
            return None;
        }
        Some(Access {
            function,
            peers: &mut self.peers,
            counters: &mut self.counters,
        })
    }

    fn take_back(&mut self, index: usize, at_once: bool) -> Result<u64, Error> {
        let function = &mut self.functions[index];
        // Later calls only look how far it is.
        self.counters.resets += u64::from(function.reset == Reset::Used);
        function
            .take_back(at_once, &mut self.peers)
            .inspect_err(|_| self.counters.failures += 1)
    }

    /// Returns the ways to reset a function that it says it has, in the order in which
    /// they are tried; none while it is being reset.
    pub fn reset_methods(&mut self, function: FunctionId) -> impl Iterator<Item = Method> {
        let function = self.functions.get_mut(function.index());
        function
            .filter(|function| {
                matches!(function.reset, Reset::Used | Reset::Unclean | Reset::Clean)
            })
            .map_or([None; 4], Function::methods)
            .into_iter()
            .flatten()
    }

    /// Takes a function's trouble that is to be logged, if there is any.
    pub fn take_trouble(&mut self) -> Option<(FunctionId, Trouble)> {
        self.functions
            .iter_mut()
            .find_map(|function| Some((function.index, function.trouble.take()?)))
    }

    /// Takes a function back to start whose guest is gone. One
    /// that is not there is ignored.
    pub fn release(&mut self, function: FunctionId) {
        if function.index() < self.functions.len() {
            // A failure is counted, and no client waits for the answer.
            let _ = self.take_back(function.index(), true);
        }
    }

    fn owned(
        &mut self,
        caller: Caller,
        function: FunctionId,
    ) -> Result<&mut Function<'a, H>, Error> {
        self.functions
            .get_mut(function.index())
            .filter(|function| function.owner == caller)
            .ok_or(Error::NotFound)
            .inspect_err(|_| self.counters.not_found += 1)
    }
}

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> PciConfig
    for Functions<'_, H, T, FUNCTIONS>
{
    fn read(&mut self, caller: Caller, bdf: Bdf, offset: u16, width: Width) -> Result<u32, Error> {
        self.counters.reads += 1;
        let bytes = width.bytes() as u16;
        Ok(match self.access(caller, bdf, offset, width) {
            Some(mut access) => access.read(offset, bytes),
            None => width.all_ones() as u32,
        })
    }

    fn write(
        &mut self,
        caller: Caller,
        bdf: Bdf,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<Effect, Error> {
        self.counters.writes += 1;
        let bytes = width.bytes() as u16;
        Ok(match self.access(caller, bdf, offset, width) {
            Some(mut access) => access.write(offset, bytes, value),
            None => Effect::NONE,
        })
    }

    fn bar(&mut self, caller: Caller, function: FunctionId, index: u8) -> Result<u64, Error> {
        let index = usize::from(index);
        self.owned(caller, function)?;
        let function = &mut self.functions[function.index()];
        if index >= FUNCTION_BARS {
            return Err(Error::NotFound);
        }
        // A guest that begins to run may touch a BAR before anything else.
        function.is_ready(&mut self.peers);
        let decoded = function.decoded(index);
        if decoded.is_some() {
            function.touch();
        }
        Ok(decoded.unwrap_or(u64::MAX))
    }

    fn reset(&mut self, caller: Caller, function: FunctionId) -> Result<u64, Error> {
        self.owned(caller, function)?;
        self.take_back(function.index(), false)
    }

    fn throttle_msi(
        &mut self,
        caller: Caller,
        function: FunctionId,
        throttled: bool,
    ) -> Result<(), Error> {
        self.owned(caller, function)?;
        self.functions[function.index()].throttle_msi(throttled, &mut self.peers)
    }
}
