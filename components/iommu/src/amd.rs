//! AMD-Vi: one device table with an entry for every requester id, an interrupt
//! table and page tables for each function, which all units share; commands and
//! events of each unit.
//!
//! An entry of 32 bytes for every id is 2 MiB, too much for each unit. An id has one
//! entry, whichever unit looks at it: a device behind another unit that could send
//! another's id would count as that one, as it does behind the same unit.
//!
//! Section numbers are those of the AMD I/O Virtualization Technology (IOMMU)
//! Specification, 48882 revision 3.x.

mod commands;
mod events;
mod registers;

use core::ops::Range;

use channel::Error;
use channel::iommu::FaultRecord;
use heapless::Vec;
use tock_registers::fields::FieldValue;

use crate::hardware::{PAGE, Region, Registers, Stuck, TRIES, Tables, poll};
use crate::pages::{self, Access, Contents, Fixed, Format, Frames, NoFrames, Ram};
use crate::unit::{
    DESTINATION, Failed, Memory, Requester, Requesters, SetupError, Start, Unit, adopt_each, each,
    in_turn,
};
use commands::{Failure, Queue};
use registers::{
    Buffer, Control, DeviceTable, Domain, Exclusion, Features, Interrupts, Page, Remap, Status,
    Translation,
};
use spec::{FUNCTIONS, IommuKind, MESSAGES, UNITS, cpu_vector};

/// The device table has all 65536 entries: an id above its end would not be
/// confined by every unit (QEMU's does not look at the length).
const IDS: usize = 1 << 16;
/// Bytes of a device table entry.
const ENTRY: usize = 32;
const DEVICES: usize = 0;
/// Interrupt tables, one for each function. A message's index has 11 bits; a
/// table of that length has an entry of ours for each.
const INTERRUPTS: usize = DEVICES + IDS * ENTRY;
const INTERRUPT_LENGTH: u64 = 11;
const INTERRUPT_TABLE: usize = 4 << INTERRUPT_LENGTH;
/// What each unit has of its own; the rest is for page tables.
const OWN: usize = INTERRUPTS + FUNCTIONS * INTERRUPT_TABLE;
const OWN_EACH: usize = STATUS + PAGE;
/// Of that, one page: 256 commands.
const COMMANDS: usize = 0;
/// One page: 256 events.
const EVENTS: usize = COMMANDS + PAGE;
/// One page, of which the first word is what COMPLETION_WAIT stores.
const STATUS: usize = EVENTS + PAGE;
/// Entries of a command buffer or event log of one page, as a power of two.
const BUFFER_LENGTH: u64 = 8;
/// Three levels, 512 GiB, with pages of 2 MiB, which every unit has: an entry of
/// level 2 whose next level is 0 (section 2.2.3).
const FORMAT: Format = Format {
    levels: 3,
    large: true,
    end: 1 << 39,
    table: |address, level| page_entry(address, Access::FULL, Page::NEXT.val(level as u64)),
    page: |address, _, access| page_entry(address, access, Page::COHERENT::SET),
};

fn page_entry(address: u64, access: Access, more: FieldValue<u64, Page::Register>) -> u64 {
    let entry = Page::PRESENT::SET
        + Page::ADDRESS.val(address >> 12)
        + Page::READ.val(access.read.into())
        + Page::WRITE.val(access.write.into())
        + more;
    entry.value
}

/// Returns the first word of an entry whose device reaches nothing: no tables,
/// and no permission.
fn blocked() -> u64 {
    (Translation::VALID::SET + Translation::TRANSLATION_VALID::SET).value
}

/// Our side of a unit.
#[derive(Debug)]
struct Side<R> {
    registers: R,
    queue: Queue,
    /// Where its own tables begin.
    own: usize,
}

impl<R: Registers> Side<R> {
    /// Returns the control register with the firmware's fields and nothing
    /// else.
    fn control_off(&mut self) -> u64 {
        let firmware = Control::TUNNEL::SET
            + Control::TIMEOUT.val(7)
            + Control::PASS_WRITES::SET
            + Control::PASS_RESPONSES::SET
            + Control::ISOCHRONOUS::SET;
        self.registers.read64(registers::CONTROL) & firmware.value
    }

    fn turn_off(&mut self) {
        let off = self.control_off();
        self.registers.write64(registers::CONTROL, off);
    }

    fn turn_on(&mut self) {
        let on = Control::ENABLE::SET
            + Control::EVENT_LOG::SET
            + Control::COHERENT::SET
            + Control::COMMANDS::SET;
        let off = self.control_off();
        self.registers.write64(registers::CONTROL, off | on.value);
    }

    /// Turns it off, and waits until what the firmware started has ended.
    fn stop(&mut self) -> Result<(), Stuck> {
        self.turn_off();
        let registers = &mut self.registers;
        let running = Status::COMMAND_RUN::SET + Status::EVENT_RUN::SET;
        poll("it does not stop what the firmware started", || {
            registers.read64(registers::STATUS) & running.value == 0
        })
    }

    /// Turns it on, with tables that are there.
    fn start<T: Tables>(&mut self, region: &mut Region<T>, sets: usize) -> Result<(), Stuck> {
        let (commands, events) = self.buffers(region);
        self.registers
            .write64(registers::DEVICE_TABLE, device_table(region));
        self.registers.write64(registers::COMMAND_BASE, commands);
        self.registers.write64(registers::EVENT_BASE, events);
        for pointer in [
            registers::COMMAND_HEAD,
            registers::COMMAND_TAIL,
            registers::EVENT_HEAD,
            registers::EVENT_TAIL,
            registers::EXCLUSION_BASE,
        ] {
            self.registers.write64(pointer, 0);
        }
        self.turn_on();
        self.again(region, |queue, registers, region| {
            forget_everything(queue, registers, region, sets)
        })
    }

    /// Returns what its registers say of command buffer and event log.
    fn buffers<T: Tables>(&self, region: &Region<T>) -> (u64, u64) {
        let of = |offset: usize| {
            let page = region.address(self.own + offset) >> 12;
            (Buffer::PAGE.val(page) + Buffer::LENGTH.val(BUFFER_LENGTH)).value
        };
        (of(COMMANDS), of(EVENTS))
    }

    fn adopt<T: Tables>(
        &mut self,
        region: &mut Region<T>,
        requesters: &[Requester],
    ) -> Result<(), SetupError> {
        let control = self.registers.read64(registers::CONTROL);
        if !Control::ENABLE.is_set(control) {
            return Err(SetupError::Off);
        }
        let (commands, events) = self.buffers(region);
        let excluded = self.registers.read64(registers::EXCLUSION_BASE);
        let ours = Control::COMMANDS.is_set(control)
            && !Exclusion::ENABLE.is_set(excluded)
            && self.registers.read64(registers::DEVICE_TABLE) == device_table(region)
            && self.registers.read64(registers::COMMAND_BASE) == commands
            && self.registers.read64(registers::EVENT_BASE) == events;
        if !ours {
            return Err(SetupError::NotOurs);
        }
        self.queue.adopt(&mut self.registers, region);
        // The component may have died between the two halves of a restart of
        // the event log, or after it changed an entry and before the unit knew.
        self.turn_on();
        self.again(region, |queue, registers, region| {
            forget_functions(queue, registers, region, requesters)
        })
        .map_err(|stuck| SetupError::Lost(stuck.0))
    }

    /// Asks the unit to forget something. If it stops at a command it is asked again, a few
    /// times.
    fn again<T: Tables>(
        &mut self,
        region: &mut Region<T>,
        ask: impl Fn(&mut Queue, &mut R, &mut Region<T>) -> Result<(), Failure>,
    ) -> Result<(), Stuck> {
        for _ in 0..TRIES {
            match ask(&mut self.queue, &mut self.registers, region) {
                Ok(()) => return Ok(()),
                Err(Failure::Stuck(stuck)) => return Err(stuck),
                Err(Failure::Stopped) => self.queue.recover(&mut self.registers),
            }
        }
        Err(Stuck("its command buffer stops again and again"))
    }
}

/// Returns what a unit's register says of the device table.
fn device_table<T: Tables>(region: &Region<T>) -> u64 {
    let pages = IDS * ENTRY / PAGE;
    let value = DeviceTable::SIZE.val(pages as u64 - 1)
        + DeviceTable::PAGE.val(region.address(DEVICES) >> 12);
    value.value
}

/// Invalidates all cached entries of a unit: in one command, or
/// each requester id for itself. Translations need no more than our own
/// domains: no entry names another.
fn forget_everything<R: Registers, T: Tables>(
    queue: &mut Queue,
    registers: &mut R,
    region: &mut Region<T>,
    sets: usize,
) -> Result<(), Failure> {
    if Features::INVALIDATE_ALL.is_set(registers.read64(registers::FEATURES)) {
        queue.all(registers, region)?;
    } else {
        for id in 0..=u16::MAX {
            queue.device(registers, region, id)?;
            queue.interrupts(registers, region, id)?;
        }
        for set in 0..sets {
            queue.pages(registers, region, domain(set))?;
        }
        queue.pages(registers, region, 0)?;
    }
    queue.wait(registers, region)
}

/// Makes a unit forget all that it remembers of the functions.
fn forget_functions<R: Registers, T: Tables>(
    queue: &mut Queue,
    registers: &mut R,
    region: &mut Region<T>,
    requesters: &[Requester],
) -> Result<(), Failure> {
    for (function, requester) in requesters.iter().enumerate() {
        queue.device(registers, region, requester.id)?;
        queue.pages(registers, region, domain(function))?;
        queue.interrupts(registers, region, requester.id)?;
    }
    queue.wait(registers, region)
}

/// AMD-Vi units in force.
#[derive(Debug)]
pub struct Amd<R, T> {
    units: Vec<Side<R>, UNITS>,
    region: Region<T>,
    size: usize,
    requesters: Requesters,
    /// The unit that is asked first for a fault.
    turn: usize,
}

impl<R: Registers, T: Tables> Amd<R, T> {
    /// Sets the units up, each by its registers, with every requester id on abort, or takes
    /// over ones that work.
    ///
    /// # Errors
    ///
    /// See [`SetupError`]; after [`Start::Fresh`] the units are then off.
    pub fn new(
        units: impl IntoIterator<Item = R>,
        memory: Memory<'_, T>,
        start: Start,
    ) -> Result<Self, Failed> {
        let mut sides = Vec::new();
        for registers in units {
            let own = OWN + sides.len() * OWN_EACH;
            let side = Side {
                registers,
                queue: Queue::new(own),
                own,
            };
            sides.push(side).map_err(|_| SetupError::Units.of_none())?;
        }
        let fixed = OWN + sides.len() * OWN_EACH;
        let checked = memory.check(sides.len(), fixed);
        let requesters = checked.map_err(SetupError::of_none)?;
        let mut all = Self {
            units: sides,
            region: Region::new(memory.tables, memory.base, true),
            size: memory.size,
            requesters,
            turn: 0,
        };
        each(&mut all.units, |unit| {
            match unit.registers.read64(registers::CONTROL) {
                u64::MAX => Err(SetupError::Absent),
                _ => Ok(()),
            }
        })?;
        match start {
            Start::Adopt => {
                let (region, requesters) = (&mut all.region, all.requesters.functions());
                adopt_each(&mut all.units, |unit| unit.adopt(region, requesters))?;
            }
            Start::Fresh => {
                let done = all.set_up();
                if done.is_err() {
                    all.units.iter_mut().for_each(Side::turn_off);
                }
                done?;
            }
        }
        Ok(all)
    }

    fn set_up(&mut self) -> Result<(), Failed> {
        each(&mut self.units, Side::stop)?;
        let abort = Interrupts::VALID::SET + Interrupts::CONTROL::Abort;
        self.region
            .fill(DEVICES, [blocked(), 0, abort.value, 0], IDS);
        for function in 0..self.requesters.functions().len() {
            let table = self.region.address(interrupt_table(function));
            let remap = Interrupts::VALID::SET
                + Interrupts::LENGTH.val(INTERRUPT_LENGTH)
                + Interrupts::TABLE.val(table >> 6)
                + Interrupts::CONTROL::Remap;
            self.region.write(self.entry(function) + 16, remap.value);
        }
        let (region, sets) = (&mut self.region, self.requesters.sets());
        each(&mut self.units, |unit| unit.start(region, sets))
    }

    /// Returns the memory for a set of page tables.
    fn pages(&self, set: usize) -> Range<usize> {
        let start = OWN + self.units.len() * OWN_EACH;
        pages::share(start, self.size, self.requesters.sets(), set)
    }

    /// Returns where a function's device table entry lies.
    fn entry(&self, function: usize) -> usize {
        entry_of(self.requesters.functions()[function])
    }

    /// Writes an entry that leads to a set of page tables.
    fn lead(&mut self, entry: usize, set: usize) {
        let place = self.pages(set);
        let translated = Translation::VALID::SET
            + Translation::TRANSLATION_VALID::SET
            + Translation::LEVELS.val(FORMAT.levels as u64)
            + Translation::ROOT.val(self.region.address(place.start) >> 12)
            + Translation::READ::SET
            + Translation::WRITE::SET;
        // The domain first: while the unit may see one word without the other,
        // the device still reaches nothing.
        let domain = Domain::ID.val(domain(set).into());
        self.region.write(entry + 8, domain.value);
        self.region.write(entry, translated.value);
    }

    /// Checks that there is such a function: [`Error::NotFound`] if not.
    fn find(&self, function: usize) -> Result<(), Error> {
        let there = function < self.requesters.functions().len();
        there.then_some(()).ok_or(Error::NotFound)
    }

    /// Asks each unit to forget something. All of them, since each finds the function's entry
    /// if its id comes to it.
    fn again(
        &mut self,
        ask: impl Fn(&mut Queue, &mut R, &mut Region<T>) -> Result<(), Failure>,
    ) -> Result<(), Stuck> {
        let mut result = Ok(());
        for unit in &mut self.units {
            // One that does not answer keeps no other from being asked.
            result = result.and(unit.again(&mut self.region, &ask));
        }
        result
    }

    /// Makes the units read an id's entry again, and forget the
    /// translations of its set of page tables.
    fn forget(&mut self, id: u16, set: usize) -> Result<(), Stuck> {
        self.again(|queue, registers, region| {
            queue.device(registers, region, id)?;
            queue.pages(registers, region, domain(set))?;
            queue.wait(registers, region)
        })
    }

    /// Makes the units read a function's interrupt table again.
    fn forget_interrupts(&mut self, function: usize) -> Result<(), Stuck> {
        let id = self.requesters.functions()[function].id;
        self.again(|queue, registers, region| {
            queue.interrupts(registers, region, id)?;
            queue.wait(registers, region)
        })
    }

    /// Writes a function's interrupt entries, two to a word.
    fn write_interrupts(
        &mut self,
        function: usize,
        first: u8,
        count: u8,
        entry: fn(u8) -> u32,
    ) -> Result<(), Error> {
        self.find(function)?;
        for vector in first..first + count {
            let (at, half) = interrupt_place(function, vector);
            let word = self.region.read(at) & !(0xffff_ffff << half);
            self.region
                .write(at, word | u64::from(entry(vector)) << half);
        }
        Ok(self.forget_interrupts(function)?)
    }
}

/// Returns where a requester's device table entry lies.
fn entry_of(requester: Requester) -> usize {
    DEVICES + usize::from(requester.id) * ENTRY
}

/// Returns the domain of a set of page tables. 0 is that of the devices on abort. Below 256,
/// since QEMU takes bit 8 for a reserved one.
const fn domain(set: usize) -> u16 {
    set as u16 + 1
}

const fn interrupt_table(function: usize) -> usize {
    INTERRUPTS + function * INTERRUPT_TABLE
}

/// Returns the word with a vector's entry, and the entry's first bit in it.
const fn interrupt_place(function: usize, vector: u8) -> (usize, u32) {
    let at = interrupt_table(function) + vector as usize / 2 * 8;
    (at, vector as u32 % 2 * 32)
}

impl<R: Registers, T: Tables> Unit for Amd<R, T> {
    fn kind(&self) -> IommuKind {
        IommuKind::Amd
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
        pages::build(&mut self.region, FORMAT, place, &contents, frames)
    }

    fn keep(&mut self, fixed: &[Fixed]) -> Result<(), Error> {
        let set = self.requesters.functions().len();
        let place = self.pages(set);
        let contents = Contents {
            function: set,
            ram: None,
            fixed,
        };
        pages::build(&mut self.region, FORMAT, place, &contents, &mut NoFrames)?;
        for position in 0..self.requesters.firmware().len() {
            let requester = self.requesters.firmware()[position];
            self.lead(entry_of(requester), set);
            let forgotten = self.forget(requester.id, set);
            if forgotten.is_err() {
                self.region.write(entry_of(requester), blocked());
            }
            forgotten?;
        }
        Ok(())
    }

    fn attached(&self, function: usize) -> bool {
        self.find(function).is_ok()
            && Translation::LEVELS.read(self.region.read(self.entry(function))) != 0
    }

    fn attach(&mut self, function: usize) -> Result<(), Error> {
        self.find(function)?;
        let entry = self.entry(function);
        self.lead(entry, function);
        let id = self.requesters.functions()[function].id;
        let forgotten = self.forget(id, function);
        if forgotten.is_err() {
            self.region.write(entry, blocked());
        }
        Ok(forgotten?)
    }

    fn detach(&mut self, function: usize) -> Result<(), Error> {
        self.find(function)?;
        self.region.write(self.entry(function), blocked());
        let id = self.requesters.functions()[function].id;
        Ok(self.forget(id, function)?)
    }

    fn allowed(&self, function: usize, vector: u8) -> bool {
        let (at, half) = interrupt_place(function, vector);
        self.find(function).is_ok() && Remap::VALID.is_set((self.region.read(at) >> half) as u32)
    }

    /// Returns the message's address. Its data is the entry's index: the vector. The device
    /// adds a message's number to it (section 2.2.5).
    fn allow(&mut self, function: usize, first: u8, count: u8) -> Result<(u64, u32), Error> {
        self.write_interrupts(function, first, count, |vector| {
            let entry = Remap::VALID::SET
                + Remap::DESTINATION.val(DESTINATION.into())
                + Remap::VECTOR.val(cpu_vector(vector).into());
            entry.value
        })?;
        Ok((MESSAGES.start, first.into()))
    }

    fn forbid(&mut self, function: usize, first: u8, count: u8) -> Result<(), Error> {
        self.write_interrupts(function, first, count, |_| 0)
    }

    fn next_fault(&mut self) -> Option<FaultRecord> {
        let region = &mut self.region;
        in_turn(&mut self.units, &mut self.turn, |unit| {
            events::next(&mut unit.registers, region, unit.own)
        })
    }

    fn overflowed(&mut self) -> bool {
        let restart = |lost, unit: &mut Side<R>| lost | events::restart(&mut unit.registers);
        self.units.iter_mut().fold(false, restart)
    }

    fn explain(&self, reason: u8) -> &'static str {
        events::explain(reason)
    }
}
