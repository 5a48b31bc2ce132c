//! The receive loop: a fault is emulated, an event injected.

mod bars;
mod guest;
mod pins;
mod surroundings;

use channel::{msix, pci_config, timer};
use heapless::Vec;
use runtime::{Context, Stop};
use sel4::Fault as Message;
use spec::BADGE_CALL;
use vmm::{Budget, Fault, MAX_FUNCTIONS, Outcome, StopReason, Vmm};

use guest::Guest;
use surroundings::Surroundings;

/// What the guest is told on its command line besides what system.toml says:
/// where it runs, and how fast its clocks are.
fn command_line(context: &Context) -> heapless::String<{ vmm::COMMAND_LINE_MAX }> {
    use core::fmt::Write as _;
    let mut line = heapless::String::new();
    let tsc_khz = context.machine().tsc_khz;
    // The local APIC's timer counts time stamp ticks; apic_khz is its rate
    // after the division by 16 that guests choose.
    let _ = write!(
        line,
        "host=vectis tsc_khz={tsc_khz} apic_khz={}",
        tsc_khz / 16
    );
    if let Ok(own) = core::str::from_utf8(context.bytes("command-line"))
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

fn publish(context: &Context, vmm: &Vmm<'_>) {
    let counters = &vmm.counters;
    context.counters().publish(&[
        ("traps", counters.traps),
        ("memory_accesses", counters.memory_accesses),
        ("injected", counters.injected),
        ("events", counters.events),
        ("held", counters.held),
        ("dropped", counters.dropped),
        ("timer_signals", counters.timer_signals),
        ("halts", counters.halts),
        ("halted_ticks", counters.halted_ticks),
        ("ticks", runtime::tsc() - context.machine().handover_tsc),
        ("exceptions", counters.exceptions),
        ("system_calls", counters.system_calls),
        ("unclaimed_ports", counters.unclaimed_ports),
        ("unclaimed_memory", counters.unclaimed_memory),
    ]);
}

fn stop(reason: StopReason) -> ! {
    match reason {
        StopReason::Exit(code) => Stop::GuestExit(code),
        StopReason::HaltForever => Stop::GuestHalt,
        StopReason::TripleFault(vector) => Stop::GuestFault(vector),
    }
    .request()
}

/// Entry of the component.
pub fn main(context: Context) -> ! {
    let functions: Vec<_, MAX_FUNCTIONS> = context
        .functions()
        .take(MAX_FUNCTIONS)
        .map(|device| context.function(device))
        .collect();
    let mut host = Surroundings::new(
        &context,
        &functions,
        pci_config::Client(context.channel("PciConfig")),
        msix::table::Client(context.channel("MsixTable")),
        timer::Client(context.channel("Timer")),
    );
    let budget = Budget {
        events: context.number("interrupt-budget").0,
        interval: context.machine().tsc_khz * 1000,
    };
    let mut vmm = Vmm::new(&functions, budget);
    vmm.start(&mut host);
    let line = command_line(&context);
    let image = context.bytes("guest-image");
    let (entry, boot_params) = match vmm::load(image, line.as_bytes(), host.ram(), &mut host) {
        Ok(loaded) => loaded,
        Err(error) => {
            defmt::error!("guest image: {}", defmt::Debug2Format(&error));
            Stop::GuestImage.request()
        }
    };
    let guest = Guest::new(&context);
    guest.start(entry, boot_params);
    defmt::info!("guest entry tsc={=u64}", runtime::tsc());
    let endpoint = context.endpoint();
    loop {
        publish(&context, &vmm);
        let (info, badge) = endpoint.recv(());
        let mut next = Some((info, badge));
        // A notification comes before a fault that is already queued. That
        // fault must be taken first: its message is made from the registers
        // at the time of receipt, so that none may be changed before.
        while let Some((info, badge)) = next.take() {
            if badge & BADGE_CALL != 0 {
                let message = Message::from_ipc_buffer(info);
                let mut state = guest.read();
                let outcome = vmm.fault(fault_of(message), &mut state.registers, &mut host);
                finish(&guest, &state, outcome);
            } else if badge != 0 {
                vmm.events(badge as u32, &mut host);
                let (info, badge) = endpoint.nb_recv(());
                if badge != 0 {
                    next = Some((info, badge));
                } else if vmm.wants_injection() {
                    let halted = vmm.halted();
                    let mut state = guest.read();
                    let outcome = vmm.inject(&mut state.registers, &mut host);
                    if halted {
                        finish(&guest, &state, outcome);
                    } else if outcome == Outcome::Resume {
                        guest.write(&state, false);
                    } else {
                        finish(&guest, &state, outcome);
                    }
                }
            }
        }
        if vmm.halted() {
            // A line without an end is shown when the guest goes to sleep.
            host.flush_console();
        }
    }
}

fn finish(guest: &Guest, state: &guest::State, outcome: Outcome) {
    match outcome {
        Outcome::Resume => guest.write(state, true),
        Outcome::Wait => {
            // Not resumed; what it wakes up with is kept by the kernel.
            guest.write(state, false);
        }
        Outcome::Stop(reason) => stop(reason),
    }
}
