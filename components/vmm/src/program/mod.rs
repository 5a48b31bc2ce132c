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
use runtime::{Context, Stop};
use sel4::cap::Endpoint;
use sel4::{Fault as Message, RecvWithMRs};
use spec::{BADGE_CALL, FUNCTIONS, names};
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
        "host=vectis posted={} tsc_khz={tsc_khz} apic_khz={} restarts={restarts}",
        // The 8259s of a PC know of none.
        u8::from(!context.get(names::PC)),
        tsc_khz / 16
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

/// A trap, as a message tells it.
struct Trap {
    fault: Fault,
    /// The first registers, of which the message has `told`.
    registers: [u64; 3],
    told: usize,
    /// It waits for the reply to an exception.
    exception: bool,
}

impl Trap {
    fn new(message: &RecvWithMRs) -> Self {
        let [a, b, c, d] = message.msg;
        // An exception has five words, a page fault four; of others nothing is needed.
        let last = sel4::with_ipc_buffer(|buffer| buffer.msg_regs()[4]);
        match Message::from_message(message.info, &[a, b, c, d, last]) {
            Some(Message::UserException(fault)) => Self {
                fault: Fault::Exception {
                    vector: fault.number as u8,
                    code: fault.code,
                },
                registers: [fault.fault_ip, fault.sp, fault.flags],
                told: 3,
                exception: true,
            },
            Some(Message::VmFault(fault)) => Self {
                fault: Fault::Page {
                    address: fault.addr,
                    fetch: fault.is_prefetch(),
                    code: fault.fsr,
                },
                registers: [fault.ip, 0, 0],
                told: 1,
                exception: false,
            },
            _ => Self {
                fault: Fault::Syscall,
                registers: [0; 3],
                told: 0,
                exception: false,
            },
        }
    }
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
        // The registers with which the guest sleeps.
        let mut asleep = None;
        loop {
            let message = match (next.take(), reply.take()) {
                (Some(message), _) => message,
                (None, Some((info, words))) => self.endpoint.reply_recv_with_mrs(info, words),
                (None, None) => self.endpoint.recv_with_mrs(()),
            };
            if message.badge & BADGE_CALL != 0 {
                let trap = Trap::new(&message);
                let mut regs = Trapped::new(guest, &trap.registers[..trap.told]);
                asleep = None;
                match vmm.fault(trap.fault, &mut regs, host) {
                    Outcome::Resume => reply = guest.go_on(&regs, trap.exception)?,
                    Outcome::Wait => {
                        asleep = Some(regs);
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
            let (mut regs, sleeps) = match asleep.take() {
                Some(regs) => (regs, true),
                None => {
                    // A notification comes before a fault that is already queued. That
                    // fault must be taken first: its message is made from the registers
                    // at the time of receipt, so that none may be changed before.
                    let queued = self.endpoint.nb_recv_with_mrs(());
                    if queued.badge != 0 {
                        next = Some(queued);
                        continue;
                    }
                    (Trapped::new(guest, &[]), false)
                }
            };
            match vmm.inject(&mut regs, host) {
                Outcome::Resume => guest.write(&regs, sleeps)?,
                Outcome::Wait => asleep = Some(regs),
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
    let functions: Vec<_, FUNCTIONS> = context
        .functions()
        .take(FUNCTIONS)
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
