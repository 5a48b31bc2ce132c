//! Slots and routes.

mod batch;
mod block;
mod kept;
mod pin;

use channel::irq_router::dump::{BoundSlot, IrqDump};
use channel::irq_router::{Answers, Batch, IrqRouter, ShortMessage, Source, SourceKind};
use channel::routes::{Route, RoutePage};
use channel::{Caller, Error, GuestMessage};
pub use kept::kept_words;
use shm::Keep;
use spec::{FunctionId, SLOTS, host_message};

use crate::vectors::Vectors;

/// One bit of one guest's notification word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The guest's position in system.toml.
    pub guest: u8,
    /// The bit, 0 to [`SLOTS`] - 1.
    pub index: u8,
}

/// The kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelError;

/// The router's view of the kernel. Every operation is idempotent: repeating
/// one that was interrupted anywhere has the effect of one that completed.
pub trait IrqControl {
    /// Makes the IRQ handler capability for user vector `vector`, lets it signal
    /// bit `slot.index`, and last puts it into the guest's vmm. What is there
    /// already stays: a handler that is deleted and made again would lose an
    /// event that comes between. If it fails, nothing is left of a new one.
    fn acquire(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError>;
    /// Acquires a pin of the I/O APIC, level-triggered and not delivered before its
    /// first acknowledgement.
    fn acquire_pin(&mut self, slot: Slot, vector: u8, pin: u8) -> Result<(), KernelError>;
    /// Lets `function` raise `count` vectors from `first` on. Returns the message
    /// (address, data) of the first; each further one has one more in its data.
    /// Without an IOMMU every function may raise every vector.
    fn allow(
        &mut self,
        function: FunctionId,
        first: u8,
        count: u8,
    ) -> Result<(u64, u32), KernelError> {
        let _ = (function, count);
        Ok(host_message(first))
    }
    /// Takes the permission for these vectors away. When it returns, the function
    /// cannot raise them.
    fn forbid(&mut self, function: FunctionId, first: u8, count: u8) -> Result<(), KernelError> {
        let _ = (function, first, count);
        Ok(())
    }
    /// Deletes the capability that the guest's vmm has at a slot; an empty slot is
    /// not an error.
    fn clear_slot(&mut self, slot: Slot) -> Result<(), KernelError>;
    /// Deletes our own capability for a vector; an empty slot is not an error.
    fn clear_vector(&mut self, vector: u8) -> Result<(), KernelError>;
    /// Deletes both. The vmm's copy goes first: as long as ours exists, the vector is
    /// given to no other source.
    fn release(&mut self, slot: Slot, vector: u8) -> Result<(), KernelError> {
        self.clear_slot(slot)?;
        self.clear_vector(vector)
    }
}

shm::counters! {
    /// What happened so far.
    pub struct Counters {
        /// Sources bound.
        bound,
        /// Sources unbound.
        unbound,
        /// Binds refused for their message (M17).
        refused,
        /// Binds for which no slot or vector was left (M22).
        exhausted,
        /// Requests that name a source or function that is not there.
        not_found,
        /// Requests that the kernel refused.
        failed,
        /// Slots of all guests that are bound now: a restart does not begin it anew.
        slots_used,
        /// Vectors that are taken now, likewise.
        vectors_used,
        /// Free vectors whose handlers wait for their last source. A restart begins anew.
        vectors_parked,
    }
}

#[derive(Clone, Copy)]
struct Binding {
    /// `None` for an MSI message that no local APIC takes: it goes nowhere.
    message: Option<GuestMessage>,
    masked: bool,
}

#[derive(Clone, Copy)]
struct SlotState {
    binding: Option<Binding>,
    /// The source that has the slot, or had it last, with its vector.
    owner: Option<(Source, u8)>,
    /// When it was given back; 0 if never.
    freed: u64,
    /// Nothing is bound, but the owner's capabilities are still there: a guest that
    /// switches MSI-X off and on binds the same sources again, and what is made and
    /// deleted for each costs more than all the rest. Whoever else gets the slot or
    /// the vector has them deleted first, and so has a router that takes over.
    parked: bool,
}

impl SlotState {
    const FREE: Self = Self {
        binding: None,
        owner: None,
        freed: 0,
        parked: false,
    };

    fn belongs_to(&self, source: Source) -> bool {
        self.owner.is_some_and(|(owner, _)| owner == source)
    }
}

/// The router: `GUESTS` guests that own `FUNCTIONS` functions.
pub struct Router<'a, C, const GUESTS: usize, const FUNCTIONS: usize> {
    control: C,
    pages: [&'a RoutePage; GUESTS],
    owners: [u8; FUNCTIONS],
    function_masked: [bool; FUNCTIONS],
    /// Slots that each guest may use; the others of its place in `slots` stay free.
    counts: [usize; GUESTS],
    slots: [[SlotState; SLOTS]; GUESTS],
    vectors: Vectors,
    releases: u64,
    /// The state for the next router if this one dies.
    kept: &'a dyn Keep,
    /// What happened so far.
    pub counters: Counters,
}

impl<'a, C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize>
    Router<'a, C, GUESTS, FUNCTIONS>
{
    /// Creates a router with the bindings that the last one kept in `kept`,
    /// [`kept_words`] words, or without any, and makes the pages agree. `owners`
    /// names the guest of each function, `counts` how many slots each guest has, at most
    /// [`SLOTS`]; bit `v` of `reserved` keeps user vector `v` for others.
    pub fn new(
        control: C,
        pages: [&'a RoutePage; GUESTS],
        owners: [u8; FUNCTIONS],
        counts: [usize; GUESTS],
        reserved: u128,
        kept: &'a dyn Keep,
    ) -> Self {
        let mut router = Self {
            control,
            pages,
            owners,
            function_masked: [false; FUNCTIONS],
            counts: counts.map(|count| count.min(SLOTS)),
            slots: [[SlotState::FREE; SLOTS]; GUESTS],
            vectors: Vectors::new(reserved),
            releases: 0,
            kept,
            counters: Counters::default(),
        };
        router.adopt();
        router
    }

    /// Returns a slot as a dump shows it, if it is in use.
    fn bound_slot(&self, guest: usize, index: usize) -> Option<BoundSlot> {
        let (_, vector) = self.slots.get(guest)?.get(index)?.owner?;
        Some(BoundSlot {
            guest: guest as u8,
            slot: index as u8,
            vector,
            route: self.pages[guest].get(index)?,
        })
    }

    fn guest_of(&mut self, source: Source) -> Result<usize, Error> {
        let guest = self.owners.get(source.function.index());
        match guest {
            Some(&guest) if usize::from(guest) < GUESTS => Ok(guest.into()),
            _ => {
                self.counters.not_found += 1;
                Err(Error::NotFound)
            }
        }
    }

    /// Returns the slots that the guest may use.
    fn slots_of(&self, guest: usize) -> &[SlotState] {
        &self.slots[guest][..self.counts[guest]]
    }

    /// Returns the slot that is bound to `source`.
    fn slot_of(&self, guest: usize, source: Source) -> Option<usize> {
        self.slots_of(guest)
            .iter()
            .position(|slot| slot.binding.is_some() && slot.belongs_to(source))
    }

    /// Returns where an MSI-X source is bound.
    fn bound_at(&mut self, source: Source) -> Result<(usize, usize), Error> {
        let guest = self.guest_of(source)?;
        let index = self
            .slot_of(guest, source)
            .filter(|_| source.kind == SourceKind::Msix);
        if index.is_none() {
            self.counters.not_found += 1;
        }
        Ok((guest, index.ok_or(Error::NotFound)?))
    }

    /// Returns a free slot: the one that the source had before, else the one
    /// that has been free longest.
    ///
    /// An event that was signalled on the old binding is then found by the vmm
    /// in the same slot, where the new route stands (M21), and the bit of one
    /// that has no receiver meets a new owner as late as possible.
    fn choose_slot(&self, guest: usize, source: Source) -> Option<usize> {
        self.slots_of(guest)
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.binding.is_none())
            .min_by_key(|(_, slot)| (!slot.belongs_to(source), slot.freed))
            .map(|(index, _)| index)
    }

    /// Makes the missing parts of the kernel's side of a binding.
    fn acquire(&mut self, slot: Slot, source: Source, vector: u8) -> Result<(), KernelError> {
        match source.kind {
            SourceKind::Msix | SourceKind::Msi => self.control.acquire(slot, vector),
            SourceKind::Pin => self.control.acquire_pin(slot, vector, source.entry as u8),
        }
    }

    /// Lets a source's function raise its vector. A pin is nothing that the IOMMU
    /// sees.
    fn allow(&mut self, source: Source, vector: u8) -> Result<(), KernelError> {
        match source.kind {
            SourceKind::Msix | SourceKind::Msi => {
                let message = self.control.allow(source.function, vector, 1);
                message.map(|_| ())
            }
            SourceKind::Pin => Ok(()),
        }
    }

    /// Takes that permission away.
    fn forbid(&mut self, source: Source, vector: u8) -> Result<(), KernelError> {
        match source.kind {
            SourceKind::Msix | SourceKind::Msi => self.control.forbid(source.function, vector, 1),
            SourceKind::Pin => Ok(()),
        }
    }

    /// Binds a slot and a vector to `source`: those that it had before, if they are
    /// free. Returns the slot.
    fn bind_slot(
        &mut self,
        guest: usize,
        source: Source,
        binding: Binding,
    ) -> Result<usize, Error> {
        let place = self.choose_slot(guest, source).and_then(|index| {
            let before = self.slots[guest][index].owner;
            let wanted = before.filter(|&(owner, _)| owner == source);
            let vector = self.vectors.take(wanted.map(|(_, vector)| vector), 1)?;
            Some((index, vector))
        });
        let Some((index, vector)) = place else {
            self.counters.exhausted += 1;
            return Err(Error::Exhausted);
        };
        self.occupy((guest, index), (source, vector), binding)
            .inspect_err(|_| self.vectors.give_back(vector))?;
        Ok(index)
    }

    /// Lets a bound slot's source raise its vector. Returns the message for the
    /// device.
    fn message(&mut self, guest: usize, index: usize) -> Result<(u64, u32), Error> {
        let (source, vector) = self.slots[guest][index].owner.ok_or(Error::NotFound)?;
        let message = self.control.allow(source.function, vector, 1);
        message.map_err(|_| {
            self.counters.failed += 1;
            Error::Failed
        })
    }

    /// Routes an MSI-X source to its guest by its message, through the slot that it has
    /// or a free one. Returns the guest and the slot; its device may not raise the
    /// vector of a new one yet.
    fn route(&mut self, source: Source, address: u64, data: u32) -> Result<(usize, usize), Error> {
        let guest = self.guest_of(source)?;
        let message = GuestMessage::parse(address, data);
        if message.is_none() || source.kind != SourceKind::Msix {
            self.counters.refused += 1;
            return Err(Error::Refused);
        }
        let binding = Binding {
            message,
            masked: false,
        };
        let Some(index) = self.slot_of(guest, source) else {
            return Ok((guest, self.bind_slot(guest, source, binding)?));
        };
        self.slots[guest][index].binding = Some(binding);
        self.publish(guest, index);
        Ok((guest, index))
    }

    /// Binds a free slot of the guest to `source`; the vector was taken for it.
    fn occupy(
        &mut self,
        (guest, index): (usize, usize),
        (source, vector): (Source, u8),
        binding: Binding,
    ) -> Result<(), Error> {
        let before = &self.slots[guest][index];
        if !before.parked || before.owner != Some((source, vector)) {
            let slot = Slot {
                guest: guest as u8,
                index: index as u8,
            };
            let made = self
                .evict(guest, index)
                .and_then(|()| self.evict_vector(vector))
                .and_then(|()| self.acquire(slot, source, vector));
            if made.is_err() {
                self.counters.failed += 1;
                return Err(Error::Failed);
            }
        }
        self.vectors.unpark(vector);
        let state = &mut self.slots[guest][index];
        state.parked = false;
        state.owner = Some((source, vector));
        state.binding = Some(binding);
        self.publish(guest, index);
        self.counters.bound += 1;
        self.counters.slots_used += 1;
        self.count_vectors();
        Ok(())
    }

    /// Deletes the capabilities that an unbound slot's last source has left.
    fn evict(&mut self, guest: usize, index: usize) -> Result<(), KernelError> {
        let state = &self.slots[guest][index];
        if let Some((_, vector)) = state.owner.filter(|_| state.parked) {
            let slot = Slot {
                guest: guest as u8,
                index: index as u8,
            };
            self.control.release(slot, vector)?;
            self.slots[guest][index].parked = false;
            self.vectors.unpark(vector);
            self.count_vectors();
        }
        Ok(())
    }

    /// Deletes those that are left of a vector, in whatever slot.
    fn evict_vector(&mut self, vector: u8) -> Result<(), KernelError> {
        if !self.vectors.is_parked(vector, 1) {
            return Ok(());
        }
        let parked = |state: &SlotState| {
            state.parked && state.owner.is_some_and(|(_, other)| other == vector)
        };
        let place = (0..GUESTS).find_map(|guest| {
            let index = self.slots[guest].iter().position(parked)?;
            Some((guest, index))
        });
        place.map_or(Ok(()), |(guest, index)| self.evict(guest, index))
    }

    /// Unbinds an MSI-X entry whose function may raise its vector no more, and keeps its
    /// capabilities.
    fn park(&mut self, guest: usize, index: usize) {
        let state = &mut self.slots[guest][index];
        state.parked = true;
        if let Some((_, vector)) = state.owner {
            self.vectors.park(vector);
        }
        self.released(guest, index);
    }

    /// Releases slot and vector.
    fn free(&mut self, guest: usize, index: usize) -> Result<(), Error> {
        let slot = Slot {
            guest: guest as u8,
            index: index as u8,
        };
        if let Some((source, vector)) = self.slots[guest][index].owner {
            let released = self
                .forbid(source, vector)
                .and_then(|()| self.control.release(slot, vector));
            if released.is_err() {
                self.counters.failed += 1;
                // It stays bound, and so its device must be able to raise it.
                let _ = self.allow(source, vector);
                return Err(Error::Failed);
            }
            self.vectors.give_back(vector);
        }
        self.released(guest, index);
        Ok(())
    }

    /// Notes that a slot is given back, and its vector.
    fn released(&mut self, guest: usize, index: usize) {
        self.releases += 1;
        let state = &mut self.slots[guest][index];
        state.freed = self.releases;
        let bound = state.binding.take().is_some();
        self.publish(guest, index);
        self.counters.unbound += 1;
        self.counters.slots_used -= u64::from(bound);
        self.count_vectors();
    }

    pub(super) fn count_vectors(&mut self) {
        self.counters.vectors_used.set(self.vectors.used().into());
        self.counters
            .vectors_parked
            .set(self.vectors.parked().into());
    }

    /// Returns whether a slot of the guest is bound to such a source of the
    /// function.
    fn holds(&self, guest: usize, index: usize, function: FunctionId, kind: SourceKind) -> bool {
        let slot = &self.slots[guest][index];
        let owned = slot
            .owner
            .is_some_and(|(owner, _)| (owner.function, owner.kind) == (function, kind));
        owned && slot.binding.is_some()
    }

    /// Frees every slot of the function for this kind of source. Goes on past an
    /// error and returns the first.
    fn free_all(
        &mut self,
        guest: usize,
        function: FunctionId,
        kind: SourceKind,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        for index in 0..self.counts[guest] {
            if self.holds(guest, index, function, kind) {
                result = result.and(self.free(guest, index));
                // One that the kernel did not take back is still routed, but
                // under no function mask any more.
                self.publish(guest, index);
            }
        }
        result
    }

    /// Keeps a slot's state, and then writes it to the routing page.
    fn publish(&self, guest: usize, index: usize) {
        self.keep(guest, index);
        let slot = &self.slots[guest][index];
        let route = slot
            .binding
            .zip(slot.owner)
            .and_then(|(binding, (source, _))| {
                Some(Route {
                    message: binding.message?,
                    masked: binding.masked
                        || source.kind == SourceKind::Msix
                            && self.function_masked[source.function.index()],
                    source,
                })
            });
        self.pages[guest].set(index, route);
    }
}

impl<C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize> IrqRouter
    for Router<'_, C, GUESTS, FUNCTIONS>
{
    fn bind(
        &mut self,
        _caller: Caller,
        source: Source,
        address: u64,
        data: u32,
    ) -> Result<(u64, u32), Error> {
        let (guest, index) = self.route(source, address, data)?;
        self.message(guest, index).inspect_err(|_| {
            // If that fails too, the slot stays bound; the next bind finds it.
            let _ = self.free(guest, index);
        })
    }

    fn unbind(&mut self, _caller: Caller, source: Source) -> Result<(), Error> {
        let (guest, index) = self.bound_at(source)?;
        let bound = self.bound(0, guest, index);
        if self.forbid_each(source.function, &[bound]).is_err() {
            self.counters.failed += 1;
            self.allow_each(source.function, &[bound]);
            return Err(Error::Failed);
        }
        self.park(guest, index);
        Ok(())
    }

    fn set_masked(&mut self, _caller: Caller, source: Source, masked: bool) -> Result<(), Error> {
        let (guest, index) = self.bound_at(source)?;
        if let Some(binding) = &mut self.slots[guest][index].binding {
            binding.masked = masked;
        }
        self.publish(guest, index);
        Ok(())
    }

    fn set_function_masked(
        &mut self,
        _caller: Caller,
        function: FunctionId,
        masked: bool,
    ) -> Result<(), Error> {
        let guest = self.guest_of(Source::msix(function, 0))?;
        self.function_masked[function.index()] = masked;
        self.keep_masks();
        for index in 0..self.counts[guest] {
            self.publish(guest, index);
        }
        Ok(())
    }

    fn unbind_function(&mut self, _caller: Caller, function: FunctionId) -> Result<(), Error> {
        let guest = self.guest_of(Source::msix(function, 0))?;
        self.function_masked[function.index()] = false;
        self.keep_masks();
        self.free_all(guest, function, SourceKind::Msix)
    }

    fn restore(&mut self, _caller: Caller, source: Source) -> Result<(u64, u32), Error> {
        // A miss is a normal answer here, so it is not counted.
        let guest = self.owners.get(source.function.index());
        let (guest, index) = guest
            .map(|&guest| usize::from(guest))
            .filter(|&guest| guest < GUESTS && source.kind == SourceKind::Msix)
            .and_then(|guest| Some((guest, self.slot_of(guest, source)?)))
            .ok_or(Error::NotFound)?;
        self.message(guest, index)
    }

    fn bind_batch(
        &mut self,
        _caller: Caller,
        batch: Batch,
        first: ShortMessage,
        second: ShortMessage,
        third: ShortMessage,
    ) -> Result<Answers, Error> {
        Ok(self.bind_all(batch, [first, second, third]))
    }

    fn unbind_entries(
        &mut self,
        _caller: Caller,
        first: Source,
        entries: u64,
    ) -> Result<u64, Error> {
        let guest = self.guest_of(first)?;
        self.unbind_bits(guest, first, entries)
    }
}

impl<C: IrqControl, const GUESTS: usize, const FUNCTIONS: usize> IrqDump
    for Router<'_, C, GUESTS, FUNCTIONS>
{
    fn next(&mut self, _caller: Caller, guest: u8, from: u8) -> Result<BoundSlot, Error> {
        (usize::from(from)..SLOTS)
            .find_map(|index| self.bound_slot(guest.into(), index))
            .ok_or(Error::NotFound)
    }

    fn find(&mut self, _caller: Caller, source: Source) -> Result<BoundSlot, Error> {
        // The console probes; misses are not counted.
        let guest = self
            .owners
            .get(source.function.index())
            .map(|&guest| usize::from(guest))
            .ok_or(Error::NotFound)?;
        (0..SLOTS)
            .filter_map(|index| self.bound_slot(guest, index))
            .find(|slot| slot.route.source == source)
            .ok_or(Error::NotFound)
    }
}

#[cfg(test)]
mod tests;
