//! After boot: waits for a component to stop, says why, and ends the machine.

use core::fmt::Write as _;

use heapless::String;
use init::{BACKTRACE_MAX, Cause, backtrace, in_guard_page};
use sel4::cap::{Granule, Tcb};
use sel4::init_thread::slot;
use sel4::{CapRights, Fault, VmAttributes};
use spec::{NONE, System, Thread};

use super::builder::Watched;
use super::fatal;
use super::ports::{self, Com1};

/// Where a stack page is mapped to be read.
const SCRATCH: usize = 0x2_0000_0000;

/// Waits on the fault endpoint for good.
pub fn watch(system: &System<'_>, watched: &Watched<'_>) -> ! {
    loop {
        let (info, badge) = watched.monitor.recv(());
        let Some(thread) = thread(system, badge) else {
            continue;
        };
        let name = thread.name.as_str();
        if info.label() == runtime::STOP_LABEL {
            let code = sel4::with_ipc_buffer(|buffer| buffer.msg_regs()[0]);
            let stop = runtime::Stop::from_word(code);
            finish(system, watched);
            let _ = write!(Com1, "\r\ninit: {name} stopped the system: {stop}\r\n");
            ports::exit(u8::from(!stop.orderly()));
        }
        let tcb = tcb(watched, thread);
        let cause = cause(
            Fault::from_ipc_buffer(info),
            info.label(),
            stack_size(system, thread),
        );
        let registers = tcb.tcb_read_all_registers(true).unwrap_or_default();
        finish(system, watched);
        let _ = write!(
            Com1,
            "\r\ninit: fault component={name} ip={:#x} sp={:#x} cause={cause}\r\n",
            registers.rip, registers.rsp,
        );
        print_registers(&registers);
        print_backtrace(system, watched, thread, registers.rbp);
        let _ = write!(Com1, "init: {name} is dead, the system stops\r\n");
        ports::exit(fatal::STATUS);
    }
}

/// The component whose fault endpoint has this badge: its position from 1.
fn thread<'a>(system: &System<'a>, badge: u64) -> Option<&'a Thread> {
    system
        .threads
        .get(usize::try_from(badge).ok()?.checked_sub(1)?)
}

fn tcb(watched: &Watched<'_>, thread: &Thread) -> Tcb {
    Tcb::from_bits(watched.first_slots[thread.tcb as usize] as u64)
}

fn stack_size(system: &System<'_>, thread: &Thread) -> u64 {
    if thread.stack == NONE {
        return 0;
    }
    system.objects[thread.stack as usize].count << 12
}

/// Stops the guests and lets what is left run until it has nothing to do, so
/// that the console can send what was logged before. Only then init goes on: it
/// has the lowest priority now.
fn finish(system: &System<'_>, watched: &Watched<'_>) {
    for thread in system.threads.iter().filter(|thread| thread.start == 0) {
        let _ = tcb(watched, thread).tcb_suspend();
    }
    let _ = slot::TCB.cap().tcb_set_priority(0);
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
        let _ = Com1.write_str("init:  ");
        for (name, value) in line {
            let _ = write!(Com1, " {name}={value:#x}");
        }
        let _ = Com1.write_str("\r\n");
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
    let _ = write!(Com1, "init: backtrace{line}\r\n");
}
