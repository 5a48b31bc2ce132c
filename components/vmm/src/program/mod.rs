//! The receive loop: a fault is emulated, an event injected.

mod bars;
mod end;
mod guest;
mod pins;
mod priority;
mod surroundings;

use channel::{msix, pci_config, timer};
use core::convert::Infallible;

use heapless::Vec;
use pci::GUEST_FUNCTIONS;
use runtime::{Context, Stop};
use sel4::cap::{Endpoint, Notification};
use sel4::{Fault as Message, MessageInfo, RecvWithMRs, fault};
use spec::{BADGE_CALL, names};
use vmm::{
    Budget, Counters, Fault, Host as _, Lives, Next, Outcome, Pc, Share, StopReason, Trapped, Vmm,
};

use end::End;
use guest::Guest;
use surroundings::Surroundings;

/// Least time between two interrupts of a guest's own timer: as often as each of
/// its other sources may interrupt by default (M23).
const TIMER_GAP_US: u64 = 50;

/// Returns the guest's command line: besides the text of system.toml,
/// where it runs, how fast its clocks are, and how often it was started again.
fn command_line(context: &Context, restarts: u64) -> heapless::String<{ vmm::COMMAND_LINE_MAX }> {
    use core::fmt::Write as _;
    let mut line = heapless::String::new();
    let tsc_khz = context.machine().tsc_khz;
    // The local APIC's timer counts time stamp ticks; apic_khz is its rate
    // after the division by 16 that guests choose.
    let _ = write!(
        line,
        "host=vectis posted={} tsc_khz={tsc_khz} apic_khz={} restarts={restarts} \
         ecam={}",
        // The 8259s of a PC know of none.
        u8::from(!context.get(names::PC)),
        tsc_khz / 16,
        spec::CONFIG_WINDOW.start
    );
    let kernel = context.machine().kernel;
    if !kernel.as_str().is_empty() {
        let _ = write!(line, " sel4={}", kernel.as_str());
    }
    if let Some(epoch) = context.machine().tsc_epoch_ns() {
        let _ = write!(line, " tsc_epoch_ns={epoch}");
    }
    if let Ok(own) = core::str::from_utf8(context.bytes(names::COMMAND_LINE))
        && !own.is_empty()
    {
        let _ = write!(line, " {own}");
    }
    line
}

/// Takes a trap from the message that tells it, and the registers that it tells of. Returns
/// it, and how many of the first registers the reply can set.
fn trap(message: &RecvWithMRs, regs: &mut Trapped<'_>) -> (Fault, usize) {
    sel4::with_ipc_buffer_mut(|buffer| {
        let words = buffer.msg_regs_mut();
        words[..message.msg.len()].copy_from_slice(&message.msg);
        regs.forget();
        let (trap, settable) = match Message::from_message(message.info, words) {
            Some(Message::UserException(exception)) => {
                regs.tell(0, &[exception.fault_ip, exception.sp, exception.flags]);
                let trap = Fault::Exception {
                    vector: exception.number as u8,
                    code: exception.code,
                };
                (trap, fault::EXCEPTION_REGISTERS)
            }
            Some(Message::VmFault(page)) => {
                regs.tell(0, &[page.ip]);
                let trap = Fault::Page {
                    address: page.addr,
                    fetch: page.is_prefetch(),
                    code: page.fsr,
                };
                (trap, 0)
            }
            // Of others nothing is needed.
            _ => (Fault::Syscall, 0),
        };
        match fault::registers(message.info, words) {
            Some((first, told)) => {
                regs.tell(first, told);
                (trap, fault::ALL_REGISTERS)
            }
            None => (trap, settable),
        }
    })
}

/// Returns the word for the monitor.
const fn stop(reason: StopReason) -> Stop {
    match reason {
        StopReason::Exit(code) => Stop::GuestExit(code),
        StopReason::HaltForever => Stop::GuestHalt,
        StopReason::TripleFault(vector) => Stop::GuestFault(vector),
        StopReason::Image => Stop::GuestImage,
        StopReason::PageTable(_) => Stop::GuestPageTable,
    }
}

/// One life of the guest, with what outlives it.
struct Life<'a> {
    context: &'a Context,
    lives: &'a Lives,
    endpoint: Endpoint,
    /// What signals events; bound to the own thread, so that they come at the endpoint too.
    events: Notification,
}

impl Life<'_> {
    /// Loads the guest, starts it, and serves it until it is over.
    fn run(&self, vmm: &mut Vmm<'_>, host: &mut Surroundings<'_>) -> StopReason {
        host.attach();
        vmm.start(host);
        let line = command_line(self.context, self.lives.restarts);
        let image = self.context.bytes(names::GUEST_IMAGE);
        let load =
            |host: &mut Surroundings<'_>| vmm::load(image, line.as_bytes(), host.ram(), host);
        let (entry, boot_params) = match host.in_background(load) {
            Ok(loaded) => loaded,
            Err(error) => {
                defmt::error!("guest image: {}", defmt::Debug2Format(&error));
                return StopReason::Image;
            }
        };
        let ram = host.ram();
        if self.context.get(names::PC) && !vmm::describe_pc(&ram, boot_params, host) {
            return StopReason::Image;
        }
        defmt::info!("guest entry tsc={=u64}", runtime::tsc());
        if let Err(reason) = host.guest().start(entry, boot_params) {
            return reason;
        }
        vmm.counters.guest_restarts.set(self.lives.restarts);
        match self.serve(vmm, host) {
            Err(reason) => reason,
            Ok(never) => match never {},
        }
    }

    /// Serves the guest's faults and events, one after another.
    fn serve(
        &self,
        vmm: &mut Vmm<'_>,
        host: &mut Surroundings<'_>,
    ) -> Result<Infallible, StopReason> {
        let guest = host.guest();
        // What has the guest go on, and a message that came behind an event.
        let (mut reply, mut next) = (None, None);
        // The guest's registers, as it trapped or sleeps. A sleeping one goes on by a reply
        // that sets so many of them.
        let mut regs = Trapped::new(guest, &[]);
        let mut asleep = None;
        loop {
            let message = match (next.take(), reply.take()) {
                (Some(message), _) => message,
                (None, Some((info, words))) => self.endpoint.reply_recv_with_mrs(info, words),
                // Waiting at the endpoint would drop the reply that a sleeping guest waits for.
                // One that only says that it sleeps gets no answer before an event, either.
                (None, None) if asleep.is_some() => RecvWithMRs {
                    info: MessageInfo::new(0, 0, 0, 0),
                    badge: self.events.wait(),
                    msg: [0; 4],
                },
                (None, None) => self.endpoint.recv_with_mrs(()),
            };
            if message.badge & BADGE_CALL != 0 {
                let (fault, settable) = trap(&message, &mut regs);
                match vmm.fault(fault, &mut regs, host) {
                    Outcome::Resume => reply = guest.go_on(&regs, settable)?,
                    Outcome::Wait => {
                        asleep = Some(settable);
                        // A line without an end is shown when the guest goes to sleep.
                        host.flush_console();
                    }
                    Outcome::Stop(reason) => return Err(reason),
                }
                continue;
            }
            vmm.events(message.badge, host);
            if !vmm.wants_injection() {
                continue;
            }
            if asleep.is_none() {
                // A notification comes before a fault that is already queued. That
                // fault must be taken first: its message is made from the registers
                // at the time of receipt, so that none may be changed before.
                let queued = self.endpoint.nb_recv_with_mrs(());
                if queued.badge != 0 {
                    next = Some(queued);
                    continue;
                }
                regs.forget();
            }
            match vmm.inject(&mut regs, host) {
                Outcome::Resume => match asleep.take() {
                    Some(settable) => reply = guest.go_on(&regs, settable)?,
                    None => guest.write(&regs, false)?,
                },
                Outcome::Wait => {}
                Outcome::Stop(reason) => {
                    // It is reported with the registers that it slept with.
                    guest.write(&regs, false)?;
                    return Err(reason);
                }
            }
        }
    }
}

/// Waits forever: the guest stays as it is.
fn halt(endpoint: Endpoint) -> ! {
    loop {
        endpoint.recv(());
    }
}

/// Runs the component.
pub fn main(context: Context) -> ! {
    let functions: Vec<_, GUEST_FUNCTIONS> = context
        .functions()
        .take(GUEST_FUNCTIONS)
        .map(|device| context.function(device))
        .collect();
    let guest = Guest::new(&context);
    let mut host = Surroundings::new(
        &context,
        &functions,
        &guest,
        pci_config::Client(context.channel(pci_config::NAME)),
        msix::table::Client(context.channel(msix::table::NAME)),
        timer::Client(context.channel(timer::NAME)),
    );
    let tsc_khz = context.machine().tsc_khz.max(1);
    let budget = Budget {
        events: context.get(names::INTERRUPT_BUDGET),
        interval: tsc_khz * 1000,
        timer: tsc_khz * TIMER_GAP_US / 1000,
    };
    let microseconds = |us: u64| us * tsc_khz / 1000;
    let turn = context.get(names::SHARE);
    let share = Share::new(
        microseconds(spec::PERIOD_US),
        microseconds(turn.start),
        microseconds(turn.length),
    );
    let endpoint = context.endpoint();
    let events = context.capability(names::EVENT_NOTIFICATION);
    let rewritten = context.get(names::REWRITTEN);
    let shim = context
        .get(names::SHIM)
        .then(|| host.ram().end - spec::shim::SIZE);
    let mut lives = Lives::new(context.get(names::ON_EXIT));
    let mut counters = Counters::default();
    let mut places = context.counters();
    counters.show(&mut places);
    host.show_counters(&mut places);
    loop {
        let mut vmm = Vmm::new(&functions, budget, share)
            .rewritten(rewritten)
            .with_shim(shim);
        vmm.counters = counters;
        if context.get(names::PC) {
            let epoch_ns = context.machine().tsc_epoch_ns().unwrap_or(0);
            vmm.set_pc(Pc::new(tsc_khz, epoch_ns / 1_000_000_000));
        }
        let life = Life {
            context: &context,
            lives: &lives,
            endpoint,
            events,
        };
        let reason = life.run(&mut vmm, &mut host);
        counters = core::mem::take(&mut vmm.counters);
        if !stop(reason).orderly() && reason != StopReason::Image {
            if let StopReason::PageTable(bad) = reason {
                defmt::warn!("{}", defmt::Display2Format(&bad));
            }
            let registers = Trapped::new(host.guest(), &[]).all();
            let crash = vmm.crash(&registers, &mut host);
            defmt::warn!("guest ended at {}", defmt::Display2Format(&crash));
        }
        host.guest().end();
        host.flush_console();
        let next = lives.ended(reason, runtime::tsc() / tsc_khz);
        if next == Next::Stop {
            stop(reason).request();
        }
        let mut end = End {
            host: &mut host,
            endpoint,
            share,
            tsc_khz,
            stop: stop(reason),
            restarts: lives.restarts,
        };
        if !vmm::take_back(&mut end, &functions, next) {
            halt(endpoint)
        }
    }
}
