//! The receive loop: a fault is emulated, an event injected.

mod bars;
mod end;
mod guest;
mod pins;
mod priority;
mod surroundings;

use channel::{msix, pci_config, timer};
use heapless::Vec;
use runtime::{Context, Stop};
use sel4::Fault as Message;
use sel4::cap::Endpoint;
use spec::{BADGE_CALL, FUNCTIONS, names};
use vmm::{
    Budget, Counters, Fault, Host as _, Lives, Next, Outcome, Pc, Registers, Share, StopReason, Vmm,
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
        "host=vectis tsc_khz={tsc_khz} apic_khz={} restarts={restarts}",
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

fn fault_of(message: Option<Message>) -> Fault {
    match message {
        Some(Message::UserException(fault)) => Fault::Exception {
            vector: fault.number as u8,
            code: fault.code,
        },
        Some(Message::VmFault(fault)) => Fault::Page {
            address: fault.addr,
            fetch: fault.is_prefetch(),
            code: fault.fsr,
        },
        _ => Fault::Syscall,
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
        loop {
            if let Err(reason) = self.serve(vmm, host) {
                return reason;
            }
            if vmm.halted() {
                // A line without an end is shown when the guest goes to sleep.
                host.flush_console();
            }
        }
    }

    /// Waits for a fault or an event, and for what is queued behind it.
    fn serve(&self, vmm: &mut Vmm<'_>, host: &mut Surroundings<'_>) -> Result<(), StopReason> {
        let mut next = Some(self.endpoint.recv(()));
        // A notification comes before a fault that is already queued. That
        // fault must be taken first: its message is made from the registers
        // at the time of receipt, so that none may be changed before.
        while let Some((info, badge)) = next.take() {
            if badge & BADGE_CALL != 0 {
                let message = Message::from_ipc_buffer(info);
                let mut registers = host.guest().read();
                let outcome = vmm.fault(fault_of(message), &mut registers, host);
                finish(host.guest(), &registers, outcome)?;
            } else if badge != 0 {
                vmm.events(badge as u32, host);
                let (info, badge) = self.endpoint.nb_recv(());
                if badge != 0 {
                    next = Some((info, badge));
                } else if vmm.wants_injection() {
                    let halted = vmm.halted();
                    let mut registers = host.guest().read();
                    let outcome = vmm.inject(&mut registers, host);
                    if !halted && outcome == Outcome::Resume {
                        host.guest().write(&registers, false)?;
                    } else {
                        finish(host.guest(), &registers, outcome)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn finish(guest: &Guest, registers: &Registers, outcome: Outcome) -> Result<(), StopReason> {
    match outcome {
        Outcome::Resume => guest.write(registers, true),
        // Not resumed; what it wakes up with is kept by the kernel.
        Outcome::Wait => guest.write(registers, false),
        Outcome::Stop(reason) => Err(reason),
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
    let mut host = Surroundings::new(
        &context,
        &functions,
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
    let mut lives = Lives::new(context.get(names::ON_EXIT));
    let mut counters = Counters::default();
    let mut places = context.counters();
    counters.show(&mut places);
    host.show_counters(&mut places);
    loop {
        let mut vmm = Vmm::new(&functions, budget, share)
            .rewritten(rewritten)
            .with_shim(context.get(names::SHIM));
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
            let registers = host.guest().read();
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
