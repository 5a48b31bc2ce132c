//! VT-d in legacy mode: for each unit a root table, a queue and an interrupt table; a
//! context table for each bus of a unit with a function, and page tables for each function.
//!
//! Section numbers are those of the Intel Virtualization Technology for
//! Directed I/O Architecture Specification, revision 4.x.

mod faults;
mod queue;
mod registers;

use core::ops::Range;

use channel::Error;
use channel::iommu::FaultRecord;
use heapless::Vec;

use crate::hardware::{PAGE, Region, Registers, Stuck, TRIES, Tables, poll};
use crate::pages::{self, Access, Contents, Fixed, Format, Frames, NoFrames, Ram};
use crate::unit::{
    DESTINATION, Failed, Memory, Requester, Requesters, SetupError, Start, Unit, adopt_each, each,
    in_turn,
};
use faults::Records;
use queue::{Failure, Queue};
use registers::{
    Capability, ContextLower, ContextUpper, Extended, Global, InterruptTable, Message, Page,
    ProtectedMemory, RemapLower, RemapUpper, Root,
};
use spec::{FUNCTIONS, IommuKind, MESSAGES, RESERVED, UNITS, cpu_vector};

/// Bytes of a root, context or interrupt entry.
const ENTRY: usize = 16;
/// Context tables: each requester has one, of which those behind one unit and on one bus
/// use the first.
const CONTEXTS: usize = 0;
/// What each unit has of its own; the rest is for page tables.
const OWN: usize = CONTEXTS + (FUNCTIONS + RESERVED) * PAGE;
const OWN_EACH: usize = INTERRUPTS + INTERRUPT_ENTRIES * ENTRY;
const ROOT: usize = 0;
/// One page: 256 descriptors.
const QUEUE: usize = ROOT + PAGE;
/// One page, whose first word a wait stores.
const STATUS: usize = QUEUE + PAGE;
/// The interrupt table: 128 entries for each function.
const INTERRUPTS: usize = STATUS + PAGE;
const INTERRUPTS_EACH: usize = 128;
const INTERRUPT_ENTRIES: usize = FUNCTIONS * INTERRUPTS_EACH;

/// Entries of the interrupt table as the register has them: 2 << this.
const INTERRUPT_SIZE: u64 = INTERRUPT_ENTRIES.trailing_zeros() as u64 - 1;
const _: () = assert!(INTERRUPT_ENTRIES == 2 << INTERRUPT_SIZE && INTERRUPTS.is_multiple_of(PAGE));

/// Errors of the queue that are kept until the faults are looked at.
type QueueFaults = Vec<FaultRecord, 16>;

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

fn page_entry(address: u64, level: usize, access: Access) -> u64 {
    let entry = Page::READ.val(access.read.into())
        + Page::WRITE.val(access.write.into())
        + Page::PAGE.val(address >> 12)
        + Page::LARGE.val(u64::from(level > 1));
    entry.value
}

/// Our side of a unit.
#[derive(Debug)]
struct Side<R> {
    registers: R,
    queue: Queue,
    /// Where its own tables begin.
    own: usize,
    capability: u64,
    records: Records,
}

impl<R: Registers> Side<R> {
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

    fn interrupt_table<T: Tables>(&self, region: &Region<T>) -> u64 {
        let value = InterruptTable::SIZE.val(INTERRUPT_SIZE)
            + InterruptTable::PAGE.val(region.address(self.own + INTERRUPTS) >> 12);
        value.value
    }

    /// Turns it on, with tables that are there.
    fn start<T: Tables>(
        &mut self,
        region: &mut Region<T>,
        queue_faults: &mut QueueFaults,
    ) -> Result<(), Stuck> {
        let queue = region.address(self.own + QUEUE);
        self.registers.write64(registers::QUEUE_TAIL, 0);
        self.registers.write64(registers::QUEUE, queue);
        self.set(Global::QUEUE::SET.value, true, "the queue does not go on")?;
        let root = region.address(self.own + ROOT);
        self.registers.write64(registers::ROOT_TABLE, root);
        self.set(
            Global::SET_ROOT::SET.value,
            true,
            "the root table is not taken",
        )?;
        let interrupts = self.interrupt_table(region);
        self.registers
            .write64(registers::INTERRUPT_TABLE, interrupts);
        self.set(
            Global::SET_INTERRUPTS::SET.value,
            true,
            "the interrupt table is not taken",
        )?;
        self.forget(region, queue_faults, Forget::Everything)?;
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

    fn adopt<T: Tables>(
        &mut self,
        region: &mut Region<T>,
        queue_faults: &mut QueueFaults,
    ) -> Result<(), SetupError> {
        let status = self.registers.read32(registers::STATUS);
        let on = Global::TRANSLATION::SET + Global::REMAPPING::SET + Global::QUEUE::SET;
        if status & on.value == 0 {
            return Err(SetupError::Off);
        }
        let (root, queue) = (
            region.address(self.own + ROOT),
            region.address(self.own + QUEUE),
        );
        let ours = status & on.value == on.value
            && !Global::COMPATIBILITY.is_set(status)
            && self.registers.read64(registers::ROOT_TABLE) == root
            && self.registers.read64(registers::QUEUE) == queue
            && self.registers.read64(registers::INTERRUPT_TABLE) == self.interrupt_table(region);
        if !ours {
            return Err(SetupError::NotOurs);
        }
        self.queue.adopt(&mut self.registers, region);
        self.forget(region, queue_faults, Forget::Everything)
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
    fn forget<T: Tables>(
        &mut self,
        region: &mut Region<T>,
        queue_faults: &mut QueueFaults,
        what: Forget,
    ) -> Result<(), Stuck> {
        for _ in 0..TRIES {
            self.flush_write_buffer()?;
            let errors = match self.ask(region, what) {
                Ok(()) => return Ok(()),
                Err(Failure::Stuck(stuck)) => return Err(stuck),
                Err(Failure::Error(errors)) => errors,
            };
            let at = self.queue.recover(&mut self.registers, region, errors);
            // More than that in one look at the faults are not told apart.
            let _ = queue_faults.push(faults::of_queue(errors, at));
        }
        Err(Stuck("its invalidation queue fails again and again"))
    }

    fn ask<T: Tables>(&mut self, region: &mut Region<T>, what: Forget) -> Result<(), Failure> {
        let registers = &mut self.registers;
        if what != Forget::Interrupts {
            self.queue.translations(registers, region)?;
        }
        if what != Forget::Translations {
            self.queue.interrupts(registers, region)?;
        }
        self.queue.wait(registers, region)
    }
}

/// VT-d units in force.
#[derive(Debug)]
pub struct Intel<R, T> {
    units: Vec<Side<R>, UNITS>,
    region: Region<T>,
    size: usize,
    requesters: Requesters,
    format: Format,
    /// Errors of queues that nobody has looked at.
    queue_faults: QueueFaults,
    /// The unit that is asked first for a fault.
    turn: usize,
}

impl<R: Registers, T: Tables> Intel<R, T> {
    /// Sets the units up, each by its registers, with nothing attached, or takes over ones
    /// that work.
    ///
    /// # Errors
    ///
    /// See [`SetupError`]; after [`Start::Fresh`] the units are then off, as far
    /// as they answer.
    pub fn new(
        units: impl IntoIterator<Item = R>,
        memory: Memory<'_, T>,
        start: Start,
    ) -> Result<Self, Failed> {
        let mut sides = Vec::new();
        let (mut all_can, mut coherent) = (Can::EVERYTHING, true);
        for (position, mut registers) in units.into_iter().enumerate() {
            let capability = registers.read64(registers::CAPABILITY);
            let extended = registers.read64(registers::EXTENDED);
            let failed = |error| Failed {
                unit: position,
                error,
            };
            all_can = check(capability, extended, all_can).map_err(failed)?;
            coherent &= Extended::COHERENT.is_set(extended);
            let own = OWN + position * OWN_EACH;
            let side = Side {
                registers,
                queue: Queue::new(own),
                own,
                capability,
                records: Records::new(capability),
            };
            sides.push(side).map_err(|_| SetupError::Units.of_none())?;
        }
        let fixed = OWN + sides.len() * OWN_EACH;
        let checked = memory.check(sides.len(), fixed);
        let requesters = checked.map_err(SetupError::of_none)?;
        let mut all = Self {
            units: sides,
            region: Region::new(memory.tables, memory.base, coherent),
            size: memory.size,
            requesters,
            format: all_can.format(),
            queue_faults: Vec::new(),
            turn: 0,
        };
        match start {
            Start::Adopt => all.adopt()?,
            Start::Fresh => {
                let done = all.set_up();
                if done.is_err() {
                    for unit in &mut all.units {
                        // Nothing more can be done about a unit that does not
                        // answer.
                        let _ = unit.turn_off();
                    }
                }
                done?;
            }
        }
        Ok(all)
    }

    fn set_up(&mut self) -> Result<(), Failed> {
        each(&mut self.units, Side::turn_off)?;
        self.region.flush(self.size);
        for position in 0..self.requesters.all().len() {
            let requester = self.requesters.all()[position];
            let context = self.region.address(self.context_table(requester));
            let entry = Root::PRESENT::SET + Root::PAGE.val(context >> 12);
            let Requester { id, unit } = requester;
            let root = self.units[usize::from(unit)].own + ROOT;
            self.region
                .write(root + usize::from(id >> 8) * ENTRY, entry.value);
        }
        let (region, faults) = (&mut self.region, &mut self.queue_faults);
        each(&mut self.units, |unit| unit.start(region, faults))
    }

    fn adopt(&mut self) -> Result<(), Failed> {
        let (region, faults) = (&mut self.region, &mut self.queue_faults);
        // The component may have died after it changed an entry, and before the
        // memory or the unit knew.
        region.flush(self.size);
        adopt_each(&mut self.units, |unit| unit.adopt(region, faults))
    }

    /// Has a requester's unit forget what it remembers of its tables.
    fn forget(&mut self, requester: Requester, what: Forget) -> Result<(), Stuck> {
        let unit = usize::from(requester.unit);
        self.units[unit].forget(&mut self.region, &mut self.queue_faults, what)
    }

    fn find(&self, function: usize) -> Result<Requester, Error> {
        let all = self.requesters.functions();
        all.get(function).copied().ok_or(Error::NotFound)
    }

    /// Returns the memory for a set of page tables.
    fn pages(&self, set: usize) -> Range<usize> {
        let start = OWN + self.units.len() * OWN_EACH;
        pages::share(start, self.size, self.requesters.sets(), set)
    }

    /// Returns the context table of a requester's bus: that of the first
    /// requester there, behind the same unit.
    fn context_table(&self, requester: Requester) -> usize {
        let bus = |one: &Requester| (one.unit, one.id >> 8);
        let mut all = self.requesters.all().iter();
        let first = all.position(|one| bus(one) == bus(&requester));
        // It is one of them.
        CONTEXTS + first.unwrap_or_default() * PAGE
    }

    /// Returns where a requester's context entry lies.
    fn context(&self, requester: Requester) -> usize {
        let within = usize::from(requester.id & 0xff);
        self.context_table(requester) + within * ENTRY
    }

    /// Has a requester's entry lead to a set of page tables; to none, if the unit does not
    /// answer.
    fn lead(&mut self, requester: Requester, set: usize) -> Result<(), Error> {
        let place = self.pages(set);
        let upper = ContextUpper::LEVELS.val(self.format.levels as u64 - 2)
            + ContextUpper::DOMAIN.val(domain(set));
        let lower = ContextLower::PRESENT::SET
            + ContextLower::PAGE.val(self.region.address(place.start) >> 12);
        let context = self.context(requester);
        // The half that makes it count comes last.
        self.region.write(context + 8, upper.value);
        self.region.write(context, lower.value);
        let forgotten = self.forget(requester, Forget::Translations);
        if forgotten.is_err() {
            self.region.write(context, 0);
        }
        Ok(forgotten?)
    }

    /// Returns where a vector's entry lies, in the table of the function's unit.
    fn interrupt_place(&self, function: usize, vector: u8) -> usize {
        let unit = self.requesters.functions()[function].unit;
        let unit = &self.units[usize::from(unit)];
        unit.own + INTERRUPTS + interrupt_index(function, vector) * ENTRY
    }
}

/// What the page tables of functions may use: what every unit has, since a table may be
/// looked at by any.
#[derive(Clone, Copy)]
struct Can {
    three_levels: bool,
    four_levels: bool,
    large: bool,
    end: u64,
}

impl Can {
    const EVERYTHING: Self = Self {
        three_levels: true,
        four_levels: true,
        large: true,
        end: u64::MAX,
    };

    /// Returns the format of the page tables.
    const fn format(self) -> Format {
        Format {
            levels: if self.three_levels { 3 } else { 4 },
            large: self.large,
            end: self.end,
            table: table_entry,
            page: page_entry,
        }
    }
}

/// Checks the required capabilities of a unit. Returns what it and those before it have.
fn check(capability: u64, extended: u64, before: Can) -> Result<Can, SetupError> {
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
    if (domains as usize) < FUNCTIONS + 2 {
        return Err(SetupError::NoDomains);
    }
    let can = Can {
        three_levels: before.three_levels && Capability::LEVELS_3.is_set(capability),
        four_levels: before.four_levels && Capability::LEVELS_4.is_set(capability),
        large: before.large && Capability::LARGE.is_set(capability),
        end: before
            .end
            .min(2 << Capability::WIDTH.read(capability).min(51)),
    };
    match can.three_levels || can.four_levels {
        true => Ok(can),
        false => Err(SetupError::NoWalk),
    }
}

/// Returns the domain of a set of page tables.
const fn domain(set: usize) -> u64 {
    set as u64 + 1
}

/// Returns the position of a vector's entry in the interrupt table.
const fn interrupt_index(function: usize, vector: u8) -> usize {
    function * INTERRUPTS_EACH + vector as usize
}

impl<R: Registers, T: Tables> Unit for Intel<R, T> {
    fn kind(&self) -> IommuKind {
        IommuKind::Intel
    }

    fn build(
        &mut self,
        function: usize,
        ram: Ram,
        fixed: &[Fixed],
        frames: &mut dyn Frames,
    ) -> Result<(), Error> {
        self.find(function)?;
        let place = self.pages(function);
        let contents = Contents {
            function,
            ram: Some(ram),
            fixed,
        };
        pages::build(&mut self.region, self.format, place, &contents, frames)
    }

    fn keep(&mut self, fixed: &[Fixed]) -> Result<(), Error> {
        let set = self.requesters.functions().len();
        let place = self.pages(set);
        let contents = Contents {
            function: set,
            ram: None,
            fixed,
        };
        pages::build(
            &mut self.region,
            self.format,
            place,
            &contents,
            &mut NoFrames,
        )?;
        for position in 0..self.requesters.firmware().len() {
            self.lead(self.requesters.firmware()[position], set)?;
        }
        Ok(())
    }

    fn attached(&self, function: usize) -> bool {
        self.find(function).is_ok_and(|requester| {
            ContextLower::PRESENT.is_set(self.region.read(self.context(requester)))
        })
    }

    fn attach(&mut self, function: usize) -> Result<(), Error> {
        let requester = self.find(function)?;
        self.lead(requester, function)
    }

    fn detach(&mut self, function: usize) -> Result<(), Error> {
        let requester = self.find(function)?;
        self.region.write(self.context(requester), 0);
        Ok(self.forget(requester, Forget::Translations)?)
    }

    fn allowed(&self, function: usize, vector: u8) -> bool {
        if self.find(function).is_err() {
            return false;
        }
        let entry = self.interrupt_place(function, vector);
        RemapLower::PRESENT.is_set(self.region.read(entry))
    }

    /// Returns the message. Its address carries the first entry's position; the
    /// device puts a message's number into the data, which is added to it
    /// (section 5.1.3).
    fn allow(&mut self, function: usize, first: u8, count: u8) -> Result<(u64, u32), Error> {
        let requester = self.find(function)?;
        let upper = RemapUpper::SOURCE.val(requester.id.into()) + RemapUpper::VALIDATION::Requester;
        for vector in first..first + count {
            let lower = RemapLower::PRESENT::SET
                + RemapLower::VECTOR.val(cpu_vector(vector).into())
                + RemapLower::DESTINATION.val(DESTINATION.into());
            let entry = self.interrupt_place(function, vector);
            // The half that makes it count comes last.
            self.region.write(entry + 8, upper.value);
            self.region.write(entry, lower.value);
        }
        self.forget(requester, Forget::Interrupts)?;
        let handle = interrupt_index(function, first) as u64;
        let address = Message::RANGE.val(MESSAGES.start >> 20)
            + Message::HANDLE.val(handle)
            + Message::HANDLE_TOP.val(handle >> 15)
            + Message::REMAPPABLE::SET
            + Message::SUBHANDLE::SET;
        Ok((address.value, 0))
    }

    fn forbid(&mut self, function: usize, first: u8, count: u8) -> Result<(), Error> {
        let requester = self.find(function)?;
        for vector in first..first + count {
            let entry = self.interrupt_place(function, vector);
            self.region.write(entry, 0);
        }
        Ok(self.forget(requester, Forget::Interrupts)?)
    }

    fn next_fault(&mut self) -> Option<FaultRecord> {
        let of_queue = self.queue_faults.pop();
        of_queue.or_else(|| {
            in_turn(&mut self.units, &mut self.turn, |unit| {
                unit.records.next(&mut unit.registers)
            })
        })
    }

    fn overflowed(&mut self) -> bool {
        let restart = |lost, unit: &mut Side<R>| lost | Records::restart(&mut unit.registers);
        self.units.iter_mut().fold(false, restart)
    }

    fn explain(&self, reason: u8) -> &'static str {
        faults::explain(reason)
    }
}
