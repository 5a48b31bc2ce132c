//! The guest's machine: traps in, resumed or stopped guest out.

mod posted;
mod traps;

use channel::irq_router::{Source, SourceKind};
use pci::FunctionInfo;
use spec::acpi::TIMER_PIN;
use spec::{BADGE_TIMER, SLOTS, slots_of};

use crate::bus::Devices;
use crate::counters::Counters;
use crate::cpu::Cpu;
use crate::crash::Crash;
use crate::host::{GuestMemory, Host, StopReason};
use crate::inject;
use crate::instruction_cache::InstructionCache;
use crate::lapic::Lapic;
use crate::pc::Pc;
use crate::registers::{Registers, Trapped};
use crate::share::{Outside, Share};
use crate::slots::{Budget, Slots, Taken, bits};

/// #UD.
const INVALID_OPCODE: u8 = 6;
/// #DF.
const DOUBLE_FAULT: u8 = 8;
/// #GP.
const GENERAL_PROTECTION: u8 = 13;

/// Why the guest trapped. It is what the kernel reported, or what the guest forged on its
/// own endpoint, and so are the registers that came with it ([`Trapped`]): nothing is
/// trusted further than the guest is. By a forged trap it has emulated what it could have
/// trapped at, and goes on where it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An exception.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code.
        code: u64,
    },
    /// An access where nothing is mapped.
    Page {
        /// The address.
        address: u64,
        /// It was an instruction fetch.
        fetch: bool,
        /// The CPU's error code.
        code: u64,
    },
    /// A system call, which a guest has no use for.
    Syscall,
}

/// What becomes of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on with the registers as they are now.
    Resume,
    /// It waits for an interrupt.
    Wait,
    /// It is over.
    Stop(StopReason),
}

/// Returns the first of two times, each of which may never come.
const fn first(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) if other < one => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// One guest with one virtual CPU.
#[derive(Debug)]
pub struct Vmm<'a> {
    cpu: Cpu,
    lapic: Lapic,
    devices: Devices<'a>,
    slots: Slots,
    /// What the host's timer was last set to.
    deadline: Option<u64>,
    /// The timer component put that off.
    put_off: bool,
    lapic_deadline: Option<u64>,
    /// The guest's own timer does not interrupt before this.
    timer_floor: u64,
    /// Least ticks between two of its interrupts.
    timer_gap: u64,
    share: Share,
    /// The build tool rewrote instructions of its image ([`spec::rewrite`]).
    rewritten: bool,
    outside: Outside,
    /// Events wait until then.
    deferred: u64,
    /// What the host was last told of the guest's turn.
    foreground: Option<bool>,
    /// When the turn changes next; `None` if that has come while the guest
    /// sleeps, to whom it makes no difference.
    turn: Option<u64>,
    halted_at: u64,
    /// Error code of the last exception.
    error: u64,
    /// First address of a shim that has not registered yet.
    shim_start: Option<u64>,
    /// The same of one that has, and its code for calls.
    shim: Option<(u64, u64)>,
    instructions: InstructionCache,
    /// Where interrupts are posted, for a guest that asked.
    block: Option<posted::Block>,
    /// What happened so far.
    pub counters: Counters,
}

impl<'a> Vmm<'a> {
    /// Creates a guest as at reset, with these functions and this part of the
    /// time.
    #[must_use]
    pub fn new(functions: &'a [FunctionInfo], budget: Budget, share: Share) -> Self {
        Self {
            cpu: Cpu::default(),
            lapic: Lapic::default(),
            devices: Devices::new(functions),
            slots: Slots::new(budget),
            deadline: None,
            put_off: false,
            lapic_deadline: None,
            timer_floor: 0,
            timer_gap: budget.timer,
            share,
            rewritten: false,
            outside: Outside::new(share),
            deferred: 0,
            foreground: None,
            turn: None,
            halted_at: 0,
            error: 0,
            shim_start: None,
            shim: None,
            instructions: InstructionCache::default(),
            block: None,
            counters: Counters::default(),
        }
    }

    /// Adds the devices of a PC. To be called before [`Vmm::start`].
    pub fn set_pc(&mut self, pc: Pc) {
        self.devices.pc = Some(pc);
        self.lapic = Lapic::virtual_wire();
    }

    /// Sets whether the build tool rewrote instructions of the guest's image
    /// ([`spec::rewrite`]): only then what stands for them is emulated.
    #[must_use]
    pub const fn rewritten(mut self, rewritten: bool) -> Self {
        self.rewritten = rewritten;
        self
    }

    /// Offers the port by which a shim registers, whose RAM begins there, and calls of its
    /// image ([`spec::shim`]).
    #[must_use]
    pub const fn with_shim(mut self, start: Option<u64>) -> Self {
        self.shim_start = start;
        self
    }

    /// Maps what is decoded at reset. To be called once before the guest runs.
    pub fn start(&mut self, host: &mut impl Host) {
        self.devices.refresh_bars(host);
        self.take_turn(host);
        self.update_deadline(host);
    }

    /// Tells the host whose turn it is, if that has changed. To be called before
    /// the guest goes on.
    fn take_turn(&mut self, host: &mut impl Host) {
        if self.share.is_whole() && self.foreground.is_some() {
            return;
        }
        let now = host.now();
        if self.turn.is_some_and(|until| now < until) {
            return;
        }
        let turn = self.share.turn(now);
        self.turn = (!self.share.is_whole()).then_some(turn.until);
        if self.foreground != Some(turn.own) {
            self.foreground = Some(turn.own);
            host.set_foreground(turn.own);
        }
    }

    /// Returns whether the guest waits in HLT.
    #[must_use]
    pub const fn halted(&self) -> bool {
        self.cpu.halted
    }

    /// Returns whether an interrupt can be injected now, or a guest that sleeps has one
    /// posted.
    #[must_use]
    pub fn wants_injection(&self) -> bool {
        if let Some(block) = &self.block {
            return self.cpu.halted && block.waiting;
        }
        self.cpu.interrupts && (self.lapic.pending().is_some() || self.external().is_some())
    }

    /// Returns the devices of a PC if they ask for an interrupt that gets through.
    fn external(&self) -> Option<&Pc> {
        let pc = self.devices.pc.as_ref()?;
        (self.lapic.passes_external() && pc.interrupts()).then_some(pc)
    }

    /// Acknowledges the next interrupt, if the guest takes one now. Returns its vector.
    fn acknowledge(&mut self) -> Option<u8> {
        if !self.cpu.interrupts {
            return None;
        }
        if let Some(vector) = self.lapic.pending() {
            self.lapic.acknowledge(vector);
            return Some(vector);
        }
        self.external()?;
        self.devices.pc.as_mut().map(Pc::acknowledge)
    }

    /// Handles a notification word: each bit is a slot or the timer.
    pub fn events(&mut self, word: u64, host: &mut impl Host) {
        let mut start = host.now();
        // An event may end a source's throttling, too.
        let mut moves = self.slots.throttled() != 0;
        if word & BADGE_TIMER != 0 {
            moves = true;
            self.counters.timer_signals += 1;
            // What the timer component did is part of what it costs. How late it was
            // on purpose is not.
            if !self.put_off {
                start = self.deadline.map_or(start, |due| due.min(start));
            }
            // Whatever it was armed for, it is not armed any more.
            self.deadline = None;
            self.timer(start, host);
        }
        for slot in bits(slots_of(word)) {
            self.counters.events += 1;
            self.event(slot, host);
        }
        if moves || self.deadline_moves() {
            self.update_deadline(host);
        }
        self.charge(start, host);
        self.post(host);
    }

    /// Handles the host's timer, which was due at `due`.
    fn timer(&mut self, due: u64, host: &mut impl Host) {
        let now = host.now();
        if self.turn.is_some_and(|until| until <= now) {
            self.turn = None;
            // One that sleeps hears of its turn when it wakes. But whether it does
            // sleep is the guest's word: what it sends on its fault endpoint looks
            // like its trap, and does not stop it. It does not keep its turn by that.
            if !self.cpu.halted {
                self.take_turn(host);
            } else if self.foreground == Some(true) && !self.share.turn(now).own {
                self.foreground = Some(false);
                host.set_foreground(false);
            }
        }
        self.take_deadline(host);
        self.fire(now);
        while let Some((slot, source)) = self.slots.release(now) {
            match source.kind {
                SourceKind::Msix => {
                    // If it failed the source is gone, and its throttling too.
                    host.set_throttled(source, false);
                }
                SourceKind::Pin => self.devices.ioapic.set_throttled(source, false, host),
                SourceKind::Msi => {
                    host.set_throttled(source, false);
                    self.after_throttling(slot, source, host);
                }
            }
        }
        // A timer that costs more than it waits would leave nothing for others:
        // it gets a quarter at most, however slow the machine is.
        let cost = host.now().saturating_sub(due).min(self.timer_gap << 4);
        self.timer_floor = self.timer_floor.max(due.saturating_add(cost << 2));
    }

    /// Delivers a function's messages once more after throttling. Without mask bits it
    /// could only be silenced as a whole, and lost the messages that it would have
    /// sent. A driver of an edge-triggered interrupt has to bear a spurious one.
    fn after_throttling(&mut self, slot: usize, source: Source, host: &mut impl Host) {
        let throttled = Some((source.function, source.kind));
        for other in 0..SLOTS {
            let route = host.route(other);
            let of = route.map(|route| (route.source.function, route.source.kind));
            if of == throttled || other == slot {
                self.slots.event(other, route, false, &mut self.lapic, host);
            }
        }
    }

    /// Fires the guest's own timers if they are due and may interrupt.
    fn fire(&mut self, now: u64) {
        if now < self.timer_floor.max(self.deferred) {
            return;
        }
        let mut fired = self.lapic.timer(now);
        if let Some(pc) = &mut self.devices.pc
            && pc.tick(now)
        {
            self.devices.ioapic.edge(TIMER_PIN, &mut self.lapic);
            fired = true;
        }
        if fired {
            self.timer_floor = now.saturating_add(self.timer_gap);
        }
    }

    /// Charges events that were handled from `start` on, and has the next ones
    /// wait if they have cost others enough.
    fn charge(&mut self, start: u64, host: &mut impl Host) {
        if self.share.is_whole() {
            return;
        }
        // A machine that is itself held up for a while is not the guest's doing.
        let now = host.now();
        self.outside
            .charge(start.max(now.saturating_sub(self.timer_gap << 2)), now);
        if let Some(until) = self.outside.waits_until(now)
            && until != self.deferred
        {
            self.deferred = until;
            self.counters.deferrals += 1;
            self.slots.defer(until);
            self.update_deadline(host);
        }
    }

    /// Translates a slot into the guest's vector, this component's main task.
    fn event(&mut self, slot: usize, host: &mut impl Host) {
        let route = host.route(slot);
        if let Some(route) = route
            && route.source.kind == SourceKind::Pin
        {
            if self.slots.pin_is_over(slot, route.source, host) {
                self.devices.ioapic.set_throttled(route.source, true, host);
            }
            if !self.devices.ioapic.event(route.source, &mut self.lapic) {
                self.counters.dropped += 1;
            }
        } else {
            match self.slots.event(slot, route, true, &mut self.lapic, host) {
                Taken::Delivered => {}
                Taken::Held => self.counters.held += 1,
                Taken::Lost => self.counters.dropped += 1,
            }
        }
        self.counters.storms += self.slots.take_storms();
    }

    /// Tries events again that are held: the guest may have unmasked their source
    /// (M20). To be called after each access that could do so; `held` is nearly
    /// always 0.
    fn release_held(&mut self, host: &mut impl Host) {
        for slot in bits(self.slots.held()) {
            self.slots
                .event(slot, host.route(slot), false, &mut self.lapic, host);
        }
    }

    /// Returns whether what comes first may be another than before, as long as the host's
    /// timer did not signal: nothing else than these moves it.
    fn deadline_moves(&self) -> bool {
        self.lapic.deadline_changed()
            || self.devices.pc.is_some()
            || self.slots.throttled() != 0
            || !self.share.is_whole()
    }

    /// Sets the host's timer for what comes first: the guest's own timer, a
    /// throttled source's end, or the end of a turn.
    fn update_deadline(&mut self, host: &mut impl Host) {
        if let Some(deadline) = self.lapic.take_deadline_change() {
            self.lapic_deadline = deadline;
            // A deadline that is past already fires without the timer component.
            let now = host.now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.fire(now);
                self.lapic_deadline = self.lapic.take_deadline_change().unwrap_or(deadline);
            }
        }
        let pc = self.devices.pc.as_ref().and_then(Pc::deadline);
        let own = first(self.lapic_deadline, pc)
            .map(|deadline| deadline.max(self.timer_floor).max(self.deferred));
        let first = first(first(own, self.slots.deadline()), self.turn);
        // A guest that leaves its deadline in memory moves it at each sleep, mostly on. A timer
        // that comes too early is set again then.
        let early = self.block.is_some() && self.deadline.is_some_and(|set| first > Some(set));
        if first != self.deadline && !early {
            self.deadline = first;
            self.put_off = host.set_deadline(first);
        }
    }

    /// Injects the pending interrupt, if there is one and the guest takes it.
    /// Wakes a halted guest.
    pub fn inject(&mut self, regs: &mut Trapped<'_>, host: &mut impl Host) -> Outcome {
        if self.block.is_some() {
            self.post(host);
            if self.cpu.halted {
                self.look(host);
            }
            if self.wants_injection() {
                self.wake(host);
            }
        } else if let Some(vector) = self.acknowledge() {
            if self.cpu.halted {
                self.wake(host);
            }
            return self.deliver(vector, None, regs, host);
        }
        if self.cpu.halted {
            Outcome::Wait
        } else {
            Outcome::Resume
        }
    }

    fn wake(&mut self, host: &mut impl Host) {
        self.cpu.halted = false;
        let now = host.now();
        self.counters.halted_ticks += now.saturating_sub(self.halted_at);
        self.counters.woken_at.set(now);
        self.take_turn(host);
        if self.deadline_moves() {
            self.update_deadline(host);
        }
    }

    fn deliver(
        &mut self,
        vector: u8,
        error: Option<u32>,
        regs: &mut Trapped<'_>,
        host: &mut impl Host,
    ) -> Outcome {
        match inject::deliver(&mut self.cpu, regs, host, vector, error) {
            Ok(()) => {
                self.counters.injected += 1;
                Outcome::Resume
            }
            Err(inject::Undeliverable)
                if inject::deliver(&mut self.cpu, regs, host, DOUBLE_FAULT, Some(0)).is_ok() =>
            {
                Outcome::Resume
            }
            Err(inject::Undeliverable) => Outcome::Stop(StopReason::TripleFault(vector)),
        }
    }

    fn exception(
        &mut self,
        vector: u8,
        code: u64,
        regs: &mut Trapped<'_>,
        host: &mut impl Host,
    ) -> Outcome {
        self.counters.exceptions += 1;
        self.error = code;
        // SDM vol. 3 table 7-1: which exceptions push an error code.
        let error = matches!(vector, 8 | 10..=14 | 17 | 21).then_some(code as u32);
        self.deliver(vector, error, regs, host)
    }

    /// Handles a trap of the guest. `regs` are its registers, changed to those that it
    /// goes on with.
    pub fn fault(&mut self, fault: Fault, regs: &mut Trapped<'_>, host: &mut impl Host) -> Outcome {
        self.counters.traps += 1;
        // A guest that traps is awake: somebody may have made it go on.
        self.cpu.halted = false;
        // A call changes nothing that is looked at below.
        if let Fault::Exception {
            vector: GENERAL_PROTECTION,
            ..
        } = fault
            && let Some(outcome) = self.shim_call(regs, host)
        {
            self.take_turn(host);
            return outcome;
        }
        let outcome = match fault {
            Fault::Exception {
                vector: GENERAL_PROTECTION,
                code,
            } => self.privileged(code, regs, host),
            Fault::Exception {
                vector: INVALID_OPCODE,
                ..
            } => self.invalid_opcode(regs, host),
            Fault::Exception { vector, code } => self.exception(vector, code, regs, host),
            Fault::Page {
                address,
                fetch,
                code,
            } => self.memory(address, fetch, code, regs, host),
            Fault::Syscall => {
                self.counters.system_calls += 1;
                self.exception(INVALID_OPCODE, 0, regs, host)
            }
        };
        if let Some(vector) = self.lapic.take_ended() {
            self.devices.ioapic.end(vector, host);
        }
        if !self.cpu.halted {
            self.take_turn(host);
        }
        if self.deadline_moves() {
            self.update_deadline(host);
        }
        match outcome {
            Outcome::Stop(_) => outcome,
            Outcome::Resume | Outcome::Wait => self.inject(regs, host),
        }
    }

    /// Returns the report of a guest that ended with these registers.
    pub fn crash(&self, regs: &Registers, ram: &mut impl GuestMemory) -> Crash {
        Crash::new(regs, self.cpu.cr2, self.error, ram)
    }
}

#[cfg(test)]
mod tests;
