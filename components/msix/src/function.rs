//! The functions, and the steps that touch the device or the router.

use channel::irq_router::{Client, Source};
use channel::msix::FunctionBar;
use channel::{Caller, Error, GuestMessage, Transport};
use heapless::Vec;
use pci::{FUNCTION_BARS, FunctionInfo, MsixInfo, Width, regs};
use shm::Keep;
use spec::{FunctionId, bit};

use crate::area::{Area, ENTRY_SIZE, end_of};
use crate::bitmap::{Bitmap, MAX_ENTRIES};
use crate::entry::{BOUND, THROTTLED, UNMASKED, UPDATED};
use crate::kept::Words;
use crate::{Entry, Hardware};

/// Offset of vector control in an entry.
const VECTOR_CONTROL: u32 = 12;

shm::counters! {
    /// What happened so far.
    pub struct Counters {
        /// Operations of pci-config.
        control_calls,
        /// Operations of a vmm.
        table_calls,
        /// Accesses that read all ones or were dropped (M12, M14, M15).
        dropped,
        /// Requests for functions that do not exist or are not the caller's.
        not_found,
        /// Binds that failed (M5).
        bind_failures,
        /// Unbinds that failed (M4, M5).
        unbind_failures,
        /// Masks that the router did not take: an event may come once more.
        mask_failures,
        /// Sources that were throttled (M23).
        throttled,
    }
}

/// Something about one entry that did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The function's position among all assigned functions.
    pub function: FunctionId,
    /// Its entry.
    pub entry: u16,
    /// What failed: `bind` or `unbind`.
    pub what: &'static str,
    /// Why: [`Error::Refused`] for its message (M17), [`Error::Exhausted`] for
    /// want of vectors or slots (M22), else what the router said.
    pub why: Error,
}

/// One function's state.
pub(crate) struct Function {
    pub(crate) info: MsixInfo,
    /// The vmm that may use the table.
    pub(crate) owner: Caller,
    /// Writes to the PBA reach the device.
    pub(crate) permissive: bool,
    /// Where each BAR ends ([`end_of`]).
    ends: [u64; FUNCTION_BARS],
    /// Its first entry among those of all functions.
    first: usize,
    pub(crate) enabled: bool,
    pub(crate) function_mask: bool,
    /// Entries that are bound.
    pub(crate) bound: Bitmap,
    /// Entries that are unmasked and updated.
    pub(crate) due: Bitmap,
    /// Entries that are unmasked in the device.
    pub(crate) open: Bitmap,
}

/// The MSI-X side of at most `FUNCTIONS` functions.
pub struct Msix<'a, H, T, const FUNCTIONS: usize> {
    pub(crate) hardware: H,
    pub(crate) router: Client<T>,
    pub(crate) functions: Vec<Function, FUNCTIONS>,
    /// The functions' entries, and what else the next msix finds if this one dies.
    pub(crate) kept: Words<'a>,
    failures: Option<(u32, Failure)>,
    /// Bind any message, and not only one that a local APIC takes (M17). The router decides
    /// that too; to ask it 2048 times for a refusal would hold up every guest.
    pub any_message: bool,
    /// What happened so far.
    pub counters: Counters,
}

impl<'a, H: Hardware, T: Transport, const FUNCTIONS: usize> Msix<'a, H, T, FUNCTIONS> {
    /// Creates it without functions. `kept` has [`kept_words`](crate::kept_words) words.
    pub fn new(hardware: H, router: Client<T>, kept: &'a dyn Keep) -> Self {
        Self {
            hardware,
            router,
            functions: Vec::new(),
            kept: Words::new(kept, FUNCTIONS),
            failures: None,
            any_message: false,
            counters: Counters::default(),
        }
    }

    /// Takes functions over: as the last msix left them in what is kept, or, if there
    /// was none, with a reset of each (M24). Each function comes with its vmm's
    /// badge. There is room for `capacity` entries; a function that does not fit into the
    /// rest has no MSI-X (M16).
    // A step of its own, so that the functions' state is made in its place: it is too much
    // for two stack frames.
    pub fn take_over(
        &mut self,
        capacity: usize,
        functions: impl IntoIterator<Item = (FunctionInfo, Caller)>,
    ) {
        let mut used = 0;
        for (function, owner) in functions.into_iter().take(FUNCTIONS) {
            let mut info = function.msix;
            let wanted = info.entries as usize;
            if wanted > MAX_ENTRIES || wanted > capacity - used {
                info = MsixInfo::default();
            }
            let first = used;
            used += info.entries as usize;
            // The list has room for as many as were taken.
            let _ = self.functions.push(Function {
                info,
                owner,
                permissive: function.permissive != 0,
                ends: function.bars.map(|bar| end_of(&bar)),
                first,
                enabled: false,
                function_mask: false,
                bound: Bitmap::EMPTY,
                due: Bitmap::EMPTY,
                open: Bitmap::EMPTY,
            });
        }
        for function in 0..self.functions.len() {
            let there = self.functions[function].info.entries != 0;
            if there && !self.adopt(function) && self.reset_function(function).is_err() {
                self.counters.unbind_failures += 1;
            }
        }
    }

    /// Returns the failures since this was last asked: how many, and the last
    /// one. For a warning in the log.
    pub fn take_failures(&mut self) -> Option<(u32, Failure)> {
        self.failures.take()
    }

    /// Notes that binding or unbinding entries failed.
    fn failed(&mut self, function: usize, count: u32, entry: u16, what: &'static str, why: Error) {
        let failure = Failure {
            function: FunctionId::at(function),
            entry,
            what,
            why,
        };
        let before = self.failures.map_or(0, |(count, _)| count);
        self.failures = Some((before.saturating_add(count), failure));
    }

    /// Returns the function's index, if it is there and has MSI-X.
    pub(crate) fn lookup(&mut self, function: FunctionId) -> Result<usize, Error> {
        let index = function.index();
        match self.functions.get(index) {
            Some(found) if found.info.entries != 0 => Ok(index),
            _ => {
                self.counters.not_found += 1;
                Err(Error::NotFound)
            }
        }
    }

    /// Returns an entry below the function's number of entries.
    pub(crate) fn entry(&self, function: usize, entry: u16) -> Entry {
        self.kept.entry(self.functions[function].index(entry))
    }

    /// Changes an entry, stored as `before`, and brings the bitmaps in line with it.
    /// Returns it as it is now.
    pub(crate) fn change(
        &mut self,
        function: usize,
        entry: u16,
        before: Entry,
        change: impl FnOnce(&mut Entry),
    ) -> Entry {
        let mut after = before;
        change(&mut after);
        if after != before {
            let state = &mut self.functions[function];
            if before.is(BOUND) != after.is(BOUND) {
                state.bound.set(entry, after.is(BOUND));
            }
            state.due.set(entry, after.wants_update());
            self.kept.set_entry(state.index(entry), &before, &after);
        }
        after
    }

    /// Commits a table write that changes an entry's mask. If msix dies
    /// before this store, the repeated write still sees the old mask and redoes the
    /// work.
    pub(crate) fn commit_mask(&mut self, function: usize, entry: u16, before: Entry, masked: bool) {
        self.change(function, entry, before, |entry| {
            entry.set(UNMASKED, !masked)
        });
    }

    /// Commits a message control write or a reset. If msix dies
    /// before this store, the repeated call still sees the old state and redoes the
    /// work.
    pub(crate) fn commit_control(&mut self, function: usize, enabled: bool, function_mask: bool) {
        let state = &mut self.functions[function];
        state.enabled = enabled;
        state.function_mask = function_mask;
        self.kept.set_function(function, enabled, function_mask);
    }

    /// Returns whether a message is one to bind (M17).
    pub(crate) fn takes(&self, address: u64, data: u32) -> bool {
        self.any_message || GuestMessage::parse(address, data).is_some()
    }

    /// Carries out *update* (M5): binds an unmasked entry with its current address and
    /// data, after unbinding it if it is bound. Returns the entry as it is now.
    pub(crate) fn update(&mut self, function: usize, entry: u16, stored: Entry) -> Entry {
        let updated = self.rebind(function, entry, stored);
        updated.unwrap_or_else(|_| self.entry(function, entry))
    }

    fn rebind(&mut self, function: usize, entry: u16, mut stored: Entry) -> Result<Entry, Error> {
        if stored.is(BOUND) {
            stored = self.unbind(function, entry, stored)?;
        }
        let (address, data) = (stored.address, stored.data());
        let bound = if self.takes(address, data) {
            self.router.bind(source(function, entry), address, data)
        } else {
            Err(Error::Refused)
        };
        let message = bound.inspect_err(|&error| self.bind_failed(function, entry, error))?;
        Ok(self.bind_done(function, entry, stored, message))
    }

    /// Gives the device the message of an unmasked entry that the router has bound.
    /// Returns the entry as it is now.
    #[inline]
    pub(crate) fn bind_done(
        &mut self,
        function: usize,
        entry: u16,
        stored: Entry,
        message: (u64, u32),
    ) -> Entry {
        // The device's entry is masked, as each unbound one is: it never sends a
        // message that is half old and half new.
        self.write_message(function, entry, message);
        let bound = self.change(function, entry, stored, |entry| {
            // The commit, where the entry is bound because it is unmasked.
            entry.set(UNMASKED, true);
            entry.set(BOUND, true);
            entry.set(UPDATED, false);
            entry.set_error(None);
        });
        if !bound.is(THROTTLED) {
            self.mask_in_device(function, entry, false);
        }
        bound
    }

    /// Counts and keeps why an entry stays unbound and updated (M5).
    #[cold]
    pub(crate) fn bind_failed(&mut self, function: usize, entry: u16, error: Error) {
        let state = self.entry(function, entry);
        self.set_error(function, entry, &state, error);
        self.binds_failed(function, 1, entry, error);
    }

    /// Counts entries that failed, of which `entry` was the last.
    pub(crate) fn binds_failed(&mut self, function: usize, count: u32, entry: u16, error: Error) {
        self.counters.bind_failures += u64::from(count);
        self.failed(function, count, entry, "bind", error);
    }

    /// Counts and keeps why an entry stays bound.
    #[cold]
    pub(crate) fn unbind_failed(&mut self, function: usize, entry: u16, error: Error) {
        self.counters.unbind_failures += 1;
        self.failed(function, 1, entry, "unbind", error);
        let state = self.entry(function, entry);
        self.set_error(function, entry, &state, error);
    }

    /// Stores why the last bind or unbind of an entry failed, whose state is `before`.
    /// The bitmaps need no change: a pass over a large table comes here for each entry.
    pub(crate) fn set_error(&mut self, function: usize, entry: u16, before: &Entry, error: Error) {
        let mut after = *before;
        after.set_error(Some(error));
        let index = self.functions[function].index(entry);
        self.kept.set_entry(index, before, &after);
    }

    /// Unbinds a bound entry, which is to be bound anew by the next update. Returns it as
    /// it is now; on an error it is as it was before.
    #[inline(always)]
    pub(crate) fn unbind(
        &mut self,
        function: usize,
        entry: u16,
        stored: Entry,
    ) -> Result<Entry, Error> {
        // One that is not open was masked, and its messages flushed, when that was done.
        let was_open = self.functions[function].open.contains(entry);
        if was_open {
            self.mask_in_device(function, entry, true);
        }
        match self.unbind_in_router(source(function, entry)) {
            Ok(()) => Ok(self.unbind_done(function, entry, stored)),
            Err((error, bound)) => {
                self.unbind_failed(function, entry, error);
                // A router that died too often may have given its vector to
                // another source.
                if was_open && bound {
                    self.mask_in_device(function, entry, false);
                }
                Err(error)
            }
        }
    }

    /// Marks an entry that the router has unbound, and returns it. In one change: an entry
    /// that is unbound and not marked would never be bound again if this were the last
    /// thing done.
    pub(crate) fn unbind_done(&mut self, function: usize, entry: u16, stored: Entry) -> Entry {
        self.change(function, entry, stored, |entry| {
            entry.set(BOUND, false);
            entry.set(UPDATED, true);
            entry.set_error(None);
        })
    }

    /// Unbinds a source in the router. Returns an error only if it may still be
    /// bound, and with it whether it surely is.
    pub(crate) fn unbind_in_router(&mut self, source: Source) -> Result<(), (Error, bool)> {
        let unbound = self.router.unbind(source);
        unbound.or_else(|error| self.unbind_refused(source, error))
    }

    #[cold]
    fn unbind_refused(&mut self, source: Source, error: Error) -> Result<(), (Error, bool)> {
        match self.router.restore(source) {
            Err(Error::NotFound) => Ok(()),
            bound => Err((error, bound.is_ok())),
        }
    }

    /// Masks every entry in the device, unbinds, and forgets what the guest
    /// wrote (M24).
    pub(crate) fn reset_function(&mut self, function: usize) -> Result<(), Error> {
        for entry in 0..self.functions[function].info.entries as u16 {
            self.set_vector_control(function, entry, true);
        }
        self.flush(function, 0);
        let result = self.router.unbind_function(FunctionId::at(function));
        let state = &mut self.functions[function];
        state.bound = Bitmap::EMPTY;
        state.due = Bitmap::EMPTY;
        state.open = Bitmap::EMPTY;
        for index in state.range() {
            let before = self.kept.entry(index);
            self.kept.set_entry(index, &before, &Entry::RESET);
        }
        self.commit_control(function, false, false);
        result
    }

    /// Masks or unmasks the device's entry.
    ///
    /// A mask is read back: the read's completion pushes ahead of it whatever
    /// message the device has sent (PCIe 6.0 section 2.4.1), so that after this
    /// no event is on its way to a vector that is about to be given back (M21).
    pub(crate) fn mask_in_device(&mut self, function: usize, entry: u16, masked: bool) {
        self.set_vector_control(function, entry, masked);
        self.functions[function].open.set(entry, !masked);
        if masked {
            self.flush(function, entry);
        }
    }

    pub(crate) fn set_vector_control(&mut self, function: usize, entry: u16, masked: bool) {
        let (place, offset) = self.functions[function].place(function, entry);
        let value = u64::from(masked);
        self.hardware
            .write(place, offset + VECTOR_CONTROL, Width::Dword, value);
    }

    pub(crate) fn flush(&mut self, function: usize, entry: u16) {
        let (place, offset) = self.functions[function].place(function, entry);
        self.hardware
            .read(place, offset + VECTOR_CONTROL, Width::Dword);
    }

    /// Writes address and data, in dwords: every device takes these (PCIe 6.0
    /// section 7.7.2, an 8-byte access is the device's choice).
    pub(crate) fn write_message(
        &mut self,
        function: usize,
        entry: u16,
        (address, data): (u64, u32),
    ) {
        let (place, offset) = self.functions[function].place(function, entry);
        for (field, value) in [
            (0, address & 0xffff_ffff),
            (4, address >> 32),
            (8, data.into()),
        ] {
            self.hardware
                .write(place, offset + field, Width::Dword, value);
        }
    }
}

impl Function {
    /// Returns the register (M1).
    pub(crate) fn message_control(&self) -> u16 {
        (self.info.entries - 1) as u16
            | bit(self.enabled, regs::MSIX_CONTROL_ENABLE)
            | bit(self.function_mask, regs::MSIX_CONTROL_FUNCTION_MASK)
    }

    /// Returns the area of an access to a page of this function that is none to a field of
    /// the table.
    pub(crate) fn area(&self, bar: u8, offset: u32, width: Width) -> Area {
        let end = u64::from(offset) + width.bytes();
        match self.ends.get(usize::from(bar)) {
            Some(&limit) if end > limit => Area::Unclaimed,
            _ => Area::of(&self.info, bar, offset, width),
        }
    }

    /// Returns an entry's place among those of all functions.
    fn index(&self, entry: u16) -> usize {
        self.first + usize::from(entry)
    }

    fn range(&self) -> core::ops::Range<usize> {
        self.first..self.first + self.info.entries as usize
    }

    /// Brings the bitmaps in line with an entry.
    pub(crate) fn index_entry(&mut self, entry: u16, state: &Entry) {
        self.bound.set(entry, state.is(BOUND));
        self.due.set(entry, state.wants_update());
    }

    /// Returns the device's entry: BAR and byte offset.
    fn place(&self, function: usize, entry: u16) -> (FunctionBar, u32) {
        let place = FunctionBar {
            function: FunctionId::at(function),
            bar: self.info.table_bar as u8,
        };
        (
            place,
            self.info.table_offset + ENTRY_SIZE * u32::from(entry),
        )
    }
}

/// Returns the router's name for an entry.
pub(crate) const fn source(function: usize, entry: u16) -> Source {
    Source::msix(FunctionId::at(function), entry)
}
