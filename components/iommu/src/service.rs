//! The clients' requests: each function's owner, memory and vectors.

use channel::iommu::{
    FaultRecord, FunctionState, Vectors, dma::DmaControl, dump::IommuDump, remap::InterruptRemap,
};
use channel::{Caller, Error};
use heapless::Vec;
use spec::{FUNCTIONS, FunctionId, IommuKind, RESERVED, VECTORS, host_message, vector_bits};

use crate::faults::{FAULTS_A_POLL, Faults};
use crate::pages::{Fixed, Frames, Ram};
use crate::unit::{SetupError, Unit};

/// A function and whom it works for.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Requester id.
    pub requester: u16,
    /// The client that attaches and detaches it.
    pub owner: Caller,
    /// The guest's position.
    pub guest: u8,
    /// Memory that it reaches when it is attached.
    pub ram: Ram,
}

shm::counters! {
    /// Returns counts of events, and gauges of the current state.
    pub struct Counters {
        /// Functions that are attached now.
        attached,
        /// Vectors that are allowed now.
        entries_used,
        /// 4 KiB pages that attached functions reach now.
        pages_mapped,
        /// Faults that the unit recorded.
        faults,
        /// Polls that found that faults were lost for want of room.
        overflows,
        /// Operations that the unit did not complete.
        failed,
        /// Requests about a function that is not there or not the caller's.
        not_found,
    }
}

/// What stands behind the service.
enum Behind<'a> {
    /// A unit in force.
    Unit(&'a mut dyn Unit),
    /// Nothing: every request succeeds and confines nothing.
    Nothing,
    /// A unit that is on and does not obey: every request fails.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct State {
    function: Function,
    /// Its page tables are made.
    built: bool,
    attached: bool,
    /// Vectors that it may raise, a bit each.
    vectors: u128,
    /// Where the firmware's memory that it reaches begins and ends in the list of that.
    fixed: (usize, usize),
}

impl State {
    const fn pages(&self) -> u64 {
        if self.attached {
            self.function.ram.pages()
        } else {
            0
        }
    }

    /// Adds it to the gauges.
    fn count(&self, counters: &mut Counters) {
        counters.attached += self.attached.into();
        counters.entries_used += self.vectors.count_ones().into();
        counters.pages_mapped += self.pages();
    }
}

/// The service.
pub struct Iommu<'a, F> {
    behind: Behind<'a>,
    frames: F,
    functions: Vec<State, FUNCTIONS>,
    /// Memory of the firmware, that of each function together.
    fixed: Vec<Fixed, RESERVED>,
    faults: Faults,
    /// What happened, and how things are.
    pub counters: Counters,
}

impl<'a, F: Frames> Iommu<'a, F> {
    /// Creates the service over a unit, or over none. The functions' state in the
    /// unit's tables is taken over. A unit that is lost
    /// ([`SetupError::lost`]) is refused to clients, and any other error means
    /// that there is none. Functions past [`FUNCTIONS`] do not exist.
    pub fn new(
        unit: Result<&'a mut dyn Unit, SetupError>,
        frames: F,
        functions: impl IntoIterator<Item = Function>,
    ) -> Self {
        let behind = match unit {
            Ok(unit) => Behind::Unit(unit),
            Err(error) if error.lost() => Behind::Lost,
            Err(_) => Behind::Nothing,
        };
        let functions = functions.into_iter().take(FUNCTIONS).enumerate();
        let functions: Vec<State, FUNCTIONS> = functions
            .map(|(position, function)| {
                let (attached, vectors) = match &behind {
                    Behind::Unit(unit) => (unit.attached(position), vectors(&**unit, position)),
                    Behind::Nothing | Behind::Lost => (false, 0),
                };
                State {
                    function,
                    // The entry came after the tables.
                    built: attached,
                    attached,
                    vectors,
                    fixed: (0, 0),
                }
            })
            .collect();
        let mut counters = Counters::default();
        functions
            .iter()
            .for_each(|state| state.count(&mut counters));
        Self {
            behind,
            frames,
            functions,
            fixed: Vec::new(),
            faults: Faults::new(),
            counters,
        }
    }

    /// Changes a function's state, and the gauges with it.
    fn change(&mut self, position: usize, change: impl FnOnce(&mut State)) {
        let state = &mut self.functions[position];
        self.counters.attached -= state.attached.into();
        self.counters.entries_used -= state.vectors.count_ones().into();
        self.counters.pages_mapped -= state.pages();
        change(state);
        state.count(&mut self.counters);
    }

    fn kind(&self) -> IommuKind {
        match &self.behind {
            Behind::Unit(unit) => unit.kind(),
            Behind::Nothing | Behind::Lost => IommuKind::None,
        }
    }

    /// Lets every function reach its guest's memory. Goes on past a failure.
    /// Returns the position of the last function that failed.
    pub fn attach_all(&mut self) -> Option<usize> {
        let mut failed = None;
        for position in 0..self.functions.len() {
            if let Err(error) = self.attach_at(position) {
                self.count_failure(error);
                failed = Some(position);
            }
        }
        failed
    }

    /// Has a function reach memory of the firmware as well, in the order of its addresses,
    /// from when it is attached for the first time. Pieces past [`RESERVED`] in all do not
    /// exist.
    pub fn reserve(&mut self, function: usize, fixed: &[Fixed]) {
        let first = self.fixed.len();
        self.fixed
            .extend(fixed.iter().copied().take(RESERVED - first));
        if let Some(state) = self.functions.get_mut(function) {
            state.fixed = (first, self.fixed.len());
        }
    }

    /// Lets functions that nobody has, and firmware uses, reach this memory of the firmware.
    ///
    /// # Errors
    ///
    /// As [`Unit::keep`].
    pub fn keep(&mut self, fixed: &[Fixed]) -> Result<(), Error> {
        match &mut self.behind {
            Behind::Unit(unit) => unit.keep(fixed),
            Behind::Nothing | Behind::Lost => Ok(()),
        }
    }

    /// Detaches all functions of a guest that is gone. Returns how many of them
    /// could not be detached.
    pub fn guest_gone(&mut self, guest: u8) -> usize {
        (0..self.functions.len())
            .filter(|&position| {
                self.functions[position].function.guest == guest
                    && self.detach_at(position).is_err()
            })
            .count()
    }

    /// Takes new faults, at most [`FAULTS_A_POLL`]: what comes with each is the
    /// function that caused it, if it is one of ours, and what its reason
    /// means.
    pub fn poll_faults(&mut self, mut seen: impl FnMut(FaultRecord, Option<usize>, &'static str)) {
        let Behind::Unit(unit) = &mut self.behind else {
            return;
        };
        for _ in 0..FAULTS_A_POLL {
            let Some(fault) = unit.next_fault() else {
                break;
            };
            let function = self
                .functions
                .iter()
                .position(|state| state.function.requester == fault.requester);
            let fault = self.faults.record(function, fault);
            self.counters.faults += 1;
            seen(fault, function, unit.explain(fault.reason));
        }
        self.counters.overflows += u64::from(unit.overflowed());
    }

    fn lookup(&mut self, function: FunctionId) -> Result<usize, Error> {
        let position = function.index();
        if position >= self.functions.len() {
            self.counters.not_found += 1;
            return Err(Error::NotFound);
        }
        Ok(position)
    }

    fn lookup_owned(&mut self, caller: Caller, function: FunctionId) -> Result<usize, Error> {
        let position = self.lookup(function)?;
        if self.functions[position].function.owner != caller {
            self.counters.not_found += 1;
            return Err(Error::NotFound);
        }
        Ok(position)
    }

    /// Returns the position of the function, first vector and number of them.
    fn lookup_vectors(&mut self, vectors: Vectors) -> Result<(usize, u8, u8), Error> {
        let position = self.lookup(vectors.function)?;
        let Vectors { first, count, .. } = vectors;
        let end = first.checked_add(count);
        if count == 0 || end.is_none_or(|end| end > VECTORS) {
            return Err(Error::Refused);
        }
        Ok((position, first, count))
    }

    fn count_failure(&mut self, error: Error) -> Error {
        self.counters.failed += u64::from(error == Error::Failed);
        error
    }

    fn attach_at(&mut self, position: usize) -> Result<(), Error> {
        let state = &mut self.functions[position];
        let done = match &mut self.behind {
            Behind::Nothing => return Ok(()),
            Behind::Lost => return Err(Error::Failed),
            Behind::Unit(unit) => {
                if !state.built {
                    let fixed = &self.fixed[state.fixed.0..state.fixed.1];
                    unit.build(position, state.function.ram, fixed, &mut self.frames)?;
                    state.built = true;
                }
                // Also if it is attached: the component may have died between
                // the entry and the invalidation.
                unit.attach(position)
            }
        };
        self.change(position, |state| state.attached = done.is_ok());
        done
    }

    fn detach_at(&mut self, position: usize) -> Result<(), Error> {
        let result = match &mut self.behind {
            Behind::Nothing => Ok(()),
            Behind::Lost => Err(Error::Failed),
            Behind::Unit(unit) => unit.detach(position),
        };
        if result.is_ok() {
            self.change(position, |state| state.attached = false);
        }
        result.map_err(|error| self.count_failure(error))
    }
}

/// Returns the vectors that a unit lets a function raise.
fn vectors(unit: &dyn Unit, function: usize) -> u128 {
    (0..VECTORS)
        .filter(|vector| unit.allowed(function, *vector))
        .fold(0, |all, vector| all | 1 << vector)
}

impl<F: Frames> DmaControl for Iommu<'_, F> {
    fn attach(&mut self, caller: Caller, function: FunctionId) -> Result<(), Error> {
        let position = self.lookup_owned(caller, function)?;
        self.attach_at(position)
            .map_err(|error| self.count_failure(error))
    }

    fn detach(&mut self, caller: Caller, function: FunctionId) -> Result<(), Error> {
        let position = self.lookup_owned(caller, function)?;
        self.detach_at(position)
    }
}

impl<F: Frames> InterruptRemap for Iommu<'_, F> {
    fn allow(&mut self, _caller: Caller, vectors: Vectors) -> Result<(u64, u32), Error> {
        let (position, first, count) = self.lookup_vectors(vectors)?;
        let message = match &mut self.behind {
            Behind::Nothing => Ok(host_message(first)),
            Behind::Lost => Err(Error::Failed),
            Behind::Unit(unit) => unit.allow(position, first, count),
        };
        let message = message.map_err(|error| self.count_failure(error))?;
        self.change(position, |state| {
            state.vectors |= vector_bits(first, count);
        });
        Ok(message)
    }

    fn forbid(&mut self, _caller: Caller, vectors: Vectors) -> Result<(), Error> {
        let (position, first, count) = self.lookup_vectors(vectors)?;
        let result = match &mut self.behind {
            Behind::Nothing => Ok(()),
            Behind::Lost => Err(Error::Failed),
            Behind::Unit(unit) => unit.forbid(position, first, count),
        };
        result.map_err(|error| self.count_failure(error))?;
        self.change(position, |state| {
            state.vectors &= !vector_bits(first, count);
        });
        Ok(())
    }
}

impl<F: Frames> IommuDump for Iommu<'_, F> {
    /// Returns the function. The console probes; misses are not counted.
    fn function(&mut self, _caller: Caller, function: FunctionId) -> Result<FunctionState, Error> {
        let position = function.index();
        let state = self.functions.get(position).ok_or(Error::NotFound)?;
        Ok(FunctionState {
            unit: self.kind(),
            attached: state.attached,
            vectors: state.vectors.count_ones() as u8,
            pages: u32::try_from(state.pages()).unwrap_or(u32::MAX),
            faults: self.faults.of[position],
        })
    }

    fn next_fault(&mut self, _caller: Caller, from: u64) -> Result<FaultRecord, Error> {
        self.faults.from(from).ok_or(Error::NotFound)
    }
}
