//! From the first instruction to the component's main, and its end by panic.

use core::fmt::Write as _;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use sel4::MessageInfo;
use sel4::cap::Endpoint;
use spec::names;

use crate::last_words::LastWords;
use crate::resources::Context;

/// Declares a component's main: a function that takes a
/// [`Context`] and never returns.
///
/// Makes the program's entry point and panic handler in the crate that calls
/// it, so that this crate can be linked into other programs too.
#[macro_export]
macro_rules! component {
    ($main:path) => {
        // init starts a component with its stack pointer at the stack's end,
        // which is aligned to 16 as the ABI wants it before a call; rbp 0 ends
        // backtraces.
        core::arch::global_asm!(
            ".global _start",
            "_start:",
            "xor ebp, ebp",
            "call {start}",
            "ud2",
            start = sym vectis_start,
        );

        extern "C" fn vectis_start(generation: u64) -> ! {
            $main($crate::start(generation))
        }

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::panicked(info)
        }
    };
}

/// Sets up IPC buffer, resources and log; called once, by
/// [`component!`](crate::component). `generation` counts the component's
/// restarts.
#[must_use]
pub fn start(generation: u64) -> Context {
    // SAFETY: init mapped the IPC buffer there for this thread, the only one.
    unsafe { sel4::set_ipc_buffer(spec::IPC_BUFFER_ADDRESS as usize) };
    if generation > 0 {
        // The client that was being served when the component died still waits: the
        // reply capability outlives the crash.
        crate::ipc::reply_gone(generation);
    }
    let context = Context::new(generation);
    crate::log::start(
        context.shared(names::LOG),
        context.capability(names::DOORBELL),
    );
    if generation > 0 {
        defmt::warn!("started again, generation {=u64}", generation);
    }
    context
}

/// Whether a panic was told already: a second one comes from telling it.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Logs the panic and tells the monitor, which ends the thread as if it had faulted, and says
/// why on COM1: the log is for tools, and leaves by the console, which may be the one that
/// panics.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    if !PANICKED.swap(true, Ordering::Relaxed) {
        let mut words = LastWords::new();
        // What there is no room for is cut off.
        let _ = write!(words, "{info}");
        defmt::error!("{}", defmt::Display2Format(info));
        sel4::with_ipc_buffer_mut(|buffer| {
            buffer.msg_regs_mut()[..spec::PANIC_WORDS].copy_from_slice(words.words());
        });
        let monitor = Endpoint::from_bits(spec::FAULT_SLOT);
        monitor.call(MessageInfo::new(spec::PANIC_LABEL, 0, 0, spec::PANIC_WORDS));
    }
    // SAFETY: an invalid instruction stops the thread with a fault; nothing
    // follows.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
