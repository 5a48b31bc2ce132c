//! After boot: waits for a component to stop, says why, and follows its policy.

use core::fmt::Write as _;

use heapless::String;
use init::{
    Action, AfterFault, BACKTRACE_MAX, Cause, Guests, LastWords, Restarts, backtrace,
    in_guard_page, resting_priority,
};
use runtime::Stop;
use sel4::cap::{Granule, Tcb};
use sel4::init_thread::slot;
use sel4::{CapRights, Fault, MessageInfo, VmAttributes};
use spec::{
    Backoff, Ending, NONE, NOWHERE, PANIC_LABEL, PANIC_WORDS, READY_LABEL, Start, System, Thread,
};

use super::authority::Watched;
use super::fatal::fatal;
use super::memory::SCRATCH;
use super::ports::{self, Serial};
use super::restart;
use super::screen;

/// Init's own priority, as the kernel started it.
const PRIORITY: u8 = 255;
/// Threads that are watched.
const MAX_THREADS: usize = 64;

/// Waits on the fault endpoint forever.
pub fn watch(system: &System<'_>, watched: &Watched<'_>, tsc_khz: u64) -> ! {
    screen::show();
    let mut restarts = [Restarts::default(); MAX_THREADS];
    let mut guests = Guests::new(watched.gone.len());
    loop {
        let (info, badge) = watched.monitor.recv(());
        let Some((index, thread)) = thread(system, badge) else {
            continue;
        };
        let word = sel4::with_ipc_buffer(|buffer| buffer.msg_regs()[0]);
        match init::action(system, thread, info.label()) {
            Action::StopSystem => stop(system, watched, thread, Stop::from_word(word)),
            Action::Inject => inject(system, watched, word),
            Action::StopGuest => {
                let why = "accessed memory that is not its own by DMA";
                stop_guest(system, watched, &mut guests, word, why);
            }
            Action::Refuse => {}
            Action::Fault => {
                report(system, watched, thread, info);
                let now_ms = runtime::tsc() / tsc_khz.max(1);
                match init::after_fault(thread, restarts.get_mut(index), now_ms) {
                    AfterFault::StopGuest => {
                        stop_guest(system, watched, &mut guests, thread.guest, "lost its vmm");
                    }
                    AfterFault::Stop => end(
                        system,
                        watched,
                        format_args!("{} is dead, the system stops", thread.name.as_str()),
                    ),
                    AfterFault::GiveUp => end(
                        system,
                        watched,
                        format_args!(
                            "{} died {} times within {} s: the system stops",
                            thread.name.as_str(),
                            Backoff::LIMIT + 1,
                            Backoff::WINDOW_MS / 1000
                        ),
                    ),
                    AfterFault::Restart {
                        wait_ms,
                        generation,
                    } => {
                        restart(system, watched, thread, wait_ms, generation, tsc_khz);
                        // A component that died may have been about to act on it.
                        // Doing so twice is harmless.
                        guests.stopped().for_each(|guest| tell(watched, guest));
                    }
                }
                continue;
            }
        }
        sel4::reply(MessageInfo::new(0, 0, 0, 0));
    }
}

/// Waits until the component that was started first says that it is ready.
pub fn wait_ready(system: &System<'_>, watched: &Watched<'_>) {
    loop {
        let (info, badge) = watched.monitor.recv(());
        let Some((_, thread)) = thread(system, badge) else {
            continue;
        };
        if info.label() == READY_LABEL {
            sel4::reply(MessageInfo::new(0, 0, 0, 0));
            return;
        }
        screen::show();
        report(system, watched, thread, info);
        fatal!(
            "{} died before it was ready: nothing is started without it",
            thread.name.as_str()
        );
    }
}

/// Starts a component again after a wait.
fn restart(
    system: &System<'_>,
    watched: &Watched<'_>,
    thread: &Thread,
    wait_ms: u64,
    generation: u64,
    tsc_khz: u64,
) {
    let name = thread.name.as_str();
    if wait_ms > 0 {
        let _ = write!(Serial, "init: {name} starts again in {wait_ms} ms\r\n");
        rest(system, wait_ms * tsc_khz);
    }
    match restart::restart(system, watched, thread, generation) {
        Ok(()) => {
            let _ = write!(
                Serial,
                "init: {name} restarted, generation {generation}\r\n"
            );
        }
        Err(error) => {
            let _ = write!(Serial, "init: {name} cannot be restarted: {error:?}\r\n");
            ports::exit(Ending::Failure);
        }
    }
}

/// Stops a guest and its vmm, and has its functions quiesced (M24). The others
/// go on; without any the system ends.
fn stop_guest(
    system: &System<'_>,
    watched: &Watched<'_>,
    guests: &mut Guests,
    guest: u64,
    why: &str,
) {
    let Some(position) = guests.stop(guest) else {
        return;
    };
    let mut name = "?";
    for thread in system.threads.iter().filter(|t| t.guest == guest) {
        let _ = tcb(watched, thread).tcb_suspend();
        if thread.start == Start::Guest {
            name = thread.name.as_str();
        }
    }
    tell(watched, position);
    let _ = write!(Serial, "init: {name} {why}: it is stopped\r\n");
    if guests.none_left() {
        let text = format_args!("no guest is left, the system stops");
        end(system, watched, text);
    }
}

/// Signals the components that take a guest's functions back that it is gone.
fn tell(watched: &Watched<'_>, guest: usize) {
    for signal in &watched.gone[guest] {
        signal.signal();
    }
}

/// Ends the system after what cannot be mended.
fn end(system: &System<'_>, watched: &Watched<'_>, why: core::fmt::Arguments<'_>) -> ! {
    finish(system, watched);
    let _ = write!(Serial, "init: {why}\r\n");
    ports::exit(Ending::Failure)
}

/// Lets everybody else run for that many ticks of the time stamp counter.
fn rest(system: &System<'_>, ticks: u64) {
    let end = runtime::tsc() + ticks;
    let own = slot::TCB.cap();
    // Init's own capability and a lower priority: this cannot fail.
    let _ = own.tcb_set_priority(own, resting_priority(system.threads));
    while runtime::tsc() < end {
        sel4::r#yield();
    }
    let _ = own.tcb_set_priority(own, PRIORITY);
}

/// A component asks for the end of the system.
fn stop(system: &System<'_>, watched: &Watched<'_>, thread: &Thread, stop: Stop) -> ! {
    finish(system, watched);
    let name = thread.name.as_str();
    let _ = write!(Serial, "\r\ninit: {name} stopped the system: {stop}\r\n");
    ports::exit(stop.ending())
}

/// Makes a component or a guest fault: it goes on at an address where nothing is.
fn inject(system: &System<'_>, watched: &Watched<'_>, position: u64) {
    let Some((_, thread)) = thread(system, position) else {
        return;
    };
    let tcb = tcb(watched, thread);
    let done = tcb
        .tcb_suspend()
        .and_then(|()| tcb.tcb_read_all_registers(false))
        .and_then(|registers| {
            let nowhere = sel4::UserContext {
                rip: NOWHERE,
                ..registers
            };
            tcb.tcb_write_all_registers(true, &nowhere)
        });
    if let Err(error) = done {
        let _ = write!(Serial, "init: no fault injected: {error:?}\r\n");
    }
}

/// Prints who faulted, why, and where.
fn report(system: &System<'_>, watched: &Watched<'_>, thread: &Thread, info: MessageInfo) {
    let fault = Fault::from_ipc_buffer(info);
    // Before the next call, whose words take the place of these.
    let mut words = [0; PANIC_WORDS];
    if info.label() == PANIC_LABEL {
        let length = info.length().min(PANIC_WORDS);
        sel4::with_ipc_buffer(|buffer| {
            words[..length].copy_from_slice(&buffer.msg_regs()[..length]);
        });
    }
    let cause = cause(fault, info.label(), stack_size(system, thread));
    let registers = tcb(watched, thread)
        .tcb_read_all_registers(true)
        .unwrap_or_default();
    let _ = write!(
        Serial,
        "\r\ninit: fault component={} ip={:#x} sp={:#x} cause={cause}\r\n",
        thread.name.as_str(),
        registers.rip,
        registers.rsp,
    );
    if info.label() == PANIC_LABEL {
        let _ = write!(Serial, "{}", LastWords(&words));
    }
    print_registers(&registers);
    print_backtrace(system, watched, thread, registers.rbp);
}

/// The component whose fault endpoint has this badge: its position from 1.
fn thread<'a>(system: &System<'a>, badge: u64) -> Option<(usize, &'a Thread)> {
    let index = usize::try_from(badge).ok()?.checked_sub(1)?;
    Some((index, system.threads.get(index)?))
}

fn tcb(watched: &Watched<'_>, thread: &Thread) -> Tcb {
    Tcb::from_bits(watched.first_slots[thread.tcb as usize] as u64)
}

fn stack_size(system: &System<'_>, thread: &Thread) -> u64 {
    if thread.stack == NONE {
        return 0;
    }
    system.objects[thread.stack as usize].pages << 12
}

/// Stops the guests and lets what is left run until it has nothing to do, so
/// that the console can send what was logged before. Only then init goes on: it
/// has the lowest priority now.
fn finish(system: &System<'_>, watched: &Watched<'_>) {
    for thread in system
        .threads
        .iter()
        .filter(|thread| thread.start == Start::Guest)
    {
        let _ = tcb(watched, thread).tcb_suspend();
    }
    let own = slot::TCB.cap();
    let _ = own.tcb_set_priority(own, 0);
    sel4::r#yield();
}

fn cause(fault: Option<Fault>, label: u64, stack_size: u64) -> Cause {
    match fault {
        Some(Fault::VmFault(fault)) if in_guard_page(fault.addr, stack_size) => {
            Cause::StackOverflow(fault.addr)
        }
        Some(Fault::VmFault(fault)) => Cause::Memory {
            address: fault.addr,
            write: fault.is_write(),
            fetch: fault.is_prefetch(),
        },
        Some(Fault::UserException(fault)) => Cause::Exception(fault.number),
        Some(Fault::CapFault(fault)) => Cause::Capability(fault.addr),
        Some(Fault::UnknownSyscall(fault)) => Cause::SystemCall(fault.syscall),
        Some(Fault::NullFault) | None if label == PANIC_LABEL => Cause::Panic,
        Some(Fault::NullFault) | None => Cause::Unknown(label),
    }
}

fn print_registers(registers: &sel4::UserContext) {
    let r = registers;
    for line in [
        [
            ("rax", r.rax),
            ("rbx", r.rbx),
            ("rcx", r.rcx),
            ("rdx", r.rdx),
        ],
        [("rsi", r.rsi), ("rdi", r.rdi), ("rbp", r.rbp), ("r8", r.r8)],
        [("r9", r.r9), ("r10", r.r10), ("r11", r.r11), ("r12", r.r12)],
        [
            ("r13", r.r13),
            ("r14", r.r14),
            ("r15", r.r15),
            ("flags", r.rflags),
        ],
    ] {
        let _ = Serial.write_str("init:  ");
        for (name, value) in line {
            let _ = write!(Serial, " {name}={value:#x}");
        }
        let _ = Serial.write_str("\r\n");
    }
}

fn print_backtrace(system: &System<'_>, watched: &Watched<'_>, thread: &Thread, rbp: u64) {
    if thread.stack == NONE {
        return;
    }
    let size = stack_size(system, thread);
    let bottom = spec::STACK_TOP - size;
    let first = watched.first_slots[thread.stack as usize];
    let read = |address: u64| {
        let offset = address - bottom;
        let frame = Granule::from_bits((first as u64) + offset / 4096);
        frame
            .frame_map(
                slot::VSPACE.cap(),
                SCRATCH,
                CapRights::read_only(),
                VmAttributes::DEFAULT,
            )
            .ok()?;
        let at = core::ptr::with_exposed_provenance::<u64>(SCRATCH + (offset % 4096) as usize);
        // SAFETY: the page is mapped there for this moment, the address is
        // aligned to 8 and the component that owns it is suspended.
        let word = unsafe { at.read() };
        frame.frame_unmap().ok()?;
        Some(word)
    };
    let mut line = String::<{ BACKTRACE_MAX * 20 + 20 }>::new();
    for address in backtrace(rbp, size, read) {
        let _ = write!(line, " {address:#x}");
    }
    let _ = write!(Serial, "init: backtrace{line}\r\n");
}
