//! VT-d in legacy mode: a root table, a context table for each bus of a
//! function, page tables for each function, and one interrupt table.
//!
//! Section numbers are those of the Intel Virtualization Technology for
//! Directed I/O Architecture Specification, revision 4.x.

mod faults;
mod queue;
mod registers;

use channel::Error;
use channel::iommu::FaultRecord;

use crate::hardware::{PAGE, Region, Registers, Stuck, TRIES, Tables, poll};
use crate::pages::{self, Format, Frames, Ram};
use crate::unit::{DESTINATION, Memory, Requesters, SetupError, Start, Unit};
use faults::Records;
use queue::{Failure, Queue};
use registers::{
    Capability, ContextLower, ContextUpper, Extended, Global, InterruptTable, Message, Page,
    ProtectedMemory, RemapLower, RemapUpper, Root,
};
use spec::{FUNCTIONS, IommuKind, MESSAGES, cpu_vector};

/// Bytes of a root, context or interrupt entry.
const ENTRY: usize = 16;
const ROOT: usize = 0;
/// Context tables: each function has one, of which functions on one bus use the
/// first.
const CONTEXTS: usize = ROOT + PAGE;
/// One page: 256 descriptors.
const QUEUE: usize = CONTEXTS + FUNCTIONS * PAGE;
/// One page, whose first word a wait stores.
const STATUS: usize = QUEUE + PAGE;
/// The interrupt table: 128 entries for each function.
const INTERRUPTS: usize = STATUS + PAGE;
const INTERRUPTS_EACH: usize = 128;
const INTERRUPT_ENTRIES: usize = FUNCTIONS * INTERRUPTS_EACH;
/// The rest is for page tables.
const PAGES: usize = INTERRUPTS + INTERRUPT_ENTRIES * ENTRY;

/// Entries of the interrupt table as the register has them: 2 << this.
const INTERRUPT_SIZE: u64 = INTERRUPT_ENTRIES.trailing_zeros() as u64 - 1;
const _: () = assert!(INTERRUPT_ENTRIES == 2 << INTERRUPT_SIZE && INTERRUPTS.is_multiple_of(PAGE));

/// Errors of the queue that are kept until the faults are looked at.
const QUEUE_FAULTS: usize = 16;

/// What the unit is to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forget {
    Everything,
    Translations,
    Interrupts,
}

fn table_entry(address: u64, _level: usize) -> u64 {
    (Page::READ::SET + Page::WRITE::SET + Page::PAGE.val(address >> 12)).value
}

fn page_entry(address: u64, level: usize) -> u64 {
    table_entry(address, level) | Page::LARGE.val(u64::from(level > 1)).value
}

/// A VT-d unit in force.
#[derive(Debug)]
pub struct Intel<R, T> {
    registers: R,
    region: Region<T>,
    size: usize,
    requesters: Requesters,
    queue: Queue,
    capability: u64,
    format: Format,
    records: Records,
    /// Errors of the queue that nobody has looked at.
    queue_faults: heapless::Vec<FaultRecord, QUEUE_FAULTS>,
}

impl<R: Registers, T: Tables> Intel<R, T> {
    /// Sets the unit up, with nothing attached, or takes over one that works.
    ///
    /// # Errors
    ///
    /// See [`SetupError`]; after [`Start::Fresh`] the unit is then off, as far
    /// as it answers.
    pub fn new(mut registers: R, memory: Memory<'_, T>, start: Start) -> Result<Self, SetupError> {
        let requesters = memory.check(PAGES)?;
        let capability = registers.read64(registers::CAPABILITY);
        let extended = registers.read64(registers::EXTENDED);
        let format = check(capability, extended)?;
        let coherent = Extended::COHERENT.is_set(extended);
        let mut unit = Self {
            registers,
            region: Region::new(memory.tables, memory.base, coherent),
            size: memory.size,
            requesters,
            queue: Queue::new(),
            capability,
            format,
            records: Records::new(capability),
            queue_faults: heapless::Vec::new(),
        };
        match start {
            Start::Adopt => unit.adopt()?,
            Start::Fresh => {
                if let Err(error) = unit.set_up() {
                    // Nothing more can be done about a unit that does not
                    // answer.
                    let _ = unit.turn_off();
                    return Err(error.into());
                }
            }
        }
        Ok(unit)
    }

    /// Switches a bit of the global command, and waits for the unit to follow.
    fn set(&mut self, bit: u32, on: bool, what: &'static str) -> Result<(), Stuck> {
        let status = self.registers.read32(registers::STATUS);
        let others = status & registers::COMMAND_KEEPS & !bit;
        let asked = if on { bit } else { 0 };
        self.registers.write32(registers::COMMAND, others | asked);
        let registers = &mut self.registers;
        poll(what, || registers.read32(registers::STATUS) & bit == asked)
    }

    /// Switches off in the order that never leaves a table in use whose address
    /// changes: translation, remapping, then the queue, which both need.
    fn turn_off(&mut self) -> Result<(), Stuck> {
        let bits = [
            (Global::TRANSLATION::SET, "translation does not go off"),
            (Global::REMAPPING::SET, "remapping does not go off"),
            (Global::QUEUE::SET, "the queue does not go off"),
        ];
        for (bit, what) in bits {
            self.set(bit.value, false, what)?;
        }
        Ok(())
    }

    fn interrupt_table(&self) -> u64 {
        let value = InterruptTable::SIZE.val(INTERRUPT_SIZE)
            + InterruptTable::PAGE.val(self.region.address(INTERRUPTS) >> 12);
        value.value
    }

    fn set_up(&mut self) -> Result<(), Stuck> {
        self.turn_off()?;
        self.region.flush(self.size);
        for function in 0..self.requesters.len() {
            let context = self.region.address(self.context_table(function));
            let entry = Root::PRESENT::SET + Root::PAGE.val(context >> 12);
            let bus = usize::from(self.requesters[function] >> 8);
            self.region.write(ROOT + bus * ENTRY, entry.value);
        }
        let queue = self.region.address(QUEUE);
        self.registers.write64(registers::QUEUE_TAIL, 0);
        self.registers.write64(registers::QUEUE, queue);
        self.set(Global::QUEUE::SET.value, true, "the queue does not go on")?;
        let root = self.region.address(ROOT);
        self.registers.write64(registers::ROOT_TABLE, root);
        self.set(
            Global::SET_ROOT::SET.value,
            true,
            "the root table is not taken",
        )?;
        let interrupts = self.interrupt_table();
        self.registers
            .write64(registers::INTERRUPT_TABLE, interrupts);
        self.set(
            Global::SET_INTERRUPTS::SET.value,
            true,
            "the interrupt table is not taken",
        )?;
        self.forget(Forget::Everything)?;
        self.set(
            Global::COMPATIBILITY::SET.value,
            false,
            "compatibility-format messages do not go off",
        )?;
        self.set(
            Global::REMAPPING::SET.value,
            true,
            "remapping does not go on",
        )?;
        self.set(
            Global::TRANSLATION::SET.value,
            true,
            "translation does not go on",
        )?;
        self.unprotect_memory()?;
        // Earlier records are not about our tables.
        self.records.clear(&mut self.registers);
        Ok(())
    }

    /// Ends the firmware's protection of memory, which our tables replace, and
    /// which would keep functions from their guest's memory (section 7.5).
    fn unprotect_memory(&mut self) -> Result<(), Stuck> {
        let present = Capability::PROTECTED_LOW.is_set(self.capability)
            || Capability::PROTECTED_HIGH.is_set(self.capability);
        if !present {
            return Ok(());
        }
        let registers = &mut self.registers;
        registers.write32(registers::PROTECTED_MEMORY, 0);
        poll("protected memory does not go off", || {
            !ProtectedMemory::STATUS.is_set(registers.read32(registers::PROTECTED_MEMORY))
        })
    }

    fn adopt(&mut self) -> Result<(), SetupError> {
        let status = self.registers.read32(registers::STATUS);
        let on = Global::TRANSLATION::SET + Global::REMAPPING::SET + Global::QUEUE::SET;
        if status & on.value == 0 {
            return Err(SetupError::Off);
        }
        let ours = status & on.value == on.value
            && !Global::COMPATIBILITY.is_set(status)
            && self.registers.read64(registers::ROOT_TABLE) == self.region.address(ROOT)
            && self.registers.read64(registers::QUEUE) == self.region.address(QUEUE)
            && self.registers.read64(registers::INTERRUPT_TABLE) == self.interrupt_table();
        if !ours {
            return Err(SetupError::NotOurs);
        }
        self.queue = Queue::adopt(&mut self.registers, &self.region);
        // The component may have died after it changed an entry, and before the
        // memory or the unit knew.
        self.region.flush(self.size);
        self.forget(Forget::Everything)
            .map_err(|stuck| SetupError::Lost(stuck.0))
    }

    /// Flushes the unit's write buffer, if it has one
    /// (section 6.8).
    fn flush_write_buffer(&mut self) -> Result<(), Stuck> {
        if !Capability::WRITE_BUFFER.is_set(self.capability) {
            return Ok(());
        }
        let registers = &mut self.registers;
        let status = registers.read32(registers::STATUS) & registers::COMMAND_KEEPS;
        let flush = Global::WRITE_BUFFER::SET.value;
        registers.write32(registers::COMMAND, status | flush);
        poll("its write buffer is not flushed", || {
            registers.read32(registers::STATUS) & flush == 0
        })
    }

    /// Has the unit forget what it remembers of its tables. After an error of its queue it is
    /// asked again, a few times.
    fn forget(&mut self, what: Forget) -> Result<(), Stuck> {
        for _ in 0..TRIES {
            self.flush_write_buffer()?;
            let errors = match self.ask(what) {
                Ok(()) => return Ok(()),
                Err(Failure::Stuck(stuck)) => return Err(stuck),
                Err(Failure::Error(errors)) => errors,
            };
            let at = Queue::recover(&mut self.registers, &mut self.region, errors);
            // More than that in one look at the faults are not told apart.
            let _ = self.queue_faults.push(faults::of_queue(errors, at));
        }
        Err(Stuck("its invalidation queue fails again and again"))
    }

    fn ask(&mut self, what: Forget) -> Result<(), Failure> {
        let (registers, region) = (&mut self.registers, &mut self.region);
        if what != Forget::Interrupts {
            self.queue.translations(registers, region)?;
        }
        if what != Forget::Translations {
            self.queue.interrupts(registers, region)?;
        }
        self.queue.wait(registers, region)
    }

    fn find(&self, function: usize) -> Result<u16, Error> {
        self.requesters
            .get(function)
            .copied()
            .ok_or(Error::NotFound)
    }

    /// Returns the context table of a function's bus: that of the first
    /// function there.
    fn context_table(&self, function: usize) -> usize {
        let bus = self.requesters[function] >> 8;
        let first = self.requesters.iter().position(|id| id >> 8 == bus);
        CONTEXTS + first.unwrap_or(function) * PAGE
    }

    /// Returns where a function's context entry lies.
    fn context(&self, function: usize) -> usize {
        let within = usize::from(self.requesters[function] & 0xff);
        self.context_table(function) + within * ENTRY
    }
}

/// Checks the required capabilities. Returns the format of the page tables.
fn check(capability: u64, extended: u64) -> Result<Format, SetupError> {
    // What an address with nothing behind it reads, by machine.
    if matches!((capability, extended), (u64::MAX, u64::MAX) | (0, 0)) {
        return Err(SetupError::Absent);
    }
    if !Extended::QUEUE.is_set(extended) {
        return Err(SetupError::NoQueue);
    }
    if !Extended::REMAPPING.is_set(extended) {
        return Err(SetupError::NoRemapping);
    }
    // Domain 0 is not for use in caching mode (section 6.1).
    let domains = 1u32 << (4 + 2 * Capability::DOMAINS.read(capability));
    if (domains as usize) < FUNCTIONS + 1 {
        return Err(SetupError::NoDomains);
    }
    let levels = if Capability::LEVELS_3.is_set(capability) {
        3
    } else if Capability::LEVELS_4.is_set(capability) {
        4
    } else {
        return Err(SetupError::NoWalk);
    };
    Ok(Format {
        levels,
        large: Capability::LARGE.is_set(capability),
        end: 2 << Capability::WIDTH.read(capability).min(51),
        table: table_entry,
        page: page_entry,
    })
}

/// Returns a function's domain.
const fn domain(function: usize) -> u64 {
    function as u64 + 1
}

/// Returns the position of a vector's entry in the interrupt table.
const fn interrupt_index(function: usize, vector: u8) -> usize {
    function * INTERRUPTS_EACH + vector as usize
}

const fn interrupt_place(function: usize, vector: u8) -> usize {
    INTERRUPTS + interrupt_index(function, vector) * ENTRY
}

impl<R: Registers, T: Tables> Unit for Intel<R, T> {
    fn kind(&self) -> IommuKind {
        IommuKind::Intel
    }

    fn build(&mut self, function: usize, ram: Ram, frames: &mut dyn Frames) -> Result<(), Error> {
        self.find(function)?;
        let place = pages::share(PAGES, self.size, self.requesters.len(), function);
        pages::build(&mut self.region, self.format, place, function, ram, frames)
    }

    fn attached(&self, function: usize) -> bool {
        self.find(function).is_ok()
            && ContextLower::PRESENT.is_set(self.region.read(self.context(function)))
    }

    fn attach(&mut self, function: usize) -> Result<(), Error> {
        self.find(function)?;
        let place = pages::share(PAGES, self.size, self.requesters.len(), function);
        let upper = ContextUpper::LEVELS.val(self.format.levels as u64 - 2)
            + ContextUpper::DOMAIN.val(domain(function));
        let lower = ContextLower::PRESENT::SET
            + ContextLower::PAGE.val(self.region.address(place.start) >> 12);
        let context = self.context(function);
        // The half that makes it count comes last.
        self.region.write(context + 8, upper.value);
        self.region.write(context, lower.value);
        let forgotten = self.forget(Forget::Translations);
        if forgotten.is_err() {
            self.region.write(context, 0);
        }
        Ok(forgotten?)
    }

    fn detach(&mut self, function: usize) -> Result<(), Error> {
        self.find(function)?;
        self.region.write(self.context(function), 0);
        Ok(self.forget(Forget::Translations)?)
    }

    fn allowed(&self, function: usize, vector: u8) -> bool {
        let entry = interrupt_place(function, vector);
        self.find(function).is_ok() && RemapLower::PRESENT.is_set(self.region.read(entry))
    }

    /// Returns the message. Its address carries the first entry's position; the
    /// device puts a message's number into the data, which is added to it
    /// (section 5.1.3).
    fn allow(&mut self, function: usize, first: u8, count: u8) -> Result<(u64, u32), Error> {
        let requester = self.find(function)?;
        let upper = RemapUpper::SOURCE.val(requester.into()) + RemapUpper::VALIDATION::Requester;
        for vector in first..first + count {
            let lower = RemapLower::PRESENT::SET
                + RemapLower::VECTOR.val(cpu_vector(vector).into())
                + RemapLower::DESTINATION.val(DESTINATION.into());
            let entry = interrupt_place(function, vector);
            // The half that makes it count comes last.
            self.region.write(entry + 8, upper.value);
            self.region.write(entry, lower.value);
        }
        self.forget(Forget::Interrupts)?;
        let handle = interrupt_index(function, first) as u64;
        let address = Message::RANGE.val(MESSAGES.start >> 20)
            + Message::HANDLE.val(handle)
            + Message::HANDLE_TOP.val(handle >> 15)
            + Message::REMAPPABLE::SET
            + Message::SUBHANDLE::SET;
        Ok((address.value, 0))
    }

    fn forbid(&mut self, function: usize, first: u8, count: u8) -> Result<(), Error> {
        self.find(function)?;
        for vector in first..first + count {
            self.region.write(interrupt_place(function, vector), 0);
        }
        Ok(self.forget(Forget::Interrupts)?)
    }

    fn next_fault(&mut self) -> Option<FaultRecord> {
        let of_queue = self.queue_faults.pop();
        of_queue.or_else(|| self.records.next(&mut self.registers))
    }

    fn overflowed(&mut self) -> bool {
        Records::restart(&mut self.registers)
    }

    fn explain(&self, reason: u8) -> &'static str {
        faults::explain(reason)
    }
}
