//! Makes objects, hands out capabilities and configures threads.

use heapless::Vec;
use init::{Chunk, Exhausted, Places, Split, Untypeds, chunks};
use sel4::cap::{CNode, Granule, Notification, Tcb, VSpace};
use sel4::init_thread::slot;
use sel4::{
    AbsoluteCPtr, BootInfo, CNodeCapData, Cap, CapRights, Error, ObjectBlueprint, VmAttributes,
};
use spec::{BY_TABLES, Capability, NONE, Object, ObjectKind, Requires, Start, System, Thread};

use super::authority::Kept;
use super::fatal::fatal;
use super::screen::Taken;
use super::{own_slot, ports, rights};

/// Objects in an image; the web system has about 150.
const MAX_OBJECTS: usize = 2048;
/// Where init maps its own log ring.
const LOG: usize = 0x3_0000_0000;

/// Makes the kernel's slots from consecutive numbers.
struct Slots {
    next: usize,
    end: usize,
}

impl Slots {
    fn take(&mut self, count: usize) -> usize {
        let first = self.next;
        self.next += count;
        if self.next > self.end {
            fatal!("out of capability slots: init's CNode has {}", self.end);
        }
        first
    }
}

struct Kernel<'a>(&'a mut Slots);

impl Split for Kernel<'_> {
    type Error = Error;
    fn split(&mut self, slot: usize, size_bits: u8) -> Result<(usize, usize), Error> {
        let first = self.0.take(2);
        let blueprint = ObjectBlueprint::Untyped {
            size_bits: size_bits.into(),
        };
        untyped(slot).untyped_retype(&blueprint, &own_cnode(), first, 2)?;
        Ok((first, first + 1))
    }
}

fn untyped(slot: usize) -> sel4::cap::Untyped {
    Cap::from_bits(slot as u64)
}

fn own_cnode() -> AbsoluteCPtr {
    slot::CNODE.cap().absolute_cptr_for_self()
}

/// The system under construction.
pub struct Builder<'a> {
    pub system: &'a System<'a>,
    /// Where the machine's devices are, once that is known.
    pub places: Places,
    untypeds: Untypeds,
    slots: Slots,
    /// First slot of each object's capabilities, 0 while it is not made.
    pub first_slots: Vec<usize, MAX_OBJECTS>,
    /// Slots of the kernel's untyped memory.
    pub given: core::ops::Range<usize>,
    /// The first slot that was empty at boot.
    first_empty: usize,
    own_bits: usize,
    /// The kernel had room for no more untyped memory than it named.
    untypeds_cut: bool,
    /// Slots whose capability stays after boot.
    pub kept: Kept,
    /// The pages of a framebuffer that are mapped.
    pub screen: Taken,
}

impl<'a> Builder<'a> {
    /// Creates a builder with the kernel's untyped memory and empty slots, of which
    /// [`ports`] has the first.
    pub fn new(boot_info: &BootInfo<'_>, system: &'a System<'a>) -> Self {
        let empty = boot_info.empty().range();
        let mut untypeds = Untypeds::new();
        let first = boot_info.untyped().start();
        for (index, untyped) in boot_info.untyped_list().enumerate() {
            let fits = untypeds.add(
                first + index,
                untyped.paddr() as u64,
                untyped.size_bits() as u8,
                untyped.is_device(),
            );
            if !fits {
                fatal!("more pieces of untyped memory than init can keep");
            }
        }
        let mut first_slots = Vec::new();
        if first_slots.resize(system.objects.len(), 0).is_err() {
            fatal!(
                "{} objects are more than init can keep",
                system.objects.len()
            );
        }
        Self {
            system,
            places: Places::default(),
            untypeds,
            slots: Slots {
                next: empty.start + ports::SLOTS,
                end: empty.end,
            },
            first_slots,
            given: boot_info.untyped().range(),
            first_empty: empty.start,
            own_bits: boot_info.init_cnode_size_bits(),
            untypeds_cut: boot_info.untyped_list_is_full(),
            kept: Kept::new(&boot_info.untyped().range()),
            screen: Taken::new(),
        }
    }

    /// Returns the number of slots of init's CNode.
    pub const fn own_slots(&self) -> usize {
        1 << self.own_bits
    }

    /// Returns the slots that were filled since init started.
    pub const fn filled(&self) -> core::ops::Range<usize> {
        self.first_empty..self.slots.next
    }

    /// Returns how many slots were never used.
    pub const fn slots_left(&self) -> usize {
        self.slots.end - self.slots.next
    }

    /// Takes a slot of init's CNode.
    pub fn slot(&mut self) -> usize {
        self.slots.take(1)
    }

    /// Makes `count` objects of one kind. Returns the first slot.
    pub fn retype(
        &mut self,
        what: &str,
        blueprint: &ObjectBlueprint,
        count: u64,
        at: Option<(u64, bool)>,
    ) -> usize {
        let bits = blueprint.physical_size_bits() as u32 + count.trailing_zeros();
        let mut kernel = Kernel(&mut self.slots);
        let piece = match at {
            None => self.untypeds.take(bits as u8, &mut kernel),
            Some((address, device)) => {
                self.untypeds
                    .take_at(address, bits as u8, device, &mut kernel)
            }
        };
        let piece = match piece {
            Ok(piece) => piece,
            Err(Exhausted::NoMemory) => match at {
                None => fatal!(
                    "no memory left for {what} ({} bytes){}",
                    1u64 << bits,
                    self.cut()
                ),
                Some((address, _)) => fatal!(
                    "{what}: the kernel gave no memory of {} bytes at {address:#x}{}",
                    1u64 << bits,
                    self.cut()
                ),
            },
            Err(error) => fatal!("memory for {what}: {error:?}"),
        };
        let first = self.slots.take(count as usize);
        let made = untyped(piece).untyped_retype(blueprint, &own_cnode(), first, count as usize);
        if let Err(error) = made {
            fatal!("making {what}: {error:?}");
        }
        first
    }

    /// Returns what explains memory that is missing, if the kernel had no room to name it.
    fn cut(&self) -> &'static str {
        if self.untypeds_cut {
            ": the kernel's list of untyped memory is full, and what did not fit is lost; build \
             seL4 with a larger KernelMaxNumBootinfoUntypedCaps"
        } else {
            ""
        }
    }

    /// Returns an object's record.
    pub fn object(&self, index: u32) -> &'a Object {
        &self.system.objects[index as usize]
    }

    /// Returns the capability of an object's `index`th page, or of the object.
    pub fn cap<T: sel4::cap::CapType>(&self, object: u32, index: u64) -> Cap<T> {
        Cap::from_bits(self.first_slots[object as usize] as u64 + index)
    }

    /// Makes an object, if it was not made yet and the machine has what it requires.
    pub fn make(&mut self, index: usize) {
        let object = &self.system.objects[index];
        if self.first_slots[index] != 0 || !self.places.has(object.requires) {
            return;
        }
        let name = object.name.as_str();
        let blueprint = match object.kind {
            ObjectKind::Tcb => ObjectBlueprint::Tcb,
            ObjectKind::Endpoint => ObjectBlueprint::Endpoint,
            ObjectKind::Notification => ObjectBlueprint::Notification,
            ObjectKind::CNode => ObjectBlueprint::CNode {
                size_bits: object.size_bits as usize,
            },
            ObjectKind::VSpace => ObjectBlueprint::PML4,
            ObjectKind::Untyped => ObjectBlueprint::Untyped {
                size_bits: object.size_bits as usize,
            },
            ObjectKind::Memory | ObjectKind::Device => {
                self.first_slots[index] = self.make_pages(name, object, object.kind);
                return;
            }
            ObjectKind::IoPorts => {
                let slot = self.slots.take(1);
                ports::make(name, &(object.first_port..=object.last_port), slot);
                self.first_slots[index] = slot;
                return;
            }
            ObjectKind::IoApicIrq => {
                let slot = self.slots.take(1);
                let pin = match object.requires {
                    Requires::Hpet | Requires::Pit => self.places.clock_pin,
                    Requires::Nothing | Requires::ConfigPorts => object.pin,
                };
                let made = slot::IRQ_CONTROL.cap().irq_control_get_ioapic(
                    0,
                    pin.into(),
                    object.level.into(),
                    0,
                    object.vector,
                    &own_slot(slot),
                );
                if let Err(error) = made {
                    fatal!("interrupt of {name}, I/O APIC pin {pin}: {error:?}");
                }
                self.first_slots[index] = slot;
                return;
            }
            ObjectKind::MessageIrq => {
                let slot = self.slots.take(1);
                self.message_irq(name, object.vector, slot);
                self.first_slots[index] = slot;
                return;
            }
            ObjectKind::IrqControl => {
                self.first_slots[index] = slot::IRQ_CONTROL.index();
                return;
            }
        };
        let slot = self.retype(name, &blueprint, 1, None);
        self.first_slots[index] = slot;
        if object.kind == ObjectKind::VSpace {
            let assigned = slot::ASID_POOL
                .cap()
                .asid_pool_assign(VSpace::from_bits(slot as u64));
            if let Err(error) = assigned {
                fatal!("address space of {name}: {error:?}");
            }
        }
    }

    /// Makes the handler of a message with this user vector, in an empty slot.
    pub fn message_irq(&self, name: &str, vector: u64, slot: usize) {
        let made = slot::IRQ_CONTROL
            .cap()
            .irq_control_get_msi(0, 0, 0, 0, vector, &own_slot(slot));
        if let Err(error) = made {
            fatal!("interrupt of {name}, user vector {vector}: {error:?}");
        }
    }

    fn make_pages(&mut self, name: &str, object: &Object, kind: ObjectKind) -> usize {
        let blueprint = match object.size_bits {
            12 => ObjectBlueprint::_4k,
            21 => ObjectBlueprint::LargePage,
            bits => fatal!("{name}: no pages of 2^{bits} bytes"),
        };
        let address = match object.address {
            u64::MAX => None,
            // Of the board's devices only the HPET is left to the tables.
            BY_TABLES => Some(self.places.hpet),
            address => Some(address),
        };
        let device = kind == ObjectKind::Device;
        // Splitting takes slots too, so that the pages of one chunk are
        // consecutive, but not those of two: copy them together if needed.
        let mut pieces = chunks(object.pages, address, object.size_bits).peekable();
        let Some(first) = pieces.next() else {
            fatal!("{name}: memory of no pages");
        };
        let make = |builder: &mut Self, chunk: Chunk| {
            let at = address.map(|a| (a + (chunk.first << object.size_bits), device));
            builder.retype(name, &blueprint, chunk.count, at)
        };
        let first_slot = make(self, first);
        if pieces.peek().is_none() {
            return first_slot;
        }
        let mut placed: Vec<(usize, Chunk), 64> = Vec::new();
        let _ = placed.push((first_slot, first));
        for chunk in pieces {
            let slot = make(self, chunk);
            if placed.push((slot, chunk)).is_err() {
                fatal!("{name}: too many pieces of memory");
            }
        }
        let together = self.slots.take(object.pages as usize);
        for (from, chunk) in placed {
            for page in 0..chunk.count {
                let to = together + (chunk.first + page) as usize;
                self.move_cap(from + page as usize, &own_slot(to), name);
            }
        }
        together
    }

    fn move_cap(&self, from: usize, to: &AbsoluteCPtr, what: &str) {
        if let Err(error) = to.move_(&own_slot(from)) {
            fatal!("moving the capability of {what}: {error:?}");
        }
    }

    /// Makes init's own log ring and maps it, so that logging can begin.
    pub fn start_log(&mut self) {
        let log = self.system.header.log as u32;
        self.make(log as usize);
        self.make(self.system.header.doorbell as usize);
        let object = self.object(log);
        for page in 0..object.pages {
            let frame: Granule = self.cap(log, page);
            // The object's own capability stays unmapped for the console's copy.
            let copy = self.copy(frame.bits() as usize, CapRights::all(), "log");
            self.kept.add(copy);
            self.map(
                Granule::from_bits(copy as u64),
                slot::VSPACE.cap(),
                LOG + (page as usize) * 4096,
                CapRights::read_write(),
                VmAttributes::DEFAULT,
                "log",
            );
        }
        let ring = core::ptr::with_exposed_provenance::<shm::Ring>(LOG);
        // SAFETY: just mapped, zeroed by the kernel, large enough (the tool
        // sized it by this type), never unmapped; the type is all atomics.
        let ring = unsafe { &*ring };
        let doorbell: Notification = self.cap(self.system.header.doorbell as u32, 0);
        // Unbadged, it would wake the console with nothing to do: badge it.
        let badged = self.slot();
        self.kept.add(badged);
        let minted = own_slot(badged).mint(
            &own_slot(doorbell.bits() as usize),
            CapRights::write_only(),
            spec::BADGE_DOORBELL,
        );
        if let Err(error) = minted {
            fatal!("doorbell: {error:?}");
        }
        runtime::log::start(ring, Notification::from_bits(badged as u64));
    }

    /// Makes all objects: memory at given addresses first, while it is free.
    pub fn make_objects(&mut self) {
        let fixed =
            |object: &Object| object.kind == ObjectKind::Memory && object.address != u64::MAX;
        for pass in [true, false] {
            for (index, object) in self.system.objects.iter().enumerate() {
                if fixed(object) == pass {
                    self.make(index);
                }
            }
        }
    }

    /// Copies a capability of init's to another slot of init's.
    pub fn copy(&mut self, from: usize, rights: CapRights, what: &str) -> usize {
        self.copy_from(&own_slot(from), rights, what)
    }

    /// Copies a capability that was given away to a slot of init's.
    pub fn copy_from(&mut self, from: &AbsoluteCPtr, rights: CapRights, what: &str) -> usize {
        let slot = self.slot();
        if let Err(error) = own_slot(slot).copy(from, rights) {
            fatal!("copying the capability of {what}: {error:?}");
        }
        slot
    }

    /// Returns a slot of a component's CNode.
    pub fn place(&self, cnode: u32, slot: u32) -> AbsoluteCPtr {
        let radix = self.object(cnode).size_bits as usize;
        let cap: CNode = self.cap(cnode, 0);
        cap.absolute_cptr_from_bits_with_depth(u64::from(slot), radix)
    }

    /// Makes the page of a device at `address`, as a capability of init's.
    pub fn device_page(&mut self, what: &str, address: u64) -> usize {
        self.device_frame(what, address, false)
    }

    /// Returns the same, or a large page.
    pub fn device_frame(&mut self, what: &str, address: u64, large: bool) -> usize {
        let blueprint = if large {
            ObjectBlueprint::LargePage
        } else {
            ObjectBlueprint::_4k
        };
        self.retype(what, &blueprint, 1, Some((address, true)))
    }

    /// Returns the same for an address at which there may be none.
    pub fn try_device_page(&mut self, address: u64) -> Option<usize> {
        let blueprint = ObjectBlueprint::_4k;
        let mut kernel = Kernel(&mut self.slots);
        let piece = self.untypeds.take_at(address, 12, true, &mut kernel).ok()?;
        let slot = self.slots.take(1);
        untyped(piece)
            .untyped_retype(&blueprint, &own_cnode(), slot, 1)
            .ok()?;
        Some(slot)
    }

    /// Makes the large page of a device at `address`, at which there may be none. Returns its
    /// slot, and that of the memory of which it was made.
    pub fn try_large_page(&mut self, address: u64) -> Option<(usize, usize)> {
        let blueprint = ObjectBlueprint::LargePage;
        let bits = blueprint.physical_size_bits() as u8;
        let mut kernel = Kernel(&mut self.slots);
        let piece = self.untypeds.take_at(address, bits, true, &mut kernel);
        let piece = piece.ok()?;
        let slot = self.slots.take(1);
        untyped(piece)
            .untyped_retype(&blueprint, &own_cnode(), slot, 1)
            .ok()?;
        Some((slot, piece))
    }

    /// Deletes a large page, whose memory may be taken again.
    pub fn give_back(&mut self, slot: usize, piece: usize, address: u64) {
        if let Err(error) = own_slot(slot).delete() {
            fatal!("deleting a page at {address:#x}: {error:?}");
        }
        let bits = ObjectBlueprint::LargePage.physical_size_bits() as u8;
        if !self.untypeds.add(piece, address, bits, true) {
            fatal!("more pieces of untyped memory than init can keep");
        }
    }

    /// Returns whether all of a range is neither RAM of the kernel's nor given to anybody.
    pub fn is_free_device(&self, range: &core::ops::Range<u64>) -> bool {
        self.untypeds.is_free_device(range)
    }

    /// Moves a capability of init's into a component's CNode.
    pub fn give(&mut self, from: usize, cnode: u32, slot: u32, what: &str) {
        let to = self.place(cnode, slot);
        self.move_cap(from, &to, what);
    }

    /// Carries out the capability records.
    pub fn hand_out(&mut self) {
        for capability in self.system.capabilities {
            let object = self.object(capability.object);
            if !self.places.has(object.requires) {
                continue;
            }
            for index in 0..object.capabilities() {
                self.hand(capability, object, index);
            }
        }
    }

    fn hand(&self, capability: &Capability, object: &Object, index: u64) {
        let from_slot = self.first_slots[capability.object as usize] + index as usize;
        let from = own_slot(from_slot);
        let to = self.place(capability.cnode, capability.slot + index as u32);
        let done = match object.kind {
            // The kernel has one IRQControl and no copies of it.
            ObjectKind::IrqControl => to.move_(&from),
            // A vmm makes page tables from it; no other component may.
            ObjectKind::Untyped => to.move_(&from),
            // The kernel makes a copy of an IRQ handler on request.
            _ if capability.badge != 0 => {
                to.mint(&from, rights(capability.rights), capability.badge)
            }
            _ => to.copy(&from, rights(capability.rights)),
        };
        if let Err(error) = done {
            fatal!(
                "handing out {} to slot {}: {error:?}",
                object.name.as_str(),
                capability.slot
            );
        }
    }

    /// Starts the threads that are to be started in this turn ([`Thread::start`]).
    /// They run when init waits.
    pub fn start_threads(&self, turn: Start) -> usize {
        let mut started = 0;
        for thread in self.system.threads.iter().filter(|t| t.start == turn) {
            let tcb: Tcb = self.cap(thread.tcb, 0);
            if let Err(error) = tcb.tcb_resume() {
                fatal!("starting {}: {error:?}", thread.name.as_str());
            }
            started += 1;
        }
        started
    }

    /// Configures every thread.
    pub fn configure_threads(&mut self) {
        for thread in self.system.threads {
            if let Err(error) = self.configure(thread) {
                fatal!("thread {}: {error:?}", thread.name.as_str());
            }
        }
    }

    fn configure(&self, thread: &Thread) -> sel4::Result<()> {
        let tcb: Tcb = self.cap(thread.tcb, 0);
        let radix = self.object(thread.cnode).size_bits as usize;
        let buffer = if thread.ipc_buffer == NONE {
            Granule::from_bits(0)
        } else {
            self.cap(thread.ipc_buffer, 0)
        };
        tcb.tcb_configure(
            sel4::CPtr::from_bits(thread.fault_slot),
            self.cap(thread.cnode, 0),
            CNodeCapData::skip_high_bits(radix),
            self.cap(thread.vspace, 0),
            thread.ipc_address as usize,
            buffer,
        )?;
        let authority = slot::TCB.cap();
        tcb.tcb_set_priority(authority, thread.priority as u8)?;
        tcb.tcb_set_mc_priority(authority, thread.max_priority as u8)?;
        if thread.notification != NONE {
            tcb.tcb_bind_notification(self.cap(thread.notification, 0))?;
        }
        let registers = sel4::UserContext {
            rip: thread.entry,
            rsp: thread.stack_top,
            rflags: 0x202,
            ..sel4::UserContext::default()
        };
        tcb.tcb_write_all_registers(false, &registers)
    }
}
